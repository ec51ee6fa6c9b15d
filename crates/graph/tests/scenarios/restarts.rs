//! Restarts of agents and of the operator: totals go on, nothing is invented.

use crate::support::{EPOCH, N1, START, World, client, conn, pod, process_server, server};
use leyline_graph::entity::{EdgeKey, Entity, Time, Transport};
use leyline_graph::input::Counters;
use leyline_graph::{Config, Evidence, Incomplete, ReportError, Seed, ServiceRef};

const EDGE: &str = "Deployment/web -> StatefulSet/redis:6380";

fn prepare(world: &mut World) {
    world.pod(pod("web-1").at("10.244.0.5").of("Deployment", "web"));
    world.pod(
        pod("redis-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "redis"),
    );
    world.pod(
        pod("cache-0")
            .on("n2")
            .at("10.244.1.7")
            .of("StatefulSet", "cache"),
    );
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0"]);
    world.service("both", "10.96.0.10", 80, 6380, &["redis-0", "cache-0"]);
}

fn key() -> EdgeKey {
    let entity = |kind: &str, name: &str| Entity {
        kind: kind.to_owned(),
        api_group: "apps".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    EdgeKey {
        client: entity("Deployment", "web"),
        server: entity("StatefulSet", "redis"),
        port: 6380,
        transport: Transport::Tcp,
    }
}

fn seed(opened: u64, sent: u64) -> Seed {
    Seed {
        key: key(),
        service: None,
        evidence: Evidence {
            client_socket: true,
            server_socket: false,
        },
        first_seen: Time(START - 86_400_000),
        last_seen: Time(START - 1_000),
        totals: Counters {
            opened,
            bytes_sent: sent,
            ..Counters::default()
        },
        zones: Vec::new(),
        unresolved: None,
        incomplete: Incomplete::default(),
    }
}

/// An operator that has just started on a cluster with agents of `EPOCH - 1`.
fn restarted(seeds: impl IntoIterator<Item = Seed>) -> World {
    let mut world = World::empty(Config::default());
    world.now = 1_000;
    world.nodes();
    prepare(&mut world);
    for seed in seeds {
        world.graph.seed(seed);
    }
    world.graph.inventory_synced(world.time());
    world.hello("n1", EPOCH - 1_000_000_000);
    world.hello("n2", EPOCH - 1_000_000_000);
    world
}

#[test]
fn an_agents_new_epoch_counts_from_zero_on_top_of_what_was() {
    let mut world = World::new();
    prepare(&mut world);
    let dial = client("web-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.clone().with([conn(1).open().bytes(5, 5)]).opened(10)]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active), (10, 1));
    world.hello("n1", EPOCH + 2);
    assert_eq!(world.edge(EDGE).totals.active, 0);
    world.report("n1", [dial.clone().with([conn(1).adopted().bytes(1, 1)])]);
    world.complete("n1");
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_sent), (10, 1, 6));
    world.report(
        "n1",
        [dial.with([conn(1).adopted().bytes(1, 1), conn(2).bytes(3, 3)])],
    );
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_sent), (11, 1, 9));
}

#[test]
fn a_report_lost_or_repeated_changes_nothing() {
    let mut world = World::new();
    prepare(&mut world);
    let dial = client("web-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.clone().opened(1)]);
    let _ = world.build("n1", &[dial.clone().opened(2)]);
    world.report("n1", [dial.clone().opened(5)]);
    world.report("n1", [dial.opened(5)]);
    assert_eq!(world.edge(EDGE).totals.opened, 5);
}

#[test]
fn half_edges_that_a_full_report_leaves_out_are_gone() {
    let mut world = World::new();
    prepare(&mut world);
    world.report(
        "n1",
        [client("web-1").to("10.96.0.9", 6379).with([conn(1).open()])],
    );
    world.hello("n1", EPOCH);
    world.complete("n1");
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active), (1, 0));
    world.pass(60_000);
    assert_eq!(
        (world.graph.stats().half_edges, world.graph.stats().records),
        (0, 0)
    );
}

#[test]
fn a_restarted_operator_continues_from_the_larger_total() {
    for (object, agents, expected) in [(100, 40, 100), (100, 130, 130)] {
        let mut world = restarted([seed(object, 7)]);
        let dial = client("web-1").to("10.96.0.9", 6379);
        world.report("n1", [dial.clone().opened(agents).bytes(50, 60)]);
        world.complete("n1");
        world.complete("n2");
        assert_eq!(world.graph.unreported_nodes(), Vec::<String>::new());
        world.graph.settle(world.time());
        let edge = world.edge(EDGE);
        assert_eq!((edge.totals.opened, edge.totals.bytes_sent), (expected, 50));
        assert_eq!(edge.first_seen, Time(START - 86_400_000));
        world.pass(1_000);
        world.report("n1", [dial.opened(agents + 1).bytes(51, 60)]);
        let edge = world.edge(EDGE);
        assert_eq!((edge.totals.opened, edge.totals.bytes_sent), (expected + 1, 51));
    }
}

#[test]
fn old_totals_without_records_invent_no_edge() {
    let mut world = restarted([]);
    world.report("n1", [client("web-1").to("10.96.0.10", 80).opened(50).refused(3)]);
    world.report("n2", [server("redis-0").from(N1, 6380).opened(50)]);
    world.complete("n1");
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(120_000);
    world.expect(&[]);
}

#[test]
fn old_totals_of_a_pod_that_dialled_its_own_service_invent_no_edge() {
    let mut world = restarted([]);
    world.report("n2", [client("redis-0").to("10.96.0.9", 6379).opened(50)]);
    world.complete("n1");
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(60_000);
    world.expect(&[]);
    // Another instance may well answer: without proof, later connections are the workload's own.
    world.report(
        "n2",
        [client("redis-0").to("10.96.0.9", 6379).opened(50).with([conn(1)])],
    );
    world.pass(11_000);
    world.expect(&["StatefulSet/redis -> StatefulSet/redis:6380"]);
}

#[test]
fn old_totals_to_a_service_are_not_the_last_workloads_that_is_left_behind_it() {
    let both = |name: &str, opened| {
        let mut seed = seed(opened, 0);
        seed.key.server.name = name.to_owned();
        seed.service = Some(ServiceRef {
            namespace: "shop".to_owned(),
            name: "both".to_owned(),
            port: 80,
        });
        seed
    };
    let mut world = restarted([both("redis", 60), both("cache", 40)]);
    world.slice("both", 6380, &["redis-0"]);
    world.pass(31_000);
    world.report("n1", [client("web-1").to("10.96.0.10", 80).opened(100)]);
    world.complete("n1");
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(1_000);
    assert_eq!(world.edge(EDGE).totals.opened, 60);
    world.report("n1", [client("web-1").to("10.96.0.10", 80).opened(101)]);
    assert_eq!(world.edge(EDGE).totals.opened, 61);
}

#[test]
fn connections_proven_one_by_one_are_not_counted_again_after_a_restart() {
    let mut world = restarted([seed(100, 500)]);
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.10", 80)
            .with([conn(1).open().bytes(5, 6)])],
    );
    world.complete("n1");
    world.graph.settle(world.time());
    // The proof comes after settling: what the object said included this connection.
    world.report(
        "n2",
        [server("redis-0")
            .from(N1, 6380)
            .with([conn(1).open().bytes(6, 5)])],
    );
    world.complete("n2");
    world.expect(&[EDGE]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_sent), (100, 1, 500));
    // A new one counts.
    world.pass(1_000);
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.10", 80)
            .with([conn(1).open().bytes(5, 6), conn(2).bytes(1, 1)])],
    );
    world.report(
        "n2",
        [server("redis-0")
            .from(N1, 6380)
            .with([conn(1).open().bytes(6, 5), conn(2).bytes(1, 1)])],
    );
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_sent), (101, 1, 501));
}

#[test]
fn an_old_agent_that_comes_after_settling_adds_only_what_the_object_lacks() {
    let mut world = restarted([seed(100, 500)]);
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(40_000);
    let dial = client("web-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.clone().opened(90).bytes(510, 0)]);
    world.complete("n1");
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.bytes_sent), (100, 510));
    world.report("n1", [dial.opened(91).bytes(511, 0)]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.bytes_sent), (101, 511));
}

#[test]
fn a_seeded_edge_is_there_before_anything_is_seen_and_until_it_is_forgotten() {
    let mut world = restarted([seed(100, 500)]);
    world.expect(&[EDGE]);
    world.complete("n1");
    world.complete("n2");
    world.graph.settle(world.time());
    world.pass(3_600_000);
    let edge = world.edge(EDGE);
    assert_eq!((edge.totals.opened, edge.last_seen), (100, Time(START - 1_000)));
    assert!(edge.evidence.client_socket);
    world.graph.forget(&key());
    world.expect(&[]);
    world.report("n1", [client("web-1").to("10.96.0.9", 6379).opened(2)]);
    assert_eq!(world.edge(EDGE).totals.opened, 2);
}

#[test]
fn a_forgotten_edge_starts_from_zero_and_an_open_one_is_not_forgotten() {
    let mut world = World::new();
    prepare(&mut world);
    let dial = client("web-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.clone().opened(4).active(1)]);
    world.graph.forget(&key());
    assert_eq!(world.edge(EDGE).totals.opened, 4);
    world.report("n1", [dial.clone().opened(4)]);
    world.graph.forget(&key());
    world.expect(&[]);
    world.report("n1", [dial.opened(5)]);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn a_silent_node_has_nothing_open_until_it_speaks_again() {
    let mut world = World::new();
    prepare(&mut world);
    let whole = || client("web-1").to("10.96.0.9", 6379).with([conn(1).open()]);
    let single = || client("web-1").to("10.96.0.10", 80).with([conn(2).open()]);
    let other = || server("redis-0").from(N1, 6380).with([conn(2).open()]);
    world.report("n1", [whole(), single()]);
    world.report("n2", [other()]);
    assert_eq!(world.edge(EDGE).totals.active, 2);
    for node in ["n1", "n2"] {
        world.graph.agent_gone(node, world.time());
    }
    world.pass(59_000);
    assert_eq!(world.edge(EDGE).totals.active, 2);
    world.pass(2_000);
    let edge = world.edge(EDGE);
    assert_eq!((edge.totals.active, edge.totals.opened), (0, 2));
    world.hello("n1", EPOCH);
    world.report("n1", [whole(), single()]);
    world.complete("n1");
    let edge = world.edge(EDGE);
    assert_eq!((edge.totals.active, edge.totals.opened), (2, 2));
}

#[test]
fn a_node_that_is_deleted_takes_its_half_edges_along() {
    let mut world = World::new();
    prepare(&mut world);
    world.report(
        "n1",
        [client("web-1").to("10.96.0.9", 6379).with([conn(1).open()])],
    );
    world.graph.agent_gone("n1", world.time());
    world.graph.delete_node("n1", world.time());
    world.pass(700_000);
    assert_eq!(world.graph.stats().half_edges, 0);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn reports_against_the_protocol_change_nothing() {
    let mut world = World::new();
    prepare(&mut world);
    let dial = client("web-1").to("10.96.0.9", 6379);
    world.report("n1", [dial.clone().opened(5).bytes(5, 5)]);
    let bad = |world: &mut World, change: &dyn Fn(&mut leyline_graph::input::Report)| {
        let mut report = world.build("n1", &[dial.clone().opened(9).bytes(9, 9)]);
        change(&mut report);
        world.graph.report("n1", EPOCH, report, world.time()).unwrap_err()
    };
    let id = world.id("n1", &dial);
    let error = bad(&mut world, &|report| {
        report.measurements[0].counters.bytes_sent = 4
    });
    assert_eq!(
        error,
        ReportError::Backwards {
            id,
            counter: "bytes_sent"
        }
    );
    let error = bad(&mut world, &|report| report.ended.push(99));
    assert_eq!(error, ReportError::Undefined { id: 99 });
    let error = bad(&mut world, &|report| report.measurements[0].id = 98);
    assert_eq!(error, ReportError::Undefined { id: 98 });
    let definition = world
        .build("n2", &[process_server("sshd").from(N1, 22)])
        .definitions[0]
        .clone();
    let error = bad(&mut world, &|report| {
        report.definitions.push(leyline_graph::input::Definition {
            id,
            ..definition.clone()
        });
    });
    assert_eq!(error, ReportError::Redefined { id });
    assert_eq!(world.edge(EDGE).totals.opened, 5);
    let empty = leyline_graph::input::Report::default;
    assert!(matches!(
        world.graph.report("n1", 7, empty(), world.time()),
        Err(ReportError::Epoch { .. })
    ));
    assert!(matches!(
        world.graph.report("n9", 7, empty(), world.time()),
        Err(ReportError::NoHello { .. })
    ));
    let lost = leyline_graph::input::Report { lost: 5, ..empty() };
    world.graph.report("n1", EPOCH, lost, world.time()).unwrap();
    assert_eq!(
        world.graph.report("n1", EPOCH, empty(), world.time()),
        Err(ReportError::LossBackwards)
    );
}
