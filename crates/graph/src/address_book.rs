//! Who had an address when.
//!
//! Claims come from the inventory, which learns of an address after its owner got it and of its release after it was
//! free. A pod claim ends when the next pod has the address, because two pods never have it at once. Released claims
//! stay for the tombstone time, so that a late report meets the owner of its own time.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::entity::Time;

/// Around the moment an address changes hands, clocks and watches are not exact enough to tell the owners apart: only
/// a connection's other half can. Milliseconds.
const BLUR: i64 = 1_000;

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A pod with a network of its own, by uid.
    Pod(Arc<str>),
    /// A Service.
    Service(Arc<ServiceKey>),
    /// A node, with everything in its own network: processes and host-network pods.
    Node(Arc<str>),
}

#[derive(Clone, Debug)]
struct Claim {
    holder: Holder,
    /// When the inventory first said so.
    from: Time,
    /// The holder cannot have had the address before.
    started: Option<Time>,
    until: Option<Time>,
}

impl Claim {
    fn holds(&self, at: Time) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// The pod that had an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodAt {
    Nobody,
    One(Arc<str>),
    /// This one was the last before, and nobody is known to have followed.
    Former(Arc<str>),
    /// The address changed hands about then, and it is not known when exactly.
    Ambiguous,
}

/// Addresses with their holders over time.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    claims: HashMap<IpAddr, Vec<Claim>>,
    released: VecDeque<(Time, IpAddr)>,
}

impl AddressBook {
    /// `holder` has `address` as of now (or had it all the time, as far as the inventory can tell).
    pub(crate) fn claim(&mut self, address: IpAddr, holder: Holder, now: Time, started: Option<Time>) {
        let claims = self.claims.entry(address).or_default();
        if claims
            .iter()
            .any(|claim| claim.holder == holder && claim.until.is_none())
        {
            return;
        }
        if let Holder::Pod(_) = holder {
            // An update of the former holder that arrives after its successor does not take the address back.
            if claims.iter().any(|claim| claim.holder == holder) {
                return;
            }
            for claim in claims.iter_mut() {
                if matches!(claim.holder, Holder::Pod(_)) && claim.until.is_none() {
                    claim.until = Some(now);
                    self.released.push_back((now, address));
                }
            }
        }
        claims.push(Claim {
            holder,
            from: now,
            started,
            until: None,
        });
    }

    /// `holder` no longer has `address`.
    pub(crate) fn release(&mut self, address: IpAddr, holder: &Holder, now: Time) {
        if let Some(claims) = self.claims.get_mut(&address) {
            for claim in claims
                .iter_mut()
                .filter(|claim| claim.holder == *holder && claim.until.is_none())
            {
                claim.until = Some(now);
                self.released.push_back((now, address));
            }
        }
    }

    /// Forgets claims released before `horizon`.
    pub(crate) fn expire(&mut self, horizon: Time) {
        while let Some(&(released, address)) = self.released.front() {
            if released > horizon {
                break;
            }
            self.released.pop_front();
            if let Some(claims) = self.claims.get_mut(&address) {
                claims.retain(|claim| claim.until.is_none_or(|until| until > horizon));
                if claims.is_empty() {
                    self.claims.remove(&address);
                }
            }
        }
    }

    /// The pod that had `address` at `at`.
    pub(crate) fn pod_at(&self, address: IpAddr, at: Time) -> PodAt {
        let mut claims: Vec<(&Arc<str>, &Claim)> = self
            .claims
            .get(&address)
            .into_iter()
            .flatten()
            .filter_map(|claim| match &claim.holder {
                Holder::Pod(uid) => Some((uid, claim)),
                Holder::Service(_) | Holder::Node(_) => None,
            })
            .collect();
        claims.sort_by_key(|(_, claim)| claim.from);
        let changing_hands = claims
            .iter()
            .zip(claims.iter().skip(1))
            .any(|((_, former), (_, next))| {
                former
                    .until
                    .is_some_and(|until| next.from.since(until) <= 2 * BLUR)
                    && at.since(next.from).unsigned_abs() <= BLUR.unsigned_abs()
            });
        if changing_hands {
            return PodAt::Ambiguous;
        }
        if let Some((uid, _)) = claims.iter().rev().find(|(_, claim)| claim.holds(at)) {
            return PodAt::One(Arc::clone(uid));
        }
        let before = claims
            .iter()
            .rev()
            .find(|(_, claim)| claim.until.is_some_and(|until| until <= at));
        let after = claims.iter().find(|(_, claim)| claim.from > at);
        match (before, after) {
            (None, None) => PodAt::Nobody,
            (Some((uid, _)), None) => PodAt::Former(Arc::clone(uid)),
            (None, Some((uid, next))) => match next.started {
                Some(started) if at < started => PodAt::Nobody,
                _ => PodAt::One(Arc::clone(uid)),
            },
            (Some((former, _)), Some((uid, next))) => match next.started {
                Some(started) if at < started => PodAt::Former(Arc::clone(former)),
                Some(_) => PodAt::One(Arc::clone(uid)),
                None => PodAt::Ambiguous,
            },
        }
    }

    /// Every pod that has or had `address`.
    pub(crate) fn pods_of(&self, address: IpAddr) -> Vec<Arc<str>> {
        self.claims
            .get(&address)
            .into_iter()
            .flatten()
            .filter_map(|claim| match &claim.holder {
                Holder::Pod(uid) => Some(Arc::clone(uid)),
                Holder::Service(_) | Holder::Node(_) => None,
            })
            .collect()
    }

    /// The Service that had `address` at `at`, or the nearest one.
    pub(crate) fn service_at(&self, address: IpAddr, at: Time) -> Option<&Arc<ServiceKey>> {
        let services = || {
            self.claims
                .get(&address)
                .into_iter()
                .flatten()
                .filter_map(|claim| match &claim.holder {
                    Holder::Service(key) => Some((key, claim)),
                    Holder::Pod(_) | Holder::Node(_) => None,
                })
        };
        services()
            .find(|(_, claim)| claim.holds(at))
            .or_else(|| {
                services()
                    .filter(|(_, claim)| claim.from > at)
                    .min_by_key(|(_, claim)| claim.from)
            })
            .or_else(|| services().max_by_key(|(_, claim)| claim.until))
            .map(|(key, _)| key)
    }

    /// The nodes that have `address`, or had it last.
    pub(crate) fn nodes_of(&self, address: IpAddr) -> Vec<Arc<str>> {
        let nodes: Vec<(&Arc<str>, bool)> = self
            .claims
            .get(&address)
            .into_iter()
            .flatten()
            .filter_map(|claim| match &claim.holder {
                Holder::Node(name) => Some((name, claim.until.is_none())),
                Holder::Pod(_) | Holder::Service(_) => None,
            })
            .collect();
        let present = nodes.iter().any(|(_, present)| *present);
        nodes
            .into_iter()
            .filter(|(_, here)| *here == present)
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Whether some node has `address`; with `past`, or had it within the tombstone time.
    pub(crate) fn is_node(&self, address: IpAddr, past: bool) -> bool {
        self.claims.get(&address).is_some_and(|claims| {
            claims
                .iter()
                .any(|claim| matches!(claim.holder, Holder::Node(_)) && (past || claim.until.is_none()))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.claims.len()
    }
}

/// Addresses that name no other host: loopback, unspecified, multicast, broadcast.
pub(crate) fn is_nowhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_multicast(),
    }
}

/// Ranges that are used inside clusters and companies: private, carrier-grade NAT, link-local, unique-local.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, _, _] = v4.octets();
            v4.is_private() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{AddressBook, Holder, PodAt};
    use crate::entity::Time;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 5));

    fn holder(uid: &str) -> Holder {
        Holder::Pod(uid.into())
    }

    /// Who had the address, second by second.
    fn owners(book: &AddressBook, seconds: std::ops::Range<i64>) -> String {
        let owner = |second: i64| match book.pod_at(ADDRESS, Time(second * 1_000)) {
            PodAt::Nobody => "-".to_owned(),
            PodAt::One(uid) => uid.to_string(),
            PodAt::Former(uid) => format!("({uid})"),
            PodAt::Ambiguous => "?".to_owned(),
        };
        seconds.map(owner).collect::<Vec<_>>().join(" ")
    }

    fn book(events: &[(i64, &str, bool, Option<i64>)]) -> AddressBook {
        let mut book = AddressBook::default();
        for &(second, uid, has, started) in events {
            let now = Time(second * 1_000);
            if has {
                let started = started.map(|second| Time(second * 1_000));
                book.claim(ADDRESS, holder(uid), now, started);
            } else {
                book.release(ADDRESS, &holder(uid), now);
            }
        }
        book
    }

    #[test]
    fn an_owner_is_known_from_its_start_and_remembered_after_its_end() {
        let book = book(&[(5, "a", true, Some(3)), (8, "a", false, None)]);
        assert_eq!(owners(&book, 1..11), "- - a a a a a (a) (a) (a)");
    }

    #[test]
    fn around_a_direct_handover_nobody_is_the_owner_for_sure() {
        let handed_over = book(&[
            (1, "a", true, None),
            (6, "a", false, None),
            (7, "b", true, Some(6)),
        ]);
        assert_eq!(owners(&handed_over, 3..11), "a a a ? ? ? b b");
        // The watch never heard that the first one is gone.
        let taken = book(&[(1, "a", true, None), (7, "b", true, Some(6))]);
        assert_eq!(owners(&taken, 3..11), "a a a ? ? ? b b");
    }

    #[test]
    fn between_two_owners_the_next_ones_start_decides() {
        let known = book(&[
            (1, "a", true, None),
            (3, "a", false, None),
            (9, "b", true, Some(6)),
        ]);
        assert_eq!(owners(&known, 1..11), "a a (a) (a) (a) b b b b b");
        let unknown = book(&[(1, "a", true, None), (3, "a", false, None), (9, "b", true, None)]);
        assert_eq!(owners(&unknown, 1..11), "a a ? ? ? ? ? ? b b");
    }

    #[test]
    fn a_former_owner_does_not_come_back_with_a_late_update() {
        let mut book = book(&[(1, "a", true, None), (5, "b", true, None)]);
        book.claim(ADDRESS, holder("a"), Time(9_000), None);
        assert_eq!(owners(&book, 7..12), "b b b b b");
    }

    #[test]
    fn claims_are_forgotten_after_their_tombstone_time() {
        let mut book = book(&[(1, "a", true, None), (5, "a", false, None)]);
        book.expire(Time(4_000));
        assert_eq!(book.len(), 1);
        book.expire(Time(5_000));
        assert_eq!(book.len(), 0);
    }
}
