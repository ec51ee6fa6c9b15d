//! Attempts that do not become connections.

use serde_json::json;

use crate::score::End;
use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::machine::{BLACKHOLE, NO_WAY};
use crate::truth::scenario::{Scenario, scenario};

const PORT: &str = "9000";

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        refused(),
        nobody(),
        timed_out(),
        unreachable(),
        cancelled(),
        happy_eyeballs(),
    ]
}

fn refused() -> Scenario {
    let scenario = scenario(
        "refused",
        "Nothing listens on the port the Service leads to: Failing, refused, and the server is the workload that refuses.",
    );
    let ns = scenario.namespace();
    scenario
        .with(actor("server").listen(PORT), Shape::Deployment(1))
        .service("closed", "server", 80, 9001)
        .with(actor("one").on(NODE_A).call("to=closed:80,count=8"), Shape::Job)
        .with(actor("two").on(NODE_B).call("to=closed:80,count=8"), Shape::Job)
        .elsewhere("closed:80", End::new(&ns, "Deployment", "server"), 9001)
}

fn nobody() -> Scenario {
    let scenario = scenario(
        "nobody-there",
        "A Service with nothing behind it: Failing, and the server is the Service with its own port.",
    );
    let ns = scenario.namespace();
    scenario
        .service_of(
            "nobody",
            json!({ "selector": { "app": "nobody" }, "ports": [{ "port": 80, "targetPort": 9000 }] }),
        )
        .with(actor("client").call("to=nobody:80,count=8"), Shape::Job)
        .elsewhere("nobody:80", End::new(&ns, "Service", "nobody"), 80)
}

fn timed_out() -> Scenario {
    let dial = format!("{BLACKHOLE}:9");
    scenario(
        "timed-out",
        "Nobody answers at all: Failing, timedOut, and the server is the address.",
    )
    .with(
        actor("client")
            .on(NODE_A)
            .call(&format!("to={dial},count=2,syn=1")),
        Shape::Job,
    )
    .elsewhere(&dial, End::new("-", "Address", BLACKHOLE), 9)
}

fn unreachable() -> Scenario {
    let dial = format!("{NO_WAY}:9");
    scenario(
        "unreachable",
        "The network says that there is no way: Failing, unreachable, and the server is the address.",
    )
    .with(
        actor("client").on(NODE_A).call(&format!("to={dial},count=5")),
        Shape::Job,
    )
    .elsewhere(&dial, End::new("-", "Address", NO_WAY), 9)
}

fn cancelled() -> Scenario {
    scenario(
        "cancelled",
        "The application gives an attempt up before anybody answers: no edge.",
    )
    .with(
        actor("client")
            .on(NODE_A)
            .call(&format!("to={BLACKHOLE}:10,count=10,cancel=100,every=150")),
        Shape::Job,
    )
}

fn happy_eyeballs() -> Scenario {
    scenario(
        "happy-eyeballs",
        "Two addresses are tried at once and the first that answers is kept: an edge to that one only.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("client")
            .on(NODE_A)
            .call(&format!("to=api:80,count=10,race={BLACKHOLE}:11")),
        Shape::Job,
    )
}
