//! The row of the election among hubs.

use serde::{Deserialize, Serialize};

use super::Time;

/// How the election is, as far as this candidate knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// The server was not reached since the start.
    #[default]
    Unknown,
    /// This hub watches the cluster, and stamps this epoch or a later one.
    Holder { epoch: u64 },
    Follower {
        leader: String,
        /// HOST:PORT where it serves its stream; empty if the lease does not say.
        address: String,
    },
    /// A hub with this hub's own name has the lease. It cannot be followed: loops are found by names.
    Namesake {
        name: String,
        /// HOST:PORT where it serves its stream; empty if the lease does not say.
        address: String,
        /// True: another hub renews the lease. False: the lease may be left from an earlier start of this hub, and ends by itself.
        renews: bool,
    },
}

impl Standing {
    /// Whether another hub watches, as far as is known.
    pub fn gives_way(&self) -> bool {
        matches!(self, Self::Follower { .. } | Self::Namesake { .. })
    }
}

/// Since when the server has not answered about the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failing {
    pub since: Time,
    /// The error of the latest attempt.
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ElectionStatus {
    #[serde(flatten)]
    pub standing: Standing,
    /// When this hub, as the holder, last renewed the lease.
    #[serde(default)]
    pub renewed: Option<Time>,
    /// Set while the lease can be neither read nor renewed.
    #[serde(default)]
    pub failing: Option<Failing>,
}
