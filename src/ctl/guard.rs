//! `holdfast guard`: what is held back and why, and letting go of it.

use std::{fmt::Write as _, path::PathBuf};

use clap::Subcommand;

use super::{
    Exit, Output, client, json, print,
    reach::{ask_process, default_socket},
    status::{held, held_table},
};
use crate::admin::{GuardDoc, ReleasedDoc};

/// What `holdfast guard` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 nothing is held, or it was let go, 1 something is held, or nothing of the namespace to let go of, 3 could not be asked."
)]
pub struct GuardArgs {
    /// What to do; without it, shows what is held and why
    #[command(subcommand)]
    action: Option<Action>,
    /// Which process
    #[command(flatten)]
    asked: Asked,
}

/// What can be done about it.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Let go of what is held: the records are deleted, as the source says
    Release {
        /// Only what is held of this namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        /// Which process
        #[command(flatten)]
        asked: Asked,
    },
}

/// Which process, and how it is shown.
#[derive(Clone, Debug, clap::Args)]
struct Asked {
    /// Admin socket of a running hub or agent [default: /run/holdfast/agent.sock]
    #[arg(long, value_name = "SOCKET")]
    admin: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Asked {
    fn socket(&self) -> PathBuf {
        self.admin.clone().unwrap_or_else(default_socket)
    }
}

/// Shows what is held, or lets go of it.
pub(super) fn run(args: &GuardArgs) -> anyhow::Result<Exit> {
    match &args.action {
        None => show(&args.asked),
        Some(Action::Release { namespace, asked }) => release(asked, namespace.as_deref()),
    }
}

fn show(asked: &Asked) -> anyhow::Result<Exit> {
    let text = ask_process(&asked.socket(), "/guard", None)?;
    let doc: GuardDoc = serde_json::from_slice(&text)?;
    match asked.output {
        Output::Json => print(&json(&doc)?)?,
        Output::Table if doc.held.is_empty() => print(b"nothing is held\n")?,
        Output::Table => {
            print(format!("{}\n{}", held(&doc.held), held_table(&doc.held, doc.at)).as_bytes())?;
        }
    }
    Ok(if doc.held.is_empty() { Exit::Ok } else { Exit::No })
}

fn release(asked: &Asked, namespace: Option<&str>) -> anyhow::Result<Exit> {
    let query = namespace.map_or_else(String::new, |name| format!("?namespace={}", client::encode(name)));
    let target = format!("/guard/release{query}");
    let text = ask_process(&asked.socket(), &target, Some(Vec::new()))?;
    let doc: ReleasedDoc = serde_json::from_slice(&text)?;
    // More likely a typing error than what was meant.
    let nothing = namespace.filter(|_| doc.before == doc.after && doc.changes == 0);
    match (asked.output, nothing) {
        (Output::Json, _) => print(&json(&doc)?)?,
        (Output::Table, Some(name)) => print(format!("nothing is held of namespace {name:?}\n").as_bytes())?,
        (Output::Table, None) => print(released(&doc).as_bytes())?,
    }
    Ok(if nothing.is_some() { Exit::No } else { Exit::Ok })
}

fn released(doc: &ReleasedDoc) -> String {
    let ReleasedDoc { before, after, changes } = doc;
    let mut text = String::new();
    for (what, before, after) in [
        ("services", before.services, after.services),
        ("endpoints", before.endpoints, after.endpoints),
        ("namespaces", before.namespaces, after.namespaces),
    ] {
        let _ = writeln!(text, "{what:<12}{} let go, {after} still held", before.saturating_sub(after));
    }
    let _ = writeln!(text, "{:<12}{changes} changed", "records");
    text
}
