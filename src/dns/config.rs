//! How the listeners are set up, and their limits with the reasons.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use rustls::server::ResolvesServerCert;

use super::{Access, Transport};

/// How the listeners are set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to answer, over UDP and TCP alike. Port 0 lets the kernel choose one, the same for both.
    pub listen: Vec<SocketAddr>,
    /// UDP workers, one thread each; more than the cores gain nothing.
    pub workers: usize,
    /// Queries that wait for upstream at once, for each of UDP and TCP; each keeps its query and a task, about 2 KiB.
    pub forwards_max: usize,
    /// Share the ports with another process of this user that does the same, to take over from it. Otherwise a port in
    /// use is an error.
    pub join: bool,
    /// Listen on addresses that no interface has yet, as they come later or come and go.
    pub early: bool,
    /// The allowed clients.
    pub access: Access,
    /// Maximum UDP answers per second to one public network, at addresses that answer every client; 0 for no limit. A source
    /// address can be forged: more answers would be an attack on it.
    pub open_rate: u32,
    /// For encrypted transports as well.
    pub tcp: TcpConfig,
    pub encrypted: EncryptedConfig,
}

impl Default for Config {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 53))],
            workers: cores.min(4),
            forwards_max: 4_096,
            join: false,
            early: false,
            access: Access::default(),
            open_rate: 50,
            tcp: TcpConfig::default(),
            encrypted: EncryptedConfig::default(),
        }
    }
}

/// Where encrypted DNS is answered, and with which key.
#[derive(Clone, Debug, Default)]
pub struct EncryptedConfig {
    pub tls: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    pub quic: Vec<SocketAddr>,
    /// Gives the certificate of a handshake; asked each time, so a renewed one is used at once. Needed if there are addresses.
    pub certificate: Option<Arc<dyn ResolvesServerCert>>,
}

impl EncryptedConfig {
    /// The addresses of each transport.
    pub fn listen(&self) -> [(Transport, &[SocketAddr]); 3] {
        [(Transport::Tls, &self.tls), (Transport::Https, &self.https), (Transport::Quic, &self.quic)]
    }

    /// Whether nothing encrypted is served.
    pub fn is_empty(&self) -> bool {
        self.listen().iter().all(|(_, addresses)| addresses.is_empty())
    }
}

/// How TCP connections are treated.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Open at once (RFC 9210, 4.2); each takes a file descriptor.
    pub connections_max: usize,
    /// Open at once from one address (RFC 7766, 6.2.2; RFC 9210, 4.2).
    pub connections_per_source_max: usize,
    /// Queries of one connection that wait for upstream at once; further ones are not read until one is answered (RFC 7766,
    /// 6.2.1.1 asks for pipelining, 10 for a bound).
    pub in_flight_max: usize,
    /// How long a connection without a query stays (RFC 7766, 6.2.3: in the order of a few seconds).
    pub idle: Duration,
    /// How long the rest of a query that has begun may take (RFC 7766, 10: slow senders are an attack).
    pub partial: Duration,
    /// How long a client may take no byte of its answers: the time a stub resolver waits (RFC 7766, 10).
    pub write: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            connections_max: 1_000,
            connections_per_source_max: 100,
            in_flight_max: 64,
            idle: Duration::from_secs(10),
            partial: Duration::from_secs(2),
            write: Duration::from_secs(5),
        }
    }
}
