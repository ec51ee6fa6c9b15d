//! cargo-deny, for licences, bans and sources of the dependencies.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{cache, step, workspace};

const VERSION: &str = "0.20.2";

/// The program.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(cache::tool("cargo-deny", VERSION)?.join("bin/cargo-deny"))
}

/// Builds it when missing.
pub(crate) fn ensure() -> Result<()> {
    cache::file(&program()?, |to| {
        step::step(&format!("build cargo-deny {VERSION} (some minutes)"), || {
            super::cargo_install(
                workspace::cargo().args(["install", "cargo-deny", "--version", VERSION, "--locked"]),
                "cargo-deny",
                to,
            )
            .with_context(|| format!("missing: cargo-deny {VERSION}, which could not be built"))
        })
    })
}
