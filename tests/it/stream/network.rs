//! Lines that lose, cut, hold back and trickle: whatever they do, followers end up equal to the hub and never hold half of
//! anything.

use std::time::Duration;

use holdfast::{source::hub::State, stream};

use super::rig::{Agent, EPOCH_MS, Hub, Line, Net, Weather, World, clock, clock_at, metric, service, services};

/// A hub with records, and another one that follows the same source.
fn two(net: &Net, clock: &holdfast::sys::Clock, count: u32) -> (Hub, Hub) {
    let mut hubs = ["hub-a", "hub-b"].map(|name| {
        let mut hub = Hub::start(name, clock, stream::Config::default());
        hub.list(services(count), false);
        net.put(name, Line::Hub(hub.server.clone()));
        hub
    });
    for hub in &mut hubs {
        hub.vouch();
    }
    hubs.into()
}

/// The hub an agent follows, and the other one.
async fn followed<'a>(agent: &Agent, hubs: &'a mut (Hub, Hub)) -> (&'static str, &'a mut Hub, &'a mut Hub) {
    let mut status = agent.status.clone();
    let address = status.wait_for(|status| status.state == State::Live).await.unwrap().address.clone();
    if address == "hub-a" { ("hub-a", &mut hubs.0, &mut hubs.1) } else { ("hub-b", &mut hubs.1, &mut hubs.0) }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_loses_what_the_hub_says_is_left_after_the_silence() {
    let (clock, net) = (clock(), Net::default());
    let mut hubs = two(&net, &clock, 500);
    let agent = Agent::start("agent", &clock, &net, &["hub-a", "hub-b"]);
    let (address, hub, other) = followed(&agent, &mut hubs).await;
    net.weather(address, Weather::Deaf);
    for hub in [hub, &mut *other] {
        hub.change(vec![service("s1", 9_999)]);
    }
    let took = agent.equals(other).await;
    assert!((Duration::from_secs(10)..Duration::from_secs(25)).contains(&took), "{took:?}");
    assert_eq!(metric(&agent.registry, "holdfast_store_digest_mismatch_total", ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_loses_what_the_client_says_carries_changes_until_its_window_is_full_and_is_left_then() {
    let (clock, net) = (clock(), Net::default());
    let mut hubs = two(&net, &clock, 500);
    let agent = Agent::start("agent", &clock, &net, &["hub-a", "hub-b"]);
    let (address, hub, other) = followed(&agent, &mut hubs).await;
    net.weather(address, Weather::Mute);
    hub.change(vec![service("s1", 9_999)]);
    other.change(vec![service("s1", 9_999)]);
    agent.equals(hub).await;
    // Far more than the window of a connection, none of it acknowledged.
    for round in 0..200 {
        for hub in [&mut *hub, &mut *other] {
            hub.change((0..500).map(|n| service(&format!("s{n}"), 100_000 + round * 1_000 + n)).collect());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    agent.equals(other).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_cut_again_and_again_is_never_half_held() {
    let world = World::new();
    let hub = world.hub("hub", 5_000);
    let net = &world.net;
    net.weather("hub", Weather::Breaks(5_000));
    let agent = world.agent("agent", &["hub"]);
    while net.dialled.lock().unwrap().len() < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((agent.reader.as_of(), agent.reader.load().counts().services), (None, 0));
    }
    assert!(hub.metric("holdfast_stream_resume_total", "snapshot") >= 4, "each began");
    net.weather("hub", Weather::Fair);
    agent.equals(&hub).await;
}

#[tokio::test(start_paused = true)]
async fn a_kilobyte_a_second_is_slow_but_gets_there_and_costs_nobody_else_anything() {
    let (clock, net) = (clock(), Net::default());
    let mut hub = Hub::start("hub", &clock, stream::Config::default());
    hub.list(services(5_000), false);
    net.put("slow", Line::Hub(hub.server.clone()));
    net.put("quick", Line::Hub(hub.server.clone()));
    net.weather("slow", Weather::Slow(1_000));
    let slow = Agent::start("slow", &clock, &net, &["slow"]);
    let quick = Agent::start("quick", &clock, &net, &["quick"]);
    quick.equals(&hub).await;
    for n in 0..10 {
        hub.change(vec![service("s1", 90_000 + n)]);
        let took = quick.equals(&hub).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    let took = slow.equals(&hub).await;
    assert!(took > Duration::from_secs(15), "a snapshot takes longer than the silence allowed: {took:?}");
    assert_eq!(hub.metric("holdfast_stream_resume_total", "snapshot"), 2, "one each");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_back_before_its_hub_knows_that_it_was_gone() {
    let (World { net, .. }, mut hub, agent) = World::followed(500).await;
    net.weather("hub", Weather::Hung);
    hub.change(vec![service("s1", 9_999)]);
    let mut status = agent.status.clone();
    status.wait_for(|status| status.state == State::Stale).await.unwrap();
    // The new connection overtakes the old one, which is still open at the hub.
    net.put("hub", Line::Hub(hub.server.clone()));
    hub.change(vec![service("s2", 9_999)]);
    agent.equals(&hub).await;
    assert_eq!(hub.metric("holdfast_stream_subscribers", ""), 2, "one of them half-open");
    hub.change(vec![service("s3", 9_999)]);
    agent.equals(&hub).await;
    assert!(agent.refused.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn by_how_much_a_hubs_clock_is_ahead_is_measured() {
    let (clock, net) = (clock(), Net::default());
    let mut hub = Hub::start("hub", &clock_at(EPOCH_MS + 3_600_000), stream::Config::default());
    hub.list(services(3), false);
    net.put("hub", Line::Hub(hub.server.clone()));
    hub.vouch();
    let agent = Agent::start("agent", &clock, &net, &["hub"]);
    agent.equals(&hub).await;
    agent.status.clone().wait_for(|status| status.clock_ahead_ms.is_some()).await.unwrap();
    assert_eq!(agent.metric("holdfast_hub_clock_offset_seconds", ""), 3_600);
}
