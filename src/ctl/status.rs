//! `holdfast status`: what a person wants to know first, in the order of how much it matters.

mod streams;

use std::{fmt::Write as _, time::Duration};

use super::{
    Exit, Output, json, print,
    reach::{Reached, Where},
    table::{Table, count, some},
};
use crate::{
    admin::view::{self, DiskDoc, HeldDoc, HeldWhat, SourceDoc, SourceWord, Status, words},
    report::{CacheStatus, ForwardStatus, Row, UpstreamState, ViewStatus, ZoneStatus},
    store::{
        Rejections,
        disk::{DiskState, Start},
    },
};

/// What `holdfast status` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Where to look
    #[command(flatten)]
    pub place: Where,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// Says how a process or a store stands.
pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let (status, place) = match args.place.reach()? {
        Reached::Process(socket) => (Reached::document(&socket, "/status")?, socket),
        Reached::Store(stored) => {
            let rules = stored.zone();
            let status = view::status(&stored.moment(), &rules, None, None, Rejections::default());
            (status, stored.loaded.file.clone())
        }
    };
    match args.output {
        Output::Json => print(&json(&status)?)?,
        Output::Table => print(text(&status, &place.display().to_string()).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// The status for people.
fn text(status: &Status, place: &str) -> String {
    let mut shown = String::new();
    let mut line = |name: &str, text: String| {
        let _ = writeln!(shown, "{name:<12}{text}");
    };
    line("serving", serving(status));
    line("source", source(&status.source));
    line("records", format!("version {}.{} of cluster {}", status.version.epoch, status.version.rev, cluster(status)));
    if !status.held.is_empty() {
        line("held", held(&status.held));
    }
    if !status.pinned.is_empty() {
        let names: Vec<String> = status.pinned.iter().map(|pin| pin.name.clone()).collect();
        line("pinned", format!("{} PINNED by an operator: {}", count(names.len(), "name"), some(&names, 4)));
    }
    if let Some(lease) = &status.lease {
        line("lease", row(lease, |lease| streams::lease(lease, status.at)));
    }
    if let Some(follows) = &status.follows {
        line("follows", row(follows, |follows| streams::follows(follows, status.at)));
    }
    if let Some(serves) = &status.serves {
        line("stream", row(serves, streams::serves));
    }
    if let Some(disk) = &status.disk {
        line("disk", disk_text(disk, status));
    }
    if let Some(forward) = &status.forward {
        line("upstreams", row(forward, upstreams));
        if let Some(forward) = forward.read() {
            line("cache", cache(forward));
        }
    }
    if status.rejected.total > 0 {
        line("rejected", format!("{}, not answered until mended", count_u64(status.rejected.total, "object")));
    }
    if let Some(process) = &status.process {
        let ready = match process.waiting_for.as_slice() {
            [] => "ready".to_owned(),
            waiting => format!("NOT READY, waiting for {}", waiting.join(", ")),
        };
        let up = words(process.started.0.age(status.at.0));
        line("process", format!("{} {}, pid {}, up {up}, {ready}", process.role, status.holdfast, process.pid));
        let listeners: Vec<String> =
            process.listeners.iter().map(|listener| format!("{} {}", listener.name, listener.address)).collect();
        if !listeners.is_empty() {
            line("listening", listeners.join(", "));
        }
    }
    line("asked", place.to_owned());
    if !status.held.is_empty() {
        shown.push_str(&held_table(&status.held, status.at));
    }
    if let Some(forward) = status.forward.as_ref().and_then(Row::read) {
        shown.push_str(&upstream_rows(forward));
    }
    if status.rejected.total > 0 {
        shown.push_str(&rejected(status));
    }
    shown
}

/// A row of another version that this one cannot read is shown as such.
fn row<T>(row: &Row<T>, show: impl FnOnce(&T) -> String) -> String {
    match row {
        Row::Read(row) => show(row),
        Row::Unreadable { reason, .. } => {
            format!("NOT READABLE by this version of the tool ({reason}); -o json prints it as it came")
        }
    }
}

fn cluster(status: &Status) -> &str {
    if status.version.cluster.is_empty() { "(none yet)" } else { &status.version.cluster }
}

fn count_u64(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn serving(status: &Status) -> String {
    if !status.synced && status.source.name.as_deref() == Some("none") {
        return "no records of its own: names of the cluster are forwarded like all others".into();
    }
    if !status.synced {
        return "NOTHING YET: no records on disk and none from the source".into();
    }
    format!(
        "{}, {}, {} of {}",
        count(status.serving.services, "service"),
        count(status.serving.endpoints, "endpoint"),
        count(status.serving.namespaces, "namespace"),
        status.zone.trim_end_matches('.'),
    )
}

/// How the source is, and how old the records are.
pub fn source(source: &SourceDoc) -> String {
    let mut text = source.name.as_deref().map_or_else(String::new, |name| format!("{name}: "));
    let _ = match (source.state, &source.reason) {
        (SourceWord::Starting, _) if source.name.as_deref() == Some("none") => {
            return "none: this process follows no cluster".into();
        }
        (SourceWord::Up, _) => write!(text, "up"),
        (SourceWord::Starting, _) => write!(text, "not heard of since the start"),
        (SourceWord::Offline, _) => write!(text, "none, read from disk"),
        (SourceWord::Lost, reason) => write!(text, "LOST ({})", reason.as_deref().unwrap_or("no reason given")),
    };
    let _ = match (&source.as_of, source.age()) {
        (Some(as_of), Some(age)) => {
            let stale = if source.stale { "STALE, " } else { "" };
            write!(text, "; records are {stale}{age} old (as of {as_of})")
        }
        _ => write!(text, "; there are no records"),
    };
    text
}

pub(super) fn held(held: &HeldDoc) -> String {
    let counts = held.counts;
    let parts = [(counts.services, "service"), (counts.endpoints, "endpoint"), (counts.namespaces, "namespace")];
    let parts: Vec<String> =
        parts.iter().filter(|(many, _)| *many > 0).map(|(many, noun)| count(*many, noun)).collect();
    format!("{} HELD: the source took them away, they are served on", parts.join(", "))
}

/// What is held, each in its row.
pub(super) fn held_table(held: &HeldDoc, at: view::Time) -> String {
    let mut table = Table::new(&["HELD", "WHAT", "SINCE", "UNTIL", "WHY"]);
    for row in &held.rows {
        let what = match row.what {
            HeldWhat::Service => "service".into(),
            HeldWhat::Endpoints => count(row.endpoints.len(), "endpoint"),
            HeldWhat::Namespace => "namespace".into(),
        };
        let since = format!("{} ago", words(row.since.0.age(at.0)));
        table.row([row.name.clone(), what, since, row.until(at.0), row.reason.clone()]);
    }
    let more = match held.left_out {
        0 => String::new(),
        more => format!("and {more} more, all of which `holdfast guard` names\n"),
    };
    format!("\n{}{more}", table.text())
}

fn disk_text(disk: &DiskDoc, status: &Status) -> String {
    let mut text = disk.path.as_deref().map_or_else(String::new, |path| format!("{}: ", path.display()));
    let _ = match (disk.state, &disk.reason) {
        (DiskState::Ok, _) => write!(text, "ok"),
        (DiskState::Off, reason) => write!(text, "off ({})", reason.as_deref().unwrap_or("not used")),
        (DiskState::Degraded, reason) => write!(text, "FAILING ({})", reason.as_deref().unwrap_or("no reason given")),
    };
    let age = |at: view::Time| words(at.0.age(status.at.0));
    if let (Some(version), Some(as_of)) = (&disk.version, disk.as_of) {
        let _ = write!(text, "; holds version {version}, {} old", age(as_of));
    }
    if let Some(at) = disk.committed_at {
        let _ = write!(text, "; written {} ago", age(at));
    }
    if let Some(since) = disk.writing_since.filter(|since| since.0.age(status.at.0) > Duration::from_secs(5)) {
        let _ = write!(text, "; WRITING for {}", age(since));
    }
    if disk.errors > 0 {
        let _ = write!(text, "; {}", count_u64(disk.errors, "error"));
    }
    let _ = match &disk.start {
        Start::Empty | Start::Loaded => Ok(()),
        Start::SetAside { to, reason } => {
            write!(text, "; was corrupt at start ({reason}) and is kept as {}", to.display())
        }
        Start::Unreadable { reason } => write!(text, "; could not be read at start ({reason})"),
    };
    text
}

/// Every zone, those of views with where these are asked.
fn zones(forward: &ForwardStatus) -> impl Iterator<Item = (String, &ZoneStatus)> {
    let of_view = |view: &'_ ViewStatus| {
        let listen: Vec<String> = view.listen.iter().map(ToString::to_string).collect();
        format!(" at {}", listen.join(", "))
    };
    let first = forward.zones.iter().map(|zone| (zone.zone.clone(), zone));
    let others = forward.views.iter().flat_map(move |view| {
        let at = of_view(view);
        view.zones.iter().map(move |zone| (format!("{}{at}", zone.zone), zone))
    });
    first.chain(others)
}

fn upstreams(forward: &ForwardStatus) -> String {
    let all: Vec<_> = zones(forward).flat_map(|(_, zone)| &zone.upstreams).collect();
    let failing = all.iter().filter(|upstream| upstream.state == UpstreamState::Failing).count();
    let mut text = match (all.len(), failing) {
        (0, _) => "none".to_owned(),
        (all, 0) => format!("{all}, none failing"),
        (all, failing) => format!("{failing} of {all} FAILING"),
    };
    for (name, zone) in zones(forward) {
        let _ = match &zone.missing {
            Some(file) if zone.upstreams.is_empty() => write!(text, "; zone {name} has NO UPSTREAMS ({file})"),
            Some(file) => write!(text, "; zone {name} has a file to be MENDED ({file})"),
            None if zone.down => write!(text, "; zone {name} is DOWN"),
            None => Ok(()),
        };
    }
    for (name, _) in zones(forward).filter(|(_, zone)| zone.looped) {
        let _ = write!(text, "; questions for zone {name} COME BACK to us");
    }
    let _ = write!(text, "; {} in flight, {} answered SERVFAIL", forward.in_flight, forward.servfail_total);
    text
}

fn cache(forward: &ForwardStatus) -> String {
    let CacheStatus { bytes, max_bytes, entries } = forward.cache;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let entries = count_u64(entries, "answer");
    let stale = forward.stale_answers_total;
    format!("{entries}, {} of {} MiB; {stale} given past their time", mebibytes(bytes), mebibytes(max_bytes))
}

fn upstream_rows(forward: &ForwardStatus) -> String {
    let mut table = Table::new(&["ZONE", "UPSTREAM", "STATE", "RTT", "LAST ANSWER", "ANSWERS", "FAILURES"]);
    for (name, zone) in zones(forward) {
        for upstream in &zone.upstreams {
            let state = match upstream.state {
                UpstreamState::Failing => format!("FAILING, {} in a row", upstream.failures_in_a_row),
                UpstreamState::Up => "up".into(),
                UpstreamState::Unknown => "not asked yet".into(),
            };
            let last = upstream.answered_seconds_ago;
            table.row([
                name.clone(),
                upstream.upstream.clone(),
                state,
                upstream.rtt_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms")),
                last.map_or_else(|| "never".into(), |seconds| format!("{} ago", words(Duration::from_secs(seconds)))),
                upstream.answers_total.to_string(),
                upstream.failures_total.to_string(),
            ]);
        }
    }
    format!("\n{}", table.text())
}

fn rejected(status: &Status) -> String {
    let mut table = Table::new(&["REJECTED", "NAME", "WHY"]);
    for object in &status.rejected.objects {
        table.row([object.kind.clone(), object.name.clone(), object.reason.clone()]);
    }
    let more = status.rejected.total.saturating_sub(status.rejected.objects.len() as u64);
    let more = if more == 0 { String::new() } else { format!("and {more} more\n") };
    format!("\n{}{more}", table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::view::{ListenerDoc, Moment, Process, Time},
        dns::pins::PinSet,
        record::{Change, Kind, Service, ServiceKey, Snapshot, Version},
        store::{Freshness, Rejection, SourceState, disk::DiskStatus, guard::Held},
        sys::UnixMillis,
        zone,
    };

    const NOW: UnixMillis = UnixMillis(1_733_941_800_000);

    fn before(seconds: u64) -> UnixMillis {
        UnixMillis(NOW.0 - seconds * 1000)
    }

    fn shown(
        freshness: &Freshness,
        process: Option<Process>,
        disk: Option<DiskStatus>,
        rejected: Rejections,
    ) -> String {
        let kind = Kind::ClusterIp(["10.96.0.1".parse().unwrap()].into());
        let service = Service::new(ServiceKey::new("prod", "web"), kind, vec![], vec![]);
        let version = Version { cluster: "uid".into(), epoch: 1, rev: 42 };
        let snapshot = Snapshot::default().apply([Change::Put(service.into())], version);
        let stale_after = Duration::from_secs(60);
        let source = process.as_ref().map(|_| "manifests cluster.yaml");
        let (held, pins) = (Held::default(), PinSet::default());
        let moment = Moment { snapshot: &snapshot, held: &held, pins: &pins, freshness, source, stale_after, now: NOW };
        text(&view::status(&moment, &zone::Config::default(), process, disk, rejected), "/run/holdfast/agent.sock")
    }

    #[test]
    fn a_healthy_agent_in_a_few_lines() {
        let process = Process {
            role: "agent".into(),
            pid: 42,
            started: Time(before(273_900)),
            listeners: vec![ListenerDoc { name: "dns".into(), address: "169.254.20.10:53".into() }],
            waiting_for: vec![],
        };
        let freshness = Freshness { as_of: Some(before(2)), source: SourceState::Up };
        let expect = format!(
            "\
serving     1 service, 0 endpoints, 1 namespace of cluster.local
source      manifests cluster.yaml: up; records are 2s old (as of 2024-12-11T18:29:58.000Z)
records     version 1.42 of cluster uid
disk        off (store.path is none)
process     agent {}, pid 42, up 3d4h, ready
listening   dns 169.254.20.10:53
asked       /run/holdfast/agent.sock
",
            env!("CARGO_PKG_VERSION")
        );
        let disk = Some(DiskStatus::off("store.path is none"));
        assert_eq!(shown(&freshness, Some(process), disk, Rejections::default()), expect);
    }

    #[test]
    fn what_is_wrong_is_in_capitals_and_named() {
        let process = Process {
            role: "agent".into(),
            pid: 42,
            started: Time(before(30)),
            listeners: vec![],
            waiting_for: vec!["first records".into()],
        };
        let freshness =
            Freshness { as_of: Some(before(11_045)), source: SourceState::Lost("connection refused".into()) };
        let mut disk = DiskStatus::off("");
        disk.path = Some("/var/lib/holdfast".into());
        (disk.state, disk.reason) = (DiskState::Degraded, Some("no space left on device".into()));
        (disk.errors, disk.writing_since) = (3, Some(before(61)));
        disk.start =
            Start::SetAside { to: "/var/lib/holdfast/records-1.redb.corrupt-1".into(), reason: "checksum".into() };
        let object =
            Rejection { kind: "Service".into(), name: "prod/bad".into(), reason: "no clusterIP is assigned".into() };
        let rejected = Rejections { total: 3, objects: vec![object] };
        let expect = format!(
            "\
serving     1 service, 0 endpoints, 1 namespace of cluster.local
source      manifests cluster.yaml: LOST (connection refused); records are STALE, 3h4m old (as of 2024-12-11T15:25:55.000Z)
records     version 1.42 of cluster uid
disk        /var/lib/holdfast: FAILING (no space left on device); WRITING for 1m1s; 3 errors; was corrupt at start (checksum) and is kept as /var/lib/holdfast/records-1.redb.corrupt-1
rejected    3 objects, not answered until mended
process     agent {}, pid 42, up 30s, NOT READY, waiting for first records
asked       /run/holdfast/agent.sock

REJECTED   NAME       WHY
Service    prod/bad   no clusterIP is assigned
and 2 more
",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(shown(&freshness, Some(process), Some(disk), rejected), expect);
    }

    #[test]
    fn upstreams_that_fail_are_named() {
        let forward: ForwardStatus = serde_json::from_value(serde_json::json!({
            "zones": [
                { "zone": ".", "policy": "random", "down": false, "looped": false, "upstreams": [
                    { "upstream": "1.1.1.1:53", "state": "up", "rtt_ms": 11.6, "failures_in_a_row": 0, "failures_total": 2,
                      "answers_total": 830, "answered_seconds_ago": 1, "without_edns": false, "folds_case": false },
                ]},
                { "zone": "corp.example.", "policy": "sequential", "down": true, "looped": false, "upstreams": [
                    { "upstream": "10.0.0.53:53", "state": "failing", "rtt_ms": null, "failures_in_a_row": 7,
                      "failures_total": 7, "answers_total": 0, "answered_seconds_ago": null, "without_edns": false,
                      "folds_case": false },
                ]},
            ],
            "stale_answers_total": 12, "servfail_total": 3, "in_flight": 1,
            "cache": { "bytes": 1_200_000, "max_bytes": 67_108_864, "entries": 830 },
        }))
        .unwrap();
        assert_eq!(upstreams(&forward), "1 of 2 FAILING; zone corp.example. is DOWN; 1 in flight, 3 answered SERVFAIL");
        assert_eq!(cache(&forward), "830 answers, 2 of 64 MiB; 12 given past their time");
        let rows = "
ZONE            UPSTREAM       STATE                 RTT     LAST ANSWER   ANSWERS   FAILURES
.               1.1.1.1:53     up                    12 ms   1s ago        830       2
corp.example.   10.0.0.53:53   FAILING, 7 in a row   -       never         0         7
";
        assert_eq!(upstream_rows(&forward), rows);

        let mut nobody = forward.clone();
        nobody.zones[1].missing = Some("/etc/resolv.conf: gone".into());
        assert!(upstreams(&nobody).contains("; zone corp.example. has a file to be MENDED (/etc/resolv.conf: gone); "));
        nobody.zones[1].upstreams.clear();
        let told = upstreams(&nobody);
        assert!(
            told.starts_with("1, none failing; zone corp.example. has NO UPSTREAMS (/etc/resolv.conf: gone); "),
            "{told}"
        );

        let listen = vec!["127.0.0.2:53".parse().unwrap()];
        let views = vec![ViewStatus { listen, zones: forward.zones[1..].to_vec() }];
        let forward = ForwardStatus { views, ..forward };
        let told = upstreams(&forward);
        assert!(
            told.starts_with("2 of 3 FAILING; zone corp.example. is DOWN; zone corp.example. at 127.0.0.2:53 is DOWN;")
        );
        let rows = upstream_rows(&forward);
        assert!(rows.contains("\ncorp.example. at 127.0.0.2:53   10.0.0.53:53   FAILING, 7 in a row"), "{rows}");
    }

    #[test]
    fn first_boot_says_that_nothing_is_served() {
        let text = shown(&Freshness::default(), None, None, Rejections::default());
        assert!(text.starts_with("serving     NOTHING YET: no records on disk and none from the source\n"), "{text}");
    }

    #[test]
    fn a_row_of_another_version_is_shown_as_such_and_not_dropped() {
        let raw = serde_json::json!({ "state": "elected", "by": 3 });
        let row: Row<crate::report::ElectionStatus> = serde_json::from_value(raw).unwrap();
        let told = super::row(&row, |_| String::new());
        assert!(told.starts_with("NOT READABLE by this version of the tool (unknown variant `elected`"), "{told}");
    }
}
