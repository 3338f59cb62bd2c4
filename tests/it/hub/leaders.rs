//! Hubs that both think they lead: by clocks that disagree, by a way to the apiserver that is cut, by having been stopped, by
//! an old disk. Epochs only rise, and nothing is stamped in one that is over.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::{
    record::Version,
    role::agent::Agent,
    store::{Reader, SourceState},
    sys::{Clock, ManualClock},
};
use tokio::task::JoinHandle;

use super::pair::{Pair, epoch, stream};
use crate::support::{
    apiserver::service,
    fleet::{Asking, address, beside, copy, in_time, until, until_equal, until_file},
    process,
    unharmed::unharmed,
    weather::{Way, Weather},
};

/// How long a process is stopped: longer than a lease lasts, and longer than an agent bears silence.
const STOPPED: Duration = Duration::from_secs(30);

/// The versions an agent came to hold, in order.
struct Versions {
    seen: Arc<Mutex<Vec<Version>>>,
    noting: JoinHandle<()>,
}

impl Drop for Versions {
    fn drop(&mut self) {
        self.noting.abort();
    }
}

fn note(seen: &Mutex<Vec<Version>>, version: Version) {
    let mut seen = seen.lock().unwrap();
    if seen.last() != Some(&version) {
        seen.push(version);
    }
}

impl Versions {
    fn of(reader: &Reader) -> Self {
        let seen: Arc<Mutex<Vec<Version>>> = Arc::default();
        let (noted, reader) = (Arc::clone(&seen), reader.clone());
        let noting = tokio::spawn(async move {
            let mut published = reader.subscribe();
            loop {
                note(&noted, reader.load().version().clone());
                if published.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { seen, noting }
    }

    /// Panics if a version went back, or if there is one of `epoch` later than `last`, the last it may have come to.
    fn none_later_than(&self, last: &Version) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.windows(2).all(|pair| pair[1].follows(&pair[0])), "{seen:?}");
        let late: Vec<_> = seen.iter().filter(|seen| seen.epoch == last.epoch && seen.rev > last.rev).collect();
        assert!(late.is_empty(), "stamped in an epoch that was over at {last}: {late:?}");
    }
}

fn asking(agent: &Agent) -> Asking {
    Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7")
}

fn has_late(reader: &Reader) -> bool {
    reader.load().service(b"prod", b"late").is_some()
}

#[tokio::test]
async fn clocks_an_hour_apart_make_no_second_leader_and_epochs_only_rise() {
    let pair = Pair::new().await;
    let now = Clock::System.now();
    let behind = Clock::Manual(ManualClock::new(now));
    let ahead = Clock::Manual(ManualClock::new(now.plus(Duration::from_secs(3_600))));
    let way = Way::to(pair.server.address()).await;
    let slow = pair.hub_at(&pair.homes[0], 0, None, way.address, behind.clone()).await;
    until("it lists", slow.reader(), |reader| reader.as_of().is_some()).await;
    let fast = pair.hub_at(&pair.homes[1], 1, None, pair.server.address(), ahead).await;
    in_time("it follows", until_equal(fast.reader(), slow.reader())).await;
    let agent = pair.homes[2].agent(&[&stream(&slow)]).await;
    in_time("it follows", until_equal(agent.reader(), slow.reader())).await;
    let (asking, versions) = (asking(&agent), Versions::of(agent.reader()));

    // By the second one's clock the lease ran out an hour ago.
    let (holder, first) = (pair.holder(), epoch(&slow));
    pair.longer_than_a_lease().await;
    assert_eq!((pair.state(0).await, pair.state(1).await), ("holder".into(), "follower".into()));
    assert_eq!((pair.holder(), epoch(&slow), epoch(&fast)), (holder.clone(), first, first));

    // Cut off alone, the holder says since when it could not renew. The other one takes over, and it follows that one.
    let last = slow.reader().load().version().clone();
    way.weather(Weather::Hung);
    pair.until_state(1, "holder").await;
    until("a later epoch", fast.reader(), |reader| reader.load().version().epoch > first).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    for reader in [fast.reader(), slow.reader(), agent.reader()] {
        until("the change", reader, has_late).await;
    }
    let (status, _) = pair.homes[0].tool(&["status"]).await;
    assert_eq!(status["lease"]["state"], "follower", "{status:#}");
    let failing = status["lease"]["failing"]["reason"].as_str().unwrap_or_default();
    assert!(failing.contains("leases"), "still cut off: {status:#}");
    let fresh = |reader: &Reader| reader.freshness().source == SourceState::Up;
    until("up", agent.reader(), fresh).await;

    // Back, it goes on following, and stamps nothing of what its watches have for it.
    way.weather(Weather::Fair);
    in_time("the Lease is looked at again", async {
        while !pair.homes[0].tool(&["status"]).await.0["lease"]["failing"].is_null() {}
    })
    .await;
    assert_eq!(pair.state(0).await, "follower");
    let records = pair.server.records();
    unharmed(&records, fast.reader(), &[slow.reader(), agent.reader()], []).await;
    versions.none_later_than(&last);
    let second = epoch(&slow);

    // The next epoch is later than one of a clock an hour ahead.
    fast.stop().await;
    pair.until_state(0, "holder").await;
    until("a later epoch", slow.reader(), |reader| reader.load().version().epoch > second).await;
    unharmed(&records, slow.reader(), &[agent.reader()], [asking]).await;
    versions.none_later_than(&last);
    agent.stop().await;
    slow.stop().await;
}

/// A hub as a process of its own, that has listed the cluster.
pub(super) async fn process(pair: &Pair, listen: &str, config: &[String]) -> process::Hub {
    let (home, listen, config) = (pair.homes[0].path().to_owned(), listen.to_owned(), config.to_owned());
    beside(move || {
        let config: Vec<&str> = config.iter().map(String::as_str).collect();
        process::Hub::start(&home, &listen, &config)
    })
    .await
}

#[tokio::test]
async fn a_holder_that_is_killed_is_succeeded_and_follows_when_it_comes_back() {
    let pair = Pair::new().await;
    let arguments = pair.arguments(0, pair.server.address());
    let killed = process(&pair, "127.0.0.1:0", &arguments).await;
    let listen = killed.address().to_string();
    pair.until_state(0, "holder").await;
    let other = pair.hub(1).await;
    let all = |reader: &Reader| reader.load().counts().services == 100;
    until("it follows", other.reader(), all).await;
    let agent = pair.homes[2].agent(&[&listen, &stream(&other)]).await;
    in_time("it follows", until_equal(agent.reader(), other.reader())).await;
    let (asking, versions) = (asking(&agent), Versions::of(agent.reader()));
    let (name, last) = (pair.holder(), agent.reader().load().version().clone());

    beside(move || killed.kill()).await;
    pair.until_state(1, "holder").await;
    assert_ne!(pair.holder(), name);
    until("a later epoch", other.reader(), |reader| reader.load().version().epoch > last.epoch).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    until("the change", agent.reader(), has_late).await;

    // Back at the same place with the disk it had, it looks before it leads.
    let back = process(&pair, &listen, &arguments).await;
    pair.until_state(0, "follower").await;
    let relayed = pair.homes[3].agent(&[&listen]).await;
    pair.server.put(service("prod", "later", "10.96.2.2"));
    let has_later = |reader: &Reader| reader.load().service(b"prod", b"later").is_some();
    for reader in [other.reader(), agent.reader(), relayed.reader()] {
        until("the change", reader, has_later).await;
    }
    unharmed(&pair.server.records(), other.reader(), &[agent.reader(), relayed.reader()], [asking]).await;
    versions.none_later_than(&last);
    assert_ne!(pair.holder(), name);
    relayed.stop().await;
    agent.stop().await;
    beside(move || back.kill()).await;
    other.stop().await;
}

#[tokio::test]
async fn a_reload_takes_the_election_to_the_apiserver_it_names_and_no_hub_to_another_kind_of_source() {
    let pair = Pair::new().await;
    let ways = [Way::to(pair.server.address()).await, Way::to(pair.server.address()).await];
    let config = pair.homes[0].path().join("reloaded.yaml");
    let write =
        |source: &str| std::fs::write(&config, format!("lease: {{ duration: 3s }}\nsource: {source}\n")).unwrap();
    let kubeconfig = |index: usize| {
        let path = pair.server.kubeconfig_by(pair.homes[index].path(), ways[index].address);
        format!("{{ kubernetes: {{ kubeconfig: {} }} }}", path.to_str().unwrap())
    };
    write(&kubeconfig(0));
    let hub = process(&pair, "127.0.0.1:0", &["--config".into(), config.to_str().unwrap().into()]).await;
    pair.until_state(0, "holder").await;

    // The way it had is gone; the one it is told of is open.
    write(&kubeconfig(1));
    hub.signal("HUP");
    in_time("the lease is looked at there", async {
        while ways[1].taken() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    ways[0].weather(Weather::Hung);
    pair.longer_than_a_lease().await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    let agent = pair.homes[2].agent(&[&hub.address().to_string()]).await;
    until("the change", agent.reader(), has_late).await;
    let (status, _) = pair.homes[0].tool(&["status"]).await;
    assert_eq!((&status["lease"]["state"], &status["lease"]["failing"]), (&"holder".into(), &serde_json::Value::Null));

    write("{ hub: { addresses: [\"127.0.0.1:9\"] } }");
    let hub = beside(move || {
        let mut hub = hub;
        hub.signal("HUP");
        hub.wait_for("another kind of source takes effect with the next start: restart this hub");
        hub
    });
    let hub = hub.await;
    pair.server.put(service("prod", "later", "10.96.2.2"));
    until("the change", agent.reader(), |reader| reader.load().service(b"prod", b"later").is_some()).await;
    agent.stop().await;
    beside(move || hub.kill()).await;
}

#[tokio::test]
async fn a_holder_that_was_stopped_steps_down_before_it_stamps_what_came_meanwhile() {
    let pair = Pair::new().await;
    let arguments = pair.arguments(0, pair.server.address());
    let stopped = process(&pair, "127.0.0.1:0", &arguments).await;
    pair.until_state(0, "holder").await;
    let other = pair.hub(1).await;
    until("it follows", other.reader(), |reader| reader.freshness().source == SourceState::Up).await;
    let agent = pair.homes[2].agent(&[&stopped.address().to_string()]).await;
    in_time("it follows", until_equal(agent.reader(), other.reader())).await;
    let (asking, versions) = (asking(&agent), Versions::of(agent.reader()));
    let last = agent.reader().load().version().clone();

    let since = tokio::time::Instant::now();
    stopped.signal("STOP");
    // These wait in its watches.
    pair.server.put_all((0..50).map(|n| service("prod", &format!("new-{n}"), &format!("10.96.3.{n}"))));
    pair.until_state(1, "holder").await;
    until("a later epoch", other.reader(), |reader| reader.load().version().epoch > last.epoch).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    until("the change", other.reader(), has_late).await;
    let (holder, taken) = (pair.holder(), epoch(&other));
    let dns = agent.addresses().dns[0];
    while since.elapsed() < STOPPED {
        assert_eq!(address(dns, "web-99.prod.svc.cluster.local.").await, ["5 A 10.96.1.99"]);
        assert_eq!((pair.holder(), epoch(&other)), (holder.clone(), taken), "one holder");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    stopped.signal("CONT");
    pair.until_state(0, "follower").await;
    pair.longer_than_a_lease().await;
    assert_eq!((pair.holder(), epoch(&other)), (holder, taken), "one holder, and one epoch");
    unharmed(&pair.server.records(), other.reader(), &[agent.reader()], [asking]).await;
    versions.none_later_than(&last);
    agent.stop().await;
    beside(move || stopped.kill()).await;
    other.stop().await;
}

#[tokio::test]
async fn an_old_replica_that_rejoins_is_refused_until_it_has_caught_up_with_the_holder() {
    let pair = Pair::new().await;
    let (holder, replica) = pair.both().await;
    let listen = replica.addresses().stream[0];
    let agent = pair.homes[2].agent(&[&listen.to_string()]).await;
    in_time("it follows", until_equal(agent.reader(), holder.reader())).await;
    // Its disk as it is now, but for the hubs it knew.
    replica.stop().await;
    let (store, old_store) = (pair.homes[1].path().join("store"), pair.homes[3].path().join("store"));
    copy(&store, &old_store);
    // There is no such file where nobody was learnt of.
    let _ = std::fs::remove_file(old_store.join("hubs.json"));

    // The replica goes on, the agent with it; then its disk is what it was, and nobody is in its reach.
    let replica = pair.hub_at(&pair.homes[1], 1, Some(listen), pair.server.address(), Clock::System).await;
    pair.server.put(service("prod", "late", "10.96.2.1"));
    until("the change", agent.reader(), has_late).await;
    let learnt = pair.homes[2].path().join("store/hubs.json");
    until_file(&learnt, |text| text.contains(&stream(&holder))).await;
    agent.stop().await;
    replica.stop().await;
    std::fs::remove_file(learnt).unwrap();
    let cut = Way::to(pair.server.address()).await;
    cut.weather(Weather::Hung);
    let old = pair.hub_at(&pair.homes[3], 3, Some(listen), cut.address, Clock::System).await;
    assert!(!has_late(old.reader()) && old.reader().load().counts().services == 100, "an old disk");
    let agent = pair.homes[2].agent(&[&listen.to_string()]).await;
    let (asking, versions) = (asking(&agent), Versions::of(agent.reader()));
    in_time("the agent asks it, and is told to wait", async {
        loop {
            let (status, _) = pair.homes[3].tool(&["status"]).await;
            if status["serves"]["resumed"]["wait"].as_u64() > Some(0) {
                break;
            }
        }
    })
    .await;
    assert!(has_late(agent.reader()), "never back");

    cut.weather(Weather::Fair);
    pair.until_state(3, "follower").await;
    unharmed(&pair.server.records(), holder.reader(), &[old.reader(), agent.reader()], [asking]).await;
    let seen = versions.seen.lock().unwrap().clone();
    assert!(seen.windows(2).all(|pair| pair[1].follows(&pair[0])), "{seen:?}");
    agent.stop().await;
    old.stop().await;
    holder.stop().await;
}
