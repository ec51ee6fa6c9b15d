//! Services without a selector, on node ports, and the API server's.

use leyline_graph::entity::Transport;
use leyline_graph::input::{Endpoint, ServicePort};

use crate::services::shop;
use crate::support::{N1, N2, World, client, conn, ip, process_server, service, slice};

/// Service default/kubernetes with the API server of n1 behind it.
fn with_api_server(world: &mut World) {
    let mut kubernetes = service("kubernetes", "10.96.0.1", 443);
    kubernetes.namespace = "default".to_owned();
    world.graph.apply_service(kubernetes, world.time());
    let mut endpoints = slice("kubernetes", 6443, &[]);
    endpoints.namespace = "default".to_owned();
    endpoints.endpoints = vec![Endpoint {
        addresses: vec![ip(N1)],
        pod_uid: None,
    }];
    world.graph.apply_endpoint_slice(endpoints, world.time());
}

#[test]
fn the_api_server_is_named_by_the_connection_and_else_as_its_service() {
    let mut world = shop();
    with_api_server(&mut world);
    let dial = client("web-1").to("10.96.0.1", 443);
    world.report(
        "n1",
        [
            dial.clone().with([conn(1).open()]),
            process_server("kube-apiserver")
                .from("10.244.0.5", 6443)
                .with([conn(1).local(N1, 6443).open()]),
        ],
    );
    world.expect(&["Deployment/web -> NodeProcess/kube-apiserver:6443"]);
    assert_eq!(
        world
            .edge("Deployment/web -> NodeProcess/kube-apiserver:6443")
            .service
            .unwrap()
            .name,
        "kubernetes"
    );
    // Refused attempts follow what the connections proved.
    world.report("n1", [dial.with([conn(1).open()]).refused(3)]);
    world.expect(&["Deployment/web -> NodeProcess/kube-apiserver:6443"]);
    assert_eq!(
        world
            .edge("Deployment/web -> NodeProcess/kube-apiserver:6443")
            .totals
            .refused,
        3
    );

    let mut alone = shop();
    with_api_server(&mut alone);
    alone.report("n1", [client("web-1").to("10.96.0.1", 443).with([conn(1)])]);
    alone.pass(11_000);
    alone.expect(&["Deployment/web -> Service/kubernetes:443"]);
}

#[test]
fn a_node_port_is_its_service() {
    let mut world = shop();
    let mut redis = service("redis", "10.96.0.9", 6379);
    redis.ports = vec![ServicePort {
        name: String::new(),
        port: 6379,
        node_port: 30_379,
        transport: Transport::Tcp,
    }];
    world.graph.apply_service(redis, world.time());
    world.report("n1", [client("web-1").to(N2, 30_379).opened(1)]);
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/redis:6380")
            .service
            .unwrap()
            .port,
        6379
    );
}

#[test]
fn hand_made_endpoints_name_one_address_outside_and_no_more() {
    let mut world = shop();
    world
        .graph
        .apply_service(service("legacy", "10.96.0.20", 5432), world.time());
    let mut endpoints = slice("legacy", 5432, &[]);
    endpoints.endpoints = vec![Endpoint {
        addresses: vec![ip("192.168.7.7")],
        pod_uid: None,
    }];
    world.graph.apply_endpoint_slice(endpoints.clone(), world.time());
    world.report("n1", [client("web-1").to("10.96.0.20", 5432).opened(1)]);
    world.expect(&["Deployment/web -> Address/192.168.7.7:5432"]);
    endpoints.endpoints.push(Endpoint {
        addresses: vec![ip("192.168.7.8")],
        pod_uid: None,
    });
    world.graph.apply_endpoint_slice(endpoints, world.time());
    world.report(
        "n1",
        [client("web-1").to("10.96.0.20", 5432).opened(2).with([conn(9)])],
    );
    world.pass(11_000);
    world.expect(&[
        "Deployment/web -> Address/192.168.7.7:5432",
        "Deployment/web -> Service/legacy:5432",
    ]);
}
