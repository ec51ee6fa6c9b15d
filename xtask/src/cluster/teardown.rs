//! Removes the cluster, or whatever an interrupted run left of it: processes, mounts, namespaces, links, cgroups, tables.
//!
//! Every part looks at the system itself, not only at what `up` wrote down, and continues when another part fails. At the
//! end [`leftovers`] looks at everything again; what it finds is an error.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::mount::{MntFlags, umount2};

use super::node::NODES;
use super::process::{self, Component};
use super::state::State;
use super::{cgroups, network, tracefs};
use crate::step::say;

/// Programs of which an earlier run may have left processes without a pid file.
const PROGRAMS: &[&str] = &[
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
];
/// Folders that kubelet and containerd make outside of the state folder; removed when they hold nothing of others.
const OUTSIDE: &[&str] = &[
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/log/containers",
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/containerd",
];

/// Removes everything and fails with a list when something stays.
pub(crate) fn run(state: &State) -> Result<()> {
    // Without a state folder there is nothing to remove unless processes still name it.
    let ours = state.exists() || !process::strays(state, PROGRAMS).is_empty();
    if !ours && network::leftovers().is_empty() {
        network::remove_empty_namespace_folder();
        return Ok(());
    }
    end_processes(state);
    unmount(state);
    network::remove(state);
    tracefs::remove(state);
    outside(state);
    if state.exists()
        && let Err(error) = fs::remove_dir_all(state.root())
    {
        say(&format!("note: remove {}: {error}", state.root().display()));
    }
    let left = leftovers(state);
    if !left.is_empty() {
        bail!("the cluster is not completely gone:\n    {}", left.join("\n    "));
    }
    Ok(())
}

/// Kubelets first, so that nothing is started again; containers and their shims before the control plane.
fn end_processes(state: &State) {
    let mut all = Component::all(state).unwrap_or_default();
    all.sort_by_key(|one| order(&one.name));
    for component in all {
        if let Some(running) = component.running(state)
            && let Err(error) = running.kill()
        {
            say(&format!("note: {}: {error:#}", component.name));
        }
    }
    kill_strays(state);
    cgroups::remove();
    // A shim may have been on its way while its containerd ended.
    kill_strays(state);
}

fn order(name: &str) -> usize {
    ["kubelet", "kube-proxy", "containerd"]
        .iter()
        .position(|first| name.starts_with(first))
        .unwrap_or(usize::MAX)
}

fn kill_strays(state: &State) {
    for _ in 0..100 {
        let strays = process::strays(state, PROGRAMS);
        if strays.is_empty() {
            return;
        }
        for pid in strays {
            drop(process::kill_pid(pid));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Mounts below the state folder, the last one first; mounts can lie on top of each other, hence the second look.
fn unmount(state: &State) {
    for _ in 0..20 {
        let mut mounts = mounts(state);
        if mounts.is_empty() {
            return;
        }
        mounts.reverse();
        for mount in mounts {
            let _ = umount2(&mount, MntFlags::MNT_DETACH);
        }
    }
}

fn mounts(state: &State) -> Vec<PathBuf> {
    below(
        &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        state.root(),
    )
}

fn below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| path.starts_with(root))
        .collect()
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// Files that kubelet, containerd and the network plugins keep at fixed places.
fn outside(state: &State) {
    remove_files("/var/log/containers", |path| {
        fs::read_link(path).is_ok_and(|target| target.starts_with(state.root()))
    });
    remove_files("/var/lib/cni/results", |path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with("leyline-node-") || of_our_pods(path, &name)
    });
    remove_files("/var/lib/kubelet/device-plugins", |path| !is_listening(path));
    remove_files("/run/containerd/s", |path| !is_listening(path));
    for folder in OUTSIDE {
        // Only an empty folder goes: what others keep there stays.
        drop(fs::remove_dir(folder));
    }
}

/// The loopback plugin's records carry no name of ours, but belong to no cluster once no containerd is there.
fn of_our_pods(path: &Path, name: &str) -> bool {
    name.starts_with("cni-loopback-")
        && fs::read_to_string(path).is_ok_and(|text| text.contains("\"cni-loopback\""))
}

fn remove_files(folder: &str, is_ours: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
    {
        drop(fs::remove_file(path));
    }
}

/// Whether some process has this Unix socket open.
fn is_listening(path: &Path) -> bool {
    let ending = format!(" {}", path.display());
    fs::read_to_string("/proc/net/unix")
        .unwrap_or_default()
        .lines()
        .any(|line| line.ends_with(&ending))
}

/// What is still there of a cluster; empty after a complete removal.
pub(crate) fn leftovers(state: &State) -> Vec<String> {
    let mut left: Vec<String> = process::strays(state, PROGRAMS)
        .iter()
        .map(|pid| format!("process {pid}"))
        .collect();
    left.extend(
        cgroups::processes()
            .iter()
            .map(|pid| format!("process {pid} of a pod")),
    );
    left.extend(
        mounts(state)
            .iter()
            .map(|path| format!("mount {}", path.display())),
    );
    left.extend(
        cgroups::folders()
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    left.extend(network::leftovers());
    if state.exists() {
        left.push(format!("folder {}", state.root().display()));
    }
    left
}

/// Refuses when pods are here that are not ours: two kubelets at the root of one machine would end each other's pods.
pub(crate) fn check_free(state: &State) -> Result<()> {
    if !state.exists() && !cgroups::processes().is_empty() {
        let roots: Vec<&str> = NODES.iter().map(|node| node.cgroup_root).collect();
        bail!(
            "another kubelet seems to run pods on this machine (cgroups kubepods or {})",
            roots.join(", ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_state_folder_are_ours() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n\
                    2 1 0:5 / /state/node-a/kubelet/pods/x\\040y rw - tmpfs tmpfs rw\n\
                    3 1 0:5 / /state-of-others/x rw - tmpfs tmpfs rw\n";
        assert_eq!(
            below(text, Path::new("/state")),
            [PathBuf::from("/state/node-a/kubelet/pods/x y")]
        );
    }

    #[test]
    fn kubelets_end_before_containerd_and_that_before_the_store() {
        let mut names = ["etcd", "containerd-node-a", "kube-proxy-node-b", "kubelet-node-a"];
        names.sort_by_key(|name| order(name));
        assert_eq!(
            names,
            ["kubelet-node-a", "kube-proxy-node-b", "containerd-node-a", "etcd"]
        );
    }
}
