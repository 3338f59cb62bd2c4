//! The readers of the store: they never wait.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::watch;

use super::Shared;
use crate::{
    record::{Release, Released, Snapshot, Version},
    store::{
        Applied, Freshness, Rejections,
        guard::{Held, HeldCounts},
    },
    sys::{Clock, UnixMillis},
};

/// A reader's view of the store. Cheap to clone, never blocks.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    /// The records as they stand, for one query or one batch of them. Do not keep it across a wait.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.shared.snapshot.load()
    }

    /// The records as they stand, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// When the source last confirmed the records; `None` until there was a first list or a load from disk.
    ///
    /// `None` is the "not synced" of first boot; once it is `Some` it stays so.
    pub fn as_of(&self) -> Option<UnixMillis> {
        self.shared.as_of()
    }

    /// Age and source together, for people.
    pub fn freshness(&self) -> Freshness {
        let source = self.shared.source.lock().clone();
        Freshness { as_of: self.as_of(), source }
    }

    /// The objects the source gave that cannot be used.
    pub fn rejections(&self) -> Arc<Rejections> {
        self.shared.rejections.load_full()
    }

    /// Records the source deleted that are still served.
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(self.load().held())
    }

    /// Whether this process watches the source itself, so that its guard judges.
    pub fn judges(&self) -> bool {
        self.shared.judges.load(Ordering::Acquire)
    }

    /// The last releases by operators that `snapshot` shows, the oldest first.
    pub fn releases(&self, snapshot: &Snapshot) -> Vec<Released> {
        let releases = self.shared.releases.load();
        let shown = |version: &Version| version == snapshot.version() || snapshot.version().follows(version);
        let shown = releases
            .iter()
            .filter(|(released, version)| matches!(released.which, Release::Cluster(_)) || shown(version));
        shown.map(|(released, _)| released.clone()).collect()
    }

    /// The last time the guard, here or at a hub upstream, let deletions pass, if `snapshot` shows that; else 0.
    pub fn let_go(&self, snapshot: &Snapshot) -> UnixMillis {
        let let_go = self.shared.let_go.load();
        let shows = let_go.version == *snapshot.version() || snapshot.version().follows(&let_go.version);
        if shows { let_go.at } else { UnixMillis(0) }
    }

    /// When objects changed that are behind the versions after `before`, up to `version`; as far as that is remembered, and
    /// not for what complete lists brought.
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
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }
}

/// The holds that a release at a process would end, and what it would do: all of them at the judge, at a follower those that it
/// refuses itself.
pub fn releasable(held: &Held, which: &Release, judges: bool) -> (HeldCounts, Applied) {
    let (mut counts, mut applied) = (HeldCounts::default(), Applied::default());
    for (key, hold) in held.all().filter(|(key, _)| which.covers(key.namespace())) {
        if !judges && !hold.refused {
            applied.held_upstream += 1;
            continue;
        }
        applied.changes += 1;
        counts.add(&key, hold);
    }
    (counts, applied)
}
