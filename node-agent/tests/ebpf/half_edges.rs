//! What a half-edge is: roles, addresses, cgroups, counts.

use std::net::{IpAddr, SocketAddr};

use leyline_abi::{role, transport};

use crate::net::mapped;
use crate::world::{CLIENT, CLIENT6, SERVER, SERVER6, World, send};

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn both_ends_of_a_connection_are_half_edges_with_role_cgroup_and_server_port() {
    let mapped_server: IpAddr = "::ffff:10.77.0.2".parse().unwrap();
    let any6: IpAddr = "::".parse().unwrap();
    for (listen_on, dial, client_address) in [
        (SERVER, SERVER, CLIENT),
        (SERVER6, SERVER6, CLIENT6),
        // Dual-stack server, plain IPv4 client; and both ends with IPv6 sockets carrying IPv4.
        (any6, SERVER, CLIENT),
        (any6, mapped_server, CLIENT),
    ] {
        let mut world = World::new();
        let listener = world.listen(listen_on);
        let port = listener.local_addr().unwrap().port();
        let (client, server) = world.pair(&listener, dial);
        let case = format!("{listen_on} {dial}");
        let entries = world.entries();
        assert_eq!(entries.len(), 2, "{case}: {entries:#?}");
        for (cgroup, netns, role, remote) in [
            (world.client.1.id, world.client.0.inode, role::CLIENT, dial),
            // In softirq, while the client was running: still the server's cgroup.
            (
                world.server.1.id,
                world.server.0.inode,
                role::SERVER,
                client_address,
            ),
        ] {
            let (key, value) = entries.iter().find(|(key, _)| key.role == role).expect(&case);
            assert_eq!(
                (key.cgroup, key.netns, key.remote, key.port),
                (cgroup, netns, mapped(remote), port),
                "{case}"
            );
            assert_eq!(
                (key.owner, key.transport, key.padding),
                (std::process::id(), transport::TCP, 0),
                "{case}"
            );
            assert_eq!((value.opened, value.adopted, value.closed), (1, 0, 0), "{case}");
            assert_ne!((value.serial, value.changed_ns), (0, 0), "{case}");
        }
        let client_half = world.client_half(dial, port);
        assert!(
            (1..10_000_000_000).contains(&client_half.connect_ns),
            "{case}: {client_half:?}"
        );
        assert_eq!(world.server_half(client_address, port).connect_ns, 0, "{case}");
        drop((client, server));
        world.until("closed", |w| {
            w.client_half(dial, port).closed == 1 && w.server_half(client_address, port).closed == 1
        });
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn open_connections_are_the_difference_of_opened_and_closed() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let mut pairs: Vec<_> = (0..10).map(|_| world.pair(&listener, SERVER)).collect();
    pairs.truncate(7);
    world.until("three closed", |w| w.client_half(SERVER, port).closed == 3);
    world.until("three closed", |w| w.server_half(CLIENT, port).closed == 3);
    assert_eq!(world.client_half(SERVER, port).opened, 10);
    assert_eq!(world.server_half(CLIENT, port).opened, 10);
    drop(pairs);
    world.until("all closed", |w| w.client_half(SERVER, port).closed == 10);
    assert_eq!(world.entries().len(), 2);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn loopback_is_no_edge() {
    let mut world = World::new();
    for address in ["127.0.0.1", "127.8.9.10", "::1"] {
        let address: IpAddr = address.parse().unwrap();
        let listener = world.listen(address);
        let to = SocketAddr::new(address, listener.local_addr().unwrap().port());
        world.client.1.enter();
        let mut client = world.server.0.run(|| std::net::TcpStream::connect(to).unwrap());
        let mut server = listener.accept().unwrap().0;
        send(&mut client, &mut server, 10);
    }
    // A connection that counts comes later: whatever the earlier ones did is done.
    let listener = world.listen(SERVER);
    drop(world.pair(&listener, SERVER));
    let port = listener.local_addr().unwrap().port();
    world.until("closed", |w| {
        w.client_half(SERVER, port).closed == 1 && w.server_half(CLIENT, port).closed == 1
    });
    assert_eq!(world.entries().len(), 2, "{:#?}", world.entries());
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn sockets_of_a_marked_cgroup_need_no_owner_even_if_the_listener_is_older_than_the_mark() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    world.kernel.mark_pod(world.client.1.id).unwrap();
    world.kernel.mark_pod(world.server.1.id).unwrap();
    let open = world.pair(&listener, SERVER);
    let owners: Vec<u32> = world.entries().iter().map(|(key, _)| key.owner).collect();
    assert_eq!(owners, [0, 0]);
    world.kernel.unmark_pod(world.client.1.id).unwrap();
    world.kernel.unmark_pod(world.client.1.id).unwrap();
    let again = world.pair(&listener, SERVER);
    assert_eq!(world.entries().len(), 3);
    drop((open, again));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_removed_half_edge_returns_its_totals_and_starts_anew() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    drop(world.pair(&listener, SERVER));
    world.until("closed", |w| w.client_half(SERVER, port).closed == 1);
    let (key, before) = world
        .entries()
        .into_iter()
        .find(|(key, _)| key.role == role::CLIENT)
        .unwrap();
    let last = world.kernel.remove(&key).unwrap().expect("the entry was there");
    assert_eq!(last, before);
    assert_eq!(world.kernel.remove(&key).unwrap(), None);
    assert_eq!(world.client_half(SERVER, port).opened, 0);
    drop(world.pair(&listener, SERVER));
    world.until("closed", |w| w.client_half(SERVER, port).closed == 1);
    let (_, after) = world
        .entries()
        .into_iter()
        .find(|(found, _)| *found == key)
        .unwrap();
    assert!(
        after.serial > before.serial && after.opened == 1,
        "{before:?} {after:?}"
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_multipath_connection_is_seen_through_its_first_subflow() {
    let mut world = World::new();
    world.server.1.enter();
    let listener: std::net::TcpListener = world
        .server
        .0
        .run(|| unsafe { std::os::fd::FromRawFd::from_raw_fd(multipath(true)) });
    world.client.1.enter();
    let mut client: std::net::TcpStream = world
        .client
        .0
        .run(|| unsafe { std::os::fd::FromRawFd::from_raw_fd(multipath(false)) });
    let mut server = listener.accept().unwrap().0;
    send(&mut client, &mut server, 100);
    drop((client, server));
    world.until("closed", |w| {
        w.client_half(SERVER, 7_262).closed == 1 && w.server_half(CLIENT, 7_262).closed == 1
    });
    assert_eq!(world.client_half(SERVER, 7_262).opened, 1);
    assert_eq!(world.server_half(CLIENT, 7_262).opened, 1);
}

/// A multipath TCP socket that listens on, or is connected to, the server's port 7262.
pub(crate) fn multipath(listener: bool) -> i32 {
    // SAFETY: plain system calls on a descriptor of our own.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 262);
        assert!(fd >= 0, "no MPTCP: {}", std::io::Error::last_os_error());
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as u16;
        address.sin_port = 7_262u16.to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes([10, 77, 0, 2]);
        let length = size_of_val(&address) as u32;
        let done = if listener {
            libc::bind(fd, (&raw const address).cast(), length) | libc::listen(fd, 8)
        } else {
            libc::connect(fd, (&raw const address).cast(), length)
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        fd
    }
}
