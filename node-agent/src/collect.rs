//! The report loop: reads the kernel and brings the shared state up to date.
//!
//! Inputs: [`Kernel`], [`Names`]. Outputs: a [`State`] that is one moment old, metrics, marks in the kernel's table of
//! pods. IO: what those do. Called by [`crate::run`] every [`DRAIN_EVERY`]; every [`READ_EVERY`] half-edges are read too.
//!
//! The order within a reading matters: cgroups before connections and half-edges, so that a pod of a moment ago has
//! a name; connections before half-edges, so that a record's half-edge is in the same reading or an earlier one.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use leyline_abi::{CgroupEvent, Connection, kind, loss, transport};
use leyline_wire as wire;
use tracing::warn;

use crate::kernel::{Kernel, KernelError, ProbeState, SplitSet};
use crate::ledger::Fate;
use crate::metrics::{KernelFigures, Metrics};
use crate::naming::Names;
use crate::sampling::Sampling;
use crate::state::{Moment, State};
use crate::streams::Shared;
use crate::{addresses, clock};

/// Between two drains of the ring buffers. Looking at empty ones costs no system call, and a burst of 16,000 connections
/// per second with both ends on this node fills half of a MiB in this time.
pub const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// Between two readings of the half-edges.
pub const READ_EVERY: Duration = Duration::from_secs(1);
/// Between two walks over all sockets, and two looks at the node's addresses.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Most records taken at once: four times what the ring buffer holds.
const MAX_RECORDS: usize = 65_536;
const MAX_CGROUPS: usize = 16_384;
/// Longest reason of a probe that is reported, in characters: the verifier's own words can fill pages.
const MAX_REASON: usize = 250;
/// Most kernel entries removed in one reading.
const MAX_REMOVED: usize = 2_048;
/// Connection records whose half-edge has no name yet, or has not been read.
const MAX_WAITING: usize = 8_192;
/// Records taken at once before anything else happens: twice as many may wait.
const PIECE: usize = MAX_WAITING / 2;
/// How long such a record waits; a little longer than a half-edge waits for its name.
const WAITING: Duration = Duration::from_secs(40);

/// See the module's documentation.
pub struct Collector {
    kernel: Kernel,
    names: Names,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    sampling: Sampling,
    waiting: VecDeque<(u64, Connection)>,
    waiting_dropped: u64,
    read_ns: Option<u64>,
    swept_ns: Option<u64>,
    last_trouble: String,
}

impl Collector {
    /// Takes over a loaded kernel side.
    #[must_use]
    pub fn new(kernel: Kernel, names: Names, shared: Arc<Shared>, metrics: Arc<Metrics>) -> Self {
        Self {
            kernel,
            names,
            shared,
            metrics,
            sampling: Sampling::default(),
            waiting: VecDeque::new(),
            waiting_dropped: 0,
            read_ns: None,
            swept_ns: None,
            last_trouble: String::new(),
        }
    }

    /// One round. Trouble with the kernel is logged once per kind and does not end the loop: the liveness probe
    /// does, when nothing could be read for long.
    pub fn round(&mut self) {
        let now = clock::now();
        match self.try_round(&now) {
            Ok(()) => self.last_trouble.clear(),
            Err(error) => {
                let trouble = error.to_string();
                if trouble != self.last_trouble {
                    warn!(error = trouble, "cannot read the kernel side");
                    self.last_trouble = trouble;
                }
            }
        }
    }

    fn try_round(&mut self, now: &Moment) -> Result<(), KernelError> {
        self.drain_cgroups(now);
        let is_reading = is_due(self.read_ns, READ_EVERY, now);
        let mut swept = Ok(());
        if is_reading && is_due(self.swept_ns, SWEEP_EVERY, now) {
            self.swept_ns = Some(now.monotonic_ns);
            // One that fails must not keep the others from happening.
            swept = self.look_at_addresses().and(self.kernel.sweep());
        }
        self.drain_connections(now)?;
        if is_reading {
            self.read(now)?;
            self.read_ns = Some(now.monotonic_ns);
            self.shared.announce_reading();
        }
        swept
    }

    fn drain_cgroups(&mut self, now: &Moment) {
        let mut removed = Vec::new();
        let cgroups = &mut self.names.cgroups;
        self.kernel.drain_cgroups(MAX_CGROUPS, |event: &CgroupEvent| {
            removed.extend(cgroups.apply(event, now.monotonic_ns));
        });
        let marked = cgroups.take_unmarked();
        let results = marked
            .into_iter()
            .map(|id| (id, true))
            .chain(removed.into_iter().map(|id| (id, false)));
        for (id, is_pod) in results {
            let result = if is_pod {
                self.kernel.mark_pod(id)
            } else {
                self.kernel.unmark_pod(id)
            };
            if let Err(error) = result {
                // Not marked means more kernel entries for the same half-edge, nothing worse.
                tracing::debug!(cgroup = id, %error, "cannot mark a pod's cgroup");
            }
        }
    }

    fn look_at_addresses(&mut self) -> Result<(), KernelError> {
        let found = match addresses::node_addresses() {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "cannot read the node's addresses");
                return Ok(());
            }
        };
        let list: Vec<IpAddr> = found.iter().copied().collect();
        let split = SplitSet::new(&list);
        if split != *self.kernel.split() {
            self.kernel.set_split(split)?;
        }
        self.set_addresses(found);
        Ok(())
    }

    fn set_addresses(&self, found: BTreeSet<IpAddr>) {
        self.shared.state().addresses.set(found);
    }

    /// Takes the ring buffer empty, piece by piece: a piece may call for a reading of the half-edges it belongs to.
    fn drain_connections(&mut self, now: &Moment) -> Result<(), KernelError> {
        let (mut left, mut thinned) = (MAX_RECORDS, 0);
        while left > 0 {
            let taken = self.take_connections(now, &mut thinned);
            if taken < PIECE {
                break;
            }
            left = left.saturating_sub(taken);
            if self.waiting.len() >= PIECE {
                self.read(now)?;
            }
        }
        // Once for all: what one round finds was in the ring buffer before any change could act.
        if let Some(log2) = self.sampling.adapt(thinned, now.monotonic_ns) {
            tracing::debug!(one_in = 1_u64 << log2, "connection records are sampled");
            self.kernel.set_sample_log2(log2)?;
        }
        Ok(())
    }

    /// Takes one piece; `thinned` grows by the records that sampling could have made fewer: who lives on was chosen when
    /// it opened.
    fn take_connections(&mut self, now: &Moment, thinned: &mut usize) -> usize {
        let mut state = self.shared.state();
        let State {
            ledger, connections, ..
        } = &mut *state;
        let (waiting, dropped) = (&mut self.waiting, &mut self.waiting_dropped);
        self.kernel.drain_connections(PIECE, |record| {
            *thinned += usize::from(record.kind != kind::PROGRESS);
            match ledger.fate(record.half_edge) {
                Some(Fate::Reported(id)) => connections.fold(id, record),
                Some(Fate::Rejected) => {}
                _ if waiting.len() < MAX_WAITING => waiting.push_back((now.monotonic_ns, *record)),
                _ => *dropped += 1,
            }
        })
    }

    /// Reads half-edges and folds everything that depends on them.
    fn read(&mut self, now: &Moment) -> Result<(), KernelError> {
        let began_ns = clock::monotonic_ns();
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let Self { kernel, names, .. } = self;
        kernel.half_edges(|key, value| {
            state.ledger.observe(
                key,
                value,
                now.monotonic_ns,
                |key| {
                    names.name(key, now.monotonic_ns, |tgid| {
                        kernel.owner(tgid).map(|owner| owner.comm)
                    })
                },
                // Flows of UDP are not reported one by one.
                |key| key.transport == transport::TCP && kernel.split().contains(key.remote),
            );
        })?;
        state.taken_at = *now;
        self.settle_waiting(&mut state, now);
        self.forget(&mut state, now)?;
        self.show(&mut state, began_ns)
    }

    /// Records that waited for their half-edge.
    fn settle_waiting(&mut self, state: &mut State, now: &Moment) {
        for _ in 0..self.waiting.len() {
            let Some((since, record)) = self.waiting.pop_front() else {
                break;
            };
            let is_over = Duration::from_nanos(now.monotonic_ns.saturating_sub(since)) >= WAITING;
            match state.ledger.fate(record.half_edge) {
                Some(Fate::Reported(id)) => state.connections.fold(id, &record),
                Some(Fate::Rejected) => {}
                _ if is_over => self.waiting_dropped += 1,
                _ => self.waiting.push_back((since, record)),
            }
        }
    }

    fn forget(&mut self, state: &mut State, now: &Moment) -> Result<(), KernelError> {
        let now_ns = now.monotonic_ns;
        for key in state.ledger.removable(now_ns, MAX_REMOVED) {
            let last = self.kernel.remove(&key)?;
            state.ledger.removed(&key, last.as_ref());
        }
        state.ledger.end_idle(now_ns);
        let State {
            ledger, connections, ..
        } = state;
        if let Some(acknowledged) = self.shared.acknowledged_connections() {
            connections.delivered(acknowledged);
        }
        connections.close_stale(now_ns, |id| ledger.active(id));
        connections.expire(now_ns);
        self.names.expire(now_ns);
        Ok(())
    }

    fn show(&mut self, state: &mut State, began_ns: u64) -> Result<(), KernelError> {
        let kernel = self.kernel.loss()?;
        let of = |cause: u32| {
            usize::try_from(cause)
                .ok()
                .and_then(|at| kernel.get(at))
                .copied()
                .unwrap_or(0)
        };
        let ledger = state.ledger.loss();
        state.loss = wire::Loss {
            half_edges_full: of(loss::HALF_EDGES_FULL).saturating_add(ledger.full),
            half_edge_bytes: of(loss::HALF_EDGE_BYTES),
            socket_storage: of(loss::SOCKET_STORAGE),
            connection_ring: of(loss::CONNECTION_RING),
            cgroup_ring: of(loss::CGROUP_RING),
            connections_queue: state.connections.dropped().saturating_add(self.waiting_dropped),
            unknown_cgroup: ledger.unknown_cgroup,
            foreign_network: ledger.foreign_network,
            connections_sampled: of(loss::SAMPLED),
            state_changes: of(loss::STATE_CHANGES),
            udp_unaddressed: of(loss::UDP_UNADDRESSED),
            udp_flows: of(loss::UDP_FLOWS),
        };
        state.probes.set(probes(&self.kernel));
        self.metrics.show_probes(state.probes.get());
        let figures = KernelFigures {
            map_bytes: self.kernel.map_bytes(),
            sample_log2: self.sampling.log2(),
            cgroups: self.names.cgroups.len(),
            cgroups_dropped: self.names.cgroups.dropped(),
            reading_ns: clock::monotonic_ns().saturating_sub(began_ns),
        };
        self.metrics.show(state, &figures);
        Ok(())
    }
}

fn is_due(last_ns: Option<u64>, every: Duration, now: &Moment) -> bool {
    // Half a drain early rather than half a drain late: rounds are not exact.
    let elapsed = |last: u64| Duration::from_nanos(now.monotonic_ns.saturating_sub(last)) + DRAIN_EVERY / 2;
    last_ns.is_none_or(|last| elapsed(last) >= every)
}

/// The state of the probes as it is reported.
fn probes(kernel: &Kernel) -> Vec<wire::Probe> {
    kernel
        .probes()
        .iter()
        .map(|probe| wire::Probe {
            name: probe.name.to_owned(),
            state: match probe.state {
                ProbeState::Attached => wire::probe::State::Attached,
                ProbeState::Unsupported => wire::probe::State::Unsupported,
                ProbeState::Failed => wire::probe::State::Failed,
            }
            .into(),
            reason: probe.reason.chars().take(MAX_REASON).collect(),
        })
        .collect()
}
