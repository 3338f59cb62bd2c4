//! The query log: off by default, and then one question in so many.
//!
//! Names are escaped; nothing is logged on the path of a cached answer that is not due.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{dns::request::ServedFrom, wire::Query};

/// Counts questions.
#[derive(Debug)]
pub struct QueryLog {
    every: AtomicU32,
    seen: AtomicU32,
}

impl QueryLog {
    /// Logs one question in `every`; 0 logs none.
    pub fn new(every: u32) -> Self {
        Self { every: AtomicU32::new(every), seen: AtomicU32::new(0) }
    }

    /// Logs one question in `every` from now on.
    pub fn set(&self, every: u32) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// Counts a question; true if the next one logged is it.
    pub fn is_due(&self) -> bool {
        match self.every.load(Ordering::Relaxed) {
            0 => false,
            every => {
                self.seen.load(Ordering::Relaxed) % every == every - 1 || {
                    self.seen.fetch_add(1, Ordering::Relaxed);
                    false
                }
            }
        }
    }

    /// Logs `query` if it is due.
    pub fn note(&self, query: &Query<'_>, client: SocketAddr, from: ServedFrom, took: Duration) {
        if self.is_due() {
            self.seen.fetch_add(1, Ordering::Relaxed);
            let (name, qtype) = (&query.name, query.qtype);
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::info!(target: "holdfast::query", %client, %name, %qtype, from = from.as_str(), micros, "query");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_due_and_none_by_default() {
        let due = |every| {
            let log = QueryLog::new(every);
            let count = |_: &u32| {
                let due = log.is_due();
                if due {
                    log.seen.fetch_add(1, Ordering::Relaxed);
                }
                due
            };
            (0..100).filter(count).count()
        };
        assert_eq!([due(0), due(1), due(10), due(100)], [0, 100, 10, 1]);
    }
}
