//! Arithmetic on the kernel's totals: differences, sums, and what follows from them. Pure.
//!
//! Every function destructures the whole struct, so that a new counter cannot be forgotten.

use leyline_abi::HalfEdge;

/// What `new` holds more than `old`; zero where it holds less. `changed_ns` is the newer of both, `serial` stays.
#[must_use]
pub fn difference(new: &HalfEdge, old: &HalfEdge) -> HalfEdge {
    combine(new, old, u64::saturating_sub)
}

/// Adds `added` to `totals`; tells whether any counter moved.
pub fn add(totals: &mut HalfEdge, added: &HalfEdge) -> bool {
    let sum = combine(totals, added, u64::saturating_add);
    let before = HalfEdge {
        changed_ns: sum.changed_ns,
        ..*totals
    };
    let moved = sum != before;
    *totals = sum;
    moved
}

fn combine(left: &HalfEdge, right: &HalfEdge, with: impl Fn(u64, u64) -> u64) -> HalfEdge {
    let HalfEdge {
        serial,
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
    } = *left;
    HalfEdge {
        serial,
        opened: with(opened, right.opened),
        adopted: with(adopted, right.adopted),
        closed: with(closed, right.closed),
        refused: with(refused, right.refused),
        timed_out: with(timed_out, right.timed_out),
        unreachable: with(unreachable, right.unreachable),
        reset: with(reset, right.reset),
        aborted: with(aborted, right.aborted),
        bytes_sent: with(bytes_sent, right.bytes_sent),
        bytes_received: with(bytes_received, right.bytes_received),
        connect_ns: with(connect_ns, right.connect_ns),
        rtt_us: with(rtt_us, right.rtt_us),
        rtt_samples: with(rtt_samples, right.rtt_samples),
        retransmits: with(retransmits, right.retransmits),
        datagrams_sent: with(datagrams_sent, right.datagrams_sent),
        datagrams_received: with(datagrams_received, right.datagrams_received),
        swept: with(swept, right.swept),
        changed_ns: changed_ns.max(right.changed_ns),
    }
}

/// Sockets that are open: counted as opened or adopted, and not closed.
#[must_use]
pub fn active(totals: &HalfEdge) -> u64 {
    totals
        .opened
        .saturating_add(totals.adopted)
        .saturating_sub(totals.closed)
}

/// Connections and attempts to connect.
#[must_use]
pub fn attempts(totals: &HalfEdge) -> u64 {
    [
        totals.opened,
        totals.adopted,
        totals.refused,
        totals.timed_out,
        totals.unreachable,
        totals.reset,
        totals.aborted,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}
