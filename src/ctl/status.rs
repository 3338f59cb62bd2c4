//! `holdfast status`: what a person wants to know first, in the order of how much it matters.

use std::{fmt::Write as _, time::Duration};

use super::{
    Exit, Output, json, print,
    reach::{Reached, Where},
    table::{Table, count},
};
use crate::{
    admin::view::{self, DiskDoc, SourceDoc, SourceWord, Status, words},
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
    let mut table = Table::bare();
    let mut line = |name: &str, text: String| table.row([name.to_owned(), text]);
    line("serving", serving(status));
    line("source", source(&status.source));
    line("records", format!("version {}.{} of cluster {}", status.version.epoch, status.version.rev, cluster(status)));
    if let Some(disk) = &status.disk {
        line("disk", disk_text(disk, status));
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
        line("listening", listeners.join(", "));
    }
    line("asked", place.to_owned());
    let mut text = table.text();
    if status.rejected.total > 0 {
        text.push_str(&rejected(status));
    }
    text
}

fn cluster(status: &Status) -> &str {
    if status.version.cluster.is_empty() { "(none yet)" } else { &status.version.cluster }
}

fn count_u64(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn serving(status: &Status) -> String {
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

fn rejected(status: &Status) -> String {
    let mut table = Table::new(&["REJECTED", "NAME", "WHY"]);
    for object in &status.rejected.objects {
        table.row([object.kind.clone(), object.name.clone(), object.reason.clone()]);
    }
    let more = status.rejected.total.saturating_sub(status.rejected.objects.len() as u64);
    let more = if more == 0 { String::new() } else { format!("and {more} more\n") };
    format!("\n{}{more}", table.text())
}
