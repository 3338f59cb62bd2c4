//! Waiting for several sockets from a plain thread.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// The event to wait for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
}

/// A fixed set of sockets to wait for with `poll(2)`: at the handful of sockets that a worker has, it costs no more than
/// epoll and keeps no state in the kernel.
#[derive(Debug)]
pub struct Poll<'a> {
    entries: Vec<libc::pollfd>,
    sockets: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> Poll<'a> {
    /// Waits for these, in this order.
    pub fn new(sockets: impl IntoIterator<Item = (BorrowedFd<'a>, Interest)>) -> Self {
        let entry = |(socket, interest): (BorrowedFd<'a>, Interest)| libc::pollfd {
            fd: socket.as_raw_fd(),
            events: if interest == Interest::Read { libc::POLLIN } else { libc::POLLOUT },
            revents: 0,
        };
        Self { entries: sockets.into_iter().map(entry).collect(), sockets: std::marker::PhantomData }
    }

    /// Waits until one of them is ready, at most `limit` (`None`: for ever), rounded up to milliseconds. A signal ends
    /// the wait early.
    ///
    /// # Errors
    /// The errors of `poll(2)` except `EINTR`.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit
            .map_or(-1, |limit| libc::c_int::try_from(limit.as_micros().div_ceil(1_000)).unwrap_or(libc::c_int::MAX));
        let count = libc::nfds_t::try_from(self.entries.len()).expect("few");
        // SAFETY: the entries are initialised and `count` is their number; the file descriptors are borrowed for as long
        // as `self`.
        if unsafe { libc::poll(self.entries.as_mut_ptr(), count, limit) } >= 0 {
            return Ok(());
        }
        for entry in &mut self.entries {
            entry.revents = 0;
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
    }

    /// Whether the socket at `index` was ready, broken ones included, when the wait ended.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn is_ready(&self, index: usize) -> bool {
        self.entries[index].revents != 0
    }
}
