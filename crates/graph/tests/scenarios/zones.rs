//! Bytes by zone: who knows both zones, what stays unknown, and that they move with the counts.

use crate::support::{EPOCH, N1, N2, World, client, conn, controller, pod, process_client, server};

const EDGE: &str = "Deployment/web -> StatefulSet/redis:6380";
const N3: &str = "10.250.0.3";

/// Node n1 in west, n2 in east, n3 in south.
fn label(world: &mut World) {
    world.node_in("n1", N1, "west");
    world.node_in("n2", N2, "east");
    world.node_in("n3", N3, "south");
}

fn prepare(world: &mut World) {
    label(world);
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    for (name, node, address) in [("redis-0", "n2", "10.244.1.6"), ("redis-1", "n1", "10.244.0.6")] {
        world.pod(pod(name).on(node).at(address).of("StatefulSet", "redis"));
    }
    world.pod(
        pod("cache-0")
            .on("n2")
            .at("10.244.1.7")
            .of("StatefulSet", "cache"),
    );
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0", "redis-1"]);
    world.service("east", "10.96.0.10", 80, 6380, &["redis-0"]);
    world.service("mixed", "10.96.0.11", 80, 6380, &["redis-0", "cache-0"]);
}

fn world() -> World {
    let mut world = World::new();
    prepare(&mut world);
    world
}

/// `client>server bytes` of an edge.
#[track_caller]
fn zones(world: &World, edge: &str) -> Vec<String> {
    let edge = world.edge(edge);
    let placed: u64 = edge.zones.iter().map(|zone| zone.bytes).sum();
    assert!(placed <= edge.totals.bytes_sent + edge.totals.bytes_received);
    edge.zones
        .iter()
        .map(|zone| format!("{}>{} {}", zone.client, zone.server, zone.bytes))
        .collect()
}

/// Bytes of [`EDGE`] of which nobody knows the zones: room in which a pair that should have gone would show.
fn unplaced(world: &mut World) {
    world.node_in("n3", N3, "");
    world.hello("n3", EPOCH);
    world.pod(pod("web-9").on("n3").at("10.244.2.9").of("Deployment", "web"));
    let dial = client("web-9").to("10.244.1.6", 6380);
    world.report("n3", [dial.opened(1).bytes(1_000, 0)]);
    world.complete("n3");
}

#[test]
fn each_side_alone_knows_both_zones_of_a_direct_connection() {
    let dial = client("web-1").to("10.244.1.6", 6380).opened(1).bytes(30, 7);
    let accept = server("redis-0").from("10.244.0.5", 6380).opened(1).bytes(7, 30);
    for (from_client, from_server) in [(true, false), (false, true), (true, true)] {
        let mut world = world();
        if from_client {
            world.report("n1", [dial.clone()]);
        }
        if from_server {
            world.report("n2", [accept.clone()]);
        }
        assert_eq!(zones(&world, EDGE), ["west>east 37"]);
    }
}

#[test]
fn a_service_over_several_zones_is_known_from_the_servers_side_only() {
    let mut world = world();
    world.report(
        "n1",
        [client("web-1").to("10.96.0.9", 6379).opened(2).bytes(300, 30)],
    );
    assert_eq!(zones(&world, EDGE), Vec::<String>::new());
    world.report(
        "n1",
        [server("redis-1")
            .from("10.244.0.5", 6380)
            .opened(1)
            .bytes(10, 100)],
    );
    assert_eq!(zones(&world, EDGE), ["west>west 110"]);
    world.report(
        "n2",
        [server("redis-0")
            .from("10.244.0.5", 6380)
            .opened(1)
            .bytes(20, 200)],
    );
    assert_eq!(zones(&world, EDGE), ["west>east 220", "west>west 110"]);
}

#[test]
fn a_service_in_one_zone_is_in_that_zone() {
    let mut world = world();
    let dial = client("web-1").to("10.96.0.10", 80);
    world.report("n1", [dial.clone().opened(1).bytes(40, 4)]);
    assert_eq!(zones(&world, EDGE), ["west>east 44"]);
    // From now on nobody knows; what was counted before stays.
    world.slice("east", 6380, &["redis-0", "redis-1"]);
    world.pass(2_000);
    world.report("n1", [dial.opened(2).bytes(90, 9)]);
    assert_eq!(zones(&world, EDGE), ["west>east 44"]);
    assert_eq!(world.edge(EDGE).totals.bytes_sent, 90);
}

#[test]
fn two_matched_halves_know_both_zones_through_masquerade_and_node_ports() {
    for seen_as in [N1, N3, "10.244.0.1"] {
        let mut world = world();
        world.report(
            "n1",
            [client("web-1")
                .to("10.96.0.11", 80)
                .with([conn(1).bytes(5, 60), conn(2).open().bytes(1, 2)])],
        );
        world.report(
            "n2",
            [server("redis-0")
                .from(seen_as, 6380)
                .with([conn(1).bytes(60, 5), conn(2).open().bytes(2, 1)])],
        );
        assert_eq!(zones(&world, EDGE), ["west>east 68"], "{seen_as}");
        world.report(
            "n1",
            [client("web-1")
                .to("10.96.0.11", 80)
                .with([conn(1).bytes(5, 60), conn(2).bytes(10, 20)])],
        );
        assert_eq!(zones(&world, EDGE), ["west>east 95"], "{seen_as}");
        // Both records are let go of; what they brought stays.
        world.pass(120_000);
        assert_eq!(zones(&world, EDGE), ["west>east 95"], "{seen_as}");
    }
}

#[test]
fn a_node_without_the_label_is_in_no_zone_and_in_the_next_one_from_then_on() {
    let mut world = world();
    world.node_in("n2", N2, "");
    let dial = client("web-1").to("10.244.1.6", 6380);
    let accept = server("redis-0").from("10.244.0.5", 6380);
    world.report("n1", [dial.clone().opened(1).bytes(10, 0)]);
    world.report("n2", [accept.clone().opened(1).bytes(0, 10)]);
    assert_eq!(zones(&world, EDGE), Vec::<String>::new());
    world.node_in("n2", N2, "north");
    world.report("n1", [dial.clone().opened(1).bytes(15, 0)]);
    world.report("n2", [accept.clone().opened(1).bytes(0, 15)]);
    assert_eq!(zones(&world, EDGE), ["west>north 5"]);
    world.node_in("n2", N2, "east");
    world.report("n1", [dial.opened(1).bytes(17, 0)]);
    world.report("n2", [accept.opened(1).bytes(0, 17)]);
    assert_eq!(zones(&world, EDGE), ["west>east 2", "west>north 5"]);
}

#[test]
fn node_processes_and_node_addresses_are_in_their_nodes_zone_and_the_world_in_none() {
    let mut world = world();
    world.report(
        "n1",
        [
            process_client("backup.service")
                .to("10.244.1.6", 6380)
                .opened(1)
                .bytes(3, 4),
            client("web-1").to(N2, 9_100).with([conn(9).bytes(50, 5)]),
            client("web-1").to("192.0.2.7", 443).opened(1).bytes(8, 8),
        ],
    );
    world.report(
        "n2",
        [server("redis-0").from("198.51.100.9", 6380).opened(1).bytes(6, 6)],
    );
    world.pass(11_000);
    let at = |edge: &str| zones(&world, edge);
    assert_eq!(
        at("NodeProcess/backup.service -> StatefulSet/redis:6380"),
        ["west>east 7"]
    );
    assert_eq!(at("Deployment/web -> Address/10.250.0.2:9100"), ["west>east 55"]);
    let nothing: [&str; 0] = [];
    assert_eq!(at("Deployment/web -> Address/192.0.2.7:443"), nothing);
    assert_eq!(at("External/world -> StatefulSet/redis:6380"), nothing);
    assert_eq!(world.graph.zones().count(), 2);
}

#[test]
fn a_late_pod_and_a_late_replica_set_bring_their_zones_along() {
    let mut world = World::new();
    label(&mut world);
    world.pod(pod("web-7f-x").at("10.244.0.5").of("ReplicaSet", "web-7f"));
    world.report(
        "n1",
        [client("web-7f-x").to("10.244.1.6", 6380).opened(1).bytes(11, 1)],
    );
    assert!(world.edges().is_empty());
    world.pod(
        pod("redis-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "redis"),
    );
    world.pass(11_000);
    let provisional = "ReplicaSet/web-7f -> StatefulSet/redis:6380";
    assert_eq!(zones(&world, provisional), ["west>east 12"]);
    // Another edge that will be the same one.
    world.pod(pod("web-0").on("n2").at("10.244.1.5").of("Deployment", "web"));
    world.report(
        "n2",
        [client("web-0").to("10.244.1.6", 6380).opened(1).bytes(5, 0)],
    );
    let replica_set = leyline_graph::input::Controller {
        controller: Some(crate::support::owner("apps", "Deployment", "web")),
        ..controller("ReplicaSet", "web-7f")
    };
    world.graph.apply_controller(replica_set, world.time());
    world.expect(&[EDGE]);
    assert_eq!(zones(&world, EDGE), ["east>east 5", "west>east 12"]);
    // What the half-edge goes on to count joins it.
    world.report(
        "n1",
        [client("web-7f-x").to("10.244.1.6", 6380).opened(1).bytes(12, 1)],
    );
    assert_eq!(zones(&world, EDGE), ["east>east 5", "west>east 13"]);
}

#[test]
fn a_very_late_pod_takes_over_from_its_address_with_its_zone() {
    let mut world = world();
    world.report(
        "n1",
        [client("web-1").to("10.244.1.99", 6380).opened(1).bytes(11, 1)],
    );
    world.pass(11_000);
    assert_eq!(
        zones(&world, "Deployment/web -> Address/10.244.1.99:6380"),
        Vec::<String>::new()
    );
    world.pod(
        pod("redis-9")
            .on("n2")
            .at("10.244.1.99")
            .of("StatefulSet", "redis"),
    );
    world.expect(&[EDGE]);
    assert_eq!(zones(&world, EDGE), ["west>east 12"]);
}

#[test]
fn a_connection_that_turns_out_to_be_another_edges_takes_its_bytes_along() {
    let mut world = world();
    unplaced(&mut world);
    // The client believes in redis alone; the slice with cache comes late.
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.10", 80)
            .with([conn(1).bytes(100, 0), conn(2).bytes(40, 0)])],
    );
    assert_eq!(zones(&world, EDGE), ["west>east 140"]);
    world.report(
        "n2",
        [
            server("cache-0").from(N1, 6380).with([conn(1).bytes(0, 100)]),
            server("redis-0").from(N1, 6380).with([conn(2).bytes(0, 40)]),
        ],
    );
    assert_eq!(zones(&world, EDGE), ["west>east 40"]);
    assert_eq!(
        zones(&world, "Deployment/web -> StatefulSet/cache:6380"),
        ["west>east 100"]
    );
}

#[test]
fn a_fallback_without_server_zone_gets_it_with_the_proof() {
    let mut world = world();
    world.pod(
        pod("other-0")
            .on("n1")
            .at("10.244.0.9")
            .of("StatefulSet", "other"),
    );
    world.slice("mixed", 6380, &["redis-0", "other-0"]);
    let dial = client("web-1")
        .to("10.96.0.11", 80)
        .with([conn(1).open().bytes(9, 1)]);
    world.report("n1", [dial]);
    world.pass(11_000);
    assert_eq!(
        zones(&world, "Deployment/web -> Service/mixed:80"),
        Vec::<String>::new()
    );
    world.report(
        "n2",
        [server("redis-0")
            .from(N1, 6380)
            .with([conn(1).open().bytes(1, 9)])],
    );
    world.expect(&[EDGE]);
    assert_eq!(zones(&world, EDGE), ["west>east 10"]);
}

#[test]
fn a_connection_taken_from_a_guess_leaves_the_others_their_zones() {
    let mut world = world();
    world.hello("n3", EPOCH);
    world.complete("n3");
    world.pass(5_000);
    world.node_in("n1", N1, "");
    world.pod(pod("web-2").on("n2").at("10.244.1.8").of("Deployment", "web"));
    let connections = [conn(1).open().bytes(0, 10), conn(2).open().bytes(0, 10)];
    world.report("n2", [server("redis-0").from(N3, 6380).with(connections)]);
    world.report(
        "n1",
        [server("redis-1")
            .from(N3, 6380)
            .with([conn(3).open().bytes(0, 500)])],
    );
    // The agent whose address it is goes on to report, and never of such a connection.
    for _ in 0..4 {
        world.pass(8_000);
        world.report("n3", []);
    }
    world.pass(1_000);
    let guess = "Address/10.250.0.3 -> StatefulSet/redis:6380";
    assert_eq!(zones(&world, guess), ["south>east 20"]);
    let dial = client("web-2").to("10.96.0.11", 80);
    world.report("n2", [dial.with([conn(1).open().bytes(10, 0)])]);
    assert_eq!(zones(&world, guess), ["south>east 10"]);
    assert_eq!(zones(&world, EDGE), ["east>east 10"]);
}

#[test]
fn a_proof_that_leaves_the_edge_as_it_is_adds_the_zones() {
    let mut world = world();
    // A replica calls its own Service: perhaps it answered itself.
    let dial = client("redis-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.with([conn(1).open().bytes(50, 0)])]);
    world.pass(31_000);
    let replication = "StatefulSet/redis -> StatefulSet/redis:6380";
    assert_eq!(zones(&world, replication), Vec::<String>::new());
    // The other side has seen less so far.
    world.report(
        "n2",
        [server("redis-0")
            .from(N1, 6380)
            .with([conn(1).open().bytes(0, 5)])],
    );
    assert_eq!(zones(&world, replication), ["west>east 50"]);
}

#[test]
fn a_late_full_report_from_before_is_not_counted_on_top_of_the_object() {
    let mut world = world();
    let direct = client("web-1").to("10.244.1.6", 6380);
    let service = client("web-1").to("10.96.0.9", 6379);
    let report = |direct_bytes| {
        [
            direct.clone().opened(1).bytes(direct_bytes, 0),
            service.clone().opened(1).bytes(1_000, 0),
        ]
    };
    world.report("n1", report(150));
    assert_eq!(zones(&world, EDGE), ["west>east 150"]);
    let seeds = world.edges().into_values().map(crate::model::seed).collect();
    world.restart_operator(seeds);
    prepare(&mut world);
    world.hello("n2", EPOCH);
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(5_000);
    world.hello("n1", EPOCH);
    world.report("n1", report(170));
    world.complete("n1");
    assert_eq!(world.edge(EDGE).totals.bytes_sent, 1_170);
    assert_eq!(zones(&world, EDGE), ["west>east 170"]);
}

#[test]
fn dynamic_ports_folded_into_one_add_up() {
    let mut world = world();
    for port in 40_000..40_009 {
        world.report(
            "n1",
            [client("web-1").to("10.244.1.6", port).opened(1).bytes(3, 0)],
        );
    }
    assert_eq!(
        zones(&world, "Deployment/web -> StatefulSet/redis:0"),
        ["west>east 27"]
    );
}

#[test]
fn bytes_by_zone_survive_a_restart_of_the_operator_and_go_on() {
    let mut world = world();
    let direct = client("web-1").to("10.244.1.6", 6380);
    let service = client("web-1").to("10.96.0.10", 80);
    world.report(
        "n1",
        [
            direct.clone().opened(1).bytes(100, 0),
            service.clone().opened(1).bytes(50, 0),
        ],
    );
    assert_eq!(zones(&world, EDGE), ["west>east 150"]);
    let seeds = world.edges().into_values().map(crate::model::seed).collect();
    world.restart_operator(seeds);
    prepare(&mut world);
    assert_eq!(zones(&world, EDGE), ["west>east 150"]);
    for name in ["n1", "n2"] {
        world.hello(name, EPOCH);
    }
    // 20 more each while the operator was away.
    world.report(
        "n1",
        [
            direct.clone().opened(1).bytes(120, 0),
            service.clone().opened(1).bytes(70, 0),
        ],
    );
    world.complete("n1");
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(1_000);
    // Where the Service's endpoints were meanwhile is not known.
    assert_eq!(world.edge(EDGE).totals.bytes_sent, 190);
    assert_eq!(zones(&world, EDGE), ["west>east 150"]);
    world.report(
        "n1",
        [direct.opened(1).bytes(121, 0), service.opened(1).bytes(72, 0)],
    );
    assert_eq!(zones(&world, EDGE), ["west>east 153"]);
}

#[test]
fn an_agents_new_epoch_adds_to_what_was() {
    let mut world = world();
    let dial = client("web-1").to("10.244.1.6", 6380);
    world.report("n1", [dial.clone().opened(1).bytes(10, 0)]);
    world.hello("n1", EPOCH + 1);
    world.report("n1", [dial.opened(1).bytes(4, 0)]);
    world.complete("n1");
    assert_eq!(zones(&world, EDGE), ["west>east 14"]);
}

#[test]
fn more_than_sixteen_pairs_are_left_out_and_counted() {
    let mut world = World::new();
    prepare(&mut world);
    let dial = client("web-1").to("10.244.1.6", 6380);
    for round in 1..=40 {
        world.node_in("n2", N2, &format!("zone-{round}"));
        world.report("n1", [dial.clone().opened(1).bytes(round * 10, 0)]);
    }
    let edge = world.edge(EDGE);
    assert_eq!(edge.totals.bytes_sent, 400);
    assert_eq!(edge.zones.len(), 16);
    assert!(edge.zones.iter().all(|zone| zone.bytes == 10), "{:?}", edge.zones);
    // A pod on another node brings further pairs to the same edge.
    for round in 1..=9 {
        world.node_in("n3", N3, &format!("zone-{round}"));
        world.hello("n3", EPOCH);
        world.pod(pod("web-3").on("n3").at("10.244.2.5").of("Deployment", "web"));
        world.report(
            "n3",
            [client("web-3")
                .to("10.244.1.6", 6380)
                .opened(1)
                .bytes(round * 10, 0)],
        );
    }
    assert_eq!(world.edge(EDGE).zones.len(), 16);
    assert_eq!(world.graph.stats().zones_truncated, 1);
    assert!(world.graph.stats().zones > 40);
}
