//! When bytes last came in on a connection: a large frame on a slow line is no silence. And why none come any more, which the layers
//! above do not pass on.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::sys::Lock;

/// When bytes last came in, and the error that ended that.
#[derive(Clone, Debug)]
pub(super) struct LastRead(Arc<Lock<(Instant, Option<String>)>>);

impl LastRead {
    pub(super) fn now() -> Self {
        Self(Arc::new(Lock::new((Instant::now(), None))))
    }

    pub(super) fn at(&self) -> Instant {
        self.0.lock().0
    }

    /// Why nothing can be read any more.
    pub(super) fn error(&self) -> Option<String> {
        self.0.lock().1.clone()
    }
}

pub(super) struct TrackedIo<T> {
    io: T,
    last_read: LastRead,
}

impl<T> TrackedIo<T> {
    pub(super) fn new(io: T, last_read: LastRead) -> Self {
        Self { io, last_read }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TrackedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.last_read.0.lock().0 = Instant::now();
        }
        if let Err(error) = &read {
            self.last_read.0.lock().1 = Some(error.to_string());
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TrackedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
