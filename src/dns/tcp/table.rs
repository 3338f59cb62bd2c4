//! Who is connected, and who has to go when there is no room.
//!
//! Never closes a connection itself: it tells it to go.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    dns::{TcpConfig, metrics::RefuseCause},
    sys::Lock,
};

/// What a connection is about; the less, the sooner it has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Doing {
    /// Nothing: closing it costs the client a new connection (RFC 7766, 6.2.3).
    Idle,
    /// A query has begun to come in.
    Receiving,
    /// A query waits for its answer, or an answer for the client to take it. Never told to go.
    Answering,
}

/// One connection, as the table sees it.
#[derive(Debug)]
struct Entry {
    source: IpAddr,
    doing: AtomicU8,
    /// Since when, in microseconds after the table was made.
    since_us: AtomicU64,
    go: CancellationToken,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Table {
    connections_max: usize,
    per_source_max: usize,
    made: Instant,
    seats: Lock<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    entries: HashMap<u64, Arc<Entry>>,
    per_source: HashMap<IpAddr, usize>,
}

impl Seats {
    /// The place of the connection that can be spared best, among those that `eligible` lets pass.
    fn spare(&self, eligible: impl Fn(&Entry) -> bool) -> Option<u64> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.doing.load(Relaxed) < Doing::Answering as u8 && eligible(entry))
            .min_by_key(|(_, entry)| (entry.doing.load(Relaxed), entry.since_us.load(Relaxed)))
            .map(|(&place, _)| place)
    }

    fn remove(&mut self, place: u64) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(&place)?;
        if let Some(count) = self.per_source.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&entry.source);
            }
        }
        Some(entry)
    }

    fn evict(&mut self, eligible: impl Fn(&Entry) -> bool) -> bool {
        let evicted = self.spare(eligible).and_then(|place| self.remove(place));
        evicted.inspect(|entry| entry.go.cancel()).is_some()
    }
}

impl Table {
    pub(super) fn new(config: &TcpConfig) -> Self {
        Self {
            connections_max: config.connections_max.max(1),
            per_source_max: config.connections_per_source_max.max(1),
            made: Instant::now(),
            seats: Lock::default(),
        }
    }

    /// Gives a new connection a seat, if need be that of one that does nothing or is slow to begin.
    ///
    /// # Errors
    /// If all that are in the way wait for answers.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr) -> Result<Seat, RefuseCause> {
        let mut seats = self.seats.lock();
        let of_source = seats.per_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.per_source_max && !seats.evict(|entry| entry.source == source) {
            return Err(RefuseCause::Source);
        }
        if seats.entries.len() >= self.connections_max && !seats.evict(|_| true) {
            return Err(RefuseCause::Total);
        }
        let entry = Arc::new(Entry {
            source,
            doing: AtomicU8::new(Doing::Idle as u8),
            since_us: AtomicU64::new(self.now_us()),
            go: CancellationToken::new(),
        });
        let place = seats.next;
        seats.next += 1;
        seats.entries.insert(place, Arc::clone(&entry));
        *seats.per_source.entry(source).or_default() += 1;
        Ok(Seat { table: Arc::clone(self), place, entry })
    }

    /// Tells this many of the connections that can be spared best to go.
    pub(super) fn evict(&self, count: usize) {
        let mut seats = self.seats.lock();
        for _ in 0..count {
            if !seats.evict(|_| true) {
                break;
            }
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A connection's place in the table, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    table: Arc<Table>,
    place: u64,
    entry: Arc<Entry>,
}

impl Seat {
    /// Says what the connection is about from now on.
    pub(super) fn set(&self, doing: Doing) {
        if self.entry.doing.swap(doing as u8, Relaxed) != doing as u8 {
            self.entry.since_us.store(self.table.now_us(), Relaxed);
        }
    }

    /// Ends when the connection has to go.
    pub(super) fn must_go(&self) -> &CancellationToken {
        &self.entry.go
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.seats.lock().remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(connections_max: usize, connections_per_source_max: usize) -> Arc<Table> {
        Arc::new(Table::new(&TcpConfig { connections_max, connections_per_source_max, ..TcpConfig::default() }))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn gone(seat: &Seat) -> bool {
        seat.must_go().is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_first_and_then_the_slowest_to_begin() {
        let table = table(3, 3);
        let tick = || tokio::time::advance(std::time::Duration::from_millis(1));
        let receiving = table.admit(ip(1)).unwrap();
        receiving.set(Doing::Receiving);
        tick().await;
        let answering = table.admit(ip(2)).unwrap();
        answering.set(Doing::Answering);
        let idle = table.admit(ip(3)).unwrap();
        let fourth = table.admit(ip(4)).unwrap();
        assert_eq!((gone(&receiving), gone(&answering), gone(&idle)), (false, false, true));
        fourth.set(Doing::Answering);
        let fifth = table.admit(ip(5)).unwrap();
        assert!(gone(&receiving));
        fifth.set(Doing::Answering);
        assert_eq!(table.admit(ip(6)).unwrap_err(), RefuseCause::Total);
        drop(answering);
        assert!(table.admit(ip(6)).is_ok());
    }

    #[test]
    fn a_source_at_its_bound_costs_only_itself() {
        let table = table(10, 2);
        let other = table.admit(ip(2)).unwrap();
        let seats: Vec<_> = (0..2).map(|_| table.admit(ip(1)).unwrap()).collect();
        for seat in &seats {
            seat.set(Doing::Answering);
        }
        assert_eq!(table.admit(ip(1)).unwrap_err(), RefuseCause::Source);
        assert!(table.admit(ip(2)).is_ok());
        seats[1].set(Doing::Idle);
        let _third = table.admit(ip(1)).unwrap();
        assert_eq!((gone(&seats[0]), gone(&seats[1]), gone(&other)), (false, true, false));
        drop(seats);
        assert_eq!(table.seats.lock().per_source[&ip(1)], 1, "an evicted seat is given back once");
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let table = table(10, 2);
        drop(table.admit(ip(1)).unwrap());
        let seats = table.seats.lock();
        assert!(seats.entries.is_empty() && seats.per_source.is_empty());
    }
}
