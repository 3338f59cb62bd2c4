//! Agents whose certificates the hub does not accept: they go on answering, and are let in once the files are right.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use holdfast::{
    proto::{Frame, hello},
    record::Snapshot,
    role::{agent::Agent, hub::Hub},
    source::hub::dial,
    store::SourceState,
    stream,
    sys::{Clock, ManualClock, UnixMillis},
    tls,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::stream::{client_by, metric};
use crate::support::{
    apiserver::{Apiserver, namespace, service},
    fleet::{Asking, Home, agent_config, hub_config, in_time, until, until_equal},
    process,
    unharmed::unharmed,
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
    unharmed(&server.records(), hub.reader(), &[agent.reader()], []).await;
    agent.stop().await;
    hub.stop().await;
}

#[tokio::test]
async fn certificates_of_another_authority_keep_an_agent_out_until_they_are_put_right() {
    let (right, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    issue(right.path(), Duration::ZERO);
    issue(other.path(), Duration::ZERO);
    Box::pin(refused_until_put_right(&right, &other.path().join("agent"))).await;
}

#[tokio::test]
async fn a_certificate_that_ran_out_keeps_an_agent_out_until_it_is_renewed() {
    let (right, old) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    issue(right.path(), Duration::ZERO);
    put(&right.path().join("ca"), &old.path().join("ca"));
    issue(old.path(), Duration::from_secs(60 * 86_400));
    Box::pin(refused_until_put_right(&right, &old.path().join("agent"))).await;
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_hub_with_the_certificate_of_agents_says_that_nobody_will_follow() {
    let dir = TempDir::new().unwrap();
    issue(dir.path(), Duration::ZERO);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cluster.yaml"), "{kind: List, items: []}").unwrap();
    let line = ["hub", "--tls", &path("agent"), "--manifests", &path("cluster.yaml"), "--admin", &path("hub.sock")];
    let rest = ["--listen", "127.0.0.1:0", "--store", "none", "--http", "none", "--metrics", "none"];
    let mut command = process::holdfast(&[&line[..], &rest].concat());
    let mut hub = process::Agent::spawn_until(&mut command, "serving the stream to agents listen=");
    let line = hub.wait_for_nth("wrong certificate: this is not a hub's", 1);
    assert!(line.contains("ERROR") && line.contains("identity=spiffe://test/holdfast/agent"), "{line}");
}

/// A counter of this role, by its name and the part of the peer.
fn grace(registry: &prometheus::Registry, peer: &str) -> u64 {
    metric(registry, "holdfast_tls_grace_total", peer)
}

#[tokio::test]
async fn certificates_that_run_out_in_an_outage_are_good_for_thirty_days_more_and_not_for_thirty_one() {
    let dir = TempDir::new().unwrap();
    let clock = ManualClock::new(Clock::System.now());
    let at = || Clock::Manual(clock.clone());
    tls::issue(dir.path(), "test", 30, clock.now()).unwrap();
    let server = Apiserver::start().await;
    server.put(namespace("prod"));
    server.put_all((0..100).map(|n| service("prod", &format!("web-{n}"), &format!("10.96.1.{n}"))));
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let kubeconfig = server.kubeconfig(homes[0].path());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (hubs, agents) = (text(&dir.path().join("hub")), text(&dir.path().join("agent")));
    let arguments = ["--listen", "127.0.0.1:0", "--kubeconfig", &text(&kubeconfig), "--tls", &hubs];
    let hub = Hub::start(hub_config(homes[0].path(), &arguments), at()).await.unwrap();
    let address = hub.addresses().stream[0].to_string();
    let agent = async |home: &Home| {
        let config = agent_config(home.path(), &["--hub", &address, "--tls", &agents]);
        Agent::start(config, at()).await.unwrap()
    };
    let first = agent(&homes[1]).await;
    in_time("live", until_equal(first.reader(), hub.reader())).await;
    first.stop().await;

    // The outage begins while they are good, and lasts until they are not.
    let lost = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(_));
    server.stop();
    until("the hub's source is lost", hub.reader(), lost).await;
    clock.advance(59 * DAY);
    let second = agent(&homes[1]).await;
    let asking = Asking::begin(second.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    until(
        "let in, and told of the loss",
        second.reader(),
        |reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains(" → ")),
    )
    .await;
    unharmed(&server.records(), hub.reader(), &[second.reader()], [asking]).await;
    assert!(grace(hub.registry(), "agent") >= 1 && grace(second.registry(), "hub") >= 1);
    second.stop().await;

    // A node without records cannot tell an outage from a hub that nobody renews.
    let bare = agent(&homes[2]).await;
    let refused = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains("certificate is expired: renew it"));
    until("refused, by name", bare.reader(), refused).await;
    assert_eq!(bare.reader().as_of(), None);
    bare.stop().await;

    clock.advance(2 * DAY);
    let third = agent(&homes[1]).await;
    let asking = Asking::begin(third.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.1.7");
    until("refused, by name", third.reader(), refused).await;
    asking.all_answered().await;
    third.stop().await;
    hub.stop().await;
}

/// The certificates of a hub and of two sets of agents, by one CA: those of the first in `lost`.
fn made_twice(dir: &Path) {
    issue(dir, Duration::ZERO);
    for part in ["hub", "agent"] {
        put(&dir.join(part), &dir.join("lost").join(part));
    }
    issue(dir, Duration::ZERO);
}

/// A new process's view of the files in a directory.
fn opened(dir: &Path) -> tls::Tls {
    let metrics = tls::Metrics::register(&prometheus::Registry::new()).unwrap();
    tls::Tls::open(dir.to_owned(), Clock::System, Arc::new(|| None), metrics).unwrap()
}

/// A hub's stream alone, and the address it is served on.
fn serving(tls: &tls::Tls) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let config = stream::Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        heartbeat: Duration::from_millis(20),
        ..stream::Config::default()
    };
    let bound = stream::bind(config, true).unwrap();
    let address = bound.addresses()[0];
    let (_writer, reader) = holdfast::store::open();
    let parts = stream::Parts {
        reader,
        clock: Clock::System,
        metrics: stream::Metrics::register(&prometheus::Registry::new()).unwrap(),
        tls: Some(tls.clone()),
        surroundings: tokio::sync::watch::channel(stream::Surroundings::default()).1,
        beside: stream::Beside::default(),
    };
    (address, tokio::spawn(bound.serve(parts, CancellationToken::new())))
}

/// A stream of frames with the certificates of `tls`.
async fn following(tls: &tls::Tls, hub: SocketAddr) -> tonic::Streaming<Frame> {
    let mut client = client_by(&dial(Some(tls.clone())), &hub.to_string()).await;
    client.follow(hello("agent", "", &Snapshot::default())).await.unwrap().into_inner()
}

/// Frames come, two heartbeats in a row.
async fn goes_on(frames: &mut tonic::Streaming<Frame>) {
    for _ in 0..3 {
        in_time("a frame", frames.message()).await.unwrap().unwrap();
    }
}

/// Frames end with an error, or with no word.
async fn ends(frames: &mut tonic::Streaming<Frame>) {
    in_time("the end", async { while let Ok(Some(_)) = frames.message().await {} }).await;
}

#[tokio::test]
async fn an_agent_that_a_hub_refuses_says_that_its_own_certificate_is_the_reason() {
    let dir = TempDir::new().unwrap();
    let [ours, theirs, mixed] = ["ours", "theirs", "mixed"].map(|name| dir.path().join(name));
    issue(&ours, Duration::ZERO);
    issue(&theirs, Duration::ZERO);
    put(&theirs.join("agent"), &mixed);
    std::fs::copy(ours.join("agent/ca.crt"), mixed.join("ca.crt")).unwrap();
    let (address, serving) = serving(&opened(&ours.join("hub")));
    let home = Home::new();
    let arguments = ["--hub", &address.to_string(), "--tls", mixed.to_str().unwrap()];
    let agent = Agent::start(agent_config(home.path(), &arguments), Clock::System).await.unwrap();
    let told = "the hub refused the certificate of this process (received fatal alert: ";
    let says_why = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains(told));
    until("it says why", agent.reader(), says_why).await;
    agent.stop().await;
    serving.abort();
}

#[tokio::test]
async fn a_revoked_agent_is_disconnected_and_refused_and_others_are_not() {
    let dir = TempDir::new().unwrap();
    made_twice(dir.path());
    let [hub, agent, lost] = ["hub", "agent", "lost/agent"].map(|name| opened(&dir.path().join(name)));
    let (address, serving) = serving(&hub);
    let (mut stays, mut goes) = (following(&agent, address).await, following(&lost, address).await);
    goes_on(&mut stays).await;
    goes_on(&mut goes).await;
    tls::revoke(dir.path(), &dir.path().join("lost/agent/tls.crt"), Clock::System.now()).unwrap();
    assert!(hub.reread().unwrap());
    ends(&mut goes).await;
    goes_on(&mut stays).await;
    let again = async {
        let mut io = (dial(Some(lost.clone())))(address.to_string()).await?;
        tokio::io::AsyncReadExt::read_u8(&mut io).await
    };
    let refused = in_time("refused", again).await.unwrap_err().to_string();
    assert!(refused.contains("CertificateRevoked"), "{refused}");
    goes_on(&mut following(&agent, address).await).await;
    serving.abort();
}

#[tokio::test]
async fn an_agent_leaves_a_hub_that_is_revoked() {
    let dir = TempDir::new().unwrap();
    made_twice(dir.path());
    let [agent, lost] = ["agent", "lost/hub"].map(|name| opened(&dir.path().join(name)));
    let (address, serving) = serving(&lost);
    let mut frames = following(&agent, address).await;
    goes_on(&mut frames).await;
    tls::revoke(dir.path(), &dir.path().join("lost/hub/tls.crt"), Clock::System.now()).unwrap();
    assert!(agent.reread().unwrap());
    ends(&mut frames).await;
    let refused = (dial(Some(agent)))(address.to_string()).await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("Revoked"), "{refused}");
    serving.abort();
}

/// Lets so much time pass at once, for everything that waits for a timer.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// The period in which a process looks at its files, and that of a hub's heartbeats.
const PERIODS: [Duration; 2] = [tls::REREAD, Duration::from_secs(5)];

#[tokio::test]
async fn a_running_hub_takes_up_a_list_within_its_period() {
    let (dir, home) = (TempDir::new().unwrap(), Home::new());
    made_twice(dir.path());
    let manifests = home.path().join("cluster.yaml");
    std::fs::write(
        &manifests,
        "{kind: Service, apiVersion: v1, metadata: {name: web, namespace: prod}, spec: {clusterIP: 10.96.0.1}}",
    )
    .unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments =
        ["--manifests", &text(&manifests), "--tls", &text(&dir.path().join("hub")), "--listen", "127.0.0.1:0"];
    let hub = Hub::start(hub_config(home.path(), &arguments), Clock::System).await.unwrap();
    let address = hub.addresses().stream[0];
    let [agent, lost] = ["agent", "lost/agent"].map(|name| opened(&dir.path().join(name)));
    let (mut stays, mut goes) = (following(&agent, address).await, following(&lost, address).await);
    for frames in [&mut stays, &mut goes] {
        in_time("a frame", frames.message()).await.unwrap().unwrap();
    }
    tls::revoke(dir.path(), &dir.path().join("lost/agent/tls.crt"), Clock::System.now()).unwrap();
    for period in PERIODS {
        pass(period).await;
    }
    ends(&mut goes).await;
    assert_eq!(metric(hub.registry(), "holdfast_tls_disconnected_total", ""), 1);
    in_time("a heartbeat", stays.message()).await.unwrap().unwrap();
    drop(stays);
    hub.stop().await;
}

#[tokio::test]
async fn a_running_agent_takes_up_a_list_within_its_period() {
    let (dir, home) = (TempDir::new().unwrap(), Home::new());
    made_twice(dir.path());
    let (address, serving) = serving(&opened(&dir.path().join("lost/hub")));
    let files = dir.path().join("agent").to_str().unwrap().to_owned();
    let config = agent_config(home.path(), &["--hub", &address.to_string(), "--tls", &files]);
    let agent = Agent::start(config, Clock::System).await.unwrap();
    tls::revoke(dir.path(), &dir.path().join("lost/hub/tls.crt"), Clock::System.now()).unwrap();
    pass(tls::REREAD).await;
    let refused = |reader: &holdfast::store::Reader| matches!(reader.freshness().source, SourceState::Lost(why) if why.contains("the hub's certificate is revoked"));
    until("it left, and is refused when it comes back", agent.reader(), refused).await;
    agent.stop().await;
    serving.abort();
}

#[test]
fn certs_revokes_a_certificate_beside_those_it_made() {
    let dir = TempDir::new().unwrap();
    issue(dir.path(), Duration::ZERO);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let line = ["certs", "--out", &path(""), "--revoke", &path("agent/tls.crt")];
    let output = process::holdfast(&line).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("1 revoked"), "{text}");
    let lists = ["ca", "hub", "agent"].map(|name| std::fs::read(path(name) + "/ca.crl").unwrap());
    assert!(lists[0] == lists[1] && lists[1] == lists[2] && text.contains(&path("hub/ca.crl")), "{text}");
    let output = process::holdfast(&[&line[..4], &[&path("ca/ca.key")]].concat()).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&path("ca/ca.key")), "{text}");
}
