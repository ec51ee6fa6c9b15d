//! From Kubernetes objects to what the graph takes in.
//!
//! Pure. The sources have only the fields that are needed; everything else is skipped while parsing. Pods are in
//! [`super::pods`].

use std::net::IpAddr;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use leyline_graph::entity::Transport;
use leyline_graph::input::{self, OwnerRef};
use serde::{Deserialize, Serialize};

use crate::graph::{Inventory, Kind};

/// What a watch does with objects of a kind.
pub trait Trim {
    /// For the metrics and for readiness.
    const KIND: Kind;
    /// Names the object as long as it lives.
    fn key(&self) -> String;
    /// What the graph takes in.
    fn trim(self) -> Inventory;
    /// What the graph is told when the object named `key` is gone.
    fn gone(key: String) -> Inventory;
}

/// The owner reference with `controller: true`.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<OwnerRef> {
    let owners = metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    Some(OwnerRef {
        api_group: group(&owner.api_version),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

/// An address in canonical form; nothing when it is none (headless Services say `None`).
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn group(api_version: &str) -> String {
    api_version
        .split_once('/')
        .map_or(String::new(), |(group, _)| group.to_owned())
}

/// TCP and UDP; SCTP is not observed.
fn transport(protocol: &str) -> Option<Transport> {
    match protocol {
        "" | "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    }
}

fn namespaced_key(metadata: &ObjectMeta) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

fn split_key(key: &str) -> (String, String) {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    (namespace.to_owned(), name.to_owned())
}

fn trimmed_controller(metadata: ObjectMeta, api_group: &str, kind: &str) -> Inventory {
    Inventory::Controller(input::Controller {
        controller: controller(&metadata),
        uid: metadata.uid.unwrap_or_default(),
        api_group: api_group.to_owned(),
        kind: kind.to_owned(),
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        generate_name: metadata.generate_name.unwrap_or_default(),
    })
}

impl Trim for PartialObjectMeta<ReplicaSet> {
    const KIND: Kind = Kind::ReplicaSet;

    fn key(&self) -> String {
        self.metadata.uid.clone().unwrap_or_default()
    }

    fn trim(self) -> Inventory {
        trimmed_controller(self.metadata, "apps", "ReplicaSet")
    }

    fn gone(key: String) -> Inventory {
        Inventory::ControllerGone { uid: key }
    }
}

impl Trim for PartialObjectMeta<Job> {
    const KIND: Kind = Kind::Job;

    fn key(&self) -> String {
        self.metadata.uid.clone().unwrap_or_default()
    }

    fn trim(self) -> Inventory {
        trimmed_controller(self.metadata, "batch", "Job")
    }

    fn gone(key: String) -> Inventory {
        Inventory::ControllerGone { uid: key }
    }
}

impl Trim for PartialObjectMeta<Namespace> {
    const KIND: Kind = Kind::Namespace;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn trim(self) -> Inventory {
        Inventory::Namespace {
            terminating: self.metadata.deletion_timestamp.is_some(),
            name: self.metadata.name.unwrap_or_default(),
        }
    }

    fn gone(key: String) -> Inventory {
        Inventory::NamespaceGone { name: key }
    }
}

/// A Service as it is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, kube::Resource)]
#[resource(inherit = Service)]
pub struct ServiceSource {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct ServiceSpec {
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ServicePort {
    name: String,
    port: i32,
    node_port: i32,
    protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Ingress {
    ip: String,
}

impl Trim for ServiceSource {
    const KIND: Kind = Kind::Service;

    fn key(&self) -> String {
        namespaced_key(&self.metadata)
    }

    fn trim(self) -> Inventory {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let balancers = status.load_balancer.ingress.iter().map(|ingress| &ingress.ip);
        let addresses = spec.cluster_ips.iter().chain(&spec.external_ips).chain(balancers);
        Inventory::Service(input::Service {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            addresses: addresses.filter_map(|text| address(text)).collect(),
            ports: spec.ports.iter().filter_map(service_port).collect(),
        })
    }

    fn gone(key: String) -> Inventory {
        let (namespace, name) = split_key(&key);
        Inventory::ServiceGone { namespace, name }
    }
}

fn service_port(port: &ServicePort) -> Option<input::ServicePort> {
    Some(input::ServicePort {
        name: port.name.clone(),
        port: u16::try_from(port.port).ok()?,
        node_port: u16::try_from(port.node_port).unwrap_or(0),
        transport: transport(&port.protocol)?,
    })
}

/// An EndpointSlice as it is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, kube::Resource)]
#[resource(inherit = EndpointSlice)]
pub struct SliceSource {
    metadata: ObjectMeta,
    #[serde(default)]
    endpoints: Option<Vec<SliceEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<SlicePort>>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct SliceEndpoint {
    addresses: Vec<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct SlicePort {
    name: Option<String>,
    port: Option<i32>,
    protocol: Option<String>,
}

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Trim for SliceSource {
    const KIND: Kind = Kind::EndpointSlice;

    fn key(&self) -> String {
        namespaced_key(&self.metadata)
    }

    fn trim(self) -> Inventory {
        let Self {
            metadata,
            endpoints,
            ports,
        } = self;
        let service = metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(SERVICE_NAME))
            .cloned();
        Inventory::Slice(input::EndpointSlice {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            service: service.unwrap_or_default(),
            ports: ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(slice_port)
                .collect(),
            endpoints: endpoints
                .unwrap_or_default()
                .into_iter()
                .map(slice_endpoint)
                .collect(),
        })
    }

    fn gone(key: String) -> Inventory {
        let (namespace, name) = split_key(&key);
        Inventory::SliceGone { namespace, name }
    }
}

fn slice_port(port: SlicePort) -> Option<input::EndpointPort> {
    Some(input::EndpointPort {
        name: port.name.unwrap_or_default(),
        port: u16::try_from(port.port?).ok()?,
        transport: transport(port.protocol.as_deref().unwrap_or_default())?,
    })
}

fn slice_endpoint(endpoint: SliceEndpoint) -> input::Endpoint {
    input::Endpoint {
        addresses: endpoint
            .addresses
            .iter()
            .filter_map(|text| address(text))
            .collect(),
        pod_uid: endpoint
            .target_ref
            .filter(|target| target.kind == "Pod")
            .and_then(|target| target.uid),
    }
}

/// Where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// A Node as it is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, kube::Resource)]
#[resource(inherit = Node)]
pub struct NodeSource {
    metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeAddress {
    address: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Trim for NodeSource {
    const KIND: Kind = Kind::Node;

    fn key(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    fn trim(self) -> Inventory {
        let addresses = self.status.addresses.iter();
        let mut labels = self.metadata.labels.unwrap_or_default();
        Inventory::Node(input::Node {
            zone: labels.remove(ZONE).unwrap_or_default(),
            name: self.metadata.name.unwrap_or_default(),
            addresses: addresses
                .filter(|one| matches!(one.kind.as_str(), "InternalIP" | "ExternalIP"))
                .filter_map(|one| address(&one.address))
                .collect(),
        })
    }

    fn gone(key: String) -> Inventory {
        Inventory::NodeGone { name: key }
    }
}

#[cfg(test)]
#[path = "trim_tests.rs"]
mod tests;
