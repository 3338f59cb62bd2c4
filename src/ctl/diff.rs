//! `holdfast diff`: what differs between two sets of records, wherever each of them is.

use std::{
    collections::BTreeSet,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    Exit, Output, cluster,
    reach::{Reached, Where, into_snapshot, snapshot_of},
    table::{count, some},
};
use crate::{
    admin::view::{self, ServiceDoc, Time, words},
    record::{Change, Endpoint, Kind, PARTIAL, Service, Snapshot, Version},
    source::{
        EndpointsMode,
        manifests::{self, Reading},
    },
    store::disk,
    sys::{Clock, read_file},
};

/// The most read from a pipe, in bytes: as much as from a file of manifests.
const PIPE_BYTES_MAX: u64 = 512 << 20;

/// Arguments of `holdfast diff`.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// First side: admin socket, store directory, dump, manifests or kubeconfig; `-` reads a dump or manifests from standard input
    pub a: PathBuf,
    /// Second side, in the same forms
    pub b: PathBuf,
    /// Compare only this namespace
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Endpoints to compare: manifests have all, most stores only those of headless services
    #[arg(long, default_value = "headless", value_name = "headless|all")]
    pub endpoints: EndpointsMode,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// The document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Diff {
    equal: bool,
    a: SideDoc,
    b: SideDoc,
    /// The namespace given with `-n`; null for all that both sides know.
    namespace: Option<String>,
    /// Number of services that are equal on both sides.
    services_equal: usize,
    differences: Vec<Difference>,
}

/// A side of the comparison.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SideDoc {
    place: String,
    /// `process`, `store`, `dump`, `manifests` or `apiserver`.
    kind: &'static str,
    /// When the source last confirmed the records; null for manifests, which have no age, and where there are no records.
    as_of: Option<Time>,
    age_seconds: Option<u64>,
    /// The known namespaces, if the records are of a part of the cluster; null if they are of the whole.
    known_namespaces: Option<Vec<String>>,
}

/// A difference between both sides.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
struct Difference {
    /// `namespace`, or `namespace/name`.
    name: String,
    what: What,
    /// `only_a`, `only_b` or `differs`.
    side: Side,
    /// The differences, in words.
    how: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum What {
    Namespace,
    Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Side {
    OnlyA,
    OnlyB,
    Differs,
}

/// Compares two sets of records.
pub fn run(args: &DiffArgs) -> anyhow::Result<Exit> {
    let (snapshot_a, side_a) = side(&args.a, args.endpoints)?;
    let (snapshot_b, side_b) = side(&args.b, args.endpoints)?;
    let namespace = args.namespace.as_deref();
    let differences = differences(&snapshot_a, &snapshot_b, namespace);
    let differ = |difference: &&Difference| difference.what == What::Service && difference.side != Side::OnlyB;
    let of_a = snapshot_a.services().filter(|service| {
        namespace.is_none_or(|namespace| service.namespace() == namespace)
            && snapshot_b.knows_namespace(service.namespace().as_bytes())
    });
    let document = Diff {
        equal: differences.is_empty(),
        services_equal: of_a.count() - differences.iter().filter(differ).count(),
        a: side_a,
        b: side_b,
        namespace: args.namespace.clone(),
        differences,
    };
    args.output.print(&document, || text(&document, Time(Clock::System.now())))?;
    Ok(if document.equal { Exit::Ok } else { Exit::No })
}

/// The records at a place, and what is known of them.
fn side(path: &Path, endpoints: EndpointsMode) -> anyhow::Result<(Snapshot, SideDoc)> {
    let Found { snapshot, kind, as_of } = read(path, endpoints)?;
    let known_namespaces = view::known_namespaces(&snapshot);
    let age = as_of.map(|as_of| as_of.0.age(Clock::System.now()));
    let place = path.display().to_string();
    let doc = SideDoc { place, kind, as_of, age_seconds: age.map(|age| age.as_secs()), known_namespaces };
    Ok((only(snapshot, endpoints), doc))
}

/// Records as they were read.
struct Found {
    snapshot: Snapshot,
    kind: &'static str,
    as_of: Option<Time>,
}

/// Reads whatever is there.
fn read(path: &Path, endpoints: EndpointsMode) -> anyhow::Result<Found> {
    let path = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let file = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    // A pipe can be read only once: it is not looked at before.
    if file.file_type().is_fifo() || file.file_type().is_char_device() {
        let text = read_file(path, PIPE_BYTES_MAX).with_context(|| path.display().to_string())?;
        return Ok(of_manifests(manifests::parse(path, text, endpoints)?));
    }
    let reached = if file.file_type().is_socket() {
        Where { admin: Some(path.to_owned()), store: None }.reach()
    } else if file.is_dir() && (disk::is_store(path) || !holds_manifests(path)) {
        Where { admin: None, store: Some(path.to_owned()) }.reach()
    } else if is_kubeconfig(path) {
        let (cluster, records) = cluster::list(path, endpoints)?;
        let snapshot = into_snapshot(records, Version { cluster, epoch: 1, rev: 1 });
        return Ok(Found { snapshot, kind: "apiserver", as_of: Some(Time(Clock::System.now())) });
    } else {
        let reading = manifests::read(path, endpoints)?;
        if let Some(reason) = reading.incomplete {
            anyhow::bail!("manifests {reason}");
        }
        return Ok(of_manifests(reading));
    };
    match reached? {
        Reached::Store(stored) => {
            let as_of = Some(Time(stored.loaded.as_of));
            Ok(Found { snapshot: stored.loaded.snapshot, kind: "store", as_of })
        }
        process @ Reached::Process(_) => {
            let dump = process.dump(None)?;
            Ok(Found { snapshot: snapshot_of(&dump)?, kind: "process", as_of: dump.holdfast.source.as_of })
        }
    }
}

fn of_manifests(reading: Reading) -> Found {
    let snapshot = into_snapshot(reading.records, Version { cluster: reading.cluster, epoch: 1, rev: 1 });
    let as_of = reading.as_of.map(Time);
    Found { snapshot, kind: if as_of.is_some() { "dump" } else { "manifests" }, as_of }
}

/// Whether a file is of the kind `Config`, as every kubeconfig is. Only its first bytes are looked at.
fn is_kubeconfig(path: &Path) -> bool {
    use std::io::Read as _;
    const HEAD_BYTES: u64 = 1 << 20;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let is_kind = |line: &str| {
        let line = line.trim_end().trim_end_matches(',').replace(['"', ' '], "");
        line == "kind:Config"
    };
    read.is_ok() && text.lines().any(is_kind)
}

fn holds_manifests(directory: &Path) -> bool {
    manifests::check(directory).is_ok()
}

/// The records without the endpoints that do not count.
fn only(snapshot: Snapshot, endpoints: EndpointsMode) -> Snapshot {
    if endpoints == EndpointsMode::All {
        return snapshot;
    }
    let drop: Vec<Change> = snapshot
        .services()
        .filter(|service| *service.kind() != Kind::Headless && !service.endpoints().is_empty())
        .map(|service| {
            let (key, kind, ports) = (service.key().clone(), service.kind().clone(), service.ports().to_vec());
            Change::Put(Service::new(key, kind, ports, vec![]).into())
        })
        .collect();
    let version = snapshot.version().clone();
    snapshot.apply(drop, version)
}

fn differences(a: &Snapshot, b: &Snapshot, namespace: Option<&str>) -> Vec<Difference> {
    let difference = |change: Change| match change {
        Change::Put(now) => match a.service_by_key(now.key()) {
            None => Some((now.key().to_string(), What::Service, Side::OnlyB, vec![summary(&now)])),
            Some(before) => Some((now.key().to_string(), What::Service, Side::Differs, how(before, &now))),
        },
        Change::Remove(key) => {
            let how = a.service_by_key(&key).map(|service| summary(service)).into_iter().collect();
            Some((key.to_string(), What::Service, Side::OnlyA, how))
        }
        // Answers are the same whether it was listed or only named by a service.
        Change::PutNamespace(name) => {
            (!a.has_namespace(name.as_bytes())).then(|| (name.to_string(), What::Namespace, Side::OnlyB, vec![]))
        }
        Change::Hold(..) | Change::Release(_) => None,
        Change::RemoveNamespace(name) => {
            (!b.has_namespace(name.as_bytes())).then(|| (name.to_string(), What::Namespace, Side::OnlyA, vec![]))
        }
    };
    let is_known = |change: &Change| {
        let of = match change {
            Change::Put(service) => service.namespace(),
            Change::Remove(key) => key.namespace(),
            Change::PutNamespace(name) | Change::RemoveNamespace(name) => name,
            // Records served on both sides are equal, held or not.
            Change::Hold(..) | Change::Release(_) => return false,
        };
        of != PARTIAL
            && namespace.is_none_or(|namespace| of == namespace)
            && [a, b].iter().all(|side| side.knows_namespace(of.as_bytes()))
    };
    let changes = b.diff(a).into_iter().filter(is_known).filter_map(difference);
    let mut differences: Vec<Difference> =
        changes.map(|(name, what, side, how)| Difference { name, what, side, how }).collect();
    differences.sort_unstable();
    differences
}

/// A service in a few words.
fn summary(service: &Service) -> String {
    let kind = kind(service.kind());
    match service.endpoints().len() {
        0 => kind,
        endpoints => format!("{kind}, {endpoints} endpoints"),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::ClusterIp(ips) => {
            let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
            format!("ClusterIP {}", ips.join(","))
        }
        Kind::Headless => "Headless".into(),
        Kind::ExternalName(target) => format!("ExternalName {target}"),
    }
}

/// How a service differs.
fn how(a: &Service, b: &Service) -> Vec<String> {
    let mut how = Vec::new();
    if a.kind() != b.kind() {
        how.push(format!("{} -> {}", kind(a.kind()), kind(b.kind())));
    }
    if a.ports() != b.ports() {
        let ports = |service: &Service| ServiceDoc::of(service).ports.join(",");
        how.push(format!("ports {} -> {}", ports(a), ports(b)));
    }
    let endpoint = |endpoint: &Endpoint| {
        let ports: Vec<String> = endpoint.ports.iter().map(|port| format!("{}{}", port.name, port.port)).collect();
        let ready = if endpoint.ready { "" } else { " (not ready)" };
        let hostname = endpoint.hostname.as_deref().map_or_else(String::new, |hostname| format!(" {hostname}"));
        (format!("{}{hostname}{ready}", endpoint.ip), ports)
    };
    let set = |service: &Service| service.endpoints().iter().map(endpoint).collect::<BTreeSet<_>>();
    let (of_a, of_b) = (set(a), set(b));
    how.extend(of_a.difference(&of_b).map(|(text, _)| format!("- endpoint {text}")));
    how.extend(of_b.difference(&of_a).map(|(text, _)| format!("+ endpoint {text}")));
    how
}

impl SideDoc {
    /// The set in a line: where it is, what it is, and how old.
    fn line(&self, name: &str, now: Time) -> String {
        let kind = match self.kind {
            "process" => "a running process",
            "store" => "a store on disk",
            "dump" => "a dump",
            "manifests" => "manifests",
            _ => "the cluster, listed now",
        };
        let age = match (self.as_of, self.kind) {
            (_, "apiserver" | "manifests") => String::new(),
            (Some(as_of), _) => format!(", records confirmed {} ago ({})", words(as_of.0.age(now.0)), as_of.short(now)),
            (None, _) => ", NO RECORDS".into(),
        };
        let known = self.known_namespaces.as_ref().map_or_else(String::new, |known| {
            format!("; knows only {}: other namespaces are not compared", some(known, 4).replace(',', ", "))
        });
        format!("{name} {}: {kind}{age}{known}\n", self.place)
    }
}

fn text(document: &Diff, now: Time) -> String {
    let Diff { a, b, namespace, services_equal, differences, .. } = document;
    let scope = namespace.as_ref().map_or_else(String::new, |namespace| format!("only namespace {namespace}\n"));
    let head = format!("{}{}{scope}\n", a.line("A", now), b.line("B", now));
    let of = |wanted| differences.iter().filter(|difference| difference.side == wanted).count();
    let summary = match differences.len() {
        0 => format!("equal: {}\n", count(*services_equal, "service")),
        many => format!(
            "\n{}: - {} only in A, + {} only in B, ~ {} differ (A -> B); equal: {}\n",
            count(many, "difference"),
            of(Side::OnlyA),
            of(Side::OnlyB),
            of(Side::Differs),
            count(*services_equal, "service"),
        ),
    };
    let mut lines = Vec::new();
    for Difference { name, what, side, how } in differences {
        let sign = match side {
            Side::OnlyA => "-",
            Side::OnlyB => "+",
            Side::Differs => "~",
        };
        let what = if *what == What::Namespace { "namespace " } else { "" };
        match (side, how.as_slice()) {
            (Side::Differs, how) => {
                lines.push(format!("{sign} {what}{name}"));
                lines.extend(how.iter().map(|line| format!("    {line}")));
            }
            (_, [summary, ..]) => lines.push(format!("{sign} {what}{name}  {summary}")),
            (_, []) => lines.push(format!("{sign} {what}{name}")),
        }
    }
    lines.push(String::new());
    let lines = if differences.is_empty() { String::new() } else { lines.join("\n") };
    format!("{head}{lines}{summary}")
}
