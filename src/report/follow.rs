//! The row of the hub that a process follows.

use serde::{Deserialize, Serialize};

use super::Time;

/// Stands behind each hub on the way to a loss, in the reason of a follower.
pub const THEN: &str = " → ";

/// Where a follower stands.
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
    /// The hub followed or tried last.
    pub address: String,
    /// The hubs between here and the source, the nearest first.
    pub path: Vec<String>,
    /// Hubs it may turn to.
    pub hubs: Vec<String>,
    /// How it was last brought up to date: `delta`, `repair` or `snapshot`.
    #[serde(default)]
    pub resumed: Option<String>,
    /// When records were last repaired, or sent anew.
    #[serde(default)]
    pub repaired_at: Option<Time>,
    /// Times the records did not add up to a hub's digest since the process started.
    #[serde(default)]
    pub mismatches: u64,
    /// Offset of the hub's clock from this machine's in ms, measured by heartbeats; negative if it is behind.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
}
