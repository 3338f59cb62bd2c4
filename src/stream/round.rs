//! The clock of batching: a round lasts from the announcement of a frame until the subscribers that waited for it have woken.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// The longest round: a subscriber that is starved of CPU must not delay the others.
const ROUND_MAX: Duration = Duration::from_millis(250);
/// Counts the subscribers that have not woken for a frame yet.
#[derive(Default)]
pub(super) struct Round {
    idle: AtomicUsize,
    woken: AtomicUsize,
    target: AtomicUsize,
    done: Notify,
}

impl Round {
    /// To be called just before the frame is announced.
    pub(super) fn begin(&self) {
        let idle = self.idle.load(Ordering::SeqCst);
        self.woken.store(0, Ordering::SeqCst);
        // A few may be starved or gone; the round is not for them.
        self.target.store(idle - idle / 50, Ordering::SeqCst);
    }

    /// Comes back when they have, or when it took too long.
    pub(super) async fn finish(&self) {
        let deadline = Instant::now() + ROUND_MAX;
        while self.woken.load(Ordering::SeqCst) < self.target.load(Ordering::SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if timeout(left, self.done.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// A waiting stream; dropped on waking, and when the stream ends.
pub(super) struct Idle<'a>(&'a Round);

impl<'a> Idle<'a> {
    pub(super) fn enter(round: &'a Round) -> Self {
        round.idle.fetch_add(1, Ordering::SeqCst);
        Self(round)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::SeqCst);
        let woken = self.0.woken.fetch_add(1, Ordering::SeqCst) + 1;
        if woken == self.0.target.load(Ordering::SeqCst) {
            self.0.done.notify_one();
        }
    }
}
