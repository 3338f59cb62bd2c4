//! A question to an upstream over UDP: a socket of its own, on a random port, connected.
//!
//! Waits until the true answer is there or the caller gives up: nothing that arrives in between ends the wait, except
//! that after many near misses the question goes over TCP.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{LazyLock, Once},
    time::Duration,
};

use rand::RngExt;
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{Notify, Semaphore, SemaphorePermit},
    time::Instant,
};

use super::message::{Query, Reply};
use crate::dns::forward::observe::{Metrics, Mismatch};

/// An upstream that sends more in one datagram than this ignores our EDNS size of 1,232 bytes several times over.
const RECEIVE_BYTES: usize = 4_096;
/// Near misses after which UDP is not to be trusted for this question.
const NEAR_MISSES_MAX: u32 = 16;
/// Near misses after which nothing more is believed over UDP: each was a guess of 16 bits.
const NEAR_MISSES_LAST: u32 = 1_000;
/// Sockets to upstreams at once; each takes a file descriptor and some 2 KiB.
pub const SOCKETS_MAX: usize = 2_048;
/// Ports tried before the kernel may choose.
const PORT_TRIES: usize = 8;

/// How a wait over UDP ended.
#[derive(Debug)]
pub enum Received {
    Reply(Reply),
    /// Everything fits but the case: forged, or a server that folds case. TCP tells.
    Folded,
    /// Wrong answers keep coming: ask over TCP.
    UnderAttack,
}

/// A query on its way.
#[derive(Debug)]
pub struct Exchange {
    socket: UdpSocket,
    upstream: SocketAddr,
    query: Query,
    /// Sent in turn with `query` when that has no answer.
    plain: Option<Query>,
    resent: u32,
    first_sent: Instant,
    last_sent: Instant,
    answered_plain: bool,
    near_misses: u32,
    _place: SemaphorePermit<'static>,
}

impl Exchange {
    /// Sends `query` to `upstream`; `plain` is the same without EDNS, for a server that may drop queries with it.
    ///
    /// # Errors
    /// The kernel's errors of bind, connect and send.
    pub async fn start(
        upstream: SocketAddr,
        source: Option<IpAddr>,
        query: Query,
        plain: Option<Query>,
    ) -> io::Result<Self> {
        // The caller has the deadline: a question without a socket in time fails like one without an answer.
        let place = SOCKETS.acquire().await.map_err(io::Error::other)?;
        let socket = bind(source.unwrap_or_else(|| any(upstream.ip()))).await?;
        socket.connect(upstream).await?;
        let now = Instant::now();
        match socket.send(query.as_bytes()).await {
            Ok(_) => {}
            // A firewall of this host that drops what is sent says so; on the way it would not. A packet is lost either way.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            socket,
            upstream,
            query,
            plain,
            resent: 0,
            first_sent: now,
            last_sent: now,
            answered_plain: false,
            near_misses: 0,
            _place: place,
        })
    }

    /// Waits for the answer. Each notification of `again` sends the query once more, from the same port. Cancel
    /// safe, and can be called again after [`Received::Folded`] and [`Received::UnderAttack`].
    ///
    /// # Errors
    /// The kernel's errors, ICMP port unreachable among them.
    pub async fn receive(&mut self, again: &Notify, metrics: &Metrics) -> io::Result<Received> {
        loop {
            let received = tokio::select! {
                biased;
                // ICMP errors are told apart from data.
                received = self.socket.async_io(Interest::READABLE | Interest::ERROR, || self.take()) => received?,
                () = again.notified() => {
                    self.send_again(metrics);
                    continue;
                }
            };
            let mismatch = match received {
                Ok((reply, plain)) => {
                    self.answered_plain = plain;
                    return Ok(Received::Reply(reply));
                }
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

    fn send_again(&mut self, metrics: &Metrics) {
        metrics.queries_udp.inc();
        self.resent += 1;
        self.last_sent = Instant::now();
        let plain = self.plain.as_ref().filter(|_| !self.resent.is_multiple_of(2));
        // A packet that cannot be sent is one that was lost.
        let _ = self.socket.try_send(plain.unwrap_or(&self.query).as_bytes());
    }

    /// Reads one datagram; with a reply, whether that is to the query without EDNS. The datagram's room is on the stack for that
    /// long only: a question that waits takes none.
    fn take(&self) -> io::Result<Result<(Reply, bool), Mismatch>> {
        let mut buffer = [0; RECEIVE_BYTES + 1];
        let length = (&*SockRef::from(&self.socket)).read(&mut buffer)?;
        if length > RECEIVE_BYTES {
            return Ok(Err(Mismatch::Oversized));
        }
        let message = &buffer[..length];
        let checked = self.query.check(message, self.query.has_mixed_case());
        let plain = self.plain.as_ref().filter(|_| checked.is_err() && self.resent > 0);
        if let Some(Ok(reply)) = plain.map(|plain| plain.check(message, plain.has_mixed_case())) {
            return Ok(Ok((reply, true)));
        }
        Ok(checked.map(|reply| (reply, false)))
    }

    /// How long the answer took, and whether it is sure which of the queries it answers (Karn).
    pub fn round_trip(&self) -> (Duration, bool) {
        if self.answered_plain {
            return (self.last_sent.elapsed(), true);
        }
        (self.first_sent.elapsed(), self.resent == 0)
    }

    /// Whether the answer is to the query without EDNS.
    pub fn is_answered_plain(&self) -> bool {
        self.answered_plain
    }

    /// Whether so much of what came was wrong that nothing more over UDP is believed.
    pub fn is_hopeless(&self) -> bool {
        self.near_misses >= NEAR_MISSES_LAST
    }
}

/// Sockets to upstreams at once, over all questions. Lowered at the start where the limit of open files is.
static SOCKETS: Semaphore = Semaphore::const_new(SOCKETS_MAX);

/// Lowers the number of sockets to upstreams to `room`; the first call counts.
pub fn limit_sockets(room: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        SOCKETS.forget_permits(SOCKETS_MAX.saturating_sub(room.max(1)));
    });
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

/// The wildcard of the family of `upstream`.
fn any(upstream: IpAddr) -> IpAddr {
    match upstream {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A socket on a random port of `source`.
async fn bind(source: IpAddr) -> io::Result<UdpSocket> {
    for _ in 0..PORT_TRIES {
        let port = rand::rng().random_range(PORTS.clone());
        match UdpSocket::bind((source, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    UdpSocket::bind((source, 0)).await
}
