//! Connections that end when the certificate files no longer accept their peer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;
use webpki::KeyUsage;

use super::{Identity, Tls, verify};

/// A TLS connection between hub and agent. It fails at the first read or write after its peer was revoked or its CA left `ca.crt`;
/// heartbeats make that a matter of seconds.
pub struct Trusted<T> {
    stream: TlsStream<T>,
    tls: Tls,
    /// The trust under which the peer was accepted; `None` once it is not accepted any more.
    accepted: Option<u64>,
}

/// How far trust has come before a handshake; the handshake goes by what [`Tls::current`] says after it.
#[derive(Clone, Copy, Debug)]
pub struct Trust(u64);

impl Tls {
    /// To be called before the handshake of a connection.
    pub fn trusting(&self) -> Trust {
        Trust(self.trust())
    }
}

impl<T> Trusted<T> {
    /// A connection after its handshake.
    pub fn new(tls: Tls, trust: Trust, stream: impl Into<TlsStream<T>>) -> Self {
        Self { stream: stream.into(), tls, accepted: Some(trust.0) }
    }

    pub fn peer(&self) -> Option<Identity> {
        self.state().0.peer_certificates().and_then(verify::identity)
    }

    /// The state of the connection, and what the peer's certificate is for.
    fn state(&self) -> (&CommonState, KeyUsage) {
        match &self.stream {
            TlsStream::Client(stream) => (stream.get_ref().1, KeyUsage::server_auth()),
            TlsStream::Server(stream) => (stream.get_ref().1, KeyUsage::client_auth()),
        }
    }

    fn check(&mut self) -> io::Result<()> {
        let trust = self.tls.trust();
        if self.accepted == Some(trust) {
            return Ok(());
        }
        let refused =
            || io::Error::new(io::ErrorKind::PermissionDenied, "the peer's certificate is not accepted any more");
        self.accepted.take().ok_or_else(refused)?;
        let (state, usage) = self.state();
        if let Err(error) = self.tls.check_again(state.peer_certificates().unwrap_or_default(), usage) {
            let peer = self.peer().map_or_else(String::new, |peer| peer.to_string());
            tracing::warn!(peer, %error, "disconnected: the peer's certificate is not accepted any more");
            return Err(refused());
        }
        self.accepted = Some(trust);
        Ok(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Trusted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Trusted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
