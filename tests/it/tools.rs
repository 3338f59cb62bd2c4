//! The tools of the person on call: the real binary against a live admin socket, and against a store with no process.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{self, RData, rdata::A};
use hickory_proto::{
    rr::{Name, RecordType},
    serialize::txt::Parser,
};
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

use crate::support::{
    apiserver::{Apiserver, namespace, service},
    command::{Ran, holdfast},
};

mod asked;
mod input;
mod operator;
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
        return Inspected { answer: None, legs: vec![leg] };
    }
    let stored = UnixMillis(now().0 - 12_500);
    leg.cached = Some(Cached { stored, left, served_stale: left.is_none(), continues: false, held: None });
    let address = RData::A(A([192, 0, 2, 1].into()));
    let answers = vec![rr::Record::from_rdata(question.record_name(), 48, address)];
    let answers = if kind == Kind::Data { answers } else { Vec::new() };
    let age = if left.is_some() { Age::Fresh } else { Age::Stale { ttl: 30 } };
    Inspected { answer: Some(InspectedAnswer { rcode, kind, answers, authorities: Vec::new(), age }), legs: vec![leg] }
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

#[test]
fn a_dump_reads_back_through_manifests_as_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader.clone());
    for form in ["json", "yaml"] {
        let dump = ok(holdfast(["dump", "--admin", text(&live.socket), "-o", form]));
        let file = dir.path().join(format!("dump.{form}"));
        std::fs::write(&file, &dump).unwrap();
        let reading = manifests::read(&file, EndpointsMode::All).unwrap();
        assert_eq!(reading.rejections.total, 0);
        let (mut writer, again) = store::open();
        let origin = Origin::Watched { cluster: reading.cluster, new_epoch: false };
        writer.apply(What::Reset { origin, records: reading.records, as_of: UnixMillis(0) }).unwrap();
        assert_eq!(again.load().root(), reader.load().root(), "{form}");
        assert_eq!(again.load().version().cluster, reader.load().version().cluster, "{form}");
        let equal = holdfast(["diff", text(&live.socket), text(&file)]);
        assert_eq!((equal.code, equal.out.lines().last()), (0, Some("equal: 18 services")), "{form}");
        assert!(equal.out.contains(&format!("\nB {}: a dump, records confirmed ", file.display())), "{}", equal.out);
    }
}

#[test]
fn a_dump_of_nothing_says_that_there_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store::open();
    let live = Live::start(dir.path(), reader);
    let ran = holdfast(["dump", "--admin", text(&live.socket), "-o", "hosts"]);
    let expect = "holdfast: there are no records: none were on disk, and none came from the source\n";
    assert_eq!((ran.code, ran.err.as_str()), (1, expect), "{}", ran.out);
}

#[test]
fn a_diff_names_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    stored(&store, Duration::ZERO);
    let changed = std::fs::read_to_string(EXAMPLE).unwrap().replace("10.96.130.4", "10.96.130.6");
    let changed = changed.replace("name: payments-gateway", "name: payments");
    let file = dir.path().join("changed.yaml");
    std::fs::write(&file, changed).unwrap();
    let ran = holdfast(["diff", text(&store), text(&file)]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let expect = "\
~ default/frontend
    ClusterIP 10.96.130.4 -> ClusterIP 10.96.130.6
+ default/payments  ExternalName gateway.payments.example.com
- default/payments-gateway  ExternalName gateway.payments.example.com

3 differences: - 1 only in A, + 1 only in B, ~ 1 differ (A -> B); equal: 16 services
";
    let (head, differences) = ran.out.split_once("\n\n").unwrap();
    assert_eq!(differences, expect);
    let head: Vec<&str> = head.lines().collect();
    let stored = format!("A {}: a store on disk, records confirmed ", store.display());
    assert!(head[0].starts_with(&stored) && head[0].ends_with(" UTC)"), "{head:?}");
    assert_eq!(head[1], format!("B {}: manifests", file.display()));
    let one = holdfast(["diff", "-n", "data", text(&store), text(&file)]);
    assert_eq!((one.code, one.out.lines().last()), (0, Some("equal: 2 services")), "{}", one.out);
    assert!(one.out.contains("\nonly namespace data\n"), "{}", one.out);
    let json = holdfast(["diff", text(&store), text(&file), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["equal"], &json["differences"][1]["side"]), (&false.into(), &"only_b".into()));
    assert_eq!(
        (&json["a"]["kind"], &json["b"]["kind"], &json["services_equal"]),
        (&"store".into(), &"manifests".into(), &16.into())
    );
    // Beside its records a process keeps what it was started with.
    std::fs::write(store.join("settings.yaml"), "zone: cluster.local\n").unwrap();
    assert!(holdfast(["diff", text(&store), EXAMPLE]).out.ends_with("\nequal: 18 services\n"));
    std::fs::rename(store.join("records-1.redb"), store.join("records-1.redb.corrupt-1")).unwrap();
    let ran = holdfast(["diff", text(&store), EXAMPLE]);
    assert_eq!((ran.code, ran.err), (3, format!("holdfast: no store in {}\n", store.display())));
}

#[test]
fn a_diff_reads_pipes() {
    let script = "\"$0\" diff <(cat \"$1\") - < <(cat \"$1\") && ! \"$0\" diff \"$1\" - < /dev/null";
    let ran = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_holdfast"), EXAMPLE]).output().unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(err, "holdfast: manifests /dev/stdin: is empty: taken for half-written\n");
    let out = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(0), "{out}");
    assert!(out.contains("\nB -: manifests\n") && out.ends_with("\nequal: 18 services\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_takes_a_kubeconfig() {
    let dir = tempfile::tempdir().unwrap();
    let server = Apiserver::start().await;
    server.put_all([namespace("kube-system"), namespace("prod"), service("prod", "web", "10.96.0.7")]);
    let kubeconfig = server.kubeconfig(dir.path());
    let manifest = dir.path().join("cluster.yaml");
    let list = serde_json::json!({"kind": "List", "items": [
        namespace("default"), namespace("kube-system"), namespace("prod"), service("prod", "web", "10.96.0.8"),
    ]});
    std::fs::write(&manifest, list.to_string()).unwrap();
    let (a, b) = (text(&kubeconfig).to_owned(), text(&manifest).to_owned());
    let ran = tokio::task::spawn_blocking(move || holdfast(["diff", &a, &b])).await.unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (1, ""), "{}", ran.out);
    let listed = format!("A {}: the cluster, listed now\n", kubeconfig.display());
    let differs = "\n~ prod/web\n    ClusterIP 10.96.0.7 -> ClusterIP 10.96.0.8\n";
    assert!(ran.out.starts_with(&listed) && ran.out.contains(differs), "{}", ran.out);
    server.stop();
    let (a, b) = (text(&kubeconfig).to_owned(), text(&manifest).to_owned());
    let ran = tokio::task::spawn_blocking(move || holdfast(["diff", &a, &b])).await.unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(ran.err.starts_with(&format!("holdfast: kubeconfig {}: ", kubeconfig.display())), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
}

#[test]
fn a_dump_is_a_zone_that_others_read() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let zone = ok(holdfast(["dump", "--store", text(dir.path()), "-o", "zone"]));
    let (origin, sets) = Parser::new(&zone, None, None).parse().unwrap();
    assert_eq!(origin, Name::from_ascii("cluster.local.").unwrap());
    let count = |rtype| {
        sets.values()
            .filter(|set| set.record_type() == rtype)
            .map(|set| set.records_without_rrsigs().count())
            .sum::<usize>()
    };
    assert_eq!(count(RecordType::SOA), 1);
    assert_eq!(count(RecordType::CNAME), 2);
    // 14 cluster IPs, 2 ready endpoints under the service and under their own names, and the name server.
    assert_eq!(count(RecordType::A), 15 + 2 + 2 + 1);
    let lines = zone.lines().filter(|line| !line.starts_with([';', '$'])).count();
    let records: usize = sets.values().map(|set| set.records_without_rrsigs().count()).sum();
    assert_eq!(records, lines, "every line is a record of its own");
}

#[test]
fn a_dump_of_a_reverse_zone_is_a_zone_too() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let store = text(dir.path());
    let zone = ok(holdfast(["dump", "--store", store, "-o", "zone", "--reverse", "96.10.in-addr.arpa"]));
    let (origin, sets) = Parser::new(&zone, None, None).parse().unwrap();
    assert_eq!(origin, Name::from_ascii("96.10.in-addr.arpa.").unwrap());
    let pointers = sets.values().filter(|set| set.record_type() == RecordType::PTR).count();
    assert_eq!((pointers, sets.len()), (15, 15 + 2), "a pointer for each cluster IP, SOA and NS");
    let wrong = holdfast(["dump", "--store", store, "--reverse", "96.10.in-addr.arpa"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
}

#[test]
fn a_dump_is_a_hosts_file() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let hosts = ok(holdfast(["dump", "--store", text(dir.path()), "-o", "hosts"]));
    let line = "10.96.130.4\tfrontend.default.svc.cluster.local frontend.default.svc frontend.default";
    assert!(hosts.lines().any(|found| found == line), "{hosts}");
    assert!(hosts.contains("# 2 aliases (ExternalName) have no address and are left out\n"), "{hosts}");
}

#[test]
fn a_name_is_pinned_by_hand_listed_explained_and_let_go() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    let socket = text(&live.socket);
    assert_eq!(ok(holdfast(["pin", "--admin", socket])), "nothing is pinned\n");

    let name = "frontend.default.svc.cluster.local";
    let pin = ["pin", name, "10.9.9.9", "--for", "2h", "--reason", "the slice is wrong", "--admin", socket];
    let shown = ok(holdfast(pin));
    let row = "\nfrontend.default.svc.cluster.local.   10.9.9.9    5s    ";
    assert!(shown.contains(row) && shown.ends_with("   the slice is wrong\n1 name\n"), "{shown}");
    let status = ok(holdfast(["status", "--admin", socket]));
    assert!(status.contains(&format!("pinned      1 name PINNED by hand: {name}.\n")), "{status}");
    let lookup = ok(holdfast(["lookup", "frontend.default", "--admin", socket]));
    assert!(lookup.starts_with(&format!("{name}. 5 IN A 10.9.9.9\n\n")), "{lookup}");
    assert!(
        lookup.contains(": the slice is wrong\n") && lookup.contains("PINNED        by an operator for "),
        "{lookup}"
    );
    let offline = ok(holdfast(["lookup", "frontend.default", "--store", text(dir.path())]));
    assert!(offline.starts_with(&format!("{name}. 5 IN A 10.9.9.9\n")), "with nothing running too: {offline}");

    assert_eq!(ok(holdfast(["unpin", name, "--admin", socket])), "nothing is pinned\n");
    assert_eq!(holdfast(["unpin", name, "--admin", socket]).code, 1, "it was not pinned");
    // What `lookup` completes, `pin` and `unpin` do; a service that is gone is known by its namespace.
    for (given, pinned) in [
        ("frontend.default", name),
        ("gone.default", "gone.default.svc.cluster.local"),
        ("frontend.default.", "frontend.default"),
        ("www.example.com", "www.example.com"),
        ("frontend", name),
        ("default/frontend", name),
    ] {
        let shown = ok(holdfast(["pin", given, "10.9.9.9", "--admin", socket]));
        assert!(shown.contains(&format!("\n{pinned}.   10.9.9.9 ")), "{given}: {shown}");
        assert_eq!(ok(holdfast(["unpin", given, "--admin", socket])), "nothing is pinned\n", "{given}");
    }
    let lookup = ok(holdfast(["lookup", "frontend.default", "--admin", socket]));
    assert!(lookup.starts_with(&format!("{name}. 5 IN A 10.96.130.4\n")), "{lookup}");
    // The namespace is kubectl's, and one that is given goes before it.
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "{current-context: a, contexts: [{name: a, context: {cluster: c, namespace: kube-system}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    let pin = |words: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["pin", words[0], "10.9.9.9", "--admin", socket])
            .args(&words[1..])
            .env("KUBECONFIG", &kubeconfig)
            .output();
        let ran = ran.unwrap();
        String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
    };
    let missing = pin(&["frontend"]);
    assert!(missing.contains("no service is called \"frontend\" in namespace kube-system"), "{missing}");
    assert!(pin(&["frontend", "-n", "default"]).contains(&format!("\n{name}.   10.9.9.9 ")));
    let forced = pin(&["soon", "--force"]);
    assert!(forced.contains("\nsoon.kube-system.svc.cluster.local. ") && forced.contains("2 names"), "{forced}");
    assert_eq!(ok(holdfast(["unpin", "frontend", "--admin", socket])).lines().count(), 3, "one is left");
}

#[test]
fn a_pin_that_cannot_be_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    let socket = text(&live.socket);
    let long = "a".repeat(64);
    for (args, code, text) in [
        (vec!["pin", "db.prod", "--admin", socket], 2, "required"),
        (vec!["pin", "db.prod", "10.0.0", "--admin", socket], 2, "invalid IP address syntax"),
        (vec!["pin", "db.prod", "::1", "--for", "soon", "--admin", socket], 2, "is not a duration"),
        (vec!["pin", "db.prod", "::1", "--for", "0s", "--admin", socket], 2, "a pin lasts a second at least"),
        (vec!["pin", &long, "::1", "--admin", socket], 2, "is no name"),
        (
            vec!["pin", "foo", "::1", "--admin", socket],
            2,
            "no service is called \"foo\" in namespace default: give its namespace (-n), or the whole name with a final dot",
        ),
        (
            vec!["pin", "db.prod", "::1", "--ttl", "3600", "--admin", socket],
            2,
            "TTL 3600 s: the TTL of a pin is 0 to 300 s",
        ),
        (vec!["unpin", "--admin", socket], 2, "required"),
        (
            vec!["pin", "--admin", "/nowhere/agent.sock"],
            3,
            "Only a running process can do that: give its --admin SOCKET",
        ),
        (
            vec!["guard", "--admin", "/nowhere/agent.sock"],
            3,
            "no process is running at /nowhere/agent.sock: No such file",
        ),
        (vec!["lookup", "a..b", "--admin", socket], 2, "is no name"),
        (vec!["lookup", "", "--admin", socket], 2, "is no name"),
    ] {
        let ran = holdfast(&args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}");
        assert!(ran.err.contains(text), "{args:?}: {}", ran.err);
    }
}
