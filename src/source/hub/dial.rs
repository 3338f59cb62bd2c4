//! Opens connections to hubs.

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::tls::Tls;

/// As on the hub's side: what nobody acknowledges for this long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

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
            let stream = TlsConnector::from(tls.current().client).connect(name, socket).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        }
        .boxed()
    })
}
