//! Payload is exact: SYN and FIN, which the kernel's own counters include, are taken out.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use leyline_abi::HalfEdge;

use crate::world::{CLIENT, CLIENT6, SERVER, SERVER6, World, expect_end, linger_zero, send};

type Ends = (TcpStream, TcpStream);
type Ending = fn(Ends);

/// (name, what happens after the exchange).
const ENDINGS: [(&str, Ending); 6] = [
    ("client closes first", |(client, mut server)| {
        drop(client);
        expect_end(&mut server);
    }),
    ("server closes first", |(mut client, server)| {
        drop(server);
        expect_end(&mut client);
    }),
    (
        "client half-closes, then reads 333 bytes more",
        |(mut client, mut server)| {
            client.shutdown(Shutdown::Write).unwrap();
            expect_end(&mut server);
            send(&mut server, &mut client, 333);
            drop(server);
            expect_end(&mut client);
        },
    ),
    (
        "server half-closes, then reads 777 bytes more",
        |(mut client, mut server)| {
            server.shutdown(Shutdown::Write).unwrap();
            expect_end(&mut client);
            send(&mut client, &mut server, 777);
            drop(client);
            expect_end(&mut server);
        },
    ),
    ("both close at once", |(client, server)| {
        client.shutdown(Shutdown::Write).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
    }),
    ("client resets", |(client, mut server)| {
        linger_zero(&client);
        drop(client);
        assert!(server.read(&mut [0]).is_err());
    }),
];

/// Bytes each ending adds: (client to server, server to client).
const MORE: [(u64, u64); 6] = [(0, 0), (0, 0), (0, 333), (777, 0), (0, 0), (0, 0)];

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn payload_is_exact_at_both_ends_however_the_connection_ends() {
    for (dial, client_address) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
        let mut world = World::new();
        for (request, response) in [(0, 0), (1, 0), (0, 1), (71, 1_447), (65_537, 1_000_003)] {
            for ((name, ending), (more_up, more_down)) in ENDINGS.into_iter().zip(MORE) {
                let listener = world.listen(dial);
                let port = listener.local_addr().unwrap().port();
                let (mut client, mut server) = world.pair(&listener, dial);
                send(&mut client, &mut server, request as usize);
                send(&mut server, &mut client, response as usize);
                ending((client, server));
                world.until(name, |w| {
                    w.client_half(dial, port).closed == 1 && w.server_half(client_address, port).closed == 1
                });
                let case = format!("{dial}: {request} up, {response} down, {name}");
                let up = request + more_up;
                let down = response + more_down;
                let HalfEdge {
                    bytes_sent,
                    bytes_received,
                    ..
                } = world.client_half(dial, port);
                assert_eq!((bytes_sent, bytes_received), (up, down), "client, {case}");
                let HalfEdge {
                    bytes_sent,
                    bytes_received,
                    ..
                } = world.server_half(client_address, port);
                assert_eq!((bytes_sent, bytes_received), (down, up), "server, {case}");
            }
        }
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_sweep_folds_what_living_connections_carried_and_the_close_only_the_rest() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let (mut client, mut server) = world.pair(&listener, SERVER);
    let (mut up, mut down) = (0, 0);
    for round in 1..=3 {
        send(&mut client, &mut server, 1_000 * round);
        send(&mut server, &mut client, 77 * round);
        (up, down) = (up + 1_000 * round as u64, down + 77 * round as u64);
        assert_totals(&mut world, port, (up, down));
    }
    // Half-closed: the FINs are not payload, before and after they are acknowledged.
    client.shutdown(Shutdown::Write).unwrap();
    expect_end(&mut server);
    assert_totals(&mut world, port, (up, down));
    send(&mut server, &mut client, 5);
    assert_totals(&mut world, port, (up, down + 5));
    drop((client, server));
    world.until("closed", |w| {
        w.client_half(SERVER, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
    });
    assert_totals(&mut world, port, (up, down + 5));
    let half = world.client_half(SERVER, port);
    assert!(
        half.rtt_samples >= 3 && (1..1_000_000).contains(&(half.rtt_us / half.rtt_samples)),
        "{half:?}"
    );
}

/// Two sweeps: the first may hold the last byte back.
fn assert_totals(world: &mut World, port: u16, (up, down): (u64, u64)) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        world.kernel.sweep().unwrap();
        let client = world.client_half(SERVER, port);
        let server = world.server_half(CLIENT, port);
        let totals = [
            client.bytes_sent,
            client.bytes_received,
            server.bytes_sent,
            server.bytes_received,
        ];
        for (found, most) in totals.into_iter().zip([up, down, down, up]) {
            assert!(
                found <= most,
                "counted too much: {totals:?} for {up} up, {down} down"
            );
        }
        if totals == [up, down, down, up] {
            return;
        }
        assert!(Instant::now() < deadline, "{totals:?} for {up} up, {down} down");
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn retransmitted_segments_are_counted_and_their_bytes_once() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let (mut client, mut server) = world.pair(&listener, SERVER);
    // The first data segment is lost, its repetition arrives.
    world.server.0.input_rule(&format!(
        "tcp dport {port} ip length > 500 limit rate 1/hour burst 1 packets drop"
    ));
    client.write_all(&[1; 1_000]).unwrap();
    server.read_exact(&mut [0; 1_000]).unwrap();
    drop((client, server));
    world.until("closed", |w| {
        w.client_half(SERVER, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
    });
    let half = world.client_half(SERVER, port);
    assert!(half.retransmits >= 1, "{half:?}");
    assert_eq!(
        (half.bytes_sent, world.server_half(CLIENT, port).bytes_received),
        (1_000, 1_000)
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn data_that_travels_with_the_syn_is_counted() {
    let mut world = World::new();
    // Both sides allow fast open without a cookie, listeners without asking for it.
    world.client.0.command("sysctl -qw net.ipv4.tcp_fastopen=1543");
    world.server.0.command("sysctl -qw net.ipv4.tcp_fastopen=1543");
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    world.client.1.enter();
    let mut client = world.client.0.run(|| connect_with_data(port, &[9; 321]));
    let mut server = listener.accept().unwrap().0;
    server.read_exact(&mut [0; 321]).unwrap();
    assert!(
        syn_carried_data(&client),
        "fast open did not happen: this tests nothing"
    );
    send(&mut server, &mut client, 5);
    drop((client, server));
    world.until("closed", |w| {
        w.client_half(SERVER, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
    });
    let half = world.client_half(SERVER, port);
    assert_eq!((half.opened, half.bytes_sent, half.bytes_received), (1, 321, 5));
    let half = world.server_half(CLIENT, port);
    assert_eq!((half.opened, half.bytes_sent, half.bytes_received), (1, 5, 321));
}

fn connect_with_data(port: u16, data: &[u8]) -> TcpStream {
    // SAFETY: plain system calls; address and data outlive them, and the descriptor becomes the stream's own.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let mut to: libc::sockaddr_in = std::mem::zeroed();
        to.sin_family = libc::AF_INET as u16;
        to.sin_port = port.to_be();
        to.sin_addr.s_addr = u32::from_ne_bytes([10, 77, 0, 2]);
        let sent = libc::sendto(
            fd,
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_FASTOPEN,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        );
        assert_eq!(sent, data.len() as isize, "{}", std::io::Error::last_os_error());
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

fn syn_carried_data(stream: &TcpStream) -> bool {
    const TCPI_OPT_SYN_DATA: u8 = 32;
    let mut info = [0u8; 64];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(stream),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    // struct tcp_info: state, ca_state, retransmits, probes, backoff, options.
    info[5] & TCPI_OPT_SYN_DATA != 0
}

/// Clients that all connect, send, receive and close, with sweeps going on: no connection and no byte is lost or
/// counted twice, on whichever CPU it was folded.
#[test]
#[ignore = "needs root and a kernel with BTF"]
fn twenty_thousand_connections_are_exact_with_records_while_sweeps_run() {
    const CLIENTS: usize = 4;
    const EACH: usize = 5_000;
    const REQUEST: usize = 101;
    const RESPONSE: usize = 203;
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let to = (SERVER, port);
    world.client.1.enter();
    std::thread::scope(|scope| {
        let serve = scope.spawn(|| {
            for _ in 0..CLIENTS * EACH {
                let mut stream = listener.accept().unwrap().0;
                stream.read_exact(&mut [0; REQUEST]).unwrap();
                stream.write_all(&[1; RESPONSE]).unwrap();
            }
        });
        let client_host = &world.client.0;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(move || {
                    client_host.run(|| {
                        for _ in 0..EACH {
                            let mut stream = TcpStream::connect(to).unwrap();
                            stream.write_all(&[1; REQUEST]).unwrap();
                            let mut response = Vec::new();
                            // The server closes first, so that no client port is held for a minute.
                            assert_eq!(stream.read_to_end(&mut response).unwrap(), RESPONSE);
                        }
                    });
                })
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            world.kernel.sweep().unwrap();
            world
                .kernel
                .drain_connections(usize::MAX, |record| world.records.push(*record));
        }
        serve.join().unwrap();
    });
    let all = (CLIENTS * EACH) as u64;
    world.until("all closed", |w| {
        w.client_half(SERVER, port).closed == all && w.server_half(CLIENT, port).closed == all
    });
    check(
        &world,
        SERVER,
        port,
        all,
        (REQUEST as u64 * all, RESPONSE as u64 * all),
    );
    world.drain();
    crate::records::check_complete(&world, port, all, (REQUEST as u64, RESPONSE as u64));
}

fn check(world: &World, server: IpAddr, port: u16, all: u64, (up, down): (u64, u64)) {
    let client = world.client_half(server, port);
    assert_eq!(
        (
            client.opened,
            client.closed,
            client.bytes_sent,
            client.bytes_received
        ),
        (all, all, up, down)
    );
    let server = world.server_half(CLIENT, port);
    assert_eq!(
        (
            server.opened,
            server.closed,
            server.bytes_sent,
            server.bytes_received
        ),
        (all, all, down, up)
    );
    assert_eq!(world.kernel.loss().unwrap().iter().sum::<u64>(), 0);
}
