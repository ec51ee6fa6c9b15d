//! Connections older than the agent.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use leyline_abi::{HalfEdge, flags, kind, role};

use crate::world::{CLIENT, SERVER, World, connect, listen, send, two_hosts};

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn older_connections_are_adopted_with_role_and_the_bytes_since_then() {
    let hosts = two_hosts();
    let listener = listen(&hosts.1, SERVER);
    let port = listener.local_addr().unwrap().port();
    let mut client = connect(&hosts.0, SocketAddr::new(SERVER, port)).unwrap();
    let mut server = listener.accept().unwrap().0;
    send(&mut client, &mut server, 12_345);

    let mut world = World::around(hosts);
    world.kernel.sweep().unwrap();
    for half in [world.client_half(SERVER, port), world.server_half(CLIENT, port)] {
        let HalfEdge {
            opened,
            adopted,
            closed,
            bytes_sent,
            bytes_received,
            ..
        } = half;
        assert_eq!(
            (opened, adopted, closed, bytes_sent, bytes_received),
            (0, 1, 0, 0, 0)
        );
    }
    let owners: Vec<u32> = world.entries().iter().map(|(key, _)| key.owner).collect();
    assert_eq!(owners, [std::process::id(); 2]);
    // Again, and by the other process's descriptors: still one.
    world.kernel.sweep().unwrap();
    assert_eq!(world.client_half(SERVER, port).adopted, 1);

    send(&mut client, &mut server, 100);
    send(&mut server, &mut client, 7);
    drop(client);
    crate::world::expect_end(&mut server);
    drop(server);
    world.until("closed", |w| {
        w.client_half(SERVER, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
    });
    let half = world.client_half(SERVER, port);
    assert_eq!((half.bytes_sent, half.bytes_received), (100, 7));
    let half = world.server_half(CLIENT, port);
    assert_eq!((half.bytes_sent, half.bytes_received), (7, 100));

    world.drain();
    let (ours, theirs) = (
        crate::records::of(&world, role::CLIENT),
        crate::records::of(&world, role::SERVER),
    );
    assert_eq!(
        (ours[0].client_isn, ours[0].server_isn),
        (theirs[0].client_isn, theirs[0].server_isn)
    );
    assert_eq!(
        (ours[0].kind, ours[0].flags, theirs[0].flags),
        (kind::OPEN, flags::ADOPTED, flags::ADOPTED)
    );
    let last = ours.last().unwrap();
    assert_eq!(
        (last.kind, last.bytes_sent, last.bytes_received),
        (kind::CLOSE, 100, 7)
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn children_of_an_older_listener_inherit_its_owner() {
    let hosts = two_hosts();
    let listener = listen(&hosts.1, SERVER);
    let port = listener.local_addr().unwrap().port();
    let mut world = World::around(hosts);
    drop(world.pair(&listener, SERVER));
    world.until("closed", |w| w.server_half(CLIENT, port).closed == 1);
    let (key, value) = world
        .entries()
        .into_iter()
        .find(|(key, _)| key.role == role::SERVER)
        .unwrap();
    assert_eq!(
        (key.owner, value.opened, value.adopted),
        (std::process::id(), 1, 0)
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_child_of_a_listener_without_backlog_has_no_certain_role() {
    let hosts = two_hosts();
    let listener: TcpListener = listen(&hosts.1, SERVER);
    let port = listener.local_addr().unwrap().port();
    // SAFETY: a plain system call; listening again only changes the backlog.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let client = connect(&hosts.0, SocketAddr::new(SERVER, port)).unwrap();
    let server = listener.accept().unwrap().0;
    let mut world = World::around(hosts);
    world.kernel.sweep().unwrap();
    let half = world.half(world.server.1.id, role::UNKNOWN, CLIENT, port);
    assert_eq!(half.adopted, 1, "{:#?}", world.entries());
    assert_eq!(world.client_half(SERVER, port).adopted, 1);
    world.drain();
    let (ours, theirs) = (
        crate::records::of(&world, role::CLIENT),
        crate::records::of(&world, role::UNKNOWN),
    );
    assert_eq!(
        (ours[0].client_isn, ours[0].server_isn),
        (theirs[0].client_isn, theirs[0].server_isn)
    );
    drop((client, server));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn an_attempt_under_way_becomes_opened_not_adopted() {
    let hosts = two_hosts();
    let listener = listen(&hosts.1, SERVER);
    let port = listener.local_addr().unwrap().port();
    let to = SocketAddr::new(SERVER, port);
    // No SYN arrives until the programs are loaded; it is repeated after one, three, seven seconds.
    hosts.1.0.input_rule(&format!("tcp dport {port} drop"));
    hosts.0.1.enter();
    let client = hosts.0.0.run(|| crate::failures::nonblocking_attempt(to));
    let mut world = World::around(hosts);
    world.kernel.sweep().unwrap();
    world.server.0.command("nft delete table inet t");
    let server = listener.accept().unwrap().0;
    world.until("opened", |w| w.client_half(SERVER, port).opened == 1);
    let (key, half) = world
        .entries()
        .into_iter()
        .find(|(key, _)| key.role == role::CLIENT)
        .unwrap();
    assert_eq!(
        (key.owner, half.adopted, half.connect_ns),
        (std::process::id(), 0, 0)
    );
    drop((client, server));
    world.until("closed", |w| w.client_half(SERVER, port).closed == 1);
}

/// Go programs listen like this by default; the file descriptor leads to no TCP socket.
#[test]
#[ignore = "needs root and a kernel with BTF"]
fn children_of_an_older_multipath_listener_have_its_owner() {
    let hosts = two_hosts();
    hosts.1.1.enter();
    let listener: TcpListener = hosts
        .1
        .0
        .run(|| unsafe { std::os::fd::FromRawFd::from_raw_fd(crate::half_edges::multipath(true)) });
    let mut world = World::around(hosts);
    world.client.1.enter();
    let client = connect(&world.client, SocketAddr::new(SERVER, 7_262)).unwrap();
    let server = listener.accept().unwrap().0;
    world.until("opened", |w| w.server_half(CLIENT, 7_262).opened == 1);
    let owners: Vec<u32> = world
        .entries()
        .iter()
        .filter(|(key, _)| key.role == role::SERVER)
        .map(|(key, _)| key.owner)
        .collect();
    assert_eq!(owners, [std::process::id()]);
    drop((client, server));
}
