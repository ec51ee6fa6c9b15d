//! From protobuf messages to what the graph takes in.
//!
//! Inputs: decoded messages of one agent, the operator's clock. Outputs: `leyline_graph::input` values or the
//! [`Violation`] that ends the stream. No IO. What is deliberately absent: anything that needs another message, an
//! id's definition for example; the graph knows the ids of a node.

use std::net::IpAddr;

use leyline_graph::entity::{Time, Transport};
use leyline_graph::input::{Connection, Counters, Definition, Measurement, Report, Role, Subject, Witness};
use leyline_wire as wire;
use tonic::Status;

use super::limits;

/// What is wrong with a message. The text goes back to the agent and into the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The body is missing, of a kind this operator does not know.
    #[error("the message has no body this operator knows")]
    Empty,
    /// The first message is not Hello.
    #[error("the first message must be Hello")]
    HelloMissing,
    /// Hello came twice.
    #[error("Hello must come exactly once")]
    HelloTwice,
    /// Reports are numbered 1, 2, 3, … within a stream.
    #[error("report {got} where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// An address of another length than 4 or 16 bytes.
    #[error("{field}: an address must have 4 or 16 bytes, not {length}")]
    Address {
        /// Where.
        field: &'static str,
        /// Bytes.
        length: usize,
    },
    /// A port above 65535.
    #[error("{field}: {value} is not a port")]
    Port {
        /// Where.
        field: &'static str,
        /// What came.
        value: u32,
    },
    /// A text with other characters or of another length than allowed.
    #[error("{field}: the text is empty, too long or has other characters than allowed")]
    Text {
        /// Where.
        field: &'static str,
    },
    /// A number outside of its range.
    #[error("{field}: {value} is out of range")]
    Number {
        /// Where.
        field: &'static str,
        /// What came.
        value: u64,
    },
    /// A definition without pod and process.
    #[error("half-edge {id} has no subject")]
    Subject {
        /// The half-edge.
        id: u32,
    },
    /// More entries in one message than a message may have.
    #[error("{field}: {count} entries, at most {limit} fit in one message")]
    TooMany {
        /// Where.
        field: &'static str,
        /// What came, or where counting stopped.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Bytes that are no protobuf message of this schema.
    #[error("the message cannot be decoded: {0}")]
    Encoding(String),
}

impl Violation {
    /// How the stream ends.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::TooMany { .. } => Status::resource_exhausted(self.to_string()),
            _ => Status::invalid_argument(self.to_string()),
        }
    }
}

/// Who speaks on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the node; the caller compares it with the token's claim.
    pub node: String,
    /// Names the agent's run.
    pub epoch: u64,
    /// Version of the agent, for the log.
    pub version: String,
    /// Every address of the node's own network namespace.
    pub node_addresses: Vec<IpAddr>,
    /// State of each probe of the agent.
    pub probes: Vec<Probe>,
}

/// State of one probe on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Name of the probe.
    pub name: String,
    /// How it is.
    pub state: wire::probe::State,
    /// Why it is not attached.
    pub reason: String,
}

/// A report together with what is not the graph's business.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// For the graph.
    pub report: Report,
    /// Number of the report, to be acknowledged.
    pub sequence: u64,
    /// Events lost since the agent's epoch, by cause; absent when nothing changed. `report.lost` is not set from it: what
    /// was said last is known to [`super::streams`].
    pub loss: Option<wire::Loss>,
    /// The whole set of probes, when it changed.
    pub probes: Vec<Probe>,
}

/// Checks the first message of a stream.
///
/// # Errors
/// The first [`Violation`] found.
pub fn hello(message: wire::Hello) -> Result<Hello, Violation> {
    let wire::Hello {
        node,
        epoch,
        version,
        kernel,
        node_addresses,
        probes,
    } = message;
    text("hello.node", &node, limits::NODE_NAME, is_name)?;
    loose_text("hello.version", &version)?;
    loose_text("hello.kernel", &kernel)?;
    if epoch == 0 {
        return Err(Violation::Number {
            field: "hello.epoch",
            value: epoch,
        });
    }
    Ok(Hello {
        node,
        epoch,
        version,
        node_addresses: addresses("hello.node_addresses", &node_addresses)?,
        probes: probe_states(probes)?,
    })
}

/// Checks one report; `expected` is the sequence number that is due, `now` the operator's clock.
///
/// # Errors
/// The first [`Violation`] found.
pub fn report(message: wire::Report, expected: u64, now: Time) -> Result<Checked, Violation> {
    let wire::Report {
        sequence,
        taken_at_ms: _, // ages are relative to it: the agent's clock never meets the operator's
        definitions,
        counters,
        connections,
        ended,
        complete,
        loss,
        node_addresses,
        probes,
    } = message;
    if sequence != expected {
        return Err(Violation::Sequence {
            expected,
            got: sequence,
        });
    }
    at_most("report.definitions", definitions.len(), limits::DEFINITIONS)?;
    at_most("report.counters", counters.len(), limits::COUNTERS)?;
    at_most("report.connections", connections.len(), limits::CONNECTIONS)?;
    at_most("report.ended", ended.len(), limits::ENDED)?;
    let report = Report {
        definitions: definitions
            .into_iter()
            .map(definition)
            .collect::<Result<_, _>>()?,
        measurements: counters
            .iter()
            .map(|one| measurement(one, now))
            .collect::<Result<_, _>>()?,
        connections: connections
            .iter()
            .map(|one| connection(one, now))
            .collect::<Result<_, _>>()?,
        ended,
        complete,
        lost: 0,
        sampled: 0,
        node_addresses: match node_addresses.as_slice() {
            [] => None,
            some => Some(addresses("report.node_addresses", some)?),
        },
    };
    Ok(Checked {
        report,
        sequence,
        loss,
        probes: probe_states(probes)?,
    })
}

/// Events that make counts or records of named half-edges too low. Connections that were left out on purpose are not
/// among them: sampled ones are in the totals, those of unnamed cgroups and foreign network namespaces and
/// datagrams without an address in no half-edge; a forgotten flow that goes on counts twice, not too low.
#[must_use]
pub fn lost_events(loss: &wire::Loss) -> u64 {
    let wire::Loss {
        half_edges_full,
        half_edge_bytes: _, // bytes of the connections counted in half_edges_full
        socket_storage,
        connection_ring,
        cgroup_ring,
        connections_queue,
        unknown_cgroup: _,
        foreign_network: _,
        connections_sampled: _,
        state_changes,
        udp_unaddressed: _,
        udp_flows: _,
    } = *loss;
    [
        half_edges_full,
        socket_storage,
        connection_ring,
        cgroup_ring,
        connections_queue,
        state_changes,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

fn definition(message: wire::HalfEdgeDefinition) -> Result<Definition, Violation> {
    let wire::HalfEdgeDefinition {
        id,
        role,
        remote,
        port: server_port,
        transport,
        split,
        subject,
    } = message;
    let subject = match subject {
        Some(wire::half_edge_definition::Subject::Pod(uid)) => {
            text("definition.pod", &uid, limits::POD_UID, |c| {
                c.is_ascii_alphanumeric() || c == b'-'
            })?;
            Subject::Pod(uid)
        }
        Some(wire::half_edge_definition::Subject::Process(name)) => {
            text("definition.process", &name, limits::PROCESS_NAME, is_process)?;
            Subject::Process(name)
        }
        None => return Err(Violation::Subject { id }),
    };
    let role = match wire::Role::try_from(role) {
        Ok(wire::Role::Unknown) => Role::Unknown,
        Ok(wire::Role::Client) => Role::Client,
        Ok(wire::Role::Server) => Role::Server,
        Err(_) => return Err(enumeration("definition.role", role)),
    };
    let transport = match wire::Transport::try_from(transport) {
        Ok(wire::Transport::Tcp) => Transport::Tcp,
        Ok(wire::Transport::Udp) => Transport::Udp,
        Ok(wire::Transport::Unspecified) | Err(_) => {
            return Err(enumeration("definition.transport", transport));
        }
    };
    Ok(Definition {
        id,
        subject,
        role,
        remote: address("definition.remote", &remote)?,
        port: port("definition.port", server_port)?,
        transport,
        split,
    })
}

fn measurement(message: &wire::HalfEdgeCounters, now: Time) -> Result<Measurement, Violation> {
    let wire::HalfEdgeCounters {
        id,
        opened,
        adopted,
        active,
        refused,
        timed_out,
        unreachable,
        reset,
        aborted,
        bytes_sent,
        bytes_received,
        connect_us,
        rtt_us,
        rtt_samples,
        retransmits,
        lost,
        age_ms,
    } = *message;
    let counters = Counters {
        opened: count("counters.opened", opened)?,
        adopted: count("counters.adopted", adopted)?,
        active: count("counters.active", active)?,
        refused: count("counters.refused", refused)?,
        timed_out: count("counters.timed_out", timed_out)?,
        unreachable: count("counters.unreachable", unreachable)?,
        reset: count("counters.reset", reset)?,
        aborted: count("counters.aborted", aborted)?,
        bytes_sent: count("counters.bytes_sent", bytes_sent)?,
        bytes_received: count("counters.bytes_received", bytes_received)?,
        connect_us: count("counters.connect_us", connect_us)?,
        rtt_us: count("counters.rtt_us", rtt_us)?,
        rtt_samples: count("counters.rtt_samples", rtt_samples)?,
        retransmits: count("counters.retransmits", retransmits)?,
        lost: count("counters.lost", lost)?,
    };
    Ok(Measurement {
        id,
        counters,
        changed: before(now, age_ms),
    })
}

fn connection(message: &wire::Connection, now: Time) -> Result<Connection, Violation> {
    let wire::Connection {
        id,
        client_isn,
        server_isn,
        ref local,
        local_port,
        remote_port,
        adopted,
        closed,
        bytes_sent,
        bytes_received,
        weight,
        age_ms,
        open_age_ms,
    } = *message;
    if weight > limits::WEIGHT {
        return Err(Violation::Number {
            field: "connection.weight",
            value: weight.into(),
        });
    }
    Ok(Connection {
        id,
        witness: Witness {
            client_isn,
            server_isn,
        },
        local: address("connection.local", local)?,
        local_port: port("connection.local_port", local_port)?,
        remote_port: port("connection.remote_port", remote_port)?,
        adopted,
        closed,
        bytes_sent: count("connection.bytes_sent", bytes_sent)?,
        bytes_received: count("connection.bytes_received", bytes_received)?,
        weight: weight.max(1),
        opened: before(now, open_age_ms),
        seen: before(now, age_ms),
    })
}

fn probe_states(probes: Vec<wire::Probe>) -> Result<Vec<Probe>, Violation> {
    at_most("probes", probes.len(), limits::PROBES)?;
    probes
        .into_iter()
        .map(|wire::Probe { name, state, reason }| {
            text("probe.name", &name, limits::PROCESS_NAME, |c| {
                is_process(c) || c == b'/'
            })?;
            let state = wire::probe::State::try_from(state).map_err(|_| enumeration("probe.state", state))?;
            if reason.len() > limits::PROBE_REASON {
                return Err(Violation::Text {
                    field: "probe.reason",
                });
            }
            Ok(Probe { name, state, reason })
        })
        .collect()
}

fn addresses(field: &'static str, list: &[impl AsRef<[u8]>]) -> Result<Vec<IpAddr>, Violation> {
    at_most(field, list.len(), limits::NODE_ADDRESSES)?;
    list.iter().map(|bytes| address(field, bytes.as_ref())).collect()
}

/// An IPv4-mapped IPv6 address becomes IPv4: one address, one form.
fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Violation> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(four));
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(sixteen) => Ok(IpAddr::from(sixteen).to_canonical()),
        Err(_) => Err(Violation::Address {
            field,
            length: bytes.len(),
        }),
    }
}

fn port(field: &'static str, value: u32) -> Result<u16, Violation> {
    u16::try_from(value).map_err(|_| Violation::Port { field, value })
}

fn count(field: &'static str, value: u64) -> Result<u64, Violation> {
    if value > limits::COUNT {
        return Err(Violation::Number { field, value });
    }
    Ok(value)
}

fn at_most(field: &'static str, count: usize, limit: usize) -> Result<(), Violation> {
    if count > limit {
        return Err(Violation::TooMany { field, count, limit });
    }
    Ok(())
}

fn text(
    field: &'static str,
    value: &str,
    limit: usize,
    allowed: impl Fn(u8) -> bool,
) -> Result<(), Violation> {
    if value.is_empty() || value.len() > limit || !value.bytes().all(allowed) {
        return Err(Violation::Text { field });
    }
    Ok(())
}

/// A text that is only logged: may be empty, must be short and printable.
fn loose_text(field: &'static str, value: &str) -> Result<(), Violation> {
    if value.len() > limits::VERSION || !value.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) {
        return Err(Violation::Text { field });
    }
    Ok(())
}

fn is_name(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.'
}

fn is_process(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'@' | b':' | b'-')
}

fn enumeration(field: &'static str, value: i32) -> Violation {
    Violation::Number {
        field,
        value: value.unsigned_abs().into(),
    }
}

fn before(now: Time, age_ms: u64) -> Time {
    let age = i64::try_from(age_ms).unwrap_or(i64::MAX).min(limits::AGE_MS);
    Time(now.0.saturating_sub(age))
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
