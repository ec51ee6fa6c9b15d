use leyline_wire::half_edge_definition::Subject as WireSubject;
use prost::Message;

use super::*;
use crate::ingest::codec;

const NOW: Time = Time(1_700_000_000_000);

fn a_definition() -> wire::HalfEdgeDefinition {
    wire::HalfEdgeDefinition {
        id: 1,
        role: wire::Role::Client.into(),
        remote: vec![10, 0, 0, 1],
        port: 443,
        transport: wire::Transport::Tcp.into(),
        split: false,
        subject: Some(WireSubject::Pod("0b8d6a52-7e0c-4a0e-9d0e-000000000001".into())),
    }
}

fn a_connection() -> wire::Connection {
    wire::Connection {
        id: 1,
        local: vec![10, 0, 0, 2],
        local_port: 40_000,
        remote_port: 443,
        ..Default::default()
    }
}

fn with_definition(change: impl FnOnce(&mut wire::HalfEdgeDefinition)) -> Result<Checked, Violation> {
    let mut definition = a_definition();
    change(&mut definition);
    report(
        wire::Report {
            sequence: 1,
            definitions: vec![definition],
            ..Default::default()
        },
        1,
        NOW,
    )
}

fn with_connection(change: impl FnOnce(&mut wire::Connection)) -> Result<Checked, Violation> {
    let mut connection = a_connection();
    change(&mut connection);
    report(
        wire::Report {
            sequence: 1,
            connections: vec![connection],
            ..Default::default()
        },
        1,
        NOW,
    )
}

fn a_hello() -> wire::Hello {
    wire::Hello {
        node: "n1.example".into(),
        epoch: 7,
        node_addresses: vec![vec![10, 1, 0, 1]],
        ..Default::default()
    }
}

#[test]
fn a_good_report_keeps_everything() {
    let counters = wire::HalfEdgeCounters {
        id: 1,
        opened: 3,
        bytes_sent: 99,
        age_ms: 1_500,
        ..Default::default()
    };
    let connection = wire::Connection {
        age_ms: 10,
        open_age_ms: 2_000,
        weight: 0,
        ..a_connection()
    };
    let loss = wire::Loss {
        socket_storage: 2,
        unknown_cgroup: 3,
        foreign_network: 50,
        ..Default::default()
    };
    let checked = report(
        wire::Report {
            sequence: 4,
            definitions: vec![a_definition()],
            counters: vec![counters],
            connections: vec![connection],
            ended: vec![9],
            complete: true,
            loss: Some(loss),
            node_addresses: vec![vec![10, 1, 0, 1]],
            ..Default::default()
        },
        4,
        NOW,
    )
    .expect("valid");
    let Report {
        definitions,
        measurements,
        connections,
        ended,
        complete,
        lost,
        sampled,
        node_addresses,
    } = checked.report;
    assert_eq!(definitions[0].remote, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(
        (measurements[0].counters.opened, measurements[0].changed),
        (3, Time(NOW.0 - 1_500))
    );
    assert_eq!(
        (connections[0].seen, connections[0].opened),
        (Time(NOW.0 - 10), Time(NOW.0 - 2_000))
    );
    assert_eq!(connections[0].weight, 1, "0 means 1");
    assert_eq!(
        (ended.as_slice(), complete, lost, sampled),
        ([9].as_slice(), true, 0, 0)
    );
    assert_eq!(checked.loss.as_ref().map(lost_events), Some(2));
    assert_eq!(node_addresses, Some(vec![IpAddr::from([10, 1, 0, 1])]));
    assert_eq!(checked.sequence, 4);
}

#[test]
fn an_ipv4_mapped_address_is_ipv4() {
    let mapped = "::ffff:10.0.0.9"
        .parse::<std::net::Ipv6Addr>()
        .expect("address")
        .octets()
        .to_vec();
    let checked = with_definition(|one| one.remote = mapped).expect("valid");
    assert_eq!(checked.report.definitions[0].remote, IpAddr::from([10, 0, 0, 9]));
}

#[test]
fn addresses_have_four_or_sixteen_bytes() {
    for length in [0, 3, 5, 15, 17, 1_000] {
        let violation = Violation::Address {
            field: "definition.remote",
            length,
        };
        assert_eq!(
            with_definition(|one| one.remote = vec![1; length]),
            Err(violation)
        );
    }
    assert!(with_connection(|one| one.local = vec![]).is_err());
    let hello = wire::Hello {
        node_addresses: vec![vec![1]],
        ..a_hello()
    };
    assert!(matches!(super::hello(hello), Err(Violation::Address { .. })));
}

#[test]
fn ports_end_at_65535() {
    assert!(with_definition(|one| one.port = 65_535).is_ok());
    assert!(matches!(
        with_definition(|one| one.port = 65_536),
        Err(Violation::Port { .. })
    ));
    assert!(matches!(
        with_connection(|one| one.local_port = u32::MAX),
        Err(Violation::Port { .. })
    ));
    assert!(matches!(
        with_connection(|one| one.remote_port = 70_000),
        Err(Violation::Port { .. })
    ));
}

#[test]
fn names_are_bounded_and_of_few_characters() {
    let pod = |uid: &str| with_definition(|one| one.subject = Some(WireSubject::Pod(uid.into())));
    assert!(pod("3c1f0f1d2f9b4a7b8e6d5c4b3a291807").is_ok(), "a config hash");
    for uid in ["", "a/b", "../x", "a b", "ü", &"a".repeat(64)] {
        assert!(matches!(pod(uid), Err(Violation::Text { .. })), "{uid}");
    }
    let process = |name: &str| with_definition(|one| one.subject = Some(WireSubject::Process(name.into())));
    assert!(process("user@1000.service").is_ok());
    for name in ["", "a b", "a\nb", "a/b", &"a".repeat(64)] {
        assert!(matches!(process(name), Err(Violation::Text { .. })), "{name}");
    }
    assert!(matches!(
        with_definition(|one| one.subject = None),
        Err(Violation::Subject { id: 1 })
    ));
}

#[test]
fn unknown_roles_and_protocols_are_refused() {
    assert!(with_definition(|one| one.role = wire::Role::Unknown.into()).is_ok());
    assert!(matches!(
        with_definition(|one| one.role = 3),
        Err(Violation::Number { .. })
    ));
    assert!(matches!(
        with_definition(|one| one.transport = 0),
        Err(Violation::Number { .. })
    ));
    assert!(matches!(
        with_definition(|one| one.transport = 132),
        Err(Violation::Number { .. })
    ));
}

#[test]
fn numbers_that_cannot_be_counts_are_refused() {
    let counters = wire::HalfEdgeCounters {
        id: 1,
        bytes_sent: u64::MAX,
        ..Default::default()
    };
    let message = wire::Report {
        sequence: 1,
        counters: vec![counters],
        ..Default::default()
    };
    assert!(matches!(
        report(message, 1, NOW),
        Err(Violation::Number {
            field: "counters.bytes_sent",
            ..
        })
    ));
    assert!(matches!(
        with_connection(|one| one.weight = u32::MAX),
        Err(Violation::Number { .. })
    ));
    assert!(matches!(
        with_connection(|one| one.bytes_received = u64::MAX),
        Err(Violation::Number { .. })
    ));
}

#[test]
fn an_absurd_age_is_cut() {
    let checked = with_connection(|one| one.open_age_ms = u64::MAX).expect("valid");
    assert_eq!(checked.report.connections[0].opened, Time(NOW.0 - limits::AGE_MS));
}

#[test]
fn reports_are_numbered_without_gap() {
    let numbered = |sequence| {
        report(
            wire::Report {
                sequence,
                ..Default::default()
            },
            5,
            NOW,
        )
    };
    assert!(numbered(5).is_ok());
    for sequence in [0, 4, 6, u64::MAX] {
        assert_eq!(
            numbered(sequence),
            Err(Violation::Sequence {
                expected: 5,
                got: sequence
            })
        );
    }
}

#[test]
fn too_many_entries_exhaust() {
    let message = wire::Report {
        sequence: 1,
        ended: vec![1; limits::ENDED + 1],
        ..Default::default()
    };
    let violation = report(message, 1, NOW).expect_err("too many");
    assert_eq!(violation.status().code(), tonic::Code::ResourceExhausted);
    let hello = wire::Hello {
        node_addresses: vec![vec![1; 4]; limits::NODE_ADDRESSES + 1],
        ..a_hello()
    };
    assert!(matches!(super::hello(hello), Err(Violation::TooMany { .. })));
}

#[test]
fn a_hello_names_node_and_epoch() {
    let probe = |name: &str| wire::Probe {
        name: name.into(),
        state: 1,
        reason: String::new(),
    };
    let hello = super::hello(wire::Hello {
        probes: vec![probe("tp_btf/inet_sock_set_state")],
        ..a_hello()
    });
    let hello = hello.expect("valid");
    assert_eq!(
        (hello.node.as_str(), hello.epoch, hello.node_addresses.len()),
        ("n1.example", 7, 1)
    );
    for node in ["", "N1", "a/b", "a\0", &"a".repeat(254)] {
        assert!(
            super::hello(wire::Hello {
                node: node.into(),
                ..a_hello()
            })
            .is_err(),
            "{node}"
        );
    }
    assert!(
        super::hello(wire::Hello {
            epoch: 0,
            ..a_hello()
        })
        .is_err()
    );
    assert!(
        super::hello(wire::Hello {
            version: "a\nb".into(),
            ..a_hello()
        })
        .is_err()
    );
    assert!(
        super::hello(wire::Hello {
            probes: vec![probe("a\nb")],
            ..a_hello()
        })
        .is_err()
    );
    assert!(
        super::hello(wire::Hello {
            probes: vec![probe("p"); limits::PROBES + 1],
            ..a_hello()
        })
        .is_err()
    );
}

/// Numbers without pattern, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("small")
    }
}

fn take(bytes: &[u8]) -> bool {
    let Ok(message) = codec::decode(bytes) else {
        return false;
    };
    match message.body {
        Some(wire::agent_message::Body::Hello(hello)) => super::hello(hello).is_ok(),
        Some(wire::agent_message::Body::Report(one)) => {
            let due = one.sequence;
            report(one, due, NOW).is_ok()
        }
        None => false,
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..50_000 {
        let length = random.below(200);
        let bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        take(&bytes);
    }
}

#[test]
fn damaged_messages_never_panic_and_some_still_pass() {
    let whole = wire::Report {
        sequence: 1,
        definitions: vec![a_definition(); 3],
        counters: vec![
            wire::HalfEdgeCounters {
                id: 1,
                opened: 5,
                ..Default::default()
            };
            3
        ],
        connections: vec![a_connection(); 3],
        ended: vec![1, 2, 3],
        loss: Some(wire::Loss::default()),
        ..Default::default()
    };
    let whole = wire::AgentMessage {
        body: Some(wire::agent_message::Body::Report(whole)),
    }
    .encode_to_vec();
    assert!(take(&whole));
    let mut random = Random(42);
    let mut passed = 0;
    for _ in 0..50_000 {
        let mut damaged = whole.clone();
        for _ in 0..=random.below(4) {
            let place = random.below(damaged.len());
            damaged[place] = random.next().to_le_bytes()[0];
        }
        damaged.truncate(damaged.len() - random.below(3));
        passed += usize::from(take(&damaged));
    }
    assert!((1..50_000).contains(&passed), "{passed}");
}
