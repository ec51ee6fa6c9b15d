//! Second looks: counts that wait for a name, and counts that had the best name known then.

use crate::attribute::{Judged, Part};
use crate::edge::Moment;
use crate::edges::EdgeRef;
use crate::entity::Time;
use crate::graph::Graph;
use crate::half::{Half, Slot};
use crate::resolve::Mode;
use crate::slab::Key;
use crate::stats::Closed;
use crate::zones::ZonePair;

impl Graph {
    /// Registers a half-edge as waiting for a better name; false when too many wait.
    pub(crate) fn wait(&mut self, key: Key<Half>, at: Time) -> bool {
        let now = self.clock.now;
        let Some(half) = self.halves.get_mut(key) else {
            return false;
        };
        half.open_at = half.open_at.max(at);
        half.waiting_since.get_or_insert(now);
        // Before the watches have listed everything waits; no list is needed to find it.
        if half.waiting || self.clock.synced.is_none() {
            return true;
        }
        if !self
            .waiting
            .insert(key, &half.subject, half.remote, self.config.waiting)
        {
            return false;
        }
        half.waiting = true;
        true
    }

    /// Looks again at what a half-edge's counts that have no final place belong to.
    pub(crate) fn reconsider(&mut self, key: Key<Half>) {
        let Some(half) = self.halves.get(key) else { return };
        let (open_at, since) = (half.open_at, half.waiting_since.unwrap_or(self.clock.now));
        let Some(judged) = self.judged(key, open_at) else {
            return;
        };
        if let Mode::Wait(attempts) = &judged.resolved.mode {
            if !self.wait(key, open_at) {
                self.give_up_waiting(key);
            } else if attempts.is_some() {
                self.assign_waiting(key, &judged, open_at, since);
            }
            return;
        }
        self.assign_waiting(key, &judged, open_at, since);
        self.cover_pending(key, &judged);
        self.move_provisional(key, &judged);
        let expired = self.clock.now.since(since) > self.config.tombstone;
        if expired {
            self.settle_portions(key);
        }
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        if !half.is_provisional() {
            self.waiting.remove(key);
            half.waiting = false;
            if matches!(judged.resolved.mode, Mode::Whole(_)) && !judged.resolved.by_patience {
                half.waiting_since = None;
            }
        }
        self.rejudge_all(key);
        self.drop_if_done(key);
    }

    /// Puts what waited where the mode says.
    fn assign_waiting(&mut self, key: Key<Half>, judged: &Judged, at: Time, since: Time) {
        let pending = self.halves.get_mut(key).and_then(Half::take_pending);
        if let Some(pending) = pending {
            let part = Part {
                at,
                arrived: since,
                open: pending.active > 0,
            };
            self.assign(key, judged, &pending, part);
        }
    }

    /// Too many half-edges wait: this one's counts belong to nobody.
    fn give_up_waiting(&mut self, key: Key<Half>) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        if let Some(pending) = half.take_pending() {
            self.closed.add(
                Closed::WaitingFull,
                pending.opened.saturating_add(pending.failed()),
            );
            self.put(key, Slot::Nobody, false, &pending);
        }
    }

    /// Forgets a half-edge that ended once nothing of it waits.
    pub(crate) fn drop_if_done(&mut self, key: Key<Half>) {
        if self
            .halves
            .get(key)
            .is_some_and(|half| half.ended && !half.is_pending() && half.records.is_none())
        {
            self.drop_half(key);
        }
    }

    /// Counts that had the best name known then, for a better one.
    fn move_provisional(&mut self, key: Key<Half>, judged: &Judged) {
        let Some(half) = self.halves.get(key) else { return };
        if !half.is_provisional() {
            return;
        }
        let other = match &judged.resolved.mode {
            Mode::Whole(other) if !other.provisional => other,
            Mode::ByRecord(_) => return self.withdraw_provisional(key),
            _ => return,
        };
        let (role, transport) = (half.role, half.transport);
        let Some(edge) = self.edge_to(role, &judged.owner, other, transport) else {
            return;
        };
        let Some(half) = self.halves.get(key) else { return };
        let (at, since) = (half.open_at, half.waiting_since.unwrap_or(self.clock.now));
        let zones = judged.zones(self.moment(key, at, at, since).historic);
        self.move_provisional_to(key, edge, zones);
        if let Some(service) = &judged.resolved.service {
            self.edges.addressed(edge, service);
        }
    }

    /// Moves every provisional portion to `edge`. `zones`: between which they turned out to be.
    pub(crate) fn move_provisional_to(&mut self, key: Key<Half>, edge: EdgeRef, zones: ZonePair) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        let (end, open_at) = (half.end(), half.open_at);
        let since = half.waiting_since.unwrap_or(self.clock.now);
        let moved: Vec<_> = half
            .portions
            .extract_if(.., |portion| portion.provisional)
            .collect();
        for portion in moved {
            let known = if zones == ZonePair::NONE {
                portion.zones
            } else {
                zones
            };
            self.put_between(key, Slot::Edge(edge), false, known, &portion.counters);
            let Slot::Edge(from) = portion.slot else { continue };
            let began = self.edges.began(from, open_at);
            self.edges.subtract(from, end, &portion.counters, portion.zones);
            let moment = Moment {
                fresh: false,
                zones: known,
                ..self.moment(key, open_at, began, since)
            };
            self.edges.add(edge, end, &portion.counters, moment);
            self.edges.release(from);
            self.move_cover(key, from, Some(edge));
        }
    }

    /// The address turned out to hide several: what its connections brought to a provisional name goes back to them.
    fn withdraw_provisional(&mut self, key: Key<Half>) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        let end = half.end();
        let mut withdrawn = Vec::new();
        for portion in half.portions.iter_mut().filter(|portion| portion.provisional) {
            let (rest, attempts) = portion.counters.split_attempts();
            if let Slot::Edge(edge) = portion.slot
                && !rest.is_zero()
            {
                portion.counters = attempts;
                withdrawn.push((edge, rest, portion.zones));
            }
        }
        for (edge, rest, zones) in withdrawn {
            self.edges.subtract(edge, end, &rest, zones);
            self.put(key, Slot::Nobody, false, &rest);
            self.move_cover(key, edge, None);
        }
    }

    /// Provisional names become final: nothing better came for as long as the past is kept.
    fn settle_portions(&mut self, key: Key<Half>) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        let portions = std::mem::take(&mut half.portions);
        for portion in portions {
            self.put_between(key, portion.slot, false, portion.zones, &portion.counters);
            if let Slot::Edge(edge) = portion.slot {
                self.edges.release(edge);
            }
        }
    }
}
