//! Iterator `bpf_sk_storage_map`: every socket that has a slot. Folds the running totals of live connections, counts
//! them, and starts those whose beginning no program saw.

use core::ffi::c_void;

use leyline_abi::kind;

use crate::connection::{self, bpf_now};
use crate::half_edge::{self, count};
use crate::kernel::{Socket, state};
use crate::maps::phase;

/// `struct bpf_iter__bpf_sk_storage_map`: each pointer in 8 bytes.
#[repr(C)]
struct SocketStorage {
    meta: *const c_void,
    map: *const c_void,
    sock: *const c_void,
    value: *const c_void,
}

/// Runs once per socket; the last call, with nothing, ends the walk.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
extern "C" fn totals(context: *const SocketStorage) -> i32 {
    // SAFETY: the kernel passes this struct.
    let sock = unsafe { (*context).sock };
    if sock.is_null() {
        return 0;
    }
    // SAFETY: a `struct sock *`, checked for null.
    let Some(socket) = (unsafe { Socket::tcp(sock) }) else {
        return 0;
    };
    let Some(slot) = connection::slot_of(socket) else {
        return 0;
    };
    // Before the phase: the programs run before the kernel stores the new state.
    let current = socket.state();
    let Some(tcp) = socket.tcp_part() else {
        return 0;
    };
    if state::is_open(current) {
        connection::start_late(slot, socket, tcp);
    }
    if slot.phase != phase::OPEN {
        return 0;
    }
    let Some(entry) = half_edge::entry(&slot.key) else {
        return 0;
    };
    if entry.serial() == slot.half_edge {
        count!(entry, swept, 1);
    }
    let totals = tcp.totals(slot.key.role, None);
    if totals.origin.witness(slot.key.role) != (slot.client_isn, slot.server_isn) {
        // Counter and sequence number were read around a change on another CPU; the next sweep comes.
        return 0;
    }
    if socket.state() == state::CLOSE {
        // Adopted in the very moment it closed, or its close was missed.
        connection::finish(slot, socket, tcp, totals);
        return 0;
    }
    // A FIN is in `bytes_received` a moment before its flag is set. Hold the last byte back until the counter has
    // rested for a sweep: what is folded can never be taken back.
    let resting = slot.swept_received == totals.raw_received;
    slot.swept_received = totals.raw_received;
    let held_back = u64::from(!resting && !totals.peer_finished);
    if connection::fold(
        slot,
        entry,
        tcp,
        totals.sent,
        totals.received.saturating_sub(held_back),
    ) {
        let now = bpf_now();
        connection::sample_rtt(entry, tcp);
        entry.touch(now);
        if slot.recorded != 0 && slot.phase == phase::OPEN {
            connection::record(slot, socket, kind::PROGRESS, now);
        }
    }
    0
}
