//! What is behind a Service: EndpointSlices, with endpoints that left them a moment ago.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address_book::{PodAt, ServiceKey};
use crate::entity::{Time, Transport};
use crate::half::Half;
use crate::input::{Endpoint, EndpointPort, EndpointSlice, ServicePort};
use crate::intern::EntityRef;
use crate::inventory::{Inventory, Naming};
use crate::zones::{CommonZone, Zone};

/// Who answers for a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// An endpoint's pod, or the workload of one, is not known yet.
    Waiting,
    /// Nobody.
    Nobody,
    /// One workload, on this port.
    One(EntityRef, u16),
    /// One address outside the cluster.
    Address(IpAddr, u16),
    /// Several, or processes of a node: only the connection itself can tell.
    Several,
}

#[derive(Debug)]
struct Past {
    ports: Arc<[EndpointPort]>,
    endpoint: Endpoint,
    until: Time,
}

#[derive(Debug, Default)]
struct Behind {
    slices: HashMap<String, EndpointSlice>,
    past: Vec<Past>,
}

/// Past endpoints kept per Service; a Service that loses more in ten minutes is rolled out anew.
const PAST: usize = 4_096;

/// By port of a Service: who answers and in which zone, and until when this is taken as it is.
type Answers = HashMap<(u16, Transport), ((Backing, Zone), Time)>;

/// EndpointSlices by Service.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    behind: HashMap<Arc<ServiceKey>, Behind>,
    slice_service: HashMap<(String, String), Arc<ServiceKey>>,
    by_pod: HashMap<String, HashSet<Arc<ServiceKey>>>,
    cache: HashMap<Arc<ServiceKey>, Answers>,
}

impl Endpoints {
    /// The Services whose slices name this pod.
    pub(crate) fn services_of(&self, uid: &str) -> Vec<Arc<ServiceKey>> {
        self.by_pod.get(uid).into_iter().flatten().cloned().collect()
    }

    pub(crate) fn forget_pod(&mut self, uid: &str) {
        self.by_pod.remove(uid);
    }

    pub(crate) fn invalidate(&mut self, key: &ServiceKey) {
        self.cache.remove(key);
    }

    fn insert(&mut self, slice: EndpointSlice, now: Time) -> Arc<ServiceKey> {
        let key = ServiceKey {
            namespace: slice.namespace.clone(),
            name: slice.service.clone(),
        };
        let key = self
            .behind
            .get_key_value(&key)
            .map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known));
        for endpoint in &slice.endpoints {
            if let Some(uid) = &endpoint.pod_uid {
                self.by_pod
                    .entry(uid.clone())
                    .or_default()
                    .insert(Arc::clone(&key));
            }
        }
        self.slice_service
            .insert((slice.namespace.clone(), slice.name.clone()), Arc::clone(&key));
        let behind = self.behind.entry(Arc::clone(&key)).or_default();
        let old = behind.slices.insert(slice.name.clone(), slice);
        if let Some(old) = old {
            behind.bury(&old, now);
        }
        key
    }

    fn remove(&mut self, namespace: &str, name: &str, now: Time) -> Option<Arc<ServiceKey>> {
        let key = self
            .slice_service
            .remove(&(namespace.to_owned(), name.to_owned()))?;
        let behind = self.behind.get_mut(&key)?;
        if let Some(old) = behind.slices.remove(name) {
            behind.bury(&old, now);
        }
        Some(key)
    }

    pub(crate) fn expire(&mut self, horizon: Time) {
        self.behind.retain(|_, behind| {
            behind.past.retain(|past| past.until > horizon);
            !behind.past.is_empty() || !behind.slices.is_empty()
        });
    }

    /// Addresses of the endpoints of `service` that have this port.
    pub(crate) fn addresses(&self, service: &ServiceKey, port: u16) -> impl Iterator<Item = IpAddr> {
        self.behind
            .get(service)
            .into_iter()
            .flat_map(|behind| behind.slices.values())
            .filter(move |slice| slice.ports.iter().any(|known| known.port == port))
            .flat_map(|slice| slice.endpoints.iter())
            .flat_map(|endpoint| endpoint.addresses.iter().copied())
    }

    /// Endpoints of `service` at `at` or later, with the ports of that name.
    fn candidates(
        &self,
        service: &ServiceKey,
        port: &ServicePort,
        at: Time,
        memory: i64,
    ) -> Vec<(&Endpoint, u16)> {
        let Some(behind) = self.behind.get(service) else {
            return Vec::new();
        };
        let target = |ports: &[EndpointPort]| {
            ports
                .iter()
                .find(|known| known.name == port.name && known.transport == port.transport)
                .map(|known| known.port)
        };
        let present = behind.slices.values().flat_map(|slice| {
            target(&slice.ports)
                .into_iter()
                .flat_map(|port| slice.endpoints.iter().map(move |endpoint| (endpoint, port)))
        });
        let past = behind
            .past
            .iter()
            .filter(|past| past.until.plus(memory) >= at)
            .filter_map(|past| target(&past.ports).map(|port| (&past.endpoint, port)));
        present.chain(past).collect()
    }
}

impl Behind {
    /// Keeps what `old` had and no slice has any more; a pod that is back is no past.
    fn bury(&mut self, old: &EndpointSlice, now: Time) {
        let ports: Arc<[EndpointPort]> = Arc::from(old.ports.as_slice());
        for endpoint in &old.endpoints {
            let still = self
                .slices
                .values()
                .any(|slice| slice.ports == old.ports && slice.endpoints.contains(endpoint));
            if !still {
                self.past
                    .retain(|past| past.endpoint != *endpoint || *past.ports != *ports);
                if self.past.len() >= PAST {
                    self.past.remove(0);
                }
                self.past.push(Past {
                    ports: Arc::clone(&ports),
                    endpoint: endpoint.clone(),
                    until: now,
                });
            }
        }
    }
}

impl Inventory {
    pub(crate) fn apply_slice(&mut self, slice: EndpointSlice, now: Time) {
        let moved_from = self
            .endpoints
            .slice_service
            .get(&(slice.namespace.clone(), slice.name.clone()))
            .filter(|key| key.name != slice.service)
            .cloned();
        if moved_from.is_some() {
            self.delete_slice(&slice.namespace, &slice.name, now);
        }
        let key = self.endpoints.insert(slice, now);
        self.touch_service(&key);
    }

    pub(crate) fn delete_slice(&mut self, namespace: &str, name: &str, now: Time) {
        if let Some(key) = self.endpoints.remove(namespace, name, now) {
            self.touch_service(&key);
        }
    }

    /// Who answers for `port` of `service` at `at`, and in which zone if all are in one. `memory`: how long a former endpoint still counts.
    pub(crate) fn backing(
        &mut self,
        service: &Arc<ServiceKey>,
        port: &ServicePort,
        at: Time,
        now: Time,
        memory: i64,
    ) -> (Backing, Zone) {
        let recent = now.since(at) < memory;
        let cached = self
            .endpoints
            .cache
            .get(service)
            .and_then(|ports| ports.get(&(port.port, port.transport)));
        if recent
            && let Some((backing, until)) = cached
            && now < *until
        {
            return backing.clone();
        }
        let at = if recent { now } else { at };
        let backing = self.judge_backing(&self.endpoints.candidates(service, port, at, memory), at);
        if recent {
            // Former endpoints stop counting without an event; a second late is soon enough.
            self.endpoints
                .cache
                .entry(Arc::clone(service))
                .or_default()
                .insert((port.port, port.transport), (backing.clone(), now.plus(1_000)));
        }
        backing
    }

    fn judge_backing(&self, candidates: &[(&Endpoint, u16)], at: Time) -> (Backing, Zone) {
        let mut workloads: HashSet<(EntityRef, u16)> = HashSet::new();
        let mut outside: HashSet<(IpAddr, u16)> = HashSet::new();
        let (mut waiting, mut node) = (false, false);
        let mut zone = CommonZone::default();
        for &(endpoint, port) in candidates {
            let mut pod = |uid: &str, zone: &mut CommonZone| {
                let entry = self.pod(uid).map(|(_, entry)| entry);
                zone.add(entry.map_or(Zone::UNKNOWN, |entry| self.zone_of(&entry.pod.node)));
                match entry.map(|entry| &entry.naming) {
                    None | Some(Naming::Waiting(_)) => waiting = true,
                    Some(Naming::Provisional(entity) | Naming::Final(entity)) => {
                        workloads.insert((entity.clone(), port));
                    }
                }
            };
            if let Some(uid) = &endpoint.pod_uid {
                pod(uid, &mut zone);
                continue;
            }
            for &address in &endpoint.addresses {
                match self.book.pod_at(address, at) {
                    PodAt::One(uid) | PodAt::Former(uid) => pod(&uid, &mut zone),
                    PodAt::Ambiguous => {
                        zone.add(Zone::UNKNOWN);
                        node = true;
                    }
                    PodAt::Nobody if self.book.is_node(address, true) => {
                        for name in self.book.nodes_of(address) {
                            zone.add(self.zone_of(&name));
                        }
                        node = true;
                    }
                    PodAt::Nobody => {
                        zone.add(Zone::UNKNOWN);
                        outside.insert((address, port));
                    }
                }
            }
        }
        let backing = if node || workloads.len() + outside.len() > 1 {
            Backing::Several
        } else if waiting {
            Backing::Waiting
        } else if let Some((entity, port)) = workloads.into_iter().next() {
            Backing::One(entity, port)
        } else {
            outside
                .into_iter()
                .next()
                .map_or(Backing::Nobody, |(address, port)| Backing::Address(address, port))
        };
        (backing, zone.get())
    }

    /// The Service a client half-edge's address and port belong to; without a port when the Service has no such one.
    pub(crate) fn service_addressed(
        &self,
        half: &Half,
        at: Time,
    ) -> Option<(Arc<ServiceKey>, Option<ServicePort>)> {
        let is_node = self.book.is_node(half.remote, false);
        if let Some(key) = self.book.service_at(half.remote, at)
            && let Some(entry) = self.service(key)
        {
            let port = entry.port(half.port, half.transport).cloned();
            if port.is_some() || !is_node {
                return Some((Arc::clone(key), port));
            }
        }
        if !is_node {
            return None;
        }
        let key = self.service_of_node_port(half.port, half.transport)?;
        let port = self.service(key)?.node_port(half.port, half.transport)?.clone();
        Some((Arc::clone(key), Some(port)))
    }

    /// Whether `pod`, reached at this address and port, is behind `port` of `service` at `at`.
    pub(crate) fn is_endpoint(
        &self,
        service: &ServiceKey,
        port: &ServicePort,
        at: Time,
        memory: i64,
        pod: &str,
        (address, number): (IpAddr, u16),
    ) -> bool {
        self.endpoints
            .candidates(service, port, at, memory)
            .iter()
            .any(|&(endpoint, target)| {
                let is_named = endpoint.pod_uid.as_deref() == Some(pod);
                target == number && (is_named || endpoint.addresses.contains(&address))
            })
    }

    /// The nodes on which Service default/kubernetes has an endpoint with this port.
    pub(crate) fn api_server_nodes(&self, port: u16) -> HashSet<Arc<str>> {
        let key = ServiceKey {
            namespace: "default".to_owned(),
            name: "kubernetes".to_owned(),
        };
        self.endpoints
            .addresses(&key, port)
            .flat_map(|address| self.book.nodes_of(address))
            .collect()
    }

    /// Whether the process that listens on this address and port is an API server.
    pub(crate) fn is_api_server(&self, address: IpAddr, port: u16) -> bool {
        let nodes = self.api_server_nodes(port);
        self.book
            .nodes_of(address)
            .iter()
            .any(|node| nodes.contains(node))
    }

    /// The nodes that endpoints of `service` are on.
    pub(crate) fn nodes_behind(
        &self,
        service: &ServiceKey,
        port: &ServicePort,
        at: Time,
        memory: i64,
    ) -> HashSet<Arc<str>> {
        let mut nodes = HashSet::new();
        for (endpoint, _) in self.endpoints.candidates(service, port, at, memory) {
            if let Some((_, entry)) = endpoint.pod_uid.as_deref().and_then(|uid| self.pod(uid)) {
                nodes.insert(Arc::from(entry.pod.node.as_str()));
            } else {
                nodes.extend(
                    endpoint
                        .addresses
                        .iter()
                        .flat_map(|&address| self.book.nodes_of(address)),
                );
            }
        }
        nodes
    }
}
