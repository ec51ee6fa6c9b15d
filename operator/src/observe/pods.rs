//! Pods: what is read of them, and what is kept.
//!
//! [`PodSource`] has only the fields that are needed, so that the rest of a pod is skipped while it is parsed.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leyline_graph::{entity, input};
use serde::{Deserialize, Serialize};

use super::trim::{self, Trim};
use crate::graph::{Inventory, Kind};

/// Static pods carry their config hash in their cgroup path.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// A pod as it is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, kube::Resource)]
#[resource(inherit = Pod)]
pub struct PodSource {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
    /// Sidecars are init containers with probes.
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<Port>,
    liveness_probe: Option<Probe>,
    readiness_probe: Option<Probe>,
    startup_probe: Option<Probe>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: i32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<Target>,
    tcp_socket: Option<Target>,
    grpc: Option<Target>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Target {
    port: IntOrString,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    start_time: Option<Time>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

impl Trim for PodSource {
    const KIND: Kind = Kind::Pod;

    fn key(&self) -> String {
        self.metadata.uid.clone().unwrap_or_default()
    }

    fn trim(self) -> Inventory {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let mut probe_ports: Vec<u16> = containers.flat_map(Container::probe_ports).collect();
        probe_ports.sort_unstable();
        probe_ports.dedup();
        let hash = metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(CONFIG_HASH))
            .cloned();
        Inventory::Pod(input::Pod {
            controller: trim::controller(&metadata),
            uid: metadata.uid.unwrap_or_default(),
            config_hash: hash,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            generate_name: metadata.generate_name.unwrap_or_default(),
            node: spec.node_name,
            host_network: spec.host_network,
            addresses: status
                .pod_ips
                .iter()
                .filter_map(|PodIp { ip }| trim::address(ip))
                .collect::<Vec<IpAddr>>(),
            probe_ports,
            started: status
                .start_time
                .map(|Time(at)| entity::Time(at.as_millisecond())),
            finished: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        })
    }

    fn gone(key: String) -> Inventory {
        Inventory::PodGone { uid: key }
    }
}

impl Container {
    fn probe_ports(&self) -> impl Iterator<Item = u16> {
        let probes = [&self.liveness_probe, &self.readiness_probe, &self.startup_probe];
        probes
            .into_iter()
            .flatten()
            .flat_map(|probe| [&probe.http_get, &probe.tcp_socket, &probe.grpc])
            .flatten()
            .filter_map(|target| self.number(&target.port))
    }

    /// A name is one of the same container's ports.
    fn number(&self, port: &IntOrString) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => self.ports.iter().find(|port| port.name == *name)?.container_port,
        };
        u16::try_from(number).ok().filter(|&port| port != 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trimmed(pod: serde_json::Value) -> input::Pod {
        let source: PodSource = serde_json::from_value(pod).expect("a pod");
        match source.trim() {
            Inventory::Pod(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_the_graph_needs_is_kept() {
        let pod = trimmed(json!({
            "metadata": {
                "uid": "u", "name": "web-5-x", "namespace": "shop", "generateName": "web-5-",
                "annotations": {CONFIG_HASH: "abc", "other": "x"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5", "uid": "2", "controller": true}
                ]
            },
            "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "startTime": "2026-01-01T00:00:01Z", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
        }));
        let controller = pod.controller.expect("the one with controller: true");
        assert_eq!(
            (
                controller.api_group.as_str(),
                controller.kind.as_str(),
                controller.name.as_str()
            ),
            ("apps", "ReplicaSet", "web-5")
        );
        assert_eq!(
            (pod.node.as_str(), pod.host_network, pod.finished),
            ("n1", true, false)
        );
        assert_eq!(pod.config_hash.as_deref(), Some("abc"));
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!(pod.started, Some(entity::Time(1_767_225_601_000)));
        assert!(pod.probe_ports.is_empty());
    }

    #[test]
    fn probe_ports_are_numbers_and_resolved_names_of_the_same_container() {
        let pod = trimmed(json!({
            "metadata": {"uid": "u"},
            "spec": {
                "containers": [
                    {
                        "ports": [{"name": "health", "containerPort": 9000}],
                        "livenessProbe": {"httpGet": {"port": "health", "path": "/"}},
                        "readinessProbe": {"tcpSocket": {"port": 8080}},
                        "startupProbe": {"grpc": {"port": 7000}},
                        "lifecycle": {"preStop": {"httpGet": {"port": 6000}}}
                    },
                    {"livenessProbe": {"httpGet": {"port": "health"}}, "readinessProbe": {"exec": {"command": ["x"]}}}
                ],
                "initContainers": [{"restartPolicy": "Always", "readinessProbe": {"httpGet": {"port": 15021}}}]
            }
        }));
        assert_eq!(pod.probe_ports, [7000, 8080, 9000, 15021]);
    }

    #[test]
    fn a_finished_or_unscheduled_pod_and_nonsense_do_no_harm() {
        assert!(trimmed(json!({"metadata": {"uid": "u"}, "status": {"phase": "Succeeded"}})).finished);
        assert_eq!(
            trimmed(json!({"metadata": {"uid": "u"}, "spec": {}, "status": {}})).node,
            ""
        );
        let odd = trimmed(json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"livenessProbe": {"tcpSocket": {"port": -4}}}]},
            "status": {"podIPs": [{"ip": "nonsense"}, {"ip": "::ffff:10.0.0.9"}]}
        }));
        assert!(odd.probe_ports.is_empty());
        assert_eq!(odd.addresses, ["10.0.0.9".parse::<IpAddr>().expect("address")]);
    }
}
