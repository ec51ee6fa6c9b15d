//! Zones and pairs of zones, each named by a small number.
//!
//! Numbers are never given back: a cluster has few zones, and whoever relabels nodes all day meets the bounds, not the
//! memory's end.

use std::collections::HashMap;
use std::sync::Arc;

/// Zones known at most. Clusters have three; fleets that take every site for a zone have hundreds.
const MOST_ZONES: usize = 1_024;
/// Pairs known at most. What comes later is counted without zones.
const MOST_PAIRS: usize = 60_000;
/// Length of a label's value.
const MOST_BYTES: usize = 63;

/// A zone; [`Zone::UNKNOWN`] for a node without the label, an end outside the cluster, or several candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Zone(u16);

impl Zone {
    pub(crate) const UNKNOWN: Self = Self(0);
}

/// Zone of the client and of the server, both known; or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ZonePair(u16);

impl ZonePair {
    /// At least one of the two is not known.
    pub(crate) const NONE: Self = Self(0);
    /// Of an edge that has too many pairs: all those that came last.
    pub(crate) const REST: Self = Self(u16::MAX);
}

/// One of several zones if all are the same.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommonZone(Option<Zone>);

impl CommonZone {
    pub(crate) fn add(&mut self, zone: Zone) {
        self.0 = match self.0 {
            None => Some(zone),
            Some(known) if known == zone => Some(known),
            Some(_) => Some(Zone::UNKNOWN),
        };
    }

    pub(crate) fn get(self) -> Zone {
        self.0.unwrap_or(Zone::UNKNOWN)
    }
}

/// All zones and pairs ever heard of.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    names: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, Zone>,
    pairs: Vec<(Zone, Zone)>,
    by_pair: HashMap<(Zone, Zone), ZonePair>,
}

impl Zones {
    /// The zone with this name; unknown when there is none, or no room for it.
    pub(crate) fn zone(&mut self, name: &str) -> Zone {
        if let Some(&zone) = self.by_name.get(name) {
            return zone;
        }
        if name.is_empty() || name.len() > MOST_BYTES || self.names.len() >= MOST_ZONES {
            return Zone::UNKNOWN;
        }
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        let zone = Zone(u16::try_from(self.names.len()).unwrap_or(0));
        self.by_name.insert(name, zone);
        zone
    }

    /// Both zones; none when one of them is not known.
    pub(crate) fn pair(&mut self, client: Zone, server: Zone) -> ZonePair {
        if client == Zone::UNKNOWN || server == Zone::UNKNOWN {
            return ZonePair::NONE;
        }
        if let Some(&pair) = self.by_pair.get(&(client, server)) {
            return pair;
        }
        if self.pairs.len() >= MOST_PAIRS {
            return ZonePair::NONE;
        }
        self.pairs.push((client, server));
        let pair = ZonePair(u16::try_from(self.pairs.len()).unwrap_or(0));
        self.by_pair.insert((client, server), pair);
        pair
    }

    fn name(&self, zone: Zone) -> Option<&Arc<str>> {
        self.names.get(usize::from(zone.0).checked_sub(1)?)
    }

    /// The names of a pair's zones, client first.
    pub(crate) fn names(&self, pair: ZonePair) -> Option<(&Arc<str>, &Arc<str>)> {
        let &(client, server) = self.pairs.get(usize::from(pair.0).checked_sub(1)?)?;
        Some((self.name(client)?, self.name(server)?))
    }

    /// Zones and pairs known.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.names.len(), self.pairs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{CommonZone, MOST_PAIRS, MOST_ZONES, Zone, ZonePair, Zones};

    #[test]
    fn a_pair_needs_two_zones_and_keeps_its_direction() {
        let mut zones = Zones::default();
        let (a, b) = (zones.zone("a"), zones.zone("b"));
        assert_eq!(zones.zone(""), Zone::UNKNOWN);
        assert_eq!(zones.zone(&"x".repeat(64)), Zone::UNKNOWN);
        assert_eq!(zones.pair(a, Zone::UNKNOWN), ZonePair::NONE);
        assert_eq!(zones.pair(Zone::UNKNOWN, b), ZonePair::NONE);
        let (ab, ba) = (zones.pair(a, b), zones.pair(b, a));
        assert_ne!(ab, ba);
        assert_eq!(zones.pair(a, b), ab);
        let (client, server) = zones.names(ba).expect("a known pair");
        assert_eq!((&**client, &**server), ("b", "a"));
        assert_eq!(zones.names(ZonePair::NONE), None);
        assert_eq!(zones.names(ZonePair::REST), None);
    }

    #[test]
    fn more_zones_and_pairs_than_there_is_room_for_are_unknown() {
        let mut zones = Zones::default();
        let known: Vec<Zone> = (0..=MOST_ZONES).map(|n| zones.zone(&n.to_string())).collect();
        assert_eq!(known.last(), Some(&Zone::UNKNOWN));
        assert_eq!(zones.zone("5"), known[5]);
        let mut pairs = known
            .iter()
            .flat_map(|&client| known.iter().map(move |&server| (client, server)));
        let refused = pairs
            .by_ref()
            .filter(|&(client, server)| client != Zone::UNKNOWN && server != Zone::UNKNOWN)
            .take(MOST_PAIRS + 1)
            .last()
            .expect("many");
        for &client in &known {
            for &server in &known {
                zones.pair(client, server);
            }
        }
        assert_eq!(zones.pair(refused.0, refused.1), ZonePair::NONE);
        assert_eq!(zones.len(), (MOST_ZONES, MOST_PAIRS));
    }

    #[test]
    fn several_zones_have_nothing_in_common() {
        let mut zones = Zones::default();
        let (a, b) = (zones.zone("a"), zones.zone("b"));
        let common = |all: &[Zone]| {
            let mut common = CommonZone::default();
            all.iter().for_each(|&zone| common.add(zone));
            common.get()
        };
        assert_eq!(common(&[]), Zone::UNKNOWN);
        assert_eq!(common(&[a, a]), a);
        assert_eq!(common(&[a, b]), Zone::UNKNOWN);
        assert_eq!(common(&[a, b, a]), Zone::UNKNOWN);
        assert_eq!(common(&[Zone::UNKNOWN, a]), Zone::UNKNOWN);
    }
}
