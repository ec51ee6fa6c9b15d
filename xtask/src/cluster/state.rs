//! The state folder of the cluster, outside the checkout: `${LEYLINE_STATE:-/var/lib/leyline-cluster}`.
//!
//! It holds everything the cluster writes to disk, and what is needed to undo the few changes outside of it.

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// Paths inside the state folder.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    /// The state folder of this machine; it need not exist.
    pub(crate) fn of_this_machine() -> Result<Self> {
        let root = match env::var_os("LEYLINE_STATE").filter(|value| !value.is_empty()) {
            Some(folder) => {
                std::path::absolute(PathBuf::from(folder)).context("make LEYLINE_STATE an absolute path")?
            }
            None => PathBuf::from("/var/lib/leyline-cluster"),
        };
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The same as text, for configuration files and arguments.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    pub(crate) fn exists(&self) -> bool {
        self.root.exists()
    }

    /// Makes a folder in the state folder.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that others may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        self.write_with_mode(name, content, 0o644)
    }

    /// Writes a file for root alone.
    pub(crate) fn write_secret(&self, name: &str, content: &str) -> Result<PathBuf> {
        self.write_with_mode(name, content, 0o600)
    }

    fn write_with_mode(&self, name: &str, content: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        // The mode is set before the content is there: a secret is never readable, not even for a moment.
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        file.set_permissions(Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {}", path.display()))?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Held by whoever changes the cluster; a second `up` or `down` waits for the first.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        let path = self.root.with_extension("lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| anyhow!("lock {}: {errno}", path.display()))
    }
}

#[cfg(test)]
impl State {
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }
}
