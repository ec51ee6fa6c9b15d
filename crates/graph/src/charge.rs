//! Putting a connection's counts where its verdict says.

use crate::attribute::Judged;
use crate::edge::{Moment, bytes_of};
use crate::graph::Graph;
use crate::half::Half;
use crate::input::{Counters, Role};
use crate::judge::Counterpart;
use crate::records::{Amount, Record, Verdict};
use crate::slab::Key;
use crate::stats::Closed;
use crate::view::End;
use crate::zones::{Zone, ZonePair};

impl Graph {
    /// Puts a record's counts where its verdict says, and takes them away from where they were.
    pub(crate) fn apply_verdict(&mut self, key: Key<Record>, verdict: Verdict, judged: &Judged) {
        self.uncover_contradiction(key, verdict);
        let counterpart = self.counterpart(key);
        let partner_weight = match counterpart {
            Counterpart::One(partner, _) => self.records.get(partner).map_or(1, |record| record.weight),
            Counterpart::None | Counterpart::Ambiguous => 1,
        };
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        // A sampled connection stands for as many at both ends.
        record.weight = record.weight.max(partner_weight);
        let (before, old, old_end) = (record.verdict, record.charge, record.end);
        let (half_key, weight) = (record.half, record.weight);
        let end = self.end_of(half_key, &counterpart).unwrap_or(old_end);
        self.count_closed(key, before, verdict, end);
        let open = self.is_open(half_key);
        let Some(record) = self.records.get(key) else {
            return;
        };
        let target = verdict.edge().map(|edge| self.edges.current(edge));
        let amount = record.total.minus(record.covered);
        let charge = if target.is_some() {
            record
                .counters(amount, open && record.covered.connections == 0)
                .times(u64::from(weight))
        } else {
            Counters::default()
        };
        let moment = self.moment(half_key, record.seen, record.opened, record.arrived);
        let moment = Moment {
            estimated: weight > 1,
            fresh: false,
            historic: record.historic || moment.historic,
            ..moment
        };
        let old_zones = record.zones;
        let zones = self.zones_of(key, verdict, &counterpart, judged, moment.historic);
        let moment = Moment { zones, ..moment };
        let from = before.edge().map(|edge| self.edges.current(edge));
        let mut delta = charge;
        if from == target && end == old_end {
            delta.subtract(&old);
            if let Some(target) = target {
                self.edges.rezone(target, end, old_zones, zones, bytes_of(&old));
            }
        } else if let Some(from) = from
            && !old.is_zero()
        {
            self.edges.subtract(from, old_end, &old, old_zones);
        }
        if let Some(target) = target {
            self.edges.hold(target);
            if !delta.is_zero() {
                self.edges.add(target, end, &delta, moment);
            }
        }
        if let Some(held) = before.edge() {
            self.edges.release(held);
        }
        if let Some(record) = self.records.get_mut(key) {
            record.verdict = match (verdict, target) {
                (Verdict::Proven(_), Some(edge)) => Verdict::Proven(edge),
                (Verdict::Fallback { movable, .. }, Some(edge)) => Verdict::Fallback { edge, movable },
                _ => verdict,
            };
            record.charge = charge;
            record.end = end;
            record.zones = zones;
        }
    }

    /// Counts a connection that belongs to no edge: once, although two records may say so.
    fn count_closed(&mut self, key: Key<Record>, before: Verdict, verdict: Verdict, end: End) {
        let Verdict::Nobody(reason) = verdict else { return };
        let Some(record) = self.records.get(key) else {
            return;
        };
        let with_half_edge = record.covered.connections > 0 && record.covered_by.is_none();
        let paired = matches!(reason, Closed::SamePod | Closed::Probe | Closed::NodeProcess)
            && self.records.with(record.witness).len() > 1;
        if verdict != before && !with_half_edge && (!paired || end == End::Client) {
            self.closed.add(reason, u64::from(record.weight));
        }
    }

    /// A proof that names another edge than the half-edge's totals went to takes the record's part back.
    fn uncover_contradiction(&mut self, key: Key<Record>, verdict: Verdict) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        let (covered, by) = (record.covered, record.covered_by.map(|by| self.edges.current(by)));
        let contradicted = match verdict {
            Verdict::Proven(edge) => by != Some(self.edges.current(edge)),
            Verdict::Nobody(Closed::SamePod | Closed::Probe) => by.is_some(),
            _ => false,
        };
        if !contradicted || covered.is_zero() {
            return;
        }
        if let Some(by) = by {
            self.shift(key, by, covered);
        }
        if let Some(record) = self.records.get_mut(key) {
            record.covered = Amount::default();
            record.covered_by = None;
        }
    }

    /// Between which zones a record's connection runs: of two halves each knows its own node's zone, and of one what its
    /// addresses say. What was once known stays, as long as the verdict does.
    fn zones_of(
        &mut self,
        key: Key<Record>,
        verdict: Verdict,
        counterpart: &Counterpart,
        judged: &Judged,
        historic: bool,
    ) -> ZonePair {
        let Some(record) = self.records.get(key) else {
            return ZonePair::NONE;
        };
        if record.zones != ZonePair::NONE && record.verdict == verdict {
            return record.zones;
        }
        let (half, before) = (record.half, record.zones);
        match (verdict, counterpart) {
            (Verdict::Waiting | Verdict::Nobody(_), _) => ZonePair::NONE,
            (Verdict::Fallback { .. }, _) => judged.zones(historic),
            (Verdict::Proven(_), Counterpart::One(other, role)) => {
                let other = self.records.get(*other).map(|other| other.half);
                let (client, server) = match role {
                    Role::Client => (Some(half), other),
                    Role::Server | Role::Unknown => (other, Some(half)),
                };
                let client = self.zone_of_half(client);
                let server = self.zone_of_half(server);
                self.inventory.zones.pair(client, server)
            }
            (Verdict::Proven(_), _) => before,
        }
    }

    fn zone_of_half(&self, half: Option<Key<Half>>) -> Zone {
        half.and_then(|half| self.agent_of(half))
            .map_or(Zone::UNKNOWN, |(_, agent)| self.inventory.zone_of(&agent.node))
    }

    /// A record's side of its edge; of an undecided one what its other half leaves, if there is one.
    fn end_of(&self, half: Key<Half>, counterpart: &Counterpart) -> Option<End> {
        match (self.halves.get(half)?.role, counterpart) {
            (Role::Client, _) | (Role::Unknown, Counterpart::One(_, Role::Client)) => Some(End::Client),
            (Role::Server, _) | (Role::Unknown, Counterpart::One(..)) => Some(End::Server),
            (Role::Unknown, _) => None,
        }
    }

    /// Lets go of a record; what it brought stays, except that its connection no longer counts as open.
    pub(crate) fn drop_record(&mut self, key: Key<Record>) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        let half_key = record.half;
        let record = self.records.remove(key, self.halves.get_mut(half_key));
        let Some(record) = record else { return };
        if let Some(edge) = record.verdict.edge() {
            if record.charge.active > 0 {
                self.edges.close(edge, record.end, record.charge.active);
            }
            self.edges.release(edge);
        } else if record.verdict == Verdict::Waiting {
            self.closed.add(Closed::PeerUnwatched, u64::from(record.weight));
        }
    }
}
