//! What is more likely a mistake: the records stay, on every node alike, until the rule ends that or an operator does.

use std::time::Duration;

use holdfast::record::Release;

use super::world::{World, counts, services, workload};
use crate::support::apiserver::namespace;

const TEN_MINUTES: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_burst_of_deletions_is_held_whole_and_goes_when_the_source_insists() {
    let mut world = World::begin(services("shop", 0..201)).await;
    world.delete("shop", 0..70);
    world.taken_in().await;
    world.pass(Duration::from_millis(300));
    world.delete("shop", 70..140);
    world.arrived().await;
    assert_eq!(world.counts(), (201, 140, 0), "none of them is gone");
    assert_eq!(world.reason(), "140 of 203 services were deleted in a short time");
    // Neither a restart of the hubs nor a list before its time ends that.
    world.hand_over().await;
    world.restart_leader(true).await;
    assert_eq!(world.counts(), (201, 140, 0));
    world.confirmed(TEN_MINUTES).await;
    assert_eq!(world.counts(), (61, 0, 0));
}

#[tokio::test]
async fn four_fifths_deleted_by_events_are_released_everywhere_by_one_command_at_one_hub() {
    let mut world = World::begin(services("shop", 0..50).into_iter().chain(services("ci", 100..150))).await;
    world.delete("shop", 0..40);
    world.delete("ci", 100..140);
    world.arrived().await;
    assert_eq!(world.counts(), (100, 80, 0));
    // An agent is away while the operator decides.
    let away = world.agents.pop().unwrap();
    world.pass(Duration::from_secs(5));
    let version = world.reader().load().version().clone();
    let applied = world.agents[0].writer.release(&Release::All);
    assert_eq!((applied.changes, applied.held_upstream), (0, 80), "no agent decides");
    world.lead().writer.release(&Release::Namespace("ci".into()));
    world.spread();
    assert_eq!(world.counts(), (60, 40, 0), "of this namespace only");
    assert_eq!(away.reader.load().version(), &version);
    world.agents.push(away);
    world.spread();
    world.pass(Duration::from_secs(5));
    world.lead().writer.release(&Release::All);
    world.spread();
    assert_eq!(world.counts(), (20, 0, 0));
}

#[tokio::test]
async fn an_etcd_restored_from_a_backup_makes_one_verdict() {
    let mut world = World::begin(services("shop", 0..88)).await;
    let backup = world.server.backup();
    world.server.put_all(services("shop", 100..130));
    world.arrived().await;
    assert_eq!(world.counts(), (118, 0, 0));
    let epoch = world.reader().load().version().epoch;
    world.server.stop();
    world.server.restore(&backup);
    world.server.start_again().await;
    world.until("another history", move |reader| reader.load().version().epoch > epoch).await;
    world.decided();
    // Thirty missing from a list pass, whoever is asked.
    assert_eq!(world.counts(), (88, 0, 0), "{}", world.reason());
    world.arrived().await;
    world.hand_over().await;
    assert_eq!(world.counts(), (88, 0, 0), "{}", world.reason());
}

#[tokio::test]
async fn a_wiped_etcd_takes_nothing_however_few_services_there_are() {
    let mut world = World::begin(services("shop", 0..18)).await;
    world.wipe();
    // What the list says, not what events said.
    world.relist().await;
    let held = |world: &World| (world.counts().0, world.reader().held().counts().services);
    assert_eq!(held(&world), (18, 20), "all, and the marks");
    world.pass(TEN_MINUTES * 6);
    world.relist().await;
    assert_eq!(held(&world), (18, 20), "only an operator ends that");
    world.lead().writer.release(&Release::All);
    world.spread();
    assert_eq!(held(&world), (0, 0));
}

#[tokio::test]
async fn another_cluster_takes_nothing_until_it_is_accepted() {
    let mut world = World::begin(services("shop", 0..18)).await;
    let mut other = namespace("kube-system");
    other["metadata"]["uid"] = "another".into();
    world.server.put(other);
    world.delete("shop", 0..18);
    world.server.put_all(services("shop", 30..33));
    world.relist().await;
    let (served, held, _) = world.counts();
    assert_eq!((served, held), (18, 18 + 2), "all of them, and the marks");
    assert!(world.reason().contains("another"), "{}", world.reason());
    world.pass(Duration::from_secs(5));
    let applied = world.lead().writer.release(&Release::Cluster("".into()));
    assert_eq!(applied.changes, 0);
    world.relist().await;
    assert_eq!(world.counts(), (3, 0, 0));
    assert!(world.agents.iter().all(|agent| &*agent.reader.load().version().cluster == "another"));
}

#[tokio::test]
async fn hubs_that_come_up_empty_and_get_half_a_list_are_refused_until_their_operator_releases() {
    let mut world = World::begin(services("shop", 0..60).into_iter().chain(services("ci", 100..160))).await;
    world.delete("shop", 0..30);
    world.delete("ci", 100..130);
    world.server.compact();
    world.lose_disks_of_hubs().await;
    assert_eq!(world.counts(), (60, 0, 0), "these know no better");
    for agent in &world.agents {
        assert_eq!(counts(&agent.reader), (120, 60, 0));
        assert_eq!(agent.reader.held().refused(), 60, "which their hub is told");
    }
    world.pass(Duration::from_secs(5));
    world.lead().writer.release(&Release::Namespace("ci".into()));
    world.follow();
    for agent in &world.agents {
        assert_eq!(counts(&agent.reader), (90, 30, 0));
    }
    world.pass(Duration::from_secs(5));
    world.lead().writer.release(&Release::All);
    world.spread();
    assert_eq!(world.counts(), (60, 0, 0));
}

#[tokio::test]
async fn endpoints_of_two_nodes_that_die_are_held_for_ten_minutes_or_until_others_are_ready() {
    let all = |pods: &'static [usize]| (0..60).flat_map(move |n| workload("shop", n, pods.iter().copied()));
    let mut world = World::begin(all(&[1, 2, 3, 4, 5])).await;
    world.server.put_all(all(&[1, 2, 3]));
    world.arrived().await;
    // What passes before the limit is reached depends on how the events come in; none of the rest is gone.
    let (_, _, held) = world.counts();
    assert!((18..=120).contains(&held), "{held}: {}", world.reason());
    // New ones take their places one by one.
    world.server.put_all((30..60).flat_map(|n| workload("shop", n, [1, 2, 3, 6, 7])));
    world.arrived().await;
    assert!(world.counts().2 <= 60 && world.counts().2 < held, "{held} {:?}", world.counts());
    world.pass(TEN_MINUTES);
    world.lead().writer.tick();
    world.spread();
    assert_eq!(world.counts(), (60, 0, 0));
}

#[tokio::test]
async fn most_of_the_cluster_is_held_and_so_is_a_protected_namespace() {
    let objects = services("shop", 0..60).into_iter().chain(services("ci", 100..200));
    let mut world = World::begin(objects.chain(services("default", 300..303))).await;
    world.delete_namespace("ci", 100..200);
    world.arrived().await;
    assert_eq!(world.counts(), (163, 100, 0));
    assert_eq!(world.reason(), "100 of 165 services were deleted with their namespaces in a short time");
    world.confirmed(TEN_MINUTES).await;
    assert_eq!(world.counts(), (63, 0, 0));
    world.delete_namespace("default", 300..303);
    world.arrived().await;
    assert_eq!((world.counts(), world.reason().as_str()), ((63, 3, 0), "a protected namespace was deleted"));
    world.confirmed(TEN_MINUTES).await;
    assert_eq!(world.counts(), (60, 0, 0), "the source insists");
}
