//! Builds the next message of one stream: what changed since this stream's cursor.
//!
//! Inputs: the [`State`] and the stream's [`Cursor`]. Outputs: `Hello`, then `Report`s of bounded size. No IO, no
//! clock.
//!
//! A new cursor has seen nothing, so its first reports are the full one in chunks; the chunk after which nothing
//! is left says `complete`. Half-edges go before connections, hence every connection's half-edge is defined.
//! Ids that a stream never heard of are never ended on it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use leyline_wire as wire;

use crate::connections::Record;
use crate::ledger::{Reported, Subject};
use crate::state::{Moment, State};

/// Most half-edges in one report. With every field at its largest this is 2,000 × 290 B.
pub const MAX_HALF_EDGES: usize = 2_000;
/// Most connections in one report: 4,000 × 110 B at the largest.
pub const MAX_CONNECTIONS: usize = 4_000;

/// Most ended half-edges in one report.
pub const MAX_ENDED: usize = 10_000;

/// What one stream has been sent.
#[derive(Debug, Default)]
pub struct Cursor {
    sequence: u64,
    half_edges: u64,
    connections: u64,
    defined: HashSet<u32>,
    ended_seen: u64,
    probes: u64,
    addresses: u64,
    loss: wire::Loss,
    complete: bool,
}

impl Cursor {
    /// Sequence of the last report.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last change of the connection store that was sent.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Whether the full report is out.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The first message of a stream.
    pub fn hello(&mut self, state: &State, agent: &Agent) -> wire::Hello {
        self.probes = state.probes.version();
        self.addresses = state.addresses.version();
        wire::Hello {
            node: agent.node.clone(),
            epoch: agent.epoch,
            version: agent.version.clone(),
            kernel: agent.kernel.clone(),
            node_addresses: state.addresses.get().iter().map(ip_bytes).collect(),
            probes: state.probes.get().clone(),
        }
    }

    /// Whether there is anything to say.
    #[must_use]
    pub fn has_news(&self, state: &State) -> bool {
        !self.complete
            || state.ledger.changed_since(self.half_edges).next().is_some()
            || state.connections.changed_since(self.connections).next().is_some()
            || state.ledger.ended() != self.ended_seen
            || state.probes.version() != self.probes
            || state.addresses.version() != self.addresses
            || state.loss != self.loss
    }

    /// The next report, empty (a heartbeat) when nothing changed.
    pub fn next_report(&mut self, state: &State) -> wire::Report {
        self.sequence += 1;
        let mut report = wire::Report {
            sequence: self.sequence,
            taken_at_ms: state.taken_at.wall_ms,
            ..wire::Report::default()
        };
        self.add_half_edges(state, &mut report);
        if report.counters.len() < MAX_HALF_EDGES {
            let taken = self.add_connections(state, &mut report);
            if taken < MAX_CONNECTIONS && !self.complete {
                self.complete = true;
                report.complete = true;
            }
        }
        self.add_ended(state, &mut report);
        self.add_changed_sets(state, &mut report);
        self.loss = state.loss;
        report.loss = Some(state.loss);
        report
    }

    fn add_half_edges(&mut self, state: &State, report: &mut wire::Report) {
        for (change, id, entry) in state.ledger.changed_since(self.half_edges).take(MAX_HALF_EDGES) {
            if self.defined.insert(id) {
                report.definitions.push(definition(id, entry));
            }
            report.counters.push(counters(id, entry, &state.taken_at));
            self.half_edges = change;
        }
    }

    /// Tells how many were looked at: those of an ended half-edge are passed over.
    fn add_connections(&mut self, state: &State, report: &mut wire::Report) -> usize {
        let mut taken = 0;
        for (change, record) in state
            .connections
            .changed_since(self.connections)
            .take(MAX_CONNECTIONS)
        {
            self.connections = change;
            if self.defined.contains(&record.id) && state.ledger.holds(record.id) {
                report.connections.push(connection(record, &state.taken_at));
            }
            taken += 1;
        }
        taken
    }

    fn add_ended(&mut self, state: &State, report: &mut wire::Report) {
        if state.ledger.ended() == self.ended_seen {
            return;
        }
        let ended = self.defined.extract_if(|id| !state.ledger.holds(*id));
        report.ended = ended.take(MAX_ENDED).collect();
        if report.ended.len() < MAX_ENDED {
            self.ended_seen = state.ledger.ended();
        }
        report.ended.sort_unstable();
    }

    fn add_changed_sets(&mut self, state: &State, report: &mut wire::Report) {
        if state.probes.version() != self.probes {
            self.probes = state.probes.version();
            report.probes = state.probes.get().clone();
        }
        if state.addresses.version() != self.addresses {
            self.addresses = state.addresses.version();
            report.node_addresses = state.addresses.get().iter().map(ip_bytes).collect();
        }
    }
}

/// What `Hello` says about this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The node's name in Kubernetes.
    pub node: String,
    /// When this agent started, nanoseconds since 1970.
    pub epoch: u64,
    /// Its version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
}

fn definition(id: u32, entry: &Reported) -> wire::HalfEdgeDefinition {
    let key = &entry.key;
    wire::HalfEdgeDefinition {
        id,
        role: i32::from(key.role),
        remote: address_bytes(key.remote),
        port: u32::from(key.port),
        transport: i32::from(key.transport),
        split: entry.split,
        subject: Some(match &key.subject {
            Subject::Pod(uid) => wire::half_edge_definition::Subject::Pod(uid.to_string()),
            Subject::Process(name) => wire::half_edge_definition::Subject::Process(name.to_string()),
        }),
    }
}

fn counters(id: u32, entry: &Reported, now: &Moment) -> wire::HalfEdgeCounters {
    let totals = &entry.totals;
    wire::HalfEdgeCounters {
        id,
        opened: totals.opened,
        adopted: totals.adopted,
        active: entry.active(),
        refused: totals.refused,
        timed_out: totals.timed_out,
        unreachable: totals.unreachable,
        reset: totals.reset,
        aborted: totals.aborted,
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
        connect_us: totals.connect_ns / 1_000,
        rtt_us: totals.rtt_us,
        rtt_samples: totals.rtt_samples,
        retransmits: totals.retransmits,
        // Loss is known per node so far, not per half-edge.
        lost: 0,
        age_ms: now.age_ms(totals.changed_ns),
    }
}

fn connection(record: &Record, now: &Moment) -> wire::Connection {
    wire::Connection {
        id: record.id,
        client_isn: record.client_isn,
        server_isn: record.server_isn,
        local: address_bytes(record.local),
        local_port: u32::from(record.local_port),
        remote_port: u32::from(record.remote_port),
        adopted: record.adopted,
        closed: record.closed,
        bytes_sent: record.bytes_sent,
        bytes_received: record.bytes_received,
        weight: match record.weight_log2 {
            0 => 0,
            log2 => 1_u32.checked_shl(u32::from(log2)).unwrap_or(u32::MAX),
        },
        age_ms: now.age_ms(record.at_ns),
        open_age_ms: now.age_ms(record.opened_ns),
    }
}

/// 4 bytes for an IPv4-mapped address, else 16.
fn address_bytes(address: [u8; 16]) -> Vec<u8> {
    ip_bytes(&IpAddr::V6(Ipv6Addr::from(address)))
}

fn ip_bytes(address: &IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
