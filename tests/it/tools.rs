//! The tools of the person on call: the real binary against a live admin socket, and against a store with no process.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{self, RData, rdata::A};
use holdfast::{
    admin::{self, Documents, Handles, Readiness, Rules, StatusInputs, view::ListenerDoc},
    dns::{
        self, Question,
        cache::{Age, Kind},
        forward::{Cached, Inspected, InspectedAnswer, Leg},
        pins::Pins,
    },
    source::{EndpointsMode, manifests},
    store::{self, Origin, Reader, What, Writer, disk},
    sys::{Clock, UnixMillis},
    wire::{Rcode, Rtype},
    zone,
};
use tokio_util::sync::CancellationToken;

use crate::support::command::{Ran, holdfast};

mod asked;
mod diff;
mod dump;
mod input;
mod operator;
mod pins;
mod transcript;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/online-boutique.yaml");

fn now() -> UnixMillis {
    Clock::System.now()
}

/// The example cluster, last vouched for `age` ago.
fn records(age: Duration) -> (Writer, Reader) {
    let reading = manifests::read(Path::new(EXAMPLE), EndpointsMode::Headless).unwrap();
    let (mut writer, reader) = store::open();
    let as_of = UnixMillis(now().0 - u64::try_from(age.as_millis()).unwrap());
    let origin = Origin::Watched { cluster: reading.cluster, new_epoch: false };
    writer.apply(What::Reset { origin, records: reading.records, as_of }).unwrap();
    (writer, reader)
}

fn disk_config(path: &Path) -> disk::Config {
    disk::Config { path: path.to_owned(), ..disk::Config::default() }
}

/// A store on disk that keeps following these records.
fn follow(path: &Path, reader: &Reader) -> disk::Follower {
    let metrics = disk::Metrics::register(&prometheus::Registry::new(), &Clock::System).unwrap();
    let (disk, _) = disk::open(&disk_config(path), &Clock::System, &metrics).unwrap();
    let follower = disk.follow(reader).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(follower.flush(Duration::from_secs(20))).unwrap();
    follower
}

/// A store on disk that nobody has open.
fn stored(path: &Path, age: Duration) {
    let (_writer, reader) = records(age);
    let follower = follow(path, &reader);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(follower.release(Duration::from_secs(20))).unwrap();
}

/// A cache with two answers, one of them expired while no upstream answers.
fn inspected(question: &Question) -> Inspected {
    let (left, kind, rcode) = match question.name.to_string().as_str() {
        "www.example.com." => (Some(Duration::from_secs(48)), Kind::Data, Rcode::NOERROR),
        "gone.example.com." => (None, Kind::NxDomain, Rcode::NXDOMAIN),
        _ => (None, Kind::NoData, Rcode::NOERROR),
    };
    let mut leg = Leg {
        name: question.name.clone(),
        zone: "example.com.".into(),
        upstreams: vec!["192.0.2.53:53".into()],
        cached: None,
    };
    if kind == Kind::NoData || question.rtype != Rtype::A {
        return Inspected { answer: None, legs: vec![leg], rule: None };
    }
    let stored = UnixMillis(now().0 - 12_500);
    leg.cached = Some(Cached { stored, left, served_stale: left.is_none(), continues: false, held: None });
    let address = RData::A(A([192, 0, 2, 1].into()));
    let answers = vec![rr::Record::from_rdata(question.record_name(), 48, address)];
    let answers = if kind == Kind::Data { answers } else { Vec::new() };
    let age = if left.is_some() { Age::Fresh } else { Age::Stale { ttl: 30 } };
    Inspected {
        answer: Some(InspectedAnswer { rcode, kind, answers, authorities: Vec::new(), age }),
        legs: vec![leg],
        rule: None,
    }
}

struct Inputs;

impl StatusInputs for Inputs {
    fn rules(&self) -> Rules {
        let zone = zone::Config { name_servers: vec!["127.0.0.1".parse().unwrap()], ..zone::Config::default() };
        Rules { zone, answers: dns::AnswerConfig::default(), discovery: Arc::default() }
    }

    fn disk(&self) -> Option<disk::DiskStatus> {
        Some(disk::DiskStatus::off("a test"))
    }

    fn inspect(&self, _: &dns::Rules, _: dns::Records<'_>, question: &Question) -> Inspected {
        inspected(question)
    }
}

/// An admin socket of a process that serves these records.
struct Live {
    _runtime: tokio::runtime::Runtime,
    _stop: tokio_util::sync::DropGuard,
    socket: PathBuf,
}

impl Live {
    fn start(dir: &Path, reader: Reader) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket = dir.join("agent.sock");
        let config = admin::Config { admin: socket.clone(), http: None, metrics: None, ..admin::Config::default() };
        let bound = runtime.block_on(async { admin::bind(&config) }).unwrap();
        let registry = prometheus::Registry::new();
        let documents = Documents {
            took_over_from: None,
            role: "agent",
            started: now(),
            listeners: vec![ListenerDoc::new("dns", &"127.0.0.1:5353")],
            source: format!("manifests {EXAMPLE}"),
            reader,
            clock: Clock::System,
            pins: Some(Pins::open(Some(dir), now())),
            inputs: Arc::new(Inputs),
        };
        let metrics = admin::Metrics::register(&registry).unwrap();
        let (more, given_away) = (axum::Router::new(), tokio::sync::watch::Sender::new(false).subscribe());
        let node = admin::NodeAddresses::new(|| Ok(Vec::new()));
        let handles = Handles { readiness: Readiness::default(), registry, metrics, documents, more, given_away, node };
        let stop = CancellationToken::new();
        runtime.spawn(bound.serve(handles, stop.clone()));
        Self { _runtime: runtime, _stop: stop.drop_guard(), socket }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ok(ran: Ran) -> String {
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    ran.out
}

#[test]
fn a_name_outside_is_looked_up_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    let lookup = |name| holdfast(["lookup", name, "--admin", text(&live.socket)]);
    let found = lookup("www.example.com");
    assert_eq!(found.code, 0, "{}{}", found.out, found.err);
    assert!(found.out.starts_with("www.example.com. 48 IN A 192.0.2.1\n"), "{}", found.out);
    assert!(found.out.contains("A: from zone example.com. (192.0.2.53:53) 12s ago, good for 48s\n"), "{}", found.out);
    let gone = lookup("gone.example.com.");
    assert_eq!(gone.code, 0, "{}", gone.out);
    let told = "A: no such name, from zone example.com. (192.0.2.53:53) 12s ago, expired, still served because no upstream \
                answers\n";
    assert!(gone.out.contains(told) && gone.out.contains("19 (Stale NXDOMAIN Answer)"), "{}", gone.out);
    let unknown = lookup("other.example.com.");
    assert_eq!(unknown.code, 1, "{}", unknown.out);
    assert!(
        unknown.out.starts_with(
            "other.example.com. is outside the cluster and not in the cache; it would be sent to upstream servers\n"
        ),
        "{}",
        unknown.out
    );
    let json = holdfast(["lookup", "www.example.com", "A", "-o", "json", "--admin", text(&live.socket)]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["answers"][0]["cached"]["ttl_left_seconds"], 48);
}

#[test]
fn a_store_with_no_process_answers_every_question() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::from_secs(3 * 3600 + 60));
    let store = text(dir.path());
    let status = ok(holdfast(["status", "--store", store]));
    assert!(status.starts_with("state       a store on disk; no process was asked\n"), "{status}");
    assert!(status.contains("serving     18 services, 3 endpoints, 5 namespaces of zone cluster.local\n"), "{status}");
    assert!(status.contains("records     last confirmed 3h1m ago ("), "{status}");

    let lookup = ok(holdfast(["lookup", "postgres.data", "--store", store]));
    assert!(lookup.starts_with("postgres.data.svc.cluster.local. 5 IN A "), "{lookup}");
    assert!(lookup.contains("headless service data/postgres: 2 of 3 endpoints are ready"), "{lookup}");
    assert!(lookup.contains("clients see 3 (Stale Answer)"), "{lookup}");

    let missed = holdfast(["lookup", "postgre.data", "A", "--store", store]);
    assert_eq!(missed.code, 1);
    assert!(missed.out.starts_with("postgre.data.svc.cluster.local. does not exist (NXDOMAIN)"), "{}", missed.out);
    assert!(missed.out.contains("did you mean \"postgres\"?"), "{}", missed.out);

    let dump = ok(holdfast(["dump", "--store", store, "-n", "data"]));
    let lines: Vec<&str> = dump.lines().collect();
    assert!(lines[0].starts_with("source: none, read from disk; records last confirmed 3h1m ago ("), "{dump}");
    assert!(lines[0].ends_with("; only namespace data"), "{dump}");
    assert!(lines[2].starts_with("NAMESPACE ") && lines[6] == "2 services, 3 endpoints, 1 namespace", "{dump}");
    let nowhere = holdfast(["dump", "--store", store, "-n", "nowhere"]);
    assert_eq!((nowhere.code, nowhere.err.as_str()), (1, "holdfast: there is no namespace \"nowhere\"\n"));
}

#[test]
fn a_store_that_a_process_has_open_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let _open = follow(dir.path(), &reader);
    let status = ok(holdfast(["status", "--store", text(dir.path()), "-o", "json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["serving"]["services"], 18);
    assert_eq!(status["source"]["state"], "offline");
}

#[test]
fn a_live_process_says_how_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    assert_eq!(std::fs::metadata(&live.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let socket = text(&live.socket);
    let status = ok(holdfast(["status", "--admin", socket]));
    assert!(status.starts_with("state       ok: answering, records are fresh\n"), "{status}");
    assert!(status.contains(": up\nrecords     confirmed "), "{status}");
    assert!(status.contains("listening   dns 127.0.0.1:5353"), "{status}");

    let object = store::Rejection { kind: "Service".into(), name: "prod/bad".into(), reason: "no clusterIP".into() };
    writer.apply(What::Rejected(store::Rejections { total: 1, objects: vec![object] })).unwrap();
    writer.apply(What::Lost { reason: "cluster.yaml is gone".into() }).unwrap();
    let status = holdfast(["status", "--admin", socket]);
    assert_eq!((status.code, status.err.as_str()), (5, ""), "a loss has a code of its own: {}", status.out);
    let status = status.out;
    assert!(status.starts_with("state       manifests LOST: answering from memory, DNS is not affected; "), "{status}");
    assert!(status.contains(": NOT REACHABLE: cluster.yaml is gone\n"), "{status}");
    assert!(status.contains("ignored     1 object IGNORED until fixed\n"), "{status}");
    assert!(status.ends_with("Service   prod/bad   no clusterIP\n"), "{status}");

    let lookup = ok(holdfast(["lookup", "10.96.130.4", "--admin", socket]));
    assert!(lookup.starts_with("4.130.96.10.in-addr.arpa. 5 IN PTR frontend.default.svc.cluster.local.\n"), "{lookup}");
    let bad = holdfast(["lookup", "a..b", "--admin", socket]);
    assert_eq!(bad.code, 2);
    assert!(bad.err.starts_with("holdfast: \"a..b\" is no name: ") && bad.err.lines().count() == 1, "{}", bad.err);
}

#[test]
fn scripts_tell_by_the_exit_code_whether_a_process_serves() {
    let dir = tempfile::tempdir().unwrap();
    let code = |socket: &Path| {
        let ran = holdfast(["status", "-o", "json", "--admin", text(socket)]);
        let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        (ran.code, document["state"].as_str().unwrap_or_default().to_owned())
    };
    let start = |name: &str, reader: Reader| {
        let home = dir.path().join(name);
        std::fs::create_dir(&home).unwrap();
        Live::start(&home, reader)
    };
    let (_fresh, reader) = records(Duration::ZERO);
    assert_eq!(code(&start("fresh", reader).socket), (0, "serving".into()));
    let (_old, reader) = records(Duration::from_secs(61));
    assert_eq!(code(&start("old", reader).socket), (4, "stale".into()));
    let (mut lost, reader) = records(Duration::ZERO);
    lost.apply(What::Lost { reason: "gone".into() }).unwrap();
    assert_eq!(code(&start("lost", reader).socket), (5, "lost".into()));
    let (_empty, reader) = store::open();
    assert_eq!(code(&start("empty", reader).socket), (6, "nothing".into()));

    let socket = dir.path().join("nobody.sock");
    let missing = holdfast(["status", "--admin", text(&socket), "-o", "json"]);
    assert_eq!(missing.code, 3, "{}", missing.err);
    let document: serde_json::Value = serde_json::from_str(&missing.out).unwrap();
    assert_eq!(document["exit_code"], 3, "errors are JSON too: {document}");
    let told = missing.err.strip_prefix("holdfast: ").unwrap().trim_end();
    assert_eq!(document["error"], told, "{document}");
}

#[test]
fn what_the_guard_holds_is_marked_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = records(Duration::ZERO);
    let strict = store::guard::Config { list_services_min: 0, list_percent: 0, ..store::guard::Config::default() };
    let mut writer = writer.guarded(strict, Clock::System);
    let live = Live::start(dir.path(), reader);
    let mut without = manifests::read(Path::new(EXAMPLE), EndpointsMode::Headless).unwrap();
    without.records.services.retain(|key, _| key.name() != "frontend");
    let origin = Origin::Watched { cluster: without.cluster, new_epoch: false };
    writer.apply(What::Reset { origin, records: without.records, as_of: now() }).unwrap();

    let socket = text(&live.socket);
    let status = ok(holdfast(["status", "--admin", socket]));
    assert!(status.contains("records are fresh. LOOK AT: held\n"), "{status}");
    let held = "held        1 service DELETED at the source, still served (safety hold); see `holdfast guard`\n";
    assert!(status.contains(held), "{status}");
    assert!(status.contains("default     1 service   0s ago   by a list in "), "{status}");
    let lookup = ok(holdfast(["lookup", "frontend.default", "--admin", socket]));
    assert!(lookup.starts_with("frontend.default.svc.cluster.local. 5 IN A 10.96.130.4\n"), "{lookup}");
    assert!(lookup.contains("HELD          the service: DELETED at the source, held for "), "{lookup}");
    assert!(lookup.contains(": the source's list is missing 1 of 18 services\n"), "{lookup}");
    let dump = ok(holdfast(["dump", "--admin", socket]));
    let held: Vec<&str> = dump.lines().filter(|line| line.ends_with("HELD")).collect();
    assert!(held.len() == 1 && held[0].contains(" frontend "), "{dump}");
    let json = ok(holdfast(["dump", "--admin", socket, "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["holdfast"]["held"]["rows"][0]["name"], "default/frontend");
}
