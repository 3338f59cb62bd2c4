//! The open connections of a listener, and which one has to go when there is no room.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sys::Lock;

/// Activity of a connection; the lowest is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Activity {
    /// Nothing: closing it costs the client a new connection (RFC 7766, 6.2.3).
    Idle,
    /// A request has begun to come in.
    Receiving,
    /// A request waits for its answer, or an answer for the client to take it.
    Answering,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The node itself, such as the kubelet's probes. Has places of its own.
    Node,
    Elsewhere,
}

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub total: usize,
    /// From one address.
    pub per_source: usize,
    /// Further places, which only [`Origin::Node`] gets; it has no bound by address, and takes none of `total`.
    pub node: usize,
    /// After this long a connection that is [`Activity::Answering`] may be evicted too; `None` for never.
    pub answering_max: Option<Duration>,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Total,
    /// Too many of one address.
    Source,
}

#[derive(Debug)]
struct Entry {
    source: IpAddr,
    origin: Origin,
    activity: AtomicU8,
    /// Since when, in microseconds after the table was made.
    since_us: AtomicU64,
    evicted: CancellationToken,
}

#[derive(Debug)]
pub struct ConnectionTable {
    capacity: Capacity,
    made: Instant,
    entries: Lock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_number: HashMap<u64, Arc<Entry>>,
    per_source: HashMap<IpAddr, usize>,
    of_node: usize,
}

impl Entries {
    fn remove(&mut self, number: u64) -> Option<Arc<Entry>> {
        let entry = self.by_number.remove(&number)?;
        if entry.origin == Origin::Node {
            self.of_node -= 1;
        } else if let Some(count) = self.per_source.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&entry.source);
            }
        }
        Some(entry)
    }
}

impl ConnectionTable {
    pub fn new(capacity: Capacity) -> Self {
        let capacity = Capacity { total: capacity.total.max(1), per_source: capacity.per_source.max(1), ..capacity };
        Self { capacity, made: Instant::now(), entries: Lock::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock()
    }

    /// Gives a new connection a slot, if need be that of the longest idle one of the same address or origin.
    ///
    /// # Errors
    /// If every connection in the way waits for an answer.
    pub fn admit(self: &Arc<Self>, source: IpAddr, origin: Origin) -> Result<ConnectionSlot, Refused> {
        let source = source.to_canonical();
        let mut entries = self.entries();
        // Without places of its own, the node is a source like any other.
        let origin = if self.capacity.node == 0 { Origin::Elsewhere } else { origin };
        match origin {
            Origin::Node => {
                if entries.of_node >= self.capacity.node
                    && !self.evict_one(&mut entries, |entry| entry.origin == origin)
                {
                    return Err(Refused::Total);
                }
                entries.of_node += 1;
            }
            Origin::Elsewhere => {
                let of_source = entries.per_source.get(&source).copied().unwrap_or(0);
                let same = |entry: &Entry| entry.origin == origin && entry.source == source;
                if of_source >= self.capacity.per_source && !self.evict_one(&mut entries, same) {
                    return Err(Refused::Source);
                }
                let elsewhere = entries.by_number.len() - entries.of_node;
                if elsewhere >= self.capacity.total && !self.evict_one(&mut entries, |entry| entry.origin == origin) {
                    return Err(Refused::Total);
                }
                *entries.per_source.entry(source).or_default() += 1;
            }
        }
        let entry = Arc::new(Entry {
            source,
            origin,
            activity: AtomicU8::new(Activity::Idle as u8),
            since_us: AtomicU64::new(self.now_us()),
            evicted: CancellationToken::new(),
        });
        let number = entries.next;
        entries.next += 1;
        entries.by_number.insert(number, Arc::clone(&entry));
        Ok(ConnectionSlot { table: Arc::clone(self), number, entry })
    }

    /// Tells up to `count` connections to go, the longest idle first.
    pub fn evict(&self, count: usize) {
        let mut entries = self.entries();
        for _ in 0..count {
            if !self.evict_one(&mut entries, |_| true) {
                break;
            }
        }
    }

    fn evict_one(&self, entries: &mut Entries, eligible: impl Fn(&Entry) -> bool) -> bool {
        let now = self.now_us();
        let spared = |entry: &Entry| {
            entry.activity.load(Relaxed) >= Activity::Answering as u8
                && self
                    .capacity
                    .answering_max
                    .is_none_or(|max| u128::from(now.saturating_sub(entry.since_us.load(Relaxed))) < max.as_micros())
        };
        let evictable = entries.by_number.iter().filter(|(_, entry)| eligible(entry) && !spared(entry));
        let first = evictable.min_by_key(|(_, entry)| (entry.activity.load(Relaxed), entry.since_us.load(Relaxed)));
        let Some(number) = first.map(|(&number, _)| number) else { return false };
        entries.remove(number).inspect(|entry| entry.evicted.cancel()).is_some()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A connection's place in the table, given back when dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    number: u64,
    entry: Arc<Entry>,
}

impl ConnectionSlot {
    pub fn set(&self, activity: Activity) {
        if self.entry.activity.swap(activity as u8, Relaxed) != activity as u8 {
            self.entry.since_us.store(self.table.now_us(), Relaxed);
        }
    }

    /// Cancelled when the connection has to go.
    pub fn evicted(&self) -> &CancellationToken {
        &self.entry.evicted
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.entries().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total: usize, per_source: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable::new(Capacity { total, per_source, node: 0, answering_max: None }))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn admit(table: &Arc<ConnectionTable>, last: u8) -> Result<ConnectionSlot, Refused> {
        table.admit(ip(last), Origin::Elsewhere)
    }

    fn gone(slot: &ConnectionSlot) -> bool {
        slot.evicted().is_cancelled()
    }

    async fn tick() {
        tokio::time::advance(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_first_and_then_the_slowest_to_begin() {
        let table = table(3, 3);
        let receiving = admit(&table, 1).unwrap();
        receiving.set(Activity::Receiving);
        tick().await;
        let answering = admit(&table, 2).unwrap();
        answering.set(Activity::Answering);
        let idle = admit(&table, 3).unwrap();
        let fourth = admit(&table, 4).unwrap();
        assert_eq!((gone(&receiving), gone(&answering), gone(&idle)), (false, false, true));
        fourth.set(Activity::Answering);
        let fifth = admit(&table, 5).unwrap();
        assert!(gone(&receiving));
        fifth.set(Activity::Answering);
        assert_eq!(admit(&table, 6).unwrap_err(), Refused::Total);
        drop(answering);
        assert!(admit(&table, 6).is_ok());
    }

    #[test]
    fn a_source_at_its_bound_costs_only_itself() {
        let table = table(10, 2);
        let other = admit(&table, 2).unwrap();
        let slots: Vec<_> = (0..2).map(|_| admit(&table, 1).unwrap()).collect();
        for slot in &slots {
            slot.set(Activity::Answering);
        }
        assert_eq!(admit(&table, 1).unwrap_err(), Refused::Source);
        assert!(admit(&table, 2).is_ok());
        slots[1].set(Activity::Idle);
        let _third = admit(&table, 1).unwrap();
        assert_eq!((gone(&slots[0]), gone(&slots[1]), gone(&other)), (false, true, false));
        drop(slots);
        assert_eq!(table.entries().per_source[&ip(1)], 1, "an evicted slot is given back once");
    }

    #[test]
    fn a_closed_connection_leaves_nothing_behind() {
        let table = table(10, 2);
        drop(admit(&table, 1).unwrap());
        let entries = table.entries();
        assert!(entries.by_number.is_empty() && entries.per_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_has_places_that_other_addresses_cannot_take() {
        let capacity = Capacity { total: 2, per_source: 2, node: 2, answering_max: None };
        let table = Arc::new(ConnectionTable::new(capacity));
        let node = |table: &Arc<ConnectionTable>| table.admit(ip(9), Origin::Node);
        let strangers: Vec<_> = (1..=2).map(|last| admit(&table, last).unwrap()).collect();
        for slot in &strangers {
            slot.set(Activity::Answering);
        }
        assert_eq!(admit(&table, 3).unwrap_err(), Refused::Total);
        let first = node(&table).unwrap();
        tick().await;
        let second = node(&table).unwrap();
        let third = node(&table).unwrap();
        assert_eq!((gone(&first), gone(&second), gone(&third)), (true, false, false));
        assert!(strangers.iter().all(|slot| !gone(slot)), "the node evicts only its own");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_evicted_after_its_time() {
        let capacity = Capacity { total: 1, per_source: 1, node: 0, answering_max: Some(Duration::from_secs(2)) };
        let table = Arc::new(ConnectionTable::new(capacity));
        let stuck = admit(&table, 1).unwrap();
        stuck.set(Activity::Answering);
        tokio::time::advance(Duration::from_millis(1_999)).await;
        assert!(admit(&table, 2).is_err());
        tick().await;
        assert!(admit(&table, 2).is_ok() && gone(&stuck));
    }
}
