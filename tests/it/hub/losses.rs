//! Packets that the kernel loses, in a network namespace: connections that are open at one end only, and lines that lose one
//! way. In real time where the kernel's own timers are what is looked at.

use std::time::Duration;

use holdfast::{
    role::agent::Agent,
    store::{Origin, What},
    stream,
    sys::Clock,
};

use super::faults::{Told, said, services};
use crate::{
    stream::metric,
    support::{
        fleet::{Asking, Home, in_time, jump, until_equal},
        netns,
        unharmed::unharmed,
    },
};

/// How long these hubs wait for an acknowledgement; twenty seconds otherwise.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(2);

fn hub(node: &str) -> Told {
    let config = stream::Config {
        node: node.into(),
        heartbeat: Duration::from_millis(500),
        unacknowledged_max: UNACKNOWLEDGED_MAX,
        ..stream::Config::default()
    };
    Told::start(services(50), 1, config)
}

fn change(hub: &mut Told) {
    let origin = Origin::Stamped(holdfast::record::Version { cluster: "uid".into(), epoch: 1, rev: 2 });
    let changes = services(51);
    hub.writer.apply(What::Changes { origin, changes, as_of: Clock::System.now() }).unwrap();
}

fn asking(agent: &Agent) -> Asking {
    Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.0.7")
}

/// Waits until nobody follows this hub as far as it knows; the time it took.
async fn until_left(hub: &Told) -> Duration {
    let begun = std::time::Instant::now();
    in_time("the hub finds out", async {
        while metric(&hub.registry, "holdfast_stream_subscribers", "") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn a_hub_finds_out_that_a_client_is_gone_which_never_said_so() {
    if !netns::entered() {
        return;
    }
    let home = Home::new();
    let mut hub = hub("hub");
    let agent = home.agent(&[&hub.address.to_string()]).await;
    in_time("live", until_equal(agent.reader(), &hub.writer.reader())).await;
    let (asking, port) = (asking(&agent), hub.address.port());
    netns::on_input(&format!("tcp sport {port} drop; tcp dport {port} drop"));
    let took = until_left(&hub).await;
    assert!((UNACKNOWLEDGED_MAX / 2..UNACKNOWLEDGED_MAX * 4).contains(&took), "{took:?}");
    change(&mut hub);
    netns::on_input("accept");
    // The client's end is open still, for as long as an agent bears silence.
    jump(Duration::from_secs(16)).await;
    unharmed(&said(&services(51)), &hub.writer.reader(), &[agent.reader()], [asking]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_line_that_loses_one_way_is_left_for_another_hub() {
    if !netns::entered() {
        return;
    }
    for lost in ["sport", "dport"] {
        netns::on_input("accept");
        let home = Home::new();
        let mut hubs = [hub("hub-a"), hub("hub-b")];
        let addresses = hubs.each_ref().map(|hub| hub.address.to_string());
        let agent = home.agent(&addresses.each_ref().map(String::as_str)).await;
        in_time("live", until_equal(agent.reader(), &hubs[0].writer.reader())).await;
        let asking = asking(&agent);
        let followed = usize::from(metric(&hubs[1].registry, "holdfast_stream_subscribers", "") > 0);
        netns::on_input(&format!("tcp {lost} {} drop", hubs[followed].address.port()));
        until_left(&hubs[followed]).await;
        hubs.iter_mut().for_each(change);
        jump(Duration::from_secs(16)).await;
        let other = &hubs[1 - followed];
        unharmed(&said(&services(51)), &other.writer.reader(), &[agent.reader()], [asking]).await;
        assert_eq!(metric(&other.registry, "holdfast_stream_subscribers", ""), 1);
        agent.stop().await;
    }
}
