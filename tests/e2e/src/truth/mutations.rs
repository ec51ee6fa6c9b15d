//! Whether the comparison would notice a resolver that is wrong.
//!
//! One made-up minute of a small cluster is written down twice: as the logs of its applications and as what the watches and the
//! agents would have sent. The real graph is fed with the latter and judged by the former: exact. Then the feed is changed in
//! a way that takes one thing away from the resolver (the time of what it hears, the other half, the role), which is what a
//! resolver without that rule would work with, and the same comparison must fail. Nothing in the product knows of this.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use leyline_graph::entity::{Entity, Time, Transport};
use leyline_graph::input::{
    Connection, Controller, Counters, Definition, Endpoint, EndpointPort, EndpointSlice, Measurement, Node,
    OwnerRef, Pod, Report, Role, Service, ServicePort, Subject, Witness,
};
use leyline_graph::{Config, EdgeView, Graph};
use serde_json::json;

use super::join::{Fold, join};
use super::judge::{Exactness, Verdict, judge};
use super::log::{Actor, Dial, Event, Line, Role as Side};
use crate::edges::Dependency;
use crate::score::{Edge, End};

const START: i64 = 1_700_000_000_000;
const EPOCH: u64 = 1_700_000_000_000_000_000;
const VIP: &str = "10.96.0.10";
const REUSED: &str = "10.244.2.50";
/// Reports arrive when everything else is over.
const LATE: i64 = 20_000;

/// One connection, as its two applications and the two kernels would tell it.
struct Told {
    id: u32,
    at: i64,
    /// The destination: the Service or a pod's own address.
    to: (&'static str, u16),
    server: &'static str,
}

/// `web` on n1 calls the Service over `blue` and `green` on n2, where it is seen with its node's address, and then an
/// address on n3, where no agent runs, which first belongs to `first` and then to `second`.
fn told() -> Vec<Told> {
    let mut all = Vec::new();
    for number in 0..6 {
        let server = if number < 4 { "blue" } else { "green" };
        all.push(Told {
            id: number,
            at: 4_000,
            to: (VIP, 80),
            server,
        });
    }
    for number in 6..11 {
        let (at, server) = if number < 9 {
            (5_000, "first")
        } else {
            (14_000, "second")
        };
        all.push(Told {
            id: number,
            at,
            to: (REUSED, 9000),
            server,
        });
    }
    all
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn logs() -> Vec<Actor> {
    let mut actors: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    let mut write = |who: &'static str, event| {
        actors.entry(who).or_default().push(Line { at: 0, event });
    };
    for one in told() {
        let (id, peer) = (one.id.to_string(), SocketAddr::new(ip(one.to.0), one.to.1));
        write(
            "web",
            Event::Dialled {
                id: id.clone(),
                dial: "api".to_owned(),
                local: None,
                peer,
                outcome: Dial::Connected,
            },
        );
        write(
            "web",
            Event::Ended {
                id: id.clone(),
                role: Side::Client,
                broken: None,
                sent: 100,
                received: 1000,
            },
        );
        write(
            one.server,
            Event::Accepted {
                id: Some(id),
                port: 9000,
                local: peer,
                peer,
            },
        );
    }
    let actors = actors.into_iter();
    actors
        .map(|(name, lines)| Actor {
            who: format!("Deployment shop {name}"),
            instance: name.to_owned(),
            lines,
        })
        .collect()
}

/// Something the graph hears.
enum Heard {
    Pod(Pod),
    PodGone(&'static str),
    Report(&'static str, Report),
}

fn pod(name: &str, node: &str, address: &str, started: i64) -> Pod {
    Pod {
        uid: name.to_owned(),
        config_hash: None,
        namespace: "shop".to_owned(),
        name: format!("{name}-1"),
        generate_name: String::new(),
        controller: Some(owner("ReplicaSet", name)),
        node: node.to_owned(),
        host_network: false,
        addresses: vec![ip(address)],
        probe_ports: Vec::new(),
        finished: false,
        started: Some(Time(START + started)),
    }
}

fn owner(kind: &str, name: &str) -> OwnerRef {
    OwnerRef {
        api_group: "apps".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: format!("{kind}-{name}"),
    }
}

/// The feed: what is heard, and when.
fn feed() -> Vec<(i64, Heard)> {
    let mut feed = vec![
        (0, Heard::Pod(pod("web", "n1", "10.244.0.5", 0))),
        (0, Heard::Pod(pod("blue", "n2", "10.244.1.5", 0))),
        (0, Heard::Pod(pod("green", "n2", "10.244.1.6", 0))),
        (0, Heard::Pod(pod("first", "n3", REUSED, 0))),
        (8_000, Heard::PodGone("first")),
        (11_000, Heard::Pod(pod("second", "n3", REUSED, 11_000))),
    ];
    let client = |from: i64, to: i64| {
        let mut report = Report::default();
        for (id, (remote, port)) in [(1, (VIP, 80)), (2, (REUSED, 9000))] {
            if from == 0 {
                report
                    .definitions
                    .push(definition(id, "web", Role::Client, remote, port));
            }
            let all = || told().into_iter().filter(|it| it.to.0 == remote && it.at < to);
            let Some(changed) = all().map(|it| it.at).max() else {
                continue;
            };
            report
                .measurements
                .push(measured(id, all().count(), changed, (100, 1000)));
            let new = all().filter(|it| it.at >= from);
            report
                .connections
                .extend(new.map(|it| record(id, &it, ("10.244.0.5", 40_000, it.to.1), (100, 1000))));
        }
        report
    };
    let mut server = Report::default();
    for (id, name) in [(1, "blue"), (2, "green")] {
        server
            .definitions
            .push(definition(id, name, Role::Server, "10.250.0.1", 9000));
        let all = || told().into_iter().filter(|it| it.server == name);
        server
            .measurements
            .push(measured(id, all().count(), 4_000, (1000, 100)));
        server
            .connections
            .extend(all().map(|it| record(id, &it, ("10.244.1.5", 9000, 40_000), (1000, 100))));
    }
    feed.push((LATE, Heard::Report("n1", client(0, 10_000))));
    feed.push((LATE + 100, Heard::Report("n1", client(10_000, 20_000))));
    feed.push((LATE + 200, Heard::Report("n2", server)));
    feed
}

fn definition(id: u32, pod: &str, role: Role, remote: &str, port: u16) -> Definition {
    Definition {
        id,
        subject: Subject::Pod(pod.to_owned()),
        role,
        remote: ip(remote),
        port,
        transport: Transport::Tcp,
        split: true,
    }
}

fn measured(id: u32, count: usize, changed: i64, (sent, received): (u64, u64)) -> Measurement {
    let count = count as u64;
    Measurement {
        id,
        counters: Counters {
            opened: count,
            bytes_sent: count * sent,
            bytes_received: count * received,
            ..Counters::default()
        },
        changed: Time(START + changed),
    }
}

fn record(
    id: u32,
    one: &Told,
    (local, local_port, remote_port): (&str, u16, u16),
    (sent, received): (u64, u64),
) -> Connection {
    Connection {
        id,
        witness: Witness {
            client_isn: one.id,
            server_isn: !one.id,
        },
        local: ip(local),
        local_port,
        remote_port,
        adopted: false,
        closed: true,
        bytes_sent: sent,
        bytes_received: received,
        weight: 1,
        opened: Time(START + one.at),
        seen: Time(START + one.at),
    }
}

/// Feeds the real graph and judges what it says by the applications' logs.
fn verdict(mutate: impl Fn(i64, &mut Report)) -> Verdict {
    let mut graph = Graph::new(Config::default());
    let begin = Time(START - 60_000);
    for (name, address) in [("n1", "10.250.0.1"), ("n2", "10.250.0.2"), ("n3", "10.250.0.3")] {
        graph.apply_node(
            Node {
                name: name.to_owned(),
                addresses: vec![ip(address)],
                zone: String::new(),
            },
            begin,
        );
    }
    inventory(&mut graph, begin);
    graph.inventory_synced(begin);
    for (name, address) in [("n1", "10.250.0.1"), ("n2", "10.250.0.2")] {
        graph.hello(name, EPOCH - 60_000_000_000, &[ip(address)], begin);
        let complete = Report {
            complete: true,
            ..Report::default()
        };
        graph
            .report(name, EPOCH - 60_000_000_000, complete, begin)
            .unwrap();
    }
    graph.settle(begin);
    let mut feed = feed().into_iter().peekable();
    for now in (-60_000..60_000).step_by(100) {
        let time = Time(START + now);
        while let Some((at, _)) = feed.peek()
            && *at <= now
        {
            match feed.next().unwrap() {
                (_, Heard::Pod(pod)) => graph.apply_pod(pod, time),
                (_, Heard::PodGone(uid)) => graph.delete_pod(uid, time),
                (at, Heard::Report(node, mut report)) => {
                    mutate(at, &mut report);
                    graph.report(node, EPOCH - 60_000_000_000, report, time).unwrap();
                }
            }
        }
        if now % 500 == 0 {
            graph.tick(time);
        }
    }
    let truth = join(&logs(), &[], Fold::None).unwrap();
    let shown: Vec<Dependency> = graph.edges().map(|edge| object(&edge)).collect();
    judge(&truth, &shown, Exactness::Exact, Fold::None)
}

fn inventory(graph: &mut Graph, now: Time) {
    for name in ["web", "blue", "green", "first", "second"] {
        graph.apply_controller(
            Controller {
                uid: format!("ReplicaSet-{name}"),
                api_group: "apps".to_owned(),
                kind: "ReplicaSet".to_owned(),
                namespace: "shop".to_owned(),
                name: format!("{name}-1"),
                generate_name: String::new(),
                controller: Some(owner("Deployment", name)),
            },
            now,
        );
    }
    graph.apply_service(
        Service {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
            addresses: vec![ip(VIP)],
            ports: vec![ServicePort {
                name: String::new(),
                port: 80,
                node_port: 0,
                transport: Transport::Tcp,
            }],
        },
        now,
    );
    let endpoint = |address: &str, uid: &str| Endpoint {
        addresses: vec![ip(address)],
        pod_uid: Some(uid.to_owned()),
    };
    graph.apply_endpoint_slice(
        EndpointSlice {
            namespace: "shop".to_owned(),
            name: "api-1".to_owned(),
            service: "api".to_owned(),
            ports: vec![EndpointPort {
                name: String::new(),
                port: 9000,
                transport: Transport::Tcp,
            }],
            endpoints: vec![endpoint("10.244.1.5", "blue"), endpoint("10.244.1.6", "green")],
        },
        now,
    );
}

/// An edge as its object would say it.
fn object(edge: &EdgeView) -> Dependency {
    let end = |entity: &Entity| End::new(&entity.namespace, &entity.kind, &entity.name);
    let key = &edge.key;
    let said = Edge {
        client: end(&key.client),
        server: end(&key.server),
        port: key.port,
        transport: key.transport.to_string(),
    };
    let totals = &edge.totals;
    let status = json!({
        "state": "Active",
        "connections": { "opened": totals.opened, "active": totals.active },
        "bytes": { "sent": totals.bytes_sent, "received": totals.bytes_received },
        "conditions": [{
            "type": "Resolved", "status": if edge.unresolved.is_none() { "True" } else { "False" }, "reason": "x",
        }],
    });
    Dependency {
        namespace: said.home().to_owned(),
        edge: said,
        name: "n".to_owned(),
        uid: String::new(),
        status,
        object: json!({}),
    }
}

#[test]
fn the_resolver_as_it_is_is_exact() {
    let verdict = verdict(|_, _| {});
    assert_eq!(verdict.problems, Vec::<String>::new());
    assert_eq!(verdict.expected, 4);
}

#[test]
fn a_resolver_that_ignores_time_is_found_out() {
    // Everything seems to have happened when it was heard: by then the address belongs to somebody else.
    let verdict = verdict(|at, report| {
        for one in &mut report.measurements {
            one.changed = Time(START + at);
        }
        for one in &mut report.connections {
            (one.opened, one.seen) = (Time(START + at), Time(START + at));
        }
    });
    let text = verdict.problems.join("\n");
    assert!(text.contains("missing") && text.contains("/first:9000"), "{text}");
    assert!(verdict.recall() < 100.0);
}

#[test]
fn a_resolver_that_ignores_the_other_half_is_found_out() {
    // No connection can be met with its other half.
    let verdict = verdict(|_, report| report.connections.clear());
    let text = verdict.problems.join("\n");
    assert!(text.contains("missing") && text.contains("/blue:9000"), "{text}");
    assert!(verdict.recall() < 100.0);
}

#[test]
fn a_resolver_that_swaps_roles_is_found_out() {
    let verdict = verdict(|_, report| {
        for one in &mut report.definitions {
            one.role = if one.role == Role::Client {
                Role::Server
            } else {
                Role::Client
            };
        }
    });
    let text = verdict.problems.join("\n");
    assert!(text.contains("missing") && text.contains("extra"), "{text}");
    assert_eq!(verdict.right, 0, "{text}");
}

#[test]
fn a_resolver_that_counts_both_halves_is_found_out() {
    let verdict = verdict(|_, report| {
        for one in &mut report.measurements {
            one.counters.opened *= 2;
        }
    });
    let text = verdict.problems.join("\n");
    assert!(text.contains("connections.opened"), "{text}");
}
