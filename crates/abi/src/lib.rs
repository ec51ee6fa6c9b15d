//! What the eBPF programs and the node agent exchange through maps, ring buffers and read-only globals.
//!
//! Integers only, explicit padding, fixed sizes: both sides check [`ABI_VERSION`] at load, and every struct is
//! decoded by a checked copy. No logic lives here beyond naming the values. Addresses are 16 bytes, IPv4 in its
//! IPv4-mapped IPv6 form, so that one key serves both families. Ports are in host byte order.
#![no_std]

/// Raised with every change of a layout below; the loader refuses programs built for another one.
pub const ABI_VERSION: u32 = 3;

/// The global that holds the [`Layout`], named for the version: programs of another version have no such symbol.
pub const LAYOUT_SYMBOL: &str = "LAYOUT_ABI_3";

/// `role`: who this socket is in the connection.
pub mod role {
    /// The votes disagree: no backlog was inherited, yet somebody listens on the local port. Port and witness are
    /// filled in as for a server; the half-edge waits for its other half.
    pub const UNKNOWN: u8 = 0;
    /// The socket called `connect()`.
    pub const CLIENT: u8 = 1;
    /// The socket was born from a listener.
    pub const SERVER: u8 = 2;
}

/// `transport`: IP protocol numbers.
pub mod transport {
    /// IPPROTO_TCP.
    pub const TCP: u8 = 6;
    /// IPPROTO_UDP.
    pub const UDP: u8 = 17;
}

/// `kind` of a [`Connection`].
pub mod kind {
    /// The connection was established, or was found already established.
    pub const OPEN: u8 = 1;
    /// The connection lives; its totals moved.
    pub const PROGRESS: u8 = 2;
    /// The connection ended; the totals are final. A PROGRESS that was read on another CPU in the same moment may
    /// follow it and means nothing.
    pub const CLOSE: u8 = 3;
}

/// Bits of [`Connection::flags`].
pub mod flags {
    /// The socket is older than the agent: it counts as active, not as opened.
    pub const ADOPTED: u8 = 1;
}

/// Key of the half-edge map: what one node sees at its own sockets, without any ephemeral port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfEdgeKey {
    /// Id of the cgroup that the *socket* belongs to.
    pub cgroup: u64,
    /// The other end's address.
    pub remote: [u8; 16],
    /// 0 when the cgroup is known to be a pod's, else the thread group that called `connect()` or `listen()`.
    pub owner: u32,
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The port the server process listens on (a client's remote port, a server's local port).
    pub port: u16,
    /// See [`role`].
    pub role: u8,
    /// See [`transport`].
    pub transport: u8,
    /// Always 0.
    pub padding: u32,
}

/// Totals of one half-edge since the programs were loaded. They only grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfEdge {
    /// Names this entry in [`Connection::half_edge`]; unique while the programs are loaded.
    pub serial: u64,
    /// Transitions to ESTABLISHED that were seen.
    pub opened: u64,
    /// Sockets that were already established when the agent found them.
    pub adopted: u64,
    /// Sockets counted in `opened` or `adopted` that have closed.
    pub closed: u64,
    /// Connection attempts that were refused (ECONNREFUSED).
    pub refused: u64,
    /// Connection attempts without an answer (ETIMEDOUT).
    pub timed_out: u64,
    /// Connection attempts that met an unreachable host or network.
    pub unreachable: u64,
    /// Connection attempts that ended with any other error, a reset among them.
    pub reset: u64,
    /// Connection attempts the application gave up itself.
    pub aborted: u64,
    /// Payload bytes that left this socket and were acknowledged.
    pub bytes_sent: u64,
    /// Payload bytes that reached this socket in order.
    pub bytes_received: u64,
    /// Sum over `opened` of the time from SYN to ESTABLISHED, in nanoseconds; clients only.
    pub connect_ns: u64,
    /// Sum of smoothed round-trip times in microseconds, one sample per sweep or close.
    pub rtt_us: u64,
    /// How many samples `rtt_us` holds.
    pub rtt_samples: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// UDP: datagrams that were sent.
    pub datagrams_sent: u64,
    /// UDP: datagrams that the application received.
    pub datagrams_received: u64,
    /// Sum over all sweeps of the sockets that the sweep found open: what one sweep adds is how many it saw.
    pub swept: u64,
    /// `CLOCK_MONOTONIC` of the last change, in nanoseconds.
    pub changed_ns: u64,
}

/// One connection of a split half-edge: enough to find its other half, and what it carried.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// [`HalfEdge::serial`].
    pub half_edge: u64,
    /// This socket's own address.
    pub local: [u8; 16],
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// The server's initial sequence number.
    pub server_isn: u32,
    /// This socket's own port.
    pub local_port: u16,
    /// The other end's port as this socket sees it.
    pub remote_port: u16,
    /// See [`kind`].
    pub kind: u8,
    /// See [`role`].
    pub role: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Connections per record: 1, or more while the node samples.
    pub weight_log2: u8,
    /// `CLOCK_MONOTONIC` of this record, in nanoseconds.
    pub at_ns: u64,
    /// Payload bytes sent, since the connection was opened or adopted.
    pub bytes_sent: u64,
    /// Payload bytes received, likewise.
    pub bytes_received: u64,
}

/// Longest cgroup path a [`CgroupEvent`] carries; longer ones keep their *end*, where the pod uid is.
pub const CGROUP_PATH_LEN: usize = 240;

/// `kind` of a [`CgroupEvent`].
pub mod cgroup_event {
    /// `cgroup_mkdir`.
    pub const CREATED: u32 = 1;
    /// `cgroup_rmdir`.
    pub const REMOVED: u32 = 2;
}

/// A cgroup of the unified hierarchy appeared or went away.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupEvent {
    /// The id that [`HalfEdgeKey::cgroup`] carries.
    pub id: u64,
    /// See [`cgroup_event`].
    pub kind: u32,
    /// Bytes used of `path`.
    pub path_len: u32,
    /// Path from the hierarchy's root.
    pub path: [u8; CGROUP_PATH_LEN],
}

/// Value of the owners map: what a thread group was called when it made its socket, for processes that are gone
/// before user space can ask `/proc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The kernel's `comm`, NUL-padded.
    pub comm: [u8; 16],
}

/// Which of the two copies of the state program ran, one value per CPU. The first copy pushes the socket it runs for, the
/// second takes it off. Finds the second another one on top, then the first was busy, and the second alone sees this change.
/// Two places are enough: what interrupts the gap between the copies is not interrupted by a third.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// The socket that the first copy ran for last, 0 when the second has come to it.
    pub top: u64,
    /// The one before, if the second copy has still to come to it.
    pub below: u64,
    /// Changes that the second copy alone saw.
    pub caught: u64,
}

/// Key of the flows map: one UDP conversation of a port in one network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// This end's port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// The other end's address.
    pub remote: [u8; 16],
}

/// Value of the flows map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where its datagrams are counted.
    pub half_edge: HalfEdgeKey,
    /// [`HalfEdge::serial`] of that entry; 0 when it found no place.
    pub serial: u64,
    /// `CLOCK_MONOTONIC` of the last datagram, in nanoseconds.
    pub last_ns: u64,
}

/// Indexes of the loss map, one per cause; each cell counts what was not recorded.
pub mod loss {
    /// Connections whose half-edge found no place in the map.
    pub const HALF_EDGES_FULL: u32 = 0;
    /// Payload bytes of sockets whose half-edge found no place.
    pub const HALF_EDGE_BYTES: u32 = 1;
    /// Connections for which socket storage could not be made.
    pub const SOCKET_STORAGE: u32 = 2;
    /// Connection records that found no place in the ring buffer.
    pub const CONNECTION_RING: u32 = 3;
    /// Cgroup events that found no place in the ring buffer.
    pub const CGROUP_RING: u32 = 4;
    /// Connections of split half-edges that sampling left without records (their totals are counted all the same).
    pub const SAMPLED: u32 = 5;
    /// TCP state changes that no copy of the program saw, at least. The programs count the connections they start late;
    /// user space adds what only it can know.
    pub const STATE_CHANGES: u32 = 6;
    /// Datagrams of sockets that are not connected, whose other end the kernel did not tell.
    pub const UDP_UNADDRESSED: u32 = 7;
    /// UDP flows that were forgotten for want of room; such a flow counts again when it goes on. User space works it out.
    pub const UDP_FLOWS: u32 = 8;
    /// Number of causes.
    pub const COUNT: u32 = 9;
}

/// Where the running kernel keeps what the programs read, in bytes from the start of the named struct. Resolved from the
/// kernel's BTF and handed to the programs as a read-only global.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is named after the kernel's own")]
pub struct Layout {
    /// [`ABI_VERSION`] of the loader.
    pub abi_version: u32,
    pub sock_family: u32,
    pub sock_state: u32,
    /// Local port, host byte order.
    pub sock_num: u32,
    /// Remote port, network byte order.
    pub sock_dport: u32,
    pub sock_daddr: u32,
    pub sock_rcv_saddr: u32,
    pub sock_v6_daddr: u32,
    pub sock_v6_rcv_saddr: u32,
    pub sock_net: u32,
    pub sock_flags: u32,
    pub sock_protocol: u32,
    pub sock_err: u32,
    pub sock_err_soft: u32,
    /// `sk_error_queue.next`; 0 when one of these four was not found, and then the queue is not looked at.
    pub sock_error_queue: u32,
    /// `sk_error_queue.qlen`.
    pub sock_error_queue_len: u32,
    pub skb_cb: u32,
    /// `ee.ee_errno` of `struct sock_exterr_skb`, which is in `skb_cb`.
    pub exterr_errno: u32,
    pub sock_max_ack_backlog: u32,
    /// Bit number of `sk_userlocks`, from the start of the struct.
    pub sock_userlocks_bit: u32,
    pub sock_cgroup: u32,
    /// 1 when `sock_cgroup` holds a pointer to a cgroup; 0 before Linux 5.15, where it is a tagged integer.
    pub sock_cgroup_is_pointer: u32,
    /// Bit number of SOCK_DONE in `sock_flags`: the peer's FIN arrived.
    pub sock_done_bit: u32,
    pub net_inum: u32,
    pub cgroup_kn: u32,
    pub cgroup_root: u32,
    pub cgroup_root_hierarchy_id: u32,
    pub kernfs_node_id: u32,
    /// Local port, network byte order; unlike `sock_num` still there when the socket closes.
    pub inet_sport: u32,
    pub tcp_snd_una: u32,
    pub tcp_write_seq: u32,
    pub tcp_rcv_nxt: u32,
    pub tcp_bytes_acked: u32,
    pub tcp_bytes_received: u32,
    pub tcp_srtt_us: u32,
    pub tcp_total_retrans: u32,
    pub task_tgid: u32,
    pub task_comm: u32,
    pub socket_sk: u32,
}

/// Indexes of the settings map, whose cells user space writes.
pub mod setting {
    /// Record only connections whose [`witness_hash`](super::witness_hash) has this many low zero bits.
    pub const SAMPLE_LOG2: u32 = 0;
    /// What the `sockets` iterator does: see [`sockets_mode`](super::sockets_mode).
    pub const SOCKETS_MODE: u32 = 1;
    /// Not 0: a UDP flow may be older than the programs, so that who spoke first is not known.
    pub const FLOWS_MAY_BE_OLDER: u32 = 2;
    /// Number of settings.
    pub const COUNT: u32 = 3;
}

/// Values of [`setting::SOCKETS_MODE`].
pub mod sockets_mode {
    /// Prepare listeners, so that their children inherit an owner, and note their ports.
    pub const LISTENERS: u32 = 0;
    /// Adopt connections that are older than the agent.
    pub const ADOPT: u32 = 1;
}

/// Spreads a witness over 32 bits, the same on every node: sampling keeps the same connections at both ends.
#[inline(always)]
#[must_use]
pub const fn witness_hash(client_isn: u32, server_isn: u32) -> u32 {
    let both = (client_isn as u64) << 32 | server_isn as u64;
    (both ^ (both >> 29))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_shr(32) as u32
}

/// A struct of this crate: integers only and no implicit padding, so that every bit pattern is a value.
///
/// # Safety
///
/// The type must be `repr(C)`, hold integers and arrays of integers only, and have no implicit padding.
pub unsafe trait Plain: Copy {
    /// Copies a value out of bytes as the kernel wrote them; `None` when the length differs.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // SAFETY: the length is checked, any bit pattern is valid (the trait's contract), and the read needs no alignment.
        (bytes.len() == size_of::<Self>()).then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }

    /// The bytes the kernel sees.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: without padding (the trait's contract) every byte of the value is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), size_of::<Self>()) }
    }
}

// SAFETY: integers and byte arrays, explicit padding; the sizes are asserted below.
unsafe impl Plain for HalfEdgeKey {}
// SAFETY: as above.
unsafe impl Plain for HalfEdge {}
// SAFETY: as above.
unsafe impl Plain for Connection {}
// SAFETY: as above.
unsafe impl Plain for CgroupEvent {}
// SAFETY: as above.
unsafe impl Plain for Owner {}
// SAFETY: as above.
unsafe impl Plain for FlowKey {}
// SAFETY: as above.
unsafe impl Plain for Flow {}
// SAFETY: as above.
unsafe impl Plain for Copies {}
// SAFETY: as above.
unsafe impl Plain for Layout {}

const _: () = {
    assert!(size_of::<HalfEdgeKey>() == 40);
    assert!(size_of::<HalfEdge>() == 152);
    assert!(size_of::<Connection>() == 64);
    assert!(size_of::<CgroupEvent>() == 256);
    assert!(size_of::<Owner>() == 16);
    assert!(size_of::<Copies>() == 24);
    assert!(size_of::<FlowKey>() == 24);
    assert!(size_of::<Flow>() == 56);
    assert!(size_of::<Layout>() == 39 * 4);
};
