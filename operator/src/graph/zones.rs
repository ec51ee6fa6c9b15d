//! `leyline_zone_bytes_total`: bytes by client, client zone, server and server zone.
//!
//! A counter of what moved while this replica led, so that sums over replicas are right and a restart is a reset like any
//! other; totals that outlive restarts are in the objects. The number of series is bounded: part of them would be sums
//! that silently miss something, so with too many there are none, and `leyline_zone_series_over_limit` is 1.

use std::collections::HashMap;

use leyline_graph::Graph;
use leyline_graph::entity::Entity;

use crate::metrics::{Metrics, ZoneLabels};

/// What a series stood at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    /// Edges (ports) in it.
    edges: usize,
}

/// Turns the graph's totals into growing counters.
pub(super) struct ZoneCounters {
    limit: usize,
    metrics: Metrics,
    last: HashMap<ZoneLabels, Sum>,
    /// Totals were looked at before: a series that is new now began at zero.
    started: bool,
}

impl ZoneCounters {
    /// Counts in `metrics`, in at most `limit` series.
    pub(super) fn new(limit: usize, metrics: Metrics) -> Self {
        Self {
            limit,
            metrics,
            last: HashMap::new(),
            started: false,
        }
    }

    /// Counts what moved since the last call, if this replica leads.
    pub(super) fn count(&mut self, graph: &Graph, leading: bool) {
        if self.limit == 0 {
            return;
        }
        let edges = graph.zones().flat_map(|(client, server, zones)| {
            zones
                .into_iter()
                .map(move |zone| (labels(client, server, &zone.client, &zone.server), zone.bytes))
        });
        let now = sums(edges, self.limit);
        self.take(now, leading);
    }

    fn take(&mut self, now: Option<HashMap<ZoneLabels, Sum>>, leading: bool) {
        let over = now.is_none();
        let before = self.metrics.zone_series_over_limit.set(i64::from(over));
        if over && before == 0 {
            tracing::warn!(
                limit = self.limit,
                "leyline_zone_bytes_total is left out: it would have more series than --zone-series allows"
            );
        }
        let Some(mut now) = now else {
            self.metrics.zone_bytes.clear();
            self.last.clear();
            self.started = false;
            return;
        };
        for (labels, sum) in &mut now {
            let moved = match self.last.get(labels) {
                None if self.started => sum.bytes,
                // From before this replica looked, or an edge of the series ended: counted from here.
                None => 0,
                Some(last) if sum.edges < last.edges => 0,
                Some(last) => {
                    let moved = sum.bytes.saturating_sub(last.bytes);
                    // Less for a moment, while the two sides of an edge report different things, is not less.
                    sum.bytes = sum.bytes.max(last.bytes);
                    moved
                }
            };
            if leading && moved > 0 {
                self.metrics.zone_bytes.get_or_create(labels).inc_by(moved);
            }
        }
        for labels in self.last.keys().filter(|labels| !now.contains_key(*labels)) {
            self.metrics.zone_bytes.remove(labels);
        }
        self.last = now;
        self.started = true;
    }
}

/// Sums of all edges by series; none when there would be more than `limit`.
fn sums(edges: impl Iterator<Item = (ZoneLabels, u64)>, limit: usize) -> Option<HashMap<ZoneLabels, Sum>> {
    let mut sums: HashMap<ZoneLabels, Sum> = HashMap::new();
    for (labels, bytes) in edges {
        let sum = sums.entry(labels).or_default();
        sum.bytes = sum.bytes.saturating_add(bytes);
        sum.edges += 1;
        if sums.len() > limit {
            return None;
        }
    }
    Some(sums)
}

fn labels(client: &Entity, server: &Entity, client_zone: &str, server_zone: &str) -> ZoneLabels {
    ZoneLabels {
        client_namespace: client.namespace.clone(),
        client: client.name.clone(),
        client_zone: client_zone.to_owned(),
        server_namespace: server.namespace.clone(),
        server: server.name.clone(),
        server_zone: server_zone.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    struct Counted {
        zones: ZoneCounters,
        registry: Registry,
    }

    fn series(server: &str) -> ZoneLabels {
        let end = |namespace: &str, name: &str| Entity {
            kind: "Deployment".to_owned(),
            api_group: "apps".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        labels(&end("shop", "cart"), &end("data", server), "a", "b")
    }

    impl Counted {
        fn new(limit: usize) -> Self {
            let mut registry = Registry::default();
            let zones = ZoneCounters::new(limit, Metrics::new(&mut registry));
            Self { zones, registry }
        }

        /// Edges with their bytes.
        fn count(&mut self, edges: &[(&str, u64)], leading: bool) {
            let edges = edges.iter().map(|(server, bytes)| (series(server), *bytes));
            let limit = self.zones.limit;
            self.zones.take(sums(edges, limit), leading);
        }

        fn shown(&self) -> Vec<String> {
            let mut text = String::new();
            encode(&mut text, &self.registry).expect("written");
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| line.starts_with("leyline_zone_") && !line.ends_with(" 0"))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        }
    }

    fn line(server: &str, bytes: u64) -> String {
        format!(
            "leyline_zone_bytes_total{{client_namespace=\"shop\",client=\"cart\",client_zone=\"a\",\
             server_namespace=\"data\",server=\"{server}\",server_zone=\"b\"}} {bytes}"
        )
    }

    #[test]
    fn what_was_before_the_start_is_not_counted_and_what_comes_is() {
        let mut counted = Counted::new(10);
        counted.count(&[("redis", 1_000)], true);
        assert!(counted.shown().is_empty());
        counted.count(&[("redis", 1_030), ("pg", 7)], true);
        assert_eq!(counted.shown(), [line("pg", 7), line("redis", 30)]);
    }

    #[test]
    fn only_the_leader_counts() {
        let mut counted = Counted::new(10);
        counted.count(&[], false);
        counted.count(&[("redis", 50)], false);
        assert!(counted.shown().is_empty());
        counted.count(&[("redis", 60)], true);
        assert_eq!(counted.shown(), [line("redis", 10)]);
        counted.count(&[("redis", 90)], false);
        assert_eq!(counted.shown(), [line("redis", 10)]);
    }

    #[test]
    fn a_counter_never_goes_back() {
        let mut counted = Counted::new(10);
        counted.count(&[], true);
        counted.count(&[("redis", 100)], true);
        counted.count(&[("redis", 98)], true);
        counted.count(&[("redis", 101)], true);
        assert_eq!(counted.shown(), [line("redis", 101)]);
        // Two ports, of which one ends.
        counted.count(&[("redis", 101), ("redis", 900)], true);
        counted.count(&[("redis", 101)], true);
        counted.count(&[("redis", 111)], true);
        assert_eq!(counted.shown(), [line("redis", 1_011)]);
        counted.count(&[], true);
        assert!(counted.shown().is_empty());
    }

    #[test]
    fn too_many_series_are_none_until_they_are_fewer() {
        let mut counted = Counted::new(2);
        counted.count(&[], true);
        counted.count(&[("a", 5), ("b", 5)], true);
        assert_eq!(counted.shown().len(), 2);
        counted.count(&[("a", 6), ("b", 6), ("c", 6)], true);
        assert_eq!(counted.shown(), ["leyline_zone_series_over_limit 1"]);
        counted.count(&[("a", 7), ("b", 7)], true);
        counted.count(&[("a", 9), ("b", 7)], true);
        assert_eq!(counted.shown(), [line("a", 2)]);
    }
}
