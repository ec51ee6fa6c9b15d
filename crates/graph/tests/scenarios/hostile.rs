//! Whatever an agent sends and a watch says, nothing panics and every table keeps its bound.

use std::collections::BTreeMap;

use leyline_graph::Config;
use leyline_graph::entity::{Time, Transport};
use leyline_graph::input::{Connection, Counters, Definition, Measurement, Report, Role, Subject, Witness};

use crate::support::{EPOCH, N1, Random, World, ip, pod, slice};

const ADDRESSES: [&str; 8] = [
    "10.244.0.5",
    "10.244.1.6",
    "10.250.0.1",
    "10.96.0.9",
    "127.0.0.1",
    "203.0.113.1",
    "fd00::1",
    "0.0.0.0",
];

fn number(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => 0,
        1 => u64::MAX,
        2 => i64::MAX as u64,
        _ => random.below(1_000) as u64,
    }
}

fn time(random: &mut Random, now: i64) -> Time {
    match random.below(6) {
        0 => Time(i64::MIN),
        1 => Time(i64::MAX),
        2 => Time(0),
        _ => Time(crate::support::START + now - random.between(0, 90_000)),
    }
}

fn counters(random: &mut Random) -> Counters {
    let mut next = || number(random);
    Counters {
        opened: next(),
        adopted: next(),
        active: next(),
        refused: next(),
        timed_out: next(),
        unreachable: next(),
        reset: next(),
        aborted: next(),
        bytes_sent: next(),
        bytes_received: next(),
        connect_us: next(),
        rtt_us: next(),
        rtt_samples: next(),
        retransmits: next(),
        lost: next(),
    }
}

/// Cumulative figures never shrink, whatever else is a lie.
fn sum(one: Counters, other: Counters) -> Counters {
    Counters {
        opened: one.opened.saturating_add(other.opened),
        adopted: one.adopted.saturating_add(other.adopted),
        active: other.active,
        refused: one.refused.saturating_add(other.refused),
        timed_out: one.timed_out.saturating_add(other.timed_out),
        unreachable: one.unreachable.saturating_add(other.unreachable),
        reset: one.reset.saturating_add(other.reset),
        aborted: one.aborted.saturating_add(other.aborted),
        bytes_sent: one.bytes_sent.saturating_add(other.bytes_sent),
        bytes_received: one.bytes_received.saturating_add(other.bytes_received),
        connect_us: one.connect_us.saturating_add(other.connect_us),
        rtt_us: one.rtt_us.saturating_add(other.rtt_us),
        rtt_samples: one.rtt_samples.saturating_add(other.rtt_samples),
        retransmits: one.retransmits.saturating_add(other.retransmits),
        lost: one.lost.saturating_add(other.lost),
    }
}

/// What makes most of the reports valid enough to be taken in.
#[derive(Default)]
struct Liar {
    defined: BTreeMap<u32, Definition>,
    reported: BTreeMap<u32, Counters>,
    lost: u64,
}

impl Liar {
    fn id(&self, random: &mut Random) -> u32 {
        if self.defined.is_empty() || random.below(50) == 0 {
            return random.below(40) as u32;
        }
        *self.defined.keys().nth(random.below(self.defined.len())).unwrap()
    }
}

fn report(liar: &mut Liar, random: &mut Random, now: i64) -> Report {
    if random.below(20) == 0 {
        liar.lost = liar.lost.saturating_add(number(random));
    }
    let mut report = Report {
        complete: random.below(4) == 0,
        lost: liar.lost,
        ..Report::default()
    };
    for _ in 0..random.below(4) {
        let id = random.below(40) as u32;
        if let Some(known) = liar.defined.get(&id) {
            report.definitions.push(known.clone());
            continue;
        }
        let subject = match random.below(3) {
            0 => Subject::Process("sshd".to_owned()),
            1 => Subject::Pod(format!("unknown-{id}")),
            _ => Subject::Pod(random.pick(&["web-1", "redis-0"]).to_owned()),
        };
        let definition = Definition {
            id,
            subject,
            role: random.pick(&[Role::Client, Role::Server, Role::Unknown]),
            remote: ip(random.pick(&ADDRESSES)),
            port: random.pick(&[0, 80, 6379, 40_000, u16::MAX]),
            transport: Transport::Tcp,
            split: random.below(2) == 0,
        };
        liar.defined.insert(id, definition.clone());
        report.definitions.push(definition);
    }
    for _ in 0..random.below(4) {
        let id = liar.id(random);
        let more = counters(random);
        let reported = liar.reported.entry(id).or_default();
        if random.below(40) == 0 {
            *reported = more;
        } else {
            *reported = sum(*reported, more);
        }
        report.measurements.push(Measurement {
            id,
            counters: *reported,
            changed: time(random, now),
        });
    }
    for _ in 0..random.below(6) {
        report.connections.push(Connection {
            id: liar.id(random),
            witness: Witness {
                client_isn: random.below(6) as u32,
                server_isn: 0,
            },
            local: ip(random.pick(&ADDRESSES)),
            local_port: random.pick(&[0, 80, 6379]),
            remote_port: 1,
            adopted: random.below(2) == 0,
            closed: random.below(2) == 0,
            bytes_sent: number(random),
            bytes_received: number(random),
            weight: random.pick(&[1, 1, 4, u32::MAX]),
            opened: time(random, now),
            seen: time(random, now),
        });
    }
    if random.below(5) == 0 {
        let id = liar.id(random);
        liar.defined.remove(&id);
        liar.reported.remove(&id);
        report.ended.push(id);
    }
    report
}

#[test]
fn nothing_an_agent_sends_makes_the_graph_panic_or_grow() {
    for seed in 1..=40u64 {
        let mut random = Random((seed * 0x9e37_79b9) | 1);
        let mut world = World::with(Config {
            records: 5,
            waiting: 6,
            edges: 12,
            half_edges_per_node: 20,
            ..Config::default()
        });
        let mut epoch = EPOCH;
        let mut liar = Liar::default();
        let mut accepted = 0;
        for _ in 0..600 {
            match random.below(30) {
                0 => {
                    if random.below(2) == 0 {
                        epoch += 1;
                        liar = Liar::default();
                    }
                    world.hello("n1", epoch);
                }
                1 => world.graph.agent_gone("n1", world.time()),
                2 => world.pod(
                    pod("web-1")
                        .at(random.pick(&ADDRESSES))
                        .of("ReplicaSet", "web-7f"),
                ),
                3 => world.delete_pod("web-1"),
                4 => world.pod(
                    pod("redis-0")
                        .at(random.pick(&ADDRESSES))
                        .of("StatefulSet", "redis"),
                ),
                5 => world.service("redis", random.pick(&ADDRESSES), 6379, 80, &["redis-0", "web-1"]),
                6 => world.apply_slice(slice("redis", 80, &["web-1"])),
                7 => world.graph.delete_service("shop", "redis", world.time()),
                8 => {
                    let first = world.graph.edges().next();
                    if let Some(edge) = first {
                        world.graph.forget(&edge.key);
                    }
                }
                9 => world.pass(random.between(0, 40_000)),
                10 => world.node_in("n1", N1, random.pick(&["", "west", "east"])),
                _ => {
                    let report = report(&mut liar, &mut random, world.now);
                    accepted += u32::from(world.graph.report("n1", epoch, report, world.time()).is_ok());
                }
            }
            let stats = world.graph.stats();
            assert!(
                stats.records <= 5 && stats.waiting <= 6 && stats.edges <= 12,
                "{stats:?}"
            );
            // Those of former epochs that still wait for a name are among the waiting.
            assert!(stats.half_edges <= 20 + 6 + 5, "{stats:?}");
            for edge in world.edges().into_values() {
                let placed: u128 = edge.zones.iter().map(|zone| u128::from(zone.bytes)).sum();
                let bytes = u128::from(edge.totals.bytes_sent) + u128::from(edge.totals.bytes_received);
                assert!(placed <= bytes, "{edge:?}");
            }
        }
        assert!(
            accepted > 20,
            "only {accepted} reports were valid enough to be taken in"
        );
    }
}
