//! Bounds and waiting times of the graph, each with its reason. All times are milliseconds.

/// Bounds and waiting times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a connection waits for its other half, an unknown private address for its owner and a pod for the
    /// object between it and its workload. Reports come every second, watches lag by less.
    pub patience: i64,
    /// How long counters of a pod nobody knows are kept. A pod is in the watch before its first packet leaves; a
    /// minute covers a watch that had to start over.
    pub pod_patience: i64,
    /// How long a gone pod, Service, node or endpoint still answers for the time when it existed.
    pub tombstone: i64,
    /// How long an endpoint that left a slice still counts as a candidate: node proxies keep old connections.
    pub endpoint_memory: i64,
    /// How long a closed connection waits for its other half and for being sent again. Agents keep theirs for 30 s.
    pub record_memory: i64,
    /// How long a node may be silent before its open connections are no longer counted as open.
    pub silence: i64,
    /// Half-edges per node.
    pub half_edges_per_node: usize,
    /// Connection records over all nodes.
    pub records: usize,
    /// Half-edges that wait for a pod, an address or a Service.
    pub waiting: usize,
    /// Edges.
    pub edges: usize,
    /// Bare addresses named per client workload; further ones are External `other`.
    pub addresses_per_client: usize,
    /// Distinct dynamic server ports between two entities; one more folds them into port 0.
    pub dynamic_ports: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            patience: 10_000,
            pod_patience: 60_000,
            tombstone: 600_000,
            endpoint_memory: 30_000,
            record_memory: 35_000,
            silence: 60_000,
            half_edges_per_node: 200_000,
            records: 200_000,
            waiting: 50_000,
            edges: 2_000_000,
            addresses_per_client: 32,
            dynamic_ports: 8,
        }
    }
}
