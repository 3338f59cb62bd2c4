//! Accepts connections and serves the one call on them.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Config, Error, Metrics, Surroundings, choose::refusal, fanout::Fanout, metrics::Refused, subscriber::Subscriber,
};
use crate::{
    proto::{FOLLOW_PATH, Hello, split},
    store::Reader,
    sys::Clock,
    tls::{self, Part, Tls},
};

/// A greeting is 4 KiB of digests and a few names.
const HELLO_BYTES_MAX: usize = 16 << 10;
/// How long a client may take to send it, and to make its first call.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Most connections that are not through with their handshake, those that say nothing included; some 10 KB each.
const UNFINISHED_MAX: usize = 4_096;
/// How long a client may take to begin its handshake: until then it costs a socket.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// A handshake counts against the cap for at most this long: one that stalls must not keep others out.
const PLACE_HELD: Duration = Duration::from_millis(250);
/// Most bytes that TLS has encrypted for a client that does not take them: one record and what follows it. What waits
/// before it is shared by all.
const ENCRYPTED_BYTES_MAX: usize = 20 << 10;
mod code {
    pub(super) const OK: &str = "0";
    pub(super) const INVALID_ARGUMENT: &str = "3";
    pub(super) const FAILED_PRECONDITION: &str = "9";
    pub(super) const UNIMPLEMENTED: &str = "12";
}

type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;

/// Listeners that are bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
    config: Config,
}

/// What a hub serves from.
#[derive(Debug)]
pub struct Parts {
    pub reader: Reader,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Certificates; `None` serves in the clear, which the caller allows on loopback only.
    pub tls: Option<Tls>,
    /// What lies above this hub and beside it.
    pub surroundings: watch::Receiver<Surroundings>,
}

/// Binds the listeners.
///
/// # Errors
/// If an address cannot be bound, or one beyond loopback is to be served without TLS.
pub fn bind(config: Config, tls: bool) -> Result<Bound, Error> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        if !tls && !address.ip().is_loopback() {
            return Err(Error::Insecure(*address));
        }
        let listener = listen(*address, &config).map_err(|error| Error::Bind { address: *address, error })?;
        listeners.push(listener);
    }
    Ok(Bound { listeners, config })
}

fn listen(address: SocketAddr, config: &Config) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(config.unacknowledged_max))?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into())
}

impl Bound {
    /// The addresses bound; ports that were asked for as 0 are known here.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Who this hub is and where clients reach it, which may depend on the ports bound.
    pub fn identify(&mut self, node: String, advertise: Vec<String>) {
        self.config.node = node;
        self.config.advertise = advertise;
    }

    /// Serves until `stop`, then tells clients to go elsewhere and waits for them, at most the drain's window.
    pub async fn serve(self, parts: Parts, stop: CancellationToken) {
        let server = Server::new(self.config, parts);
        let pumping = tokio::spawn({
            let server = server.clone();
            async move { server.pump().await }
        });
        let accepting = self.listeners.into_iter().map(|listener| server.accept(listener, stop.clone()));
        futures::future::join_all(accepting).await;
        server.drain().await;
        pumping.abort();
    }
}

/// A running server, for whatever transport. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    fanout: Arc<Fanout>,
    tls: Option<Tls>,
    admission: Arc<Admission>,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.fanout.config).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that listens nowhere: connections are handed to [`Self::connection`].
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Self {
        let admission = Arc::new(Admission::new(config.handshakes_max, config.handshakes_per_s));
        let connections = Arc::new(Semaphore::new(config.connections_max));
        Self {
            fanout: Fanout::new(config, parts.metrics, parts.reader, parts.clock, parts.surroundings),
            tls: parts.tls,
            admission,
            connections,
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
            let (socket, unfinished) = tokio::select! {
                () = stop.cancelled() => return,
                // What is not admitted yet waits in the system's backlog, where it costs next to nothing.
                (accepted, unfinished) = async {
                    let unfinished = self.admission.turn().await;
                    (listener.accept().await, unfinished)
                } => match accepted {
                    Ok((socket, _)) => (socket, unfinished),
                    Err(error) => {
                        // Out of descriptors, mostly: those open go on.
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let server = self.clone();
            self.tasks.spawn(async move { server.handshake(socket, unfinished).await });
        }
    }

    async fn handshake(&self, socket: TcpStream, unfinished: OwnedSemaphorePermit) {
        let serving = match &self.tls {
            None => {
                drop(unfinished);
                self.connection_of(None, socket)
            }
            // In a box that is gone before the stream begins: a handshake takes as much memory as a stream, and one lives for
            // a moment, the other for days.
            Some(tls) => match Box::pin(self.shake_hands(tls, socket, unfinished)).await {
                Some(stream) => {
                    let part = tls::peer(stream.get_ref().1);
                    self.connection_of(part, stream)
                }
                None => return self.fanout.metrics.refused(Refused::Handshake),
            },
        };
        serving.await;
    }

    async fn shake_hands(
        &self,
        tls: &Tls,
        socket: TcpStream,
        unfinished: OwnedSemaphorePermit,
    ) -> Option<TlsStream<TcpStream>> {
        // Who says nothing takes no place from those who do.
        timeout(FIRST_WORD, socket.readable()).await.ok()?.ok()?;
        let mut place = Some(self.admission.place().await);
        let accept = TlsAcceptor::from(tls.current().server)
            .accept_with(socket, |session| session.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX)));
        let mut accept = std::pin::pin!(timeout(self.fanout.config.handshake_timeout, accept));
        let accepted = tokio::select! {
            accepted = &mut accept => accepted,
            () = tokio::time::sleep(PLACE_HELD) => {
                // It waits for its client, not for us.
                place = None;
                accept.await
            }
        };
        drop((place, unfinished));
        accepted.ok()?.inspect_err(|error| tracing::debug!(%error, "handshake failed")).ok()
    }

    /// Serves one connection until it ends. Whoever is behind it is known to be allowed.
    pub async fn connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.connection_of(None, io).await;
    }

    /// The same, of a peer that may play this part.
    fn connection_of<I>(&self, part: Option<Part>, io: I) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let metrics = self.fanout.metrics.clone();
        let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() else {
            metrics.refused(Refused::Full);
            return Box::pin(std::future::ready(()));
        };
        metrics.connections.inc();
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (server, asked) = (self.clone(), Arc::clone(&asked));
            move |request| {
                asked.store(true, Ordering::Relaxed);
                let server = server.clone();
                // In a box that is gone once there is a reply, which goes on for days.
                Box::pin(async move { Ok::<_, Infallible>(server.call(part, request).await) })
            }
        });
        let mut serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // One stream, and the next one while the last is being torn down.
            .max_concurrent_streams(4)
            .max_header_list_size(8 << 10)
            .header_table_size(0)
            .initial_stream_window_size(u32::try_from(HELLO_BYTES_MAX).expect("small"))
            .initial_connection_window_size(64 << 10)
            // As much as TLS has ahead: of what waits here HTTP/2 keeps a table, whose room is never given back.
            .max_send_buf_size(16 << 10)
            .serve_connection(TokioIo::new(io), service);
        Box::pin(async move {
            let mut never = std::pin::pin!(never_asked(Arc::clone(&asked)));
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
            drop(place);
        })
    }

    async fn call(&self, part: Option<Part>, request: Request<Incoming>) -> Response<ReplyBody> {
        let metrics = &self.fanout.metrics;
        if request.method() != Method::POST || request.uri().path() != FOLLOW_PATH {
            metrics.refused(Refused::Request);
            return ended(code::UNIMPLEMENTED, "there is one call here: Follow");
        }
        let Some(hello) = greeting(request.into_body()).await else {
            metrics.refused(Refused::Request);
            return ended(code::INVALID_ARGUMENT, "no greeting came");
        };
        if !hello.serves.is_empty() && part == Some(Part::Agent) {
            // Its address would be passed on to everybody.
            metrics.refused(Refused::Request);
            tracing::warn!(peer = ?hello.node, serves = ?hello.serves, "an agent's certificate, and yet it would serve");
            return ended(code::FAILED_PRECONDITION, "who serves others needs the certificate of a hub");
        }
        let path = self.fanout.path();
        let (node, upstream) = path.split_first().expect("our own name comes first");
        if let Some(reason) = refusal(&hello, node, upstream) {
            metrics.refused(Refused::Loop);
            tracing::warn!(peer = ?hello.node, %reason, "client refused");
            return ended(code::FAILED_PRECONDITION, &reason);
        }
        let subscriber = Subscriber::new(Arc::clone(&self.fanout), &hello, self.stop.clone());
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

/// Resolves if a connection lets its first call wait too long.
async fn never_asked(asked: Arc<AtomicBool>) {
    tokio::time::sleep(HELLO_WAIT).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn greeting<B: Body<Data = Bytes> + Unpin>(body: B) -> Option<Hello>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = timeout(HELLO_WAIT, Limited::new(body, HELLO_BYTES_MAX).collect()).await.ok()?.ok()?;
    let mut bytes = BytesMut::from(&*collected.to_bytes());
    split::<Hello>(&mut bytes, HELLO_BYTES_MAX).ok()?
}

fn status(code: &'static str, message: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static(code));
    // Percent-encoded as gRPC asks, which for these words is leaving out what is not plain.
    let plain: String = message.chars().filter(|c| (' '..='~').contains(c) && *c != '%').collect();
    if let Ok(value) = HeaderValue::from_str(&plain)
        && !plain.is_empty()
    {
        headers.insert("grpc-message", value);
    }
    headers
}

/// A reply that is nothing but a status.
fn ended(code: &'static str, message: &str) -> Response<ReplyBody> {
    reply(http_body_util::Empty::new().boxed_unsync(), status(code, message))
}

fn reply(body: ReplyBody, headers: HeaderMap) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// How many may shake hands at once, and how many may begin in a second.
struct Admission {
    at_once: Arc<Semaphore>,
    unfinished: Arc<Semaphore>,
    gap: Duration,
    next: tokio::sync::Mutex<Instant>,
}

impl Admission {
    /// A pause may be made up for by this many at once.
    const BURST: u32 = 64;

    fn new(at_once: usize, per_s: u32) -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(at_once)),
            unfinished: Arc::new(Semaphore::new(UNFINISHED_MAX)),
            gap: Duration::from_secs(1) / per_s.max(1),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits for a place among those who shake hands; it is given back when dropped.
    async fn place(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.at_once).acquire_owned().await.expect("never closed")
    }

    /// Waits until one more may begin; the permit is given back when its handshake is over.
    async fn turn(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.unfinished).acquire_owned().await.expect("never closed");
        let mut next = self.next.lock().await;
        let now = Instant::now();
        *next = (*next).max(now.checked_sub(self.gap * Self::BURST).unwrap_or(now)) + self.gap;
        let turn = *next;
        drop(next);
        tokio::time::sleep_until(turn).await;
        permit
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
        let parts = Parts { reader, clock: Clock::System, metrics, tls: None, surroundings };
        let server = Server::new(Config::default(), parts);
        let (listener, unfinished) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), server.admission.turn().await);
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // Both live as long as the stream: the task, and in it the connection with its buffers' handles, but for TLS' share.
        let task = size_of_val(&server.handshake(socket, unfinished));
        let (_client, io) = tokio::io::duplex(1_024);
        let connection = size_of_val(&*server.connection_of(None, io));
        assert!(task <= 256 && connection <= 2_048, "{task} and {connection} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_are_spread_after_a_burst() {
        let admission = Admission::new(1_000, 100);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..264 {
            drop(admission.turn().await);
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(1_900)..Duration::from_millis(2_100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_handshakes_at_once_and_no_more() {
        let admission = Admission::new(2, 1_000_000);
        let (first, _second) = (admission.place().await, admission.place().await);
        assert!(timeout(Duration::from_secs(1), admission.place()).await.is_err());
        drop(first);
        assert!(timeout(Duration::from_secs(1), admission.place()).await.is_ok());
    }
}
