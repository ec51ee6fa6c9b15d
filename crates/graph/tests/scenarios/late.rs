//! Everything may arrive late, and addresses change hands.

use crate::support::{EPOCH, N1, START, World, client, conn, controller, owner, pod, server};
use leyline_graph::entity::Time;
use leyline_graph::input::Controller;
use leyline_graph::{Closed, Config};

const EDGE: &str = "Deployment/web -> StatefulSet/redis:6380";

fn web() -> crate::support::P {
    pod("web-1").at("10.244.0.5").of("Deployment", "web")
}
fn redis() -> crate::support::P {
    pod("redis-0")
        .on("n2")
        .at("10.244.1.6")
        .of("StatefulSet", "redis")
}

#[test]
fn nothing_is_named_before_the_watches_have_listed() {
    let mut world = World::empty(Config::default());
    world.nodes();
    world.agents();
    world.pod(web());
    world.pod(redis());
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0"]);
    world.report("n1", [client("web-1").to("10.96.0.9", 6379).with([conn(1)])]);
    world.graph.settle(world.time());
    world.pass(20_000);
    world.expect(&[]);
    // A second workload behind the same Service was still to be listed.
    world.pod(
        pod("canary-0")
            .on("n2")
            .at("10.244.1.7")
            .of("StatefulSet", "canary"),
    );
    world.slice("redis", 6380, &["redis-0", "canary-0"]);
    world.graph.inventory_synced(world.time());
    world.report("n2", [server("canary-0").from(N1, 6380).with([conn(1)])]);
    world.expect(&["Deployment/web -> StatefulSet/canary:6380"]);
}

#[test]
fn a_late_client_pod_gets_everything_counted_before() {
    let mut world = World::new();
    world.pod(redis());
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).opened(3).bytes(1, 2)],
    );
    world.pass(30_000);
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).opened(4).bytes(1, 2)],
    );
    world.expect(&[]);
    world.pod(web());
    assert_eq!(world.edge(EDGE).totals.opened, 4);
    assert_eq!(world.graph.stats().waiting, 0);
}

#[test]
fn a_pod_nobody_knows_is_dropped_after_a_minute_and_counted() {
    let mut world = World::new();
    world.pod(redis());
    world.report("n1", [client("ghost").to("10.244.1.6", 6380).opened(3)]);
    world.pass(62_000);
    assert_eq!(world.closed(Closed::PodUnknown), 3);
    assert_eq!(world.graph.stats().waiting, 0);
    world.expect(&[]);
}

#[test]
fn a_late_server_pod_is_waited_for() {
    let mut world = World::new();
    world.pod(web());
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).with([conn(1)])]);
    world.pass(9_000);
    world.expect(&[]);
    world.pod(redis());
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn a_very_late_server_pod_takes_over_from_its_address() {
    let mut world = World::new();
    world.pod(web());
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).with([conn(1).open()])],
    );
    world.pass(20_000);
    world.expect(&["Deployment/web -> Address/10.244.1.6:6380"]);
    world.pod(redis());
    world.expect(&[EDGE]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active), (1, 1));
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).with([conn(1)])]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active), (1, 0));
}

#[test]
fn a_pod_waits_for_its_replica_set_and_keeps_the_name_it_got_late() {
    let mut world = World::new();
    world.pod(redis());
    world.pod(pod("web-7f-x").at("10.244.0.5").of("ReplicaSet", "web-7f"));
    world.report("n1", [client("web-7f-x").to("10.244.1.6", 6380).opened(1)]);
    world.pass(9_000);
    world.expect(&[]);
    let set = Controller {
        controller: Some(owner("apps", "Deployment", "web")),
        ..controller("ReplicaSet", "web-7f")
    };
    let mut late = World::new();
    late.pod(redis());
    late.pod(pod("web-7f-x").at("10.244.0.5").of("ReplicaSet", "web-7f"));
    late.report("n1", [client("web-7f-x").to("10.244.1.6", 6380).opened(1)]);
    late.report("n2", [server("redis-0").from("10.244.0.5", 6380).opened(1)]);
    late.pass(12_000);
    late.expect(&["ReplicaSet/web-7f -> StatefulSet/redis:6380"]);
    let provisional = late.edge("ReplicaSet/web-7f -> StatefulSet/redis:6380").key;
    late.graph.drain_changed();
    for world in [&mut world, &mut late] {
        world.graph.apply_controller(set.clone(), world.time());
        world.expect(&[EDGE]);
        assert_eq!(world.edge(EDGE).totals.opened, 1);
    }
    assert!(late.graph.drain_changed().contains(&provisional));
    late.report("n1", [client("web-7f-x").to("10.244.1.6", 6380).opened(3)]);
    late.expect(&[EDGE]);
    assert_eq!(late.edge(EDGE).totals.opened, 3);
}

#[test]
fn a_late_service_names_the_workload_behind_it() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.report(
        "n1",
        [client("web-1").to("10.96.0.9", 6379).with([conn(1), conn(2)])],
    );
    world.pass(5_000);
    world.expect(&[]);
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0"]);
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 2);
    assert_eq!(world.edge(EDGE).service.unwrap().name, "redis");
}

#[test]
fn a_late_slice_names_the_workload_behind_a_known_service() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.service("redis", "10.96.0.9", 6379, 6380, &[]);
    world.report(
        "n1",
        [client("web-1")
            .to("10.96.0.9", 6379)
            .with([conn(1).bytes(1, 1), conn(2).open()])],
    );
    world.pass(11_000);
    world.expect(&["Deployment/web -> Service/redis:6379"]);
    world.slice("redis", 6380, &["redis-0"]);
    world.expect(&[EDGE]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active, totals.bytes_sent), (2, 1, 1));
}

#[test]
fn a_late_pod_behind_a_service_is_waited_for() {
    let mut world = World::new();
    world.pod(web());
    world.service("redis", "10.96.0.9", 6379, 6380, &["redis-0"]);
    world.report("n1", [client("web-1").to("10.96.0.9", 6379).with([conn(1)])]);
    world.pass(3_000);
    world.expect(&[]);
    world.pod(redis());
    world.expect(&[EDGE]);
}

#[test]
fn a_late_connection_record_finds_its_other_half() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.report(
        "n2",
        [server("redis-0").from(N1, 6380).with([conn(1).bytes(2, 1)])],
    );
    world.pass(8_000);
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).with([conn(1).bytes(1, 2)])],
    );
    world.pass(60_000);
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn a_late_owner_of_the_other_half_is_waited_for() {
    let mut world = World::new();
    world.pod(redis());
    world.report("n2", [server("redis-0").from(N1, 6380).with([conn(1)])]);
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).with([conn(1)])]);
    world.pass(5_000);
    world.expect(&[]);
    world.pod(web());
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 1);
}

#[test]
fn an_address_that_changes_hands_within_a_second_renames_nothing() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    let dial = || client("web-1").to("10.244.1.6", 6380);
    world.report("n1", [dial().opened(5)]);
    world.pass(10_000);
    // redis goes, mail gets its address 300 ms later; connection 1 is from before, 2 from after.
    world.graph.delete_pod("redis-0", world.time());
    world.now += 300;
    let mail = pod("mail-0")
        .on("n2")
        .at("10.244.1.6")
        .of("StatefulSet", "mail")
        .started(Some(world.now - 200));
    world.pod(mail);
    world.now += 200;
    world.report("n1", [dial().opened(5).with([conn(1)]).changed(world.now - 600)]);
    world.report(
        "n1",
        [dial().opened(5).with([conn(1), conn(2)]).changed(world.now)],
    );
    world.report("n2", [server("redis-0").from("10.244.0.5", 6380).with([conn(1)])]);
    world.report("n2", [server("mail-0").from("10.244.0.5", 6380).with([conn(2)])]);
    world.expect(&["Deployment/web -> StatefulSet/mail:6380", EDGE]);
    assert_eq!(world.edge(EDGE).totals.opened, 6);
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/mail:6380")
            .totals
            .opened,
        1
    );
    // Two reports that straddle the change arrive late: each meets the owner of its own time, without any proof.
    let changed_hands = world.now - 200;
    world.pass(5_000);
    world.report(
        "n1",
        [dial()
            .opened(5)
            .with([conn(1), conn(2)])
            .opened(10)
            .changed(changed_hands - 1_500)],
    );
    world.report(
        "n1",
        [dial()
            .opened(5)
            .with([conn(1), conn(2)])
            .opened(11)
            .changed(changed_hands + 1_500)],
    );
    assert_eq!(world.edge(EDGE).totals.opened, 9);
    assert_eq!(
        world
            .edge("Deployment/web -> StatefulSet/mail:6380")
            .totals
            .opened,
        2
    );
}

#[test]
fn a_new_pod_on_an_old_address_is_not_taken_for_the_former_one() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.graph.delete_pod("redis-0", world.time());
    world.pass(5_000);
    // mail's first connection is faster than the watch.
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).opened(1)]);
    world.pass(1_500);
    world.expect(&[]);
    world.pod(
        pod("mail-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "mail")
            .started(Some(world.now - 3_000)),
    );
    world.expect(&["Deployment/web -> StatefulSet/mail:6380"]);
}

#[test]
fn attempts_to_a_dead_pods_address_are_the_dead_pods_after_a_while() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.graph.delete_pod("redis-0", world.time());
    for second in 1..=25 {
        world.pass(1_000);
        world.report("n1", [client("web-1").to("10.244.1.6", 6380).refused(second)]);
    }
    world.expect(&[EDGE]);
    assert!(world.edge(EDGE).totals.refused >= 20);
    world.pass(11_000);
    assert_eq!(world.edge(EDGE).totals.refused, 25);
}

#[test]
fn the_next_owner_of_an_address_is_waited_for_anew() {
    let mut world = World::new();
    world.pod(redis());
    // Somebody the watch has not heard of: the half-edge has waited, and counts as one from elsewhere.
    world.report("n2", [server("redis-0").from("10.244.0.5", 6380).opened(1)]);
    world.pass(11_000);
    world.expect(&["External/private -> StatefulSet/redis:6380"]);
    let started = Some(world.now);
    world.pod(
        pod("other-1")
            .at("10.244.0.5")
            .of("Deployment", "other")
            .started(started),
    );
    world.pass(2_000);
    world.graph.delete_pod("other-1", world.time());
    world.pass(20_000);
    // The next pod is faster than the watch.
    let mut next = web();
    next = next.started(Some(world.now - 1_000));
    world.report(
        "n2",
        [server("redis-0")
            .from("10.244.0.5", 6380)
            .opened(2)
            .records([conn(1)])],
    );
    world.pass(1_500);
    world.expect(&["External/private -> StatefulSet/redis:6380"]);
    world.pod(next);
    world.expect(&[EDGE]);
}

#[test]
fn between_two_owners_of_an_address_only_the_connection_can_tell() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.pass(1_000);
    world.graph.delete_pod("redis-0", world.time());
    world.pass(4_000);
    world.pod(
        pod("mail-0")
            .on("n2")
            .at("10.244.1.6")
            .of("StatefulSet", "mail")
            .started(None),
    );
    let between = world.now - 2_000;
    let dial = client("web-1").to("10.244.1.6", 6380);
    let mut unclear = conn(1);
    (unclear.opened, unclear.seen) = (Some(between), Some(between));
    world.report("n1", [dial.with([unclear]).changed(between)]);
    world.expect(&[]);
    world.report("n2", [server("mail-0").from("10.244.0.5", 6380).with([conn(1)])]);
    world.expect(&["Deployment/web -> StatefulSet/mail:6380"]);
}

#[test]
fn a_finished_pod_releases_its_address() {
    let mut world = World::new();
    world.pod(web());
    let mut job = pod("job-1").on("n2").at("10.244.1.6").of("StatefulSet", "done");
    world.pod(pod("job-1").on("n2").at("10.244.1.6").of("StatefulSet", "done"));
    world.pass(1_000);
    job.0.finished = true;
    world.pod(job);
    world.pass(1_000);
    world.pod(redis());
    world.pass(2_000);
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).opened(1)]);
    world.expect(&[EDGE]);
}

#[test]
fn an_update_of_the_former_owner_does_not_take_the_address_back() {
    let mut world = World::new();
    world.pod(web());
    let old = || pod("old-1").on("n2").at("10.244.1.6").of("StatefulSet", "old");
    world.pod(old());
    world.pass(1_000);
    world.pod(redis());
    world.pod(old());
    world.pass(2_000);
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).opened(1)]);
    world.expect(&[EDGE]);
}

#[test]
fn a_gone_pod_still_names_reports_of_its_time() {
    let mut world = World::new();
    world.pod(web());
    world.pod(redis());
    world.pass(1_000);
    let then = world.now - 1;
    world.graph.delete_pod("redis-0", world.time());
    world.graph.delete_pod("web-1", world.time());
    world.pass(300_000);
    world.report(
        "n1",
        [client("web-1").to("10.244.1.6", 6380).opened(1).changed(then)],
    );
    world.expect(&[EDGE]);
    assert_eq!(world.edge(EDGE).first_seen, Time(START + then));
    // Not for ever.
    world.pass(400_000);
    assert_eq!(world.graph.stats().pods, 0);
    assert_eq!(world.graph.stats().addresses, 4);
}

#[test]
fn counts_of_a_late_pod_survive_its_agents_restart() {
    let mut world = World::new();
    world.pod(redis());
    world.report("n1", [client("web-1").to("10.244.1.6", 6380).opened(2)]);
    world.hello("n1", EPOCH + 2);
    world.complete("n1");
    world.pod(web());
    world.expect(&[EDGE]);
    let totals = world.edge(EDGE).totals;
    assert_eq!((totals.opened, totals.active), (2, 0));
    assert_eq!(world.graph.stats().half_edges, 0);
}
