//! The life of one connection: connecting, opened or adopted, folded, closed or failed.

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use leyline_abi::{Connection, HalfEdgeKey, flags, kind, loss, role, setting, transport, witness_hash};

use crate::atomic;
use crate::half_edge::{self, Entry, count};
use crate::kernel::{Socket, Tcp, Totals};
use crate::maps::{CONNECTIONS, SLOTS, SPLIT, Slot, lose, phase, setting};

const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;
const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;
const EHOSTDOWN: i32 = 112;
const ENETDOWN: i32 = 100;
const ENOPROTOOPT: i32 = 92;
const EPROTO: i32 = 71;

/// The slot a socket already has.
#[inline(always)]
pub(crate) fn slot_of<'a>(socket: Socket) -> Option<&'a mut Slot> {
    // SAFETY: a typed socket pointer; the returned storage lives at least as long as this program run.
    unsafe {
        bpf_sk_storage_get(SLOTS.as_ptr(), socket.as_ptr(), core::ptr::null_mut(), 0)
            .cast::<Slot>()
            .as_mut()
    }
}

/// The slot of a socket, made (zeroed) if it has none.
#[inline(always)]
pub(crate) fn make_slot<'a>(socket: Socket) -> Option<&'a mut Slot> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as in `slot_of`.
    unsafe {
        bpf_sk_storage_get(SLOTS.as_ptr(), socket.as_ptr(), core::ptr::null_mut(), create)
            .cast::<Slot>()
            .as_mut()
    }
}

/// 127.0.0.0/8 and ::1: a conversation that leaves no machine is no edge.
#[inline(always)]
pub(crate) fn is_loopback(address: &[u8; 16]) -> bool {
    let [head @ .., a, b, c, d] = address;
    match head {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] => *a == 127,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => [*a, *b, *c, *d] == [0, 0, 0, 1],
        _ => false,
    }
}

/// Everything of the key that the socket says; the owner is the caller's to find.
#[inline(always)]
pub(crate) fn identify(slot: &mut Slot, socket: Socket, role: u8) {
    slot.key = HalfEdgeKey {
        cgroup: socket.cgroup(),
        remote: [0; 16],
        owner: 0,
        netns: socket.netns(),
        port: 0,
        role,
        transport: transport::TCP,
        padding: 0,
    };
}

/// The other end, and the server port of a client; a server's is found in [`start`].
#[inline(always)]
pub(crate) fn address(slot: &mut Slot, socket: Socket, remote: [u8; 16]) {
    slot.key.remote = remote;
    slot.remote_port = socket.remote_port();
    if slot.key.role == role::CLIENT {
        slot.key.port = slot.remote_port;
    }
}

/// Makes the slot that a listener handed to its child the child's own.
#[inline(always)]
pub(crate) fn born(slot: &mut Slot, socket: Socket, remote: [u8; 16]) {
    // A listener older than the knowledge that its cgroup is a pod's.
    if slot.key.owner != 0 && half_edge::is_pod(slot.key.cgroup) {
        slot.key.owner = 0;
    }
    address(slot, socket, remote);
}

/// What made a connection countable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Seen becoming established.
    Opened,
    /// Found established.
    Adopted,
}

/// A connection stands, so the tracepoint told that it was established, but neither copy of the program ran: both were
/// busy. Counts it late. Its close and a sweep may notice at once; one of them counts.
#[inline(always)]
pub(crate) fn start_late(slot: &mut Slot, socket: Socket, tcp: Tcp) {
    let before = slot.phase;
    if before != phase::CONNECTING && before != phase::LISTENING {
        return;
    }
    let remote = socket.remote();
    if is_loopback(&remote) {
        slot.phase = phase::NONE;
        return;
    }
    // SAFETY: the slot is a map value.
    if unsafe { atomic::exchange(&raw mut slot.phase, before, phase::STARTING) }.is_err() {
        return;
    }
    if before == phase::LISTENING {
        born(slot, socket, remote);
    }
    lose(loss::STATE_CHANGES, 1);
    slot.started_ns = 0; // how long connecting took is not known any more
    start(slot, socket, tcp, Start::Opened);
}

/// Counts a connection in its half-edge and reports it if that is split. The slot's key is complete but for the port.
#[inline(always)]
pub(crate) fn start(slot: &mut Slot, socket: Socket, tcp: Tcp, how: Start) {
    let now = bpf_now();
    let totals = tcp.totals(slot.key.role, None);
    (slot.client_isn, slot.server_isn) = totals.origin.witness(slot.key.role);
    slot.local_port = tcp.local_port();
    if slot.key.role != role::CLIENT {
        slot.key.port = slot.local_port;
    }
    slot.sent = 0;
    slot.received = 0;
    slot.recorded = 0;
    slot.swept_received = totals.raw_received;
    if how == Start::Adopted {
        slot.base_sent = totals.sent;
        slot.base_received = totals.received;
        slot.retransmits = u64::from(tcp.retransmits());
        slot.flags = u16::from(flags::ADOPTED);
    } else {
        // Data may have come with the SYN (fast open): everything counts from the first byte.
        slot.base_sent = 0;
        slot.base_received = 0;
        slot.retransmits = 0;
        slot.flags = 0;
    }

    let Some(entry) = half_edge::entry(&slot.key) else {
        lose(loss::HALF_EDGES_FULL, 1);
        slot.phase = phase::LOST;
        return;
    };
    slot.half_edge = entry.serial();
    if is_split(&slot.key.remote) {
        slot.recorded = sample(slot.client_isn, slot.server_isn);
        if slot.recorded == 0 {
            lose(loss::SAMPLED, 1);
        } else {
            record(slot, socket, kind::OPEN, now);
        }
    }
    // Counted last: whoever reads the count finds the record in the ring.
    if how == Start::Adopted {
        count!(entry, adopted, 1);
    } else {
        if slot.key.role == role::CLIENT && slot.started_ns != 0 {
            count!(entry, connect_ns, now.saturating_sub(slot.started_ns));
        }
        count!(entry, opened, 1);
    }
    entry.touch(now);
    slot.phase = phase::OPEN;
}

/// 0 if this connection is left out of the sample, else 1 + log2 of its weight.
#[inline(always)]
fn sample(client_isn: u32, server_isn: u32) -> u16 {
    let log2 = setting(setting::SAMPLE_LOG2) & 31;
    if witness_hash(client_isn, server_isn) & ((1 << log2) - 1) == 0 {
        1 + log2 as u16
    } else {
        0
    }
}

#[inline(always)]
fn is_split(remote: &[u8; 16]) -> bool {
    SPLIT.get(&Key::new(128, *remote)).is_some()
}

/// Folds what the connection carried beyond what is folded already. Returns whether anything moved.
#[inline(always)]
pub(crate) fn fold(slot: &mut Slot, entry: Entry, tcp: Tcp, sent: u64, received: u64) -> bool {
    // SAFETY: the slot is a map value.
    let (sent, received, retransmits) = unsafe {
        (
            atomic::raise(&raw mut slot.sent, sent.saturating_sub(slot.base_sent)),
            atomic::raise(
                &raw mut slot.received,
                received.saturating_sub(slot.base_received),
            ),
            atomic::raise(&raw mut slot.retransmits, u64::from(tcp.retransmits())),
        )
    };
    if sent != 0 {
        count!(entry, bytes_sent, sent);
    }
    if received != 0 {
        count!(entry, bytes_received, received);
    }
    if retransmits != 0 {
        count!(entry, retransmits, retransmits);
    }
    sent | received | retransmits != 0
}

/// Adds one sample of the smoothed round-trip time.
#[inline(always)]
pub(crate) fn sample_rtt(entry: Entry, tcp: Tcp) {
    let rtt = tcp.rtt_us();
    if rtt != 0 {
        count!(entry, rtt_us, u64::from(rtt));
        count!(entry, rtt_samples, 1);
    }
}

/// The connection ended: final totals, once, whoever notices first.
#[inline(always)]
pub(crate) fn finish(slot: &mut Slot, socket: Socket, tcp: Tcp, totals: Totals) {
    // SAFETY: the slot is a map value.
    if unsafe { atomic::exchange(&raw mut slot.phase, phase::OPEN, phase::NONE) }.is_err() {
        return;
    }
    let Some(entry) = half_edge::entry(&slot.key) else {
        lose(loss::HALF_EDGES_FULL, 1);
        lose(loss::HALF_EDGE_BYTES, unfolded(slot, totals));
        return;
    };
    let now = bpf_now();
    fold(slot, entry, tcp, totals.sent, totals.received);
    sample_rtt(entry, tcp);
    if slot.recorded != 0 {
        record(slot, socket, kind::CLOSE, now);
    }
    count!(entry, closed, 1);
    entry.touch(now);
}

/// A connection whose half-edge found no place ended.
#[inline(always)]
pub(crate) fn finish_lost(slot: &mut Slot, totals: Totals) {
    slot.phase = phase::NONE;
    lose(loss::HALF_EDGE_BYTES, unfolded(slot, totals));
}

#[inline(always)]
fn unfolded(slot: &Slot, totals: Totals) -> u64 {
    totals.sent.saturating_sub(slot.base_sent + slot.sent)
        + totals.received.saturating_sub(slot.base_received + slot.received)
}

/// An attempt ended without a connection.
#[inline(always)]
pub(crate) fn fail(slot: &mut Slot, socket: Socket, tcp: Tcp) {
    slot.phase = phase::NONE;
    let Some(entry) = half_edge::entry(&slot.key) else {
        lose(loss::HALF_EDGES_FULL, 1);
        return;
    };
    match socket.error() {
        0 => count!(entry, aborted, 1),
        ECONNREFUSED => count!(entry, refused, 1),
        ETIMEDOUT => count!(entry, timed_out, 1),
        // What ICMP and ICMPv6 errors become.
        EHOSTUNREACH | ENETUNREACH | EHOSTDOWN | ENETDOWN | EACCES | EPERM | ENOPROTOOPT | EPROTO => {
            count!(entry, unreachable, 1);
        }
        _ => count!(entry, reset, 1),
    }
    let retransmits = tcp.retransmits();
    if retransmits != 0 {
        count!(entry, retransmits, u64::from(retransmits));
    }
    entry.touch(bpf_now());
}

/// Sends one record of a split half-edge. User space looks regularly: no wake-up per record.
#[inline(always)]
pub(crate) fn record(slot: &Slot, socket: Socket, kind: u8, now: u64) {
    let Some(mut place) = CONNECTIONS.reserve(0) else {
        lose(loss::CONNECTION_RING, 1);
        return;
    };
    place.write(Connection {
        half_edge: slot.half_edge,
        local: socket.local(),
        client_isn: slot.client_isn,
        server_isn: slot.server_isn,
        local_port: slot.local_port,
        remote_port: slot.remote_port,
        kind,
        role: slot.key.role,
        flags: slot.flags as u8,
        weight_log2: (slot.recorded - 1) as u8,
        at_ns: now,
        bytes_sent: slot.sent,
        bytes_received: slot.received,
    });
    place.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
pub(crate) fn bpf_now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
