//! Sockets stay with whoever made them, however they are handed on.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::net::UnixStream;

use leyline_abi::role;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::world::{CLIENT, SERVER, World};

/// A forked child that runs `work` and exits 0, or 1 when it panics. Waited for on drop.
struct Child(Pid);

impl Child {
    fn new(work: impl FnOnce()) -> Self {
        // SAFETY: the other threads of this process only wait; the child uses what it was given and leaves by `_exit`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // SAFETY: ends the child without running what belongs to the parent.
                unsafe { libc::_exit(i32::from(result.is_err())) }
            }
        }
    }

    fn id(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }

    fn wait(self) {
        assert_eq!(waitpid(self.0, None).unwrap(), WaitStatus::Exited(self.0, 0));
    }
}

fn owner_of(world: &World, wanted: u8) -> Vec<u32> {
    world
        .entries()
        .iter()
        .filter(|(key, _)| key.role == wanted)
        .map(|(key, _)| key.owner)
        .collect()
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_pre_forked_server_is_one_owner_whichever_child_accepts() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let serve = || {
        for _ in 0..5 {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 3]).unwrap();
            stream.write_all(b"done").unwrap();
        }
    };
    let children = [Child::new(serve), Child::new(serve)];
    for _ in 0..10 {
        let mut client = world.connect((SERVER, port).into()).unwrap();
        client.write_all(b"abc").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    children.into_iter().for_each(Child::wait);
    world.until("all closed", |w| w.server_half(CLIENT, port).closed == 10);
    assert_eq!(owner_of(&world, role::SERVER), [std::process::id()]);
    let half = world.server_half(CLIENT, port);
    assert_eq!((half.opened, half.bytes_received, half.bytes_sent), (10, 30, 40));
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_client_socket_passed_to_another_process_stays_its_makers() {
    let mut world = World::new();
    let listener = world.listen(SERVER);
    let port = listener.local_addr().unwrap().port();
    let (ours, theirs) = UnixStream::pair().unwrap();
    world.client.1.enter();
    let child = world.client.0.run(|| {
        Child::new(|| {
            let stream = TcpStream::connect((SERVER, port)).unwrap();
            let fds = [stream.as_raw_fd()];
            let payload = [std::io::IoSlice::new(b"x")];
            sendmsg::<()>(
                theirs.as_raw_fd(),
                &payload,
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )
            .unwrap();
        })
    });
    let maker = child.id();
    let mut server = listener.accept().unwrap().0;
    let mut stream = receive(&ours);
    child.wait();
    // The maker is gone; its socket lives on here, in another cgroup.
    world.server.1.enter();
    stream.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    drop((stream, server));
    world.until("closed", |w| w.client_half(SERVER, port).closed == 1);
    assert_eq!(owner_of(&world, role::CLIENT), [maker]);
    assert_eq!(world.client_half(SERVER, port).bytes_sent, 5);
    // Its name is still known.
    let owner = world.kernel.owner(maker).expect("the maker's name");
    assert_eq!(owner.comm, comm_of_this_thread());
    assert_eq!(world.kernel.owner(u32::MAX), None);
}

/// As the kernel keeps it; the child was forked by a thread that `Netns::run` made, which names itself like this one.
fn comm_of_this_thread() -> [u8; 16] {
    let text = std::fs::read("/proc/thread-self/comm").unwrap();
    let mut comm = [0; 16];
    comm[..text.len() - 1].copy_from_slice(&text[..text.len() - 1]);
    comm
}

fn receive(from: &UnixStream) -> TcpStream {
    let mut byte = [0];
    let mut room = nix::cmsg_space!([i32; 1]);
    let mut payload = [std::io::IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut payload, Some(&mut room), MsgFlags::empty()).unwrap();
    match message.cmsgs().unwrap().next().unwrap() {
        // SAFETY: a descriptor the kernel just made for us.
        ControlMessageOwned::ScmRights(fds) => unsafe { TcpStream::from_raw_fd(fds[0]) },
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs root and a kernel with BTF"]
fn a_listener_passed_on_at_a_restart_keeps_the_owner_that_called_listen() {
    let mut world = World::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    world.server.1.enter();
    let child = world.server.0.run(|| {
        Child::new(|| {
            let listener = TcpListener::bind((SERVER, 7_444)).unwrap();
            let fds = [listener.as_raw_fd()];
            let payload = [std::io::IoSlice::new(b"x")];
            sendmsg::<()>(
                theirs.as_raw_fd(),
                &payload,
                &[ControlMessage::ScmRights(&fds)],
                MsgFlags::empty(),
                None,
            )
            .unwrap();
        })
    });
    let maker = child.id();
    // A descriptor is a descriptor: the stream type only carries it.
    let listener = TcpListener::from(std::os::fd::OwnedFd::from(receive(&ours)));
    child.wait();
    drop(world.pair(&listener, SERVER));
    world.until("closed", |w| w.server_half(CLIENT, 7_444).closed == 1);
    assert_eq!(owner_of(&world, role::SERVER), [maker]);
}
