//! Ways to address a Service.

use serde_json::json;

use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::scenario::{Scenario, scenario};

const PORT: &str = "9000";

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        cluster_ip(),
        headless(),
        node_port("Cluster"),
        node_port("Local"),
        external_name(),
        by_hand(),
        canary(),
        affinity(),
        hairpin(),
        masqueraded(),
    ]
}

fn cluster_ip() -> Scenario {
    scenario(
        "cluster-ip",
        "The address is the Service's, the server is the workload that accepted, the port the one it listens on.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(2))
    .service("api", "server", 80, 9000)
    .with(actor("near").on(NODE_A).call("to=api:80,count=20"), Shape::Job)
    .with(actor("far").on(NODE_B).call("to=api:80,count=20,close=server"), Shape::Job)
}

fn headless() -> Scenario {
    scenario(
        "headless",
        "The name leads to the pods' own addresses: the edge is to their workload.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(2))
    .service_of(
        "api",
        json!({ "clusterIP": "None", "selector": { "app": "server" }, "ports": [{ "port": 9000 }] }),
    )
    .with(
        actor("client").on(NODE_B).call("to=api:9000,count=20"),
        Shape::Job,
    )
}

/// Two node ports, one per policy; far from everything else in the range.
fn node_port(policy: &str) -> Scenario {
    let (name, port) = if policy == "Cluster" {
        ("node-port-cluster", 31080)
    } else {
        ("node-port-local", 31081)
    };
    // Both nodes have an endpoint, so that Local answers on both.
    let scenario = scenario(
        name,
        "A pod dials a node's address and the node port; whatever address the server sees, both halves meet.",
    )
    .with(actor("server").listen(PORT), Shape::DaemonSet)
    .service_of(
        "api",
        json!({
            "type": "NodePort", "externalTrafficPolicy": policy, "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000, "nodePort": port }],
        }),
    );
    [
        ("a-to-a", NODE_A, 1),
        ("a-to-b", NODE_A, 2),
        ("b-to-a", NODE_B, 1),
    ]
    .into_iter()
    .fold(scenario, |scenario, (name, node, to)| {
        let call = format!("to=10.250.0.{to}:{port},count=15");
        scenario.with(actor(name).on(node).call(&call), Shape::Job)
    })
}

fn external_name() -> Scenario {
    let scenario = scenario(
        "external-name",
        "An ExternalName is a name for a name: the edge is to the workload behind the last one.",
    );
    let real = format!("real.{}.svc.cluster.local", scenario.namespace());
    scenario
        .with(actor("server").listen(PORT), Shape::Deployment(1))
        .service("real", "server", 80, 9000)
        .service_of("alias", json!({ "type": "ExternalName", "externalName": real }))
        .with(actor("client").call("to=alias:80,count=10"), Shape::Job)
}

fn by_hand() -> Scenario {
    scenario(
        "hand-made-slice",
        "A Service without selector and a slice written by hand, without a reference to the pod: its address names it.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service_of("api", json!({ "ports": [{ "port": 80, "targetPort": 9000 }] }))
    .with(actor("client").call("to=api:80,count=10"), Shape::Job)
    .prepare(|play| play.slice("api", &play.address("server")?, 9000))
}

fn canary() -> Scenario {
    scenario(
        "canary",
        "One Service over two Deployments: each connection belongs to the one that answered, with counts of its own.",
    )
    .with(actor("client-a").on(NODE_A).call("to=both:80,count=60,every=20"), Shape::Job)
    .with(actor("client-b").on(NODE_B).call("to=both:80,count=60,every=20"), Shape::Job)
    .with(actor("blue").label("side", "both").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .with(actor("green").label("side", "both").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service_of("both", json!({ "selector": { "side": "both" }, "ports": [{ "port": 80, "targetPort": 9000 }] }))
}

fn affinity() -> Scenario {
    scenario(
        "session-affinity",
        "The Service keeps each client at one of two Deployments: the other one has no edge from that client.",
    )
    .with(actor("blue").label("part", "api").listen(PORT), Shape::Deployment(1))
    .with(actor("green").label("part", "api").listen(PORT), Shape::Deployment(1))
    .service_of(
        "api",
        json!({
            "sessionAffinity": "ClientIP", "selector": { "part": "api" }, "ports": [{ "port": 80, "targetPort": 9000 }],
        }),
    )
    .with(actor("one").on(NODE_A).call("to=api:80,count=20"), Shape::Job)
    .with(actor("two").on(NODE_B).call("to=api:80,count=20"), Shape::Job)
}

fn hairpin() -> Scenario {
    scenario(
        "hairpin",
        "A pod calls itself through its own Service: an edge of the workload to itself.",
    )
    .with(
        actor("both").listen(PORT).call("to=self:80,count=20"),
        Shape::Deployment(1),
    )
    .service("self", "both", 80, 9000)
}

fn masqueraded() -> Scenario {
    scenario(
        "masqueraded",
        "Between nodes the server sees a node's address only: the halves meet by the connection itself.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(
        actor("one").on(NODE_B).call("to=api:80,count=30,every=20"),
        Shape::Job,
    )
    .with(
        actor("two").on(NODE_B).call("to=api:80,count=30,every=20"),
        Shape::Job,
    )
}
