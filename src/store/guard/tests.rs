//! The guard in the writer: what comes, what is served then, what is held, and what ends it.

mod always;
mod clock;
mod cluster;
mod following;
mod losses;
mod rows;

use std::net::IpAddr;

use super::*;
use crate::{
    record::{Endpoint, Kind, Port, Protocol, Snapshot, Version},
    store::{self, Origin, Reader, Records, Update, What, Writer},
    sys::{Clock, ManualClock},
};

/// A writer with the default guard, and a clock to move.
struct Store {
    writer: Writer,
    reader: Reader,
    clock: ManualClock,
}

/// A namespace of a hundred services each.
fn key(n: usize) -> ServiceKey {
    ServiceKey::new(&format!("ns-{}", n / 100), &format!("svc-{n}"))
}

fn ip(n: usize, endpoint: usize) -> IpAddr {
    let n = u16::try_from(n).unwrap().to_be_bytes();
    [10, n[0], n[1], u8::try_from(endpoint).unwrap()].into()
}

fn cluster_ip(n: usize) -> Arc<Service> {
    Arc::new(Service::new(key(n), Kind::ClusterIp([ip(n, 255)].into()), vec![], vec![]))
}

/// A headless service with endpoints 1 to `count`, of which those in `unready` are not ready.
fn headless(n: usize, count: usize, unready: &[usize]) -> Arc<Service> {
    let ports: Arc<[Port]> = [Port { name: "pg".into(), protocol: Protocol::Tcp, port: 5432 }].into();
    let endpoints = (1..=count)
        .map(|i| Endpoint { ip: ip(n, i), hostname: None, ports: Arc::clone(&ports), ready: !unready.contains(&i) })
        .collect();
    Arc::new(Service::new(key(n), Kind::Headless, vec![], endpoints))
}

impl Store {
    fn new() -> Self {
        let clock = ManualClock::new(UnixMillis(1_000_000));
        let (writer, reader) = store::open();
        Self { writer: writer.guarded(Config::default(), Clock::Manual(clock.clone())), reader, clock }
    }

    /// A store that has listed `services`.
    fn with(services: impl IntoIterator<Item = Arc<Service>>) -> Self {
        let mut store = Self::new();
        store.list(services);
        store
    }

    fn origin() -> Origin {
        Origin::Watched { cluster: "uid".into(), new_epoch: false }
    }

    fn list(&mut self, services: impl IntoIterator<Item = Arc<Service>>) {
        self.list_all(services, 3);
    }

    fn list_all(&mut self, services: impl IntoIterator<Item = Arc<Service>>, namespaces: usize) {
        let namespaces = (0..namespaces).map(|n| Change::PutNamespace(format!("ns-{n}").into()));
        let records = services.into_iter().map(Change::Put).chain(namespaces).collect();
        let as_of = self.clock.now();
        self.writer.apply(What::Reset { origin: Self::origin(), records, as_of }).unwrap();
    }

    fn watch(&mut self, changes: impl IntoIterator<Item = Change>) {
        let changes = changes.into_iter().collect();
        let as_of = self.clock.now();
        self.writer.apply(What::Changes { origin: Self::origin(), changes, as_of }).unwrap();
    }

    /// Deletes services by events, and waits until that is decided.
    fn delete(&mut self, services: impl IntoIterator<Item = usize>) {
        self.watch(services.into_iter().map(|n| Change::Remove(key(n))));
        self.pass(1);
        self.writer.tick();
    }

    /// The source sees the deletion of these namespaces begin.
    fn ending(&mut self, namespaces: impl IntoIterator<Item = usize>) {
        let ending = namespaces.into_iter().map(|n| format!("ns-{n}").into()).collect();
        let what = What::Changes { origin: Self::origin(), changes: vec![], as_of: self.clock.now() };
        self.writer.apply(Update { ending, ..what.into() }).unwrap();
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Services served, services held, endpoints held.
    fn now(&self) -> (usize, usize, usize) {
        let held = self.reader.held().counts();
        (self.reader.load().counts().services, held.services, held.endpoints)
    }

    fn ready(&self, n: usize) -> Vec<IpAddr> {
        let snapshot = self.reader.load();
        snapshot.service_by_key(&key(n)).unwrap().ready_endpoints().map(|endpoint| endpoint.ip).collect()
    }

    fn reason(&self) -> String {
        self.reader.held().latest_reason().map(ToString::to_string).unwrap_or_default()
    }
}

#[test]
fn an_empty_list_deletes_nothing_and_only_an_operator_or_the_source_ends_that() {
    let mut store = Store::with((0..300).map(cluster_ip));
    store.list_all([], 0);
    assert_eq!(store.now(), (300, 300, 0));
    assert_eq!(store.reason(), "the source's list is missing 300 of 300 services");
    assert!(store.reader.load().has_namespace(b"ns-1"));
    assert_eq!(store.reader.held().confirm_at(false), None, "no list can confirm this one");
    store.pass(3_600);
    store.list_all([], 0);
    store.writer.tick();
    assert_eq!(store.now(), (300, 300, 0));
    store.list((0..299).map(cluster_ip));
    assert_eq!(store.now(), (299, 0, 0), "the source is back; the one it still lacks goes as any other");
}

#[test]
fn an_operator_releases_a_namespace_or_all() {
    let mut store = Store::with((0..300).map(cluster_ip));
    store.list_all([], 0);
    let version = store.reader.load().version().clone();
    store.writer.release(&Release::Namespace("ns-1".to_owned()));
    assert_eq!(store.now(), (200, 200, 0));
    assert!(store.reader.load().version().follows(&version), "followers must see it");
    store.writer.release(&Release::Namespace("ns-1".to_owned()));
    store.writer.release(&Release::All);
    assert_eq!(store.now(), (0, 0, 0));
    assert!(!store.reader.load().has_namespace(b"ns-1"));
}

#[test]
fn a_list_without_a_few_services_passes() {
    let mut store = Store::with((0..1_000).map(cluster_ip));
    store.list((50..1_000).map(cluster_ip));
    assert_eq!(store.now(), (950, 0, 0));
}

#[test]
fn a_held_list_is_released_by_a_second_that_agrees_ten_seconds_later() {
    let mut store = Store::with((0..1_000).map(cluster_ip));
    store.list((100..1_000).map(cluster_ip));
    assert_eq!(store.now(), (1_000, 100, 0));
    let confirm_at = store.reader.held().confirm_at(false);
    assert_eq!(confirm_at, Some(store.clock.now().plus(Duration::from_secs(10))));
    store.pass(9);
    store.list((100..1_000).map(cluster_ip));
    assert_eq!(store.now(), (1_000, 100, 0), "too soon");
    assert_eq!(store.reader.held().confirm_at(false), confirm_at, "the first goes on counting");
    store.pass(1);
    store.list((105..1_000).map(cluster_ip));
    assert_eq!(store.now(), (895, 0, 0));
    assert_eq!(store.reader.held().confirm_at(false), None);
}

#[tokio::test(start_paused = true)]
async fn a_second_list_is_asked_for_once_when_it_could_confirm() {
    let mut store = Store::with((0..1_000).map(cluster_ip));
    let clock = Clock::Manual(store.clock.clone());
    let reader = store.reader.clone();
    let ask = |asked| {
        let (reader, clock) = (reader.clone(), clock.clone());
        tokio::spawn(async move { reader.confirmation_due(&clock, asked).await })
    };
    let asking = ask(None);
    tokio::task::yield_now().await;
    store.list((100..1_000).map(cluster_ip));
    let confirm_at = reader.held().confirm_at(false).unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!asking.is_finished());
    store.pass(10);
    assert_eq!(asking.await.unwrap(), confirm_at);

    let again = ask(Some(confirm_at));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert!(!again.is_finished(), "asked once; the source may be down");
    store.list((0..900).map(cluster_ip));
    store.pass(10);
    assert_eq!(again.await.unwrap(), reader.held().confirm_at(false).unwrap(), "another doubt is asked about");
}

#[test]
fn a_second_list_that_differs_confirms_nothing_and_begins_anew() {
    let mut store = Store::with((0..1_000).map(cluster_ip));
    store.list((100..1_000).map(cluster_ip));
    store.pass(20);
    store.list((0..900).map(cluster_ip));
    assert_eq!(store.now(), (1_000, 100, 0));
    assert!(store.reader.held().service(&key(5)).is_none(), "the source has it");
    store.pass(10);
    store.list((0..900).map(cluster_ip));
    assert_eq!(store.now(), (900, 0, 0));
}

#[test]
fn additions_and_changes_in_a_held_list_land() {
    let mut store = Store::with((0..300).map(cluster_ip));
    store.list((200..310).map(|n| if n == 200 { headless(n, 1, &[]) } else { cluster_ip(n) }));
    assert_eq!(store.now(), (310, 200, 0));
    assert_eq!(store.ready(200), [ip(200, 1)]);
}

#[test]
fn a_class_that_becomes_empty_in_a_list_is_held() {
    let headless_ones = || (100..120).map(|n| headless(n, 1, &[]));
    let mut store = Store::with((0..100).map(cluster_ip).chain(headless_ones()));
    store.list((0..100).map(cluster_ip));
    assert_eq!(store.now(), (120, 20, 0));
    assert_eq!(store.reason(), "the source's list is missing all 20 headless services");
    let mut store = Store::with((0..100).map(cluster_ip).chain(headless_ones().skip(1)));
    store.list((0..100).map(cluster_ip));
    assert_eq!(store.now(), (100, 0, 0), "nineteen are no class");
}

#[test]
fn namespaces_that_all_vanish_from_a_list_are_held_until_a_second_agrees() {
    let mut store = Store::new();
    store.list_all((0..10).map(cluster_ip), 25);
    store.list_all((0..10).map(cluster_ip), 0);
    assert_eq!(store.reader.held().counts().namespaces, 25);
    assert_eq!(store.reason(), "the source's list is missing all 25 namespaces");
    assert!(
        store
            .reader
            .held()
            .all()
            .all(|(_, held)| held.ends == Ends::Listed(store.clock.now().plus(Duration::from_secs(10))))
    );
    assert!(store.reader.load().has_namespace(b"ns-20"));
    store.pass(10);
    store.list_all((0..10).map(cluster_ip), 0);
    assert_eq!(store.reader.held().counts().namespaces, 0);
    assert!(!store.reader.load().has_namespace(b"ns-20"));
}

#[test]
fn endpoints_that_all_vanish_from_a_list_are_held_unless_one_service_had_them_all() {
    let mut store = Store::with((0..10).map(|n| headless(n, 3, &[])));
    store.list((0..10).map(|n| headless(n, 0, &[])));
    assert_eq!(store.now(), (10, 0, 30));
    assert_eq!(store.reason(), "the source's list is missing all 30 endpoints");
    assert_eq!(store.ready(4).len(), 3);
    let mut store = Store::with((0..9).map(cluster_ip).chain([headless(9, 30, &[])]));
    store.list((0..9).map(cluster_ip).chain([headless(9, 0, &[])]));
    assert_eq!(store.now(), (10, 0, 0), "one service scaled to zero passes");
    assert_eq!(store.ready(9), [] as [IpAddr; 0]);
}

#[test]
fn deletes_pass_one_by_one_and_are_held_when_they_are_a_fifth_of_all_within_a_minute() {
    let mut store = Store::with((0..200).map(cluster_ip));
    for n in 0..40 {
        store.delete([n]);
    }
    assert_eq!(store.now(), (160, 0, 0));
    store.delete([40]);
    assert_eq!(store.now(), (160, 1, 0));
    assert_eq!(store.reason(), "41 of 200 services were deleted in a short time");
    store.pass(61);
    store.delete(41..60);
    assert_eq!(store.now(), (141, 1, 0), "ordinary again; what is held stays so");
    store.delete([40]);
    assert_eq!(store.now(), (141, 1, 0), "deleted twice is deleted once");
}

#[test]
fn a_flood_of_deletes_is_held_whole_and_what_comes_back_is_not() {
    let mut store = Store::with((0..200).map(cluster_ip));
    store.delete(0..160);
    assert_eq!(store.now(), (200, 160, 0));
    store.watch((0..150).map(|n| Change::Put(cluster_ip(n))));
    assert_eq!(store.now(), (200, 10, 0));
    store.writer.release(&Release::All);
    assert_eq!(store.now(), (190, 0, 0));
}

#[test]
fn a_passing_list_ends_a_hold_of_deletes_only_when_its_time_is_over() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.delete(0..25);
    assert_eq!(store.now(), (100, 25, 0));
    store.pass(120);
    store.list((30..100).map(cluster_ip));
    assert_eq!(store.now(), (95, 25, 0), "25 to 29 go as they may");
    let due = store.reader.held().confirm_at(false).unwrap();
    store.pass(600);
    assert!(due <= store.clock.now(), "the source is asked for a list");
    store.list([]);
    assert_eq!(store.now(), (95, 95, 0), "a list that is no good confirms nothing");
    store.pass(10);
    store.list((30..100).map(cluster_ip));
    assert_eq!(store.now(), (70, 0, 0));
}

#[test]
fn a_service_deleted_and_made_again_in_one_step_is_there() {
    let mut store = Store::with((0..200).map(cluster_ip));
    store.watch([Change::Remove(key(1)), Change::Put(headless(1, 1, &[])), Change::Put(headless(2, 1, &[]))]);
    store.watch([Change::Put(headless(3, 1, &[])), Change::Remove(key(3))]);
    store.pass(1);
    store.writer.tick();
    assert_eq!(store.now(), (199, 0, 0));
    assert_eq!(store.ready(1), [ip(1, 1)]);
}

#[test]
fn records_from_disk_are_guarded_like_any() {
    let (_, reader) = {
        let Store { writer, reader, .. } = Store::with((0..100).map(cluster_ip));
        (writer, reader)
    };
    let mut store = Store::new();
    store.writer.restore(Snapshot::clone(&reader.load()), UnixMillis(5));
    store.list([]);
    assert_eq!(store.now(), (100, 100, 0));
}

#[test]
fn nothing_is_held_without_a_guard() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.writer = store.writer.guarded(Config::off(), Clock::Manual(store.clock.clone()));
    store.list([]);
    assert_eq!(store.now(), (0, 0, 0));
}

#[test]
fn a_refused_update_holds_nothing() {
    let mut store = Store::with((0..100).map(cluster_ip));
    let back = Origin::Stamped(Version { cluster: "uid".into(), epoch: 0, rev: 1 });
    store.writer.apply(What::Reset { origin: back, records: Records::default(), as_of: UnixMillis(1) }).unwrap_err();
    assert_eq!(store.now(), (100, 0, 0));
}
