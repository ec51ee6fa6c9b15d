//! Connections as agents report them: one record each, and which part of it its half-edge's totals bring already.

use crate::attribute::Judged;
use crate::edge::bytes_of;
use crate::edges::EdgeRef;
use crate::graph::Graph;
use crate::half::{Half, Slot};
use crate::input::{Connection, Counters};
use crate::records::{Amount, Record, Verdict};
use crate::resolve::{Mode, Owner};
use crate::slab::Key;
use crate::stats::Closed;

impl Graph {
    /// Takes in one connection of a half-edge.
    pub(crate) fn take_connection(&mut self, half: Key<Half>, connection: &Connection) {
        let now = self.clock.now;
        let at = connection.seen.min(now);
        // The half-edge's totals hold this connection and went by that time.
        let Some(measured_at) = self.halves.get(half).map(|half| half.measured_at) else {
            return;
        };
        let Some(judged) = self.judged(half, measured_at) else {
            return;
        };
        if let Owner::Closed(_) = judged.owner {
            // Another node's agent speaks for this pod, or nobody knows it.
            return;
        }
        if connection.weight > 1
            && let Some((agent, _)) = self.agent_of(half)
            && let Some(agent) = self.agents.get_mut(agent)
        {
            agent.sampled_at = Some(now);
        }
        let Some(key) = self.find_or_insert(half, connection) else {
            return;
        };
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let before = record.total;
        record.total = Amount {
            connections: 1,
            bytes_sent: before.bytes_sent.max(connection.bytes_sent),
            bytes_received: before.bytes_received.max(connection.bytes_received),
        };
        record.seen = record.seen.max(at);
        record.weight = record.weight.max(connection.weight);
        let growth = record.total.minus(before);
        if before.connections > 0 && (growth.bytes_sent > 0 || growth.bytes_received > 0) {
            record.moved = record.moved.max(Some(at));
        }
        if connection.closed && !record.closed {
            record.closed = true;
            self.records
                .closing
                .push_back((now.plus(self.config.record_memory), key));
        }
        self.cover_growth(key, &judged, growth);
        self.judge_witness(connection.witness);
    }

    fn find_or_insert(&mut self, half_key: Key<Half>, connection: &Connection) -> Option<Key<Record>> {
        if let Some(key) = self.records.find(connection.witness, half_key) {
            return Some(key);
        }
        if self.records.len() >= self.config.records {
            self.closed.add(Closed::RecordsFull, u64::from(connection.weight));
            let now = self.clock.now;
            if let Some((agent, _)) = self.agent_of(half_key)
                && let Some(agent) = self.agents.get_mut(agent)
            {
                agent.refused_at = Some(now);
            }
            return None;
        }
        let now = self.clock.now;
        let historic = self.agent_of(half_key).is_some_and(|(_, agent)| agent.historic);
        let half = self.halves.get_mut(half_key)?;
        let mut record = Record::new(half_key, connection, historic, now);
        record.opened = record.opened.min(now);
        let key = self.records.insert(record, half);
        self.records
            .impatient
            .push_back((now.plus(self.config.patience), key));
        Some(key)
    }

    /// Notes what the half-edge's totals bring to an edge as a whole, so that the record does not bring it again.
    fn cover_growth(&mut self, key: Key<Record>, judged: &Judged, growth: Amount) {
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let half_key = record.half;
        match &judged.resolved.mode {
            Mode::Wait(_) => {
                record.pending = record.pending.plus(growth);
                let opened = record.opened;
                self.wait(half_key, opened);
            }
            Mode::Drop(_) => {
                record.covered = record.covered.plus(growth);
            }
            Mode::ByRecord(_) => {}
            Mode::Whole(other) => {
                let Some(half) = self.halves.get(half_key) else {
                    return;
                };
                let Some(edge) = self.edge_to(half.role, &judged.owner, other, half.transport) else {
                    return;
                };
                let edge = self.edges.current(edge);
                let given = self.gave_to(half_key, edge).then_some(edge);
                let Some(record) = self.records.get_mut(key) else {
                    return;
                };
                match record.verdict {
                    Verdict::Proven(proven) if self.edges.current(proven) != edge => {
                        self.shift(key, edge, growth);
                    }
                    _ => {
                        record.covered = record.covered.plus(growth);
                        record.covered_by = record.covered_by.or(given);
                    }
                }
            }
        }
    }

    /// The counts that waited went somewhere as a whole: the records among them are covered, or count for themselves.
    pub(crate) fn cover_pending(&mut self, half_key: Key<Half>, judged: &Judged) {
        let Some(half) = self.halves.get(half_key) else {
            return;
        };
        let (role, transport) = (half.role, half.transport);
        let records = self.records.of(half);
        let edge = match &judged.resolved.mode {
            Mode::Whole(other) => self.edge_to(role, &judged.owner, other, transport),
            _ => None,
        };
        let covers = edge.is_some() || matches!(judged.resolved.mode, Mode::Drop(_));
        let edge = edge.filter(|&edge| self.gave_to(half_key, edge));
        for key in records {
            let Some(record) = self.records.get_mut(key) else {
                continue;
            };
            let pending = std::mem::take(&mut record.pending);
            if covers && !pending.is_zero() {
                record.covered = record.covered.plus(pending);
                record.covered_by = record.covered_by.or(edge);
            }
        }
    }

    /// Whether a half-edge gave anything to `edge` as a whole.
    fn gave_to(&self, half: Key<Half>, edge: EdgeRef) -> bool {
        let edge = self.edges.current(edge);
        self.halves.get(half).is_some_and(|half| {
            half.portions.iter().any(|portion| match portion.slot {
                Slot::Edge(slot) => self.edges.current(slot) == edge,
                Slot::Pending | Slot::Nobody => false,
            })
        })
    }

    /// What a half-edge had given to `from` as a whole is now with `to`, or with nobody.
    pub(crate) fn move_cover(&mut self, half_key: Key<Half>, from: EdgeRef, to: Option<EdgeRef>) {
        let Some(half) = self.halves.get(half_key) else {
            return;
        };
        let from = self.edges.current(from);
        for key in self.records.of(half) {
            let Some(record) = self.records.get_mut(key) else {
                continue;
            };
            if record.covered_by.map(|by| self.edges.current(by)) != Some(from) {
                continue;
            }
            record.covered_by = to;
            if to.is_none() {
                record.covered = Amount::default();
            }
        }
    }

    /// Takes what belongs to a record back out of what its half-edge gave to `edge` as a whole.
    pub(crate) fn shift(&mut self, key: Key<Record>, edge: EdgeRef, amount: Amount) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        let half_key = record.half;
        let open = self.is_open(half_key);
        let counters = record.counters(amount, open).times(u64::from(record.weight));
        let edges = &self.edges;
        let Some(half) = self.halves.get_mut(half_key) else {
            return;
        };
        let end = half.end();
        // Where the zones changed meanwhile there are several; which one holds it is not known.
        let found = half
            .portions
            .iter_mut()
            .filter(|portion| match portion.slot {
                Slot::Edge(slot) => edges.current(slot) == edges.current(edge),
                Slot::Pending | Slot::Nobody => false,
            })
            .max_by_key(|portion| bytes_of(&portion.counters.shown()));
        let Some(portion) = found else { return };
        let zones = portion.zones;
        let counters = Counters {
            active: counters.active.min(portion.counters.active),
            ..counters
        };
        portion.counters.subtract(&counters);
        self.put(half_key, Slot::Nobody, false, &counters);
        self.edges.subtract(edge, end, &counters, zones);
    }

    /// Whether a half-edge's open connections count as open.
    pub(crate) fn is_open(&self, half: Key<Half>) -> bool {
        self.halves.get(half).is_some_and(|half| !half.ended)
            && self.agent_of(half).is_some_and(|(_, agent)| !agent.silent)
    }
}
