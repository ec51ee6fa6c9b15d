//! Ends that are not in the pod network: host-network pods, node processes, the API server, machines outside.

use crate::score::End;
use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::join::Fold;
use crate::truth::machine::{MANY, NODE_B_NETNS, OUTSIDE, OUTSIDE_NETNS};
use crate::truth::scenario::{Scenario, scenario};
use serde_json::json;

const PORT: &str = "9000";

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        host_client(),
        host_server(),
        host_both(),
        node_client(),
        node_server(),
        api_server(),
        host_port(),
        outside_client(),
        outside_client_local(),
        outside_server(),
        thousand_addresses(),
    ]
}

fn host_client() -> Scenario {
    scenario(
        "host-network-client",
        "The client's socket names its pod, although its address is the node's and kube-proxy rewrites its port at random.",
    )
    .with(actor("server").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("near").on(NODE_B).host_network().call("to=api:80,count=20"), Shape::Job)
    .with(actor("far").on(NODE_A).host_network().call("to=api:80,count=20"), Shape::Job)
}

fn host_server() -> Scenario {
    scenario(
        "host-network-server",
        "The server's socket names its pod, although the Service leads to a node's address.",
    )
    .with(
        actor("server").on(NODE_A).host_network().listen("29001"),
        Shape::Deployment(1),
    )
    .service("api", "server", 80, 29001)
    .with(actor("near").on(NODE_A).call("to=api:80,count=20"), Shape::Job)
    .with(actor("far").on(NODE_B).call("to=api:80,count=20"), Shape::Job)
    .with(
        actor("direct").on(NODE_B).call("to=10.250.0.1:29001,count=10"),
        Shape::Job,
    )
}

fn host_both() -> Scenario {
    scenario(
        "host-network-both",
        "Client and server in the network of one node: both have its address, and each socket names its own pod.",
    )
    .with(actor("server").on(NODE_B).host_network().listen("29002"), Shape::Deployment(1))
    .with(actor("client").on(NODE_B).host_network().call("to=10.250.0.2:29002,count=20"), Shape::Job)
}

fn node_client() -> Scenario {
    scenario(
        "node-process-client",
        "A daemon of the node calls a Service: its executable is the client, in no namespace.",
    )
    .with(actor("server").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .processes(1, 1, |play| {
        let address = play.run(&["get", "service", "api", "--output=jsonpath={.spec.clusterIP}"])?;
        let call = format!("--call=to={address}:80,count=20");
        play.process("truth-caller", None, "NodeProcess - truth-caller", &[&call])
    })
}

fn node_server() -> Scenario {
    scenario(
        "node-process-server",
        "A daemon of the node is called at the node's address: its executable is the server.",
    )
    .processes(1, 0, |play| {
        let who = "NodeProcess - truth-daemon";
        play.process("truth-daemon", Some(NODE_B_NETNS), who, &["--listen=29003"])?;
        play.until("the daemon listens", |it| it.ports == 1)
    })
    .with(
        actor("near").on(NODE_B).call("to=10.250.0.2:29003,count=15"),
        Shape::Job,
    )
    .with(
        actor("far").on(NODE_A).call("to=10.250.0.2:29003,count=15"),
        Shape::Job,
    )
}

fn api_server() -> Scenario {
    let dial = "kubernetes.default:443";
    scenario(
        "api-server",
        "A pod calls Service kubernetes, which has no selector: the server is the process on the control plane's node.",
    )
    .with(
        actor("client").on(NODE_B).call(&format!("to={dial},count=10,foreign,hold=100")),
        Shape::Job,
    )
    .elsewhere(dial, End::new("-", "NodeProcess", "kube-apiserver"), 6443)
}

fn host_port() -> Scenario {
    scenario(
        "host-port",
        "A port of the node leads into the pod: the server is the pod's workload, the port the one it listens on.",
    )
    .with(actor("server").on(NODE_A).listen(PORT).host_port(28080, 9000), Shape::Deployment(1))
    .with(actor("far").on(NODE_B).call("to=10.250.0.1:28080,count=15"), Shape::Job)
}

fn outside_client() -> Scenario {
    scenario(
        "outside-client",
        "A machine outside comes through a NodePort with a node's address: unresolved, NodeAddress, as documented.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service_of(
        "api",
        json!({
            "type": "NodePort", "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000, "nodePort": 31090 }],
        }),
    )
    // The node's own end of the way to the pod: what the server sees.
    .processes(1, 1, |play| {
        let who = "Address - 10.244.0.1";
        play.process("truth-visitor", Some(OUTSIDE_NETNS), who, &["--call=to=10.250.0.1:31090,count=10"])
    })
}

fn outside_client_local() -> Scenario {
    scenario(
        "outside-client-local",
        "With externalTrafficPolicy Local the server sees the client's own address: the world outside.",
    )
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service_of(
        "api",
        json!({
            "type": "NodePort", "externalTrafficPolicy": "Local", "selector": { "app": "server" },
            "ports": [{ "port": 80, "targetPort": 9000, "nodePort": 31091 }],
        }),
    )
    .processes(1, 1, |play| {
        let who = "External - world";
        play.process(
            "truth-guest",
            Some(OUTSIDE_NETNS),
            who,
            &["--call=to=10.250.0.1:31091,count=10"],
        )
    })
}

fn outside_server() -> Scenario {
    scenario("outside-server", "A server outside the cluster is its address.")
        .processes(1, 0, |play| {
            let who = format!("Address - {OUTSIDE}");
            play.process("truth-shop", Some(OUTSIDE_NETNS), &who, &["--listen=9100"])?;
            play.until("the server outside listens", |it| it.ports == 1)
        })
        .with(
            actor("one")
                .on(NODE_A)
                .call(&format!("to={OUTSIDE}:9100,count=15")),
            Shape::Job,
        )
        .with(
            actor("two")
                .on(NODE_B)
                .call(&format!("to={OUTSIDE}:9100,count=15")),
            Shape::Job,
        )
}

fn thousand_addresses() -> Scenario {
    let mut scenario = scenario(
        "thousand-addresses",
        "A client of 1,000 outside addresses: 32 of them, whichever, have an edge each; all others are External other.",
    )
    .with(
        actor("crawler").on(NODE_A).call(&format!("to={MANY}:9101,addresses=1000,every=8")),
        Shape::Job,
    )
    .fold(Fold::Addresses(32));
    // The server outside does not know by which of its addresses it was called; the client does.
    let first = MANY
        .parse::<std::net::Ipv4Addr>()
        .map_or(0, std::net::Ipv4Addr::to_bits);
    for number in 0..1000 {
        let address = std::net::Ipv4Addr::from_bits(first + number).to_string();
        scenario = scenario.elsewhere(
            &format!("{address}:9101"),
            End::new("-", "Address", &address),
            9101,
        );
    }
    scenario.prepare(|play| {
        let who = "Address - silent";
        let elsewhere = play.logs.join("silent");
        play.machine.process(
            "truth-many",
            Some(OUTSIDE_NETNS),
            who,
            &elsewhere,
            &["--listen=9101"],
        )?;
        play.elsewhere_listens(&elsewhere)
    })
}
