//! The query log: off by default; logs every Nth question.
//!
//! Names are escaped. A cached answer that is not due is never logged.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{dns::request::ServedFrom, sys::labels, wire::Query};

labels! {
    /// The kind of an answer, as CoreDNS divides them.
    pub enum AnswerClass {
        Success = "success",
        /// NXDOMAIN, or no records.
        Denial = "denial",
        Error = "error",
    }
}

impl AnswerClass {
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    pub fn bits(classes: &[Self]) -> u8 {
        classes.iter().fold(0, |bits, class| bits | class.bit())
    }

    /// The kind of this whole message.
    pub fn of(message: &[u8]) -> Self {
        match (message.get(3).map(|byte| byte & 0x0F), message.get(6..8)) {
            (Some(0), Some([0, 0])) | (Some(3), _) => Self::Denial,
            (Some(0), _) => Self::Success,
            _ => Self::Error,
        }
    }
}

/// Picks every Nth question.
#[derive(Debug)]
pub struct Sampler {
    every: AtomicU32,
    seen: AtomicU32,
}

impl Sampler {
    /// `every` is the number of queries for each line; 0 writes none.
    pub fn new(every: u32) -> Self {
        Self { every: AtomicU32::new(every), seen: AtomicU32::new(0) }
    }

    /// Writes a line for one query in `every` from now on.
    pub fn set(&self, every: u32) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// Counts a question; returns whether one is due, until [`take`](Self::take).
    pub fn count(&self) -> bool {
        let every = self.every.load(Ordering::Relaxed);
        every != 0 && self.seen.fetch_add(1, Ordering::Relaxed) >= every - 1
    }

    /// Takes the turn if a question is due. Counts nothing.
    pub fn take(&self) -> bool {
        let every = self.every.load(Ordering::Relaxed);
        let turn = every != 0 && self.seen.load(Ordering::Relaxed) >= every;
        if turn {
            self.seen.store(0, Ordering::Relaxed);
        }
        turn
    }
}

/// Logs `query`, answered `from` there after `took`.
pub fn log(query: &Query<'_>, client: SocketAddr, from: ServedFrom, took: Duration) {
    let (name, qtype) = (&query.name, query.qtype);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(target: "holdfast::query", %client, %name, %qtype, from = from.as_str(), micros, "query");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_code_and_records() {
        for (code, records, expect) in [
            (0, 1, AnswerClass::Success),
            (0, 0, AnswerClass::Denial),
            (3, 1, AnswerClass::Denial),
            (2, 0, AnswerClass::Error),
            (5, 0, AnswerClass::Error),
        ] {
            let message = [0, 0, 0x80, 0x80 | code, 0, 1, 0, records, 0, 0, 0, 0];
            assert_eq!(AnswerClass::of(&message), expect, "{code} {records}");
        }
        assert_eq!(AnswerClass::of(&[]), AnswerClass::Error);
    }

    #[test]
    fn one_in_so_many_has_its_turn_and_none_by_default() {
        let due = |every| {
            let sampler = Sampler::new(every);
            (0..100).filter(|_| sampler.count() && sampler.take()).count()
        };
        assert_eq!([due(0), due(1), due(10), due(100)], [0, 100, 10, 1]);
    }

    #[test]
    fn what_the_cache_cannot_answer_is_counted_once() {
        let sampler = Sampler::new(10);
        let taken = (0..100).filter(|_| {
            sampler.count();
            sampler.take()
        });
        assert_eq!(taken.count(), 10);
    }
}
