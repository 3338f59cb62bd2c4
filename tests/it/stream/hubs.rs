//! Who is brought up to date how.

use std::time::Duration;

use holdfast::{
    record::{Change, Release, ServiceKey},
    source::hub::State,
    store::{SourceState, What},
    stream,
};

use super::rig::{Agent, EPOCH_MS, Hub, World, service, services};

#[tokio::test(start_paused = true)]
async fn an_empty_agent_gets_a_snapshot_and_then_every_change() {
    let (_world, mut hub, agent) = World::followed(2_000).await;
    agent.reaches(State::Live).await;
    assert_eq!(hub.metric("holdfast_stream_resume_total", "snapshot"), 1);

    hub.change(vec![
        service("s7", 99),
        Change::Remove(ServiceKey::new("prod", "s8")),
        Change::PutNamespace("x".into()),
    ]);
    assert!(agent.equals(&hub).await < Duration::from_millis(200), "idle: out at once");
    assert!(agent.reader.load().has_namespace(b"x"));
    assert!(agent.reader.load().service(b"prod", b"s8").is_none());
    assert_eq!(agent.reader.freshness().source, SourceState::Up);
    assert_eq!(agent.metric("holdfast_store_digest_mismatch_total", ""), 0);
}

#[tokio::test(start_paused = true)]
async fn age_travels_with_heartbeats_and_a_lost_source_is_told_at_once_with_the_next() {
    let (_world, mut hub, agent) = World::followed(3).await;

    tokio::time::sleep(Duration::from_secs(30)).await;
    hub.vouch();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let as_of = agent.reader.as_of().unwrap().0;
    assert!((EPOCH_MS + 29_000..=EPOCH_MS + 31_000).contains(&as_of), "{as_of}");

    hub.writer.apply(What::Lost { reason: "apiserver: timed out".into() }).unwrap();
    let told = agent.sources.lock().unwrap().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.sources.lock().unwrap().len(), told + 1, "lost once, not at every heartbeat");
    let freshness = agent.reader.freshness();
    assert!(
        matches!(&freshness.source, SourceState::Lost(why) if why.contains("apiserver: timed out")),
        "{freshness:?}"
    );
    assert_eq!(freshness.as_of.unwrap().0, as_of, "age does not move by itself");

    hub.vouch();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(agent.reader.freshness().source, SourceState::Up);
}

#[tokio::test(start_paused = true)]
async fn a_hub_is_told_once_how_many_records_are_refused_and_once_that_none_are() {
    let world = World::new();
    let full = world.hub("full", 120);
    let disk = (*full.writer.reader().snapshot()).clone();
    // It began with nothing, and the source gave it a tenth.
    let mut hub = Hub::start("hub", &world.clock, stream::Config::default());
    hub.writer.begin_epoch(1_000);
    hub.list(services(12), false);
    world.open(&hub);
    let agent = Agent::guarded("agent", &world.clock, &world.net, &["hub"], disk);
    let minute = Duration::from_secs(60);
    tokio::time::sleep(minute).await;
    assert_eq!((agent.reader.load().counts().services, agent.reader.held().refused()), (120, 108));
    assert_eq!(hub.metric("holdfast_stream_refusing", ""), 1);
    let greeted = hub.metric("holdfast_stream_resume_total", "");
    assert_eq!(greeted, 2, "at first, and with the number of refused records");

    hub.writer.release(&Release::All);
    tokio::time::sleep(minute).await;
    assert_eq!((agent.reader.load().counts().services, agent.reader.held().refused()), (12, 0));
    assert_eq!(hub.metric("holdfast_stream_refusing", ""), 0);
    assert_eq!(hub.metric("holdfast_stream_resume_total", ""), greeted + 1);
    assert_eq!(agent.metric("holdfast_store_digest_mismatch_total", ""), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hub_restarted_with_the_same_records_sends_none_of_them() {
    let (world, hub, agent) = World::followed(2_000).await;
    let mut again = world.restarted(&hub, &hub.writer.reader().snapshot());
    again.list(services(2_000), true);
    assert_eq!(again.version().epoch, 2);
    world.open(&again);
    agent.equals(&again).await;
    assert_eq!(again.metric("holdfast_stream_resume_total", "snapshot"), 0);
    assert_eq!(again.metric("holdfast_stream_resume_total", "repair"), 1);
    assert!(again.metric("holdfast_stream_bytes_total", "") < 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_hub_restarted_with_one_percent_changed_sends_the_buckets_that_differ() {
    let (world, hub, agent) = World::followed(2_000).await;
    let mut again = world.restarted(&hub, &hub.writer.reader().snapshot());
    let mut records = services(2_000);
    records.extend((0..20).map(|n| service(&format!("s{n}"), 77_777 + n)));
    again.list(records, true);
    world.open(&again);
    agent.equals(&again).await;
    assert_eq!(again.metric("holdfast_stream_resume_total", "repair"), 1);
    assert_eq!(again.metric("holdfast_stream_resume_total", "snapshot"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_missed_a_few_batches_gets_just_those() {
    let world = World::new();
    let mut hub = world.hub("hub", 2_000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = (*hub.writer.reader().snapshot()).clone();
    for n in 0..5 {
        hub.change(vec![service("s1", 500 + n)]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let agent = Agent::holding("agent", &world.clock, &world.net, &["hub"], Some(held));
    agent.equals(&hub).await;
    assert_eq!(hub.metric("holdfast_stream_resume_total", "delta"), 1);
    assert!(hub.metric("holdfast_stream_bytes_total", "") < 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_silent_hub_is_left_for_another_after_fifteen_seconds_and_nothing_is_lost_meanwhile() {
    let world = World::new();
    let mut hubs = ["a", "b"].map(|name| world.hub(name, 100));
    let agent = world.agent("agent", &["a", "b"]);
    agent.equals(&hubs[0]).await;
    let first = agent.status.borrow().address.clone();
    world.net.hang(&first);
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(agent.status.borrow().address, first, "not yet");
    assert_eq!(agent.reader.load().counts().services, 100);
    agent.reaches(State::Stale).await;
    assert_eq!(agent.reader.load().counts().services, 100);
    agent.reaches(State::Live).await;
    let second = agent.status.borrow().address.clone();
    assert_ne!(first, second);
    let other = if second == "a" { &mut hubs[0] } else { &mut hubs[1] };
    other.change(vec![service("new", 1)]);
    agent.equals(other).await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_failed_once_is_looked_at_again_when_the_one_followed_has_lost_its_source() {
    let world = World::new();
    let mut hubs = ["a", "b"].map(|name| world.hub(name, 50));
    let agent = world.agent("agent", &["a", "b"]);
    agent.equals(&hubs[0]).await;
    // As in a rolling restart: it was there, was gone for a moment, and is back.
    let restarted = usize::from(agent.status.borrow().address == "b");
    let name = ["a", "b"][restarted];
    world.net.hang(name);
    agent.reaches(State::Stale).await;
    agent.reaches(State::Live).await;
    world.open(&hubs[restarted]);

    // The one it follows by now is cut off from the source, the other is not.
    hubs[1 - restarted].writer.apply(What::Lost { reason: "apiserver: timed out".into() }).unwrap();
    hubs[restarted].change(vec![service("late", 1)]);
    // A little over five minutes in all.
    tokio::time::sleep(Duration::from_secs(120)).await;
    agent.equals(&hubs[restarted]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_hub_costs_a_question_now_and_then_and_never_the_hub_that_is_followed() {
    let world = World::new();
    let mut hub = world.hub("a", 50);
    let agent = world.agent("agent", &["a", "b"]);
    agent.equals(&hub).await;
    hub.writer.apply(What::Lost { reason: "apiserver: timed out".into() }).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.net.dialled.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let dialled = world.net.dialled.lock().unwrap().iter().filter(|hub| *hub == "b").count();
    assert!((400..=720).contains(&dialled), "{dialled} in an hour");
    assert_eq!(hub.metric("holdfast_stream_resume_total", ""), 1, "one stream all the time");
    assert_eq!(agent.status.borrow().address, "a");
}

#[tokio::test(start_paused = true)]
async fn an_older_hub_is_waited_for_and_never_followed_back() {
    let world = World::new();
    let mut hub = world.hub("hub", 50);
    let old = (*hub.writer.reader().snapshot()).clone();
    hub.change(vec![service("late", 1)]);
    let agent = world.agent("agent", &["hub"]);
    agent.equals(&hub).await;

    // The disk lost the last second, and the apiserver is away.
    let mut again = world.restarted(&hub, &old);
    world.open(&again);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(agent.reader.load().service(b"prod", b"late").is_some());
    assert_eq!(again.metric("holdfast_stream_resume_total", "wait"), 1, "waits on one stream");
    assert_eq!(again.metric("holdfast_stream_subscribers", ""), 1);

    // The apiserver is back, under a new epoch; the service had gone meanwhile.
    again.list(services(50), true);
    assert!(agent.equals(&again).await < Duration::from_secs(1));
    assert!(agent.reader.load().service(b"prod", b"late").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_connects_before_the_hub_has_anything_waits_for_it() {
    let world = World::new();
    let mut hub = Hub::start("hub", &world.clock, stream::Config::default());
    world.open(&hub);
    let agent = world.agent("agent", &["hub"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(agent.reader.as_of(), None, "nothing is not an empty cluster");
    hub.list(services(10), false);
    assert!(agent.equals(&hub).await < Duration::from_secs(1));
    assert_eq!(world.net.dialled.lock().unwrap().len(), 1);
}

/// An agent that waits for one of two hubs, `a` and `b`, neither of which has anything yet.
async fn waiting_for_two() -> (World, [Hub; 2], Agent) {
    let world = World::new();
    let hubs = ["a", "b"].map(|name| Hub::start(name, &world.clock, stream::Config::default()));
    for hub in &hubs {
        world.open(hub);
    }
    let agent = world.agent("agent", &["a", "b"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    (world, hubs, agent)
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_waits_for_one_hub_finds_out_that_another_has_something_by_now() {
    let (_world, mut hubs, agent) = waiting_for_two().await;
    let waits_at = agent.status.borrow().address.clone();
    let other = if waits_at == "a" { &mut hubs[1] } else { &mut hubs[0] };
    other.list(services(10), false);
    let took = agent.equals(other).await;
    assert!(took <= Duration::from_secs(61), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_hub_has_something_at_last_stays_there() {
    let (world, mut hubs, agent) = waiting_for_two().await;
    for hub in &mut hubs {
        hub.list(services(10), false);
    }
    agent.equals(&hubs[0]).await;
    let dialled = || world.net.dialled.lock().unwrap().len();
    let before = dialled();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        hubs.iter_mut().for_each(Hub::vouch);
    }
    assert_eq!(dialled(), before);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_leaves_sends_its_agents_to_the_other_one() {
    let world = World::new();
    let (a, mut b) = (world.hub("a", 20), world.hub("b", 20));
    a.surroundings.send_replace(stream::Surroundings { path: vec![], hubs: vec!["b".into()] });
    let agents: Vec<Agent> = (0..20).map(|n| world.agent(&format!("agent-{n}"), &["a"])).collect();
    for agent in &agents {
        agent.equals(&a).await;
        assert_eq!(*agent.kept.lock().unwrap(), ["b"], "learnt from the stream, and kept");
    }
    let start = tokio::time::Instant::now();
    a.server.drain().await;
    assert!(start.elapsed() <= Duration::from_secs(5), "{:?}", start.elapsed());
    world.net.remove("a");
    b.change(vec![service("new", 1)]);
    for agent in &agents {
        agent.equals(&b).await;
        assert_eq!(agent.reader.load().counts().services, 21);
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(b.metric("holdfast_stream_subscribers", ""), 20);
}

#[tokio::test(start_paused = true)]
async fn a_relay_follows_and_serves_and_circles_are_refused() {
    let world = World::new();
    let World { clock, net } = &world;
    let mut leader = world.hub("leader", 300);
    // A relay is an agent's store under a hub's server.
    let relayed = holdfast::source::hub::Config {
        addresses: vec!["leader".into()],
        node: "relay".into(),
        serves: "relay".into(),
        ..Default::default()
    };
    let follower = Agent::with(relayed, clock, net, None);
    let (unused, _) = holdfast::store::open();
    let relay = Hub::over("relay", clock, stream::Config::default(), unused, follower.reader.clone());
    world.open(&relay);
    follower.equals(&leader).await;
    relay.surroundings.send_replace(stream::Surroundings {
        path: follower.status.borrow().path.clone(),
        hubs: follower.status.borrow().hubs.clone(),
    });
    let agent = world.agent("agent", &["relay"]);
    agent.equals(&leader).await;
    leader.change(vec![service("new", 1)]);
    agent.equals(&leader).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(agent.status.borrow().path, ["relay", "leader"]);
    assert!(agent.kept.lock().unwrap().contains(&"leader".to_owned()), "a way past the relay");

    // The leader, were it to follow the relay, would close a circle; so would the relay that follows itself.
    for (node, serves, target) in [("leader", "leader", "relay"), ("relay", "relay", "relay")] {
        let config = holdfast::source::hub::Config {
            addresses: vec![target.into()],
            node: node.into(),
            serves: serves.into(),
            ..Default::default()
        };
        let circle = Agent::with(config, clock, net, None);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let source = circle.reader.freshness().source;
        assert!(matches!(&source, SourceState::Lost(why) if why.contains("loop")), "{node}: {source:?}");
        assert_eq!(circle.reader.as_of(), None);
    }
}
