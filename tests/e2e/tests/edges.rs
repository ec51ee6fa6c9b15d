//! Which edges there are, how soon, and in which state.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use leyline_e2e::faults::Switched;
use leyline_e2e::manifest::{server, service, work};
use leyline_e2e::score::End;
use leyline_e2e::stage::Stage;
use leyline_e2e::{edges, traffic, wait};
use serde_json::{Value, json};

const PORT: u16 = 9000;
const SOON: Duration = Duration::from_secs(30);
/// See `traffic::start_in`.
const SERVICE_KNOWN: Duration = Duration::from_secs(4);
/// Pods have to start and to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// Traffic between the nodes is masqueraded: the address says nothing, only the two halves of each connection together
/// tell who answered.
#[test]
#[ignore = "needs the two-node cluster"]
fn two_deployments_behind_one_service_have_an_edge_and_a_count_each() -> Result<()> {
    two_deployments("two-deployments", "IPv4")
}

#[test]
#[ignore = "needs the two-node cluster"]
fn the_same_over_ipv6() -> Result<()> {
    two_deployments("two-deployments-six", "IPv6")
}

/// As on clusters whose pods see each other's own addresses.
#[test]
#[ignore = "needs the two-node cluster"]
fn the_same_without_masquerading_between_the_nodes() -> Result<()> {
    let _plain = Switched::to(&["masquerade", "off"], &["masquerade", "on"])?;
    two_deployments("two-deployments-plain", "IPv4")
}

/// A Service with an address of this family only.
fn in_family(mut service: Value, family: &str) -> Value {
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("ipFamilies".to_owned(), json!([family]));
        spec.insert("ipFamilyPolicy".to_owned(), json!("SingleStack"));
    }
    service
}

/// Clients on both nodes call a Service over two Deployments, one on each node.
fn two_deployments(name: &str, family: &str) -> Result<()> {
    Stage::run(name, |stage| {
        let ns = stage.namespace.as_str();
        let both = json!({ "part": "api" });
        stage.apply(&[
            server("blue", PORT).on("node-a").deployment(ns, 1, &both),
            server("green", PORT).on("node-b").deployment(ns, 1, &both),
            in_family(service(ns, "api", &both, 80, PORT), family),
        ])?;
        stage.ready(&["blue", "green"])?;
        let start = traffic::start_in(SERVICE_KNOWN);
        let client = ["connect", "--to=api:80", "--count=200", "--rate=20", &start];
        stage.apply(&[
            work("client-a", &client).on("node-a").job(ns, 1),
            work("client-b", &client).on("node-b").job(ns, 1),
        ])?;
        let mut expected = Vec::new();
        for from in ["client-a", "client-b"] {
            for to in ["blue", "green"] {
                let (client, server) = (End::new(ns, "Job", from), End::new(ns, "Deployment", to));
                expected.push(edges::tcp(client, server, PORT));
            }
        }
        wait::until("exactly the four edges", SOON, || {
            edges::exactly(&stage.kubectl, ns, &expected)
        })?;
        for from in ["client-a", "client-b"] {
            let count = traffic::total(stage, from, 1, PATIENCE)?;
            ensure!(
                (count.opened, count.broken) == (200, 0),
                "{from} counted {count:?}"
            );
            for to in ["blue", "green"] {
                let edge = edges::tcp(End::new(ns, "Job", from), End::new(ns, "Deployment", to), PORT);
                let wanted = count.answered_by(&format!("{to}-"));
                wait::until("the count of the edge", SOON, || {
                    let found = edges::one(&stage.kubectl, &edge)?;
                    ensure!(
                        found.opened() == wanted,
                        "{edge}: {} opened, the client counted {wanted}",
                        found.opened()
                    );
                    ensure!(
                        found.text("/service/name") == "api",
                        "{edge}: service {}",
                        found.status
                    );
                    ensure!(
                        found.condition("Resolved").0 == "True",
                        "{edge}: {}",
                        found.status
                    );
                    Ok(())
                })?;
            }
        }
        edges::exactly(&stage.kubectl, ns, &expected).map(drop)
    })
}

/// Measures the time from a client's first connection to the object that a watch shows, and prints it.
#[test]
#[ignore = "needs the two-node cluster"]
fn a_new_edge_is_visible_soon() -> Result<()> {
    const RUNS: usize = 7;
    Stage::run("new-edge", |stage| {
        let ns = stage.namespace.as_str();
        let selector = json!({ "app": "answer" });
        let objects = [
            server("answer", PORT).deployment(ns, 1, &selector),
            service(ns, "answer", &selector, 80, PORT),
        ];
        stage.apply(&objects)?;
        stage.ready(&["answer"])?;
        let start = traffic::start_in(SERVICE_KNOWN);
        let mut took = Vec::new();
        for run in 0..RUNS {
            let name = format!("client-{run}");
            let node = if run % 2 == 0 { "node-a" } else { "node-b" };
            let seen = first_sight(stage, &name)?;
            stage.apply(&[work(&name, &["connect", "--to=answer:80", &start])
                .on(node)
                .pod(ns)])?;
            let first = traffic::total(stage, &name, 1, PATIENCE)?
                .first_ms
                .context("the client never connected")?;
            let at = seen
                .recv_timeout(SOON)
                .with_context(|| format!("no object for {name} within {SOON:?}"))?;
            took.push(at.saturating_sub(first));
        }
        took.sort_unstable();
        let [min, .., max] = took.as_slice() else {
            return Ok(());
        };
        let median = took.get(RUNS / 2).unwrap_or(max);
        println!(
            "new edge to visible object over {RUNS} runs: min {min} ms, median {median} ms, max {max} ms"
        );
        Ok(())
    })
}

/// Watches for the first object of a client and gives the time at which it was seen.
fn first_sight(stage: &Stage, client: &str) -> Result<mpsc::Receiver<u64>> {
    let (sight_tx, sight_rx) = mpsc::channel();
    let columns = "custom-columns=CLIENT:.spec.client.name";
    let args = [
        "get",
        edges::RESOURCE,
        "--namespace",
        &stage.namespace,
        "--watch",
        "--no-headers",
        "--output",
        columns,
    ];
    let mut child = stage
        .kubectl
        .command(&args)
        .stdout(Stdio::piped())
        .spawn()
        .context("start kubectl")?;
    let output = child.stdout.take().context("the output of kubectl")?;
    let client = client.to_owned();
    thread::spawn(move || {
        let found = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.trim() == client);
        if found {
            // Nobody waits for it any more when the test has failed.
            sight_tx.send(traffic::now_ms()).ok();
        }
        child.kill().ok();
        child.wait().ok();
    });
    Ok(sight_rx)
}

#[test]
#[ignore = "needs the two-node cluster"]
fn a_job_of_300_milliseconds_gets_its_edge() -> Result<()> {
    Stage::run("short-job", |stage| {
        let ns = stage.namespace.as_str();
        let selector = json!({ "app": "answer" });
        let objects = [
            server("answer", PORT).deployment(ns, 1, &selector),
            service(ns, "answer", &selector, 80, PORT),
        ];
        stage.apply(&objects)?;
        stage.ready(&["answer"])?;
        // The job must not be there before kube-proxy knows the server.
        let start = traffic::start_in(SERVICE_KNOWN);
        stage.apply(&[work("first", &["connect", "--to=answer:80", &start]).pod(ns)])?;
        let first = traffic::total(stage, "first", 1, PATIENCE)?;
        stage.apply(&[work("brief", &["connect", "--to=answer:80", "--count=4"]).job(ns, 1)])?;
        let brief = traffic::total(stage, "brief", 1, PATIENCE)?;
        ensure!(
            (first.opened, brief.opened) == (1, 4),
            "the clients counted {first:?} {brief:?}"
        );
        let server = End::new(ns, "Deployment", "answer");
        let expected = [
            edges::tcp(End::new(ns, "Pod", "first"), server.clone(), PORT),
            edges::tcp(End::new(ns, "Job", "brief"), server, PORT),
        ];
        let [_, job] = &expected;
        wait::until("the edge of the job", SOON, || {
            edges::exactly(&stage.kubectl, ns, &expected)?;
            let opened = edges::one(&stage.kubectl, job)?.opened();
            ensure!(opened == 4, "{opened} connections");
            Ok(())
        })
    })
}

/// Two ways to be refused: nothing listens on the port the Service leads to, and nobody is behind the Service at all.
#[test]
#[ignore = "needs the two-node cluster"]
fn a_refused_connection_is_failing_with_its_reason() -> Result<()> {
    Stage::run("refused", |stage| {
        let ns = stage.namespace.as_str();
        let selector = json!({ "app": "answer" });
        stage.apply(&[
            server("answer", PORT).deployment(ns, 1, &selector),
            service(ns, "closed", &selector, 80, PORT + 1),
            service(ns, "nobody", &json!({ "app": "nobody" }), 80, PORT),
        ])?;
        stage.ready(&["answer"])?;
        stage.apply(&[
            work("to-closed", &["connect", "--to=closed:80", "--count=5"]).job(ns, 1),
            work("to-nobody", &["connect", "--to=nobody:80", "--count=5"]).job(ns, 1),
        ])?;
        let expected = [
            edges::tcp(
                End::new(ns, "Job", "to-closed"),
                End::new(ns, "Deployment", "answer"),
                PORT + 1,
            ),
            edges::tcp(
                End::new(ns, "Job", "to-nobody"),
                End::new(ns, "Service", "nobody"),
                80,
            ),
        ];
        for client in ["to-closed", "to-nobody"] {
            let count = traffic::total(stage, client, 1, PATIENCE)?;
            ensure!(
                (count.opened, count.failed) == (0, 5),
                "{client} counted {count:?}"
            );
        }
        wait::until("two failing edges", SOON, || {
            for found in edges::exactly(&stage.kubectl, ns, &expected)? {
                let refused = found.figure("/connections/failures/refused");
                let failed = found.figure("/connections/failed");
                let seen = (found.text("/state"), found.opened(), failed, refused);
                ensure!(seen == ("Failing", 0, 5, 5), "{}: {}", found.edge, found.status);
            }
            Ok(())
        })
    })
}
