//! The daemons of the cluster: started in a session of their own, known by a file each in `<state>/run/`, ended by pid.
//!
//! A pid alone may belong to somebody else by the time it is read, so the start time of the process is kept beside it
//! and compared before every signal. The command line is kept too: `cluster start` runs exactly what `cluster up` ran.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::step::{self, wait_for};

/// Where the daemons find the programs they call (runc, CNI plugins are named by path, nft, conntrack, mount).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What one daemon is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The network namespace it runs in; none: the machine's.
    pub(crate) netns: Option<String>,
}

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    start_time: u64,
}

impl Component {
    pub(crate) fn new(name: &str, program: &Path, args: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args,
            netns: None,
        }
    }

    pub(crate) fn in_netns(mut self, netns: Option<&str>) -> Self {
        self.netns = netns.map(str::to_owned);
        self
    }

    /// All components that were ever started in this state folder, in the order of their names.
    pub(crate) fn all(state: &State) -> Result<Vec<Self>> {
        let folder = state.path("run");
        let Ok(entries) = fs::read_dir(&folder) else {
            return Ok(Vec::new());
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry
                .with_context(|| format!("list {}", folder.display()))?
                .path();
            if path.extension().is_some_and(|ending| ending == "component") {
                let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                // A half-written file of an interrupted start names no process.
                all.extend(serde_json::from_str::<Self>(&text).ok());
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The component with this name; `apiserver` means `kube-apiserver`.
    pub(crate) fn named(state: &State, name: &str) -> Result<Self> {
        let all = Self::all(state)?;
        let full = format!("kube-{name}");
        if let Some(found) = all.iter().find(|one| one.name == name || one.name == full) {
            return Ok(found.clone());
        }
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        bail!("no component `{name}`; there are: {}", names.join(", "))
    }

    pub(crate) fn log(&self, state: &State) -> PathBuf {
        state.path("logs").join(format!("{}.log", self.name))
    }

    /// Starts it and writes down what was started.
    pub(crate) fn start(&self, state: &State) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("encode the component")?;
        state.write(&format!("run/{}.component", self.name), &text)?;
        state.folder("logs")?;
        let path = self.log(state);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let errors = log.try_clone().context("share the log file")?;
        // setsid and nsenter replace themselves by the program: the pid stays the same.
        let mut command = Command::new("setsid");
        if let Some(netns) = &self.netns {
            command.args(["nsenter", &format!("--net=/run/netns/{netns}"), "--"]);
        }
        let child = command
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let pid = i32::try_from(child.id()).context("pid does not fit")?;
        let start_time = stat(pid).map(|stat| stat.start_time).unwrap_or_default();
        let running = serde_json::to_string(&Running { pid, start_time }).context("encode the pid")?;
        state.write(&format!("run/{}.pid", self.name), &running)?;
        Ok(())
    }

    /// The living process of this component.
    pub(crate) fn running(&self, state: &State) -> Option<Running> {
        let text = fs::read_to_string(state.path(&format!("run/{}.pid", self.name))).ok()?;
        let running: Running = serde_json::from_str(&text).ok()?;
        running.alive().then_some(running)
    }

    /// Fails with the end of the log when the process has ended.
    pub(crate) fn check(&self, state: &State) -> Result<()> {
        if self.running(state).is_some() {
            return Ok(());
        }
        let log = self.log(state);
        let reason = format!(
            "{} has ended; log: {}\n{}",
            self.name,
            log.display(),
            step::tail(&log)
        );
        Err(step::Hopeless(reason).into())
    }
}

impl Running {
    fn alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.ended)
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(self) -> Result<()> {
        if self.alive() {
            kill_pid(self.pid)?;
        }
        wait_for(
            &format!("process {} ends", self.pid),
            Duration::from_secs(10),
            || {
                reap(self.pid);
                ensure!(!self.alive(), "it is still there");
                Ok(())
            },
        )
    }
}

/// Sends SIGKILL; a process that has ended meanwhile is no error.
pub(crate) fn kill_pid(pid: i32) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("kill process {pid}")),
    }
}

/// Collects a child of this very run; for everybody else's children this does nothing.
fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

/// Processes whose program is one of `programs` and whose command line names the state folder: what an earlier run left
/// behind without a pid file.
pub(crate) fn strays(state: &State, programs: &[&str]) -> Vec<i32> {
    let marker = format!("{}/", state.root().display());
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let Ok(bytes) = fs::read(format!("/proc/{pid}/cmdline")) else {
                return false;
            };
            is_stray(&String::from_utf8_lossy(&bytes), &marker, programs)
        })
        .collect()
}

fn is_stray(cmdline: &str, marker: &str, programs: &[&str]) -> bool {
    let program = cmdline.split('\0').next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    programs.contains(&name) && cmdline.contains(marker)
}

struct Stat {
    ended: bool,
    start_time: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 3 is the state, field 22 the start time; field 2 is a name in brackets that may contain anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat {
        ended: matches!(state, "Z" | "X"),
        start_time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_start_time() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 10";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.start_time, stat.ended), (777, false));
    }

    #[test]
    fn a_zombie_has_ended() {
        let line = "42 (x) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 0 0";
        assert!(parse_stat(line).unwrap().ended);
    }

    #[test]
    fn only_our_programs_with_our_folder_are_strays() {
        let programs = ["kubelet", "containerd-shim-runc-v2"];
        let shim = "/usr/bin/containerd-shim-runc-v2\0-address\0/state/node-a/containerd.sock\0";
        assert!(is_stray(shim, "/state/", &programs));
        assert!(!is_stray(shim, "/other/", &programs));
        assert!(!is_stray(
            "kubectl\0--kubeconfig\0/state/admin.kubeconfig\0",
            "/state/",
            &programs
        ));
        assert!(!is_stray("", "/state/", &programs));
    }

    #[test]
    fn a_daemon_is_started_found_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path());
        let sleeper = Component::new("kube-sleeper", Path::new("/bin/sleep"), vec!["600".to_owned()]);
        sleeper.start(&state).unwrap();
        assert_eq!(Component::named(&state, "sleeper").unwrap(), sleeper);
        let running = sleeper.running(&state).unwrap();
        running.kill().unwrap();
        assert_eq!(sleeper.running(&state), None);
        assert!(sleeper.check(&state).is_err());
    }

    #[test]
    fn a_pid_that_somebody_else_got_is_not_ours() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(
            !Running {
                pid: own,
                start_time: 1
            }
            .alive()
        );
    }
}
