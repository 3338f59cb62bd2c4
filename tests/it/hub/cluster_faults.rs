//! Everything that can be wrong with an apiserver, seen from an agent two steps away: after each fault its records are the
//! hub's, nothing the cluster still has is gone, and no question went without its answer meanwhile.

use std::time::Duration;

use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::{Reader, SourceState},
};
use serde_json::Value;

use crate::support::{
    apiserver::{Apiserver, Fault, Reply, endpoints, headless, namespace, service},
    fleet::{Asking, Home, address, in_time, jump, until, until_equal},
    unharmed::unharmed,
};

const WEB: u8 = 200;
const DATABASES: u8 = 120;
const ALL: usize = WEB as usize + DATABASES as usize;

fn web(n: u8) -> Value {
    service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))
}

/// The two endpoints behind a headless service.
fn database(n: u8, ready: bool) -> Value {
    let ips = [format!("10.128.{n}.1"), format!("10.128.{n}.2")];
    let name = format!("db-{n}");
    let mut slice = endpoints("data", &format!("{name}-x"), &name, true, &ips.each_ref().map(String::as_str));
    for endpoint in slice["endpoints"].as_array_mut().unwrap() {
        endpoint["conditions"]["ready"] = ready.into();
        endpoint["conditions"]["serving"] = ready.into();
    }
    slice
}

/// An apiserver, a hub that watches it, an agent that follows the hub and is asked for names all the while.
struct World {
    server: Apiserver,
    homes: [Home; 2],
    hub: Hub,
    agent: Agent,
    asking: Vec<Asking>,
}

impl World {
    async fn begin() -> Self {
        let server = Apiserver::start().await;
        server.put_all(["prod", "data"].map(namespace));
        server.put_all((0..WEB).map(web));
        server.put_all((0..DATABASES).map(|n| headless("data", &format!("db-{n}"))));
        server.put_all((0..DATABASES).map(|n| database(n, true)));
        let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
        let kubeconfig = server.kubeconfig(homes[0].path());
        let hub = homes[0].hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
        let agent = homes[1].agent(&[&hub.addresses().stream[0].to_string()]).await;
        in_time("live", until_equal(agent.reader(), hub.reader())).await;
        let dns = agent.addresses().dns[0];
        let asking =
            [("web-7.prod", "A 10.96.1.7"), ("web-199.prod", "A 10.96.1.199"), ("db-119.data", "A 10.128.119.2")]
                .map(|(name, expected)| Asking::begin(dns, &format!("{name}.svc.cluster.local."), expected));
        Self { server, homes, hub, agent, asking: asking.into() }
    }

    /// Waits until the agent has been told that the hub lost its source.
    async fn agent_is_told_of_the_loss(&self) {
        let lost = |reader: &Reader| matches!(reader.freshness().source, SourceState::Lost(_));
        until("the hub's source is lost", self.hub.reader(), lost).await;
        until("the agent is told", self.agent.reader(), lost).await;
    }

    async fn both_follow(&self, what: &str, holds: impl Fn(&Reader) -> bool) {
        until(what, self.hub.reader(), &holds).await;
        until(what, self.agent.reader(), &holds).await;
    }

    async fn both_see(&self, what: &str, holds: impl Fn(&Reader) -> bool) {
        self.both_follow(what, &holds).await;
        in_time(what, until_equal(self.agent.reader(), self.hub.reader())).await;
    }

    /// The cluster as it is in the end: so many services, nothing held, both equal, every question answered.
    async fn ends_with(self, services: usize) {
        self.both_see("all there is, and nothing held", |reader| {
            reader.load().counts().services == services && reader.held().is_empty()
        })
        .await;
        until("up again", self.agent.reader(), |reader| reader.freshness().source == SourceState::Up).await;
        unharmed(&self.server.records(), self.hub.reader(), &[self.agent.reader()], self.asking).await;
        self.agent.stop().await;
        self.hub.stop().await;
    }
}

fn has(namespace: &'static str, name: &'static str) -> impl Fn(&Reader) -> bool {
    move |reader| reader.load().service(namespace.as_bytes(), name.as_bytes()).is_some()
}

#[tokio::test]
async fn an_apiserver_that_is_down_and_comes_back_changed() {
    let world = World::begin().await;
    world.server.stop();
    world.agent_is_told_of_the_loss().await;
    world.server.put(service("prod", "late", "10.96.3.1"));
    world.server.delete("services", "prod", "web-100");
    world.server.start_again().await;
    world.both_see("what happened meanwhile", has("prod", "late")).await;
    world.ends_with(ALL).await;
}

#[tokio::test]
async fn an_apiserver_that_takes_connections_and_answers_nothing() {
    let world = World::begin().await;
    world.server.stall();
    // Longer than any probe may take. Sockets are real, so this is a jump and no wait.
    jump(Duration::from_secs(45)).await;
    world.agent_is_told_of_the_loss().await;
    world.server.put(service("prod", "late", "10.96.3.1"));
    world.server.resume();
    world.both_see("what happened meanwhile", has("prod", "late")).await;
    world.ends_with(ALL + 1).await;
}

#[tokio::test]
async fn a_version_that_was_compacted_away() {
    let world = World::begin().await;
    world.server.stop();
    world.server.put(service("prod", "late", "10.96.3.1"));
    world.server.delete("services", "prod", "web-100");
    world.server.compact();
    world.server.start_again().await;
    world.both_see("what the new list has", has("prod", "late")).await;
    assert!(world.agent.reader().load().service(b"prod", b"web-100").is_none(), "gone while nobody watched");
    world.ends_with(ALL).await;
}

#[tokio::test]
async fn a_list_with_half_of_the_services_takes_none_away() {
    let world = World::begin().await;
    let whole = world.server.backup();
    for n in 8..108 {
        world.server.delete("services", "prod", &format!("web-{n}"));
    }
    let half = world.server.backup();
    world.server.stop();
    world.server.restore(&half);
    world.server.compact();
    world.server.start_again().await;
    until("half is held", world.hub.reader(), |reader| reader.held().counts().services == 100).await;
    in_time("equal", until_equal(world.agent.reader(), world.hub.reader())).await;
    let dns = world.agent.addresses().dns[0];
    for n in 0..WEB {
        let answer = address(dns, &format!("web-{n}.prod.svc.cluster.local.")).await;
        assert_eq!(answer, [format!("5 A 10.96.1.{n}")]);
    }
    world.server.restore(&whole);
    world.server.compact();
    world.server.break_watches(None);
    world.ends_with(ALL).await;
}

#[tokio::test]
async fn a_list_that_breaks_off_is_no_list() {
    let world = World::begin().await;
    world.server.without_streaming_lists();
    world.server.stop();
    world.server.compact();
    let begun =
        r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"9000"},"items":[{"metadata":"#;
    world.server.fail(Fault::on("services").verb("list").with(Reply::Cut(begun.into())).times(3));
    world.server.put(service("prod", "late", "10.96.3.1"));
    world.server.start_again().await;
    world.both_see("the list that came whole", has("prod", "late")).await;
    world.ends_with(ALL + 1).await;
}

#[tokio::test]
async fn an_etcd_that_was_restored_to_an_earlier_state() {
    let world = World::begin().await;
    let backup = world.server.backup();
    world.server.put(service("prod", "late", "10.96.3.1"));
    world.both_see("what the backup lacks", has("prod", "late")).await;
    let before = world.agent.reader().load().version().clone();
    world.server.stop();
    world.server.restore(&backup);
    world.server.start_again().await;
    world.both_see("the state of the backup", |reader| !has("prod", "late")(reader)).await;
    let after = world.agent.reader().load().version().clone();
    assert!(after.epoch > before.epoch && after.follows(&before), "{before} {after}");
    world.ends_with(ALL).await;
}

#[tokio::test]
async fn another_cluster_behind_the_same_address() {
    let world = World::begin().await;
    let mut other = namespace("kube-system");
    other["metadata"]["uid"] = "another".into();
    world.server.put(other);
    world.server.put(service("prod", "late", "10.96.3.1"));
    // No record is deleted before an operator says so; what came before the UID was seen to differ is held as well.
    let refused = |reader: &Reader| {
        let (held, served) = (reader.held().counts().services, reader.load().counts().services);
        held == served && served >= ALL
    };
    world.both_see("all held", refused).await;
    let (_, code) = world.homes[0].tool(&["guard", "accept-cluster"]).await;
    assert_eq!(code, 0);
    world.both_see("the other cluster", |reader| &*reader.load().version().cluster == "another").await;
    world.ends_with(ALL + 1).await;
}

#[tokio::test]
async fn deletes_of_four_fifths_of_all_services() {
    let world = World::begin().await;
    for n in 8..WEB - 1 {
        world.server.delete("services", "prod", &format!("web-{n}"));
    }
    for n in 4..21 {
        world.server.delete("services", "data", &format!("db-{n}"));
    }
    let gone = usize::from(WEB) - 9 + 17;
    // The whole burst is held, on the hub and on the agent alike.
    let most_are_held = |reader: &Reader| {
        let (served, held) = (reader.load().counts().services, reader.held().counts().services);
        served - held == ALL - gone && served >= ALL - ALL / 5
    };
    until("most are held", world.hub.reader(), most_are_held).await;
    in_time("equal", until_equal(world.agent.reader(), world.hub.reader())).await;
    assert!(world.agent.reader().load().counts().services >= ALL - ALL / 5);
    let (_, code) = world.homes[0].tool(&["guard", "release", "--yes"]).await;
    assert_eq!(code, 0);
    world.ends_with(ALL - gone).await;
}

#[tokio::test]
async fn endpoints_that_are_all_said_to_be_unready() {
    let world = World::begin().await;
    world.server.put_all((0..DATABASES).map(|n| database(n, false)));
    let kept = |reader: &Reader| {
        let load = reader.load();
        (0..DATABASES).all(|n| {
            load.service(b"data", format!("db-{n}").as_bytes())
                .is_some_and(|service| service.ready_endpoints().count() == 2)
        })
    };
    world.server.put(service("prod", "late", "10.96.3.1"));
    // Those of fifty services may go before it is too much.
    let rest_is_held = |reader: &Reader| reader.held().counts().endpoints >= usize::from(DATABASES - 50) * 2;
    until("the rest is held", world.hub.reader(), rest_is_held).await;
    world.both_see("what came after", has("prod", "late")).await;
    let ready = world.agent.reader().load().services().filter(|service| service.ready_endpoints().count() == 2).count();
    assert!(ready >= usize::from(DATABASES - 50), "{ready} of {DATABASES} have their endpoints");
    world.server.put_all((0..DATABASES).map(|n| database(n, true)));
    world.both_see("all are ready", kept).await;
    world.ends_with(ALL + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_ten_thousand_changes_arrives_as_the_last_of_each() {
    // Fifty thousand, and a history they do not fit into: stream/slow.rs.
    const ROUNDS: usize = 100;
    let world = World::begin().await;
    // 100 services, each changed so often; its address says how often.
    let address = |round: usize, n: usize| format!("10.{}.{}.{n}", 97 + round / 250, round % 250);
    for round in 0..ROUNDS {
        world.server.put_all((50..150).map(|n| service("prod", &format!("web-{n}"), &address(round, n))));
    }
    let holders = |reader: &Reader, round: usize, n: usize| {
        let address = address(round, n).parse().expect("an address");
        reader.load().holders(address).len()
    };
    // Each part in its time: a machine that does nothing else is through in seconds, one that is shared is not.
    for part in (0..ROUNDS).step_by(50) {
        let so_far = |reader: &Reader| (part..ROUNDS).any(|round| holders(reader, round, 50) > 0);
        world.both_follow(&format!("round {part}"), so_far).await;
    }
    world.both_see("the last of each", |reader| (50..150).all(|n| holders(reader, ROUNDS - 1, n) == 1)).await;
    world.ends_with(ALL).await;
}
