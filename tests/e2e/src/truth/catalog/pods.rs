//! Who a pod belongs to, and what happens inside of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::join::Fold;
use crate::truth::play::Play;
use crate::truth::scenario::{Scenario, scenario};
use crate::wait;

const PORT: &str = "9000";

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        probes(),
        two_containers(),
        init_container(),
        localhost(),
        own_address(),
        stateful_set(),
        dynamic_ports(),
        short_job(),
        cron_job(),
        custom_controller(),
        bare_pod(),
        daemon_set(),
    ]
}

fn probes() -> Scenario {
    scenario(
        "kubelet-probes",
        "The kubelet connects every second to look whether the pod lives: no edge. Whoever else calls has one.",
    )
    .with(actor("quiet").on(NODE_A).listen(PORT).probed(9000), Shape::Deployment(1))
    .with(actor("called").on(NODE_B).listen(PORT).probed(9000), Shape::Deployment(1))
    .service("api", "called", 80, 9000)
    .with(actor("client").on(NODE_B).call("to=api:80,count=20,every=200"), Shape::Job)
}

fn two_containers() -> Scenario {
    scenario(
        "two-containers",
        "Two containers of one pod are one client and one server: their counts add up, their ports stay apart.",
    )
    .with(actor("server").listen(PORT).and().listen("9001"), Shape::Deployment(1))
    .service("one", "server", 80, 9000)
    .service("two", "server", 80, 9001)
    .with(
        actor("client").call("to=one:80,count=10").and().call("to=one:80,count=7").call("to=two:80,count=5"),
        Shape::Job,
    )
}

fn init_container() -> Scenario {
    scenario(
        "init-container",
        "What an init container calls belongs to the pod's workload like everything else of the pod.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .then(|play| {
        let client = actor("client")
            .init("to=api:80,count=6")
            .call("to=api:80,count=4");
        play.add(&client, &Shape::Job)
    })
    .callers(2)
}

fn localhost() -> Scenario {
    scenario("localhost", "Localhost inside a pod is no edge.").with(
        actor("pair")
            .listen(PORT)
            .and()
            .call("to=127.0.0.1:9000,count=20")
            .call("to=localhost:9000,count=20"),
        Shape::Deployment(1),
    )
}

fn own_address() -> Scenario {
    scenario(
        "own-address",
        "One container of a pod calls another by the pod's own address: as little an edge as localhost.",
    )
    .with(
        actor("pair")
            .listen(PORT)
            .and()
            .call("to=$(POD_IP):9000,count=20"),
        Shape::Deployment(1),
    )
}

fn stateful_set() -> Scenario {
    scenario(
        "stateful-set-peers",
        "Replicas of one StatefulSet that talk to each other: an edge of the StatefulSet to itself.",
    )
    .with(
        actor("db")
            .listen(PORT)
            .call("to=db-0.db:9000,count=10")
            .call("to=db-1.db:9000,count=10"),
        Shape::StatefulSet(2),
    )
    .service_of(
        "db",
        json!({ "clusterIP": "None", "selector": { "app": "db" }, "ports": [{ "port": 9000 }] }),
    )
}

fn dynamic_ports() -> Scenario {
    scenario(
        "dynamic-ports",
        "A server that opens twelve ports of the ephemeral range: one edge, port 0.",
    )
    .with(
        actor("server").on(NODE_A).listen("40001-40012"),
        Shape::Deployment(1),
    )
    .service_of(
        "api",
        json!({ "clusterIP": "None", "selector": { "app": "server" }, "ports": [{ "port": 40001 }] }),
    )
    .with(
        actor("client").on(NODE_A).call("to=api:40001,ports=12,count=3"),
        Shape::Job,
    )
    .fold(Fold::Ports)
}

fn short_job() -> Scenario {
    scenario(
        "short-job",
        "A Job that lives for a moment has its edge, whoever hears of its pod first.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .then(|play| {
        let job = |name, node| actor(name).on(node).call("to=api:80,count=4,every=5");
        play.add(&job("brief-a", NODE_A), &Shape::Job)?;
        play.add(&job("brief-b", NODE_B), &Shape::Job)
    })
    .callers(2)
}

fn cron_job() -> Scenario {
    scenario(
        "cron-job",
        "A CronJob's Jobs come and go: the edge is the CronJob's.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("report").call("to=api:80,count=5"), Shape::CronJob)
    .then(|play| {
        play.run(&["create", "job", "report-1", "--from=cronjob/report"])?;
        play.run(&["create", "job", "report-2", "--from=cronjob/report"])
            .map(drop)
    })
    .callers(2)
}

fn custom_controller() -> Scenario {
    scenario(
        "custom-controller",
        "A pod that a custom resource controls belongs to that resource, of a kind nobody has told Leyline about.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .prepare(crew_kind)
    .then(|play| {
        let crew = json!({
            "apiVersion": "truth.example/v1", "kind": "Crew",
            "metadata": { "name": "blue", "namespace": play.namespace },
        });
        wait::until("the kind Crew is served", Duration::from_secs(30), || play.apply(std::slice::from_ref(&crew)))?;
        let uid = play.run(&["get", "crews.truth.example", "blue", "--output=jsonpath={.metadata.uid}"])?;
        ensure!(!uid.is_empty(), "the crew has no uid");
        let shape = Shape::Controlled("truth.example/v1".to_owned(), "Crew".to_owned(), "blue".to_owned(), uid);
        play.add(&actor("blue-1").call("to=api:80,count=10"), &shape)
    })
    .callers(1)
}

fn crew_kind(play: &Play<'_>) -> Result<()> {
    play.apply(&[json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "crews.truth.example" },
        "spec": {
            "group": "truth.example", "scope": "Namespaced",
            "names": { "kind": "Crew", "plural": "crews", "singular": "crew" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })])
    .context("add the kind Crew")
}

fn bare_pod() -> Scenario {
    scenario("bare-pod", "A pod that nothing controls is itself.")
        .with(actor("server").listen(PORT), Shape::Pod)
        .service("api", "server", 80, 9000)
        .with(actor("client").call("to=api:80,count=10"), Shape::Pod)
}

fn daemon_set() -> Scenario {
    scenario(
        "daemon-set",
        "The pods of a DaemonSet on all nodes are one client.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("logger").call("to=api:80,count=10"), Shape::DaemonSet)
}

/// The number of pods with a label, for scripts that wait for pods to go.
pub(super) fn pods(play: &Play<'_>, app: &str) -> Result<usize> {
    let selector = format!("app={app}");
    let list = play
        .kubectl
        .get(&["pods", "--namespace", &play.namespace, "--selector", &selector])?;
    Ok(list.get("items").and_then(Value::as_array).map_or(0, Vec::len))
}
