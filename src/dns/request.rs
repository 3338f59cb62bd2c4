//! The types that pass between the listeners, `answer()` and the side that asks upstreams.
//!
//! Types only; decides nothing.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Forward, cache::WorkerCache};
use crate::{
    sys::{UnixMillis, labels},
    wire::{Cookie, Query, TCP_BYTES_MAX},
};

labels! {
    /// How a query came; this bounds the length of its answer.
    pub enum Transport {
        /// A datagram: limited by the client's EDNS size.
        Udp = "udp",
        /// A TCP connection: limited by the two-byte length only, as are all below.
        Tcp = "tcp",
        /// TLS over TCP (DoT, RFC 7858).
        Tls = "tls",
        /// HTTP/2 over TLS (DoH, RFC 8484).
        Https = "https",
        /// A QUIC stream (DoQ, RFC 9250).
        Quic = "quic",
    }
}

impl Transport {
    /// The most bytes an answer to `query` may have.
    #[inline]
    pub fn limit(self, query: &Query<'_>) -> usize {
        if self == Self::Udp { query.udp_limit() } else { TCP_BYTES_MAX }
    }
}

labels! {
    /// Where an answer came from.
    pub enum ServedFrom {
        /// The records, or this server's own rules: refusals, errors and empty answers are its own word too.
        Cluster = "cluster",
        /// The cache, within its time to live.
        Cache = "cache",
        /// The cache, past its time to live (RFC 8767).
        Stale = "stale",
        /// An upstream, just now. Also SERVFAIL because no upstream answered.
        Upstream = "upstream",
        /// A record pinned by an operator.
        Pinned = "pinned",
    }
}

/// The client of a question, and the way it came.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: SocketAddr,
    /// The listener; its address is unspecified if it is for all addresses.
    pub server: SocketAddr,
    pub transport: Transport,
    /// Of the query's header.
    pub id: u16,
    pub recursion_desired: bool,
    /// Of the query.
    pub bytes: usize,
    /// The largest answer over UDP that the client takes; `None` without EDNS.
    pub payload: Option<u16>,
}

/// A query that the records cannot answer alone, on its way to an upstream.
#[derive(Clone, Debug)]
pub struct ForwardRequest {
    /// The client's message, whole; `answer()` has parsed it without fault.
    pub query: Vec<u8>,
    pub transport: Transport,
    pub client: SocketAddr,
    /// The address of the listener it came to.
    pub server: SocketAddr,
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
    /// A complete message for the client, within the size it takes. Empty if the client gets none.
    pub message: Vec<u8>,
    pub from: ServedFrom,
}

/// Answers queries that the records cannot: the forwarder, or a script in tests.
pub trait Resolve: Send + Sync + 'static {
    /// Answers within the time budget, always: failures become SERVFAIL.
    ///
    /// Dropping the future gives up the client, not an exchange that others wait for.
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved>;

    /// Room for one thread to keep answers in, for [`cached`](Self::cached). By default there is none.
    fn worker_cache(&self) -> WorkerCache {
        WorkerCache::none()
    }

    /// Writes the cached answer to `query`, which came at `now`, into `out`, and returns its length. `None`, also when `out` is too
    /// small: go on with [`resolve`](Self::resolve).
    ///
    /// A copy may go to `worker_cache`, which came from [`worker_cache`](Self::worker_cache) or is [`WorkerCache::none`]. Called on
    /// the thread that serves the client: it neither waits nor allocates.
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
