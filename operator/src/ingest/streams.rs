//! The streams that are open, one per node.
//!
//! A new stream of a node replaces the older one: an agent that reconnects must not wait for a dead connection to
//! time out. What a node reported about itself (losses, probes) is kept here for the metrics, nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leyline_wire::Loss;
use leyline_wire::probe::State;
use tokio_util::sync::CancellationToken;

use super::validate::Probe;
use crate::metrics::{CauseLabels, Metrics, StateLabels};

/// Streams by node. Cloning shares them.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Mutex<HashMap<String, Node>>>,
    metrics: Metrics,
}

/// What is known of one node: kept when its stream ends, because losses are cumulative within an epoch.
#[derive(Default)]
struct Node {
    generation: u64,
    current: Option<CancellationToken>,
    epoch: u64,
    loss: Loss,
    probes: [i64; 3],
}

/// An open stream's entry; dropping it does not close anything, see [`Streams::close`].
#[derive(Clone, Debug)]
pub struct Ticket {
    node: String,
    generation: u64,
    /// Cancelled when a newer stream of the same node arrives.
    pub replaced: CancellationToken,
}

impl Streams {
    /// No streams yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            inner: Arc::default(),
            metrics,
        }
    }

    /// Registers a node's stream and ends the older one.
    #[must_use]
    pub fn open(&self, node: &str, epoch: u64) -> Ticket {
        let mut nodes = self.lock();
        let entry = nodes.entry(node.to_owned()).or_default();
        match entry.current.take() {
            Some(older) => older.cancel(),
            None => drop(self.metrics.streams.inc()),
        }
        if entry.epoch != epoch {
            entry.epoch = epoch;
            entry.loss = Loss::default();
        }
        entry.generation += 1;
        let replaced = CancellationToken::new();
        entry.current = Some(replaced.clone());
        Ticket {
            node: node.to_owned(),
            generation: entry.generation,
            replaced,
        }
    }

    /// Forgets a stream. True if it was the node's current one: the node is now without.
    pub fn close(&self, ticket: &Ticket) -> bool {
        let mut nodes = self.lock();
        let Some(entry) = nodes.get_mut(&ticket.node) else {
            return false;
        };
        if entry.generation != ticket.generation || entry.current.take().is_none() {
            return false;
        }
        self.metrics.streams.dec();
        self.move_probes(entry, [0; 3]);
        true
    }

    /// Takes in a node's cumulative losses, if it sent them; what is more than last time is counted. Returns what the
    /// node said last.
    pub fn lost(&self, ticket: &Ticket, loss: Option<Loss>) -> Loss {
        let mut nodes = self.lock();
        let Some(entry) = nodes
            .get_mut(&ticket.node)
            .filter(|one| one.generation == ticket.generation)
        else {
            return loss.unwrap_or_default();
        };
        if let Some(loss) = loss {
            for ((cause, now), (_, last)) in causes(&loss).into_iter().zip(causes(&entry.loss)) {
                // A cause that has been zero so far is registered too: a rate over it is then zero, not absent.
                let counter = self.metrics.agent_lost.get_or_create(&CauseLabels { cause });
                counter.inc_by(now.saturating_sub(last));
            }
            entry.loss = loss;
        }
        entry.loss
    }

    /// Takes in the whole set of a node's probes.
    pub fn probes(&self, ticket: &Ticket, probes: &[Probe]) {
        let mut sums = [0; 3];
        for probe in probes {
            let [attached, unsupported, failed] = &mut sums;
            match probe.state {
                State::Attached => *attached += 1,
                State::Unsupported => *unsupported += 1,
                State::Failed | State::Unspecified => *failed += 1,
            }
        }
        let mut nodes = self.lock();
        if let Some(entry) = nodes
            .get_mut(&ticket.node)
            .filter(|one| one.generation == ticket.generation)
        {
            self.move_probes(entry, sums);
        }
    }

    fn move_probes(&self, entry: &mut Node, sums: [i64; 3]) {
        for ((state, now), last) in ["attached", "unsupported", "failed"]
            .into_iter()
            .zip(sums)
            .zip(entry.probes)
        {
            self.metrics
                .agent_probes
                .get_or_create(&StateLabels { state })
                .inc_by(now - last);
        }
        entry.probes = sums;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn causes(loss: &Loss) -> [(&'static str, u64); 12] {
    let Loss {
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

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn streams() -> Streams {
        Streams::new(Metrics::new(&mut Registry::default()))
    }

    #[test]
    fn a_newer_stream_replaces_the_older() {
        let streams = streams();
        let older = streams.open("n1", 1);
        let other = streams.open("n2", 1);
        let newer = streams.open("n1", 1);
        assert!(older.replaced.is_cancelled());
        assert!(!other.replaced.is_cancelled() && !newer.replaced.is_cancelled());
        assert!(!streams.close(&older), "the node still has a stream");
        assert_eq!(streams.metrics.streams.get(), 2);
        assert!(streams.close(&newer));
        assert!(!streams.close(&newer), "closed twice");
        assert_eq!(streams.metrics.streams.get(), 1);
    }

    #[test]
    fn losses_are_counted_once_and_start_anew_with_an_epoch() {
        let streams = streams();
        let count = |streams: &Streams| {
            streams
                .metrics
                .agent_lost
                .get_or_create(&CauseLabels {
                    cause: "socket_storage",
                })
                .get()
        };
        let loss = |socket_storage| {
            Some(Loss {
                socket_storage,
                ..Loss::default()
            })
        };
        let first = streams.open("n1", 1);
        streams.lost(&first, loss(5));
        assert_eq!(
            streams.lost(&first, None).socket_storage,
            5,
            "said nothing: as before"
        );
        let again = streams.open("n1", 1);
        streams.lost(&first, loss(9));
        streams.lost(&again, loss(7));
        assert_eq!(count(&streams), 7, "the replaced stream no longer counts");
        let restarted = streams.open("n1", 2);
        streams.lost(&restarted, loss(3));
        assert_eq!(count(&streams), 10);
    }

    #[test]
    fn probes_of_connected_agents_are_summed_by_state() {
        let streams = streams();
        let probe = |state| Probe {
            name: "p".into(),
            state,
            reason: String::new(),
        };
        let count = |state| {
            streams
                .metrics
                .agent_probes
                .get_or_create(&StateLabels { state })
                .get()
        };
        let ticket = streams.open("n1", 1);
        streams.probes(
            &ticket,
            &[
                probe(State::Attached),
                probe(State::Attached),
                probe(State::Failed),
            ],
        );
        assert_eq!((count("attached"), count("failed")), (2, 1));
        streams.probes(&ticket, &[probe(State::Attached)]);
        assert_eq!((count("attached"), count("failed")), (1, 0));
        streams.close(&ticket);
        assert_eq!(count("attached"), 0);
    }
}
