//! Clients that dial a Service: which workload answers, and when only the connection itself can tell.

use crate::support::{N1, World, client, conn, pod, server};
use leyline_graph::{Closed, End, ServiceRef, Unnamed, Unresolved};

/// web (n1) and two redis pods (n1, n2) of one StatefulSet behind Service redis.
pub(crate) fn shop() -> World {
    let mut world = World::new();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(pod("redis-0").at("10.244.0.6").of("StatefulSet", "redis"));
    world.pod(
        pod("redis-1")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "redis"),
    );
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0", "redis-1"]);
    world
}

#[test]
fn a_service_with_one_workload_names_it_and_its_own_port() {
    let mut world = shop();
    world.report(
        "n1",
        [client("web-1").to("10.96.0.9", 6379).opened(3).bytes(30, 300)],
    );
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    let edge = world.edge("Deployment/web -> StatefulSet/redis:6380");
    assert_eq!(
        (
            edge.totals.opened,
            edge.totals.bytes_sent,
            edge.totals.bytes_received
        ),
        (3, 30, 300)
    );
    let redis = ServiceRef {
        namespace: "shop".to_owned(),
        name: "redis".to_owned(),
        port: 6379,
    };
    assert_eq!(edge.service, Some(redis));
    assert!(edge.evidence.client_socket && !edge.evidence.server_socket);
    assert_eq!(edge.unresolved, None);
    assert!(!edge.incomplete.any());
}

#[test]
fn both_halves_count_a_connection_once_as_the_client_sees_it() {
    let mut world = shop();
    world.report(
        "n1",
        [
            client("web-1")
                .to("10.96.0.9", 6379)
                .with([conn(1).bytes(10, 100)]),
            server("redis-0")
                .from("10.244.0.5", 6380)
                .with([conn(1).bytes(100, 10)]),
        ],
    );
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    let edge = world.edge("Deployment/web -> StatefulSet/redis:6380");
    assert_eq!(
        (
            edge.totals.opened,
            edge.totals.bytes_sent,
            edge.totals.bytes_received
        ),
        (1, 10, 100)
    );
    assert!(edge.evidence.client_socket && edge.evidence.server_socket);
}

#[test]
fn a_masqueraded_connection_across_nodes_is_one_edge_with_both_sides_evidence() {
    let mut world = shop();
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.9", 6379)
            .with([conn(1).bytes(10, 100)])],
    );
    world.report(
        "n2",
        [server("redis-1").from(N1, 6380).with([conn(1).bytes(100, 10)])],
    );
    world.pass(60_000);
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    let edge = world.edge("Deployment/web -> StatefulSet/redis:6380");
    assert_eq!((edge.totals.opened, edge.totals.bytes_sent), (1, 10));
    assert!(edge.evidence.client_socket && edge.evidence.server_socket);
}

#[test]
fn a_masqueraded_server_half_alone_becomes_an_address_only_after_ten_seconds() {
    let mut world = shop();
    world.report("n2", [server("redis-1").from(N1, 6380).with([conn(1)])]);
    world.pass(9_000);
    world.expect(&[]);
    world.pass(2_000);
    world.expect(&["Address/10.250.0.1 -> StatefulSet/redis:6380"]);
    let edge = world.edge("Address/10.250.0.1 -> StatefulSet/redis:6380");
    assert_eq!(
        edge.unresolved,
        Some(Unresolved {
            end: End::Client,
            reason: Unnamed::NodeAddress
        })
    );
}

#[test]
fn a_late_match_moves_a_fallen_back_connection_and_the_wrong_edge_vanishes() {
    let mut world = shop();
    world.report(
        "n2",
        [server("redis-1").from(N1, 6380).with([conn(1).bytes(100, 10)])],
    );
    world.pass(12_000);
    let wrong = world.edge("Address/10.250.0.1 -> StatefulSet/redis:6380").key;
    world.graph.drain_changed();
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.9", 6379)
            .with([conn(1).bytes(10, 100)])],
    );
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    assert!(world.graph.drain_changed().contains(&wrong));
    assert_eq!(world.graph.edge(&wrong), None);
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/redis:6380")
            .totals
            .opened,
        1
    );
}

/// Service api over Deployments stable (n1) and canary (n2), client web on n1.
fn canary() -> World {
    let mut world = World::new();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(pod("stable-1").at("10.244.0.7").of("Deployment", "stable"));
    world.pod(
        pod("canary-1")
            .on("n2")
            .at("10.244.1.7")
            .of("Deployment", "canary"),
    );
    world.service("api", "10.96.0.8", 80, 8080, &["stable-1", "canary-1"]);
    world
}

#[test]
fn two_workloads_behind_a_service_are_told_apart_by_the_connections() {
    for masqueraded in [false, true] {
        let mut world = canary();
        let seen_from = if masqueraded { N1 } else { "10.244.0.5" };
        world.report(
            "n1",
            [
                client("web-1").to("10.96.0.8", 80).with([
                    conn(1).bytes(1, 10),
                    conn(2).bytes(2, 20),
                    conn(3).bytes(4, 40).open(),
                ]),
                server("stable-1")
                    .from("10.244.0.5", 8080)
                    .with([conn(1).bytes(10, 1)]),
            ],
        );
        world.report(
            "n2",
            [server("canary-1")
                .from(seen_from, 8080)
                .with([conn(2).bytes(20, 2), conn(3).bytes(40, 4).open()])],
        );
        world.pass(30_000);
        world.expect(&[
            "Deployment/web -> Deployment/canary:8080",
            "Deployment/web -> Deployment/stable:8080",
        ]);
        let canary = world.edge("Deployment/web -> Deployment/canary:8080");
        assert_eq!(
            (
                canary.totals.opened,
                canary.totals.active,
                canary.totals.bytes_sent
            ),
            (2, 1, 6)
        );
        assert_eq!(canary.totals.bytes_received, 60);
        assert!(canary.evidence.client_socket && canary.evidence.server_socket);
        assert_eq!(canary.service.unwrap().port, 80);
        let stable = world.edge("Deployment/web -> Deployment/stable:8080");
        assert_eq!(
            (
                stable.totals.opened,
                stable.totals.active,
                stable.totals.bytes_sent
            ),
            (1, 0, 1)
        );
    }
}

#[test]
fn two_workloads_without_proof_are_the_service_after_ten_seconds() {
    let mut world = canary();
    world.report("n1", [client("web-1").to("10.96.0.8", 80).with([conn(1)])]);
    world.pass(9_500);
    world.expect(&[]);
    world.pass(1_000);
    world.expect(&["Deployment/web -> Service/api:80"]);
    let edge = world.edge("Deployment/web -> Service/api:80");
    assert_eq!(
        edge.unresolved,
        Some(Unresolved {
            end: End::Server,
            reason: Unnamed::Ambiguous
        })
    );
}

#[test]
fn a_refused_connection_to_one_of_two_workloads_names_the_service() {
    let mut world = canary();
    world.report("n1", [client("web-1").to("10.96.0.8", 80).refused(2)]);
    world.expect(&["Deployment/web -> Service/api:80"]);
    let edge = world.edge("Deployment/web -> Service/api:80");
    assert_eq!((edge.totals.failed(), edge.totals.opened), (2, 0));
    assert!(edge.last_failure.is_some() && edge.last_success.is_none());
}

#[test]
fn refused_connections_follow_the_first_proof_and_stay_with_the_service_after_a_second() {
    let mut world = canary();
    let dial = || client("web-1").to("10.96.0.8", 80);
    world.report("n1", [dial().refused(2)]);
    world.report("n1", [dial().refused(2).with([conn(1)])]);
    world.report("n2", [server("canary-1").from(N1, 8080).with([conn(1)])]);
    world.expect(&["Deployment/web -> Deployment/canary:8080"]);
    assert_eq!(
        world
            .edge("Deployment/web -> Deployment/canary:8080")
            .totals
            .refused,
        2
    );
    world.report(
        "n1",
        [
            dial().refused(2).with([conn(1), conn(2)]),
            server("stable-1").from("10.244.0.1", 8080).with([conn(2)]),
        ],
    );
    world.report("n1", [dial().refused(3).with([conn(1), conn(2)])]);
    world.expect(&[
        "Deployment/web -> Deployment/canary:8080",
        "Deployment/web -> Deployment/stable:8080",
        "Deployment/web -> Service/api:80",
    ]);
    assert_eq!(world.edge("Deployment/web -> Service/api:80").totals.refused, 1);
}

#[test]
fn a_second_workload_behind_the_service_renames_nothing_counted_before() {
    let mut world = canary();
    world.slice("api", 8080, &["stable-1"]);
    world.pass(60_000);
    let half = client("web-1").to("10.96.0.8", 80);
    world.report("n1", [half.clone().with([conn(1).open().bytes(5, 5)])]);
    world.slice("api", 8080, &["stable-1", "canary-1"]);
    world.pass(1_000);
    // Connection 1 goes on and closes, 2 and 3 are new.
    let mut later = half.with([conn(1).bytes(7, 7), conn(2), conn(3)]);
    later.connections[0].opened = Some(world.now - 1_000);
    world.report(
        "n1",
        [
            later,
            server("stable-1")
                .from("10.244.0.5", 8080)
                .with([conn(1).bytes(7, 7), conn(2)]),
        ],
    );
    world.report("n2", [server("canary-1").from(N1, 8080).with([conn(3)])]);
    world.expect(&[
        "Deployment/web -> Deployment/canary:8080",
        "Deployment/web -> Deployment/stable:8080",
    ]);
    let stable = world.edge("Deployment/web -> Deployment/stable:8080").totals;
    assert_eq!((stable.opened, stable.active, stable.bytes_sent), (2, 0, 7));
    assert_eq!(
        world
            .edge("Deployment/web -> Deployment/canary:8080")
            .totals
            .opened,
        1
    );
}

#[test]
fn an_endpoint_that_left_a_moment_ago_still_counts_as_a_candidate() {
    let mut world = canary();
    world.slice("api", 8080, &["stable-1"]);
    world.pass(10_000);
    world.report("n1", [client("web-1").to("10.96.0.8", 80).with([conn(1)])]);
    world.expect(&[]);
    world.report("n2", [server("canary-1").from(N1, 8080).with([conn(1)])]);
    world.expect(&["Deployment/web -> Deployment/canary:8080"]);
    world.pass(30_000);
    world.report("n1", [client("web-1").to("10.96.0.8", 80).opened(5)]);
    world.expect(&[
        "Deployment/web -> Deployment/canary:8080",
        "Deployment/web -> Deployment/stable:8080",
    ]);
}

#[test]
fn a_service_without_endpoints_fails_as_itself_and_as_its_workload_once_there_is_one() {
    let mut world = shop();
    world.slice("redis", 6380, &[]);
    world.pass(120_000);
    world.report("n1", [client("web-1").to("10.96.0.9", 6379).refused(4)]);
    world.expect(&["Deployment/web -> Service/redis:6379"]);
    assert_eq!(
        world.edge("Deployment/web -> Service/redis:6379").unresolved,
        Some(Unresolved {
            end: End::Server,
            reason: Unnamed::NoEndpoints
        })
    );
    world.slice("redis", 6380, &["redis-0"]);
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/redis:6380")
            .totals
            .refused,
        4
    );
    world.report("n1", [client("web-1").to("10.96.0.9", 6379).refused(4).opened(1)]);
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    let totals = world.edge("Deployment/web -> StatefulSet/redis:6380").totals;
    assert_eq!((totals.refused, totals.opened), (4, 1));
}

#[test]
fn a_headless_service_leaves_no_service_on_the_edge() {
    let mut world = shop();
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).opened(1)]);
    world.expect(&["Deployment/web -> StatefulSet/redis:6380"]);
    assert_eq!(
        world.edge("Deployment/web -> StatefulSet/redis:6380").service,
        None
    );
}

#[test]
fn a_pod_that_answers_its_own_call_to_its_service_depends_on_itself() {
    let mut world = World::new();
    world.pod(pod("raft-0").at("10.244.0.5").of("StatefulSet", "raft"));
    world.pod(pod("raft-1").at("10.244.0.6").of("StatefulSet", "raft"));
    world.service("raft", "10.96.0.7", 7000, 7000, &["raft-0", "raft-1"]);
    let dial = client("raft-0").to("10.96.0.7", 7000);
    world.report(
        "n1",
        [
            dial.clone().with([conn(1)]),
            server("raft-0").from("10.244.0.1", 7000).with([conn(1)]),
        ],
    );
    world.pass(20_000);
    world.expect(&["StatefulSet/raft -> StatefulSet/raft:7000"]);
    assert_eq!(world.closed(Closed::SamePod), 0);
    world.report(
        "n1",
        [
            dial.with([conn(1), conn(2)]),
            server("raft-1").from("10.244.0.5", 7000).with([conn(2)]),
        ],
    );
    world.expect(&["StatefulSet/raft -> StatefulSet/raft:7000"]);
    assert_eq!(
        world
            .edge("StatefulSet/raft -> StatefulSet/raft:7000")
            .totals
            .opened,
        2
    );
}

#[test]
fn a_proxy_in_the_pod_that_catches_a_call_is_no_edge() {
    let mut world = World::new();
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(pod("redis-0").at("10.244.0.6").of("StatefulSet", "redis"));
    world.service("redis", "10.96.0.7", 6379, 6379, &["redis-0"]);
    world.service("web", "10.96.0.8", 80, 8080, &["web-1"]);
    world.report(
        "n1",
        [
            client("web-1").to("10.96.0.8", 80).with([conn(1)]),
            client("web-1").to("10.96.0.7", 6379).with([conn(2)]),
            server("web-1").from("10.244.0.5", 15001).with([conn(1), conn(2)]),
        ],
    );
    world.pass(20_000);
    world.expect(&[]);
    assert!(world.closed(Closed::SamePod) > 0);
}

#[test]
fn a_proof_that_names_another_workload_than_the_service_takes_its_part_back() {
    // The slice with the canary arrives after its first connection was counted for the stable workload.
    let mut world = canary();
    world.slice("api", 8080, &["stable-1"]);
    world.pass(60_000);
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.8", 80)
            .with([conn(1).bytes(1, 2), conn(2).open().bytes(3, 4)])],
    );
    world.expect(&["Deployment/web -> Deployment/stable:8080"]);
    world.report(
        "n2",
        [server("canary-1")
            .from(N1, 8080)
            .with([conn(2).open().bytes(4, 3)])],
    );
    world.expect(&[
        "Deployment/web -> Deployment/canary:8080",
        "Deployment/web -> Deployment/stable:8080",
    ]);
    let stable = world.edge("Deployment/web -> Deployment/stable:8080").totals;
    assert_eq!(
        (
            stable.opened,
            stable.active,
            stable.bytes_sent,
            stable.bytes_received
        ),
        (1, 0, 1, 2)
    );
    let canary = world.edge("Deployment/web -> Deployment/canary:8080").totals;
    assert_eq!(
        (
            canary.opened,
            canary.active,
            canary.bytes_sent,
            canary.bytes_received
        ),
        (1, 1, 3, 4)
    );
    // It goes on and closes.
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.8", 80)
            .with([conn(1).bytes(1, 2), conn(2).bytes(9, 9)])],
    );
    let stable = world.edge("Deployment/web -> Deployment/stable:8080").totals;
    assert_eq!(
        (
            stable.opened,
            stable.active,
            stable.bytes_sent,
            stable.bytes_received
        ),
        (1, 0, 1, 2)
    );
    let canary = world.edge("Deployment/web -> Deployment/canary:8080").totals;
    assert_eq!(
        (canary.opened, canary.bytes_sent, canary.bytes_received),
        (1, 9, 9)
    );
}
