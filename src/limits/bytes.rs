//! Bytes of buffers that clients make grow, bounded over all of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

#[derive(Debug)]
pub struct ByteBudget {
    max: usize,
    used: AtomicUsize,
}

impl ByteBudget {
    pub fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// A reservation of no bytes yet.
    pub fn reserve(self: &Arc<Self>) -> ReservedBytes {
        ReservedBytes { budget: Arc::clone(self), bytes: 0 }
    }
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct ReservedBytes {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ReservedBytes {
    /// Changes the reservation to `bytes`; false, and unchanged, if the budget has no more.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let used = &self.budget.used;
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes - bytes, Relaxed);
        } else {
            let more = bytes - self.bytes;
            let fits = |used: usize| used.checked_add(more).filter(|used| *used <= self.budget.max);
            if used.fetch_update(Relaxed, Relaxed, fits).is_err() {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = Arc::new(ByteBudget::new(100));
        let (mut first, mut second) = (budget.reserve(), budget.reserve());
        assert!(first.resize(60) && second.resize(40) && !second.resize(41));
        assert!(first.resize(10) && second.resize(90));
        drop((first, second));
        assert_eq!(budget.used.load(Relaxed), 0);
    }
}
