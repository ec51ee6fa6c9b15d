//! Pods that come and go.

use std::time::Duration;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};

use super::pods::pods;
use crate::score::End;
use crate::truth::actor::{NODE_A, NODE_B, Shape, actor};
use crate::truth::play::Play;
use crate::truth::scenario::{Scenario, scenario};
use crate::wait;

const PORT: &str = "9000";
const GONE: Duration = Duration::from_secs(60);

/// The family.
pub(super) fn all() -> Vec<Scenario> {
    vec![rolling_update(), late_join(), scaled(), reused()]
}

fn rolling_update() -> Scenario {
    let scenario = scenario(
        "rolling-update",
        "All pods of the server are replaced while clients call: one edge, and no connection is counted elsewhere.",
    );
    let server = End::new(&scenario.namespace(), "Deployment", "server");
    scenario
        .with(actor("server").listen(PORT), Shape::Deployment(2))
        .service("api", "server", 80, 9000)
        .with(
            actor("client-a").on(NODE_A).call("to=api:80,count=150,every=60"),
            Shape::Job,
        )
        .with(
            actor("client-b").on(NODE_B).call("to=api:80,count=150,every=60"),
            Shape::Job,
        )
        .then(|play| {
            play.until("traffic flows", |it| it.dialled >= 20)?;
            play.run(&["rollout", "restart", "deployment/server"])?;
            play.kubectl.rollout(&play.namespace, "deployment/server", GONE)
        })
        .elsewhere("api:80", server, 9000)
}

fn late_join() -> Scenario {
    scenario(
        "deleted-at-once",
        "Pods are deleted by force as soon as they have called, before anybody has reported: the edges are theirs.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("brief-a").on(NODE_A).call("to=api:80,count=3,every=1"), Shape::Pod)
    .with(actor("brief-b").on(NODE_B).call("to=api:80,count=3,every=1"), Shape::Pod)
    .then(|play| {
        play.until("both have called", |it| it.done == 2)?;
        play.run(&["delete", "pod", "brief-a", "brief-b", "--force", "--grace-period=0", "--wait=false"])?;
        wait::until("the pods are gone", GONE, || {
            let left = pods(play, "brief-a")? + pods(play, "brief-b")?;
            ensure!(left == 0, "{left} left");
            Ok(())
        })
    })
}

fn scaled() -> Scenario {
    scenario(
        "server-deleted",
        "The server's workload is deleted after it was called: its edge stays, with its name.",
    )
    .with(actor("server").listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("client").on(NODE_B).call("to=api:80,count=20"), Shape::Job)
    .then(|play| {
        play.until("all calls are made", |it| it.done == 1)?;
        play.run(&["delete", "deployment", "server", "--wait=false"])?;
        wait::until("the server is gone", GONE, || {
            let left = pods(play, "server")?;
            ensure!(left == 0, "{left} left");
            Ok(())
        })
    })
}

/// Attempts to give an address to the next pod: pods of other scenarios may come between.
const ATTEMPTS: usize = 5;

fn reused() -> Scenario {
    scenario(
        "address-reused",
        "A pod is deleted and another workload's pod gets its address at once: each has its own edge and counts.",
    )
    .with(actor("server").on(NODE_B).listen(PORT), Shape::Deployment(1))
    .service("api", "server", 80, 9000)
    .with(actor("heir-0").on(NODE_B).call("to=api:80,count=10,every=5").listen("9001"), Shape::Pod)
    .then(|play| {
        play.until("the first one has called", |it| it.done == 1)?;
        for attempt in 0..ATTEMPTS {
            if inherit(play, attempt)? {
                // The pair that shared an address is complete; those before it called as well.
                return Ok(());
            }
        }
        bail!("no pod got the address of the one before it in {ATTEMPTS} attempts")
    })
    .callers(1)
}

/// Replaces a pod by another workload; says whether it has the same address.
fn inherit(play: &Play<'_>, attempt: usize) -> Result<bool> {
    let (old, new) = (format!("heir-{attempt}"), format!("heir-{}", attempt + 1));
    let address = play.address(&old)?;
    let parsed: Ipv4Addr = address
        .parse()
        .with_context(|| format!("{address} is no address"))?;
    play.run(&["delete", "pod", &old, "--wait=false"])?;
    wait::until("the address is free", GONE, || {
        play.machine.next_address(NODE_B, parsed)
    })?;
    let heir = actor(&new)
        .on(NODE_B)
        .call("to=api:80,count=10,every=5")
        .listen("9001");
    play.add(&heir, &Shape::Pod)?;
    play.until("the next one has called", |it| it.done == attempt + 2)?;
    Ok(play.address(&new)? == address)
}
