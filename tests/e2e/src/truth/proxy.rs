//! Whether kube-proxy of both nodes knows what the API server says: before that a call may go nowhere.
//!
//! Inputs: the EndpointSlices of all scenarios and the rules in both network namespaces. Needs root.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::machine::{self, NODE_B_NETNS};
use super::scenario::NAMESPACES;
use crate::kubectl::Kubectl;
use crate::wait;

const KNOWN: Duration = Duration::from_secs(60);

/// How kube-proxy makes Services work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The cluster's default.
    Nftables,
    /// The other one.
    Iptables,
}

/// Waits until the rules of both nodes name every endpoint.
///
/// # Errors
/// With the first endpoint that is missing.
pub fn knows(kubectl: &Kubectl, mode: Mode) -> Result<()> {
    wait::until("kube-proxy knows all endpoints", KNOWN, || {
        let list = kubectl.get(&["endpointslices", "--all-namespaces"])?;
        let wanted = endpoints(&list);
        for netns in [None, Some(NODE_B_NETNS)] {
            let rules = rules(netns, mode)?;
            for (address, port) in &wanted {
                let words = words(mode, address, *port);
                ensure!(rules.contains(&words), "{netns:?} does not know {address}:{port}");
            }
        }
        Ok(())
    })
}

/// Every ready endpoint of a Service with a cluster address of its own.
fn endpoints(list: &Value) -> Vec<(String, u64)> {
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let mut found = Vec::new();
    for slice in items {
        let text = |pointer: &str| slice.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let headless = slice.pointer("/metadata/labels/service.kubernetes.io~1headless");
        if !text("/metadata/namespace").starts_with(NAMESPACES) || headless.is_some() {
            continue;
        }
        let list = |key: &str| slice.get(key).and_then(Value::as_array).into_iter().flatten();
        for endpoint in list("endpoints") {
            if endpoint.pointer("/conditions/ready").and_then(Value::as_bool) == Some(false) {
                continue;
            }
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            let ports = list("ports").filter_map(|port| port.get("port")?.as_u64());
            found.extend(ports.filter_map(|port| Some((address?.to_owned(), port))));
        }
    }
    found
}

/// How an endpoint is written in the rules.
fn words(mode: Mode, address: &str, port: u64) -> String {
    match mode {
        // Part of a chain's name, in which there may be no colon.
        Mode::Nftables => format!("__{}/{port}", address.replace(':', ".")),
        Mode::Iptables if address.contains(':') => format!("--to-destination [{address}]:{port}"),
        Mode::Iptables => format!("--to-destination {address}:{port}"),
    }
}

/// The rules for both families.
fn rules(netns: Option<&str>, mode: Mode) -> Result<String> {
    let commands: [&[&str]; 2] = match mode {
        Mode::Nftables => [
            &["nft", "list", "table", "ip", "kube-proxy"],
            &["nft", "list", "table", "ip6", "kube-proxy"],
        ],
        Mode::Iptables => [
            &["iptables-save", "--table", "nat"],
            &["ip6tables-save", "--table", "nat"],
        ],
    };
    let mut all = String::new();
    for words in commands {
        let mut command = Command::new("nsenter");
        command.args(netns.map(|netns| format!("--net=/run/netns/{netns}")));
        all += &machine::run(command.arg("--").args(words)).context("list kube-proxy's rules")?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_our_own_services_with_an_address_are_waited_for() {
        let slice = |namespace: &str, labels: Value, ready: bool| {
            json!({
                "metadata": { "namespace": namespace, "labels": labels }, "ports": [{ "port": 9000 }],
                "endpoints": [{ "addresses": ["10.244.0.9"], "conditions": { "ready": ready } }],
            })
        };
        let headless = json!({ "service.kubernetes.io/headless": "" });
        let list = json!({ "items": [
            slice("truth-a", json!({}), true), slice("truth-b", json!({}), false),
            slice("truth-c", headless, true), slice("other", json!({}), true),
        ] });
        assert_eq!(endpoints(&list), [("10.244.0.9".to_owned(), 9000)]);
    }

    #[test]
    fn an_address_with_colons_is_found_in_both_kinds_of_rules() {
        assert_eq!(words(Mode::Nftables, "fd00::9", 9000), "__fd00..9/9000");
        assert_eq!(
            words(Mode::Iptables, "fd00::9", 9000),
            "--to-destination [fd00::9]:9000"
        );
    }
}
