//! Handing accepted connections to another process over a Unix socket.

use std::io::{IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use super::listen::{accepted, peek, serve};
use super::log::Log;
use super::sys;

/// The other process may start later.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes down that a connection was accepted and hands it over.
pub(crate) fn give(path: Option<&Path>, stream: &TcpStream, log: &Log) -> Result<()> {
    let path = path.context("--socket is missing")?;
    let id = peek(stream);
    accepted(stream, id, log);
    let Some(id) = id else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound().context("make a Unix socket")?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = socket.connect(path) {
        ensure!(
            Instant::now() < deadline,
            "connect to {}: {error}",
            path.display()
        );
        thread::sleep(Duration::from_millis(20));
    }
    let descriptors = [stream.as_raw_fd()];
    sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &[IoSlice::new(&id)],
        &[ControlMessage::ScmRights(&descriptors)],
        MsgFlags::empty(),
        None,
    )
    .context("hand a connection over")
    .map(drop)
}

/// Takes connections over and serves them.
pub(crate) fn take(path: &Path, log: &Log) -> Result<()> {
    // A leftover of a process that was here before.
    std::fs::remove_file(path).ok();
    let socket = UnixDatagram::bind(path).with_context(|| format!("bind {}", path.display()))?;
    loop {
        let mut id = [0; 8];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let mut buffer = [IoSliceMut::new(&mut id)];
        let message = recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut buffer,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .context("take a connection over")?;
        let mut taken = Vec::new();
        for control in message.cmsgs().context("read a control message")? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                taken.extend(descriptors.into_iter().map(sys::own));
            }
        }
        for descriptor in taken {
            let log = log.clone();
            thread::spawn(move || serve(TcpStream::from(descriptor), Some(id), &log));
        }
    }
}
