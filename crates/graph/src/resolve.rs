//! What a half-edge's addresses mean at a time: whom its counts belong to as a whole, or that only its single
//! connections can tell.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address_book::{PodAt, ServiceKey, is_nowhere, is_private};
use crate::config::Config;
use crate::entity::Time;
use crate::half::Half;
use crate::input::{Role, ServicePort, Subject};
use crate::intern::EntityRef;
use crate::inventory::{Inventory, Naming};
use crate::services::Backing;
use crate::stats::Closed;
use crate::view::{End, ServiceRef, Unnamed, Unresolved};
use crate::zones::{CommonZone, Zone};

/// The present, and which beginnings are over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    pub(crate) now: Time,
    /// Every watch has listed.
    pub(crate) synced: Option<Time>,
    /// The first full reports are in.
    pub(crate) settled: Option<Time>,
}

/// Whose sockets a half-edge counts.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    /// Not known yet.
    Waiting,
    /// Not to be counted.
    Closed(Closed),
    /// This entity; `pod` is its uid.
    Is {
        entity: EntityRef,
        pod: Option<Arc<str>>,
    },
}

/// The other end of an edge, seen from a half-edge's owner.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) entity: EntityRef,
    /// The port of the edge.
    pub(crate) port: u16,
    pub(crate) unresolved: Option<Unresolved>,
    /// A better name may come and takes the counts over.
    pub(crate) provisional: bool,
}

/// What to do with a record whose other half does not come.
#[derive(Clone, Debug)]
pub(crate) enum Fallback {
    To(Other),
    Drop(Closed),
}

/// What to do with a half-edge's counts.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Keep them until more is known; attempts without a connection have a name already if there is one here.
    Wait(Option<Other>),
    /// They belong to no edge.
    Drop(Closed),
    /// All of them belong to one edge.
    Whole(Other),
    /// Each connection for itself.
    ByRecord(Fallback),
}

/// A mode, and the Service the client addressed.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) mode: Mode,
    pub(crate) service: Option<Arc<ServiceRef>>,
    /// The zone of the other end, where its address says it.
    pub(crate) zone: Zone,
    /// The name rests on nothing but that no better one came in time.
    pub(crate) by_patience: bool,
}

impl From<Mode> for Resolved {
    fn from(mode: Mode) -> Self {
        Self {
            mode,
            service: None,
            zone: Zone::UNKNOWN,
            by_patience: false,
        }
    }
}

impl Resolved {
    fn in_zone(self, zone: Zone) -> Self {
        Self { zone, ..self }
    }
}

fn other(entity: EntityRef, port: u16, unresolved: Option<Unresolved>) -> Other {
    Other {
        entity,
        port,
        unresolved,
        provisional: false,
    }
}

/// Resolves against one inventory.
pub(crate) struct Resolver<'a> {
    pub(crate) inventory: &'a mut Inventory,
    pub(crate) config: &'a Config,
    pub(crate) clock: Clock,
}

impl Resolver<'_> {
    /// Whether a half-edge has waited for `patience`, the time before the watches had listed not counted.
    fn waited(&self, half: &Half, patience: i64) -> bool {
        let (Some(synced), Some(since)) = (self.clock.synced, half.waiting_since) else {
            return false;
        };
        self.clock.now >= since.max(synced).plus(patience)
    }

    /// Whose sockets these are, by cgroup, never by address.
    pub(crate) fn owner(&self, half: &Half, node: &str) -> Owner {
        let key = match (&*half.subject, &half.process) {
            (_, Some(process)) => {
                return Owner::Is {
                    entity: process.clone(),
                    pod: None,
                };
            }
            (Subject::Pod(key) | Subject::Process(key), None) => key,
        };
        let unknown = || {
            if self.waited(half, self.config.pod_patience) {
                Owner::Closed(Closed::PodUnknown)
            } else {
                Owner::Waiting
            }
        };
        let Some((uid, entry)) = self.inventory.pod(key) else {
            return unknown();
        };
        if entry.pod.node.is_empty() {
            return unknown();
        }
        if entry.pod.node != node {
            return Owner::Closed(Closed::OtherNode);
        }
        match &entry.naming {
            Naming::Waiting(_) => Owner::Waiting,
            Naming::Provisional(entity) | Naming::Final(entity) => Owner::Is {
                entity: entity.clone(),
                pod: Some(Arc::clone(uid)),
            },
        }
    }

    /// What to do with counts that `owner`'s half-edge made at `at`.
    pub(crate) fn mode(&mut self, half: &Half, owner: &Owner, node: &str, at: Time) -> Resolved {
        let (entity, pod) = match owner {
            Owner::Waiting => return Mode::Wait(None).into(),
            Owner::Closed(reason) => return Mode::Drop(*reason).into(),
            Owner::Is { entity, pod } => (entity, pod.as_ref()),
        };
        if is_nowhere(half.remote) {
            return Mode::Drop(Closed::Loopback).into();
        }
        if self.clock.synced.is_none() {
            // Half an inventory names half of the candidates.
            return Mode::Wait(None).into();
        }
        let mut resolved = match half.role {
            Role::Client => self.client_mode(half, entity, pod, node, at),
            Role::Server => self.server_mode(half, pod, node, at),
            Role::Unknown => Mode::ByRecord(Fallback::Drop(Closed::RoleUnknown)).into(),
        };
        if !half.split
            && let Mode::ByRecord(fallback) = resolved.mode
        {
            // No records will come: the best name there is takes all of it.
            resolved.mode = match fallback {
                Fallback::To(other) => Mode::Whole(other),
                Fallback::Drop(reason) => Mode::Drop(reason),
            };
        }
        resolved
    }

    fn client_mode(
        &mut self,
        half: &Half,
        owner: &EntityRef,
        pod: Option<&Arc<str>>,
        node: &str,
        at: Time,
    ) -> Resolved {
        if let Some((service, port)) = self.inventory.service_addressed(half, at) {
            return self.service_mode(half, owner, &service, port.as_ref(), at);
        }
        match self.class(half, at) {
            Class::Pod(uid) => {
                if pod == Some(&uid) {
                    return Mode::Drop(Closed::SamePod).into();
                }
                let Some((_, entry)) = self.inventory.pod(&uid) else {
                    return Mode::Wait(None).into();
                };
                if pod.is_none() && entry.pod.node == node && entry.pod.probe_ports.contains(&half.port) {
                    return Mode::Drop(Closed::Probe).into();
                }
                let zone = self.inventory.zone_of(&entry.pod.node);
                match &entry.naming {
                    Naming::Waiting(_) => Mode::Wait(None).into(),
                    Naming::Provisional(entity) | Naming::Final(entity) => {
                        Resolved::from(Mode::Whole(other(entity.clone(), half.port, None))).in_zone(zone)
                    }
                }
            }
            Class::Node => {
                let zone = self.node_zone(half.remote);
                self.by_record_to_address(half, owner, Unnamed::NodeAddress)
                    .in_zone(zone)
            }
            Class::Ambiguous => self.by_record_to_address(half, owner, Unnamed::Ambiguous),
            Class::Unsettled(former) => Mode::Wait(former.and_then(|uid| self.dead(&uid, half.port))).into(),
            Class::Unknown if !self.waited(half, self.config.patience) => Mode::Wait(None).into(),
            Class::Unknown | Class::Outside => {
                if owner.kind == "NodeProcess" {
                    return Mode::Drop(Closed::NodeProcess).into();
                }
                let private = is_private(half.remote);
                let address = self.address(half.remote);
                let unresolved = Some(Unresolved {
                    end: End::Server,
                    reason: Unnamed::NoName,
                });
                Resolved {
                    mode: Mode::Whole(Other {
                        entity: address,
                        port: half.port,
                        unresolved,
                        provisional: private,
                    }),
                    service: None,
                    zone: Zone::UNKNOWN,
                    by_patience: private,
                }
            }
        }
    }

    /// The zone of a node's address; of an address that several nodes share, theirs if it is one.
    fn node_zone(&self, address: IpAddr) -> Zone {
        let mut zone = CommonZone::default();
        for node in self.inventory.book.nodes_of(address) {
            zone.add(self.inventory.zone_of(&node));
        }
        zone.get()
    }

    /// A pod that had an address last, as the end of attempts that nobody answers.
    fn dead(&self, uid: &str, port: u16) -> Option<Other> {
        match &self.inventory.pod(uid)?.1.naming {
            Naming::Waiting(_) => None,
            Naming::Provisional(entity) | Naming::Final(entity) => Some(other(entity.clone(), port, None)),
        }
    }

    fn address(&mut self, address: IpAddr) -> EntityRef {
        self.inventory.entity("Address", address.to_string())
    }

    fn by_record_to_address(&mut self, half: &Half, owner: &EntityRef, reason: Unnamed) -> Resolved {
        if owner.kind == "NodeProcess" {
            return Mode::ByRecord(Fallback::Drop(Closed::NodeProcess)).into();
        }
        let address = self.address(half.remote);
        let unresolved = Some(Unresolved {
            end: End::Server,
            reason,
        });
        Mode::ByRecord(Fallback::To(other(address, half.port, unresolved))).into()
    }

    fn service_mode(
        &mut self,
        half: &Half,
        owner: &EntityRef,
        key: &Arc<ServiceKey>,
        port: Option<&ServicePort>,
        at: Time,
    ) -> Resolved {
        let number = port.map_or(half.port, |port| port.port);
        let service = Some(Arc::new(ServiceRef {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            port: number,
        }));
        let itself = |resolver: &mut Self, reason| Other {
            entity: resolver.inventory.names.intern(crate::entity::Entity {
                kind: "Service".to_owned(),
                api_group: String::new(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            }),
            port: number,
            unresolved: Some(Unresolved {
                end: End::Server,
                reason,
            }),
            provisional: reason == Unnamed::NoEndpoints,
        };
        let Some(port) = port else {
            let nobody = Other {
                provisional: false,
                ..itself(self, Unnamed::NoEndpoints)
            };
            return Resolved {
                mode: Mode::Whole(nobody),
                service,
                zone: Zone::UNKNOWN,
                by_patience: false,
            };
        };
        let memory = self.config.endpoint_memory;
        let (backing, zone) = self.inventory.backing(key, port, at, self.clock.now, memory);
        let mode = match backing {
            Backing::One(entity, target) if entity == *owner => {
                // Perhaps one of its own pods answered, perhaps the very same one: the connection tells.
                Mode::ByRecord(Fallback::To(other(entity, target, None)))
            }
            Backing::One(entity, target) => Mode::Whole(other(entity, target, None)),
            Backing::Address(..) if owner.kind == "NodeProcess" => Mode::Drop(Closed::NodeProcess),
            Backing::Address(address, target) => {
                let unresolved = Some(Unresolved {
                    end: End::Server,
                    reason: Unnamed::NoName,
                });
                Mode::Whole(other(self.address(address), target, unresolved))
            }
            Backing::Waiting if !self.waited(half, self.config.patience) => Mode::Wait(None),
            Backing::Nobody if !self.waited(half, self.config.patience) => {
                // Whoever answered is not in a slice yet; who did not answer is this Service.
                Mode::Wait(Some(itself(self, Unnamed::NoEndpoints)))
            }
            Backing::Waiting | Backing::Several => {
                Mode::ByRecord(Fallback::To(itself(self, Unnamed::Ambiguous)))
            }
            Backing::Nobody => Mode::ByRecord(Fallback::To(itself(self, Unnamed::NoEndpoints))),
        };
        Resolved {
            mode,
            service,
            zone,
            by_patience: false,
        }
    }

    fn server_mode(&mut self, half: &Half, pod: Option<&Arc<str>>, node: &str, at: Time) -> Resolved {
        match self.class(half, at) {
            Class::Pod(uid) => {
                if pod == Some(&uid) {
                    return Mode::Drop(Closed::SamePod).into();
                }
                let Some((_, entry)) = self.inventory.pod(&uid) else {
                    return Mode::Wait(None).into();
                };
                let zone = self.inventory.zone_of(&entry.pod.node);
                match &entry.naming {
                    Naming::Waiting(_) => Mode::Wait(None).into(),
                    Naming::Provisional(entity) | Naming::Final(entity) => {
                        Resolved::from(Mode::Whole(other(entity.clone(), half.port, None))).in_zone(zone)
                    }
                }
            }
            Class::Node => {
                let local = self
                    .inventory
                    .book
                    .nodes_of(half.remote)
                    .iter()
                    .any(|name| **name == *node);
                let entry = pod.and_then(|uid| self.inventory.pod(uid));
                if local && entry.is_some_and(|(_, entry)| entry.pod.probe_ports.contains(&half.port)) {
                    return Mode::ByRecord(Fallback::Drop(Closed::Probe)).into();
                }
                let zone = self.node_zone(half.remote);
                self.by_record_from_address(half, pod, Unnamed::NodeAddress)
                    .in_zone(zone)
            }
            Class::Ambiguous => self.by_record_from_address(half, pod, Unnamed::Ambiguous),
            Class::Unsettled(_) => Mode::Wait(None).into(),
            Class::Unknown if !self.waited(half, self.config.patience) => Mode::Wait(None).into(),
            Class::Unknown | Class::Outside => {
                if pod.is_none() && !self.is_api_server(half, node) {
                    return Mode::Drop(Closed::NodeProcess).into();
                }
                let private = is_private(half.remote);
                let name = if private { "private" } else { "world" };
                let entity = self.inventory.entity("External", name.to_owned());
                Resolved {
                    mode: Mode::Whole(Other {
                        entity,
                        port: half.port,
                        unresolved: None,
                        provisional: private,
                    }),
                    service: None,
                    zone: Zone::UNKNOWN,
                    by_patience: private,
                }
            }
        }
    }

    fn by_record_from_address(&mut self, half: &Half, pod: Option<&Arc<str>>, reason: Unnamed) -> Resolved {
        if pod.is_none() {
            return Mode::ByRecord(Fallback::Drop(Closed::NodeProcess)).into();
        }
        let address = self.address(half.remote);
        let unresolved = Some(Unresolved {
            end: End::Client,
            reason,
        });
        Mode::ByRecord(Fallback::To(other(address, half.port, unresolved))).into()
    }

    /// Whether a server half-edge of a process is the API server of its node.
    fn is_api_server(&self, half: &Half, node: &str) -> bool {
        self.inventory
            .api_server_nodes(half.port)
            .iter()
            .any(|name| **name == *node)
    }

    fn class(&self, half: &Half, at: Time) -> Class {
        let address = half.remote;
        let node = self.inventory.book.is_node(address, false);
        match self.inventory.book.pod_at(address, at) {
            PodAt::One(_) | PodAt::Former(_) | PodAt::Ambiguous if node => Class::Ambiguous,
            PodAt::One(uid) => Class::Pod(uid),
            // A pod's first packets are often faster than the watch that says which address it got. That this half-edge
            // waited for an earlier owner of the address says nothing about the next one.
            PodAt::Former(_) if !self.waited(half, self.config.patience) => Class::Unsettled(None),
            PodAt::Former(uid) if self.clock.now < at.plus(self.config.patience) => {
                Class::Unsettled(Some(uid))
            }
            PodAt::Former(uid) => Class::Pod(uid),
            PodAt::Ambiguous => Class::Ambiguous,
            PodAt::Nobody if node || self.inventory.book.is_node(address, true) => Class::Node,
            PodAt::Nobody if is_private(address) => Class::Unknown,
            PodAt::Nobody => Class::Outside,
        }
    }

    /// The nodes whose agents should have the other half of a half-edge's connections.
    pub(crate) fn peers(&self, half: &Half, node: &str, at: Time) -> HashSet<Arc<str>> {
        if half.role == Role::Client
            && let Some((key, Some(port))) = self.inventory.service_addressed(half, at)
        {
            return self
                .inventory
                .nodes_behind(&key, &port, at, self.config.endpoint_memory);
        }
        let pods = self.inventory.book.pods_of(half.remote);
        let pods: HashSet<Arc<str>> = pods
            .iter()
            .filter_map(|uid| self.inventory.pod(uid))
            .map(|(_, entry)| Arc::from(entry.pod.node.as_str()))
            .collect();
        if !pods.is_empty() {
            return pods;
        }
        let nodes = self.inventory.book.nodes_of(half.remote);
        let own: HashSet<Arc<str>> = nodes.iter().filter(|name| ***name == *node).cloned().collect();
        if own.is_empty() {
            nodes.into_iter().collect()
        } else {
            own
        }
    }
}

/// What an address is at a time.
enum Class {
    Pod(Arc<str>),
    Node,
    Ambiguous,
    Unknown,
    /// The last owner is gone, and who followed may still be told. Once that was waited for, what nobody answers was meant
    /// for the one that is gone.
    Unsettled(Option<Arc<str>>),
    Outside,
}
