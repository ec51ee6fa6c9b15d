//! The network between the nodes: a network namespace for node-b, a veth pair, routes between the pod networks, and one
//! nftables table per node that masquerades what pods send out of their node.
//!
//! Kernel settings that are changed are written down first and put back by [`remove`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};

use super::node::{
    BRIDGE, NODE_A, NODE_B, NODES, Node, POD_NETWORK, POD_NETWORK_6, SERVICE_NETWORK, SERVICE_NETWORK_6,
};
use super::state::State;
use crate::step::{output, output_with_input, say};

/// The end of the veth pair in the machine's namespace; the other end is `eth0` of node-b.
const LINK: &str = "leyline-a";
const NETNS: &str = "leyline-b";
const NODE_NETWORK: &str = "10.250.0.0/24";
const NODE_NETWORK_6: &str = "fd6c:6579:250::/64";
const TABLE: &str = "leyline-cluster";
/// Families of nftables tables: ours, and those that kube-proxy makes.
const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// What lets a network namespace pass packets on.
const FORWARDING: [(&str, i64); 4] = [
    ("net/ipv4/ip_forward", 1),
    ("net/ipv6/conf/all/forwarding", 1),
    // Replies between two pods of one node must pass the Service's address translation.
    ("net/bridge/bridge-nf-call-iptables", 1),
    ("net/bridge/bridge-nf-call-ip6tables", 1),
];
/// Settings of the machine that the cluster needs beside these: (path below /proc/sys, least value).
const NEEDED: &[(&str, i64)] = &[
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
/// 1 where new interfaces get no IPv6.
const NO_IPV6: &str = "net/ipv6/conf/default/disable_ipv6";
/// There when somebody else's network plugins had chains before the cluster came: then none are removed.
const FOREIGN_CHAINS: &str = "foreign-chains";
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
    if shared_chains().next().is_some() {
        state.write(FOREIGN_CHAINS, "")?;
    }
    ip(&["netns", "add", NETNS])?;
    ip(&[
        "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NETNS,
    ])?;
    ip(&["link", "set", LINK, "up"])?;
    ip(&["-n", NETNS, "link", "set", "lo", "up"])?;
    ip(&["-n", NETNS, "link", "set", "eth0", "up"])?;
    let here = |args: &[&str]| ip(args);
    let there = |args: &[&str]| ip(&[&["-n", NETNS], args].concat());
    here(&["address", "add", &format!("{}/24", NODE_A.address), "dev", LINK])?;
    there(&["address", "add", &format!("{}/24", NODE_B.address), "dev", "eth0"])?;
    // Nobody else can have these addresses: no second of waiting until they may be used.
    let unique = |address: &str| format!("{address}/64");
    here(&["address", "add", &unique(NODE_A.address_6), "dev", LINK, "nodad"])?;
    there(&[
        "address",
        "add",
        &unique(NODE_B.address_6),
        "dev",
        "eth0",
        "nodad",
    ])?;
    for (way, to_pods) in [(NODE_A.address, NODE_A.pods), (NODE_A.address_6, NODE_A.pods_6)] {
        there(&["route", "add", "default", "via", way])?;
        there(&["route", "add", to_pods, "via", way])?;
    }
    here(&["route", "add", NODE_B.pods, "via", NODE_B.address])?;
    here(&["route", "add", NODE_B.pods_6, "via", NODE_B.address_6])?;
    for (setting, value) in FORWARDING {
        let script = format!("echo {value} > /proc/sys/{setting}");
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

/// The tables of one node; naming one first makes its deletion valid also when it is not there.
fn rules(node: &Node, mode: Masquerade) -> String {
    let four = Networks {
        family: "ip",
        own: node.pods,
        pods: POD_NETWORK,
        nodes: NODE_NETWORK,
        node_b: NODE_B.address,
        multicast: "224.0.0.0/4",
    };
    let six = Networks {
        family: "ip6",
        own: node.pods_6,
        pods: POD_NETWORK_6,
        nodes: NODE_NETWORK_6,
        node_b: NODE_B.address_6,
        multicast: "ff00::/8",
    };
    table(&four, node, mode) + &table(&six, node, mode)
}

/// The cluster's addresses of one family, as one node sees them.
struct Networks {
    family: &'static str,
    own: &'static str,
    pods: &'static str,
    nodes: &'static str,
    node_b: &'static str,
    multicast: &'static str,
}

fn table(networks: &Networks, node: &Node, mode: Masquerade) -> String {
    let Networks {
        family,
        own,
        pods,
        nodes,
        node_b,
        multicast,
    } = networks;
    let inside = match mode {
        Masquerade::On => own,
        Masquerade::Off => pods,
    };
    let mut lines = vec![format!(
        "{family} saddr {own} {family} daddr != {inside} {family} daddr != {multicast} masquerade"
    )];
    if node.netns.is_none() {
        // The way out of the machine for the other node; it must not hide node-b from pods and nodes of the cluster.
        lines.push(format!(
            "{family} saddr {node_b} {family} daddr != {{ {nodes}, {pods} }} masquerade"
        ));
    }
    format!(
        "table {family} {TABLE} {{}}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n  chain postrouting {{\n    \
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
    for family in FAMILIES {
        for table in ["kube-proxy", TABLE] {
            quietly(Command::new("nft").args(["delete", "table", family, table]));
        }
    }
    if !state.path(FOREIGN_CHAINS).exists() {
        remove_chains();
    }
    // Translations of a cluster that is gone would catch the first packets of the next one.
    for (family, selector, network) in [
        ("ipv4", "--src", POD_NETWORK),
        ("ipv4", "--dst", SERVICE_NETWORK),
        ("ipv4", "--src", NODE_NETWORK),
        ("ipv6", "--src", POD_NETWORK_6),
        ("ipv6", "--dst", SERVICE_NETWORK_6),
        ("ipv6", "--src", NODE_NETWORK_6),
    ] {
        quietly(Command::new("conntrack").args(["-D", "--family", family, selector, network]));
    }
    restore(state);
}

/// Chains that the port map plugin makes, and kube-proxy in iptables mode; all else in their tables stays.
fn remove_chains() {
    for (program, table, rules) in shared_chains() {
        let kept: Vec<&str> = rules.lines().filter(|line| !is_of_plugins(line)).collect();
        let text = kept.join("\n") + "\n";
        let mut restore = Command::new(format!("{program}-restore"));
        if let Err(error) = output_with_input(restore.args(["--table", table]), &text) {
            say(&format!("note: chains of table {table}: {error:#}"));
        }
    }
}

/// The tables of the machine's own network namespace that have such chains: program, table, all its rules.
fn shared_chains() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let tables = ["nat", "filter", "mangle"].into_iter();
    tables
        .flat_map(|table| [("iptables", table), ("ip6tables", table)])
        .filter_map(|(program, table)| {
            let rules = output(Command::new(format!("{program}-save")).args(["--table", table])).ok()?;
            rules
                .lines()
                .any(is_of_plugins)
                .then_some((program, table, rules))
        })
}

fn is_of_plugins(rule: &str) -> bool {
    ["CNI-", "KUBE-"].iter().any(|chain| rule.contains(chain))
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
    ensure!(
        Path::new("/proc/sys/net/ipv6").is_dir(),
        "this kernel runs without IPv6, which the cluster uses beside IPv4: start it without ipv6.disable"
    );
    let advertised = interfaces_with_advertised_routes();
    let mut old = BTreeMap::new();
    let paths = (FORWARDING.iter().chain(NEEDED).map(|(path, _)| *path))
        .chain(CHANGED_BY_KUBELET.iter().copied())
        .chain([NO_IPV6])
        .chain(advertised.iter().map(String::as_str));
    for path in paths {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(path)) {
            old.insert(path.to_owned(), value.trim().to_owned());
        }
    }
    state.write(
        SAVED,
        &serde_json::to_string_pretty(&old).context("encode the kernel settings")?,
    )?;
    if old.get(NO_IPV6).is_some_and(|value| value != "0") {
        set(NO_IPV6, "0")?;
    }
    for path in &advertised {
        set(path, "2")?;
    }
    for (path, least) in FORWARDING.iter().chain(NEEDED) {
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

/// A machine that forwards IPv6 forgets the routes its router advertised, except on interfaces whose setting is 2.
fn interfaces_with_advertised_routes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
        .map(|name| format!("net/ipv6/conf/{name}/accept_ra"))
        .filter(|path| {
            fs::read_to_string(Path::new("/proc/sys").join(path)).is_ok_and(|value| value.trim() == "1")
        })
        .collect()
}

fn restore(state: &State) {
    let Ok(text) = fs::read_to_string(state.path(SAVED)) else {
        return;
    };
    let old: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    for (path, value) in old {
        // An interface may have gone meanwhile.
        let Ok(now) = fs::read_to_string(Path::new("/proc/sys").join(&path)) else {
            continue;
        };
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
    fn both_families_have_the_same_rules() {
        let rules = rules(&NODE_B, Masquerade::On);
        assert!(rules.contains("ip6 saddr fd6c:6579:244:1::/64 ip6 daddr != fd6c:6579:244:1::/64"));
    }

    #[test]
    fn without_masquerading_all_pods_see_each_other() {
        assert!(rules(&NODE_B, Masquerade::Off).contains("ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16"));
    }

    #[test]
    fn only_the_first_node_is_the_way_out() {
        for (node, rules_per_family) in [(&NODE_A, 2), (&NODE_B, 1)] {
            let rules = rules(node, Masquerade::On);
            assert_eq!(
                rules.matches("masquerade").count(),
                2 * rules_per_family,
                "{rules}"
            );
        }
    }
}
