//! The records in memory: one writer, any number of readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    Applied, ApplyError, Freshness, Origin, Records, Rejections, SourceState, Update, What,
    changed::ChangeTimes,
    guard::{self, Guard, Held, HeldCounts, Release},
};
use crate::{
    record::{Change, Snapshot, Version},
    sys::{Clock, Lock, UnixMillis},
};

/// `as_of` that stands for "never".
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    as_of: AtomicU64,
    source: Lock<SourceState>,
    rejections: ArcSwap<Rejections>,
    held: ArcSwap<Held>,
    let_go: ArcSwap<LetGo>,
    changed: ChangeTimes,
    /// Counts publications; followers wait on it.
    published: watch::Sender<u64>,
}

impl Shared {
    fn as_of(&self) -> Option<UnixMillis> {
        match self.as_of.load(Ordering::Acquire) {
            NEVER => None,
            at => Some(UnixMillis(at)),
        }
    }
}

/// The last time the guard, here or upstream, let go of what it held.
#[derive(Debug, Default)]
struct LetGo {
    at: UnixMillis,
    /// The version that shows it.
    version: Version,
}

/// Makes an empty store, whose writer holds nothing back until it is given a [guard](Writer::guarded).
#[must_use]
pub fn open() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        as_of: AtomicU64::new(NEVER),
        source: Lock::default(),
        rejections: ArcSwap::default(),
        held: ArcSwap::default(),
        let_go: ArcSwap::default(),
        changed: ChangeTimes::default(),
        published: watch::Sender::new(0),
    });
    let guard = Guard::new(guard::Config::off());
    let writer = Writer { shared: Arc::clone(&shared), guard, clock: Clock::System, stamps: true, epoch_from: None };
    (writer, Reader { shared })
}

/// A reader's view of the store. Cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// The records as they stand, for one query or one batch of them. Do not keep it across a wait.
    #[must_use]
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
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
        self.shared.as_of()
    }

    /// Age and source together, for people.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        let source = self.shared.source.lock().clone();
        Freshness { as_of: self.as_of(), source }
    }

    /// The objects the source gave that cannot be used.
    #[must_use]
    pub fn rejections(&self) -> Arc<Rejections> {
        self.shared.rejections.load_full()
    }

    /// What the source took away and is served all the same.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        self.shared.held.load_full()
    }

    /// The last time the guard, here or at a hub upstream, let go of what it held, if `snapshot` shows that; else 0.
    #[must_use]
    pub fn let_go(&self, snapshot: &Snapshot) -> UnixMillis {
        let let_go = self.shared.let_go.load();
        let shows = let_go.version == *snapshot.version() || snapshot.version().follows(&let_go.version);
        if shows { let_go.at } else { UnixMillis(0) }
    }

    /// When objects changed that are behind the versions after `before`, up to `version`; as far as that is remembered, and
    /// not for what complete lists brought.
    #[must_use]
    pub fn changed_between(&self, before: &Version, version: &Version) -> Vec<UnixMillis> {
        self.shared.changed.between(before, version)
    }

    /// Waits until a second list could confirm one that was not believed, and gives the moment it became due.
    ///
    /// Whoever runs the source then starts it again, on a new connection; its first list is the second. `asked` is the
    /// moment this gave last, so that one doubt is asked about once.
    pub async fn confirmation_due(&self, clock: &Clock, asked: Option<UnixMillis>) -> UnixMillis {
        let mut published = self.subscribe();
        loop {
            let due = self.held().confirm_at().filter(|at| Some(*at) != asked);
            let wait = due.map(|at| at.0.saturating_sub(clock.now().0));
            match (due, wait) {
                (Some(at), Some(0)) => return at,
                (_, wait) => {
                    let timer = tokio::time::sleep(wait.map_or(Duration::MAX, Duration::from_millis));
                    tokio::select! {
                        () = timer => {}
                        // The store is not gone while we hold it.
                        _ = published.changed() => {}
                    }
                }
            }
        }
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
    guard: Guard,
    clock: Clock,
    /// Versions are stamped here, not by another holdfast.
    stamps: bool,
    /// The next list begins an epoch, of this number or a higher one.
    epoch_from: Option<u64>,
}

impl Writer {
    /// A reader of what this writes.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// The same writer, which from now on holds back what `config` says.
    #[must_use]
    pub fn guarded(mut self, config: guard::Config, clock: Clock) -> Self {
        self.guard = Guard::new(config);
        self.clock = clock;
        self
    }

    /// The next list this process watches itself begins an epoch, numbered `at_least` or higher.
    ///
    /// For whoever begins to stamp versions that others compare: what it had on disk may be older than what it, or the one
    /// before it, had told them. Changes it saw before that list are refused: they belong to no epoch of its own.
    pub fn begin_epoch(&mut self, at_least: u64) {
        self.epoch_from = Some(at_least);
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
    /// If the update's version does not follow the store's; nothing is applied then.
    pub fn apply(&mut self, update: impl Into<Update>) -> Result<Applied, ApplyError> {
        let Update { what, changed_at, let_go_at } = update.into();
        let older = |at| self.shared.as_of().is_some_and(|as_of| as_of < at);
        let let_go = let_go_at.filter(|at| older(*at) && *at > self.shared.let_go.load().at);
        match what {
            What::Reset { origin, records, as_of } => self.reset(&origin, records, as_of, let_go),
            What::Changes { origin, changes, as_of } => self.change(&origin, changes, as_of, changed_at, let_go),
            What::Fresh { as_of } => {
                let applied = let_go.map_or_else(Applied::default, |at| self.let_go(&Release::All, at));
                self.publish(None, Some(as_of), Some(SourceState::Up));
                Ok(applied)
            }
            What::Lost { reason } => {
                self.publish(None, None, Some(SourceState::Lost(reason)));
                Ok(Applied::default())
            }
            What::Rejected(rejections) => {
                self.shared.rejections.store(Arc::new(rejections));
                self.publish(None, None, None);
                Ok(Applied::default())
            }
        }
    }

    fn reset(
        &mut self,
        origin: &Origin,
        records: Records,
        as_of: UnixMillis,
        let_go: Option<UnixMillis>,
    ) -> Result<Applied, ApplyError> {
        let held = self.shared.snapshot.load_full();
        next_version(held.version(), origin, false, true)?;
        let before = self.guard.held().counts();
        let now = self.clock.now();
        let changes = if let_go.is_some() {
            self.guard.release(&held, &Release::All);
            Guard::new(guard::Config::off()).list(&held, records, now)
        } else {
            self.guard.list(&held, records, now)
        };
        let mut version = next_version(held.version(), origin, !changes.is_empty(), true)?;
        self.stamps = matches!(origin, Origin::Watched { .. });
        if let Some(from) = self.epoch_from.take_if(|_| self.stamps) {
            version = Version { epoch: from.max(held.version().epoch + 1), rev: 1, ..version };
        }
        let confirmed = self.guard.take_confirmed().then(|| self.next_let_go(now));
        self.note_let_go(let_go.or(confirmed), &version);
        Ok(self.commit(&held, changes, version, Some(as_of), before))
    }

    fn change(
        &mut self,
        origin: &Origin,
        changes: Vec<Change>,
        as_of: UnixMillis,
        changed_at: Vec<UnixMillis>,
        let_go: Option<UnixMillis>,
    ) -> Result<Applied, ApplyError> {
        let held = self.shared.snapshot.load_full();
        if self.epoch_from.is_some() && matches!(origin, Origin::Watched { .. }) {
            return Err(ApplyError::ListFirst);
        }
        next_version(held.version(), origin, false, false)?;
        let before = self.guard.held().counts();
        let now = self.clock.now();
        let changes = if let_go.is_some() {
            let mut made = self.guard.release(&held, &Release::All);
            made.extend(Guard::new(guard::Config::off()).changes(&held, changes, now));
            made
        } else {
            self.guard.changes(&held, changes, now)
        };
        let version = next_version(held.version(), origin, !changes.is_empty(), false)?;
        self.stamps = matches!(origin, Origin::Watched { .. });
        self.note_let_go(let_go, &version);
        if !changes.is_empty() {
            self.shared.changed.note(&version, if changed_at.is_empty() { vec![now] } else { changed_at });
        }
        Ok(self.commit(&held, changes, version, Some(as_of), before))
    }

    /// Lets go of what was held long enough. To be called every second or so while
    /// [`Held::next_end`] is some.
    pub fn tick(&mut self) -> Applied {
        let served = self.shared.snapshot.load_full();
        let before = self.guard.held().counts();
        let now = self.clock.now();
        let changes = self.guard.expire(&served, now);
        self.give_up(&served, changes, before, self.next_let_go(now))
    }

    /// Lets go of what an operator says.
    pub fn release(&mut self, which: &Release) -> Applied {
        self.let_go(which, self.next_let_go(self.clock.now()))
    }

    /// The moment under which something is let go now: later than any before, which may have been another hub's whose clock
    /// was ahead. Followers take no notice of one that is not.
    fn next_let_go(&self, now: UnixMillis) -> UnixMillis {
        now.max(self.shared.let_go.load().at.plus(Duration::from_millis(1)))
    }

    fn let_go(&mut self, which: &Release, at: UnixMillis) -> Applied {
        let served = self.shared.snapshot.load_full();
        let before = self.guard.held().counts();
        let changes = self.guard.release(&served, which);
        self.give_up(&served, changes, before, at)
    }

    /// Remembers that something was let go, as `version` shows.
    fn note_let_go(&self, at: Option<UnixMillis>, version: &Version) {
        if let Some(at) = at {
            self.shared.let_go.store(Arc::new(LetGo { at, version: version.clone() }));
        }
    }

    /// Records that are no longer held go without the source saying anything new: their age stays.
    fn give_up(&mut self, served: &Snapshot, changes: Vec<Change>, before: HeldCounts, at: UnixMillis) -> Applied {
        if changes.is_empty() && self.guard.held().counts() == before {
            return Applied::default();
        }
        let mut version = served.version().clone();
        // Another holdfast's version stays as it stamped it: whoever compares digests finds what is missing there.
        version.rev += u64::from(self.stamps && !changes.is_empty());
        self.note_let_go(Some(at), &version);
        self.commit(served, changes, version, None, before)
    }

    fn commit(
        &mut self,
        served: &Snapshot,
        changes: Vec<Change>,
        version: Version,
        as_of: Option<UnixMillis>,
        before: HeldCounts,
    ) -> Applied {
        let applied = Applied { changes: changes.len() };
        let next = (applied.changes > 0 || version != *served.version()).then(|| served.apply(changes, version));
        let held = self.guard.held();
        if !Arc::ptr_eq(held, &self.shared.held.load()) {
            self.shared.held.store(Arc::clone(held));
            say_what_is_held(before, held);
        }
        self.publish(next, as_of, as_of.map(|_| SourceState::Up));
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
            *self.shared.source.lock() = source;
        }
        self.shared.published.send_modify(|count| *count += 1);
    }
}

/// An operator should know when holding begins, grows, and ends.
fn say_what_is_held(before: HeldCounts, held: &Held) {
    let HeldCounts { services, endpoints, namespaces } = held.counts();
    if services > before.services || endpoints > before.endpoints || namespaces > before.namespaces {
        let reason = held.latest_reason().map(ToString::to_string);
        tracing::warn!(services, endpoints, namespaces, reason, "deletions are held back; they go on being served");
    } else if held.is_empty() && before != HeldCounts::default() {
        tracing::info!("nothing is held back any more");
    }
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
        store::{Records, Rejection},
    };

    fn service(name: &str, ip: &str) -> Change {
        let kind = Kind::ClusterIp([ip.parse().unwrap()].into());
        Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
    }

    fn watched() -> Origin {
        Origin::Watched { cluster: "uid".into(), new_epoch: false }
    }

    fn reset(records: impl IntoIterator<Item = Change>, at: u64) -> What {
        What::Reset { origin: watched(), records: records.into_iter().collect(), as_of: UnixMillis(at) }
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
        writer.apply(What::Lost { reason: "timeout".into() }).unwrap();
        assert_eq!(reader.as_of(), Some(UnixMillis(5)));
        assert_eq!(reader.freshness().source, SourceState::Lost("timeout".into()));
        writer.apply(What::Fresh { as_of: UnixMillis(7) }).unwrap();
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
        writer.apply(What::Rejected(rejections.clone())).unwrap();
        assert_eq!(*reader.rejections(), rejections);
        assert!(Arc::ptr_eq(&before, &reader.snapshot()));
        assert_eq!(reader.freshness(), Freshness { as_of: Some(UnixMillis(5)), source: SourceState::Up });
    }

    #[test]
    fn a_restored_etcd_begins_a_new_epoch() {
        let (mut writer, reader) = open();
        writer.apply(reset([service("a", "10.0.0.1")], 5)).unwrap();
        let update = What::Reset {
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
        let changes = |version| What::Changes {
            origin: Origin::Stamped(version),
            changes: vec![service("a", "10.0.0.1")],
            as_of: UnixMillis(1),
        };
        assert!(writer.apply(changes(stamped(1, 4))).is_err(), "changes to nothing");
        let first =
            What::Reset { origin: Origin::Stamped(stamped(1, 4)), records: Records::default(), as_of: UnixMillis(1) };
        writer.apply(first).unwrap();
        writer.apply(changes(stamped(1, 5))).unwrap();
        let error = writer.apply(changes(stamped(1, 3))).unwrap_err();
        assert_eq!(error.to_string(), "version 1.3 of cluster uid does not follow 1.5");
        assert_eq!(*reader.load().version(), stamped(1, 5));
    }
}
