//! The outage, from the first list to the way back: an agent that follows an apiserver, thirty days without it, a SIGKILL
//! in between, and its return.

use std::{net::SocketAddr, path::Path, time::Duration};

use hickory_proto::rr::RecordType;
use holdfast::{
    config::Config,
    role::agent::Agent,
    store::{Reader, SourceState},
    sys::{Clock, ManualClock, UnixMillis},
};
use tempfile::TempDir;

use crate::support::{
    apiserver::{Apiserver, endpoints, headless, namespace, service},
    fleet::{agent_config, beside, until},
    http,
    process::{self, answers, ask, extended_errors, run},
};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// How long the return of the apiserver may take to show, from the moment it answers again.
const RETURN: Duration = Duration::from_secs(1);

fn populated(server: &Apiserver) {
    server.put(namespace("prod"));
    server.put_all((0..200).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    server.put(headless("prod", "db"));
    server.put(endpoints("prod", "db-1", "db", true, &["10.128.0.1", "10.128.0.2"]));
}

/// What an agent with its store and socket in `home` runs on.
fn config(home: &Path, kubeconfig: &Path) -> Config {
    agent_config(home, &["--kubeconfig", kubeconfig.to_str().expect("UTF-8")])
}

/// Asks for every service by name, and for what is behind them; panics at the first that does not answer.
fn every_name(dns: SocketAddr, stale: bool) {
    let check = |name: &str, rtype: RecordType, expected: &[&str]| {
        let message = ask(dns, name, rtype);
        let data: Vec<String> =
            answers(&message).iter().map(|line| line.split_once(' ').expect("a TTL").1.to_owned()).collect();
        assert_eq!(data, expected, "{name}: {message}");
        assert_eq!(extended_errors(&message).contains(&3), stale, "{name}: {message}");
    };
    for n in 0..200 {
        check(&format!("web-{n}.prod.svc.cluster.local."), RecordType::A, &[&format!("A 10.96.1.{n}")]);
        check(
            &format!("{n}.1.96.10.in-addr.arpa."),
            RecordType::PTR,
            &[&format!("PTR web-{n}.prod.svc.cluster.local.")],
        );
    }
    check("db.prod.svc.cluster.local.", RecordType::A, &["A 10.128.0.1", "A 10.128.0.2"]);
}

/// `status` of the agent with its socket in `home`.
fn status(home: &Path) -> serde_json::Value {
    let socket = home.join("agent.sock");
    let output = run(&["status", "--admin", socket.to_str().expect("UTF-8"), "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn thirty_days_without_an_apiserver_cost_no_name_and_its_return_shows_at_once() {
    let home = TempDir::new().unwrap();
    let server = Apiserver::start().await;
    populated(&server);
    let kubeconfig = server.kubeconfig(home.path());
    let clock = ManualClock::new(Clock::System.now());
    let agent = Agent::start(config(home.path(), &kubeconfig), Clock::Manual(clock.clone())).await.unwrap();
    until("it lists", agent.reader(), |reader| reader.as_of().is_some()).await;
    let dns = agent.addresses().dns[0];
    beside(move || every_name(dns, false)).await;

    server.stall();
    tokio::time::pause();
    clock.advance(MONTH);
    tokio::time::advance(MONTH).await;
    tokio::time::resume();
    until("lost", agent.reader(), |reader| matches!(reader.freshness().source, SourceState::Lost(_))).await;
    beside(move || every_name(dns, true)).await;
    let path = home.path().to_owned();
    let status = beside(move || status(&path)).await;
    let age = status["source"]["age_seconds"].as_f64().unwrap();
    assert!((MONTH.as_secs_f64()..MONTH.as_secs_f64() + 3_600.0).contains(&age), "{status:#}");
    assert_eq!(status["source"]["state"], "lost", "{status:#}");

    server.put(service("prod", "web-7", "10.96.2.7"));
    let back = tokio::time::Instant::now();
    server.resume();
    let moved = "10.96.2.7".parse().unwrap();
    let shows = |reader: &Reader| !reader.load().holders(moved).is_empty() && reader.as_of() == Some(clock.now());
    until("the change", agent.reader(), shows).await;
    let took = back.elapsed();
    beside(move || {
        let message = ask(dns, "web-7.prod.svc.cluster.local.", RecordType::A);
        assert_eq!(answers(&message), ["5 A 10.96.2.7"]);
        assert!(!extended_errors(&message).contains(&3), "fresh again: {message}");
    })
    .await;
    assert!(took <= RETURN, "a change made during the outage took {took:?} to show");
    agent.stop().await;
}

#[tokio::test]
async fn an_address_that_takes_no_connection_is_shown_with_its_time() {
    let home = TempDir::new().unwrap();
    let server = Apiserver::start().await;
    populated(&server);
    let clock = ManualClock::new(UnixMillis(1_733_940_000_000));
    let config = config(home.path(), &server.kubeconfig(home.path()));
    let agent = Agent::start(config, Clock::Manual(clock.clone())).await.unwrap();
    until("the agent lists", agent.reader(), |reader| reader.as_of().is_some()).await;
    server.stop();
    let lost = |reader: &Reader| matches!(reader.freshness().source, SourceState::Lost(_));
    until("the loss", agent.reader(), lost).await;
    clock.advance(Duration::from_secs(123));
    let socket = home.path().join("agent.sock");
    let asked = beside(move || {
        ["table", "json"].map(|form| {
            let output = run(&["control-plane", "--admin", socket.to_str().expect("UTF-8"), "-o", form]);
            (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
        })
    });
    let [(code, table), (_, json)] = asked.await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let [apiserver] = json["apiservers"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert_eq!((code, &apiserver["address"]), (Some(1), &server.address().to_string().into()));
    let since = "2024-12-11T18:00:00.000Z";
    assert_eq!((&apiserver["from"], &apiserver["failing_since"]), (&"configured".into(), &since.into()), "{json}");
    assert!(apiserver["failing_reason"].as_str().unwrap().starts_with("connect: Connection refused"), "{json}");
    let told = "TCP: Connection refused (os error 111); this process gets no connection for ";
    assert!(table.contains(told) && table.contains("(since 2024-12-11 18:00:00 UTC)"), "{table}");
    agent.stop().await;
}

#[tokio::test]
async fn killed_while_the_apiserver_is_gone_it_answers_names_nobody_had_asked_for() {
    let home = TempDir::new().unwrap();
    let server = Apiserver::start().await;
    populated(&server);
    let kubeconfig = server.kubeconfig(home.path());
    let (path, flag) = (home.path().to_owned(), kubeconfig.to_str().unwrap().to_owned());
    let first = beside(move || {
        let mut agent = process::Agent::start(&path, &["--kubeconfig", &flag]);
        agent.wait_for("records complete");
        agent
    });
    let first = first.await;
    assert!(beside(move || first.terminate().success()).await);
    server.stall();

    let (path, flag) = (home.path().to_owned(), kubeconfig.to_str().unwrap().to_owned());
    beside(move || {
        let killed = process::Agent::start(&path, &["--kubeconfig", &flag]);
        killed.kill();
        // Nobody has asked this process, or the one before, for any of these.
        let mut agent = process::Agent::start(&path, &["--kubeconfig", &flag]);
        every_name(agent.dns, false);
        agent.wait_for("lost apiserver");
        let status = status(&path);
        assert_eq!(status["source"]["state"], "lost", "{status:#}");
        assert!(agent.terminate().success());
    })
    .await;
}

#[tokio::test]
async fn an_agent_on_its_own_keeps_four_watches_open_at_most() {
    let home = TempDir::new().unwrap();
    let server = Apiserver::start().await;
    populated(&server);
    let kubeconfig = server.kubeconfig(home.path());
    let agent = Agent::start(config(home.path(), &kubeconfig), Clock::System).await.unwrap();
    until("it lists", agent.reader(), |reader| reader.as_of().is_some()).await;
    server.put(service("prod", "late", "10.96.3.1"));
    until("the change", agent.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    assert!((1..=4).contains(&server.most_watches()), "{} watches", server.most_watches());

    let metrics = agent.addresses().metrics.unwrap();
    let text = beside(move || http::get(metrics, "/metrics")).await;
    let watches: f64 = text
        .lines()
        .filter(|line| line.starts_with("holdfast_source_requests_total") && line.contains("verb=\"watch\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert!((1.0..=4.0).contains(&watches), "{text}");
    agent.stop().await;
}
