//! Endpoints that a watch deletes: which are kept, for how long, and which service gets their address.

use super::*;

#[test]
fn nodes_that_all_seem_dead_leave_their_endpoints_served_for_ten_minutes() {
    let mut store = Store::with((0..100).map(|n| headless(n, 3, &[])));
    store.watch((0..100).map(|n| Change::Put(headless(n, 3, &[1, 2]))));
    assert_eq!(store.now(), (100, 0, 200));
    assert_eq!(store.reason(), "200 of 300 endpoints of 100 services were removed in a short time");
    assert_eq!(store.ready(7), [ip(7, 1), ip(7, 2), ip(7, 3)]);
    assert_eq!(store.reader.held().next_end(), Some(store.clock.now().plus(Duration::from_secs(600))));
    store.pass(599);
    store.writer.tick();
    assert_eq!(store.now(), (100, 0, 200));
    store.pass(1);
    store.writer.tick();
    assert_eq!(store.now(), (100, 0, 0));
    assert_eq!(store.ready(7), [ip(7, 3)]);
    assert_eq!(*store.reader.load().service_by_key(&key(7)).unwrap(), headless(7, 3, &[1, 2]));
}

#[test]
fn endpoints_of_one_service_always_go_and_a_few_of_many_do_too() {
    let mut store = Store::with((0..100).map(|n| headless(n, if n == 0 { 200 } else { 1 }, &[])));
    store.watch([Change::Put(headless(0, 0, &[]))]);
    assert_eq!(store.now(), (100, 0, 0));
    let mut store = Store::with((0..100).map(|n| headless(n, 10, &[])));
    store.watch((0..100).map(|n| Change::Put(headless(n, 10, &[1, 2, 3]))));
    assert_eq!(store.now(), (100, 0, 0), "three in ten");
}

#[test]
fn losses_spread_over_more_than_the_window_pass() {
    let mut store = Store::with((0..100).map(|n| headless(n, 1, &[])));
    for n in 0..100 {
        store.watch([Change::Put(headless(n, 0, &[]))]);
        store.pass(1);
    }
    assert_eq!(store.now(), (100, 0, 0));
}

#[test]
fn an_endpoint_that_comes_back_or_is_replaced_is_no_longer_held() {
    let mut store = Store::with((0..100).map(|n| headless(n, 3, &[])));
    store.watch((0..100).map(|n| Change::Put(headless(n, 3, &[1, 2]))));
    store.watch([Change::Put(headless(7, 3, &[2]))]);
    assert_eq!(store.now(), (100, 0, 199));
    assert_eq!(store.ready(7), [ip(7, 1), ip(7, 2), ip(7, 3)]);
    store.watch([Change::Put(headless(7, 3, &[]))]);
    assert!(store.reader.held().service(&key(7)).is_none());
    store.watch([Change::Put(headless(9, 4, &[1, 2]))]);
    assert_eq!(store.ready(9).len(), 3, "a new endpoint takes the place of one that is held");
    store.watch([Change::Put(headless(9, 5, &[1, 2]))]);
    assert_eq!(store.ready(9), [ip(9, 3), ip(9, 4), ip(9, 5)]);
    store.delete([8]);
    assert_eq!(store.now(), (99, 0, 194), "a service deleted takes what is held of it along");
}

#[test]
fn a_held_address_that_another_pod_got_is_given_up() {
    let mut store = Store::with((0..100).map(|n| headless(n, 3, &[])));
    store.watch((0..100).map(|n| Change::Put(headless(n, 3, &[1, 2]))));
    let reused = Endpoint { ip: ip(7, 1), hostname: None, ports: [].into(), ready: true };
    let other = Service::new(key(500), Kind::Headless, vec![], vec![reused]);
    store.watch([Change::Put(Arc::new(other))]);
    assert_eq!(store.ready(7), [ip(7, 2), ip(7, 3)]);
    assert_eq!(store.ready(500), [ip(7, 1)]);
    assert_eq!(store.now(), (101, 0, 199));
}

#[test]
fn two_services_may_hold_one_address() {
    let shared = |n: usize, ready: bool| {
        let endpoint = Endpoint { ip: ip(0, 1), hostname: None, ports: [].into(), ready };
        Arc::new(Service::new(key(n), Kind::Headless, vec![], vec![endpoint]))
    };
    let mut store = Store::with((0..60).map(|n| shared(n, true)));
    store.watch((0..60).map(|n| Change::Put(shared(n, false))));
    assert_eq!(store.now(), (60, 0, 60));
    store.watch([Change::Put(shared(3, true))]);
    assert_eq!(store.now(), (60, 0, 59), "back in one of them says nothing of the others");
    store.pass(600);
    store.writer.tick();
    assert_eq!(store.ready(3), [ip(0, 1)]);
    assert_eq!(store.ready(4), [] as [IpAddr; 0]);
}

#[test]
fn a_service_that_changes_its_kind_loses_no_endpoints_by_accident() {
    let mut store = Store::with((0..100).map(|n| headless(n, 3, &[])));
    store.watch((0..100).map(|n| Change::Put(cluster_ip(n))));
    assert_eq!(store.now(), (100, 0, 0));
}

#[test]
fn a_rollout_with_surge_loses_nothing_nor_does_one_seen_as_a_relist() {
    let pods = |n: usize, from: usize, count: usize| {
        let endpoint = |i| Endpoint { ip: ip(n, i), hostname: None, ports: [].into(), ready: true };
        Arc::new(Service::new(key(n), Kind::Headless, vec![], (from..from + count).map(endpoint).collect()))
    };
    let mut store = Store::with((0..60).map(|n| pods(n, 1, 3)));
    for n in 0..60 {
        store.watch([Change::Put(pods(n, 1, 6))]);
        store.watch([Change::Put(pods(n, 4, 3))]);
    }
    assert_eq!(store.now(), (60, 0, 0));
    assert_eq!(store.ready(3), [ip(3, 4), ip(3, 5), ip(3, 6)]);
    store.list((0..60).map(|n| pods(n, 10, 3)));
    assert_eq!(store.now(), (60, 0, 0));
    assert_eq!(store.ready(3), [ip(3, 10), ip(3, 11), ip(3, 12)]);
}

#[test]
fn a_drain_of_two_nodes_of_five_is_held_and_one_stateful_set_is_not() {
    let mut store = Store::with((0..60).map(|n| headless(n, 5, &[])).chain([headless(60, 200, &[])]));
    store.watch([Change::Put(headless(60, 0, &[]))]);
    assert_eq!(store.now(), (61, 0, 0), "200 to 0");
    store.pass(60);
    store.watch((0..60).map(|n| Change::Put(headless(n, 5, &[1, 2]))));
    assert_eq!(store.now(), (61, 0, 120));
    store.watch((0..60).map(|n| Change::Put(headless(n, 7, &[1, 2]))));
    assert_eq!(store.now(), (61, 0, 0), "the pods run elsewhere");
}
