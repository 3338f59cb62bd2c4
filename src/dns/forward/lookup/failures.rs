//! Recent failures, so that a name with broken servers is not asked for again with every client (RFC 9520).
//!
//! Kept apart from answers: a failure never takes the place of data.

use std::{sync::Arc, time::Duration};

use crate::{dns::forward::Failure, sys::UnixMillis};

const NAMES_MAX: u64 = 10_000;
/// RFC 9520, 3.2: at least 1 s; at most 5 s here, so that the end of an outage is seen soon.
const KEPT_MIN: Duration = Duration::from_secs(1);
const KEPT_MAX: Duration = Duration::from_secs(5);

/// Recent failures by cache key.
#[derive(Clone, Debug)]
pub struct Failures(moka::sync::Cache<Box<[u8]>, Arc<RecentFailure>>);

#[derive(Debug)]
struct RecentFailure {
    failure: Failure,
    until: UnixMillis,
    kept: Duration,
}

impl Default for Failures {
    fn default() -> Self {
        Self(moka::sync::Cache::new(NAMES_MAX))
    }
}

impl Failures {
    /// The failure under `key`, if it is recent.
    pub fn get(&self, key: &[u8], now: UnixMillis) -> Option<Failure> {
        self.0.get(key).filter(|known| now < known.until).map(|known| known.failure.clone())
    }

    /// Remembers `failure` for `kept`, or for longer each time until the name answers again.
    pub fn insert(&self, key: &[u8], failure: Failure, now: UnixMillis, kept: Option<Duration>) {
        if kept == Some(Duration::ZERO) {
            return;
        }
        let before = self.0.get(key).map(|known| known.kept);
        let kept = kept.unwrap_or_else(|| before.map_or(KEPT_MIN, |kept| (kept * 2).min(KEPT_MAX)));
        let until = UnixMillis(now.0.saturating_add(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        self.0.insert(key.into(), Arc::new(RecentFailure { failure, until, kept }));
    }

    /// Forgets the failure under `key`, which has an answer.
    pub fn remove(&self, key: &[u8]) {
        if self.0.contains_key(key) {
            self.0.invalidate(key);
        }
    }

    /// Forgets everything: an upstream is back.
    pub fn clear(&self) {
        self.0.invalidate_all();
    }
}
