//! What happens in a cluster every day: nothing of it needs an operator.

use std::time::Duration;

use super::world::{World, ip, services, workload};
use crate::support::apiserver::{external_name, namespace, service};

/// Rounds in which a namespace comes and goes, fifty an hour. `src/store/guard/tests/rows.rs` has a whole day of them.
const ROUNDS: usize = 6 * 50;

#[tokio::test]
async fn ten_namespaces_of_three_services_are_cleaned_up() {
    let mut world = World::begin(services("shop", 0..101)).await;
    for n in 0..10 {
        let name = format!("ci-{n}");
        world.server.put(namespace(&name));
        world.server.put_all(services(&name, 200 + n * 3..203 + n * 3));
    }
    world.arrived().await;
    assert_eq!(world.counts(), (131, 0, 0));
    for n in 0..10 {
        world.delete_namespace(&format!("ci-{n}"), 200 + n * 3..203 + n * 3);
    }
    world.arrived().await;
    assert_eq!(world.counts(), (101, 0, 0), "{}", world.reason());
    assert!(!world.reader().load().lists_namespace("ci-7"));
}

#[tokio::test]
async fn the_old_namespace_of_a_blue_green_switch_is_deleted() {
    let mut world = World::begin(services("shop", 0..141).into_iter().chain(services("ci", 200..240))).await;
    assert_eq!(world.counts(), (181, 0, 0));
    world.delete_namespace("ci", 200..240);
    world.arrived().await;
    assert_eq!(world.counts(), (141, 0, 0), "{}", world.reason());
}

#[tokio::test]
async fn a_namespace_of_a_hundred_stays_gone_through_a_rolling_restart_of_the_hubs() {
    let mut world = World::begin(services("shop", 0..316).into_iter().chain(services("ci", 400..500))).await;
    assert_eq!(world.counts(), (416, 0, 0));
    world.delete_namespace("ci", 400..500);
    world.arrived().await;
    assert_eq!(world.counts(), (316, 0, 0), "{}", world.reason());
    for hub in [1, 0] {
        world.hand_over().await;
        assert_eq!((world.leader, world.counts()), (hub, (316, 0, 0)), "{}", world.reason());
    }
    world.restart_leader(true).await;
    assert_eq!(world.counts(), (316, 0, 0), "{}", world.reason());
}

#[tokio::test]
async fn services_deleted_and_created_again_do_not_count_against_the_next_deletion() {
    let mut world = World::begin(services("shop", 0..118)).await;
    world.delete("shop", 0..35);
    world.taken_in().await;
    world.pass(Duration::from_secs(2));
    world.server.put_all(services("shop", 0..35));
    world.arrived().await;
    assert_eq!(world.counts(), (118, 0, 0), "{}", world.reason());
    world.delete("shop", [50]);
    world.arrived().await;
    assert_eq!(world.counts(), (117, 0, 0), "{}", world.reason());
}

#[tokio::test]
async fn a_tenant_who_deletes_and_creates_one_service_does_not_block_the_others() {
    let mut world = World::begin(services("shop", 0..100)).await;
    for _ in 0..42 {
        world.delete("shop", [7]);
        world.server.put_all(services("shop", [7]));
    }
    world.delete("shop", [50, 51]);
    world.arrived().await;
    assert_eq!(world.counts(), (98, 0, 0), "{}", world.reason());
}

#[tokio::test]
async fn a_rollout_of_many_headless_services_leaves_no_dead_address() {
    let pods = |generation: usize| (1..=3).map(move |pod| generation * 10 + pod);
    let all = |generation: usize| (0..60).flat_map(move |n| workload("shop", n, pods(generation)));
    let surge = (0..60).flat_map(|n| workload("shop", n, pods(0).chain(pods(1))));
    let mut world = World::begin(all(0)).await;
    let lives = |world: &World, generation: usize| {
        let snapshot = world.reader().load();
        (0..60).all(|n| {
            let service = snapshot.service(b"shop", format!("s-{n}").as_bytes()).expect("it is there");
            let ready: Vec<String> = service.ready_endpoints().map(|endpoint| endpoint.ip.to_string()).collect();
            ready == pods(generation).map(|pod| format!("10.128.{n}.{pod}")).collect::<Vec<_>>()
        })
    };
    assert!(lives(&world, 0));
    world.server.put_all(surge);
    world.taken_in().await;
    world.server.put_all(all(1));
    world.arrived().await;
    assert_eq!(world.counts(), (60, 0, 0), "{}", world.reason());
    assert!(lives(&world, 1));
    // The same, seen as one list.
    world.server.put_all(all(2));
    world.relist().await;
    assert_eq!(world.counts(), (60, 0, 0), "{}", world.reason());
    assert!(lives(&world, 2));
}

#[tokio::test]
async fn a_release_is_uninstalled_and_a_workload_scaled_to_zero() {
    let objects = services("shop", 0..80).into_iter().chain(services("ci", 100..112));
    let mut world = World::begin(objects.chain(workload("shop", 90, 1..=200))).await;
    world.delete("ci", 100..112);
    world.server.put_all(workload("shop", 90, []));
    world.arrived().await;
    assert_eq!(world.counts(), (81, 0, 0), "{}", world.reason());
    let snapshot = world.reader().load();
    assert_eq!(snapshot.service(b"shop", b"s-90").expect("it is there").endpoints().len(), 0);
}

#[tokio::test]
async fn services_of_another_type_count_at_once_and_an_address_in_use_elsewhere_is_not_held() {
    let mut world = World::begin(services("shop", 0..100)).await;
    world.delete("shop", 0..30);
    world.arrived().await;
    assert_eq!(world.counts(), (100, 30, 0));
    world.server.put(external_name("shop", "s-3", "db.example"));
    world.server.put_all(workload("shop", 4, [1]));
    world.server.put(service("shop", "new", &ip(5)));
    world.arrived().await;
    assert_eq!(world.counts(), (100, 27, 0), "s-5 is gone, its address belongs to another");
    for node in &world.agents {
        let snapshot = node.reader.load();
        assert!(snapshot.service(b"shop", b"s-5").is_none());
        let holders = snapshot.holders(ip(5).parse().unwrap());
        let names: Vec<&str> = holders.iter().map(|holder| holder.service.name()).collect();
        assert_eq!(names, ["new"], "nor has its reverse name the old one");
        assert_eq!(snapshot.service(b"shop", b"s-4").expect("it is there").endpoints().len(), 1);
    }
}

#[tokio::test]
async fn an_agent_that_comes_back_with_an_older_disk_serves_what_its_neighbours_do() {
    let all = |generation: usize| (0..60).flat_map(move |n| workload("shop", n, [generation, generation + 1]));
    let mut world = World::begin(all(1).chain(services("shop", 100..140))).await;
    let disk = world.agents[0].reader.snapshot();
    world.server.put_all(all(11));
    world.delete("shop", 100..110);
    world.arrived().await;
    world.pass(Duration::from_secs(120));
    world.delete("shop", 110..120);
    world.arrived().await;
    assert_eq!(world.counts(), (80, 0, 0), "{}", world.reason());
    world.restart_agent(0, Some(&disk));
    assert_eq!(super::world::counts(&world.agents[0].reader), (100, 0, 0));
    world.spread();
}

#[tokio::test]
async fn fifty_namespaces_an_hour_leave_nothing_held() {
    let mut world = World::begin(services("shop", 0..88)).await;
    let mut held = 0;
    for round in 0..ROUNDS {
        let name = format!("ci-{round}");
        world.server.put(namespace(&name));
        world.server.put_all(services(&name, 100..104));
        world.pass(Duration::from_secs(36));
        world.delete_namespace(&name, 100..104);
        // A few are looked at one by one; the others come in as they come.
        if round % 20 == 0 {
            world.arrived().await;
            held += world.counts().1;
            assert_eq!(world.counts().0, 88, "round {round}");
        }
        world.pass(Duration::from_secs(36));
    }
    world.arrived().await;
    assert_eq!((world.counts(), held), ((88, 0, 0), 0), "{}", world.reason());
}
