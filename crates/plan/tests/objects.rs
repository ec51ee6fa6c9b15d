//! Objects that others change, and restarts.

mod world;

use leyline_api::State;
use leyline_graph::entity::Time;
use leyline_plan::{Adopted, Lane};
use world::{DAY, HOUR, MINUTE, SECOND, START, What, World, key, view};

#[test]
fn an_object_without_status_is_repaired_after_five_seconds() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.writes();
    let mut bare = w.only().clone();
    bare.status = None;
    w.planner.seen(&bare, w.now);
    w.run(4 * SECOND);
    assert_eq!(w.writes(), []);
    w.run(2 * SECOND);
    assert_eq!(w.writes(), [(Lane::New, What::Apply)]);
}

#[test]
fn an_object_deleted_by_hand_comes_back_unless_it_was_idle() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 5);
    w.run(MINUTE);
    let delete = |w: &mut World| {
        let (_, object) = w.objects.pop_first().unwrap();
        w.planner.gone(&object, w.now);
    };
    delete(&mut w);
    w.run(0);
    assert_eq!(w.opened(), 5);
    w.run(2 * HOUR);
    assert_eq!(w.state(), State::Idle);
    delete(&mut w);
    w.run(MINUTE);
    assert!(w.objects.is_empty());
    assert_eq!(w.forgotten, [cart]);
}

#[test]
fn an_object_that_went_unnoticed_is_made_again() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.objects.clear();
    w.connect(&cart, 1);
    w.run(20 * SECOND);
    assert_eq!(w.opened(), 2);
}

#[test]
fn objects_of_others_are_left_alone() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(0);
    let ours = w.only().clone();
    let mut foreign = ours.clone();
    foreign.metadata.labels = None;
    assert_eq!(w.planner.seen(&foreign, w.now), Adopted::Foreign);
    w.writes();
    w.connect(&cart, 1);
    w.run(2 * HOUR);
    assert_eq!(
        w.writes(),
        [],
        "an object under our name that is not labelled as ours"
    );
    let mut stray = ours.clone();
    stray.metadata.name = Some("a-copy".into());
    assert_eq!(w.planner.seen(&stray, w.now), Adopted::Stray);
    w.planner.gone(&stray, w.now);
    w.run(MINUTE);
    assert_eq!(w.writes(), []);
    w.planner.gone(&foreign, w.now);
    w.connect(&cart, 1);
    w.run(0);
    assert_eq!(
        w.writes(),
        [(Lane::New, What::Apply)],
        "once it is gone, the name is ours again"
    );
}

#[test]
fn a_restart_writes_nothing_and_loses_nothing() {
    let mut w = World::new();
    for client in ["a", "b", "c"] {
        w.connect(&key(client, "redis"), 7);
    }
    w.run(MINUTE);
    w.restart();
    w.run(10 * MINUTE);
    assert_eq!(w.writes(), []);
    let Adopted::Ours(seed) = w.planner.adopt(w.objects.values().next().unwrap(), w.now) else {
        unreachable!()
    };
    assert_eq!(
        (seed.totals.opened, seed.totals.bytes_sent, seed.first_seen),
        (7, 7 * 71, START)
    );
    assert_eq!(seed.zones, [world::zone("a", 7 * 70)]);
    // The API server may give the list back in another order.
    let (place, mut object) = w.objects.pop_first().unwrap();
    let zones = &mut object.status.as_mut().unwrap().zones;
    zones.push(leyline_api::ZoneBytes {
        client: "0".into(),
        ..zones[0].clone()
    });
    let key = seed.key.clone();
    w.objects.insert(place, object);
    w.edges
        .get_mut(&key)
        .unwrap()
        .zones
        .insert(0, world::zone("0", 7 * 70));
    w.restart();
    w.run(10 * MINUTE);
    assert_eq!(w.writes(), []);
}

#[test]
fn totals_and_first_seen_never_go_back_after_a_restart() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 100);
    w.run(MINUTE);
    // The graph lost everything; agents started anew as well.
    w.edges.clear();
    w.restart();
    w.run(HOUR / 4);
    w.connect(&cart, 3);
    w.run(20 * SECOND);
    assert_eq!(w.opened(), 100);
    let first = w.only().status.clone().unwrap().first_seen.unwrap();
    assert_eq!(first.0.as_millisecond(), START.0);
    w.connect(&cart, 98);
    w.run(20 * SECOND);
    assert_eq!(w.opened(), 101);
}

#[test]
fn the_next_leader_does_not_move_first_seen_by_what_its_own_clock_said() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    // Another replica: it heard of the edge itself, a moment earlier, before it saw the object.
    let mut next = World::at(w.now);
    next.objects.clone_from(&w.objects);
    for (skew, opened) in [(-900, 2), (-1_800, 3)] {
        next.edge(&cart, |view| {
            view.first_seen = Time(START.0 + skew);
            view.totals.opened = opened;
        });
        next.planner.seen(w.only(), next.now);
        next.run(MINUTE);
    }
    assert_eq!(next.opened(), 3);
    let status = next.only().status.clone().unwrap();
    assert_eq!(status.first_seen.unwrap().0.as_millisecond(), START.0);
    assert_eq!(status.counted_since.unwrap().0.as_millisecond(), START.0);
}

#[test]
fn an_object_the_graph_knows_nothing_of_is_kept_until_its_time_is_over() {
    let mut w = World::new();
    w.connect(&key("cart", "redis"), 1);
    w.run(MINUTE);
    w.edges.clear();
    w.restart();
    w.run(6 * DAY);
    assert_eq!(w.objects.len(), 1);
    w.run(2 * DAY);
    assert!(w.objects.is_empty());
}

#[test]
fn unreadable_totals_move_counted_since() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(HOUR / 2);
    w.objects
        .values_mut()
        .for_each(|o| o.status.as_mut().unwrap().connections = None);
    let now = w.now;
    let mut fresh = World::at(now);
    let object = w.only().clone();
    fresh.planner.adopt(&object, now);
    fresh.edges.insert(cart.clone(), view(&cart, START));
    fresh.connect(&cart, 2);
    fresh.run(20 * SECOND);
    let status = fresh.last_status.clone().unwrap();
    assert_eq!(status.counted_since.unwrap().0.as_millisecond(), now.0);
    assert_eq!(status.first_seen.unwrap().0.as_millisecond(), START.0);
}
