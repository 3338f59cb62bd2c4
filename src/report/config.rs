//! The row of the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Time;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConfigStatus {
    /// The file of `--config`; null with flags alone.
    pub file: Option<PathBuf>,
    /// Digest of the settings in effect, flags included. Equal digests are equal settings.
    pub digest: String,
    /// When the settings in effect were read.
    pub read_at: Time,
    /// Keys that changed since the start and take effect with the next one.
    #[serde(default)]
    pub waits_for_restart: Vec<String>,
    /// The latest reload, if it was refused; the settings before it stay in effect.
    #[serde(default)]
    pub refused: Option<RefusedReload>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusedReload {
    pub at: Time,
    pub reason: String,
}
