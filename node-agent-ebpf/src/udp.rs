//! UDP: who talks to whom, and how much.
//!
//! Two tracepoints see each datagram call of a socket with its length, in the context of the caller: `sock_send_length` and
//! `sock_recv_length` (Linux 6.3). They say nothing about addresses. A connected socket knows its other end itself; for
//! others, programs on the cgroup hooks of `sendmsg` and `recvmsg` note the address a moment earlier, in the same thread.
//!
//! A flow is a local port, a remote address and a remote port in one network namespace. Who spoke first is its client.
//! Deliberately absent: anything per packet, and any guess: what has no address is counted in `LOSS`.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_NOEXIST, bpf_sock_addr};
use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::macros::{btf_tracepoint, cgroup_sock_addr};
use aya_ebpf::programs::{BtfTracePointContext, SockAddrContext};
use leyline_abi::{Flow, FlowKey, HalfEdgeKey, loss, role, setting, transport};

use crate::connection::{bpf_now, is_loopback};
use crate::half_edge::{self, Entry, count};
use crate::kernel::Socket;
use crate::maps::{FLOWS, FLOWS_MADE, NAMED, Named, lose, setting};

const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;
/// The verdict of a cgroup program: go on.
const GO_ON: i32 = 1;

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent = 1,
    Received = 2,
}

#[cgroup_sock_addr(sendmsg4)]
fn udp_sendmsg4(context: SockAddrContext) -> i32 {
    note(Way::Sent, v4(&context), port(&context))
}

#[cgroup_sock_addr(sendmsg6)]
fn udp_sendmsg6(context: SockAddrContext) -> i32 {
    note(Way::Sent, v6(&context), port(&context))
}

#[cgroup_sock_addr(recvmsg4)]
fn udp_recvmsg4(context: SockAddrContext) -> i32 {
    note(Way::Received, v4(&context), port(&context))
}

#[cgroup_sock_addr(recvmsg6)]
fn udp_recvmsg6(context: SockAddrContext) -> i32 {
    note(Way::Received, v6(&context), port(&context))
}

/// One word of the kernel's `struct bpf_sock_addr`, which the verifier translates.
macro_rules! word {
    ($context:expr, $($field:tt)+) => {{
        let sock_addr: *const bpf_sock_addr = $context.as_ptr().cast_const().cast();
        // SAFETY: the kernel passes this struct; volatile keeps each access the one word that the verifier knows.
        unsafe { (&raw const (*sock_addr).$($field)+).read_volatile() }
    }};
}

#[inline(always)]
fn port(context: &SockAddrContext) -> u16 {
    u16::from_be(word!(context, user_port) as u16)
}

#[inline(always)]
fn v4(context: &SockAddrContext) -> [u8; 16] {
    mapped(word!(context, user_ip4))
}

#[inline(always)]
fn v6(context: &SockAddrContext) -> [u8; 16] {
    let words = [
        word!(context, user_ip6[0]),
        word!(context, user_ip6[1]),
        word!(context, user_ip6[2]),
        word!(context, user_ip6[3]),
    ];
    // SAFETY: 16 bytes either way.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

#[inline(always)]
fn mapped(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// Notes the address of the datagram that this thread is about to send or has just received.
#[inline(always)]
fn note(way: Way, remote: [u8; 16], remote_port: u16) -> i32 {
    let named = Named {
        remote,
        remote_port: u32::from(remote_port),
        way: way as u32,
    };
    let task = current_task();
    match NAMED.get_ptr_mut(&task) {
        // SAFETY: a live map value that only this thread uses.
        Some(known) => unsafe { known.write(named) },
        None => {
            let _ = NAMED.insert(&task, &named, 0);
        }
    }
    GO_ON
}

/// A number that names the current thread while it lives.
#[inline(always)]
fn current_task() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task() }
}

/// What was noted for this call, once.
#[inline(always)]
fn take_noted(way: Way) -> Option<([u8; 16], u16)> {
    let named = NAMED.get_ptr_mut(&current_task())?;
    // SAFETY: a live map value that only this thread uses.
    unsafe {
        if (*named).way != way as u32 {
            return None;
        }
        (*named).way = 0;
        Some(((*named).remote, (*named).remote_port as u16))
    }
}

#[btf_tracepoint(function = "sock_send_length")]
fn udp_sent(context: BtfTracePointContext) -> i32 {
    passed(&context, Way::Sent)
}

#[btf_tracepoint(function = "sock_recv_length")]
fn udp_received(context: BtfTracePointContext) -> i32 {
    passed(&context, Way::Received)
}

/// Arguments: (socket, length or negative errno, flags of a receive).
#[inline(always)]
fn passed(context: &BtfTracePointContext, way: Way) -> i32 {
    // SAFETY: the tracepoint's first argument is a `struct sock *`.
    let Some(socket) = (unsafe { Socket::udp(context.arg::<*const c_void>(0)) }) else {
        return 0;
    };
    let length: i32 = context.arg(1);
    let flags: i32 = context.arg(2);
    let noted = take_noted(way);
    if length < 0 || (way == Way::Received && flags & (MSG_PEEK | MSG_ERRQUEUE) != 0) {
        return 0;
    }
    let (remote, remote_port) = match noted {
        Some(noted) => noted,
        None => (socket.remote(), socket.remote_port()),
    };
    if remote_port == 0 {
        // Nothing to read on a socket that was shut down, or a call without an address on a socket without one.
        if length > 0 {
            lose(loss::UDP_UNADDRESSED, 1);
        }
        return 0;
    }
    if is_loopback(&remote) || is_group(&remote) {
        return 0;
    }
    let key = FlowKey {
        netns: socket.netns(),
        local_port: socket.local_port(),
        remote_port,
        remote,
    };
    let length = length as u64;
    if let Some(flow) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        go_on(unsafe { &mut *flow }, way, length);
    } else if length > 0 || noted.is_some() {
        begin(socket, &key, way, length);
    }
    0
}

/// A datagram of a known flow.
#[inline(always)]
fn go_on(flow: &mut Flow, way: Way, length: u64) {
    let now = bpf_now();
    flow.last_ns = now;
    if flow.serial == 0 {
        lose(loss::HALF_EDGE_BYTES, length);
    } else if let Some(entry) = half_edge::entry(&flow.half_edge) {
        add(entry, way, length, now);
    } else {
        lose(loss::HALF_EDGE_BYTES, length);
    }
}

#[inline(always)]
fn add(entry: Entry, way: Way, length: u64, now: u64) {
    if way == Way::Sent {
        count!(entry, datagrams_sent, 1);
        count!(entry, bytes_sent, length);
    } else {
        count!(entry, datagrams_received, 1);
        count!(entry, bytes_received, length);
    }
    entry.touch(now);
}

/// The first datagram of a flow.
#[inline(always)]
fn begin(socket: Socket, key: &FlowKey, way: Way, length: u64) {
    let now = bpf_now();
    let role = role_of(socket, way);
    let cgroup = socket.cgroup();
    let half_edge = HalfEdgeKey {
        cgroup,
        remote: key.remote,
        owner: half_edge::current_owner(cgroup),
        netns: key.netns,
        port: if role == role::CLIENT {
            key.remote_port
        } else {
            key.local_port
        },
        role,
        transport: transport::UDP,
        padding: 0,
    };
    let entry = half_edge::entry(&half_edge);
    let flow = Flow {
        half_edge,
        serial: entry.map_or(0, Entry::serial),
        last_ns: now,
    };
    let is_new = FLOWS.insert(key, &flow, u64::from(BPF_NOEXIST)).is_ok();
    if is_new && let Some(made) = FLOWS_MADE.get_ptr_mut(0) {
        // SAFETY: a map value.
        unsafe { crate::atomic::add(made, 1) };
    }
    let Some(entry) = entry else {
        if is_new {
            lose(loss::HALF_EDGES_FULL, 1);
        }
        lose(loss::HALF_EDGE_BYTES, length);
        return;
    };
    if is_new {
        if role == role::UNKNOWN {
            count!(entry, adopted, 1);
        } else {
            count!(entry, opened, 1);
        }
    }
    add(entry, way, length, now);
}

/// Who speaks first is the client. While a flow may be older than the programs, the first datagram they see may be an
/// answer: from a port that the application chose, or to one that it did not choose, or from the only peer a socket has. Such
/// a flow has no role.
#[inline(always)]
fn role_of(socket: Socket, way: Way) -> u8 {
    if setting(setting::FLOWS_MAY_BE_OLDER) != 0 {
        let may_be_answer = match way {
            Way::Sent => socket.has_chosen_port(),
            Way::Received => !socket.has_chosen_port() || socket.remote_port() != 0,
        };
        if may_be_answer {
            return role::UNKNOWN;
        }
    }
    match way {
        Way::Sent => role::CLIENT,
        Way::Received => role::SERVER,
    }
}

/// Multicast and broadcast to all: no one end.
#[inline(always)]
fn is_group(address: &[u8; 16]) -> bool {
    match address {
        [0xff, ..] => true,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, ..] => *first >= 224,
        _ => false,
    }
}
