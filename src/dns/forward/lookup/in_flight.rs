//! Questions in flight: equal ones share one exchange with the upstreams.
//!
//! An exchange does not depend on its waiters: it goes on without them, and its answer is kept.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::sys::Lock;

/// Clients waiting for answers of upstreams at once; more get SERVFAIL. Each costs about a kilobyte.
const WAITERS_MAX: usize = 20_000;

/// The questions being asked now, by cache key, with the outcome to come.
type ByKey<T> = Lock<HashMap<Box<[u8]>, watch::Receiver<Option<T>>>>;

#[derive(Debug)]
pub struct InFlight<T> {
    by_key: Arc<ByKey<T>>,
    waiters: Arc<AtomicUsize>,
}

/// A place in the queue for one answer.
#[derive(Debug)]
pub struct Waiter<T> {
    result: watch::Receiver<Option<T>>,
    waiters: Arc<AtomicUsize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    TooManyWaiters,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self { by_key: Arc::default(), waiters: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> InFlight<T> {
    /// Waits for the exchange under `key`, which `start` begins if there is none.
    ///
    /// # Errors
    /// If too many wait.
    pub fn join<F>(&self, key: &[u8], start: impl FnOnce() -> F) -> Result<Waiter<T>, Refused>
    where
        F: Future<Output = T> + Send + 'static,
    {
        if self.waiters.fetch_add(1, Ordering::Relaxed) >= WAITERS_MAX {
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::TooManyWaiters);
        }
        let result = self.start(key, start);
        Ok(Waiter { result, waiters: Arc::clone(&self.waiters) })
    }

    /// Begins the exchange under `key` unless there is one, without a waiter.
    pub fn start<F>(&self, key: &[u8], start: impl FnOnce() -> F) -> watch::Receiver<Option<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut by_key = lock(&self.by_key);
        if let Some(result) = by_key.get(key) {
            return result.clone();
        }
        let (done, result) = watch::channel(None);
        by_key.insert(key.into(), result.clone());
        drop(by_key);
        let remove_on_drop = RemoveOnDrop { by_key: Arc::clone(&self.by_key), key: key.into() };
        let exchange = start();
        tokio::spawn(async move {
            let outcome = exchange.await;
            // First out of the map: a client that comes now finds the answer in the cache.
            drop(remove_on_drop);
            done.send_replace(Some(outcome));
        });
        result
    }

    pub fn len(&self) -> usize {
        lock(&self.by_key).len()
    }
}

/// Takes an exchange out of the map when it is over, also by panic or shutdown.
struct RemoveOnDrop<T> {
    by_key: Arc<ByKey<T>>,
    key: Box<[u8]>,
}

impl<T> Drop for RemoveOnDrop<T> {
    fn drop(&mut self) {
        lock(&self.by_key).remove(&self.key);
    }
}

impl<T> Drop for Waiter<T> {
    fn drop(&mut self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Clone> Waiter<T> {
    /// The outcome; `None` if the exchange was broken off.
    pub async fn outcome(mut self) -> Option<T> {
        let result = self.result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

type Guarded<'a, T> = MutexGuard<'a, HashMap<Box<[u8]>, watch::Receiver<Option<T>>>>;

fn lock<T>(by_key: &ByKey<T>) -> Guarded<'_, T> {
    by_key.lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn equal_questions_share_one_exchange_and_the_next_starts_another() {
        let in_flight = InFlight::<usize>::default();
        let started = AtomicUsize::new(0);
        for round in 1..=2 {
            let waiters: Vec<_> = (0..1_000)
                .map(|_| {
                    in_flight.join(b"key", || {
                        let nth = started.fetch_add(1, Ordering::Relaxed) + 1;
                        async move {
                            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                            nth
                        }
                    })
                })
                .collect();
            assert_eq!(in_flight.len(), 1);
            for waiter in waiters {
                assert_eq!(waiter.unwrap().outcome().await, Some(round));
            }
            assert_eq!(in_flight.len(), 0);
        }
        assert_eq!(in_flight.waiters.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_bounded() {
        let in_flight = InFlight::<()>::default();
        let waiters: Vec<_> = (0..WAITERS_MAX).map(|_| in_flight.join(b"key", std::future::pending).unwrap()).collect();
        assert_eq!(in_flight.join(b"key", std::future::pending).unwrap_err(), Refused::TooManyWaiters);
        drop(waiters);
        assert!(in_flight.join(b"key", std::future::pending).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_that_breaks_off_leaves_nobody_waiting() {
        let in_flight = InFlight::<()>::default();
        let waiter = in_flight.join(b"key", || async { panic!("broken") }).unwrap();
        assert_eq!(waiter.outcome().await, None);
        assert_eq!(in_flight.len(), 0);
    }
}
