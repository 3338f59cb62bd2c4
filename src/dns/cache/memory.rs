//! The answers in memory: moka, bounded in bytes.
//!
//! Copies that workers keep (`WorkerCache`) are within the same limit and follow the cache.
//! Nothing expires by itself: clients get answers past their TTL when upstreams fail. Room is made by use: answers that are
//! not asked for go first, and a name asked once never displaces one asked often (`TinyLFU`).

use std::{
    collections::hash_map::RandomState,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus::IntCounter;

use super::{
    bulk::{AllBulkDenials, BulkDenials},
    config::Config,
    entry::{Entry, Kind},
    key::{Key, RouteId},
    metrics::Metrics,
    protected::{End, Hold, Protected},
    worker::{WorkerCache, WorkerCaches},
};
use crate::sys::{Lock, UnixMillis};

/// The bytes of an entry apart from its key and its message: moka's node, counters and table slot, allocator rounding.
/// Measured, see `benches/README.md`.
pub const OVERHEAD_BYTES: usize = 420;
/// A larger answer is not worth the room of a hundred others.
const ENTRY_BYTES_MAX: usize = 16 << 10;
/// moka evicts a little later than it inserts; this share of the limit is kept free for that.
const SLACK_SHARE: u64 = 16;
/// Zones that can be told apart.
const ROUTES_MAX: usize = u16::MAX as usize;

/// Bytes in use, counted where entries are made and dropped.
#[derive(Debug, Default)]
pub struct ByteCount {
    bytes: AtomicU64,
}

/// The bytes of one entry, given back when its last reader drops it.
///
/// Evictions are counted here: told of them by a listener, moka allocates in look-ups.
#[derive(Debug)]
pub struct Reservation {
    byte_count: Arc<ByteCount>,
    bytes: u64,
    /// A newer answer took the entry's place, or it was taken away on purpose.
    succeeded: AtomicBool,
    evictions: IntCounter,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.byte_count.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if !*self.succeeded.get_mut() {
            self.evictions.inc();
        }
    }
}

/// All cached answers. Clones share them.
#[derive(Clone, Debug)]
pub struct Cache {
    entries: moka::sync::Cache<Box<[u8]>, Arc<Entry>, RandomState>,
    byte_count: Arc<ByteCount>,
    /// The copies that workers keep.
    worker_caches: Arc<WorkerCaches>,
    protected: Arc<Protected>,
    bulk_denials: Arc<AllBulkDenials>,
    /// Set when the cache is to be saved without waiting for the interval.
    save_soon: Arc<AtomicBool>,
    /// Zones by number: a number, once given, stays with its zone for as long as the process lives.
    zones: Arc<Lock<Vec<Box<[u8]>>>>,
    max_bytes: u64,
    /// The part of the limit for entries.
    entries_bytes_max: u64,
    pub metrics: Metrics,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &Config, metrics: Metrics) -> Self {
        let worker_caches = WorkerCaches::new(config);
        let entries_bytes_max = config.max_bytes - worker_caches.bytes_max();
        let capacity = entries_bytes_max - entries_bytes_max / SLACK_SHARE;
        let entries = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Arc<Entry>| {
                entry.reservation().get().map_or(0, |reservation| u32::try_from(reservation.bytes).unwrap_or(u32::MAX))
            })
            // Seeded at random in each process: nobody can choose names that collide.
            .build_with_hasher(RandomState::new());
        Self {
            entries,
            byte_count: Arc::default(),
            worker_caches: Arc::new(worker_caches),
            protected: Arc::new(Protected::new(config.max_bytes)),
            bulk_denials: Arc::default(),
            save_soon: Arc::default(),
            zones: Arc::default(),
            max_bytes: config.max_bytes,
            entries_bytes_max,
            metrics,
        }
    }

    /// The number of a zone, lower-cased and in wire form; [`RouteId::UNCACHED`] past 65,535 zones.
    pub fn route(&self, zone: &[u8]) -> RouteId {
        let mut zones = self.zones.lock();
        let at = zones.iter().position(|known| **known == *zone).unwrap_or_else(|| {
            if zones.len() < ROUTES_MAX {
                zones.push(zone.into());
                return zones.len() - 1;
            }
            ROUTES_MAX
        });
        u16::try_from(at).map_or(RouteId::UNCACHED, RouteId)
    }

    pub(super) fn zones(&self) -> Vec<Box<[u8]>> {
        self.zones.lock().clone()
    }

    /// A cache for one worker; [`WorkerCache::none`] if every configured worker has one.
    pub fn worker_cache(&self) -> WorkerCache {
        WorkerCaches::allocate(&self.worker_caches)
    }

    /// The entry of `key`, however old.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key.as_bytes()).or_else(|| self.protected.get(key.as_bytes()))
    }

    /// Stores `entry`. Returns whether there was room.
    pub fn insert(&self, key: &Key, entry: Arc<Entry>) -> bool {
        let bytes = key.as_bytes().len() + entry.memory_bytes() + OVERHEAD_BYTES;
        if bytes > ENTRY_BYTES_MAX || key.route() == RouteId::UNCACHED {
            self.metrics.refused.inc();
            return false;
        }
        let bytes = bytes as u64;
        let is_full = || self.byte_count.bytes.load(Ordering::Relaxed) + bytes > self.entries_bytes_max;
        if is_full() {
            self.entries.run_pending_tasks();
        }
        if is_full() {
            self.metrics.refused.inc();
            return false;
        }
        entry.reservation().get_or_init(|| {
            self.byte_count.bytes.fetch_add(bytes, Ordering::Relaxed);
            let evictions = self.metrics.evictions.clone();
            Reservation {
                byte_count: Arc::clone(&self.byte_count),
                bytes,
                succeeded: AtomicBool::new(false),
                evictions,
            }
        });
        // Asked for first: a look-up of what is not there would count as interest in it.
        if self.entries.contains_key(key.as_bytes())
            && let Some(before) = self.get(key).filter(|before| !Arc::ptr_eq(before, &entry))
        {
            succeed(&before);
        }
        self.end(key, if entry.kind() == Kind::Data { End::Answered } else { End::Expired });
        if entry.is_kept() {
            self.protected.keep(key.as_bytes(), &entry);
        }
        self.entries.insert(key.as_bytes().into(), entry);
        self.worker_caches.forget(key);
        true
    }

    /// Serves the answer of `hold` from now on, whatever else is stored. Returns whether the hold began with this.
    pub fn hold(&self, key: &Key, hold: Hold) -> bool {
        let reason = hold.reason;
        let (began, gone) = self.protected.put(key.as_bytes(), hold);
        if began {
            self.metrics.holds_begun(reason).inc();
        }
        self.metrics.holds_ended(End::Displaced).inc_by(gone as u64);
        began
    }

    /// How often `upstream` denies popular names of the zone of `route`.
    pub fn bulk_denials(&self, route: RouteId, upstream: &str) -> BulkDenials {
        self.bulk_denials.of(route, upstream)
    }

    pub(super) fn all_bulk_denials(&self) -> &AllBulkDenials {
        &self.bulk_denials
    }

    /// Asks for a save soon: a process that is killed must not forget this change.
    pub fn request_save(&self) {
        self.save_soon.store(true, Ordering::Relaxed);
    }

    /// Whether a save was asked for since the last call.
    pub fn take_save_request(&self) -> bool {
        self.save_soon.swap(false, Ordering::Relaxed)
    }

    fn end(&self, key: &Key, end: End) -> bool {
        let ended = self.protected.end(key.as_bytes());
        if ended {
            self.metrics.holds_ended(end).inc();
        }
        ended
    }

    /// The hold of `key`.
    pub fn held(&self, key: &Key) -> Option<Hold> {
        self.protected.hold(key.as_bytes())
    }

    /// Every hold, the oldest first.
    pub fn holds(&self) -> Vec<(Key, Hold)> {
        let holds = self.protected.holds().into_iter();
        holds.filter_map(|(key, hold)| Some((Key::from_bytes(&key)?, hold))).collect()
    }

    pub fn holds_len(&self) -> usize {
        self.protected.holds_len()
    }

    /// Ends the hold of `key`: the next denial is believed.
    pub fn release(&self, key: &Key) -> bool {
        self.end(key, End::Released)
    }

    /// Forgets holds that are over by `now`.
    pub fn sweep_holds(&self, now: UnixMillis) {
        self.metrics.holds_ended(End::Expired).inc_by(self.protected.sweep(now) as u64);
    }

    /// Protects the answer under `key`.
    pub fn keep(&self, key: &Key, entry: &Arc<Entry>) {
        self.protected.keep(key.as_bytes(), entry);
    }

    /// Protects `entry`, a new answer that nothing else keeps, and ends the hold of the one before.
    pub fn keep_only(&self, key: &Key, entry: &Arc<Entry>) {
        self.end(key, End::Answered);
        self.protected.keep(key.as_bytes(), entry);
    }

    /// Protects only the kept answers of keys that are `wanted`.
    pub fn retain_kept(&self, wanted: impl Fn(&[u8]) -> bool) {
        self.metrics.holds_ended(End::Released).inc_by(self.protected.retain_kept(wanted) as u64);
    }

    /// The zone of `route`, in wire form, and the view behind it.
    pub fn zone(&self, route: RouteId) -> Box<[u8]> {
        self.zones.lock().get(usize::from(route.0)).cloned().unwrap_or_default()
    }

    /// Forgets the answer to one question.
    pub fn remove(&self, key: &Key) {
        if let Some(before) = self.entries.remove(key.as_bytes()) {
            succeed(&before);
            self.worker_caches.forget(key);
        }
        self.end(key, End::Expired);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.byte_count.bytes.load(Ordering::Relaxed) + self.worker_caches.bytes()
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Answers held, as of the last maintenance.
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does now what is otherwise done along with later calls, and sets the gauges.
    pub fn settle(&self) {
        self.entries.run_pending_tasks();
        self.metrics.bytes.set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
        self.metrics.entries.set(i64::try_from(self.len()).unwrap_or(i64::MAX));
        self.metrics.held.set(i64::try_from(self.holds_len()).unwrap_or(i64::MAX));
    }

    pub(super) fn clear(&self) {
        for (key, entry) in &self.entries {
            succeed(&entry);
            self.entries.invalidate(&**key);
        }
        self.protected.clear();
        self.bulk_denials.clear();
        self.worker_caches.forget_all();
        self.settle();
    }

    /// Every entry with its key, those that are protected first; those that come or go meanwhile may be missed.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Arc<Box<[u8]>>, Arc<Entry>)> {
        let first = self.protected.entries();
        let seen: std::collections::HashSet<Box<[u8]>> = first.iter().map(|(key, _)| key.clone()).collect();
        let first = first.into_iter().map(|(key, entry)| (Arc::new(key), entry));
        first.chain(self.entries.iter().filter(move |(key, _)| !seen.contains(&**key)))
    }

    /// The part of the limit for worker caches.
    #[cfg(test)]
    pub(super) fn worker_caches_bytes_max(&self) -> u64 {
        self.worker_caches.bytes_max()
    }

    /// The data under `key` that a negative answer would end.
    pub fn holds_data(&self, key: &Key) -> Option<Arc<Entry>> {
        self.get(key).filter(|entry| entry.kind() == Kind::Data)
    }
}

/// Marks an entry, so that its removal does not count as an eviction.
fn succeed(entry: &Entry) {
    if let Some(reservation) = entry.reservation().get() {
        reservation.succeeded.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dns::Question, wire::Rtype};

    #[test]
    fn zones_past_the_last_number_are_told_apart_by_not_being_cached() {
        let cache = Cache::new(&Config::default(), Metrics::register(&prometheus::Registry::new()).unwrap());
        *cache.zones.lock() = (0..ROUTES_MAX).map(|nth| nth.to_be_bytes().into()).collect();
        let entry = |byte: u8| {
            let parts = crate::dns::cache::Parts {
                name: hickory_proto::rr::Name::root(),
                rtype: Rtype::A,
                class: crate::wire::Class::IN,
                kind: Kind::NoData,
                answers: Vec::new(),
                authorities: Vec::new(),
                authentic: byte == 0,
                continues: false,
            };
            Arc::new(Entry::new(&parts, UnixMillis(1), 60).unwrap())
        };
        let key = |zone: &[u8]| {
            let name = "www.example.".parse().unwrap();
            Key::new(cache.route(zone), Question::new(name, Rtype::A).by_ref())
        };
        let last = key(&(ROUTES_MAX - 1).to_be_bytes());
        assert!(cache.insert(&last, entry(0)));
        for zone in [&b"one more"[..], b"and another"] {
            assert!(!cache.insert(&key(zone), entry(1)));
            assert!(cache.get(&key(zone)).is_none());
        }
        assert!(cache.get(&last).is_some());
    }
}
