//! The cost of encrypted DNS at the agent: CPU time of a query on a kept connection and of a handshake, memory of an idle connection, each
//! beside plain TCP. See docs/performance.md.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops where it stands")]

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/it/support/process.rs"]
mod process;

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use holdfast::{
    simulate::encrypted::{Client, Connection, Protocol, Trust, framed},
    sys::Clock,
    tls::issue_server,
};
use process::Agent;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    task::JoinSet,
};

/// Kept connections that ask at once.
const CONNECTIONS: usize = 8;
const RUNS: usize = 5;
const RUN: Duration = Duration::from_secs(1);
const HANDSHAKES: u32 = 500;
/// Idle connections at once; the limit of open files has to be above.
const IDLE: u32 = 1_000;
/// Of `kubernetes.default.svc.cluster.local`, A.
const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";

const TARGET_CPU: f64 = 2.0;
const TARGET_BYTES: u64 = 40 * 1024;

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Tcp,
    Encrypted(Protocol),
}

const TRANSPORTS: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tls", Transport::Encrypted(Protocol::Tls)),
    ("https", Transport::Encrypted(Protocol::Https)),
    ("quic", Transport::Encrypted(Protocol::Quic)),
];

enum Open {
    Tcp(TcpStream),
    Encrypted(Connection),
}

impl Open {
    async fn connect(transport: Transport, server: SocketAddr) -> Self {
        match transport {
            Transport::Tcp => {
                let stream = TcpStream::connect(server).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Self::Tcp(stream)
            }
            Transport::Encrypted(protocol) => {
                Self::Encrypted(Client::new(protocol, server, &Trust::Any).connect().await.unwrap())
            }
        }
    }

    async fn ask(&mut self) {
        let answer = match self {
            Self::Tcp(stream) => {
                stream.write_all(&framed(QUERY)).await.unwrap();
                let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut answer).await.unwrap();
                answer
            }
            Self::Encrypted(connection) => connection.ask(QUERY).await.unwrap(),
        };
        assert_eq!((answer[3] & 0x0F, answer[7]), (0, 1), "one record");
    }
}

/// A running agent and where it serves each transport.
struct Subject {
    agent: Agent,
    servers: [SocketAddr; 4],
}

impl Subject {
    fn start(home: &Path) -> Self {
        issue_server(home, "bench", &["127.0.0.1".to_owned()], 30, Clock::System.now()).unwrap();
        let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [tls, https, quic] = [port(), port(), port()];
        let path = |name: &str| home.join(name).to_str().unwrap().to_owned();
        let mut config = fs::File::create(path("agent.yaml")).unwrap();
        writeln!(config, "tcp: {{ max_connections: 20000, max_per_source: 20000, idle: 2m }}").unwrap();
        let dns = path("dns");
        writeln!(config, "encrypted: {{ tls: [{tls}], https: [{https}], quic: [{quic}], certificate: {dns} }}")
            .unwrap();
        let manifest = "{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1}}\n";
        fs::write(path("cluster.yaml"), manifest).unwrap();
        let mut agent = Agent::start(home, &["--config", &path("agent.yaml"), "--manifests", &path("cluster.yaml")]);
        agent.wait_for("records complete");
        let servers = [agent.dns, tls, https, quic];
        Self { agent, servers }
    }

    /// Processor time of the agent's threads beyond `before`.
    fn processor_time_since(&self, before: Duration) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.agent.pid())).unwrap();
        let ns = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            stat.split_ascii_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        };
        Duration::from_nanos(tasks.flatten().map(ns).sum()).saturating_sub(before)
    }
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    let subject = Subject::start(home.path());
    let mut micros = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        for (place, (_, transport)) in TRANSPORTS.into_iter().enumerate() {
            micros[place].push(runtime.block_on(query(&subject, transport, subject.servers[place])));
        }
    }
    let micros = micros.map(median);
    let handshakes: Vec<f64> = TRANSPORTS
        .into_iter()
        .enumerate()
        .map(|(place, (_, transport))| runtime.block_on(handshake(&subject, transport, subject.servers[place])))
        .collect();
    subject.agent.kill();
    println!("| transport | CPU µs/query | × TCP | CPU µs/connection with a query | RSS of an idle connection |");
    println!("|---|--:|--:|--:|--:|");
    let mut missed = Vec::new();
    for (place, (name, transport)) in TRANSPORTS.into_iter().enumerate() {
        // Memory of a process of its own: an allocator keeps what it had.
        let home = tempfile::tempdir().unwrap();
        let subject = Subject::start(home.path());
        let bytes = runtime.block_on(idle(&subject, transport, subject.servers[place]));
        subject.agent.kill();
        let ratio = micros[place] / micros[0];
        let (cpu, connection) = (micros[place], handshakes[place]);
        println!("| {name} | {cpu:.1} | {ratio:.2} | {connection:.0} | {:.1} KiB |", kib(bytes));
        if name == "tls" && (ratio > TARGET_CPU || bytes > TARGET_BYTES) {
            missed.push(name);
        }
    }
    println!("tls: at most {TARGET_CPU} × the CPU time of TCP, and {} KiB an idle connection", TARGET_BYTES / 1024);
    assert!(missed.is_empty(), "{missed:?} missed");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

/// CPU time of the agent for a query on connections that are kept, in microseconds.
async fn query(subject: &Subject, transport: Transport, server: SocketAddr) -> f64 {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Open::connect(transport, server).await;
        connection.ask().await;
        connections.push(connection);
    }
    let (before, end) = (subject.processor_time_since(Duration::ZERO), Instant::now() + RUN);
    let mut asking = JoinSet::new();
    for mut connection in connections {
        asking.spawn(async move {
            let mut asked = 0_u32;
            while Instant::now() < end {
                connection.ask().await;
                asked += 1;
            }
            asked
        });
    }
    let asked: u32 = asking.join_all().await.into_iter().sum();
    subject.processor_time_since(before).as_secs_f64() * 1e6 / f64::from(asked)
}

/// CPU time of the agent for a connection, its full handshake and one query, in microseconds.
async fn handshake(subject: &Subject, transport: Transport, server: SocketAddr) -> f64 {
    let before = subject.processor_time_since(Duration::ZERO);
    for _ in 0..HANDSHAKES {
        Open::connect(transport, server).await.ask().await;
    }
    subject.processor_time_since(before).as_secs_f64() * 1e6 / f64::from(HANDSHAKES)
}

/// Memory of the agent for a connection that has asked once and is silent, in bytes.
async fn idle(subject: &Subject, transport: Transport, server: SocketAddr) -> u64 {
    // The first connections allocate memory that later ones share; it is left out.
    for _ in 0..20 {
        Open::connect(transport, server).await.ask().await;
    }
    let before = subject.agent.resident_bytes();
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut connection = Open::connect(transport, server).await;
        connection.ask().await;
        open.push(connection);
    }
    let bytes = subject.agent.resident_bytes().saturating_sub(before) / u64::from(IDLE);
    drop(open);
    bytes
}
