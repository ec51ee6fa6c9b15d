//! A small world to write scenarios in: two nodes with agents. Times are milliseconds from the start of the world.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use leyline_graph::entity::{EdgeKey, Entity, Time, Transport};
use leyline_graph::input::{
    Connection, Definition, EndpointSlice, Measurement, Node, Pod, Report, Role, Service, Subject, Witness,
};
use leyline_graph::{Closed, Config, EdgeView, Graph, ReportError, Seed};

pub(crate) use crate::build::{
    C, H, P, client, conn, controller, ip, owner, pod, process_client, process_server, server, service, slice,
};

pub(crate) const START: i64 = 1_700_000_000_000;
/// Epochs are nanoseconds since 1970; agents of a new world are as old as the world.
pub(crate) const EPOCH: u64 = (START as u64) * 1_000_000;
pub(crate) const N1: &str = "10.250.0.1";
pub(crate) const N2: &str = "10.250.0.2";

pub(crate) struct World {
    pub(crate) graph: Graph,
    pub(crate) now: i64,
    ids: HashMap<(String, u64, Subject, u8, IpAddr, u16), u32>,
    defined: HashSet<(String, u32)>,
    epochs: HashMap<String, u64>,
    /// What each agent says it lost.
    pub(crate) lost: HashMap<String, u64>,
    /// What the watches would list now.
    pods: BTreeMap<String, Pod>,
    services: BTreeMap<String, Service>,
    slices: BTreeMap<String, EndpointSlice>,
    nodes: BTreeMap<String, Node>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Nothing but time.
    pub(crate) fn empty(config: Config) -> Self {
        Self {
            graph: Graph::new(config),
            now: 0,
            ids: HashMap::new(),
            defined: HashSet::new(),
            epochs: HashMap::new(),
            lost: HashMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Nodes n1 and n2 with agents that have reported, everything settled long ago.
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut world = Self::empty(config);
        world.nodes();
        world.graph.inventory_synced(world.time());
        world.agents();
        world.graph.settle(world.time());
        world.pass(60_000);
        world
    }

    pub(crate) fn nodes(&mut self) {
        for (name, address) in [("n1", N1), ("n2", N2)] {
            self.node(name, address);
        }
    }

    pub(crate) fn node(&mut self, name: &str, address: &str) {
        self.node_in(name, address, "");
    }

    /// A node with a zone label, unless it is empty.
    pub(crate) fn node_in(&mut self, name: &str, address: &str, zone: &str) {
        let node = Node {
            name: name.to_owned(),
            addresses: vec![ip(address)],
            zone: zone.to_owned(),
        };
        self.nodes.insert(name.to_owned(), node.clone());
        self.graph.apply_node(node, self.time());
    }

    /// A new operator: it knows what the watches list and what `seeds` say.
    pub(crate) fn restart_operator(&mut self, seeds: Vec<Seed>) {
        self.graph = Graph::new(Config::default());
        let now = self.time();
        for seed in seeds {
            self.graph.seed(seed);
        }
        for node in self.nodes.values().cloned() {
            self.graph.apply_node(node, now);
        }
        for pod in self.pods.values().cloned() {
            self.graph.apply_pod(pod, now);
        }
        for service in self.services.values().cloned() {
            self.graph.apply_service(service, now);
        }
        for slice in self.slices.values().cloned() {
            self.graph.apply_endpoint_slice(slice, now);
        }
        self.graph.inventory_synced(now);
    }

    pub(crate) fn agents(&mut self) {
        for name in ["n1", "n2"] {
            self.hello(name, EPOCH);
            self.complete(name);
        }
    }

    pub(crate) fn time(&self) -> Time {
        Time(START + self.now)
    }

    pub(crate) fn hello(&mut self, node: &str, epoch: u64) {
        let addresses: &[IpAddr] = match node {
            "n1" => &[ip(N1), ip("10.244.0.1"), ip("127.0.0.1")],
            "n2" => &[ip(N2), ip("10.244.1.1")],
            "n3" => &[ip("10.250.0.3"), ip("10.244.2.1")],
            _ => &[],
        };
        self.graph.hello(node, epoch, addresses, self.time());
        if self.epochs.insert(node.to_owned(), epoch) != Some(epoch) {
            self.lost.remove(node);
        }
        self.defined.retain(|(other, _)| other != node);
    }

    pub(crate) fn complete(&mut self, node: &str) {
        let report = Report {
            complete: true,
            lost: self.lost.get(node).copied().unwrap_or_default(),
            ..Report::default()
        };
        self.graph
            .report(node, self.epochs[node], report, self.time())
            .unwrap();
    }

    /// Time passes in half seconds, with ticks.
    pub(crate) fn pass(&mut self, milliseconds: i64) {
        let until = self.now + milliseconds;
        while self.now < until {
            self.now = (self.now + 500).min(until);
            if self.now % 1_000 < 500 {
                self.heartbeat();
            }
            self.graph.tick(self.time());
        }
    }

    /// Agents speak every second even when there is nothing to say; the ones without a stream are not heard.
    fn heartbeat(&mut self) {
        for (node, epoch) in &self.epochs {
            let silence = Report {
                lost: self.lost.get(node).copied().unwrap_or_default(),
                ..Report::default()
            };
            let _ = self.graph.report(node, *epoch, silence, self.time());
        }
    }

    pub(crate) fn pod(&mut self, pod: P) {
        self.pods.insert(pod.0.uid.clone(), pod.0.clone());
        self.graph.apply_pod(pod.0, self.time());
    }

    pub(crate) fn delete_pod(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.graph.delete_pod(uid, self.time());
    }

    pub(crate) fn apply_service(&mut self, service: Service) {
        self.services.insert(service.name.clone(), service.clone());
        self.graph.apply_service(service, self.time());
    }

    pub(crate) fn apply_slice(&mut self, slice: EndpointSlice) {
        self.slices.insert(slice.name.clone(), slice.clone());
        self.graph.apply_endpoint_slice(slice, self.time());
    }

    /// A Service of namespace shop at `address` whose slice names `pods` on `target`.
    pub(crate) fn service(&mut self, name: &str, address: &str, port: u16, target: u16, pods: &[&str]) {
        self.graph
            .apply_service(service(name, address, port), self.time());
        self.slice(name, target, pods);
    }

    pub(crate) fn slice(&mut self, service: &str, target: u16, pods: &[&str]) {
        self.graph
            .apply_endpoint_slice(slice(service, target, pods), self.time());
    }

    pub(crate) fn id(&mut self, node: &str, half: &H) -> u32 {
        let next = u32::try_from(self.ids.len()).unwrap() + 1;
        let role = half.role as u8;
        let key = (
            node.to_owned(),
            self.epochs[node],
            half.subject.clone(),
            role,
            half.remote,
            half.port,
        );
        *self.ids.entry(key).or_insert(next)
    }

    /// What an agent would send about these half-edges.
    pub(crate) fn build(&mut self, node: &str, halves: &[H]) -> Report {
        let mut report = Report {
            lost: self.lost.get(node).copied().unwrap_or_default(),
            ..Report::default()
        };
        for half in halves {
            let id = self.id(node, half);
            if self.defined.insert((node.to_owned(), id)) {
                report.definitions.push(Definition {
                    id,
                    subject: half.subject.clone(),
                    role: half.role,
                    remote: half.remote,
                    port: half.port,
                    transport: Transport::Tcp,
                    split: half.split,
                });
            }
            let changed = Time(START + half.changed.unwrap_or(self.now));
            report.measurements.push(Measurement {
                id,
                counters: half.counters,
                changed,
            });
            for connection in &half.connections {
                let local_port = if half.role == Role::Server {
                    half.port
                } else {
                    40_000
                };
                report.connections.push(Connection {
                    id,
                    witness: Witness {
                        client_isn: connection.number,
                        server_isn: !connection.number,
                    },
                    local: connection.local.unwrap_or(ip("10.244.9.9")),
                    local_port: connection.local_port.unwrap_or(local_port),
                    remote_port: if half.role == Role::Server {
                        40_000
                    } else {
                        half.port
                    },
                    adopted: connection.adopted,
                    closed: connection.closed,
                    bytes_sent: connection.sent,
                    bytes_received: connection.received,
                    weight: connection.weight,
                    opened: Time(START + connection.opened.unwrap_or(self.now)),
                    seen: Time(START + connection.seen.unwrap_or(self.now)),
                });
            }
        }
        report
    }

    pub(crate) fn report(&mut self, node: &str, halves: impl IntoIterator<Item = H>) {
        self.try_report(node, halves).unwrap();
    }

    pub(crate) fn try_report(
        &mut self,
        node: &str,
        halves: impl IntoIterator<Item = H>,
    ) -> Result<(), ReportError> {
        let halves: Vec<H> = halves.into_iter().collect();
        let report = self.build(node, &halves);
        self.graph.report(node, self.epochs[node], report, self.time())
    }

    /// Edges by `Kind/client -> Kind/server:port`.
    pub(crate) fn edges(&self) -> BTreeMap<String, EdgeView> {
        self.graph.edges().map(|edge| (name(&edge.key), edge)).collect()
    }

    /// Exactly these edges exist.
    #[track_caller]
    pub(crate) fn expect(&self, expected: &[&str]) {
        let observed: Vec<String> = self.edges().into_keys().collect();
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(observed, expected, "{:?}", self.graph.stats());
    }

    #[track_caller]
    pub(crate) fn edge(&self, name: &str) -> EdgeView {
        let mut edges = self.edges();
        let names: Vec<String> = edges.keys().cloned().collect();
        edges
            .remove(name)
            .unwrap_or_else(|| panic!("no {name} among {names:?}; {:?}", self.graph.stats()))
    }

    /// How many connections were set aside for this reason.
    pub(crate) fn closed(&self, reason: Closed) -> u64 {
        self.graph
            .stats()
            .closed
            .into_iter()
            .find(|(known, _)| *known == reason)
            .map_or(0, |(_, count)| count)
    }
}

pub(crate) fn name(key: &EdgeKey) -> String {
    let entity = |entity: &Entity| format!("{}/{}", entity.kind, entity.name);
    format!("{} -> {}:{}", entity(&key.client), entity(&key.server), key.port)
}

/// A small generator of its own: the same numbers on every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit as u64).unwrap()
    }
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.below(usize::try_from(high - low + 1).unwrap())).unwrap()
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
