//! A planner, the edges it plans for, an API server that is a map, and a clock moved by hand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test says so")]
#![allow(dead_code, reason = "each test target uses its part")]

use leyline_api::{ServiceDependency, State};
use leyline_graph::{
    EdgeView, Evidence, Figures, Incomplete, ZoneBytes,
    entity::{EdgeKey, Entity, Time, Transport},
    input::Counters,
};
use leyline_plan::{Action, Adopted, Config, Event, Lane, Outcome, Planner, Write};
use std::collections::BTreeMap;

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Any time that is not the beginning of time.
pub(crate) const START: Time = Time(1_700_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Apply,
    Status,
    Delete,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Time,
    pub(crate) lane: Lane,
    pub(crate) what: What,
    pub(crate) name: String,
}

pub(crate) struct World {
    pub(crate) planner: Planner,
    pub(crate) edges: BTreeMap<EdgeKey, EdgeView>,
    pub(crate) objects: BTreeMap<(String, String), ServiceDependency>,
    pub(crate) now: Time,
    pub(crate) log: Vec<Entry>,
    pub(crate) events: Vec<(Time, Event)>,
    pub(crate) forgotten: Vec<EdgeKey>,
    /// How the API server answers; by default it does what it is told.
    pub(crate) answer: Option<Outcome>,
    /// The status written last.
    pub(crate) last_status: Option<leyline_api::ServiceDependencyStatus>,
}

impl World {
    /// A settled planner without edges.
    pub(crate) fn new() -> Self {
        Self::at(START)
    }

    pub(crate) fn at(now: Time) -> Self {
        let mut planner = Planner::new(Config::default(), now);
        planner.settle(now);
        Self {
            planner,
            edges: BTreeMap::new(),
            objects: BTreeMap::new(),
            now,
            log: Vec::new(),
            events: Vec::new(),
            forgotten: Vec::new(),
            answer: None,
            last_status: None,
        }
    }

    /// The operator dies and comes back; the API server and the agents do not.
    pub(crate) fn restart(&mut self) {
        self.planner = Planner::new(Config::default(), self.now);
        for object in self.objects.values() {
            self.planner.adopt(object, self.now);
        }
        for view in self.edges.values() {
            self.planner.observe(view, self.now);
        }
        self.planner.settle(self.now);
        self.log.clear();
    }

    /// The same, and the graph takes what objects say for true, as it does in the operator.
    pub(crate) fn restart_seeded(&mut self) {
        let objects: Vec<ServiceDependency> = self.objects.values().cloned().collect();
        for object in &objects {
            let Adopted::Ours(seed) = self.planner.adopt(object, self.now) else {
                panic!("{object:?}")
            };
            let seeded = self
                .edges
                .entry(seed.key.clone())
                .or_insert_with(|| view(&seed.key, seed.first_seen));
            seeded.evidence = seed.evidence;
            seeded.incomplete = seed.incomplete;
            seeded.last_seen = seeded.last_seen.max(seed.last_seen);
            seeded.totals.opened = seeded.totals.opened.max(seed.totals.opened);
            seeded.totals.bytes_sent = seeded.totals.bytes_sent.max(seed.totals.bytes_sent);
            seeded.zones = seeded.zones.clone().max(seed.zones);
        }
        self.restart();
    }

    /// The graph says something new about an edge.
    pub(crate) fn edge(&mut self, key: &EdgeKey, change: impl FnOnce(&mut EdgeView)) {
        let view = self
            .edges
            .entry(key.clone())
            .or_insert_with(|| view(key, self.now));
        view.last_seen = self.now;
        change(view);
        self.planner.observe(view, self.now);
    }

    /// More connections that are already closed again.
    pub(crate) fn connect(&mut self, key: &EdgeKey, connections: u64) {
        let now = self.now;
        self.edge(key, |view| {
            view.totals.opened += connections;
            view.totals.bytes_sent += connections * 71;
            // One of 71 bytes is of an unknown zone.
            let before = view.zones.first().map_or(0, |zone| zone.bytes);
            view.zones = vec![zone("a", before + connections * 70)];
            view.last_success = Some(now);
        });
    }

    /// More attempts that are refused.
    pub(crate) fn refuse(&mut self, key: &EdgeKey) {
        let now = self.now;
        self.edge(key, |view| {
            view.totals.refused += 1;
            view.last_failure = Some(now);
        });
    }

    pub(crate) fn vanish(&mut self, key: &EdgeKey) {
        self.edges.remove(key);
        self.planner.vanish(key, self.now);
    }

    /// Time passes in steps of 100 ms (or longer ones for long times), with the writes that belong to it.
    pub(crate) fn run(&mut self, milliseconds: i64) {
        let end = self.now.0 + milliseconds;
        let step = if milliseconds > HOUR { MINUTE } else { 100 };
        loop {
            self.turn();
            if self.now.0 >= end {
                return;
            }
            self.now = Time((self.now.0 + step).min(end));
        }
    }

    pub(crate) fn turn(&mut self) {
        let edges = &self.edges;
        let writes = self.planner.take(10_000, self.now, |key| edges.get(key).cloned());
        for write in writes {
            self.perform(write);
        }
        while let Some(event) = self.planner.take_event(self.now) {
            self.events.push((self.now, event));
        }
        for key in self.planner.take_forgotten() {
            self.edges.remove(&key);
            self.forgotten.push(key);
        }
    }

    fn perform(&mut self, write: Write) {
        let Write {
            ticket,
            lane,
            namespace,
            name,
            action,
        } = write;
        let place = (namespace, name.clone());
        let what = match &action {
            Action::Apply(_) => What::Apply,
            Action::ApplyStatus(_) => What::Status,
            Action::Delete => What::Delete,
        };
        if let Action::Apply(object) | Action::ApplyStatus(object) = &action {
            self.last_status = object.status.clone();
        }
        self.log.push(Entry {
            at: self.now,
            lane,
            what,
            name,
        });
        let outcome = match (self.answer, action) {
            (Some(answer), _) => answer,
            (None, Action::Apply(object)) => {
                self.check(&place, &object);
                self.objects.insert(place, *object);
                Outcome::Done
            }
            (None, Action::ApplyStatus(object)) if self.objects.contains_key(&place) => {
                self.check(&place, &object);
                self.objects.get_mut(&place).unwrap().status = object.status;
                Outcome::Done
            }
            (None, Action::ApplyStatus(_)) => Outcome::NotFound,
            (None, Action::Delete) => self
                .objects
                .remove(&place)
                .map_or(Outcome::NotFound, |_| Outcome::Done),
        };
        self.planner.done(ticket, outcome, self.now);
    }

    /// What holds for every write.
    fn check(&self, place: &(String, String), object: &ServiceDependency) {
        assert_eq!(object.metadata.namespace.as_ref(), Some(&place.0));
        assert_eq!(object.metadata.name.as_ref(), Some(&place.1));
        let Some(before) = self.objects.get(place).and_then(|o| o.status.as_ref()) else {
            return;
        };
        let after = object.status.as_ref().unwrap();
        assert_eq!(before.first_seen, after.first_seen, "firstSeen changed");
        assert_eq!(before.counted_since, after.counted_since, "countedSince changed");
        let (a, b) = (before.connections.unwrap(), after.connections.unwrap());
        assert!(
            a.opened <= b.opened && a.failed <= b.failed && a.aborted <= b.aborted,
            "{a:?} to {b:?}"
        );
        let (a, b) = (before.bytes.unwrap(), after.bytes.unwrap());
        assert!(a.sent <= b.sent && a.received <= b.received, "{a:?} to {b:?}");
        let placed: i64 = after.zones.iter().map(|zone| zone.bytes).sum();
        assert!(placed <= b.sent + b.received, "{:?} of {b:?}", after.zones);
    }

    /// The object of the only edge.
    pub(crate) fn only(&self) -> &ServiceDependency {
        assert_eq!(self.objects.len(), 1, "{:?}", self.objects.keys());
        self.objects.values().next().unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.only().status.as_ref().unwrap().state.unwrap()
    }

    pub(crate) fn opened(&self) -> i64 {
        self.only().status.as_ref().unwrap().connections.unwrap().opened
    }

    /// What was written since the last call.
    pub(crate) fn writes(&mut self) -> Vec<(Lane, What)> {
        self.log.drain(..).map(|entry| (entry.lane, entry.what)).collect()
    }
}

pub(crate) fn workload(namespace: &str, name: &str) -> Entity {
    Entity {
        kind: "Deployment".into(),
        api_group: "apps".into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

pub(crate) fn key(client: &str, server: &str) -> EdgeKey {
    EdgeKey {
        client: workload("shop", client),
        server: workload("data", server),
        port: 6379,
        transport: Transport::Tcp,
    }
}

/// Bytes from this zone to zone b.
pub(crate) fn zone(client: &str, bytes: u64) -> ZoneBytes {
    ZoneBytes {
        client: client.into(),
        server: "b".into(),
        bytes,
    }
}

pub(crate) fn view(key: &EdgeKey, now: Time) -> EdgeView {
    EdgeView {
        key: key.clone(),
        service: None,
        evidence: Evidence {
            client_socket: true,
            server_socket: false,
        },
        first_seen: now,
        last_seen: now,
        last_success: None,
        last_failure: None,
        totals: Counters::default(),
        zones: Vec::new(),
        window: Figures {
            length: 5 * MINUTE,
            connect_us: Some(1_234),
            rtt_us: Some(312),
            retransmits: 2,
        },
        unresolved: None,
        incomplete: Incomplete::default(),
    }
}
