use leyline_abi::{Connection as KernelConnection, HalfEdge, HalfEdgeKey, kind, role, transport};
use prost::Message as _;

use super::*;
use crate::ledger::Naming;

const SECOND: u64 = 1_000_000_000;

fn state() -> State {
    let mut state = State::new(10_000, 20_000);
    state.taken_at = Moment {
        monotonic_ns: 100 * SECOND,
        wall_ms: 1_000_000,
    };
    state
}

fn half_edge(state: &mut State, number: u64, opened: u64) {
    let key = HalfEdgeKey {
        cgroup: number,
        remote: [0xfd; 16],
        owner: 0,
        netns: 1,
        port: u16::MAX,
        role: role::SERVER,
        transport: transport::TCP,
        padding: 0,
    };
    let value = HalfEdge {
        serial: number,
        opened,
        changed_ns: 99 * SECOND,
        ..HalfEdge::default()
    };
    let pod = format!("{number:036}");
    state.ledger.observe(
        &key,
        &value,
        100 * SECOND,
        |_| Naming::Subject(Subject::Pod(pod.as_str().into())),
        |_| true,
    );
}

fn connection_of(state: &mut State, id: u32, isn: u32) {
    let from = KernelConnection {
        half_edge: u64::from(id),
        local: [0xfc; 16],
        client_isn: isn,
        server_isn: isn,
        local_port: u16::MAX,
        remote_port: u16::MAX,
        kind: kind::OPEN,
        role: role::SERVER,
        flags: 1,
        weight_log2: 31,
        at_ns: 98 * SECOND,
        bytes_sent: u64::MAX,
        bytes_received: u64::MAX,
    };
    state.connections.fold(id, &from);
}

#[test]
fn a_new_stream_gets_everything_in_bounded_chunks_then_only_changes() {
    let mut state = state();
    for number in 1..=5_000 {
        half_edge(&mut state, number, u64::MAX);
    }
    for isn in 0..9_000 {
        connection_of(&mut state, 1 + isn % 5_000, isn);
    }
    let mut cursor = Cursor::default();
    let (mut defined, mut counted, mut connections, mut reports) = (0, 0, 0, 0);
    while cursor.has_news(&state) {
        let report = cursor.next_report(&state);
        reports += 1;
        assert_eq!(report.sequence, reports);
        assert!(
            report.encoded_len() <= 1024 * 1024,
            "{} bytes",
            report.encoded_len()
        );
        assert_eq!(
            report.complete,
            cursor.complete(),
            "the last chunk and no other is complete"
        );
        defined += report.definitions.len();
        counted += report.counters.len();
        connections += report.connections.len();
    }
    assert_eq!((defined, counted, connections), (5_000, 5_000, 9_000));
    assert!(cursor.complete());

    half_edge(&mut state, 17, 1);
    assert!(
        !cursor.has_news(&state),
        "a counter that went back changes nothing"
    );
    half_edge(&mut state, 5_001, 1);
    let report = cursor.next_report(&state);
    assert_eq!(
        (report.definitions.len(), report.counters.len(), report.complete),
        (1, 1, false)
    );
    assert_eq!(report.counters[0].age_ms, 1_000);
    assert!(!cursor.has_news(&state));
}

#[test]
fn an_entry_that_moves_while_a_full_report_is_under_way_is_defined_once() {
    let mut state = state();
    for number in 1..=3_000 {
        half_edge(&mut state, number, 1);
    }
    let mut cursor = Cursor::default();
    let first = cursor.next_report(&state);
    half_edge(&mut state, 1, 2);
    half_edge(&mut state, 2_999, 2);
    let second = cursor.next_report(&state);
    assert!(second.complete);
    let mut ids: Vec<u32> = first
        .definitions
        .iter()
        .chain(&second.definitions)
        .map(|d| d.id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=3_000).collect::<Vec<u32>>());
    assert_eq!(
        second
            .counters
            .iter()
            .filter(|c| c.id == 1)
            .map(|c| c.opened)
            .collect::<Vec<_>>(),
        vec![2]
    );
}

#[test]
fn two_streams_advance_on_their_own() {
    let mut state = state();
    half_edge(&mut state, 1, 1);
    let (mut early, mut late) = (Cursor::default(), Cursor::default());
    assert_eq!(early.next_report(&state).counters.len(), 1);
    half_edge(&mut state, 2, 1);
    assert_eq!(early.next_report(&state).definitions.len(), 1);
    let report = late.next_report(&state);
    assert_eq!(
        (report.sequence, report.definitions.len(), report.complete),
        (1, 2, true)
    );
}

#[test]
fn an_end_is_told_only_to_streams_that_knew_the_half_edge() {
    let mut state = state();
    half_edge(&mut state, 1, 0);
    half_edge(&mut state, 2, 0);
    let mut knew = Cursor::default();
    knew.next_report(&state);
    let keys = state.ledger.removable(900 * SECOND, 9);
    for key in keys.iter().filter(|key| key.cgroup == 1) {
        state.ledger.removed(key, None);
    }
    state.ledger.end_idle(900 * SECOND);
    assert!(knew.has_news(&state));
    assert_eq!(knew.next_report(&state).ended, vec![1]);
    assert!(!knew.has_news(&state));
    let report = Cursor::default().next_report(&state);
    assert_eq!((report.ended.len(), report.definitions.len()), (0, 1));
}

#[test]
fn addresses_probes_and_loss_are_sent_when_they_change() {
    let mut state = state();
    state.addresses.set(["10.0.0.1".parse().unwrap()].into());
    let agent = Agent {
        node: "n".into(),
        epoch: 1,
        version: "0".into(),
        kernel: "6".into(),
    };
    let mut cursor = Cursor::default();
    let hello = cursor.hello(&state, &agent);
    assert_eq!(hello.node_addresses, vec![vec![10, 0, 0, 1]]);
    let report = cursor.next_report(&state);
    assert!(report.complete && report.node_addresses.is_empty() && report.probes.is_empty());
    state
        .addresses
        .set(["10.0.0.2".parse().unwrap(), "fd00::1".parse().unwrap()].into());
    state.probes.set(vec![wire::Probe {
        name: "tcp_state".into(),
        state: 1,
        reason: String::new(),
    }]);
    state.loss.foreign_network = 3;
    assert!(cursor.has_news(&state));
    let report = cursor.next_report(&state);
    assert_eq!((report.node_addresses.len(), report.probes.len()), (2, 1));
    assert_eq!(report.loss.map(|loss| loss.foreign_network), Some(3));
    assert!(!cursor.has_news(&state));
}
