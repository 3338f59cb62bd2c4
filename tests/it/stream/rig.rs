//! Hubs and agents wired together without sockets.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::{
    record::{Change, Kind, Service, ServiceKey, Snapshot, Version},
    source::hub,
    store::{self, Origin, Reader, SourceState, What, Writer},
    stream::{self, Server, Surroundings},
    sys::{Clock, ManualClock, UnixMillis},
};
use prometheus::Registry;
use tokio::{sync::watch, task::JoinHandle};

pub use crate::support::weather::Weather;
use crate::support::{
    unharmed::{has, whole},
    weather::wire,
};

pub const EPOCH_MS: u64 = 1_700_000_000_000;

pub fn service(name: &str, n: u32) -> Change {
    let kind = Kind::ClusterIp([std::net::IpAddr::from(n.to_be_bytes())].into());
    Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
}

pub fn services(count: u32) -> Vec<Change> {
    (0..count).map(|n| service(&format!("s{n}"), n)).collect()
}

/// A wall clock that follows tokio's, so that ages are true under a paused clock, too.
pub fn clock() -> Clock {
    clock_at(EPOCH_MS)
}

/// The same, which begins at another time.
pub fn clock_at(begin_ms: u64) -> Clock {
    let manual = ManualClock::new(UnixMillis(begin_ms));
    let hand = manual.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            hand.advance(Duration::from_millis(100));
        }
    });
    Clock::Manual(manual)
}

/// The clock and the network of one test, and what is started in it.
pub struct World {
    pub clock: Clock,
    pub net: Net,
}

impl World {
    pub fn new() -> Self {
        Self { clock: clock(), net: Net::default() }
    }

    /// A hub at the address of its name that has listed so many services.
    pub fn hub(&self, name: &str, count: u32) -> Hub {
        self.hub_with(name, services(count), stream::Config::default())
    }

    /// A hub at the address of its name that has listed these services.
    pub fn hub_with(&self, name: &str, services: Vec<Change>, config: stream::Config) -> Hub {
        let mut hub = Hub::start(name, &self.clock, config);
        hub.list(services, false);
        self.open(&hub);
        hub
    }

    /// A hub that was killed, and starts again with what its disk has. Nobody reaches it before it is [opened](Self::open).
    pub fn restarted(&self, killed: &Hub, disk: &Snapshot) -> Hub {
        self.net.hang(&killed.name);
        let mut again = Hub::start(&killed.name, &self.clock, stream::Config::default());
        again.writer.restore(disk.clone(), self.clock.now());
        again
    }

    /// From now on the hub is reached at the address of its name.
    pub fn open(&self, hub: &Hub) {
        self.net.put(&hub.name, Line::Hub(hub.server.clone()));
    }

    /// An agent that follows these hubs.
    pub fn agent(&self, name: &str, hubs: &[&str]) -> Agent {
        Agent::start(name, &self.clock, &self.net, hubs)
    }

    /// A hub that has listed so many services, and an agent that holds them.
    pub async fn followed(count: u32) -> (Self, Hub, Agent) {
        let world = Self::new();
        let hub = world.hub("hub", count);
        let agent = world.agent("agent", &["hub"]);
        agent.equals(&hub).await;
        (world, hub, agent)
    }
}

pub struct Hub {
    name: String,
    pub writer: Writer,
    pub server: Server,
    pub registry: Registry,
    pub clock: Clock,
    pub surroundings: watch::Sender<Surroundings>,
    pump: JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Hub {
    pub fn start(node: &str, clock: &Clock, config: stream::Config) -> Self {
        let (writer, reader) = store::open();
        Self::over(node, clock, config, writer, reader)
    }

    pub fn over(node: &str, clock: &Clock, config: stream::Config, writer: Writer, reader: Reader) -> Self {
        let registry = Registry::new();
        let config = stream::Config { node: node.into(), advertise: vec![node.into()], ..config };
        let (surroundings, receiver) = watch::channel(Surroundings::default());
        let parts = stream::Parts {
            reader,
            clock: clock.clone(),
            metrics: stream::Metrics::register(&registry).unwrap(),
            tls: None,
            surroundings: receiver,
            beside: stream::Beside::default(),
        };
        let server = Server::new(config, parts);
        let pump = tokio::spawn({
            let server = server.clone();
            async move { server.pump().await }
        });
        Self { name: node.to_owned(), writer, server, registry, clock: clock.clone(), surroundings, pump }
    }

    /// Lists everything anew, as a hub does that begins to watch.
    pub fn list(&mut self, records: Vec<Change>, new_epoch: bool) {
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch };
        let update = What::Reset { origin, records: records.into_iter().collect(), as_of: self.clock.now() };
        self.writer.apply(update).unwrap();
    }

    pub fn change(&mut self, changes: Vec<Change>) {
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch: false };
        self.writer.apply(What::Changes { origin, changes, as_of: self.clock.now() }).unwrap();
    }

    pub fn vouch(&mut self) {
        self.writer.apply(What::Fresh { as_of: self.clock.now() }).unwrap();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn version(&self) -> Version {
        self.writer.reader().load().version().clone()
    }

    /// A number from this hub's metrics.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.registry, name, label)
    }
}

pub fn metric(registry: &Registry, name: &str, label: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no metric {name}"));
    let of = |metric: &prometheus::proto::Metric| {
        label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
    };
    let metrics = family.get_metric().iter().filter(|metric| of(metric));
    let sum: f64 = metrics.map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum();
    // Counts, and small ones.
    format!("{sum:.0}").parse().unwrap()
}

/// What an address leads to.
#[derive(Clone)]
pub enum Line {
    Hub(Server),
    /// Nobody answers, and nobody says so.
    BlackHole,
}

/// The network: addresses, and what they lead to. Cutting one resets its connections or lets them hang.
#[derive(Clone, Default)]
pub struct Net {
    lines: Arc<Mutex<HashMap<String, Line>>>,
    weather: Arc<Mutex<HashMap<String, watch::Sender<Weather>>>>,
    pub dialled: Arc<Mutex<Vec<String>>>,
}

impl Net {
    pub fn put(&self, address: &str, line: Line) {
        self.lines.lock().unwrap().insert(address.into(), line);
        self.weather.lock().unwrap().insert(address.into(), watch::Sender::new(Weather::Fair));
    }

    /// Connections to `address` stay open and carry nothing any more.
    pub fn hang(&self, address: &str) {
        self.weather(address, Weather::Hung);
        self.lines.lock().unwrap().insert(address.into(), Line::BlackHole);
    }

    /// From now on the line to `address` does this to its bytes.
    pub fn weather(&self, address: &str, weather: Weather) {
        self.weather.lock().unwrap()[address].send_replace(weather);
    }

    pub fn remove(&self, address: &str) {
        self.lines.lock().unwrap().remove(address);
    }

    pub fn dial(&self) -> hub::Dial {
        let net = self.clone();
        Arc::new(move |address| {
            let net = net.clone();
            Box::pin(async move {
                net.dialled.lock().unwrap().push(address.clone());
                let line = net.lines.lock().unwrap().get(&address).cloned();
                match line {
                    None => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    Some(Line::BlackHole) => std::future::pending().await,
                    Some(Line::Hub(server)) => {
                        let (ours, near) = tokio::io::duplex(256 << 10);
                        let (far, theirs) = tokio::io::duplex(256 << 10);
                        tokio::spawn(async move { server.connection(theirs).await });
                        let weather = net.weather.lock().unwrap()[&address].subscribe();
                        tokio::spawn(wire(near, far, weather));
                        Ok(Box::new(ours) as Box<dyn hub::Io>)
                    }
                }
            })
        })
    }
}

pub struct Agent {
    pub reader: Reader,
    pub registry: Registry,
    pub status: watch::Receiver<hub::Status>,
    pub kept: Arc<Mutex<Vec<String>>>,
    pub refused: Arc<Mutex<Vec<String>>>,
    /// How the source was, each time that changed.
    pub sources: Arc<Mutex<Vec<SourceState>>>,
    /// Versions at which a name that every hub of these tests has was not answered any more.
    missed: Arc<Mutex<Vec<Version>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Agent {
    pub fn start(node: &str, clock: &Clock, net: &Net, hubs: &[&str]) -> Self {
        Self::holding(node, clock, net, hubs, None)
    }

    /// An agent whose disk held these records.
    pub fn holding(node: &str, clock: &Clock, net: &Net, hubs: &[&str], held: Option<Snapshot>) -> Self {
        let config = hub::Config {
            addresses: hubs.iter().map(ToString::to_string).collect(),
            node: node.into(),
            ..hub::Config::default()
        };
        Self::with(config, clock, net, held)
    }

    pub fn with(config: hub::Config, clock: &Clock, net: &Net, held: Option<Snapshot>) -> Self {
        Self::over(config, clock, net, held, store::open().0)
    }

    /// An agent with a guard, whose disk held these records.
    pub fn guarded(node: &str, clock: &Clock, net: &Net, hubs: &[&str], held: Snapshot) -> Self {
        let config = hub::Config {
            addresses: hubs.iter().map(ToString::to_string).collect(),
            node: node.into(),
            ..hub::Config::default()
        };
        let writer = store::open().0.guarded(store::guard::Config::default(), clock.clone());
        Self::over(config, clock, net, Some(held), writer)
    }

    fn over(config: hub::Config, clock: &Clock, net: &Net, held: Option<Snapshot>, mut writer: Writer) -> Self {
        let reader = writer.reader();
        if let Some(held) = held {
            writer.restore(held, UnixMillis(EPOCH_MS));
        }
        let registry = Registry::new();
        let (status, shown) = watch::channel(hub::Status::default());
        let kept: Arc<Mutex<Vec<String>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let parts = hub::Parts {
            reader: reader.clone(),
            clock: clock.clone(),
            metrics: hub::Metrics::register(&registry).unwrap(),
            dial: net.dial(),
            learnt: holdfast::source::Learnt {
                known: Vec::new(),
                keep: Arc::new(move |hubs| *keep.lock().unwrap() = hubs.to_vec()),
            },
            status,
        };
        let (sender, mut updates) = tokio::sync::mpsc::channel(16);
        let refused: Arc<Mutex<Vec<String>>> = Arc::default();
        let refusals = Arc::clone(&refused);
        let sources: Arc<Mutex<Vec<SourceState>>> = Arc::default();
        let missed: Arc<Mutex<Vec<Version>>> = Arc::default();
        let (came, lost) = (Arc::clone(&sources), Arc::clone(&missed));
        let served = reader.clone();
        let tasks = vec![
            tokio::spawn(hub::run(config, parts, sender)),
            tokio::spawn(async move {
                let mut answered = false;
                while let Some(update) = updates.recv().await {
                    if let Err(error) = writer.apply(update) {
                        refusals.lock().unwrap().push(error.to_string());
                    }
                    let (before, snapshot) = (answered, served.load());
                    answered = snapshot.service(b"prod", b"s0").is_some();
                    if before && !answered {
                        lost.lock().unwrap().push(snapshot.version().clone());
                    }
                    let (mut came, source) = (came.lock().unwrap(), served.freshness().source);
                    if came.last() != Some(&source) {
                        came.push(source);
                    }
                }
            }),
        ];
        Self { reader, registry, status: shown, kept, refused, sources, missed, tasks }
    }

    /// Waits until this agent holds what the hub holds, version and records, and nothing was missing meanwhile; the time
    /// it took.
    pub async fn equals(&self, hub: &Hub) -> Duration {
        let theirs = hub.writer.reader();
        let start = tokio::time::Instant::now();
        let same = || {
            let (ours, theirs) = (self.reader.snapshot(), theirs.snapshot());
            ours.root() == theirs.root() && ours.version() == theirs.version() && !ours.version().cluster.is_empty()
        };
        let mut published = self.reader.subscribe();
        let reached = async {
            while !same() {
                published.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(300), reached).await.unwrap_or_else(|_| {
            panic!("{:?} is not {:?}: {:?}", self.reader.load().version(), hub.version(), *self.status.borrow())
        });
        assert!(self.refused.lock().unwrap().is_empty(), "{:?}", self.refused.lock().unwrap());
        assert!(self.missed.lock().unwrap().is_empty(), "{:?}", self.missed.lock().unwrap());
        let source: Vec<_> = theirs.snapshot().services().map(|service| has(service)).collect();
        whole(&source, &theirs, &[&self.reader]);
        start.elapsed()
    }

    pub async fn reaches(&self, state: hub::State) {
        let mut status = self.status.clone();
        let reached = status.wait_for(|status| status.state == state);
        tokio::time::timeout(Duration::from_secs(300), reached).await.unwrap().unwrap();
    }

    pub fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.registry, name, label)
    }
}
