//! Partitions, restarts, moves of the Lease and clocks that are wrong, in any order: while any hub is fresh, every agent that
//! can reach it is at most 15 s behind.
//!
//! The hubs stand for three that share a Lease: the one that holds it stamps what the apiserver has; the others hold what
//! it has as long as they reach it. Agents are real, in four places, each with its own ways to the hubs.

use std::{net::IpAddr, time::Duration};

use holdfast::{
    record::Kind,
    store::{Origin, Records, What},
    stream,
    sys::Clock,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::rig::{Agent, EPOCH_MS, Hub, Line, Net, Weather, clock, clock_at, service, services};

const HUBS: [&str; 3] = ["hub0", "hub1", "hub2"];
const PLACES: usize = 4;
const AGENTS: usize = 20;
/// How far behind an agent may be that reaches a fresh hub.
const BEHIND_MAX: u64 = 15;
/// How long a way must have been open, and its hub fresh, before that is asked of an agent: its silence is first noticed
/// after half of what makes a hub count as gone.
const SETTLED: Duration = Duration::from_secs(25);
/// A hub that holds the Lease notices by then that it is cut off: 4 s between two renewals, and 8 s without a byte.
const NOTICED: Duration = Duration::from_secs(12);

struct Cluster {
    hubs: Vec<Hub>,
    /// Since when each hub has reached the apiserver or has not.
    apiserver: Vec<(bool, Instant)>,
    /// Since when each hub has been fresh.
    fresh: Vec<Option<Instant>>,
    holder: usize,
    epoch: u64,
    /// Seconds that the apiserver has counted in the address of the service `tick`.
    tick: u64,
    nets: Vec<Net>,
    /// Since when each place has reached each hub.
    open: Vec<[Option<Instant>; 3]>,
    agents: Vec<Agent>,
    /// The agents' clock.
    clock: Clock,
    /// When any hub was fresh last.
    last_fresh: Instant,
}

fn tick_service(tick: u64) -> holdfast::record::Change {
    service("tick", u32::try_from(tick).unwrap())
}

impl Cluster {
    fn new(rng: &mut StdRng) -> Self {
        let now = Instant::now();
        let mut hubs = Vec::new();
        for name in HUBS {
            // An hour ahead, an hour behind, or right.
            let offset_ms = [0, 3_600_000, 7_200_000][rng.random_range(0..3)];
            hubs.push(Hub::start(name, &clock_at(EPOCH_MS - 3_600_000 + offset_ms), stream::Config::default()));
        }
        let nets: Vec<Net> = (0..PLACES).map(|_| Net::default()).collect();
        for net in &nets {
            for hub in &hubs {
                net.put(hub.name(), Line::Hub(hub.server.clone()));
            }
        }
        let mut cluster = Self {
            hubs,
            apiserver: vec![(true, now); 3],
            fresh: vec![Some(now); 3],
            holder: 0,
            epoch: 0,
            tick: 1,
            nets,
            open: vec![[Some(now); 3]; PLACES],
            agents: Vec::new(),
            clock: clock(),
            last_fresh: now,
        };
        cluster.lead(0);
        let agents =
            (0..AGENTS).map(|n| Agent::start(&format!("agent{n}"), &cluster.clock, &cluster.nets[n % PLACES], &HUBS));
        cluster.agents = agents.collect();
        cluster
    }

    /// A hub takes the Lease and lists everything in a later epoch.
    fn lead(&mut self, hub: usize) {
        self.holder = hub;
        self.epoch += 1_000;
        let mut records = services(3);
        records.push(tick_service(self.tick));
        self.hubs[hub].writer.begin_epoch(self.epoch);
        self.hubs[hub].list(records, false);
    }

    /// One second passes at the apiserver and the hubs.
    fn second(&mut self) {
        self.tick += 1;
        let now = Instant::now();
        let connected = |cluster: &Self, hub: usize| cluster.apiserver[hub].0;
        if !connected(self, self.holder) && now - self.apiserver[self.holder].1 > NOTICED {
            let next =
                (0..3).find(|hub| connected(self, *hub) && now - self.apiserver[*hub].1 > Duration::from_secs(2));
            if let Some(next) = next {
                self.lead(next);
            }
        }
        let holder = self.holder;
        if connected(self, holder) {
            self.hubs[holder].change(vec![tick_service(self.tick)]);
        }
        for hub in 0..3 {
            // A way to the apiserver is a way to the holder, too.
            if connected(self, hub) && (hub == holder || connected(self, holder)) {
                if hub != holder {
                    let snapshot = self.hubs[holder].writer.reader().snapshot();
                    let records = Records {
                        services: snapshot.services().map(|it| (it.key().clone(), it.clone())).collect(),
                        namespaces: snapshot.listed_namespaces().cloned().collect(),
                        ..Records::default()
                    };
                    let as_of = self.hubs[hub].clock.now();
                    let origin = Origin::Stamped(snapshot.version().clone());
                    self.hubs[hub].writer.apply(What::Reset { origin, records, as_of }).unwrap();
                }
                self.hubs[hub].vouch();
                self.fresh[hub].get_or_insert(now);
                self.last_fresh = now;
            } else {
                self.fresh[hub] = None;
                let cut = if connected(self, hub) { self.apiserver[holder].1 } else { self.apiserver[hub].1 };
                if now - cut >= NOTICED {
                    self.hubs[hub].writer.apply(What::Lost { reason: "apiserver: cut off".into() }).unwrap();
                }
            }
        }
    }

    /// Something happens.
    fn upset(&mut self, rng: &mut StdRng) -> String {
        let (hub, place) = (rng.random_range(0..3), rng.random_range(0..PLACES));
        let now = Instant::now();
        match rng.random_range(0..5) {
            0 | 1 => {
                let reached = !self.apiserver[hub].0;
                self.apiserver[hub] = (reached, now);
                format!("{} reaches the apiserver: {reached}", HUBS[hub])
            }
            2 | 3 => {
                let opens = self.open[place][hub].is_none();
                self.nets[place].weather(HUBS[hub], if opens { Weather::Fair } else { Weather::Hung });
                self.open[place][hub] = opens.then_some(now);
                format!("place {place} reaches {}: {opens}", HUBS[hub])
            }
            _ => {
                // Its connections break off; it has what its disk had.
                for (place, net) in self.nets.iter().enumerate() {
                    net.weather(HUBS[hub], Weather::Breaks(0));
                    net.put(HUBS[hub], Line::Hub(self.hubs[hub].server.clone()));
                    if self.open[place][hub].is_some() {
                        self.open[place][hub] = Some(now);
                    } else {
                        net.weather(HUBS[hub], Weather::Hung);
                    }
                }
                format!("{} restarts", HUBS[hub])
            }
        }
    }

    /// Panics if an agent is behind that need not be.
    fn check(&self, seed: u64, story: &[String]) {
        let now = Instant::now();
        // A second for what is on its way.
        let youngest = self.clock.now().minus((now - self.last_fresh).saturating_sub(Duration::from_secs(1)));
        for (n, agent) in self.agents.iter().enumerate() {
            let as_of = agent.reader.as_of().unwrap_or_default();
            assert!(
                as_of <= youngest,
                "seed {seed}: agent{n} is younger than any source: {as_of} {youngest} {story:#?}"
            );
            let serves = |hub: usize| {
                let settled = |since: Option<Instant>| since.is_some_and(|since| now - since > SETTLED);
                settled(self.open[n % PLACES][hub]) && settled(self.fresh[hub])
            };
            if !(0..3).any(serves) {
                continue;
            }
            let held = agent.reader.load().service(b"prod", b"tick").map(|tick| tick.kind().clone());
            let Some(Kind::ClusterIp(ips)) = held else { panic!("seed {seed}: agent{n} has nothing: {story:#?}") };
            let IpAddr::V4(ip) = ips[0] else { panic!("{ips:?}") };
            let behind = self.tick - u64::from(u32::from(ip));
            assert!(
                behind <= BEHIND_MAX,
                "seed {seed}: agent{n} is {behind} s behind: {:?}\n{story:#?}",
                *agent.status.borrow()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_reaches_a_fresh_hub_is_at_most_15_s_behind_whatever_happened() {
    for seed in 0..2 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::new(&mut rng);
        let mut story = Vec::new();
        for _ in 0..7 {
            let calm = rng.random_range(5..60);
            for _ in 0..calm {
                tokio::time::sleep(Duration::from_secs(1)).await;
                cluster.second();
                cluster.check(seed, &story);
            }
            let upset = cluster.upset(&mut rng);
            story.push(format!("second {}: {upset}", cluster.tick));
        }
    }
}
