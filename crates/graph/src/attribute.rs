//! Where a half-edge's counts go as a whole: to one edge, to nobody, or into waiting.

use std::sync::Arc;

use crate::agents::Agent;
use crate::edge::{EdgeId, Moment};
use crate::edges::EdgeRef;
use crate::entity::Time;
use crate::graph::Graph;
use crate::half::{Half, Proven, Slot};
use crate::input::{Counters, Measurement, Role};
use crate::resolve::{Fallback, Mode, Other, Owner, Resolved, Resolver};
use crate::slab::Key;
use crate::stats::Closed;
use crate::view::End;
use crate::zones::ZonePair;

/// How long after a node lost events its contributions count as incomplete.
const LOSS_SHADOW: i64 = 10_000;

/// Totals that did not change for so long before the graph was made prove no edge by themselves. Shorter than this are
/// restarts of the operator, during which a short job must not be lost.
const HEARSAY: i64 = 120_000;

/// When a part of a half-edge's counts was made, when it arrived, and whether a connection of it is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) at: Time,
    pub(crate) arrived: Time,
    pub(crate) open: bool,
}

/// A half-edge with its owner and mode at one time.
pub(crate) struct Judged {
    pub(crate) owner: Owner,
    pub(crate) resolved: Resolved,
    /// The zones of both ends, as far as this half-edge can tell.
    zones: ZonePair,
}

impl Judged {
    /// Between which zones counts were made. Where a Service's endpoints were before this graph existed is not known.
    pub(crate) fn zones(&self, historic: bool) -> ZonePair {
        if historic && self.resolved.service.is_some() {
            ZonePair::NONE
        } else {
            self.zones
        }
    }
}

impl Graph {
    pub(crate) fn agent_of(&self, half: Key<Half>) -> Option<(Key<Agent>, &Agent)> {
        let key = self.halves.get(half)?.agent;
        Some((key, self.agents.get(key)?))
    }

    /// Owner and mode of a half-edge at `at`; none when it is gone.
    pub(crate) fn judged(&mut self, key: Key<Half>, at: Time) -> Option<Judged> {
        let node = Arc::clone(&self.agent_of(key)?.1.node);
        let half = self.halves.get(key)?;
        let mut resolver = Resolver {
            inventory: &mut self.inventory,
            config: &self.config,
            clock: self.clock,
        };
        let owner = resolver.owner(half, &node);
        let resolved = resolver.mode(half, &owner, &node, at);
        let (own, other) = (self.inventory.zone_of(&node), resolved.zone);
        let zones = match half.end() {
            End::Client => self.inventory.zones.pair(own, other),
            End::Server => self.inventory.zones.pair(other, own),
        };
        Some(Judged {
            owner,
            resolved,
            zones,
        })
    }

    /// The edge between a half-edge's owner and another end.
    pub(crate) fn edge_to(
        &mut self,
        role: Role,
        owner: &Owner,
        other: &Other,
        transport: crate::entity::Transport,
    ) -> Option<EdgeRef> {
        let Owner::Is { entity: owner, .. } = owner else {
            return None;
        };
        let names = &mut self.inventory.names;
        let (client, server) = if role == Role::Client {
            let server = self
                .edges
                .name_server(owner, other.entity.clone(), names, &self.config);
            (owner.clone(), server)
        } else {
            (other.entity.clone(), owner.clone())
        };
        let id = EdgeId {
            client,
            server,
            port: other.port,
            transport,
        };
        let edge = self.edges.ensure(id, other.unresolved, &self.config);
        if edge.is_none() {
            self.closed.add(Closed::EdgesFull, 1);
        }
        edge
    }

    fn part_moment(&self, key: Key<Half>, part: Part) -> Moment {
        self.moment(key, part.at, part.at, part.arrived)
    }

    pub(crate) fn moment(&self, key: Key<Half>, at: Time, began: Time, arrived: Time) -> Moment {
        let agent = self.agent_of(key).map(|(_, agent)| agent);
        let now = self.clock.now;
        Moment {
            at: at.min(now),
            began: began.min(now),
            now,
            historic: agent.is_some_and(|agent| agent.historic)
                || self.clock.settled.is_none_or(|settled| arrived <= settled),
            fresh: agent.is_some_and(|agent| agent.complete),
            estimated: false,
            zones: ZonePair::NONE,
            loss: agent.is_some_and(|agent| agent.lost_at.is_some_and(|lost| now.since(lost) < LOSS_SHADOW)),
        }
    }

    /// Takes in a half-edge's counters; they were checked before.
    pub(crate) fn measure(&mut self, key: Key<Half>, measurement: &Measurement) {
        let Some(half) = self.halves.get(key) else { return };
        let last = half.reported();
        let mut delta = measurement.counters;
        delta.subtract(&last);
        if delta.is_zero() {
            return;
        }
        // `active` is a gauge: connections that opened are the newest counts', those that closed the oldest's.
        let begun = delta.opened.wrapping_add(delta.adopted);
        let ended = begun.wrapping_sub(delta.active);
        let ended = if ended > i64::MAX as u64 { 0 } else { ended };
        delta.active = delta.active.wrapping_add(ended);
        if half.is_pending() || half.is_provisional() {
            self.reconsider(key);
        }
        let at = measurement.changed.min(self.clock.now);
        if let Some(half) = self.halves.get_mut(key) {
            half.measured_at = at;
        }
        let Some(judged) = self.judged(key, at) else {
            return;
        };
        let part = Part {
            at,
            arrived: self.clock.now,
            open: measurement.counters.active > 0,
        };
        self.assign(key, &judged, &delta, part);
        self.end_connections(key, ended);
    }

    /// Puts a difference where the mode says.
    pub(crate) fn assign(&mut self, key: Key<Half>, judged: &Judged, delta: &Counters, part: Part) {
        match &judged.resolved.mode {
            Mode::Wait(None) => self.assign_pending(key, delta, part.at),
            Mode::Wait(Some(other)) => {
                let (rest, attempts) = delta.split_attempts();
                if !attempts.is_zero() {
                    self.wait(key, part.at);
                    self.assign_whole(key, judged, other, &attempts, part);
                }
                if !rest.is_zero() {
                    self.assign_pending(key, &rest, part.at);
                }
            }
            Mode::Drop(reason) => {
                self.closed.add(
                    *reason,
                    delta
                        .opened
                        .saturating_add(delta.adopted)
                        .saturating_add(delta.failed()),
                );
                self.put(key, Slot::Nobody, false, delta);
            }
            Mode::Whole(other) => self.assign_whole(key, judged, other, delta, part),
            Mode::ByRecord(fallback) => {
                let (rest, attempts) = delta.split_attempts();
                self.put(key, Slot::Nobody, false, &rest);
                if let Some(half) = self.halves.get(key)
                    && let Proven::One(edge) = half.proven
                {
                    let end = half.end();
                    let moment = self.part_moment(key, part);
                    self.edges.observe(edge, end, &rest, moment);
                }
                if !attempts.is_zero() {
                    self.assign_attempts(key, judged, fallback, &attempts, part);
                }
            }
        }
    }

    fn assign_pending(&mut self, key: Key<Half>, delta: &Counters, at: Time) {
        if !self.wait(key, at) {
            self.closed
                .add(Closed::WaitingFull, delta.opened.saturating_add(delta.failed()));
            self.put(key, Slot::Nobody, false, delta);
            return;
        }
        self.put(key, Slot::Pending, false, delta);
    }

    fn assign_whole(&mut self, key: Key<Half>, judged: &Judged, other: &Other, delta: &Counters, part: Part) {
        let Some(half) = self.halves.get(key) else { return };
        let (role, transport) = (half.role, half.transport);
        let Some(edge) = self.edge_to(role, &judged.owner, other, transport) else {
            self.put(key, Slot::Nobody, false, delta);
            return;
        };
        let moment = self.part_moment(key, part);
        if moment.historic && self.is_hearsay(edge, judged, part) {
            self.put(key, Slot::Nobody, false, delta);
            return;
        }
        if let Some(service) = &judged.resolved.service {
            self.edges.addressed(edge, service);
        }
        if other.provisional {
            self.wait(key, part.at);
        }
        let zones = judged.zones(moment.historic);
        let zones = self
            .halves
            .get(key)
            .map_or(ZonePair::NONE, |half| half.bounded(zones));
        self.put_between(key, Slot::Edge(edge), other.provisional, zones, delta);
        self.give(key, edge, delta, Moment { zones, ..moment });
    }

    /// Whether old totals do not say enough to go to `edge`. The past of addresses and Services from before this graph
    /// is not known: who has an address or answers for a Service now may not be who did then.
    fn is_hearsay(&self, edge: EdgeRef, judged: &Judged, part: Part) -> bool {
        if let Some(service) = &judged.resolved.service
            && self.edges.has_rival(edge, service)
        {
            return true;
        }
        let old = self.born.is_some_and(|born| part.at < born.plus(-HEARSAY));
        !part.open && !self.edges.exists(edge) && (old || judged.resolved.by_patience)
    }

    /// Attempts that failed, of a half-edge whose connections count one by one: to the one edge they proved, else to
    /// the best name. Those from before this graph would otherwise invent an edge.
    fn assign_attempts(
        &mut self,
        key: Key<Half>,
        judged: &Judged,
        fallback: &Fallback,
        attempts: &Counters,
        part: Part,
    ) {
        let Some(half) = self.halves.get(key) else { return };
        if let Proven::One(edge) = half.proven {
            self.put(key, Slot::Edge(edge), false, attempts);
            let moment = self.part_moment(key, part);
            self.give(key, edge, attempts, moment);
            return;
        }
        let historic = self.part_moment(key, part).historic;
        match fallback {
            Fallback::To(other) if half.role == Role::Client && (!historic || other.provisional) => {
                let other = Other {
                    provisional: true,
                    ..other.clone()
                };
                self.assign_whole(key, judged, &other, attempts, part);
            }
            Fallback::To(_) => self.put(key, Slot::Nobody, false, attempts),
            Fallback::Drop(reason) => {
                self.closed.add(*reason, attempts.failed());
                self.put(key, Slot::Nobody, false, attempts);
            }
        }
    }

    /// Adds to a portion of a half-edge.
    pub(crate) fn put(&mut self, key: Key<Half>, slot: Slot, provisional: bool, delta: &Counters) {
        self.put_between(key, slot, provisional, ZonePair::NONE, delta);
    }

    /// Adds to the portion of a half-edge that is between these zones.
    pub(crate) fn put_between(
        &mut self,
        key: Key<Half>,
        slot: Slot,
        provisional: bool,
        zones: ZonePair,
        delta: &Counters,
    ) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        let (portion, made) = half.portion(slot, provisional, zones);
        portion.counters.add(delta);
        if made && let Slot::Edge(edge) = slot {
            self.edges.hold(edge);
        }
    }

    /// Adds to a half-edge's side of an edge.
    pub(crate) fn give(&mut self, key: Key<Half>, edge: EdgeRef, delta: &Counters, moment: Moment) {
        if let Some(half) = self.halves.get(key) {
            self.edges.add(edge, half.end(), delta, moment);
        }
    }

    /// Connections of a half-edge closed.
    fn end_connections(&mut self, key: Key<Half>, mut count: u64) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        let end = half.end();
        for portion in &mut half.portions {
            let closed = portion.counters.active.min(count);
            portion.counters.active -= closed;
            count -= closed;
            if closed > 0
                && let Slot::Edge(edge) = portion.slot
            {
                self.edges.close(edge, end, closed);
            }
        }
    }

    /// A half-edge's open connections no longer count as open.
    pub(crate) fn close_connections(&mut self, key: Key<Half>) {
        self.end_connections(key, u64::MAX);
    }

    /// Forgets a half-edge; what it contributed stays.
    pub(crate) fn drop_half(&mut self, key: Key<Half>) {
        self.close_connections(key);
        let Some(half) = self.halves.get(key) else { return };
        for record in self.records.of(half) {
            self.drop_record(record);
        }
        self.waiting.remove(key);
        let Some(half) = self.halves.remove(key) else {
            return;
        };
        if let Proven::One(edge) = half.proven {
            self.edges.release(edge);
        }
        for portion in half.portions {
            if let Slot::Edge(edge) = portion.slot {
                self.edges.release(edge);
            }
        }
    }

    /// The agent will not speak of a half-edge again: it goes as soon as nothing waits for a name.
    pub(crate) fn end_half(&mut self, key: Key<Half>) {
        self.close_connections(key);
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        half.ended = true;
        self.drop_if_done(key);
    }
}
