//! Opens connections to hubs.

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::last_read::{LastRead, TrackedIo};
use crate::tls::{Tls, Trusted};

/// As on the hub's side: what nobody acknowledges for this long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// Window over which connections are received: a snapshot fits without waiting for the reader.
const WINDOW_BYTES: u32 = 1 << 20;

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens a connection to HOST:PORT.
pub type Dial = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Dials TCP, then TLS. Without certificates only loopback is dialled.
#[must_use]
pub fn dial(tls: Option<Tls>) -> Dial {
    Arc::new(move |address| {
        let tls = tls.clone();
        async move {
            let socket = TcpStream::connect(&address).await?;
            socket.set_nodelay(true)?;
            socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
            let Some(tls) = tls else {
                if !socket.peer_addr()?.ip().is_loopback() {
                    return Err(io::Error::other("following a hub without TLS is for loopback only"));
                }
                return Ok(Box::new(socket) as Box<dyn Io>);
            };
            // The name plays no part: the verifier looks at the URI in the certificate.
            let name = ServerName::try_from("holdfast.invalid").map_err(io::Error::other)?;
            let trust = tls.trusting();
            let stream = TlsConnector::from(tls.current().client).connect(name, socket).await?;
            Ok(Box::new(Trusted::new(tls, trust, stream)) as Box<dyn Io>)
        }
        .boxed()
    })
}

/// A connection as a channel; it never reconnects by itself.
pub(super) async fn connect(dial: &Dial, address: &str, last_read: LastRead) -> Result<Channel, String> {
    let io = dial(address.to_owned()).await.map_err(|error| error.to_string())?;
    let mut once = Some(TokioIo::new(TrackedIo::new(io, last_read)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = once.take().ok_or_else(|| io::Error::other("connection broke off, or what came was no HTTP/2"));
        async move { io }
    });
    Endpoint::from_static("http://holdfast.invalid")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.to_string())
}
