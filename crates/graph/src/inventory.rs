//! What the cluster has: pods, the objects above them, Services with their endpoints, nodes; each with its recent past.
//!
//! Every change leaves in [`Inventory::take_touched`] which pods, addresses and entities it may have given a better name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address_book::{AddressBook, Holder, ServiceKey};
use crate::config::Config;
use crate::entity::{Entity, Time, Transport};
use crate::input::{Controller, Pod, Service, ServicePort};
use crate::intern::{EntityRef, Interner};
use crate::services::Endpoints;
use crate::workload::{Named, workload};
use crate::zones::{Zone, Zones};

/// A pod's workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The object above is not known yet; the name to use if it does not come in time.
    Waiting(EntityRef),
    /// It did not come in time.
    Provisional(EntityRef),
    /// Known.
    Final(EntityRef),
}

/// A pod, perhaps gone.
#[derive(Debug)]
pub(crate) struct PodEntry {
    pub(crate) pod: Pod,
    pub(crate) naming: Naming,
    gone: Option<Time>,
}

#[derive(Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) service: Service,
    gone: Option<Time>,
}

#[derive(Debug)]
struct NodeEntry {
    /// From the Node object.
    object: Vec<IpAddr>,
    /// From the agent.
    agent: Vec<IpAddr>,
    /// Since when the Node object is known; none while only the agent is.
    since: Option<Time>,
    zone: Zone,
}

/// What a change may have given a better name.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Pod uids and config hashes.
    pub(crate) subjects: HashSet<String>,
    /// Remote addresses.
    pub(crate) addresses: HashSet<IpAddr>,
    /// Provisional names and what they turned out to be.
    pub(crate) renamed: Vec<(EntityRef, EntityRef)>,
}

/// Everything the watches said.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) names: Interner<Entity>,
    pub(crate) book: AddressBook,
    pub(crate) endpoints: Endpoints,
    pub(crate) zones: Zones,
    pods: HashMap<Arc<str>, PodEntry>,
    by_hash: HashMap<String, Arc<str>>,
    controllers: HashMap<String, (Controller, Option<Time>)>,
    children: HashMap<String, HashSet<Arc<str>>>,
    services: HashMap<Arc<ServiceKey>, ServiceEntry>,
    node_ports: HashMap<(u16, Transport), Arc<ServiceKey>>,
    nodes: HashMap<Arc<str>, NodeEntry>,
    unnamed: VecDeque<(Time, Arc<str>)>,
    graves: VecDeque<(Time, Grave)>,
    touched: Touched,
}

/// What to bury when its tombstone time is over.
#[derive(Debug)]
enum Grave {
    Pod(Arc<str>),
    Controller(String),
    Service(Arc<ServiceKey>),
}

impl Inventory {
    pub(crate) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// The pod with this uid or config hash.
    pub(crate) fn pod(&self, key: &str) -> Option<(&Arc<str>, &PodEntry)> {
        self.pods
            .get_key_value(key)
            .or_else(|| self.by_hash.get(key).and_then(|uid| self.pods.get_key_value(uid)))
    }

    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(key)
    }

    pub(crate) fn service_of_node_port(&self, port: u16, transport: Transport) -> Option<&Arc<ServiceKey>> {
        self.node_ports.get(&(port, transport))
    }

    /// Since when the Node object is known.
    pub(crate) fn node_since(&self, name: &str) -> Option<Time> {
        self.nodes.get(name).and_then(|node| node.since)
    }

    /// The zone of a node.
    pub(crate) fn zone_of(&self, node: &str) -> Zone {
        self.nodes.get(node).map_or(Zone::UNKNOWN, |node| node.zone)
    }

    pub(crate) fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.since.is_some())
            .map(|(name, _)| name)
    }

    pub(crate) fn entity(&mut self, kind: &str, name: String) -> EntityRef {
        self.names.intern(Entity {
            kind: kind.to_owned(),
            api_group: String::new(),
            namespace: String::new(),
            name,
        })
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.pods.len(), self.services.len())
    }

    pub(crate) fn apply_pod(&mut self, pod: Pod, patience: i64, now: Time) {
        let uid: Arc<str> = self
            .pods
            .get_key_value(pod.uid.as_str())
            .map_or_else(|| Arc::from(pod.uid.as_str()), |(uid, _)| Arc::clone(uid));
        let holder = Holder::Pod(Arc::clone(&uid));
        let claimed = |pod: &Pod| !pod.finished && !pod.host_network;
        if let Some(old) = self.pods.get(&uid) {
            for &address in &old.pod.addresses {
                if claimed(&old.pod) && !(claimed(&pod) && pod.addresses.contains(&address)) {
                    self.book.release(address, &holder, now);
                }
            }
        }
        if claimed(&pod) {
            for &address in &pod.addresses {
                self.book.claim(address, holder.clone(), now, pod.started);
            }
        }
        if let Some(hash) = &pod.config_hash {
            self.by_hash.insert(hash.clone(), Arc::clone(&uid));
        }
        if let Some(owner) = &pod.controller {
            self.children
                .entry(owner.uid.clone())
                .or_default()
                .insert(Arc::clone(&uid));
        }
        let unchanged_owner = self
            .pods
            .get(&uid)
            .filter(|old| old.pod.controller == pod.controller);
        let naming = if let Some(old) = unchanged_owner {
            old.naming.clone()
        } else {
            let naming = self.name(&pod);
            if let Naming::Waiting(_) = naming {
                self.unnamed.push_back((now.plus(patience), Arc::clone(&uid)));
            }
            naming
        };
        self.pods.insert(
            Arc::clone(&uid),
            PodEntry {
                pod,
                naming,
                gone: None,
            },
        );
        self.touch_pod(&uid);
    }

    fn name(&mut self, pod: &Pod) -> Naming {
        let controller = pod
            .controller
            .as_ref()
            .and_then(|owner| self.controllers.get(&owner.uid));
        match workload(pod, controller.map(|(known, _)| known)) {
            Named::Final(entity) => Naming::Final(self.names.intern(entity)),
            Named::Provisional(entity) => Naming::Waiting(self.names.intern(entity)),
        }
    }

    fn touch_pod(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        self.touched.subjects.insert(entry.pod.uid.clone());
        self.touched.subjects.extend(entry.pod.config_hash.clone());
        self.touched.addresses.extend(&entry.pod.addresses);
        for service in self.endpoints.services_of(uid) {
            self.touch_service(&service);
        }
    }

    pub(crate) fn touch_service(&mut self, key: &ServiceKey) {
        self.endpoints.invalidate(key);
        let Some(entry) = self.services.get(key) else {
            return;
        };
        self.touched.addresses.extend(&entry.service.addresses);
        if entry.service.ports.iter().any(|port| port.node_port != 0) {
            self.touched.addresses.extend(
                self.nodes
                    .values()
                    .flat_map(|node| node.object.iter().chain(&node.agent)),
            );
        }
    }

    pub(crate) fn delete_pod(&mut self, uid: &str, now: Time) {
        let Some((uid, entry)) = self
            .pods
            .get_key_value(uid)
            .map(|(uid, entry)| (Arc::clone(uid), entry))
        else {
            return;
        };
        for &address in &entry.pod.addresses {
            self.book.release(address, &Holder::Pod(Arc::clone(&uid)), now);
        }
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.gone = Some(now);
        }
        self.graves.push_back((now, Grave::Pod(uid)));
    }

    pub(crate) fn apply_controller(&mut self, controller: Controller) {
        let uid = controller.uid.clone();
        self.controllers.insert(uid.clone(), (controller, None));
        for pod_uid in self.children.get(&uid).cloned().into_iter().flatten() {
            let Some(entry) = self.pods.get(&pod_uid) else {
                continue;
            };
            if !entry
                .pod
                .controller
                .as_ref()
                .is_some_and(|owner| owner.uid == uid)
            {
                continue;
            }
            if matches!(entry.naming, Naming::Final(_)) {
                continue;
            }
            let known = self.controllers.get(&uid).map(|(known, _)| known);
            let Named::Final(entity) = workload(&entry.pod, known) else {
                continue;
            };
            let entity = self.names.intern(entity);
            if let Some(entry) = self.pods.get_mut(&pod_uid) {
                let before = std::mem::replace(&mut entry.naming, Naming::Final(entity.clone()));
                if let Naming::Provisional(provisional) = before
                    && provisional != entity
                {
                    self.touched.renamed.push((provisional, entity));
                }
            }
            self.touch_pod(&pod_uid);
        }
    }

    pub(crate) fn delete_controller(&mut self, uid: &str, now: Time) {
        if let Some((_, gone)) = self.controllers.get_mut(uid) {
            *gone = Some(now);
            self.graves.push_back((now, Grave::Controller(uid.to_owned())));
        }
    }

    pub(crate) fn apply_service(&mut self, service: Service, now: Time) {
        let key = Arc::new(ServiceKey {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        });
        let key = self
            .services
            .get_key_value(&key)
            .map_or(key, |(known, _)| Arc::clone(known));
        if let Some(old) = self.services.get(&key) {
            for &address in old
                .service
                .addresses
                .iter()
                .filter(|address| !service.addresses.contains(address))
            {
                self.book
                    .release(address, &Holder::Service(Arc::clone(&key)), now);
            }
            self.node_ports.retain(|_, owner| *owner != key);
        }
        for &address in &service.addresses {
            self.book
                .claim(address, Holder::Service(Arc::clone(&key)), now, None);
        }
        for port in service.ports.iter().filter(|port| port.node_port != 0) {
            self.node_ports
                .insert((port.node_port, port.transport), Arc::clone(&key));
        }
        self.services
            .insert(Arc::clone(&key), ServiceEntry { service, gone: None });
        self.touch_service(&key);
    }

    pub(crate) fn delete_service(&mut self, namespace: &str, name: &str, now: Time) {
        let key = ServiceKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let Some((key, _)) = self.services.get_key_value(&key) else {
            return;
        };
        let key = Arc::clone(key);
        if let Some(entry) = self.services.get_mut(&key) {
            entry.gone = Some(now);
            for &address in &entry.service.addresses {
                self.book
                    .release(address, &Holder::Service(Arc::clone(&key)), now);
            }
        }
        self.node_ports.retain(|_, owner| *owner != key);
        self.graves.push_back((now, Grave::Service(key)));
    }

    pub(crate) fn apply_node(&mut self, name: &str, addresses: Vec<IpAddr>, zone: &str, now: Time) {
        let zone = self.zones.zone(zone);
        self.with_node(name, now, |entry| {
            entry.object = addresses;
            entry.zone = zone;
            entry.since = entry.since.or(Some(now));
        });
    }

    /// Addresses of a node as its agent sees them.
    pub(crate) fn agent_addresses(&mut self, node: &str, addresses: &[IpAddr], now: Time) {
        self.with_node(node, now, |entry| entry.agent = addresses.to_vec());
    }

    pub(crate) fn delete_node(&mut self, name: &str, now: Time) {
        self.with_node(name, now, |entry| {
            entry.object.clear();
            entry.agent.clear();
            entry.since = None;
        });
        self.nodes.remove(name);
    }

    fn with_node(&mut self, name: &str, now: Time, change: impl FnOnce(&mut NodeEntry)) {
        let name: Arc<str> = self
            .nodes
            .get_key_value(name)
            .map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known));
        let entry = self.nodes.entry(Arc::clone(&name)).or_insert_with(|| NodeEntry {
            object: Vec::new(),
            agent: Vec::new(),
            since: None,
            zone: Zone::UNKNOWN,
        });
        let all = |entry: &NodeEntry| -> HashSet<IpAddr> {
            entry.object.iter().chain(&entry.agent).copied().collect()
        };
        let before = all(entry);
        change(entry);
        let after = all(entry);
        let holder = Holder::Node(name);
        for &address in before.difference(&after) {
            self.book.release(address, &holder, now);
        }
        for &address in after.difference(&before) {
            if !crate::address_book::is_nowhere(address) {
                self.book.claim(address, holder.clone(), now, None);
            }
        }
        self.touched.addresses.extend(after.difference(&before));
    }

    /// Names pods whose controller did not come in time, and buries what is long gone.
    pub(crate) fn expire(&mut self, config: &Config, synced: Option<Time>, now: Time) {
        while let Some((until, _)) = self.unnamed.front() {
            let Some(synced) = synced else { break };
            if now < *until || now < synced.plus(config.patience) {
                break;
            }
            let Some((_, uid)) = self.unnamed.pop_front() else {
                break;
            };
            if let Some(entry) = self.pods.get_mut(&uid)
                && let Naming::Waiting(entity) = &entry.naming
            {
                entry.naming = Naming::Provisional(entity.clone());
                self.touch_pod(&uid);
            }
        }
        let horizon = now.plus(-config.tombstone);
        self.book.expire(horizon);
        while let Some((buried, _)) = self.graves.front() {
            if *buried > horizon {
                break;
            }
            if let Some((buried, grave)) = self.graves.pop_front() {
                self.bury(&grave, buried);
            }
        }
    }

    fn bury(&mut self, grave: &Grave, buried: Time) {
        match grave {
            Grave::Pod(uid) => {
                if self.pods.get(uid).is_some_and(|entry| entry.gone == Some(buried))
                    && let Some(entry) = self.pods.remove(uid)
                {
                    if let Some(hash) = &entry.pod.config_hash
                        && self.by_hash.get(hash) == Some(uid)
                    {
                        self.by_hash.remove(hash);
                    }
                    if let Some(owner) = &entry.pod.controller
                        && let Some(children) = self.children.get_mut(&owner.uid)
                    {
                        children.remove(uid);
                        if children.is_empty() {
                            self.children.remove(&owner.uid);
                        }
                    }
                    self.endpoints.forget_pod(uid);
                }
            }
            Grave::Controller(uid) => {
                if self
                    .controllers
                    .get(uid)
                    .is_some_and(|(_, gone)| *gone == Some(buried))
                {
                    self.controllers.remove(uid);
                }
            }
            Grave::Service(key) => {
                if self
                    .services
                    .get(key)
                    .is_some_and(|entry| entry.gone == Some(buried))
                {
                    self.services.remove(key);
                }
            }
        }
    }
}

impl ServiceEntry {
    /// The port a client addresses.
    pub(crate) fn port(&self, port: u16, transport: Transport) -> Option<&ServicePort> {
        self.service
            .ports
            .iter()
            .find(|known| known.port == port && known.transport == transport)
    }

    /// The port behind a node port.
    pub(crate) fn node_port(&self, port: u16, transport: Transport) -> Option<&ServicePort> {
        self.service
            .ports
            .iter()
            .find(|known| known.node_port == port && known.transport == transport)
    }
}
