//! Which remote addresses may hide who answered: their half-edges carry a record per connection.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network prefix in IPv6 form (IPv4 is IPv4-mapped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Address; bits beyond `length` are zero.
    pub address: Ipv6Addr,
    /// 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// `length` counts in the family of `address`; longer than the address is cut to it.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        let (address, length) = match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96 + length.min(32)),
            IpAddr::V6(v6) => (v6, length.min(128)),
        };
        Self {
            address: Ipv6Addr::from_bits(address.to_bits() & mask(length)),
            length,
        }
    }

    /// One address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, 128)
    }

    fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.length) == self.address.to_bits()
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// The prefixes the kernel's map holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitSet(BTreeSet<Prefix>);

impl SplitSet {
    /// Private, carrier-grade NAT, unique-local and link-local ranges, and the node's own addresses. Loopback is
    /// never in it: the programs drop it.
    #[must_use]
    pub fn new(node_addresses: &[IpAddr]) -> Self {
        let v4 = |a, b, length| Prefix::new(IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), length);
        let v6 = |first, length| Prefix::new(IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), length);
        let ranges = [
            v4(10, 0, 8),
            v4(172, 16, 12),
            v4(192, 168, 16),
            v4(100, 64, 10),
            v4(169, 254, 16),
            v6(0xfc00, 7),
            v6(0xfe80, 10),
        ];
        let own = node_addresses.iter().filter(|a| !a.to_canonical().is_loopback());
        Self(ranges.into_iter().chain(own.map(|a| Prefix::host(*a))).collect())
    }

    /// Whether connections with this remote address are recorded one by one.
    #[must_use]
    pub fn contains(&self, remote: [u8; 16]) -> bool {
        let remote = Ipv6Addr::from(remote);
        self.0.iter().any(|prefix| prefix.contains(remote))
    }

    pub(super) fn prefixes(&self) -> &BTreeSet<Prefix> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_and_own_addresses_are_split_and_others_are_not() {
        let set = SplitSet::new(&["203.0.113.7".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
        for (address, expected) in [
            ("::ffff:10.96.0.1", true),
            ("::ffff:172.31.255.255", true),
            ("::ffff:172.32.0.0", false),
            ("::ffff:192.168.1.1", true),
            ("::ffff:100.64.0.1", true),
            ("::ffff:100.128.0.1", false),
            ("::ffff:169.254.1.1", true),
            ("::ffff:203.0.113.7", true),
            ("::ffff:203.0.113.8", false),
            ("::ffff:127.0.0.1", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
            ("::1", false),
        ] {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            assert_eq!(set.contains(octets), expected, "{address}");
        }
    }

    #[test]
    fn a_prefix_has_no_bits_beyond_its_length() {
        let prefix = Prefix::new("10.1.2.3".parse().unwrap(), 8);
        assert_eq!(
            prefix,
            Prefix {
                address: "::ffff:10.0.0.0".parse().unwrap(),
                length: 104
            }
        );
        assert_eq!(
            Prefix::new("fd00::1".parse().unwrap(), 0).address,
            Ipv6Addr::UNSPECIFIED
        );
    }
}
