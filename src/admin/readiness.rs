//! Readiness: a set of latches, each held by whoever is not ready yet. The process is ready while none is held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The latches of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

impl Readiness {
    /// Holds the process back until the latch is dropped. The name says what is waited for: `first records`, `draining`.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        self.held_mut().push(name);
        Latch { name, of: self.clone() }
    }

    /// What is waited for, in the order it began.
    pub fn held(&self) -> Vec<&'static str> {
        self.held_mut().clone()
    }

    fn held_mut(&self) -> MutexGuard<'_, Vec<&'static str>> {
        // A list of names is whole whatever panicked while it was locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the process from being ready until it is dropped.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    of: Readiness,
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut held = self.of.held_mut();
        if let Some(at) = held.iter().position(|name| *name == self.name) {
            held.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_latch_was_dropped() {
        let readiness = Readiness::default();
        let records = readiness.latch("first records");
        let listeners = readiness.latch("listeners");
        let more = readiness.latch("listeners");
        drop(listeners);
        assert_eq!(readiness.held(), ["first records", "listeners"]);
        drop((records, more));
        assert!(readiness.held().is_empty());
    }
}
