//! The few socket calls that no library wraps.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use socket2::Socket;

/// How many SYNs are sent again.
pub(crate) fn set_syn_count(socket: &Socket, count: u8) -> io::Result<()> {
    let value = libc::c_int::from(count);
    // SAFETY: the pointer and the length describe `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SYNCNT,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes over a descriptor that a control message has just made.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for us in recvmsg(); nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
