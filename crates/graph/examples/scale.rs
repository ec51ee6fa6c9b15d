//! Memory and speed at the size the graph is designed for: a million edges from a thousand nodes.
//!
//!     cargo run --release -p leyline-graph --example scale -- [EDGES]
//!
//! Every half-edge is an edge of its own. Prints the memory they take and how many updates a second one core takes in.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use leyline_graph::entity::{Time, Transport};
use leyline_graph::input::{Counters, Definition, Measurement, Node, OwnerRef, Pod, Report, Role, Subject};
use leyline_graph::{Config, Graph};

const NODES: u32 = 1_000;
const PODS_PER_NODE: u32 = 30;
const START: i64 = 1_700_000_000_000;

fn address(pod: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + pod))
}

fn pod(number: u32) -> Pod {
    let workload = number;
    Pod {
        uid: format!("{number:08x}-0000-4000-8000-000000000000"),
        config_hash: None,
        namespace: format!("team-{}", workload % 100),
        name: format!("workload-{workload}-{number}"),
        generate_name: String::new(),
        controller: Some(OwnerRef {
            api_group: "apps".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: format!("workload-{workload}"),
            uid: format!("set-{workload}"),
        }),
        node: format!("node-{}", number / PODS_PER_NODE),
        host_network: false,
        addresses: vec![address(number)],
        probe_ports: Vec::new(),
        finished: false,
        started: Some(Time(START)),
    }
}

/// Bytes resident, from the kernel.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or("");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// What a node's agent says in its round: the same half-edges with larger counters.
fn report(node: u32, half_edges: u32, round: u64, now: Time) -> Report {
    let pods = NODES * PODS_PER_NODE;
    let mut report = Report {
        complete: round == 1,
        ..Report::default()
    };
    for id in 0..half_edges {
        let local = node * PODS_PER_NODE + id % PODS_PER_NODE;
        let remote = (local + 3 + (id / PODS_PER_NODE) * 7) % pods;
        if round == 1 {
            report.definitions.push(Definition {
                id,
                subject: Subject::Pod(format!("{local:08x}-0000-4000-8000-000000000000")),
                role: Role::Client,
                remote: address(remote),
                port: 8080,
                transport: Transport::Tcp,
                split: true,
            });
        }
        let counters = Counters {
            opened: round,
            bytes_sent: round * 100,
            bytes_received: round * 1_000,
            connect_us: round * 300,
            rtt_us: round * 200,
            rtt_samples: round,
            ..Counters::default()
        };
        report.measurements.push(Measurement {
            id,
            counters,
            changed: now,
        });
    }
    report
}

/// With `zones` as the second argument: three.
fn zone(node: u32) -> String {
    match std::env::args().nth(2).as_deref() {
        Some("zones") => format!("zone-{}", node % 3),
        _ => String::new(),
    }
}

fn main() {
    let edges: u32 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let half_edges = edges / NODES;
    let mut graph = Graph::new(Config::default());
    let mut now = Time(START);
    for node in 0..NODES {
        let addresses = vec![IpAddr::V4(Ipv4Addr::from(0xac10_0000 + node))];
        graph.apply_node(
            Node {
                name: format!("node-{node}"),
                addresses,
                zone: zone(node),
            },
            now,
        );
    }
    for number in 0..NODES * PODS_PER_NODE {
        graph.apply_pod(pod(number), now);
    }
    graph.inventory_synced(now);
    let empty = resident();
    println!(
        "{} pods on {NODES} nodes: {} MiB",
        NODES * PODS_PER_NODE,
        empty >> 20
    );
    for round in 1..=3 {
        now = now.plus(1_000);
        let mut updates = 0u32;
        let mut busy = std::time::Duration::ZERO;
        for node in 0..NODES {
            if round == 1 {
                graph.hello(&format!("node-{node}"), 1, &[], now);
            }
            let report = report(node, half_edges, round, now);
            updates += u32::try_from(report.measurements.len()).unwrap_or(u32::MAX);
            let started = Instant::now();
            graph
                .report(&format!("node-{node}"), 1, report, now)
                .expect("a report of this program is valid");
            busy += started.elapsed();
        }
        if round == 1 {
            graph.settle(now);
        }
        let started = Instant::now();
        graph.tick(now);
        let tick = started.elapsed();
        let changed = graph.drain_changed().len();
        let stats = graph.stats();
        println!(
            "round {round}: {updates} updates at {:.0}/s, tick {tick:?}, {changed} edges changed; {} half-edges, {} edges, {} MiB ({} B per edge)",
            f64::from(updates) / busy.as_secs_f64(),
            stats.half_edges,
            stats.edges,
            resident() >> 20,
            resident().saturating_sub(empty) / stats.edges.max(1) as u64,
        );
    }
}
