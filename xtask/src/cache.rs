//! The folder for built tools, outside the checkout: `${LEYLINE_CACHE:-$HOME/.cache/leyline}`, one folder per tool and
//! version, so that a fresh clone and a second run build nothing again.
//!
//! A tool is built under another name and renamed when it is complete: an interrupted build leaves nothing that looks
//! finished.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// The cache folder, created when missing.
pub(crate) fn root() -> Result<PathBuf> {
    let folder = match env::var_os("LEYLINE_CACHE").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = env::var_os("HOME").context("neither LEYLINE_CACHE nor HOME is set")?;
            Path::new(&home).join(".cache/leyline")
        }
    };
    fs::create_dir_all(&folder).with_context(|| format!("create the cache folder {}", folder.display()))?;
    Ok(folder)
}

/// The folder of one tool in one version, e.g. `bpf-linker-0.13.0`.
pub(crate) fn tool(name: &str, version: &str) -> Result<PathBuf> {
    Ok(root()?.join(format!("{name}-{version}")))
}

/// Builds one file of the cache unless it is there. `build` gets the path to write to; it is renamed when complete.
pub(crate) fn file(path: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let _lock = lock(path)?;
    if path.exists() {
        return Ok(()); // somebody else built it while we waited
    }
    let partial = sibling(path, "partial")?;
    build(&partial)?;
    fs::rename(&partial, path).with_context(|| format!("move the built {} into place", path.display()))
}

/// Waits for other runs that build the same thing.
fn lock(path: &Path) -> Result<Flock<File>> {
    let lock_path = sibling(path, "lock")?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let file = File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!("lock {}: {errno}", lock_path.display()))
}

fn sibling(path: &Path, ending: &str) -> Result<PathBuf> {
    let name = path
        .file_name()
        .with_context(|| format!("{} has no file name", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{ending}", name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_complete_file_is_not_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool-1/bin/tool");
        file(&path, |to| Ok(fs::write(to, "built")?)).unwrap();
        file(&path, |_| bail!("built twice")).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "built");
    }

    #[test]
    fn a_failed_build_leaves_nothing_that_looks_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        let failed = file(&path, |to| {
            fs::write(to, "half")?;
            bail!("interrupted")
        });
        assert!(failed.is_err() && !path.exists());
    }
}
