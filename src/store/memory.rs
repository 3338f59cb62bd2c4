//! The records in memory: one writer, any number of readers.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Applied, ApplyError, Freshness, Origin, Records, Rejections, SourceState, Update};
use crate::{
    record::{Change, Snapshot, Version},
    sys::UnixMillis,
};

/// `as_of` that stands for "never".
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    as_of: AtomicU64,
    source: Mutex<SourceState>,
    rejections: ArcSwap<Rejections>,
    /// Counts publications; followers wait on it.
    published: watch::Sender<u64>,
}

/// Makes an empty store.
#[must_use]
pub fn open() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        as_of: AtomicU64::new(NEVER),
        source: Mutex::default(),
        rejections: ArcSwap::default(),
        published: watch::Sender::new(0),
    });
    (Writer { shared: Arc::clone(&shared) }, Reader { shared })
}

/// A reader's view of the store. Cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// The records as they stand, for one query or one batch of them. Do not keep it across a wait.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// The records as they stand, to keep.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// When the source last vouched for the records; `None` until there was a first list or a load from disk.
    ///
    /// `None` is the "not synced" of first boot; once it is `Some` it stays so.
    #[must_use]
    pub fn as_of(&self) -> Option<UnixMillis> {
        match self.shared.as_of.load(Ordering::Acquire) {
            NEVER => None,
            at => Some(UnixMillis(at)),
        }
    }

    /// Age and source together, for people.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        let source = self.shared.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Freshness { as_of: self.as_of(), source }
    }

    /// The objects the source gave that cannot be used.
    #[must_use]
    pub fn rejections(&self) -> Arc<Rejections> {
        self.shared.rejections.load_full()
    }

    /// Wakes whenever something was published: records, freshness, rejections or the state of the source.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }
}

/// The one writer of a process. Not `Clone`: who holds it decides what the store says.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    /// A reader of what this writes.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// Puts in what the disk had, before anything else came.
    ///
    /// The source stays [`SourceState::Starting`]: records from disk are as old as the disk says.
    pub fn restore(&mut self, snapshot: Snapshot, as_of: UnixMillis) {
        self.publish(Some(snapshot), Some(as_of), None);
    }

    /// Applies one update whole and publishes the outcome.
    ///
    /// # Errors
    /// If the update's version does not follow what is held; nothing is applied then.
    pub fn apply(&mut self, update: Update) -> Result<Applied, ApplyError> {
        let held = self.shared.snapshot.load_full();
        match update {
            Update::Reset { origin, records, as_of } => {
                let changes = difference(&held, records);
                let version = next_version(held.version(), &origin, !changes.is_empty(), true)?;
                Ok(self.commit(&held, changes, version, as_of))
            }
            Update::Changes { origin, changes, as_of } => {
                let version = next_version(held.version(), &origin, !changes.is_empty(), false)?;
                Ok(self.commit(&held, changes, version, as_of))
            }
            Update::Fresh { as_of } => {
                self.publish(None, Some(as_of), Some(SourceState::Up));
                Ok(Applied::default())
            }
            Update::Lost { reason } => {
                self.publish(None, None, Some(SourceState::Lost(reason)));
                Ok(Applied::default())
            }
            Update::Rejected(rejections) => {
                self.shared.rejections.store(Arc::new(rejections));
                self.publish(None, None, None);
                Ok(Applied::default())
            }
        }
    }

    fn commit(&mut self, held: &Snapshot, changes: Vec<Change>, version: Version, as_of: UnixMillis) -> Applied {
        let applied = Applied { changes: changes.len() };
        let next = (applied.changes > 0 || version != *held.version()).then(|| held.apply(changes, version));
        self.publish(next, Some(as_of), Some(SourceState::Up));
        applied
    }

    /// The records first, then their age, then the wake-up: nobody sees new age on old records.
    fn publish(&mut self, snapshot: Option<Snapshot>, as_of: Option<UnixMillis>, source: Option<SourceState>) {
        if let Some(snapshot) = snapshot {
            self.shared.snapshot.store(Arc::new(snapshot));
        }
        if let Some(as_of) = as_of {
            self.shared.as_of.store(as_of.0.min(NEVER - 1), Ordering::Release);
        }
        if let Some(source) = source {
            *self.shared.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
        }
        self.shared.published.send_modify(|count| *count += 1);
    }
}

/// The changes that turn what is held into exactly `records`.
fn difference(held: &Snapshot, records: Records) -> Vec<Change> {
    let Records { services, namespaces } = records;
    let mut changes = Vec::new();
    for service in held.services().filter(|service| !services.contains_key(service.key())) {
        changes.push(Change::Remove(service.key().clone()));
    }
    let listed: std::collections::HashSet<&Arc<str>> = namespaces.iter().collect();
    let held_listed: std::collections::HashSet<&Arc<str>> = held.listed_namespaces().collect();
    changes.extend(held_listed.difference(&listed).map(|name| Change::RemoveNamespace(Arc::clone(name))));
    changes.extend(listed.difference(&held_listed).map(|name| Change::PutNamespace(Arc::clone(name))));
    let differs = |service: &Arc<crate::record::Service>| {
        held.service_by_key(service.key()).is_none_or(|held| held.digest() != service.digest())
    };
    changes.extend(services.into_values().filter(differs).map(Change::Put));
    changes
}

fn next_version(held: &Version, origin: &Origin, changed: bool, reset: bool) -> Result<Version, ApplyError> {
    match origin {
        Origin::Watched { cluster, new_epoch } => {
            if held.cluster == *cluster && !new_epoch {
                return Ok(Version { rev: held.rev + u64::from(changed), ..held.clone() });
            }
            if !reset {
                return Err(ApplyError::OtherCluster { offered: Arc::clone(cluster), held: Arc::clone(&held.cluster) });
            }
            Ok(Version { cluster: Arc::clone(cluster), epoch: held.epoch + 1, rev: 1 })
        }
        Origin::Stamped(version) => {
            let same = version == held;
            if held.cluster == version.cluster && !same && !version.follows(held) {
                return Err(ApplyError::VersionBack { offered: version.clone(), held: held.clone() });
            }
            if held.cluster != version.cluster && !reset {
                return Err(ApplyError::OtherCluster {
                    offered: Arc::clone(&version.cluster),
                    held: Arc::clone(&held.cluster),
                });
            }
            Ok(version.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{Kind, Service, ServiceKey},
        store::Rejection,
    };

    fn service(name: &str, ip: &str) -> Change {
        let kind = Kind::ClusterIp([ip.parse().unwrap()].into());
        Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
    }

    fn watched() -> Origin {
        Origin::Watched { cluster: "uid".into(), new_epoch: false }
    }

    fn reset(records: impl IntoIterator<Item = Change>, at: u64) -> Update {
        Update::Reset { origin: watched(), records: records.into_iter().collect(), as_of: UnixMillis(at) }
    }

    #[test]
    fn a_reset_is_a_difference_and_an_equal_one_changes_nothing() {
        let (mut writer, reader) = open();
        assert_eq!(reader.as_of(), None);
        let applied = writer.apply(reset([service("a", "10.0.0.1"), service("b", "10.0.0.2")], 5)).unwrap();
        assert_eq!(applied.changes, 2);
        assert_eq!((reader.load().version().epoch, reader.load().version().rev), (1, 1));
        let before = reader.snapshot();
        let applied = writer.apply(reset([service("b", "10.0.0.2"), service("a", "10.0.0.1")], 9)).unwrap();
        assert_eq!(applied.changes, 0);
        assert!(Arc::ptr_eq(&before, &reader.snapshot()));
        assert_eq!(reader.as_of(), Some(UnixMillis(9)));
        let applied = writer.apply(reset([service("b", "10.0.0.3")], 10)).unwrap();
        assert_eq!(applied.changes, 2);
        assert!(reader.load().service(b"prod", b"a").is_none());
        assert_eq!(reader.load().version().rev, 2);
    }

    #[test]
    fn age_moves_only_when_the_source_vouches() {
        let (mut writer, reader) = open();
        writer.apply(reset([], 5)).unwrap();
        writer.apply(Update::Lost { reason: "timeout".into() }).unwrap();
        assert_eq!(reader.as_of(), Some(UnixMillis(5)));
        assert_eq!(reader.freshness().source, SourceState::Lost("timeout".into()));
        writer.apply(Update::Fresh { as_of: UnixMillis(7) }).unwrap();
        assert_eq!(reader.freshness(), Freshness { as_of: Some(UnixMillis(7)), source: SourceState::Up });
    }

    #[test]
    fn rejected_objects_are_named_and_change_neither_records_nor_age() {
        let (mut writer, reader) = open();
        writer.apply(reset([service("a", "10.0.0.1")], 5)).unwrap();
        let before = reader.snapshot();
        let rejection =
            Rejection { kind: "Service".into(), name: "prod/bad".into(), reason: "no clusterIP assigned".into() };
        let rejections = Rejections { total: 1, objects: vec![rejection] };
        writer.apply(Update::Rejected(rejections.clone())).unwrap();
        assert_eq!(*reader.rejections(), rejections);
        assert!(Arc::ptr_eq(&before, &reader.snapshot()));
        assert_eq!(reader.freshness(), Freshness { as_of: Some(UnixMillis(5)), source: SourceState::Up });
    }

    #[test]
    fn a_restored_etcd_begins_a_new_epoch() {
        let (mut writer, reader) = open();
        writer.apply(reset([service("a", "10.0.0.1")], 5)).unwrap();
        let update = Update::Reset {
            origin: Origin::Watched { cluster: "uid".into(), new_epoch: true },
            records: [service("a", "10.0.0.1")].into_iter().collect(),
            as_of: UnixMillis(6),
        };
        writer.apply(update).unwrap();
        assert_eq!((reader.load().version().epoch, reader.load().version().rev), (2, 1));
    }

    #[test]
    fn a_stamped_version_never_goes_back() {
        let (mut writer, reader) = open();
        let stamped = |epoch, rev| Version { cluster: "uid".into(), epoch, rev };
        let changes = |version| Update::Changes {
            origin: Origin::Stamped(version),
            changes: vec![service("a", "10.0.0.1")],
            as_of: UnixMillis(1),
        };
        assert!(writer.apply(changes(stamped(1, 4))).is_err(), "changes to nothing");
        let first =
            Update::Reset { origin: Origin::Stamped(stamped(1, 4)), records: Records::default(), as_of: UnixMillis(1) };
        writer.apply(first).unwrap();
        writer.apply(changes(stamped(1, 5))).unwrap();
        let error = writer.apply(changes(stamped(1, 3))).unwrap_err();
        assert_eq!(error.to_string(), "version 1.3 of cluster uid does not follow 1.5");
        assert_eq!(*reader.load().version(), stamped(1, 5));
    }
}
