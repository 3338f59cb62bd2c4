//! Hubs that were given one name by mistake: one of them watches, the other says what is wrong. And a hub that comes back
//! under its own name, which is no such case.

use std::{net::SocketAddr, time::Duration};

use holdfast::{record::Version, role::hub::Hub, store::Reader, sys::Clock};
use serde_json::Value;

use super::{
    leaders::process,
    pair::{Pair, epoch, stream},
};
use crate::support::{
    apiserver::service,
    fleet::{Asking, beside, in_time, jump, until},
    process::run,
    unharmed::unharmed,
};

/// What a hub is given to be called `hub`, as the other one is.
fn arguments(pair: &Pair, index: usize) -> Vec<String> {
    let named = ["--name", "hub"].map(str::to_owned);
    pair.arguments(index, pair.server.address()).into_iter().chain(named).collect()
}

/// The second one.
async fn second(pair: &Pair, listen: Option<SocketAddr>) -> Hub {
    let arguments = arguments(pair, 1);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    pair.homes[1].hub_by(listen, &arguments, Clock::System).await
}

/// Waits until this hub knows that its name is another's, too.
async fn until_told(pair: &Pair, index: usize) {
    in_time("it knows that its name is taken", async {
        loop {
            let (status, _) = pair.homes[index].tool(&["status"]).await;
            if (&status["lease"]["state"], &status["lease"]["renews"]) == (&"namesake".into(), &true.into()) {
                return;
            }
        }
    })
    .await;
}

/// Who took the lease, and how often it changed hands.
fn taken(pair: &Pair) -> (Value, Value, Value) {
    let lease = pair.lease();
    let hub = &lease["metadata"]["annotations"]["holdfast.io/hub"];
    (lease["spec"]["holderIdentity"].clone(), hub.clone(), lease["spec"]["leaseTransitions"].clone())
}

#[tokio::test]
async fn of_two_hubs_with_one_name_one_watches_and_the_other_says_what_to_do() {
    let pair = Pair::new().await;
    let first = process(&pair, "127.0.0.1:0", &arguments(&pair, 0)).await;
    let listen = first.address().to_string();
    let first = beside(move || {
        let mut first = first;
        first.wait_for("records complete");
        first
    })
    .await;
    let before = taken(&pair);
    let other = second(&pair, None).await;
    let agent = pair.homes[2].agent(&[&listen, &stream(&other)]).await;
    let all = |reader: &Reader| reader.load().counts().services == 100;
    until("it follows", agent.reader(), all).await;
    let begun = agent.reader().load().version().epoch;
    let asking = Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");

    until_told(&pair, 1).await;
    let socket = pair.homes[1].socket();
    let told = beside(move || run(&["status", "--admin", socket.to_str().unwrap()])).await;
    let told = String::from_utf8(told.stdout).unwrap();
    let line = format!("NONE HERE: another hub has the same name hub, at {listen}. Give each hub its own --name");
    assert!(told.contains(&line), "{told}");
    pair.longer_than_a_lease().await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let has_late = |reader: &Reader| reader.load().service(b"prod", b"late").is_some();
    until("the change", agent.reader(), has_late).await;
    assert_eq!(
        (taken(&pair), agent.reader().load().version().epoch),
        (before.clone(), begun),
        "it did not change hands"
    );
    assert_eq!(*other.reader().load().version(), Version::default(), "nothing was stamped");
    assert!(pair.server.most_watches() <= 4, "{} watches", pair.server.most_watches());

    // It leaves with what is not its own where it is, and comes back.
    let there = other.addresses().stream[0];
    other.stop().await;
    pair.longer_than_a_lease().await;
    assert_eq!(taken(&pair), before);
    let other = second(&pair, Some(there)).await;
    until_told(&pair, 1).await;

    // The one that watched is gone without a word: its name keeps nobody from taking its place, nor it from giving way.
    beside(move || first.kill()).await;
    pair.until_state(1, "holder").await;
    until("it lists", other.reader(), has_late).await;
    assert!(epoch(&other) > begun);
    let after = taken(&pair);
    assert_eq!((&after.0, &after.2), (&before.0, &(before.2.as_i64().unwrap() + 1).into()));
    let first = process(&pair, &listen, &arguments(&pair, 0)).await;
    until_told(&pair, 0).await;
    pair.longer_than_a_lease().await;
    assert_eq!(taken(&pair), after, "it did not change hands");
    // Whoever follows it looks for a fresher one within a minute.
    jump(Duration::from_secs(61)).await;
    unharmed(&pair.server.records(), other.reader(), &[agent.reader()], [asking]).await;
    agent.stop().await;
    other.stop().await;
    beside(move || first.kill()).await;
}

#[tokio::test]
async fn a_hub_that_is_killed_has_its_lease_again_without_waiting_for_its_end() {
    let pair = Pair::new().await;
    let config = pair.homes[0].path().join("long.yaml");
    // Longer than this test waits for anything.
    std::fs::write(&config, "lease: { duration: 5m }\nname: hub\n").unwrap();
    let mut arguments = pair.arguments(0, pair.server.address());
    arguments[3] = config.to_str().unwrap().into();
    let hub = process(&pair, "127.0.0.1:0", &arguments).await;
    let listen = hub.address().to_string();
    pair.until_state(0, "holder").await;
    let before = taken(&pair);
    beside(move || hub.kill()).await;
    let again = process(&pair, &listen, &arguments).await;
    let begun = tokio::time::Instant::now();
    pair.until_state(0, "holder").await;
    assert!(begun.elapsed() < Duration::from_secs(60));
    let after = taken(&pair);
    assert_eq!((after.0, after.1), (before.0, before.1), "the same hub");
    assert!(after.2.as_i64() > before.2.as_i64(), "that took it anew");
    beside(move || again.kill()).await;
}
