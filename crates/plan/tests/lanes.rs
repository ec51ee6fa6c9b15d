//! Rates and order: what waits for whom.

mod world;

use leyline_plan::{Lane, Outcome};
use world::{HOUR, MINUTE, SECOND, START, What, World, key};

fn many(w: &mut World, count: usize) {
    for number in 0..count {
        w.connect(&key(&format!("client-{number}"), "redis"), 1);
    }
}

#[test]
fn new_edges_have_a_burst_of_a_thousand_and_then_a_hundred_per_second() {
    let mut w = World::new();
    many(&mut w, 1_500);
    w.run(0);
    assert_eq!(w.objects.len(), 1_000);
    assert_eq!(w.planner.waiting().new, 500);
    w.run(SECOND);
    assert_eq!(w.objects.len(), 1_100);
    w.run(4 * SECOND);
    assert_eq!(w.objects.len(), 1_500);
    assert_eq!(w.planner.waiting().new, 0);
}

#[test]
fn conditions_go_before_figures_and_share_twenty_per_second() {
    let mut w = World::new();
    many(&mut w, 400);
    w.run(2 * MINUTE);
    w.writes();
    many(&mut w, 400);
    w.run(6 * SECOND);
    let figures = w.writes();
    assert!(figures.iter().all(|(lane, _)| *lane == Lane::Figures));
    let left = w.planner.waiting().figures;
    assert!(left > 250, "{left} wait");
    for number in 0..100 {
        w.edge(&key(&format!("client-{number}"), "redis"), |view| {
            view.evidence.server_socket = true
        });
    }
    w.run(4 * SECOND);
    let writes = w.writes();
    assert!(
        (75..=85).contains(&writes.len()),
        "{} writes in four seconds",
        writes.len()
    );
    assert!(
        writes
            .iter()
            .all(|write| *write == (Lane::Conditions, What::Status))
    );
    w.run(30 * SECOND);
    assert_eq!(w.planner.waiting().conditions + w.planner.waiting().figures, 0);
}

#[test]
fn new_edges_do_not_wait_for_changes() {
    let mut w = World::new();
    many(&mut w, 500);
    w.run(2 * MINUTE);
    many(&mut w, 500);
    w.run(6 * SECOND);
    w.writes();
    w.connect(&key("newcomer", "redis"), 1);
    w.run(0);
    assert_eq!(w.writes().first(), Some(&(Lane::New, What::Apply)));
}

#[test]
fn figures_go_oldest_first() {
    let mut w = World::new();
    many(&mut w, 60);
    w.run(2 * MINUTE);
    many(&mut w, 30);
    w.run(2 * MINUTE);
    w.writes();
    many(&mut w, 60);
    w.run(6 * SECOND);
    let first: Vec<&str> = w.log.iter().take(20).map(|entry| entry.name.as_str()).collect();
    let written_before = |name: &&str| (0..30).any(|n| name.starts_with(&format!("client-{n}-")));
    assert!(
        first.len() == 20 && !first.iter().any(written_before),
        "{first:?}"
    );
}

#[test]
fn a_lane_forgets_what_is_no_longer_true() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.writes();
    w.edge(&cart, |view| view.incomplete.loss = true);
    assert_eq!(w.planner.waiting().conditions, 1);
    w.edge(&cart, |view| view.incomplete.loss = false);
    w.run(MINUTE);
    assert_eq!(w.writes(), []);
}

#[test]
fn a_replica_that_only_watches_follows_and_takes_over_without_writing_anew() {
    let mut leader = World::new();
    let mut standby = World::new();
    for second in 0..90 {
        for number in 0..20 {
            let key = key(&format!("client-{number}"), "redis");
            if second < 60 {
                leader.connect(&key, 1);
                standby.connect(&key, 1);
            }
        }
        leader.run(SECOND);
        standby.now = leader.now;
        standby.planner.tick(standby.now);
        for object in leader.objects.values() {
            standby.planner.seen(object, standby.now);
        }
    }
    standby.objects = leader.objects;
    standby.run(MINUTE);
    assert_eq!(standby.writes(), []);
}

#[test]
fn outcomes_nobody_waits_for_are_ignored() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    let edges = w.edges.clone();
    let first = w.planner.take(10, w.now, |key| edges.get(key).cloned());
    assert_eq!(w.planner.waiting().in_flight, 1);
    assert!(
        w.planner
            .take(10, w.now, |key| edges.get(key).cloned())
            .is_empty(),
        "one write per edge at a time"
    );
    w.planner.abandon(w.now);
    let second = w.planner.take(10, w.now, |key| edges.get(key).cloned());
    assert_eq!((first.len(), second.len()), (1, 1));
    w.planner.done(first[0].ticket, Outcome::Failed, w.now);
    assert_eq!(w.planner.waiting().in_flight, 1);
    w.planner.done(second[0].ticket, Outcome::Done, w.now);
    w.run(MINUTE);
    assert!(w.log.is_empty(), "{:?}", w.log);
}

#[test]
fn no_event_about_anything_young() {
    let mut w = World::new();
    many(&mut w, 50);
    w.run(5 * MINUTE);
    many(&mut w, 60);
    w.run(10 * MINUTE);
    assert!(w.events.is_empty(), "Leyline itself is young: {:?}", w.events);
    w.connect(&key("newcomer", "redis"), 1);
    w.run(MINUTE);
    assert!(w.events.is_empty(), "the client is young: {:?}", w.events);
}

#[test]
fn events_are_aggregated_per_client_and_one_per_second() {
    let mut w = World::new();
    for client in ["a", "b", "c"] {
        w.connect(&key(client, "redis"), 1);
    }
    w.run(HOUR / 2);
    for client in ["a", "b", "c"] {
        for server in 0..5 {
            w.connect(&key(client, &format!("server-{server}")), 1);
        }
    }
    w.run(10 * SECOND);
    let clients: Vec<&str> = w
        .events
        .iter()
        .map(|(_, event)| event.client.name.as_str())
        .collect();
    assert_eq!(clients.len(), 3, "{:?}", w.events);
    let (at, event) = &w.events[0];
    assert_eq!(event.count, 5);
    assert_eq!(
        (event.namespace.as_str(), event.reason.as_str()),
        ("shop", "NewDependency")
    );
    assert_eq!(
        event.note,
        "a now depends on Deployment data/server-0:6379, Deployment data/server-1:6379, Deployment data/server-2:6379 and 2 more"
    );
    assert!(event.note.len() < 1_024);
    assert!(w.events[1].0.0 - at.0 >= SECOND && w.events[2].0.0 - w.events[1].0.0 >= SECOND);
}

#[test]
fn an_ended_dependency_is_told_once() {
    let mut w = World::new();
    w.connect(&key("a", "redis"), 1);
    w.run(9 * world::DAY);
    let reasons: Vec<&str> = w.events.iter().map(|(_, event)| event.reason.as_str()).collect();
    assert_eq!(reasons, ["DependencyEnded"]);
    assert!(w.events[0].0.0 > START.0);
}

#[test]
fn an_object_that_comes_back_is_no_news() {
    let mut w = World::new();
    w.connect(&key("a", "redis"), 1);
    w.run(HOUR / 2);
    w.connect(&key("a", "mysql"), 1);
    w.run(10 * SECOND);
    assert_eq!(w.events.len(), 1);
    let objects = std::mem::take(&mut w.objects);
    for object in objects.values() {
        w.planner.gone(object, w.now);
    }
    w.run(10 * SECOND);
    assert_eq!((w.objects.len(), w.events.len()), (2, 1));
}

#[test]
fn an_object_deleted_while_a_write_is_on_its_way_is_made_again() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.edge(&cart, |view| view.incomplete.loss = true);
    let edges = w.edges.clone();
    let writes = w.planner.take(10, w.now, |key| edges.get(key).cloned());
    let object = w.objects.pop_first().expect("the object").1;
    w.planner.gone(&object, w.now);
    w.planner.done(writes[0].ticket, Outcome::Done, w.now);
    w.run(SECOND);
    assert_eq!(w.objects.len(), 1);
}

#[test]
fn too_many_clients_with_events_are_counted() {
    let mut w = World::new();
    many(&mut w, 1_200);
    w.run(HOUR / 2);
    for number in 0..1_200 {
        w.connect(&key(&format!("client-{number}"), "other"), 1);
    }
    w.planner.tick(w.now);
    w.run(10 * SECOND);
    assert!(w.planner.events_dropped() > 0);
    assert_eq!(w.events.len(), 11);
}

#[test]
fn a_watch_that_lags_behind_own_writes_is_no_reason_to_write_again() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    let old = w.only().clone();
    w.edge(&cart, |view| view.incomplete.loss = true);
    w.run(0);
    w.writes();
    w.planner.seen(&old, w.now);
    w.run(MINUTE);
    assert_eq!(w.writes(), []);
    w.planner.seen(&old, w.now);
    w.run(0);
    assert_eq!(
        w.writes(),
        [(Lane::Conditions, What::Status)],
        "a minute later it is somebody's change"
    );
}
