//! The records of a cluster: namespaces, services and their endpoints, and changes to a set of them.
//!
//! Owns the types every part of the pipeline shares, their encoding (disk and stream use the same bytes) and their
//! digests. Never does I/O, reads a clock or knows where a record came from.

mod bucket;
mod codec;
mod digest;
mod hold;
mod lineage;
mod manifest;
mod release;
mod service;
mod snapshot;

pub use bucket::{Bucket, Holder, Holders};
pub use codec::{DecodeError, decode_service, encode_service};
pub use digest::{Digest, RootDigest};
pub use hold::{Class, Ends, Held, HeldCounts, HeldKey, Hold, Kept, Reason, decode_hold, encode_hold};
pub use lineage::{Beginning, Lineage};
pub use manifest::objects;
pub use release::{Release, Released};
pub use service::{ByHostname, Endpoint, Kind, Port, Protocol, Service, ServiceKey};
pub use snapshot::{BUCKETS, Counts, PARTIAL, Snapshot, bucket_of_namespace};

use std::{fmt, sync::Arc};

use crate::sys::UnixMillis;

/// A step from one set of records to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The service is now this, whatever it was before.
    Put(Arc<Service>),
    /// The service is gone, endpoints and all.
    Remove(ServiceKey),
    PutNamespace(Arc<str>),
    /// The namespace is gone. It still answers while it has a service.
    RemoveNamespace(Arc<str>),
    /// The record is served although the source deleted it.
    Hold(HeldKey, Arc<Hold>),
    /// The record is not held any more. Whether it is served is another change.
    Release(HeldKey),
}

/// Which state of which cluster a set of records is.
///
/// Within one `cluster` versions are ordered by `(epoch, rev)`. A new epoch begins whenever the past can no longer be
/// trusted to be a prefix of the present: a new leader, or an etcd restored from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// The UID of the `kube-system` namespace, or a word for the source where there is none; empty before the first list.
    pub cluster: Arc<str>,
    /// Counts the histories of this cluster, from 1.
    pub epoch: u64,
    /// Counts the states within the epoch, from 1.
    pub rev: u64,
}

/// How far an epoch may be ahead of the reader's clock, in ms: hubs number epochs by their own.
const EPOCH_AHEAD_MAX_MS: u64 = 86_400_000;

impl Version {
    /// Whether the clock of the hub that began the epoch was wrong, by a reader's clock that says `now`: no later epoch follows until then.
    pub fn is_ahead(&self, now: UnixMillis) -> bool {
        self.epoch > now.0.saturating_add(EPOCH_AHEAD_MAX_MS)
    }

    /// True if this is a later state of the same cluster than `other`.
    pub fn follows(&self, other: &Self) -> bool {
        self.cluster == other.cluster && (self.epoch, self.rev) > (other.epoch, other.rev)
    }
}

impl fmt::Display for Version {
    /// `epoch.rev`, as tables and logs show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.rev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(cluster: &str, epoch: u64, rev: u64) -> Version {
        Version { cluster: cluster.into(), epoch, rev }
    }

    #[test]
    fn versions_are_ordered_within_a_cluster_only() {
        assert!(version("a", 1, 2).follows(&version("a", 1, 1)));
        assert!(version("a", 2, 1).follows(&version("a", 1, 9)));
        assert!(!version("a", 1, 1).follows(&version("a", 1, 1)));
        assert!(!version("b", 9, 9).follows(&version("a", 1, 1)));
    }
}
