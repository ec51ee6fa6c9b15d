//! Every address of the node's own network namespace.
//!
//! Outputs: a bounded set of addresses. IO: `getifaddrs`. The agent runs with `hostNetwork`, so these are the node's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// Most addresses reported; a node with more is not a node but a router. The kernel's map of them holds 1,024 prefixes.
const MAX: usize = 1_000;

/// Interfaces that carry Service addresses so that the kernel accepts them: not the node's own.
const SERVICE_INTERFACES: [&str; 2] = ["kube-ipvs0", "nodelocaldns"];

/// Reads the addresses; loopback is left out.
///
/// # Errors
/// The kernel's answer to `getifaddrs`.
pub fn node_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter(|interface| !SERVICE_INTERFACES.contains(&interface.interface_name.as_str()))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .take(MAX)
        .collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_not_an_address_of_the_node() {
        let addresses = super::node_addresses().unwrap();
        assert!(
            addresses.iter().all(|address| !address.is_loopback()),
            "{addresses:?}"
        );
    }
}
