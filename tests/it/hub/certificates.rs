//! Agents whose certificates the hub does not accept: they go on answering, and are let in once the files are right.

use std::{path::Path, time::Duration};

use holdfast::{
    role::{agent::Agent, hub::Hub},
    store::SourceState,
    sys::{Clock, UnixMillis},
    tls,
};
use tempfile::TempDir;

use crate::support::{
    apiserver::{Apiserver, namespace, service},
    fleet::{Asking, Home, agent_config, hub_config, in_time, until, until_equal},
};

/// A CA with the certificates of a hub and of agents, made so long ago and valid for a month.
fn issue(dir: &Path, ago: Duration) {
    let now = Clock::System.now().0 - u64::try_from(ago.as_millis()).unwrap();
    tls::issue(dir, "test", 30, UnixMillis(now)).unwrap();
}

/// Puts files into a directory as a mounted Secret does: each at once.
fn put(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let aside = to.join(".aside");
        std::fs::copy(entry.path(), &aside).unwrap();
        std::fs::rename(&aside, to.join(entry.file_name())).unwrap();
    }
}

/// An agent that had all records comes back with `wrong` for certificates, and later with the right ones.
async fn refused_until_put_right(right: &TempDir, wrong: &Path) {
    let server = Apiserver::start().await;
    server.put(namespace("prod"));
    server.put_all((0..100).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = ["--kubeconfig", &text(&kubeconfig), "--tls", &text(&right.path().join("hub"))];
    let config = hub_config(homes[0].path(), &[&["--listen", "127.0.0.1:0"][..], &arguments].concat());
    let hub = Hub::start(config, Clock::System).await.unwrap();

    let files = homes[1].path().join("tls");
    put(&right.path().join("agent"), &files);
    let address = hub.addresses().stream[0].to_string();
    let config = agent_config(homes[1].path(), &["--hub", &address, "--tls", &text(&files)]);
    let agent = Agent::start(config.clone(), Clock::System).await.unwrap();
    in_time("live", until_equal(agent.reader(), hub.reader())).await;
    agent.stop().await;

    put(wrong, &files);
    let agent = Agent::start(config.clone(), Clock::System).await.unwrap();
    let asking = Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    server.put(service("prod", "late", "10.96.3.1"));
    until("the hub has the change", hub.reader(), |reader| reader.load().service(b"prod", b"late").is_some()).await;
    let lost = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(_));
    until("refused", agent.reader(), lost).await;
    assert!(agent.reader().load().service(b"prod", b"late").is_none(), "{:?}", agent.reader().freshness());

    asking.all_answered().await;
    agent.stop().await;

    put(&right.path().join("agent"), &files);
    let agent = Agent::start(config, Clock::System).await.unwrap();
    in_time("let in", until_equal(agent.reader(), hub.reader())).await;
    agent.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn certificates_of_another_authority_keep_an_agent_out_until_they_are_put_right() {
    let (right, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    issue(right.path(), Duration::ZERO);
    issue(other.path(), Duration::ZERO);
    refused_until_put_right(&right, &other.path().join("agent")).await;
}

#[tokio::test]
async fn a_certificate_that_ran_out_keeps_an_agent_out_until_it_is_renewed() {
    let (right, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    issue(right.path(), Duration::ZERO);
    put(&right.path().join("ca"), &old.path().join("ca"));
    issue(old.path(), Duration::from_secs(60 * 86_400));
    refused_until_put_right(&right, &old.path().join("agent")).await;
}
