//! The kernel skips a program that is busy on the same CPU. What one copy of the state program misses the other sees; what
//! no copy sees is counted, and made good where the sockets still tell.
//!
//! Packets are handed to any CPU (RPS), so that they interrupt the programs often. To miss changes for certain, tests leave
//! the second copy out. Some kernels skip programs for reasons of their own and count nothing; no test relies on it.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use leyline_abi::{HalfEdge, loss};
use leyline_node_agent::kernel::KernelOptions;

use crate::net::Netns;
use crate::world::{CLIENT, SERVER, World};

const CLIENTS: usize = 4;
/// Connections between two looks at the counters.
const ROUND: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// A world whose packets go to any CPU, with both copies of the state program or only the first.
fn world(both: bool) -> World {
    let world = World::with(&KernelOptions {
        leave_out: if both { &[] } else { &["tcp_state_nested"] },
        ..KernelOptions::default()
    });
    for host in [&world.client.0, &world.server.0] {
        spread(host);
    }
    world
}

fn spread(namespace: &Netns) {
    let cpus = std::thread::available_parallelism().unwrap().get().min(32);
    let mask = format!("{:x}", (1_u64 << cpus) - 1);
    let script =
        format!("for f in /sys/class/net/v*/queues/rx-*/rps_cpus; do echo {mask} >$f || exit 1; done");
    let done = Command::new("ip")
        .args(["netns", "exec", &namespace.name, "sh", "-c", &script])
        .status()
        .unwrap();
    assert!(done.success(), "cannot spread packets over {cpus} CPUs");
}

/// Short connections, the server closing first.
fn connect_and_close(world: &World, listener: &TcpListener) {
    let to = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..ROUND).for_each(|_| drop(listener.accept().unwrap())));
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                world.client.0.run(|| {
                    for _ in 0..ROUND / CLIENTS {
                        let mut stream = TcpStream::connect(to).unwrap();
                        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
                    }
                });
            });
        }
    });
}

/// Connections that stay open: both ends.
fn connect_and_hold(world: &World, listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let to = listener.local_addr().unwrap();
    let (streams_tx, streams_rx) = mpsc::channel();
    std::thread::scope(|scope| {
        let accepted_tx = streams_tx.clone();
        scope.spawn(move || (0..count).for_each(|_| accepted_tx.send(listener.accept().unwrap().0).unwrap()));
        for _ in 0..CLIENTS {
            let streams_tx = streams_tx.clone();
            scope.spawn(move || {
                world.client.0.run(|| {
                    for _ in 0..count / CLIENTS {
                        streams_tx.send(TcpStream::connect(to).unwrap()).unwrap();
                    }
                });
            });
        }
    });
    drop(streams_tx);
    streams_rx.iter().collect()
}

fn halves(world: &World, port: u16) -> [HalfEdge; 2] {
    [world.client_half(SERVER, port), world.server_half(CLIENT, port)]
}

fn missed(world: &World) -> u64 {
    world.kernel.loss().unwrap()[loss::STATE_CHANGES as usize]
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn what_one_copy_of_the_state_program_skips_the_other_sees() {
    let world = world(true);
    let listener = world.listen(SERVER);
    world.client.1.enter();
    let deadline = Instant::now() + DEADLINE;
    let mut skipped = world.kernel.skipped().unwrap();
    while skipped.first < 100 {
        assert!(Instant::now() < deadline, "hardly ever interrupted: {skipped:?}");
        connect_and_close(&world, &listener);
        skipped = world.kernel.skipped().unwrap();
    }
    assert!(skipped.both * 20 <= skipped.first, "{skipped:?}");
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_close_that_was_missed_is_found_by_sweeps_and_counted() {
    let mut world = world(false);
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    world.client.1.enter();
    // Some stay open all the time: what lives is never taken for gone.
    let held = connect_and_hold(&world, &listener, 20);
    let deadline = Instant::now() + DEADLINE;
    let active = |w: &World| halves(w, port).map(|half| half.opened + half.adopted - half.closed);
    // More than can be in the middle of closing.
    while active(&world)
        .iter()
        .any(|active| *active <= 20 + 2 * CLIENTS as u64)
    {
        assert!(
            Instant::now() < deadline,
            "no close was missed: {:?}",
            world.kernel.skipped()
        );
        connect_and_close(&world, &listener);
    }
    while active(&world) != [20; 2] {
        assert!(Instant::now() < deadline, "{:?} are active", active(&world));
        world.kernel.sweep().unwrap();
    }
    assert!(missed(&world) > 0);
    for _ in 0..3 {
        world.kernel.sweep().unwrap();
    }
    assert_eq!(active(&world), [20; 2], "the living were taken for gone");
    drop(held);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_connection_whose_beginning_was_missed_is_counted_by_a_sweep_or_its_close() {
    const HELD: usize = 400;
    for by_sweep in [true, false] {
        let mut world = world(false);
        let listener = world.listen(SERVER);
        let port = listener.local_addr().unwrap().port();
        world.client.1.enter();
        let deadline = Instant::now() + DEADLINE;
        let began = |w: &World| halves(w, port).map(|half| half.opened + half.adopted);
        let mut held = vec![];
        while began(&world).iter().all(|began| *began * 2 == held.len() as u64) {
            assert!(
                Instant::now() < deadline,
                "no opening was missed: {:?}",
                world.kernel.skipped()
            );
            held.extend(connect_and_hold(&world, &listener, HELD));
        }
        let all = held.len() as u64 / 2;
        let late: u64 = began(&world).iter().map(|began| all - began).sum();
        if by_sweep {
            world.kernel.sweep().unwrap();
        } else {
            // One by one: nothing interrupts, so that hardly a close is missed too.
            drop(held);
            world.until("most are closed", |w| {
                halves(w, port).iter().all(|half| half.closed * 10 >= all * 9)
            });
        }
        let now = began(&world);
        let made_good = now.iter().sum::<u64>() + late - 2 * all;
        if by_sweep {
            assert_eq!(made_good, late);
        }
        assert!(made_good > 0, "of {late}");
        assert!(missed(&world) >= made_good);
    }
}
