//! UDP with real sockets: who is client and server, which addresses, how many datagrams and bytes, when a flow is over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use leyline_abi::{HalfEdge, HalfEdgeKey, loss, role, transport};
use leyline_node_agent::kernel::KernelOptions;

use crate::net::Netns;
use crate::net::mapped;
use crate::world::{CLIENT, CLIENT6, Cgroup, SERVER, SERVER6, World, cgroup_root};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const PORT: u16 = 5_353;

fn options() -> KernelOptions {
    KernelOptions::default().with_udp(Some(cgroup_root()))
}

fn bind(host: &(Netns, Cgroup), address: IpAddr, port: u16) -> UdpSocket {
    host.1.enter();
    let socket = host.0.run(|| UdpSocket::bind((address, port)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// A world with a server socket on `PORT` and a client socket.
fn world() -> (World, UdpSocket, UdpSocket) {
    let world = World::with(&options());
    let server = bind(&world.server, SERVER, PORT);
    let client = bind(&world.client, ANY, 0);
    (world, server, client)
}

/// (opened, adopted, closed, datagrams and bytes sent, datagrams and bytes received)
fn figures(half: &HalfEdge) -> (u64, u64, u64, (u64, u64), (u64, u64)) {
    (
        half.opened,
        half.adopted,
        half.closed,
        (half.datagrams_sent, half.bytes_sent),
        (half.datagrams_received, half.bytes_received),
    )
}

/// The only half-edge of one host.
fn only(world: &World, host: &(Netns, Cgroup)) -> (HalfEdgeKey, HalfEdge) {
    one(world, host, None)
}

/// The only half-edge of one host, or that of a port.
fn one(world: &World, host: &(Netns, Cgroup), port: Option<u16>) -> (HalfEdgeKey, HalfEdge) {
    let mut found = world.entries();
    found.retain(|(key, _)| key.cgroup == host.1.id && port.is_none_or(|port| key.port == port));
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0]
}

/// One side of a conversation as it must look: (datagrams, bytes) each way.
struct Side<'a> {
    host: &'a (Netns, Cgroup),
    role: u8,
    remote: IpAddr,
    sent: (u64, u64),
    received: (u64, u64),
}

impl Side<'_> {
    fn check(&self, world: &World, port: u16, case: &str) {
        let (key, half) = one(world, self.host, Some(port));
        assert_eq!(
            (key.role, key.remote, key.netns, key.transport, key.owner),
            (
                self.role,
                mapped(self.remote),
                self.host.0.inode,
                transport::UDP,
                std::process::id()
            ),
            "{case}"
        );
        assert_eq!(figures(&half), (1, 0, 0, self.sent, self.received), "{case}");
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn both_ends_of_a_conversation_are_half_edges_connected_or_not() {
    let world = World::with(&options());
    let mapped_server: IpAddr = "::ffff:10.77.0.2".parse().unwrap();
    let cases = [
        (SERVER, SERVER, CLIENT),
        (ANY, SERVER, CLIENT),
        (SERVER6, SERVER6, CLIENT6),
        (ANY6, SERVER6, CLIENT6),
        (ANY6, SERVER, CLIENT),
        (ANY6, mapped_server, CLIENT),
    ];
    let cases = cases.into_iter().flat_map(|case| [(case, false), (case, true)]);
    for (port, ((listen, dial, client_address), connected)) in (PORT..).zip(cases) {
        let case = format!("{listen} {dial} connected: {connected}");
        let server = bind(&world.server, listen, port);
        let client = bind(&world.client, if dial.is_ipv4() { ANY } else { ANY6 }, 0);
        talk(&client, &server, SocketAddr::new(dial, port), connected);
        let (up, down) = ((3, 303), (3, 3_609));
        let client = Side {
            host: &world.client,
            role: role::CLIENT,
            remote: dial,
            sent: up,
            received: down,
        };
        client.check(&world, port, &case);
        let server = Side {
            host: &world.server,
            role: role::SERVER,
            remote: client_address,
            sent: down,
            received: up,
        };
        server.check(&world, port, &case);
    }
}

/// Three requests of 101 bytes and answers of 1,203; the client connected or not.
fn talk(client: &UdpSocket, server: &UdpSocket, to: SocketAddr, connected: bool) {
    let mut buffer = [0; 2_000];
    for _ in 0..3 {
        if connected {
            client.connect(to).unwrap();
            client.send(&[1; 101]).unwrap();
        } else {
            client.send_to(&[1; 101], to).unwrap();
        }
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(length, 101);
        server.send_to(&[2; 1_203], from).unwrap();
        let length = if connected {
            client.recv(&mut buffer).unwrap()
        } else {
            client.recv_from(&mut buffer).unwrap().0
        };
        assert_eq!(length, 1_203);
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_connected_socket_that_never_sends_is_no_flow() {
    let (world, _server, client) = world();
    // As resolvers do to learn which source address the kernel would choose.
    client.connect((SERVER, PORT)).unwrap();
    let probe = bind(&world.client, ANY, 0);
    probe.send_to(&[1], (SERVER, PORT + 1)).unwrap();
    let (key, _) = only(&world, &world.client);
    assert_eq!(key.port, PORT + 1);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_server_that_connects_to_its_client_stays_the_server() {
    let (world, server, client) = world();
    client.send_to(&[1; 10], (SERVER, PORT)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 100]).unwrap();
    server.connect(from).unwrap();
    server.send(&[2; 20]).unwrap();
    assert_eq!(client.recv(&mut [0; 100]).unwrap(), 20);
    // The client reads without asking from whom, on a socket without a peer: nothing says so.
    let (_, half) = only(&world, &world.client);
    assert_eq!(figures(&half), (1, 0, 0, (1, 10), (0, 0)));
    assert!(world.kernel.loss().unwrap()[loss::UDP_UNADDRESSED as usize] >= 1);
    let (key, half) = only(&world, &world.server);
    assert_eq!(key.role, role::SERVER);
    assert_eq!(figures(&half), (1, 0, 0, (1, 20), (1, 10)));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn many_messages_in_one_call_are_each_counted() {
    let (world, server, client) = world();
    send_many(&client, SocketAddr::new(SERVER, PORT), &[7, 0, 1_000, 3]);
    assert_eq!(receive_many(&server, 4), [7, 0, 1_000, 3]);
    let (_, half) = only(&world, &world.client);
    assert_eq!(figures(&half), (1, 0, 0, (4, 1_010), (0, 0)));
    let (_, half) = only(&world, &world.server);
    assert_eq!(figures(&half), (1, 0, 0, (0, 0), (4, 1_010)));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn looking_at_a_datagram_does_not_count_it_and_a_failed_send_is_none() {
    let (world, server, client) = world();
    client.send_to(&[1; 50], (SERVER, PORT)).unwrap();
    for _ in 0..3 {
        assert_eq!(server.peek_from(&mut [0; 100]).unwrap().0, 50);
    }
    assert_eq!(server.recv_from(&mut [0; 100]).unwrap().0, 50);
    assert!(client.send_to(&[1; 65_536], (SERVER, PORT + 1)).is_err());
    let (_, half) = only(&world, &world.server);
    assert_eq!(figures(&half), (1, 0, 0, (0, 0), (1, 50)));
    let (_, half) = only(&world, &world.client);
    assert_eq!(figures(&half), (1, 0, 0, (1, 50), (0, 0)));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn loopback_and_multicast_are_no_edges() {
    let (world, _server, client) = world();
    client.send_to(&[1], ("127.0.0.1", PORT)).unwrap();
    client.send_to(&[1], ("224.0.0.251", PORT)).ok();
    client.send_to(&[1], (SERVER, PORT)).unwrap();
    let (key, half) = only(&world, &world.client);
    assert_eq!((key.remote, half.datagrams_sent), (mapped(SERVER), 1));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn each_client_port_is_a_flow_and_a_quiet_flow_is_over() {
    const FLOWS: u64 = 20;
    let mut world = World::with(&KernelOptions {
        flow_idle: Duration::from_millis(300),
        ..options()
    });
    let server = bind(&world.server, SERVER, PORT);
    let clients: Vec<_> = (0..FLOWS).map(|_| bind(&world.client, ANY, 0)).collect();
    for client in clients.iter().cycle().take(3 * FLOWS as usize) {
        client.send_to(&[1; 5], (SERVER, PORT)).unwrap();
        server.recv_from(&mut [0; 10]).unwrap();
    }
    for host in [&world.client, &world.server] {
        let half = only(&world, host).1;
        assert_eq!((half.opened, half.closed), (FLOWS, 0));
        assert_eq!(half.datagrams_sent + half.datagrams_received, 3 * FLOWS);
    }
    world.kernel.sweep().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while [&world.client, &world.server]
        .iter()
        .any(|host| only(&world, host).1.closed < FLOWS)
    {
        assert!(std::time::Instant::now() < deadline, "{:#?}", world.entries());
        world.kernel.sweep().unwrap();
    }
    // It speaks again: a flow of its own.
    clients[0].send_to(&[1; 5], (SERVER, PORT)).unwrap();
    let half = only(&world, &world.client).1;
    assert_eq!((half.opened, half.closed), (FLOWS + 1, FLOWS));
    assert_eq!(world.kernel.loss().unwrap()[loss::UDP_FLOWS as usize], 0);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn flows_that_find_no_room_are_counted() {
    let mut world = World::with(&KernelOptions {
        max_flows: 64,
        ..options()
    });
    let clients: Vec<_> = (0..500).map(|_| bind(&world.client, ANY, 0)).collect();
    for client in &clients {
        client.send_to(&[1; 5], (SERVER, PORT)).unwrap();
    }
    world.kernel.sweep().unwrap();
    let half = only(&world, &world.client).1;
    assert_eq!((half.opened, half.datagrams_sent), (500, 500));
    let lost = world.kernel.loss().unwrap()[loss::UDP_FLOWS as usize];
    assert!(lost >= 500 - 64, "{lost}");
    assert!(half.opened - half.closed <= 64, "{half:?}");
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_flow_that_may_be_older_than_the_programs_is_not_given_a_wrong_role() {
    let hosts = crate::world::two_hosts();
    let server = bind(&hosts.1, SERVER, PORT);
    let client = bind(&hosts.0, ANY, 0);
    client.send_to(&[1; 5], (SERVER, PORT)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 10]).unwrap();
    let world = World {
        kernel: leyline_node_agent::kernel::Kernel::load(&options()).unwrap(),
        client: hosts.0,
        server: hosts.1,
        records: vec![],
    };
    server.send_to(&[1; 7], from).unwrap();
    client.recv_from(&mut [0; 10]).unwrap();
    // The server's first datagram that is seen is an answer, as is the client's.
    let (key, half) = only(&world, &world.server);
    assert_eq!((key.role, key.port, half.adopted), (role::UNKNOWN, PORT, 1));
    let (key, half) = only(&world, &world.client);
    assert_eq!((key.role, half.adopted), (role::UNKNOWN, 1));
}

fn send_many(socket: &UdpSocket, to: SocketAddr, lengths: &[usize]) {
    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
    let payload = vec![7_u8; 2_000];
    let slices: Vec<_> = lengths
        .iter()
        .map(|length| [std::io::IoSlice::new(&payload[..*length])])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(lengths.len(), None);
    let addresses = vec![Some(SockaddrStorage::from(to)); lengths.len()];
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        &slices,
        &addresses,
        [],
        MsgFlags::empty(),
    )
    .unwrap();
    assert_eq!(sent.count(), lengths.len());
}

fn receive_many(socket: &UdpSocket, count: usize) -> Vec<usize> {
    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
    let mut buffers = vec![[0_u8; 2_000]; count];
    let mut slices: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| [std::io::IoSliceMut::new(buffer)])
        .collect();
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(count, None);
    recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        MsgFlags::empty(),
        None,
    )
    .unwrap()
    .map(|message| message.bytes)
    .collect()
}
