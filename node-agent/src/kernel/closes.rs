//! Closes that nobody saw: such a connection would stay active for ever.
//!
//! Inputs: the half-edges before and after a sweep. Output: how many of each half-edge's connections are gone without
//! having been counted as closed. No IO, no clock.
//!
//! A connection that was counted before the sweep and had not closed after it was alive all the time, so the sweep saw
//! it. What is missing beyond what the sweep saw is gone. Connections that open or close during the sweep only make the
//! figure smaller, never larger, but for those in the few instructions between two counters; so a figure counts only when
//! the next sweep finds it again.

use std::collections::HashMap;

use leyline_abi::{HalfEdge, HalfEdgeKey, transport};

/// See the module's documentation. Each map holds only half-edges that something is missing from.
#[derive(Debug, Default)]
pub(super) struct Closes {
    /// By serial: closes to add to what the kernel's map says.
    found: HashMap<u64, u64>,
    /// By serial: what the last sweep missed beyond those.
    suspected: HashMap<u64, u64>,
    /// All that were ever found.
    total: u64,
}

/// What is remembered of a half-edge from before a sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    began: u64,
    swept: u64,
}

impl Before {
    pub(super) fn new(value: &HalfEdge) -> Self {
        Self {
            began: value.opened.saturating_add(value.adopted),
            swept: value.swept,
        }
    }
}

impl Closes {
    /// Compares the half-edges around one sweep, by serial.
    pub(super) fn settle(
        &mut self,
        before: &HashMap<u64, Before>,
        after: impl IntoIterator<Item = (HalfEdgeKey, HalfEdge)>,
    ) {
        let last = std::mem::take(&mut self.suspected);
        let known = std::mem::take(&mut self.found);
        for (key, value) in after {
            if key.transport != transport::TCP {
                continue;
            }
            let serial = value.serial;
            let mut found = known.get(&serial).copied().unwrap_or(0);
            if let Some(before) = before.get(&serial) {
                let seen = value.swept.saturating_sub(before.swept);
                let closed = value.closed.saturating_add(found);
                let missing = before.began.saturating_sub(closed).saturating_sub(seen);
                let sure = missing.min(last.get(&serial).copied().unwrap_or(0));
                found = found.saturating_add(sure);
                self.total = self.total.saturating_add(sure);
                if missing > sure {
                    self.suspected.insert(serial, missing - sure);
                }
            }
            if found > 0 {
                self.found.insert(serial, found);
            }
        }
    }

    /// A half-edge as it is.
    pub(super) fn correct(&self, mut value: HalfEdge) -> HalfEdge {
        if let Some(found) = self.found.get(&value.serial) {
            value.closed = value.closed.saturating_add(*found);
        }
        value
    }

    /// How many closes were found since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The entry is gone from the kernel's map.
    pub(super) fn forget(&mut self, serial: u64) {
        self.found.remove(&serial);
        self.suspected.remove(&serial);
    }
}

#[cfg(test)]
mod tests {
    use leyline_abi::Plain as _;

    use super::*;

    /// (opened, closed, swept)
    type Figures = (u64, u64, u64);

    fn value((opened, closed, swept): Figures) -> HalfEdge {
        HalfEdge {
            serial: 7,
            opened,
            closed,
            swept,
            ..HalfEdge::default()
        }
    }

    /// Sweeps given as the half-edge before and after; returns the closes added after each.
    fn sweeps(sweeps: &[(Figures, Figures)]) -> Vec<u64> {
        let mut closes = Closes::default();
        let key = HalfEdgeKey {
            transport: transport::TCP,
            ..HalfEdgeKey::from_bytes(&[0; size_of::<HalfEdgeKey>()]).unwrap()
        };
        sweeps
            .iter()
            .map(|(before, after)| {
                let before = HashMap::from([(7, Before::new(&value(*before)))]);
                closes.settle(&before, [(key, value(*after))]);
                closes.correct(value(*after)).closed - after.1
            })
            .collect()
    }

    #[test]
    fn a_connection_that_two_sweeps_do_not_find_has_closed() {
        assert_eq!(
            sweeps(&[
                ((5, 2, 0), (5, 2, 1)),
                ((5, 2, 1), (5, 2, 2)),
                ((5, 2, 2), (5, 2, 3))
            ]),
            [0, 2, 2]
        );
    }

    #[test]
    fn what_opens_and_closes_meanwhile_is_never_taken_for_missing() {
        // All alive; one opens; one closes before the sweep comes to it, one after.
        assert_eq!(
            sweeps(&[
                ((3, 0, 0), (3, 0, 3)),
                ((3, 0, 3), (4, 0, 7)),
                ((4, 0, 7), (4, 1, 10)),
                ((4, 1, 10), (4, 2, 13))
            ]),
            [0; 4]
        );
    }

    #[test]
    fn what_only_one_sweep_misses_is_not_believed() {
        assert_eq!(
            sweeps(&[
                ((3, 0, 0), (3, 0, 2)),
                ((3, 0, 2), (3, 0, 5)),
                ((3, 0, 5), (3, 0, 7))
            ]),
            [0; 3]
        );
    }

    #[test]
    fn closes_that_come_later_are_found_too_and_forgotten_with_their_half_edge() {
        assert_eq!(
            sweeps(&[
                ((2, 0, 0), (2, 0, 1)),
                ((2, 0, 1), (2, 0, 2)),
                ((2, 0, 2), (2, 0, 2)),
                ((2, 0, 2), (2, 0, 2))
            ]),
            [0, 1, 1, 2]
        );
        let mut closes = Closes::default();
        closes.found.insert(7, 1);
        closes.forget(7);
        assert_eq!(closes.correct(value((1, 0, 0))).closed, 0);
    }
}
