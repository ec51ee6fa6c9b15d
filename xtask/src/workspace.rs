//! Where things are: the checkout, cargo's target folder, cargo itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

static OWN_PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The path of this very program. Asked for once, at the start: when cargo links a new one meanwhile, the kernel calls the
/// running one deleted, but the path stays good.
pub(crate) fn own_program() -> Result<&'static Path> {
    if let Some(path) = OWN_PROGRAM.get() {
        return Ok(path);
    }
    let path = env::current_exe().context("find this program")?;
    Ok(OWN_PROGRAM.get_or_init(|| path))
}

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// A file that belongs to xtask, in `xtask/assets/`.
pub(crate) fn asset(name: &str) -> PathBuf {
    root().join("xtask/assets").join(name)
}

/// Cargo's target folder, as cargo itself finds it for this workspace.
pub(crate) fn target_folder() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo, started in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
