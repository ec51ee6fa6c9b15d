//! A client and a server, each with a network namespace and a cgroup of its own, and a loaded kernel side.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use leyline_abi::{Connection, HalfEdge, HalfEdgeKey, role};
use leyline_node_agent::kernel::{Kernel, KernelOptions};
use leyline_node_agent::naming::unified_root;

use crate::net::{Netns, join, mapped, unique};

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
pub(crate) const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
pub(crate) const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

const DEADLINE: Duration = Duration::from_secs(10);

/// A cgroup of the unified hierarchy.
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    pub(crate) id: u64,
}

/// Where the unified hierarchy is mounted.
pub(crate) fn cgroup_root() -> PathBuf {
    unified_root(&fs::read_to_string("/proc/self/mounts").unwrap()).expect("a cgroup2 mount")
}

impl Cgroup {
    pub(crate) fn new() -> Self {
        let path = cgroup_root().join(unique("leyline-test-"));
        fs::create_dir(&path).unwrap();
        let id = fs::metadata(&path).unwrap().ino();
        Self { path, id }
    }

    /// Moves this process in: sockets it makes from now on belong here.
    pub(crate) fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(cgroup_root().join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.path);
    }
}

/// See the module's documentation.
pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) client: (Netns, Cgroup),
    pub(crate) server: (Netns, Cgroup),
    pub(crate) records: Vec<Connection>,
}

/// Two namespaces that reach each other.
pub(crate) fn two_hosts() -> ((Netns, Cgroup), (Netns, Cgroup)) {
    let (client, server) = (Netns::new(), Netns::new());
    join(
        (&client, &["10.77.0.1/24", "fd77::1/64"]),
        (&server, &["10.77.0.2/24", "fd77::2/64"]),
    );
    ((client, Cgroup::new()), (server, Cgroup::new()))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&KernelOptions::default())
    }

    pub(crate) fn with(options: &KernelOptions) -> Self {
        let (client, server) = two_hosts();
        Self {
            kernel: Kernel::load(options).unwrap(),
            client,
            server,
            records: vec![],
        }
    }

    /// Loads the kernel side into a world that already has connections.
    pub(crate) fn around(hosts: ((Netns, Cgroup), (Netns, Cgroup))) -> Self {
        Self {
            kernel: Kernel::load(&KernelOptions::default()).unwrap(),
            client: hosts.0,
            server: hosts.1,
            records: vec![],
        }
    }

    pub(crate) fn listen(&self, address: IpAddr) -> TcpListener {
        listen(&self.server, address)
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        connect(&self.client, to)
    }

    /// A connection and its accepted end.
    pub(crate) fn pair(&self, listener: &TcpListener, address: IpAddr) -> (TcpStream, TcpStream) {
        let client = self
            .connect(SocketAddr::new(address, listener.local_addr().unwrap().port()))
            .unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Sums the half-edges of the client's cgroup towards `remote:port`, over owners.
    pub(crate) fn client_half(&self, remote: IpAddr, port: u16) -> HalfEdge {
        self.half(self.client.1.id, role::CLIENT, remote, port)
    }

    /// Sums the half-edges of the server's cgroup from `remote` to `port`.
    pub(crate) fn server_half(&self, remote: IpAddr, port: u16) -> HalfEdge {
        self.half(self.server.1.id, role::SERVER, remote, port)
    }

    pub(crate) fn half(&self, cgroup: u64, role: u8, remote: IpAddr, port: u16) -> HalfEdge {
        let mut sum = HalfEdge::default();
        for (key, value) in self.entries() {
            if (key.cgroup, key.role, key.remote, key.port) == (cgroup, role, mapped(remote), port) {
                add(&mut sum, &value);
            }
        }
        sum
    }

    /// All half-edges of the two cgroups.
    pub(crate) fn entries(&self) -> Vec<(HalfEdgeKey, HalfEdge)> {
        entries_of(&self.kernel, &[self.client.1.id, self.server.1.id])
    }

    /// Waits until `ready` holds; panics with everything known when it does not come true in time.
    pub(crate) fn until(&mut self, what: &str, mut ready: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !ready(self) {
            if Instant::now() > deadline {
                let entries: Vec<_> = self.entries();
                panic!(
                    "{what} did not come true\nhalf-edges: {entries:#?}\nrecords: {:#?}\nloss: {:?}",
                    self.records,
                    self.kernel.loss()
                );
            }
            self.drain();
            std::thread::yield_now();
        }
    }

    /// Collects connection records of the two namespaces.
    pub(crate) fn drain(&mut self) {
        let records = &mut self.records;
        self.kernel
            .drain_connections(usize::MAX, |record| records.push(*record));
    }
}

/// Adds up every counter.
pub(crate) fn add(sum: &mut HalfEdge, value: &HalfEdge) {
    let HalfEdge {
        serial: _,
        opened,
        adopted,
        closed,
        refused,
        timed_out,
        unreachable,
        reset,
        aborted,
        bytes_sent,
        bytes_received,
        connect_ns,
        rtt_us,
        rtt_samples,
        retransmits,
        datagrams_sent,
        datagrams_received,
        swept,
        changed_ns,
    } = value;
    sum.opened += opened;
    sum.adopted += adopted;
    sum.closed += closed;
    sum.refused += refused;
    sum.timed_out += timed_out;
    sum.unreachable += unreachable;
    sum.reset += reset;
    sum.aborted += aborted;
    sum.bytes_sent += bytes_sent;
    sum.bytes_received += bytes_received;
    sum.connect_ns += connect_ns;
    sum.rtt_us += rtt_us;
    sum.rtt_samples += rtt_samples;
    sum.retransmits += retransmits;
    sum.datagrams_sent += datagrams_sent;
    sum.datagrams_received += datagrams_received;
    sum.swept += swept;
    sum.changed_ns = sum.changed_ns.max(*changed_ns);
}

pub(crate) fn entries_of(kernel: &Kernel, cgroups: &[u64]) -> Vec<(HalfEdgeKey, HalfEdge)> {
    let mut entries = vec![];
    kernel
        .half_edges(|key, value| {
            if cgroups.contains(&key.cgroup) {
                entries.push((*key, *value));
            }
        })
        .unwrap();
    entries
}

/// Ports below the range that clients are given, each used once: no two tests or cases share a half-edge.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn listen(host: &(Netns, Cgroup), address: IpAddr) -> TcpListener {
    host.1.enter();
    host.0.run(|| TcpListener::bind((address, next_port())).unwrap())
}

pub(crate) fn connect(host: &(Netns, Cgroup), to: SocketAddr) -> io::Result<TcpStream> {
    host.1.enter();
    host.0.run(|| TcpStream::connect(to))
}

/// Writes `count` bytes on one end and reads them on the other.
pub(crate) fn send(from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    let mut left = count;
    // Small enough to fit into any socket buffer: one thread plays both ends.
    let chunk = [7u8; 16_384];
    while left > 0 {
        let now = left.min(chunk.len());
        from.write_all(&chunk[..now]).unwrap();
        let mut read = vec![0; now];
        to.read_exact(&mut read).unwrap();
        left -= now;
    }
}

/// Reads until the other end's FIN, which must be all there is.
pub(crate) fn expect_end(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

/// Closing sends a reset instead of a FIN.
pub(crate) fn linger_zero(stream: &impl AsFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger).unwrap();
}
