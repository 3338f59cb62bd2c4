//! One verdict on a real kube-apiserver and etcd, where `KUBEBUILDER_ASSETS` names a folder that has them.

use std::time::Instant;

use futures::StreamExt as _;

use super::{pair::stream, trio::Trio};
use crate::support::{
    fleet::{Home, until},
    real::Cluster,
};

struct World {
    cluster: Cluster,
    homes: [Home; 3],
    trio: Trio,
}

impl World {
    /// A cluster with so many services, the apiserver's own included, followed by two hubs and an agent.
    async fn begin(services: usize) -> Option<Self> {
        let cluster = Cluster::start().await?;
        cluster.fill("prod", services - 1).await;
        let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
        let config = homes[0].path().join("hub.yaml");
        // Longer than a test takes: the Lease does not move.
        std::fs::write(&config, "lease: { duration: 300s }").unwrap();
        let (kubeconfig, config) = (cluster.kubeconfig(), config.to_str().unwrap().to_owned());
        let arguments = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--config", &config];
        let leader = homes[0].hub(None, &arguments).await;
        until("the first lists", leader.reader(), |reader| reader.as_of().is_some()).await;
        let second = homes[1].hub(None, &arguments).await;
        let agent = homes[2].agent(&[&stream(&second)]).await;
        let world = Self { cluster, homes, trio: Trio { leader, second, agent } };
        world.all_serve("the first list", services, 0).await;
        Some(world)
    }

    async fn all_serve(&self, what: &str, services: usize, held: usize) {
        let took = self.trio.all_serve(&self.homes, what, services, held).await;
        eprintln!("{what}: {services} services, {held} held, equal everywhere after {took:?}");
    }

    async fn release(&self) {
        let (told, code) = self.homes[0].tool(&["guard", "release", "--yes"]).await;
        assert_eq!(code, 0, "{told:#}");
    }
}

#[tokio::test]
async fn a_restored_etcd_makes_one_verdict_everywhere_and_one_command_ends_what_is_held() {
    let Some(mut world) = World::begin(88).await else { return };
    let backup = world.cluster.backup().await;
    world.cluster.fill("late", 30).await;
    world.all_serve("30 services come", 118, 0).await;
    let epoch = world.trio.agent.reader().load().version().epoch;
    world.cluster.restore(backup.path()).await;
    world.all_serve("etcd is restored, which lacks 30 of 118: fewer than a list may", 88, 0).await;
    assert!(world.trio.agent.reader().load().version().epoch > epoch, "another history");

    world.cluster.fill("late", 72).await;
    world.all_serve("72 services come", 160, 0).await;
    world.cluster.restore(backup.path()).await;
    world.all_serve("etcd is restored, which lacks 72 of 160", 160, 72).await;
    let (told, _) = world.homes[2].tool(&["guard"]).await;
    assert_eq!(told["held"]["rows"][0]["reason"], "the source's list is missing 72 of 160 services", "{told:#}");
    world.release().await;
    world.all_serve("released by one command", 88, 0).await;
    world.trio.stop().await;
}

#[tokio::test]
async fn a_deleted_namespace_is_gone_everywhere_and_nothing_is_held() {
    let Some(mut world) = World::begin(88).await else { return };
    if !world.cluster.start_namespace_controller() {
        return;
    }
    world.cluster.fill("ci", 30).await;
    world.all_serve("a namespace comes", 118, 0).await;
    world.cluster.delete("Namespace", "", "ci").await;
    let begun = Instant::now();
    // The namespace controller itself waits for five seconds.
    world.all_serve("a namespace is deleted", 88, 0).await;
    let agent = world.trio.agent.reader();
    until("the namespace too", agent, |reader| !reader.load().has_namespace(b"ci")).await;
    eprintln!("everything of the namespace is gone {:?} after it was deleted", begun.elapsed());
    world.all_serve("nothing is held after it", 88, 0).await;
    world.trio.stop().await;
}

#[tokio::test]
async fn four_fifths_deleted_by_events_are_held_everywhere_and_released_by_one_command() {
    let Some(world) = World::begin(101).await else { return };
    let names: Vec<String> = (0..80).map(|n| format!("prod-{n}")).collect();
    // As `kubectl delete` does it: several at a time.
    futures::stream::iter(&names).for_each_concurrent(8, |name| world.cluster.delete("Service", "prod", name)).await;
    world.all_serve("four fifths are deleted", 101, 80).await;
    world.release().await;
    world.all_serve("released by one command", 21, 0).await;
    world.trio.stop().await;
}
