use super::*;

const SECOND: u64 = 1_000_000_000;

fn key(cgroup: u64, owner: u32) -> HalfEdgeKey {
    HalfEdgeKey {
        cgroup,
        remote: [7; 16],
        owner,
        netns: 1,
        port: 6379,
        role: leyline_abi::role::CLIENT,
        transport: leyline_abi::transport::TCP,
        padding: 0,
    }
}

fn value(serial: u64, opened: u64, closed: u64, bytes_sent: u64, at: u64) -> HalfEdge {
    HalfEdge {
        serial,
        opened,
        closed,
        bytes_sent,
        changed_ns: at * SECOND,
        ..HalfEdge::default()
    }
}

fn pod(name: &str) -> Naming {
    Naming::Subject(Subject::Pod(name.into()))
}

fn see(ledger: &mut Ledger, key: &HalfEdgeKey, value: &HalfEdge, now: u64, naming: Naming) {
    ledger.observe(key, value, now * SECOND, |_| naming, |_| true);
}

fn changed(ledger: &Ledger, cursor: u64) -> Vec<(u32, u64, u64)> {
    ledger
        .changed_since(cursor)
        .map(|(_, id, entry)| (id, entry.totals.opened, entry.totals.bytes_sent))
        .collect()
}

fn last(ledger: &Ledger) -> u64 {
    ledger.changed_since(0).last().map_or(0, |(change, ..)| change)
}

#[test]
fn containers_of_one_pod_are_one_half_edge() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 2, 0, 10, 1), 1, pod("a"));
    see(&mut ledger, &key(2, 0), &value(2, 3, 1, 5, 1), 1, pod("a"));
    see(&mut ledger, &key(3, 0), &value(3, 1, 0, 1, 1), 1, pod("b"));
    assert_eq!(changed(&ledger, 0), vec![(1, 5, 15), (2, 1, 1)]);
    assert_eq!((ledger.active(1), ledger.active(2)), (4, 1));
    assert_eq!(ledger.fate(2), Some(Fate::Reported(1)));
    assert_eq!(ledger.fate(99), None);
}

#[test]
fn repeated_readings_add_nothing_and_only_changes_are_listed() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 2, 0, 10, 1), 1, pod("a"));
    see(&mut ledger, &key(3, 0), &value(3, 1, 0, 1, 1), 1, pod("b"));
    let cursor = last(&ledger);
    see(&mut ledger, &key(1, 0), &value(1, 2, 0, 10, 1), 2, pod("a"));
    assert_eq!(changed(&ledger, cursor), vec![]);
    see(&mut ledger, &key(1, 0), &value(1, 2, 0, 12, 3), 3, pod("a"));
    assert_eq!(changed(&ledger, cursor), vec![(1, 2, 12)]);
    assert_eq!(changed(&ledger, 0).len(), 2, "another stream still sees both");
}

#[test]
fn totals_stay_when_a_kernel_entry_goes_and_comes_back() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 2, 2, 10, 1), 1, pod("a"));
    assert_eq!(ledger.removable(600 * SECOND, 9), vec![]);
    assert_eq!(ledger.removable(601 * SECOND, 9), vec![key(1, 0)]);
    ledger.removed(&key(1, 0), Some(&value(1, 3, 3, 11, 601)));
    assert_eq!(
        changed(&ledger, 0),
        vec![(1, 3, 11)],
        "what happened before the removal is folded"
    );
    assert_eq!(ledger.fate(1), None);
    see(&mut ledger, &key(1, 0), &value(2, 1, 0, 4, 602), 602, pod("a"));
    assert_eq!(changed(&ledger, 0), vec![(1, 4, 15)]);
    assert_eq!(ledger.active(1), 1);
}

#[test]
fn an_entry_that_was_replaced_under_the_same_key_counts_from_zero() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 5, 5, 50, 1), 1, pod("a"));
    see(&mut ledger, &key(1, 0), &value(2, 2, 0, 7, 2), 2, pod("a"));
    assert_eq!(changed(&ledger, 0), vec![(1, 7, 57)]);
    assert_eq!((ledger.fate(1), ledger.fate(2)), (None, Some(Fate::Reported(1))));
}

#[test]
fn entries_with_live_sockets_are_never_removable() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 5, 4, 50, 1), 1, pod("a"));
    assert_eq!(ledger.removable(99_999 * SECOND, 9), vec![]);
}

#[test]
fn the_fuller_the_map_the_sooner_idle_entries_go() {
    let mut ledger = Ledger::new(8);
    for cgroup in 0..7 {
        see(
            &mut ledger,
            &key(cgroup, 0),
            &value(cgroup + 1, 1, 1, 1, 1),
            1,
            pod("a"),
        );
    }
    assert_eq!(ledger.removable(10 * SECOND, 99).len(), 0);
    assert_eq!(ledger.removable(11 * SECOND, 99).len(), 7);
    assert_eq!(ledger.removable(11 * SECOND, 3).len(), 3, "bounded per round");
}

#[test]
fn a_half_edge_ends_when_idle_and_its_id_is_not_used_again() {
    let mut ledger = Ledger::new(16);
    see(&mut ledger, &key(1, 0), &value(1, 1, 1, 1, 1), 1, pod("a"));
    ledger.end_idle(9_999 * SECOND);
    assert!(ledger.holds(1), "a kernel entry still adds to it");
    ledger.removed(&key(1, 0), None);
    ledger.end_idle(600 * SECOND);
    assert!(ledger.holds(1));
    ledger.end_idle(601 * SECOND);
    assert!(!ledger.holds(1) && ledger.is_empty());
    assert_eq!(ledger.ended(), 1);
    see(&mut ledger, &key(1, 0), &value(2, 1, 0, 1, 700), 700, pod("a"));
    assert_eq!(changed(&ledger, 0), vec![(2, 1, 1)]);
}

#[test]
fn an_unnamed_entry_waits_and_counts_whole_once_it_has_a_name() {
    let mut ledger = Ledger::new(16);
    see(
        &mut ledger,
        &key(1, 0),
        &value(1, 2, 0, 10, 1),
        1,
        Naming::Unknown,
    );
    assert_eq!(ledger.fate(1), Some(Fate::Pending));
    see(&mut ledger, &key(1, 0), &value(1, 3, 0, 12, 2), 2, pod("a"));
    assert_eq!(changed(&ledger, 0), vec![(1, 3, 12)]);
    assert_eq!(ledger.loss(), LedgerLoss::default());
}

#[test]
fn an_entry_that_never_gets_a_name_is_loss_counted_once() {
    let mut ledger = Ledger::new(16);
    for (now, opened) in [(1, 2), (20, 3), (31, 4), (32, 6), (33, 6)] {
        see(
            &mut ledger,
            &key(1, 0),
            &value(1, opened, 0, 0, now),
            now,
            Naming::Unknown,
        );
    }
    assert_eq!(ledger.loss().unknown_cgroup, 6);
    assert_eq!(ledger.fate(1), Some(Fate::Rejected));
    assert!(ledger.is_empty());
}

#[test]
fn processes_of_other_networks_are_loss_and_not_reported() {
    let mut ledger = Ledger::new(16);
    see(
        &mut ledger,
        &key(1, 7),
        &value(1, 2, 0, 10, 1),
        1,
        Naming::ForeignNetwork,
    );
    see(
        &mut ledger,
        &key(1, 7),
        &value(1, 5, 0, 10, 2),
        2,
        Naming::ForeignNetwork,
    );
    assert_eq!(ledger.loss().foreign_network, 5);
    assert!(ledger.is_empty());
}

#[test]
fn half_edges_beyond_the_capacity_are_loss() {
    let mut ledger = Ledger::new(2);
    for cgroup in 1..=4 {
        see(
            &mut ledger,
            &key(cgroup, 0),
            &value(cgroup, 3, 0, 1, 1),
            1,
            pod(&format!("pod-{cgroup}")),
        );
    }
    assert_eq!(ledger.len(), 2);
    assert_eq!(ledger.loss().full, 6);
}
