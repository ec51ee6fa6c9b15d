//! Iterator `task_file`: every open file of every process, in all network namespaces, without entering any.
//!
//! User space runs it in two modes (see `leyline_abi::sockets_mode`): listeners first, so that their children inherit an
//! owner and their ports can vote on roles, then everything that is already established.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use leyline_abi::{loss, role, setting, sockets_mode};

use crate::connection::{self, Start};
use crate::half_edge;
use crate::kernel::{self, Socket, state};
use crate::maps::{LISTENERS, Listener, Slot, lose, phase, setting};

/// `struct bpf_iter__task_file`: each pointer in 8 bytes.
#[repr(C)]
struct TaskFile {
    meta: *const c_void,
    task: *const c_void,
    fd: u32,
    padding: u32,
    file: *const c_void,
}

/// Runs once per open file; the last call, with nothing, ends the walk.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
extern "C" fn sockets(context: *const TaskFile) -> i32 {
    // SAFETY: the kernel passes this struct.
    let (task, file) = unsafe { ((*context).task, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a `struct file *`, checked for null.
    let found = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
    if found.is_null() {
        return 0;
    }
    // SAFETY: what the helper returned, checked for null.
    let sock = unsafe { kernel::sock_of(found.cast_const().cast()) };
    if sock.is_null() {
        return 0;
    }
    // SAFETY: a `struct sock *` as the socket holds it.
    let Some(socket) = (unsafe { Socket::tcp(sock) }) else {
        // SAFETY: the same.
        if let Some(socket) = unsafe { Socket::mptcp(sock) }
            && setting(setting::SOCKETS_MODE) == sockets_mode::LISTENERS
            && socket.state() == state::LISTEN
        {
            // Its TCP listener cannot be reached from here; children find their owner by the port.
            remember_listener(socket, task);
        }
        return 0;
    };
    let current = socket.state();
    if setting(setting::SOCKETS_MODE) == sockets_mode::LISTENERS {
        if current == state::LISTEN {
            prepare_listener(socket, task);
        }
    } else if current == state::SYN_SENT || state::is_open(current) {
        adopt(socket, task, current);
    }
    0
}

#[inline(always)]
fn prepare_listener(socket: Socket, task: *const c_void) {
    remember_listener(socket, task);
    if connection::is_loopback(&socket.local()) {
        return;
    }
    let Some(slot) = connection::make_slot(socket) else {
        return;
    };
    if slot.phase == phase::NONE {
        connection::identify(slot, socket, role::SERVER);
        own(slot, task);
        slot.phase = phase::LISTENING;
    }
}

#[inline(always)]
fn adopt(socket: Socket, task: *const c_void, current: i32) {
    let remote = socket.remote();
    if connection::is_loopback(&remote) {
        return;
    }
    if connection::slot_of(socket)
        .is_some_and(|slot| slot.phase != phase::NONE && slot.phase != phase::LISTENING)
    {
        return;
    }
    let Some(slot) = connection::make_slot(socket) else {
        lose(loss::SOCKET_STORAGE, 1);
        return;
    };
    let role = if current == state::SYN_SENT {
        role::CLIENT
    } else {
        role_of(socket)
    };
    connection::identify(slot, socket, role);
    connection::address(slot, socket, remote);
    own(slot, task);
    slot.started_ns = 0;
    if current == state::SYN_SENT {
        slot.phase = phase::CONNECTING;
        return;
    }
    let Some(tcp) = socket.tcp_part() else {
        return;
    };
    connection::start(slot, socket, tcp, Start::Adopted);
    if socket.state() == state::CLOSE {
        // It closed while we looked and its close found no slot.
        connection::finish(slot, socket, tcp, tcp.totals(role, None));
    }
}

/// Two votes: a server's child keeps its listener's backlog, a client has none; and who listens on the local port.
#[inline(always)]
fn role_of(socket: Socket) -> u8 {
    if socket.max_ack_backlog() != 0 {
        return role::SERVER;
    }
    if LISTENERS.get_ptr(&Listener::of(socket)).is_some() {
        role::UNKNOWN
    } else {
        role::CLIENT
    }
}

/// Notes who listens on a port.
#[inline(always)]
fn remember_listener(socket: Socket, task: *const c_void) {
    let owner = owner_of(socket.cgroup(), task);
    let _ = LISTENERS.insert(&Listener::of(socket), &owner, 0);
}

#[inline(always)]
fn own(slot: &mut Slot, task: *const c_void) {
    slot.key.owner = owner_of(slot.key.cgroup, task);
}

/// The thread group that holds a socket of `cgroup`; 0 when the cgroup is a pod's and says it all.
#[inline(always)]
fn owner_of(cgroup: u64, task: *const c_void) -> u32 {
    if half_edge::is_pod(cgroup) {
        return 0;
    }
    let (tgid, comm) = kernel::task(task);
    half_edge::remember(tgid, comm);
    tgid
}
