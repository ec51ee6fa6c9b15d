//! The agent's own figures in Prometheus' text format. Labels are closed sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leyline_wire as wire;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::state::State;

/// Why a stream to an operator replica ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum StreamFailure {
    /// A file is missing or not usable.
    Credentials,
    /// TCP or TLS.
    Connect,
    /// The operator does not accept this token or node.
    Refused,
    /// The operator does not accept a message.
    Rejected,
    /// The connection broke.
    Broken,
    /// The operator acknowledged nothing.
    Stalled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFailure {
    cause: StreamFailure,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProbe {
    probe: String,
    state: &'static str,
    reason: String,
}

/// What only the kernel side knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelFigures {
    /// Memory of all maps.
    pub map_bytes: u64,
    /// Records are kept for one in 2^this connections.
    pub sample_log2: u8,
    /// Cgroups known.
    pub cgroups: usize,
    /// Cgroups that found no place.
    pub cgroups_dropped: u64,
    /// How long the last reading of the kernel took.
    pub reading_ns: u64,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Metrics {
    registry: Registry,
    half_edges: Gauge,
    opened: Counter,
    kernel_entries: Gauge,
    connections: Gauge,
    map_bytes: Gauge,
    sample: Gauge,
    cgroups: Gauge,
    reading: Gauge<f64, AtomicU64>,
    loss: Family<ByCause, Counter>,
    probes: Family<ByProbe, Gauge>,
    streams: Gauge,
    stream_failures: Family<ByFailure, Counter>,
    reports: Counter,
    report_bytes: Counter,
}

impl Metrics {
    /// Registers everything.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("leyline"),
            ..Self::default()
        };
        let registry = &mut metrics.registry;
        registry.register("half_edges", "Half-edges reported", metrics.half_edges.clone());
        registry.register(
            "connections_opened",
            "Connections seen becoming established, at either end",
            metrics.opened.clone(),
        );
        registry.register(
            "kernel_entries",
            "Entries of the kernel's half-edge map",
            metrics.kernel_entries.clone(),
        );
        registry.register(
            "connections",
            "Connections of split half-edges held",
            metrics.connections.clone(),
        );
        registry.register(
            "map_bytes",
            "Memory of the eBPF maps in bytes",
            metrics.map_bytes.clone(),
        );
        registry.register(
            "sample_one_in",
            "One in this many connections is recorded",
            metrics.sample.clone(),
        );
        registry.register("cgroups", "Cgroups known", metrics.cgroups.clone());
        registry.register_with_unit(
            "reading",
            "Time the last reading of the kernel took",
            Unit::Seconds,
            metrics.reading.clone(),
        );
        registry.register(
            "loss",
            "What is known not to be in the reports, by cause",
            metrics.loss.clone(),
        );
        registry.register("probe_info", "State of each probe", metrics.probes.clone());
        registry.register(
            "streams",
            "Streams open to operator replicas",
            metrics.streams.clone(),
        );
        registry.register(
            "stream_failures",
            "Streams that ended before their time, by cause",
            metrics.stream_failures.clone(),
        );
        registry.register("reports", "Reports sent", metrics.reports.clone());
        registry.register_with_unit(
            "report",
            "Size of the reports sent",
            Unit::Bytes,
            metrics.report_bytes.clone(),
        );
        metrics
    }

    /// Copies the figures of one reading.
    pub fn show(&self, state: &State, kernel: &KernelFigures) {
        let KernelFigures {
            map_bytes,
            sample_log2,
            cgroups,
            cgroups_dropped,
            reading_ns,
        } = *kernel;
        set(&self.half_edges, state.ledger.len());
        self.opened
            .inner()
            .store(state.ledger.opened(), Ordering::Relaxed);
        set(&self.kernel_entries, state.ledger.kernel_entries());
        set(&self.connections, state.connections.len());
        self.map_bytes.set(i64::try_from(map_bytes).unwrap_or(i64::MAX));
        self.sample
            .set(1_i64.checked_shl(u32::from(sample_log2)).unwrap_or(i64::MAX));
        set(&self.cgroups, cgroups);
        self.reading
            .set(std::time::Duration::from_nanos(reading_ns).as_secs_f64());
        for (cause, count) in causes(&state.loss)
            .into_iter()
            .chain([("cgroup_table", cgroups_dropped)])
        {
            self.loss
                .get_or_create(&ByCause { cause })
                .inner()
                .store(count, Ordering::Relaxed);
        }
    }

    /// Replaces the state of the probes.
    pub fn show_probes(&self, probes: &[wire::Probe]) {
        self.probes.clear();
        for probe in probes {
            let state = match probe.state() {
                wire::probe::State::Attached => "Attached",
                wire::probe::State::Unsupported => "Unsupported",
                wire::probe::State::Failed => "Failed",
                wire::probe::State::Unspecified => "Unknown",
            };
            let labels = ByProbe {
                probe: probe.name.clone(),
                state,
                reason: probe.reason.clone(),
            };
            self.probes.get_or_create(&labels).set(1);
        }
    }

    /// Counts an open stream until the answer is dropped.
    #[must_use]
    pub fn stream_connected(self: &Arc<Self>) -> ConnectedStream {
        self.streams.inc();
        ConnectedStream(Arc::clone(self))
    }

    /// Counts a stream that ended before its time.
    pub fn stream_failed(&self, cause: StreamFailure) {
        self.stream_failures.get_or_create(&ByFailure { cause }).inc();
    }

    /// Counts a report.
    pub fn report_sent(&self, bytes: usize) {
        self.reports.inc();
        self.report_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// See [`Metrics::stream_connected`].
pub struct ConnectedStream(Arc<Metrics>);

impl Drop for ConnectedStream {
    fn drop(&mut self) {
        self.0.streams.dec();
    }
}

fn set(gauge: &Gauge, value: usize) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn causes(loss: &wire::Loss) -> [(&'static str, u64); 12] {
    let wire::Loss {
        half_edges_full,
        half_edge_bytes,
        socket_storage,
        connection_ring,
        cgroup_ring,
        connections_queue,
        unknown_cgroup,
        foreign_network,
        connections_sampled,
        state_changes,
        udp_unaddressed,
        udp_flows,
    } = *loss;
    [
        ("half_edges_full", half_edges_full),
        ("half_edge_bytes", half_edge_bytes),
        ("socket_storage", socket_storage),
        ("connection_ring", connection_ring),
        ("cgroup_ring", cgroup_ring),
        ("connections_queue", connections_queue),
        ("unknown_cgroup", unknown_cgroup),
        ("foreign_network", foreign_network),
        ("connections_sampled", connections_sampled),
        ("state_changes", state_changes),
        ("udp_unaddressed", udp_unaddressed),
        ("udp_flows", udp_flows),
    ]
}
