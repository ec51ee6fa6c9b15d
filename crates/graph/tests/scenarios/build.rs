//! Builders for what scenarios are made of: pods, Services, half-edges and connections.

use std::net::IpAddr;

use leyline_graph::entity::{Time, Transport};
use leyline_graph::input::{
    Controller, Counters, Endpoint, EndpointPort, EndpointSlice, OwnerRef, Pod, Role, Service, ServicePort,
    Subject,
};

use crate::support::START;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn owner(api_group: &str, kind: &str, name: &str) -> OwnerRef {
    OwnerRef {
        api_group: api_group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{kind}-{name}"),
    }
}

pub(crate) fn controller(kind: &str, name: &str) -> Controller {
    Controller {
        uid: format!("uid-{kind}-{name}"),
        api_group: if kind == "Job" { "batch" } else { "apps" }.to_owned(),
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        generate_name: String::new(),
        controller: None,
    }
}

pub(crate) struct P(pub(crate) Pod);

/// A bare pod `name` (its uid too) of namespace shop.
pub(crate) fn pod(name: &str) -> P {
    P(Pod {
        uid: name.to_owned(),
        config_hash: None,
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        generate_name: String::new(),
        controller: None,
        node: "n1".to_owned(),
        host_network: false,
        addresses: Vec::new(),
        probe_ports: Vec::new(),
        finished: false,
        started: Some(Time(START - 60_000)),
    })
}

impl P {
    pub(crate) fn on(mut self, node: &str) -> Self {
        self.0.node = node.to_owned();
        self
    }
    pub(crate) fn at(mut self, address: &str) -> Self {
        self.0.addresses.push(ip(address));
        self
    }
    /// Controlled by a kind that is a workload itself.
    pub(crate) fn of(mut self, kind: &str, name: &str) -> Self {
        self.0.controller = Some(owner("apps", kind, name));
        self
    }
    pub(crate) fn host(mut self) -> Self {
        self.0.host_network = true;
        self
    }
    pub(crate) fn probed(mut self, port: u16) -> Self {
        self.0.probe_ports.push(port);
        self
    }
    pub(crate) fn started(mut self, at: Option<i64>) -> Self {
        self.0.started = at.map(|at| Time(START + at));
        self
    }
}

#[derive(Clone)]
pub(crate) struct H {
    pub(crate) subject: Subject,
    pub(crate) role: Role,
    pub(crate) remote: IpAddr,
    pub(crate) port: u16,
    pub(crate) split: bool,
    pub(crate) counters: Counters,
    pub(crate) changed: Option<i64>,
    pub(crate) connections: Vec<C>,
}

fn half(subject: Subject, role: Role) -> H {
    H {
        subject,
        role,
        remote: ip("0.0.0.0"),
        port: 0,
        split: true,
        counters: Counters::default(),
        changed: None,
        connections: Vec::new(),
    }
}

pub(crate) fn client(pod: &str) -> H {
    half(Subject::Pod(pod.to_owned()), Role::Client)
}
pub(crate) fn server(pod: &str) -> H {
    half(Subject::Pod(pod.to_owned()), Role::Server)
}
pub(crate) fn process_client(name: &str) -> H {
    half(Subject::Process(name.to_owned()), Role::Client)
}
pub(crate) fn process_server(name: &str) -> H {
    half(Subject::Process(name.to_owned()), Role::Server)
}

impl H {
    /// The address and port a client dialled.
    pub(crate) fn to(mut self, address: &str, port: u16) -> Self {
        self.remote = ip(address);
        self.port = port;
        self
    }
    /// A server's port, and the address its clients come from.
    pub(crate) fn from(self, address: &str, port: u16) -> Self {
        self.to(address, port)
    }
    pub(crate) fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }
    pub(crate) fn opened(mut self, count: u64) -> Self {
        self.counters.opened = count;
        self
    }
    pub(crate) fn active(mut self, count: u64) -> Self {
        self.counters.active = count;
        self
    }
    pub(crate) fn refused(mut self, count: u64) -> Self {
        self.counters.refused = count;
        self
    }
    pub(crate) fn aborted(mut self, count: u64) -> Self {
        self.counters.aborted = count;
        self
    }
    pub(crate) fn bytes(mut self, sent: u64, received: u64) -> Self {
        self.counters.bytes_sent = sent;
        self.counters.bytes_received = received;
        self
    }
    pub(crate) fn counters(mut self, change: impl FnOnce(&mut Counters)) -> Self {
        change(&mut self.counters);
        self
    }
    pub(crate) fn unsplit(mut self) -> Self {
        self.split = false;
        self
    }
    /// When the counters last changed.
    pub(crate) fn changed(mut self, at: i64) -> Self {
        self.changed = Some(at);
        self
    }
    /// Adds connections, and counts them as the kernel would.
    pub(crate) fn with(mut self, connections: impl IntoIterator<Item = C>) -> Self {
        for connection in connections {
            if connection.adopted {
                self.counters.adopted += 1;
            } else {
                self.counters.opened += 1;
            }
            self.counters.active += u64::from(!connection.closed);
            self.counters.bytes_sent += connection.sent;
            self.counters.bytes_received += connection.received;
            self.connections.push(connection);
        }
        self
    }
    /// Adds records without counting anything.
    pub(crate) fn records(mut self, connections: impl IntoIterator<Item = C>) -> Self {
        self.connections.extend(connections);
        self
    }
}

#[derive(Clone)]
pub(crate) struct C {
    pub(crate) number: u32,
    pub(crate) local: Option<IpAddr>,
    pub(crate) local_port: Option<u16>,
    pub(crate) adopted: bool,
    pub(crate) closed: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) weight: u32,
    pub(crate) opened: Option<i64>,
    pub(crate) seen: Option<i64>,
}

/// A closed connection; its number is its witness.
pub(crate) fn conn(number: u32) -> C {
    C {
        number,
        local: None,
        local_port: None,
        adopted: false,
        closed: true,
        sent: 0,
        received: 0,
        weight: 1,
        opened: None,
        seen: None,
    }
}

impl C {
    pub(crate) fn open(mut self) -> Self {
        self.closed = false;
        self
    }
    pub(crate) fn adopted(mut self) -> Self {
        self.adopted = true;
        self.closed = false;
        self
    }
    pub(crate) fn bytes(mut self, sent: u64, received: u64) -> Self {
        self.sent = sent;
        self.received = received;
        self
    }
    pub(crate) fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
    pub(crate) fn local(mut self, address: &str, port: u16) -> Self {
        self.local = Some(ip(address));
        self.local_port = Some(port);
        self
    }
}

pub(crate) fn service(name: &str, address: &str, port: u16) -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        addresses: vec![ip(address)],
        ports: vec![ServicePort {
            name: String::new(),
            port,
            node_port: 0,
            transport: Transport::Tcp,
        }],
    }
}

pub(crate) fn slice(service: &str, target: u16, pods: &[&str]) -> EndpointSlice {
    EndpointSlice {
        namespace: "shop".to_owned(),
        name: format!("{service}-1"),
        service: service.to_owned(),
        ports: vec![EndpointPort {
            name: String::new(),
            port: target,
            transport: Transport::Tcp,
        }],
        endpoints: pods
            .iter()
            .map(|uid| Endpoint {
                addresses: Vec::new(),
                pod_uid: Some((*uid).to_owned()),
            })
            .collect(),
    }
}
