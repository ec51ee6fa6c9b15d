//! The agents: one stream per node, its epoch, and whether it was watching when something happened.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entity::Time;
use crate::half::Half;
use crate::slab::{Key, Slab};

/// A node's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) node: Arc<str>,
    /// Names the agent's run.
    pub(crate) epoch: u64,
    /// Counts hellos.
    pub(crate) stream: u32,
    /// First hello of this epoch: what closed before may have been missed.
    pub(crate) watching_since: Time,
    /// The first complete report of this epoch has not come, and the agent is older than this graph: what it says may
    /// be in an object already.
    pub(crate) historic: bool,
    /// This stream's full report is in.
    pub(crate) complete: bool,
    /// A full report has come since the graph was made.
    pub(crate) reported: bool,
    /// The stream ended.
    pub(crate) gone: Option<Time>,
    /// Its open connections no longer count as open.
    pub(crate) silent: bool,
    /// Loss since the epoch, and when it last rose.
    pub(crate) lost: u64,
    pub(crate) lost_at: Option<Time>,
    /// Connections that sampling left without records, as last reported.
    pub(crate) sampled: u64,
    /// When it last left one out, or a record stood for more than one.
    pub(crate) sampled_at: Option<Time>,
    /// When a half-edge or a record of it was last refused here for want of room.
    pub(crate) refused_at: Option<Time>,
    /// When its last report came.
    pub(crate) heard: Time,
    /// Half-edges were refused: unknown ids are no error.
    pub(crate) overflowed: bool,
    pub(crate) halves: HashMap<u32, Key<Half>>,
}

/// All agents by node.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    agents: Slab<Agent>,
    by_node: HashMap<Arc<str>, Key<Agent>>,
}

impl Agents {
    pub(crate) fn key(&self, node: &str) -> Option<Key<Agent>> {
        self.by_node.get(node).copied()
    }

    pub(crate) fn by_node(&self, node: &str) -> Option<&Agent> {
        self.agents.get(self.key(node)?)
    }

    pub(crate) fn get(&self, key: Key<Agent>) -> Option<&Agent> {
        self.agents.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key<Agent>) -> Option<&mut Agent> {
        self.agents.get_mut(key)
    }

    pub(crate) fn insert(&mut self, agent: Agent) -> Key<Agent> {
        let node = Arc::clone(&agent.node);
        let key = self.agents.insert(agent);
        self.by_node.insert(node, key);
        key
    }

    pub(crate) fn remove(&mut self, key: Key<Agent>) {
        if let Some(agent) = self.agents.remove(key) {
            self.by_node.remove(&agent.node);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<Agent>, &Agent)> {
        self.agents.iter()
    }

    pub(crate) fn connected(&self) -> usize {
        self.agents
            .iter()
            .filter(|(_, agent)| agent.gone.is_none())
            .count()
    }
}
