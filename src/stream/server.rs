//! Accepts connections and serves the one call on them.

mod admission;
mod grpc;
mod listen;
mod of_nodes;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::listen::{Bound, bind};
use self::{
    admission::Admission,
    grpc::{HELLO_BYTES_MAX, ReplyBody, code, ended, message, reply, status},
    of_nodes::OfNodes,
};
use super::{
    Beside, Config, Metrics, Surroundings, choose::refusal, fanout::Fanout, metrics::Refused, subscriber::Subscriber,
};
use crate::{
    limits::{ConnectionSlot, FairShares, Origin},
    proto::{FOLLOW_PATH, Hello, STATE_PATH, StateRequest, framed},
    store::Reader,
    sys::{Clock, Lock},
    tls::{Part, Tls, Trusted},
};

/// How long a client may take to send it, and to make its first call.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a client may take to begin its handshake: until then it costs a socket.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// Unfinished connections told to go when the system has no descriptor left.
const EXHAUSTED_EVICTED: usize = 16;
/// Bytes of a peer's name that are logged.
const NAME_LOGGED_MAX: usize = 253;
/// Most bytes that TLS has encrypted for a client that does not take them: one record and what follows it. What waits
/// before it is shared by all.
const ENCRYPTED_BYTES_MAX: usize = 20 << 10;
/// The other end of a connection.
struct Peer {
    /// The part its certificate allows.
    part: Option<Part>,
    /// The node its certificate names.
    node: Option<Arc<str>>,
    source: IpAddr,
}

/// The environment of the stream server.
pub struct Parts {
    pub reader: Reader,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Certificates; `None` serves in the clear, which the caller allows on loopback only.
    pub tls: Option<Tls>,
    /// The hubs that this hub follows or knows.
    pub surroundings: watch::Receiver<Surroundings>,
    /// Hubs beside this one, as far as they are heard of.
    pub beside: Beside,
}

/// A running server, for whatever transport. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    fanout: Arc<Fanout>,
    tls: Option<Tls>,
    admission: Arc<Admission>,
    connections: Arc<FairShares>,
    of_nodes: Arc<OfNodes>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// A server that listens nowhere: connections are handed to [`Self::connection`].
    pub fn new(config: Config, parts: Parts) -> Self {
        let admission = Arc::new(Admission::new(&config));
        let connections = Arc::new(FairShares::new(config.connections_max));
        Self {
            fanout: Fanout::new(config, parts.metrics, parts.reader, parts.clock, parts.surroundings, parts.beside),
            tls: parts.tls,
            admission,
            connections,
            of_nodes: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Turns what the store publishes into frames, until the drain is over.
    pub async fn pump(&self) {
        self.fanout.pump(self.stop.clone()).await;
    }

    async fn accept(&self, listener: TcpListener, stop: CancellationToken) {
        loop {
            let (socket, peer) = tokio::select! {
                () = stop.cancelled() => return,
                // A connection that is not admitted yet waits in the system's backlog, where it costs next to nothing.
                accepted = async {
                    self.admission.turn().await;
                    listener.accept().await
                } => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, mostly.
                        tracing::warn!(%error, "cannot accept an agent or hub; those connected are served");
                        self.admission.unfinished.evict(EXHAUSTED_EVICTED);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let Ok(unfinished) = self.admission.unfinished.admit(peer.ip(), Origin::Elsewhere) else {
                self.fanout.metrics.refused(Refused::Full);
                continue;
            };
            let server = self.clone();
            self.tasks.spawn(async move { server.handshake(socket, peer.ip(), unfinished).await });
        }
    }

    async fn handshake(&self, socket: TcpStream, source: IpAddr, unfinished: ConnectionSlot) {
        let unfinished = Arc::new(unfinished);
        let serving = match &self.tls {
            None => self.connection_of(Peer { part: None, node: None, source }, Some(unfinished), socket),
            // In a box that is gone before the stream begins: a handshake takes as much memory as a stream, and one lives for
            // a moment, the other for days.
            Some(tls) => match Box::pin(self.shake_hands(tls, socket, source, unfinished.evicted())).await {
                Some(stream) => {
                    let (part, node) = stream.peer().map(|peer| (peer.part, peer.node)).unzip();
                    let peer = Peer { part, node: node.flatten().map(Into::into), source };
                    self.connection_of(peer, Some(unfinished), stream)
                }
                None => return self.fanout.metrics.refused(Refused::Handshake),
            },
        };
        serving.await;
    }

    /// `None` if it fails, takes too long, or is the oldest when another connection needs its slot.
    async fn shake_hands(
        &self,
        tls: &Tls,
        socket: TcpStream,
        source: IpAddr,
        evicted: &CancellationToken,
    ) -> Option<Trusted<TcpStream>> {
        let shaking = async {
            // A client that says nothing takes no place from those that do.
            timeout(FIRST_WORD, socket.readable()).await.ok()?.ok()?;
            let mut place = Some(self.admission.places.take(source).await);
            let trust = tls.trusting();
            let accept = TlsAcceptor::from(tls.current().server)
                .accept_with(socket, |session| session.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX)));
            let mut accept = std::pin::pin!(timeout(self.fanout.config.handshake_timeout, accept));
            let accepted = tokio::select! {
                accepted = &mut accept => accepted,
                () = self.admission.place_ends() => {
                    // It waits for its client, not for us.
                    place = None;
                    accept.await
                }
            };
            drop(place);
            match accepted.ok()? {
                Ok(stream) => Some(Trusted::new(tls.clone(), trust, stream)),
                Err(error) => {
                    if let Some(left_out) = self.admission.handshake_log.claim() {
                        tracing::warn!(
                            %source, %error, left_out,
                            "an agent or hub is not served: the TLS handshake failed; look at the certificates of both"
                        );
                    }
                    None
                }
            }
        };
        tokio::select! {
            stream = shaking => stream,
            () = evicted.cancelled() => None,
        }
    }

    /// Serves one connection until it ends. For transports that admit only allowed peers.
    pub async fn connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let peer = Peer { part: None, node: None, source: Ipv4Addr::LOCALHOST.into() };
        self.connection_of(peer, None, io).await;
    }

    /// `unfinished` is given up with the first call.
    fn connection_of<I>(
        &self,
        Peer { part, node, source }: Peer,
        unfinished: Option<Arc<ConnectionSlot>>,
        io: I,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let metrics = self.fanout.metrics.clone();
        let of_node = node.map(|node| self.of_nodes.take(node));
        let (Some(place), None | Some(Some(_))) = (self.connections.take(source), &of_node) else {
            metrics.refused(Refused::Full);
            return Box::pin(std::future::ready(()));
        };
        metrics.connections.inc();
        let evicted = unfinished.as_ref().map(|slot| slot.evicted().clone());
        let unfinished = Arc::new(Lock::new(unfinished));
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (server, asked) = (self.clone(), Arc::clone(&asked));
            move |request| {
                asked.store(true, Ordering::Relaxed);
                drop(unfinished.lock().take());
                let server = server.clone();
                // In a box that is gone once there is a reply, which goes on for days.
                Box::pin(async move { Ok::<_, Infallible>(server.call(part, source, request).await) })
            }
        });
        let mut serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // A stream, and the next while the last is torn down.
            .max_concurrent_streams(4)
            .max_header_list_size(8 << 10)
            .header_table_size(0)
            .initial_stream_window_size(u32::try_from(HELLO_BYTES_MAX).expect("small"))
            .initial_connection_window_size(64 << 10)
            // As much as TLS has ahead: of what waits here HTTP/2 keeps a table, whose room is never given back.
            .max_send_buf_size(16 << 10)
            .serve_connection(TokioIo::new(io), service);
        Box::pin(async move {
            let mut never = std::pin::pin!(never_asked(Arc::clone(&asked), evicted));
            // By hand, because a connection pinned by `select!` is held twice: as what was moved in, and as what is polled.
            std::future::poll_fn(|cx| {
                if Pin::new(&mut serving).poll(cx).is_ready() {
                    if !asked.load(Ordering::Relaxed) {
                        metrics.refused(Refused::Request);
                    }
                    return Poll::Ready(());
                }
                ready!(never.as_mut().poll(cx));
                metrics.refused(Refused::Request);
                Poll::Ready(())
            })
            .await;
            metrics.connections.dec();
            drop((place, of_node));
        })
    }

    async fn call(&self, part: Option<Part>, source: IpAddr, request: Request<Incoming>) -> Response<ReplyBody> {
        let metrics = &self.fanout.metrics;
        if request.method() == Method::POST && request.uri().path() == STATE_PATH {
            if part != Some(Part::Agent)
                && let Some(asks) = message::<StateRequest, _>(request.into_body(), HELLO_WAIT).await
            {
                self.fanout.beside.asked(&asks.serves);
            }
            let frame = framed(&self.fanout.reply());
            let frames = [Ok(Frame::data(frame)), Ok(Frame::trailers(status(code::OK, "")))];
            return reply(StreamBody::new(futures::stream::iter(frames)).boxed_unsync(), HeaderMap::new());
        }
        if request.method() != Method::POST || request.uri().path() != FOLLOW_PATH {
            metrics.refused(Refused::Request);
            return ended(code::UNIMPLEMENTED, "the calls here are Follow and State");
        }
        let Some(hello) = message::<Hello, _>(request.into_body(), HELLO_WAIT).await else {
            metrics.refused(Refused::Request);
            return ended(code::INVALID_ARGUMENT, "no greeting came");
        };
        if !hello.serves.is_empty() && part == Some(Part::Agent) {
            // Its address would be passed on to everybody.
            metrics.refused(Refused::Request);
            let (peer, serves) = (loggable(&hello.node), loggable(&hello.serves));
            tracing::warn!(peer, serves, "refused a hub that has an agent's certificate: give it one of a hub");
            return ended(code::FAILED_PRECONDITION, "who serves others needs the certificate of a hub");
        }
        let path = self.fanout.path();
        let (node, upstream) = path.split_first().expect("our own name comes first");
        if let Some(reason) = refusal(&hello, node, upstream) {
            metrics.refused(Refused::Loop);
            tracing::warn!(peer = loggable(&hello.node), %reason, "refused an agent or hub");
            return ended(code::FAILED_PRECONDITION, &reason);
        }
        let subscriber = Subscriber::new(Arc::clone(&self.fanout), &hello, source, self.stop.clone());
        let frames = futures::stream::unfold(subscriber, |mut subscriber| async move {
            subscriber.next().await.map(|frame| (Ok(Frame::data(frame)), subscriber))
        });
        let end = futures::stream::once(async { Ok(Frame::trailers(status(code::OK, ""))) });
        reply(StreamBody::new(frames.chain(end)).boxed_unsync(), HeaderMap::new())
    }

    /// Sends clients elsewhere and waits for them to go.
    pub async fn drain(&self) {
        let window = self.fanout.config.drain;
        self.fanout.drain(window);
        self.tasks.close();
        let deadline = Instant::now() + window + Duration::from_millis(500);
        while self.fanout.metrics.subscribers.get() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.stop.cancel();
    }
}

/// A name from a peer, escaped and no longer than a name can be.
fn loggable(name: &str) -> String {
    let mut text: String = name.chars().take(NAME_LOGGED_MAX).flat_map(char::escape_default).collect();
    if name.chars().nth(NAME_LOGGED_MAX).is_some() {
        text.push('…');
    }
    text
}

/// Resolves if a connection lets its first call wait too long, or is `evicted` before that.
async fn never_asked(asked: Arc<AtomicBool>, evicted: Option<CancellationToken>) {
    let evicted = async {
        match evicted {
            Some(evicted) => evicted.cancelled_owned().await,
            None => std::future::pending().await,
        }
    };
    let _ = timeout(HELLO_WAIT, evicted).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[tokio::test]
    async fn a_connection_takes_little_beyond_what_its_libraries_do() {
        let (_writer, reader) = store::open();
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let (_above, surroundings) = watch::channel(Surroundings::default());
        let parts = Parts { reader, clock: Clock::System, metrics, tls: None, surroundings, beside: Beside::default() };
        let server = Server::new(Config::default(), parts);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let source = Ipv4Addr::LOCALHOST.into();
        let unfinished = server.admission.unfinished.admit(source, Origin::Elsewhere).unwrap();
        // Both live as long as the stream: the task, and in it the connection with its buffers' handles, but for TLS' share.
        let task = size_of_val(&server.handshake(socket, source, unfinished));
        let (_client, io) = tokio::io::duplex(1_024);
        let connection = size_of_val(&*server.connection_of(Peer { part: None, node: None, source }, None, io));
        assert!(task <= 256 && connection <= 2_048, "{task} and {connection} bytes");
    }

    /// Connections through with their handshake that ask for nothing: one address has a quarter of the places.
    #[tokio::test]
    async fn connections_that_never_call_are_bounded_by_address() {
        let (_writer, reader) = store::open();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (_above, surroundings) = watch::channel(Surroundings::default());
        let parts = Parts { reader, clock: Clock::System, metrics, tls: None, surroundings, beside: Beside::default() };
        let config = Config { unfinished_max: 8, listen: vec!["127.0.0.1:0".parse().unwrap()], ..Config::default() };
        let bound = bind(config, false).unwrap();
        let (address, stop) = (bound.addresses()[0], CancellationToken::new());
        let serving = tokio::spawn(bound.serve(parts, stop.clone()));
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        // The oldest four end without a word of theirs.
        for client in clients.iter_mut().take(4) {
            let mut said = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(client, &mut said).await;
        }
        drop(clients);
        stop.cancel();
        serving.await.unwrap();
    }

    /// A certificate that names a node is good for a few connections, wherever they come from.
    #[tokio::test]
    async fn certificates_of_one_node_have_few_connections_and_those_of_others_theirs() {
        let (_writer, reader) = store::open();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (_above, surroundings) = watch::channel(Surroundings::default());
        let parts = Parts {
            reader,
            clock: Clock::System,
            metrics: metrics.clone(),
            tls: None,
            surroundings,
            beside: Beside::default(),
        };
        let server = Server::new(Config::default(), parts);
        let mut kept = Vec::new();
        let mut connect = |node: &str, last: u8| {
            let peer = Peer { part: Some(Part::Agent), node: Some(node.into()), source: [10, 0, 0, last].into() };
            let (client, io) = tokio::io::duplex(64);
            kept.push((server.connection_of(peer, None, io), client));
            metrics.connections.get()
        };
        let open: Vec<i64> = (0..10).map(|last| connect("node-1", last)).collect();
        assert_eq!(open, [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]);
        assert_eq!(connect("node-2", 1), 9);
    }

    #[test]
    fn a_name_of_a_peer_is_escaped_and_cut_where_it_is_logged() {
        assert_eq!(loggable("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(loggable(&"x".repeat(16 << 10)).chars().count(), NAME_LOGGED_MAX + 1);
    }
}
