//! Hubs that die, stop, lie or have no disk: agents go on answering, and end up equal to a hub that tells the truth.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hickory_proto::rr::RecordType;
use holdfast::{
    record::{Change, Kind, Service, ServiceKey, Version},
    source::{EndpointsMode, hub::Status, manifests},
    store::{self, Origin, What},
    stream::{self, Surroundings},
    sys::Clock,
    tls::Tls,
};

use super::clients::storm;
use crate::support::{
    fleet::{Asking, Home, address, in_time, until, until_equal},
    process::{Agent, Hub, answers, run},
    unharmed::{Has, has, unharmed, whole},
};

/// Manifests of so many services, and where they are.
pub(super) fn write(home: &Path, count: u32) -> String {
    let path = home.join("cluster.yaml");
    let services = (0..count).map(|n| {
        format!(
            "---\nkind: Service\napiVersion: v1\nmetadata: {{name: web-{n}, namespace: prod}}\nspec: {{clusterIP: 10.96.{}.{}}}\n",
            n / 250,
            n % 250
        )
    });
    let beside = home.join("cluster.new");
    std::fs::write(&beside, services.collect::<String>()).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Whom an agent follows, as its status says.
fn follows(home: &Path) -> Status {
    let socket = home.join("agent.sock");
    let output = run(&["status", "--admin", socket.to_str().unwrap(), "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(status["follows"].clone()).unwrap()
}

fn version(home: &Path) -> String {
    let socket = home.join("agent.sock");
    let output = run(&["status", "--admin", socket.to_str().unwrap(), "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["version"].to_string()
}

/// Whether the records are confirmed by a source that is up, as the exit code of `status` tells.
fn is_fresh(home: &Path) -> bool {
    let socket = home.join("agent.sock");
    run(&["status", "--admin", socket.to_str().unwrap()]).status.success()
}

/// What the manifests at this path have.
pub(super) fn source(manifests: &str) -> Vec<Has> {
    let records = manifests::read(Path::new(manifests), EndpointsMode::Headless).unwrap().records;
    records.services.values().map(|service| has(service)).collect()
}

/// Waits, asking all the while, until `holds`; panics at the first question without its answer.
fn asking_until(agent: &Agent, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        let message = agent.ask("web-7.prod.svc.cluster.local.", RecordType::A);
        assert!(answers(&message)[0].ends_with("A 10.96.0.7"), "{message}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not in time");
        // Leaves the machine to those that are asked, and to the other tests.
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_hub_and_one_that_is_stopped_are_left_for_another_and_come_back() {
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let manifests = write(homes[0].path(), 200);
    let mut first = Hub::start(homes[0].path(), "127.0.0.1:0", &["--manifests", &manifests]);
    first.wait_for("records complete");
    let mut second = Hub::start(homes[1].path(), "127.0.0.1:0", &["--hub", &first.address().to_string()]);
    second.wait_for("records complete");
    let addresses = [first.address().to_string(), second.address().to_string()];
    let arguments = ["--tls", "insecure", "--hub", &addresses[0], "--hub", &addresses[1]];
    let mut agent = Agent::start(homes[2].path(), &arguments);
    agent.wait_for("records complete");
    let live_with = |address: &str| {
        let status = follows(homes[2].path());
        status.state == holdfast::source::hub::State::Live && status.address == address
    };
    asking_until(&agent, "live", || live_with(&addresses[0]) || live_with(&addresses[1]));

    // SIGKILL of the hub it follows; the other one goes on. The one killed comes back from its disk.
    let (dead, alive) = if live_with(&addresses[0]) { (0, 1) } else { (1, 0) };
    let mut hubs = [Some(first), Some(second)];
    hubs[dead].take().unwrap().kill();
    asking_until(&agent, "the other hub", || live_with(&addresses[alive]));
    let again = if dead == 0 {
        Hub::start(homes[0].path(), &addresses[0], &["--manifests", &manifests])
    } else {
        Hub::start(homes[1].path(), &addresses[1], &["--hub", &addresses[0]])
    };
    hubs[dead] = Some(again);
    asking_until(&agent, "all equal", || {
        version(homes[0].path()) == version(homes[1].path()) && version(homes[0].path()) == version(homes[2].path())
    });
    // Equal records are there at once, from disk. Until the hub that lost its source has it again, the agent may be about to leave it.
    asking_until(&agent, "all fresh", || homes.iter().all(|home| is_fresh(home.path())));

    // SIGSTOP for half a minute: it neither answers nor hangs up. After the silence the agent is gone; then it wakes, and
    // there is news, for itself if it is the one that reads the manifests.
    let status = follows(homes[2].path());
    let stopped = usize::from(status.address == addresses[1]);
    let (before, since) = (version(homes[2].path()), std::time::Instant::now());
    hubs[stopped].as_ref().unwrap().signal("STOP");
    asking_until(&agent, "the hub that is not stopped", || live_with(&addresses[1 - stopped]));
    assert!(since.elapsed() > Duration::from_secs(5), "it was heard a moment before: {:?}", since.elapsed());
    write(homes[0].path(), 201);
    asking_until(&agent, "half a minute", || since.elapsed() >= Duration::from_secs(30));
    hubs[stopped].as_ref().unwrap().signal("CONT");
    asking_until(&agent, "all equal", || {
        let versions = homes.each_ref().map(|home| version(home.path()));
        versions[0] != before && versions.iter().all(|version| *version == versions[0])
    });
    whole(&source(&manifests), &homes[0], &[&homes[1], &homes[2]]);
    assert_eq!(follows(homes[2].path()).mismatches, 0);
}

#[test]
fn a_hub_whose_disk_is_full_serves_and_says_so() {
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let manifests = write(homes[0].path(), 5_000);
    // No file of this process may grow beyond 64 KiB.
    let mut hub = Hub::start_limited(homes[0].path(), "127.0.0.1:0", &["--manifests", &manifests], 64);
    hub.wait_for("records complete");
    let mut agent = Agent::start(homes[1].path(), &["--tls", "insecure", "--hub", &hub.address().to_string()]);
    agent.wait_for("records complete");
    asking_until(&agent, "the same version", || version(homes[0].path()) == version(homes[1].path()));
    whole(&source(&manifests), &homes[0], &[&homes[1]]);
    let socket = homes[0].socket();
    asking_until(&agent, "the disk is told of", || {
        let output = run(&["status", "--admin", socket.to_str().unwrap(), "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        status["disk"]["state"] == "degraded"
    });
}

/// A hub that says what it is told to say.
pub(super) struct Told {
    pub writer: store::Writer,
    pub address: SocketAddr,
    pub registry: prometheus::Registry,
    _surroundings: tokio::sync::watch::Sender<Surroundings>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Told {
    pub fn start(says: Vec<Change>, epoch: u64, config: stream::Config) -> Self {
        Self::start_secured(says, epoch, config, None)
    }

    pub fn start_secured(says: Vec<Change>, epoch: u64, config: stream::Config, tls: Option<Tls>) -> Self {
        let (mut writer, reader) = store::open();
        let origin = Origin::Stamped(Version { cluster: "uid".into(), epoch, rev: 1 });
        let records = says.into_iter().collect();
        writer.apply(What::Reset { origin, records, as_of: Clock::System.now() }).unwrap();
        let config = stream::Config { listen: vec!["127.0.0.1:0".parse().unwrap()], ..config };
        let bound = stream::bind(config, tls.is_some()).unwrap();
        let address = bound.addresses()[0];
        let (surroundings, above) = tokio::sync::watch::channel(Surroundings::default());
        let registry = prometheus::Registry::new();
        let parts = stream::Parts {
            reader,
            clock: Clock::System,
            metrics: stream::Metrics::register(&registry).unwrap(),
            tls,
            surroundings: above,
            beside: stream::Beside::default(),
        };
        let serving = tokio::spawn(bound.serve(parts, tokio_util::sync::CancellationToken::new()));
        Self { writer, address, registry, _surroundings: surroundings, serving }
    }

    fn liar(says: Vec<Change>, epoch: u64) -> Self {
        Self::start(says, epoch, stream::Config { node: format!("liar-{epoch}"), ..stream::Config::default() })
    }
}

pub(super) fn services(count: u8) -> Vec<Change> {
    let service = |n| {
        let kind = Kind::ClusterIp([std::net::IpAddr::from([10, 96, 0, n])].into());
        Change::Put(Arc::new(Service::new(ServiceKey::new("prod", &format!("web-{n}")), kind, vec![], vec![])))
    };
    (0..count).map(service).collect()
}

/// What such records answer with.
pub(super) fn said(changes: &[Change]) -> Vec<Has> {
    let puts = changes.iter().filter_map(|change| match change {
        Change::Put(service) => Some(has(service)),
        _ => None,
    });
    puts.collect()
}

#[tokio::test]
async fn a_hub_that_lies_empties_no_agent_and_the_truth_is_followed_again() {
    let home = Home::new();
    let mut truth = Told::liar(services(200), 5);
    let agent = home.agent(&[&truth.address.to_string()]).await;
    in_time("equal", until_equal(agent.reader(), &truth.writer.reader())).await;
    agent.stop().await;

    // A later version, and nothing in it.
    let empty = Told::liar(vec![], 6);
    let agent = home.agent(&[&empty.address.to_string()]).await;
    until("held", agent.reader(), |reader| reader.held().counts().services == 200).await;
    let expected = ["5 A 10.96.0.7"];
    assert_eq!(address(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.").await, expected);
    let (shown, code) = home.tool(&["guard"]).await;
    assert_eq!((&shown["held"]["counts"]["services"], code), (&200.into(), 1));
    agent.stop().await;
    drop(empty);

    // An older one: waited for, never followed back.
    let older = Told::liar(services(3), 2);
    let agent = home.agent(&[&older.address.to_string()]).await;
    in_time("it is asked", async {
        loop {
            let (status, _) = home.tool(&["status"]).await;
            if status["follows"]["state"] != "disk" {
                break;
            }
        }
    })
    .await;
    assert_eq!(agent.reader().load().counts().services, 200);
    agent.stop().await;
    drop(older);

    // The truth, in a later epoch than the lie.
    let origin = Origin::Stamped(Version { cluster: "uid".into(), epoch: 7, rev: 1 });
    let records = services(201).into_iter().collect();
    truth.writer.apply(What::Reset { origin, records, as_of: Clock::System.now() }).unwrap();
    let agent = home.agent(&[&truth.address.to_string()]).await;
    unharmed(&said(&services(201)), &truth.writer.reader(), &[agent.reader()], []).await;
    assert!(agent.reader().held().is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connects_a_second_keep_nobody_out_and_break_no_stream() {
    let homes: [Home; 2] = std::array::from_fn(|_| Home::new());
    let mut hub = Told::liar(services(100), 1);
    let target = hub.address;
    let agent = homes[0].agent(&[&target.to_string()]).await;
    in_time("equal", until_equal(agent.reader(), &hub.writer.reader())).await;
    let asking = Asking::begin(agent.addresses().dns[0], "web-7.prod.svc.cluster.local.", "A 10.96.0.7");
    let storm = tokio::spawn(storm(target));
    let origin = Origin::Stamped(Version { cluster: "uid".into(), epoch: 1, rev: 2 });
    let changes = services(101);
    hub.writer.apply(What::Changes { origin, changes, as_of: Clock::System.now() }).unwrap();
    in_time("the agent sees the change in the storm", until_equal(agent.reader(), &hub.writer.reader())).await;
    let late = homes[1].agent(&[&target.to_string()]).await;
    in_time("a new agent gets in", until_equal(late.reader(), &hub.writer.reader())).await;
    let connected = storm.await.unwrap();
    assert!(connected > 9_000, "{connected}");
    unharmed(&said(&services(101)), &hub.writer.reader(), &[agent.reader(), late.reader()], [asking]).await;
    late.stop().await;
    agent.stop().await;
}
