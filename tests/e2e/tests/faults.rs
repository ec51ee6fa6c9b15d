//! Parts of the cluster and of Leyline are killed with SIGKILL and come back, under traffic. Afterwards the same objects
//! are there, with the same `firstSeen`, no total has ever gone back, and what somebody missed meanwhile has not become
//! an edge of a bare address.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use leyline_e2e::edges::{self, Dependency};
use leyline_e2e::kubectl::Kubectl;
use leyline_e2e::manifest::{server, service, work};
use leyline_e2e::score::{Edge, End};
use leyline_e2e::stage::Stage;
use leyline_e2e::{faults, leyline, traffic, wait};
use serde_json::json;

const PORT: u16 = 9000;
const SERVER_NODE: &str = "node-b";
const CLIENTS: [(&str, &str); 2] = [("client-a", "node-a"), ("client-b", "node-b")];
const PATIENCE: Duration = Duration::from_secs(120);
/// A restarted container, a new lease, the agents' full reports, and the slowest lane.
const CAUGHT_UP: Duration = Duration::from_secs(120);
/// A connection without its other half gets a name after 10 s, or after 20 s when an agent has to speak first.
const NAMED: Duration = Duration::from_secs(25);

/// Longer than an open connection of a silent node counts as open.
const AWAY: Duration = Duration::from_secs(65);

/// What must never change, as first seen.
struct Memory {
    expected: Vec<Edge>,
    seen: RefCell<BTreeMap<Edge, Dependency>>,
}

impl Memory {
    /// Looks once. Fails when something that must stay has changed.
    fn check(&self, kubectl: &Kubectl, namespace: &str) -> Result<()> {
        let found = edges::touching(kubectl, namespace)?;
        let mut seen = self.seen.borrow_mut();
        for now in &found {
            ensure!(self.expected.contains(&now.edge), "another edge: {}", now.edge);
            if let Some(before) = seen.get(&now.edge) {
                ensure!(now.uid == before.uid, "{} was made again", now.edge);
                let (old, new) = (before.text("/firstSeen"), now.text("/firstSeen"));
                ensure!(old == new, "{}: firstSeen was {old}, is {new}", now.edge);
                let (old, new) = (before.text("/countedSince"), now.text("/countedSince"));
                ensure!(old == new, "{}: countedSince was {old}, is {new}", now.edge);
                for total in [
                    "/connections/opened",
                    "/connections/failed",
                    "/bytes/sent",
                    "/bytes/received",
                ] {
                    let (old, new) = (before.figure(total), now.figure(total));
                    ensure!(old <= new, "{}: {total} went back from {old} to {new}", now.edge);
                }
            }
        }
        for edge in seen.keys() {
            ensure!(found.iter().any(|now| now.edge == *edge), "lost: {edge}");
        }
        ensure!(
            found.len()
                == found
                    .iter()
                    .map(|one| &one.edge)
                    .collect::<std::collections::BTreeSet<_>>()
                    .len(),
            "two objects for one edge"
        );
        // An object is made before its status is written.
        let told = found.into_iter().filter(|now| !now.status.is_null());
        seen.extend(told.map(|now| (now.edge.clone(), now)));
        Ok(())
    }

    fn opened(&self, edge: &Edge) -> u64 {
        self.seen
            .borrow()
            .get(edge)
            .map(Dependency::opened)
            .unwrap_or_default()
    }

    fn complete(&self) -> Result<()> {
        for edge in &self.expected {
            ensure!(self.opened(edge) > 0, "no connection counted yet: {edge}");
        }
        Ok(())
    }
}

/// Traffic on both nodes for 90 seconds, `fault` in the middle of it, then the comparison. `exact`: nothing was blind
/// meanwhile, so the final count is the clients' own.
fn survives(name: &str, exact: bool, fault: impl FnOnce(&Kubectl) -> Result<()>) -> Result<()> {
    Stage::run(name, |stage| {
        let ns = stage.namespace.as_str();
        let selector = json!({ "app": "answer" });
        // The server sees the other node's client with that node's address.
        stage.apply(&[
            server("answer", PORT)
                .on(SERVER_NODE)
                .deployment(ns, 1, &selector),
            service(ns, "answer", &selector, 80, PORT),
        ])?;
        stage.ready(&["answer"])?;
        let bare = edges::with_a_bare_address(&stage.kubectl)?;
        let edge = |client: &str| {
            edges::tcp(
                End::new(ns, "Job", client),
                End::new(ns, "Deployment", "answer"),
                PORT,
            )
        };
        let memory = Memory {
            expected: CLIENTS.map(|(client, _)| edge(client)).to_vec(),
            seen: RefCell::default(),
        };
        let start = traffic::start_in(Duration::from_secs(4));
        let args = ["connect", "--to=answer:80", "--count=1800", "--rate=20", &start];
        for (client, node) in CLIENTS {
            stage.apply(&[work(client, &args).on(node).job(ns, 1)])?;
        }
        wait::until("both edges", PATIENCE, || {
            memory.check(&stage.kubectl, ns)?;
            memory.complete()
        })?;
        let before: BTreeMap<Edge, u64> = memory
            .expected
            .iter()
            .map(|edge| (edge.clone(), memory.opened(edge)))
            .collect();
        fault(&stage.kubectl)?;
        leyline::ready(&stage.kubectl)?;
        memory.check(&stage.kubectl, ns)?;
        for (client, _) in CLIENTS {
            let count = watched_total(stage, client, &memory)?;
            ensure!(
                count.opened > 0 && count.failed == 0,
                "{client} counted {count:?}"
            );
            wait::until("the count of the edge", CAUGHT_UP, || {
                memory.check(&stage.kubectl, ns)?;
                let opened = memory.opened(&edge(client));
                ensure!(
                    opened <= count.opened,
                    "{client}: {opened} opened, the client counted {}",
                    count.opened
                );
                let least = before.get(&edge(client)).copied().unwrap_or_default() + 1;
                let enough = if exact { count.opened } else { least };
                ensure!(
                    opened >= enough,
                    "{client}: {opened} opened, the client counted {}, {least} at least",
                    count.opened
                );
                Ok(())
            })?;
        }
        wait::throughout("exactly the expected edges", NAMED, || {
            edges::exactly(&stage.kubectl, ns, &memory.expected)?;
            let more: BTreeSet<Edge> = edges::with_a_bare_address(&stage.kubectl)?
                .difference(&bare)
                .cloned()
                .collect();
            ensure!(more.is_empty(), "new edges with a bare address: {more:?}");
            Ok(())
        })
    })
}

/// Waits for the end of a client and looks at the edges all the while.
fn watched_total(stage: &Stage, client: &str, memory: &Memory) -> Result<traffic::Count> {
    let pod = stage
        .pods(client)?
        .pop()
        .with_context(|| format!("no pod of {client}"))?;
    let broken = RefCell::new(None);
    let count = wait::until(&format!("{client} has ended"), PATIENCE, || {
        if let Err(reason) = memory.check(&stage.kubectl, &stage.namespace) {
            broken.borrow_mut().get_or_insert(reason);
        }
        let (count, done) = traffic::progress(stage, &pod)?;
        ensure!(
            done || broken.borrow().is_some(),
            "{} connections so far",
            count.opened
        );
        Ok(count)
    })?;
    broken.into_inner().map_or(Ok(count), Err)
}

fn restart(component: &str) -> Result<()> {
    faults::xtask(&["cluster", "kill", component])?;
    faults::xtask(&["cluster", "start", component])
}

fn kill(kubectl: &Kubectl, app: &str) -> Result<()> {
    let before = leyline::restarts(kubectl, app)?;
    faults::kill_program(kubectl, app)?;
    leyline::restarted(kubectl, app, before, PATIENCE)
}

#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_a_killed_api_server() -> Result<()> {
    survives("kill-apiserver", true, |kubectl| {
        faults::xtask(&["cluster", "kill", "kube-apiserver"])?;
        // Longer than a lease lasts.
        wait::throughout("the API server stays away", Duration::from_secs(15), || {
            ensure!(kubectl.run(&["get", "namespaces"]).is_err(), "it answers");
            Ok(())
        })?;
        faults::xtask(&["cluster", "start", "kube-apiserver"])
    })
}

#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_a_killed_etcd() -> Result<()> {
    survives("kill-etcd", true, |_| restart("etcd"))
}

#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_both_operators_killed() -> Result<()> {
    survives("kill-operator", true, |kubectl| kill(kubectl, leyline::OPERATOR))
}

/// A killed agent sees nothing until it is back: the count may be lower, and is never wrong otherwise.
#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_all_agents_killed() -> Result<()> {
    survives("kill-agent", false, |kubectl| kill(kubectl, leyline::AGENT))
}

/// As when an agent is started over and over again, with ever longer pauses; the other agent is replaced by a new pod
/// at the beginning and at the end.
#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_a_node_whose_agent_stays_away_for_long() -> Result<()> {
    survives("agent-away", false, |kubectl| {
        let select = |node: &str| {
            let patch = format!(
                r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":{node}}}}}}}}}}}"#
            );
            let daemon_set = format!("daemonset/{}", leyline::AGENT);
            kubectl.run(&[
                "patch",
                &daemon_set,
                "--namespace",
                leyline::NAMESPACE,
                "--patch",
                &patch,
            ])
        };
        select(&format!(r#""{SERVER_NODE}""#))?;
        let alone = || {
            let there = leyline::pods(kubectl, leyline::AGENT)?.len();
            ensure!(there == 1, "{there} agents");
            Ok(())
        };
        let away = wait::until("one agent is gone", PATIENCE, alone)
            .and_then(|()| wait::throughout("one agent stays away", AWAY, alone));
        select("null")?;
        away
    })
}

#[test]
#[ignore = "needs the two-node cluster"]
fn edges_survive_everything_killed_at_once() -> Result<()> {
    survives("kill-all", false, |kubectl| {
        let operators = leyline::restarts(kubectl, leyline::OPERATOR)?;
        let agents = leyline::restarts(kubectl, leyline::AGENT)?;
        faults::kill_program(kubectl, leyline::AGENT)?;
        faults::kill_program(kubectl, leyline::OPERATOR)?;
        faults::xtask(&["cluster", "kill", "kube-apiserver"])?;
        faults::xtask(&["cluster", "kill", "etcd"])?;
        faults::xtask(&["cluster", "start", "etcd"])?;
        faults::xtask(&["cluster", "start", "kube-apiserver"])?;
        leyline::restarted(kubectl, leyline::OPERATOR, operators, PATIENCE)?;
        leyline::restarted(kubectl, leyline::AGENT, agents, PATIENCE)
    })
}
