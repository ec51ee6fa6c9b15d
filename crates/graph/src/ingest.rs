//! Agents' streams: hello, reports, ends. A report is checked as a whole before anything of it is taken in.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::agents::Agent;
use crate::entity::Time;
use crate::error::ReportError;
use crate::graph::Graph;
use crate::half::{Half, Proven};
use crate::input::{Counters, Definition, Report, Subject};
use crate::slab::Key;
use crate::stats::Closed;

impl Graph {
    /// An agent's stream started. The same epoch continues, another one starts from zero.
    pub fn hello(&mut self, node: &str, epoch: u64, node_addresses: &[IpAddr], now: Time) {
        self.advance(now);
        self.inventory.agent_addresses(node, node_addresses, now);
        let known = self.agents.key(node);
        let key = known.unwrap_or_else(|| {
            self.agents.insert(Agent {
                node: Arc::from(node),
                epoch,
                stream: 0,
                watching_since: now,
                historic: false,
                complete: false,
                reported: false,
                gone: None,
                silent: false,
                lost: 0,
                lost_at: None,
                sampled: 0,
                sampled_at: None,
                refused_at: None,
                heard: now,
                overflowed: false,
                halves: HashMap::new(),
            })
        });
        let same_epoch = known.is_some() && self.agents.get(key).is_some_and(|agent| agent.epoch == epoch);
        if !same_epoch {
            self.retire_epoch(key);
        }
        let born = self.born;
        let Some(agent) = self.agents.get_mut(key) else {
            return;
        };
        agent.stream = agent.stream.wrapping_add(1);
        agent.complete = false;
        agent.gone = None;
        agent.silent = false;
        if !same_epoch {
            agent.epoch = epoch;
            agent.watching_since = now;
            agent.lost = 0;
            agent.overflowed = false;
            // Epochs are nanoseconds since 1970.
            let started = i64::try_from(epoch / 1_000_000).unwrap_or(i64::MAX);
            agent.historic = born.is_none_or(|born| started < born.0);
        }
        self.follow_inventory();
    }

    /// What an epoch contributed stays; nothing of it is open any more.
    fn retire_epoch(&mut self, key: Key<Agent>) {
        let Some(agent) = self.agents.get_mut(key) else {
            return;
        };
        for half_key in std::mem::take(&mut agent.halves).into_values() {
            if let Some(half) = self.halves.get(half_key) {
                for record in self.records.of(half) {
                    self.drop_record(record);
                }
            }
            self.end_half(half_key);
        }
    }

    /// An agent's stream ended (the newest of that node).
    pub fn agent_gone(&mut self, node: &str, now: Time) {
        self.advance(now);
        if let Some(agent) = self.agents.key(node).and_then(|key| self.agents.get_mut(key)) {
            agent.gone.get_or_insert(now);
            agent.complete = false;
        }
    }

    /// Nodes of the inventory whose agent has not sent a complete report since this graph was made.
    #[must_use]
    pub fn unreported_nodes(&self) -> Vec<String> {
        self.inventory
            .node_names()
            .filter(|name| !self.agents.by_node(name).is_some_and(|agent| agent.reported))
            .map(|name| name.to_string())
            .collect()
    }

    /// One report of the stream that the last hello of this node started.
    ///
    /// # Errors
    /// The report contradicts the protocol; nothing of it was taken in and the stream must end.
    pub fn report(&mut self, node: &str, epoch: u64, report: Report, now: Time) -> Result<(), ReportError> {
        let key = self.agents.key(node).ok_or_else(|| ReportError::NoHello {
            node: node.to_owned(),
        })?;
        self.check(key, epoch, &report)?;
        self.advance(now);
        let Report {
            definitions,
            measurements,
            connections,
            ended,
            complete,
            lost,
            sampled,
            node_addresses,
        } = report;
        if let Some(addresses) = node_addresses {
            self.inventory.agent_addresses(node, &addresses, now);
            self.follow_inventory();
        }
        if let Some(agent) = self.agents.get_mut(key) {
            agent.heard = self.clock.now;
            if lost > agent.lost {
                agent.lost = lost;
                agent.lost_at = Some(self.clock.now);
            }
            if sampled > agent.sampled {
                agent.sampled = sampled;
                agent.sampled_at = Some(self.clock.now);
            }
        }
        for definition in &definitions {
            self.define(key, definition);
        }
        let half_of = |graph: &Self, id: u32| {
            graph
                .agents
                .get(key)
                .and_then(|agent| agent.halves.get(&id).copied())
        };
        for measurement in &measurements {
            if let Some(half) = half_of(self, measurement.id) {
                self.measure(half, measurement);
            }
        }
        for connection in &connections {
            if let Some(half) = half_of(self, connection.id) {
                self.take_connection(half, connection);
            }
        }
        for id in ended {
            self.end_id(key, id);
        }
        if complete {
            self.completed(key);
        }
        self.edges.collect();
        Ok(())
    }

    /// The full report is in: what the agent did not define again is gone.
    fn completed(&mut self, key: Key<Agent>) {
        let Some(agent) = self.agents.get_mut(key) else {
            return;
        };
        agent.complete = true;
        agent.reported = true;
        agent.historic = false;
        let stream = agent.stream;
        let stale: Vec<u32> = agent
            .halves
            .iter()
            .filter(|(_, half)| self.halves.get(**half).is_none_or(|half| half.stream != stream))
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            self.end_id(key, id);
        }
    }

    fn end_id(&mut self, key: Key<Agent>, id: u32) {
        let half = self
            .agents
            .get_mut(key)
            .and_then(|agent| agent.halves.remove(&id));
        let Some(half_key) = half else { return };
        if let Some(half) = self.halves.get(half_key) {
            let until = self.clock.now.plus(self.config.record_memory);
            for record_key in self.records.of(half) {
                let Some(record) = self.records.get_mut(record_key) else {
                    continue;
                };
                if !record.closed {
                    record.closed = true;
                    self.records.closing.push_back((until, record_key));
                }
                self.judge_record(record_key);
            }
        }
        self.end_half(half_key);
    }

    fn define(&mut self, key: Key<Agent>, definition: &Definition) {
        let most = self.config.half_edges_per_node;
        let Some(agent) = self.agents.get_mut(key) else {
            return;
        };
        let stream = agent.stream;
        if let Some(half) = agent
            .halves
            .get(&definition.id)
            .and_then(|half| self.halves.get_mut(*half))
        {
            half.stream = stream;
            return;
        }
        if agent.halves.len() >= most {
            agent.overflowed = true;
            agent.refused_at = Some(self.clock.now);
            self.closed.add(Closed::HalfEdgesFull, 1);
            return;
        }
        let Definition {
            id,
            subject,
            role,
            remote,
            port,
            transport,
            split,
        } = definition.clone();
        let process = match &subject {
            Subject::Process(name) => Some(self.inventory.entity("NodeProcess", name.clone())),
            Subject::Pod(_) => None,
        };
        let subject = self.subjects.intern(subject);
        let half = self.halves.insert(Half {
            agent: key,
            id,
            subject,
            process,
            role,
            remote,
            port,
            transport,
            split,
            stream,
            ended: false,
            waiting: false,
            waiting_since: None,
            open_at: Time(i64::MIN),
            measured_at: self.clock.now,
            proven: Proven::None,
            portions: Vec::new(),
            records: None,
        });
        if let Some(agent) = self.agents.get_mut(key) {
            agent.halves.insert(id, half);
        }
    }

    /// Everything a report can be wrong about.
    fn check(&self, key: Key<Agent>, epoch: u64, report: &Report) -> Result<(), ReportError> {
        let Some(agent) = self.agents.get(key) else {
            return Ok(());
        };
        if agent.epoch != epoch {
            return Err(ReportError::Epoch {
                expected: agent.epoch,
                got: epoch,
            });
        }
        if report.lost < agent.lost {
            return Err(ReportError::LossBackwards);
        }
        let mut defined: HashMap<u32, &Definition> = HashMap::new();
        for definition in &report.definitions {
            let id = definition.id;
            if defined
                .insert(id, definition)
                .is_some_and(|before| before != definition)
                || self.known(agent, id).is_some_and(|half| !half.is(definition))
            {
                return Err(ReportError::Redefined { id });
            }
        }
        let exists = |id: u32| {
            if defined.contains_key(&id) || agent.halves.contains_key(&id) || agent.overflowed {
                Ok(())
            } else {
                Err(ReportError::Undefined { id })
            }
        };
        let mut last: HashMap<u32, Counters> = HashMap::new();
        for measurement in &report.measurements {
            let id = measurement.id;
            exists(id)?;
            let before = last
                .insert(id, measurement.counters)
                .or_else(|| self.known(agent, id).map(Half::reported))
                .unwrap_or_default();
            if let Some(counter) = measurement.counters.backwards_of(&before) {
                return Err(ReportError::Backwards { id, counter });
            }
        }
        for connection in &report.connections {
            exists(connection.id)?;
            if connection.weight == 0 {
                return Err(ReportError::Weightless { id: connection.id });
            }
        }
        let mut ended = HashSet::new();
        for &id in &report.ended {
            exists(id)?;
            if !ended.insert(id) {
                return Err(ReportError::Undefined { id });
            }
        }
        Ok(())
    }

    fn known(&self, agent: &Agent, id: u32) -> Option<&Half> {
        self.halves.get(*agent.halves.get(&id)?)
    }
}

impl Half {
    /// Whether it was defined like this.
    fn is(&self, definition: &Definition) -> bool {
        let Definition {
            id,
            subject,
            role,
            remote,
            port,
            transport,
            split,
        } = definition;
        self.id == *id
            && *self.subject == *subject
            && self.role == *role
            && self.remote == *remote
            && self.port == *port
            && self.transport == *transport
            && self.split == *split
    }
}
