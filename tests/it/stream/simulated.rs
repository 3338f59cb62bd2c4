//! Simulated agents on real sockets with mutual TLS, against a hub that is restarted and against strangers.

use std::{sync::Arc, time::Duration};

use holdfast::{
    proto,
    record::Snapshot,
    simulate::{self, Options},
    store::{self, Origin, What, Writer},
    stream::{self, Surroundings},
    sys::Clock,
    tls::{self, Tls},
};
use tokio_util::sync::CancellationToken;

use super::rig::{metric, service, services};

struct Hub {
    writer: Writer,
    registry: prometheus::Registry,
    address: String,
    serving: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

fn hub(certificates: &std::path::Path, listen: &str, config: stream::Config) -> Hub {
    let (writer, reader) = store::open();
    let registry = prometheus::Registry::new();
    let metrics = tls::Metrics::register(&registry).unwrap();
    let tls = Tls::open(certificates.join("hub"), Clock::System, Arc::new(|| None), metrics).unwrap();
    let config = stream::Config { listen: vec![listen.parse().unwrap()], node: "hub".into(), ..config };
    let parts = stream::Parts {
        reader,
        clock: Clock::System,
        metrics: stream::Metrics::register(&registry).unwrap(),
        tls: Some(tls),
        surroundings: tokio::sync::watch::channel(Surroundings::default()).1,
        beside: stream::Beside::default(),
    };
    let bound = stream::bind(config, true).unwrap();
    let address = bound.addresses()[0].to_string();
    let stop = CancellationToken::new();
    Hub { writer, registry, address, serving: tokio::spawn(bound.serve(parts, stop.clone())), stop }
}

impl Hub {
    fn list(&mut self, records: Vec<holdfast::record::Change>, epoch: u64) {
        let version = holdfast::record::Version { cluster: "uid".into(), epoch, rev: 1 };
        let records = records.into_iter().collect();
        let update = What::Reset { origin: Origin::Stamped(version), records, as_of: Clock::System.now() };
        self.writer.apply(update).unwrap();
    }
}

fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tls::issue(dir.path(), "test", 1, Clock::System.now()).unwrap();
    dir
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_agents_follow_a_hub_through_changes_and_a_restart() {
    let dir = certificates();
    let mut first = hub(dir.path(), "127.0.0.1:0", stream::Config::default());
    first.list(services(1_000), 1);
    let options = Options {
        hubs: vec![first.address.clone()],
        tls: Some(dir.path().join("agent")),
        count: 40,
        ramp: Duration::ZERO,
        watch: Duration::ZERO,
        patience: PATIENCE,
    };
    let agents = simulate::start(&options).unwrap();
    agents.all_live(PATIENCE).await.expect("all live");
    let origin = Origin::Watched { cluster: "uid".into(), new_epoch: false };
    let update = What::Changes { origin, changes: vec![service("s1", 9)], as_of: Clock::System.now() };
    first.writer.apply(update).unwrap();
    let root = first.writer.reader().load().root();
    agents.all_at(root, PATIENCE).await.expect("all see the change");
    let report = agents.report();
    assert_eq!((report.live, report.divergent, report.mismatches, report.connects), (40, 0, 0, 40));
    assert_eq!((report.batches, report.propagation_ms.count), (40, 40));
    assert_eq!(report.modes.get("snapshot"), Some(&40));

    // Stopped, and back on the same port with the same records under a new epoch.
    first.stop.cancel();
    (&mut first.serving).await.unwrap();
    let mut second = hub(dir.path(), &first.address, stream::Config::default());
    let mut records = services(1_000);
    records.push(service("s1", 9));
    second.list(records, 2);
    assert_eq!(second.writer.reader().load().root(), root);
    while metric(&second.registry, "holdfast_stream_subscribers", "") < 40 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    agents.all_at(root, PATIENCE).await.expect("all back");
    let report = agents.report();
    assert_eq!((report.live, report.divergent, report.mismatches), (40, 0, 0));
    assert_eq!(report.modes.get("snapshot"), None, "{:?}", report.modes);
    agents.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_in_the_handshake_and_keep_nobody_out() {
    let (ours, theirs) = (certificates(), certificates());
    let mut hub = hub(ours.path(), "127.0.0.1:0", stream::Config::default());
    hub.list(services(10), 1);
    let options = |dir: Option<&tempfile::TempDir>, count| Options {
        hubs: vec![hub.address.clone()],
        tls: dir.map(|dir| dir.path().join("agent")),
        count,
        ramp: Duration::ZERO,
        watch: Duration::ZERO,
        patience: PATIENCE,
    };
    let foreign = simulate::start(&options(Some(&theirs), 200)).unwrap();
    let plain = simulate::start(&options(None, 50)).unwrap();
    let welcome = simulate::start(&options(Some(&ours), 20)).unwrap();
    welcome.all_live(PATIENCE).await.expect("all live");
    while metric(&hub.registry, "holdfast_stream_refused_total", "handshake") < 250 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(foreign.progress().live + plain.progress().live, 0);
    assert_eq!(metric(&hub.registry, "holdfast_stream_resume_total", ""), 20);
}

#[tokio::test]
async fn only_who_has_a_hubs_certificate_may_say_that_others_reach_it() {
    let dir = certificates();
    let mut hub = hub(dir.path(), "127.0.0.1:0", stream::Config::default());
    hub.list(services(10), 1);
    let follow = async |part: &str| {
        let metrics = tls::Metrics::register(&prometheus::Registry::new()).unwrap();
        let tls = Tls::open(dir.path().join(part), Clock::System, Arc::new(|| None), metrics).unwrap();
        let mut client = super::slow::client_by(&holdfast::source::hub::dial(Some(tls)), &hub.address).await;
        let hello = proto::hello("relay", "10.0.0.9:7443", &Snapshot::default());
        client.follow(hello).await.map(|_| ()).map_err(|status| status.message().to_owned())
    };
    assert_eq!(follow("hub").await, Ok(()));
    assert_eq!(follow("agent").await, Err("who serves others needs the certificate of a hub".to_owned()));
    assert_eq!(metric(&hub.registry, "holdfast_stream_refused_total", "request"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_shake_hands_keep_nobody_out() {
    use tokio::{io::AsyncWriteExt as _, net::TcpStream};
    let dir = certificates();
    // So long that whoever had to wait for it would wait in vain.
    let config = stream::Config { handshake_timeout: Duration::from_secs(3_600), ..stream::Config::default() };
    let mut hub = hub(dir.path(), "127.0.0.1:0", config);
    hub.list(services(10), 1);
    let mut open = Vec::new();
    for number in 0..300 {
        let mut socket = TcpStream::connect(&hub.address).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a greeting, and no more of it.
            socket.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        }
        open.push(socket);
    }
    let options = Options {
        hubs: vec![hub.address.clone()],
        tls: Some(dir.path().join("agent")),
        count: 5,
        ramp: Duration::ZERO,
        watch: Duration::ZERO,
        patience: PATIENCE,
    };
    let agents = simulate::start(&options).unwrap();
    agents.all_live(PATIENCE).await.expect("all live");
    agents.stop().await;
    drop(open);
}
