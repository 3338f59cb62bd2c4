//! The outage itself, with real processes: killed, started again, and the source gone for a month.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::{
    source::{EndpointsMode, manifests},
    store::{self, Origin, What, disk},
    sys::{Clock, UnixMillis},
};
use prometheus::Registry;
use tempfile::TempDir;

use crate::support::{
    process::{Agent, answers, extended_errors, run, run_delay},
    synthetic,
};

/// The longest a start may take, from exec to the last answer.
const START_MAX: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(86_400);

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/online-boutique.yaml")
}

/// One name of each kind the example cluster has, with what it answers, TTLs apart.
const NAMES: [(&str, RecordType, &[&str]); 12] = [
    ("frontend.default.svc.cluster.local.", RecordType::A, &["A 10.96.130.4"]),
    ("frontend-external.default.svc.cluster.local.", RecordType::A, &["A 10.96.130.5"]),
    ("frontend-external.default.svc.cluster.local.", RecordType::AAAA, &["AAAA fd00:10:96::8a05"]),
    ("kube-dns.kube-system.svc.cluster.local.", RecordType::A, &["A 10.96.0.10"]),
    (
        "_grpc._tcp.cartservice.default.svc.cluster.local.",
        RecordType::SRV,
        &["SRV 0 100 7070 cartservice.default.svc.cluster.local."],
    ),
    ("postgres.data.svc.cluster.local.", RecordType::A, &["A 10.244.1.40", "A 10.244.2.41"]),
    ("postgres-1.postgres.data.svc.cluster.local.", RecordType::A, &["A 10.244.2.41"]),
    (
        "_metrics._tcp.postgres.data.svc.cluster.local.",
        RecordType::SRV,
        &[
            "SRV 0 50 9187 postgres-0.postgres.data.svc.cluster.local.",
            "SRV 0 50 9187 postgres-1.postgres.data.svc.cluster.local.",
        ],
    ),
    (
        "db.default.svc.cluster.local.",
        RecordType::A,
        &["A 10.96.15.88", "CNAME postgres-primary.data.svc.cluster.local."],
    ),
    ("88.15.96.10.in-addr.arpa.", RecordType::PTR, &["PTR postgres-primary.data.svc.cluster.local."]),
    ("40.1.244.10.in-addr.arpa.", RecordType::PTR, &["PTR postgres-0.postgres.data.svc.cluster.local."]),
    ("dns-version.cluster.local.", RecordType::TXT, &["TXT 1.1.0"]),
];

/// Asks for every name and gives what was wrong.
fn every_name(agent: &Agent, stale: bool) {
    for (name, rtype, expected) in NAMES {
        let message = agent.ask(name, rtype);
        let mut got: Vec<String> = answers(&message);
        for line in &mut got {
            let (ttl, rest) = line.split_once(' ').expect("a TTL and the rest");
            assert!(!stale || ttl.parse::<u32>().expect("a TTL") <= 30, "{name}: TTL {ttl}");
            *line = rest.to_owned();
        }
        got.sort();
        assert_eq!(got, expected, "{name} {rtype}");
        assert_eq!(extended_errors(&message).contains(&3), stale, "{name} {rtype}: {message}");
    }
    let gone = agent.ask("no-such-service.default.svc.cluster.local.", RecordType::A);
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn killed_and_started_without_its_manifests_it_answers_every_name() {
    let home = TempDir::new().unwrap();
    let manifests = home.path().join("cluster.yaml");
    std::fs::copy(example(), &manifests).unwrap();
    let path = manifests.to_str().unwrap();

    let mut first = Agent::start(home.path(), &["--manifests", path]);
    first.wait_for("records complete");
    every_name(&first, false);
    assert!(first.terminate().success());

    let second = Agent::start(home.path(), &["--manifests", path]);
    every_name(&second, false);
    second.kill();

    std::fs::rename(&manifests, home.path().join("moved.yaml")).unwrap();
    let mut third = Agent::start(home.path(), &["--manifests", path]);
    every_name(&third, false);
    third.wait_for("lost manifests");
    third.kill();

    let store = home.path().join("store");
    let dump = run(&["dump", "--store", store.to_str().unwrap(), "-o", "json"]);
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert!(String::from_utf8_lossy(&dump.stdout).contains("postgres-primary"));
}

/// A store in `home` with the example's records, last vouched for this long ago.
async fn store_as_of(home: &Path, age: Duration) {
    let clock = Clock::System;
    let metrics = disk::Metrics::register(&Registry::new(), &clock).unwrap();
    let config = disk::Config { path: home.join("store"), ..disk::Config::default() };
    let (disk, loaded) = disk::open(&config, &clock, &metrics).unwrap();
    assert!(loaded.is_none());
    let (mut writer, reader) = store::open();
    let follower = disk.follow(&reader).unwrap();
    let reading = manifests::read(&example(), EndpointsMode::Headless).unwrap();
    let as_of = UnixMillis(clock.now().0 - u64::try_from(age.as_millis()).unwrap());
    let origin = Origin::Watched { cluster: reading.cluster, new_epoch: false };
    writer.apply(What::Reset { origin, records: reading.records, as_of }).unwrap();
    follower.release(Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_month_without_a_source_and_a_reboot_later_every_name_answers_at_once_and_says_how_old_it_is() {
    let home = TempDir::new().unwrap();
    store_as_of(home.path(), 30 * DAY).await;
    // The bound is on the program. Time in which its threads, or this one that asks, wait for a processor that others have is not
    // counted; what remains of the noise (caches, the disk) is absent from at least one of some starts.
    let here = Path::new("/proc/thread-self");
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let before = run_delay(here);
        let agent = Agent::start(home.path(), &["--manifests", "/nonexistent/cluster.yaml"]);
        every_name(&agent, true);
        let waited = agent.waited_for_processor() + run_delay(here).saturating_sub(before);
        best = best.min(agent.age().saturating_sub(waited));

        let socket = home.path().join("agent.sock");
        let status = run(&["status", "--admin", socket.to_str().unwrap(), "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let age = status["source"]["age_seconds"].as_f64().unwrap();
        assert!((30.0 * 86_400.0..30.1 * 86_400.0).contains(&age), "{status:#}");
        agent.kill();
        if best < START_MAX {
            return;
        }
    }
    panic!("from exec to the last of {} answers took {best:?} at best", NAMES.len());
}

#[tokio::test]
async fn ten_thousand_services_and_endpoints_stay_within_their_memory() {
    // The target is 40 MiB for a release build. Of this one most is code, mapped from its file.
    const BYTES_MAX: u64 = 56 << 20;
    const ANONYMOUS_BYTES_MAX: u64 = 14 << 20;
    let home = TempDir::new().unwrap();
    synthetic::store_with(&home.path().join("store"), synthetic::records(10_000, 10_000)).await;
    let agent = Agent::start(home.path(), &["--manifests", "/nonexistent/cluster.yaml"]);
    let message = agent.ask(&synthetic::name(9_999), RecordType::A);
    assert_eq!(message.answers.len(), 1);
    let anonymous = agent.anonymous_bytes();
    assert!(anonymous < ANONYMOUS_BYTES_MAX, "{anonymous} bytes of records, caches and buffers");
    let (resident, most) = (agent.resident_bytes(), agent.resident_bytes_most());
    assert!(resident <= most && most < BYTES_MAX, "{resident} bytes resident, {most} while it started");
}
