//! Everything a fresh Debian 12 with git, rustup, Go and root needs: packages, Rust, bpf-linker, cargo-deny, the programs
//! of the test cluster. Each part looks first and does nothing when it is already there.
//!
//! IO: the package registries (of Debian, Rust and Go) through their ordinary clients, the cache folder.

mod bpf_linker;
pub(crate) mod cargo_deny;
mod debian;
pub(crate) mod go_tools;
mod rust;

pub(crate) use bpf_linker::folder as bpf_linker_folder;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::step::{self, say};

/// Sets up everything.
pub(crate) fn all() -> Result<()> {
    for_build()?;
    for_cluster()?;
    cargo_deny::ensure()?;
    say("set-up complete");
    Ok(())
}

/// What building Leyline itself needs.
pub(crate) fn for_build() -> Result<()> {
    debian::install(debian::PACKAGES)?;
    rust::ensure()?;
    bpf_linker::ensure()
}

/// Further Debian packages that one command needs, e.g. load generators.
pub(crate) fn debian_packages(names: &[&str]) -> Result<()> {
    debian::install(names)
}

/// What the test cluster needs.
pub(crate) fn for_cluster() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the cluster needs root: network namespaces, mounts and cgroups"
    );
    debian::install(debian::PACKAGES)?;
    go_tools::ensure()
}

/// Runs `cargo install` into a folder of its own and moves the one program `name` to `to`.
fn cargo_install(command: &mut Command, name: &str, to: &Path) -> Result<()> {
    let build = tempfile::Builder::new()
        .prefix("leyline-install-")
        .tempdir()
        .context("make a build folder")?;
    // Flags meant for the workspace must not reach a tool that is built once for every checkout.
    command
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .arg("--root")
        .arg(build.path());
    step::run(command, &format!("install-{name}"))?;
    let program = build.path().join("bin").join(name);
    fs::copy(&program, to).with_context(|| format!("copy {} to {}", program.display(), to.display()))?;
    Ok(())
}
