//! Thread group → systemd unit, else executable, else what the kernel called it.
//!
//! Answers are cached, bounded, for as long as the process keeps its start time: a thread group's number is used
//! again one day. A process that is gone is remembered for a minute. One that was gone before anybody looked has
//! nothing but its `comm`; it is called like the living processes with the same `comm`, where they agree, so that
//! a short-lived `python3` and a long-lived one are not two (`python3` and `python3.11`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leyline_identity::{CgroupIdentity, identify_process, sanitise};

/// Most processes remembered; when full the table starts anew.
const CAPACITY: usize = 8_192;
/// Most `comm`s whose executable is remembered.
const MAX_COMMS: usize = 1_024;
/// How long an answer may be used without asking `/proc` whether the process is still the same.
const TRUSTED: Duration = Duration::from_secs(5);
/// How long a process that is gone keeps its name.
const KEPT: Duration = Duration::from_secs(60);
/// Longest file of `/proc` that is read.
const MAX_FILE: u64 = 16 * 1024;

#[derive(Clone)]
struct Process {
    started: u64,
    pod: Option<Arc<str>>,
    name: Option<Arc<str>>,
    seen_ns: u64,
}

/// See the module's documentation.
pub struct Processes {
    proc: PathBuf,
    known: HashMap<u32, Process>,
    /// What processes with this `comm` are called; `None` when they disagree.
    by_comm: HashMap<String, Option<Arc<str>>>,
}

impl Processes {
    /// Reads from `proc`, which is `/proc` of the host's process namespace.
    #[must_use]
    pub fn new(proc: PathBuf) -> Self {
        Self {
            proc,
            known: HashMap::new(),
            by_comm: HashMap::new(),
        }
    }

    /// The pod a process belongs to by its own cgroups.
    pub fn pod(&mut self, tgid: u32, now_ns: u64) -> Option<Arc<str>> {
        self.look_up(tgid, now_ns)?.pod
    }

    /// What a process is called. `comm` is asked when it is gone.
    pub fn name(
        &mut self,
        tgid: u32,
        now_ns: u64,
        comm: impl FnOnce(u32) -> Option<[u8; 16]>,
    ) -> Option<Arc<str>> {
        if let Some(name) = self.look_up(tgid, now_ns).and_then(|process| process.name) {
            return Some(name);
        }
        let comm = comm(tgid)?;
        let text = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let comm = sanitise(text)?;
        let agreed = self.by_comm.get(&comm).cloned().flatten();
        Some(agreed.unwrap_or_else(|| comm.into()))
    }

    fn remember_comm(&mut self, comm: String, name: &Arc<str>) {
        if self.by_comm.len() >= MAX_COMMS && !self.by_comm.contains_key(&comm) {
            self.by_comm.clear();
        }
        let agreed = self.by_comm.entry(comm).or_insert_with(|| Some(Arc::clone(name)));
        if agreed.as_ref() != Some(name) {
            *agreed = None;
        }
    }

    fn look_up(&mut self, tgid: u32, now_ns: u64) -> Option<Process> {
        if tgid == 0 {
            return None;
        }
        let remembered = self.known.get(&tgid);
        let age = |process: &Process| Duration::from_nanos(now_ns.saturating_sub(process.seen_ns));
        if let Some(process) = remembered.filter(|process| age(process) < TRUSTED) {
            return Some(process.clone());
        }
        let Some(started) = self.started(tgid) else {
            return remembered.filter(|process| age(process) < KEPT).cloned();
        };
        let process = match remembered.filter(|process| process.started == started) {
            Some(same) => Process {
                seen_ns: now_ns,
                ..same.clone()
            },
            None => self.read(tgid, started, now_ns),
        };
        if self.known.len() >= CAPACITY {
            self.known.clear();
        }
        self.known.insert(tgid, process.clone());
        Some(process)
    }

    fn read(&mut self, tgid: u32, started: u64, now_ns: u64) -> Process {
        let cgroups = self.file(tgid, "cgroup").unwrap_or_default();
        let (pod, unit) = match identify_process(&cgroups) {
            CgroupIdentity::Pod { uid, container: _ } => (Some(uid), None),
            CgroupIdentity::Unit(unit) => (None, Some(unit)),
            CgroupIdentity::Other => (None, None),
        };
        let comm = self
            .file(tgid, "comm")
            .and_then(|comm| sanitise(comm.trim_ascii()));
        let name = unit
            .or_else(|| self.executable(tgid))
            .or_else(|| comm.clone())
            .map(Arc::from);
        if let (None, Some(comm), Some(name)) = (&pod, comm, &name) {
            self.remember_comm(comm, name);
        }
        Process {
            started,
            pod: pod.map(Arc::from),
            name,
            seen_ns: now_ns,
        }
    }

    /// The executable's file name, also after the file was replaced by an upgrade.
    fn executable(&self, tgid: u32) -> Option<String> {
        let target = fs::read_link(self.path(tgid, "exe")).ok()?;
        let bytes = target.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        sanitise(bytes.rsplit(|byte| *byte == b'/').next()?)
    }

    /// Start time in clock ticks: field 22 of `stat`, counted after the name, which may hold anything.
    fn started(&self, tgid: u32) -> Option<u64> {
        let stat = self.file(tgid, "stat")?;
        let after_name = stat.get(stat.iter().rposition(|byte| *byte == b')')? + 1..)?;
        let field = after_name
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty())
            .nth(19)?;
        std::str::from_utf8(field).ok()?.parse().ok()
    }

    fn file(&self, tgid: u32, name: &str) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        File::open(self.path(tgid, name))
            .ok()?
            .take(MAX_FILE)
            .read_to_end(&mut text)
            .ok()?;
        Some(text)
    }

    fn path(&self, tgid: u32, name: &str) -> PathBuf {
        self.proc.join(tgid.to_string()).join(name)
    }

    /// Forgets processes nobody asked about for a minute.
    pub fn expire(&mut self, now_ns: u64) {
        self.known
            .retain(|_, process| Duration::from_nanos(now_ns.saturating_sub(process.seen_ns)) < KEPT);
    }
}

/// The inode number of this process's network namespace.
///
/// # Errors
/// `/proc` is not mounted.
pub fn own_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn fake(proc: &std::path::Path, tgid: u32, name: &str, started: u64, cgroup: &str, exe: Option<&str>) {
        let folder = proc.join(tgid.to_string());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let zeros = "0 ".repeat(18);
        fs::write(
            folder.join("stat"),
            format!("{tgid} ({name}) S {zeros}{started} 0 0\n"),
        )
        .unwrap();
        fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
        fs::write(folder.join("cgroup"), cgroup).unwrap();
        if let Some(exe) = exe {
            std::os::unix::fs::symlink(exe, folder.join("exe")).unwrap();
        }
    }

    #[test]
    fn a_process_is_called_by_unit_then_executable_then_comm() {
        let proc = tempfile::tempdir().unwrap();
        fake(
            proc.path(),
            10,
            "nginx: worker",
            5,
            "0::/system.slice/nginx.service\n",
            Some("/usr/sbin/nginx"),
        );
        fake(
            proc.path(),
            11,
            "evil) S 1 1",
            5,
            "0::/\n",
            Some("/usr/bin/kube let (deleted)"),
        );
        fake(proc.path(), 12, "kworker/0:1", 5, "0::/\n", None);
        let mut processes = Processes::new(proc.path().to_owned());
        assert_eq!(processes.name(10, 0, |_| None).as_deref(), Some("nginx.service"));
        assert_eq!(processes.name(11, 0, |_| None).as_deref(), Some("kube-let"));
        assert_eq!(processes.name(12, 0, |_| None).as_deref(), Some("kworker-0:1"));
        assert_eq!(
            processes
                .name(13, 0, |_| Some(*b"cu\xffrl\0\0\0\0\0\0\0\0\0\0\0"))
                .as_deref(),
            Some("cu-rl")
        );
        assert_eq!(processes.name(13, 0, |_| None), None);
        assert_eq!(processes.name(0, 0, |_| None), None);
    }

    #[test]
    fn a_number_that_is_used_again_gets_the_new_name() {
        let proc = tempfile::tempdir().unwrap();
        fake(proc.path(), 10, "old", 5, "0::/\n", Some("/bin/old"));
        let mut processes = Processes::new(proc.path().to_owned());
        assert_eq!(processes.name(10, 0, |_| None).as_deref(), Some("old"));
        fake(proc.path(), 10, "new", 6, "0::/\n", Some("/bin/new"));
        assert_eq!(processes.name(10, 10 * SECOND, |_| None).as_deref(), Some("new"));
        fs::remove_dir_all(proc.path().join("10")).unwrap();
        assert_eq!(processes.name(10, 20 * SECOND, |_| None).as_deref(), Some("new"));
        processes.expire(120 * SECOND);
        assert_eq!(processes.name(10, 120 * SECOND, |_| None), None);
    }

    #[test]
    fn a_process_that_was_never_looked_at_is_called_like_its_living_namesakes() {
        let proc = tempfile::tempdir().unwrap();
        fake(
            proc.path(),
            10,
            "python3",
            5,
            "0::/\n",
            Some("/usr/bin/python3.11"),
        );
        let mut processes = Processes::new(proc.path().to_owned());
        let gone = |_| Some(*b"python3\0\0\0\0\0\0\0\0\0");
        assert_eq!(processes.name(99, 0, gone).as_deref(), Some("python3"));
        assert_eq!(processes.name(10, 0, |_| None).as_deref(), Some("python3.11"));
        assert_eq!(processes.name(99, 0, gone).as_deref(), Some("python3.11"));
        fake(
            proc.path(),
            11,
            "python3",
            5,
            "0::/\n",
            Some("/opt/bin/python3.14"),
        );
        assert_eq!(processes.name(11, 0, |_| None).as_deref(), Some("python3.14"));
        assert_eq!(
            processes.name(99, 0, gone).as_deref(),
            Some("python3"),
            "they disagree"
        );
    }

    #[test]
    fn a_process_in_a_pod_says_so() {
        let proc = tempfile::tempdir().unwrap();
        let uid = "0a4f9c1e-1d2b-4c3d-8e5f-6a7b8c9d0e1f";
        fake(
            proc.path(),
            10,
            "app",
            5,
            &format!("4:memory:/kubepods/pod{uid}/c\n0::/\n"),
            Some("/app"),
        );
        let mut processes = Processes::new(proc.path().to_owned());
        assert_eq!(processes.pod(10, 0).as_deref(), Some(uid));
    }
}
