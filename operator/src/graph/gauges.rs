//! Sizes and counts of graph and plan, for the metrics.

use std::collections::HashMap;

use leyline_graph::entity::Time;
use leyline_graph::{Closed, Graph, Stats};
use leyline_plan::{Lane, Planner};

use crate::metrics::Metrics;

/// Remembers what was counted last: the graph counts since its start, the metrics take differences.
pub(super) struct Gauges {
    metrics: Metrics,
    closed: HashMap<Closed, u64>,
    dropped: u64,
}

impl Gauges {
    /// Sets `metrics`.
    #[must_use]
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            closed: HashMap::new(),
            dropped: 0,
        }
    }

    /// Brings the metrics up to date.
    pub(super) fn set(&mut self, graph: &Graph, plan: &Planner, now: Time) {
        let Stats {
            closed,
            unresolved,
            agents,
            half_edges,
            waiting,
            records,
            edges,
            entities,
            pods,
            services,
            addresses,
            zones,
            zone_pairs,
            zones_truncated,
        } = graph.stats();
        for (reason, count) in closed {
            let last = self.closed.insert(reason, count).unwrap_or(0);
            let counter = self.metrics.set_aside.get_or_create(&reason.as_str().into());
            counter.inc_by(count.saturating_sub(last));
        }
        for (reason, count) in unresolved {
            self.metrics
                .unresolved
                .get_or_create(&reason.as_str().into())
                .set(number(count));
        }
        let tables = [
            ("agents", agents),
            ("half_edges", half_edges),
            ("waiting", waiting),
            ("records", records),
            ("edges", edges),
            ("entities", entities),
            ("pods", pods),
            ("services", services),
            ("addresses", addresses),
            ("zones", zones),
            ("zone_pairs", zone_pairs),
        ];
        for (table, size) in tables {
            self.metrics
                .graph_entries
                .get_or_create(&table.into())
                .set(number(size));
        }
        self.metrics.zones_truncated.set(number(zones_truncated));
        for (state, count) in plan.states(now) {
            self.metrics
                .edges
                .get_or_create(&state.as_str().into())
                .set(number(count));
        }
        let waiting = plan.waiting();
        for lane in Lane::ALL {
            self.metrics
                .lane_waiting
                .get_or_create(&lane.as_str().into())
                .set(number(waiting.of(lane)));
        }
        self.metrics
            .lane_waiting
            .get_or_create(&"in_flight".into())
            .set(number(waiting.in_flight));
        let dropped = plan.events_dropped();
        self.metrics
            .events_dropped
            .inc_by(dropped.saturating_sub(self.dropped));
        self.dropped = dropped;
    }
}

fn number(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use leyline_graph::{Config, Unnamed};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn every_reason_is_counted_from_the_start() {
        let mut registry = Registry::default();
        let mut gauges = Gauges::new(Metrics::new(&mut registry));
        let planner = Planner::new(leyline_plan::Config::default(), Time(0));
        gauges.set(&Graph::new(Config::default()), &planner, Time(0));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let unresolved =
            Unnamed::ALL.map(|reason| format!("leyline_unresolved{{reason=\"{}\"}} 0", reason.as_str()));
        let closed =
            Closed::ALL.map(|reason| format!("leyline_set_aside_total{{reason=\"{}\"}} 0", reason.as_str()));
        for line in unresolved.iter().chain(&closed) {
            assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        }
    }
}
