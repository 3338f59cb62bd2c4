//! The history every subscriber reads from: frames in order, and the state of the records after each.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::record::{Digest, Snapshot, Version};

/// The state of a subscriber that has read up to here; shared by all such subscribers.
#[derive(Debug)]
pub(super) struct Place {
    pub version: Version,
    pub digests: Box<[Digest]>,
    /// Of the holds.
    pub held: Digest,
}

impl Place {
    pub(super) fn of(snapshot: &Snapshot) -> Arc<Self> {
        let (version, held) = (snapshot.version().clone(), snapshot.held().digest());
        Arc::new(Self { version, digests: snapshot.digests().collect(), held })
    }

    /// Bytes it takes in memory.
    fn cost(&self) -> usize {
        size_of_val(&*self.digests) + 64
    }
}

/// A frame, or a run of frames, encoded once.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub frame: Bytes,
    pub place: Arc<Place>,
    at: Instant,
}

/// The entry at a cursor.
#[derive(Debug)]
pub(super) enum At {
    Slot(Slot),
    Head,
    /// The entry was removed.
    Gone,
}

/// A bounded run of slots. Numbers never repeat: `first` is that of the oldest slot held.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    first: u64,
    /// The state of a subscriber at `first`.
    base: Arc<Place>,
    bytes: usize,
    bytes_max: usize,
    age_max: Duration,
}

impl Ring {
    pub(super) fn new(base: Arc<Place>, bytes_max: usize, age_max: Duration) -> Self {
        Self { slots: VecDeque::new(), first: 0, base, bytes: 0, bytes_max, age_max }
    }

    /// The number the next slot will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Bytes used.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The state of a subscriber that has read all entries.
    pub(super) fn place(&self) -> &Arc<Place> {
        self.slots.back().map_or(&self.base, |slot| &slot.place)
    }

    /// Appends a slot and drops slots over the limits of age and bytes.
    pub(super) fn push(&mut self, frame: Bytes, place: Arc<Place>, now: Instant) {
        self.bytes += self.cost(&frame, &place);
        self.slots.push_back(Slot { frame, place, at: now });
        while let Some(oldest) = self.slots.front() {
            let old = now.saturating_duration_since(oldest.at) > self.age_max;
            if !old && self.bytes <= self.bytes_max {
                break;
            }
            self.drop_oldest();
        }
    }

    fn cost(&self, frame: &Bytes, place: &Arc<Place>) -> usize {
        frame.len() + 64 + if Arc::ptr_eq(place, self.place()) { 0 } else { place.cost() }
    }

    fn drop_oldest(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        let fresh = if Arc::ptr_eq(&slot.place, &self.base) { 0 } else { slot.place.cost() };
        self.bytes = self.bytes.saturating_sub(slot.frame.len() + 64 + fresh);
        self.base = slot.place;
        self.first += 1;
    }

    /// Empties the ring: no earlier state leads to `place`.
    pub(super) fn restart(&mut self, place: Arc<Place>) {
        // A number is skipped so that even a reader that had read everything finds its place gone.
        self.first = self.next() + 1;
        self.slots.clear();
        self.bytes = 0;
        self.base = place;
    }

    pub(super) fn at(&self, cursor: u64) -> At {
        let Some(index) = cursor.checked_sub(self.first) else { return At::Gone };
        match usize::try_from(index).ok().and_then(|index| self.slots.get(index)) {
            Some(slot) => At::Slot(slot.clone()),
            None => At::Head,
        }
    }

    /// Whether a cursor can still go on.
    pub(super) fn holds(&self, cursor: u64) -> bool {
        cursor >= self.first
    }

    /// Bytes of the frames from a cursor to the end.
    pub(super) fn bytes_from(&self, cursor: u64) -> usize {
        let skip = usize::try_from(cursor.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.slots.iter().skip(skip).map(|slot| slot.frame.len()).sum()
    }

    /// The latest cursor at which exactly these records stand, with these holds unless the client knows none.
    pub(super) fn find(
        &self,
        version: &Version,
        digests: &[Digest],
        held: Option<Digest>,
    ) -> Option<(u64, Arc<Place>)> {
        let same = |place: &Place| {
            place.version == *version && *place.digests == *digests && held.is_none_or(|held| place.held == held)
        };
        for (index, slot) in self.slots.iter().enumerate().rev() {
            if same(&slot.place) {
                return Some((self.first + index as u64 + 1, Arc::clone(&slot.place)));
            }
            if version.follows(&slot.place.version) {
                return None;
            }
        }
        same(&self.base).then(|| (self.first, Arc::clone(&self.base)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rev: u64, digest: u128) -> Arc<Place> {
        let version = Version { cluster: "uid".into(), epoch: 1, rev };
        Arc::new(Place { version, digests: vec![Digest(digest)].into(), held: Digest(7) })
    }

    fn ring(bytes_max: usize) -> Ring {
        Ring::new(place(0, 0), bytes_max, Duration::from_secs(600))
    }

    #[tokio::test(start_paused = true)]
    async fn old_slots_are_dropped() {
        let mut ring = ring(1 << 20);
        for rev in 1..=100 {
            ring.push(Bytes::from_static(b"frame"), place(rev, 0), Instant::now());
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert_eq!(ring.next(), 100);
        assert!(matches!(ring.at(38), At::Gone));
        assert!(matches!(ring.at(39), At::Slot(slot) if slot.place.version.rev == 40));
        assert!(matches!(ring.at(100), At::Head));
        assert!(ring.holds(39) && !ring.holds(38));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_and_counted_back() {
        let mut ring = ring(10_000);
        for rev in 1..=1_000 {
            ring.push(Bytes::from(vec![0; 400]), place(rev, 0), Instant::now());
            assert!(ring.bytes() <= 10_000);
        }
        assert!(!ring.slots.is_empty());
        ring.push(Bytes::from(vec![0; 20_000]), place(1_001, 0), Instant::now());
        assert_eq!((ring.slots.len(), ring.bytes()), (0, 0), "a batch larger than the ring leaves it empty");
        assert_eq!(ring.place().version.rev, 1_001);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_is_found_by_version_and_digests() {
        let mut ring = ring(1 << 20);
        ring.push(Bytes::from_static(b"1"), place(1, 1), Instant::now());
        let same = Arc::clone(ring.place());
        ring.push(Bytes::from_static(b"mark"), same, Instant::now());
        ring.push(Bytes::from_static(b"3"), place(3, 3), Instant::now());
        let find = |rev, digest| {
            let (version, digests) = (place(rev, digest).version.clone(), [Digest(digest)]);
            let found = ring.find(&version, &digests, Some(Digest(7))).map(|(cursor, _)| cursor);
            assert_eq!(ring.find(&version, &digests, None).map(|(cursor, _)| cursor), found, "a client without holds");
            assert!(ring.find(&version, &digests, Some(Digest(8))).is_none(), "other holds");
            found
        };
        assert_eq!(find(0, 0), Some(0));
        assert_eq!(find(1, 1), Some(2), "behind the heartbeat that changed nothing");
        assert_eq!(find(2, 2), None, "never a place anybody stopped at");
        assert_eq!(find(3, 3), Some(3));
        assert_eq!(find(3, 4), None, "same version, other records");
        assert_eq!(ring.bytes_from(1), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_no_subscriber_goes_on_by_mistake() {
        let mut ring = ring(1 << 20);
        ring.push(Bytes::from_static(b"1"), place(1, 1), Instant::now());
        let cursor = ring.next();
        ring.restart(place(9, 9));
        assert!(!ring.holds(cursor));
        assert!(matches!(ring.at(cursor), At::Gone));
        assert!(matches!(ring.at(ring.next()), At::Head));
    }
}
