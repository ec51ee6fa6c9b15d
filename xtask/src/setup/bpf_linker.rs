//! bpf-linker, which turns the LLVM bitcode of the eBPF crate into one object file. It must not be older than rustc's
//! LLVM, so it is built against Debian's LLVM of the same version.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{cache, step, workspace};

/// rustc 1.98 carries LLVM 22; so does this.
const VERSION: &str = "0.13.0";
const LLVM: &str = "22";

/// The folder with the program, to be put in front of PATH.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(cache::tool("bpf-linker", VERSION)?.join("bin"))
}

/// Builds it when missing.
pub(crate) fn ensure() -> Result<()> {
    cache::file(&folder()?.join("bpf-linker"), |to| {
        step::step(&format!("build bpf-linker {VERSION} (about a minute)"), || {
            super::cargo_install(
                workspace::cargo()
                    .env("LLVM_PREFIX", format!("/usr/lib/llvm-{LLVM}"))
                    .args([
                        "install",
                        "bpf-linker",
                        "--version",
                        VERSION,
                        "--locked",
                        "--no-default-features",
                    ])
                    .args(["--features", &format!("llvm-{LLVM}")]),
                "bpf-linker",
                to,
            )
            .with_context(|| format!("missing: bpf-linker {VERSION}, which could not be built"))
        })
    })
}
