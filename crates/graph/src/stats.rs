//! Counts for metrics: what was set aside and why, and how large every table is.

use crate::closed_list::closed_list;

closed_list! {
    /// Why counts or a record belong to no edge. A closed list.
    Closed {
        /// The pod runs on another node than the one that reported it.
        OtherNode,
        /// Nobody knew the pod within the waiting time.
        PodUnknown,
        /// A health check by the node.
        Probe,
        /// Loopback or an address that names no host.
        Loopback,
        /// Both ends in one pod.
        SamePod,
        /// Between processes of nodes, or between one and the outside.
        NodeProcess,
        /// More than two halves with one witness, or two with the same role.
        Ambiguous,
        /// Neither end could say who called.
        RoleUnknown,
        /// The other end's agent need not have seen it (started later, away, sampling or losing events): nothing follows from
        /// its silence.
        PeerUnwatched,
        /// A record was refused because the table of records was full.
        RecordsFull,
        /// A half-edge was refused because its node had too many.
        HalfEdgesFull,
        /// Too many half-edges were waiting for a name.
        WaitingFull,
        /// An edge was refused because there were too many.
        EdgesFull,
    }
}

/// Counts since the graph was made, and sizes now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections or attempts set aside, by reason.
    pub closed: Vec<(Closed, u64)>,
    /// Edges by why an end has no better name: `NoName`, `NodeAddress`, `Ambiguous`, `NoEndpoints`.
    pub unresolved: Vec<(crate::view::Unnamed, usize)>,
    /// Nodes with an agent that is connected.
    pub agents: usize,
    /// Half-edges.
    pub half_edges: usize,
    /// Half-edges that wait for a name.
    pub waiting: usize,
    /// Connection records.
    pub records: usize,
    /// Edges.
    pub edges: usize,
    /// Entities.
    pub entities: usize,
    /// Pods, gone ones within their tombstone time included.
    pub pods: usize,
    /// Services, likewise.
    pub services: usize,
    /// Addresses somebody has or had.
    pub addresses: usize,
    /// Zones that nodes had or objects named.
    pub zones: usize,
    /// Pairs of zones between which something was counted.
    pub zone_pairs: usize,
    /// Edges with more pairs of zones than are kept.
    pub zones_truncated: usize,
}

/// Counters by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClosedCounts([u64; Closed::ALL.len()]);

impl ClosedCounts {
    pub(crate) fn add(&mut self, reason: Closed, count: u64) {
        if let Some(cell) = self.0.get_mut(reason as usize) {
            *cell = cell.saturating_add(count);
        }
    }

    pub(crate) fn list(&self) -> Vec<(Closed, u64)> {
        Closed::ALL.into_iter().zip(self.0).collect()
    }
}
