//! What an end is called, and which connections are no edges at all.

use crate::support::{
    N1, N2, World, client, conn, controller, ip, owner, pod, process_client, process_server, server, service,
    slice,
};
use leyline_graph::input::{Controller, Endpoint, Role};
use leyline_graph::{Closed, End, Unnamed, Unresolved};

/// A world with a redis of node n1 and Service default/kubernetes on n1:6443.
fn world() -> World {
    let mut world = World::new();
    world.pod(
        pod("redis-0")
            .at("10.244.0.6")
            .of("StatefulSet", "redis")
            .probed(6380),
    );
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
    world
}

/// The name of a client pod that dials redis directly.
fn client_name(prepare: impl FnOnce(&mut World), uid: &str) -> String {
    let mut world = world();
    prepare(&mut world);
    world.report("n1", [client(uid).to("10.244.0.6", 6380).opened(1)]);
    let names: Vec<String> = world.edges().into_keys().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].split(" -> ").next().unwrap().to_owned()
}

#[test]
fn a_replica_set_is_its_deployment_or_whatever_controls_it() {
    for kind in ["Deployment", "Rollout"] {
        let name = client_name(
            |world| {
                let set = Controller {
                    controller: Some(owner("apps", kind, "web")),
                    ..controller("ReplicaSet", "web-7f")
                };
                world.graph.apply_controller(set, world.time());
                world.pod(pod("web-7f-x").of("ReplicaSet", "web-7f"));
            },
            "web-7f-x",
        );
        assert_eq!(name, format!("{kind}/web"));
    }
}

#[test]
fn a_job_is_its_cron_job_and_not_further_up_than_itself_otherwise() {
    for (above, expected) in [("CronJob", "CronJob/report"), ("Workflow", "Job/report-123")] {
        let name = client_name(
            |world| {
                let job = Controller {
                    controller: Some(owner("batch", above, "report")),
                    ..controller("Job", "report-123")
                };
                world.graph.apply_controller(job, world.time());
                world.pod(pod("report-123-x").of("Job", "report-123"));
            },
            "report-123-x",
        );
        assert_eq!(name, expected);
    }
}

#[test]
fn a_generated_controller_name_folds_to_its_prefix() {
    let name = client_name(
        |world| {
            let job = Controller {
                generate_name: "import-".to_owned(),
                ..controller("Job", "import-x7k2p")
            };
            world.graph.apply_controller(job, world.time());
            world.pod(pod("import-x7k2p-abcde").of("Job", "import-x7k2p"));
        },
        "import-x7k2p-abcde",
    );
    assert_eq!(name, "Job/import");
}

#[test]
fn any_other_controller_and_a_bare_pod_are_themselves() {
    assert_eq!(
        client_name(
            |world| world.pod(pod("agent-1").of("DaemonSet", "agent")),
            "agent-1"
        ),
        "DaemonSet/agent"
    );
    assert_eq!(
        client_name(|world| world.pod(pod("pg-1").of("Cluster", "pg")), "pg-1"),
        "Cluster/pg"
    );
    assert_eq!(client_name(|world| world.pod(pod("debug")), "debug"), "Pod/debug");
}

#[test]
fn a_static_pod_is_known_by_its_config_hash_and_named_without_its_node() {
    let name = client_name(
        |world| {
            let mut mirror = pod("3f2a-uid").host();
            mirror.0.name = "kube-scheduler-n1".to_owned();
            mirror.0.config_hash = Some("0123456789abcdef".to_owned());
            mirror.0.controller = Some(owner("", "Node", "n1"));
            world.pod(mirror);
        },
        "0123456789abcdef",
    );
    assert_eq!(name, "Pod/kube-scheduler");
}

#[test]
fn half_edges_of_another_nodes_pods_are_counted_and_dropped() {
    let mut world = world();
    world.pod(pod("web-1").on("n1").at("10.244.0.5").of("Deployment", "web"));
    world.report(
        "n2",
        [client("web-1").to("10.244.0.6", 6380).with([conn(1), conn(2)])],
    );
    world.expect(&[]);
    assert_eq!(world.closed(Closed::OtherNode), 2);
    assert_eq!(world.graph.stats().records, 0);
    world.report(
        "n1",
        [client("web-1").to("10.244.0.6", 6380).with([conn(1), conn(2)])],
    );
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/redis:6380")
            .totals
            .opened,
        2
    );
}

#[test]
fn host_network_pods_are_named_at_both_ends() {
    let mut world = world();
    world.pod(pod("logger-1").on("n1").host().at(N1).of("DaemonSet", "logger"));
    world.pod(
        pod("gateway-1")
            .on("n2")
            .host()
            .at(N2)
            .of("Deployment", "gateway"),
    );
    // As a client, by its cgroup; the server half comes from a node's address.
    world.report(
        "n1",
        [
            client("logger-1").to("10.244.0.6", 6380).with([conn(1)]),
            server("redis-0").from("10.244.0.1", 6380).with([conn(1)]),
        ],
    );
    // As a server, by the connection.
    world.report("n1", [client("logger-1").to(N2, 8443).with([conn(2)])]);
    world.report("n2", [server("gateway-1").from(N1, 8443).with([conn(2)])]);
    world.pass(20_000);
    world.expect(&[
        "DaemonSet/logger -> Deployment/gateway:8443",
        "DaemonSet/logger -> StatefulSet/redis:6380",
    ]);
    let edge = world.edge("DaemonSet/logger -> StatefulSet/redis:6380");
    assert_eq!(edge.totals.opened, 1);
    assert!(edge.evidence.client_socket && edge.evidence.server_socket);
}

#[test]
fn a_host_network_server_behind_a_service_needs_no_other_half() {
    let mut world = world();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(
        pod("gateway-1")
            .on("n2")
            .host()
            .at(N2)
            .of("Deployment", "gateway"),
    );
    world.service("gateway", "10.96.0.30", 443, 8443, &["gateway-1"]);
    world.report("n1", [client("web-1").to("10.96.0.30", 443).opened(1)]);
    world.expect(&["Deployment/web -> Deployment/gateway:8443"]);
}

#[test]
fn a_node_address_without_the_other_half_is_an_address() {
    let mut world = world();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.report("n1", [client("web-1").to(N2, 9100).with([conn(1)])]);
    world.pass(11_000);
    world.expect(&["Deployment/web -> Address/10.250.0.2:9100"]);
    let unresolved = world.edge("Deployment/web -> Address/10.250.0.2:9100").unresolved;
    assert_eq!(
        unresolved,
        Some(Unresolved {
            end: End::Server,
            reason: Unnamed::NodeAddress
        })
    );
}

#[test]
fn the_kubelets_probe_is_no_edge_whichever_half_is_seen() {
    let kubelet = || process_client("kubelet.service").to("10.244.0.6", 6380);
    let redis = || server("redis-0").from("10.244.0.1", 6380);
    let mut client_only = world();
    client_only.report("n1", [kubelet().with([conn(1)]).refused(1)]);
    let mut server_only = world();
    server_only.report("n1", [redis().with([conn(1)])]);
    let mut both = world();
    both.report("n1", [redis().with([conn(1)]), kubelet().with([conn(1)])]);
    for mut world in [client_only, server_only, both] {
        world.pass(60_000);
        world.expect(&[]);
        assert!(world.closed(Closed::Probe) > 0);
    }
}

#[test]
fn a_pod_of_the_host_network_on_a_probed_port_is_no_probe() {
    let mut world = world();
    world.pod(pod("logger-1").on("n1").host().at(N1).of("DaemonSet", "logger"));
    world.report("n1", [server("redis-0").from(N1, 6380).with([conn(1)])]);
    world.report("n1", [client("logger-1").to("10.244.0.6", 6380).with([conn(1)])]);
    world.pass(20_000);
    world.expect(&["DaemonSet/logger -> StatefulSet/redis:6380"]);
}

#[test]
fn a_process_on_another_port_than_a_probes_is_a_client() {
    let mut world = world();
    world.report(
        "n1",
        [process_client("backup.service").to("10.244.0.6", 9999).opened(1)],
    );
    world.expect(&["NodeProcess/backup.service -> StatefulSet/redis:9999"]);
}

#[test]
fn loopback_and_a_pods_own_address_are_no_edges() {
    let mut world = world();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.report(
        "n1",
        [
            client("web-1").to("127.0.0.1", 80).opened(1),
            client("web-1").to("10.244.0.5", 80).with([conn(1)]),
            server("web-1").from("10.244.0.5", 80).with([conn(1)]),
        ],
    );
    world.pass(20_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::Loopback), 1);
    assert!(world.closed(Closed::SamePod) > 0);
}

#[test]
fn node_processes_make_an_edge_among_themselves_only_with_an_api_server() {
    let mut world = world();
    world.report(
        "n2",
        [
            process_client("kubelet.service").to(N1, 6443).with([conn(1)]),
            process_client("etcdctl").to(N1, 2379).with([conn(2)]),
            process_client("chronyd.service").to("192.0.2.7", 123).opened(1),
        ],
    );
    world.report(
        "n1",
        [
            process_server("kube-apiserver")
                .from(N2, 6443)
                .with([conn(1).local(N1, 6443)]),
            process_server("etcd")
                .from(N2, 2379)
                .with([conn(2).local(N1, 2379)]),
            process_server("sshd.service").from("192.0.2.8", 22).opened(1),
        ],
    );
    world.pass(20_000);
    world.expect(&["NodeProcess/kubelet.service -> NodeProcess/kube-apiserver:6443"]);
    let key = world
        .edge("NodeProcess/kubelet.service -> NodeProcess/kube-apiserver:6443")
        .key;
    assert_eq!(
        (key.client.namespace.as_str(), key.server.namespace.as_str()),
        ("", "")
    );
    assert!(world.closed(Closed::NodeProcess) >= 3);
}

#[test]
fn ends_outside_the_cluster() {
    let mut world = world();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.report(
        "n1",
        [
            client("web-1").to("192.0.2.10", 8080).unsplit().opened(1),
            server("web-1").from("203.0.113.9", 80).unsplit().opened(2),
            server("web-1").from("192.168.9.9", 80).opened(4),
        ],
    );
    world.expect(&[
        "Deployment/web -> Address/192.0.2.10:8080",
        "External/world -> Deployment/web:80",
    ]);
    // A private address may yet turn out to be a pod's.
    world.pass(11_000);
    world.expect(&[
        "Deployment/web -> Address/192.0.2.10:8080",
        "External/private -> Deployment/web:80",
        "External/world -> Deployment/web:80",
    ]);
    let edge = world.edge("Deployment/web -> Address/192.0.2.10:8080");
    assert_eq!(
        edge.unresolved,
        Some(Unresolved {
            end: End::Server,
            reason: Unnamed::NoName
        })
    );
    assert_eq!(
        world.edge("External/private -> Deployment/web:80").totals.opened,
        4
    );
}

#[test]
fn an_undecided_role_is_what_the_other_half_leaves() {
    let mut world = world();
    world.pod(pod("web-1").on("n2").at("10.244.1.5").of("Deployment", "web"));
    let old = client("web-1").role(Role::Unknown).to("10.244.0.6", 6380);
    world.report("n2", [old.with([conn(1).adopted().bytes(5, 6)])]);
    world.expect(&[]);
    world.report(
        "n1",
        [server("redis-0")
            .from(N2, 6380)
            .with([conn(1).adopted().bytes(6, 5)])],
    );
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    let edge = world.edge("Deployment/web -> StatefulSet/redis:6380");
    assert_eq!((edge.totals.opened, edge.totals.active), (0, 1));
    assert_eq!((edge.totals.bytes_sent, edge.totals.bytes_received), (5, 6));

    let mut alone = self::world();
    let undecided = server("redis-0").role(Role::Unknown).from(N2, 6380);
    alone.report("n1", [undecided.clone().with([conn(1).adopted()])]);
    alone.pass(20_000);
    alone.expect(&[]);
    let mut closed = conn(1).adopted();
    closed.closed = true;
    alone.report("n1", [undecided.with([closed])]);
    alone.pass(20_000);
    alone.expect(&[]);
    assert_eq!(alone.closed(Closed::RoleUnknown), 1);
}

#[test]
fn given_up_attempts_alone_are_no_edge() {
    let mut world = world();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    let dial = client("web-1").to("10.244.0.6", 6380);
    world.report("n1", [dial.clone().aborted(5)]);
    world.expect(&[]);
    world.report("n1", [dial.aborted(5).refused(1)]);
    let totals = world.edge("Deployment/web -> StatefulSet/redis:6380").totals;
    assert_eq!((totals.aborted, totals.failed()), (5, 1));
}
