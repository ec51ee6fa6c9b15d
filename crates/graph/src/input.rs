//! What the graph is fed with: trimmed Kubernetes objects and validated reports.
//!
//! Addresses are [`IpAddr`] in canonical form: an IPv4-mapped IPv6 address arrives here as IPv4.

use std::net::IpAddr;

use crate::entity::{Time, Transport};

/// A controller reference, as an object's `metadata.ownerReferences` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerRef {
    /// API group, empty for core.
    pub api_group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// A pod, trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// Annotation `kubernetes.io/config.hash`, which static pods carry in their cgroup path instead of the uid.
    pub config_hash: Option<String>,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generateName`, empty when absent.
    pub generate_name: String,
    /// The owner reference with `controller: true`.
    pub controller: Option<OwnerRef>,
    /// `spec.nodeName`, empty until scheduled.
    pub node: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// Every port that a liveness, readiness or startup probe of a container connects to (numbers and resolved names).
    pub probe_ports: Vec<u16>,
    /// Phase Succeeded or Failed: the addresses may belong to somebody else by now.
    pub finished: bool,
    /// `status.startTime`: the pod cannot have had its addresses before. Decides about reports from before the
    /// operator knew the pod.
    pub started: Option<Time>,
}

/// An object between a pod and its workload (ReplicaSet, Job): only who controls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// `metadata.uid`.
    pub uid: String,
    /// API group.
    pub api_group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.generateName`, empty when absent.
    pub generate_name: String,
    /// Its own controller.
    pub controller: Option<OwnerRef>,
}

/// A Service, trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster, external and load-balancer addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`, empty when there is one port.
    pub name: String,
    /// `port`.
    pub port: u16,
    /// `nodePort`, 0 when absent.
    pub node_port: u16,
    /// Protocol.
    pub transport: Transport,
}

/// An EndpointSlice, trimmed. Endpoints that are not ready are in it too: they say which workload backs the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace.
    pub namespace: String,
    /// Name of the slice.
    pub name: String,
    /// Label `kubernetes.io/service-name`.
    pub service: String,
    /// Ports: name, number, protocol.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// `name`, equal to the Service port's.
    pub name: String,
    /// `port`: what the server process listens on.
    pub port: u16,
    /// Protocol.
    pub transport: Transport,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// `targetRef.uid` when it is a Pod.
    pub pod_uid: Option<String>,
}

/// A Node, trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Addresses of types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`, empty when absent.
    pub zone: String,
}

/// Whose sockets a half-edge counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Pod uid or static pod's config hash, from the cgroup path.
    Pod(String),
    /// A process outside pods, by unit or executable.
    Process(String),
}

/// Which side of the connection a half-edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Undecided until its other half is known.
    Unknown,
    /// Called `connect()`.
    Client,
    /// Born from a listener.
    Server,
}

/// A half-edge's identity; its id is unique within the agent's epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Id.
    pub id: u32,
    /// Whose sockets.
    pub subject: Subject,
    /// Side.
    pub role: Role,
    /// The other end's address as this side sees it.
    pub remote: IpAddr,
    /// The server's port as this side sees it.
    pub port: u16,
    /// IP protocol.
    pub transport: Transport,
    /// Connections are reported one by one as well.
    pub split: bool,
}

/// Cumulative counters of a half-edge or of one side of an edge. `active` is a gauge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transitions to ESTABLISHED seen.
    pub opened: u64,
    /// Sockets older than the epoch.
    pub adopted: u64,
    /// Open now.
    pub active: u64,
    /// Refused attempts.
    pub refused: u64,
    /// Attempts without answer.
    pub timed_out: u64,
    /// Attempts that met an unreachable host or network.
    pub unreachable: u64,
    /// Attempts that ended with another error.
    pub reset: u64,
    /// Attempts given up by the application.
    pub aborted: u64,
    /// Payload bytes sent and acknowledged.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Sum over `opened`, microseconds.
    pub connect_us: u64,
    /// Sum over `rtt_samples`, microseconds.
    pub rtt_us: u64,
    /// Samples in `rtt_us`.
    pub rtt_samples: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// Known not to be in the counts.
    pub lost: u64,
}

/// A half-edge's counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// [`Definition::id`].
    pub id: u32,
    /// Cumulative within the epoch.
    pub counters: Counters,
    /// When the counters last changed.
    pub changed: Time,
}

/// What identifies one TCP connection at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// The server's initial sequence number.
    pub server_isn: u32,
}

/// One connection of a split half-edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// [`Definition::id`].
    pub id: u32,
    /// Names the connection at both ends.
    pub witness: Witness,
    /// This socket's own address.
    pub local: IpAddr,
    /// This socket's own port.
    pub local_port: u16,
    /// The other end's port as this socket sees it.
    pub remote_port: u16,
    /// Older than the epoch.
    pub adopted: bool,
    /// The totals are final.
    pub closed: bool,
    /// Cumulative for this connection.
    pub bytes_sent: u64,
    /// Cumulative for this connection.
    pub bytes_received: u64,
    /// Connections this record stands for, at least 1.
    pub weight: u32,
    /// When it was opened or adopted.
    pub opened: Time,
    /// When this record was read.
    pub seen: Time,
}

/// One validated report. Ids may be used before their definition only if that is an error the stream ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// New half-edges.
    pub definitions: Vec<Definition>,
    /// Counters of half-edges that changed.
    pub measurements: Vec<Measurement>,
    /// Connection records.
    pub connections: Vec<Connection>,
    /// Half-edges that will not come again.
    pub ended: Vec<u32>,
    /// Everything the agent knew when the stream started has been sent.
    pub complete: bool,
    /// Sum over the causes that make counts or records of accepted half-edges too low, since the epoch. What was left
    /// out on purpose (foreign network namespaces, unnamed cgroups, sampling) is not in it.
    pub lost: u64,
    /// Connections that sampling left without records, since the epoch.
    pub sampled: u64,
    /// Node addresses, when they changed.
    pub node_addresses: Option<Vec<IpAddr>>,
}
