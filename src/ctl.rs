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

pub use control_plane::ControlPlaneArgs;
pub use diff::DiffArgs;
pub use dump::DumpArgs;
pub use guard::GuardArgs;
pub use lookup::LookupArgs;
pub use pin::{PinArgs, UnpinArgs};
pub use reach::Where;
pub use status::StatusArgs;

/// How a command ended; the exit codes scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; what was looked for was found, what was compared is equal.
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

/// The request makes no sense; nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// How a command ended that has no answer: [`Exit::Usage`] if what it was asked makes no sense.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if error.downcast_ref::<Misused>().is_some() { Exit::Usage } else { Exit::Unreadable }
}

/// The form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For scripts; keys are only ever added
    Json,
}

/// Asks the process behind a socket whether it is ready.
///
/// # Errors
/// The condition it waits for, or the reason that it cannot be asked.
pub fn ready(socket: &Path) -> anyhow::Result<()> {
    client::get(socket, "/ready", client::HEALTH_PATIENCE)?;
    Ok(())
}

/// Prints the records.
///
/// # Errors
/// A read or write that failed.
pub fn dump(args: &DumpArgs) -> anyhow::Result<Exit> {
    dump::run(args)
}

/// Looks a name up and says why it answers what it answers.
///
/// # Errors
/// A read or write that failed.
pub fn lookup(args: &LookupArgs) -> anyhow::Result<Exit> {
    lookup::run(args)
}

/// Says how a process or a store stands.
///
/// # Errors
/// A read or write that failed.
pub fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    status::run(args)
}

/// Pins a name, or lists what is pinned.
///
/// # Errors
/// The refusal of the process, or that it could not be reached.
pub fn pin(args: &PinArgs) -> anyhow::Result<Exit> {
    pin::pin(args)
}

/// Lets go of a pin.
///
/// # Errors
/// As for [`pin()`].
pub fn unpin(args: &UnpinArgs) -> anyhow::Result<Exit> {
    pin::unpin(args)
}

/// Shows what the guard holds, or lets go of it.
///
/// # Errors
/// A read or write that failed.
pub fn guard(args: &GuardArgs) -> anyhow::Result<Exit> {
    guard::run(args)
}

/// Asks every apiserver known how it does, or writes a kubeconfig that goes to one directly.
///
/// # Errors
/// A read or write that failed.
pub fn control_plane(args: &ControlPlaneArgs) -> anyhow::Result<Exit> {
    control_plane::run(args)
}

/// Compares two sets of records.
///
/// # Errors
/// A read or write that failed.
pub fn diff(args: &DiffArgs) -> anyhow::Result<Exit> {
    diff::run(args)
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
///
/// # Errors
/// If it cannot be written for another reason, such as a full disk.
pub fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
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
