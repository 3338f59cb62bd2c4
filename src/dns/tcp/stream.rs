//! The bytes of a connection: plain, or inside TLS (DoT, RFC 7858).
//!
//! Either way nothing here waits for the network but [`Stream::readable`] and [`Stream::writable`].

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::sys::unacknowledged_bytes;

/// Bytes that are read at once. Memory for a long query grows only as its bytes come.
const READ_BYTES: usize = 4 * 1024;
/// Bytes that TLS may hold for the client.
const TLS_BUFFER_BYTES: usize = 16 * 1024;

#[expect(clippy::large_enum_variant, reason = "a connection is on the heap, and has one of these for life")]
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(TcpStream, ServerConnection),
}

impl Stream {
    /// The server's side of a handshake that is still to come.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    #[cfg_attr(not(feature = "encrypted"), expect(dead_code, reason = "for DoT"))]
    pub(super) fn tls(stream: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        Ok(Self::Tls(stream, tls))
    }

    fn socket(&self) -> &TcpStream {
        let (Self::Plain(stream) | Self::Tls(stream, _)) = self;
        stream
    }

    /// The server's end; unspecified if it is gone.
    pub(super) fn address(&self) -> SocketAddr {
        self.socket().local_addr().unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into())
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Tls(_, tls) if tls.is_handshaking())
    }

    /// Whether there are bytes of TLS's own that the client has not taken yet.
    pub(super) fn has_pending(&self) -> bool {
        matches!(self, Self::Tls(_, tls) if tls.wants_write())
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket().readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// Reads at most [`READ_BYTES`] more of what the client said into `buffer`; 0 at its end.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet; `InvalidData` if it is no TLS.
    pub(super) fn try_read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                buffer.reserve(READ_BYTES);
                stream.try_read_buf(buffer)
            }
            Self::Tls(stream, tls) => read_tls(tls, &mut Announced(stream), buffer),
        }
    }

    /// As [`try_read`](Self::try_read), but asks the kernel itself: what has come may not have been announced to the runtime
    /// yet.
    ///
    /// # Errors
    /// As there.
    pub(super) fn try_read_now(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let mut bytes = [0; READ_BYTES];
                let length = (&*SockRef::from(&*stream)).read(&mut bytes)?;
                buffer.extend_from_slice(&bytes[..length]);
                Ok(length)
            }
            Self::Tls(stream, tls) => read_tls(tls, &mut Queued(stream), buffer),
        }
    }

    /// Sends what the client takes of `bytes` without waiting. Bytes that TLS holds for it count as sent.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(stream, tls) => {
                let taken = tls.writer().write(bytes)?;
                match flush(tls, stream) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ if taken > 0 => Ok(taken),
                    flushed => flushed.and(Err(io::ErrorKind::WouldBlock.into())),
                }
            }
        }
    }

    /// Sends what TLS holds for the client, as far as it takes it.
    ///
    /// # Errors
    /// `WouldBlock` if it takes no more now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream, tls) => flush(tls, stream),
        }
    }

    /// Bytes sent that the client has not acknowledged.
    pub(super) fn unacknowledged_bytes(&self) -> usize {
        unacknowledged_bytes(self.socket())
    }

    /// Lets the end of the connection be a reset, which throws away what the client has not taken.
    pub(super) fn reset_at_close(&self) {
        let _ = SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }

    /// Sends the end of the TLS session, if there is one. Does not wait.
    pub(super) fn close(&mut self) {
        if let Self::Tls(stream, tls) = self {
            tls.send_close_notify();
            // A client that takes nothing does without.
            let _ = flush(tls, stream);
        }
    }
}

/// Reads from the client until there are decrypted bytes, and takes all of them: the socket does not tell of those that TLS
/// has read already. They are fewer than its buffer of 18 KiB holds.
fn read_tls(tls: &mut ServerConnection, from: &mut dyn Wire, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let received = tls.read_tls(from)?;
        let processed = tls.process_new_packets();
        // The handshake goes on, or an alert says what is wrong.
        let flushed = flush(tls, from.stream());
        let state = processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Err(error) = flushed
            && error.kind() != io::ErrorKind::WouldBlock
        {
            return Err(error);
        }
        let decrypted = state.plaintext_bytes_to_read();
        if decrypted > 0 {
            let before = buffer.len();
            buffer.resize(before + decrypted, 0);
            tls.reader().read_exact(&mut buffer[before..])?;
            return Ok(decrypted);
        }
        // An end without a goodbye is an end all the same: a message that was cut off is seen by its length.
        if received == 0 || state.peer_has_closed() {
            return Ok(0);
        }
    }
}

fn flush(tls: &mut ServerConnection, stream: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut Announced(stream))?;
    }
    Ok(())
}

/// A socket as TLS reads and writes it, without waiting.
trait Wire: Read {
    fn stream(&self) -> &TcpStream;
}

/// As the runtime was told that it is ready.
struct Announced<'a>(&'a TcpStream);

impl Read for Announced<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl Write for Announced<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Announced<'_> {
    fn stream(&self) -> &TcpStream {
        self.0
    }
}

/// As the kernel says.
struct Queued<'a>(&'a TcpStream);

impl Read for Queued<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(self.0)).read(bytes)
    }
}

impl Wire for Queued<'_> {
    fn stream(&self) -> &TcpStream {
        self.0
    }
}
