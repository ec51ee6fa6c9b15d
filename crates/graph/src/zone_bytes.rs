//! Bytes of one edge by pair of zones: what each side's half-edges brought, and what an object said before.
//!
//! As everywhere, the two sides count the same bytes and are never added up. A side that cannot say where the bytes
//! went has them in its totals only, so the pairs of a side never exceed its totals.

use crate::edge::Sides;
use crate::view::End;
use crate::zones::ZonePair;

/// Pairs an edge has at most: four zones talking to four.
const MOST: usize = 16;

/// Bytes of one pair, both directions added up. They wrap like all counters.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    pair: ZonePair,
    client: u64,
    server: u64,
    /// A floor until the graph settles, an addend afterwards; then it may be less than nothing.
    base: u64,
}

/// All pairs of an edge. An entry never goes: what was counted as one too many stays where it is subtracted from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ZoneBytes(Vec<Entry>);

fn shown(bytes: u64) -> u64 {
    if bytes > i64::MAX as u64 { 0 } else { bytes }
}

impl Entry {
    fn side(&mut self, end: End) -> &mut u64 {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    /// What the sides that count say: the larger figure, as for totals.
    fn counted(&self, sides: Sides) -> u64 {
        match sides {
            Sides::Client => shown(self.client),
            Sides::Server => shown(self.server),
            Sides::Both => shown(self.client).max(shown(self.server)),
        }
    }
}

/// Takes off the largest, where it matters least, until all together are at most `room`.
fn fit(bytes: &mut [u64], room: u64) {
    let sum: u128 = bytes.iter().map(|&bytes| u128::from(bytes)).sum();
    let mut excess = sum.saturating_sub(u128::from(room));
    while excess > 0
        && let Some(largest) = bytes.iter_mut().max()
        && *largest > 0
    {
        let cut = u64::try_from(excess).unwrap_or(u64::MAX).min(*largest);
        *largest -= cut;
        excess -= u128::from(cut);
    }
}

impl ZoneBytes {
    /// The entry of a pair; beyond the bound all share one.
    fn entry(&mut self, pair: ZonePair) -> Option<&mut Entry> {
        let position = |pair| self.0.iter().position(|entry| entry.pair == pair);
        let full = self.0.iter().filter(|entry| entry.pair != ZonePair::REST).count() >= MOST;
        let (pair, position) = match position(pair) {
            None if full => (ZonePair::REST, position(ZonePair::REST)),
            found => (pair, found),
        };
        let position = position.unwrap_or_else(|| {
            // Most edges have one pair for ever.
            self.0.reserve_exact(1);
            self.0.push(Entry {
                pair,
                ..Entry::default()
            });
            self.0.len() - 1
        });
        self.0.get_mut(position)
    }

    /// Adds to one side; less than nothing takes away.
    pub(crate) fn add(&mut self, pair: ZonePair, end: End, bytes: u64) {
        if let Some(entry) = self.entry(pair) {
            let side = entry.side(end);
            *side = side.wrapping_add(bytes);
        }
    }

    /// What an object says, beyond what is counted already.
    pub(crate) fn seed(&mut self, pair: ZonePair, bytes: u64, sides: Sides, settled: bool) {
        if let Some(entry) = self.entry(pair) {
            let counted = if settled { entry.counted(sides) } else { 0 };
            entry.base = shown(entry.base).max(shown(bytes).saturating_sub(counted));
        }
    }

    /// What the object said, and what was counted beyond that as far as the edge has more bytes than the object said.
    /// Counts from before this graph may be with the wrong edge (an address that had another owner then): they must not
    /// push aside what was known.
    fn unsettled(&self, sides: Sides, bytes: u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.0.iter().map(|entry| entry.base).collect();
        fit(&mut all, bytes);
        // Not more than `bytes` is left.
        let room = bytes.saturating_sub(all.iter().sum());
        let mut more: Vec<u64> = self
            .0
            .iter()
            .map(|entry| entry.counted(sides).saturating_sub(entry.base))
            .collect();
        fit(&mut more, room);
        for (bytes, more) in all.iter_mut().zip(more) {
            *bytes += more;
        }
        all
    }

    /// From now on only differences count; the edge has so many bytes.
    pub(crate) fn settle(&mut self, sides: Sides, bytes: u64) {
        let all = self.unsettled(sides, bytes);
        for (entry, bytes) in self.0.iter_mut().zip(all) {
            entry.base = bytes.wrapping_sub(entry.counted(sides));
        }
    }

    /// What each entry counts, in their order.
    pub(crate) fn counted(&self, sides: Sides) -> Vec<u64> {
        self.0.iter().map(|entry| entry.counted(sides)).collect()
    }

    /// What was counted since `before` is from before this graph: the base may hold it.
    pub(crate) fn make_up(&mut self, before: &[u64], sides: Sides) {
        for (position, entry) in self.0.iter_mut().enumerate() {
            let before = before.get(position).copied().unwrap_or(0);
            let more = entry.counted(sides).saturating_sub(before);
            entry.base = entry.base.wrapping_sub(more.min(shown(entry.base)));
        }
    }

    /// Takes in what another edge had.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for &Entry {
            pair,
            client,
            server,
            base,
        } in &other.0
        {
            if let Some(mine) = self.entry(pair) {
                mine.client = mine.client.wrapping_add(client);
                mine.server = mine.server.wrapping_add(server);
                mine.base = mine.base.wrapping_add(base);
            }
        }
    }

    /// Forgets what an object said.
    pub(crate) fn forget_base(&mut self) {
        for entry in &mut self.0 {
            entry.base = 0;
        }
    }

    /// The pairs to show, together at most `bytes`: the sides may have reported different pairs up to different times.
    pub(crate) fn totals(&self, sides: Sides, settled: bool, bytes: u64) -> Vec<(ZonePair, u64)> {
        let all = if settled {
            let total = |entry: &Entry| shown(entry.counted(sides).wrapping_add(entry.base));
            let mut all: Vec<u64> = self.0.iter().map(total).collect();
            fit(&mut all, bytes);
            all
        } else {
            self.unsettled(sides, bytes)
        };
        let pairs = self.0.iter().map(|entry| entry.pair);
        pairs
            .zip(all)
            .filter(|(pair, bytes)| *bytes > 0 && *pair != ZonePair::REST)
            .collect()
    }

    /// Whether pairs were too many.
    pub(crate) fn is_truncated(&self) -> bool {
        self.0.iter().any(|entry| entry.pair == ZonePair::REST)
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, ZoneBytes};
    use crate::edge::Sides;
    use crate::view::End;
    use crate::zones::{ZonePair, Zones};

    fn pairs(count: usize) -> Vec<ZonePair> {
        let mut zones = Zones::default();
        let all: Vec<_> = (0..8).map(|n| zones.zone(&n.to_string())).collect();
        let mut pairs = Vec::new();
        for &client in &all {
            for &server in &all {
                pairs.push(zones.pair(client, server));
            }
        }
        pairs.truncate(count);
        pairs
    }

    #[test]
    fn more_pairs_than_fit_share_one_entry_that_is_not_shown() {
        let pairs = pairs(MOST + 3);
        let mut bytes = ZoneBytes::default();
        for &pair in &pairs {
            bytes.add(pair, End::Client, 10);
        }
        assert!(bytes.is_truncated());
        assert_eq!(bytes.0.len(), MOST + 1);
        let shown = bytes.totals(Sides::Both, true, 10_000);
        assert_eq!(
            shown,
            pairs[..MOST].iter().map(|&pair| (pair, 10)).collect::<Vec<_>>()
        );
        // What was one too many is taken away where it was put.
        bytes.add(pairs[MOST + 1], End::Client, 10u64.wrapping_neg());
        assert_eq!(bytes.totals(Sides::Both, true, 10_000), shown);
    }

    #[test]
    fn pairs_never_sum_up_to_more_than_the_edge_has() {
        let pairs = pairs(2);
        let mut bytes = ZoneBytes::default();
        bytes.add(pairs[0], End::Client, 100);
        bytes.add(pairs[0], End::Server, 90);
        bytes.add(pairs[1], End::Client, 40);
        bytes.add(pairs[1], End::Server, 60);
        // The client's side has 140, the server's 150.
        assert_eq!(
            bytes.totals(Sides::Both, true, 150),
            [(pairs[0], 90), (pairs[1], 60)]
        );
        assert_eq!(bytes.totals(Sides::Client, true, 5), [(pairs[1], 5)]);
    }

    #[test]
    fn what_an_object_said_is_a_floor_and_then_an_addend() {
        let pairs = pairs(3);
        let mut bytes = ZoneBytes::default();
        bytes.seed(pairs[0], 100, Sides::Both, false);
        bytes.seed(pairs[1], 50, Sides::Both, false);
        bytes.add(pairs[0], End::Client, 70);
        bytes.add(pairs[2], End::Client, 30);
        assert_eq!(
            bytes.totals(Sides::Both, false, 200),
            [(pairs[0], 100), (pairs[1], 50), (pairs[2], 30)]
        );
        // The edge itself has 160: only 10 can be new.
        bytes.settle(Sides::Both, 160);
        bytes.add(pairs[0], End::Client, 5);
        assert_eq!(
            bytes.totals(Sides::Both, true, 165),
            [(pairs[0], 105), (pairs[1], 50), (pairs[2], 10)]
        );
    }
}
