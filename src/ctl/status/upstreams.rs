//! The rows of `status` about upstreams and the cache.

use std::{fmt::Write as _, time::Duration};

use super::count_u64;
use crate::{
    admin::view::words,
    ctl::table::{Table, count, some},
    report::{
        CacheStatus, ForwardStatus, HostsFileStatus, KeepStatus, Time, UnresolvedName, UpstreamState, UpstreamStatus,
        ViewStatus, ZoneStatus,
    },
};

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

/// A file of the zone that cannot be used.
fn missing(zone: &ZoneStatus) -> Option<&String> {
    zone.missing.as_ref().or(zone.hosts_missing.as_ref()).or(zone.weights_missing.as_ref())
}

pub(super) fn is_degraded(forward: &ForwardStatus) -> bool {
    let failing = |upstream: &UpstreamStatus| upstream.state == UpstreamState::Failing || upstream.lying;
    zones(forward)
        .any(|(_, zone)| zone.down || zone.looped || missing(zone).is_some() || zone.upstreams.iter().any(failing))
}

pub(super) fn upstreams(forward: &ForwardStatus) -> String {
    let all: Vec<_> = zones(forward).flat_map(|(_, zone)| &zone.upstreams).collect();
    let failing = all.iter().filter(|upstream| upstream.state == UpstreamState::Failing).count();
    let mut text = match (all.len(), failing) {
        (0, _) => "none".to_owned(),
        (all, 0) => format!("{all} up or not asked yet"),
        (all, failing) => format!("{failing} of {all} FAILING"),
    };
    let lying = all.iter().filter(|upstream| upstream.lying).count();
    if lying > 0 {
        let _ = write!(text, "; {lying} DENIES good names, which are still served");
    }
    for (name, zone) in zones(forward) {
        let _ = match missing(zone) {
            Some(file) if zone.upstreams.is_empty() && zone.missing.is_some() => {
                write!(text, "; zone {name} has NO UPSTREAMS ({file})")
            }
            Some(file) => {
                write!(text, "; zone {name}: file to be FIXED ({file})")
            }
            None if zone.down => write!(text, "; zone {name} is DOWN"),
            None => Ok(()),
        };
    }
    for (name, _) in zones(forward).filter(|(_, zone)| zone.looped) {
        let _ = write!(text, "; forwarding LOOP: queries for zone {name} come back to this agent");
    }
    let _ = write!(text, "; queries pending: {}, answered SERVFAIL: {}", forward.in_flight, forward.servfail_total);
    text
}

pub(super) fn cache(forward: &ForwardStatus) -> String {
    let CacheStatus { bytes, max_bytes, entries } = forward.cache;
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let entries = count_u64(entries, "answer");
    let stale = count_u64(forward.stale_answers_total, "stale answer");
    let held = match forward.held_names {
        0 => String::new(),
        held => format!("; {} DENIED and still served, see `holdfast guard`", count(held, "name")),
    };
    format!("{entries}, {} of {} MiB; {stale} given{held}", mebibytes(bytes), mebibytes(max_bytes))
}

/// The keep list at each view where names of it cannot be resolved, with the addresses.
pub(super) fn keep_of_views(forward: &ForwardStatus) -> impl Iterator<Item = (String, &KeepStatus)> {
    forward.views.iter().filter_map(|view| {
        let keep = view.keep.as_ref().filter(|keep| !keep.unresolved.is_empty())?;
        let listen: Vec<String> = view.listen.iter().map(ToString::to_string).collect();
        Some((format!("at {}", listen.join(", ")), keep))
    })
}

pub(super) fn is_unresolved(forward: &ForwardStatus) -> bool {
    forward.keep.as_ref().is_some_and(|keep| !keep.unresolved.is_empty()) || keep_of_views(forward).next().is_some()
}

/// Names of the keep list that are shown; `-o json` has them all.
const UNRESOLVED_SHOWN: usize = 5;

pub(super) fn keep(keep: &KeepStatus, now: Time) -> String {
    let names = count(keep.names, "name");
    if keep.unresolved.is_empty() {
        return format!("{names} resolved and kept");
    }
    let told = |name: &UnresolvedName| match name.answered {
        Some(at) => format!("{} (answer of {})", name.name, at.short(now)),
        None => format!("{} (no answer known)", name.name),
    };
    let told: Vec<String> = keep.unresolved.iter().map(told).collect();
    format!("{names}, {} NOT RESOLVED now: {}", keep.unresolved.len(), some(&told, UNRESOLVED_SHOWN))
}

pub(super) fn hosts_file(file: &HostsFileStatus, now: Time) -> String {
    let names = count(file.names, "name");
    match (&file.error, file.written) {
        (None, None) => format!("{}: not written yet", file.path.display()),
        (None, Some(_)) => format!("{names} of the keep list in {}", file.path.display()),
        (Some(error), None) => format!("NOT WRITTEN: {error}"),
        (Some(error), Some(at)) => format!("NOT WRITTEN since {}, {names} in it then: {error}", at.short(now)),
    }
}

pub(super) fn is_hosts_file_failing(forward: &ForwardStatus) -> bool {
    forward.hosts_file.as_ref().is_some_and(|file| file.error.is_some())
}

pub(super) fn rows(forward: &ForwardStatus, rows_max: usize, width: Option<usize>) -> String {
    let mut table = Table::new(&["ZONE", "UPSTREAM", "STATE", "RTT", "LAST ANSWER", "ANSWERS", "FAILURES"]);
    for (name, upstream) in zones(forward)
        .flat_map(|(name, zone)| zone.upstreams.iter().map(move |upstream| (name.clone(), upstream)))
        .take(rows_max)
    {
        let state = match upstream.state {
            UpstreamState::Failing => format!("FAILING, {}x", upstream.failures_in_a_row),
            UpstreamState::Up if upstream.lying => "up, DENIES good names".into(),
            UpstreamState::Up => "up".into(),
            UpstreamState::Unknown => "not asked yet".into(),
        };
        let last = upstream.answered_seconds_ago;
        table.row([
            name,
            upstream.upstream.clone(),
            state,
            upstream.rtt_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.0} ms")),
            last.map_or_else(|| "never".into(), |seconds| format!("{} ago", words(Duration::from_secs(seconds)))),
            upstream.answers_total.to_string(),
            upstream.failures_total.to_string(),
        ]);
    }
    let all = zones(forward).map(|(_, zone)| zone.upstreams.len()).sum::<usize>();
    let more = all.saturating_sub(rows_max);
    let more = if more == 0 { String::new() } else { format!("and {more} more; -v shows all\n") };
    format!("\n{}{more}", table.text(width))
}
