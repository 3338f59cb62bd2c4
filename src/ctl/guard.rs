//! `holdfast guard`: shows deletions that are held back and why, and releases them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    io::{BufRead as _, IsTerminal as _, Write as _},
};

use clap::Subcommand;

use super::{
    Exit, Failed, client,
    reach::Target,
    status::{held, held_table},
    table::{Table, broken, count, some, width},
};
use crate::{
    admin::{
        GuardDoc, OutsideReleasedDoc, ReleasedDoc,
        view::{HeldRow, HeldWhat, words},
    },
    report::{OutsideHold, Time},
};

/// Rows shown without `-v`.
const ROWS_MAX: usize = 20;
/// Above this many services in a hundred a release wants to be confirmed.
const CONFIRM_PERCENT: usize = 20;

/// Arguments of `holdfast guard`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 nothing is held, or it was released; 1 something is held, there is nothing to release, or only a hub can release it; 2 not confirmed; 3 no process answers."
)]
pub struct GuardArgs {
    /// What to do; without it, shows what is held and why
    #[command(subcommand)]
    action: Option<Action>,
    /// Show every held record
    #[arg(short, long)]
    verbose: bool,
    /// Which process
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Delete held records, as the source says; at the leader hub this reaches all hubs and agents. With NAME or --zone: believe
    /// upstreams that deny names outside the cluster, on this node
    Release {
        /// A full name outside the cluster
        #[arg(conflicts_with_all = ["zone", "namespace"])]
        name: Option<String>,
        /// Every name outside the cluster in this zone
        #[arg(long, value_name = "ZONE", conflicts_with = "namespace")]
        zone: Option<String>,
        /// Only records of this namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// Show the deletions, delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask for confirmation, even if more than 20 % of all services are deleted
        #[arg(short, long)]
        yes: bool,
        /// Which process
        #[command(flatten)]
        target: Target,
    },
    /// Accept the cluster that answers now in place of the one before (the UID of kube-system differs)
    AcceptCluster {
        /// Which process
        #[command(flatten)]
        target: Target,
    },
}

/// Shows what is held, or releases it.
pub fn run(args: &GuardArgs) -> anyhow::Result<Exit> {
    match &args.action {
        None => show(&args.target, args.verbose),
        Some(Action::Release { name, zone, namespace, dry_run, yes, target }) => match (name, zone) {
            (Some(name), _) => release_outside(target, ("name", name), *dry_run),
            (None, Some(zone)) => release_outside(target, ("zone", zone), *dry_run),
            (None, None) => release(target, namespace.as_deref(), *dry_run, *yes),
        },
        Some(Action::AcceptCluster { target }) => accept(target),
    }
}

fn show(target: &Target, verbose: bool) -> anyhow::Result<Exit> {
    let doc: GuardDoc = target.ask("/guard", None)?;
    target.output.print(&doc, || shown(&doc, verbose, width()))?;
    Ok(if doc.held.is_empty() && doc.outside.is_empty() { Exit::Ok } else { Exit::No })
}

fn shown(doc: &GuardDoc, verbose: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    if doc.held.is_empty() && doc.outside.is_empty() {
        text.push_str("nothing is held\n");
    }
    if !doc.held.is_empty() {
        for line in [held(&doc.held), decided_by(doc)] {
            let _ = writeln!(text, "{}", fit(&line, width));
        }
        text.push_str(&groups(doc, width));
        if verbose {
            text.push_str(&held_table(&doc.held, doc.at, width));
        }
    }
    if !doc.outside.is_empty() {
        let gap = if doc.held.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{gap}{}", outside(doc, if verbose { usize::MAX } else { ROWS_MAX }, width));
    }
    if doc.refusing > 0 {
        let _ = writeln!(
            text,
            "{} REFUSE deletions of this hub, which began without their records; if these are meant: holdfast guard release",
            followers(doc.refusing),
        );
    }
    text
}

/// The names outside the cluster that upstreams deny and that are served.
fn outside(doc: &GuardDoc, rows_max: usize, width: Option<usize>) -> String {
    let many = count(doc.outside.len(), "name");
    let mut text = format!("{many} outside the cluster DENIED by upstreams, still served their last good answer\n");
    let mut table = Table::new(&["NAME", "TYPE", "DENIED BY", "AS", "SINCE", "UNTIL", "REASON", "SERVED"]);
    for held in doc.outside.iter().take(rows_max) {
        table.row([
            held.name.clone(),
            held.rtype.clone(),
            held.upstream.clone(),
            held.denial.clone(),
            held.since.lasting(doc.at),
            until(held, doc.at),
            held.reason.clone(),
            some(&held.answers, 2),
        ]);
    }
    text.push_str(&table.text(width));
    if let left @ 1.. = doc.outside.len().saturating_sub(rows_max) {
        let _ = writeln!(text, "and {}; -v shows all", count(left, "more name"));
    }
    text.push_str("to let a name be gone: holdfast guard release NAME, or --zone ZONE\n");
    text
}

fn until(held: &OutsideHold, now: Time) -> String {
    held.until.map_or_else(|| "no end (keep list)".into(), |until| until.short(now))
}

/// A held name in one line.
pub(super) fn outside_line(held: &OutsideHold, now: Time) -> String {
    let OutsideHold { rtype, denial, upstream, since, answered, .. } = held;
    let (since, answered) = (since.lasting(now), answered.short(now));
    let until = until(held, now);
    format!(
        "{rtype}: {upstream} says {denial}, for {since}; the last good answer ({answered}) is served until {until}, \
         or `holdfast guard release`"
    )
}

fn release_outside(target: &Target, (key, value): (&str, &str), dry_run: bool) -> anyhow::Result<Exit> {
    let path = format!("/guard/release-outside?dry_run={dry_run}&{key}={}", client::encode(value));
    let doc: OutsideReleasedDoc = target.ask(&path, Some(Vec::new()))?;
    target.output.print(&doc, || released_outside(&doc, value, dry_run))?;
    Ok(if doc.released.is_empty() { Exit::No } else { Exit::Ok })
}

fn released_outside(doc: &OutsideReleasedDoc, value: &str, dry_run: bool) -> String {
    let verb = if dry_run { "would be released" } else { "released: upstreams are asked, and a denial is believed" };
    let mut text = String::new();
    for held in &doc.released {
        let _ = writeln!(text, "{} {} {verb}", held.name, held.rtype);
    }
    if doc.kept > 0 {
        let _ = writeln!(text, "{} on the keep list stay held: take them off `keep`", count(doc.kept, "answer"));
    } else if doc.released.is_empty() {
        let _ = writeln!(text, "nothing is held of {value}");
    }
    text
}

pub(super) fn followers(many: u64) -> String {
    if many == 1 { "1 connected agent or hub".into() } else { format!("{many} connected agents or hubs") }
}

fn fit(text: &str, width: Option<usize>) -> String {
    broken(text, width.unwrap_or(usize::MAX)).join("\n")
}

/// Where the decision is made, and how many nodes serve what is held.
fn decided_by(doc: &GuardDoc) -> String {
    let serve = doc.followers.map_or_else(String::new, |many| format!("; also served by {}", followers(many)));
    if doc.judges {
        return format!("decided by this process{serve}");
    }
    match doc.hubs.as_slice() {
        [] => format!("decided by a hub that is not reached now{serve}"),
        hubs => format!("decided by the hub; release it there: {}{serve}", hubs.join(" → ")),
    }
}

/// The held records by reason, rule and end, and under each the namespaces.
fn groups(doc: &GuardDoc, width: Option<usize>) -> String {
    #[derive(Default)]
    struct Group<'a> {
        first: Option<&'a HeldRow>,
        namespaces: BTreeMap<&'a str, (usize, usize, Vec<&'a str>)>,
    }
    let mut order: Vec<(&str, String, bool)> = Vec::new();
    let mut groups: BTreeMap<(&str, String, bool), Group<'_>> = BTreeMap::new();
    for row in &doc.held.rows {
        let key = (row.reason.as_str(), row.until(doc.at.0), row.refused);
        let group = match groups.entry(key.clone()) {
            Entry::Vacant(entry) => {
                order.push(key);
                entry.insert(Group::default())
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        group.first = group.first.filter(|first| first.since.0 <= row.since.0).or(Some(row));
        let (namespace, name) = row.name.split_once('/').unwrap_or((&row.name, ""));
        let (services, endpoints, names) = group.namespaces.entry(namespace).or_default();
        *services += usize::from(row.what == HeldWhat::Service);
        *endpoints += row.endpoints.len();
        if !name.is_empty() {
            names.push(name);
        }
    }
    let (mut text, mut rows, mut left) = (String::new(), 0, 0);
    for key in order {
        let Some(Group { first: Some(first), namespaces }) = groups.remove(&key) else { continue };
        let (reason, until, refused) = key;
        let by = if refused { " (refused here: the hub could not know these records)" } else { "" };
        let since = words(first.since.0.age(doc.at.0));
        let _ = writeln!(text, "\n{}", fit(&format!("{reason}{by}"), width));
        for line in [format!("rule: {}", first.rule), format!("held for {since}, {until}")] {
            let _ = writeln!(text, "  {}", fit(&line, width.map(|width| width - 2)).replace('\n', "\n  "));
        }
        let mut table = Table::new(&["NAMESPACE", "SERVICES", "ENDPOINTS", "NAMES"]);
        for (namespace, (services, endpoints, names)) in namespaces {
            if rows >= ROWS_MAX {
                left += 1;
                continue;
            }
            rows += 1;
            let mut shown = names[..names.len().min(3)].join(", ");
            if names.len() > 3 {
                let _ = write!(shown, ", … {} more", names.len() - 3);
            }
            table.row([namespace.to_owned(), services.to_string(), endpoints.to_string(), shown]);
        }
        text.push_str(&table.text(width));
    }
    if left > 0 {
        let _ = writeln!(text, "and {}; -v shows every record", count(left, "more namespace"));
    }
    text
}

fn release(target: &Target, namespace: Option<&str>, dry_run: bool, yes: bool) -> anyhow::Result<Exit> {
    let query = namespace.map_or_else(String::new, |name| format!("&namespace={}", client::encode(name)));
    let post = |dry_run: bool| -> anyhow::Result<ReleasedDoc> {
        let path = format!("/guard/release?dry_run={dry_run}{query}");
        target.ask(&path, Some(Vec::new()))
    };
    let would = post(true)?;
    let deleted = would.before.services.saturating_sub(would.after.services);
    let doc = if dry_run {
        would
    } else {
        if !yes && deleted * 100 > would.services * CONFIRM_PERCENT && !confirmed(deleted, would.services)? {
            return Ok(Exit::No);
        }
        post(false)?
    };
    let nothing = doc.before == doc.after && doc.changes == 0;
    let elsewhere = doc.held_upstream > 0 && nothing;
    // More likely a typing error than what was meant.
    let unknown = nothing && namespace.is_some();
    target.output.print(&doc, || match namespace {
        _ if elsewhere => elsewhere_text(&doc),
        Some(name) if nothing => format!("nothing is held of namespace {name:?}\n"),
        _ => released(&doc, dry_run),
    })?;
    Ok(if elsewhere || unknown { Exit::No } else { Exit::Ok })
}

fn elsewhere_text(doc: &ReleasedDoc) -> String {
    let held = count(doc.held_upstream, "record");
    match doc.hubs.as_slice() {
        [] => format!("{held} held by the hub, which is not reached now: run `holdfast guard release` there\n"),
        hubs => format!("{held} held by the hub: run `holdfast guard release` there ({})\n", hubs.join(" → ")),
    }
}

/// Asks the operator; without a terminal to ask on, `--yes` must say so.
fn confirmed(deleted: usize, of: usize) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let told = format!(
            "this deletes {deleted} of {of} services, more than {CONFIRM_PERCENT} %: give --yes if it is meant"
        );
        return Err(Failed::Usage(told).into());
    }
    let mut out = std::io::stderr().lock();
    write!(out, "This deletes {deleted} of {of} services on every node. Go on? [y/N] ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn accept(target: &Target) -> anyhow::Result<Exit> {
    let doc: ReleasedDoc = target.ask("/guard/accept-cluster", Some(Vec::new()))?;
    let accepted =
        "accepted: the next full list of the cluster that answers replaces the records, here and on every agent\n";
    target.output.print(&doc, || accepted.into())?;
    Ok(Exit::Ok)
}

fn released(doc: &ReleasedDoc, dry_run: bool) -> String {
    let ReleasedDoc { before, after, changes, .. } = doc;
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    let mut text = String::new();
    for (what, before, after) in [
        ("services", before.services, after.services),
        ("endpoints", before.endpoints, after.endpoints),
        ("namespaces", before.namespaces, after.namespaces),
    ] {
        let _ = writeln!(text, "{what:<12}{} {verb}, {after} still held", before.saturating_sub(after));
    }
    let changed = if dry_run { "would change" } else { "changed" };
    let _ = writeln!(text, "{:<12}{changes} {changed}", "records");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::view::{HeldDoc, Until},
        store::guard::HeldCounts,
        sys::UnixMillis,
    };

    fn row(name: &str, reason: &str) -> HeldRow {
        HeldRow {
            what: HeldWhat::Service,
            name: name.into(),
            endpoints: Vec::new(),
            reason: reason.into(),
            rule: "the rule".into(),
            since: Time(UnixMillis(1_000)),
            until: Until::Released,
            ends_at: None,
            refused: false,
        }
    }

    fn doc(rows: Vec<HeldRow>) -> GuardDoc {
        let counts = HeldCounts { services: rows.len(), ..HeldCounts::default() };
        GuardDoc {
            at: Time(UnixMillis(71_000)),
            held: HeldDoc { counts, rows, left_out: 0 },
            judges: true,
            hubs: Vec::new(),
            followers: Some(7),
            refusing: 0,
            outside: Vec::new(),
        }
    }

    #[test]
    fn held_records_are_shown_by_reason_and_namespace() {
        let shop = (0..5).map(|n| row(&format!("shop/s-{n}"), "a list"));
        let shown = shown(&doc(shop.chain([row("ci/s-0", "a list"), row("ci/s-1", "deletes")]).collect()), false, None);
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "7 services DELETED at the source, still served (safety hold)",
                "decided by this process; also served by 7 connected agents or hubs",
                "",
                "a list",
                "  rule: the rule",
                "  held for 1m10s, until an operator runs `holdfast guard release`",
                "NAMESPACE   SERVICES   ENDPOINTS   NAMES",
                "ci          1          0           s-0",
                "shop        5          0           s-0, s-1, s-2, … 2 more",
                "",
                "deletes",
                "  rule: the rule",
                "  held for 1m10s, until an operator runs `holdfast guard release`",
                "NAMESPACE   SERVICES   ENDPOINTS   NAMES",
                "ci          1          0           s-1",
            ]
        );
    }

    #[test]
    fn a_rehearsal_says_what_would_happen() {
        let held = |services| HeldCounts { services, ..HeldCounts::default() };
        let doc = ReleasedDoc {
            before: held(73),
            after: held(0),
            changes: 73,
            services: 136,
            held_upstream: 0,
            hubs: Vec::new(),
        };
        let rehearsed = released(&doc, true);
        assert!(rehearsed.contains("73 would be deleted, 0 still held\n"), "{rehearsed}");
        assert!(rehearsed.ends_with("records     73 would change\n"), "{rehearsed}");
        assert!(released(&doc, false).ends_with("records     73 changed\n"));
    }

    #[test]
    fn no_more_than_twenty_namespaces_are_shown() {
        let shown = shown(&doc((0..25).map(|n| row(&format!("ns-{n:02}/s"), "a list")).collect()), false, None);
        assert!(shown.contains("ns-19") && !shown.contains("ns-20"), "{shown}");
        assert!(shown.ends_with("and 5 more namespaces; -v shows every record\n"), "{shown}");
    }

    #[test]
    fn a_release_at_the_wrong_place_names_the_right_one() {
        let mut doc = ReleasedDoc {
            before: HeldCounts::default(),
            after: HeldCounts::default(),
            changes: 0,
            services: 100,
            held_upstream: 80,
            hubs: vec!["10.0.3.7:7443".into(), "hub1".into()],
        };
        let there = "80 records held by the hub: run `holdfast guard release` there (10.0.3.7:7443 → hub1)\n";
        assert_eq!(elsewhere_text(&doc), there);
        doc.hubs.clear();
        let unknown = "80 records held by the hub, which is not reached now: run `holdfast guard release` there\n";
        assert_eq!(elsewhere_text(&doc), unknown);
    }
}
