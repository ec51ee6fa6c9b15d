//! Developer commands of Leyline: `cargo xtask help` lists them. The Makefile is a thin front over this.

mod bench;
mod cache;
mod cluster;
mod demo;
mod images;
mod levels;
mod outside;
mod setup;
mod step;
mod truth;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Developer commands of Leyline",
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install or build everything that is needed: packages, Rust, bpf-linker, the cluster's programs
    Setup,
    /// A real Kubernetes cluster of two nodes on this machine
    #[command(subcommand)]
    Cluster(ClusterTask),
    /// The whole thing: cluster, Leyline, sample application, comparison with what must be found
    Demo,
    /// Remove what `demo` made
    DemoDown,
    /// A machine outside the cluster that the sample application calls
    #[command(subcommand)]
    Outside(outside::Outside),
    /// Build container images and print where their archives are
    Image {
        /// Which ones; none named: all
        images: Vec<images::Image>,
    },
    /// Run the levels of tests (none named: all); a level that is skipped or empty is an error
    Test {
        /// Which levels
        levels: Vec<levels::Level>,
        /// Use the cluster that is up, if there is one, and leave it up
        #[arg(long)]
        keep: bool,
    },
    /// Check formatting, clippy, docs and dependencies
    Lint,
    /// Write the CRD files from the types in crates/api
    Crds {
        /// Only compare; fails when a file differs
        #[arg(long)]
        check: bool,
    },
    /// End-to-end checks that can be run by themselves
    #[command(subcommand)]
    E2e(truth::E2e),
    /// Measure what the agent costs and sees
    #[command(subcommand)]
    Bench(bench::Bench),
}

#[derive(Debug, Subcommand)]
enum ClusterTask {
    /// Make the cluster, or leave a whole one as it is; prints the kubeconfig
    Up,
    /// Remove the cluster completely
    Down,
    /// Show every component with its pid; fails when one is down
    Status,
    /// Import docker archives into the container runtimes of both nodes
    LoadImage {
        /// Files as `skopeo copy … docker-archive:FILE` writes them
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// End one component with SIGKILL
    Kill {
        /// As `status` names it; `apiserver` means `kube-apiserver`
        component: String,
    },
    /// Start one component again with the same command line and wait until it works
    Start {
        /// As `status` names it; `apiserver` means `kube-apiserver`
        component: String,
    },
    /// Restart kube-proxy of both nodes in this mode (nftables is the default)
    ProxyMode {
        /// Which
        mode: cluster::ProxyMode,
    },
    /// Switch whether pods of the other node see a pod's own address (off) or its node's (on, the default)
    Masquerade {
        /// On or off
        mode: cluster::Masquerade,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::all(),
        Task::Demo => demo::up(),
        Task::DemoDown => demo::down(),
        Task::Outside(task) => outside::run(&task),
        Task::Image { images } => build_images(&images),
        Task::Test { levels, keep } => levels::run(&levels, keep),
        Task::Lint => levels::lint(),
        Task::Crds { check } => crds(check),
        Task::E2e(task) => truth::run(&task),
        Task::Bench(task) => bench::run(&task),
        Task::Cluster(task) => match task {
            ClusterTask::Up => cluster::up(),
            ClusterTask::Down => cluster::down(),
            ClusterTask::Status => cluster::status(),
            ClusterTask::LoadImage { files } => cluster::load_images(&files),
            ClusterTask::Kill { component } => cluster::kill(&component),
            ClusterTask::Start { component } => cluster::start(&component),
            ClusterTask::ProxyMode { mode } => cluster::proxy_mode(mode),
            ClusterTask::Masquerade { mode } => cluster::masquerade(mode),
        },
    }
}

fn build_images(images: &[images::Image]) -> Result<()> {
    setup::for_build()?;
    let wanted = if images.is_empty() {
        &images::Image::ALL
    } else {
        images
    };
    for archive in images::build_all(wanted)? {
        step::say(&archive.display().to_string());
    }
    Ok(())
}

/// The generator is a program of crates/api, so that this crate compiles without Kubernetes' types.
fn crds(check: bool) -> Result<()> {
    let mut command = workspace::cargo();
    command.args([
        "run",
        "--quiet",
        "--package",
        "leyline-api",
        "--bin",
        "crds",
        "--",
    ]);
    if check {
        command.arg("--check");
    }
    let status = command.status().context("run the CRD generator")?;
    ensure!(status.success(), "the CRD generator failed ({status})");
    Ok(())
}
