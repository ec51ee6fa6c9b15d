//! Attempts that come to nothing, by reason.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use leyline_abi::HalfEdge;

use crate::world::{SERVER, SERVER6, World};

const PORT: u16 = 7_999;

/// (refused, timed out, unreachable, reset, aborted)
type Reasons = (u64, u64, u64, u64, u64);

fn reasons(half: HalfEdge) -> Reasons {
    (
        half.refused,
        half.timed_out,
        half.unreachable,
        half.reset,
        half.aborted,
    )
}

/// One attempt in the client's place, which must fail; rule are loaded on the server's side before.
fn attempt(world: &mut World, to: SocketAddr, rule: &str, expected: Reasons, work: impl FnOnce() + Send) {
    if !rule.is_empty() {
        world.server.0.input_rule(rule);
    }
    world.client.1.enter();
    world.client.0.run(work);
    world.until("failed", |w| reasons(w.client_half(to.ip(), PORT)) == expected);
    let half = world.client_half(to.ip(), PORT);
    assert_eq!(
        (half.opened, half.adopted, half.closed, half.bytes_sent),
        (0, 0, 0, 0)
    );
    assert_eq!(world.entries().len(), 1, "a failed attempt makes no server half");
    assert!(half.changed_ns > 0);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn nobody_listens_is_refused() {
    for server in [SERVER, SERVER6] {
        let to = SocketAddr::new(server, PORT);
        attempt(&mut World::new(), to, "", (1, 0, 0, 0, 0), || {
            assert_eq!(
                TcpStream::connect(to).unwrap_err().kind(),
                std::io::ErrorKind::ConnectionRefused
            );
        });
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn no_answer_is_timed_out_with_its_retransmits() {
    let to = SocketAddr::new(SERVER, PORT);
    let mut world = World::new();
    attempt(&mut world, to, "tcp dport 7999 drop", (0, 1, 0, 0, 0), || {
        let socket = nonblocking_attempt(to);
        let tries: libc::c_int = 1;
        // SAFETY: a plain system call; the value outlives it.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_SYNCNT,
                (&raw const tries).cast(),
                4,
            )
        };
        assert_eq!(set, 0);
        wait_for_answer(&socket);
    });
    assert!(world.client_half(SERVER, PORT).retransmits >= 1);
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn an_icmp_answer_is_unreachable() {
    for (rule, server) in [
        ("tcp dport 7999 reject with icmp host-unreachable", SERVER),
        ("tcp dport 7999 reject with icmp admin-prohibited", SERVER),
        ("tcp dport 7999 reject with icmpv6 no-route", SERVER6),
        ("tcp dport 7999 reject with icmpv6 admin-prohibited", SERVER6),
    ] {
        let to = SocketAddr::new(server, PORT);
        // On a veth the first answer comes while `connect()` still holds the socket and is only noted; an application that
        // waits gets the second one, a second later.
        attempt(&mut World::new(), to, rule, (0, 0, 1, 0, 0), || {
            assert!(TcpStream::connect(to).is_err())
        });
        // One that closes at once had its answer all the same. (A fresh link carries IPv6 only after a second.)
        if to.is_ipv4() {
            attempt(&mut World::new(), to, rule, (0, 0, 1, 0, 0), || {
                drop(nonblocking_attempt(to))
            });
            // So had one that asked for its error first, which clears it.
            attempt(&mut World::new(), to, rule, (0, 0, 1, 0, 0), || {
                wait_for_answer(&nonblocking_attempt(to));
            });
        }
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn an_attempt_the_application_gives_up_is_aborted_and_no_failure() {
    let to = SocketAddr::new(SERVER, PORT);
    attempt(
        &mut World::new(),
        to,
        "tcp dport 7999 drop",
        (0, 0, 0, 0, 1),
        || drop(nonblocking_attempt(to)),
    );
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_socket_that_failed_can_connect_again_and_counts_as_opened() {
    let mut world = World::new();
    let port = 7_998;
    let to = SocketAddr::new(SERVER, port);
    world.client.1.enter();
    let socket = world.client.0.run(|| {
        let socket = nonblocking_attempt(to);
        wait_for_answer(&socket);
        socket
    });
    world.until("refused", |w| w.client_half(SERVER, port).refused == 1);
    world.server.1.enter();
    let listener = world.server.0.run(|| std::net::TcpListener::bind(to).unwrap());
    start_connect(&socket, to);
    let _ = listener.accept().unwrap();
    world.until("opened", |w| w.client_half(SERVER, port).opened == 1);
    drop(socket);
    world.until("closed", |w| w.client_half(SERVER, port).closed == 1);
    assert_eq!(reasons(world.client_half(SERVER, port)), (1, 0, 0, 0, 0));
}

fn start_connect(socket: &OwnedFd, to: SocketAddr) {
    use nix::errno::Errno;
    use nix::sys::socket::{SockaddrStorage, connect};
    let mut result = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    if result == Err(Errno::ECONNABORTED) {
        // The first call after a failed attempt only clears it away.
        result = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    }
    assert_eq!(result, Err(Errno::EINPROGRESS));
}

pub(crate) fn nonblocking_attempt(to: SocketAddr) -> OwnedFd {
    let family = if to.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: a plain system call, and a descriptor nobody else owns.
    let socket = unsafe {
        let fd = libc::socket(
            family,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        );
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    };
    start_connect(&socket, to);
    socket
}

/// Returns when the attempt has ended, for whatever reason.
fn wait_for_answer(socket: &OwnedFd) {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one descriptor, as said.
    assert_eq!(
        unsafe { libc::poll(&raw mut poll, 1, 20_000) },
        1,
        "no answer in 20 s"
    );
    let error = nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::SocketError).unwrap();
    assert_ne!(error, 0, "it connected");
}
