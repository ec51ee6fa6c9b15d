//! Folding and bounds: nothing grows without end, and what is folded or refused says so.

use crate::support::{N1, World, client, conn, pod, server};
use leyline_graph::input::Counters;
use leyline_graph::{Closed, Config};

fn prepare(world: &mut World) {
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(pod("ftp-0").on("n2").at("10.244.1.6").of("StatefulSet", "ftp"));
}

fn world(config: Config) -> World {
    let mut world = World::with(config);
    prepare(&mut world);
    world
}

#[test]
fn after_thirty_two_bare_addresses_a_client_has_one_end_called_other() {
    let mut world = world(Config::default());
    for last in 1..=40 {
        world.report(
            "n1",
            [client("web-1")
                .to(&format!("203.0.113.{last}"), 443)
                .unsplit()
                .opened(1)],
        );
    }
    let edges = world.edges();
    assert_eq!(edges.len(), 33);
    let other = world.edge("Deployment/web -> External/other:443");
    assert_eq!(other.totals.opened, 8);
    assert!(other.incomplete.folded);
    // Those already named stay.
    world.report("n1", [client("web-1").to("203.0.113.7", 443).unsplit().opened(2)]);
    assert_eq!(
        world
            .edge("Deployment/web -> Address/203.0.113.7:443")
            .totals
            .opened,
        2
    );
    assert!(
        !world
            .edge("Deployment/web -> Address/203.0.113.7:443")
            .incomplete
            .folded
    );
    // A forgotten one makes room.
    let gone = world.edge("Deployment/web -> Address/203.0.113.1:443").key;
    world.graph.forget(&gone);
    world.report(
        "n1",
        [client("web-1").to("203.0.113.99", 443).unsplit().opened(1)],
    );
    world.edge("Deployment/web -> Address/203.0.113.99:443");
}

#[test]
fn more_than_eight_dynamic_ports_fold_into_port_zero() {
    let mut world = world(Config::default());
    for port in 40_001..=40_008 {
        world.report("n1", [client("web-1").to("10.244.1.6", port).opened(1)]);
    }
    world.report("n1", [client("web-1").to("10.244.1.6", 21).opened(1)]);
    assert_eq!(world.edges().len(), 9);
    world.graph.drain_changed();
    world.report("n1", [client("web-1").to("10.244.1.6", 40_009).opened(1)]);
    world.expect(&[
        "Deployment/web -> StatefulSet/ftp:0",
        "Deployment/web -> StatefulSet/ftp:21",
    ]);
    assert_eq!(world.graph.drain_changed().len(), 9);
    let folded = world.edge("Deployment/web -> StatefulSet/ftp:0");
    assert_eq!(folded.totals.opened, 9);
    assert!(folded.incomplete.folded);
    // What was counted under a single port goes on here.
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 40_001).opened(3).active(1)],
    );
    world.report("n2", [server("ftp-0").from("10.244.0.5", 40_010).opened(20)]);
    assert_eq!(
        world.edge("Deployment/web -> StatefulSet/ftp:0").totals.opened,
        20
    );
    world.report("n1", [client("web-1").to("10.244.1.6", 40_001).opened(3)]);
    assert_eq!(world.edge("Deployment/web -> StatefulSet/ftp:0").totals.active, 0);
}

#[test]
fn half_edges_beyond_the_bound_are_refused_and_counted() {
    let mut world = world(Config {
        half_edges_per_node: 2,
        ..Config::default()
    });
    let dial = |port| {
        client("web-1")
            .to("10.244.1.6", port)
            .with([conn(u32::from(port))])
    };
    world.report("n1", [dial(1), dial(2), dial(3)]);
    world.report("n1", [dial(1), dial(2), dial(3)]);
    assert_eq!(world.edges().len(), 2);
    assert_eq!(world.closed(Closed::HalfEdgesFull), 1);
    assert_eq!(world.graph.stats().half_edges, 2);
}

#[test]
fn half_edges_that_wait_are_bounded() {
    let mut world = world(Config {
        waiting: 2,
        ..Config::default()
    });
    for number in 1..=3 {
        world.report(
            "n1",
            [client(&format!("unknown-{number}"))
                .to("10.244.1.6", 21)
                .opened(1)],
        );
    }
    assert_eq!(
        (world.graph.stats().waiting, world.closed(Closed::WaitingFull)),
        (2, 1)
    );
}

#[test]
fn edges_are_bounded() {
    let mut world = world(Config {
        edges: 2,
        ..Config::default()
    });
    for port in 1..=3 {
        world.report("n1", [client("web-1").to("10.244.1.6", port).opened(1)]);
    }
    assert_eq!((world.edges().len(), world.closed(Closed::EdgesFull)), (2, 1));
}

#[test]
fn loss_on_a_node_marks_what_it_contributes_then() {
    let mut world = world(Config::default());
    let half = client("web-1").to("10.244.1.6", 21).opened(1);
    world.report("n1", [half]);
    world.lost.insert("n1".to_owned(), 3);
    world.report("n1", [client("web-1").to("10.244.1.6", 22).opened(1)]);
    assert!(world.edge("Deployment/web -> StatefulSet/ftp:22").incomplete.loss);
    assert!(!world.edge("Deployment/web -> StatefulSet/ftp:21").incomplete.loss);
    world.pass(11_000);
    world.report("n1", [client("web-1").to("10.244.1.6", 21).opened(2)]);
    assert!(!world.edge("Deployment/web -> StatefulSet/ftp:21").incomplete.loss);
    world.report(
        "n1",
        [client("web-1")
            .to("10.244.1.6", 21)
            .opened(3)
            .counters(|counters| counters.lost = 1)],
    );
    assert!(world.edge("Deployment/web -> StatefulSet/ftp:21").incomplete.loss);
}

#[test]
fn figures_cover_the_last_five_minutes() {
    let mut world = world(Config::default());
    let dial = |opened, change: fn(&mut Counters)| {
        client("web-1")
            .to("10.244.1.6", 21)
            .opened(opened)
            .counters(change)
    };
    world.report(
        "n1",
        [dial(2, |counters| {
            counters.connect_us = 600;
            counters.rtt_us = 300;
            counters.rtt_samples = 3;
        })],
    );
    world.report(
        "n2",
        [server("ftp-0")
            .from("10.244.0.5", 21)
            .opened(2)
            .counters(|counters| {
                counters.rtt_us = 500;
                counters.rtt_samples = 1;
                counters.retransmits = 2;
            })],
    );
    let figures = world.edge("Deployment/web -> StatefulSet/ftp:21").window;
    assert_eq!(
        (figures.connect_us, figures.rtt_us, figures.retransmits),
        (Some(300), Some(200), 2)
    );
    assert_eq!(figures.length, 300_000);
    world.graph.drain_changed();
    world.pass(390_000);
    let figures = world.edge("Deployment/web -> StatefulSet/ftp:21").window;
    assert_eq!(
        (figures.connect_us, figures.rtt_us, figures.retransmits),
        (None, None, 0)
    );
    assert_eq!(world.graph.drain_changed().len(), 1);
    let _ = N1;
}

#[test]
fn tables_are_empty_after_everything_went_away() {
    let mut world = world(Config::default());
    for number in 0..200u16 {
        let dial = client("web-1")
            .to("10.244.1.6", 1_000 + number)
            .with([conn(u32::from(number))]);
        world.report("n1", [dial]);
    }
    for edge in world.edges().into_values() {
        world.graph.forget(&edge.key);
    }
    world.hello("n1", crate::support::EPOCH + 1);
    world.complete("n1");
    world.graph.delete_pod("web-1", world.time());
    world.graph.delete_pod("ftp-0", world.time());
    world.pass(700_000);
    world.graph.drain_changed();
    world.pass(60_000);
    let stats = world.graph.stats();
    assert_eq!(
        (
            stats.half_edges,
            stats.records,
            stats.edges,
            stats.waiting,
            stats.pods
        ),
        (0, 0, 0, 0, 0)
    );
    assert_eq!(stats.entities, 0);
}
