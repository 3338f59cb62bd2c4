//! Opens connections to hubs.

use std::{io, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::last_read::{LastRead, TrackedIo};
use crate::tls::{Tls, Trusted};

/// As on the hub's side: a connection with bytes unacknowledged for this long is closed.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// Window over which connections are received: a snapshot fits without waiting for the reader.
const WINDOW_BYTES: u32 = 1 << 20;

/// A connection, whatever it runs over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens a connection to HOST:PORT.
pub type Dial = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Dials TCP, then TLS. Without certificates only loopback is dialled.
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

/// Why no connection was made. Of a certificate, rustls shows the name of its error alone.
fn in_words(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(certificate)) = inner else { return error.to_string() };
    match certificate {
        CertificateError::BadSignature | CertificateError::UnknownIssuer => {
            "the hub's certificate is not signed by the CA in ca.crt of this process".into()
        }
        CertificateError::Expired => "the hub's certificate is expired: renew it".into(),
        CertificateError::NotValidYet => "the hub's certificate is not valid yet: compare the clocks".into(),
        CertificateError::Revoked => "the hub's certificate is revoked: its serial number is in ca.crl".into(),
        _ => error.to_string(),
    }
}

/// A connection as a channel; it never reconnects by itself.
pub(super) async fn connect(dial: &Dial, address: &str, last_read: LastRead) -> Result<Channel, String> {
    let io = dial(address.to_owned()).await.map_err(|error| in_words(&error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_told_in_words() {
        let told = |error: CertificateError| {
            let error = rustls::Error::InvalidCertificate(error);
            in_words(&io::Error::new(io::ErrorKind::InvalidData, error))
        };
        let of_another_ca = "the hub's certificate is not signed by the CA in ca.crt of this process";
        for error in [CertificateError::BadSignature, CertificateError::UnknownIssuer] {
            assert_eq!(told(error), of_another_ca);
        }
        assert_eq!(told(CertificateError::Expired), "the hub's certificate is expired: renew it");
        assert_eq!(told(CertificateError::BadEncoding), "invalid peer certificate: BadEncoding");
        assert_eq!(in_words(&io::Error::other("refused")), "refused");
    }
}
