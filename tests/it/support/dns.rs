//! A DNS server on ports of its own, its records, whoever answers its forwards, and clients to ask it with.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use holdfast::{
    dns::{
        self, AnswerConfig, Bound, Config, Context, ForwardRequest, Metrics, Recent, Resolve, Resolved, Running,
        ServedFrom,
    },
    record::{Change, Endpoint, Kind, Service, ServiceKey},
    store::{self, Origin, What},
    sys::{Clock, UnixMillis},
    zone::{self, Zone},
};
use prometheus::Registry;
use tokio::sync::Semaphore;

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A ClusterIP service: `cluster_ip("prod/web", "10.0.0.1")`.
pub fn cluster_ip(key: &str, ip: &str) -> Change {
    put(key, Kind::ClusterIp([ip.parse().unwrap()].into()), vec![])
}

/// A headless service with this many endpoints, all in 10.1.0.0/16.
pub fn headless(key: &str, endpoints: u16) -> Change {
    let endpoint = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Endpoint { ip: [10, 1, high, low].into(), hostname: None, ports: [].into(), ready: true }
    };
    put(key, Kind::Headless, (1..=endpoints).map(endpoint).collect())
}

/// A service that is an alias.
pub fn external_name(key: &str, target: &str) -> Change {
    put(key, Kind::ExternalName(target.into()), vec![])
}

fn put(key: &str, kind: Kind, endpoints: Vec<Endpoint>) -> Change {
    let (namespace, name) = key.split_once('/').unwrap();
    Change::Put(Arc::new(Service::new(ServiceKey::new(namespace, name), kind, vec![], endpoints)))
}

/// What most tests here serve.
pub fn records() -> Vec<Change> {
    vec![
        cluster_ip("prod/web", "10.0.0.1"),
        headless("prod/few", 40),
        headless("prod/many", 300),
        external_name("prod/outside", "example.org"),
    ]
}

/// Answers forwards NOERROR without records, when it has a permit to; `slow.` names only take one of `gate`.
pub struct Script {
    /// One permit lets one forward of a name that begins with `slow` go on.
    pub gate: Semaphore,
    pub asked: AtomicUsize,
}

impl Script {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), asked: AtomicUsize::new(0) })
    }

    /// Waits until this many forwards were asked.
    pub async fn wait_for(&self, asked: usize) {
        let reached = async {
            while self.asked.load(Ordering::SeqCst) < asked {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("the forwards arrive");
    }
}

/// The script as the server calls it.
pub struct Scripted(pub Arc<Script>);

impl Resolve for Scripted {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let script = Arc::clone(&self.0);
        script.asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let query = Message::from_vec(&request.query).unwrap();
            if query.queries[0].name().to_string().starts_with("slow") {
                script.gate.acquire().await.unwrap().forget();
            }
            let message = if request.written.is_empty() {
                let mut message = Message::new(query.id, MessageType::Response, OpCode::Query);
                message.queries.clone_from(&query.queries);
                message.to_vec().unwrap()
            } else {
                request.written
            };
            Resolved { message, from: ServedFrom::Upstream }
        }
        .boxed()
    }
}

/// A server, and what surrounds it.
pub struct Server {
    pub addresses: Vec<SocketAddr>,
    pub running: Running,
    pub registry: Registry,
    /// The queries of the last minute, as `status` shows them.
    pub queries: Recent,
    pub script: Arc<Script>,
}

pub fn bind(listen: &[&str], config: Config) -> Bound {
    let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    dns::bind(Config { listen, ..config }).unwrap()
}

/// The zone and the records as listeners take them.
pub fn context(records: Vec<Change>) -> Arc<Context> {
    let (mut writer, reader) = store::open();
    let origin = Origin::Watched { cluster: "test".into(), new_epoch: false };
    writer.apply(What::Reset { origin, records: records.into_iter().collect(), as_of: UnixMillis(0) }).unwrap();
    let stale_after = Duration::from_secs(u64::MAX);
    Arc::new(Context::new(
        Zone::new(&zone::Config::default()),
        reader,
        AnswerConfig { stale_after, ..AnswerConfig::default() },
    ))
}

pub fn serve(bound: Bound, records: Vec<Change>) -> Server {
    let script = Script::new();
    serve_with(bound, records, &script, Arc::new(Scripted(Arc::clone(&script))))
}

/// Serves what is bound, with forwards answered by `resolver`.
pub fn serve_with(bound: Bound, records: Vec<Change>, script: &Arc<Script>, resolver: Arc<dyn Resolve>) -> Server {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let addresses = bound.addresses().to_vec();
    let queries = Recent::new(metrics.clone());
    let running = bound.serve(context(records), resolver, Clock::System, metrics);
    Server { addresses, running, registry, queries, script: Arc::clone(script) }
}

/// A server on one v4 address.
pub fn start(config: Config) -> Server {
    serve(bind(&["127.0.0.1:0"], config), records())
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The sum of a metric's series whose labels include all of `with`.
    pub fn count(&self, metric: &str, with: &[(&str, &str)]) -> u64 {
        count(&self.registry, metric, with)
    }

    /// Waits until the metric's sum is `expected`: counters move after the client was served.
    pub async fn wait_for_count(&self, metric: &str, with: &[(&str, &str)], expected: u64) {
        self.wait_for_sum(&[metric], with, expected).await;
    }

    /// As [`wait_for_count`](Self::wait_for_count), for several metrics together.
    pub async fn wait_for_sum(&self, metrics: &[&str], with: &[(&str, &str)], expected: u64) {
        let sum = || metrics.iter().map(|metric| self.count(metric, with)).sum::<u64>();
        let reached = async {
            while sum() != expected {
                tokio::task::yield_now().await;
            }
        };
        let found = || format!("{metrics:?} {with:?} is {}, not {expected}", sum());
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{}", found()));
    }
}

/// The sum of a metric's series whose labels include all of `with`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts are small and whole"
)]
pub fn count(registry: &Registry, metric: &str, with: &[(&str, &str)]) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == metric).unwrap_or_else(|| panic!("no {metric}"));
    let matches = |series: &&prometheus::proto::Metric| {
        let has = |(name, value): &(&str, &str)| {
            series.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
        };
        with.iter().all(has)
    };
    let value = |series: &prometheus::proto::Metric| match family.get_field_type() {
        prometheus::proto::MetricType::COUNTER => series.get_counter().get_value(),
        prometheus::proto::MetricType::HISTOGRAM => series.get_histogram().get_sample_count() as f64,
        _ => series.get_gauge().get_value(),
    };
    family.get_metric().iter().filter(matches).map(value).sum::<f64>() as u64
}

pub fn query(id: u16, name: &str, rtype: RecordType) -> Vec<u8> {
    message(id, name, rtype).to_vec().unwrap()
}

/// A query that can be changed before it is sent.
pub fn message(id: u16, name: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

pub fn edns_query(id: u16, name: &str, rtype: RecordType, payload: u16) -> Vec<u8> {
    let mut message = message(id, name, rtype);
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

/// Id, response code and number of answers.
pub fn gist(message: &Message) -> (u16, ResponseCode, usize) {
    (message.id, message.metadata.response_code, message.answers.len())
}

/// A UDP client that takes answers only from the address it asks.
pub fn udp(server: SocketAddr) -> UdpSocket {
    let any: IpAddr = if server.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket
}

pub fn receive(socket: &UdpSocket) -> Message {
    let mut room = [0; 2_048];
    let length = socket.recv(&mut room).expect("an answer");
    Message::from_vec(&room[..length]).unwrap()
}

pub fn ask_udp(server: SocketAddr, query: &[u8]) -> Message {
    let socket = udp(server);
    socket.send(query).unwrap();
    receive(&socket)
}

pub struct Tcp(pub TcpStream);

impl Tcp {
    pub fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends one query behind its prefix.
    pub fn send(&mut self, query: &[u8]) {
        self.0.write_all(&framed(query)).unwrap();
    }

    pub fn receive(&mut self) -> Message {
        self.try_receive().expect("an answer")
    }

    /// Takes one answer; `None` if the server has closed the connection.
    pub fn try_receive(&mut self) -> Option<Message> {
        let mut prefix = [0; 2];
        match self.0.read_exact(&mut prefix) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in time"),
            Err(_) => return None,
        }
        let mut room = vec![0; usize::from(u16::from_be_bytes(prefix))];
        self.0.read_exact(&mut room).unwrap();
        Some(Message::from_vec(&room).unwrap())
    }

    pub fn finish(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }
}

/// A message behind its length prefix.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

pub fn ask_tcp(server: SocketAddr, query: &[u8]) -> Message {
    let mut tcp = Tcp::connect(server);
    tcp.send(query);
    tcp.receive()
}
