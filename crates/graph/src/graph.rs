//! The graph's surface: inventory, time, and what is known.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::agents::Agents;
use crate::config::Config;
use crate::edges::Edges;
use crate::entity::{EdgeKey, Entity, Time};
use crate::half::Half;
use crate::input::{Controller, EndpointSlice, Node, Pod, Service, Subject};
use crate::intern::Interner;
use crate::inventory::{Inventory, Touched};
use crate::peers::Peers;
use crate::records::{Record, Records, Verdict};
use crate::resolve::Clock;
use crate::slab::{Key, Slab};
use crate::stats::{ClosedCounts, Stats};
use crate::view::{EdgeView, Seed, Unnamed, ZoneBytes};
use crate::waiting::Waiting;

/// How often half-edges that wait are looked at without any other reason.
const RETRY: i64 = 1_000;
/// How often figures move on and unused names are let go.
const ROTATE: i64 = 30_000;

/// Everything known about who talks to whom.
#[derive(Debug, Default)]
pub struct Graph {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// The first call.
    pub(crate) born: Option<Time>,
    pub(crate) inventory: Inventory,
    pub(crate) subjects: Interner<Subject>,
    pub(crate) agents: Agents,
    pub(crate) halves: Slab<Half>,
    pub(crate) records: Records,
    pub(crate) waiting: Waiting,
    pub(crate) edges: Edges,
    pub(crate) closed: ClosedCounts,
    retried: Time,
    rotated: Time,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Time never goes back, whatever the caller's clock does.
    pub(crate) fn advance(&mut self, now: Time) {
        self.born.get_or_insert(now);
        self.clock.now = self.clock.now.max(now);
    }

    /// A pod appeared or changed.
    pub fn apply_pod(&mut self, pod: Pod, now: Time) {
        self.advance(now);
        self.inventory.apply_pod(pod, self.config.patience, now);
        self.follow_inventory();
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, uid: &str, now: Time) {
        self.advance(now);
        self.inventory.delete_pod(uid, now);
        self.follow_inventory();
    }

    /// A ReplicaSet or Job appeared or changed.
    pub fn apply_controller(&mut self, controller: Controller, now: Time) {
        self.advance(now);
        self.inventory.apply_controller(controller);
        self.follow_inventory();
    }

    /// A ReplicaSet or Job is gone.
    pub fn delete_controller(&mut self, uid: &str, now: Time) {
        self.advance(now);
        self.inventory.delete_controller(uid, now);
    }

    /// A Service appeared or changed.
    pub fn apply_service(&mut self, service: Service, now: Time) {
        self.advance(now);
        self.inventory.apply_service(service, now);
        self.follow_inventory();
    }

    /// A Service is gone.
    pub fn delete_service(&mut self, namespace: &str, name: &str, now: Time) {
        self.advance(now);
        self.inventory.delete_service(namespace, name, now);
        self.follow_inventory();
    }

    /// An EndpointSlice appeared or changed.
    pub fn apply_endpoint_slice(&mut self, slice: EndpointSlice, now: Time) {
        self.advance(now);
        self.inventory.apply_slice(slice, now);
        self.follow_inventory();
    }

    /// An EndpointSlice is gone.
    pub fn delete_endpoint_slice(&mut self, namespace: &str, name: &str, now: Time) {
        self.advance(now);
        self.inventory.delete_slice(namespace, name, now);
        self.follow_inventory();
    }

    /// A Node appeared or changed.
    pub fn apply_node(&mut self, node: Node, now: Time) {
        self.advance(now);
        let Node {
            name,
            addresses,
            zone,
        } = node;
        self.inventory.apply_node(&name, addresses, &zone, now);
        self.follow_inventory();
    }

    /// A Node is gone.
    pub fn delete_node(&mut self, name: &str, now: Time) {
        self.advance(now);
        self.inventory.delete_node(name, now);
        self.follow_inventory();
    }

    /// Every watch has listed once: from now on what is unknown may stay unknown. Until then nothing gets a name.
    pub fn inventory_synced(&mut self, now: Time) {
        self.advance(now);
        if self.clock.synced.is_some() {
            return;
        }
        self.clock.synced = Some(now);
        let open: Vec<Key<Half>> = self
            .halves
            .iter()
            .filter(|(_, half)| half.is_pending() || half.records.is_some())
            .map(|(key, _)| key)
            .collect();
        for key in open {
            self.reconsider(key);
        }
        self.edges.collect();
    }

    /// What an existing object says; before [`Graph::settle`].
    pub fn seed(&mut self, seed: Seed) {
        let Inventory { names, zones, .. } = &mut self.inventory;
        self.edges.seed(seed, names, zones, &self.config);
        self.edges.collect();
    }

    /// The first full reports are in, or will not come: from now on only differences count.
    pub fn settle(&mut self, now: Time) {
        self.advance(now);
        if self.clock.settled.is_some() {
            return;
        }
        self.clock.settled = Some(now);
        self.edges.settle();
        self.retry();
        self.edges.collect();
    }

    /// Passing time: waiting times, tombstones, figures. Call it every 0.2 to 1 s.
    pub fn tick(&mut self, now: Time) {
        self.advance(now);
        let now = self.clock.now;
        self.inventory.expire(&self.config, self.clock.synced, now);
        self.follow_inventory();
        if now.since(self.retried) >= RETRY {
            self.retry();
        }
        self.expire_records();
        self.silence_agents();
        if now.since(self.rotated) >= ROTATE {
            self.rotated = now;
            self.edges.rotate(now);
            self.inventory.endpoints.expire(now.plus(-self.config.tombstone));
            self.inventory.names.sweep();
            self.subjects.sweep();
        }
        self.edges.collect();
    }

    /// Looks again at every half-edge that waits.
    fn retry(&mut self) {
        self.retried = self.clock.now;
        for key in self.waiting.all() {
            self.reconsider(key);
        }
    }

    /// Looks again at what an inventory change may have given a better name.
    pub(crate) fn follow_inventory(&mut self) {
        let Touched {
            subjects,
            addresses,
            renamed,
        } = self.inventory.take_touched();
        for (old, new) in renamed {
            self.edges.rename(&old, &new, &self.config);
        }
        let mut keys: HashSet<Key<Half>> = HashSet::new();
        for subject in &subjects {
            keys.extend(self.waiting.of_subject(subject));
        }
        for &address in &addresses {
            keys.extend(self.waiting.of_remote(address));
        }
        for key in keys {
            self.reconsider(key);
        }
        self.edges.collect();
    }

    fn expire_records(&mut self) {
        let now = self.clock.now;
        let due = |queue: &std::collections::VecDeque<(Time, Key<Record>)>| {
            queue
                .front()
                .filter(|(until, _)| *until <= now)
                .map(|(_, key)| *key)
        };
        // What is put back is due later than now, so this ends.
        while let Some(key) = due(&self.records.impatient) {
            self.records.impatient.pop_front();
            let Some(record) = self.records.get(key) else {
                continue;
            };
            // What has a name need not wait for its other half: an old connection may stay open for ever.
            let waits = record.verdict == Verdict::Waiting;
            let early = self.clock.synced.is_none() || self.clock.settled.is_none();
            if early || (waits && self.peers(key) == Peers::Away) {
                self.records
                    .impatient
                    .push_back((now.plus(self.config.patience), key));
                continue;
            }
            if let Some(record) = self.records.get_mut(key) {
                record.overdue = true;
                self.judge_record(key);
            }
        }
        while let Some(key) = due(&self.records.closing) {
            self.records.closing.pop_front();
            let Some(half) = self.records.get(key).map(|record| record.half) else {
                continue;
            };
            self.drop_record(key);
            if self
                .halves
                .get(half)
                .is_some_and(|half| half.ended && half.records.is_none() && !half.is_pending())
            {
                self.drop_half(half);
            }
        }
    }

    /// Agents that are away for long: what they had open may be closed.
    fn silence_agents(&mut self) {
        let now = self.clock.now;
        let mut silent = Vec::new();
        let mut dead = Vec::new();
        for (key, agent) in self.agents.iter() {
            let Some(gone) = agent.gone else { continue };
            if !agent.silent && now.since(gone) >= self.config.silence {
                silent.push(key);
            }
            if now.since(gone) >= self.config.tombstone && self.inventory.node_since(&agent.node).is_none() {
                dead.push(key);
            }
        }
        for key in silent {
            let Some(agent) = self.agents.get_mut(key) else {
                continue;
            };
            agent.silent = true;
            for half in agent.halves.values().copied().collect::<Vec<_>>() {
                self.close_connections(half);
                self.rejudge_all(half);
            }
        }
        for key in dead {
            let Some(agent) = self.agents.get_mut(key) else {
                continue;
            };
            for half in std::mem::take(&mut agent.halves).into_values() {
                self.drop_half(half);
            }
            self.agents.remove(key);
        }
    }

    /// Keys of edges that appeared, changed or vanished since the last call. A key without
    /// [`Graph::edge`] vanished: it was a name given without proof, and must be deleted, not idled.
    pub fn drain_changed(&mut self) -> HashSet<EdgeKey> {
        self.edges.take_changed()
    }

    /// One edge.
    #[must_use]
    pub fn edge(&self, key: &EdgeKey) -> Option<EdgeView> {
        let Inventory { names, zones, .. } = &self.inventory;
        self.edges.view(key, names, zones, self.clock.now)
    }

    /// All edges.
    pub fn edges(&self) -> impl Iterator<Item = EdgeView> {
        self.edges.views(&self.inventory.zones, self.clock.now)
    }

    /// Edges of which bytes between zones are known: client, server, and the bytes.
    pub fn zones(&self) -> impl Iterator<Item = (&Entity, &Entity, Vec<ZoneBytes>)> {
        self.edges.zones(&self.inventory.zones)
    }

    /// The object was deleted after its retention: the edge starts from zero if it is ever seen again. An edge with
    /// open connections is not forgotten.
    pub fn forget(&mut self, key: &EdgeKey) {
        self.edges.forget(key, &self.inventory.names);
        self.edges.collect();
    }

    /// Counts and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut unresolved: HashMap<Unnamed, usize> =
            Unnamed::ALL.into_iter().map(|reason| (reason, 0)).collect();
        let mut zones_truncated = 0;
        for edge in self.edges.all() {
            zones_truncated += usize::from(edge.zones.as_ref().is_some_and(|zones| zones.is_truncated()));
            if let Some(end) = edge.unresolved {
                *unresolved.entry(end.reason).or_default() += 1;
            }
        }
        let mut unresolved: Vec<(Unnamed, usize)> = unresolved.into_iter().collect();
        unresolved.sort_unstable();
        let (pods, services) = self.inventory.counts();
        let (zones, zone_pairs) = self.inventory.zones.len();
        Stats {
            closed: self.closed.list(),
            unresolved,
            agents: self.agents.connected(),
            half_edges: self.halves.len(),
            waiting: self.waiting.len(),
            records: self.records.len(),
            edges: self.edges.len(),
            entities: self.inventory.names.len(),
            pods,
            services,
            addresses: self.inventory.book.len(),
            zones,
            zone_pairs,
            zones_truncated,
        }
    }
}
