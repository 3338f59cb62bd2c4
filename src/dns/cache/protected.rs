//! Answers that stay whatever else is asked for: those of names that upstreams deny, and those of the keep list.
//!
//! Holds are bounded in number and bytes; the oldest goes first. Never decides which denial is believed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::entry::{Entry, Kind};
use crate::sys::{Lock, UnixMillis, labels};

/// Names held at once.
const HOLDS_MAX: usize = 10_000;
/// Answers kept for the keep list: 1,000 names, two types, and a CNAME or two in front, for `listen` and three views.
const KEPT_MAX: usize = 32_000;

labels! {
    /// Why a denial is not believed.
    pub enum Reason {
        /// The name was good for long enough, or the zone holds every name.
        Good = "good",
        /// The upstream denies too many names at once.
        Bulk = "bulk",
        /// The name is on the keep list.
        Keep = "keep",
    }
}

labels! {
    /// How a hold ends.
    pub enum End {
        /// Upstreams have records of the name again.
        Answered = "answered",
        /// Its time is over.
        Expired = "expired",
        Released = "released",
        /// Too many names are held.
        Displaced = "displaced",
    }
}

/// A denial that is not believed.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The last good answer.
    pub entry: Arc<Entry>,
    /// When the name was first denied.
    pub since: UnixMillis,
    /// When the name was last denied.
    pub last: UnixMillis,
    /// When the denial is believed; `None` for never.
    pub until: Option<UnixMillis>,
    /// The upstream that denied it last.
    pub by: Box<str>,
    /// The kind of the denial: `NoData` or `NxDomain`.
    pub denial: Kind,
    pub reason: Reason,
}

impl Hold {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.by.len() + self.entry.memory_bytes()
    }
}

/// Holds and kept answers by key.
#[derive(Debug)]
pub(super) struct Protected {
    inner: Lock<Inner>,
    /// How many there are, so that most look-ups need no lock.
    count: AtomicUsize,
    holds_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    holds: HashMap<Box<[u8]>, (u64, Hold)>,
    /// Keys of holds, the oldest first.
    order: BTreeMap<u64, Box<[u8]>>,
    next: u64,
    bytes: usize,
    kept: HashMap<Box<[u8]>, Arc<Entry>>,
}

impl Protected {
    /// Takes at most an eighth of `max_bytes` for holds.
    pub fn new(max_bytes: u64) -> Self {
        let holds_bytes_max = usize::try_from(max_bytes / 8).unwrap_or(usize::MAX);
        Self { inner: Lock::default(), count: AtomicUsize::new(0), holds_bytes_max }
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The answer under `key`, if it is protected.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        if self.is_empty() {
            return None;
        }
        let inner = self.inner.lock();
        inner.holds.get(key).map(|(_, hold)| &hold.entry).or_else(|| inner.kept.get(key)).cloned()
    }

    pub fn hold(&self, key: &[u8]) -> Option<Hold> {
        if self.is_empty() {
            return None;
        }
        self.inner.lock().holds.get(key).map(|(_, hold)| hold.clone())
    }

    /// Begins or goes on with a hold. Returns whether it began, and how many other holds it ended.
    pub fn put(&self, key: &[u8], hold: Hold) -> (bool, usize) {
        hold.entry.hold(hold.until);
        let mut inner = self.inner.lock();
        let before = inner.take(key).map(|(number, _)| number);
        let number = before.unwrap_or_else(|| inner.number());
        inner.bytes += hold.bytes() + key.len();
        inner.order.insert(number, key.into());
        inner.holds.insert(key.into(), (number, hold));
        let mut gone = 0;
        while inner.holds.len() > 1 && (inner.holds.len() > HOLDS_MAX || inner.bytes > self.holds_bytes_max) {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            if let Some((_, hold)) = inner.take(&oldest) {
                hold.entry.end_hold();
            }
            gone += 1;
        }
        self.counted(&inner);
        (before.is_none(), gone)
    }

    /// Ends the hold of `key`; returns whether there was one.
    pub fn end(&self, key: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut inner = self.inner.lock();
        let taken = inner.take(key);
        self.counted(&inner);
        taken.map(|(_, hold)| hold.entry.end_hold()).is_some()
    }

    /// Forgets holds that are over by `now`. Returns how many.
    pub fn sweep(&self, now: UnixMillis) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut inner = self.inner.lock();
        let over = inner.holds.iter().filter(|(_, (_, hold))| !hold.entry.is_held(now));
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        for key in &over {
            inner.take(key);
        }
        self.counted(&inner);
        over.len()
    }

    /// Every hold, the oldest first.
    pub fn holds(&self) -> Vec<(Box<[u8]>, Hold)> {
        let inner = self.inner.lock();
        let of = |key: &[u8]| inner.holds.get(key).map(|(_, hold)| (key.into(), hold.clone()));
        inner.order.values().filter_map(|key| of(key)).collect()
    }

    pub fn holds_len(&self) -> usize {
        self.inner.lock().holds.len()
    }

    /// Keeps `entry` under `key`, if there is room.
    pub fn keep(&self, key: &[u8], entry: &Arc<Entry>) {
        let mut inner = self.inner.lock();
        if inner.kept.len() < KEPT_MAX || inner.kept.contains_key(key) {
            entry.set_kept(true);
            inner.kept.insert(key.into(), Arc::clone(entry));
        }
        self.counted(&inner);
    }

    /// Keeps only what `wanted` says; the rest may go like any other answer. Returns how many holds end with that.
    pub fn retain_kept(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let mut inner = self.inner.lock();
        let over = inner.holds.iter().filter(|(key, (_, hold))| hold.reason == Reason::Keep && !wanted(key));
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        for key in &over {
            if let Some((_, hold)) = inner.take(key) {
                hold.entry.end_hold();
                hold.entry.set_kept(false);
            }
        }
        inner.kept.retain(|key, entry| {
            let stays = wanted(key);
            if !stays {
                entry.set_kept(false);
            }
            stays
        });
        self.counted(&inner);
        over.len()
    }

    /// Every answer that is protected, with its key.
    pub fn entries(&self) -> Vec<(Box<[u8]>, Arc<Entry>)> {
        let inner = self.inner.lock();
        let held = inner.holds.iter().map(|(key, (_, hold))| (key, &hold.entry));
        let kept = inner.kept.iter().filter(|(key, _)| !inner.holds.contains_key(*key));
        held.chain(kept).map(|(key, entry)| (key.clone(), Arc::clone(entry))).collect()
    }

    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner::default();
        self.counted(&inner);
    }

    fn counted(&self, inner: &MutexGuard<'_, Inner>) {
        self.count.store(inner.holds.len() + inner.kept.len(), Ordering::Relaxed);
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn take(&mut self, key: &[u8]) -> Option<(u64, Hold)> {
        let (number, hold) = self.holds.remove(key)?;
        self.order.remove(&number);
        self.bytes -= hold.bytes() + key.len();
        Some((number, hold))
    }
}
