//! A cluster, two hubs, a relay and agents.

use std::{net::IpAddr, time::Duration};

use holdfast::{
    record::Snapshot,
    source::{
        Metrics,
        apiserver::{self, Config, Timing},
    },
    store::{Reader, Update, What, guard},
    sys::{Clock, ManualClock, UnixMillis},
};
use prometheus::Registry;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::support::{
    apiserver::{Apiserver, endpoints, headless, namespace, service},
    node::Node,
};

/// No wait takes longer than this where all is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than deletions wait to be decided together.
const DECIDED: Duration = Duration::from_secs(11);
/// The namespace of the objects that show how far the source has come. Not counted.
const MARK: &str = "mark";

/// What an apiserver says, as long as this lives.
struct Source {
    updates: mpsc::Receiver<Update>,
    run: JoinHandle<()>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// Two hubs, of which one watches the apiserver; a relay below the other; agents of all three.
pub struct World {
    pub server: Apiserver,
    pub clock: ManualClock,
    pub hubs: [Node; 2],
    pub leader: usize,
    pub relay: Node,
    pub agents: Vec<Node>,
    source: Source,
    dir: TempDir,
    marks: u16,
    rng: SmallRng,
}

/// Services served, services held, endpoints held.
pub type Counts = (usize, usize, usize);

impl World {
    /// A cluster with these objects, which all have heard of.
    pub async fn begin(objects: impl IntoIterator<Item = Value>) -> Self {
        let server = Apiserver::start().await;
        server.put_all(["shop", "ci", MARK].map(namespace));
        server.put(headless(MARK, "endpoints"));
        server.put_all(objects);
        let clock = ManualClock::new(UnixMillis(1_000_000));
        let node = || Node::new(&clock, &guard::Config::default(), None);
        let (hubs, relay, agents) = ([node(), node()], node(), (0..6).map(|_| node()).collect());
        let dir = tempfile::tempdir().unwrap();
        let source = source(&server, &dir, &clock);
        let rng = SmallRng::seed_from_u64(1);
        let mut world = Self { server, clock, hubs, leader: 0, relay, agents, source, dir, marks: 0, rng };
        world.lead().writer.begin_epoch(1);
        world.listed().await;
        world.arrived().await;
        world
    }

    pub fn lead(&mut self) -> &mut Node {
        &mut self.hubs[self.leader]
    }

    pub fn reader(&self) -> &Reader {
        &self.hubs[self.leader].reader
    }

    pub fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Takes in one update of the source.
    async fn take(&mut self, what: &str) -> bool {
        let update = tokio::time::timeout(PATIENCE, self.source.updates.recv()).await;
        let update = update.unwrap_or_else(|_| panic!("{what}: {:?}", self.counts())).expect("the source lives");
        let complete = matches!(update.what, What::Reset { .. });
        // Another cluster's records are refused, and the hub says so.
        let _ = self.lead().writer.apply(update);
        complete
    }

    /// Takes in what the source says until the leader is as wanted.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Reader) -> bool) {
        while !holds(self.reader()) {
            self.take(what).await;
        }
    }

    /// Takes in a complete list.
    async fn listed(&mut self) {
        while !self.take("a list").await {}
    }

    /// Takes in everything that was done to the cluster so far, decides about it, and tells all. All are equal then.
    pub async fn arrived(&mut self) {
        self.taken_in().await;
        self.decided();
    }

    /// Takes in everything that was done so far; deletions wait to be decided.
    pub async fn taken_in(&mut self) {
        self.marks += 1;
        let [high, low] = self.marks.to_be_bytes();
        let ip = format!("10.255.{high}.{low}");
        let of_namespace = format!("mark-{}", self.marks);
        self.server.put(service(MARK, "services", &ip));
        self.server.put(endpoints(MARK, "endpoints-x", "endpoints", true, &[&ip]));
        self.server.put(namespace(&of_namespace));
        let ip: IpAddr = ip.parse().unwrap();
        self.until("all that was done", move |reader| {
            let snapshot = reader.load();
            snapshot.holders(ip).len() == 2 && snapshot.lists_namespace(&of_namespace)
        })
        .await;
    }

    /// Decides about deletions that wait.
    pub fn decided(&mut self) {
        self.pass(DECIDED);
        self.lead().writer.tick();
        self.spread();
    }

    /// Reads a complete list on a new connection, as a hub does whose holds a list could end.
    pub async fn relist(&mut self) {
        self.source = source(&self.server, &self.dir, &self.clock);
        self.listed().await;
        self.decided();
    }

    /// Lets time pass until a list could end what is held, and reads one.
    pub async fn confirmed(&mut self, after: Duration) {
        self.pass(after);
        let at = self.reader().held().confirm_at(false).expect("a list could end it");
        assert!(at <= self.clock.now(), "{at:?} {:?}", self.clock.now());
        self.relist().await;
    }

    /// The leader starts again with the disk it has, or with none.
    pub async fn restart_leader(&mut self, with_disk: bool) {
        let disk = with_disk.then(|| self.reader().snapshot());
        let epoch = self.clock.now().0;
        *self.lead() = Node::new(&self.clock.clone(), &guard::Config::default(), disk.as_deref());
        self.lead().writer.begin_epoch(epoch);
        self.relist().await;
    }

    /// The other hub takes the Lease; the one that had it starts again with the disk it has.
    pub async fn hand_over(&mut self) {
        let old = self.leader;
        self.leader = 1 - old;
        let epoch = self.clock.now().0;
        self.lead().writer.begin_epoch(epoch);
        let disk = self.hubs[old].reader.snapshot();
        self.hubs[old] = Node::new(&self.clock, &guard::Config::default(), Some(&disk));
        self.relist().await;
    }

    /// An agent starts again with this disk.
    pub fn restart_agent(&mut self, n: usize, disk: Option<&Snapshot>) {
        self.agents[n] = Node::new(&self.clock, &guard::Config::default(), disk);
    }

    /// Both hubs and the relay start with nothing, and the leader lists what there is.
    pub async fn lose_disks_of_hubs(&mut self) {
        let node = || Node::new(&self.clock, &guard::Config::default(), None);
        (self.hubs, self.relay) = ([node(), node()], node());
        let epoch = self.clock.now().0;
        self.lead().writer.begin_epoch(epoch);
        self.source = source(&self.server, &self.dir, &self.clock);
        self.listed().await;
        self.follow();
    }

    /// All follow, each by a batch or by a repair.
    pub fn follow(&mut self) {
        let Self { hubs, leader, relay, agents, clock, rng, .. } = self;
        let mut by_batch = || rng.random_range(0..4) > 0;
        let [first, second] = hubs;
        let (leader, other) = if *leader == 0 { (first, second) } else { (second, first) };
        other.follow(&leader.reader, clock, by_batch());
        relay.follow(&other.reader, clock, by_batch());
        for (n, agent) in agents.iter_mut().enumerate() {
            let hub = [&leader.reader, &other.reader, &relay.reader][n % 3];
            agent.follow(hub, clock, by_batch());
            agent.writer.tick();
        }
    }

    /// All follow, and serve and hold the same then.
    #[track_caller]
    pub fn spread(&mut self) {
        self.follow();
        let leader = self.reader().snapshot();
        for (n, node) in self.hubs.iter().chain([&self.relay]).chain(&self.agents).enumerate() {
            let snapshot = node.reader.snapshot();
            assert_eq!(snapshot.held().counts(), leader.held().counts(), "node {n}: held");
            assert_eq!(snapshot.root(), leader.root(), "node {n}: served");
            assert_eq!(snapshot.held().digest(), leader.held().digest(), "node {n}: holds");
            assert_eq!(snapshot.version(), leader.version(), "node {n}");
        }
    }

    /// What every node serves and holds.
    pub fn counts(&self) -> Counts {
        counts(self.reader())
    }

    pub fn reason(&self) -> String {
        self.reader().held().latest_reason().map(ToString::to_string).unwrap_or_default()
    }

    /// Deletes services, without a word about their namespace.
    pub fn delete(&self, of: &str, services: impl IntoIterator<Item = usize>) {
        for n in services {
            self.server.delete("services", of, &format!("s-{n}"));
        }
    }

    /// The cluster has no service any more.
    pub fn wipe(&self) {
        for (key, _) in self.server.records() {
            self.server.delete("services", key.namespace(), key.name());
        }
        self.server.compact();
    }

    /// Deletes a namespace with services `s-N`, as the namespace controller does.
    pub fn delete_namespace(&self, name: &str, services: impl IntoIterator<Item = usize>) {
        let mut ending = namespace(name);
        ending["metadata"]["deletionTimestamp"] = "2024-12-11T18:30:00Z".into();
        ending["status"] = json!({"phase": "Terminating"});
        self.server.put(ending);
        self.delete(name, services);
        self.server.delete("namespaces", "", name);
    }
}

/// Services served, services held, endpoints held; marks left out.
pub fn counts(reader: &Reader) -> Counts {
    let snapshot = reader.load();
    let served = snapshot.services().filter(|service| service.namespace() != MARK).count();
    let held = snapshot.held().counts();
    (served, held.services, held.endpoints)
}

fn source(server: &Apiserver, dir: &TempDir, clock: &ManualClock) -> Source {
    let timing = Timing {
        probe: Duration::from_millis(200),
        retry: Duration::from_millis(50),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        ..Timing::default()
    };
    let config = Config { kubeconfig: Some(server.kubeconfig(dir.path())), timing, ..Config::default() };
    let clock = Clock::Manual(clock.clone());
    let (_, reader) = holdfast::store::open();
    let metrics = Metrics::register(&Registry::new(), &reader, &clock).unwrap();
    let (sender, updates) = mpsc::channel(8);
    let run = tokio::spawn(apiserver::run(config, clock, metrics, sender));
    Source { updates, run }
}

/// Services `s-N` with a cluster IP each.
pub fn services(of: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<Value> {
    numbers.into_iter().map(|n| service(of, &format!("s-{n}"), &ip(n))).collect()
}

/// The cluster IP of service `s-N`.
pub fn ip(n: usize) -> String {
    format!("10.96.{}.{}", n / 250, n % 250)
}

/// A headless service `s-N` and the slice of its endpoints, which have these last bytes.
pub fn workload(of: &str, n: usize, pods: impl IntoIterator<Item = usize>) -> [Value; 2] {
    let name = format!("s-{n}");
    let ips: Vec<String> = pods.into_iter().map(|pod| format!("10.128.{n}.{pod}")).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    [headless(of, &name), endpoints(of, &format!("{name}-x"), &name, true, &ips)]
}
