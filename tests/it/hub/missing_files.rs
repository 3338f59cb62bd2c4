//! Files that a configuration names and that are not there at the start: a hub and an agent start without them, say which,
//! and take them up when they appear.

use std::{path::Path, time::Duration};

use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::{Reader, SourceState},
    sys::Clock,
    tls,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    apiserver::{Apiserver, namespace, service},
    fleet::{Asking, Home, address, agent_config, copy, hub_config, in_time, until, until_equal},
    process,
};

/// Waits until `status` in `home` says so.
async fn until_status(home: &Home, what: &str, holds: impl Fn(&Value) -> bool) {
    let look = async {
        loop {
            let (status, _) = home.tool(&["status"]).await;
            if holds(&status) {
                return;
            }
        }
    };
    in_time(what, look).await;
}

fn waits_for(status: &Value) -> &Value {
    &status["process"]["waiting_for"]
}

fn is_lost_for(reader: &Reader, file: &Path) -> bool {
    let file = file.display().to_string();
    matches!(reader.freshness().source, SourceState::Lost(why) if why.contains(&file))
}

#[tokio::test]
async fn hub_and_agent_start_without_kubeconfig_and_certificates_and_take_them_up() {
    let server = Apiserver::start().await;
    server.put(namespace("prod"));
    server.put(service("prod", "web", "10.96.1.7"));
    let (homes, made, files): ([Home; 2], _, _) =
        (std::array::from_fn(|_| Home::new()), TempDir::new().unwrap(), TempDir::new().unwrap());
    tls::issue(made.path(), "test", 30, Clock::System.now()).unwrap();
    let path = |name: &str| files.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let arguments = ["--listen", "127.0.0.1:0", "--kubeconfig", &text("config"), "--tls", &text("hub")];
    let hub = Hub::start(hub_config(homes[0].path(), &arguments), Clock::System).await.unwrap();
    let at = hub.addresses().stream[0].to_string();
    let arguments = ["--hub", &at, "--tls", &text("agent")];
    let agent = Agent::start(agent_config(homes[1].path(), &arguments), Clock::System).await.unwrap();

    let (status, code) = homes[0].tool(&["status"]).await;
    assert_eq!((waits_for(&status), code), (&json!(["first records", "certificates"]), 6), "{status:#}");
    let names_file = |status: &Value| status.to_string().contains(&text("config"));
    until_status(&homes[0], "the hub names its kubeconfig", names_file).await;
    until("the agent names its certificates", agent.reader(), |reader| is_lost_for(reader, &path("agent"))).await;
    let (status, _) = homes[1].tool(&["status"]).await;
    assert_eq!(waits_for(&status), &json!(["first records"]), "{status:#}");

    // What an agent is told for as long as the hub has no certificates.
    copy(&made.path().join("agent"), &path("agent"));
    let is_turned_away =
        |reader: &Reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains(&at));
    until("the agent is turned away", agent.reader(), is_turned_away).await;
    copy(&made.path().join("hub"), &path("hub"));
    until_status(&homes[0], "let in", |status| waits_for(status) == &json!(["first records"])).await;
    let whole = server.kubeconfig(homes[0].path());
    std::fs::rename(whole, path("config")).unwrap();
    until("the hub lists", hub.reader(), |reader| reader.as_of().is_some()).await;
    in_time("the agent follows", until_equal(agent.reader(), hub.reader())).await;
    let answer = address(agent.addresses().dns[0], "web.prod.svc.cluster.local.").await;
    assert_eq!(answer, ["5 A 10.96.1.7"]);
    until_status(&homes[0], "ready", |status| waits_for(status) == &json!([])).await;

    // With records on disk, what is missing stops no answer.
    hub.stop().await;
    agent.stop().await;
    for name in ["config", "agent"] {
        std::fs::rename(path(name), path("aside").with_extension(name)).unwrap();
    }
    let asking = async {
        let agent = Agent::start(agent_config(homes[1].path(), &arguments), Clock::System).await.unwrap();
        let asking = Asking::begin(agent.addresses().dns[0], "web.prod.svc.cluster.local.", "A 10.96.1.7");
        until("the agent names its certificates", agent.reader(), |reader| is_lost_for(reader, &path("agent"))).await;
        (agent, asking)
    };
    let (agent, asking) = asking.await;
    std::fs::rename(path("aside.agent"), path("agent")).unwrap();
    let again = ["--listen", &at, "--kubeconfig", &text("config"), "--tls", &text("hub")];
    let hub = Hub::start(hub_config(homes[0].path(), &again), Clock::System).await.unwrap();
    in_time("the agent follows a hub that serves from disk", until_equal(agent.reader(), hub.reader())).await;
    asking.all_answered().await;
    agent.stop().await;
    hub.stop().await;
}

/// The log is what a supervisor keeps of a process that never became ready.
#[test]
fn a_hub_logs_each_file_that_is_missing_at_the_start() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let config = path("kubeconfig").to_str().unwrap().to_owned();
    let mut hub = process::Hub::start_secured(home.path(), "127.0.0.1:0", &path("tls"), &["--kubeconfig", &config]);
    let line = hub.wait_for("no certificates: agents and other hubs are refused until they can be read");
    assert!(line.contains("ERROR") && line.contains(path("tls").to_str().unwrap()), "{line}");
    let line = hub.wait_for("no records for agents: cannot open their source");
    assert!(line.contains("ERROR") && line.contains(&config), "{line}");
    let made = TempDir::new().unwrap();
    tls::issue(made.path(), "test", 30, Clock::System.now()).unwrap();
    copy(&made.path().join("hub"), &path("tls"));
    hub.wait_for("certificates read: agents and other hubs are let in");
    // A connection is accepted by then.
    std::net::TcpStream::connect_timeout(&hub.address(), Duration::from_secs(20)).unwrap();
}
