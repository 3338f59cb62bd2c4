//! What passes between the listeners, `answer()` and the side that asks upstreams.
//!
//! Types only; decides nothing.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Forward, cache::WorkerCache};
use crate::{
    sys::UnixMillis,
    wire::{Cookie, Query, TCP_BYTES_MAX},
};

/// How a query came, which decides how much it can be told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A datagram: limited by the client's EDNS size.
    Udp,
    /// A TCP connection: limited by the two-byte length only, as are all below.
    Tcp,
    /// TLS over TCP (DoT, RFC 7858).
    Tls,
    /// HTTP/2 over TLS (DoH, RFC 8484).
    Https,
    /// A QUIC stream (DoQ, RFC 9250).
    Quic,
}

impl Transport {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];

    /// The most bytes an answer to `query` may have.
    #[must_use]
    #[inline]
    pub fn limit(self, query: &Query<'_>) -> usize {
        if self == Self::Udp { query.udp_limit() } else { TCP_BYTES_MAX }
    }

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServedFrom {
    /// The records, or this server's own rules: refusals, errors and empty answers are its own word too.
    Cluster,
    /// The cache, within its time to live.
    Cache,
    /// The cache, past its time to live (RFC 8767).
    Stale,
    /// An upstream, just now. Also SERVFAIL because no upstream answered.
    Upstream,
    /// A record pinned by an operator.
    Pinned,
}

impl ServedFrom {
    /// Every one, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Cache, Self::Stale, Self::Upstream, Self::Pinned];

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Upstream => "upstream",
            Self::Pinned => "pinned",
        }
    }
}

/// A query that the records cannot answer alone, on its way to an upstream.
#[derive(Clone, Debug)]
pub struct ForwardRequest {
    /// The client's message, whole; `answer()` has parsed it without fault.
    pub query: Vec<u8>,
    pub transport: Transport,
    pub client: SocketAddr,
    /// When it came; the time budget counts from here.
    pub received: Instant,
    /// The cookie to go into the answer.
    pub cookie: Option<Cookie>,
    /// Why `answer()` could not answer alone.
    pub forward: Forward,
    /// The complete answer if upstreams fail, for [`Forward::Chase`] and [`Forward::Complete`]; else empty.
    pub written: Vec<u8>,
}

/// The answer to a [`ForwardRequest`].
#[derive(Clone, Debug)]
pub struct Resolved {
    /// A complete message for the client: its id, its question, its EDNS state, within its size.
    pub message: Vec<u8>,
    pub from: ServedFrom,
}

/// Whoever answers what the records cannot: the forwarder, or a script in tests.
pub trait Resolve: Send + Sync + 'static {
    /// Answers within the time budget, always: failures become SERVFAIL.
    ///
    /// Dropping the future gives up the client, not an exchange that others wait for.
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved>;

    /// Room for one thread to keep answers in, for [`cached`](Self::cached). By default there is none.
    fn worker_cache(&self) -> WorkerCache {
        WorkerCache::none()
    }

    /// Writes the answer to `query`, which came at `now`, into `out` if it is at hand, and returns its length.
    ///
    /// What it may keep of it goes to `worker_cache`, which came from [`worker_cache`](Self::worker_cache) or is [`WorkerCache::none`]. Called on the thread that serves the client: it neither waits nor allocates. `None` means to go on with
    /// [`resolve`](Self::resolve), also when `out` is too small.
    fn cached(
        &self,
        query: &Query<'_>,
        transport: Transport,
        now: UnixMillis,
        worker_cache: &mut WorkerCache,
        out: &mut [u8],
    ) -> Option<(usize, ServedFrom)> {
        let _ = (query, transport, now, worker_cache, out);
        None
    }
}
