//! Connections to one apiserver: opened step by step, shared by all requests.
//!
//! Over TLS one HTTP/2 connection carries every request, as with client-go: one handshake, and a ping that tells a dead
//! connection from a slow server. Without HTTP/2, each watch has a connection of its own and other requests share the
//! idle ones. Beside the address configured, the apiserver's own are dialled, under the same name: the service address
//! works only where kube-proxy has an endpoint for it.
//!
//! Never sends a request twice.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{debug, info};

use super::{
    OwnAddresses, Timing,
    health::{Health, Limit},
    server::{Failure, Step},
};
use crate::{source::Metrics, sys::Lock};

/// HTTP/2 pings an idle or silent connection this often.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Longest wait for the answer to a ping. A server at a tenth of a CPU still answers them within seconds.
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Sent bytes that are not acknowledged for this long end a connection: the peer's kernel acknowledges even if the
/// apiserver is stopped.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);
/// HTTP/2 windows: a list fits without waiting for the reader.
const WINDOW_BYTES: u32 = 4 << 20;
/// Most idle connections kept where there is no HTTP/2.
const IDLE_MAX: usize = 8;

/// Set when a request has a connection to go out on; travels in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct OnWire(pub Arc<AtomicBool>);

/// Why no request could be sent, or none was answered.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", step.name())]
pub(super) struct SendError {
    pub step: Step,
    pub reason: String,
}

impl SendError {
    fn new(step: Step, reason: &impl ToString) -> Self {
        Self { step, reason: reason.to_string() }
    }
}

impl From<SendError> for Failure {
    fn from(SendError { step, reason }: SendError) -> Self {
        Self::Unreachable { step, reason }
    }
}

/// The way to one apiserver.
pub(super) struct Transport {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    own: Option<OwnAddresses>,
    timing: Timing,
    metrics: Metrics,
    connect_limit: Limit,
    open: Lock<Open>,
    /// A single connection is opened at a time: with HTTP/2 waiting requests then share it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Open {
    shared: Option<http2::SendRequest<Body>>,
    idle: Vec<http1::SendRequest<Body>>,
}

/// A connection that takes requests.
enum Connection {
    Shared(http2::SendRequest<Body>),
    Single(http1::SendRequest<Body>),
}

impl Transport {
    pub(super) fn new(
        (host, port): (String, u16),
        tls: Option<(TlsConnector, ServerName<'static>)>,
        own: Option<OwnAddresses>,
        timing: &Timing,
        metrics: Metrics,
    ) -> Self {
        Self {
            host,
            port,
            tls,
            own,
            timing: *timing,
            metrics,
            connect_limit: Limit::default(),
            open: Lock::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    fn health(&self) -> &Health {
        self.metrics.health()
    }

    /// Sends one request and waits for the head of its answer.
    async fn send(self: Arc<Self>, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let failed = |error: hyper::Error| SendError::new(Step::Answer, &deepest(&error));
        let on_wire = request.extensions().get::<OnWire>().cloned();
        let connection = self.connection().await?;
        if let Some(own) = &self.own {
            own.note();
        }
        if let Some(OnWire(on_wire)) = on_wire {
            on_wire.store(true, Ordering::Relaxed);
        }
        match connection {
            Connection::Shared(mut sender) => {
                let answer = sender.send_request(request).await.map_err(failed);
                if answer.is_err() {
                    self.open.lock().shared.take_if(|shared| shared.is_closed());
                }
                answer
            }
            Connection::Single(mut sender) => {
                let answer = sender.send_request(request).await.map_err(failed)?;
                // Free again when the body has been read.
                tokio::spawn(async move {
                    if sender.ready().await.is_ok() {
                        let mut open = self.open.lock();
                        if open.idle.len() < IDLE_MAX {
                            open.idle.push(sender);
                        }
                    }
                });
                Ok(answer)
            }
        }
    }

    fn at_hand(&self) -> Option<Connection> {
        let mut open = self.open.lock();
        open.idle.retain(|sender| !sender.is_closed());
        if let Some(shared) = open.shared.as_ref().filter(|shared| !shared.is_closed()) {
            return Some(Connection::Shared(shared.clone()));
        }
        open.idle.iter().position(http1::SendRequest::is_ready).map(|at| Connection::Single(open.idle.swap_remove(at)))
    }

    async fn connection(&self) -> Result<Connection, SendError> {
        if let Some(connection) = self.at_hand() {
            return Ok(connection);
        }
        let _turn = if self.tls.is_some() { Some(self.opening.lock().await) } else { None };
        if let Some(connection) = self.at_hand() {
            return Ok(connection);
        }
        let connection = self.race().await?;
        if let Connection::Shared(sender) = &connection {
            self.open.lock().shared = Some(sender.clone());
        }
        Ok(connection)
    }

    /// Opens a connection to the address that answers first: the one configured has a head start.
    async fn race(&self) -> Result<Connection, SendError> {
        let own = self.own_addresses().into_iter().map(Address::Own);
        let mut waiting: VecDeque<Address> = std::iter::once(Address::Configured).chain(own).collect();
        let named: Vec<String> = waiting.iter().map(|address| self.named(*address)).collect();
        self.health().keep_dialled(|address| named.iter().any(|wanted| wanted == address));
        // When an address last took a connection: the way to it is open, and the server behind it is slow at worst.
        let taken: Lock<Option<Instant>> = Lock::default();
        let mut attempts = FuturesUnordered::new();
        let (mut failure, mut own_failure) = (None, None);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next), if !waiting.is_empty() => {
                    let shaking_hands = taken.lock().map(|taken| taken + self.timing.silence);
                    if let Some(until) = shaking_hands.filter(|until| *until > Instant::now()) {
                        // A second handshake is work that a slow server does for nothing.
                        next = until;
                    } else {
                        let address = waiting.pop_front().expect("there is one");
                        let taken = &taken;
                        attempts.push(async move { (address, self.dial(address, taken).await) });
                        next = Instant::now() + self.timing.head_start;
                    }
                }
                Some((address, dialled)) = attempts.next() => match (address, dialled) {
                    (Address::Configured, Ok(connection)) => return Ok(connection),
                    (Address::Own(address), Ok(connection)) => {
                        info!(%address, configured = %self.host, "connected to the apiserver's own address");
                        return Ok(connection);
                    }
                    (address, Err(error)) => {
                        debug!(?address, %error, "cannot connect to the apiserver");
                        if matches!(address, Address::Configured) { failure = Some(error) } else { own_failure = Some(error) }
                        *taken.lock() = None;
                        next = Instant::now();
                    }
                },
                // People look for the address they configured, so its error is the one told.
                else => return Err(failure.or(own_failure).expect("one attempt at least failed")),
            }
        }
    }

    /// The apiserver's own addresses. None without TLS: nothing would tell them from strangers.
    fn own_addresses(&self) -> Vec<SocketAddr> {
        self.own.as_ref().filter(|_| self.tls.is_some()).map(OwnAddresses::all).unwrap_or_default()
    }

    fn named(&self, address: Address) -> String {
        match address {
            Address::Configured if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            Address::Configured => format!("{}:{}", self.host, self.port),
            Address::Own(address) => address.to_string(),
        }
    }

    /// Opens a connection and notes whether the address took it.
    async fn dial(&self, address: Address, taken: &Lock<Option<Instant>>) -> Result<Connection, SendError> {
        let dialled = self.open_to(address, taken).await;
        let reason = dialled.as_ref().err().map(ToString::to_string);
        self.health().dialled(&self.named(address), reason.as_deref(), self.metrics.clock().now());
        dialled
    }

    async fn open_to(&self, address: Address, taken: &Lock<Option<Instant>>) -> Result<Connection, SendError> {
        let opening = self.health().opening(Step::Connect);
        let begun = Instant::now();
        let limit = self.timing.connect.unwrap_or_else(|| self.connect_limit.now());
        let connect = async {
            match address {
                Address::Configured => TcpStream::connect((self.host.as_str(), self.port)).await,
                Address::Own(address) => TcpStream::connect(address).await,
            }
        };
        let socket = match timeout(limit, connect).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(SendError::new(Step::Connect, &error)),
            Err(_) => {
                self.connect_limit.ran_out();
                return Err(SendError::new(Step::Connect, &format!("timed out ({limit:?})")));
            }
        };
        self.connect_limit.took(begun.elapsed());
        *taken.lock() = Some(Instant::now());
        let prepare = |socket: &TcpStream| -> io::Result<()> {
            socket.set_nodelay(true)?;
            let keepalive = socket2::TcpKeepalive::new().with_time(PING_EVERY).with_interval(PING_EVERY);
            let socket = socket2::SockRef::from(socket);
            socket.set_tcp_keepalive(&keepalive)?;
            socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
        };
        prepare(&socket).map_err(|error| SendError::new(Step::Connect, &error))?;
        let Some((connector, name)) = &self.tls else { return single(socket).await };
        opening.step(Step::Tls);
        let limit = self.timing.handshake;
        let stream = match timeout(limit, connector.connect(name.clone(), socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(SendError::new(Step::Tls, &handshake_failed(&error))),
            Err(_) => return Err(SendError::new(Step::Tls, &format!("timed out ({limit:?})"))),
        };
        opening.step(Step::Answer);
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") { shared(stream).await } else { single(stream).await }
    }
}

#[derive(Clone, Copy, Debug)]
enum Address {
    Configured,
    Own(SocketAddr),
}

async fn shared<T>(io: T) -> Result<Connection, SendError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io));
    let (sender, connection) = shaken.await.map_err(|error| SendError::new(Step::Answer, &deepest(&error)))?;
    tokio::spawn(connection);
    Ok(Connection::Shared(sender))
}

async fn single<T>(io: T) -> Result<Connection, SendError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let shaken = http1::Builder::new().handshake(TokioIo::new(io)).await;
    let (sender, connection) = shaken.map_err(|error| SendError::new(Step::Answer, &deepest(&error)))?;
    tokio::spawn(connection);
    Ok(Connection::Single(sender))
}

/// Why a TLS handshake failed, with a remedy where there is one.
fn handshake_failed(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            format!("{error} (is the certificate authority configured this cluster's?)")
        }
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

/// The words of the innermost cause.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

/// A [`Transport`] as kube's layers want it.
#[derive(Clone)]
pub(super) struct Sender(pub Arc<Transport>);

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).send(request))
    }
}
