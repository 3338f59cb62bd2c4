//! Connections to one upstream over TCP, TLS or HTTPS: reused and pipelined (RFC 7766), with limits on age, idle time and
//! number.
//!
//! A connection on which an answer stays away gets no further queries, and the question is asked on a new one after a
//! second.

mod frames;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{Either, select};
use prometheus::IntCounter;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    https::{self, Endpoint, HttpError},
    message::{Query, Reply},
};
use crate::{dns::forward::observe::Metrics, sys::Lock};

const CONNECTIONS_MAX: usize = 8;
/// Queries awaiting an answer on one connection.
const PIPELINE_MAX: usize = 64;
/// Maximum time of TCP and TLS handshakes together, and for the kernel to take one query.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// A query that waited this long in vain marks the connection as dead.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);

/// How connections to an upstream are made.
pub enum Dial {
    Tcp,
    Tls(TlsDial),
    Https(TlsDial, Endpoint),
}

pub struct TlsDial {
    pub connector: TlsConnector,
    /// The name or address that the certificate must hold.
    pub name: ServerName<'static>,
}

impl TlsDial {
    async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No new queries on a connection older than this.
    pub age_max: Duration,
    /// Closed after this time without queries.
    pub idle_max: Duration,
    /// Connections without queries that are kept; 0 for no limit.
    pub idle_connections_max: usize,
    /// The address to send from.
    pub source: Option<IpAddr>,
}

impl Limits {
    /// The address that questions to `upstream` are sent from, if it is of the same family.
    pub fn source_to(self, upstream: SocketAddr) -> Option<IpAddr> {
        self.source.filter(|source| source.is_ipv4() == upstream.is_ipv4())
    }
}

/// The connections to one upstream.
pub struct Pool {
    address: SocketAddr,
    dial: Dial,
    limits: Limits,
    metrics: Metrics,
    connections: Lock<Vec<Arc<Connection>>>,
    /// Held while dialling, so that a burst of questions makes one connection.
    dialling: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An answer over a stream.
#[derive(Debug)]
pub struct Answer {
    pub reply: Reply,
    /// Whether the name came back in the case it was sent in.
    pub same_case: bool,
}

#[derive(Debug)]
struct Connection {
    requests: Requests,
    opened: Instant,
    in_flight: AtomicUsize,
    suspect: AtomicBool,
    /// Answers that came on it.
    answers: AtomicU64,
    used: Lock<Instant>,
}

/// How questions get onto a connection.
#[derive(Debug)]
enum Requests {
    Frames(frames::Requests),
    Https(https::Requests, Endpoint),
}

impl Connection {
    fn new(requests: Requests) -> Self {
        let now = Instant::now();
        Self {
            requests,
            opened: now,
            in_flight: AtomicUsize::new(0),
            suspect: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            used: Lock::new(now),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.requests {
            Requests::Frames(requests) => requests.is_closed(),
            Requests::Https(requests, _) => requests.is_closed(),
        }
    }

    /// Asks, and waits without end.
    async fn ask(&self, query: &Query) -> io::Result<Answer> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut waiting = Waiting { connection: self, since: Instant::now(), answered: false };
        let answer = match &self.requests {
            Requests::Frames(requests) => requests.ask(query).await,
            Requests::Https(requests, endpoint) => requests.ask(endpoint, query).await,
        };
        // A server that answers, if only with an error, is there.
        waiting.answered = answer.as_ref().map_or_else(is_http, |_| true);
        if waiting.answered {
            self.answers.fetch_add(1, Ordering::Relaxed);
        } else {
            self.suspect.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Waits until no answer came on it for a while.
    async fn silence(&self) {
        let mut before = self.answers.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(SUSPECT_AFTER).await;
            let now = self.answers.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Waits until it was idle for `idle_max`, or gone.
    async fn idle(connection: Weak<Self>, idle_max: Duration) {
        loop {
            tokio::time::sleep(idle_max).await;
            let Some(connection) = connection.upgrade() else { return };
            if connection.in_flight.load(Ordering::Relaxed) == 0 && connection.used.lock().elapsed() >= idle_max {
                return;
            }
        }
    }
}

/// Whether a server spoke HTTP, and gave no answer.
pub(super) fn is_http(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<HttpError>()).is_some()
}

/// Counts a query as in flight; one given up late marks the connection.
struct Waiting<'a> {
    connection: &'a Connection,
    since: Instant,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.connection.used.lock() = Instant::now();
        self.connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.answered && self.since.elapsed() >= SUSPECT_AFTER {
            self.connection.suspect.store(true, Ordering::Relaxed);
        }
    }
}

impl Pool {
    /// No connection yet; they are made when needed.
    pub fn new(address: SocketAddr, dial: Dial, limits: Limits, metrics: Metrics) -> Self {
        Self {
            address,
            dial,
            limits,
            metrics,
            connections: Lock::default(),
            dialling: tokio::sync::Mutex::const_new(()),
        }
    }

    /// Asks on an open connection if there is one, and on a new one as well if that stays silent. Waits without end: the
    /// caller has the deadline.
    ///
    /// # Errors
    /// If no connection can be made, or a new one is closed before the answer.
    pub async fn ask(&self, query: &Query) -> io::Result<Answer> {
        let answer = self.ask_until_answered(query).await;
        self.close_spare();
        answer
    }

    async fn ask_until_answered(&self, query: &Query) -> io::Result<Answer> {
        let began = Instant::now();
        loop {
            let (connection, reused) = self.connection(None).await?;
            self.queries().inc();
            let mut asked = std::pin::pin!(connection.ask(query));
            if !reused {
                return asked.await;
            }
            let answer = tokio::select! {
                answer = &mut asked => answer,
                () = connection.silence() => {
                    // The connection may have died unseen, as behind a NAT that forgot it.
                    connection.suspect.store(true, Ordering::Relaxed);
                    return first_answer(asked, std::pin::pin!(self.ask_anew(query, began))).await;
                }
            };
            match answer {
                // The upstream closed an idle connection as our query was under way: once more on another.
                Err(error) if !is_http(&error) => {}
                answer => return answer,
            }
        }
    }

    /// Asks on a connection made after `began`.
    async fn ask_anew(&self, query: &Query, began: Instant) -> io::Result<Answer> {
        let (connection, _) = self.connection(Some(began)).await?;
        self.queries().inc();
        connection.ask(query).await
    }

    /// The counter of queries on such connections.
    fn queries(&self) -> &IntCounter {
        match self.dial {
            Dial::Tcp => &self.metrics.queries_tcp,
            Dial::Tls(_) => &self.metrics.queries_tls,
            Dial::Https(..) => &self.metrics.queries_https,
        }
    }

    /// A connection, made after `since` if that is given, and whether there were questions on it before.
    async fn connection(&self, since: Option<Instant>) -> io::Result<(Arc<Connection>, bool)> {
        if let Some(connection) = self.pick(since) {
            return Ok((connection, true));
        }
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.pick(since) {
            return Ok((connection, true));
        }
        {
            let mut connections = self.lock();
            if connections.len() >= CONNECTIONS_MAX {
                if since.is_none() {
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, "every connection to the upstream is full"));
                }
                // The oldest one goes on for its waiters only.
                connections.remove(0);
            }
        }
        let connection = tokio::time::timeout(HANDSHAKE_MAX, self.dial())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection within 3 s"))??;
        self.lock().push(Arc::clone(&connection));
        Ok((connection, false))
    }

    /// The least busy connection that may be used, after forgetting those that may not.
    fn pick(&self, since: Option<Instant>) -> Option<Arc<Connection>> {
        let mut connections = self.lock();
        connections.retain(|connection| {
            !connection.is_closed()
                && !connection.suspect.load(Ordering::Relaxed)
                && connection.opened.elapsed() < self.limits.age_max
        });
        connections
            .iter()
            .filter(|connection| since.is_none_or(|since| connection.opened >= since))
            .filter(|connection| connection.in_flight.load(Ordering::Relaxed) < PIPELINE_MAX)
            .min_by_key(|connection| connection.in_flight.load(Ordering::Relaxed))
            .cloned()
    }

    /// Closes connections without queries beyond the number that is kept, the oldest first.
    fn close_spare(&self) {
        let kept = self.limits.idle_connections_max;
        if kept == 0 {
            return;
        }
        let mut connections = self.lock();
        let is_idle = |connection: &Arc<Connection>| connection.in_flight.load(Ordering::Relaxed) == 0;
        let mut spare = connections.iter().filter(|connection| is_idle(connection)).count().saturating_sub(kept);
        connections.retain(|connection| {
            let closes = spare > 0 && is_idle(connection);
            spare -= usize::from(closes);
            !closes
        });
    }

    /// A TCP connection to the upstream.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match self.limits.source_to(self.address) {
            None => TcpStream::connect(self.address).await?,
            Some(source) => {
                let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.bind(SocketAddr::new(source, 0))?;
                socket.connect(self.address).await?
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn dial(&self) -> io::Result<Arc<Connection>> {
        let stream = self.connect().await?;
        let (address, idle, metrics) = (self.address, self.limits.idle_max, self.metrics.clone());
        let requests = match &self.dial {
            Dial::Https(tls, endpoint) => {
                let stream = tls.connect(stream).await?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(HttpError::NoHttp2.into());
                }
                let (requests, driver) = https::begin(stream).await?;
                let connection = Arc::new(Connection::new(Requests::Https(requests, endpoint.clone())));
                let idle = Connection::idle(Arc::downgrade(&connection), idle);
                tokio::spawn(async move {
                    tokio::select! {
                        () = driver => {}
                        () = idle => {}
                    }
                });
                return Ok(connection);
            }
            Dial::Tls(tls) => frames::begin(tls.connect(stream).await?, address, idle, metrics),
            Dial::Tcp => frames::begin(stream, address, idle, metrics),
        };
        Ok(Arc::new(Connection::new(Requests::Frames(requests))))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock()
    }
}

/// The first of two answers, or the error that comes last.
async fn first_answer<O, A>(one: Pin<&mut O>, other: Pin<&mut A>) -> io::Result<Answer>
where
    O: Future<Output = io::Result<Answer>>,
    A: Future<Output = io::Result<Answer>>,
{
    match select(one, other).await {
        Either::Left((Err(_), other)) => other.await,
        Either::Right((Err(_), one)) => one.await,
        Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
    }
}
