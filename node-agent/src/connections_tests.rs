use super::*;

const SECOND: u64 = 1_000_000_000;

fn record(isn: u32, kind: u8, bytes: u64, at: u64) -> Connection {
    Connection {
        half_edge: 1,
        local: [1; 16],
        client_isn: isn,
        server_isn: isn.wrapping_add(1),
        local_port: 40_000,
        remote_port: 80,
        kind,
        role: leyline_abi::role::CLIENT,
        flags: 0,
        weight_log2: 0,
        at_ns: at * SECOND,
        bytes_sent: bytes,
        bytes_received: 0,
    }
}

fn shown(store: &Connections, cursor: u64) -> Vec<(u32, bool, u64)> {
    store
        .changed_since(cursor)
        .map(|(_, record)| (record.client_isn, record.closed, record.bytes_sent))
        .collect()
}

fn last(store: &Connections) -> u64 {
    store.changed_since(0).last().map_or(0, |(change, _)| change)
}

#[test]
fn one_connection_is_one_record_however_often_it_is_told() {
    let mut store = Connections::new(10);
    store.fold(1, &record(5, kind::OPEN, 0, 1));
    let opened = last(&store);
    store.fold(1, &record(5, kind::PROGRESS, 70, 2));
    assert_eq!(shown(&store, opened), vec![(5, false, 70)]);
    store.fold(1, &record(5, kind::CLOSE, 90, 3));
    store.fold(1, &record(5, kind::PROGRESS, 80, 3));
    assert_eq!(
        shown(&store, 0),
        vec![(5, true, 90)],
        "a late progress does not reopen"
    );
    let (_, only) = store.changed_since(0).next().unwrap();
    assert_eq!((only.opened_ns, only.at_ns), (SECOND, 3 * SECOND));
}

#[test]
fn a_close_that_overtakes_its_open_stays_the_end() {
    let mut store = Connections::new(10);
    store.fold(1, &record(5, kind::CLOSE, 90, 3));
    store.fold(1, &record(5, kind::OPEN, 0, 1));
    assert_eq!(shown(&store, 0), vec![(5, true, 90)]);
    let (_, only) = store.changed_since(0).next().unwrap();
    assert_eq!((only.opened_ns, only.at_ns), (SECOND, 3 * SECOND));
}

#[test]
fn a_stream_that_begins_later_is_given_live_and_just_closed_ones() {
    let mut store = Connections::new(10);
    store.fold(1, &record(1, kind::OPEN, 0, 1));
    store.fold(1, &record(2, kind::CLOSE, 9, 1));
    store.delivered(last(&store));
    store.expire(30 * SECOND);
    assert_eq!(shown(&store, 0).len(), 2);
    store.expire(31 * SECOND);
    assert_eq!(shown(&store, 0), vec![(1, false, 0)]);
    assert_eq!(store.dropped(), 0);
}

#[test]
fn what_nobody_has_taken_is_kept_longer_and_then_counted() {
    let mut store = Connections::new(10);
    store.fold(1, &record(2, kind::CLOSE, 9, 1));
    store.expire(31 * SECOND);
    assert_eq!(store.len(), 1);
    store.expire(601 * SECOND);
    assert_eq!((store.len(), store.dropped()), (0, 1));
}

#[test]
fn a_full_store_lets_the_oldest_closed_go_first_and_counts_what_was_not_delivered() {
    let mut store = Connections::new(3);
    store.fold(1, &record(1, kind::CLOSE, 0, 1));
    store.delivered(last(&store));
    store.fold(1, &record(2, kind::OPEN, 0, 1));
    store.fold(1, &record(3, kind::CLOSE, 0, 1));
    store.fold(1, &record(4, kind::OPEN, 0, 2));
    assert_eq!(
        (store.len(), store.dropped()),
        (3, 0),
        "the delivered one made room"
    );
    store.fold(1, &record(5, kind::OPEN, 0, 2));
    assert_eq!(
        (store.len(), store.dropped()),
        (3, 1),
        "an undelivered one made room"
    );
    store.fold(1, &record(6, kind::OPEN, 0, 2));
    assert_eq!(
        (store.len(), store.dropped()),
        (3, 2),
        "all live: the new one is refused"
    );
    store.fold(1, &record(5, kind::PROGRESS, 8, 3));
    assert_eq!(store.dropped(), 2, "known ones are still updated");
}

#[test]
fn a_connection_whose_close_was_lost_is_closed_when_its_half_edge_has_no_socket() {
    let mut store = Connections::new(3);
    store.fold(1, &record(1, kind::OPEN, 4, 1));
    store.fold(2, &record(2, kind::OPEN, 4, 1));
    let active = |id| u64::from(id == 2);
    store.close_stale(10 * SECOND, active);
    assert_eq!(shown(&store, 0), vec![(1, false, 4), (2, false, 4)]);
    store.close_stale(16 * SECOND, active);
    assert_eq!(shown(&store, 0), vec![(2, false, 4), (1, true, 4)]);
    store.expire(17 * SECOND);
    assert_eq!(store.len(), 2);
}
