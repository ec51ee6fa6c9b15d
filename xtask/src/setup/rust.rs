//! The pinned Rust toolchain with its components and the musl target.
//!
//! `bootstrap.sh` has installed it before this program could be compiled; this only completes it (a component or target
//! that was added to `rust-toolchain.toml` since), and names what is missing.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{step, workspace};

/// Completes the toolchain.
pub(crate) fn ensure() -> Result<()> {
    step::run(
        Command::new("sh").arg(workspace::root().join("xtask/bootstrap.sh")),
        "rust-toolchain",
    )
    .context("missing: a part of the Rust toolchain")
}
