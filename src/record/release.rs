//! Releases: an operator lets deletions pass.

use std::{fmt, sync::Arc};

use crate::sys::UnixMillis;

/// The deletions an operator lets pass.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    All,
    /// The holds of a namespace.
    Namespace(String),
    /// The cluster of this UID is followed in place of the one before.
    Cluster(Arc<str>),
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Cluster(uid) => write!(f, "cluster {uid}"),
        }
    }
}

impl Release {
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(name) => name == namespace,
            Self::Cluster(_) => false,
        }
    }
}

/// A release and its moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// By the clock of the hub, or a little later: each release is later than the one before.
    pub at: UnixMillis,
    pub which: Release,
}

impl Released {
    /// Releases remembered and passed on.
    pub const MAX: usize = 16;
}
