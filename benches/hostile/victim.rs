//! A well-behaved client: a steady rate of each kind of question, every one accounted for.

use std::{collections::BTreeMap, future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast::{
    proto::{FOLLOW_PATH, framed as grpc, hello},
    record::Snapshot,
    simulate::encrypted::{Client, Connection, Protocol, Trust, framed},
    sys::Clock,
    tls::{self, Tls},
};
use http::{Method, Request};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    attack::query,
    places::{ANY, Targets},
};

/// Questions of a kind a second.
const RATE: u32 = 100;
/// A question without a good answer for this long is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections of a kind, each with one question at a time.
const CONNECTIONS: u32 = 10;
/// Questions on a connection before it is replaced.
const PER_CONNECTION: u32 = 20;

/// Results of the questions of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kind {
    pub asked: u32,
    pub lost: u32,
    pub p99_ms: f64,
    /// Of the first one that was lost.
    pub why: String,
}

/// Questions of a pod, and of an agent on another node.
pub const OF_POD: [&str; 8] = ["udp", "tcp", "cached", "uncached", "tls", "https", "quic", "follow"];
/// Probes of the kubelet.
pub const OF_NODE: [&str; 1] = ["health"];

pub type Report = BTreeMap<String, Kind>;

/// Asks for `seconds`, and tells what came of it.
pub async fn run(targets: &Targets, seconds: u32, run: u32, kinds: &[&str]) -> Report {
    let mut asking = JoinSet::new();
    for (place, name) in kinds.iter().map(|name| (*name).to_owned()).enumerate() {
        let follow = (name == "follow").then(|| follower(targets));
        let asker = Asker { name: name.clone(), targets: targets.clone(), run, follow };
        asking.spawn(async move { (name, ask_all(Arc::new(asker), seconds, place).await) });
    }
    asking.join_all().await.into_iter().collect()
}

fn follower(targets: &Targets) -> Tls {
    let metrics = tls::Metrics::register(&prometheus::Registry::new()).unwrap();
    Tls::open(targets.agent_tls.clone().into(), Clock::System, Arc::new(|| None), metrics).unwrap()
}

async fn ask_all(asker: Arc<Asker>, seconds: u32, place: usize) -> Kind {
    let began = Instant::now();
    let pool: Vec<_> = (0..CONNECTIONS).map(|_| Arc::new(Mutex::new(None))).collect();
    let mut asking = JoinSet::new();
    for number in 0..RATE * seconds {
        // Kinds do not ask at the same moments.
        let due = began + Duration::from_secs(1) * number / RATE + Duration::from_millis(place as u64);
        sleep_until(due).await;
        let (asker, kept) = (Arc::clone(&asker), Arc::clone(&pool[(number % CONNECTIONS) as usize]));
        asking.spawn(async move {
            let answered = timeout(PATIENCE, asker.ask(number, &kept)).await;
            let took = due.elapsed();
            let outcome = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if outcome.is_err()
                && let Ok(mut kept) = kept.try_lock()
            {
                *kept = None;
            }
            (took, outcome)
        });
    }
    let mut kind = Kind { asked: RATE * seconds, ..Kind::default() };
    let mut times = Vec::new();
    while let Some(done) = asking.join_next().await {
        let (took, outcome) = done.unwrap();
        match outcome {
            Ok(()) => times.push(took),
            Err(error) => {
                kind.lost += 1;
                if kind.why.is_empty() {
                    kind.why = error.to_string();
                }
            }
        }
    }
    times.sort_unstable();
    kind.p99_ms = times.get(times.len() * 99 / 100).or(times.last()).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    kind
}

struct Asker {
    name: String,
    targets: Targets,
    /// Makes names of this run different from those of others.
    run: u32,
    follow: Option<Tls>,
}

/// A connection and how much it was asked.
type Kept = Mutex<Option<(Open, u32)>>;

enum Open {
    Tcp(TcpStream),
    Encrypted(Box<Connection>),
    Hub(h2::client::SendRequest<Bytes>),
}

impl Asker {
    async fn ask(&self, number: u32, kept: &Kept) -> io::Result<()> {
        let id = u16::try_from(number % 60_000).unwrap() + 1;
        let cluster = || query(id, &format!("svc-{}.prod.svc.cluster.local.", number % 500), 1);
        match &*self.name {
            "udp" => self.udp(&cluster()).await,
            "cached" => self.udp(&query(id, "cached.ok.test.", 1)).await,
            "uncached" => self.udp(&query(id, &format!("v{number}-{}.ok.test.", self.run), 1)).await,
            "health" => health(self.targets.http).await,
            _ => {
                let mut kept = kept.lock().await;
                let old = kept.take().filter(|(_, asked)| *asked < PER_CONNECTION);
                let message = cluster();
                // A kept connection may have been closed meanwhile: asked once more on a new one (RFC 7766, 6.2.4).
                let (mut open, asked) = match old {
                    Some((mut open, asked)) => match open.exchange(&message).await {
                        Ok(()) => {
                            *kept = Some((open, asked + 1));
                            return Ok(());
                        }
                        Err(_) => (self.connect().await?, 0),
                    },
                    None => (self.connect().await?, 0),
                };
                open.exchange(&message).await?;
                *kept = Some((open, asked + 1));
                Ok(())
            }
        }
    }

    async fn udp(&self, message: &[u8]) -> io::Result<()> {
        let socket = UdpSocket::bind(ANY).await?;
        socket.connect(self.targets.dns).await?;
        socket.send(message).await?;
        let mut answer = [0; 4_096];
        let length = socket.recv(&mut answer).await?;
        good(&answer[..length])
    }

    async fn connect(&self) -> io::Result<Open> {
        let targets = &self.targets;
        let encrypted = |protocol, server| async move {
            let connection = Client::new(protocol, server, &Trust::Any).connect().await?;
            Ok(Open::Encrypted(Box::new(connection)))
        };
        match &*self.name {
            "tcp" => {
                let stream = TcpStream::connect(targets.dns).await?;
                stream.set_nodelay(true)?;
                Ok(Open::Tcp(stream))
            }
            "tls" => encrypted(Protocol::Tls, targets.tls).await,
            "https" => encrypted(Protocol::Https, targets.https).await,
            "quic" => encrypted(Protocol::Quic, targets.quic).await,
            _ => {
                let stream = TcpStream::connect(targets.hub).await?;
                stream.set_nodelay(true)?;
                let client = self.follow.as_ref().expect("it follows").current().client;
                let stream =
                    TlsConnector::from(client).connect("holdfast.invalid".try_into().expect("a name"), stream).await?;
                let (send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Ok(Open::Hub(send))
            }
        }
    }
}

impl Open {
    async fn exchange(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.write_all(&framed(message)).await?;
                let mut answer = vec![0; stream.read_u16().await?.into()];
                stream.read_exact(&mut answer).await?;
                good(&answer)
            }
            Self::Encrypted(connection) => good(&connection.ask(message).await?),
            Self::Hub(send) => first_frame(send).await,
        }
    }
}

/// Follows a hub from nothing until its first frame.
async fn first_frame(send: &mut h2::client::SendRequest<Bytes>) -> io::Result<()> {
    poll_fn(|context| send.poll_ready(context)).await.map_err(io::Error::other)?;
    let request = Request::builder().method(Method::POST).uri(format!("http://holdfast.invalid{FOLLOW_PATH}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
    let (response, mut body) = send.send_request(request, false).map_err(io::Error::other)?;
    body.send_data(grpc(&hello("victim", "", &Snapshot::default())), true).map_err(io::Error::other)?;
    let mut frames = response.await.map_err(io::Error::other)?.into_body();
    let first = frames.data().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
    let _ = frames.flow_control().release_capacity(first.len());
    if first.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

async fn health(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other("not 200")) }
}

/// Whether this is an answer with a record.
fn good(answer: &[u8]) -> io::Result<()> {
    match (answer.get(3).map(|flags| flags & 0x0F), answer.get(7)) {
        (Some(0), Some(1..)) => Ok(()),
        (Some(code), _) => Err(io::Error::other(format!("rcode {code}"))),
        (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
