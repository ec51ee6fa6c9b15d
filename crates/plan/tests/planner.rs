//! The life of one edge, as the API server sees it.

mod world;

use leyline_api::{ConditionStatus, ConditionType, Evidence, State, labels};
use leyline_graph::{
    End, ServiceRef, Unnamed, Unresolved,
    entity::{EdgeKey, Entity, Time},
};
use leyline_plan::{Lane, Outcome};
use world::{DAY, HOUR, MINUTE, SECOND, START, What, World, key, zone};

#[test]
fn a_new_edge_is_written_at_once_and_whole() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.edge(&cart, |view| {
        view.totals.opened = 3;
        view.totals.active = 1;
        view.totals.adopted = 7;
        view.totals.timed_out = 2;
        view.totals.bytes_sent = 213;
        view.service = Some(ServiceRef {
            namespace: "data".into(),
            name: "cache".into(),
            port: 80,
        });
        view.evidence.server_socket = true;
    });
    w.run(0);
    assert_eq!(w.writes(), [(Lane::New, What::Apply)]);
    let object = w.only();
    assert_eq!(object.metadata.namespace.as_deref(), Some("shop"));
    assert!(
        object
            .metadata
            .name
            .as_ref()
            .unwrap()
            .starts_with("cart-redis-6379-")
    );
    assert_eq!(
        object.metadata.labels.as_ref().unwrap()[labels::GENERATED],
        "true"
    );
    assert_eq!(
        (object.spec.client.name.as_str(), object.spec.server.namespace()),
        ("cart", "data")
    );
    let status = object.status.clone().unwrap();
    assert_eq!(status.state, Some(State::Active));
    assert_eq!(status.first_seen.unwrap().0.as_millisecond(), START.0);
    assert_eq!(status.counted_since.unwrap().0.as_millisecond(), START.0);
    assert_eq!(status.evidence, [Evidence::ClientSocket, Evidence::ServerSocket]);
    assert_eq!(status.service.unwrap().name, "cache");
    let connections = status.connections.unwrap();
    assert_eq!(
        (connections.opened, connections.active, connections.failed),
        (3, 1, 2)
    );
    assert_eq!(connections.failures.unwrap().timed_out, 2);
    assert_eq!(status.bytes.unwrap().sent, 213);
    assert_eq!(status.window.as_deref(), Some("5m"));
    let network = status.network.unwrap();
    assert_eq!(
        (network.connect_time.as_deref(), network.rtt.as_deref()),
        (Some("1.2ms"), Some("310us"))
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.status == ConditionStatus::True && c.observed_generation == 1)
    );
    assert_eq!(status.conditions.len(), 3);
}

#[test]
fn a_client_without_namespace_is_written_to_the_system_namespace() {
    let mut w = World::new();
    let mut kubelet = key("kubelet.service", "redis");
    kubelet.client = Entity {
        kind: "NodeProcess".into(),
        api_group: String::new(),
        namespace: String::new(),
        ..kubelet.client
    };
    w.connect(&kubelet, 1);
    w.run(0);
    assert_eq!(w.only().metadata.namespace.as_deref(), Some("leyline-system"));
}

#[test]
fn nothing_is_written_before_the_planner_settled() {
    let mut w = World::new();
    w.planner = leyline_plan::Planner::new(leyline_plan::Config::default(), w.now);
    w.connect(&key("cart", "redis"), 1);
    w.run(MINUTE);
    assert!(w.log.is_empty());
    assert_eq!(w.planner.waiting().new, 1);
    w.planner.settle(w.now);
    w.run(0);
    assert_eq!(w.writes(), [(Lane::New, What::Apply)]);
}

#[test]
fn moving_totals_are_written_once_a_minute() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(0);
    w.writes();
    for _ in 0..10 * 60 {
        w.run(SECOND);
        w.connect(&cart, 1);
    }
    let writes = w.writes();
    assert!(writes.iter().all(|w| *w == (Lane::Figures, What::Status)));
    assert!(
        (9..=10).contains(&writes.len()),
        "{} writes in ten minutes",
        writes.len()
    );
}

#[test]
fn totals_are_written_within_ten_seconds_after_they_went_quiet() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(2 * SECOND);
    w.connect(&cart, 41);
    w.run(10 * SECOND);
    assert_eq!(w.opened(), 42);
    w.writes();
    w.run(20 * MINUTE);
    assert_eq!(w.writes(), [], "a quiet edge costs nothing");
}

#[test]
fn a_sweep_every_ten_seconds_is_not_quiet() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    for second in 0..600 {
        if second % 10 == 0 {
            w.edge(&cart, |view| {
                view.totals.opened = 1;
                view.totals.active = 1;
                view.totals.bytes_sent += 1;
            });
        }
        w.run(SECOND);
    }
    let writes = w.writes().len();
    assert!(
        (9..=12).contains(&writes),
        "{writes} writes in ten minutes of a connection that is used all the time"
    );
}

#[test]
fn bytes_by_zone_are_written_with_the_totals_and_no_more_often() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(0);
    let zones = |w: &World| -> Vec<String> {
        let status = w.only().status.clone().unwrap();
        let zones = status.zones.into_iter();
        zones
            .map(|zone| format!("{}>{} {}", zone.client, zone.server, zone.bytes))
            .collect()
    };
    assert_eq!(zones(&w), ["a>b 70"]);
    w.writes();
    // The server's node, which knows the zones, reports a second later than the client's.
    for round in 2..=10 * 60 {
        w.edge(&cart, |view| view.totals.bytes_sent += 71);
        w.run(SECOND / 2);
        w.edge(&cart, |view| {
            view.zones = vec![zone("a", 30), zone("c", round * 40)]
        });
        w.run(SECOND / 2);
    }
    let writes = w.writes();
    assert!(writes.iter().all(|w| *w == (Lane::Figures, What::Status)));
    assert!(
        (9..=10).contains(&writes.len()),
        "{} writes in ten minutes",
        writes.len()
    );
    w.run(MINUTE);
    assert_eq!(zones(&w), ["a>b 30", "c>b 24000"]);
    w.writes();
    w.run(20 * MINUTE);
    assert_eq!(w.writes(), [], "a quiet edge costs nothing");
    // Proof that comes later moves bytes between pairs: one more write, when it is quiet again.
    w.edge(&cart, |view| view.zones = vec![zone("c", 24_030)]);
    w.run(MINUTE);
    assert_eq!(w.writes(), [(Lane::Figures, What::Status)]);
    assert_eq!(zones(&w), ["c>b 24030"]);
}

#[test]
fn last_seen_alone_is_no_reason_to_write() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.edge(&cart, |view| {
        view.totals.active = 1;
        view.totals.adopted = 1;
    });
    w.run(0);
    w.writes();
    for _ in 0..3 * 60 {
        w.run(MINUTE);
        w.edge(&cart, |_| ());
    }
    assert_eq!(w.writes(), []);
}

#[test]
fn last_seen_is_refreshed_at_most_hourly_unless_the_state_changes() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    let seen = |w: &World| {
        w.only()
            .status
            .as_ref()
            .unwrap()
            .last_seen
            .as_ref()
            .unwrap()
            .0
            .as_millisecond()
    };
    let mut moved = Vec::new();
    for minute in 0..150 {
        w.run(MINUTE);
        if moved.last().is_none_or(|(_, last)| *last != seen(&w)) {
            moved.push((minute, seen(&w)));
        }
        w.connect(&cart, 1);
    }
    assert_eq!(moved.len(), 3, "{moved:?}");
    let last = w.now;
    w.run(2 * HOUR);
    assert_eq!(
        (w.state(), seen(&w)),
        (State::Idle, last.0),
        "the final word is exact"
    );
}

#[test]
fn an_edge_goes_idle_comes_back_and_ends() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(59 * MINUTE);
    assert_eq!(w.state(), State::Active);
    w.run(2 * MINUTE);
    assert_eq!(w.state(), State::Idle);
    let observed = |w: &World| {
        let status = w.only().status.clone().unwrap();
        status
            .conditions
            .into_iter()
            .find(|c| c.type_ == ConditionType::Observed)
            .unwrap()
    };
    assert_eq!(
        (observed(&w).status, observed(&w).reason.as_str()),
        (ConditionStatus::False, "Idle")
    );
    assert!(observed(&w).last_transition_time.0.as_millisecond() > START.0 + 59 * MINUTE);
    w.run(DAY);
    w.connect(&cart, 1);
    w.run(0);
    assert_eq!(
        (w.state(), w.opened()),
        (State::Active, 2),
        "an edge that comes back goes on counting"
    );
    w.run(7 * DAY - HOUR);
    assert_eq!(w.objects.len(), 1);
    w.writes();
    w.run(2 * HOUR);
    assert_eq!(w.writes(), [(Lane::New, What::Delete)]);
    assert_eq!(w.forgotten, [cart]);
    assert!(w.objects.is_empty());
}

#[test]
fn an_open_connection_never_goes_idle() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.edge(&cart, |view| view.totals.active = 1);
    w.run(30 * DAY);
    assert_eq!(w.state(), State::Active);
    w.edge(&cart, |view| view.totals.active = 0);
    w.run(HOUR + MINUTE);
    assert_eq!(w.state(), State::Idle);
}

#[test]
fn attempts_that_only_fail_are_failing() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.refuse(&cart);
    w.run(0);
    assert_eq!(w.state(), State::Failing);
    w.run(MINUTE);
    w.connect(&cart, 1);
    w.run(0);
    assert_eq!(w.state(), State::Active);
    for _ in 0..4 {
        w.run(MINUTE);
        w.refuse(&cart);
    }
    w.run(0);
    assert_eq!(w.state(), State::Active, "a short outage is no state");
    w.run(MINUTE + SECOND);
    assert_eq!(w.state(), State::Failing, "five minutes without success");
    w.restart();
    w.edge(&cart, |view| {
        view.last_success = None;
        view.last_failure = None;
    });
    w.run(10 * SECOND);
    assert_eq!(w.state(), State::Failing, "a restart proves nothing");
    w.run(2 * HOUR);
    assert_eq!(w.state(), State::Idle);
}

#[test]
fn a_vanished_edge_is_deleted_without_a_word() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(HOUR / 2);
    w.vanish(&cart);
    w.writes();
    w.run(0);
    assert_eq!(w.writes(), [(Lane::New, What::Delete)]);
    assert!(w.objects.is_empty() && w.events.is_empty());
    w.connect(&cart, 1);
    w.run(0);
    assert_eq!(w.objects.len(), 1, "and comes back when it is proven");
}

#[test]
fn an_edge_that_vanished_before_it_was_written_costs_nothing() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.vanish(&cart);
    w.run(MINUTE);
    assert!(w.log.is_empty());
    assert_eq!(w.planner.waiting().new, 0);
}

#[test]
fn conditions_say_which_end_and_why() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.writes();
    w.edge(&cart, |view| {
        view.unresolved = Some(Unresolved {
            end: End::Server,
            reason: Unnamed::NodeAddress,
        });
        view.incomplete.loss = true;
        view.incomplete.folded = true;
    });
    w.run(0);
    assert_eq!(w.writes(), [(Lane::Conditions, What::Status)]);
    let conditions = w.only().status.clone().unwrap().conditions;
    let find = |type_| conditions.iter().find(|c| c.type_ == type_).unwrap();
    let resolved = find(ConditionType::Resolved);
    assert_eq!(
        (resolved.status, resolved.reason.as_str()),
        (ConditionStatus::False, "NodeAddress")
    );
    assert!(resolved.message.starts_with("server: "), "{}", resolved.message);
    let complete = find(ConditionType::Complete);
    assert_eq!(
        (complete.status, complete.reason.as_str()),
        (ConditionStatus::False, "Loss")
    );
    assert!(complete.message.contains("Folded"), "{}", complete.message);
    let observed = find(ConditionType::Observed);
    assert_eq!(
        observed.last_transition_time.0.as_millisecond(),
        START.0,
        "what did not change keeps its time"
    );
    w.restart();
    w.run(MINUTE);
    assert_eq!(w.writes(), [], "what was written reads back the same");
}

#[test]
fn a_namespace_that_ends_takes_its_edges_with_it() {
    let mut w = World::new();
    let (cart, other) = (
        key("cart", "redis"),
        EdgeKey {
            client: world::workload("blog", "x"),
            ..key("x", "y")
        },
    );
    w.connect(&cart, 1);
    w.connect(&other, 1);
    w.run(0);
    w.writes();
    w.planner.namespace_ended("shop", w.now);
    w.objects.retain(|(namespace, _), _| namespace != "shop");
    w.connect(&cart, 1);
    w.run(MINUTE);
    assert_eq!(w.writes(), []);
    assert!(w.forgotten.contains(&cart) && !w.forgotten.contains(&other));
    w.planner.namespace_present("shop");
    w.connect(&cart, 1);
    w.run(0);
    assert_eq!(w.writes(), [(Lane::New, What::Apply)]);
}

#[test]
fn a_missing_namespace_is_not_retried() {
    let mut w = World::new();
    w.answer = Some(Outcome::NamespaceGone);
    w.connect(&key("cart", "redis"), 1);
    w.run(10 * MINUTE);
    assert_eq!(w.writes().len(), 1);
    w.answer = None;
    w.connect(&key("cart", "redis"), 1);
    w.run(SECOND);
    assert_eq!(
        w.objects.len(),
        1,
        "an edge that is seen a minute later is tried again"
    );
}

#[test]
fn failed_writes_are_repeated_later_each_time() {
    let mut w = World::new();
    w.answer = Some(Outcome::Failed);
    w.connect(&key("cart", "redis"), 1);
    w.run(10 * MINUTE);
    let times: Vec<i64> = w.log.iter().map(|entry| entry.at.0 - START.0).collect();
    assert!((14..=18).contains(&times.len()), "{times:?}");
    w.answer = None;
    w.run(2 * MINUTE);
    assert_eq!(w.objects.len(), 1);
    assert_eq!(w.planner.waiting().in_flight, 0);
}

#[test]
fn a_refused_object_is_not_sent_again_and_again() {
    let mut w = World::new();
    w.answer = Some(Outcome::Refused);
    w.connect(&key("cart", "redis"), 1);
    w.run(30 * MINUTE);
    assert!((3..=4).contains(&w.log.len()), "{:?}", w.log);
}

#[test]
fn time_that_goes_backwards_breaks_nothing() {
    let mut w = World::new();
    let cart = key("cart", "redis");
    w.connect(&cart, 1);
    w.run(MINUTE);
    w.now = Time(START.0 - DAY);
    w.connect(&cart, 1);
    w.run(2 * MINUTE);
    w.now = Time(i64::MAX / 2);
    w.run(0);
    w.now = Time(i64::MIN / 2);
    w.run(0);
}
