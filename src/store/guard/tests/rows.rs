//! The rows of the decision's table that are about services.

use super::*;

fn in_namespace(namespace: &str, n: usize) -> Arc<Service> {
    let key = ServiceKey::new(namespace, &format!("svc-{n}"));
    Arc::new(Service::new(key, Kind::ClusterIp([ip(n, 255)].into()), vec![], vec![]))
}

/// Deletes all services of a namespace of a hundred, and then the namespace.
fn drop_namespace(store: &mut Store, n: usize, services: std::ops::Range<usize>) {
    store.ending([n]);
    store.watch(services.map(|n| Change::Remove(key(n))));
    store.watch([Change::RemoveNamespace(format!("ns-{n}").into())]);
    store.pass(1);
    store.writer.tick();
}

#[test]
fn a_namespace_of_a_small_cluster_is_deleted_at_once() {
    let mut store = Store::with((0..88).map(cluster_ip).chain((100..130).map(cluster_ip)));
    drop_namespace(&mut store, 1, 100..130);
    assert_eq!(store.now(), (88, 0, 0));
    assert!(!store.reader.load().has_namespace(b"ns-1"));
}

#[test]
fn the_word_that_a_namespace_ends_may_come_after_its_services_went() {
    let mut store = Store::with((0..88).map(cluster_ip).chain((100..130).map(cluster_ip)));
    store.delete(100..130);
    assert_eq!(store.now(), (118, 30, 0), "not known to be meant");
    store.ending([1]);
    store.pass(1);
    store.writer.tick();
    assert_eq!(store.now(), (88, 0, 0));
}

#[test]
fn half_of_the_cluster_deleted_with_its_namespaces_is_held() {
    let mut store = Store::with((0..200).map(cluster_ip));
    drop_namespace(&mut store, 1, 100..200);
    assert_eq!(store.now(), (200, 100, 0));
    assert_eq!(store.reason(), "100 of 200 services were deleted with their namespaces in a short time");
    assert!(store.reader.load().has_namespace(b"ns-1"));
    store.pass(600);
    store.list_all((0..100).map(cluster_ip), 1);
    assert_eq!(store.now(), (100, 0, 0), "the source insists");
    assert!(!store.reader.load().has_namespace(b"ns-1"));
}

#[test]
fn a_protected_namespace_stays_however_small() {
    let mut store = Store::new();
    let all = || (0..30).map(cluster_ip).chain((300..303).map(|n| in_namespace("kube-system", n)));
    store.list(all());
    store.watch([Change::PutNamespace("kube-system".into())]);
    let what = What::Changes { origin: Store::origin(), changes: vec![], as_of: store.clock.now() };
    store.writer.apply(Update { ending: vec!["kube-system".into()], ..what.into() }).unwrap();
    store.watch((300..303).map(|n| Change::Remove(in_namespace("kube-system", n).key().clone())));
    store.watch([Change::RemoveNamespace("kube-system".into())]);
    store.pass(1);
    store.writer.tick();
    assert_eq!(store.now(), (33, 3, 0));
    assert_eq!(store.reader.held().counts().namespaces, 1);
    assert_eq!(store.reason(), "a protected namespace was deleted");
    store.list(all());
    assert_eq!(store.now(), (33, 0, 0), "it came back");
}

#[test]
fn three_of_five_services_deleted_by_events_is_an_ordinary_day() {
    let mut store = Store::with((0..5).map(cluster_ip));
    store.delete(0..3);
    assert_eq!(store.now(), (2, 0, 0));
    let mut store = Store::with((0..18).map(cluster_ip));
    store.list_all([], 0);
    assert_eq!(store.now(), (18, 18, 0), "a list without any of them is not");
    store.pass(3_600);
    store.list_all([], 0);
    assert_eq!(store.now(), (18, 18, 0));
}

#[test]
fn a_small_list_without_half_of_its_services_is_confirmed_ten_minutes_later() {
    let mut store = Store::with((0..4).map(cluster_ip));
    store.list((2..4).map(cluster_ip));
    let ends = store.clock.now().plus(Duration::from_secs(600));
    assert_eq!((store.now(), store.reader.held().confirm_at(false)), ((4, 2, 0), Some(ends)));
    store.pass(599);
    store.list((2..4).map(cluster_ip));
    assert_eq!((store.now(), store.reader.held().confirm_at(false)), ((4, 2, 0), Some(ends)), "its time goes on");
    store.pass(1);
    store.list((2..4).map(cluster_ip));
    assert_eq!(store.now(), (2, 0, 0));
}

#[test]
fn a_small_list_that_differs_from_the_one_before_waits_anew() {
    let mut store = Store::with((0..8).map(cluster_ip));
    store.list((4..8).map(cluster_ip));
    store.pass(600);
    store.list((5..8).map(cluster_ip));
    let ends = store.clock.now().plus(Duration::from_secs(600));
    assert_eq!((store.now(), store.reader.held().confirm_at(false)), ((8, 5, 0), Some(ends)));
    store.list((3..8).map(cluster_ip));
    assert_eq!(store.now(), (5, 0, 0), "fewer than half are missing");
}

#[test]
fn a_burst_is_decided_as_one() {
    // A server in haste, and one that takes its time for each.
    for (services, deleted, gap) in [(201, 140, 30), (101, 50, 180)] {
        let mut store = Store::with((0..services).map(cluster_ip));
        for n in 0..deleted {
            store.watch([Change::Remove(key(n))]);
            store.clock.advance(Duration::from_millis(gap));
            let due = store.writer.next_tick().unwrap();
            assert!(due > store.clock.now(), "{n}");
        }
        assert_eq!(store.now(), (services, 0, 0), "nothing is decided yet");
        store.pass(1);
        store.writer.tick();
        assert_eq!(store.now(), (services, deleted, 0), "and no arbitrary part of it is gone");
    }
}

#[test]
fn single_deletions_wait_half_a_second() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.watch([Change::Remove(key(1))]);
    assert_eq!(store.writer.next_tick(), Some(store.clock.now().plus(SETTLE)));
    for _ in 0..10 {
        store.clock.advance(Duration::from_millis(300));
        store.watch([Change::Remove(key(2))]);
        store.writer.tick();
    }
    assert!(store.now().0 <= 99, "and never longer than two");
}

#[test]
fn services_created_again_are_not_counted() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.watch((0..35).map(|n| Change::Remove(key(n))));
    store.pass(2);
    store.watch((0..35).map(|n| Change::Put(cluster_ip(n))));
    store.writer.tick();
    assert_eq!(store.now(), (100, 0, 0));
    store.delete([50]);
    assert_eq!(store.now(), (99, 0, 0));
    for _ in 0..42 {
        store.delete([60]);
        store.watch([Change::Put(cluster_ip(60))]);
    }
    store.delete([61]);
    assert_eq!(store.now(), (98, 0, 0));
}

#[test]
fn a_cluster_ip_given_to_another_service_ends_the_hold() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.delete(0..30);
    assert_eq!(store.now(), (100, 30, 0));
    let taken = Service::new(key(500), Kind::ClusterIp([ip(3, 255)].into()), vec![], vec![]);
    store.watch([Change::Put(Arc::new(taken.clone()))]);
    assert_eq!(store.now(), (100, 29, 0));
    assert!(store.reader.load().service_by_key(&key(3)).is_none());
    assert_eq!(store.reader.load().holders(ip(3, 255)).len(), 1, "nor does its reverse name");

    let mut store = Store::with((0..100).map(cluster_ip));
    let records = (30..100).map(cluster_ip).chain([Arc::new(taken)]);
    store.list(records);
    assert_eq!(store.now().0, 71, "no claim keeps an address that is in use");
}

#[test]
fn a_service_of_another_type_counts_at_once() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.delete(0..30);
    let external = Service::new(key(3), Kind::ExternalName("db.example".into()), vec![], vec![]);
    store.watch([Change::Put(headless(2, 1, &[])), Change::Put(Arc::new(external))]);
    assert_eq!(store.now(), (100, 28, 0));
    assert_eq!(store.ready(2), [ip(2, 1)]);
}

#[test]
fn files_of_a_person_may_become_empty_while_they_are_few() {
    let mut store = Store::with((0..18).map(cluster_ip));
    let records = Records { from_files: true, ..Records::default() };
    let what = What::Reset { origin: Store::origin(), records, as_of: store.clock.now() };
    store.writer.apply(what).unwrap();
    assert_eq!(store.now(), (0, 0, 0));
}

#[test]
fn fifty_namespaces_an_hour_for_a_day_leave_nothing_held() {
    let mut store = Store::with((0..88).map(cluster_ip));
    let mut held = 0;
    for round in 0..24 * 50 {
        let name = format!("ci-{round}");
        let services: Vec<Arc<Service>> = (1_000..1_030).map(|n| in_namespace(&name, n)).collect();
        store.watch([Change::PutNamespace(name.as_str().into())]);
        store.watch(services.iter().cloned().map(Change::Put));
        store.pass(36);
        let what = What::Changes { origin: Store::origin(), changes: vec![], as_of: store.clock.now() };
        // Every other time the services go before the source hears that their namespace ends.
        let early = round % 2 == 0;
        if early {
            store.writer.apply(Update { ending: vec![name.as_str().into()], ..what.clone().into() }).unwrap();
        }
        store.watch(services.iter().map(|service| Change::Remove(service.key().clone())));
        store.clock.advance(Duration::from_millis(300));
        store.writer.tick();
        if !early {
            store.writer.apply(Update { ending: vec![name.as_str().into()], ..what.into() }).unwrap();
        }
        store.watch([Change::RemoveNamespace(name.as_str().into())]);
        store.pass(1);
        store.writer.tick();
        held += store.now().1;
        assert_eq!(store.reader.load().counts().services, 88, "round {round}");
        assert!(!store.reader.load().has_namespace(name.as_bytes()));
        store.pass(34);
    }
    assert_eq!(held, 0);
}
