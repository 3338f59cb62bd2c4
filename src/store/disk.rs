//! The records on disk: what a restart begins with, and what the tools read when nothing runs.
//!
//! [`open`] loads and verifies everything before the first answer; [`Disk::follow`] then writes what memory holds, on a
//! thread of its own. The disk follows memory and is never asked by it: one that is slow, full, read-only or broken shows
//! in [`DiskStatus`], a counter and the log, and delays nothing. Nothing here deletes records: a file that does not verify
//! is set aside.
//!
//! [`read`] is for other processes: it touches nothing and works while an agent writes.

mod database;
mod follower;
mod layout;
mod load;
mod metrics;
mod owner;
mod pace;
mod status;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tracing::{error, info, warn};

pub use follower::{FlushError, Follower};
pub use layout::FORMAT;
pub use load::Loaded;
pub use metrics::Metrics;
pub use owner::{Owner, owner};
pub use status::{DiskState, DiskStatus, Start};

use self::{
    database::Step as _,
    load::LoadError,
    owner::{ClaimError, Ownership},
};
use crate::sys::{self, Clock};

/// Attempts of [`read`] to copy a store that is being written to.
const READ_ATTEMPTS: u32 = 8;

/// Where the store is and how it is written.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the store; made if it is missing.
    pub path: PathBuf,
    /// Admin socket of this process, for the next process that finds the store in use.
    pub admin: Option<PathBuf>,
    /// Shortest time between two commits of records; what a SIGKILL may lose.
    pub records_every: Duration,
    /// Shortest time between two commits that only say the records are still good. After a SIGKILL records look older
    /// than they are by up to this, never younger.
    pub age_every: Duration,
    /// Makes the disk fail, in tests.
    #[cfg(test)]
    pub(crate) faults: tests::Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/var/lib/holdfast".into(),
            admin: None,
            records_every: Duration::from_secs(1),
            age_every: Duration::from_secs(30),
            #[cfg(test)]
            faults: tests::Faults::default(),
        }
    }
}

impl Config {
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests put a storage that fails in between")]
    fn backend(&self, file: fs::File) -> Result<redb::backends::FileBackend, redb::DatabaseError> {
        redb::backends::FileBackend::new(file)
    }

    #[cfg(test)]
    fn backend(&self, file: fs::File) -> Result<tests::FaultyFile, redb::DatabaseError> {
        Ok(self.faults.over(redb::backends::FileBackend::new(file)?))
    }
}

/// Why there is no disk to work with at all. Everything less is a [`DiskState::Degraded`] disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store.
    #[error("store {} is in use by {owner}: stop it, or give this one another --store", path.display())]
    InUse { path: PathBuf, owner: Owner },
    /// A newer holdfast wrote it. It was left as it is.
    #[error(
        "store {} has format {found}, this holdfast reads up to {FORMAT}: run the holdfast that wrote it, or give this one \
         another --store", path.display()
    )]
    NewerFormat { path: PathBuf, found: u32 },
}

/// Why a store could not be read by [`read`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("no store in {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A newer holdfast wrote it.
    #[error("store {} has format {found}, this holdfast reads up to {FORMAT}: use the holdfast that wrote it", path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    /// The system would not let us.
    #[error("read {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("store {} is corrupt: {reason}", path.display())]
    Corrupt {
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// Its owner writes too fast to get a whole copy. Its admin socket says the same things.
    #[error("store {} is being written by {owner} and changed while it was copied: try again", path.display())]
    Busy { path: PathBuf, owner: Owner },
}

/// A store claimed for this process and not yet followed.
#[derive(Debug)]
pub struct Disk {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    ownership: Option<Ownership>,
    loaded: Option<Loaded>,
    status: DiskStatus,
}

/// Claims the store at `config.path`, loads it and verifies it.
///
/// Reads only, but for making the directory, locking it, and setting a corrupt file aside. A disk that does not let us do
/// even that comes back degraded, with what could be read from it.
///
/// # Errors
/// If the store belongs to another process or to a newer holdfast.
pub fn open(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<(Disk, Option<Loaded>), OpenError> {
    let path = &config.path;
    let mut disk = Disk {
        config: config.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        ownership: None,
        loaded: None,
        status: DiskStatus::at(path),
    };
    match claim(config) {
        Ok(ownership) => disk.ownership = Some(ownership),
        Err(error) => match error.downcast::<OpenError>() {
            Ok(refused) => return Err(refused),
            Err(error) => disk.degraded(format!("{error:#}")),
        },
    }
    let file = layout::records_file(path);
    match load::load(&file) {
        Ok(loaded) => {
            info!(
                path = %path.display(),
                cluster = &*loaded.snapshot.version().cluster,
                version = %loaded.snapshot.version(),
                services = loaded.snapshot.counts().services,
                endpoints = loaded.snapshot.counts().endpoints,
                as_of = %loaded.as_of,
                "store loaded"
            );
            disk.status.holds(&loaded.snapshot, loaded.as_of, loaded.bytes);
            disk.status.start = Start::Loaded;
            *disk.metrics.as_of.lock() = Some(loaded.as_of);
            disk.loaded = Some(loaded);
        }
        Err(LoadError::Io(error)) if is_missing(&error) => {
            info!(path = %path.display(), "store is empty");
        }
        Err(LoadError::Io(error)) => {
            let reason = format!("read {}: {error}", file.display());
            disk.degraded(reason.clone());
            disk.status.start = Start::Unreadable { reason };
        }
        Err(LoadError::Corrupt(reason)) => disk.corrupt(reason),
    }
    let loaded = disk.loaded.clone();
    Ok((disk, loaded))
}

/// Whether `path` is the directory of a store, of whatever format and in whatever state.
pub fn is_store(path: &Path) -> bool {
    layout::newest_format(path).is_ok_and(|format| format.is_some())
        || sys::files_set_aside(&layout::records_file(path)).is_ok_and(|files| !files.is_empty())
        || owner::is_named_in(path)
}

/// Reads the store at `path` (its directory, or one records file) and proves it whole.
///
/// Never writes, locks or repairs anything there. While an agent has the store open it reads a copy, and takes another if
/// a commit came in between.
///
/// # Errors
/// If there is no store, it cannot be read, or it does not verify.
pub fn read(path: &Path) -> Result<Loaded, ReadError> {
    let is_file = path.is_file();
    let file = if is_file { path.to_owned() } else { layout::records_file(path) };
    let directory = if is_file { path.parent().unwrap_or(path) } else { path };
    if !is_file {
        match layout::newest_format(path) {
            Ok(Some(found)) if found > FORMAT => return Err(ReadError::NewerFormat { path: path.to_owned(), found }),
            Err(error) if !is_missing(&error) => {
                return Err(ReadError::Io { path: path.to_owned(), error });
            }
            _ => {}
        }
    }
    for attempt in 1.. {
        match load::load(&file) {
            Ok(loaded) => return Ok(loaded),
            Err(LoadError::Io(error)) if is_missing(&error) => break,
            Err(LoadError::Io(error)) => return Err(ReadError::Io { path: file, error }),
            Err(LoadError::Corrupt(reason)) => match owner(directory) {
                Some(_) if attempt < READ_ATTEMPTS => thread::sleep(Duration::from_millis(u64::from(10 * attempt))),
                Some(owner) => return Err(ReadError::Busy { path: file, owner }),
                None => return Err(ReadError::Corrupt { path: file, reason }),
            },
        }
    }
    Err(ReadError::Missing { path: path.to_owned() })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Disk {
    pub fn status(&self) -> &DiskStatus {
        &self.status
    }

    fn degraded(&mut self, reason: String) {
        warn!(path = %self.config.path.display(), reason, "store cannot be written: answers go on from memory, a restart loses what is not written");
        self.metrics.errors.inc();
        self.status.degraded(reason);
    }

    fn corrupt(&mut self, reason: String) {
        self.metrics.errors.inc();
        match layout::set_aside(&self.config.path, self.clock.now()) {
            Ok(to) => {
                error!(to = %to.display(), reason, "store was corrupt: set aside, starting without records");
                self.status.start = Start::SetAside { to, reason };
            }
            Err(error) => {
                let reason = format!("it is corrupt ({reason}) and could not be set aside: {error}");
                error!(path = %self.config.path.display(), reason, "cannot read the store: starting without records");
                self.status.degraded(reason.clone());
                self.status.start = Start::Unreadable { reason };
            }
        }
    }
}

fn claim(config: &Config) -> anyhow::Result<Ownership> {
    let path = config.path.clone();
    let made = owner::make_directory(&path);
    match layout::newest_format(&path) {
        Ok(Some(found)) if found > FORMAT => return Err(OpenError::NewerFormat { path, found }.into()),
        _ => {}
    }
    made.step("make", &path)?;
    Ownership::claim(&path, config.admin.as_deref()).map_err(|error| match error {
        ClaimError::Held(owner) => OpenError::InUse { path, owner }.into(),
        ClaimError::Io(error) => anyhow::Error::new(error).context(format!("lock {}", path.display())),
    })
}
