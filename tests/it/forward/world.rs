//! A forwarder between a client and scripted upstreams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::RecordType,
};
use holdfast::{
    dns::{
        AnswerConfig, Context, Forward, ForwardRequest, Outcome, Resolve, Resolved, Rotation, ServedFrom, Transport,
        answer, cache,
        forward::{Config, Environment, Forwarder, Metrics, ResolvConfCache, UpstreamSource, ZoneConfig},
    },
    report::UpstreamStatus,
    store::{self, Origin, What},
    sys::{Clock, ManualClock, UnixMillis},
    zone::{self, Zone},
};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{
    cluster,
    upstream::{Upstream, name},
};

pub const NOW: UnixMillis = UnixMillis(1_733_941_800_000);
pub const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10)), 53);
pub const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);

pub struct World {
    pub forwarder: Forwarder,
    pub registry: prometheus::Registry,
    pub metrics: Metrics,
    pub cache_metrics: cache::Metrics,
    pub clock: ManualClock,
    pub records: Arc<Context>,
    /// What the client's own thread keeps.
    worker_cache: Mutex<cache::WorkerCache>,
    task: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `zone` asked of `upstreams`, everything else as by default.
pub fn zone(zone: &str, upstreams: &[&Upstream]) -> ZoneConfig {
    let sources = upstreams.iter().map(|upstream| source(&upstream.address.to_string())).collect();
    ZoneConfig { zone: name(zone), upstreams: sources, ..ZoneConfig::default() }
}

pub fn source(text: &str) -> UpstreamSource {
    text.parse().expect("an upstream")
}

impl World {
    pub fn new(upstreams: &[&Upstream]) -> Self {
        Self::with(vec![zone(".", upstreams)])
    }

    pub fn with(zones: Vec<ZoneConfig>) -> Self {
        Self::build(&Config { zones, ..Config::default() }, no_cluster())
    }

    pub fn build(config: &Config, records: Arc<Context>) -> Self {
        let clock = ManualClock::new(NOW);
        Self::start(config, cache::Config::default(), records, None, clock)
    }

    /// Starts one with its cache in `file`, which is loaded on return.
    pub async fn on_disk(config: &Config, file: &Path, clock: &ManualClock) -> Self {
        let file = Some(file.to_owned());
        let this = Self::start(config, cache::Config::default(), no_cluster(), file, clock.clone());
        this.forwarder.loaded().await;
        this
    }

    /// Starts a forwarder and what goes on behind it, with its cache file if there is one.
    pub fn start(
        config: &Config,
        cache_config: cache::Config,
        records: Arc<Context>,
        cache_file: Option<PathBuf>,
        clock: ManualClock,
    ) -> Self {
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry).expect("a fresh registry");
        let cache_metrics = cache::Metrics::register(&registry).expect("a fresh registry");
        let surroundings = Environment {
            clock: Clock::Manual(clock.clone()),
            metrics: metrics.clone(),
            cache_metrics: cache_metrics.clone(),
            cache_file,
            resolv_conf_cache: ResolvConfCache::default(),
            listen: Vec::new(),
            records: Arc::clone(&records),
        };
        let forwarder = Forwarder::new(config, cache_config, surroundings).expect("a good config");
        let behind = forwarder.clone();
        let task = tokio::spawn(async move { behind.run().await });
        let worker_cache = Mutex::new(forwarder.worker_cache());
        Self { forwarder, registry, metrics, cache_metrics, clock, records, worker_cache, task }
    }

    /// A client of other addresses, whose forwarder shares this one's cache.
    pub fn view(&self, config: &Config) -> Self {
        let forwarder = self.forwarder.view(config, "view 0").expect("a good config");
        let behind = forwarder.clone();
        let task = tokio::spawn(async move { behind.run().await });
        let worker_cache = Mutex::new(forwarder.worker_cache());
        let (metrics, cache_metrics) = (self.metrics.clone(), self.cache_metrics.clone());
        let (clock, records) = (self.clock.clone(), Arc::clone(&self.records));
        let registry = self.registry.clone();
        Self { forwarder, registry, metrics, cache_metrics, clock, records, worker_cache, task }
    }

    /// Lets time pass for everybody, in steps short enough for what happens meanwhile.
    pub async fn elapse(&self, time: Duration) {
        self.elapse_by(time, Duration::from_millis(100).max(time / 2_000)).await;
    }

    /// The same in coarser steps, for hours of it.
    pub async fn elapse_by(&self, time: Duration, step: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = step.min(left);
            self.clock.advance(step);
            tokio::time::advance(step).await;
            settle().await;
            left -= step;
        }
    }

    /// The records' answer, or the question as the server hands it to the forwarder.
    pub fn request(&self, query: Vec<u8>, transport: Transport) -> Result<Resolved, Box<ForwardRequest>> {
        let (batch, rotation) = (self.records.load(), Rotation::default());
        let mut out = vec![0; 65_535];
        let view = self.records.view(&batch, self.clock.now(), &rotation);
        let (forward, len) = match answer(&self.records, &view, &query, transport, None, &mut out) {
            Outcome::Reply(reply) => return Ok(Resolved { message: out[..reply.len].to_vec(), from: reply.from }),
            Outcome::Drop(reason) => panic!("{reason:?}"),
            Outcome::Forward(forward @ (Forward::Chase { len } | Forward::Complete { len, .. })) => (forward, len),
            Outcome::Forward(forward) => (forward, 0),
        };
        let (client, server, received, written) = (CLIENT, SERVER, Instant::now(), out[..len].to_vec());
        Err(Box::new(ForwardRequest { query, transport, client, server, received, cookie: None, forward, written }))
    }

    /// Asks as a client does.
    pub async fn resolve(&self, query: Vec<u8>, transport: Transport) -> Resolved {
        match self.request(query, transport) {
            Ok(resolved) => resolved,
            Err(request) => self.forwarder.resolve(*request).await,
        }
    }

    /// Asks over TCP with EDNS.
    pub async fn ask(&self, owner: &str, qtype: RecordType) -> Message {
        let resolved = self.resolve(query(owner, qtype, Some(1232)), Transport::Tcp).await;
        Message::from_vec(&resolved.message).expect("a well-formed answer")
    }

    /// Asks on the client's own thread, without EDNS over TCP: `None` if the answer is not at hand.
    pub fn at_hand(&self, owner: &str, qtype: RecordType) -> Option<(Message, ServedFrom)> {
        self.at_hand_as(owner, qtype, 0x4242)
    }

    /// The same, for a query with this id.
    pub fn at_hand_as(&self, owner: &str, qtype: RecordType, id: u16) -> Option<(Message, ServedFrom)> {
        let mut query = query(owner, qtype, None);
        query[..2].copy_from_slice(&id.to_be_bytes());
        let holdfast::wire::Parsed::Query(parsed) = holdfast::wire::parse(&query) else { panic!("a query") };
        let mut out = vec![0; 65_535];
        let (length, from) = {
            let mut worker_cache = self.worker_cache.lock().unwrap();
            self.forwarder.cached(&parsed, Transport::Tcp, self.clock.steady(), &mut worker_cache, &mut out)?
        };
        Some((Message::from_vec(&out[..length]).expect("a well-formed answer"), from))
    }

    /// How the nth upstream of the first zone does.
    pub fn upstream_status(&self, nth: usize) -> UpstreamStatus {
        self.forwarder.status().zones[0].upstreams[nth].clone()
    }

    /// The same, of a client that sets DO.
    pub async fn a_with_do(&self, owner: &str) -> String {
        let mut message = Message::from_vec(&query(owner, RecordType::A, Some(1232))).expect("a query");
        let edns = message.edns.as_mut().expect("it has EDNS");
        edns.set_dnssec_ok(true);
        let resolved = self.resolve(message.to_vec().expect("a query fits"), Transport::Tcp).await;
        short(&Message::from_vec(&resolved.message).expect("a well-formed answer"))
    }

    /// Asks for A and returns what was said in short: `NoError 10.0.0.1`.
    pub async fn a(&self, owner: &str) -> String {
        short(&self.ask(owner, RecordType::A).await)
    }
}

/// Lets everything that can go on go on.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Runs `future` on a paused clock that stands still meanwhile: what comes over TCP needs no time, where the clock would
/// else run ahead of the kernel. It runs on after a minute, so that a test ends that waits in vain.
pub async fn at_once<F: Future>(future: F) -> F::Output {
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || wait.recv_timeout(secs(60)).is_ok());
    let output = future.await;
    drop(end);
    blocking.await.expect("it only waits");
    output
}

/// Waits for a state, while everything else goes on.
pub async fn until(mut state: impl FnMut() -> bool) {
    while !state() {
        tokio::task::yield_now().await;
    }
}

/// A query with RD, the id 0x4242, and EDNS if `payload` says so.
pub fn query(owner: &str, qtype: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(owner), qtype));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().expect("a query fits")
}

/// The code, each answer's data and the EDE code.
pub fn short(message: &Message) -> String {
    let mut words = vec![format!("{:?}", message.response_code)];
    words.extend(message.answers.iter().map(|record| record.data.to_string()));
    words.extend(ede(message).map(|code| format!("ede={code}")));
    words.join(" ")
}

/// INFO-CODE of the first EDE option, RFC 8914.
pub fn ede(message: &Message) -> Option<u16> {
    let options = message.edns.as_ref()?.options().as_ref();
    options.iter().find(|(code, _)| u16::from(*code) == 15).map(|(_, option)| {
        let bytes = Vec::<u8>::try_from(option).expect("an option is bytes");
        u16::from_be_bytes([bytes[0], bytes[1]])
    })
}

/// How many questions for `owner` reached `upstream`; probes and the like do not count.
pub fn asked_for(upstream: &Upstream, owner: &str) -> usize {
    upstream.seen().iter().filter(|asked| asked.name() == owner).count()
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A cluster with these records, confirmed by its source `age` seconds ago.
pub fn cluster(text: &str, age: u64, config: AnswerConfig, rules: &zone::Config) -> Arc<Context> {
    let (mut writer, reader) = store::open();
    let origin = Origin::Watched { cluster: "test".into(), new_epoch: false };
    let records = cluster::changes(text).into_iter().collect();
    let as_of = UnixMillis(NOW.0 - age * 1_000);
    writer.apply(What::Reset { origin, records, as_of }).expect("a first list is applied");
    Arc::new(Context::new(Zone::new(rules), reader, config))
}

/// A cluster in which the services `db` and `web` have the address 10.96.0.9.
pub fn own_cluster() -> Arc<Context> {
    let services = ["default/db", "prod/db", "prod/web"].map(|name| format!("service {name} 10.96.0.9\n")).concat();
    let text = format!("namespace default\nnamespace prod\n{services}");
    cluster(&text, 0, AnswerConfig::default(), &zone::Config::default())
}

/// A node that answers nothing from records.
pub fn no_cluster() -> Arc<Context> {
    let config = AnswerConfig { forward_only: true, ..AnswerConfig::default() };
    Arc::new(Context::new(Zone::new(&zone::Config::default()), store::open().1, config))
}

/// A cluster without records, with a resolver that stands in for them or without.
pub fn no_records(cluster_fallback: bool) -> Arc<Context> {
    let config = AnswerConfig { cluster_fallback, ..AnswerConfig::default() };
    Arc::new(Context::new(Zone::new(&zone::Config::default()), store::open().1, config))
}
