//! Several hubs of one cluster: one watches, the others follow it, whatever happens to them or to the apiserver.

use std::time::Duration;

use holdfast::{
    role::hub::Hub,
    store::{Reader, SourceState},
};

use super::pair::{Pair, epoch, stream};
use crate::support::{
    apiserver::{Fault, Reply, Slow, service},
    fleet::{in_time, jump, until, until_equal},
    unharmed::unharmed,
};

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
async fn an_outage_of_any_length_changes_neither_holder_nor_epoch_and_its_end_shows_at_once() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    let (holder, before) = (pair.holder(), first.reader().snapshot().version().clone());
    pair.server.stall();
    jump(Duration::from_secs(3_600)).await;
    let lost = |reader: &Reader| matches!(reader.freshness().source, SourceState::Lost(_));
    until("the outage is noticed", first.reader(), lost).await;
    until("and told", second.reader(), lost).await;
    in_time("both serve on", until_equal(second.reader(), first.reader())).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let back = tokio::time::Instant::now();
    pair.server.resume();
    until("the change", second.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    pair.longer_than_a_lease().await;
    assert_eq!(pair.holder(), holder);
    assert_eq!(first.reader().load().version().epoch, before.epoch, "one epoch");
    unharmed(&pair.server.records(), first.reader(), &[second.reader()], []).await;
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
    let mut lease = pair.lease();
    let (status, _) = pair.homes[1].tool(&["status"]).await;
    let name = status["serves"]["name"].as_str().unwrap().to_owned();
    lease["spec"]["holderIdentity"] = name.as_str().into();
    lease["metadata"]["annotations"] = serde_json::json!({ "holdfast.io/serves": stream(&second) });
    pair.server.put(lease);
    pair.until_state(1, "holder").await;
    pair.until_state(0, "follower").await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    for reader in [first.reader(), agent.reader()] {
        until("the change", reader, |reader| reader.load().service(b"prod", b"late").is_some()).await;
    }
    unharmed(&pair.server.records(), second.reader(), &[first.reader(), agent.reader()], []).await;
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

#[tokio::test]
async fn hubs_that_start_while_the_apiserver_is_slow_get_in_and_give_up_no_request() {
    const SLOW: Duration = Duration::from_millis(200);
    let pair = Pair::with_lease("60s").await;
    pair.server.slow(Slow { accept: SLOW, headers: SLOW, ..Slow::default() });
    let (first, second) = pair.both().await;
    assert_eq!((pair.state(0).await, pair.state(1).await), ("holder".into(), "follower".into()));
    for hub in [&first, &second] {
        gave_up_no_request(hub);
    }
    pair.server.put(service("prod", "late", "10.96.2.1"));
    until("the change", second.reader(), has_late).await;
    first.stop().await;
    second.stop().await;
}

fn has_late(reader: &Reader) -> bool {
    reader.load().service(b"prod", b"late").is_some()
}

#[tokio::test]
async fn renewals_that_take_longer_than_the_lease_are_waited_for_and_changes_reach_followers_all_the_same() {
    let pair = Pair::new().await;
    let (first, second) = pair.both().await;
    let holder = pair.holder();
    pair.server.slow(Slow { headers: Duration::from_secs(4), ..Slow::default() });
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let failing = |told: Option<&'static str>| {
        let home = &pair.homes[0];
        async move {
            loop {
                let (status, _) = home.tool(&["status"]).await;
                let reason = status["lease"]["failing"]["reason"].as_str().unwrap_or_default();
                if told.map_or(reason.is_empty(), |told| reason.ends_with(told)) {
                    break;
                }
                jump(Duration::from_millis(250)).await;
            }
        }
    };
    in_time("late", failing(Some("update leases: answer timed out (3s), still waiting"))).await;
    until("the change", second.reader(), has_late).await;
    in_time("answered", failing(None)).await;
    gave_up_no_request(&first);
    assert_eq!(pair.holder(), holder);
    first.stop().await;
    second.stop().await;
}

fn gave_up_no_request(hub: &Hub) {
    let families = hub.registry().gather();
    let abandoned = families.iter().find(|family| family.name() == "holdfast_source_abandoned_total");
    let count = abandoned.expect("it is counted").get_metric()[0].get_counter().get_value();
    assert!(count < 1.0, "{count} requests given up");
}

#[tokio::test]
async fn without_the_right_to_leases_hubs_that_hear_of_each_other_become_one_that_watches() {
    one_watches(Fault::on("leases"), "403").await;
}

#[tokio::test]
async fn without_a_lease_and_the_right_to_make_one_hubs_become_one_that_watches_and_say_what_is_missing() {
    one_watches(Fault::on("leases").verb("create"), "does not exist and cannot be created").await;
}

/// Two hubs that are refused so.
async fn one_watches(refusal: Fault, reason: &str) {
    let pair = Pair::new().await;
    pair.server.fail(refusal.with(Reply::status(403, "Forbidden")).times(1_000_000));
    let first = pair.hub(0).await;
    until("it lists", first.reader(), |reader| reader.as_of().is_some()).await;
    let (status, _) = pair.homes[0].tool(&["status"]).await;
    let told = status["lease"]["failing"]["reason"].as_str().unwrap_or_default();
    assert!(told.contains(reason), "{status:#}");
    // The second one knows where the first is reached, as from a stream before; the first hears of it by its question.
    let store = pair.homes[1].path().join("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(store.join("hubs.json"), serde_json::json!([stream(&first)]).to_string()).unwrap();
    let second = pair.hub(1).await;
    in_time("one watches, the other follows", async {
        loop {
            let both = [pair.state(0).await, pair.state(1).await];
            if both.contains(&"holder".into()) && both.contains(&"follower".into()) {
                break;
            }
        }
    })
    .await;
    pair.server.until("the watches of one hub", |server| server.open_watches() == 4).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let has = |name: &'static str| move |reader: &Reader| reader.load().service(b"prod", name.as_bytes()).is_some();
    for reader in [first.reader(), second.reader()] {
        until("the change", reader, has("late")).await;
    }
    in_time("equal", until_equal(second.reader(), first.reader())).await;

    // The one that watches leaves: the other one watches, in a later epoch.
    let epoch = epoch(&first);
    let (leaves, stays, index) = if pair.state(0).await == "holder" { (first, second, 1) } else { (second, first, 0) };
    leaves.stop().await;
    pair.until_state(index, "holder").await;
    pair.server.put(service("prod", "later", "10.96.2.2"));
    until("the change", stays.reader(), has("later")).await;
    assert!(stays.reader().load().version().epoch > epoch);
    stays.stop().await;
}
