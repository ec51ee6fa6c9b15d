//! Which edge a single connection belongs to, from both its halves or from one.

use std::net::IpAddr;
use std::sync::Arc;

use crate::attribute::Judged;
use crate::edge::EdgeId;
use crate::edges::EdgeRef;
use crate::entity::Time;
use crate::graph::Graph;
use crate::half::{Half, Proven};
use crate::input::{Role, Witness};
use crate::records::{Record, Verdict};
use crate::resolve::{Fallback, Mode, Owner};
use crate::slab::Key;
use crate::stats::Closed;
use crate::view::ServiceRef;
use crate::zones::ZonePair;

/// What a matched pair says.
enum Pair {
    Waiting,
    Nobody(Closed),
    Edge(EdgeId, Option<Arc<ServiceRef>>),
}

/// A record's other half.
pub(crate) enum Counterpart {
    None,
    Ambiguous,
    One(Key<Record>, Role),
}

impl Graph {
    /// Judges every record of a half-edge, and their other halves.
    pub(crate) fn rejudge_all(&mut self, half: Key<Half>) {
        let Some(half) = self.halves.get(half) else { return };
        for key in self.records.of(half) {
            self.judge_record(key);
        }
    }

    /// Judges a record and its other half.
    pub(crate) fn judge_record(&mut self, key: Key<Record>) {
        if let Some(witness) = self.records.get(key).map(|record| record.witness) {
            self.judge_witness(witness);
        }
    }

    /// Judges every record with this witness.
    pub(crate) fn judge_witness(&mut self, witness: Witness) {
        for key in self.records.with(witness).to_vec() {
            self.judge(key);
        }
    }

    fn judge(&mut self, key: Key<Record>) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        // Who was meant was decided when the connection was made.
        let (half, opened) = (record.half, record.opened);
        let Some(judged) = self.judged(half, opened) else {
            return;
        };
        let verdict = self.verdict(key, &judged);
        self.apply_verdict(key, verdict, &judged);
    }

    fn verdict(&mut self, key: Key<Record>, judged: &Judged) -> Verdict {
        match judged.owner {
            Owner::Waiting => return Verdict::Waiting,
            Owner::Closed(reason) => return Verdict::Nobody(reason),
            Owner::Is { .. } => {}
        }
        let Some(record) = self.records.get(key) else {
            return Verdict::Waiting;
        };
        let (half, before) = (record.half, record.verdict);
        match self.counterpart(key) {
            Counterpart::None => match before {
                // The other half's record was let go of after both had agreed.
                Verdict::Proven(_) | Verdict::Nobody(Closed::SamePod | Closed::Probe) => before,
                _ => self.alone(key, judged),
            },
            Counterpart::Ambiguous => match self.alone(key, judged) {
                Verdict::Waiting if self.records.get(key).is_some_and(|record| record.overdue) => {
                    Verdict::Nobody(Closed::Ambiguous)
                }
                verdict => verdict,
            },
            Counterpart::One(partner, role) => {
                let (client, server) = if role == Role::Client {
                    (key, partner)
                } else {
                    (partner, key)
                };
                match self.pair(client, server) {
                    Pair::Waiting => Verdict::Waiting,
                    Pair::Nobody(reason) => Verdict::Nobody(reason),
                    Pair::Edge(id, service) => self.proven(half, role, id, service),
                }
            }
        }
    }

    fn proven(
        &mut self,
        half: Key<Half>,
        role: Role,
        id: EdgeId,
        service: Option<Arc<ServiceRef>>,
    ) -> Verdict {
        let Some(edge) = self.edges.ensure(id, None, &self.config) else {
            return Verdict::Nobody(Closed::EdgesFull);
        };
        let edge = self.edges.current(edge);
        if let Some(service) = service {
            self.edges.addressed(edge, &service);
        }
        if role == Role::Client {
            self.note_proven(half, edge);
        }
        Verdict::Proven(edge)
    }

    /// Remembers which edge a half-edge's records prove: failed attempts follow it while it is the only one.
    fn note_proven(&mut self, key: Key<Half>, edge: EdgeRef) {
        let Some(half) = self.halves.get_mut(key) else {
            return;
        };
        match half.proven {
            Proven::None => {
                half.proven = Proven::One(edge);
                self.edges.hold(edge);
                if half.is_provisional() {
                    self.move_provisional_to(key, edge, ZonePair::NONE);
                }
            }
            Proven::One(known) if self.edges.current(known) != edge => {
                half.proven = Proven::Many;
                self.edges.release(known);
            }
            Proven::One(_) | Proven::Many => {}
        }
    }

    /// The other half of a record's connection, and this one's role in it.
    pub(crate) fn counterpart(&self, key: Key<Record>) -> Counterpart {
        let Some(record) = self.records.get(key) else {
            return Counterpart::None;
        };
        let mut others = self
            .records
            .with(record.witness)
            .iter()
            .copied()
            .filter(|&other| {
                other != key
                    && self.records.get(other).is_some_and(|other| {
                        !matches!(
                            other.verdict,
                            Verdict::Nobody(Closed::OtherNode | Closed::PodUnknown)
                        )
                    })
            });
        let Some(other) = others.next() else {
            return Counterpart::None;
        };
        if others.next().is_some() {
            return Counterpart::Ambiguous;
        }
        let role = |key: Key<Record>| {
            let record = self.records.get(key)?;
            let half = self.halves.get(record.half)?;
            // The one cross-check that holds through every translation: a server's own port is the half-edge's.
            let consistent = half.role != Role::Server || half.port == record.local_port;
            consistent.then_some(half.role)
        };
        match (role(key), role(other)) {
            (Some(Role::Client), Some(Role::Server | Role::Unknown))
            | (Some(Role::Unknown), Some(Role::Server)) => Counterpart::One(other, Role::Client),
            (Some(Role::Server), Some(Role::Client | Role::Unknown))
            | (Some(Role::Unknown), Some(Role::Client)) => Counterpart::One(other, Role::Server),
            _ => Counterpart::Ambiguous,
        }
    }

    /// What two halves of one connection say together.
    fn pair(&mut self, client: Key<Record>, server: Key<Record>) -> Pair {
        let (Some(client_record), Some(server_record)) = (self.records.get(client), self.records.get(server))
        else {
            return Pair::Waiting;
        };
        let (client_half, server_half) = (client_record.half, server_record.half);
        let (local, port, opened) = (
            server_record.local,
            server_record.local_port,
            client_record.opened,
        );
        let (Some(c), Some(s)) = (self.judged(client_half, opened), self.judged(server_half, opened)) else {
            return Pair::Waiting;
        };
        let (
            Owner::Is {
                entity: client,
                pod: client_pod,
            },
            Owner::Is {
                entity: server,
                pod: server_pod,
            },
        ) = (c.owner, s.owner)
        else {
            return Pair::Waiting;
        };
        let same_node = self.halves.get(client_half).map(|half| half.agent)
            == self.halves.get(server_half).map(|half| half.agent);
        match (&client_pod, &server_pod) {
            (Some(one), Some(other))
                if one == other && !self.is_hairpin(client_half, one, (local, port), opened) =>
            {
                return Pair::Nobody(Closed::SamePod);
            }
            (None, Some(uid)) if same_node => {
                if self
                    .inventory
                    .pod(uid)
                    .is_some_and(|(_, entry)| entry.pod.probe_ports.contains(&port))
                {
                    return Pair::Nobody(Closed::Probe);
                }
            }
            (None, None) if !self.inventory.is_api_server(local, port) => {
                return Pair::Nobody(Closed::NodeProcess);
            }
            _ => {}
        }
        let Some(half) = self.halves.get(server_half) else {
            return Pair::Waiting;
        };
        // The record's own port: a half that is surely a server's has the same, else the two would not be a pair.
        Pair::Edge(
            EdgeId {
                client,
                server,
                port,
                transport: half.transport,
            },
            c.resolved.service,
        )
    }

    /// Whether a pod that answered itself did so for a Service it had called: like any other client of that Service it
    /// depends on it. A proxy that caught the connection inside the pod is no endpoint of what was called.
    fn is_hairpin(&self, client: Key<Half>, pod: &str, server: (IpAddr, u16), at: Time) -> bool {
        self.halves
            .get(client)
            .and_then(|client| self.inventory.service_addressed(client, at))
            .and_then(|(service, number)| Some((service, number?)))
            .is_some_and(|(service, number)| {
                let memory = self.config.endpoint_memory;
                self.inventory
                    .is_endpoint(&service, &number, at, memory, pod, server)
            })
    }

    /// What one half of a connection says when the other is not there.
    fn alone(&mut self, key: Key<Record>, judged: &Judged) -> Verdict {
        let Some(record) = self.records.get(key) else {
            return Verdict::Waiting;
        };
        let (half_key, before, opened) = (record.half, record.verdict, record.opened);
        if !record.pending.is_zero() {
            // Its half-edge decides first, for all it holds.
            return if matches!(before, Verdict::Fallback { .. }) {
                before
            } else {
                Verdict::Waiting
            };
        }
        let (other, whole) = match &judged.resolved.mode {
            Mode::Wait(_) => {
                // What has a name keeps it while a better one is looked for.
                return if matches!(before, Verdict::Fallback { .. }) {
                    before
                } else {
                    Verdict::Waiting
                };
            }
            Mode::Drop(reason) => return Verdict::Nobody(*reason),
            Mode::Whole(other) => (other, true),
            Mode::ByRecord(fallback) => {
                if let Verdict::Fallback { movable, .. } = before {
                    if movable {
                        self.wait(half_key, opened);
                    }
                    return before;
                }
                if before == Verdict::Nobody(Closed::PeerUnwatched) {
                    // What was missed then stays missed, however well the agent watches now.
                    return before;
                }
                if !self.may_fall_back(key) {
                    return Verdict::Waiting;
                }
                match fallback {
                    Fallback::To(other) => (other, false),
                    Fallback::Drop(reason) => return Verdict::Nobody(*reason),
                }
            }
        };
        if whole && let Verdict::Fallback { movable: false, .. } = before {
            return before;
        }
        let Some(half) = self.halves.get(half_key) else {
            return Verdict::Waiting;
        };
        let (role, transport) = (half.role, half.transport);
        if self.records.get(key).is_some_and(|record| record.overdue) && self.is_unwatched(key) && !whole {
            return Verdict::Nobody(Closed::PeerUnwatched);
        }
        let Some(edge) = self.edge_to(role, &judged.owner, other, transport) else {
            return Verdict::Nobody(Closed::EdgesFull);
        };
        let edge = self.edges.current(edge);
        if role == Role::Client
            && let Some(service) = &judged.resolved.service
        {
            self.edges.addressed(edge, service);
        }
        if other.provisional {
            self.wait(half_key, opened);
        }
        Verdict::Fallback {
            edge,
            movable: other.provisional || whole,
        }
    }
}
