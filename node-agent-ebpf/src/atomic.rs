//! Atomic operations on map memory. `core::sync::atomic` offers none of them on the BPF target.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds without looking at the old value.
///
/// # Safety
///
/// `cell` must point into a map value.
#[inline(always)]
pub(crate) unsafe fn add(cell: *mut u64, value: u64) {
    // SAFETY: the caller's promise; map values are aligned to 8 bytes.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(cell, value) };
}

/// Adds and returns the old value (Linux 5.12).
///
/// # Safety
///
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn fetch_add(cell: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(cell, value) }
}

/// Replaces `from` by `to`; `Err` carries what was there instead (Linux 5.12).
///
/// # Safety
///
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn exchange(cell: *mut u64, from: u64, to: u64) -> Result<(), u64> {
    // SAFETY: the caller's promise.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(cell, from, to)
    };
    // The flag that comes with it says the same; branching on it makes rustc 1.98 emit invalid bitcode for this target.
    if found == from { Ok(()) } else { Err(found) }
}

/// Raises a cell to `to` and returns by how much it was raised, 0 when it already was there. Of several CPUs that raise
/// the same cell each gets its own share, so that adding up the shares counts everything once.
///
/// # Safety
///
/// As [`add`].
#[inline(always)]
pub(crate) unsafe fn raise(cell: *mut u64, to: u64) -> u64 {
    // SAFETY: the caller's promise.
    let mut seen = unsafe { cell.read_volatile() };
    // A socket is folded by at most one sweep per agent and its own close at a time: four attempts cannot all fail.
    for _ in 0..4 {
        if to <= seen {
            return 0;
        }
        // SAFETY: the caller's promise.
        match unsafe { exchange(cell, seen, to) } {
            Ok(()) => return to - seen,
            Err(found) => seen = found,
        }
    }
    0
}
