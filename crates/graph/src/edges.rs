//! All edges by key, with what folds them: dynamic ports, bare addresses, names that turned out to be others.

mod objects;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::Config;
use crate::edge::{Edge, EdgeId, Moment};
use crate::entity::{EdgeKey, Entity, Time, Transport};
use crate::input::Counters;
use crate::intern::{EntityRef, Interner};
use crate::slab::{Key, Slab};
use crate::view::{EdgeView, End, ServiceRef, Unnamed, Unresolved, ZoneBytes};
use crate::zones::{ZonePair, Zones};

/// First port of the range operating systems take client ports from: a server there may have got its port by chance.
const DYNAMIC: u16 = 32_768;

/// An edge, or where it went.
#[derive(Debug)]
pub(crate) enum Place {
    Here(Box<Edge>),
    /// Merged into another; kept while contributions still point here.
    Moved(Key<Place>, u32),
}

/// Names a slot; follow [`Edges::current`].
pub(crate) type EdgeRef = Key<Place>;

type Pair = (EntityRef, EntityRef, Transport);

/// All edges.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    places: Slab<Place>,
    by_id: HashMap<EdgeId, EdgeRef>,
    /// Dynamic server ports between two entities; none once they are folded.
    dynamic: HashMap<Pair, Option<HashSet<u16>>>,
    /// Bare addresses per client, with the number of edges.
    bare: HashMap<EntityRef, HashMap<EntityRef, u32>>,
    changed: HashSet<EdgeId>,
    unsure: HashSet<EdgeRef>,
    windowed: HashSet<EdgeRef>,
    /// Servers that objects say a client reached through a Service.
    through: HashMap<(EntityRef, ServiceRef), HashSet<EntityRef>>,
    settled: bool,
}

impl Edges {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn take_changed(&mut self) -> HashSet<EdgeKey> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|id| id.key())
            .collect()
    }

    pub(crate) fn view(
        &self,
        key: &EdgeKey,
        names: &Interner<Entity>,
        zones: &Zones,
        now: Time,
    ) -> Option<EdgeView> {
        let id = EdgeId {
            client: names.get(&key.client)?,
            server: names.get(&key.server)?,
            port: key.port,
            transport: key.transport,
        };
        self.get(*self.by_id.get(&id)?)
            .filter(|edge| edge.exists())
            .map(|edge| edge.view(self.settled, zones, now))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Edge> {
        self.by_id
            .values()
            .filter_map(|&place| self.get(place))
            .filter(|edge| edge.exists())
    }

    pub(crate) fn views(&self, zones: &Zones, now: Time) -> impl Iterator<Item = EdgeView> {
        self.all().map(move |edge| edge.view(self.settled, zones, now))
    }

    /// Client, server and bytes by zone of every edge that has some.
    pub(crate) fn zones(&self, zones: &Zones) -> impl Iterator<Item = (&Entity, &Entity, Vec<ZoneBytes>)> {
        self.all().filter(|edge| edge.zones.is_some()).map(move |edge| {
            let totals = edge.totals(self.settled);
            let bytes = edge.zones_shown(self.settled, &totals, zones);
            (&*edge.id.client, &*edge.id.server, bytes)
        })
    }

    pub(crate) fn exists(&self, place: EdgeRef) -> bool {
        self.get(place).is_some_and(Edge::exists)
    }

    /// Whether an object says that the client of `place` reached another server through `service`.
    pub(crate) fn has_rival(&self, place: EdgeRef, service: &ServiceRef) -> bool {
        let Some(edge) = self.get(place) else { return false };
        self.through
            .get(&(edge.id.client.clone(), service.clone()))
            .is_some_and(|servers| servers.iter().any(|server| *server != edge.id.server))
    }

    /// Where the edge is now.
    pub(crate) fn current(&self, mut place: EdgeRef) -> EdgeRef {
        while let Some(Place::Moved(next, _)) = self.places.get(place) {
            place = *next;
        }
        place
    }

    fn get(&self, place: EdgeRef) -> Option<&Edge> {
        match self.places.get(self.current(place)) {
            Some(Place::Here(edge)) => Some(edge),
            _ => None,
        }
    }

    fn get_mut(&mut self, place: EdgeRef) -> Option<&mut Edge> {
        let place = self.current(place);
        match self.places.get_mut(place) {
            Some(Place::Here(edge)) => Some(edge),
            _ => None,
        }
    }

    /// The server to name: a bare address, or External `other` once this client has too many.
    pub(crate) fn name_server(
        &self,
        client: &EntityRef,
        server: EntityRef,
        names: &mut Interner<Entity>,
        config: &Config,
    ) -> EntityRef {
        if server.kind != "Address" {
            return server;
        }
        match self.bare.get(client) {
            Some(known) if known.len() >= config.addresses_per_client && !known.contains_key(&server) => {
                names.intern(Entity {
                    kind: "External".to_owned(),
                    api_group: String::new(),
                    namespace: String::new(),
                    name: "other".to_owned(),
                })
            }
            _ => server,
        }
    }

    /// The edge with this id, made if need be; none when there are too many.
    pub(crate) fn ensure(
        &mut self,
        mut id: EdgeId,
        unresolved: Option<Unresolved>,
        config: &Config,
    ) -> Option<EdgeRef> {
        self.fold_port(&mut id, config);
        let place = match self.by_id.get(&id) {
            Some(&place) => place,
            None if self.by_id.len() >= config.edges => return None,
            None => self.insert(id),
        };
        if let Some(edge) = self.get_mut(place)
            && edge.unresolved < unresolved
        {
            edge.unresolved = unresolved;
        }
        Some(place)
    }

    fn insert(&mut self, id: EdgeId) -> EdgeRef {
        if id.server.kind == "Address" {
            *self
                .bare
                .entry(id.client.clone())
                .or_default()
                .entry(id.server.clone())
                .or_default() += 1;
        }
        let mut edge = Edge::new(id.clone());
        edge.folded = (id.server.kind == "External" && id.server.name == "other") || id.port == 0;
        if edge.folded && id.server.kind == "External" {
            edge.unresolved = Some(Unresolved {
                end: End::Server,
                reason: Unnamed::NoName,
            });
        }
        let place = self.places.insert(Place::Here(Box::new(edge)));
        self.by_id.insert(id, place);
        self.unsure.insert(place);
        place
    }

    /// Turns the port into 0 when these two have too many dynamic ones, and moves what was there.
    fn fold_port(&mut self, id: &mut EdgeId, config: &Config) {
        if id.port != 0 && id.port < DYNAMIC {
            return;
        }
        let pair = (id.client.clone(), id.server.clone(), id.transport);
        if id.port == 0 {
            self.dynamic.insert(pair, None);
            return;
        }
        let ports = self
            .dynamic
            .entry(pair.clone())
            .or_insert_with(|| Some(HashSet::new()));
        let Some(known) = ports else {
            id.port = 0;
            return;
        };
        known.insert(id.port);
        if known.len() <= config.dynamic_ports {
            return;
        }
        let folded: Vec<u16> = known.drain().collect();
        *ports = None;
        id.port = 0;
        for port in folded {
            self.merge(&EdgeId { port, ..id.clone() }, id);
        }
    }

    /// Moves everything of edge `from` to edge `into`.
    fn merge(&mut self, from: &EdgeId, into: &EdgeId) {
        let Some(place) = self.by_id.get(from).copied() else {
            return;
        };
        let target = match self.by_id.get(into) {
            Some(&target) => target,
            None => self.insert(into.clone()),
        };
        self.unlist(from);
        let Some(slot) = self.places.get_mut(place) else {
            return;
        };
        let Place::Here(edge) = std::mem::replace(slot, Place::Moved(target, 0)) else {
            return;
        };
        if edge.refs == 0 {
            self.places.remove(place);
        } else {
            *slot = Place::Moved(target, edge.refs);
        }
        self.changed.insert(from.clone());
        self.changed.insert(into.clone());
        let pointer = u32::from(edge.refs > 0);
        if let Some(mine) = self.get_mut(target) {
            mine.absorb(*edge);
            mine.refs += pointer;
        }
    }

    /// An entity turned out to be another one.
    pub(crate) fn rename(&mut self, old: &EntityRef, new: &EntityRef, config: &Config) {
        let affected: Vec<EdgeId> = self
            .by_id
            .keys()
            .filter(|id| id.client == *old || id.server == *old)
            .cloned()
            .collect();
        for from in affected {
            let renamed = |entity: &EntityRef| {
                if entity == old {
                    new.clone()
                } else {
                    entity.clone()
                }
            };
            let mut into = EdgeId {
                client: renamed(&from.client),
                server: renamed(&from.server),
                ..from.clone()
            };
            self.fold_port(&mut into, config);
            self.merge(&from, &into);
        }
    }

    /// Takes the id out of every index.
    fn unlist(&mut self, id: &EdgeId) {
        self.by_id.remove(id);
        if let Some(known) = self.bare.get_mut(&id.client)
            && let Some(edges) = known.get_mut(&id.server)
        {
            *edges -= 1;
            if *edges == 0 {
                known.remove(&id.server);
            }
            if known.is_empty() {
                self.bare.remove(&id.client);
            }
        }
        let pair = (id.client.clone(), id.server.clone(), id.transport);
        if let Some(Some(ports)) = self.dynamic.get_mut(&pair) {
            ports.remove(&id.port);
            if ports.is_empty() {
                self.dynamic.remove(&pair);
            }
        } else if id.port == 0 {
            self.dynamic.remove(&pair);
        }
    }

    pub(crate) fn hold(&mut self, place: EdgeRef) {
        match self.places.get_mut(place) {
            Some(Place::Here(edge)) => edge.refs += 1,
            Some(Place::Moved(_, refs)) => *refs += 1,
            None => {}
        }
    }

    pub(crate) fn release(&mut self, place: EdgeRef) {
        match self.places.get_mut(place) {
            Some(Place::Here(edge)) => {
                edge.refs = edge.refs.saturating_sub(1);
                self.unsure.insert(place);
            }
            Some(Place::Moved(target, refs)) => {
                *refs = refs.saturating_sub(1);
                if *refs == 0 {
                    let target = *target;
                    self.places.remove(place);
                    self.release(target);
                }
            }
            None => {}
        }
    }

    pub(crate) fn add(&mut self, place: EdgeRef, end: End, delta: &Counters, moment: Moment) {
        let (settled, place) = (self.settled, self.current(place));
        let Some(edge) = self.get_mut(place) else { return };
        edge.add(end, delta, moment, settled);
        let id = edge.id.clone();
        if edge.window.is_some() {
            self.windowed.insert(place);
        }
        self.changed.insert(id);
    }

    /// Adds to the figures of the last minutes only.
    pub(crate) fn observe(&mut self, place: EdgeRef, end: End, delta: &Counters, moment: Moment) {
        let place = self.current(place);
        let Some(edge) = self.get_mut(place) else { return };
        edge.observe(end, delta, moment);
        if edge.window.is_some() {
            let id = edge.id.clone();
            self.windowed.insert(place);
            self.changed.insert(id);
        }
    }

    pub(crate) fn subtract(&mut self, place: EdgeRef, end: End, amount: &Counters, zones: ZonePair) {
        let place = self.current(place);
        let Some(edge) = self.get_mut(place) else { return };
        edge.subtract(end, amount, zones);
        let id = edge.id.clone();
        self.changed.insert(id);
        self.unsure.insert(place);
    }

    /// Connections closed that one side had open.
    pub(crate) fn close(&mut self, place: EdgeRef, end: End, active: u64) {
        let open = Counters {
            active,
            ..Counters::default()
        };
        self.subtract(place, end, &open, ZonePair::NONE);
    }

    /// Bytes of one side turned out to be between other zones.
    pub(crate) fn rezone(&mut self, place: EdgeRef, end: End, from: ZonePair, to: ZonePair, bytes: u64) {
        if from == to || bytes == 0 {
            return;
        }
        if let Some(edge) = self.get_mut(place) {
            edge.rezone(end, from, to, bytes);
            let id = edge.id.clone();
            self.changed.insert(id);
        }
    }

    pub(crate) fn addressed(&mut self, place: EdgeRef, service: &Arc<ServiceRef>) {
        if let Some(edge) = self.get_mut(place)
            && edge.addressed(service)
        {
            let id = edge.id.clone();
            self.changed.insert(id);
        }
    }

    /// Since when `from` is known, for whoever takes its counts over.
    pub(crate) fn began(&self, place: EdgeRef, otherwise: Time) -> Time {
        self.get(place)
            .map_or(otherwise, |edge| edge.first_seen.min(otherwise))
    }

    /// Removes edges nobody points to that were never real, or were forgotten.
    pub(crate) fn collect(&mut self) {
        for place in std::mem::take(&mut self.unsure) {
            let Some(Place::Here(edge)) = self.places.get(place) else {
                continue;
            };
            let listed = self.by_id.get(&edge.id) == Some(&place);
            if edge.refs > 0 || (listed && edge.exists()) {
                continue;
            }
            let id = edge.id.clone();
            if listed {
                self.unlist(&id);
                self.changed.insert(id);
            }
            self.places.remove(place);
            self.windowed.remove(&place);
        }
    }

    /// Lets figures older than the window go.
    pub(crate) fn rotate(&mut self, now: Time) {
        for place in self.windowed.iter().copied().collect::<Vec<_>>() {
            let Some(edge) = self.get_mut(place) else {
                self.windowed.remove(&place);
                continue;
            };
            let Some(window) = &mut edge.window else { continue };
            let (rotated, empty) = (window.rotate(now), window.is_empty());
            if empty {
                edge.window = None;
            }
            let id = edge.id.clone();
            if empty {
                self.windowed.remove(&place);
            }
            if rotated {
                self.changed.insert(id);
            }
        }
    }
}
