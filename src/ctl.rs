//! The on-call commands: dump, lookup, status, diff, guard.
//!
//! Owns how they find something to ask (a process by its socket, or a store on disk) and how documents look on a terminal.
//! Never needs a control plane, and never changes what it looks at; only `pin` tells a process to answer something else, and
//! `guard release` to let go of what it holds.

mod ask;
mod client;
mod cluster;
mod control_plane;
mod diff;
mod dump;
mod guard;
mod lookup;
mod namespace;
mod pin;
mod reach;
#[cfg(test)]
mod schema;
mod status;
mod table;

use std::{io::Write as _, path::Path};

use crate::sys;

pub use control_plane::{ControlPlaneArgs, run as control_plane};
pub use diff::{DiffArgs, run as diff};
pub use dump::{DumpArgs, run as dump};
pub use guard::{GuardArgs, run as guard};
pub use lookup::{LookupArgs, run as lookup};
pub use pin::{PinArgs, UnpinArgs, pin, unpin};
pub use reach::{Where, silence};
pub use status::{StatusArgs, run as status};

/// How a command ended; the exit codes scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; found, or equal.
    Ok = 0,
    /// Not found, or different.
    No = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Something could not be read, reached or started.
    Unreadable = 3,
    /// `status`: records are older than `stale_after`.
    Stale = 4,
    /// `status`: the source is lost, answers come from memory.
    Lost = 5,
    /// `status`: there are no records to answer from.
    Nothing = 6,
}

/// Why a command has nothing to print, where that is not [`Exit::Unreadable`].
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The command line makes no sense; nothing was done.
    #[error("{0}")]
    Usage(String),
    /// Errors of a file or of settings, one a line, each with its place.
    #[error("{0}")]
    Faults(String),
    /// There is nothing of that name, or nothing at all.
    #[error("{0}")]
    Absent(String),
}

impl Failed {
    #[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
    pub fn faults(errors: impl ToString) -> Self {
        Self::Faults(errors.to_string())
    }
}

/// How a command ended that has no answer.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<Failed>() {
        Some(Failed::Usage(_) | Failed::Faults(_)) => Exit::Usage,
        Some(Failed::Absent(_)) => Exit::No,
        None => Exit::Unreadable,
    }
}

/// Tells of a failed command on standard error, and with `json` on standard output too.
pub fn tell(error: &anyhow::Error, json: bool) -> Exit {
    let text = format!("{error:#}");
    // The place of a fault is what an editor or a script looks for at the beginning of a line.
    let name = if matches!(error.downcast_ref(), Some(Failed::Faults(_))) { "" } else { "holdfast: " };
    sys::write_stderr(&format!("{name}{text}\n"));
    let exit = exit_of(error);
    if json {
        tell_json(&text, exit);
    }
    exit
}

/// The one form of errors with `-o json`.
pub fn tell_json(error: &str, exit: Exit) {
    let document = serde_json::json!({ "error": error, "exit_code": exit as u8 });
    // Standard error has the error already.
    let _ = print(format!("{document}\n"));
}

/// The form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For scripts; keys are only ever added
    Json,
}

impl Output {
    /// Prints a document: as JSON, or as `text` says it.
    fn print(self, document: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self {
            Self::Table => print(text()),
            Self::Json => print(json(document)?),
        }
    }
}

/// Asks the process behind a socket whether it is ready.
///
/// # Errors
/// The condition it waits for, or the reason that it cannot be asked.
pub fn ready(socket: &Path) -> anyhow::Result<()> {
    client::get(socket, "/ready", client::HEALTH_PATIENCE)?;
    Ok(())
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written for another reason, such as a full disk.
pub fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("standard output"))
        }
        _ => Ok(()),
    }
}

/// A document as JSON for people and scripts alike: indented, with a final newline.
fn json(document: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(document)?;
    text.push(b'\n');
    Ok(text)
}
