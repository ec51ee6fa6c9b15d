//! The eBPF programs of the node agent.
//!
//! Inputs: TCP state changes, every socket of every process (once, at start), every tracked socket (each sweep), cgroups
//! coming and going. Outputs: the maps in [`maps`], whose layouts `leyline-abi` defines.
//!
//! | program | attached to | does |
//! |---|---|---|
//! | `tcp_state` | tracepoint `inet_sock_set_state` | opened, failed and closed connections, final totals |
//! | `tcp_state_nested` | the same | what happens while `tcp_state` is busy on that CPU |
//! | `udp_sent`, `udp_received` | tracepoints `sock_send_length`, `sock_recv_length` | UDP flows, datagrams and bytes |
//! | `udp_sendmsg4` and three more | cgroup hooks of the same names | which address a UDP call names |
//! | `sockets` | iterator `task_file` | prepares listeners and adopts connections older than the agent |
//! | `totals` | iterator `bpf_sk_storage_map` | folds the running totals of live connections |
//! | `cgroup_mkdir`, `cgroup_rmdir` | tracepoints of the same names | which id stands for which path |
//!
//! Invariants: each connection is counted opened or adopted once and closed once; each payload byte is folded once, no
//! matter which CPU folds it; what cannot be recorded is counted in `LOSS`. Deliberately absent: anything per packet, for TCP
//! anything per call, kprobes, payload.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has atomics only as intrinsics")]

mod atomic;
mod cgroups;
mod connection;
mod half_edge;
mod kernel;
mod maps;
mod sockets;
mod tcp_state;
mod totals;
mod udp;

/// The helpers that trace the kernel are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program in which this can be reached.
    loop {}
}
