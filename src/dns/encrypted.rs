//! DNS inside TLS, HTTP/2 and QUIC: DoT (RFC 7858), DoH (RFC 8484) and DoQ (RFC 9250).
//!
//! Owns handshakes, HTTP, QUIC streams and padding. Answers come from the same [`Core`](super::server::Core) as over UDP and
//! TCP, and every connection takes a place in TCP's table. Never reads a certificate file: the key comes from the resolver in
//! the configuration.

mod alone;
mod https;
mod quic;

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    server::ResolvesServerCert,
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

pub(super) use self::https::run as https;
use super::{
    Access, BindError, EncryptedConfig, Transport,
    listen::{open_tcp, open_udp},
    tcp::{self, Acceptor, Shared},
};
use crate::sys::DatagramSocket;

/// DoT's protocol name (RFC 7858, 7.1).
const ALPN_TLS: &[u8] = b"dot";
/// HTTP/2, the least DoH takes (RFC 8484, 5.2).
const ALPN_HTTPS: &[u8] = b"h2";
/// DoQ's (RFC 9250, 4.1.1).
const ALPN_QUIC: &[u8] = b"doq";

/// Open sockets of encrypted transports.
#[derive(Debug, Default)]
pub(super) struct Bound {
    streams: Vec<(Transport, SocketAddr, TcpListener)>,
    quic: Vec<(SocketAddr, std::net::UdpSocket)>,
    certificate: Option<Arc<dyn ResolvesServerCert>>,
}

/// Opens every socket of `config`, as [`bind`](super::bind) does.
///
/// # Errors
/// The first address that cannot be listened on.
pub(super) fn bind(config: &EncryptedConfig, join: bool, early: bool) -> Result<Bound, BindError> {
    let mut bound = Bound { certificate: config.certificate.clone(), ..Bound::default() };
    for (transport, addresses) in config.listen() {
        for &address in addresses {
            let fail = |error| BindError::new(transport.as_str(), address, error);
            if transport == Transport::Quic {
                let socket = open_udp(address, join, early).and_then(DatagramSocket::into_std).map_err(fail)?;
                bound.quic.push((socket.local_addr().map_err(fail)?, socket));
            } else {
                let listener = open_tcp(address, join, early).map_err(fail)?;
                bound.streams.push((transport, listener.local_addr().map_err(fail)?, listener));
            }
        }
    }
    Ok(bound)
}

impl Bound {
    /// The addresses listened on, each with its true port.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let streams = self.streams.iter().map(|(transport, address, _)| (*transport, *address));
        streams.chain(self.quic.iter().map(|(address, _)| (Transport::Quic, *address)))
    }

    /// Begins to answer.
    ///
    /// # Panics
    /// If not called on a tokio runtime, or if there are sockets and no certificate.
    pub(super) fn serve(self, shared: &Arc<Shared>, access: &Access) {
        if self.streams.is_empty() && self.quic.is_empty() {
            return;
        }
        let certificate = self.certificate.expect("the configuration gives a certificate where it gives addresses");
        let config = |alpn| {
            let config = tls_config(alpn, Arc::clone(&certificate));
            Arc::new(config.expect("ring has the versions and ciphers asked for, and random bytes"))
        };
        let addresses: Vec<SocketAddr> = self
            .streams
            .iter()
            .map(|(_, address, _)| *address)
            .chain(self.quic.iter().map(|(address, _)| *address))
            .collect();
        let mut guards = access.guards(&addresses).into_iter();
        let (dot, doh) = (config(ALPN_TLS), TlsAcceptor::from(config(ALPN_HTTPS)));
        for (transport, _, listener) in self.streams {
            let acceptor = match transport {
                Transport::Https => Acceptor::Https(doh.clone()),
                _ => Acceptor::Tls(Arc::clone(&dot)),
            };
            tcp::listen(shared, listener, guards.next().flatten(), acceptor);
        }
        let doq = quic::server_config(config(ALPN_QUIC), &shared.config);
        for ((_, socket), guard) in self.quic.into_iter().zip(guards) {
            quic::listen(shared, socket, guard, doq.clone());
        }
    }
}

/// TLS as all three transports have it: no early data (0-RTT), tickets whose key lives in memory alone and is renewed.
fn tls_config(alpn: &[u8], certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = if alpn == ALPN_QUIC { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoCertificate;

    impl ResolvesServerCert for NoCertificate {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
    }

    /// A query in early data could be replayed; tickets of two processes have nothing in common.
    #[test]
    fn there_is_no_early_data_and_each_process_has_a_ticket_key_of_its_own() {
        for alpn in [ALPN_TLS, ALPN_HTTPS, ALPN_QUIC] {
            let made = || tls_config(alpn, Arc::new(NoCertificate)).unwrap();
            let (first, second) = (made(), made());
            assert_eq!(first.max_early_data_size, 0);
            assert_eq!(first.alpn_protocols, [alpn]);
            let ticket = first.ticketer.encrypt(b"session").unwrap();
            assert_eq!(first.ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
            assert_eq!(second.ticketer.decrypt(&ticket), None);
        }
    }
}
