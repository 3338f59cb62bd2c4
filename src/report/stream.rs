//! The row of the stream that a hub serves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamStatus {
    pub name: String,
    /// HOST:PORT at which clients reach it.
    pub advertise: Vec<String>,
    pub subscribers: u64,
    /// Connected followers that refuse deletions of this hub.
    #[serde(default)]
    pub refusing: u64,
    pub connections: u64,
    /// Bytes of history held.
    pub history_bytes: u64,
    /// Bytes sent since the start.
    pub sent_bytes: u64,
    /// Times a subscriber fell out of the history.
    pub fallen: u64,
    /// How subscribers were brought up to date since the start, by mode.
    pub resumed: BTreeMap<String, u64>,
    /// Connections and calls that came to nothing since the start, by reason.
    pub refused: BTreeMap<String, u64>,
}
