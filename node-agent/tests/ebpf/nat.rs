//! The witness survives address translation.

use std::net::{IpAddr, SocketAddr, TcpStream};

use leyline_abi::{kind, role};
use leyline_node_agent::kernel::{Kernel, KernelOptions};

use crate::net::{Netns, join};
use crate::records;
use crate::world::{Cgroup, World, listen, send};

/// client 10.78.1.1 → 10.96.5.5:80, which the router turns into 10.78.2.1:<port> and masquerades at random.
#[test]
#[ignore = "needs root, nft and a kernel with BTF"]
fn both_ends_carry_one_witness_through_destination_nat_and_random_masquerade() {
    let (client, router, server) = (Netns::new(), Netns::new(), Netns::new());
    join((&client, &["10.78.1.1/24"]), (&router, &["10.78.1.254/24"]));
    join((&server, &["10.78.2.1/24"]), (&router, &["10.78.2.254/24"]));
    client.command("ip route add default via 10.78.1.254");
    server.command("ip route add default via 10.78.2.254");
    router.command("sysctl -qw net.ipv4.ip_forward=1");
    let server = (server, Cgroup::new());
    let listener = listen(&server, "10.78.2.1".parse().unwrap());
    let port = listener.local_addr().unwrap().port();
    router.nft(&format!(
        "table ip t {{
           chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.96.5.5 tcp dport 80 dnat to 10.78.2.1:{port}
           }}
           chain post {{ type nat hook postrouting priority srcnat; ip daddr 10.78.2.1 masquerade fully-random
           }}
         }}"
    ));
    let kernel = Kernel::load(&KernelOptions::default()).unwrap();
    let mut world = World {
        kernel,
        client: (client, Cgroup::new()),
        server,
        records: vec![],
    };
    let vip: IpAddr = "10.96.5.5".parse().unwrap();
    let gateway: IpAddr = "10.78.2.254".parse().unwrap();
    world.client.1.enter();
    let mut ports = 0;
    for _ in 0..50 {
        let mut ours = world
            .client
            .0
            .run(|| TcpStream::connect(SocketAddr::new(vip, 80)).unwrap());
        let (mut theirs, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), gateway);
        ports += u32::from(from.port() != ours.local_addr().unwrap().port());
        send(&mut ours, &mut theirs, 321);
    }
    assert!(ports > 25, "the router kept the ports: this tests nothing");
    // Accepted by a listener from before the load, so prepared by the first walk over all sockets.
    world.until("all closed", |w| {
        w.half(w.client.1.id, role::CLIENT, vip, 80).closed == 50
            && w.half(w.server.1.id, role::SERVER, gateway, port).closed == 50
    });
    world.drain();
    let witnesses = |role| {
        let opened = records::of(&world, role)
            .into_iter()
            .filter(|record| record.kind == kind::OPEN);
        let mut all: Vec<_> = opened
            .map(|record| (record.client_isn, record.server_isn))
            .collect();
        all.sort_unstable();
        all
    };
    assert_eq!(witnesses(role::CLIENT).len(), 50);
    assert_eq!(witnesses(role::CLIENT), witnesses(role::SERVER));
    let half = world.half(world.server.1.id, role::SERVER, gateway, port);
    assert_eq!((half.opened, half.bytes_received), (50, 50 * 321));
}
