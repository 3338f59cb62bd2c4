//! One verdict: two hubs, a relay and twenty followers hold and serve the same after every step, whatever happens.
//!
//! No network and no time: each node is a store and a mirror, and the frames a hub would send are handed from one to the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use holdfast::{
    record::{Change, Endpoint, HeldCounts, Kind, Release, Service, ServiceKey, Snapshot, Version},
    store::{Origin, Records, Update, What, guard},
    sys::{ManualClock, UnixMillis},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::support::node::Node;

const FOLLOWERS: usize = 20;
const CLUSTER: &str = "uid";
const NAMESPACES: usize = 8;
/// The first namespace of headless services.
const HEADLESS: usize = 5;

/// Two hubs, of which one leads; a relay below the other; half of the followers at the relay, the rest at the hubs.
struct World {
    clock: ManualClock,
    config: guard::Config,
    hubs: [Node; 2],
    leader: usize,
    relay: Node,
    followers: Vec<Node>,
    /// The source: namespaces with their services.
    source: BTreeMap<usize, Vec<usize>>,
    /// Headless services of which two endpoints of three are not ready.
    degraded: BTreeSet<(usize, usize)>,
    rng: SmallRng,
    /// Times that followers refused something.
    refusals: usize,
}

fn key(namespace: usize, n: usize) -> ServiceKey {
    ServiceKey::new(&format!("ns-{namespace}"), &format!("svc-{n}"))
}

/// A service with a cluster IP; a headless one with so many ready endpoints of three in the namespaces from [`HEADLESS`] on.
fn service(namespace: usize, n: usize, ready: usize) -> Arc<Service> {
    let [a, b] = u16::try_from(namespace * 64 + n).unwrap().to_be_bytes();
    if namespace < HEADLESS {
        let kind = Kind::ClusterIp([IpAddr::from([10, 96, a, b])].into());
        return Arc::new(Service::new(key(namespace, n), kind, vec![], vec![]));
    }
    let endpoint = |i: usize| Endpoint {
        ip: IpAddr::from([10, 128 + u8::try_from(i).unwrap(), a, b]),
        hostname: None,
        ports: [].into(),
        ready: i < ready,
    };
    Arc::new(Service::new(key(namespace, n), Kind::Headless, vec![], (0..3).map(endpoint).collect()))
}

impl World {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::new(UnixMillis(1_000_000));
        let config = guard::Config {
            list_services_min: 10,
            deletes_min: 8,
            meant_min: 20,
            losses_services_min: 10,
            ..guard::Config::default()
        };
        let node = || Node::new(&clock, &config, None);
        let source = (0..NAMESPACES).map(|namespace| (namespace, (0..15).collect())).collect();
        let hubs = [node(), node()];
        let (relay, followers) = (node(), (0..FOLLOWERS).map(|_| node()).collect());
        let rng = SmallRng::seed_from_u64(seed);
        let degraded = BTreeSet::new();
        let mut world = Self { clock, config, hubs, leader: 0, relay, followers, source, degraded, rng, refusals: 0 };
        world.hubs[0].writer.begin_epoch(1);
        world.list(false, |_, _| true);
        world
    }

    fn lead(&mut self) -> &mut Node {
        &mut self.hubs[self.leader]
    }

    fn pass(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    /// The source's records.
    fn records(&self) -> Vec<Change> {
        let services = self.source.iter().flat_map(|(ns, services)| services.iter().map(|n| self.put(*ns, *n)));
        let namespaces = self.source.keys().map(|ns| Change::PutNamespace(format!("ns-{ns}").into()));
        services.chain(namespaces).collect()
    }

    fn put(&self, namespace: usize, n: usize) -> Change {
        Change::Put(service(namespace, n, if self.degraded.contains(&(namespace, n)) { 1 } else { 3 }))
    }

    /// The source lists what `has` says.
    fn list(&mut self, new_epoch: bool, has: impl Fn(usize, usize) -> bool) {
        let mut records = Vec::new();
        for (namespace, services) in &self.source {
            records.push(Change::PutNamespace(format!("ns-{namespace}").into()));
            let listed = services.iter().filter(|n| has(*namespace, **n));
            records.extend(listed.map(|n| self.put(*namespace, *n)));
        }
        let records: Records = records.into_iter().collect();
        let (origin, as_of) = (Origin::Watched { cluster: CLUSTER.into(), new_epoch }, self.clock.now());
        self.lead().writer.apply(What::Reset { origin, records, as_of }).unwrap();
    }

    fn watch(&mut self, changes: Vec<Change>, ending: Vec<Arc<str>>) {
        let (origin, as_of) = (Origin::Watched { cluster: CLUSTER.into(), new_epoch: false }, self.clock.now());
        let what = What::Changes { origin, changes, as_of };
        self.lead().writer.apply(Update { ending, ..what.into() }).unwrap();
    }

    /// All follow; each by a batch or by a repair.
    fn spread(&mut self) {
        let batch = |rng: &mut SmallRng| rng.random_range(0..4) > 0;
        let leader = self.hubs[self.leader].reader.clone();
        let other = 1 - self.leader;
        let by_batch = batch(&mut self.rng);
        self.hubs[other].follow(&leader, &self.clock, by_batch);
        let other = self.hubs[other].reader.clone();
        let by_batch = batch(&mut self.rng);
        self.relay.follow(&other, &self.clock, by_batch);
        let relay = self.relay.reader.clone();
        for (n, follower) in self.followers.iter_mut().enumerate() {
            let hub = [&leader, &other, &relay, &relay][n % 4];
            let by_batch = batch(&mut self.rng);
            follower.follow(hub, &self.clock, by_batch);
            follower.writer.tick();
        }
    }

    #[track_caller]
    fn assert_equal(&self, step: &str) {
        let leader = self.hubs[self.leader].reader.snapshot();
        let others = [&self.hubs[1 - self.leader], &self.relay].into_iter().chain(&self.followers);
        for (n, node) in others.enumerate() {
            let snapshot = node.reader.snapshot();
            assert_eq!(snapshot.held().counts(), leader.held().counts(), "{step}, node {n}: held");
            assert_eq!(snapshot.root(), leader.root(), "{step}, node {n}: served");
            assert_eq!(snapshot.held().digest(), leader.held().digest(), "{step}, node {n}: holds");
            assert_eq!(snapshot.version(), leader.version(), "{step}, node {n}");
        }
    }

    fn some_services(&mut self, share: f64) -> Vec<(usize, usize)> {
        let all: Vec<(usize, usize)> =
            self.source.iter().flat_map(|(ns, services)| services.iter().map(|n| (*ns, *n))).collect();
        all.into_iter().filter(|_| self.rng.random_bool(share)).collect()
    }

    fn lose(&mut self, services: &[(usize, usize)]) {
        for (namespace, n) in services {
            self.source.entry(*namespace).or_default().retain(|other| other != n);
        }
    }

    /// One random step; its name.
    fn step(&mut self) -> String {
        match self.rng.random_range(0..21) {
            0 | 1 => {
                let share = [0.02, 0.1, 0.4, 0.8][self.rng.random_range(0..4)];
                let gone = self.some_services(share);
                self.lose(&gone);
                self.watch(gone.iter().map(|(ns, n)| Change::Remove(key(*ns, *n))).collect(), vec![]);
                format!("{} deletes", gone.len())
            }
            2 => {
                let namespace = self.rng.random_range(0..NAMESPACES);
                let name: Arc<str> = format!("ns-{namespace}").into();
                let services = self.source.remove(&namespace).unwrap_or_default();
                let mut changes: Vec<Change> = services.iter().map(|n| Change::Remove(key(namespace, *n))).collect();
                changes.push(Change::RemoveNamespace(Arc::clone(&name)));
                self.watch(changes, vec![name]);
                "a namespace is deleted".into()
            }
            3 | 4 => {
                let namespace = self.rng.random_range(0..NAMESPACES);
                self.source.insert(namespace, (0..self.rng.random_range(1..20)).collect());
                self.degraded.retain(|(of, _)| *of != namespace);
                let puts = self.source[&namespace].iter().map(|n| self.put(namespace, *n));
                let puts = puts.chain([Change::PutNamespace(format!("ns-{namespace}").into())]).collect();
                self.watch(puts, vec![]);
                "services come".into()
            }
            5 => {
                self.list(false, |_, _| true);
                "a list".into()
            }
            6 => {
                let modulus = self.rng.random_range(1..4);
                self.list(false, |ns, n| (ns + n) % 3 >= modulus);
                "a list without many".into()
            }
            7 => {
                let gone = self.some_services(0.3);
                self.lose(&gone);
                self.list(true, |_, _| true);
                "etcd is restored".into()
            }
            8 => {
                let seconds = self.rng.random_range(1..400);
                self.pass(Duration::from_secs(seconds));
                if self.lead().reader.held().confirm_at(false).is_some_and(|at| at <= self.clock.now()) {
                    self.list(false, |_, _| true);
                }
                "time passes".into()
            }
            15 | 16 => {
                let share = [0.1, 0.5, 1.0][self.rng.random_range(0..3)];
                let hit = self.some_services(share);
                let hit: Vec<(usize, usize)> = hit.into_iter().filter(|(ns, _)| *ns >= HEADLESS).collect();
                self.degraded.extend(&hit);
                self.watch(hit.iter().map(|(ns, n)| self.put(*ns, *n)).collect(), vec![]);
                format!("endpoints of {} services die", hit.len())
            }
            17 => {
                let back = std::mem::take(&mut self.degraded);
                let back = back.into_iter().filter(|(ns, n)| self.source.get(ns).is_some_and(|has| has.contains(n)));
                let back: Vec<(usize, usize)> = back.collect();
                self.watch(back.iter().map(|(ns, n)| self.put(*ns, *n)).collect(), vec![]);
                format!("endpoints of {} services are back", back.len())
            }
            n => self.step_of_nodes(n),
        }
    }

    /// A restart, a hand-over, a lost disk or a release.
    fn step_of_nodes(&mut self, n: usize) -> String {
        match n {
            9 => {
                let disk = self.lead().reader.snapshot();
                let epoch = self.clock.now().0;
                *self.lead() = Node::new(&self.clock.clone(), &self.config.clone(), Some(&disk));
                self.lead().writer.begin_epoch(epoch);
                self.list(false, |_, _| true);
                "the leader restarts".into()
            }
            10 => {
                self.leader = 1 - self.leader;
                let epoch = self.clock.now().0;
                self.lead().writer.begin_epoch(epoch);
                self.list(false, |_, _| true);
                let old = 1 - self.leader;
                let disk = self.hubs[old].reader.snapshot();
                self.hubs[old] = Node::new(&self.clock.clone(), &self.config.clone(), Some(&disk));
                "the lease is handed over".into()
            }
            11 => {
                for _ in 0..5 {
                    let n = self.rng.random_range(0..FOLLOWERS);
                    self.followers[n] = Node::new(&self.clock.clone(), &self.config.clone(), None);
                }
                self.relay = Node::new(&self.clock.clone(), &self.config.clone(), None);
                "disks of followers are lost".into()
            }
            12 => {
                let which = if self.rng.random() { Release::All } else { Release::Namespace("ns-3".into()) };
                self.lead().writer.release(&which);
                format!("release of {which:?}")
            }
            13 => {
                let n = self.rng.random_range(0..FOLLOWERS);
                let applied = self.followers[n].writer.release(&Release::All);
                assert_eq!(applied.changes, 0, "a follower releases nothing of its hub");
                "release at a follower".into()
            }
            14 => {
                let n = self.rng.random_range(0..FOLLOWERS);
                let disk = self.followers[n].reader.snapshot();
                self.followers[n] = Node::new(&self.clock, &self.config, Some(&disk));
                "a follower restarts".into()
            }
            18 => {
                let other = 1 - self.leader;
                let (held, relay) = (self.hubs[other].reader.held(), self.relay.reader.held());
                for node in [&mut self.hubs[other], &mut self.relay] {
                    assert_eq!(node.writer.release(&Release::All).changes, 0, "only the leader decides");
                }
                assert_eq!(held.digest(), self.hubs[other].reader.held().digest());
                assert_eq!(relay.digest(), self.relay.reader.held().digest());
                "release at the hubs that follow".into()
            }
            19 => {
                let disk = self.rng.random::<bool>().then(|| self.relay.reader.snapshot());
                self.relay = Node::new(&self.clock, &self.config, disk.as_deref());
                let other = 1 - self.leader;
                self.hubs[other] = Node::new(&self.clock, &self.config, None);
                "the hubs that follow restart".into()
            }
            _ => self.lose_the_leaders_disk(),
        }
    }

    /// The leader starts with nothing: its followers keep what it does not have, all the same, until its operator releases.
    fn lose_the_leaders_disk(&mut self) -> String {
        let held = self.lead().reader.held().counts();
        *self.lead() = Node::new(&self.clock, &self.config, None);
        let epoch = self.clock.now().0;
        self.lead().writer.begin_epoch(epoch);
        self.list(false, |_, _| true);
        self.spread();
        let first = self.followers[0].reader.snapshot();
        for (n, follower) in self.followers.iter().enumerate() {
            let snapshot = follower.reader.snapshot();
            assert_eq!(snapshot.root(), first.root(), "follower {n}: served");
            assert_eq!(snapshot.held().digest(), first.held().digest(), "follower {n}: holds");
            assert_eq!(snapshot.held().refused(), snapshot.held().all().count(), "its hub holds nothing");
        }
        let refused = first.held().counts();
        if refused != HeldCounts::default() {
            self.refusals += 1;
        }
        self.pass(Duration::from_secs(1));
        self.lead().writer.release(&Release::All);
        format!("the leader loses its disk and {held:?}, {refused:?} are refused and released")
    }
}

#[test]
fn all_nodes_hold_and_serve_the_same_after_every_step() {
    let (mut held_steps, mut refusals, mut endpoints) = (0, 0, 0);
    for seed in 0..5 {
        let mut world = World::new(seed);
        world.spread();
        world.assert_equal("the first list");
        // An agent that is away for a while, and comes back with the disk it had.
        let mut away: Option<Snapshot> = None;
        for n in 0..40 {
            let step = world.step();
            let told = format!("seed {seed}, step {n}: {step}");
            world.pass(Duration::from_secs(1));
            world.lead().writer.tick();
            if n % 15 == 3 {
                away = Some((*world.followers[7].reader.snapshot()).clone());
            }
            if n % 15 == 13 {
                world.followers[7] = Node::new(&world.clock, &world.config, away.take().as_ref());
            }
            world.spread();
            world.assert_equal(&told);
            held_steps += usize::from(!world.lead().reader.held().is_empty());
            endpoints += usize::from(world.lead().reader.held().counts().endpoints > 0);
        }
        refusals += world.refusals;
        // In the end the source has its way, if it insists and an operator agrees.
        world.list(false, |_, _| true);
        world.lead().writer.release(&Release::All);
        world.spread();
        world.assert_equal("the end");
        let expected = Snapshot::default().apply(world.records(), Version::default());
        assert_eq!(world.lead().reader.snapshot().diff(&expected), [], "seed {seed}");
        assert!(world.lead().reader.held().is_empty(), "seed {seed}");
    }
    let told = format!("{held_steps} steps with holds, {endpoints} with endpoints, {refusals} refusals");
    assert!(held_steps > 40 && endpoints > 10 && refusals > 2, "{told}: this tests nothing");
}

#[test]
fn a_hub_whose_disk_is_lost_is_refused_until_its_operator_releases_at_it() {
    let mut world = World::new(1);
    world.spread();
    world.pass(Duration::from_secs(5));
    // Both hubs and the relay come up with nothing, and the source gives them a third of its list.
    for n in 0..2 {
        world.hubs[n] = Node::new(&world.clock, &world.config, None);
    }
    world.relay = Node::new(&world.clock, &world.config, None);
    world.lead().writer.begin_epoch(500);
    world.list(false, |ns, n| (ns + n) % 3 == 0);
    world.spread();
    assert_eq!(world.lead().reader.load().counts().services, 40);
    for follower in &world.followers {
        assert_eq!(follower.reader.load().counts().services, 120);
        assert_eq!(follower.reader.held().refused(), 80);
    }
    world.pass(Duration::from_secs(5));
    world.lead().writer.release(&Release::Namespace("ns-1".into()));
    world.spread();
    assert!(world.followers.iter().all(|follower| follower.reader.held().refused() == 70));
    world.pass(Duration::from_secs(5));
    world.lead().writer.release(&Release::All);
    world.spread();
    world.assert_equal("released");
}

#[test]
fn an_agent_of_the_release_before_follows_without_a_second_opinion() {
    // It knows `let_go` only: each batch that deletes must move it past the records it has.
    let mut world = World::new(2);
    world.spread();
    let reader = world.lead().reader.clone();
    let before = reader.let_go(&reader.snapshot());
    world.pass(Duration::from_secs(5));
    let name: Arc<str> = "ns-2".into();
    let mut changes: Vec<Change> = (0..15).map(|n| Change::Remove(key(2, n))).collect();
    changes.push(Change::RemoveNamespace(Arc::clone(&name)));
    world.watch(changes, vec![name]);
    world.pass(Duration::from_secs(1));
    world.lead().writer.tick();
    assert_eq!(reader.load().counts().services, 105);
    let after = reader.let_go(&reader.snapshot());
    assert!(after > before && Some(after) > reader.as_of(), "{before} {after}");
}
