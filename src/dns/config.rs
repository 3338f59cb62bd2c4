//! How the listeners are set up. Owns their limits: each number stands here once, with its reason.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use rustls::server::ResolvesServerCert;

use super::{Access, Transport};

/// A limit: what it is unless configured, what it may be, and why.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    /// Unless configured.
    pub default: T,
    pub min: T,
    pub max: T,
    /// The RFC, or the reason.
    pub source: &'static str,
}

impl<T: PartialOrd + Copy> Bounds<T> {
    /// Whether `value` may be configured.
    pub fn allow(&self, value: T) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

/// UDP workers. The default is what the machine offers, at most 4.
pub const WORKERS: Bounds<usize> =
    Bounds { default: 4, min: 1, max: 64, source: "one thread each; more than the cores gain nothing" };
/// Queries that wait for upstream at once, for each of UDP and TCP.
pub const FORWARDS: Bounds<usize> =
    Bounds { default: 4_096, min: 1, max: 65_536, source: "each keeps its query and a task, about 2 KiB" };
/// Answers over UDP in a second to one public network, where anybody may ask; 0 for no limit.
pub const OPEN_RATE: Bounds<u32> =
    Bounds { default: 50, min: 0, max: 1_000_000, source: "a source address can be forged; more is an attack on it" };
/// TCP connections open at once.
pub const CONNECTIONS: Bounds<usize> =
    Bounds { default: 1_000, min: 1, max: 100_000, source: "RFC 9210, 4.2; each takes a file descriptor" };
/// TCP connections open at once from one address.
pub const CONNECTIONS_PER_SOURCE: Bounds<usize> =
    Bounds { default: 100, min: 1, max: 100_000, source: "RFC 7766, 6.2.2; RFC 9210, 4.2" };
/// Queries of one TCP connection that wait for upstream at once; further ones are not read until one is answered.
pub const IN_FLIGHT: Bounds<usize> =
    Bounds { default: 64, min: 1, max: 4_096, source: "RFC 7766, 6.2.1.1 asks for pipelining, 10 for a bound" };
/// How long a TCP connection without a query stays.
pub const IDLE: Bounds<Duration> = Bounds {
    default: Duration::from_secs(10),
    min: Duration::from_millis(1),
    max: Duration::from_secs(600),
    source: "RFC 7766, 6.2.3: in the order of a few seconds",
};
/// How long the rest of a query that has begun may take over TCP.
pub const PARTIAL: Bounds<Duration> = Bounds {
    default: Duration::from_secs(2),
    min: Duration::from_millis(1),
    max: Duration::from_secs(60),
    source: "RFC 7766, 10: slow senders are an attack",
};
/// How long a TCP client may take no byte of its answers.
pub const WRITE: Bounds<Duration> = Bounds {
    default: Duration::from_secs(5),
    min: Duration::from_millis(1),
    max: Duration::from_secs(60),
    source: "RFC 7766, 10; the time a stub resolver waits",
};

/// How the listeners are set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to answer, over UDP and TCP alike. Port 0 lets the kernel choose one, the same for both.
    pub listen: Vec<SocketAddr>,
    pub workers: usize,
    /// [`FORWARDS`], for each of UDP and TCP.
    pub forwards_max: usize,
    /// Share the ports with another process of this user that does the same, to take over from it. Otherwise a port in
    /// use is an error.
    pub join: bool,
    /// Listen on addresses that no interface has yet, as they come later or come and go.
    pub early: bool,
    /// The allowed clients.
    pub access: Access,
    /// [`OPEN_RATE`].
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
            workers: cores.min(WORKERS.default),
            forwards_max: FORWARDS.default,
            join: false,
            early: false,
            access: Access::default(),
            open_rate: OPEN_RATE.default,
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
    pub connections_max: usize,
    pub connections_per_source_max: usize,
    pub in_flight_max: usize,
    pub idle: Duration,
    pub partial: Duration,
    pub write: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS.default,
            connections_per_source_max: CONNECTIONS_PER_SOURCE.default,
            in_flight_max: IN_FLIGHT.default,
            idle: IDLE.default,
            partial: PARTIAL.default,
            write: WRITE.default,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed() {
        let config = Config::default();
        assert!(WORKERS.allow(config.workers) && config.workers <= WORKERS.default);
        assert!(FORWARDS.allow(config.forwards_max));
        assert!(CONNECTIONS.allow(config.tcp.connections_max));
        assert!(CONNECTIONS_PER_SOURCE.allow(config.tcp.connections_per_source_max));
        assert!(IN_FLIGHT.allow(config.tcp.in_flight_max));
        assert!(IDLE.allow(config.tcp.idle) && PARTIAL.allow(config.tcp.partial) && WRITE.allow(config.tcp.write));
        assert!(!IDLE.allow(Duration::ZERO) && !WORKERS.allow(0));
    }
}
