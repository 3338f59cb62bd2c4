//! The answers one worker is asked for most, copied out of the cache that all share: a hit reads a few lines of memory side by
//! side, not a map of a million entries.
//!
//! Never gives an answer that the shared cache would not give. A copy ends when something is stored for its question, before
//! the last tenth of its TTL, with a new configuration, and after two seconds without a look into the shared cache.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    config::Config,
    entry::{Entry, Ready},
    key::{Key, flags, rest},
};
use crate::{
    dns::Question,
    sys::UnixMillis,
    wire::{HEADER_BYTES, Name},
};

/// All worker caches together take `max_bytes` divided by this.
const SHARE: u64 = 16;
/// The most one worker cache takes: with 50,000 answers, a copy is still found sooner than the original.
const BYTES_MAX: u64 = 16 << 20;
/// Longer answers are not copied: this fits most answers of twelve addresses.
const MESSAGE_BYTES_MAX: usize = 256;
/// Records of such an answer.
const TTLS_MAX: usize = 13;
/// Places where a copy may be found.
const SLOTS: usize = 4;
/// Slots for each copy there is room for: nearly all of the room is used before some set of slots is full.
const SLOTS_PER_COPY: usize = 2;
/// When the set is full, one in this many new answers displaces another: a scan of more names than fit does not evict all.
const DISPLACE_EVERY: u32 = 8;
/// Milliseconds after which the shared cache is looked at again, and so learns that the name is in use.
const RENEW_AFTER: u64 = 2_000;
/// Counters of stored answers; each question has one by its hash.
const COUNTS: usize = 1 << 14;
/// A copy and its slot.
const COPY_BYTES: usize = size_of::<CachedCopy>() + SLOTS_PER_COPY * size_of::<Slot>();

/// The state that all worker caches of a cache share.
#[derive(Debug)]
pub(super) struct WorkerCaches {
    /// Nobody can choose names that collide.
    seed: u64,
    /// How often something was stored for a question; many share a count.
    stored: Box<[AtomicU32]>,
    /// How many can still be given to workers.
    left: AtomicUsize,
    allocatable: usize,
    copies_each: usize,
    bytes: AtomicU64,
}

impl WorkerCaches {
    pub(super) fn new(config: &Config) -> Self {
        let allocatable = config.worker_caches;
        let each = (config.max_bytes / SHARE).checked_div(allocatable as u64).unwrap_or(0).min(BYTES_MAX);
        Self {
            seed: RandomState::new().hash_one(0),
            stored: (0..COUNTS).map(|_| AtomicU32::new(0)).collect(),
            left: AtomicUsize::new(allocatable),
            allocatable,
            copies_each: usize::try_from(each).unwrap_or(0) / COPY_BYTES,
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes that all of them may take together.
    pub(super) fn bytes_max(&self) -> u64 {
        (self.allocatable * self.copies_each * COPY_BYTES) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A worker cache, if there is one left.
    pub(super) fn allocate(this: &Arc<Self>) -> WorkerCache {
        let taken = this.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            return WorkerCache::none();
        }
        let copies = this.copies_each;
        let sets = copies.saturating_mul(SLOTS_PER_COPY) / SLOTS;
        WorkerCache {
            worker_caches: Some(Arc::clone(this)),
            sets: vec![[Slot::default(); SLOTS]; sets].into_boxed_slice(),
            // Not touched before it is used.
            copies: Vec::with_capacity(copies),
            copies_max: if sets == 0 { 0 } else { copies },
            displaced: 0,
        }
    }

    /// Invalidates every copy of the answer under `key`. Call it after the new answer can be found.
    pub(super) fn forget(&self, key: &Key) {
        let (name, rest) = key.parts();
        self.stored(self.hash(name, rest)).fetch_add(1, Ordering::Release);
    }

    /// Invalidates every copy.
    pub(super) fn forget_all(&self) {
        for count in &self.stored {
            count.fetch_add(1, Ordering::Release);
        }
    }

    fn hash(&self, name: &[u8], rest: u64) -> u64 {
        xxh3_64_with_seed(name, self.seed ^ rest.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn stored(&self, hash: u64) -> &AtomicU32 {
        // Bits that say least of the set and nothing of the tag.
        &self.stored[usize::try_from(hash % COUNTS as u64).unwrap_or(0)]
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Half of the hash; 0 for none.
    tag: u32,
    copy: u32,
}

/// An answer and how long it may be used: a cache line, and those of the message.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct CachedCopy {
    stored: UnixMillis,
    ends: UnixMillis,
    copied: UnixMillis,
    /// The state that a [`Probe`] depends on.
    generation: u32,
    count: u32,
    len: u16,
    flags: u8,
    ttls: u8,
    is_gone: bool,
    authentic: bool,
    ttl_offsets: [u16; TTLS_MAX],
    message: [u8; MESSAGE_BYTES_MAX],
}

/// The answers that a worker's clients ask for most.
#[derive(Debug)]
pub struct WorkerCache {
    worker_caches: Option<Arc<WorkerCaches>>,
    sets: Box<[[Slot; SLOTS]]>,
    copies: Vec<CachedCopy>,
    copies_max: usize,
    /// New answers that met a full set.
    displaced: u32,
}

/// A question, and the state that a copy of its answer depends on, from before the answer was looked up.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    pub question: Question<&'a Name>,
    hash: u64,
    generation: u32,
    /// How often something was stored.
    count: u32,
}

impl WorkerCache {
    /// A worker cache that holds nothing, and never will.
    pub fn none() -> Self {
        Self { worker_caches: None, sets: Box::default(), copies: Vec::new(), copies_max: 0, displaced: 0 }
    }

    /// Begins to probe for the answer to `question`, under a configuration that `generation` tells from those before.
    #[inline]
    pub fn probe<'a>(&self, question: Question<&'a Name>, generation: u32) -> Probe<'a> {
        let (hash, count) = self.worker_caches.as_ref().map_or((0, 0), |worker_caches| {
            let hash = worker_caches.hash(question.name.wire(), rest(question));
            (hash, worker_caches.stored(hash).load(Ordering::Acquire))
        });
        Probe { question, hash, generation, count }
    }

    /// The answer, fresh, if it is here.
    #[inline]
    pub fn find(&self, probe: &Probe<'_>, now: UnixMillis) -> Option<Ready<'_>> {
        let set = self.sets.get(self.set(probe.hash))?;
        let tag = tag(probe.hash);
        let copy = set.iter().filter(|slot| slot.tag == tag).map(|slot| &self.copies[slot.copy as usize]);
        let copy = copy.into_iter().find(|copy| copy.is_of(probe.question))?;
        copy.holds(probe, now).then(|| copy.ready())
    }

    /// Takes a copy of `entry`, which was looked up after `probe` had begun.
    pub fn keep(&mut self, probe: &Probe<'_>, entry: &Entry, now: UnixMillis) {
        let Some(copy) = CachedCopy::of(probe, entry, now) else { return };
        let (at, tag) = (self.set(probe.hash), tag(probe.hash));
        let Some(set) = self.sets.get_mut(at) else { return };
        let same = |slot: &&Slot| slot.tag == tag && self.copies[slot.copy as usize].is_of(probe.question);
        if let Some(slot) = set.iter().find(same) {
            self.copies[slot.copy as usize] = copy;
            return;
        }
        if self.copies.len() < self.copies_max
            && let Some(free) = set.iter_mut().find(|slot| slot.tag == 0)
        {
            *free = Slot { tag, copy: u32::try_from(self.copies.len()).expect("far below four billion") };
            self.copies.push(copy);
            if let Some(worker_caches) = &self.worker_caches {
                worker_caches.bytes.fetch_add(COPY_BYTES as u64, Ordering::Relaxed);
            }
            return;
        }
        self.displaced = self.displaced.wrapping_add(1);
        if self.displaced.is_multiple_of(DISPLACE_EVERY) {
            let taken = set.iter_mut().filter(|slot| slot.tag != 0);
            if let Some(oldest) = taken.min_by_key(|slot| self.copies[slot.copy as usize].copied) {
                oldest.tag = tag;
                self.copies[oldest.copy as usize] = copy;
            }
        }
    }

    fn set(&self, hash: u64) -> usize {
        // The low half, scaled to the number of sets.
        usize::try_from(((hash & u64::from(u32::MAX)) * self.sets.len() as u64) >> 32).unwrap_or(usize::MAX)
    }
}

impl Drop for WorkerCache {
    fn drop(&mut self) {
        if let Some(worker_caches) = &self.worker_caches {
            worker_caches.bytes.fetch_sub((self.copies.len() * COPY_BYTES) as u64, Ordering::Relaxed);
            worker_caches.left.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CachedCopy {
    /// A copy of `entry`, unless it is too long, about to end, or an answer to something else.
    fn of(probe: &Probe<'_>, entry: &Entry, now: UnixMillis) -> Option<Self> {
        let Ready { message: from, ttl_offsets: offsets, stored, is_gone, authentic } = entry.ready();
        if entry.ends() <= now || entry.continues() {
            return None;
        }
        let (mut message, mut ttl_offsets) = ([0; MESSAGE_BYTES_MAX], [0; TTLS_MAX]);
        message.get_mut(..from.len())?.copy_from_slice(from);
        ttl_offsets.get_mut(..offsets.len())?.copy_from_slice(offsets);
        let copy = Self {
            stored,
            ends: entry.ends(),
            copied: now,
            generation: probe.generation,
            count: probe.count,
            len: u16::try_from(from.len()).ok()?,
            flags: flags(probe.question),
            ttls: u8::try_from(offsets.len()).ok()?,
            is_gone,
            authentic,
            ttl_offsets,
            message,
        };
        copy.is_of(probe.question).then_some(copy)
    }

    #[inline]
    fn is_of(&self, question: Question<&Name>) -> bool {
        let name = question.name.wire();
        let Some((owner, rest)) = self.message[HEADER_BYTES..].split_at_checked(name.len()) else { return false };
        let [type_high, type_low] = question.rtype.0.to_be_bytes();
        let [class_high, class_low] = question.class.0.to_be_bytes();
        owner == name
            && rest.starts_with(&[type_high, type_low, class_high, class_low])
            && self.flags == flags(question)
    }

    /// Whether it may still be used.
    #[inline]
    fn holds(&self, probe: &Probe<'_>, now: UnixMillis) -> bool {
        // A clock that was set back makes the difference huge.
        now < self.ends
            && now.0.wrapping_sub(self.copied.0) < RENEW_AFTER
            && (self.generation, self.count) == (probe.generation, probe.count)
    }

    #[inline]
    fn ready(&self) -> Ready<'_> {
        Ready {
            message: &self.message[..usize::from(self.len)],
            ttl_offsets: &self.ttl_offsets[..usize::from(self.ttls)],
            stored: self.stored,
            is_gone: self.is_gone,
            authentic: self.authentic,
        }
    }
}

fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests;
