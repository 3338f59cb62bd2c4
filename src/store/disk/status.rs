//! How the disk stands, for `status`.

use std::path::{Path, PathBuf};

use super::layout::FORMAT;
use crate::{
    record::{Snapshot, Version},
    sys::UnixMillis,
};

/// The state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// The disk has the records in memory, or will have them in a moment.
    #[default]
    Ok,
    /// The last attempt failed; it is tried again.
    Degraded,
    /// Not used.
    Off,
}

/// The state of the disk at the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Start {
    #[default]
    Empty,
    /// Records, all of them verified.
    Loaded,
    /// A file that did not verify.
    SetAside {
        to: PathBuf,
        /// The error.
        reason: String,
    },
    /// Something that could not be read.
    Unreadable { reason: String },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskStatus {
    /// Directory of the store; none if there is no store.
    pub path: Option<PathBuf>,
    pub state: DiskState,
    pub reason: Option<String>,
    /// The state at the start.
    pub start: Start,
    pub format: u32,
    /// Size of the file in bytes.
    pub bytes: u64,
    pub version: Option<Version>,
    /// When the source last confirmed the records on disk.
    pub as_of: Option<UnixMillis>,
    /// When this process last wrote.
    pub committed_at: Option<UnixMillis>,
    /// Since when it has been writing, if it is now; long ago means a disk that hangs.
    pub writing_since: Option<UnixMillis>,
    /// Attempts that failed since the start of the process.
    pub errors: u64,
}

impl DiskStatus {
    /// The status of a process without a disk.
    pub fn off(reason: &str) -> Self {
        Self { state: DiskState::Off, reason: Some(reason.to_owned()), format: FORMAT, ..Self::default() }
    }

    pub(super) fn at(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), format: FORMAT, ..Self::default() }
    }

    pub(super) fn holds(&mut self, snapshot: &Snapshot, as_of: UnixMillis, bytes: u64) {
        self.version = Some(snapshot.version().clone());
        self.as_of = Some(as_of);
        self.bytes = bytes;
    }

    pub(super) fn degraded(&mut self, reason: String) {
        self.state = DiskState::Degraded;
        self.reason = Some(reason);
        self.errors += 1;
    }
}
