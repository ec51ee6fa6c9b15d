//! What an agent's silence about a connection means: who was not watching, or forgot, proves nothing.
//!
//! web on n1 calls redis on n2 and is masqueraded in between: redis' node sees n1's address. Without web's half the
//! connection looks like one of somebody outside the cluster who came through n1.

use crate::support::{EPOCH, H, N1, World, client, conn, pod, server};
use leyline_graph::{Closed, Config};

const EDGE: &str = "Deployment/web -> StatefulSet/redis:6380";
const OUTSIDE: &str = "Address/10.250.0.1 -> StatefulSet/redis:6380";

fn prepare(world: &mut World) {
    world.pod(pod("web-1").on("n1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(
        pod("redis-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "redis"),
    );
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0"]);
}

fn world() -> World {
    let mut world = World::new();
    prepare(&mut world);
    world
}

fn web() -> H {
    client("web-1").to("10.96.0.9", 6379)
}

fn redis() -> H {
    server("redis-0").from(N1, 6380)
}

#[test]
fn a_client_outside_the_cluster_is_the_address_it_came_through() {
    let mut world = world();
    world.report("n2", [redis().with([conn(1).bytes(1, 2)])]);
    world.pass(9_000);
    world.expect(&[]);
    world.pass(4_000);
    world.expect(&[OUTSIDE]);
    assert_eq!(world.edge(OUTSIDE).totals.opened, 1);
}

#[test]
fn an_agent_that_is_started_over_and_over_again_invents_nothing() {
    let mut world = world();
    world.graph.agent_gone("n1", world.time());
    for (number, away) in (1..).zip([20_000, 40_000, 80_000, 160_000, 300_000]) {
        world.pass(away / 2);
        world.report(
            "n2",
            [redis()
                .opened(u64::from(number))
                .records([conn(number), conn(100 + number).open()])],
        );
        world.pass(away / 2);
        world.expect(&[]);
        world.hello("n1", EPOCH + u64::from(number));
        world.complete("n1");
        world.graph.agent_gone("n1", world.time());
    }
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 5);
}

#[test]
fn an_operator_that_starts_while_an_agent_is_away_does_not_take_its_node_for_one_without() {
    let mut world = world();
    world.graph.agent_gone("n1", world.time());
    world.pass(1_000);
    world.restart_operator(Vec::new());
    prepare(&mut world);
    world.hello("n2", EPOCH);
    world.complete("n2");
    world.pass(40_000);
    world.graph.settle(world.time());
    world.report("n2", [redis().with([conn(1)])]);
    world.pass(60_000);
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
}

#[test]
fn a_socket_that_its_process_had_let_go_of_is_not_missed_when_it_closes() {
    let mut world = world();
    world.report("n1", [web().with([conn(1).open().bytes(1, 1)])]);
    world.report("n2", [redis().with([conn(1).open().bytes(1, 1)])]);
    // Both agents start again; web's socket has no process any more, redis has not closed its own yet.
    world.hello("n1", EPOCH + 2);
    world.complete("n1");
    world.hello("n2", EPOCH + 2);
    world.report("n2", [redis().with([conn(1).adopted()])]);
    world.complete("n2");
    world.pass(40_000);
    world.expect(&[EDGE]);
    let mut end = conn(1).adopted();
    end.closed = true;
    world.report("n2", [redis().with([end])]);
    world.pass(60_000);
    world.expect(&[EDGE]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
}

#[test]
fn a_half_open_connection_is_nobodys_however_long_it_stays() {
    let mut world = world();
    world.pass(60_000);
    world.report("n1", [web().with([conn(1).bytes(1, 1)])]);
    world.report("n2", [redis().with([conn(1).open().bytes(1, 1)])]);
    world.expect(&[EDGE]);
    // web is gone for long, redis never noticed.
    world.pass(60_000);
    world.restart_operator(Vec::new());
    prepare(&mut world);
    for node in ["n1", "n2"] {
        world.hello(node, EPOCH);
        if node == "n2" {
            let mut old = conn(1).open().bytes(1, 1);
            old.opened = Some(60_000);
            old.seen = old.opened;
            world.report("n2", [redis().with([old]).changed(60_000)]);
        }
        world.complete(node);
    }
    world.graph.settle(world.time());
    world.pass(300_000);
    world.expect(&[]);
}

#[test]
fn an_older_connection_that_still_carries_bytes_comes_from_outside() {
    let mut world = world();
    let old = |bytes| redis().with([conn(1).adopted().bytes(bytes, 0)]);
    world.hello("n2", EPOCH + 2);
    world.report("n2", [old(0)]);
    world.complete("n2");
    world.pass(30_000);
    world.report("n2", [old(5)]);
    world.pass(60_000);
    world.expect(&[]);
    // A socket without a process does not live that long.
    world.report("n2", [old(6)]);
    world.pass(11_000);
    world.expect(&[OUTSIDE]);
    let totals = world.edge(OUTSIDE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_received), (0, 1, 6));
}

#[test]
fn what_comes_after_the_other_half_was_forgotten_is_nobodys() {
    let mut world = world();
    let then = world.now;
    world.graph.agent_gone("n2", world.time());
    world.report("n1", [web().with([conn(1)])]);
    world.pass(40_000);
    world.hello("n2", EPOCH);
    let mut late = conn(1);
    (late.opened, late.seen) = (Some(then), Some(then));
    world.report("n2", [redis().with([late]).changed(then)]);
    world.complete("n2");
    world.pass(60_000);
    world.expect(&[EDGE]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
}

#[test]
fn a_half_that_found_no_room_here_is_not_missed() {
    let mut world = World::with(Config {
        records: 2,
        ..Config::default()
    });
    prepare(&mut world);
    world.report("n1", [web().with([conn(1), conn(2)])]);
    world.report("n1", [web().opened(3).records([conn(3)])]);
    assert_eq!(world.closed(Closed::RecordsFull), 1);
    world.pass(34_500);
    world.report("n2", [redis().with([conn(9)])]);
    world.report("n1", [web().opened(4).records([conn(4)])]);
    world.pass(1_000);
    world.report("n2", [redis().opened(2).records([conn(3)])]);
    world.pass(60_000);
    world.expect(&[EDGE]);
}

#[test]
fn an_agent_that_has_not_spoken_since_is_waited_for() {
    let mut world = world();
    let silently = |world: &mut World, seconds: i64| {
        for _ in 0..2 * seconds {
            world.now += 500;
            world.graph.tick(world.time());
        }
    };
    world.report("n2", [redis().with([conn(1)])]);
    silently(&mut world, 25);
    world.expect(&[]);
    world.report("n1", [web().with([conn(1)])]);
    world.expect(&[EDGE]);
    world.report("n2", [redis().opened(2).records([conn(2)])]);
    silently(&mut world, 11);
    world.expect(&[EDGE]);
    world.pass(11_000);
    world.expect(&[EDGE, OUTSIDE]);
}

#[test]
fn what_was_missed_stays_missed() {
    let mut world = world();
    world.report("n2", [redis().with([conn(1).open()])]);
    for lost in 1..30 {
        world.lost.insert("n1".to_owned(), lost);
        world.pass(1_000);
    }
    world.expect(&[]);
    assert_eq!(world.closed(Closed::PeerUnwatched), 1);
    // Nor does it help that there is no agent any more.
    world.graph.agent_gone("n1", world.time());
    world.pass(700_000);
    world.report("n2", [redis().with([conn(1)])]);
    world.pass(20_000);
    world.expect(&[]);
}

#[test]
fn an_address_that_was_named_too_early_vanishes_with_the_better_explanation() {
    let mut world = world();
    world.report("n2", [redis().with([conn(1)])]);
    world.pass(14_000);
    let early = world.edge(OUTSIDE).key;
    world.graph.drain_changed();
    world.report("n1", [web().with([conn(1)])]);
    world.expect(&[EDGE]);
    assert!(world.graph.drain_changed().contains(&early));
    assert!(world.graph.edge(&early).is_none());
}
