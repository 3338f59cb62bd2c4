//! A counter that many threads add to on the way of an answer, and that only a scrape reads.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use prometheus::core::{Atomic, GenericCounter, GenericCounterVec};

/// Threads that count without sharing; further ones share.
const STRIPES: usize = 16;

/// A counter without a cache line that is written by two threads.
pub type StripedCounter = GenericCounter<Striped>;
pub type StripedCounterVec = GenericCounterVec<Striped>;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A number in as many parts as threads may count at once.
#[derive(Debug, Default)]
pub struct Striped([Stripe; STRIPES]);

impl Striped {
    /// The part of this thread.
    fn own(&self) -> &AtomicU64 {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: Cell<usize> = const { Cell::new(STRIPES) };
        }
        let place = PLACE.with(|place| {
            if place.get() == STRIPES {
                place.set(NEXT.fetch_add(1, Relaxed) % STRIPES);
            }
            place.get()
        });
        &self.0[place].0
    }
}

impl Atomic for Striped {
    type T = u64;

    fn new(value: u64) -> Self {
        let striped = Self::default();
        striped.set(value);
        striped
    }

    fn set(&self, value: u64) {
        for stripe in &self.0 {
            stripe.0.store(0, Relaxed);
        }
        self.own().store(value, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    fn inc_by(&self, by: u64) {
        self.own().fetch_add(by, Relaxed);
    }

    fn dec_by(&self, by: u64) {
        self.own().fetch_sub(by, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_stripes_add_up() {
        let counter = StripedCounter::new("c", "Counts.").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..STRIPES * 2 {
                scope.spawn(|| (0..1_000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 32_000);
        counter.reset();
        assert_eq!(counter.get(), 0);
    }
}
