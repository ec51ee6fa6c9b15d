//! Everything the operator counts, in one registry.
//!
//! Label values are closed sets: a node, pod or peer name never becomes a label. The one exception are the workloads and
//! zones of `leyline_zone_bytes_total`, which has a bound of its own.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label `$label` with the values of a closed set.
macro_rules! label {
    ($(#[$docs:meta])* $name:ident { $label:ident: $kind:ty }) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            /// The only label.
            pub $label: $kind,
        }
        impl From<$kind> for $name {
            fn from($label: $kind) -> Self {
                Self { $label }
            }
        }
    };
}

/// Why a stream of an agent was ended by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No usable bearer token.
    MissingToken,
    /// The API server does not accept the token.
    InvalidToken,
    /// The token of somebody else.
    WrongIdentity,
    /// The token of another node, or of none.
    WrongNode,
    /// The API server did not answer.
    ReviewFailed,
    /// The first message was not Hello, or did not come.
    NoHello,
    /// A message that cannot be understood.
    Malformed,
    /// A report with another number than due.
    OutOfOrder,
    /// More bytes or entries than a message may have.
    TooLarge,
    /// A report that contradicts an earlier one.
    Inconsistent,
    /// No room for another stream.
    TooManyStreams,
    /// No report for a minute.
    Silent,
}

impl Rejection {
    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::InvalidToken => "invalid_token",
            Self::WrongIdentity => "wrong_identity",
            Self::WrongNode => "wrong_node",
            Self::ReviewFailed => "review_failed",
            Self::NoHello => "no_hello",
            Self::Malformed => "malformed",
            Self::OutOfOrder => "out_of_order",
            Self::TooLarge => "too_large",
            Self::Inconsistent => "inconsistent",
            Self::TooManyStreams => "too_many_streams",
            Self::Silent => "silent",
        }
    }
}

label!(
    /// A label whose values are listed by the code that sets it.
    ReasonLabels { reason: &'static str }
);
label!(
    /// Labels of `leyline_edges`.
    StateLabels { state: &'static str }
);
label!(
    /// Labels of table sizes.
    TableLabels { table: &'static str }
);
label!(
    /// Labels of `leyline_lane_waiting`.
    LaneLabels { lane: &'static str }
);
label!(
    /// Labels of `leyline_agent_lost_total`.
    CauseLabels { cause: &'static str }
);
label!(
    /// Labels of watches.
    KindLabels { kind: &'static str }
);

/// Labels of `leyline_writes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Why it was written: `new`, `conditions`, `figures`, `event`, `answer`.
    pub lane: &'static str,
    /// How it ended: `ok`, `failed`, `not_found`, `namespace_gone`, `refused`, `not_leader`.
    pub result: &'static str,
}

/// Labels of `leyline_zone_bytes_total`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ZoneLabels {
    /// Namespace of the client, empty for ends in no namespace.
    pub client_namespace: String,
    /// Name of the client's workload.
    pub client: String,
    /// Zone of the client's nodes.
    pub client_zone: String,
    /// Namespace of the server, empty for ends in no namespace.
    pub server_namespace: String,
    /// Name of the server's workload.
    pub server: String,
    /// Zone of the server's nodes.
    pub server_zone: String,
}

/// The operator's metrics. Cloning shares the counters.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is described where it is registered, once")]
pub struct Metrics {
    pub leader: Gauge,
    pub streams: Gauge,
    pub streams_rejected: Family<ReasonLabels, Counter>,
    pub reports: Counter,
    pub report_half_edges: Counter,
    pub report_connections: Counter,
    pub agent_lost: Family<CauseLabels, Counter>,
    pub agent_probes: Family<StateLabels, Gauge>,
    pub edges: Family<StateLabels, Gauge>,
    pub graph_entries: Family<TableLabels, Gauge>,
    pub graph_settled: Gauge,
    pub unresolved: Family<ReasonLabels, Gauge>,
    pub zone_bytes: Family<ZoneLabels, Counter>,
    pub zone_series_over_limit: Gauge,
    pub zones_truncated: Gauge,
    pub set_aside: Family<ReasonLabels, Counter>,
    pub objects_invalid: Counter,
    pub events_dropped: Counter,
    pub lane_waiting: Family<LaneLabels, Gauge>,
    pub writes: Family<WriteLabels, Counter>,
    pub write_seconds: Histogram,
    pub watch_errors: Family<KindLabels, Counter>,
    pub inputs_waiting: Gauge,
}

impl Metrics {
    /// Creates and registers all metrics.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            streams: Gauge::default(),
            streams_rejected: Family::default(),
            reports: Counter::default(),
            report_half_edges: Counter::default(),
            report_connections: Counter::default(),
            agent_lost: Family::default(),
            agent_probes: Family::default(),
            edges: Family::default(),
            graph_entries: Family::default(),
            graph_settled: Gauge::default(),
            unresolved: Family::default(),
            zone_bytes: Family::default(),
            zone_series_over_limit: Gauge::default(),
            zones_truncated: Gauge::default(),
            set_aside: Family::default(),
            objects_invalid: Counter::default(),
            events_dropped: Counter::default(),
            lane_waiting: Family::default(),
            writes: Family::default(),
            // From a millisecond to eight seconds: an API server under load takes seconds.
            write_seconds: Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 8.0,
            ]),
            watch_errors: Family::default(),
            inputs_waiting: Gauge::default(),
        };
        metrics.register_ingest(registry);
        metrics.register_graph(registry);
        metrics.register_zones(registry);
        metrics.register_writes(registry);
        metrics
    }

    fn register_ingest(&self, registry: &mut Registry) {
        registry.register(
            "leyline_streams",
            "Streams of node agents now",
            self.streams.clone(),
        );
        registry.register(
            "leyline_streams_rejected",
            "Streams of node agents that this operator ended, by reason",
            self.streams_rejected.clone(),
        );
        registry.register(
            "leyline_reports",
            "Reports of node agents taken in",
            self.reports.clone(),
        );
        registry.register(
            "leyline_report_half_edges",
            "Updates of half-edges in reports taken in",
            self.report_half_edges.clone(),
        );
        registry.register(
            "leyline_report_connections",
            "Connection records in reports taken in",
            self.report_connections.clone(),
        );
        registry.register(
            "leyline_agent_lost",
            "Losses that node agents reported, by cause (half_edge_bytes in bytes, all others in events)",
            self.agent_lost.clone(),
        );
        registry.register(
            "leyline_agent_probes",
            "Probes of all connected node agents by state",
            self.agent_probes.clone(),
        );
    }

    fn register_graph(&self, registry: &mut Registry) {
        registry.register("leyline_edges", "Edges in memory by state", self.edges.clone());
        registry.register(
            "leyline_graph_entries",
            "Entries of each table of the graph",
            self.graph_entries.clone(),
        );
        registry.register(
            "leyline_graph_settled",
            "1 once every node has reported or the time to wait for them has passed",
            self.graph_settled.clone(),
        );
        registry.register(
            "leyline_unresolved",
            "Edges with an end that has no better name, by reason",
            self.unresolved.clone(),
        );
        registry.register(
            "leyline_set_aside",
            "Connections and attempts that belong to no edge, by reason",
            self.set_aside.clone(),
        );
        registry.register(
            "leyline_objects_invalid",
            "Objects that cannot be understood",
            self.objects_invalid.clone(),
        );
        registry.register(
            "leyline_events_dropped",
            "Events not told because too many waited",
            self.events_dropped.clone(),
        );
        registry.register(
            "leyline_inputs_waiting",
            "Events and reports waiting for the graph",
            self.inputs_waiting.clone(),
        );
        registry.register(
            "leyline_watch_errors",
            "Errors of watches on the API server, by kind of object",
            self.watch_errors.clone(),
        );
    }

    fn register_zones(&self, registry: &mut Registry) {
        registry.register(
            "leyline_zone_bytes",
            "Payload bytes between workloads by zone, both directions added up; only the leader counts",
            self.zone_bytes.clone(),
        );
        registry.register(
            "leyline_zone_series_over_limit",
            "1 while leyline_zone_bytes_total is left out because it would have more series than --zone-series allows",
            self.zone_series_over_limit.clone(),
        );
        registry.register(
            "leyline_zones_truncated",
            "Edges with more than 16 pairs of zones, of which the last ones are not shown",
            self.zones_truncated.clone(),
        );
    }

    fn register_writes(&self, registry: &mut Registry) {
        registry.register(
            "leyline_leader",
            "1 while this replica holds the lease",
            self.leader.clone(),
        );
        registry.register(
            "leyline_lane_waiting",
            "Writes that wait, by lane",
            self.lane_waiting.clone(),
        );
        registry.register(
            "leyline_writes",
            "Writes to the API server by lane and result",
            self.writes.clone(),
        );
        registry.register(
            "leyline_write_seconds",
            "Time of one work item at the API server, object and status together",
            self.write_seconds.clone(),
        );
    }

    /// Counts a rejected stream.
    pub fn rejected(&self, reason: Rejection) {
        self.streams_rejected.get_or_create(&reason.as_str().into()).inc();
    }

    /// Counts a write.
    pub fn wrote(&self, lane: &'static str, result: &'static str) {
        self.writes.get_or_create(&WriteLabels { lane, result }).inc();
    }
}
