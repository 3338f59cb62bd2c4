//! A mutex without poisoning.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`Mutex`] that a panic does not poison.
///
/// Every panic outside [`contained`](super::contained) aborts the process, so nothing reads a value that a panic left half changed.
#[derive(Debug, Default)]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::contained;

    #[test]
    fn a_contained_panic_leaves_the_lock_usable() {
        let lock = Lock::new(1);
        let panicked: Result<(), String> = contained(|| {
            let _held = lock.lock();
            panic!("over a damaged file");
        });
        assert_eq!(panicked, Err("over a damaged file".to_owned()));
        assert_eq!(*lock.lock(), 1);
    }
}
