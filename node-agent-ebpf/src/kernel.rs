//! Reading the kernel's own structs: offsets come from the loader, pointers from the kernel.
//!
//! Direct loads go through pointers the verifier knows by type; a load it cannot type (unions, pointers kept as
//! integers) goes through `bpf_probe_read_kernel`. Deliberately absent: any number that depends on a kernel version.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock};
use leyline_abi::{ABI_VERSION, Layout, role};

/// `sk_state`, as `include/net/tcp_states.h` numbers it (and user space sees it in `/proc/net/tcp`).
pub(crate) mod state {
    pub(crate) const ESTABLISHED: i32 = 1;
    pub(crate) const SYN_SENT: i32 = 2;
    pub(crate) const SYN_RECV: i32 = 3;
    pub(crate) const FIN_WAIT1: i32 = 4;
    pub(crate) const FIN_WAIT2: i32 = 5;
    pub(crate) const TIME_WAIT: i32 = 6;
    pub(crate) const CLOSE: i32 = 7;
    pub(crate) const CLOSE_WAIT: i32 = 8;
    pub(crate) const LAST_ACK: i32 = 9;
    pub(crate) const LISTEN: i32 = 10;
    pub(crate) const CLOSING: i32 = 11;

    /// Established once, not closed yet.
    #[inline(always)]
    pub(crate) fn is_open(state: i32) -> bool {
        matches!(
            state,
            ESTABLISHED | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT | LAST_ACK | CLOSING
        )
    }

    /// This end has sent its FIN, or is about to: `tcp_send_fin` runs right after the change.
    #[inline(always)]
    pub(crate) fn sent_fin(state: i32) -> bool {
        matches!(state, FIN_WAIT1 | FIN_WAIT2 | CLOSING | TIME_WAIT | LAST_ACK)
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
/// Of `sk_userlocks`: the application chose the local port.
const SOCK_BINDPORT_LOCK: u8 = 8;
const IPPROTO_MPTCP: u16 = 262;

/// Set by the loader before the programs are loaded; the verifier sees constants.
#[unsafe(export_name = "LAYOUT_ABI_3")]
static LAYOUT: Global<Layout> = Global::new(EMPTY_LAYOUT);

// The symbol above (`leyline_abi::LAYOUT_SYMBOL`) carries the version; a raised version must rename it.
const _: () = assert!(ABI_VERSION == 3);

// SAFETY: a struct of u32 only; zero is a value.
const EMPTY_LAYOUT: Layout = unsafe { MaybeUninit::zeroed().assume_init() };

/// One offset out of [`LAYOUT`]. (A macro, so that each use reads one word instead of the whole struct.)
macro_rules! layout {
    ($field:ident) => {{
        let layout = (&raw const LAYOUT).cast::<Layout>();
        // SAFETY: `Global` is transparent over the struct; the volatile read keeps the compiler from folding the default.
        unsafe { (&raw const (*layout).$field).read_volatile() }
    }};
}

/// Loads a field of a kernel object directly.
///
/// # Safety
///
/// `base` must be a pointer the verifier tracks by type, or null-checked memory of the program's own.
#[inline(always)]
unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: the caller's promise, and the verifier checks it again.
    unsafe {
        base.wrapping_byte_add(offset as usize)
            .cast::<T>()
            .read_volatile()
    }
}

/// Copies a field from any kernel address; zeros if the address is bad.
#[inline(always)]
fn copy<T: Copy>(base: *const c_void, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes, and zeros on failure; T is an integer or a byte array.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.wrapping_byte_add(offset as usize),
        );
        value.assume_init()
    }
}

/// A full TCP or UDP socket.
#[derive(Clone, Copy)]
pub(crate) struct Socket(*const c_void);

impl Socket {
    /// The socket, if it is TCP over IPv4 or IPv6.
    ///
    /// # Safety
    ///
    /// `sock` must be a `struct sock *` as a tracepoint or a helper gave it.
    #[inline(always)]
    pub(crate) unsafe fn tcp(sock: *const c_void) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::of(sock, IPPROTO_TCP) }
    }

    /// The socket, if it is UDP over IPv4 or IPv6.
    ///
    /// # Safety
    ///
    /// As for [`Self::tcp`].
    #[inline(always)]
    pub(crate) unsafe fn udp(sock: *const c_void) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::of(sock, IPPROTO_UDP) }
    }

    /// # Safety
    ///
    /// As for [`Self::tcp`].
    #[inline(always)]
    unsafe fn of(sock: *const c_void, wanted: u16) -> Option<Self> {
        let (protocol_at, family_at) = (layout!(sock_protocol), layout!(sock_family));
        // SAFETY: the caller's promise.
        let (protocol, family) = unsafe { (load::<u16>(sock, protocol_at), load::<u16>(sock, family_at)) };
        (protocol == wanted && (family == AF_INET || family == AF_INET6)).then_some(Self(sock))
    }

    /// Whether this is the socket an application holds when it uses multipath TCP. What it stands for travels through
    /// TCP sockets of its own, which no file descriptor names.
    ///
    /// # Safety
    ///
    /// As for [`Self::tcp`].
    #[inline(always)]
    pub(crate) unsafe fn mptcp(sock: *const c_void) -> Option<Self> {
        let protocol_at = layout!(sock_protocol);
        // SAFETY: the caller's promise.
        let protocol = unsafe { load::<u16>(sock, protocol_at) };
        (protocol == IPPROTO_MPTCP).then_some(Self(sock))
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut c_void {
        self.0.cast_mut()
    }

    #[inline(always)]
    fn field<T: Copy>(self, offset: u32) -> T {
        // SAFETY: a typed pointer by construction.
        unsafe { load(self.0, offset) }
    }

    #[inline(always)]
    pub(crate) fn state(self) -> i32 {
        i32::from(self.field::<u8>(layout!(sock_state)))
    }

    /// 0 before a client is bound and once a socket closes; [`Tcp::local_port`] stays.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        self.field(layout!(sock_num))
    }

    #[inline(always)]
    pub(crate) fn remote_port(self) -> u16 {
        u16::from_be(self.field(layout!(sock_dport)))
    }

    #[inline(always)]
    pub(crate) fn remote(self) -> [u8; 16] {
        self.address(layout!(sock_daddr), layout!(sock_v6_daddr))
    }

    #[inline(always)]
    pub(crate) fn local(self) -> [u8; 16] {
        self.address(layout!(sock_rcv_saddr), layout!(sock_v6_rcv_saddr))
    }

    #[inline(always)]
    fn address(self, v4: u32, v6: u32) -> [u8; 16] {
        if self.field::<u16>(layout!(sock_family)) == AF_INET {
            let [a, b, c, d] = self.field::<u32>(v4).to_ne_bytes();
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
        } else {
            copy(self.0, v6)
        }
    }

    /// Inode number of the network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        let net = self.field::<*const c_void>(layout!(sock_net));
        copy(net, layout!(net_inum))
    }

    /// Id of the unified-hierarchy cgroup the socket belongs to; right in softirq, where the current task is not.
    #[inline(always)]
    pub(crate) fn cgroup(self) -> u64 {
        let cgroup = if layout!(sock_cgroup_is_pointer) == 1 {
            self.field::<*const c_void>(layout!(sock_cgroup))
        } else {
            let tagged = self.field::<u64>(layout!(sock_cgroup));
            if tagged & 1 == 1 {
                return 0;
            }
            core::ptr::with_exposed_provenance(tagged as usize)
        };
        cgroup_id(cgroup)
    }

    /// Positive errno, 0 if none. An ICMP answer that came while the application held the socket is only noted, as a
    /// "soft" error and in the error queue. An application that does not block reads the error, which clears both
    /// fields, and closes the socket while it is still connecting: then the queue alone knows.
    #[inline(always)]
    pub(crate) fn error(self) -> i32 {
        match self.field(layout!(sock_err)) {
            0 => match self.field(layout!(sock_err_soft)) {
                0 => self.queued_error(),
                error => error,
            },
            error => error,
        }
    }

    /// The errno of the first message in the error queue.
    #[inline(always)]
    fn queued_error(self) -> i32 {
        let queue = layout!(sock_error_queue);
        if queue == 0 || copy::<u32>(self.0, layout!(sock_error_queue_len)) == 0 {
            return 0;
        }
        let first: u64 = copy(self.0, queue);
        let message = core::ptr::with_exposed_provenance(first as usize);
        copy(message, layout!(skb_cb) + layout!(exterr_errno))
    }

    /// Whether the application bound the socket to a port of its choice.
    #[inline(always)]
    pub(crate) fn has_chosen_port(self) -> bool {
        let bit = layout!(sock_userlocks_bit);
        self.field::<u8>(bit / 8) >> (bit % 8) & SOCK_BINDPORT_LOCK != 0
    }

    #[inline(always)]
    pub(crate) fn max_ack_backlog(self) -> u32 {
        self.field(layout!(sock_max_ack_backlog))
    }

    #[inline(always)]
    fn received_fin(self) -> bool {
        let bit = layout!(sock_done_bit);
        self.field::<u64>(layout!(sock_flags)) >> (bit & 63) & 1 == 1
    }

    /// The TCP part, and what it says now.
    #[inline(always)]
    pub(crate) fn tcp_part(self) -> Option<Tcp> {
        // SAFETY: a typed socket pointer; the helper checks protocol and type itself.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.as_ptr()) };
        (!tcp.is_null()).then_some(Tcp {
            socket: self,
            tcp: tcp.cast_const().cast(),
        })
    }
}

/// Id of a cgroup.
#[inline(always)]
pub(crate) fn cgroup_id(cgroup: *const c_void) -> u64 {
    let node: u64 = copy(cgroup, layout!(cgroup_kn));
    copy(
        core::ptr::with_exposed_provenance(node as usize),
        layout!(kernfs_node_id),
    )
}

/// Whether a cgroup is of the unified hierarchy.
#[inline(always)]
pub(crate) fn is_unified(cgroup: *const c_void) -> bool {
    let root: u64 = copy(cgroup, layout!(cgroup_root));
    copy::<u32>(
        core::ptr::with_exposed_provenance(root as usize),
        layout!(cgroup_root_hierarchy_id),
    ) == 0
}

/// Thread group and name of a task.
#[inline(always)]
pub(crate) fn task(task: *const c_void) -> (u32, [u8; 16]) {
    (copy(task, layout!(task_tgid)), copy(task, layout!(task_comm)))
}

/// `struct socket` to `struct sock`.
///
/// # Safety
///
/// `socket` must be what `bpf_sock_from_file` returned, not null.
#[inline(always)]
pub(crate) unsafe fn sock_of(socket: *const c_void) -> *const c_void {
    let at = layout!(socket_sk);
    // SAFETY: the caller's promise.
    unsafe { load(socket, at) }
}

/// A socket's `struct tcp_sock`.
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    socket: Socket,
    tcp: *const c_void,
}

/// Payload of a connection since it began.
#[derive(Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// `received` as the kernel counts it, FIN included.
    pub(crate) raw_received: u64,
    pub(crate) peer_finished: bool,
    /// Where the sequence numbers of both directions began, as the two counters tell it.
    pub(crate) origin: Origin,
}

/// Sequence number minus byte counter, for each direction: constant from ESTABLISHED on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) sent: u32,
    pub(crate) received: u32,
}

impl Origin {
    /// The pair of initial sequence numbers, the same at both ends: (client's, server's). The client's own counter
    /// includes its SYN; the server's does not, and neither end's received counter includes the other's SYN.
    #[inline(always)]
    pub(crate) fn witness(self, role: u8) -> (u32, u32) {
        if role == role::CLIENT {
            (self.sent, self.received.wrapping_sub(1))
        } else {
            (self.received.wrapping_sub(1), self.sent.wrapping_sub(1))
        }
    }
}

impl Tcp {
    #[inline(always)]
    fn field<T: Copy>(self, offset: u32) -> T {
        // SAFETY: `bpf_skc_to_tcp_sock` returned it.
        unsafe { load(self.tcp, offset) }
    }

    /// The port of an established connection, also while it closes and has given the port back.
    #[inline(always)]
    pub(crate) fn local_port(self) -> u16 {
        u16::from_be(self.field(layout!(inet_sport)))
    }

    /// Payload totals. `state` is what the caller knows (a closing socket still says its old state); a sweep passes
    /// `None`: then the state is read after the counters, so that a FIN in a counter is never missed.
    #[inline(always)]
    pub(crate) fn totals(self, role: u8, state: Option<i32>) -> Totals {
        let acked: u64 = self.field(layout!(tcp_bytes_acked));
        let snd_una: u32 = self.field(layout!(tcp_snd_una));
        let raw_received: u64 = self.field(layout!(tcp_bytes_received));
        let rcv_nxt: u32 = self.field(layout!(tcp_rcv_nxt));
        let peer_finished = self.socket.received_fin();
        let state = state.unwrap_or_else(|| self.socket.state());
        let write_seq: u32 = self.field(layout!(tcp_write_seq));

        let syn = u64::from(role == role::CLIENT);
        let fin = u64::from(state::sent_fin(state) && snd_una == write_seq);
        Totals {
            sent: acked.saturating_sub(syn + fin),
            received: raw_received.saturating_sub(u64::from(peer_finished)),
            raw_received,
            peer_finished,
            origin: Origin {
                sent: snd_una.wrapping_sub(acked as u32),
                received: rcv_nxt.wrapping_sub(raw_received as u32),
            },
        }
    }

    /// Smoothed round-trip time in microseconds, 0 if never measured.
    #[inline(always)]
    pub(crate) fn rtt_us(self) -> u32 {
        // The kernel keeps eight times the value.
        self.field::<u32>(layout!(tcp_srtt_us)) >> 3
    }

    #[inline(always)]
    pub(crate) fn retransmits(self) -> u32 {
        self.field(layout!(tcp_total_retrans))
    }
}
