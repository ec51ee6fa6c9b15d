//! A simulated cluster with churn, masquerade, address reuse, lagging watches, late reports, and restarts. It keeps the
//! truth beside what agents see of it.

use std::collections::BTreeMap;

use crate::support::{EPOCH, P, Random, World, ip, pod, service, slice};
use leyline_graph::input::Endpoint;
use leyline_graph::{Config, Seed};

use crate::model::{Agent, Live, Member, find, socket};

pub(crate) const STEP: i64 = 100;
pub(crate) const NODES: [&str; 3] = ["n1", "n2", "n3"];
const ZONES: [&str; 3] = ["west", "east", "west"];

fn node_address(node: usize) -> String {
    format!("10.250.0.{}", node + 1)
}
fn gateway(node: usize) -> String {
    format!("10.244.{node}.1")
}
/// An inventory event, and when the watches hear of it.
pub(crate) type Coming = (i64, Box<dyn FnOnce(&mut World)>);
/// Connections, bytes sent and received by edge.
pub(crate) type Truth = BTreeMap<String, (u64, u64, u64)>;
/// Bytes by edge, client zone and server zone.
pub(crate) type ZoneTruth = BTreeMap<(String, String, String), u64>;

pub(crate) struct Simulation {
    pub(crate) random: Random,
    pub(crate) world: World,
    pub(crate) masquerade: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) free: Vec<(usize, String)>,
    /// Addresses that are free from then on.
    pub(crate) freed: Vec<(i64, usize, String)>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) live: Vec<Live>,
    /// Inventory events on their way.
    pub(crate) coming: Vec<Coming>,
    pub(crate) truth: Truth,
    pub(crate) zone_truth: ZoneTruth,
    pub(crate) next: u32,
    pub(crate) faults: Faults,
    /// While the operator is down: when it is back, and what the objects say.
    pub(crate) operator_down: Option<(i64, Vec<Seed>)>,
    pub(crate) settled: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) agents: bool,
    pub(crate) operator: bool,
    /// Agents that stay away for long, lose records, cannot adopt every socket, and whose streams break for a while.
    pub(crate) blindness: bool,
}

impl Simulation {
    pub(crate) fn new(seed: u64, masquerade: bool, faults: Faults) -> Self {
        let mut world = World::empty(Config::default());
        for (index, name) in NODES.iter().enumerate() {
            world.node_in(name, &node_address(index), ZONES[index]);
            world.hello(name, EPOCH);
        }
        for (name, address, port) in [("api", "10.96.0.8", 80), ("redis", "10.96.0.9", 6379)] {
            world.apply_service(service(name, address, port));
        }
        let mut kubernetes = service("kubernetes", "10.96.0.1", 443);
        kubernetes.namespace = "default".to_owned();
        world.apply_service(kubernetes);
        let mut endpoints = slice("kubernetes", 6443, &[]);
        endpoints.namespace = "default".to_owned();
        endpoints.endpoints = vec![Endpoint {
            addresses: vec![ip(&node_address(0))],
            pod_uid: None,
        }];
        world.apply_slice(endpoints);
        let agents = NODES
            .iter()
            .map(|_| Agent {
                epoch: EPOCH,
                ..Agent::default()
            })
            .collect();
        let free = (0..3)
            .flat_map(|node| (5..12).map(move |last| (node, format!("10.244.{node}.{last}"))))
            .collect();
        let mut simulation = Self {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            world,
            masquerade,
            members: Vec::new(),
            free,
            freed: Vec::new(),
            agents,
            live: Vec::new(),
            coming: Vec::new(),
            truth: BTreeMap::new(),
            zone_truth: BTreeMap::new(),
            next: 0,
            faults,
            operator_down: None,
            settled: true,
        };
        simulation.populate();
        simulation
    }

    fn populate(&mut self) {
        for (kind, workload, count) in [
            ("Deployment", "web", 3),
            ("Deployment", "stable", 2),
            ("Deployment", "canary", 1),
            ("StatefulSet", "redis", 3),
        ] {
            for _ in 0..count {
                self.start(kind, workload);
            }
        }
        for node in 0..3 {
            for (kind, workload, process) in [
                ("DaemonSet", "logger", false),
                ("Deployment", "gateway", false),
                ("NodeProcess", "kubelet.service", true),
            ] {
                self.place(kind, workload, node, process);
            }
        }
        self.place("NodeProcess", "kube-apiserver", 0, true);
        for (_, event) in std::mem::take(&mut self.coming) {
            event(&mut self.world);
        }
        self.world.graph.inventory_synced(self.world.time());
        for name in NODES {
            self.world.complete(name);
        }
        self.world.graph.settle(self.world.time());
        self.world.pass(60_000);
        for member in &mut self.members {
            member.ready = 0;
        }
        self.update_slices();
    }

    /// A host-network pod or a process.
    fn place(&mut self, kind: &'static str, workload: &'static str, node: usize, process: bool) {
        let uid = if process {
            workload.to_owned()
        } else {
            format!("{workload}-{node}")
        };
        let address = node_address(node);
        if !process {
            let pod = pod(&uid).on(NODES[node]).host().at(&address).of(kind, workload);
            self.world.pod(pod);
        }
        self.members.push(Member {
            uid,
            kind,
            workload,
            node,
            address,
            host: true,
            process,
            ready: 0,
            heard: 0,
        });
    }

    /// A pod starts on an address somebody else may have had a moment ago; watches hear of it later.
    pub(crate) fn start(&mut self, kind: &'static str, workload: &'static str) {
        let now = self.world.now;
        let (due, later): (Vec<_>, Vec<_>) = self.freed.drain(..).partition(|(free, _, _)| *free <= now);
        self.freed = later;
        self.free
            .extend(due.into_iter().map(|(_, node, address)| (node, address)));
        let slot = self.random.below(self.free.len());
        let (node, address) = self.free.remove(slot);
        self.next += 1;
        let uid = format!("{workload}-x{}", self.next);
        let now = self.world.now;
        let pod: P = pod(&uid)
            .on(NODES[node])
            .at(&address)
            .of(kind, workload)
            .probed(8080)
            .started(Some(now - 1_000));
        let heard = now + self.random.between(0, 1_500);
        self.later(heard, move |world| world.pod(pod));
        let ready = now + self.random.between(500, 2_500);
        self.members.push(Member {
            uid,
            kind,
            workload,
            node,
            address,
            host: false,
            process: false,
            ready,
            heard,
        });
    }

    /// A pod stops: its connections end, its address is free at once, watches hear of it later.
    pub(crate) fn stop(&mut self, index: usize) {
        let member = self.members.remove(index);
        let now = self.world.now;
        for position in (0..self.live.len()).rev() {
            let live = &self.live[position];
            if live.client.uid == member.uid || live.server.uid == member.uid {
                self.close(position);
            }
        }
        // In order: never before they heard of the start.
        let heard = (now + self.random.between(0, 1_500)).max(member.heard + 1);
        let uid = member.uid.clone();
        self.later(heard, move |world| world.delete_pod(&uid));
        // Without proof from both ends, only what the watches say separates two owners of an address.
        let free = if self.faults.agents || self.faults.operator {
            now + 2_000
        } else {
            now
        };
        self.freed.push((free, member.node, member.address));
        self.update_slices();
    }

    pub(crate) fn later(&mut self, at: i64, event: impl FnOnce(&mut World) + 'static) {
        self.coming.push((at, Box::new(event)));
    }

    pub(crate) fn update_slices(&mut self) {
        let now = self.world.now;
        for (service, target, workloads) in [
            ("api", 8080, &["stable", "canary"][..]),
            ("redis", 6380, &["redis"][..]),
        ] {
            let uids: Vec<String> = self
                .members
                .iter()
                .filter(|member| workloads.contains(&member.workload) && member.ready <= now)
                .map(|member| member.uid.clone())
                .collect();
            let uids: Vec<&str> = uids.iter().map(String::as_str).collect();
            let slice = slice(service, target, &uids);
            // In order, so all with the same lag.
            self.later(now + 700, move |world| world.apply_slice(slice));
        }
    }

    fn member(&mut self, workload: &str) -> Option<Member> {
        let now = self.world.now;
        let ready: Vec<usize> = (0..self.members.len())
            .filter(|&index| self.members[index].workload == workload && self.members[index].ready <= now)
            .collect();
        (!ready.is_empty()).then(|| self.members[ready[self.random.below(ready.len())]].clone())
    }

    /// One connection of a random kind begins.
    pub(crate) fn connect(&mut self) {
        let kinds = [
            ("web", "api"),
            ("web", "redis"),
            ("web", "redis-direct"),
            ("logger", "redis"),
            ("logger", "api"),
            ("web", "gateway"),
            ("logger", "gateway"),
            ("stable", "kubernetes"),
            ("kubelet.service", "probe"),
            ("kubelet.service", "kubernetes"),
            ("redis", "redis"),
        ];
        let (from, to) = self.random.pick(&kinds);
        let (answering, dialled, port) = match to {
            "api" => (
                self.random.pick(&["stable", "canary"]),
                Some(("10.96.0.8", 80)),
                8080,
            ),
            "redis" => ("redis", Some(("10.96.0.9", 6379)), 6380),
            "redis-direct" => ("redis", None, 6380),
            "gateway" => ("gateway", None, 8443),
            "kubernetes" => ("kube-apiserver", Some(("10.96.0.1", 443)), 6443),
            _ => (self.random.pick(&["stable", "redis"]), None, 8080),
        };
        let (Some(client), Some(server)) = (self.member(from), self.member(answering)) else {
            return;
        };
        if to == "probe" && client.node != server.node {
            return;
        }
        let through_service = dialled.is_some();
        let (address, dialled_port) = dialled.map_or_else(
            || (server.address.clone(), port),
            |(address, port)| (address.to_owned(), port),
        );
        let cross = client.node != server.node;
        let hairpin = through_service && client.uid == server.uid;
        let seen_as = match (client.host, cross) {
            (true, false) if !server.host => gateway(client.node),
            (false, true) if self.masquerade && (through_service || self.random.below(2) == 0) => {
                node_address(client.node)
            }
            (false, false) if hairpin => gateway(client.node),
            _ => client.address.clone(),
        };
        self.next += 1;
        let no_edge = to == "probe" || (client.uid == server.uid && !through_service);
        let edge = (!no_edge).then(|| format!("{} -> {}:{port}", client.name(), server.name()));
        let halves = [
            (client.node, client.half(true).to(&address, dialled_port)),
            (server.node, server.half(false).from(&seen_as, port)),
        ];
        let live = Live {
            number: self.next,
            until: self.world.now + self.random.pick(&[0, 100, 1_000, 8_000, 40_000]),
            client,
            server,
            edge,
            halves,
            orphan: false,
        };
        self.open(&live);
        if let Some(edge) = &live.edge {
            self.truth.entry(edge.clone()).or_default().0 += 1;
        }
        self.live.push(live);
    }

    fn open(&mut self, live: &Live) {
        let now = self.world.now;
        for (node, wanted) in &live.halves {
            let agent = &mut self.agents[*node];
            if agent.away_until.is_some() {
                continue;
            }
            let half = agent.half(wanted);
            let lost = self.faults.blindness && self.random.below(40) == 0;
            agent.count(half, now, |counters| {
                counters.opened += 1;
                counters.active += u64::from(!lost);
            });
            if lost {
                agent.lost += 1;
            } else {
                agent.sockets.push(socket(half, live, false, now));
            }
        }
    }

    /// Bytes flow on a live connection.
    pub(crate) fn transfer(&mut self, position: usize) {
        let (sent, received) = (self.random.below(1_000) as u64, self.random.below(9_000) as u64);
        let now = self.world.now;
        let live = &self.live[position];
        if live.orphan {
            return;
        }
        if let Some(edge) = &live.edge {
            let truth = self.truth.entry(edge.clone()).or_default();
            truth.1 += sent;
            truth.2 += received;
            let zone = |member: &Member| ZONES[member.node].to_owned();
            let between = (edge.clone(), zone(&live.client), zone(&live.server));
            *self.zone_truth.entry(between).or_default() += sent + received;
        }
        for (side, (node, _)) in live.halves.iter().enumerate() {
            let (sent, received) = if side == 0 {
                (sent, received)
            } else {
                (received, sent)
            };
            let agent = &mut self.agents[*node];
            let is_client = side == 0;
            let Some(at) = find(agent, live.number, is_client) else {
                continue;
            };
            let socket = &mut agent.sockets[at];
            socket.record.sent += sent;
            socket.record.received += received;
            socket.record.seen = Some(now);
            socket.changed = true;
            let half = socket.half;
            agent.count(half, now, |counters| {
                counters.bytes_sent += sent;
                counters.bytes_received += received;
            });
        }
    }

    pub(crate) fn close(&mut self, position: usize) {
        let now = self.world.now;
        let live = self.live.remove(position);
        for (side, (node, _)) in live.halves.iter().enumerate() {
            let agent = &mut self.agents[*node];
            let Some(at) = find(agent, live.number, side == 0) else {
                continue;
            };
            let socket = &mut agent.sockets[at];
            socket.record.closed = true;
            socket.record.seen = Some(now);
            socket.changed = true;
            let half = socket.half;
            agent.count(half, now, |counters| counters.active -= 1);
        }
    }
}
