//! Tracepoints `cgroup_mkdir` and `cgroup_rmdir`: which id stands for which path, even for a pod that lives 300 ms.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use leyline_abi::{CGROUP_PATH_LEN, cgroup_event, loss};

use crate::kernel;
use crate::maps::{CGROUPS, lose};

/// A cgroup was made.
#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(context: BtfTracePointContext) -> i32 {
    report(&context, cgroup_event::CREATED)
}

/// A cgroup was removed.
#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(context: BtfTracePointContext) -> i32 {
    report(&context, cgroup_event::REMOVED)
}

/// Arguments: (cgroup, its path from the hierarchy's root).
#[inline(always)]
fn report(context: &BtfTracePointContext, kind: u32) -> i32 {
    let cgroup: *const c_void = context.arg(0);
    let path: *const c_void = context.arg(1);
    if !kernel::is_unified(cgroup) {
        return 0;
    }
    let Some(mut place) = CGROUPS.reserve(0) else {
        lose(loss::CGROUP_RING, 1);
        return 0;
    };
    let event = place.as_mut_ptr();
    // SAFETY: reserved memory of exactly this size; the string helper writes at most CGROUP_PATH_LEN bytes of it.
    unsafe {
        (*event).id = kernel::cgroup_id(cgroup);
        (*event).kind = kind;
        (*event).path = [0; CGROUP_PATH_LEN];
        (*event).path_len = read_end(&raw mut (*event).path, path);
    }
    place.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

/// Copies the end of a string; returns how many bytes, without the NUL.
///
/// # Safety
///
/// `into` must be valid for writes.
#[inline(always)]
unsafe fn read_end(into: *mut [u8; CGROUP_PATH_LEN], string: *const c_void) -> u32 {
    let size = CGROUP_PATH_LEN as u32;
    let mut from = string;
    // The kernel itself cuts the path it traces at 1,024 bytes: five windows reach every end.
    for _ in 0..5 {
        // SAFETY: the caller's promise; the helper stops at a bad address.
        let copied = unsafe { bpf_probe_read_kernel_str(into.cast(), size, from) };
        if copied < i64::from(size) {
            // Too short a rest would miss the pod's uid: step back so that the window ends with the string.
            let missing = i64::from(size) - copied;
            let back = (from.addr() as i64 - string.addr() as i64).min(missing);
            if back <= 0 {
                return (copied - 1).max(0) as u32;
            }
            // SAFETY: as above; `back` bytes before `from` are still the same string.
            let copied = unsafe {
                bpf_probe_read_kernel_str(into.cast(), size, from.wrapping_byte_sub(back as usize))
            };
            return (copied - 1).max(0) as u32;
        }
        from = from.wrapping_byte_add(size as usize - 1);
    }
    size - 1
}
