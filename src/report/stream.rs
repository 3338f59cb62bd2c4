//! The row of the stream that a hub serves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamStatus {
    pub name: String,
    /// HOST:PORT at which agents and other hubs reach this hub.
    pub advertise: Vec<String>,
    pub subscribers: u64,
    /// Connected agents and hubs that refuse deletions of this hub.
    #[serde(default)]
    pub refusing: u64,
    pub connections: u64,
    /// Bytes of the history that slow agents and hubs catch up from.
    pub history_bytes: u64,
    /// Bytes sent since the start of the process.
    pub sent_bytes: u64,
    /// Times an agent or hub was too slow for the stream and was resynced.
    pub fallen: u64,
    /// First syncs of agents and hubs since the start of the process, by mode: `delta`, `repair` (changed parts), `snapshot` (everything), `wait`.
    pub resumed: BTreeMap<String, u64>,
    /// Connections and calls refused or failed since the start of the process, by reason.
    pub refused: BTreeMap<String, u64>,
}
