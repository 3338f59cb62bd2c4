//! How old records are, and how long changes take, from the apiserver to the node.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::{Reader, SourceState},
    sys::{Clock, ManualClock},
};

use crate::support::{
    apiserver::{Apiserver, endpoints, headless, namespace, service},
    fleet::{Home, agent_config, beside, hub_config, in_time, jump, until, until_equal},
    http,
    process::{ask, extended_errors},
};

/// The sum of a histogram in seconds, and how often it was observed.
fn histogram(text: &str, name: &str) -> (f64, f64) {
    let number = |suffix: &str| {
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name}{suffix} "))).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (number("_sum"), number("_count"))
}

async fn scrape(address: std::net::SocketAddr) -> String {
    beside(move || http::get(address, "/metrics")).await
}

#[tokio::test]
async fn programming_time_counts_from_what_the_cluster_noted_and_age_is_that_of_the_apiserver() {
    let server = Apiserver::start().await;
    server.put(namespace("prod"));
    server.put(headless("prod", "db"));
    server.put(endpoints("prod", "db-1", "db", true, &["10.128.0.1"]));
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let hub = homes[0].hub(None, &["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    let relay = homes[1].hub(None, &["--hub", &hub.addresses().stream[0].to_string()]).await;
    let agent = homes[2].agent(&[&relay.addresses().stream[0].to_string()]).await;
    in_time("equal", until_equal(agent.reader(), hub.reader())).await;
    let metrics = agent.addresses().metrics.unwrap();
    let name = "holdfast_dns_programming_duration_seconds";
    let (_, before) = histogram(&scrape(metrics).await, name);
    assert!(before.abs() < f64::EPSILON, "a first list tells nothing of when things changed");

    // What happened forty seconds ago, and what nobody noted.
    let mut slice = endpoints("prod", "db-1", "db", true, &["10.128.0.1", "10.128.0.2"]);
    let happened = holdfast::sys::UnixMillis(Clock::System.now().0 - 40_000).to_string();
    slice["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] = happened.into();
    server.put(slice);
    let has = |ip: &str| {
        let ip = ip.parse().unwrap();
        move |reader: &Reader| !reader.load().holders(ip).is_empty()
    };
    until("the endpoint", agent.reader(), has("10.128.0.2")).await;
    in_time("it is observed", async { while histogram(&scrape(metrics).await, name).1 < 1.0 {} }).await;
    let (sum, count) = histogram(&scrape(metrics).await, name);
    assert!((40.0..60.0).contains(&sum) && (count - 1.0).abs() < f64::EPSILON, "{sum} in {count}");
    server.put(endpoints("prod", "db-1", "db", true, &["10.128.0.1", "10.128.0.2", "10.128.0.3"]));
    until("the endpoint", agent.reader(), has("10.128.0.3")).await;
    in_time("it is observed", async { while histogram(&scrape(metrics).await, name).1 < 2.0 {} }).await;
    assert!(histogram(&scrape(metrics).await, name).0 < sum + 10.0, "else from when the hub heard of it");

    // Age: what the hub's source vouched for is what the agent has, two hops away.
    let vouched = hub.reader().as_of().unwrap();
    until("as old", agent.reader(), |reader| reader.as_of() >= Some(vouched)).await;
    assert!(agent.reader().as_of() <= hub.reader().as_of());
    agent.stop().await;
    relay.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn age_is_that_of_the_apiserver_in_answers_status_and_metrics_of_an_agent_behind_a_relay() {
    let clock = ManualClock::new(Clock::System.now());
    let at = || Clock::Manual(clock.clone());
    let server = Apiserver::start().await;
    server.put_all([namespace("prod"), service("prod", "web", "10.96.1.1")]);
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let serve = ["--tls", "insecure", "--listen", "127.0.0.1:0"];
    let config = hub_config(homes[0].path(), &[&serve[..], &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat());
    let hub = Hub::start(config, at()).await.unwrap();
    let address = hub.addresses().stream[0].to_string();
    let relay =
        Hub::start(hub_config(homes[1].path(), &[&serve[..], &["--hub", &address]].concat()), at()).await.unwrap();
    let address = relay.addresses().stream[0].to_string();
    let config = agent_config(homes[2].path(), &["--hub", &address, "--tls", "insecure"]);
    let agent = Agent::start(config, at()).await.unwrap();
    in_time("equal", until_equal(agent.reader(), hub.reader())).await;
    let (dns, metrics) = (agent.addresses().dns[0], agent.addresses().metrics.unwrap());
    let stale = async || {
        let answer = beside(move || ask(dns, "web.prod.svc.cluster.local.", RecordType::A)).await;
        assert_eq!(answer.answers.len(), 1);
        extended_errors(&answer).contains(&3)
    };
    let age = async || {
        let (status, _) = homes[2].tool(&["status"]).await;
        let scraped = scrape(metrics).await;
        let line = scraped.lines().find(|line| line.starts_with("holdfast_source_age_seconds ")).unwrap();
        (status["source"]["age_seconds"].as_f64().unwrap(), line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    assert!(!stale().await);

    server.stall();
    jump(Duration::from_secs(45)).await;
    let lost = |reader: &Reader| matches!(&reader.freshness().source, SourceState::Lost(_));
    until("two hops away", agent.reader(), lost).await;
    clock.advance(Duration::from_secs(3_600));
    assert!(stale().await);
    let (told, counted) = age().await;
    assert!((3_600.0..3_700.0).contains(&told) && (told - counted).abs() < 60.0, "{told} {counted}");

    server.resume();
    until("two hops away", agent.reader(), |reader| {
        reader.freshness().source == SourceState::Up && reader.as_of() == Some(clock.now())
    })
    .await;
    assert!(!stale().await);
    assert!(age().await.0 < 1.0);
    agent.stop().await;
    relay.stop().await;
    hub.stop().await;
}
