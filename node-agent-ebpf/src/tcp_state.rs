//! Tracepoint `inet_sock_set_state`: every TCP state change. Four of them matter.
//!
//! The kernel does not nest a program in itself: a packet that is processed while the program runs for a system call on
//! the same CPU would find it busy, and its change would be missed (a few connections in 100,000). So the same code is
//! attached twice. Whichever comes first handles the change; a socket's slot shows the other that it is done. What neither
//! sees is counted (see [`leyline_abi::Copies`]), and made good when the socket closes or a sweep finds it.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use leyline_abi::{loss, role};

use crate::connection::{self, Start};
use crate::half_edge;
use crate::kernel::{Socket, state};
use crate::maps::{COPIES, LISTENERS, Listener, lose, phase};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn tcp_state(context: BtfTracePointContext) -> i32 {
    if let Some(copies) = COPIES.get_ptr_mut(0) {
        // SAFETY: this CPU's own map value.
        let copies = unsafe { &mut *copies };
        copies.below = copies.top;
        copies.top = identity(&context);
    }
    changed(&context)
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn tcp_state_nested(context: BtfTracePointContext) -> i32 {
    if let Some(copies) = COPIES.get_ptr_mut(0) {
        // SAFETY: this CPU's own map value.
        let copies = unsafe { &mut *copies };
        let this = identity(&context);
        if copies.top == this {
            copies.top = copies.below;
            copies.below = 0;
        } else if copies.below == this {
            copies.below = 0;
        } else {
            copies.caught += 1;
        }
    }
    changed(&context)
}

/// What tells one change from another that interrupts it.
#[inline(always)]
fn identity(context: &BtfTracePointContext) -> u64 {
    context.arg::<*const c_void>(0).addr() as u64
}

/// Arguments: (socket, old state, new state), before the new state is stored.
#[inline(always)]
fn changed(context: &BtfTracePointContext) -> i32 {
    let old: i32 = context.arg(1);
    let new: i32 = context.arg(2);
    if !matches!(
        (old, new),
        (state::CLOSE, state::SYN_SENT | state::LISTEN)
            | (state::SYN_SENT | state::SYN_RECV, state::ESTABLISHED)
            | (_, state::CLOSE)
    ) {
        return 0;
    }
    // SAFETY: the tracepoint's first argument is a `struct sock *`.
    let Some(socket) = (unsafe { Socket::tcp(context.arg::<*const c_void>(0)) }) else {
        return 0;
    };
    match new {
        state::SYN_SENT => connecting(socket),
        state::LISTEN => listening(socket),
        state::ESTABLISHED => established(socket, old),
        _ => closed(socket, old),
    }
    0
}

/// `connect()`, in the caller's own context.
#[inline(always)]
fn connecting(socket: Socket) {
    let remote = socket.remote();
    if connection::is_loopback(&remote) {
        return;
    }
    let Some(slot) = connection::make_slot(socket) else {
        lose(loss::SOCKET_STORAGE, 1);
        return;
    };
    if slot.phase == phase::CONNECTING {
        return; // handled
    }
    connection::identify(slot, socket, role::CLIENT);
    connection::address(slot, socket, remote);
    slot.key.owner = half_edge::current_owner(slot.key.cgroup);
    // SAFETY: a helper without arguments.
    slot.started_ns = unsafe { bpf_ktime_get_ns() };
    slot.phase = phase::CONNECTING;
}

/// `listen()`, in the caller's own context. Children get a copy of this slot; those of a loopback listener need none.
#[inline(always)]
fn listening(socket: Socket) {
    if connection::is_loopback(&socket.local()) {
        return;
    }
    let Some(slot) = connection::make_slot(socket) else {
        return;
    };
    if slot.phase == phase::LISTENING {
        return; // handled
    }
    connection::identify(slot, socket, role::SERVER);
    slot.key.owner = half_edge::current_owner(slot.key.cgroup);
    slot.phase = phase::LISTENING;
}

/// The handshake is done, in whoever's context the packet arrived.
#[inline(always)]
fn established(socket: Socket, old: i32) {
    let remote = socket.remote();
    if connection::is_loopback(&remote) {
        if let Some(slot) = connection::slot_of(socket) {
            slot.phase = phase::NONE;
        }
        return;
    }
    let Some(slot) = connection::make_slot(socket) else {
        lose(loss::SOCKET_STORAGE, 1);
        return;
    };
    match slot.phase {
        phase::OPEN | phase::LOST | phase::STARTING => return, // handled
        phase::CONNECTING => {}
        phase::LISTENING => connection::born(slot, socket, remote),
        _ => {
            // Under way when the programs were loaded: its cgroup tells the pod, else whose it is stays open.
            let role = if old == state::SYN_SENT {
                role::CLIENT
            } else {
                role::SERVER
            };
            connection::identify(slot, socket, role);
            connection::address(slot, socket, remote);
            if role == role::SERVER && !half_edge::is_pod(slot.key.cgroup) {
                // A multipath TCP listener that is older than the programs hands nothing on; its port names its owner.
                if let Some(owner) = LISTENERS.get_ptr(&Listener::of(socket)) {
                    // SAFETY: a live map value, one word.
                    slot.key.owner = unsafe { owner.read_volatile() };
                }
            }
            slot.started_ns = 0;
        }
    }
    if let Some(tcp) = socket.tcp_part() {
        connection::start(slot, socket, tcp, Start::Opened);
    }
}

/// Gone, whatever it was.
#[inline(always)]
fn closed(socket: Socket, old: i32) {
    let Some(slot) = connection::slot_of(socket) else {
        return;
    };
    let Some(tcp) = socket.tcp_part() else {
        return;
    };
    // The state that is left shows that the connection stood although its handshake was missed.
    if state::is_open(old) {
        connection::start_late(slot, socket, tcp);
    }
    match slot.phase {
        phase::OPEN => connection::finish(slot, socket, tcp, tcp.totals(slot.key.role, Some(old))),
        phase::LOST => connection::finish_lost(slot, tcp.totals(slot.key.role, Some(old))),
        phase::CONNECTING => connection::fail(slot, socket, tcp),
        phase::STARTING => {} // a sweep has it in hand, and looks at the state when it is done
        _ => slot.phase = phase::NONE,
    }
}
