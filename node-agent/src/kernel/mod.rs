//! The kernel side as the agent sees it: load the programs, read the maps, drain the rings.
//!
//! Inputs: the eBPF object that `build.rs` embedded, the running kernel's BTF, [`KernelOptions`]. Outputs: half-edges,
//! connection records, cgroup events, loss counters and the state of each probe. IO: `bpf()` system calls and one read
//! of `/sys/kernel/btf/vmlinux`. Everything is synchronous and returns quickly.
//!
//! Deliberately absent: names. A half-edge carries a cgroup id and a thread group; what they are called is the
//! caller's business. Dropping [`Kernel`] detaches every program; nothing is pinned.

mod btf;
mod capabilities;
mod closes;
mod error;
mod flows;
mod load;
mod maps;
mod misses;
mod offsets;
mod probe;
mod split;
mod sys;

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use leyline_abi::{CgroupEvent, Connection, HalfEdge, HalfEdgeKey, Owner, Plain, loss};

pub use error::{KernelError, LoadError};
pub use misses::Skipped;
pub use probe::{ProbeState, ProbeStatus};
pub use split::{Prefix, SplitSet};

/// Every probe this agent has, in the order they are loaded.
pub const PROBES: [&str; 12] = [
    "tcp_state",
    "tcp_state_nested",
    "sockets",
    "totals",
    "udp_sent",
    "udp_received",
    "udp_sendmsg4",
    "udp_sendmsg6",
    "udp_recvmsg4",
    "udp_recvmsg6",
    "cgroup_mkdir",
    "cgroup_rmdir",
];

/// The probes of UDP, as [`KernelOptions::leave_out`] takes them.
pub const UDP_PROBES: &[&str] = &[
    "udp_sent",
    "udp_received",
    "udp_sendmsg4",
    "udp_sendmsg6",
    "udp_recvmsg4",
    "udp_recvmsg6",
];

/// How long after the start sweeps still look for connections that are older than the agent (they may have waited in
/// an accept queue, where no file shows them).
const ADOPTION: Duration = Duration::from_secs(60);

/// Sizes of everything bounded. Half-edges take about 240 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// Entries of the half-edge map.
    pub max_half_edges: u32,
    /// Cgroups that can be marked as a pod's.
    pub max_pods: u32,
    /// Thread groups whose names are remembered.
    pub max_owners: u32,
    /// Ring buffer of connection records; rounded up to a power of two.
    pub connection_ring_bytes: u32,
    /// Ring buffer of cgroup events; rounded up to a power of two.
    pub cgroup_ring_bytes: u32,
    /// UDP flows that are remembered at a time.
    pub max_flows: u32,
    /// A UDP flow that was quiet for this long is over.
    pub flow_idle: Duration,
    /// Root of the unified cgroup hierarchy, where UDP's cgroup programs attach.
    pub cgroup_root: Option<PathBuf>,
    /// Probes, of [`PROBES`], that are neither loaded nor listed.
    pub leave_out: &'static [&'static str],
}

impl KernelOptions {
    /// With UDP, whose cgroup programs attach at `cgroup_root`.
    #[must_use]
    pub fn with_udp(self, cgroup_root: Option<PathBuf>) -> Self {
        Self {
            cgroup_root,
            leave_out: &[],
            ..self
        }
    }

    /// Room for flows, if there can be any.
    fn max_flows(&self) -> u32 {
        let any = !UDP_PROBES.iter().all(|probe| self.leave_out.contains(probe));
        if any { self.max_flows.max(1) } else { 1 }
    }
}

impl Default for KernelOptions {
    /// TCP only; 16,384 half-edges. A connection with both ends on this kernel takes 288 bytes of the ring: 4 MiB hold what
    /// 16,000 connections per second send in 0.9 seconds, until sampling sets in.
    fn default() -> Self {
        Self {
            max_half_edges: 16_384,
            max_pods: 8_192,
            max_owners: 4_096,
            connection_ring_bytes: 1 << 22,
            cgroup_ring_bytes: 1 << 17,
            max_flows: 16_384,
            flow_idle: Duration::from_secs(60),
            cgroup_root: None,
            leave_out: UDP_PROBES,
        }
    }
}

/// The loaded kernel side. Dropping it detaches everything.
pub struct Kernel {
    /// Programs with their links, and the maps nobody asks for.
    _ebpf: aya::Ebpf,
    probes: Vec<ProbeStatus>,
    sockets: Option<sys::Iterator>,
    totals: Option<sys::Iterator>,
    maps: maps::Maps,
    misses: misses::Misses,
    closes: closes::Closes,
    flows: flows::Flows,
    flow_idle: Duration,
    split: SplitSet,
    adopt_until: Instant,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("probes", &self.probes)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads and attaches what this kernel allows; [`probes`](Self::probes) says what that is. Connections older than
    /// this call are adopted by the first [`sweep`](Self::sweep): mark pods and set split addresses before it.
    ///
    /// # Errors
    ///
    /// Only when nothing works.
    pub fn load(options: &KernelOptions) -> Result<Self, LoadError> {
        load::load(options)
    }

    /// State of each probe that was asked for, in the order of [`PROBES`].
    #[must_use]
    pub fn probes(&self) -> &[ProbeStatus] {
        &self.probes
    }

    /// Walks all tracked sockets and folds their running totals; in the first minute also adopts older connections. Finds
    /// connections whose beginning or end no program saw.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to run an iterator that is attached.
    pub fn sweep(&mut self) -> Result<(), KernelError> {
        // One that fails must not keep the other from happening.
        let sockets = self.sweep_sockets();
        self.sweep_flows().and(sockets)
    }

    fn sweep_sockets(&mut self) -> Result<(), KernelError> {
        if let Some(sockets) = &self.sockets
            && Instant::now() < self.adopt_until
        {
            self.maps.run_sockets(sockets)?;
        }
        let Some(totals) = &self.totals else {
            return Ok(());
        };
        let run = || {
            totals.run().map_err(|source| KernelError::Iterator {
                name: "totals",
                source,
            })
        };
        let mut before = HashMap::new();
        self.read(|_, value| {
            before.insert(value.serial, closes::Before::new(value));
        })?;
        run()?;
        let mut after = Vec::with_capacity(before.len());
        self.read(|key, value| after.push((*key, *value)))?;
        self.closes.settle(&before, after);
        Ok(())
    }

    /// Ends UDP flows that were quiet for long.
    fn sweep_flows(&mut self) -> Result<(), KernelError> {
        if Instant::now() >= self.adopt_until {
            self.maps.set(leyline_abi::setting::FLOWS_MAY_BE_OLDER, 0)?;
        }
        let made = self.maps.flows_made()?;
        if made == 0 {
            return Ok(());
        }
        let mut half_edges = Vec::new();
        self.read(|key, value| half_edges.push((*key, *value)))?;
        let flows = self.maps.read_flows()?;
        let now_ns = crate::clock::monotonic_ns();
        for key in self
            .flows
            .settle(made, &half_edges, &flows, now_ns, self.flow_idle)
        {
            if self.maps.remove_flow(&key)? {
                self.flows.removed();
            }
        }
        Ok(())
    }

    /// Reads every half-edge.
    ///
    /// # Errors
    ///
    /// When the map cannot be read; some entries may have been visited by then.
    pub fn half_edges(&self, mut visit: impl FnMut(&HalfEdgeKey, &HalfEdge)) -> Result<(), KernelError> {
        self.read(|key, value| visit(key, &self.correct(key, value)))
    }

    fn correct(&self, key: &HalfEdgeKey, value: &HalfEdge) -> HalfEdge {
        self.flows.correct(key, self.closes.correct(*value))
    }

    /// As the kernel has them.
    fn read(&self, mut visit: impl FnMut(&HalfEdgeKey, &HalfEdge)) -> Result<(), KernelError> {
        sys::for_each::<{ size_of::<HalfEdgeKey>() }, { size_of::<HalfEdge>() }>(
            self.maps.half_edges.fd().as_fd(),
            |key, value| {
                if let (Some(key), Some(value)) = (HalfEdgeKey::from_bytes(key), HalfEdge::from_bytes(value))
                {
                    visit(&key, &value);
                }
            },
        )
        .map_err(|source| KernelError::Map {
            operation: "read",
            map: "HALF_EDGES",
            source,
        })
    }

    /// Removes an idle half-edge without live sockets and returns what it last held (`None` if it was not there).
    /// A connection that opens later makes a new entry with a new serial, counting from zero.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn remove(&mut self, key: &HalfEdgeKey) -> Result<Option<HalfEdge>, KernelError> {
        let value = sys::take::<{ size_of::<HalfEdge>() }>(self.maps.half_edges.fd().as_fd(), key.as_bytes())
            .map_err(|source| KernelError::Map {
                operation: "remove from",
                map: "HALF_EDGES",
                source,
            })?;
        let last = value
            .and_then(|value| HalfEdge::from_bytes(&value))
            .map(|value| self.correct(key, &value));
        if let Some(last) = &last {
            self.closes.forget(last.serial);
            self.flows.forget(last.serial);
        }
        Ok(last)
    }

    /// Takes up to `max` connection records; returns how many. Fewer than `max` means the ring is empty. Call it at
    /// least every second: nothing wakes the caller.
    pub fn drain_connections(&mut self, max: usize, mut visit: impl FnMut(&Connection)) -> usize {
        drain(&mut self.maps.connections, max, &mut visit)
    }

    /// Takes up to `max` cgroup events, in the order they happened; returns how many.
    pub fn drain_cgroups(&mut self, max: usize, mut visit: impl FnMut(&CgroupEvent)) -> usize {
        drain(&mut self.maps.cgroups, max, &mut visit)
    }

    /// What was not recorded since the start, indexed by [`leyline_abi::loss`].
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn loss(&self) -> Result<[u64; loss::COUNT as usize], KernelError> {
        let mut counts = [0; loss::COUNT as usize];
        for (index, count) in (0..).zip(&mut counts) {
            *count = self
                .maps
                .loss
                .get(&index, 0)
                .map_err(|error| maps::map_error("read", "LOSS", error))?;
        }
        if let Some(cell) = counts.get_mut(loss::STATE_CHANGES as usize) {
            // Two ways to know of some of the same changes: what they left behind, and that they were skipped.
            *cell = cell
                .saturating_add(self.closes.total())
                .max(self.misses.skipped(&self.maps)?.both);
        }
        if let Some(cell) = counts.get_mut(loss::UDP_FLOWS as usize) {
            *cell = self.flows.forgotten();
        }
        Ok(counts)
    }

    /// How often the state program was skipped because it was busy on the same CPU. What one copy skips the other sees;
    /// what both skip is in [`loss`](Self::loss).
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn skipped(&self) -> Result<Skipped, KernelError> {
        self.misses.skipped(&self.maps)
    }

    /// Sockets of this cgroup are a pod's from now on: their half-edges need no owner.
    ///
    /// # Errors
    ///
    /// When the map is full or refuses; then half-edges of the cgroup stay separate per process, and correct.
    pub fn mark_pod(&mut self, cgroup: u64) -> Result<(), KernelError> {
        self.maps
            .pods
            .insert(&cgroup, &1, 0)
            .map_err(|error| maps::map_error("insert into", "PODS", error))
    }

    /// The cgroup is gone. Unknown ones are no error.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn unmark_pod(&mut self, cgroup: u64) -> Result<(), KernelError> {
        match self.maps.pods.remove(&cgroup) {
            Err(error) if !maps::is_absent(&error) => Err(maps::map_error("remove from", "PODS", error)),
            _ => Ok(()),
        }
    }

    /// What a thread group was called when it made its sockets; forgotten when many others came since.
    #[must_use]
    pub fn owner(&self, tgid: u32) -> Option<Owner> {
        Owner::from_bytes(&self.maps.owners.get(&tgid, 0).ok()?)
    }

    /// Record only one in 2^`log2` connections of split half-edges, chosen by witness.
    ///
    /// # Errors
    ///
    /// When the map refuses.
    pub fn set_sample_log2(&mut self, log2: u8) -> Result<(), KernelError> {
        self.maps
            .set(leyline_abi::setting::SAMPLE_LOG2, u32::from(log2.min(31)))
    }

    /// Replaces the remote addresses whose connections are recorded one by one. [`load`](Self::load) starts with
    /// [`SplitSet::new`] of no addresses.
    ///
    /// # Errors
    ///
    /// When the map is full (1,024 prefixes) or refuses.
    pub fn set_split(&mut self, split: SplitSet) -> Result<(), KernelError> {
        self.maps.replace_split(&self.split, &split)?;
        self.split = split;
        Ok(())
    }

    /// The current set; whether a half-edge is split is `split().contains(key.remote)`.
    #[must_use]
    pub fn split(&self) -> &SplitSet {
        &self.split
    }

    /// Kernel memory all maps take, as the kernel counts it.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.maps.bytes()
    }
}

fn drain<T: Plain>(ring: &mut RingBuf<MapData>, max: usize, visit: &mut dyn FnMut(&T)) -> usize {
    let mut taken = 0;
    while taken < max {
        let Some(item) = ring.next() else { break };
        taken += 1;
        if let Some(record) = T::from_bytes(&item) {
            visit(&record);
        }
    }
    taken
}
