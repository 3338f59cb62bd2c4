//! The records in memory: one writer, any number of readers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{
    Applied, ApplyError, Freshness, Origin, Records, Rejections, SourceState, Update, Upstream, What,
    changed::ChangeTimes,
    guard::{self, Draft, Ends, Guard, Held, HeldCounts, HeldKey, Release},
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
#[must_use]
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
        epoch_from: None,
        refused_cluster: None,
        accepted: None,
        released_upstream: UnixMillis(0),
        waiting: Vec::new(),
    };
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

    /// Records the source deleted that are still served.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(self.load().held())
    }

    /// Whether this process watches the source itself, so that its guard judges.
    #[must_use]
    pub fn judges(&self) -> bool {
        self.shared.judges.load(Ordering::Acquire)
    }

    /// The last releases by operators that `snapshot` shows, the oldest first.
    #[must_use]
    pub fn releases(&self, snapshot: &Snapshot) -> Vec<Released> {
        let releases = self.shared.releases.load();
        let shown = |version: &Version| version == snapshot.version() || snapshot.version().follows(version);
        let shown = releases
            .iter()
            .filter(|(released, version)| matches!(released.which, Release::Cluster(_)) || shown(version));
        shown.map(|(released, _)| released.clone()).collect()
    }

    /// The last time the guard, here or at a hub upstream, let deletions pass, if `snapshot` shows that; else 0.
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

    /// Waits until a list could end holds, or an operator wants one; returns the moment it became due.
    ///
    /// The caller then starts the source again, on a new connection; its first list is the one. `asked` is the moment this
    /// returned last, so that one moment is asked about once.
    pub async fn confirmation_due(&self, clock: &Clock, asked: Option<UnixMillis>) -> UnixMillis {
        let mut published = self.subscribe();
        loop {
            match self.shared.list_wanted.swap(0, Ordering::AcqRel) {
                0 => {}
                at => return UnixMillis(at),
            }
            let due = self.held().confirm_at(!self.judges()).filter(|at| Some(*at) != asked);
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

/// The one writer of a process. Not `Clone`: its owner decides what the store says.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    guard: Guard,
    clock: Clock,
    /// The next list begins an epoch, of this number or a higher one.
    epoch_from: Option<u64>,
    /// Another cluster answers, and was refused: its UID.
    refused_cluster: Option<Arc<str>>,
    /// An operator accepts the cluster of this UID.
    accepted: Option<Arc<str>>,
    /// The moment of the last release upstream that was taken note of.
    released_upstream: UnixMillis,
    /// When the objects changed that are behind deletions which wait.
    waiting: Vec<UnixMillis>,
}

/// Followers end a hold this much later than its judge, who may be gone.
const JUDGE_GONE: Duration = Duration::from_secs(60);

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
    /// For a process that begins to stamp versions that others compare: the records on its disk may be older than those it,
    /// or the process before it, sent. Changes it saw before that list are refused: they belong to no epoch of its own.
    pub fn begin_epoch(&mut self, at_least: u64) {
        self.epoch_from = Some(at_least);
    }

    /// Puts in what the disk had, before anything else came.
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

    fn follow_list(
        &mut self,
        version: Version,
        records: &Records,
        as_of: UnixMillis,
        upstream: Upstream,
    ) -> Result<Applied, ApplyError> {
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        check_stamp(served.version(), &version)?;
        let mut draft = Draft::of(&served);
        let released = self.released(&mut draft, &upstream.releases);
        // One version with two contents: a hub of another history, whatever it says of its epochs.
        let forked = version == *served.version() && records.differ(&served);
        let knew = self.guard.is_off() || (upstream.lineage.knew(&version, served.version()) && !forked);
        let other = !served.version().cluster.is_empty() && served.version().cluster != version.cluster;
        if other && !knew && self.accepted.as_ref() != Some(&version.cluster) {
            return Err(self.refuse(&served, &version.cluster, false));
        }
        self.refused_cluster = None;
        let all = released.contains(&Release::All) || (other && !knew);
        if all || (knew && draft.snapshot().held().refused() == 0) {
            Guard::become_hub(&mut draft, records);
        } else {
            self.guard.judge_hub(&mut draft, records, &released, now);
        }
        self.accepted.take_if(|_| other);
        self.shared.judges.store(false, Ordering::Release);
        self.note_upstream(&upstream, &version);
        Ok(self.commit_as(&served, draft, version, Some(as_of), Some(upstream.lineage)))
    }

    fn follow_changes(
        &mut self,
        version: Version,
        changes: &[Change],
        as_of: UnixMillis,
        changed_at: Vec<UnixMillis>,
        upstream: Upstream,
    ) -> Result<Applied, ApplyError> {
        let served = self.shared.snapshot.load_full();
        let held = served.version();
        if held.cluster != version.cluster {
            return Err(ApplyError::OtherCluster {
                offered: Arc::clone(&version.cluster),
                held: Arc::clone(&held.cluster),
            });
        }
        check_stamp(held, &version)?;
        let mut draft = Draft::of(&served);
        self.released(&mut draft, &upstream.releases);
        self.guard.follow_changes(&mut draft, changes);
        self.shared.judges.store(false, Ordering::Release);
        self.note_upstream(&upstream, &version);
        if draft.changes > 0 {
            let now = self.clock.now();
            self.shared.changed.note(&version, if changed_at.is_empty() { vec![now] } else { changed_at });
        }
        let lineage = (held.epoch != version.epoch).then_some(upstream.lineage);
        Ok(self.commit_as(&served, draft, version, Some(as_of), lineage))
    }

    /// Holds everything, because another cluster answers; its age stands still.
    fn refuse(&mut self, served: &Snapshot, cluster: &Arc<str>, judge: bool) -> ApplyError {
        let now = self.clock.now();
        let mut draft = Draft::of(served);
        Guard::refuse_cluster(&mut draft, cluster, !judge, now);
        let version = if judge { next_version(served, &draft) } else { served.version().clone() };
        let error = ApplyError::Refused { offered: Arc::clone(cluster), held: Arc::clone(&served.version().cluster) };
        self.shared.judges.store(judge, Ordering::Release);
        self.refused_cluster = Some(Arc::clone(cluster));
        self.commit(served, draft, version, None);
        self.publish(None, None, Some(SourceState::Lost(error.to_string())));
        error
    }

    /// Takes note of releases by operators upstream, and ends what is refused here because of them. Returns those that are
    /// new and later than the records.
    fn released(&mut self, draft: &mut Draft, releases: &[Released]) -> Vec<Release> {
        let as_of = self.shared.as_of();
        let mut new = Vec::new();
        for released in releases.iter().filter(|released| released.at > self.released_upstream) {
            if as_of.is_some_and(|as_of| as_of <= released.at) {
                new.push(released.which.clone());
            }
        }
        self.released_upstream = releases.iter().map(|released| released.at).fold(self.released_upstream, Ord::max);
        for which in &new {
            if let Release::Cluster(uid) = which {
                self.accepted = Some(Arc::clone(uid));
                if self.refused_cluster.as_ref() == Some(uid) {
                    self.want_list();
                }
            } else {
                self.guard.release(draft, which, true, self.clock.now());
            }
        }
        new
    }

    /// Passes on what the guards upstream decided.
    fn note_upstream(&self, upstream: &Upstream, version: &Version) {
        if upstream.let_go > self.shared.let_go.load().at {
            self.note_let_go(upstream.let_go, version);
        }
        if let Some(last) = upstream.releases.last()
            && self.shared.releases.load().last().is_none_or(|(known, _)| known.at < last.at)
        {
            let releases = upstream.releases.iter().map(|released| (released.clone(), version.clone())).collect();
            self.shared.releases.store(Arc::new(releases));
        }
    }

    /// Asks for a complete list on a new connection.
    fn want_list(&self) {
        self.shared.list_wanted.store(self.clock.now().0.max(1), Ordering::Release);
    }

    /// When [`Writer::tick`] has work next.
    #[must_use]
    pub fn next_tick(&self) -> Option<UnixMillis> {
        let served = self.shared.snapshot.load();
        let end = served.held().next_end().map(|at| if self.judges() { at } else { at.plus(JUDGE_GONE) });
        let refused = served.held().services().filter(|(_, hold)| hold.refused);
        let refused = refused.filter_map(|(_, hold)| if let Ends::At(at) = hold.ends { Some(at) } else { None }).min();
        [self.guard.due(), end, refused].into_iter().flatten().min()
    }

    /// Decides the deletions that waited long enough, and ends the holds whose time is over.
    pub fn tick(&mut self) -> Applied {
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        let judges = self.judges();
        let mut draft = Draft::of(&served);
        if self.guard.due().is_some_and(|due| due <= now) {
            self.guard.flush(&mut draft, now);
        }
        let late =
            |hold: &guard::Hold, at: UnixMillis| at <= now && (judges || hold.refused) || at.plus(JUDGE_GONE) <= now;
        self.guard.expire(&mut draft, late);
        let version = if judges { next_version(&served, &draft) } else { served.version().clone() };
        if draft.changes > 0 && !self.waiting.is_empty() {
            self.shared.changed.note(&version, std::mem::take(&mut self.waiting));
        }
        self.commit(&served, draft, version, None)
    }

    /// Ends the holds an operator releases: those of this process. What a hub upstream holds stays.
    ///
    /// Followers are told, those that are away when they come back.
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

/// The holds a release at a process would end: all of them at the judge, at a follower those it refuses itself.
#[must_use]
pub fn releasable(held: &Held, which: &Release, judges: bool) -> HeldCounts {
    let mut counts = HeldCounts::default();
    for (key, hold) in held.all().filter(|(_, hold)| judges || hold.refused) {
        let covered = match which {
            Release::Cluster(_) => matches!(hold.reason, guard::Reason::Cluster { .. }),
            which => which.covers(key.namespace()),
        };
        if covered {
            match (&key, &hold.kept) {
                (HeldKey::Namespace(_), _) => counts.namespaces += 1,
                (HeldKey::Service(_), guard::Kept::Whole) => counts.services += 1,
                (HeldKey::Service(_), guard::Kept::Endpoints(ips)) => counts.endpoints += ips.len(),
            }
        }
    }
    counts
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

fn check_stamp(held: &Version, version: &Version) -> Result<(), ApplyError> {
    if held.cluster == version.cluster && version != held && !version.follows(held) {
        return Err(ApplyError::VersionBack { offered: version.clone(), held: held.clone() });
    }
    Ok(())
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
