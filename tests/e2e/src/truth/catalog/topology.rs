//! A random topology, drawn from a number: workloads of all kinds, Services over one or several of them, who calls whom,
//! and churn while they do.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::truth::actor::{Actor, NODE_A, NODE_B, Shape, actor};
use crate::truth::scenario::{Scenario, scenario};

const SERVERS: usize = 6;
const CLIENTS: usize = 6;
/// Shared Services, each over all servers of a group.
const GROUPS: usize = 2;
const ROLLOUT: Duration = Duration::from_secs(90);

/// The topology of a number, as a scenario with this name.
#[must_use]
pub(super) fn topology(name: &str, seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let mut scenario = scenario(
        name,
        "Whatever was drawn: an edge for every pair that talked, none for the others, through all churn.",
    );
    let shapes: Vec<Shape> = (0..SERVERS).map(|_| server_shape(&mut rng)).collect();
    // A client that has asked for the name of a headless Service keeps the address: its pod must not go. Nor may one that
    // makes calls itself be stopped in the middle of them.
    let mut replaceable = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        let mut server = placed(&mut rng, actor(&format!("s{number}")), shape)
            .listen("9000")
            .label("group", &format!("g{}", number % GROUPS))
            .graceful();
        if rng.f32() < 0.4 {
            server = server.call(&call(&mut rng));
        }
        let headless = rng.f32() < 0.3;
        if !headless && matches!(shape, Shape::Deployment(_)) && server.callers() == 0 {
            replaceable.push(number);
        }
        scenario = with_service(scenario, number, headless).with(server, shape.clone());
    }
    for group in 0..GROUPS {
        let selector = json!({ "group": format!("g{group}") });
        let spec = json!({ "selector": selector, "ports": [{ "port": 9000 }] });
        scenario = scenario.service_of(&format!("group-{group}"), spec);
    }
    for number in 0..CLIENTS {
        let (client, shape) = client(&mut rng, &format!("c{number}"));
        scenario = scenario.with(client, shape);
    }
    churn(scenario, &mut rng, &replaceable)
}

fn server_shape(rng: &mut Rng) -> Shape {
    match rng.u8(0..6) {
        0..=2 => Shape::Deployment(rng.usize(1..3)),
        3 => Shape::StatefulSet(rng.usize(1..3)),
        4 => Shape::DaemonSet,
        _ => Shape::Pod,
    }
}

fn placed(rng: &mut Rng, actor: Actor, shape: &Shape) -> Actor {
    match rng.u8(0..3) {
        _ if *shape == Shape::DaemonSet => actor,
        0 => actor.on(NODE_A),
        1 => actor.on(NODE_B),
        _ => actor,
    }
}

/// The Service of one server, by an address of its own or headless.
fn with_service(scenario: Scenario, number: usize, headless: bool) -> Scenario {
    let name = format!("s{number}");
    let mut spec = json!({ "selector": { "app": name }, "ports": [{ "port": 9000 }] });
    if let (true, Some(spec)) = (headless, spec.as_object_mut()) {
        spec.insert("clusterIP".to_owned(), "None".into());
    }
    scenario.service_of(&name, spec)
}

fn call(rng: &mut Rng) -> String {
    let target = rng.usize(0..SERVERS + GROUPS);
    let to = if target < SERVERS {
        format!("s{target}")
    } else {
        format!("group-{}", target - SERVERS)
    };
    let close = rng.choice(["client", "server", "reset"]).unwrap_or("client");
    let (count, every) = (rng.u32(10..60), rng.u32(20..150));
    let (request, reply) = (rng.u32(100..5000), rng.u32(100..50_000));
    // A reset may overtake what was sent before it.
    let hold = if close == "reset" { 20 } else { 0 };
    format!(
        "to={to}:9000,count={count},every={every},close={close},request={request},reply={reply},hold={hold}"
    )
}

fn client(rng: &mut Rng, name: &str) -> (Actor, Shape) {
    let shape = match rng.u8(0..4) {
        0 => Shape::Deployment(rng.usize(1..3)),
        1 => Shape::Pod,
        _ => Shape::Job,
    };
    let mut client = placed(rng, actor(name), &shape);
    for _ in 0..rng.u8(1..4) {
        client = client.call(&call(rng));
    }
    (client, shape)
}

/// Servers are replaced and new clients come while the others call.
fn churn(scenario: Scenario, rng: &mut Rng, replaceable: &[usize]) -> Scenario {
    let replaced: Vec<String> = replaceable
        .iter()
        .take(2)
        .map(|number| format!("deployment/s{number}"))
        .collect();
    let (late, shape) = client(rng, "late");
    let late_callers = late.callers() * shape.pods();
    scenario
        .then(move |play| {
            play.until("traffic flows", |it| it.dialled >= 30)?;
            for name in &replaced {
                play.run(&["rollout", "restart", name])?;
            }
            play.add(&late, &shape)?;
            replaced
                .iter()
                .try_for_each(|name| play.kubectl.rollout(&play.namespace, name, ROLLOUT))
        })
        .callers(isize::try_from(late_callers).unwrap_or(isize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u64) -> String {
        let scenario = topology("t", seed);
        format!("{:?} {:?}", scenario.actors, scenario.objects)
    }

    #[test]
    fn a_number_always_draws_the_same_topology_and_another_one_another() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }
}
