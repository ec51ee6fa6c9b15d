//! Totals as the object holds them. They never go back.

use std::hash::{DefaultHasher, Hash, Hasher};

use leyline_api::{Bytes, Connections, Failures, ServiceDependencyStatus, ZoneBytes, figures::count};
use leyline_graph::{EdgeView, input::Counters};

/// Cumulative counts, and how many connections are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Totals {
    pub(crate) opened: i64,
    pub(crate) refused: i64,
    pub(crate) timed_out: i64,
    pub(crate) unreachable: i64,
    pub(crate) reset: i64,
    pub(crate) aborted: i64,
    pub(crate) sent: i64,
    pub(crate) received: i64,
    pub(crate) active: i64,
    /// Fingerprint of the bytes by zone, 0 for none: a difference is a difference of figures. The list itself stays with
    /// the graph, which goes on from the object's after a restart.
    pub(crate) zones: u64,
}

/// Bytes by zone as the object holds them.
pub(crate) fn zones(view: &EdgeView) -> Vec<ZoneBytes> {
    let zones = view.zones.iter().map(|zone| ZoneBytes {
        client: zone.client.to_string(),
        server: zone.server.to_string(),
        bytes: count(zone.bytes),
    });
    zones.collect()
}

/// Equal for lists of the same pairs, in whatever order the API server gives them back.
fn fingerprint(mut zones: Vec<(&str, &str, i64)>) -> u64 {
    if zones.is_empty() {
        return 0;
    }
    zones.sort_unstable();
    let mut hasher = DefaultHasher::new();
    zones.hash(&mut hasher);
    hasher.finish().max(1)
}

impl Totals {
    pub(crate) fn of(view: &EdgeView) -> Self {
        // Times and segments belong to the window; adopted connections are in `active`; `lost` is in the conditions.
        let Counters {
            opened,
            adopted: _,
            active,
            refused,
            timed_out,
            unreachable,
            reset,
            aborted,
            bytes_sent,
            bytes_received,
            connect_us: _,
            rtt_us: _,
            rtt_samples: _,
            retransmits: _,
            lost: _,
        } = view.totals;
        let zones = view
            .zones
            .iter()
            .map(|zone| (&*zone.client, &*zone.server, count(zone.bytes)));
        Self {
            opened: count(opened),
            refused: count(refused),
            timed_out: count(timed_out),
            unreachable: count(unreachable),
            reset: count(reset),
            aborted: count(aborted),
            sent: count(bytes_sent),
            received: count(bytes_received),
            active: count(active),
            zones: fingerprint(zones.collect()),
        }
    }

    /// What a status says.
    pub(crate) fn read(status: &ServiceDependencyStatus) -> Self {
        let Connections {
            opened,
            failed: _,
            aborted,
            active,
            failures,
        } = status.connections.unwrap_or_default();
        let Failures {
            refused,
            timed_out,
            unreachable,
            reset,
        } = failures.unwrap_or_default();
        let Bytes { sent, received } = status.bytes.unwrap_or_default();
        let zones = status
            .zones
            .iter()
            .map(|zone| (&*zone.client, &*zone.server, zone.bytes));
        Self {
            opened,
            refused,
            timed_out,
            unreachable,
            reset,
            aborted,
            sent,
            received,
            active,
            zones: fingerprint(zones.collect()),
        }
    }

    /// These counters, none of them less than in `floor`.
    pub(crate) fn at_least(self, floor: Self) -> Self {
        Self {
            opened: self.opened.max(floor.opened),
            refused: self.refused.max(floor.refused),
            timed_out: self.timed_out.max(floor.timed_out),
            unreachable: self.unreachable.max(floor.unreachable),
            reset: self.reset.max(floor.reset),
            aborted: self.aborted.max(floor.aborted),
            sent: self.sent.max(floor.sent),
            received: self.received.max(floor.received),
            active: self.active,
            zones: self.zones,
        }
    }

    pub(crate) fn connections(self) -> Connections {
        let failures = Failures {
            refused: self.refused,
            timed_out: self.timed_out,
            unreachable: self.unreachable,
            reset: self.reset,
        };
        let failed = [self.refused, self.timed_out, self.unreachable, self.reset]
            .into_iter()
            .fold(0, i64::saturating_add)
            .min(leyline_api::figures::MAX_COUNT);
        Connections {
            opened: self.opened,
            failed,
            aborted: self.aborted,
            active: self.active,
            failures: (failed > 0).then_some(failures),
        }
    }

    pub(crate) fn bytes(self) -> Bytes {
        Bytes {
            sent: self.sent,
            received: self.received,
        }
    }

    /// As the graph takes them back after a restart.
    pub(crate) fn counters(self) -> Counters {
        let natural = |value: i64| u64::try_from(value).unwrap_or(0);
        Counters {
            opened: natural(self.opened),
            refused: natural(self.refused),
            timed_out: natural(self.timed_out),
            unreachable: natural(self.unreachable),
            reset: natural(self.reset),
            aborted: natural(self.aborted),
            bytes_sent: natural(self.sent),
            bytes_received: natural(self.received),
            ..Counters::default()
        }
    }
}
