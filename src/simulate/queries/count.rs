//! What became of the questions.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

/// What became of the questions over one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// Questions asked, each counted once.
    pub asked: u64,
    /// Those that got their answer.
    pub answered: u64,
    pub lost: u64,
    /// Those asked once more because their connection was closed before it answered.
    pub asked_again: u64,
    /// The longest time without any answer, in milliseconds.
    pub longest_gap_ms: u64,
    /// The longest time one answer took, in milliseconds.
    pub slowest_ms: u64,
}

/// What became of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How long it was asked.
    pub seconds: f64,
    pub udp: Kind,
    pub tcp: Kind,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    asked: AtomicU64,
    answered: AtomicU64,
    lost: AtomicU64,
    again: AtomicU64,
    /// Of the last answer, in microseconds after the start.
    last: AtomicU64,
    gap_us: AtomicU64,
    slowest_us: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Count {
    began: Instant,
    stopped: AtomicBool,
    pub udp: Tally,
    pub tcp: Tally,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Count {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, stopped: AtomicBool::new(false), udp: Tally::default(), tcp: Tally::default() }
    }

    /// No more questions are to be asked.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    pub(super) fn report(&self, asked_for: Duration) -> Report {
        Report { seconds: asked_for.as_secs_f64(), udp: self.udp.kind(), tcp: self.tcp.kind() }
    }

    pub(super) fn answered(&self, tally: &Tally, asked: Instant) {
        let now = micros(self.began.elapsed());
        tally.answered.fetch_add(1, Relaxed);
        let last = tally.last.fetch_max(now, Relaxed);
        tally.gap_us.fetch_max(now.saturating_sub(last), Relaxed);
        tally.slowest_us.fetch_max(micros(asked.elapsed()), Relaxed);
    }
}

impl Tally {
    pub(super) fn asked(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    pub(super) fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    pub(super) fn again(&self) {
        self.again.fetch_add(1, Relaxed);
    }

    fn kind(&self) -> Kind {
        Kind {
            asked: self.asked.load(Relaxed),
            answered: self.answered.load(Relaxed),
            lost: self.lost.load(Relaxed),
            asked_again: self.again.load(Relaxed),
            longest_gap_ms: self.gap_us.load(Relaxed) / 1_000,
            slowest_ms: self.slowest_us.load(Relaxed) / 1_000,
        }
    }
}
