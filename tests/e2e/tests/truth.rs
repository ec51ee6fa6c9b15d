//! The ground truth as part of the end-to-end level: every scenario once, with one random topology.

use std::path::Path;

use anyhow::{Context as _, Result};
use leyline_e2e::kubectl::Kubectl;
use leyline_e2e::truth::{catalog, run, table};

const SEED: u64 = 1;

#[test]
#[ignore = "needs the two-node cluster"]
fn every_edge_is_what_the_applications_did() -> Result<()> {
    let kubectl = Kubectl::from_env()?;
    let kubeconfig = std::env::var_os("KUBECONFIG").context("KUBECONFIG is not set")?;
    let cluster = Path::new(&kubeconfig)
        .parent()
        .context("the kubeconfig has no folder")?;
    let xtask = std::env::var_os("LEYLINE_XTASK").context("LEYLINE_XTASK is not set: the path of xtask")?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("truth");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let options = run::Options {
        traffic: env!("CARGO_BIN_EXE_leyline-e2e-traffic").into(),
        xtask: xtask.into(),
        folder,
        cluster: cluster.to_owned(),
    };
    let rows = run::run(&kubectl, &options, &catalog::all(SEED))?;
    println!("{}", table::print(&rows, catalog::KNOWN_WRONG));
    println!("logs and objects: {}", options.folder.display());
    table::ensure_exact(&rows)
}
