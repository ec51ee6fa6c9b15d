//! What the graph says about an edge: plain values, complete in themselves, for whoever writes objects or metrics.

use std::sync::Arc;

use crate::closed_list::closed_list;
use crate::entity::{EdgeKey, Time};
use crate::input::Counters;

/// A Service and one of its ports: what a client addressed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The Service's own port, which need not be the one the process listens on.
    pub port: u16,
}

/// Which end of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// The side that called `connect()`.
    Client,
    /// The other side.
    Server,
}

closed_list! {
    /// Why an end has no better name. A closed list.
    Unnamed {
        /// An address outside the cluster (or unknown to it) without a name.
        NoName,
        /// An address of a node, and the other half did not say which process or pod it was.
        NodeAddress,
        /// Several candidates and no proof.
        Ambiguous,
        /// A Service with nothing behind it.
        NoEndpoints,
    }
}

/// An end without a proper name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unresolved {
    /// Which end.
    pub end: End,
    /// Why.
    pub reason: Unnamed,
}

/// Whose sockets showed the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// A client's socket.
    pub client_socket: bool,
    /// A server's socket.
    pub server_socket: bool,
}

/// Why the totals are not the whole truth. All false: complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incomplete {
    /// Events were lost on a node that contributes.
    pub loss: bool,
    /// The totals are scaled from a sample of the connections.
    pub sampled: bool,
    /// Several servers or ports were folded into this edge.
    pub folded: bool,
}

impl Incomplete {
    /// Whether any reason applies.
    #[must_use]
    pub const fn any(self) -> bool {
        self.loss || self.sampled || self.folded
    }
}

/// Network figures of the last few minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The period the figures cover, milliseconds.
    pub length: i64,
    /// Mean time from SYN to ESTABLISHED as clients saw it, microseconds.
    pub connect_us: Option<u64>,
    /// Mean smoothed round-trip time over both ends' samples, microseconds.
    pub rtt_us: Option<u64>,
    /// Segments either end had to send again.
    pub retransmits: u64,
}

/// Bytes between two zones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneBytes {
    /// Zone of the client.
    pub client: Arc<str>,
    /// Zone of the server.
    pub server: Arc<str>,
    /// Payload bytes, both directions added up.
    pub bytes: u64,
}

/// One edge as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeView {
    /// Who, whom, where.
    pub key: EdgeKey,
    /// The Service the client addressed.
    pub service: Option<ServiceRef>,
    /// Whose sockets showed it.
    pub evidence: Evidence,
    /// First sign of the edge.
    pub first_seen: Time,
    /// Last sign; the present while a connection is open.
    pub last_seen: Time,
    /// Last time a connection was opened or carried bytes.
    pub last_success: Option<Time>,
    /// Last failed attempt.
    pub last_failure: Option<Time>,
    /// Totals; sent and received as the client sees them. `lost` is what is known to be missing.
    pub totals: Counters,
    /// The part of the bytes of which both zones are known, by client zone and server zone; at most 16 pairs, together
    /// never more than the totals' bytes.
    pub zones: Vec<ZoneBytes>,
    /// Figures of the last minutes.
    pub window: Figures,
    /// Set when one end has no proper name.
    pub unresolved: Option<Unresolved>,
    /// Why the totals are incomplete.
    pub incomplete: Incomplete,
}

/// What an existing object says about an edge, read once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Who, whom, where.
    pub key: EdgeKey,
    /// The Service the client addressed.
    pub service: Option<ServiceRef>,
    /// Whose sockets showed it.
    pub evidence: Evidence,
    /// `status.firstSeen`.
    pub first_seen: Time,
    /// `status.lastSeen`.
    pub last_seen: Time,
    /// Totals as the client sees them; gauges and fields the object does not hold are 0.
    pub totals: Counters,
    /// Bytes by zone.
    pub zones: Vec<ZoneBytes>,
    /// What the object's `Resolved` condition says.
    pub unresolved: Option<Unresolved>,
    /// What the object's `Complete` condition says.
    pub incomplete: Incomplete,
}
