//! Killing parts of the cluster and of Leyline, always by pid.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::leyline;

/// Longest name the kernel keeps of a process.
const COMM: usize = 15;

/// Runs xtask: `cluster kill` is SIGKILL to a component, `cluster start` waits until it works again, `outside up` makes a
/// machine outside the cluster.
///
/// # Errors
/// With what it printed.
pub fn xtask(args: &[&str]) -> Result<()> {
    let program =
        env::var_os("LEYLINE_XTASK").context("LEYLINE_XTASK is not set: the path of the xtask program")?;
    let output = Command::new(program).args(args).output().context("start xtask")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!(
            "xtask {}: {} {}",
            args.join(" "),
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(())
}

/// A cluster that works in another way, until the value is dropped.
#[derive(Debug)]
pub struct Switched {
    back: &'static [&'static str],
}

impl Switched {
    /// Runs `xtask cluster <there>` now, and `xtask cluster <back>` in the end.
    ///
    /// # Errors
    /// As [`xtask`].
    pub fn to(there: &[&str], back: &'static [&'static str]) -> Result<Self> {
        // Made first: half of a switch is undone as well.
        let switched = Self { back };
        xtask(&[&["cluster"], there].concat())?;
        Ok(switched)
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if let Err(error) = xtask(&[&["cluster"], self.back].concat()) {
            eprintln!("`cluster {}` failed: {error:#}", self.back.join(" "));
        }
    }
}

/// Sends SIGKILL to the process of each pod of a program of Leyline. Gives how many there were.
///
/// # Errors
/// When a pod has no process here.
pub fn kill_program(kubectl: &Kubectl, app: &str) -> Result<usize> {
    let pods = leyline::pods(kubectl, app)?;
    ensure!(!pods.is_empty(), "no pod of {app}");
    for pod in &pods {
        let uid = pod
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .context("a pod without uid")?;
        let pid = process(uid, app)?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill {app}, pid {pid}"))?;
    }
    Ok(pods.len())
}

/// The process named `name` in the pod `uid`: both nodes' pods run on this machine's kernel.
fn process(uid: &str, name: &str) -> Result<i32> {
    let comm = name.get(..COMM).unwrap_or(name);
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let path = entry.context("list /proc")?.path();
        let Some(pid) = path
            .file_name()
            .and_then(|it| it.to_str())
            .and_then(|it| it.parse::<i32>().ok())
        else {
            continue;
        };
        // A process may end while it is looked at.
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("comm").trim_end() == comm && read("cgroup").contains(uid) {
            return Ok(pid);
        }
    }
    bail!("no process {name} in a pod with uid {uid} on this machine")
}
