//! Finding or making the half-edge of a socket, and whose it is.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use leyline_abi::{HalfEdge, HalfEdgeKey, Owner};

use crate::atomic;
use crate::maps::{HALF_EDGES, OWNERS, PODS, SERIAL};

/// A map value; every field changes by atomic adds only.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut HalfEdge);

/// Adds to one counter of an [`Entry`].
macro_rules! count {
    ($entry:expr, $field:ident, $amount:expr) => {{
        // SAFETY: a live map value; 8-byte aligned.
        unsafe { $crate::atomic::add(&raw mut (*$entry.as_ptr()).$field, $amount) }
    }};
}
pub(crate) use count;

impl Entry {
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut HalfEdge {
        self.0
    }

    #[inline(always)]
    pub(crate) fn serial(self) -> u64 {
        // SAFETY: a live map value, written before it was inserted.
        unsafe { (*self.0).serial }
    }

    /// Notes when it changed last. CPUs may race; either time is right.
    #[inline(always)]
    pub(crate) fn touch(self, now: u64) {
        // SAFETY: a live map value.
        unsafe { (&raw mut (*self.0).changed_ns).write_volatile(now) }
    }
}

/// The entry of `key`, made if it is new; `None` when the map is full.
#[inline(always)]
pub(crate) fn entry(key: &HalfEdgeKey) -> Option<Entry> {
    if let Some(found) = HALF_EDGES.get_ptr_mut(key) {
        return Some(Entry(found));
    }
    insert(key)
}

/// Kept out of line: it runs once per half-edge, and its copy of a value would take a quarter of every caller's stack.
#[inline(never)]
fn insert(key: &HalfEdgeKey) -> Option<Entry> {
    let serial = SERIAL.get_ptr_mut(0)?;
    let value = HalfEdge {
        // SAFETY: a map value.
        serial: unsafe { atomic::fetch_add(serial, 1) } + 1,
        ..HalfEdge::default()
    };
    // An entry that another CPU made meanwhile is as good.
    let _ = HALF_EDGES.insert(key, &value, u64::from(BPF_NOEXIST));
    HALF_EDGES.get_ptr_mut(key).map(Entry)
}

/// The current thread group as owner of a socket of `cgroup`; 0 when the cgroup is a pod's and says it all.
#[inline(always)]
pub(crate) fn current_owner(cgroup: u64) -> u32 {
    if is_pod(cgroup) {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Ok(comm) = bpf_get_current_comm() {
        remember(tgid, comm);
    }
    tgid
}

/// Whether user space has marked this cgroup as a pod's.
#[inline(always)]
pub(crate) fn is_pod(cgroup: u64) -> bool {
    PODS.get_ptr(&cgroup).is_some()
}

/// Notes what a thread group is called, for when it is gone before user space asks.
#[inline(always)]
pub(crate) fn remember(tgid: u32, comm: [u8; 16]) {
    let owner = Owner { comm };
    // SAFETY: read at once; a concurrent write can only mix two names of one thread group.
    if let Some(known) = OWNERS.get_ptr(&tgid)
        && unsafe { (*known).comm } == comm
    {
        return;
    }
    let _ = OWNERS.insert(&tgid, &owner, 0);
}
