//! What the report loop writes once a second and every stream reads: ledger, connections, loss, probes, addresses.
//!
//! Inputs: results of one reading of the kernel. Outputs: the facts [`crate::delta`] builds messages from. No IO,
//! no clock: the time of the last reading is part of the state, so that ages in a message refer to one moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use leyline_wire as wire;

use crate::connections::Connections;
use crate::ledger::Ledger;

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

impl Moment {
    /// How long before a later monotonic time this moment was.
    #[must_use]
    pub fn age_until(&self, later_ns: u64) -> Duration {
        Duration::from_nanos(later_ns.saturating_sub(self.monotonic_ns))
    }

    /// Milliseconds from an earlier monotonic time to this moment.
    #[must_use]
    pub fn age_ms(&self, earlier_ns: u64) -> u64 {
        self.monotonic_ns.saturating_sub(earlier_ns) / 1_000_000
    }
}

/// See the module's documentation.
pub struct State {
    /// When the kernel was read last.
    pub taken_at: Moment,
    /// Half-edges.
    pub ledger: Ledger,
    /// Connections of split half-edges.
    pub connections: Connections,
    /// What is known to be missing.
    pub loss: wire::Loss,
    /// State of each probe.
    pub probes: Versioned<Vec<wire::Probe>>,
    /// Addresses of the node's own network namespace.
    pub addresses: Versioned<BTreeSet<IpAddr>>,
}

impl State {
    /// Nothing known yet.
    #[must_use]
    pub fn new(max_half_edges: usize, max_connections: usize) -> Self {
        Self {
            taken_at: Moment::default(),
            ledger: Ledger::new(max_half_edges),
            connections: Connections::new(max_connections),
            loss: wire::Loss::default(),
            probes: Versioned::default(),
            addresses: Versioned::default(),
        }
    }
}

/// A value that is sent whole when it changed.
#[derive(Debug, Default)]
pub struct Versioned<T> {
    value: T,
    version: u64,
}

impl<T: PartialEq> Versioned<T> {
    /// Replaces the value; a new version only when it differs.
    pub fn set(&mut self, value: T) {
        if value != self.value {
            self.value = value;
            self.version += 1;
        }
    }

    /// The value.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }
}
