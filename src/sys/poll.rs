//! Waiting for several sockets from a plain thread.

use std::{io, os::fd::BorrowedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
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
pub struct Poll<'a>(Vec<PollFd<'a>>);

impl<'a> Poll<'a> {
    /// Waits for these, in this order.
    pub fn new(sockets: impl IntoIterator<Item = (BorrowedFd<'a>, Interest)>) -> Self {
        let entry = |(socket, interest)| {
            let events = if interest == Interest::Read { PollFlags::IN } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(socket, events)
        };
        Self(sockets.into_iter().map(entry).collect())
    }

    /// Waits until one of them is ready, at most `limit` (`None`: for ever). A signal ends the wait early.
    ///
    /// # Errors
    /// The errors of `poll(2)` except `EINTR`.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match rustix::event::poll(&mut self.0, limit.as_ref()) {
            Err(Errno::INTR) => self.0.iter_mut().for_each(PollFd::clear_revents),
            outcome => drop(outcome?),
        }
        Ok(())
    }

    /// Whether the socket at `index` was ready, broken ones included, when the wait ended.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn is_ready(&self, index: usize) -> bool {
        !self.0[index].revents().is_empty()
    }
}
