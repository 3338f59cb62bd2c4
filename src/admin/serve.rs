//! HTTP/1.1 over a listener, one request a connection, with every connection bounded in number and time.
//!
//! A client that connects and sends nothing, reads nothing or never ends takes a place from itself only: each address has few
//! places, the longest idle connection is evicted for a new one, and the node itself (the kubelet's probes) has places of its
//! own.

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use futures::FutureExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::{peer::Peer, port::Listening};
use crate::{
    limits::{Activity, Capacity, ConnectionSlot, ConnectionTable, Origin},
    sys::{self, Lock},
};

/// Longest time a request's head may take to arrive. A probe sends it with its first packet.
const HEAD: Duration = Duration::from_secs(1);
/// How long requests in progress are waited for at the end.
const GRACE: Duration = Duration::from_secs(1);
/// A pause after an accept that failed for want of resources, which would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections told to go then.
const EXHAUSTED_EVICTED: usize = 8;
/// Longest head of a request, in bytes. Also the least that hyper takes for its buffer.
const HEAD_BYTES: usize = 8 * 1024;
/// Bytes of an answer that the kernel holds for a client; it doubles the number. A scrape has some 100 KiB.
const SEND_ROOM_BYTES: usize = 128 * 1024;
/// How long the addresses of this node are believed.
const NODE_ADDRESSES_AGE: Duration = Duration::from_secs(10);

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct Limits {
    pub capacity: Capacity,
    /// The time from accept to the last byte of the answer.
    pub time: Duration,
    /// Connections closed unread because there were too many.
    pub refused: IntCounter,
    /// Connections closed unread because their address may not ask.
    pub not_allowed: IntCounter,
    /// Networks that may connect besides this node; empty for any.
    pub allow: Vec<IpNet>,
    pub node: NodeAddresses,
}

/// Reads the addresses of this node and of its gateways.
pub type ReadAddresses = fn() -> io::Result<Vec<IpAddr>>;

/// The addresses that the node's own probes come from, read again when they are old. Clones share them.
#[derive(Clone, Debug)]
pub struct NodeAddresses {
    read: ReadAddresses,
    known: Arc<Lock<Option<Known>>>,
}

/// The node's addresses, and the time when they were read.
type Known = (Instant, HashSet<IpAddr>);

impl NodeAddresses {
    pub fn new(read: ReadAddresses) -> Self {
        Self { read, known: Arc::default() }
    }

    fn contain(&self, client: IpAddr) -> bool {
        let mut known = self.known.lock();
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() >= NODE_ADDRESSES_AGE) {
            let addresses = (self.read)().unwrap_or_else(|error| {
                debug!(%error, "cannot read the addresses of this node; only loopback counts as the node");
                Vec::new()
            });
            *known = Some((Instant::now(), addresses.into_iter().collect()));
        }
        known.as_ref().is_some_and(|(_, addresses)| addresses.contains(&client))
    }
}

pub enum Listener {
    Unix(UnixListener),
    Tcp(Listening),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that was accepted and has no place yet.
struct Accepted {
    stream: Box<dyn Stream>,
    /// Its address here and there; none for a unix socket, which only its user can open.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// The peer of a unix socket.
    peer: Option<Peer>,
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            // A name in the abstract namespace is open to all users of the network namespace.
            Self::Unix(listener) => loop {
                let stream = listener.accept().await?.0;
                let Ok(cred) = stream.peer_cred() else { continue };
                if cred.uid() == 0 || sys::own_user() == Some(cred.uid()) {
                    return Ok(Accepted { stream: Box::new(stream), ends: None, peer: Some(Peer::of(&cred)) });
                }
            },
            Self::Tcp(port) => {
                let (stream, peer) = port.listener.accept().await?;
                // Less room only means that the answer is sent in more steps.
                let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_ROOM_BYTES);
                let ends = Some((stream.local_addr().unwrap_or(peer), peer));
                Ok(Accepted { stream: Box::new(stream), ends, peer: None })
            }
        }
    }
}

/// A listener's connections.
struct Server {
    router: Router,
    limits: Limits,
    table: Arc<ConnectionTable>,
}

impl Server {
    /// Serves one connection, if its address may connect and there is a place.
    fn admit(&self, Accepted { stream, ends, peer }: Accepted) -> Option<impl Future<Output = ()> + Send + use<>> {
        let (source, origin) = match ends {
            None => (Ipv4Addr::LOCALHOST.into(), Origin::Node),
            Some((local, peer)) => {
                let source = peer.ip().to_canonical();
                let node =
                    source.is_loopback() || source == local.ip().to_canonical() || self.limits.node.contain(source);
                (source, if node { Origin::Node } else { Origin::Elsewhere })
            }
        };
        let allow = &self.limits.allow;
        if origin == Origin::Elsewhere && !allow.is_empty() && !allow.iter().any(|net| net.contains(&source)) {
            self.limits.not_allowed.inc();
            return None;
        }
        let Ok(slot) = self.table.admit(source, origin) else {
            self.limits.refused.inc();
            return None;
        };
        slot.set(Activity::Receiving);
        let (slot, time) = (Arc::new(slot), self.limits.time);
        let evicted = slot.evicted().clone();
        let refused = self.limits.refused.clone();
        let serving = connection(stream, self.router.clone(), peer, slot);
        Some(async move {
            tokio::select! {
                _ = timeout(time, serving) => {}
                () = evicted.cancelled() => refused.inc(),
            }
        })
    }
}

/// Serves until `stop`, then lets requests in progress end for a moment.
pub async fn serve(listener: Listener, router: Router, limits: Limits, stop: CancellationToken) {
    let table = Arc::new(ConnectionTable::new(limits.capacity));
    let server = Server { router, limits, table };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    server.admit(accepted).map(|serving| connections.spawn(serving));
                }
                Err(error) => {
                    warn!(%error, "a connection to a probe, metrics or admin listener is not accepted; DNS is not affected");
                    server.table.evict(EXHAUSTED_EVICTED);
                    sleep(PAUSE).await;
                }
            },
        }
    }
    // Connections in the kernel's queue are answered: it would reset them.
    while let Some(Ok(accepted)) = listener.accept().now_or_never() {
        server.admit(accepted).map(|serving| connections.spawn(serving));
    }
    drop(listener);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: Box<dyn Stream>, router: Router, peer: Option<Peer>, slot: Arc<ConnectionSlot>) {
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        if let Some(peer) = &peer {
            request.extensions_mut().insert(peer.clone());
        }
        slot.set(Activity::Answering);
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    // A client that went away or sent no HTTP is no event.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::limits_for_tests;

    /// Networks that may probe or scrape besides the node itself.
    #[tokio::test]
    async fn addresses_that_are_not_allowed_are_let_go_unread_and_the_node_never_is() {
        let node = NodeAddresses::new(|| Ok(vec![[192, 0, 2, 9].into()]));
        let limits = limits_for_tests(8, Duration::from_secs(1));
        let here: SocketAddr = "198.51.100.7:9253".parse().unwrap();
        for (allow, client, admitted) in [
            (&["10.0.0.0/8"][..], "10.1.2.3:5", true),
            (&["10.0.0.0/8"], "203.0.113.1:5", false),
            (&["10.0.0.0/8"], "127.0.0.1:5", true),
            (&["10.0.0.0/8"], "198.51.100.7:5", true),
            (&["10.0.0.0/8"], "192.0.2.9:5", true),
            (&["10.0.0.0/8"], "[::ffff:10.1.2.3]:5", true),
            (&["10.0.0.0/8", "203.0.113.0/24"], "203.0.113.1:5", true),
            (&[], "203.0.113.1:5", true),
        ] {
            let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
            let limits = Limits { allow, node: node.clone(), ..limits.clone() };
            let (before, refused) = (limits.not_allowed.get(), limits.not_allowed.clone());
            let table = Arc::new(ConnectionTable::new(limits.capacity));
            let server = Server { router: Router::new(), limits, table };
            let (stream, _client) = tokio::io::duplex(64);
            let ends = Some((here, client.parse().unwrap()));
            let taken = server.admit(Accepted { stream: Box::new(stream), ends, peer: None });
            assert_eq!(taken.is_some(), admitted, "{client}");
            assert_eq!(refused.get() - before, u64::from(!admitted), "{client}");
        }
    }
}
