//! The row of the hub that a process follows.

use serde::{Deserialize, Serialize};

use super::Time;

/// Stands behind each hub on the way to a loss, in the reason of a follower.
pub const THEN: &str = " → ";

/// `live`: in sync, verified by digest; `stale`: no hub reached; `disk`: no hub tried yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FollowState {
    /// Serving what the disk had; no hub was tried yet.
    #[default]
    Disk,
    /// Looking for a hub that can serve us.
    Connecting,
    /// A hub is sending what we missed.
    Delta,
    /// A hub is sending buckets that differ.
    Repair,
    /// A hub is sending everything.
    Snapshot,
    /// Proven equal to the hub, and following it.
    Live,
    /// No hub in reach; serving what is held.
    Stale,
}

/// A follower's state and its hub; for `status` and for the relay's own followers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FollowStatus {
    pub state: FollowState,
    /// The hub that is followed, or was tried last.
    pub address: String,
    /// The hubs on the way to the source, the nearest first.
    pub path: Vec<String>,
    /// All known hubs.
    pub hubs: Vec<String>,
    /// The last sync: `delta`, `repair` (changed parts) or `snapshot` (everything).
    #[serde(default)]
    pub resumed: Option<String>,
    /// The last sync that was a `repair` or a `snapshot`.
    #[serde(default)]
    pub repaired_at: Option<Time>,
    /// Times the records differed from the hub's digest since the start of the process; each was repaired.
    #[serde(default)]
    pub mismatches: u64,
    /// Offset of the hub's clock from this machine's in ms, measured by heartbeats; negative if it is behind.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
}
