//! tracefs at its usual place, which the agent's probes need and some machines do not mount.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::state::State;

const FOLDER: &str = "/sys/kernel/tracing";
/// Says that the mount is ours.
const MARK: &str = "tracefs-mounted";

/// Mounts it when missing.
pub(crate) fn create(state: &State) -> Result<()> {
    if is_mounted() {
        return Ok(());
    }
    state.write(MARK, "")?;
    mount(
        Some("nodev"),
        FOLDER,
        Some("tracefs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount tracefs at {FOLDER}"))
}

/// Unmounts it when [`create`] mounted it.
pub(crate) fn remove(state: &State) {
    if state.path(MARK).exists() {
        let _ = umount2(Path::new(FOLDER), MntFlags::MNT_DETACH);
    }
}

fn is_mounted() -> bool {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(FOLDER))
}
