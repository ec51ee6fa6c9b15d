//! The planner: what it is told. What it asks for is in `take`, what it learns from that in `outcome`.

mod outcome;
mod take;

use leyline_api::{EntityRef, ServiceDependency, State, names};
use leyline_graph::{
    EdgeView, Seed,
    entity::{EdgeKey, Time},
};
use std::collections::HashMap;

use crate::{
    build,
    config::Config,
    events::{Event, EventReason, Events},
    keys::{EdgeId, Keys},
    lanes::{Lanes, Place},
    read::{self, Whose},
    record::{Next, Record, Stored, after, passed},
    write::Waiting,
};

use take::InFlight;

/// For so long after an own write, what a watch says of the object may still be what it was before.
const OWN_WRITE_COUNTS: i64 = 30_000;
/// How long a namespace that ended is remembered: late reports of its pods come within this time.
const ENDED_NAMESPACE: i64 = 600_000;

/// Whose object it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Leyline's own; the graph goes on from here (give the seed to it before it settles).
    Ours(Box<Seed>),
    /// Labelled as Leyline's but not under the name that its spec has: a copy. It is left alone.
    Stray,
    /// Somebody else's. It is left alone.
    Foreign,
}

/// Decides what is written when. Every replica feeds one; only the leader takes writes from it.
#[derive(Debug)]
pub struct Planner {
    config: Config,
    keys: Keys,
    /// Boxed: the table is up to twice as large as what is in it.
    records: HashMap<EdgeId, Box<Record>>,
    lanes: Lanes,
    in_flight: HashMap<EdgeId, InFlight>,
    /// Number of the last ticket.
    tickets: u64,
    settled: bool,
    /// Since when Leyline is known to run here.
    since: Time,
    /// Namespaces that take no objects, and until when that is believed.
    ended: HashMap<String, Time>,
    forgotten: Vec<EdgeKey>,
    events: Events,
}

impl Planner {
    /// A planner that knows nothing yet. It hands out no write before [`Planner::settle`].
    #[must_use]
    pub fn new(config: Config, now: Time) -> Self {
        Self {
            keys: Keys::default(),
            records: HashMap::new(),
            lanes: Lanes::new(&config, now),
            in_flight: HashMap::new(),
            tickets: 0,
            settled: false,
            since: now,
            ended: HashMap::new(),
            forgotten: Vec::new(),
            events: Events::new(&config, now),
            config,
        }
    }

    /// An object that was there at the start. Objects without the label `leyline.dev/generated: "true"` are not touched.
    pub fn adopt(&mut self, object: &ServiceDependency, now: Time) -> Adopted {
        match read::whose(object, &self.config) {
            Whose::Stray => return Adopted::Stray,
            Whose::Foreign => {
                self.foreign(object, now);
                return Adopted::Foreign;
            }
            Whose::Ours => {}
        }
        let seed = read::seed(object, now);
        let edge = self.keep(&seed.key, seed.first_seen, seed.last_seen);
        self.keys.client_seen(edge, seed.first_seen);
        self.since = self.since.min(seed.first_seen);
        let stored = read::stored(object, now);
        if let Some(record) = self.records.get_mut(&edge) {
            record.first_seen = record.first_seen.min(seed.first_seen);
            record.last_seen = record.last_seen.max(seed.last_seen);
            let state = object.status.as_ref().and_then(|status| status.state);
            record.was_failing = state == Some(State::Failing);
            // An edge that worked is given the time to show that it still does.
            let worked = object
                .status
                .as_ref()
                .is_some_and(|status| status.state == Some(State::Active));
            if worked && seed.totals.opened > 0 && !record.told {
                record.last_success = record.last_success.max(Some(now));
            }
            record.unresolved = seed.unresolved;
            record.incomplete = seed.incomplete;
            record.facts = crate::record::facts(seed.service.as_ref(), seed.evidence);
            // Totals that cannot be read begin anew.
            record.counted_since = now;
            record.read(totals(object), read::since(object), stored);
        }
        self.place(edge, now);
        Adopted::Ours(Box::new(seed))
    }

    /// A watch shows an object: an own write come back, another replica's, or somebody else's change.
    pub fn seen(&mut self, object: &ServiceDependency, now: Time) -> Adopted {
        let whose = read::whose(object, &self.config);
        let key = read::key(&object.spec);
        let known = self
            .keys
            .find(&key)
            .filter(|edge| self.records.contains_key(edge));
        let Some(edge) = known.filter(|_| whose == Whose::Ours) else {
            return self.adopt(object, now);
        };
        let stored = read::stored(object, now);
        if let Some(record) = self.records.get_mut(&edge) {
            let mine = match record.stored {
                Stored::Whole(written) => written.own && passed(written.at, now) < OWN_WRITE_COUNTS,
                Stored::Absent | Stored::Foreign | Stored::Bare(_) => false,
            };
            let same_bare = matches!((record.stored, stored), (Stored::Bare(_), Stored::Bare(_)));
            if record.in_flight.is_none() && !same_bare && (!mine || matches!(stored, Stored::Bare(_))) {
                record.read(totals(object), read::since(object), stored);
            }
        }
        self.place(edge, now);
        Adopted::Ours(Box::new(read::seed(object, now)))
    }

    /// A watch shows that an object is gone. One that was deleted by hand comes back, unless it was idle.
    pub fn gone(&mut self, object: &ServiceDependency, now: Time) {
        let right_name = object.metadata.name.as_deref() == Some(&names::service_dependency(&object.spec));
        let Some(edge) = self.keys.find(&read::key(&object.spec)).filter(|_| right_name) else {
            return;
        };
        let Some(record) = self.records.get_mut(&edge) else {
            return;
        };
        if record.in_flight.is_some() {
            record.gone_meanwhile = true;
            return;
        }
        record.stored = Stored::Absent;
        if record.unknown || record.state(now, &self.config) == State::Idle {
            self.forget(edge);
        } else {
            self.place(edge, now);
        }
    }

    /// The graph says that an edge appeared or changed.
    pub fn observe(&mut self, view: &EdgeView, now: Time) {
        if self.is_ended(self.namespace_of(&view.key), now) {
            self.forgotten.push(view.key.clone());
            return;
        }
        let edge = self.keep(&view.key, view.first_seen, view.last_seen);
        self.keys.client_seen(edge, view.first_seen);
        if let Some(record) = self.records.get_mut(&edge) {
            record.observe(view, now);
        }
        self.place(edge, now);
    }

    /// The graph says that an edge is none: proof moved everything it had to another one.
    pub fn vanish(&mut self, key: &EdgeKey, now: Time) {
        let Some(edge) = self.keys.find(key) else { return };
        if let Some(record) = self.records.get_mut(&edge) {
            record.vanished = true;
            self.place(edge, now);
        }
    }

    /// A namespace is terminating or gone: its edges end, without writes.
    pub fn namespace_ended(&mut self, namespace: &str, now: Time) {
        self.end_namespace(namespace, after(now, ENDED_NAMESPACE), now);
    }

    /// A namespace is there.
    pub fn namespace_present(&mut self, namespace: &str) {
        self.ended.remove(namespace);
    }

    /// Every node has reported, or will not: from now on writes are handed out.
    pub fn settle(&mut self, now: Time) {
        self.settled = true;
        self.tick(now);
    }

    /// Time passes: edges go idle, totals go quiet, objects expire.
    pub fn tick(&mut self, now: Time) {
        while let Some(edge) = self.lanes.due(now) {
            self.place(edge, now);
        }
        self.ended.retain(|_, until| *until > now);
    }

    /// Keys the graph should forget: their objects were deleted after the retention time, or their namespace ended.
    pub fn take_forgotten(&mut self) -> Vec<EdgeKey> {
        std::mem::take(&mut self.forgotten)
    }

    /// The next Event to create, if its time has come.
    pub fn take_event(&mut self, now: Time) -> Option<Event> {
        self.events.take(now)
    }

    /// Events that were dropped because too many clients had some.
    #[must_use]
    pub const fn events_dropped(&self) -> u64 {
        self.events.dropped()
    }

    /// Writes that wait, by lane.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.lanes.waiting(self.in_flight.len())
    }

    /// Edges known, by state.
    #[must_use]
    pub fn states(&self, now: Time) -> [(State, usize); 3] {
        let mut counts = [(State::Active, 0), (State::Failing, 0), (State::Idle, 0)];
        for record in self.records.values().filter(|record| !record.vanished) {
            let state = record.state(now, &self.config);
            for (counted, count) in &mut counts {
                *count += usize::from(*counted == state);
            }
        }
        counts
    }

    /// Somebody else's object under a name that would be ours: it stays theirs.
    fn foreign(&mut self, object: &ServiceDependency, now: Time) {
        let Some(edge) = self.keys.find(&read::key(&object.spec)) else {
            return;
        };
        if object.metadata.name.as_deref() != Some(&names::service_dependency(&object.spec)) {
            return;
        }
        if let Some(record) = self.records.get_mut(&edge) {
            record.stored = Stored::Foreign;
            self.place(edge, now);
        }
    }

    /// The id of an edge, with a record.
    fn keep(&mut self, key: &EdgeKey, first_seen: Time, last_seen: Time) -> EdgeId {
        if let Some(edge) = self.keys.find(key).filter(|edge| self.records.contains_key(edge)) {
            return edge;
        }
        let edge = self.keys.keep(key);
        self.records
            .insert(edge, Box::new(Record::new(first_seen, last_seen)));
        edge
    }

    /// Moves an edge to where it has to wait now.
    fn place(&mut self, edge: EdgeId, now: Time) {
        let Some(record) = self.records.get_mut(&edge) else {
            return;
        };
        let place = match record.next(now, &self.config) {
            Next::Drop => {
                if record.expired(now, &self.config) {
                    self.forget(edge);
                } else {
                    self.remove(edge);
                }
                return;
            }
            Next::Wait(Place::Timer(Time(i64::MAX))) => Place::Nowhere,
            Next::Wait(place) => place,
        };
        // Who already waits in that lane keeps the turn.
        if let (Place::Lane(old, _), Place::Lane(new, _)) = (record.place, place)
            && old == new
        {
            return;
        }
        let before = std::mem::replace(&mut record.place, place);
        self.lanes.leave(edge, before);
        self.lanes.enter(edge, place);
    }

    /// The edge is no more.
    fn remove(&mut self, edge: EdgeId) {
        if let Some(record) = self.records.remove(&edge) {
            self.lanes.leave(edge, record.place);
            self.in_flight.remove(&edge);
            self.keys.release(edge);
        }
    }

    /// The edge is no more, and the graph should not remember it either.
    fn forget(&mut self, edge: EdgeId) {
        if let Some(key) = self.keys.key(edge) {
            self.forgotten.push(key);
        }
        self.remove(edge);
    }

    fn end_namespace(&mut self, namespace: &str, until: Time, now: Time) {
        if !self.is_ended(namespace, now) {
            let edges: Vec<EdgeId> = self
                .records
                .keys()
                .filter(|edge| {
                    self.keys
                        .entity(edge.client)
                        .is_some_and(|c| self.home(&c.namespace) == namespace)
                })
                .copied()
                .collect();
            edges.into_iter().for_each(|edge| self.forget(edge));
        }
        self.ended.insert(namespace.to_owned(), until);
    }

    fn is_ended(&self, namespace: &str, now: Time) -> bool {
        self.ended.get(namespace).is_some_and(|until| *until > now)
    }

    /// Namespace of the objects of a client in this namespace.
    fn home<'a>(&'a self, namespace: &'a str) -> &'a str {
        if namespace.is_empty() {
            &self.config.system_namespace
        } else {
            namespace
        }
    }

    fn namespace_of<'a>(&'a self, key: &'a EdgeKey) -> &'a str {
        self.home(&key.client.namespace)
    }

    /// Something people should hear of, unless client or Leyline are too young for news.
    fn tell(&mut self, reason: EventReason, edge: EdgeId, happened: Time, now: Time) {
        let silence = self.config.event_silence;
        let young = |since: Time| passed(since, happened) < silence;
        if passed(self.since, now) < silence || self.keys.client_since(edge).is_none_or(young) {
            return;
        }
        let Some(key) = self.keys.key(edge) else { return };
        let spec = build::spec(&key);
        let name = names::service_dependency(&spec);
        let namespace = names::namespace(&spec, &self.config.system_namespace).to_owned();
        self.events.add(
            reason,
            spec.client.clone(),
            &words(&spec.server, spec.port),
            &namespace,
            &name,
        );
    }
}

fn words(server: &EntityRef, port: u16) -> String {
    let kind = &server.kind;
    match &server.namespace {
        Some(namespace) => format!("{kind} {namespace}/{}:{port}", server.name),
        None => format!("{kind} {}:{port}", server.name),
    }
}

fn totals(object: &ServiceDependency) -> crate::totals::Totals {
    object
        .status
        .as_ref()
        .map(crate::totals::Totals::read)
        .unwrap_or_default()
}
