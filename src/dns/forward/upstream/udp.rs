//! One question to one upstream over UDP: a socket of its own, on a random port, connected.
//!
//! Waits until the true answer is there or the caller gives up: nothing that arrives in between ends the wait, except
//! that after many near misses the question goes over TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::LazyLock,
};

use rand::RngExt;
use tokio::net::UdpSocket;

use super::message::{Query, Reply};
use crate::dns::forward::observe::{Metrics, Mismatch};

/// An upstream that sends more in one datagram than this ignores our EDNS size of 1,232 bytes several times over.
const RECEIVE_BYTES: usize = 4_096;
/// Near misses after which UDP is not to be trusted for this question.
const NEAR_MISSES_MAX: u32 = 16;
/// Ports tried before the kernel may choose.
const PORT_TRIES: usize = 8;

/// How a wait over UDP ended.
#[derive(Debug)]
pub enum Received {
    Reply(Reply),
    /// Everything fits but the case: forged, or a server that folds case. TCP tells.
    Folded,
    /// Somebody keeps guessing: ask over TCP.
    UnderAttack,
}

/// A query on its way.
#[derive(Debug)]
pub struct Exchange {
    socket: UdpSocket,
    upstream: SocketAddr,
    query: Query,
    exact_case: bool,
    near_misses: u32,
}

impl Exchange {
    /// Sends `query` to `upstream`.
    ///
    /// # Errors
    /// What the kernel says to bind, connect or send.
    pub async fn start(upstream: SocketAddr, query: Query) -> io::Result<Self> {
        let socket = bind(upstream.ip()).await?;
        socket.connect(upstream).await?;
        match socket.send(query.as_bytes()).await {
            Ok(_) => {}
            // A firewall of this host that drops what is sent says so; on the way it would not. A packet is lost either way.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
        let exact_case = query.has_mixed_case();
        Ok(Self { socket, upstream, query, exact_case, near_misses: 0 })
    }

    /// Waits for the answer. Cancel safe, and can be called again after [`Received::Folded`].
    ///
    /// # Errors
    /// What the kernel says, an ICMP port unreachable among it.
    pub async fn receive(&mut self, metrics: &Metrics) -> io::Result<Received> {
        let mut buffer = [0; RECEIVE_BYTES + 1];
        loop {
            let length = self.socket.recv(&mut buffer).await?;
            let checked = if length > RECEIVE_BYTES {
                Err(Mismatch::Oversized)
            } else {
                self.query.check(&buffer[..length], self.exact_case)
            };
            let mismatch = match checked {
                Ok(reply) => return Ok(Received::Reply(reply)),
                Err(mismatch) => mismatch,
            };
            metrics.mismatch(mismatch, &self.upstream);
            self.near_misses += 1;
            if self.near_misses >= NEAR_MISSES_MAX {
                return Ok(Received::UnderAttack);
            }
            if mismatch == Mismatch::Case {
                return Ok(Received::Folded);
            }
        }
    }
}

/// The ports the kernel hands out: others are left to the services of the node.
static PORTS: LazyLock<RangeInclusive<u16>> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().filter_map(|word| word.parse::<u16>().ok());
    match (words.next(), words.next()) {
        (Some(low), Some(high)) if low >= 1024 && high > low => low..=high,
        _ => 32_768..=60_999,
    }
});

/// A socket on a random port of the family of `upstream`.
async fn bind(upstream: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match upstream {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    for _ in 0..PORT_TRIES {
        let port = rand::rng().random_range(PORTS.clone());
        match UdpSocket::bind((any, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    UdpSocket::bind((any, 0)).await
}
