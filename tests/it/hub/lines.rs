//! Bad lines between sockets: agents end up equal to their hub, hold half of nothing, and answer all the while.

use std::time::Duration;

use holdfast::role::hub::Hub;

use super::pair::stream;
use crate::{
    stream::metric,
    support::{
        apiserver::{Apiserver, namespace, service},
        fleet::{Asking, Home, in_time, jump, until, until_equal},
        unharmed::unharmed,
        weather::{Way, Weather},
    },
};

/// An apiserver and a hub that has listed it.
async fn hub(home: &Home) -> (Apiserver, Hub) {
    let server = Apiserver::start().await;
    server.put(namespace("prod"));
    server.put_all((0..200).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    let kubeconfig = server.kubeconfig(home.path());
    let hub = home.hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    until("it lists", hub.reader(), |reader| reader.as_of().is_some()).await;
    (server, hub)
}

#[tokio::test]
async fn a_snapshot_that_is_reset_on_its_way_is_never_half_held() {
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let (server, hub) = hub(&homes[0]).await;
    let way = Way::to(hub.addresses().stream[0]).await;
    way.weather(Weather::Breaks(1_000));
    let agent = homes[1].agent(&[&way.address.to_string()]).await;
    in_time("it tries again", async {
        while way.taken() < 3 {
            tokio::task::yield_now().await;
            assert_eq!((agent.reader().as_of(), agent.reader().load().counts().services), (None, 0));
        }
    })
    .await;
    way.weather(Weather::Fair);
    unharmed(&server.records(), hub.reader(), &[agent.reader()], []).await;
    assert!(metric(hub.registry(), "holdfast_stream_resume_total", "snapshot") >= 3, "each began");
    agent.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_follower_that_reads_a_kilobyte_a_second_catches_up_and_delays_no_other() {
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let (server, hub) = hub(&homes[0]).await;
    let way = Way::to(hub.addresses().stream[0]).await;
    way.weather(Weather::Slow(1_000));
    let slow = homes[1].agent(&[&way.address.to_string()]).await;
    let quick = homes[2].agent(&[&stream(&hub)]).await;
    in_time("the quick one is live", until_equal(quick.reader(), hub.reader())).await;
    let asking = Asking::begin(quick.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    assert_eq!(slow.reader().as_of(), None, "still on its way");
    for n in 0..5 {
        let (name, begun) = (format!("late-{n}"), tokio::time::Instant::now());
        server.put(service("prod", &name, &format!("10.96.2.{n}")));
        let has = |reader: &holdfast::store::Reader| reader.load().service(b"prod", name.as_bytes()).is_some();
        until("the change", quick.reader(), has).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    unharmed(&server.records(), hub.reader(), &[quick.reader(), slow.reader()], [asking]).await;
    slow.stop().await;
    quick.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_client_that_is_back_before_its_hub_knows_that_it_was_gone_is_served_on_both_lines() {
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let (server, hub) = hub(&homes[0]).await;
    let listen = hub.addresses().stream[0];
    let ways = [Way::to(listen).await, Way::to(listen).await];
    let addresses = ways.each_ref().map(|way| way.address.to_string());
    let agent = homes[1].agent(&addresses.each_ref().map(String::as_str)).await;
    in_time("live", until_equal(agent.reader(), hub.reader())).await;
    let asking = Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    let followers = || metric(hub.registry(), "holdfast_stream_subscribers", "");
    let taken = ways.iter().position(|way| way.taken() > 0).unwrap();
    ways[taken].weather(Weather::Hung);
    // The silence an agent bears.
    jump(Duration::from_secs(16)).await;
    in_time("it is back", async {
        while followers() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.put(service("prod", "late", "10.96.2.1"));
    until("the change", agent.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    ways[taken].weather(Weather::Fair);
    in_time("the old line ends", async {
        while followers() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    unharmed(&server.records(), hub.reader(), &[agent.reader()], [asking]).await;
    agent.stop().await;
    hub.stop().await;
}
