//! `status` in each state a failure leaves a process in, at 80 columns, against golden files that people review.
//!
//! With `UPDATE_GOLDEN=1` the files are written.

use std::path::PathBuf;

use super::*;
use crate::{
    admin::view::{ListenerDoc, Process, RecordsView, Until},
    dns::pins::PinSet,
    record::{Change, Endpoint, Kind, Service, ServiceKey, Snapshot, Version},
    report::{
        AddressState, ApiserverStatus, Deaths, ElectionStatus, Failing, FollowState, FollowStatus, InterfaceStatus,
        Keeper, KeeperKind, Measures, NodeStatus, QueriesStatus, Reach, RefusedReload, StreamStatus,
    },
    store::{
        Freshness, Rejection, SourceState,
        disk::DiskStatus,
        guard::{Held, HeldCounts, Reason},
    },
    sys::UnixMillis,
    zone,
};

/// 2024-12-11 18:30:00 UTC.
const NOW: UnixMillis = UnixMillis(1_733_941_800_000);
const SOCKET: &str = "/run/holdfast/agent.sock";

fn before(seconds: u64) -> UnixMillis {
    UnixMillis(NOW.0 - seconds * 1000)
}

/// The status of a process with two services whose source is in this state, and whose records were confirmed then.
fn status(
    source: Option<&str>,
    state: SourceState,
    as_of: Option<UnixMillis>,
    lost_since: Option<UnixMillis>,
) -> Status {
    let kind = Kind::ClusterIp(["10.96.0.1".parse().unwrap()].into());
    let endpoint = |ip: &str| Endpoint { ip: ip.parse().unwrap(), hostname: None, ports: [].into(), ready: true };
    let services = [
        Service::new(ServiceKey::new("prod", "web"), kind, vec![], vec![]),
        Service::new(ServiceKey::new("data", "db"), Kind::Headless, vec![], vec![endpoint("10.1.0.1")]),
    ];
    let version = Version { cluster: "8d2f0c1e".into(), epoch: 1_795_890_161_838, rev: 42 };
    let snapshot = match as_of {
        Some(_) => Snapshot::default().apply(services.map(|service| Change::Put(service.into())), version),
        None => Snapshot::default(),
    };
    let (held, pins) = (Held::default(), PinSet::default());
    let freshness = Freshness { as_of, source: state };
    let moment = RecordsView {
        snapshot: &snapshot,
        held: &held,
        pins: &pins,
        freshness: &freshness,
        source,
        lost_since,
        stale_after: Duration::from_secs(60),
        now: NOW,
    };
    let mut status = view::status(&moment, &zone::Config::default(), None, None, Rejections::default());
    status.holdfast = "0.1.0".into();
    status.state = Some(super::state(&status));
    status
}

fn process(role: &str, listeners: &[(&str, &str)]) -> Process {
    let listener = |(name, address): &(&str, &str)| ListenerDoc::new(*name, address);
    Process {
        role: role.into(),
        pid: 42,
        started: Time(before(273_900)),
        took_over_from: None,
        listeners: listeners.iter().map(listener).collect(),
        waiting_for: vec![],
    }
}

fn disk() -> DiskStatus {
    let mut disk = DiskStatus::off("");
    disk.path = Some("/var/lib/holdfast".into());
    (disk.state, disk.reason) = (DiskState::Ok, None);
    (disk.as_of, disk.committed_at) = (Some(before(31)), Some(before(30)));
    disk
}

fn forward() -> crate::report::ForwardStatus {
    serde_json::from_value(serde_json::json!({
        "zones": [
            { "zone": ".", "policy": "random", "down": false, "looped": false, "upstreams": [
                { "upstream": "10.0.0.2:53", "state": "up", "rtt_ms": 11.6, "failures_in_a_row": 0, "failures_total": 2,
                  "answers_total": 830, "answered_seconds_ago": 1, "without_edns": false, "folds_case": false },
            ]},
        ],
        "stale_answers_total": 0, "servfail_total": 3, "in_flight": 1,
        "cache": { "bytes": 1_200_000, "max_bytes": 67_108_864, "entries": 830 },
    }))
    .unwrap()
}

fn queries() -> QueriesStatus {
    QueriesStatus { seconds: 58, received: 48_720, servfail: 3, ..QueriesStatus::default() }
}

/// The apiserver as the hub that watches it sees it on a quiet day.
fn apiserver() -> ApiserverStatus {
    let measures = Measures { latency_seconds: 0.02, requests_per_minute: 8, ..Measures::default() };
    ApiserverStatus { server: "https://10.0.0.1:6443".into(), measures, ..ApiserverStatus::default() }
}

/// Services of `shop` that a list of the apiserver is missing.
fn held(rows: usize, missing: usize, of: u64, ends_at: Option<UnixMillis>) -> HeldDoc {
    let reason = Reason::List { missing: missing as u64, of };
    let row = |n: usize| HeldRow {
        what: HeldWhat::Service,
        name: format!("shop/s{n}"),
        endpoints: vec![],
        reason: reason.to_string(),
        rule: reason.rule().into(),
        since: Time(before(70)),
        until: if ends_at.is_some() { Until::Confirmed } else { Until::Released },
        ends_at: ends_at.map(Time),
        refused: false,
    };
    let counts = HeldCounts { services: missing, endpoints: 0, namespaces: 0 };
    HeldDoc { counts, rows: (0..rows).map(row).collect(), left_out: missing - rows }
}

fn config(of: &str) -> ConfigStatus {
    ConfigStatus {
        file: Some(format!("/etc/holdfast/config/{of}.yaml").into()),
        digest: "3f9c2a7d10b4e855".into(),
        read_at: Time(before(273_900)),
        waits_for_restart: vec![],
        refused: None,
    }
}

fn follows(state: FollowState) -> FollowStatus {
    FollowStatus {
        state,
        address: "10.96.0.11:7443".into(),
        path: vec!["hub2:7443".into(), "hub1:7443".into()],
        hubs: vec!["10.96.0.11:7443".into(), "10.0.3.7:7443".into()],
        resumed: Some("delta".into()),
        repaired_at: None,
        mismatches: 0,
        clock_ahead_ms: None,
    }
}

/// An agent behind two hubs.
fn agent(state: SourceState, as_of: Option<UnixMillis>, lost_since: Option<UnixMillis>) -> Status {
    let mut status = status(Some("hub 10.96.0.11:7443"), state, as_of, lost_since);
    status.process = Some(process("agent", &[("dns", "169.254.20.10:53"), ("http", "169.254.20.10:8080")]));
    status.disk = Some(disk().into());
    status.queries = Some(queries().into());
    status.forward = Some(forward().into());
    status.follows = Some(follows(FollowState::Live).into());
    status.config = Some(config("agent").into());
    status.node = Some(node(AddressState::Taken, None).into());
    status
}

/// The row of a node whose interface another process keeps.
fn node(state: AddressState, reason: Option<&str>) -> NodeStatus {
    let addresses = vec!["169.254.20.10".parse().unwrap(), "10.96.0.10".parse().unwrap()];
    let keeper = Keeper {
        kind: KeeperKind::Resident,
        pid: 7,
        since: Time(before(273_900)),
        interface: "nodelocaldns".into(),
        addresses: addresses.clone(),
        holdfast: "0.1.0".into(),
    };
    let interface = InterfaceStatus {
        name: "nodelocaldns".into(),
        addresses,
        state,
        since: Time(before(95)),
        reason: reason.map(str::to_owned),
        kept_elsewhere: true,
        keeper: Some(keeper),
    };
    NodeStatus { deaths: None, interface: Some(interface) }
}

/// The hub that watches the apiserver.
fn hub(state: SourceState, as_of: Option<UnixMillis>, lost_since: Option<UnixMillis>) -> Status {
    let mut status = status(Some("apiserver of this cluster"), state, as_of, lost_since);
    status.process = Some(process("hub", &[("stream", "0.0.0.0:7443"), ("http", "0.0.0.0:8080")]));
    status.disk = Some(disk().into());
    let standing = Standing::Holder { epoch: 1_795_890_161_838 };
    status.lease = Some(ElectionStatus { standing, renewed: Some(Time(before(1))), failing: None }.into());
    let stream = StreamStatus {
        name: "hub1:7443".into(),
        advertise: vec!["10.0.3.7:7443".into()],
        subscribers: 7,
        resumed: [("delta".to_owned(), 3), ("snapshot".to_owned(), 4)].into(),
        ..StreamStatus::default()
    };
    status.serves = Some(stream.into());
    status.apiserver = Some(apiserver().into());
    status
}

fn lost(reason: &str) -> SourceState {
    SourceState::Lost(reason.into())
}

fn read<T>(row: &mut Option<Row<T>>) -> &mut T {
    match row {
        Some(Row::Read(row)) => row,
        _ => panic!("a row that was set"),
    }
}

/// The states in which the cluster's DNS answers at the node's addresses.
fn away_from_the_node() -> [(&'static str, Status); 2] {
    let mut waiting = agent(SourceState::Starting, None, None);
    let why = "no records yet, and cluster_fallback gives no answer: names of cluster.local get no answer";
    waiting.node = Some(node(AddressState::Waiting, Some(why)).into());
    read_process(&mut waiting).waiting_for = vec!["first records".into(), "addresses".into()];
    let mut released = agent(SourceState::Up, Some(before(2)), None);
    let mut lived = node(AddressState::Released, Some("nothing is answered here for 3s"));
    lived.deaths = Some(Deaths {
        count: 4,
        last_at: Time(before(12)),
        how: "ended with code 101".into(),
        error: Some("panicked at src/x.rs:3:1: index out of bounds".into()),
        running: true,
    });
    released.node = Some(lived.into());
    [("addresses-not-taken-agent", waiting), ("died-and-released-agent", released)]
}

/// States that end by themselves, or by the end of their cause.
fn of_the_way_through() -> Vec<(&'static str, Status)> {
    // More than 50 services came after the backup, less than a fifth of all: held until a second list agrees.
    let ends_at = Some(UnixMillis(NOW.0 + 8_000));
    let mut restored = hub(SourceState::Up, Some(before(2)), None);
    read(&mut restored.apiserver).went_back_at = Some(Time(before(72)));
    restored.held = held(62, 62, 437, ends_at);
    let mut behind = agent(SourceState::Up, Some(before(2)), None);
    let follows = read(&mut behind.follows);
    (follows.resumed, follows.repaired_at) = (Some("repair".into()), Some(Time(before(70))));
    behind.held = held(62, 62, 437, ends_at);

    // The new process has loaded the store, and reaches no hub yet; the addresses are those of the process before.
    let mut upgrade = agent(SourceState::Starting, Some(before(4)), None);
    upgrade.follows =
        Some(FollowStatus { path: vec![], resumed: None, ..self::follows(FollowState::Connecting) }.into());
    upgrade.queries = Some(QueriesStatus { seconds: 1, received: 405, ..QueriesStatus::default() }.into());
    let process = read_process(&mut upgrade);
    (process.started, process.took_over_from, process.pid) = (Time(before(1)), Some(42), 57);
    process.waiting_for = vec!["addresses".into()];
    let mut node = node(AddressState::Waiting, None);
    let interface = node.interface.as_mut().expect("an interface");
    (interface.since, interface.kept_elsewhere, interface.keeper) = (Time(before(1)), false, None);
    upgrade.node = Some(node.into());

    let mut flood = agent(SourceState::Up, Some(before(2)), None);
    let client = "10.128.3.7".parse().ok();
    flood.queries = Some(
        QueriesStatus {
            seconds: 58,
            received: 391_204,
            servfail: 12_037,
            dropped: [("not_allowed".to_owned(), 12)].into(),
            over_share: 12_034,
            connections_refused: [("source".to_owned(), 210)].into(),
            most_refused: client,
        }
        .into(),
    );
    read(&mut flood.forward).in_flight = 512;

    let mut slow = hub(SourceState::Up, Some(before(2)), None);
    let stream = read(&mut slow.serves);
    (stream.fallen, stream.history_bytes) = (3, 67_108_864);
    stream.resumed.insert("repair".to_owned(), 3);
    vec![
        ("etcd-restored-hub", restored),
        ("etcd-restored-agent", behind),
        ("upgrade-in-progress-agent", upgrade),
        ("flood-agent", flood),
        ("slow-subscriber-hub", slow),
    ]
}

/// Every state, by the name of its file.
#[expect(clippy::too_many_lines, reason = "a table of states")]
fn states() -> Vec<(&'static str, Status)> {
    const TLS: &str = "https://10.0.0.1:6443: TLS handshake timed out (2 s)";
    let mut all = vec![
        ("healthy-agent", agent(SourceState::Up, Some(before(2)), None)),
        ("healthy-hub", hub(SourceState::Up, Some(before(2)), None)),
    ];
    let mut down = hub(lost(TLS), Some(before(125)), Some(before(123)));
    let failing = Failing { since: Time(before(123)), reason: "TLS handshake timed out (2 s)".into() };
    read(&mut down.apiserver).state = Reach::Unreachable;
    read(&mut down.lease).failing = Some(failing);
    read(&mut down.lease).renewed = Some(Time(before(125)));
    all.push(("apiserver-down-hub", down));
    let reason = format!("hub2:7443 → hub1:7443 → {TLS}");
    all.push(("apiserver-down-agent", agent(lost(&reason), Some(before(125)), Some(before(123)))));
    let mut alone = agent(lost("hub 10.96.0.11:7443: connection refused"), Some(before(1_205)), Some(before(1_203)));
    alone.follows = Some(FollowStatus { path: vec![], ..follows(FollowState::Stale) }.into());
    all.push(("all-hubs-down-agent", alone));
    let mut stale = agent(SourceState::Starting, Some(before(90_000)), None);
    stale.follows = Some(FollowStatus { path: vec![], ..follows(FollowState::Connecting) }.into());
    read_process(&mut stale).started = Time(before(3));
    all.push(("restarted-in-the-outage-agent", stale));
    let mut first = agent(SourceState::Starting, None, None);
    first.follows = Some(FollowStatus { path: vec![], hubs: vec![], ..follows(FollowState::Disk) }.into());
    first.disk = Some(DiskStatus::off("store.path is none").into());
    read_process(&mut first).waiting_for = vec!["first records".into()];
    all.push(("first-boot-without-a-hub-agent", first));
    let mut empty = hub(SourceState::Up, Some(before(2)), None);
    empty.held = held(100, 300, 300, None);
    all.push(("empty-list-hub", empty));
    let mut full = agent(SourceState::Up, Some(before(2)), None);
    let mut failing = disk();
    (failing.state, failing.reason) = (DiskState::Degraded, Some("no space left on device".into()));
    (failing.errors, failing.writing_since) = (3, Some(before(61)));
    failing.start =
        Start::SetAside { to: "/var/lib/holdfast/records-1.redb.corrupt-1".into(), reason: "checksum".into() };
    full.disk = Some(failing.into());
    all.push(("disk-full-agent", full));
    let mut upstream = agent(SourceState::Up, Some(before(2)), None);
    let zones = &mut read(&mut upstream.forward).zones;
    let mut corp = zones[0].clone();
    (corp.zone, corp.down) = ("corp.example.".into(), true);
    let failing = &mut corp.upstreams[0];
    failing.upstream = "10.0.0.53:53".into();
    (failing.state, failing.failures_in_a_row, failing.failures_total) = (crate::report::UpstreamState::Failing, 7, 7);
    (failing.rtt_ms, failing.answers_total, failing.answered_seconds_ago) = (None, 0, None);
    zones.push(corp);
    read(&mut upstream.forward).stale_answers_total = 12;
    all.push(("upstream-down-agent", upstream));
    let mut ignored = agent(SourceState::Up, Some(before(2)), None);
    let reason = "no clusterIP is assigned".to_owned();
    let object = Rejection { kind: "Service".into(), name: "prod/bad".into(), reason };
    ignored.rejected = Rejections { total: 3, objects: vec![object] };
    let config = read(&mut ignored.config);
    config.waits_for_restart = vec!["listen".into()];
    config.refused = Some(RefusedReload {
        at: Time(before(40)),
        reason: "/etc/holdfast/config/agent.yaml:3:1: ttll: unknown key, did you mean ttl?".into(),
    });
    all.push(("refused-reload-agent", ignored));
    let mut slow = hub(SourceState::Up, Some(before(9)), None);
    let measures = Measures {
        latency_seconds: 1.24,
        requests_per_minute: 12,
        busy_per_minute: 3,
        refused_per_minute: 1,
        abandoned_total: 2,
    };
    slow.apiserver = Some(ApiserverStatus { state: Reach::Slow, measures, ..apiserver() }.into());
    all.push(("apiserver-slow-hub", slow));
    let mut namesake = hub(SourceState::Starting, Some(before(40)), None);
    let standing = Standing::Namesake { name: "hub".into(), address: "10.0.0.1:7443".into(), renews: true };
    namesake.lease = Some(ElectionStatus { standing, renewed: None, failing: None }.into());
    namesake.apiserver = None;
    all.push(("namesake-hub", namesake));
    let mut restarted = agent(SourceState::Up, Some(before(2)), None);
    (read(&mut restarted.follows).resumed, read(&mut restarted.follows).repaired_at) =
        (Some("repair".into()), Some(Time(before(9))));
    all.push(("hub-restarted-agent", restarted));
    let mut empty = agent(SourceState::Up, Some(before(2)), None);
    empty.held = held(100, 300, 300, None);
    all.push(("empty-list-agent", empty));
    let mut denied = agent(SourceState::Up, Some(before(2)), None);
    let forward = read(&mut denied.forward);
    forward.held_names = 14;
    forward.zones[0].upstreams[0].lying = true;
    forward.keep = serde_json::from_value(serde_json::json!({
        "names": 6, "unresolved": [{ "name": "registry.example.com.", "answered": Time(before(4_000)) }] }))
    .unwrap();
    forward.hosts_file = serde_json::from_value(serde_json::json!({
        "path": "/host/etc/hosts", "names": 5, "written": Time(before(130)),
        "error": "/host/etc/hosts: Read-only file system (os error 30)" }))
    .unwrap();
    all.push(("upstream-denies-agent", denied));
    let mut follower = hub(SourceState::Up, Some(before(3)), None);
    follower.apiserver = None;
    follower.source.name = Some("hub 10.0.3.8:7443".into());
    let standing = Standing::Follower { leader: "hub2:7443".into(), address: "10.0.3.8:7443".into() };
    let failing = Failing { since: Time(before(123)), reason: "TLS handshake timed out (2 s)".into() };
    follower.lease = Some(ElectionStatus { standing, renewed: None, failing: Some(failing) }.into());
    all.push(("cut-off-hub-that-follows", follower));
    all.extend(away_from_the_node());
    all.extend(of_the_way_through());
    let mut store = status(None, SourceState::Starting, Some(before(2_460)), None);
    store.state = Some(StateWord::NoProcess);
    all.push(("no-process", store.clone()));
    all.push(("crashing-agent", store.clone()));
    store.state = Some(StateWord::Store);
    all.push(("store", store));
    all
}

fn read_process(status: &mut Status) -> &mut Process {
    status.process.as_mut().expect("a process")
}

#[test]
fn every_state_is_shown_as_in_its_golden_file() {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ctl/status/golden"));
    let mut seen = Vec::new();
    for (name, status) in states() {
        let place = match (name, status.process.is_some()) {
            (_, true) => SOCKET,
            ("crashing-agent", _) => {
                "/var/lib/holdfast/records-1.redb (no process is running at /run/holdfast/agent.sock: Connection refused (os \
                 error 111): the agent died 7 times and does not start again; the last process was killed by signal 9)"
            }
            ("no-process", _) => {
                "/var/lib/holdfast/records-1.redb (no process is running at /run/holdfast/agent.sock: No such file or \
                 directory (os error 2))"
            }
            _ => "/var/lib/holdfast/records-1.redb",
        };
        let shown = text(&status, place, false, Some(80));
        // Only a table may be wider: its columns are for the eye to follow.
        let rows = shown.split("\n\n").next().unwrap_or_default();
        assert!(rows.lines().all(|line| line.chars().count() <= 80), "{shown}");
        let path = dir.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(shown, golden, "{} differs; UPDATE_GOLDEN=1 writes it anew, for a review", path.display());
        seen.push(format!("{name}.txt"));
    }
    let on_disk = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in on_disk {
        assert!(seen.contains(&name), "{name} is the file of no state");
    }
}

#[test]
fn a_row_of_another_version_is_shown_as_such_and_not_dropped() {
    let raw = serde_json::json!({ "state": "elected", "by": 3 });
    let row: Row<ElectionStatus> = serde_json::from_value(raw).unwrap();
    let told = super::row(&row, |_| String::new());
    assert!(told.starts_with("NOT READABLE by this version of the tool (unknown variant `elected`"), "{told}");
}

#[test]
fn the_hosts_file_is_told_before_it_is_written_then_and_when_it_cannot_be() {
    let (now, error) = (Time(NOW), "/etc/hosts: Device or resource busy (os error 16)");
    let told = |written: Option<Time>, error: Option<&str>| {
        let file = serde_json::json!({ "path": "/etc/hosts", "names": 1, "written": written, "error": error });
        upstreams::hosts_file(&serde_json::from_value(file).unwrap(), now)
    };
    assert_eq!(told(None, None), "/etc/hosts: not written yet");
    assert_eq!(told(Some(now), None), "1 name of the keep list in /etc/hosts");
    assert_eq!(told(None, Some(error)), format!("NOT WRITTEN: {error}"));
    assert_eq!(told(Some(now), Some(error)), format!("NOT WRITTEN since 18:30:00 UTC, 1 name in it then: {error}"));
}

#[test]
fn zones_without_upstreams_and_those_of_views_are_named() {
    let mut forward = forward();
    forward.zones[0].zone = "corp.example.".into();
    forward.zones[0].missing = Some("/etc/resolv.conf: gone".into());
    let told = upstreams::upstreams(&forward);
    assert!(told.contains("; zone corp.example.: file to be FIXED (/etc/resolv.conf: gone); "), "{told}");
    forward.zones[0].upstreams.clear();
    let told = upstreams::upstreams(&forward);
    assert!(told.starts_with("none; zone corp.example. has NO UPSTREAMS (/etc/resolv.conf: gone); "), "{told}");
    let listen = vec!["127.0.0.2:53".parse().unwrap()];
    let mut zone = self::forward().zones[0].clone();
    zone.down = true;
    forward.views = vec![crate::report::ViewStatus { listen, zones: vec![zone], keep: None }];
    let told = upstreams::upstreams(&forward);
    assert!(told.contains("; zone . at 127.0.0.2:53 is DOWN;"), "{told}");
}
