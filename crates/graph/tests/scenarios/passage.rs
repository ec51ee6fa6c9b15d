//! Time passes in a simulated cluster: agents report, and whatever may die does.

use std::collections::BTreeMap;

use leyline_graph::EdgeView;

use crate::cluster::{Coming, NODES, STEP, Simulation, Truth, ZoneTruth};
use crate::model::{Agent, seed, socket};

/// What the graph says in the end, and what it should say.
pub(crate) struct Outcome {
    pub(crate) edges: BTreeMap<String, EdgeView>,
    pub(crate) truth: Truth,
    pub(crate) zone_truth: ZoneTruth,
    pub(crate) stats: String,
}

impl Simulation {
    /// An agent sends what changed.
    fn send(&mut self, node: usize) {
        let agent = &mut self.agents[node];
        if agent.away_until.is_some() || agent.cut_until.is_some() || self.operator_down.is_some() {
            return;
        }
        self.world.lost.insert(NODES[node].to_owned(), agent.lost);
        let mut halves = Vec::new();
        for index in 0..agent.halves.len() {
            if !std::mem::take(&mut agent.dirty[index]) {
                continue;
            }
            let mut half = agent.halves[index].clone();
            half.connections = agent
                .sockets
                .iter_mut()
                .filter(|socket| socket.half == index && socket.changed)
                .map(|socket| {
                    socket.changed = false;
                    socket.record.clone()
                })
                .collect();
            halves.push(half);
        }
        self.world.report(NODES[node], halves);
    }

    /// An agent dies, and comes back a few seconds later as a new epoch that adopts what is open.
    fn restart(&mut self, node: usize) {
        if self.agents[node].away_until.is_some() {
            return;
        }
        let mut back = self.world.now + self.random.between(500, 6_000);
        if self.faults.blindness && self.random.below(4) == 0 {
            // Started over and over again.
            back += 70_000;
        }
        let epoch = self.agents[node].epoch + 1_000_000;
        self.agents[node] = Agent {
            epoch,
            away_until: Some(back),
            ..Agent::default()
        };
        self.world.graph.agent_gone(NODES[node], self.world.time());
    }

    /// The operator dies with everything it knew but the objects, and comes back a few seconds later.
    fn restart_operator(&mut self) {
        let seeds = self.world.edges().into_values().map(seed).collect();
        let back = self.world.now + self.random.between(500, 4_000);
        self.operator_down = Some((back, seeds));
    }

    fn operator_comes_back(&mut self) {
        let Some((back, _)) = &self.operator_down else {
            if !self.settled && self.world.graph.unreported_nodes().is_empty() {
                self.world.graph.settle(self.world.time());
                self.settled = true;
            }
            return;
        };
        if *back > self.world.now {
            return;
        }
        let (_, seeds) = self.operator_down.take().unwrap();
        self.world.restart_operator(seeds);
        self.settled = false;
        for (node, name) in NODES.iter().enumerate() {
            if self.agents[node].away_until.is_none() {
                self.send_all(node, name);
            }
        }
    }

    /// A new stream begins with everything the agent has.
    fn send_all(&mut self, node: usize, name: &str) {
        let agent = &mut self.agents[node];
        agent.cut_until = None;
        agent.dirty.fill(true);
        agent.sockets.iter_mut().for_each(|socket| socket.changed = true);
        let epoch = agent.epoch;
        self.world.hello(name, epoch);
        self.send(node);
        self.world.complete(name);
    }

    /// A stream breaks; the agent goes on.
    fn cut(&mut self, node: usize) {
        if self.agents[node].away_until.is_none() && self.operator_down.is_none() {
            let back = self.world.now + self.random.between(500, 60_000);
            self.agents[node].cut_until = Some(back);
            self.world.graph.agent_gone(NODES[node], self.world.time());
        }
    }

    fn come_back(&mut self, node: usize) {
        let now = self.world.now;
        if self.operator_down.is_some() {
            return;
        }
        self.agents[node].away_until = None;
        self.world.hello(NODES[node], self.agents[node].epoch);
        let blindness = self.faults.blindness;
        for live in &mut self.live {
            for (side, (place, wanted)) in live.halves.iter().enumerate() {
                if *place == node && blindness && self.random.below(4) == 0 {
                    live.orphan |= side == 0;
                } else if *place == node {
                    let agent = &mut self.agents[node];
                    let half = agent.half(wanted);
                    agent.count(half, now, |counters| {
                        counters.adopted += 1;
                        counters.active += 1;
                    });
                    agent.sockets.push(socket(half, live, true, now));
                }
            }
        }
        self.send(node);
        self.world.complete(NODES[node]);
    }

    fn step(&mut self, active: bool) {
        let now = self.world.now;
        if active {
            for _ in 0..self.random.below(4) {
                self.connect();
            }
            if self.random.below(20) == 0 {
                let pods: Vec<usize> = (0..self.members.len())
                    .filter(|&index| !self.members[index].host)
                    .collect();
                let victim = self.random.pick(&pods);
                let (kind, workload) = (self.members[victim].kind, self.members[victim].workload);
                self.stop(victim);
                self.start(kind, workload);
            }
            if self.faults.agents && self.random.below(60) == 0 {
                let node = self.random.below(3);
                self.restart(node);
            }
            if self.faults.blindness && self.random.below(150) == 0 {
                let node = self.random.below(3);
                self.cut(node);
            }
        }
        if self
            .members
            .iter()
            .any(|member| member.ready > now - STEP && member.ready <= now)
        {
            self.update_slices();
        }
        for position in (0..self.live.len()).rev() {
            if self.random.below(3) == 0 {
                self.transfer(position);
            }
            if self.live[position].until <= now {
                self.close(position);
            }
        }
        if active && self.faults.operator && self.operator_down.is_none() && self.random.below(120) == 0 {
            self.restart_operator();
        }
        self.operator_comes_back();
        for (node, name) in NODES.iter().enumerate() {
            // What was sent is kept for streams that begin a little later, and for no others.
            self.agents[node].sockets.retain(|socket| {
                !socket.record.closed || socket.changed || socket.record.seen.unwrap() > now - 30_000
            });
            if self.agents[node].away_until.is_some_and(|back| back <= now) {
                self.come_back(node);
            }
            if self.agents[node].cut_until.is_some_and(|back| back <= now) && self.operator_down.is_none() {
                self.send_all(node, name);
            }
            let offset = i64::try_from(node).unwrap() * 300;
            if now % 1_000 == offset {
                self.send(node);
            }
        }
        let (due, coming) = std::mem::take(&mut self.coming)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.coming = coming;
        let mut due: Vec<Coming> = due;
        due.sort_by_key(|(at, _)| *at);
        for (_, event) in due {
            event(&mut self.world);
        }
        self.world.pass(STEP);
    }

    /// Whatever is known of zones at any time, it is never more than the edge has.
    fn check_zones(&self) {
        for (name, edge) in self.world.edges() {
            let placed: u64 = edge.zones.iter().map(|zone| zone.bytes).sum();
            let bytes = edge.totals.bytes_sent + edge.totals.bytes_received;
            assert!(placed <= bytes, "{name}: {:?} of {bytes} bytes", edge.zones);
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        for _ in 0..900 {
            self.step(true);
            if self.world.now % 2_000 == 0 {
                self.check_zones();
            }
        }
        for _ in 0..900 {
            self.step(false);
        }
        let stats = format!("{:?}", self.world.graph.stats());
        self.check_zones();
        Outcome {
            edges: self.world.edges(),
            truth: self.truth,
            zone_truth: self.zone_truth,
            stats,
        }
    }
}
