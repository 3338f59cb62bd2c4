//! How many files and sockets this process may have open.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limits of open file descriptors (`RLIMIT_NOFILE`): the one in effect, and the one to which this process may raise it.
/// `None` is no limit.
pub fn descriptor_limit() -> Rlimit {
    getrlimit(Resource::Nofile)
}

/// Raises the soft limit to the hard one, and gives the limits as they were before.
///
/// # Errors
/// The errors of `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<Rlimit> {
    let before = descriptor_limit();
    if before.current != before.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before })?;
    }
    Ok(before)
}

/// Bytes sent on a stream socket that the peer has not acknowledged (`SIOCOUTQ`); 0 if the system does not know.
pub fn unacknowledged_bytes(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, and the kernel writes one integer, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}
