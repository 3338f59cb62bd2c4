//! The records in memory: one writer, any number of readers.

mod follow;
mod reader;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::reader::{Reader, releasable};
use super::{
    Applied, ApplyError, Origin, Records, Rejections, SourceState, Update, What,
    changed::ChangeTimes,
    guard::{self, Draft, Ends, Guard, Held, HeldCounts, Release},
};
use crate::{
    record::{Change, Lineage, Released, Snapshot, Version},
    sys::{Clock, Lock, UnixMillis},
};

/// Moments remembered of deletions that wait.
const WAITING_MAX: usize = 10_000;
/// `as_of` that stands for "never".
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Shared {
    snapshot: ArcSwap<Snapshot>,
    as_of: AtomicU64,
    source: Lock<SourceState>,
    rejections: ArcSwap<Rejections>,
    let_go: ArcSwap<LetGo>,
    /// Releases by operators, each with the version that shows it.
    releases: ArcSwap<Vec<(Released, Version)>>,
    /// This process watches the source itself, so that it judges.
    judges: AtomicBool,
    /// A complete list is wanted since then; 0 if none is.
    list_wanted: AtomicU64,
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

/// The last time the guard, here or upstream, let deletions pass.
#[derive(Debug, Default)]
struct LetGo {
    at: UnixMillis,
    /// The version that shows it.
    version: Version,
}

/// Makes an empty store, whose writer holds nothing back until it is given a [guard](Writer::guarded).
pub fn open() -> (Writer, Reader) {
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        as_of: AtomicU64::new(NEVER),
        source: Lock::default(),
        rejections: ArcSwap::default(),
        let_go: ArcSwap::default(),
        releases: ArcSwap::default(),
        judges: AtomicBool::new(false),
        list_wanted: AtomicU64::new(0),
        changed: ChangeTimes::default(),
        published: watch::Sender::new(0),
    });
    let guard = Guard::new(guard::Config::off());
    let writer = Writer {
        shared: Arc::clone(&shared),
        guard,
        clock: Clock::System,
        wall_ahead_ms: Clock::System.wall_ahead_ms(),
        epoch_from: None,
        refused_cluster: None,
        accepted: None,
        released_upstream: UnixMillis(0),
        waiting: Vec::new(),
    };
    (writer, Reader { shared })
}

/// The one writer of a process. Not `Clone`: its owner alone changes the store.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    guard: Guard,
    clock: Clock,
    /// How far the wall clock was ahead of the steady time when it was last looked at, in ms.
    wall_ahead_ms: i64,
    /// The next list begins an epoch, of this number or a higher one.
    epoch_from: Option<u64>,
    /// Another cluster answers, and was refused: its UID.
    refused_cluster: Option<Arc<str>>,
    /// An operator accepts the cluster of this UID.
    accepted: Option<Arc<str>>,
    /// The moment of the last release upstream that is known here.
    released_upstream: UnixMillis,
    /// When the objects changed that are behind deletions which wait.
    waiting: Vec<UnixMillis>,
}

/// A wall clock that moved by less against the steady time was not set: both are read one after the other.
const CLOCK_SET_MS: u64 = 5_000;
/// Followers that lost their source end a hold this much later than its judge would, which may be gone.
const JUDGE_GONE: Duration = Duration::from_secs(60);

impl Writer {
    /// A reader of these records.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// The same writer, with a guard that follows `config`.
    #[must_use]
    pub fn guarded(mut self, config: guard::Config, clock: Clock) -> Self {
        self.guard = Guard::new(config);
        self.wall_ahead_ms = clock.wall_ahead_ms();
        self.clock = clock;
        self
    }

    /// The next list this process watches itself begins an epoch, numbered `at_least` or higher.
    ///
    /// For a process that begins to stamp versions that others compare: the records on its disk may be older than those it,
    /// or the process before it, sent. Changes it saw before that list are refused: they belong to no epoch of its own.
    pub fn begin_epoch(&mut self, at_least: u64) {
        self.epoch_from = Some(at_least);
    }

    /// Starts with the records on disk, before the first update.
    ///
    /// The source stays [`SourceState::Starting`]: records from disk are as old as the disk says.
    pub fn restore(&mut self, snapshot: Snapshot, as_of: UnixMillis) {
        self.publish(Some(snapshot), Some(as_of), None);
    }

    /// Whether this process judges: it watches the source itself.
    fn judges(&self) -> bool {
        self.shared.judges.load(Ordering::Acquire)
    }

    /// Applies one update whole and publishes the outcome.
    ///
    /// # Errors
    /// If the update's version does not follow the store's, or another cluster answers; no record is changed then.
    pub fn apply(&mut self, update: impl Into<Update>) -> Result<Applied, ApplyError> {
        let Update { what, changed_at, ending, upstream } = update.into();
        self.follow_clock();
        match what {
            What::Reset { origin: Origin::Watched { cluster, new_epoch }, records, as_of } => {
                self.watched_list(&cluster, new_epoch, records, as_of)
            }
            What::Reset { origin: Origin::Stamped(version), records, as_of } => {
                self.follow_list(version, &records, as_of, upstream)
            }
            What::Changes { origin: Origin::Watched { cluster, .. }, changes, as_of } => {
                self.watched_changes(&cluster, changes, ending, as_of, changed_at)
            }
            What::Changes { origin: Origin::Stamped(version), changes, as_of } => {
                self.follow_changes(version, &changes, as_of, changed_at, upstream)
            }
            What::Fresh { as_of } => {
                if self.refused_cluster.is_some() {
                    return Ok(Applied::default());
                }
                let served = self.shared.snapshot.load_full();
                let mut draft = Draft::of(&served);
                self.released(&mut draft, &upstream.releases);
                self.note_upstream(&upstream, served.version());
                let applied = self.commit(&served, draft, served.version().clone(), None);
                self.publish(None, Some(as_of), Some(SourceState::Up));
                Ok(applied)
            }
            What::Lost { reason } => {
                self.publish(None, None, Some(SourceState::Lost(reason)));
                Ok(Applied::default())
            }
            What::Listing => {
                self.publish(None, None, Some(SourceState::Starting));
                Ok(Applied::default())
            }
            What::Rejected(rejections) => {
                self.shared.rejections.store(Arc::new(rejections));
                self.publish(None, None, None);
                Ok(Applied::default())
            }
        }
    }

    fn watched_list(
        &mut self,
        cluster: &Arc<str>,
        new_epoch: bool,
        records: Records,
        as_of: UnixMillis,
    ) -> Result<Applied, ApplyError> {
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        let mut draft = Draft::of(&served);
        let before = served.version();
        let other = !before.cluster.is_empty() && before.cluster != *cluster;
        let accepted = self.accepted.as_ref() == Some(cluster);
        if other && !accepted && !records.from_files && !self.guard.is_off() {
            return Err(self.refuse(&served, cluster, true));
        }
        self.refused_cluster = None;
        self.waiting.clear();
        if other && accepted {
            self.accepted = None;
            Guard::become_hub(&mut draft, &records);
        } else {
            self.guard.list(&mut draft, records, now);
        }
        let version = if other || new_epoch || before.cluster.is_empty() || self.epoch_from.is_some() {
            let epoch = self.epoch_from.take().unwrap_or_default().max(before.epoch + 1);
            Version { cluster: Arc::clone(cluster), epoch, rev: 1 }
        } else {
            Version { rev: before.rev + u64::from(draft.differs()), ..before.clone() }
        };
        self.shared.judges.store(true, Ordering::Release);
        Ok(self.commit(&served, draft, version, Some(as_of)))
    }

    fn watched_changes(
        &mut self,
        cluster: &Arc<str>,
        changes: Vec<Change>,
        ending: Vec<Arc<str>>,
        as_of: UnixMillis,
        changed_at: Vec<UnixMillis>,
    ) -> Result<Applied, ApplyError> {
        if self.epoch_from.is_some() {
            return Err(ApplyError::ListFirst);
        }
        let served = self.shared.snapshot.load_full();
        let held = &served.version().cluster;
        if held != cluster {
            return Err(ApplyError::OtherCluster { offered: Arc::clone(cluster), held: Arc::clone(held) });
        }
        let now = self.clock.now();
        let mut draft = Draft::of(&served);
        self.guard.changes(&mut draft, changes, ending, now);
        let version = next_version(&served, &draft);
        self.shared.judges.store(true, Ordering::Release);
        if draft.changes > 0 {
            self.shared.changed.note(&version, if changed_at.is_empty() { vec![now] } else { changed_at });
        } else if self.guard.due().is_some() {
            self.waiting.extend(changed_at.into_iter().take(WAITING_MAX.saturating_sub(self.waiting.len())));
        }
        Ok(self.commit(&served, draft, version, Some(as_of)))
    }

    /// By how many ms the wall clock was set since it was last looked at.
    fn clock_was_set(&self) -> Option<i64> {
        let by = self.clock.wall_ahead_ms().saturating_sub(self.wall_ahead_ms);
        (by.unsigned_abs() >= CLOCK_SET_MS).then_some(by)
    }

    /// Moves pending deletions and the holds decided here with the wall clock, so that each lasts as long as before: times of holds
    /// are stored and sent to followers, so they are wall-clock times.
    fn follow_clock(&mut self) {
        let Some(by) = self.clock_was_set() else { return };
        self.wall_ahead_ms = self.wall_ahead_ms.saturating_add(by);
        self.guard.move_times(by);
        let judges = self.judges();
        let served = self.shared.snapshot.load_full();
        let mut draft = Draft::of(&served);
        draft.move_holds(by, |hold| judges || hold.refused);
        if draft.differs() {
            let version = if judges { next_version(&served, &draft) } else { served.version().clone() };
            self.commit(&served, draft, version, None);
        }
    }

    /// Whether the source speaks: then the judge behind it ends its holds itself, by its own clock, which may not be ours.
    fn judge_is_heard(&self) -> bool {
        *self.shared.source.lock() == SourceState::Up
    }

    /// When [`Writer::tick`] has work next.
    pub fn next_tick(&self) -> Option<UnixMillis> {
        if self.clock_was_set().is_some() {
            return Some(self.clock.now());
        }
        let served = self.shared.snapshot.load();
        let of_others = || (!self.judge_is_heard()).then_some(JUDGE_GONE);
        let end = served.held().next_end();
        let end = end.and_then(|at| if self.judges() { Some(at) } else { of_others().map(|late| at.plus(late)) });
        let refused = served.held().services().filter(|(_, hold)| hold.refused);
        let refused = refused.filter_map(|(_, hold)| if let Ends::At(at) = hold.ends { Some(at) } else { None }).min();
        [self.guard.due(), end, refused].into_iter().flatten().min()
    }

    /// Decides the deletions that waited long enough, and ends the holds whose time is over.
    pub fn tick(&mut self) -> Applied {
        self.follow_clock();
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        let judges = self.judges();
        let mut draft = Draft::of(&served);
        if self.guard.due().is_some_and(|due| due <= now) {
            self.guard.flush(&mut draft, now);
        }
        let gone = !judges && !self.judge_is_heard();
        let late = |hold: &guard::Hold, at: UnixMillis| {
            at <= now && (judges || hold.refused) || gone && at.plus(JUDGE_GONE) <= now
        };
        self.guard.expire(&mut draft, late);
        let version = if judges { next_version(&served, &draft) } else { served.version().clone() };
        if draft.changes > 0 && !self.waiting.is_empty() {
            self.shared.changed.note(&version, std::mem::take(&mut self.waiting));
        }
        self.commit(&served, draft, version, None)
    }

    /// Ends the holds an operator releases: those of this process. Holds of a hub upstream stay.
    ///
    /// Followers are told at once, or when they connect again.
    pub fn release(&mut self, which: &Release) -> Applied {
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        let judges = self.judges();
        let mut which = which.clone();
        let mut draft = Draft::of(&served);
        if let Release::Cluster(uid) = &mut which {
            // Without a cluster refused here, followers are told that ours is meant.
            let refused = self.refused_cluster.clone();
            *uid = refused.unwrap_or_else(|| Arc::clone(&served.version().cluster));
            self.accepted = Some(Arc::clone(uid));
            self.want_list();
        } else {
            self.guard.release(&mut draft, &which, !judges, now);
        }
        let version = if judges { next_version(&served, &draft) } else { served.version().clone() };
        let at = self.next_let_go(now);
        let mut releases = (*self.shared.releases.load_full()).clone();
        releases.push((Released { at, which: which.clone() }, version.clone()));
        let excess = releases.len().saturating_sub(Released::MAX);
        releases.drain(..excess);
        self.shared.releases.store(Arc::new(releases));
        self.note_let_go(at, &version);
        let left = draft.snapshot().held().all().filter(|(key, _)| which.covers(key.namespace())).count();
        let applied = self.commit(&served, draft, version, None);
        Applied { held_upstream: left, ..applied }
    }

    /// A moment for a decision made now: later than any before, which may have been another hub's whose clock was ahead.
    /// Followers take no notice of one that is not.
    fn next_let_go(&self, now: UnixMillis) -> UnixMillis {
        let later = |at: UnixMillis| at.plus(Duration::from_millis(1));
        let released = self.shared.releases.load().last().map_or(UnixMillis(0), |(released, _)| later(released.at));
        now.max(later(self.shared.let_go.load().at)).max(released)
    }

    fn note_let_go(&self, at: UnixMillis, version: &Version) {
        self.shared.let_go.store(Arc::new(LetGo { at, version: version.clone() }));
    }

    fn commit(&mut self, served: &Snapshot, draft: Draft, version: Version, as_of: Option<UnixMillis>) -> Applied {
        self.commit_as(served, draft, version, as_of, None)
    }

    fn commit_as(
        &mut self,
        served: &Snapshot,
        draft: Draft,
        version: Version,
        as_of: Option<UnixMillis>,
        lineage: Option<Arc<Lineage>>,
    ) -> Applied {
        let applied = Applied { changes: draft.changes, held_upstream: 0 };
        if self.judges() && draft.losses > 0 {
            self.note_let_go(self.next_let_go(self.clock.now()), &version);
        }
        let before = served.held().counts();
        let next = (draft.differs() || version != *served.version()).then(|| {
            let begins = (version.epoch, &version.cluster) != (served.version().epoch, &served.version().cluster);
            let lineage = lineage.or_else(|| {
                let begin = || {
                    let mut lineage = (**served.lineage()).clone();
                    lineage.begin(Version { rev: 1, ..version.clone() }, served.version().clone());
                    Arc::new(lineage)
                };
                (begins && self.judges()).then(begin)
            });
            let next = draft.into_snapshot().with_version(version);
            match lineage {
                Some(lineage) => next.with_lineage(lineage),
                None => next,
            }
        });
        if let Some(next) = &next {
            log_holds(before, next.held());
        }
        self.publish(next, as_of, as_of.map(|_| SourceState::Up));
        applied
    }

    /// The records first, then their age, then the wake-up: no reader sees new age on old records.
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

/// Logs when holding begins, grows and ends.
fn log_holds(before: HeldCounts, held: &Held) {
    let HeldCounts { services, endpoints, namespaces } = held.counts();
    if services > before.services || endpoints > before.endpoints || namespaces > before.namespaces {
        let reason = held.latest_reason().map(ToString::to_string);
        tracing::warn!(
            services,
            endpoints,
            namespaces,
            reason,
            "mass deletion blocked: the records are still served; see holdfast guard"
        );
    } else if held.is_empty() && before != HeldCounts::default() {
        tracing::info!("no deletion is held any more");
    }
}

/// The version after `draft`, for a process that stamps.
fn next_version(served: &Snapshot, draft: &Draft) -> Version {
    let version = served.version();
    Version { rev: version.rev + u64::from(draft.differs()), ..version.clone() }
}

fn check_stamp(held: &Version, version: &Version, now: UnixMillis) -> Result<(), ApplyError> {
    if held.cluster == version.cluster && version != held && !version.follows(held) && !held.is_ahead(now) {
        return Err(ApplyError::VersionBack { offered: version.clone(), held: held.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
