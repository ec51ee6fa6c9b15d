//! Parts of Leyline are killed under traffic. One after the other: each disturbs all others.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::faults;
use crate::kubectl::Kubectl;
use crate::leyline;
use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
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
        killed("operators-killed", &[leyline::OPERATOR]),
        killed("agents-killed", &[leyline::AGENT]).not_more(),
        killed("both-killed", &[leyline::OPERATOR, leyline::AGENT]).not_more(),
        older(),
    ]
}

fn killed(name: &'static str, programs: &'static [&'static str]) -> Scenario {
    scenario(
        name,
        "Killed and restarted under traffic, with connections that stay open all the while: the same edges, nothing else.",
    )
    .alone()
    .with(actor("blue").label("part", "api").on(NODE_A).listen(PORT), Shape::Deployment(1))
    .with(actor("green").label("part", "api").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service_of(
        "api",
        serde_json::json!({ "selector": { "part": "api" }, "ports": [{ "port": 80, "targetPort": 9000 }] }),
    )
    .with(
        actor("client-a").on(NODE_A).call("to=api:80,count=120,every=50").call(STAYS)
            .call(STAYS)
            .call(STAYS),
        Shape::Job,
    )
    .with(
        actor("client-b").on(NODE_B).call("to=api:80,count=120,every=50").call(STAYS)
            .call(STAYS)
            .call(STAYS),
        Shape::Job,
    )
    .then(move |play| {
        play.until("traffic flows", |it| it.dialled >= 60)?;
        // Both clients have an edge to both servers by then; what was never reported cannot outlive its agent.
        seen(play, 4)?;
        for program in programs {
            kill(play.kubectl, program)?;
        }
        play.begin("end")
    })
}

fn kill(kubectl: &Kubectl, program: &str) -> Result<()> {
    let before = leyline::restarts(kubectl, program)?;
    faults::kill_program(kubectl, program)?;
    leyline::restarted(kubectl, program, before, BACK)
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
