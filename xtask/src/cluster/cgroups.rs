//! cgroups of the pods: made for node-b, whose kubelet wants its root to be there, and removed with all processes in them.
//!
//! A machine may have several hierarchies (v1 controllers beside cgroup2); everything happens in each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::node::NODES;
use super::process::kill_pid;

/// Mount points of all hierarchies.
fn hierarchies() -> Vec<Hierarchy> {
    parse_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    path: PathBuf,
    unified: bool,
}

/// mountinfo: id parent device root *mount point* options … `-` *type* source options.
fn parse_mounts(mountinfo: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let unified = match kind.split(' ').next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            Some(Hierarchy {
                path: PathBuf::from(mount.split(' ').nth(4)?),
                unified,
            })
        })
        .collect()
}

/// Where the pods of a kubelet with this root are.
fn top(cgroup_root: &str) -> &str {
    match cgroup_root.trim_start_matches('/') {
        "" => "kubepods",
        root => root,
    }
}

/// Makes the root cgroup of every node that has one of its own.
pub(crate) fn create() -> Result<()> {
    for node in NODES.iter().filter(|node| node.cgroup_root != "/") {
        for Hierarchy { path, unified } in hierarchies() {
            let folder = path.join(top(node.cgroup_root));
            fs::create_dir_all(&folder).with_context(|| format!("make the cgroup {}", folder.display()))?;
            if unified {
                delegate(&path);
            } else {
                copy_cpuset(&path, &folder)?;
            }
        }
    }
    Ok(())
}

/// On pure cgroup v2 a controller must be switched on for the children; in hybrid mode there is none to switch on.
fn delegate(parent: &Path) {
    let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that cannot be delegated is not needed by the kubelet, or the kubelet itself says so.
        drop(fs::write(
            parent.join("cgroup.subtree_control"),
            format!("+{controller}"),
        ));
    }
}

/// A new v1 cpuset is empty and takes no process until it has processors and memory nodes.
fn copy_cpuset(parent: &Path, folder: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(name)) {
            fs::write(folder.join(name), value.trim())
                .with_context(|| format!("set {name} in {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Processes in the cgroups of all nodes.
pub(crate) fn processes() -> Vec<i32> {
    let mut pids: Vec<i32> = folders()
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Ends every process in the cgroups of all nodes and removes the cgroups.
pub(crate) fn remove() {
    // A process may fork between listing and killing, and a killed one needs a moment: look again until it is empty.
    for _ in 0..100 {
        for pid in processes() {
            drop(kill_pid(pid));
        }
        for folder in folders() {
            drop(fs::remove_dir(folder));
        }
        if folders().is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// All cgroups of the nodes, children before their parents.
pub(crate) fn folders() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for Hierarchy { path, .. } in hierarchies() {
        for node in NODES {
            collect(&path.join(top(node.cgroup_root)), &mut all);
        }
    }
    all
}

fn collect(folder: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), all);
        }
    }
    all.push(folder.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_hierarchy_are_found() {
        let text = "34 27 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                    35 27 0:31 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n\
                    27 1 8:1 / / rw - ext4 /dev/sda rw\n";
        let found = parse_mounts(text);
        assert_eq!(found.len(), 2);
        assert!(found.contains(&Hierarchy {
            path: "/sys/fs/cgroup/unified".into(),
            unified: true
        }));
        assert!(found.contains(&Hierarchy {
            path: "/sys/fs/cgroup/cpu".into(),
            unified: false
        }));
    }

    #[test]
    fn a_kubelet_at_the_root_keeps_its_pods_in_kubepods() {
        assert_eq!(top("/"), "kubepods");
        assert_eq!(top("/node-b"), "node-b");
    }

    #[test]
    fn children_come_before_their_parents() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        let mut all = Vec::new();
        collect(folder.path(), &mut all);
        assert_eq!(
            all,
            [
                folder.path().join("a/b"),
                folder.path().join("a"),
                folder.path().to_owned()
            ]
        );
    }
}
