//! Parts of Leyline are killed under traffic. One after the other: each disturbs all others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::leyline;
use crate::truth::actor::{Actor, NODE_A, NODE_B, Shape, actor};
use crate::truth::play::Play;
use crate::truth::scenario::{Scenario, scenario};
use crate::wait;

const PORT: &str = "9000";
/// A connection that is open all the while.
const STAYS: &str = "to=api:80,until=end";
/// The same, made while no agent runs.
const DARK: &str = "to=api:80,until=end,phase=dark";
const BACK: Duration = Duration::from_secs(120);

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![
        killed("leader-killed", "", |kubectl| {
            replace(kubectl, leyline::OPERATOR, Some(&leader(kubectl)?))
        }),
        killed(
            "operators-killed",
            " Of connections made since an object was last written, some may be missing: decision 2.",
            |kubectl| replace(kubectl, leyline::OPERATOR, None),
        )
        .not_more(),
        killed(
            "agents-killed",
            " What was connected while no agent ran is not counted.",
            |kubectl| replace(kubectl, leyline::AGENT, None),
        )
        .not_more(),
        killed(
            "both-killed",
            " What was connected while no agent ran is not counted.",
            |kubectl| {
                replace(kubectl, leyline::OPERATOR, None)?;
                replace(kubectl, leyline::AGENT, None)
            },
        )
        .not_more(),
        older(),
    ]
}

fn killed(
    name: &str,
    figures: &str,
    kill: impl Fn(&Kubectl) -> Result<()> + Send + Sync + 'static,
) -> Scenario {
    let rule = "Killed and started anew under traffic, with connections that stay open all the while: the same edges, nothing else.";
    scenario(name, &format!("{rule}{figures}"))
        .alone()
        .with(actor("blue").label("part", "api").on(NODE_A).listen(PORT), Shape::Deployment(1))
        .with(actor("green").label("part", "api").on(NODE_B).listen(PORT), Shape::Deployment(1))
        .service_of(
            "api",
            serde_json::json!({ "selector": { "part": "api" }, "ports": [{ "port": 80, "targetPort": 9000 }] }),
        )
        .with(calling("client-a", NODE_A), Shape::Job)
        .with(calling("client-b", NODE_B), Shape::Job)
        .then(move |play| {
            play.until("traffic flows", |it| it.dialled >= 60)?;
            // Both clients have an edge to both servers by then; what was never reported cannot outlive its agent.
            seen(play, 4)?;
            kill(play.kubectl)?;
            play.begin("end")
        })
}

fn calling(name: &str, node: &str) -> Actor {
    let calls = actor(name).on(node).call("to=api:80,count=120,every=50");
    calls.call(STAYS).call(STAYS).call(STAYS)
}

/// The pod of the operator that writes.
fn leader(kubectl: &Kubectl) -> Result<String> {
    let lease = kubectl.get(&["lease", leyline::OPERATOR, "--namespace", leyline::NAMESPACE])?;
    let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
    holder.map(str::to_owned).context("nobody holds the lease")
}

/// Ends pods of a program with SIGKILL (none named: all) and waits for others in their place. Not their containers only: the
/// kubelet lets those that end often wait longer and longer.
fn replace(kubectl: &Kubectl, program: &str, only: Option<&str>) -> Result<()> {
    let before = names(kubectl, program)?;
    let killed: Vec<&str> = before
        .iter()
        .map(String::as_str)
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    ensure!(!killed.is_empty(), "no pod {only:?} of {program}");
    let mut delete = vec!["delete", "pod", "--force", "--grace-period=0", "--wait=false"];
    delete.extend(["--namespace", leyline::NAMESPACE]);
    delete.extend(&killed);
    kubectl.run(&delete)?;
    wait::until("others are there", BACK, || {
        let now = names(kubectl, program)?;
        ensure!(now.len() == before.len(), "{} pods", now.len());
        ensure!(
            killed.iter().all(|name| !now.iter().any(|it| it == name)),
            "still there"
        );
        Ok(())
    })?;
    leyline::ready(kubectl)
}

fn names(kubectl: &Kubectl, program: &str) -> Result<Vec<String>> {
    let pods = leyline::pods(kubectl, program)?;
    let names = pods
        .iter()
        .filter_map(|pod| pod.pointer("/metadata/name").and_then(Value::as_str));
    Ok(names.map(str::to_owned).collect())
}

/// So many edges are shown.
fn seen(play: &Play<'_>, count: usize) -> Result<()> {
    wait::until("the edges are there", BACK, || {
        let shown = crate::edges::touching(play.kubectl, &play.namespace)?.len();
        ensure!(shown >= count, "{shown} edges");
        Ok(())
    })
}

fn older() -> Scenario {
    scenario(
        "older-than-the-agent",
        "Connections made while no agent ran anywhere: an edge as soon as one does, active and not opened.",
    )
    .alone()
    .not_more()
    .with(actor("server").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("client-a").on(NODE_A).call(DARK).call(DARK), Shape::Job)
    .with(actor("client-b").on(NODE_B).call(DARK).call(DARK), Shape::Job)
    .then(|play| {
        let nowhere =
            "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"truth.example/nowhere\":\"true\"}}}}}";
        let anywhere = "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":null}}}}";
        agents(play.kubectl, nowhere, 0)?;
        play.begin("dark")?;
        let stand = play.until("the connections stand", |it| it.dialled >= 4);
        agents(play.kubectl, anywhere, 2)?;
        stand?;
        seen(play, 2)?;
        play.begin("end")
    })
}

/// Changes the agents' DaemonSet and waits until so many run.
fn agents(kubectl: &Kubectl, patch: &str, count: usize) -> Result<()> {
    kubectl.run(&[
        "patch",
        "daemonset",
        leyline::AGENT,
        "--namespace",
        leyline::NAMESPACE,
        "--patch",
        patch,
    ])?;
    wait::until("the agents follow", BACK, || {
        let pods = leyline::pods(kubectl, leyline::AGENT)?;
        let ready = pods.iter().filter(|pod| {
            pod.pointer("/status/containerStatuses/0/ready")
                .and_then(Value::as_bool)
                == Some(true)
        });
        ensure!(
            pods.len() == count && ready.count() == count,
            "{} pods",
            pods.len()
        );
        Ok(())
    })
}
