//! How old the records are, and whether the source is there.

use crate::sys::UnixMillis;

/// The state of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reason")]
pub enum SourceState {
    /// No complete list since this process started.
    #[default]
    Starting,
    Up,
    /// Out of reach, for this reason.
    Lost(String),
}

/// When the source last confirmed the records.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Freshness {
    /// When the source last said that the records are true. Moves on an event, a bookmark, a heartbeat or a probe,
    /// never by itself; survives restarts on disk. `None` until something was loaded or listed.
    pub as_of: Option<UnixMillis>,
    pub source: SourceState,
}
