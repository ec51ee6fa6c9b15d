//! Whether the agent that should have the other half of a connection was watching.
//!
//! A connection falls back to a name without proof only when its other half would have come if there were one.
//! Otherwise an agent that was being restarted, or that samples, would turn every connection to its node into an edge
//! with a wrong end.

use crate::agents::Agent;
use crate::graph::Graph;
use crate::records::Record;
use crate::resolve::Resolver;
use crate::slab::Key;

/// How long after a node appeared its agent is expected rather than absent.
const ARRIVAL: i64 = 30_000;
/// Around a loss, a change of sampling and an agent's start, records at both ends may not agree.
const BLUR: i64 = 2_000;

/// What the agents on the other side can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// No agent there: nothing will come.
    Absent,
    /// An agent is away or expected.
    Away,
    /// An agent there was not watching all the time, or not watching everything.
    Unwatched,
    /// Every one was watching.
    Watching,
}

impl Graph {
    /// Whether a record may fall back to a name without proof now.
    pub(crate) fn may_fall_back(&mut self, key: Key<Record>) -> bool {
        let (Some(record), true) = (self.records.get(key), self.clock.settled.is_some()) else {
            return false;
        };
        record.overdue || self.peers(key) == Peers::Absent
    }

    /// Whether nothing follows from the other half's absence.
    pub(crate) fn is_unwatched(&mut self, key: Key<Record>) -> bool {
        matches!(self.peers(key), Peers::Unwatched | Peers::Away)
    }

    /// Who should have the other half of a record's connection.
    pub(crate) fn peers(&mut self, key: Key<Record>) -> Peers {
        let Some(record) = self.records.get(key) else {
            return Peers::Absent;
        };
        let (opened, half_key) = (record.opened, record.half);
        let Some((_, own)) = self.agent_of(half_key) else {
            return Peers::Absent;
        };
        if own.gone.is_some() || !own.complete {
            // Whether the connection is still open is not known.
            return Peers::Away;
        }
        let node = std::sync::Arc::clone(&own.node);
        let Some(half) = self.halves.get(half_key) else {
            return Peers::Absent;
        };
        let resolver = Resolver {
            inventory: &mut self.inventory,
            config: &self.config,
            clock: self.clock,
        };
        let nodes = resolver.peers(half, &node, opened);
        if nodes.is_empty() {
            return Peers::Watching;
        }
        let states: Vec<Peers> = nodes.iter().map(|node| self.peer(node, key)).collect();
        if states.iter().all(|state| *state == Peers::Absent) {
            return Peers::Absent;
        }
        if states.contains(&Peers::Away) {
            return Peers::Away;
        }
        if states.contains(&Peers::Unwatched) {
            Peers::Unwatched
        } else {
            Peers::Watching
        }
    }

    fn peer(&self, node: &str, key: Key<Record>) -> Peers {
        let now = self.clock.now;
        let Some(agent) = self.agents.by_node(node) else {
            let known = self.inventory.node_since(node).max(self.clock.synced);
            let arriving = known.is_some_and(|known| now.since(known) < ARRIVAL);
            return if arriving { Peers::Away } else { Peers::Absent };
        };
        let Some(record) = self.records.get(key) else {
            return Peers::Absent;
        };
        if let Some(gone) = agent.gone {
            return if now.since(gone) < self.config.silence {
                Peers::Away
            } else {
                Peers::Absent
            };
        }
        if !agent.complete {
            return Peers::Away;
        }
        if Self::missed(agent, record, self.config.patience) {
            Peers::Unwatched
        } else {
            Peers::Watching
        }
    }

    fn missed(agent: &Agent, record: &Record, patience: i64) -> bool {
        let before_start = record.closed && record.seen <= agent.watching_since.plus(BLUR);
        let during = |event: Option<crate::entity::Time>| {
            event.is_some_and(|event| {
                event >= record.opened.plus(-BLUR) && event <= record.arrived.plus(patience + BLUR)
            })
        };
        before_start || during(agent.lost_at) || during(agent.sampled_at)
    }
}
