//! Several hubs of one cluster: one watches, the others follow it, whatever happens to them or to the apiserver.

use std::time::Duration;

use holdfast::{role::hub::Hub, store::SourceState};

use crate::support::{
    apiserver::{Apiserver, Fault, Reply, namespace, service},
    fleet::{Home, in_time, until, until_equal},
};

const LEASE: &str = "holdfast-hub";

fn populated(server: &Apiserver) {
    server.put(namespace("prod"));
    server.put_all((0..100).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
}

/// A cluster with two hubs that stand for election, the first of which was elected.
struct Pair {
    server: Apiserver,
    homes: [Home; 3],
    kubeconfig: String,
    config: String,
}

impl Pair {
    async fn new() -> Self {
        let server = Apiserver::start().await;
        populated(&server);
        let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
        let kubeconfig = server.kubeconfig(homes[0].path()).to_str().unwrap().to_owned();
        let config = homes[0].path().join("hub.yaml");
        std::fs::write(&config, "lease: { duration: 3s }").unwrap();
        Self { server, homes, kubeconfig, config: config.to_str().unwrap().to_owned() }
    }

    async fn hub(&self, index: usize) -> Hub {
        self.homes[index].hub(None, &["--kubeconfig", &self.kubeconfig, "--config", &self.config]).await
    }

    async fn both(&self) -> (Hub, Hub) {
        let first = self.hub(0).await;
        until("the first lists", first.reader(), |reader| reader.as_of().is_some()).await;
        let second = self.hub(1).await;
        in_time("the second follows", until_equal(second.reader(), first.reader())).await;
        (first, second)
    }

    fn holder(&self) -> String {
        let lease = self.server.lease("default", LEASE).expect("a lease");
        lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }

    async fn state(&self, index: usize) -> String {
        let (status, _) = self.homes[index].tool(&["status"]).await;
        status["lease"]["state"].as_str().unwrap().to_owned()
    }

    async fn until_state(&self, index: usize, state: &str) {
        in_time(state, async { while self.state(index).await != state {} }).await;
    }
}

fn stream(hub: &Hub) -> String {
    hub.addresses().stream[0].to_string()
}

fn epoch(hub: &Hub) -> u64 {
    hub.reader().load().version().epoch
}

#[tokio::test]
async fn one_hub_watches_and_the_other_follows_it_and_takes_over_at_once_when_it_leaves() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    assert_eq!((pair.state(0).await, pair.state(1).await), ("holder".into(), "follower".into()));
    assert!(pair.server.most_watches() <= 4, "{} watches", pair.server.most_watches());
    let agent = pair.homes[2].agent(&[&stream(&first), &stream(&second)]).await;
    in_time("the agent follows", until_equal(agent.reader(), first.reader())).await;

    let before = epoch(&first);
    let left = tokio::time::Instant::now();
    first.stop().await;
    pair.until_state(1, "holder").await;
    assert!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
    pair.server.put(service("prod", "late", "10.96.2.1"));
    until("the change", agent.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    in_time("the agent follows", until_equal(agent.reader(), second.reader())).await;
    assert!(epoch(&second) > before);

    let first = pair.hub(0).await;
    pair.until_state(0, "follower").await;
    in_time("the one that came back follows", until_equal(first.reader(), second.reader())).await;
    assert!(pair.server.most_watches() <= 4, "{} watches", pair.server.most_watches());
    agent.stop().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_holder_that_died_is_succeeded_in_a_new_epoch() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    let (name, before) = (pair.holder(), epoch(&first));
    // As a kill: nothing is let go.
    drop(first);
    pair.until_state(1, "holder").await;
    assert_ne!(pair.holder(), name);
    until("a new epoch", second.reader(), |reader| reader.load().version().epoch > before).await;
    second.stop().await;
}

#[tokio::test]
async fn an_outage_of_any_length_changes_neither_holder_nor_epoch_and_its_end_shows_at_once() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    let (holder, before) = (pair.holder(), first.reader().snapshot().version().clone());
    pair.server.stall();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_600)).await;
    tokio::time::resume();
    let lost = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(_));
    until("the outage is noticed", first.reader(), lost).await;
    until("and told", second.reader(), lost).await;
    in_time("both serve on", until_equal(second.reader(), first.reader())).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let back = tokio::time::Instant::now();
    pair.server.resume();
    until("the change", second.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    // Longer than a lease lasts: whoever wanted to take it has had the time.
    let renewed = || pair.server.seen().iter().filter(|seen| seen.verb == "update").count();
    let (renewals, looks) = (renewed(), pair.server.count("get", "leases"));
    pair.server
        .until("renewals go on", |server| renewed() > renewals + 3 && server.count("get", "leases") > looks + 20)
        .await;
    assert_eq!(pair.holder(), holder);
    assert_eq!(first.reader().load().version().epoch, before.epoch, "one epoch");
    in_time("equal", until_equal(second.reader(), first.reader())).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn two_that_think_they_hold_the_lease_become_one_and_every_record_converges() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    let agent = pair.homes[2].agent(&[&stream(&first), &stream(&second)]).await;
    in_time("the agent follows", until_equal(agent.reader(), first.reader())).await;
    // The lease in etcd says the other one holds it, as after a restore: for a moment both watch.
    let mut lease = pair.server.lease("default", LEASE).unwrap();
    let (status, _) = pair.homes[1].tool(&["status"]).await;
    let name = status["serves"]["name"].as_str().unwrap().to_owned();
    lease["spec"]["holderIdentity"] = name.as_str().into();
    pair.server.put(lease);
    pair.until_state(1, "holder").await;
    pair.until_state(0, "follower").await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    for reader in [first.reader(), agent.reader()] {
        until("the change", reader, |reader| reader.load().service(b"prod", b"late").is_some()).await;
        in_time("equal", until_equal(reader, second.reader())).await;
    }
    assert_eq!(pair.holder(), name);
    agent.stop().await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn without_the_right_to_leases_a_hub_watches_all_the_same_and_says_why_it_should_not() {
    let pair = Pair::new().await;
    pair.server.fail(Fault::on("leases").with(Reply::status(403, "Forbidden")).times(1_000));
    let hub = pair.hub(0).await;
    until("it lists", hub.reader(), |reader| reader.as_of().is_some()).await;
    assert_eq!(pair.state(0).await, "holder");
    hub.stop().await;
}
