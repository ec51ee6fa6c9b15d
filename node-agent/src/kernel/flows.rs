//! The end of UDP flows, which nothing in the kernel tells: a flow that was quiet for long is over.
//!
//! Inputs: the half-edges and, read after them, the flows. Outputs: which flows to remove, how many flows of each half-edge
//! have ended, how many the kernel forgot for want of room. No IO, no clock.

use std::collections::HashMap;
use std::time::Duration;

use leyline_abi::{Flow, FlowKey, HalfEdge, HalfEdgeKey, transport};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// By serial of the half-edge: flows that are over.
    ended: HashMap<u64, u64>,
    removed: u64,
    forgotten: u64,
}

impl Flows {
    /// Takes in one reading: `made` first (how many flows there ever were), then the half-edges, then the flows. Returns
    /// those that were quiet for `idle` and are to be removed.
    pub(super) fn settle(
        &mut self,
        made: u64,
        half_edges: &[(HalfEdgeKey, HalfEdge)],
        flows: &[(FlowKey, Flow)],
        now_ns: u64,
        idle: Duration,
    ) -> Vec<FlowKey> {
        let mut live: HashMap<u64, u64> = HashMap::new();
        let mut over = Vec::new();
        for (key, flow) in flows {
            if Duration::from_nanos(now_ns.saturating_sub(flow.last_ns)) >= idle {
                over.push(*key);
            } else {
                *live.entry(flow.serial).or_default() += 1;
            }
        }
        let known = std::mem::take(&mut self.ended);
        for (key, value) in half_edges {
            if key.transport != transport::UDP {
                continue;
            }
            let began = value.opened.saturating_add(value.adopted);
            // A flow that began after the half-edge was read makes this too low until the next time, never too high.
            let ended = began.saturating_sub(live.get(&value.serial).copied().unwrap_or(0));
            let before = known.get(&value.serial).copied().unwrap_or(0);
            if ended.max(before) > 0 {
                self.ended.insert(value.serial, ended.max(before));
            }
        }
        let present = u64::try_from(flows.len()).unwrap_or(u64::MAX);
        let gone = made.saturating_sub(present).saturating_sub(self.removed);
        self.forgotten = self.forgotten.max(gone);
        over
    }

    /// One of the flows that were over is out of the kernel's map.
    pub(super) fn removed(&mut self) {
        self.removed = self.removed.saturating_add(1);
    }

    /// Flows that made room for others before they were over, at least.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A half-edge as it is.
    pub(super) fn correct(&self, key: &HalfEdgeKey, mut value: HalfEdge) -> HalfEdge {
        if key.transport == transport::UDP {
            value.closed = self.ended.get(&value.serial).copied().unwrap_or(0);
        }
        value
    }

    /// The entry is gone from the kernel's map.
    pub(super) fn forget(&mut self, serial: u64) {
        self.ended.remove(&serial);
    }
}

#[cfg(test)]
mod tests {
    use leyline_abi::Plain as _;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const SECOND: u64 = 1_000_000_000;

    fn udp() -> HalfEdgeKey {
        HalfEdgeKey {
            transport: transport::UDP,
            ..HalfEdgeKey::from_bytes(&[0; size_of::<HalfEdgeKey>()]).unwrap()
        }
    }

    fn half_edge(opened: u64) -> (HalfEdgeKey, HalfEdge) {
        (
            udp(),
            HalfEdge {
                serial: 7,
                opened,
                ..HalfEdge::default()
            },
        )
    }

    fn flow(port: u16, last_ns: u64) -> (FlowKey, Flow) {
        let key = FlowKey {
            netns: 1,
            local_port: port,
            remote_port: 53,
            remote: [1; 16],
        };
        (
            key,
            Flow {
                half_edge: udp(),
                serial: 7,
                last_ns,
            },
        )
    }

    fn closed(flows: &Flows) -> u64 {
        let (key, value) = half_edge(3);
        flows.correct(&key, value).closed
    }

    #[test]
    fn a_quiet_flow_is_over_and_counts_as_closed() {
        let mut flows = Flows::default();
        let all = [flow(1, 0), flow(2, 50 * SECOND), flow(3, 60 * SECOND)];
        let over = flows.settle(3, &[half_edge(3)], &all, 61 * SECOND, IDLE);
        assert_eq!(over, [all[0].0]);
        flows.removed();
        assert_eq!((closed(&flows), flows.forgotten()), (1, 0));
        flows.settle(3, &[half_edge(3)], &all[1..], 62 * SECOND, IDLE);
        assert_eq!((closed(&flows), flows.forgotten()), (1, 0));
    }

    #[test]
    fn a_flow_that_made_room_is_closed_and_counted_as_forgotten() {
        let mut flows = Flows::default();
        let over = flows.settle(3, &[half_edge(3)], &[flow(1, 0), flow(2, 0)], SECOND, IDLE);
        assert_eq!((over.len(), closed(&flows), flows.forgotten()), (0, 1, 1));
    }

    #[test]
    fn a_flow_that_begins_during_the_reading_never_takes_a_close_back() {
        let mut flows = Flows::default();
        flows.settle(3, &[half_edge(3)], &[flow(1, 0), flow(2, 0)], SECOND, IDLE);
        // The third came back as a fourth, which the half-edge does not have yet.
        let all = [flow(1, 0), flow(2, 0), flow(4, SECOND)];
        flows.settle(3, &[half_edge(3)], &all, SECOND, IDLE);
        assert_eq!((closed(&flows), flows.forgotten()), (1, 1));
    }

    #[test]
    fn tcp_is_left_alone_and_a_removed_half_edge_is_forgotten() {
        let mut flows = Flows::default();
        flows.settle(3, &[half_edge(3)], &[], SECOND, IDLE);
        let (key, value) = half_edge(3);
        let tcp = HalfEdgeKey {
            transport: transport::TCP,
            ..key
        };
        assert_eq!(flows.correct(&tcp, value).closed, 0);
        assert_eq!(closed(&flows), 3);
        flows.forget(7);
        assert_eq!(closed(&flows), 0);
    }
}
