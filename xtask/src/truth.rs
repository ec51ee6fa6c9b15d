//! `cargo xtask e2e truth`: every scenario of the ground truth on the two-node cluster, as a table with precision and
//! recall.
//!
//! Inputs: the checkout and this machine. Outputs: the table, the applications' raw logs and the objects in
//! `target/truth/<time>/`, a JSON file on request; the exit code says whether everything is exact. The cluster stays up.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use leyline_e2e::kubectl::Kubectl;
use leyline_e2e::traffic::now_ms;
use leyline_e2e::truth::{catalog, run, table};

use crate::images::{self, Image};
use crate::setup::go_tools;
use crate::step::say;
use crate::{cluster, demo, setup, workspace};

/// Random topologies of some fifteen pods each.
const SIDE_BY_SIDE: usize = 4;

/// End-to-end checks that can be run by themselves.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum E2e {
    /// Compare what Leyline shows with what real applications say they did
    Truth(Truth),
}

/// Options of `e2e truth`.
#[derive(Debug, clap::Args)]
pub(crate) struct Truth {
    /// Draws the random topology; the same number gives the same one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Random topologies of so many numbers, from `--seed` up
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Only these scenarios (several after one another); none named: all
    #[arg(long, num_args = 1..)]
    scenario: Vec<String>,
    /// Write the result into this file as well
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use the cluster, the images and the Leyline that are there, whatever they were built from
    #[arg(long)]
    as_is: bool,
}

pub(crate) fn run(task: &E2e) -> Result<()> {
    match task {
        E2e::Truth(options) => truth(options),
    }
}

fn truth(options: &Truth) -> Result<()> {
    let scenarios = catalog::named(options.seed, &options.scenario)?;
    workspace::own_program()?;
    setup::for_build()?;
    let kubeconfig = cluster::kubeconfig()?;
    let kubectl = Kubectl::new(&go_tools::kubernetes_folder()?.join("kubectl"), &kubeconfig);
    if !options.as_is {
        let archives = images::build_all(&[Image::Operator, Image::NodeAgent, Image::Traffic])?;
        cluster::up()?;
        cluster::load_images(&archives)?;
        demo::install(&kubectl)?;
    }
    let folder = workspace::target_folder().join(format!("truth/{}", now_ms()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let mut place = run::Options {
        traffic: images::program_path(Image::Traffic)?,
        xtask: workspace::own_program()?.to_owned(),
        folder: folder.clone(),
        cluster: kubeconfig
            .parent()
            .context("the kubeconfig has no folder")?
            .to_owned(),
    };
    let mut rows = run::run(&kubectl, &place, &scenarios)?;
    let last = options.seed.saturating_add(options.seeds.max(1));
    let further = catalog::topologies(options.seed.saturating_add(1)..last);
    for (number, together) in further.chunks(SIDE_BY_SIDE).enumerate() {
        place.folder = folder.join(format!("seeds-{}", number + 1));
        rows.extend(run::run(&kubectl, &place, together)?);
    }
    say(&table::print(&rows, catalog::KNOWN_WRONG));
    say(&format!("logs and objects: {}", folder.display()));
    let result = table::json(&rows, catalog::KNOWN_WRONG);
    let result = serde_json::to_string_pretty(&result).context("encode the result")?;
    let own = folder.join("result.json");
    for path in options.json.iter().chain([&own]) {
        fs::write(path, &result).with_context(|| format!("write {}", path.display()))?;
    }
    table::ensure_exact(&rows)
}
