//! Followers: what they apply as their hub says it, and what they refuse.

use super::*;
use crate::{
    record::{Beginning, Lineage, Released},
    store::Upstream,
};

/// A hub and its follower, with the updates a stream would carry.
struct Pair {
    hub: Store,
    agent: Store,
}

impl Pair {
    /// A hub with these services that began from `from`, and an agent that follows nothing yet.
    fn new(hub: Store) -> Self {
        let mut agent = Store::new();
        agent.clock = hub.clock.clone();
        agent.writer = agent.writer.guarded(Config::default(), Clock::Manual(hub.clock.clone()));
        Self { hub, agent }
    }

    fn upstream(&self) -> Upstream {
        let snapshot = self.hub.reader.snapshot();
        let releases = self.hub.reader.releases(&snapshot);
        Upstream { lineage: Arc::clone(snapshot.lineage()), releases, let_go: self.hub.reader.let_go(&snapshot) }
    }

    /// A repair: everything the hub has.
    fn repair(&mut self) {
        let snapshot = self.hub.reader.snapshot();
        let records = Records {
            services: snapshot.services().map(|service| (service.key().clone(), Arc::clone(service))).collect(),
            namespaces: snapshot.listed_namespaces().cloned().collect(),
            held: Arc::clone(snapshot.held()),
            ..Records::default()
        };
        let origin = Origin::Stamped(snapshot.version().clone());
        let what = What::Reset { origin, records, as_of: self.hub.reader.as_of().unwrap() };
        let update = Update { upstream: self.upstream(), ..what.into() };
        self.agent.writer.apply(update).unwrap();
    }

    /// A heartbeat.
    fn beat(&mut self) {
        let what = What::Fresh { as_of: self.hub.reader.as_of().unwrap() };
        self.agent.writer.apply(Update { upstream: self.upstream(), ..what.into() }).unwrap();
    }

    /// The batch that leads from the agent's records to the hub's.
    fn batch(&mut self) {
        let snapshot = self.hub.reader.snapshot();
        let changes = snapshot.diff(&self.agent.reader.snapshot());
        let origin = Origin::Stamped(snapshot.version().clone());
        let what = What::Changes { origin, changes, as_of: self.hub.reader.as_of().unwrap() };
        self.agent.writer.apply(Update { upstream: self.upstream(), ..what.into() }).unwrap();
    }

    #[track_caller]
    fn assert_equal(&self) {
        let (hub, agent) = (self.hub.reader.snapshot(), self.agent.reader.snapshot());
        assert_eq!((hub.version(), hub.root()), (agent.version(), agent.root()));
        assert_eq!(hub.held().digest(), agent.held().digest());
    }
}

#[test]
fn a_batch_and_a_repair_carry_the_verdict_and_the_holds() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.repair();
    pair.hub.delete(0..100);
    pair.batch();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (200, 100, 0));
    assert!(!pair.agent.reader.judges() && pair.agent.reader.held().confirm_at(true).is_none());
    pair.hub.writer.release(&Release::Namespace("ns-0".into()));
    pair.batch();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (100, 0, 0));

    pair.hub.ending([1]);
    pair.hub.delete(100..200);
    pair.hub.writer.release(&Release::All);
    pair.repair();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (0, 0, 0), "away meanwhile, and no second opinion");
}

/// A follower whose clock is ahead ends no hold of a judge it hears, and ends those of one that is gone.
#[test]
fn a_follower_ends_holds_by_time_only_when_its_judge_is_gone() {
    let mut pair = Pair::new(Store::with((0..100).map(|n| headless(n, 3, &[]))));
    pair.agent.clock = ManualClock::new(pair.hub.clock.now().plus(Duration::from_secs(8 * 3_600)));
    pair.agent.writer = store::open().0.guarded(Config::default(), Clock::Manual(pair.agent.clock.clone()));
    pair.agent.reader = pair.agent.writer.reader();
    pair.repair();
    pair.hub.watch((0..100).map(|n| Change::Put(headless(n, 3, &[1, 2]))));
    pair.batch();
    assert_eq!(pair.agent.now(), (100, 0, 200));
    assert_eq!(pair.agent.writer.next_tick(), None, "there is nothing to do by itself");
    pair.agent.writer.tick();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (100, 0, 200));

    // The judge ends it.
    pair.hub.pass(600);
    pair.hub.writer.tick();
    pair.batch();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (100, 0, 0));

    pair.hub.watch((0..100).map(|n| Change::Put(headless(n, 3, &[]))));
    pair.hub.pass(31);
    pair.hub.watch((0..100).map(|n| Change::Put(headless(n, 3, &[1, 2]))));
    pair.batch();
    assert_eq!(pair.agent.now(), (100, 0, 200));
    pair.agent.writer.apply(What::Lost { reason: "hub".into() }).unwrap();
    assert!(pair.agent.writer.next_tick().is_some());
    pair.agent.writer.tick();
    assert_eq!(pair.agent.now(), (100, 0, 0), "its time is over, as far as is known here");
}

#[test]
fn a_follower_releases_nothing_its_hub_holds() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.repair();
    pair.hub.delete(0..100);
    pair.batch();
    let applied = pair.agent.writer.release(&Release::All);
    assert_eq!((applied.changes, applied.held_upstream), (0, 100));
    pair.assert_equal();
}

#[test]
fn a_hub_that_began_with_nothing_is_judged_as_a_list_and_its_operator_decides() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.repair();
    let mut hub = Store::new();
    hub.writer = hub.writer.guarded(Config::default(), Clock::Manual(pair.hub.clock.clone()));
    hub.clock = pair.hub.clock.clone();
    hub.pass(5);
    hub.writer.begin_epoch(50);
    hub.list((120..210).map(cluster_ip));
    pair.hub = hub;
    pair.repair();
    assert_eq!(pair.agent.now(), (210, 120, 0));
    assert_eq!(pair.agent.reader.held().refused(), 120);
    assert!(pair.agent.reader.held().services().all(|(_, hold)| hold.ends == Ends::ByOperator));

    pair.hub.watch([Change::Put(cluster_ip(220))]);
    let changes = vec![Change::Put(cluster_ip(220)), Change::Remove(key(3))];
    let origin = Origin::Stamped(pair.hub.reader.load().version().clone());
    let what = What::Changes { origin, changes, as_of: pair.hub.clock.now() };
    let update = Update { upstream: pair.upstream(), ..what.into() };
    pair.agent.writer.apply(update).unwrap();
    assert_eq!(pair.agent.now(), (211, 120, 0), "its batches are followed, what was refused stays");

    pair.hub.pass(5);
    pair.hub.writer.release(&Release::Namespace("ns-1".into()));
    pair.beat();
    assert_eq!(pair.agent.now(), (191, 100, 0), "of one namespace only");
    pair.hub.pass(5);
    pair.hub.writer.release(&Release::All);
    pair.beat();
    assert_eq!(pair.agent.now(), (91, 0, 0));
    pair.assert_equal();
}

#[test]
fn a_few_services_that_a_hub_could_not_know_go() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.repair();
    pair.hub = {
        let mut hub = Store::new();
        hub.writer.begin_epoch(50);
        hub.list((10..200).map(cluster_ip));
        hub
    };
    pair.repair();
    pair.assert_equal();
}

#[test]
fn an_agent_with_an_old_disk_follows_a_hub_that_knew_its_records() {
    let mut pair = Pair::new(Store::with((0..400).map(cluster_ip)));
    pair.repair();
    for from in 0..6 {
        pair.hub.list((from * 50 + 50..400).map(cluster_ip));
        pair.hub.pass(100);
        pair.hub.list((from * 50 + 50..400).map(cluster_ip));
        pair.hub.writer.begin_epoch(0);
    }
    assert!(pair.hub.now().0 <= 150, "{:?}", pair.hub.now());
    pair.repair();
    pair.assert_equal();
}

#[test]
fn an_older_disk_of_a_hub_does_not_know_what_its_followers_have() {
    let mut pair = Pair::new(Store::with((0..20).map(cluster_ip)));
    let old = pair.hub.reader.snapshot();
    pair.hub.watch((20..200).map(|n| Change::Put(cluster_ip(n))));
    pair.repair();
    let mut hub = Store::new();
    hub.clock = pair.hub.clock.clone();
    hub.writer = hub.writer.guarded(Config::default(), Clock::Manual(hub.clock.clone()));
    hub.writer.restore((*old).clone(), UnixMillis(1));
    hub.writer.begin_epoch(90);
    hub.list((0..20).map(cluster_ip));
    assert_eq!(hub.now(), (20, 0, 0));
    pair.hub = hub;
    pair.repair();
    assert_eq!(pair.agent.now(), (200, 180, 0));
}

#[test]
fn another_cluster_is_followed_once_its_hub_accepted_it() {
    let mut pair = Pair::new(Store::with((0..30).map(cluster_ip)));
    pair.repair();
    let stranger = Version { cluster: "stranger".into(), epoch: 1, rev: 1 };
    let what = What::Reset { origin: Origin::Stamped(stranger), records: Records::default(), as_of: UnixMillis(1) };
    pair.agent.writer.apply(what).unwrap_err();
    assert_eq!(pair.agent.now(), (30, 30, 0), "a hub of another cluster takes nothing away");
    pair.repair();
    pair.assert_equal();
    let origin = || Origin::Watched { cluster: "other".into(), new_epoch: false };
    let reset = |at: UnixMillis| What::Reset { origin: origin(), records: Records::default(), as_of: at };
    pair.hub.writer.apply(reset(pair.hub.clock.now())).unwrap_err();
    pair.batch();
    pair.assert_equal();
    pair.hub.writer.release(&Release::Cluster("".into()));
    pair.hub.writer.apply(reset(pair.hub.clock.now())).unwrap();
    pair.repair();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (0, 0, 0));
}

#[test]
fn releases_from_before_the_records_say_nothing_of_them() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.hub.writer.release(&Release::All);
    pair.hub.pass(60);
    pair.hub.list((0..200).map(cluster_ip));
    pair.repair();
    let lineage: Lineage =
        [Beginning { first: Version { cluster: "uid".into(), epoch: 9, rev: 1 }, from: Version::default() }]
            .into_iter()
            .collect();
    let what = What::Reset {
        origin: Origin::Stamped(Version { cluster: "uid".into(), epoch: 9, rev: 1 }),
        records: Records::default(),
        as_of: pair.hub.clock.now(),
    };
    let releases = vec![Released { at: UnixMillis(1_000_000), which: Release::All }];
    let upstream = Upstream { lineage: Arc::new(lineage), releases, ..Upstream::default() };
    pair.agent.writer.apply(Update { upstream, ..what.into() }).unwrap();
    assert_eq!(pair.agent.now(), (200, 200, 0));
}

#[test]
fn a_refused_half_of_few_is_confirmed_by_a_second_repair() {
    let mut pair = Pair::new(Store::with((0..10).map(cluster_ip)));
    pair.repair();
    let mut hub = Store::new();
    hub.clock = pair.hub.clock.clone();
    hub.writer = hub.writer.guarded(Config::default(), Clock::Manual(hub.clock.clone()));
    hub.writer.begin_epoch(50);
    hub.list((6..10).map(cluster_ip));
    pair.hub = hub;
    pair.repair();
    assert_eq!(pair.agent.now(), (10, 6, 0));
    assert_eq!(pair.agent.reader.held().confirm_at(true), Some(pair.hub.clock.now().plus(Duration::from_secs(600))));
    pair.hub.pass(600);
    pair.repair();
    pair.assert_equal();
}

#[test]
fn refused_endpoints_go_ten_minutes_after_they_were_refused_whatever_is_repaired_meanwhile() {
    let mut pair = Pair::new(Store::with((0..100).map(|n| headless(n, 3, &[]))));
    pair.repair();
    let mut hub = Store::new();
    hub.clock = pair.hub.clock.clone();
    hub.writer = hub.writer.guarded(Config::default(), Clock::Manual(hub.clock.clone()));
    hub.writer.begin_epoch(50);
    hub.list((0..100).map(|n| headless(n, 3, &[1, 2])));
    assert_eq!(hub.now(), (100, 0, 0), "it knows no better");
    pair.hub = hub;
    pair.repair();
    assert_eq!((pair.agent.now(), pair.agent.reader.held().refused()), ((100, 0, 200), 100));
    let ends = pair.hub.clock.now().plus(Duration::from_secs(600));
    for _ in 0..2 {
        pair.hub.pass(200);
        pair.repair();
        assert_eq!((pair.agent.now(), pair.agent.reader.held().next_end()), ((100, 0, 200), Some(ends)));
    }
    // Most are back; the loss that is left would be too small to be held now.
    pair.hub.watch((0..90).map(|n| Change::Put(headless(n, 3, &[]))));
    pair.repair();
    assert_eq!((pair.agent.now(), pair.agent.reader.held().next_end()), ((100, 0, 20), Some(ends)));
    pair.hub.pass(200);
    pair.agent.writer.tick();
    pair.assert_equal();
    pair.repair();
    pair.assert_equal();
    assert_eq!(pair.agent.now(), (100, 0, 0));
}

#[test]
fn one_version_with_two_contents_is_judged() {
    let mut pair = Pair::new(Store::with((0..200).map(cluster_ip)));
    pair.repair();
    let version = pair.agent.reader.load().version().clone();
    let what =
        What::Reset { origin: Origin::Stamped(version), records: Records::default(), as_of: pair.hub.clock.now() };
    pair.agent.writer.apply(Update { upstream: pair.upstream(), ..what.into() }).unwrap();
    assert_eq!(pair.agent.now(), (200, 200, 0));
}
