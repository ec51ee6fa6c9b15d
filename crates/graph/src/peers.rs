//! Whether the agent that should have the other half of a connection was watching.
//!
//! A connection falls back to a name without proof only when its other half would have come if there were one.
//! Otherwise an agent that was being restarted, that samples, or that is slow would turn every connection to its node
//! into an edge with a wrong end.

use crate::agents::Agent;
use crate::entity::Time;
use crate::graph::Graph;
use crate::records::Record;
use crate::resolve::Resolver;
use crate::slab::Key;

/// Around a loss, a change of sampling and an agent's start, records at both ends may not agree.
const BLUR: i64 = 2_000;
/// A socket that its process has let go of cannot be adopted by an agent that starts later, and lives on for up to a
/// minute (`net.ipv4.tcp_fin_timeout`).
const LINGER: i64 = 60_000;

/// What the agents on the other side can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers {
    /// No agent there for long: nothing will come.
    Absent,
    /// It cannot be said yet: an agent is away, expected, or has not spoken since.
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
        // An agent that is started over and over again is away for minutes.
        let is_long = |since: Time| now.since(since) >= self.config.tombstone;
        let absent = |long: bool| if long { Peers::Absent } else { Peers::Away };
        let Some(agent) = self.agents.by_node(node) else {
            let known = self.inventory.node_since(node).max(self.clock.synced);
            return absent(known.is_none_or(is_long));
        };
        if let Some(gone) = agent.gone {
            return absent(is_long(gone));
        }
        match self.records.get(key) {
            None => Peers::Absent,
            Some(_) if !agent.complete => Peers::Away,
            Some(record) => self.sight(agent, record),
        }
    }

    /// What it means that a connected agent has said nothing of a connection.
    fn sight(&self, agent: &Agent, record: &Record) -> Peers {
        let during = |event: Option<Time>| event.is_some_and(|event| event >= record.opened.plus(-BLUR));
        if during(agent.lost_at) || during(agent.sampled_at) || during(agent.refused_at) {
            return Peers::Unwatched;
        }
        if !self.is_alive_under(agent, record) {
            return if record.closed {
                Peers::Unwatched
            } else {
                Peers::Away
            };
        }
        if agent.heard < record.arrived.plus(BLUR) {
            return Peers::Away;
        }
        Peers::Watching
    }

    /// Whether the other end of a connection, if it is a socket of the agent's node, must have been seen by the agent:
    /// the connection began under its eyes, or is older but still carried bytes when every socket that the agent cannot
    /// have adopted was gone.
    fn is_alive_under(&self, agent: &Agent, record: &Record) -> bool {
        // The other half may have been here and been forgotten since.
        let is_late = record.arrived.since(record.opened) >= self.config.record_memory - BLUR;
        if !is_late && !record.adopted && record.opened > agent.watching_since.plus(BLUR) {
            return true;
        }
        let mut known = agent.watching_since;
        if record.adopted {
            known = known.max(record.opened);
        }
        if is_late {
            known = known.max(record.arrived);
        }
        record.moved.is_some_and(|moved| moved > known.plus(LINGER))
    }
}
