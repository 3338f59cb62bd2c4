//! Holds back deletions that are more likely a fault than meant: the records stay served, each with a hold that says why.
//!
//! The guard of the process that watches the source judges; its holds travel with the records, and followers apply them.
//! A follower judges only what its hub could not know ([`follow`]). `docs/decisions/guard.md` has the
//! table of rules. The guard decides on a [`Draft`]; it does no I/O, reads no clock and wakes no task.

mod comparison;
mod config;
mod draft;
mod follow;
mod judge;
mod list;
mod puts;
#[cfg(test)]
mod tests;
mod windows;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub use self::config::Config;
pub(super) use self::draft::Draft;
use self::{
    draft::without,
    puts::owners,
    windows::{Deleted, Lost},
};
use super::update::last_of_each;
pub use crate::record::{Class, Ends, Held, HeldCounts, HeldKey, Hold, Kept, Reason, Release};
use crate::{
    record::{Change, Kind, Service, ServiceKey},
    sys::UnixMillis,
};

/// Deletions with less time than this between them are decided together.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest a deletion waits for others.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// The longest a burst that may become large enough to be held waits for its end.
const BURST_MAX: Duration = Duration::from_secs(10);
/// Namespaces remembered whose deletion began. A cluster has as many namespaces at most.
const ENDING_MAX: usize = 100_000;

/// Deletions by events that wait to be decided together.
#[derive(Debug, Default)]
struct Pending {
    services: HashSet<ServiceKey>,
    namespaces: HashSet<Arc<str>>,
    /// When the first and the last of them came.
    first: UnixMillis,
    last: UnixMillis,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.namespaces.is_empty()
    }

    fn came(&mut self, now: UnixMillis) {
        if self.is_empty() {
            self.first = now;
        }
        self.last = now;
    }
}

/// The state of the guard. The holds are in the snapshot.
#[derive(Debug)]
pub(super) struct Guard {
    config: Config,
    pending: Pending,
    /// Namespaces whose deletion began.
    ending: HashSet<Arc<str>>,
    deleted: Deleted,
    meant: Deleted,
    losses: Lost,
    /// The source's version of services of which endpoints are held.
    sources: HashMap<ServiceKey, Arc<Service>>,
}

impl Guard {
    pub(super) fn new(config: Config) -> Self {
        Self {
            pending: Pending::default(),
            ending: HashSet::new(),
            deleted: Deleted::new(config.deletes_within),
            meant: Deleted::new(config.deletes_within),
            losses: Lost::new(config.losses_within),
            sources: HashMap::new(),
            config,
        }
    }

    /// Whether nothing is ever held.
    pub(super) fn is_off(&self) -> bool {
        self.config.is_off()
    }

    /// Takes in events of the source. `ending` are namespaces whose deletion was seen to begin.
    pub(super) fn changes(&mut self, draft: &mut Draft, changes: Vec<Change>, ending: Vec<Arc<str>>, now: UnixMillis) {
        let (mut puts, mut gone) = (Vec::new(), Vec::new());
        for change in last_of_each(changes) {
            match change {
                Change::Put(service) => puts.push(service),
                Change::Remove(key) => gone.push(key),
                Change::PutNamespace(name) => {
                    self.ending.remove(&name);
                    self.pending.namespaces.remove(&name);
                    draft.put_namespace(&name);
                }
                Change::RemoveNamespace(name) => {
                    self.end_namespace(draft, &name, now);
                    self.pending.came(now);
                    self.pending.namespaces.insert(name);
                }
                // Decided by no source.
                Change::Hold(..) | Change::Release(_) => {}
            }
        }
        for name in ending {
            self.end_namespace(draft, &name, now);
        }
        self.put_all(draft, puts, None, now);
        for key in gone {
            if draft.snapshot().service_by_key(&key).is_some() && !draft.holds_whole(&key) {
                self.pending.came(now);
                self.pending.services.insert(key);
            }
        }
        if self.is_off() {
            self.flush(draft, now);
        }
    }

    /// The deletion of a namespace began: deletions in it are meant, those that are held too.
    fn end_namespace(&mut self, draft: &Draft, name: &Arc<str>, now: UnixMillis) {
        if self.ending.len() >= ENDING_MAX {
            self.ending.clear();
        }
        if !self.ending.insert(Arc::clone(name)) || self.config.protects(name) {
            return;
        }
        let fact = |hold: &Hold| matches!(hold.reason, Reason::Deletes { .. }) && !hold.refused;
        let held = draft.snapshot().held().services().filter(|(key, hold)| key.namespace() == &**name && fact(hold));
        let keys: Vec<ServiceKey> = held.map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            self.pending.came(now);
            self.pending.services.extend(keys);
        }
    }

    /// The wall clock was set by `by_ms`: moves the times of counted and pending deletions with it.
    pub(super) fn move_times(&mut self, by_ms: i64) {
        let Pending { first, last, .. } = &mut self.pending;
        for at in [first, last] {
            *at = at.moved_ms(by_ms);
        }
        self.deleted.move_times(by_ms);
        self.meant.move_times(by_ms);
        self.losses.move_times(by_ms);
    }

    /// When the deletions that wait are to be decided; none if none wait.
    pub(super) fn due(&self) -> Option<UnixMillis> {
        if self.pending.is_empty() {
            return None;
        }
        let meant = |key: &&ServiceKey| self.ending.contains(key.namespace());
        // Half of the number that is held: even a server that takes 200 ms for each deletion reaches it in two seconds.
        let large = self.pending.services.iter().filter(|key| !meant(key)).count() * 2 >= self.config.deletes_min;
        let longest = if large { BURST_MAX } else { SETTLE_MAX };
        Some(self.pending.last.plus(SETTLE).min(self.pending.first.plus(longest)))
    }

    /// Decides the deletions by events that wait.
    pub(super) fn flush(&mut self, draft: &mut Draft, now: UnixMillis) {
        let Pending { services, namespaces, .. } = std::mem::take(&mut self.pending);
        let (mut meant, mut plain, mut protected) = (Vec::new(), Vec::new(), Vec::new());
        for key in services {
            if draft.snapshot().service_by_key(&key).is_none() {
                continue;
            }
            self.losses.forget(&key);
            if !self.ending.contains(key.namespace()) {
                self.deleted.delete(&key, now);
                plain.push(key);
            } else if self.config.protects(key.namespace()) {
                protected.push(key);
            } else {
                self.deleted.restore(&key);
                self.meant.delete(&key, now);
                meant.push(key);
            }
        }
        let served = draft.snapshot();
        let (mut deleted, mut passed) = (0, 0);
        for key in self.deleted.services(now) {
            deleted += 1;
            passed += usize::from(served.service_by_key(key).is_none());
        }
        let mut with_namespace = 0;
        for key in self.meant.services(now) {
            with_namespace += 1;
            passed += usize::from(served.service_by_key(key).is_none());
        }
        let of = served.counts().services + passed;
        let ends = Ends::Listed(now.plus(self.config.deletes_held_for));
        let plain_reason = judge::deletes(deleted, of, &self.config)
            .then_some(Reason::Deletes { deleted: deleted as u64, of: of as u64 });
        let meant_reason = judge::meant(with_namespace, of, &self.config)
            .then_some(Reason::Namespaces { deleted: with_namespace as u64, of: of as u64 });
        let decided =
            [(plain, plain_reason.clone()), (meant, meant_reason.clone()), (protected, Some(Reason::Protected))];
        for (keys, reason) in decided {
            for key in keys {
                match &reason {
                    Some(reason) => self.hold_whole(draft, &key, reason, ends, now),
                    None => self.let_go(draft, &key),
                }
            }
        }
        for name in namespaces {
            let reason = if self.config.protects(&name) { Some(Reason::Protected) } else { meant_reason.clone() };
            match reason {
                Some(reason) if draft.snapshot().lists_namespace(&name) => {
                    let hold = Hold { kept: Kept::Whole, reason, since: now, ends, refused: false };
                    draft.hold(HeldKey::Namespace(name), hold);
                }
                _ => {
                    if !self.config.protects(&name) {
                        self.ending.remove(&name);
                    }
                    draft.remove_namespace(&name);
                }
            }
        }
    }

    fn forget(&mut self, key: &HeldKey) {
        match key {
            HeldKey::Service(key) => {
                self.sources.remove(key);
            }
            HeldKey::Namespace(name) => {
                self.ending.remove(name);
            }
        }
    }

    /// Ends holds whose time is over.
    pub(super) fn expire(&mut self, draft: &mut Draft, over: impl Fn(&Hold, UnixMillis) -> bool) {
        let ended = |_: &HeldKey, hold: &Hold| matches!(hold.ends, Ends::At(at) if over(hold, at));
        self.give_up(draft, ended);
    }

    /// Ends the holds an operator releases.
    pub(super) fn release(&mut self, draft: &mut Draft, which: &Release, refused_only: bool, now: UnixMillis) {
        if !refused_only {
            self.deleted.clear();
            self.meant.clear();
            self.losses.clear();
        }
        if *which == Release::All && !refused_only {
            self.flush(draft, now);
        }
        self.give_up(draft, |key, hold| which.covers(key.namespace()) && (hold.refused || !refused_only));
    }

    /// Ends the holds that `which` names: serves the source's version of their records.
    fn give_up(&mut self, draft: &mut Draft, which: impl Fn(&HeldKey, &Hold) -> bool) {
        let held = Arc::clone(draft.snapshot().held());
        for (key, hold) in held.all().filter(|(key, hold)| which(key, hold)) {
            if let (HeldKey::Service(service), Kept::Endpoints(ips)) = (&key, &hold.kept) {
                let Some(served) = draft.snapshot().service_by_key(service).cloned() else { continue };
                let source = self.sources.remove(service).unwrap_or_else(|| Arc::new(without(&served, ips)));
                draft.release(&key);
                draft.put(&source);
            } else {
                self.forget(&key);
                draft.remove_held(&key);
            }
        }
    }

    /// Holds a service that is gone, unless another one has its cluster IP. A claim does not soften the end of another hold.
    fn hold_whole(&mut self, draft: &mut Draft, key: &ServiceKey, reason: &Reason, ends: Ends, now: UnixMillis) {
        let Some(served) = draft.snapshot().service_by_key(key) else { return };
        if let Kind::ClusterIp(ips) = served.kind() {
            let live = |other: &ServiceKey| !draft.holds_whole(other) && !self.pending.services.contains(other);
            if ips.iter().flat_map(|ip| owners(draft, *ip, key)).any(|other| live(&other)) {
                return self.let_go(draft, key);
            }
        }
        self.sources.remove(key);
        hold_again(draft, HeldKey::Service(key.clone()), reason, ends, now, false);
    }

    fn let_go(&mut self, draft: &mut Draft, key: &ServiceKey) {
        self.sources.remove(key);
        draft.remove(key);
    }
}

/// Holds all of a record. One that is held already for a claim keeps its beginning; one held for a fact stays as it is.
fn hold_again(draft: &mut Draft, key: HeldKey, reason: &Reason, ends: Ends, now: UnixMillis, refused: bool) {
    let before = draft.snapshot().held().get(&key).filter(|hold| hold.kept == Kept::Whole);
    let hold = Hold { kept: Kept::Whole, reason: reason.clone(), since: now, ends, refused };
    let hold = match before {
        Some(before) if before.reason.is_claim() && reason.is_claim() => {
            let same = before.ends == ends;
            let reason = if same { before.reason.clone() } else { hold.reason.clone() };
            Hold { since: before.since, reason, ..hold }
        }
        Some(before) => Hold { since: before.since, ..hold },
        None => hold,
    };
    draft.hold(key, hold);
}
