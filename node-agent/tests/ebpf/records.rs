//! Records of split half-edges: one per opening and closing, with the same witness at both ends.

use std::collections::HashMap;

use leyline_abi::{Connection, HalfEdgeKey, kind, loss, role, witness_hash};
use leyline_node_agent::kernel::SplitSet;

use crate::net::mapped;
use crate::world::{CLIENT, SERVER, World, send};

fn serial(world: &World, wanted: u8) -> u64 {
    let (_, value) = world
        .entries()
        .into_iter()
        .find(|(key, _): &(HalfEdgeKey, _)| key.role == wanted)
        .unwrap();
    value.serial
}

/// Records of one half-edge of the world, in the order they came.
pub(crate) fn of(world: &World, wanted: u8) -> Vec<Connection> {
    let serial = serial(world, wanted);
    world
        .records
        .iter()
        .filter(|record| record.half_edge == serial)
        .copied()
        .collect()
}

/// Every one of `all` connections of the world's only two half-edges has an opening and a closing record at each end, the
/// closing one with its whole payload, and each witness is on exactly two ends.
pub(crate) fn check_complete(world: &World, port: u16, all: u64, (up, down): (u64, u64)) {
    let mut witnesses: HashMap<(u32, u32), u32> = HashMap::new();
    for (wanted, sent, received) in [(role::CLIENT, up, down), (role::SERVER, down, up)] {
        let records = of(world, wanted);
        let count = |kind| records.iter().filter(|record| record.kind == kind).count() as u64;
        assert_eq!(
            (count(kind::OPEN), count(kind::CLOSE)),
            (all, all),
            "role {wanted}"
        );
        for record in &records {
            assert_eq!((record.role, record.flags, record.weight_log2), (wanted, 0, 0));
            let server_port = if wanted == role::CLIENT {
                record.remote_port
            } else {
                record.local_port
            };
            assert_eq!(server_port, port);
            match record.kind {
                kind::OPEN => {
                    *witnesses
                        .entry((record.client_isn, record.server_isn))
                        .or_default() += 1
                }
                kind::CLOSE => assert_eq!((record.bytes_sent, record.bytes_received), (sent, received)),
                _ => assert!(record.bytes_sent <= sent && record.bytes_received <= received),
            }
        }
    }
    assert_eq!(witnesses.len() as u64, all);
    assert!(
        witnesses.values().all(|ends| *ends == 2),
        "a witness is not on exactly two ends"
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn both_ends_report_opening_progress_and_closing_under_one_witness() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let (mut client, mut server) = world.pair(&listener, SERVER);
    let client_port = client.local_addr().unwrap().port();
    world.until("opened", |w| {
        of(w, role::CLIENT).len() == 1 && of(w, role::SERVER).len() == 1
    });
    let (ours, theirs) = (of(&world, role::CLIENT)[0], of(&world, role::SERVER)[0]);
    assert_eq!(
        (ours.client_isn, ours.server_isn),
        (theirs.client_isn, theirs.server_isn)
    );
    assert_ne!(ours.client_isn, ours.server_isn);
    assert_eq!(
        (ours.local, ours.local_port, ours.remote_port),
        (mapped(CLIENT), client_port, port)
    );
    assert_eq!(
        (theirs.local, theirs.local_port, theirs.remote_port),
        (mapped(SERVER), port, client_port)
    );
    assert!(ours.at_ns > 0 && ours.kind == kind::OPEN && theirs.kind == kind::OPEN);

    send(&mut client, &mut server, 500);
    world.kernel.sweep().unwrap();
    world.kernel.sweep().unwrap();
    world.until("progress", |w| {
        of(w, role::SERVER)
            .last()
            .is_some_and(|record| record.bytes_received == 500)
    });
    assert_eq!(of(&world, role::SERVER).last().unwrap().kind, kind::PROGRESS);
    // Nothing moved since: nothing to say.
    let before = world.records.len();
    world.kernel.sweep().unwrap();
    world.drain();
    let ours = |records: &[Connection]| records.iter().filter(|record| record.local_port == port).count();
    assert_eq!(ours(&world.records[before..]), 0, "{:#?}", world.records);

    drop((client, server));
    world.until("closed", |w| {
        [role::CLIENT, role::SERVER]
            .iter()
            .all(|r| of(w, *r).last().unwrap().kind == kind::CLOSE)
    });
    let last = *of(&world, role::CLIENT).last().unwrap();
    assert_eq!((last.bytes_sent, last.bytes_received), (500, 0));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn only_addresses_that_may_hide_somebody_have_records() {
    let mut world = World::new();
    world.server.0.command("ip addr add 203.0.113.9/32 dev lo");
    world.client.0.command("ip route add 203.0.113.9 via 10.77.0.2");
    let public = "203.0.113.9".parse().unwrap();
    for (is_own, expected) in [(false, 0), (true, 2), (false, 0)] {
        let own: &[_] = if is_own { &[public] } else { &[] };
        world.kernel.set_split(SplitSet::new(own)).unwrap();
        assert_eq!(world.kernel.split().contains(mapped(public)), is_own);
        let listener = world.listen(public);
        let port = listener.local_addr().unwrap().port();
        drop(world.pair(&listener, public));
        world.until("closed", |w| {
            w.client_half(public, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
        });
        world.drain();
        let seen = world
            .records
            .iter()
            .filter(|record| record.remote_port == port)
            .count();
        assert_eq!(seen, expected, "{is_own}: {:#?}", world.records);
        // The server's half names the client's private address: always recorded.
        assert_eq!(
            world
                .records
                .iter()
                .filter(|record| record.local_port == port)
                .count(),
            2
        );
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn sampling_keeps_the_same_connections_at_both_ends_and_counts_the_rest() {
    const ALL: u64 = 2_000;
    let mut world = World::new();
    world.kernel.set_sample_log2(3).unwrap();
    let before = world.kernel.loss().unwrap()[loss::SAMPLED as usize];
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    for _ in 0..ALL {
        drop(world.pair(&listener, SERVER));
    }
    world.until("all closed", |w| {
        w.client_half(SERVER, port).closed == ALL && w.server_half(CLIENT, port).closed == ALL
    });
    world.drain();
    let mut ends = [role::CLIENT, role::SERVER].map(|wanted| {
        let mut witnesses = vec![];
        for record in of(&world, wanted) {
            assert_eq!(
                (
                    record.weight_log2,
                    witness_hash(record.client_isn, record.server_isn) % 8
                ),
                (3, 0)
            );
            if record.kind == kind::OPEN {
                witnesses.push((record.client_isn, record.server_isn));
            }
        }
        witnesses.sort_unstable();
        witnesses
    });
    assert_eq!(ends[0], ends[1]);
    let kept = ends[0].len() as u64;
    // 2,000 / 8 = 250, standard deviation 15.
    assert!((150..350).contains(&kept), "{kept} of {ALL}");
    let left_out = world.kernel.loss().unwrap()[loss::SAMPLED as usize] - before;
    assert!(
        left_out >= 2 * (ALL - kept),
        "{left_out} counted, {kept} kept of {ALL}"
    );
    ends[0].dedup();
    assert_eq!(ends[0].len() as u64, kept);
}
