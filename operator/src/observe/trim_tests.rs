use serde_json::{Value, json};

use super::*;

fn trimmed<T: Trim + for<'de> Deserialize<'de>>(object: Value) -> Inventory {
    serde_json::from_value::<T>(object).expect("an object").trim()
}

#[test]
fn a_service_keeps_every_address_and_only_observed_protocols() {
    let Inventory::Service(service) = trimmed::<ServiceSource>(json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "externalIPs": ["192.0.2.1"],
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": "http"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "sctp", "port": 99, "protocol": "SCTP"}
            ]
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.4"}, {"hostname": "lb.example"}]}}
    })) else {
        panic!("a Service");
    };
    assert_eq!(service.addresses.len(), 4);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (port.port, port.node_port, port.transport))
        .collect();
    assert_eq!(ports, [(80, 30080, Transport::Tcp), (53, 0, Transport::Udp)]);
}

#[test]
fn a_headless_service_has_no_address() {
    let Inventory::Service(service) = trimmed::<ServiceSource>(json!({
        "metadata": {"namespace": "shop", "name": "db"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}
    })) else {
        panic!("a Service");
    };
    assert!(service.addresses.is_empty());
}

#[test]
fn a_slice_keeps_endpoints_that_are_not_ready_and_endpoints_without_pod() {
    let Inventory::Slice(slice) = trimmed::<SliceSource>(json!({
        "metadata": {"namespace": "shop", "name": "web-x", "labels": {SERVICE_NAME: "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "any", "port": null}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false},
             "targetRef": {"kind": "Pod", "name": "web-1", "uid": "u1"}},
            {"addresses": ["192.0.2.9"]},
            {"addresses": ["10.250.0.1"], "targetRef": {"kind": "Node", "uid": "n"}}
        ]
    })) else {
        panic!("a slice");
    };
    assert_eq!(slice.service, "web");
    assert_eq!(slice.ports.len(), 1);
    let pods: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.pod_uid.as_deref())
        .collect();
    assert_eq!(pods, [Some("u1"), None, None]);
}

#[test]
fn a_slice_without_endpoints_and_ports_is_empty() {
    let Inventory::Slice(slice) = trimmed::<SliceSource>(json!({
        "metadata": {"namespace": "shop", "name": "web-x"}, "endpoints": null, "ports": null
    })) else {
        panic!("a slice");
    };
    assert!(slice.endpoints.is_empty() && slice.ports.is_empty() && slice.service.is_empty());
}

#[test]
fn a_node_keeps_its_addresses_and_its_zone_and_not_its_names() {
    let Inventory::Node(node) = trimmed::<NodeSource>(json!({
        "metadata": {"name": "n1", "labels": {ZONE: "west-1", "topology.kubernetes.io/region": "west"}},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "10.250.0.1"}, {"type": "Hostname", "address": "n1"},
            {"type": "ExternalIP", "address": "198.51.100.1"}
        ]}
    })) else {
        panic!("a Node");
    };
    assert_eq!(node.addresses.len(), 2);
    assert_eq!(node.zone, "west-1");
    let Inventory::Node(bare) = trimmed::<NodeSource>(json!({"metadata": {"name": "n2"}, "status": {}}))
    else {
        panic!("a Node");
    };
    assert_eq!(bare.zone, "");
}

#[test]
fn a_replica_set_says_who_controls_it() {
    let Inventory::Controller(set) = trimmed::<PartialObjectMeta<ReplicaSet>>(json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {
            "uid": "2", "name": "web-5", "namespace": "shop",
            "ownerReferences": [
                {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "3", "controller": true}
            ]
        }
    })) else {
        panic!("a controller");
    };
    let owner = set.controller.expect("controlled");
    assert_eq!(
        (set.kind.as_str(), set.api_group.as_str()),
        ("ReplicaSet", "apps")
    );
    assert_eq!(
        (owner.api_group.as_str(), owner.kind.as_str()),
        ("argoproj.io", "Rollout")
    );
}

#[test]
fn a_namespace_that_is_being_deleted_is_terminating() {
    let with = |deletion: Value| {
        trimmed::<PartialObjectMeta<Namespace>>(json!({
            "metadata": {"name": "shop", "deletionTimestamp": deletion}
        }))
    };
    assert_eq!(
        with(json!("2026-01-01T00:00:00Z")),
        Inventory::Namespace {
            name: "shop".into(),
            terminating: true
        }
    );
    assert_eq!(
        with(Value::Null),
        Inventory::Namespace {
            name: "shop".into(),
            terminating: false
        }
    );
}

#[test]
fn a_key_names_the_object_that_is_gone() {
    let source: SliceSource =
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "web-x"}})).expect("a slice");
    let gone = Inventory::SliceGone {
        namespace: "shop".into(),
        name: "web-x".into(),
    };
    assert_eq!(SliceSource::gone(source.key()), gone);
}
