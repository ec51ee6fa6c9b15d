//! Other networks between the same ends: the cluster itself is switched, so each runs alone.

use anyhow::Result;
use serde_json::json;

use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::play::Play;
use crate::truth::proxy::{self, Mode};
use crate::truth::scenario::{Scenario, scenario};

const PORT: &str = "9000";

/// How the cluster is switched for a scenario, and back.
struct Switch {
    to: [&'static str; 2],
    back: [&'static str; 2],
    mode: Mode,
    node_port: u16,
}

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        switched(
            "plain-network",
            "Pods of different nodes see each other's own addresses: the same edges with the same counts.",
            Switch {
                to: ["masquerade", "off"],
                back: ["masquerade", "on"],
                mode: Mode::Nftables,
                node_port: 31100,
            },
        ),
        switched(
            "kube-proxy-iptables",
            "kube-proxy in iptables mode: the same edges with the same counts as in nftables mode.",
            Switch {
                to: ["proxy-mode", "iptables"],
                back: ["proxy-mode", "nftables"],
                mode: Mode::Iptables,
                node_port: 31101,
            },
        ),
    ]
}

/// Two Deployments behind one Service, a ClusterIP and a node port, called from both nodes while the cluster is switched.
fn switched(name: &str, rule: &str, switch: Switch) -> Scenario {
    let node = format!("to=10.250.0.1:{},count=10,phase=switched", switch.node_port);
    let service = "to=api:80,count=30,every=20,phase=switched";
    let client = |name, on| actor(name).on(on).call(service).call(&node);
    let server = |name, on| actor(name).label("part", "api").on(on).listen(PORT);
    scenario(name, rule)
        .alone()
        .with(server("blue", NODE_A), Shape::Deployment(1))
        .with(server("green", NODE_B), Shape::Deployment(1))
        .service_of(
            "api",
            json!({ "selector": { "part": "api" }, "ports": [{ "port": 80, "targetPort": 9000 }] }),
        )
        .service_of(
            "open",
            json!({
                "type": "NodePort", "selector": { "app": "green" },
                "ports": [{ "port": 80, "targetPort": 9000, "nodePort": switch.node_port }],
            }),
        )
        .with(client("one", NODE_A), Shape::Job)
        .with(client("two", NODE_B), Shape::Job)
        .then(move |play| {
            cluster(play, switch.to)?;
            let called = proxy::knows(play.kubectl, switch.mode)
                .and_then(|()| play.begin("switched"))
                .and_then(|()| play.until("all calls are made", |it| it.done == 2));
            // Whatever happened: everybody else needs the cluster as it was.
            cluster(play, switch.back)?;
            proxy::knows(play.kubectl, Mode::Nftables)?;
            called
        })
}

fn cluster(play: &Play<'_>, what: [&str; 2]) -> Result<()> {
    play.machine.xtask(&[&["cluster"], what.as_slice()].concat())
}
