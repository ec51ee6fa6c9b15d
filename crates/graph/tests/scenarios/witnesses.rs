//! Matching connections by witness: duplicates, contradictions, samples, and agents that were not watching.

use crate::support::{EPOCH, N1, N2, World, client, conn, pod, process_client, server};
use leyline_graph::input::Report;
use leyline_graph::{Closed, Config};

const EDGE: &str = "Deployment/web -> StatefulSet/redis:6380";

/// web on n1 and redis on n2, masqueraded in between; web is told from others by the connection only.
fn world() -> World {
    let mut world = World::new();
    prepare(&mut world);
    world
}

fn prepare(world: &mut World) {
    world.pod(pod("web-1").on("n1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(
        pod("redis-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "redis"),
    );
    world.pod(
        pod("redis-x")
            .on("n1")
            .at("10.244.0.6")
            .of("StatefulSet", "other"),
    );
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0", "redis-x"]);
}

fn web() -> crate::support::H {
    client("web-1").to("10.96.0.9", 6379)
}

fn redis() -> crate::support::H {
    server("redis-0").from(N1, 6380)
}

#[test]
fn a_connection_sent_again_is_counted_once() {
    let mut world = world();
    world.report("n1", [web().with([conn(1).open().bytes(1, 1)])]);
    world.report("n2", [redis().with([conn(1).open().bytes(1, 1)])]);
    world.report("n1", [web().with([conn(1).open().bytes(5, 7)])]);
    let totals = world.edge(EDGE).totals;
    assert_eq!(
        (
            totals.opened,
            totals.active,
            totals.bytes_sent,
            totals.bytes_received
        ),
        (1, 1, 5, 7)
    );
    world.report("n1", [web().with([conn(1).bytes(6, 8)])]);
    world.report("n2", [redis().with([conn(1).bytes(8, 6)])]);
    // The stream breaks, and everything recent is sent again.
    world.hello("n1", EPOCH);
    world.report("n1", [web().with([conn(1).bytes(6, 8)])]);
    world.complete("n1");
    world.pass(60_000);
    let totals = world.edge(EDGE).totals;
    assert_eq!(
        (
            totals.opened,
            totals.active,
            totals.bytes_sent,
            totals.bytes_received
        ),
        (1, 0, 6, 8)
    );
    assert_eq!(world.graph.stats().records, 0);
}

#[test]
fn a_witness_on_three_half_edges_matches_nothing() {
    let mut world = world();
    world.pod(pod("copy-1").on("n1").at("10.244.0.7").of("Deployment", "copy"));
    world.report(
        "n1",
        [
            web().with([conn(1)]),
            client("copy-1").to("10.96.0.9", 6379).with([conn(1)]),
        ],
    );
    world.report("n2", [redis().with([conn(1)])]);
    world.expect(&[]);
    world.pass(11_000);
    assert!(!world.edges().contains_key(EDGE));
    world.expect(&[
        "Address/10.250.0.1 -> StatefulSet/redis:6380",
        "Deployment/copy -> Service/redis:6379",
        "Deployment/web -> Service/redis:6379",
    ]);
}

#[test]
fn a_third_half_edge_unmakes_a_match() {
    let mut world = world();
    world.pod(pod("copy-1").on("n1").at("10.244.0.7").of("Deployment", "copy"));
    world.report("n1", [web().with([conn(1)])]);
    world.report("n2", [redis().with([conn(1)])]);
    world.expect(&[EDGE]);
    world.report("n1", [client("copy-1").to("10.96.0.9", 6379).with([conn(1)])]);
    world.expect(&[]);
}

#[test]
fn two_clients_with_one_witness_match_nothing() {
    let mut world = world();
    world.report("n1", [web().with([conn(1)])]);
    world.report("n2", [client("redis-0").to("10.96.0.9", 6379).with([conn(1)])]);
    world.pass(11_000);
    world.expect(&[
        "Deployment/web -> Service/redis:6379",
        "StatefulSet/redis -> Service/redis:6379",
    ]);
}

#[test]
fn a_server_half_whose_socket_has_another_port_matches_nothing() {
    let mut world = world();
    world.report("n1", [web().with([conn(1)])]);
    world.report("n2", [redis().with([conn(1).local("10.244.1.6", 9999)])]);
    world.pass(1_000);
    world.expect(&[]);
}

#[test]
fn a_sample_stands_for_its_weight_and_says_so() {
    let mut world = world();
    world.report(
        "n1",
        [web()
            .opened(8)
            .records([conn(1).weight(4).bytes(10, 1), conn(2).weight(4)])],
    );
    world.report(
        "n2",
        [redis()
            .opened(8)
            .records([conn(1).bytes(1, 10), conn(2), conn(3), conn(4)])],
    );
    world.pass(60_000);
    // 3 and 4 are not in n1's sample: their other halves' absence proves nothing.
    world.expect(&[EDGE]);
    let edge = world.edge(EDGE);
    assert_eq!((edge.totals.opened, edge.totals.bytes_sent), (8, 40));
    assert!(edge.incomplete.sampled);
    assert_eq!(world.closed(Closed::PeerUnwatched), 2);
}

/// The client's agent sampled, although none of its records stands for others.
#[test]
fn a_connection_that_a_sample_left_out_is_nobodys() {
    let mut world = world();
    world.report("n2", [redis().with([conn(1)])]);
    let sampled = Report {
        sampled: 1,
        ..Report::default()
    };
    world.graph.report("n1", EPOCH, sampled, world.time()).unwrap();
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
}

#[test]
fn an_exact_side_is_believed_before_a_sampled_one() {
    let mut world = world();
    world.slice("redis", 6380, &["redis-0"]);
    world.pass(60_000);
    world.report("n1", [web().opened(9).records([conn(1).weight(4)])]);
    world.report(
        "n2",
        [redis()
            .opened(9)
            .records([conn(1).weight(4), conn(2).weight(4), conn(3).weight(4)])],
    );
    let edge = world.edge(EDGE);
    assert_eq!(edge.totals.opened, 9);
    assert!(!edge.incomplete.sampled);
}

#[test]
fn a_connection_made_while_the_other_agent_was_away_invents_no_address() {
    let mut world = world();
    world.graph.agent_gone("n1", world.time());
    world.report("n2", [redis().with([conn(1)])]);
    world.pass(12_000);
    world.expect(&[]);
    // The next epoch never saw connection 1, which was over before.
    world.hello("n1", EPOCH + 2);
    world.complete("n1");
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
}

#[test]
fn a_connection_whose_own_agent_is_away_invents_no_address() {
    let mut world = world();
    world.report("n2", [redis().with([conn(1).open()])]);
    world.graph.agent_gone("n2", world.time());
    world.pass(20_000);
    world.expect(&[]);
    // It had closed meanwhile; the next epoch knows nothing of it.
    world.hello("n2", EPOCH + 2);
    world.complete("n2");
    world.pass(60_000);
    world.expect(&[]);
}

#[test]
fn an_open_connection_is_matched_after_the_other_agents_restart() {
    let mut world = world();
    world.graph.agent_gone("n1", world.time());
    world.report("n2", [redis().with([conn(1).open()])]);
    world.pass(12_000);
    world.expect(&[]);
    world.hello("n1", EPOCH + 2);
    world.report("n1", [web().with([conn(1).adopted()])]);
    world.complete("n1");
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn a_node_without_agent_is_not_waited_for() {
    let mut world = World::new();
    prepare(&mut world);
    world.graph.apply_node(
        leyline_graph::input::Node {
            name: "n3".to_owned(),
            addresses: vec![crate::support::ip("10.250.0.3")],
            zone: String::new(),
        },
        world.time(),
    );
    let from = || server("redis-0").from("10.250.0.3", 6380);
    // Its agent may be one that is started over and over again.
    world.pass(120_000);
    world.report("n2", [from().with([conn(1)])]);
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
    world.pass(420_000);
    world.report("n2", [from().with([conn(2)]).opened(2)]);
    world.expect(&["Address/10.250.0.3 -> StatefulSet/redis:6380"]);
    assert_eq!(
        world
            .edge("Address/10.250.0.3 -> StatefulSet/redis:6380")
            .totals
            .opened,
        1
    );
}

#[test]
fn both_ends_known_directly_need_no_connection_but_gain_evidence_and_nothing_twice() {
    let mut world = world();
    world.report(
        "n1",
        [client("web-1")
            .to("10.244.1.6", 6380)
            .with([conn(1).bytes(3, 4)])
            .refused(1)],
    );
    world.report(
        "n2",
        [server("redis-0")
            .from("10.244.0.5", 6380)
            .with([conn(1).bytes(4, 3)])],
    );
    world.expect(&[EDGE]);
    let edge = world.edge(EDGE);
    assert_eq!(
        (edge.totals.opened, edge.totals.bytes_sent, edge.totals.failed()),
        (1, 3, 1)
    );
    assert!(edge.evidence.client_socket && edge.evidence.server_socket);
}

#[test]
fn the_side_that_saw_more_is_believed_figure_by_figure() {
    let mut world = world();
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).opened(2).bytes(10, 10)],
    );
    world.report(
        "n2",
        [server("redis-0").from("10.244.0.5", 6380).opened(5).bytes(90, 5)],
    );
    let totals = world.edge(EDGE).totals;
    assert_eq!(
        (totals.opened, totals.bytes_sent, totals.bytes_received),
        (5, 10, 90)
    );
}

#[test]
fn records_beyond_the_bound_are_counted() {
    let mut world = World::with(Config {
        records: 2,
        ..Config::default()
    });
    prepare(&mut world);
    world.report("n1", [web().with([conn(1), conn(2), conn(3)])]);
    assert_eq!(world.closed(Closed::RecordsFull), 1);
    assert_eq!(world.graph.stats().records, 2);
}

#[test]
fn a_probe_seen_from_both_sides_is_counted_once() {
    let mut world = world();
    world.pod(
        pod("api-1")
            .on("n2")
            .at("10.244.1.9")
            .of("Deployment", "api")
            .probed(8080),
    );
    world.report(
        "n2",
        [process_client("kubelet.service")
            .to("10.244.1.9", 8080)
            .with([conn(5)])],
    );
    world.report("n2", [server("api-1").from(N2, 8080).with([conn(5)])]);
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::Probe), 1);
}
