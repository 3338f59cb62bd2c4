//! How many files and sockets this process may have open.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// The limits of open file descriptors (`RLIMIT_NOFILE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The limit in effect.
    pub soft: u64,
    /// The limit to which this process may raise it.
    pub hard: u64,
}

/// The limits as they are.
///
/// # Errors
/// The errors of `getrlimit(2)`.
pub fn descriptor_limit() -> io::Result<DescriptorLimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is initialised and outlives the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(DescriptorLimit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

/// Raises the soft limit to the hard one, and gives the limits as they were before.
///
/// # Errors
/// The errors of `getrlimit(2)` and `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<DescriptorLimit> {
    let before = descriptor_limit()?;
    if before.soft < before.hard {
        let limit = libc::rlimit { rlim_cur: before.hard, rlim_max: before.hard };
        // SAFETY: the structure is initialised and outlives the call.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
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
