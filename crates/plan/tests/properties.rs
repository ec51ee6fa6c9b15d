//! Whatever happens, the API server ends up with what is true, within the rates.

mod world;

use leyline_graph::entity::EdgeKey;
use leyline_plan::{Lane, Outcome};
use proptest::prelude::*;
use std::collections::BTreeSet;
use world::{MINUTE, SECOND, World, key};

#[derive(Clone, Debug)]
enum Step {
    Connect(usize, u64),
    Refuse(usize),
    Open(usize),
    Close(usize),
    Evidence(usize),
    Loss(usize, bool),
    Vanish(usize),
    Pass(i64),
    Restart,
    DeleteByHand(usize),
    StripStatus(usize),
    Trouble,
    NoTrouble,
    Abandon,
}

fn step() -> impl Strategy<Value = Step> {
    let edge = 0..6_usize;
    prop_oneof![
        4 => (edge.clone(), 1..50_u64).prop_map(|(edge, n)| Step::Connect(edge, n)),
        2 => edge.clone().prop_map(Step::Refuse),
        1 => edge.clone().prop_map(Step::Open),
        1 => edge.clone().prop_map(Step::Close),
        1 => edge.clone().prop_map(Step::Evidence),
        1 => (edge.clone(), any::<bool>()).prop_map(|(edge, loss)| Step::Loss(edge, loss)),
        1 => edge.clone().prop_map(Step::Vanish),
        4 => (1..120_000_i64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => edge.clone().prop_map(Step::DeleteByHand),
        1 => edge.prop_map(Step::StripStatus),
        1 => Just(Step::Trouble),
        2 => Just(Step::NoTrouble),
        1 => Just(Step::Abandon),
    ]
}

fn edge(number: usize) -> EdgeKey {
    key(
        &format!("client-{}", number % 3),
        &format!("server-{}", number / 3),
    )
}

fn perform(w: &mut World, step: Step) {
    match step {
        Step::Connect(number, connections) => w.connect(&edge(number), connections),
        Step::Refuse(number) => w.refuse(&edge(number)),
        Step::Open(number) => w.edge(&edge(number), |view| view.totals.active += 1),
        Step::Close(number) => {
            if w.edges.contains_key(&edge(number)) {
                w.edge(&edge(number), |view| {
                    view.totals.active = view.totals.active.saturating_sub(1)
                });
            }
        }
        Step::Evidence(number) => w.edge(&edge(number), |view| view.evidence.server_socket ^= true),
        Step::Loss(number, loss) => w.edge(&edge(number), |view| view.incomplete.loss = loss),
        Step::Vanish(number) => w.vanish(&edge(number)),
        Step::Pass(milliseconds) => w.run(milliseconds),
        Step::Restart => w.restart_seeded(),
        Step::DeleteByHand(number) => {
            let place = w.objects.keys().nth(number).cloned();
            if let Some(object) = place.and_then(|place| w.objects.remove(&place)) {
                w.planner.gone(&object, w.now);
            }
        }
        Step::StripStatus(number) => {
            let place = w.objects.keys().nth(number).cloned();
            if let Some(object) = place.and_then(|place| w.objects.get(&place)) {
                let mut object = object.clone();
                object.status = None;
                w.planner.seen(&object, w.now);
            }
        }
        Step::Trouble => w.answer = Some(Outcome::Failed),
        Step::NoTrouble => w.answer = None,
        Step::Abandon => w.planner.abandon(w.now),
    }
}

/// No lane is faster than its rate over any time that the log covers.
fn within_rates(w: &World) {
    let rates = [
        (vec![Lane::New], 1_000, 100),
        (vec![Lane::Conditions, Lane::Figures], 20, 20),
    ];
    for (lanes, burst, per_second) in rates {
        let times: Vec<i64> = w
            .log
            .iter()
            .filter(|e| lanes.contains(&e.lane))
            .map(|e| e.at.0)
            .collect();
        for (first, from) in times.iter().enumerate() {
            for (last, to) in times.iter().enumerate().skip(first) {
                let allowed = burst + (to - from) * per_second / SECOND + 1;
                assert!((last - first) as i64 <= allowed, "{lanes:?} from {from} to {to}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_objects_become_what_is_true(steps in proptest::collection::vec(step(), 1..60)) {
        let mut w = World::new();
        for step in steps {
            perform(&mut w, step);
        }
        within_rates(&w);
        w.answer = None;
        w.run(3 * MINUTE);

        let names: BTreeSet<String> = w.objects.values().map(|o| o.spec.server.name.clone() + "/" + &o.spec.client.name).collect();
        let expected: BTreeSet<String> = w.edges.keys().map(|k| k.server.name.clone() + "/" + &k.client.name).collect();
        prop_assert_eq!(names, expected, "nothing missing, nothing extra");
        for object in w.objects.values() {
            let key = w.edges.keys().find(|k| k.server.name == object.spec.server.name && k.client.name == object.spec.client.name);
            let view = &w.edges[key.unwrap()];
            let status = object.status.as_ref().unwrap();
            let connections = status.connections.unwrap();
            prop_assert!(connections.opened as u64 >= view.totals.opened, "{connections:?}, {view:?}");
            let zones: Vec<(&str, u64)> = status.zones.iter().map(|z| (&*z.client, z.bytes as u64)).collect();
            let known: Vec<(&str, u64)> = view.zones.iter().map(|z| (&*z.client, z.bytes)).collect();
            prop_assert_eq!(zones, known);
            prop_assert_eq!(connections.active as u64, view.totals.active);
            prop_assert_eq!(status.evidence.len(), 1 + usize::from(view.evidence.server_socket));
        }
        let waiting = w.planner.waiting();
        prop_assert_eq!((waiting.new, waiting.conditions, waiting.figures, waiting.in_flight), (0, 0, 0, 0));

        w.log.clear();
        w.run(5 * MINUTE);
        let again: Vec<_> = w.log.iter().filter(|entry| entry.lane == Lane::Figures).collect();
        prop_assert!(again.is_empty(), "a quiet cluster costs nothing: {again:?}");
    }
}
