//! The network between the nodes: a network namespace for node-b, a veth pair, routes between the pod networks, and one
//! nftables table per node that masquerades what pods send out of their node.
//!
//! Kernel settings that are changed are written down first and put back by [`remove`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};

use super::node::{BRIDGE, NODE_A, NODE_B, NODES, Node, POD_NETWORK};
use super::state::State;
use crate::step::{output, output_with_input, say};

/// The end of the veth pair in the machine's namespace; the other end is `eth0` of node-b.
const LINK: &str = "leyline-a";
const NETNS: &str = "leyline-b";
const NODE_NETWORK: &str = "10.250.0.0/24";
const TABLE: &str = "leyline-cluster";
/// Tables that kube-proxy makes.
const PROXY_TABLES: [&str; 2] = ["ip", "ip6"];

/// Settings of the machine that the cluster needs: (path below /proc/sys, least value).
const NEEDED: &[(&str, i64)] = &[
    ("net/ipv4/ip_forward", 1),
    // Replies between two pods of one node must pass the Service's address translation.
    ("net/bridge/bridge-nf-call-iptables", 1),
    ("fs/inotify/max_user_instances", 1024),
    ("fs/inotify/max_user_watches", 65_536),
];
/// Settings the kubelet changes on its own.
const CHANGED_BY_KUBELET: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// Where the old values are kept.
const SAVED: &str = "sysctls.json";

/// Whether traffic between pods of different nodes shows the node's address (as kind's network plugin does it for some
/// set-ups) or the pod's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Masquerade {
    /// All that leaves the node's own pod network gets the node's address, also towards pods of the other node.
    On,
    /// Only what leaves the cluster does.
    Off,
}

/// Makes namespace, link, routes and tables.
pub(crate) fn create(state: &State) -> Result<()> {
    save_and_set(state)?;
    ip(&["netns", "add", NETNS])?;
    ip(&[
        "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NETNS,
    ])?;
    ip(&["address", "add", &format!("{}/24", NODE_A.address), "dev", LINK])?;
    ip(&["link", "set", LINK, "up"])?;
    ip(&["-n", NETNS, "link", "set", "lo", "up"])?;
    ip(&[
        "-n",
        NETNS,
        "address",
        "add",
        &format!("{}/24", NODE_B.address),
        "dev",
        "eth0",
    ])?;
    ip(&["-n", NETNS, "link", "set", "eth0", "up"])?;
    ip(&["-n", NETNS, "route", "add", "default", "via", NODE_A.address])?;
    ip(&["-n", NETNS, "route", "add", NODE_A.pods, "via", NODE_A.address])?;
    ip(&["route", "add", NODE_B.pods, "via", NODE_B.address])?;
    for setting in ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"] {
        let script = format!("echo 1 > /proc/sys/{setting}");
        output(&mut in_namespace(NODE_B.netns, &["sh", "-c", &script]))
            .with_context(|| format!("set {setting} in the namespace of node-b"))?;
    }
    masquerade(Masquerade::On)
}

/// Replaces the masquerading rules of both nodes; connections that exist keep what they have.
pub(crate) fn masquerade(mode: Masquerade) -> Result<()> {
    for node in NODES {
        output_with_input(
            &mut in_namespace(node.netns, &["nft", "-f", "-"]),
            &rules(node, mode),
        )
        .with_context(|| format!("set the masquerading rules of {}", node.name))?;
    }
    Ok(())
}

/// The table of one node; naming it first makes the deletion valid also when it is not there.
fn rules(node: &Node, mode: Masquerade) -> String {
    let inside = match mode {
        Masquerade::On => node.pods,
        Masquerade::Off => POD_NETWORK,
    };
    let own = node.pods;
    let mut lines = vec![format!(
        "ip saddr {own} ip daddr != {inside} ip daddr != 224.0.0.0/4 masquerade"
    )];
    if node.netns.is_none() {
        // The way out of the machine for the other node; it must not hide node-b from pods and nodes of the cluster.
        lines.push(format!(
            "ip saddr {} ip daddr != {{ {NODE_NETWORK}, {POD_NETWORK} }} masquerade",
            NODE_B.address
        ));
    }
    format!(
        "table ip {TABLE} {{}}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    {}\n  }}\n}}\n",
        lines.join("\n    ")
    )
}

/// Removes everything [`create`] made and what kube-proxy and the bridge plugin added; nothing of it need be there.
pub(crate) fn remove(state: &State) {
    for link in links_on_bridge() {
        ip_quietly(&["link", "delete", &link]);
    }
    ip_quietly(&["link", "delete", BRIDGE]);
    ip_quietly(&["link", "delete", LINK]);
    ip_quietly(&["netns", "delete", NETNS]);
    remove_empty_namespace_folder();
    for family in PROXY_TABLES {
        quietly(Command::new("nft").args(["delete", "table", family, "kube-proxy"]));
    }
    quietly(Command::new("nft").args(["delete", "table", "ip", TABLE]));
    // Translations of a cluster that is gone would catch the first packets of the next one.
    for selector in [
        ["--src", POD_NETWORK],
        ["--dst", super::node::SERVICE_NETWORK],
        ["--src", NODE_NETWORK],
    ] {
        quietly(Command::new("conntrack").arg("-D").args(selector));
    }
    restore(state);
}

/// `ip netns` mounts its folder onto itself; the last one to leave takes that away.
pub(crate) fn remove_empty_namespace_folder() {
    let folder = Path::new("/run/netns");
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        let _ = umount2(folder, MntFlags::MNT_DETACH);
        drop(fs::remove_dir(folder));
    }
}

fn links_on_bridge() -> Vec<String> {
    let Ok(text) = output(Command::new("ip").args(["-json", "link", "show", "master", BRIDGE])) else {
        return Vec::new();
    };
    let links: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    links
        .iter()
        .filter_map(|link| link.get("ifname")?.as_str().map(str::to_owned))
        .collect()
}

/// What of the network is still there; empty after [`remove`].
pub(crate) fn leftovers() -> Vec<String> {
    let mut left = Vec::new();
    for link in [LINK, BRIDGE] {
        if Path::new("/sys/class/net").join(link).exists() {
            left.push(format!("link {link}"));
        }
    }
    if Path::new("/run/netns").join(NETNS).exists() {
        left.push(format!("network namespace {NETNS}"));
    }
    let tables = output(Command::new("nft").args(["list", "tables"])).unwrap_or_default();
    left.extend(
        tables
            .lines()
            .filter(|line| line.ends_with("kube-proxy") || line.ends_with(TABLE))
            .map(|line| format!("nft {line}")),
    );
    left
}

fn save_and_set(state: &State) -> Result<()> {
    let mut old = BTreeMap::new();
    let paths = NEEDED
        .iter()
        .map(|(path, _)| *path)
        .chain(CHANGED_BY_KUBELET.iter().copied());
    for path in paths {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(path)) {
            old.insert(path.to_owned(), value.trim().to_owned());
        }
    }
    state.write(
        SAVED,
        &serde_json::to_string_pretty(&old).context("encode the kernel settings")?,
    )?;
    for (path, least) in NEEDED {
        let now = old.get(*path).and_then(|value| value.parse::<i64>().ok());
        match now {
            Some(value) if value >= *least => {}
            Some(_) => set(path, &least.to_string())?,
            None => say(&format!(
                "note: this kernel has no {path} (a missing module br_netfilter breaks Services between pods of one node)"
            )),
        }
    }
    Ok(())
}

fn restore(state: &State) {
    let Ok(text) = fs::read_to_string(state.path(SAVED)) else {
        return;
    };
    let old: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    for (path, value) in old {
        let now = fs::read_to_string(Path::new("/proc/sys").join(&path)).unwrap_or_default();
        if now.trim() != value
            && let Err(error) = set(&path, &value)
        {
            say(&format!("note: {error:#}"));
        }
    }
}

fn set(path: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(path), value)
        .with_context(|| format!("set the kernel setting {path}"))
}

/// A command in a network namespace. Not `ip netns exec`: that mounts another /sys, without cgroups.
pub(crate) fn in_namespace(netns: Option<&str>, words: &[&str]) -> Command {
    let mut command = match netns {
        Some(netns) => {
            let mut nsenter = Command::new("nsenter");
            nsenter.arg(format!("--net=/run/netns/{netns}")).arg("--");
            nsenter
        }
        None => Command::new("env"),
    };
    command.args(words);
    command
}

fn ip(args: &[&str]) -> Result<()> {
    output(Command::new("ip").args(args)).map(drop)
}

fn ip_quietly(args: &[&str]) {
    quietly(Command::new("ip").args(args));
}

/// Removal of something that may not be there; what stays is found by [`leftovers`].
fn quietly(command: &mut Command) {
    drop(output(command));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_masquerading_a_pod_of_the_other_node_sees_the_node() {
        assert!(rules(&NODE_A, Masquerade::On).contains("ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/24"));
    }

    #[test]
    fn without_masquerading_all_pods_see_each_other() {
        assert!(rules(&NODE_B, Masquerade::Off).contains("ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16"));
    }

    #[test]
    fn only_the_first_node_is_the_way_out() {
        assert_eq!(rules(&NODE_A, Masquerade::On).matches("masquerade").count(), 2);
        assert_eq!(rules(&NODE_B, Masquerade::On).matches("masquerade").count(), 1);
    }
}
