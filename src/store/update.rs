//! Updates from a source to the writer.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    record::{Change, Held, HeldKey, Lineage, Released, Service, ServiceKey, Snapshot, Version},
    sys::UnixMillis,
};

/// A complete set of records, as a first list or a relist gives it.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub services: HashMap<ServiceKey, Arc<Service>>,
    pub namespaces: Vec<Arc<str>>,
    /// Namespaces that are being deleted.
    pub ending: Vec<Arc<str>>,
    /// The records among these that the source deleted, as a hub says.
    pub held: Arc<Held>,
    /// A person keeps them in files, so that few or none may be meant.
    pub from_files: bool,
}

impl Records {
    /// Whether these are other records than those of `snapshot`, holds apart.
    pub(super) fn differ(&self, snapshot: &Snapshot) -> bool {
        let same = |(key, service): (&ServiceKey, &Arc<Service>)| {
            snapshot.service_by_key(key).is_some_and(|served| served.digest() == service.digest())
        };
        self.services.len() != snapshot.counts().services || !self.services.iter().all(same)
    }
}

impl FromIterator<Change> for Records {
    /// The records that a run of `Put`s amounts to; removals are left out.
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        let mut records = Self::default();
        for change in changes {
            match change {
                Change::Put(service) => {
                    records.services.insert(service.key().clone(), service);
                }
                Change::PutNamespace(name) => records.namespaces.push(name),
                Change::Remove(_) | Change::RemoveNamespace(_) | Change::Hold(..) | Change::Release(_) => {}
            }
        }
        records
    }
}

/// The net result of a run of changes: the last one for each service and namespace.
pub(super) fn last_of_each(changes: Vec<Change>) -> Vec<Change> {
    #[derive(PartialEq, Eq, Hash)]
    enum Of {
        Service(ServiceKey),
        Namespace(Arc<str>),
        Hold(HeldKey),
    }
    if changes.len() < 2 {
        return changes;
    }
    let mut seen = HashSet::with_capacity(changes.len());
    let mut last: Vec<Change> = changes
        .into_iter()
        .rev()
        .filter(|change| {
            seen.insert(match change {
                Change::Put(service) => Of::Service(service.key().clone()),
                Change::Remove(key) => Of::Service(key.clone()),
                Change::PutNamespace(name) | Change::RemoveNamespace(name) => Of::Namespace(Arc::clone(name)),
                Change::Hold(key, _) | Change::Release(key) => Of::Hold(key.clone()),
            })
        })
        .collect();
    last.reverse();
    last
}

/// The origin of the version of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process watches the cluster itself and stamps what it sees.
    Watched {
        /// UID of the `kube-system` namespace, or a word for the source where there is none.
        cluster: Arc<str>,
        /// The past is no prefix of this (etcd was restored): begin a new epoch.
        new_epoch: bool,
    },
    /// Another holdfast stamped it; the writer checks that it does not go back.
    Stamped(Version),
}

/// A step of the source, applied whole or not at all.
#[derive(Clone, Debug)]
pub struct Update {
    pub what: What,
    /// When the objects behind it changed, as the cluster or a hub noted it; empty if that is unknown.
    pub changed_at: Vec<UnixMillis>,
    /// Namespaces whose deletion the source saw begin: deletions in them are meant.
    pub ending: Vec<Arc<str>>,
    /// The verdicts of the hub that sent it.
    pub upstream: Upstream,
}

/// The verdicts of a hub, as far as they are no records.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// The epochs that lead to the update's version; empty from a hub that tells none.
    pub lineage: Arc<Lineage>,
    /// When a guard on the path last let deletions pass, for followers of an older release; 0 if never.
    pub let_go: UnixMillis,
    /// The last releases by operators, the oldest first.
    pub releases: Vec<Released>,
}

impl From<What> for Update {
    fn from(what: What) -> Self {
        Self { what, changed_at: Vec::new(), ending: Vec::new(), upstream: Upstream::default() }
    }
}

/// The content of an [`Update`].
#[derive(Clone, Debug)]
pub enum What {
    /// The complete set of records. Applied as a difference: a record missing here is deleted.
    Reset {
        origin: Origin,
        records: Records,
        /// When the source last confirmed them.
        as_of: UnixMillis,
    },
    /// Changes to the records of the store.
    Changes {
        origin: Origin,
        /// In order.
        changes: Vec<Change>,
        /// When the source last confirmed the records.
        as_of: UnixMillis,
    },
    /// Nothing changed, and the source says so (a bookmark, a heartbeat, a probe).
    Fresh {
        /// When the source confirmed the records of the store.
        as_of: UnixMillis,
    },
    /// The source is out of reach; the records stand.
    Lost { reason: String },
    /// After a loss the source answers again, and its first list is not complete; the records stand.
    Listing,
    /// The objects the source cannot use, in place of those reported before. Changes neither records nor their age.
    Rejected(Rejections),
}

impl Update {
    /// Whether this process stamps its version.
    pub fn is_watched(&self) -> bool {
        let (What::Reset { origin, .. } | What::Changes { origin, .. }) = &self.what else { return false };
        matches!(origin, Origin::Watched { .. })
    }
}

/// Objects the source gave that cannot be used. Each rejects itself alone; the others land.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejections {
    /// Their number now.
    pub total: u64,
    /// The first 100 of them.
    pub objects: Vec<Rejection>,
}

impl Rejections {
    /// How many are named; beyond that they are only counted.
    pub const NAMED_MAX: usize = 100;
}

/// An object that cannot be used, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejection {
    /// `Service`, `EndpointSlice`, `Namespace`, or `file` for a file that has no readable objects.
    pub kind: String,
    /// `namespace/name` as far as it could be read, or the file with the line.
    pub name: String,
    /// The error, in one line.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records that differ from before.
    pub changes: usize,
    /// Records held by the judge, a hub upstream, that a release asked of this process could not end.
    pub held_upstream: usize,
}

/// Why an update was refused. Nothing of it was applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A stamped update that does not follow the store's version.
    #[error("version {offered} of cluster {} does not follow {held}", offered.cluster)]
    VersionBack { offered: Version, held: Version },
    /// Changes this process saw itself before the list that begins its epoch.
    #[error("changes seen before the list that begins the epoch")]
    ListFirst,
    /// Another cluster answers, which no operator accepted.
    #[error(
        "cluster {offered:?} answers in place of {held:?}: records stay as they are; if it is meant, run `holdfast guard accept-cluster`"
    )]
    Refused { offered: Arc<str>, held: Arc<str> },
    /// Changes for another cluster than the one held; only a reset may switch clusters.
    #[error("changes of cluster {offered:?}, but the records held are of cluster {held:?}")]
    OtherCluster {
        /// The cluster the changes are of.
        offered: Arc<str>,
        held: Arc<str>,
    },
}
