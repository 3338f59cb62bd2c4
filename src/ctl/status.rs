//! `holdfast status`: first whether DNS works and since when not, then the rows in the order of how much they matter.

mod node;
mod queries;
mod streams;
mod upstreams;

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use super::{
    Exit, Output, guard,
    reach::{Reached, Where},
    table::{Rows, Table, count, some, width},
};
use crate::{
    admin::view::{
        self, DiskDoc, HeldDoc, HeldRow, HeldWhat, ListenerDoc, SourceDoc, SourceWord, StateWord, Status, Time, words,
    },
    record::HeldCounts,
    report::{ConfigStatus, NodeStatus, Row, Standing},
    store::{
        Rejections,
        disk::{DiskState, Start},
    },
};

/// Rows of a table that are printed without `-v`.
const ROWS_MAX: usize = 20;

#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 serving fresh records (or --store was given and read); 2 usage; 3 no process answers; 4 stale: \
records are older than stale_after; 5 lost: the apiserver or every hub is lost, answers come from memory; 6 nothing to serve."
)]
pub struct StatusArgs {
    #[command(flatten)]
    pub place: Where,
    /// Show every row of every table, with versions and digests
    #[arg(short, long)]
    pub verbose: bool,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

pub fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let (mut status, place) = match args.place.reach()? {
        Reached::Process(socket) => {
            let mut status: Status = Reached::document(&socket, "/status")?;
            status.state = Some(state(&status));
            (status, socket.display().to_string())
        }
        Reached::Store(stored) => {
            let rules = stored.zone();
            let mut status = view::status(&stored.moment(), &rules, None, None, Rejections::default());
            let file = stored.loaded.file.display();
            let (state, place) = match &stored.no_process {
                None => (StateWord::Store, file.to_string()),
                Some(error) => (StateWord::NoProcess, format!("{file} ({error})")),
            };
            status.state = Some(state);
            (status, place)
        }
    };
    let state = *status.state.get_or_insert(StateWord::Serving);
    args.output.print(&status, || text(&status, &place, args.verbose, width()))?;
    Ok(match state {
        StateWord::Serving | StateWord::Store => Exit::Ok,
        StateWord::Stale => Exit::Stale,
        StateWord::Lost => Exit::Lost,
        StateWord::Nothing => Exit::Nothing,
        StateWord::NoProcess => Exit::Unreadable,
    })
}

/// How DNS is at a process.
fn state(status: &Status) -> StateWord {
    let follows_nothing = follows_nothing(status);
    if !status.synced && !follows_nothing {
        StateWord::Nothing
    } else if status.source.state == SourceWord::Lost {
        StateWord::Lost
    } else if status.source.stale && !follows_nothing {
        StateWord::Stale
    } else {
        StateWord::Serving
    }
}

/// A process without a source: names of the cluster are forwarded, whatever the store has from before.
fn follows_nothing(status: &Status) -> bool {
    status.source.name.as_deref() == Some("none")
}

/// The status for people.
fn text(status: &Status, place: &str, verbose: bool, width: Option<usize>) -> String {
    let mut rows = Rows::new(width);
    let attention = attention(status);
    let attention = if attention.is_empty() { String::new() } else { format!(". LOOK AT: {}", attention.join(", ")) };
    rows.row("state", &format!("{}{attention}", headline(status)));
    let used = status.synced && !follows_nothing(status);
    if used {
        rows.row("serving", &serving(status));
    }
    rows.row("source", &source_state(&status.source, status.at));
    put(&mut rows, "apiserver", status.apiserver.as_ref(), |apiserver| streams::apiserver(apiserver, status.at));
    if used {
        rows.row("records", &age(&status.source, status.at));
    } else if status.synced {
        rows.row("records", &format!("NOT USED without a source: the store keeps {} from before", serving(status)));
    }
    if verbose {
        let view::VersionDoc { cluster, epoch, rev, digest } = &status.version;
        let cluster = if cluster.is_empty() { "(none yet)" } else { cluster };
        let digest = digest.as_deref().unwrap_or("unknown");
        rows.row("version", &format!("{epoch}.{rev} of cluster {cluster}, digest {digest}"));
    }
    if !status.held.is_empty() {
        let serves = status.serves.as_ref().and_then(|serves| serves.read()).map_or(0, |serves| serves.subscribers);
        let too = match serves {
            0 => String::new(),
            many => format!("; also served by {}", guard::followers(many)),
        };
        rows.row("held", &format!("{}; see `holdfast guard`{too}", held(&status.held)));
    }
    if !status.pinned.is_empty() {
        let names: Vec<String> = status.pinned.iter().map(|pin| pin.name.clone()).collect();
        rows.row("pinned", &format!("{} PINNED by hand: {}", count(names.len(), "name"), some(&names, 4)));
    }
    if let Some(namespaces) = &status.known_namespaces {
        rows.row("known", &known(namespaces));
    }
    put(&mut rows, "leader", status.lease.as_ref(), |lease| streams::leader(lease, status.at));
    put(&mut rows, "hub", status.follows.as_ref(), |follows| streams::hub(follows, status.at));
    put(&mut rows, "clients", status.serves.as_ref(), streams::clients);
    if let Some(disk) = &status.disk {
        rows.row("disk", &disk_text(disk, status, verbose));
    }
    put(&mut rows, "queries", status.queries.as_ref(), queries::queries);
    put(&mut rows, "upstreams", status.forward.as_ref(), upstreams::upstreams);
    if let Some(forward) = status.forward.as_ref().and_then(Row::read) {
        rows.row("cache", &upstreams::cache(forward));
        if let Some(keep) = &forward.keep {
            rows.row("keep", &upstreams::keep(keep, status.at));
        }
        for (at, keep) in upstreams::keep_of_views(forward) {
            rows.row("keep", &format!("{at}: {}", upstreams::keep(keep, status.at)));
        }
        if let Some(file) = &forward.hosts_file {
            rows.row("hosts", &upstreams::hosts_file(file, status.at));
        }
    }
    if status.rejected.total > 0 {
        rows.row("ignored", &format!("{} IGNORED until fixed", count_u64(status.rejected.total, "object")));
    }
    node_rows(&mut rows, status);
    put(&mut rows, "config", status.config.as_ref(), |config| configuration(config, status.at));
    process_rows(&mut rows, status);
    rows.row(if status.process.is_some() { "socket" } else { "file" }, place);
    let mut shown = rows.text();
    if !status.held.is_empty() {
        shown.push_str(&if verbose {
            held_table(&status.held, status.at, width)
        } else {
            held_groups(&status.held, status.at, width)
        });
    }
    if let Some(forward) = status.forward.as_ref().and_then(Row::read) {
        shown.push_str(&upstreams::rows(forward, if verbose { usize::MAX } else { ROWS_MAX }, width));
    }
    if status.rejected.total > 0 {
        shown.push_str(&rejected(status, if verbose { usize::MAX } else { ROWS_MAX }, width));
    }
    shown
}

fn known(namespaces: &[String]) -> String {
    format!(
        "ONLY {}: the records come from a dump of part of a cluster. Names of other namespaces get SERVFAIL, or are sent to \
         cluster_fallback if it is set",
        some(namespaces, 6).replace(',', ", ")
    )
}

fn process_rows(rows: &mut Rows, status: &Status) {
    if let Some(process) = &status.process {
        let ready = match process.waiting_for.as_slice() {
            [] => "ready".to_owned(),
            waiting => format!("NOT READY, waiting for {}", waiting.join(", ")),
        };
        let up = words(process.started.0.age(status.at.0));
        let before = process.took_over_from.map_or_else(String::new, |pid| format!("; took over from pid {pid}"));
        rows.row(
            "process",
            &format!("{} {}, pid {}, up {up}, {ready}{before}", process.role, status.holdfast, process.pid),
        );
        let listener = |listener: &ListenerDoc| {
            let open = if listener.open { " (OPEN to all networks: set allow)" } else { "" };
            format!("{} {}{open}", listener.name, listener.address)
        };
        let listeners: Vec<String> = process.listeners.iter().map(listener).collect();
        if !listeners.is_empty() {
            rows.row("listening", &listeners.join(", "));
        }
    }
}

fn node_rows(rows: &mut Rows, status: &Status) {
    if let Some(Row::Read(NodeStatus { interface, deaths })) = &status.node {
        if let Some(interface) = interface {
            rows.row("node", &node::interface(interface, status.at));
        }
        if let Some(deaths) = deaths {
            rows.row("deaths", &node::deaths(deaths, status.at));
        }
    } else if let Some(unreadable) = &status.node {
        rows.row("node", &row(unreadable, |_| String::new()));
    }
}

fn put<T>(rows: &mut Rows, name: &str, found: Option<&Row<T>>, show: impl FnOnce(&T) -> String) {
    if let Some(found) = found {
        rows.row(name, &row(found, show));
    }
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

fn count_u64(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

/// The verb for a process and its records: an agent answers, a hub streams.
fn works(status: &Status) -> (&'static str, &'static str) {
    match status.process.as_ref().map(|process| process.role.as_str()) {
        Some("hub") => ("streaming", "agents go on, DNS is not affected"),
        _ => ("answering", "DNS is not affected"),
    }
}

/// The rows below that say that something is wrong.
fn attention(status: &Status) -> Vec<&'static str> {
    let forward = status.forward.as_ref().and_then(Row::read);
    let upstreams = forward.is_some_and(upstreams::is_degraded);
    let config = status.config.as_ref().and_then(Row::read);
    let apiserver = status.apiserver.as_ref().and_then(Row::read);
    let leader = status.lease.as_ref().and_then(Row::read);
    let on_node = status.node.as_ref().and_then(Row::read);
    let rows = [
        ("apiserver", apiserver.is_some_and(|apiserver| streams::is_suspect(apiserver, status.at))),
        ("held", !status.held.is_empty()),
        ("known", status.known_namespaces.is_some()),
        (
            "leader",
            leader.is_some_and(|leader| {
                // With the apiserver lost this is no news.
                (leader.failing.is_some() && status.source.state != SourceWord::Lost)
                    || matches!(leader.standing, Standing::Namesake { renews: true, .. })
            }),
        ),
        ("disk", status.disk.as_ref().is_some_and(|disk| disk.state == DiskState::Degraded)),
        ("queries", status.queries.as_ref().and_then(Row::read).is_some_and(queries::is_flood)),
        ("upstreams", upstreams),
        ("cache", forward.is_some_and(|forward| forward.held_names > 0)),
        ("keep", forward.is_some_and(upstreams::is_unresolved)),
        ("hosts", forward.is_some_and(upstreams::is_hosts_file_failing)),
        ("ignored", status.rejected.total > 0),
        ("node", on_node.is_some_and(node::is_elsewhere)),
        ("deaths", on_node.is_some_and(|on_node| node::died_lately(on_node, status.at))),
        ("config", config.is_some_and(|config| config.refused.is_some() || !config.waits_for_restart.is_empty())),
    ];
    rows.into_iter().filter(|(_, wrong)| *wrong).map(|(name, _)| name).collect()
}

fn headline(status: &Status) -> String {
    let (works, unaffected) = works(status);
    let source = &status.source;
    let name = streams::lost_part(status);
    let lasting =
        |since: Option<Time>| since.map_or_else(String::new, |since| format!(" for {}", since.lasting(status.at)));
    let elsewhere = status.node.as_ref().and_then(Row::read).is_some_and(node::is_elsewhere);
    let not_ready = status.process.as_ref().is_some_and(|process| !process.waiting_for.is_empty());
    match status.state.unwrap_or(StateWord::Serving) {
        StateWord::NoProcess => format!(
            "NO PROCESS ANSWERS: DNS of this node may be down. This is the store on disk, unchanged for {}",
            source.as_of.map_or_else(|| "an unknown time".into(), |as_of| as_of.lasting(status.at))
        ),
        StateWord::Store => "a store on disk; no process was asked".into(),
        StateWord::Nothing => format!(
            "NOTHING TO SERVE: no records on disk and none from the source; {}",
            if elsewhere {
                "queries go to the cluster's DNS meanwhile"
            } else {
                "cluster names are asked of cluster_fallback, or get SERVFAIL"
            }
        ),
        StateWord::Lost => format!(
            "{name} LOST{}: {works} from memory, {unaffected}; changes since then are not seen",
            lasting(source.lost_since)
        ),
        StateWord::Stale => format!(
            "STALE: {works} from memory with records last confirmed {} ago; clients see EDE 3 \
            (Stale Answer)",
            source.age().unwrap_or_default()
        ),
        StateWord::Serving if elsewhere => "NOT ASKED: queries go to the cluster's DNS".into(),
        StateWord::Serving if source.name.as_deref() == Some("none") => "ok: no source, all names are forwarded".into(),
        StateWord::Serving if not_ready => format!("{works}, NOT READY yet"),
        StateWord::Serving => format!("ok: {works}, records are fresh"),
    }
}

fn serving(status: &Status) -> String {
    format!(
        "{}, {}, {} of zone {}",
        count(status.serving.services, "service"),
        count(status.serving.endpoints, "endpoint"),
        count(status.serving.namespaces, "namespace"),
        status.zone.trim_end_matches('.'),
    )
}

fn source_state(source: &SourceDoc, at: Time) -> String {
    let SourceDoc { name, state, reason, lost_since, .. } = source;
    let name = name.as_deref().unwrap_or("none");
    match state {
        SourceWord::Offline => "none, read from disk".into(),
        _ if name == "none" => "none: this process follows no cluster".into(),
        SourceWord::Up => format!("{name}: up"),
        SourceWord::Starting if name.starts_with("apiserver") => format!("{name}: first list is not complete"),
        SourceWord::Starting => format!("{name}: not reached since start"),
        SourceWord::Lost => {
            let lasting = lost_since.map_or_else(String::new, |since| format!(" for {}", since.lasting(at)));
            let reason = reason.as_deref().unwrap_or("no reason given");
            let lost = if streams::is_behind_a_hub(reason) { "up, the apiserver behind it " } else { "" };
            format!("{name}: {lost}NOT REACHABLE{lasting}: {}", streams::chain(reason))
        }
    }
}

fn age(source: &SourceDoc, at: Time) -> String {
    match (&source.as_of, source.age()) {
        // No process answers from them.
        (Some(as_of), Some(age)) if source.state == SourceWord::Offline => {
            format!("last confirmed {age} ago ({})", as_of.short(at))
        }
        (Some(as_of), Some(age)) if source.stale => {
            format!("STALE: last confirmed {age} ago ({}); clients see EDE 3 (Stale Answer)", as_of.short(at))
        }
        (Some(_), Some(age)) => format!("confirmed {age} ago"),
        _ => "none".into(),
    }
}

/// The state of the source and the age of the records, in one line.
pub fn source(source: &SourceDoc, at: Time) -> String {
    format!("{}; records {}", source_state(source, at), age(source, at))
}

fn parts(services: usize, endpoints: usize, namespaces: usize) -> String {
    let parts = [(services, "service"), (endpoints, "endpoint"), (namespaces, "namespace")];
    let held = parts.into_iter().filter(|(many, _)| *many > 0);
    held.map(|(many, noun)| count(many, noun)).collect::<Vec<_>>().join(", ")
}

pub(super) fn held(held: &HeldDoc) -> String {
    let HeldCounts { services, endpoints, namespaces } = held.counts;
    format!("{} DELETED at the source, still served (safety hold)", parts(services, endpoints, namespaces))
}

/// The held records, by reason and namespace.
pub(super) fn held_groups(held: &HeldDoc, at: Time, width: Option<usize>) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&HeldRow>> = BTreeMap::new();
    for row in &held.rows {
        let namespace = row.name.split_once('/').map_or(row.name.as_str(), |(namespace, _)| namespace);
        groups.entry((row.reason.as_str(), namespace)).or_default().push(row);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));
    let mut table = Table::new(&["NAMESPACE", "HELD", "SINCE", "ENDS", "WHY"]);
    for ((reason, namespace), rows) in groups.iter().take(ROWS_MAX) {
        let of = |what| rows.iter().filter(|row| row.what == what).count();
        let endpoints: usize = rows.iter().map(|row| row.endpoints.len()).sum();
        let parts = parts(of(HeldWhat::Service), endpoints, of(HeldWhat::Namespace));
        let since = rows.iter().map(|row| row.since).min().map_or_else(String::new, |since| ago(since, at));
        let ends = rows.first().map_or_else(String::new, |row| row.ends(at.0));
        table.row([(*namespace).to_owned(), parts, since, ends, (*reason).to_owned()]);
    }
    let more = groups.len().saturating_sub(ROWS_MAX);
    let more = if more == 0 { String::new() } else { format!("and {}; -v shows all\n", count(more, "more group")) };
    let unnamed = match held.left_out {
        0 => String::new(),
        unnamed => format!("and {unnamed} records not named here; `holdfast guard` names them\n"),
    };
    format!("\n{}{more}{unnamed}", table.text(width))
}

/// The held records, each in its row.
pub(super) fn held_table(held: &HeldDoc, at: Time, width: Option<usize>) -> String {
    let mut table = Table::new(&["HELD", "WHAT", "SINCE", "ENDS", "WHY"]);
    for row in &held.rows {
        let what = match row.what {
            HeldWhat::Service => "service".into(),
            HeldWhat::Endpoints => count(row.endpoints.len(), "endpoint"),
            HeldWhat::Namespace => "namespace".into(),
        };
        table.row([row.name.clone(), what, ago(row.since, at), row.ends(at.0), row.reason.clone()]);
    }
    let more = match held.left_out {
        0 => String::new(),
        more => format!("and {more} more; `holdfast guard` names all\n"),
    };
    format!("\n{}{more}", table.text(width))
}

fn ago(since: Time, at: Time) -> String {
    format!("{} ago", words(since.0.age(at.0)))
}

fn disk_text(disk: &DiskDoc, status: &Status, verbose: bool) -> String {
    let mut text = disk.path.as_deref().map_or_else(String::new, |path| format!("{}: ", path.display()));
    let _ = match (disk.state, &disk.reason) {
        (DiskState::Ok, _) => write!(text, "ok"),
        (DiskState::Off, reason) => write!(text, "off ({})", reason.as_deref().unwrap_or("not used")),
        (DiskState::Degraded, reason) => write!(
            text,
            "FAILING ({}): answers go on from memory, a restart would lose what is not written",
            reason.as_deref().unwrap_or("no reason given")
        ),
    };
    if let Some(as_of) = disk.as_of {
        let _ = write!(text, "; records on disk are {} old", words(as_of.0.age(status.at.0)));
    }
    if let Some(version) = disk.version.as_ref().filter(|_| verbose) {
        let _ = write!(text, " (version {}.{})", version.epoch, version.rev);
    }
    if let Some(at) = disk.committed_at {
        let _ = write!(text, ", written {}", ago(at, status.at));
    }
    if let Some(since) = disk.writing_since.filter(|since| since.0.age(status.at.0) > Duration::from_secs(5)) {
        let _ = write!(text, "; WRITING for {}", words(since.0.age(status.at.0)));
    }
    if disk.errors > 0 {
        let _ = write!(text, "; {}", count_u64(disk.errors, "error"));
    }
    let name = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let _ = match &disk.start {
        Start::Empty | Start::Loaded => Ok(()),
        Start::SetAside { to, reason } => write!(text, "; was corrupt at start ({reason}), kept as {}", name(to)),
        Start::Unreadable { reason } => write!(text, "; could not be read at start ({reason})"),
    };
    text
}

fn configuration(config: &ConfigStatus, at: Time) -> String {
    let file = config.file.as_deref().map_or_else(|| "flags only".into(), |file| file.display().to_string());
    let mut text = format!("{file}, digest {}, read {}", config.digest, ago(config.read_at, at));
    if !config.waits_for_restart.is_empty() {
        let _ = write!(text, "; CHANGED, waits for a restart: {}", some(&config.waits_for_restart, 6));
    }
    if let Some(refused) = &config.refused {
        let _ = write!(text, "; reload REFUSED {}: {}", ago(refused.at, at), refused.reason.replace('\n', "; "));
    }
    text
}

fn rejected(status: &Status, rows_max: usize, width: Option<usize>) -> String {
    let mut table = Table::new(&["IGNORED", "NAME", "WHY"]);
    for object in status.rejected.objects.iter().take(rows_max) {
        table.row([object.kind.clone(), object.name.clone(), object.reason.clone()]);
    }
    let shown = status.rejected.objects.len().min(rows_max) as u64;
    let more = status.rejected.total.saturating_sub(shown);
    let more = if more == 0 { String::new() } else { format!("and {more} more\n") };
    format!("\n{}{more}", table.text(width))
}

#[cfg(test)]
mod tests;
