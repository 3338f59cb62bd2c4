//! Pauses between attempts, random so that thousands of clients do not march in step.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(500);

/// Decorrelated jitter: each pause is between the shortest and three times the last, up to a limit.
#[derive(Debug)]
pub(super) struct Backoff {
    last: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(max: Duration) -> Self {
        Self { last: BASE, max }
    }

    pub(super) fn reset(&mut self) {
        self.last = BASE;
    }

    pub(super) fn next(&mut self) -> Duration {
        self.last = rand::random_range(BASE..=(self.last * 3).max(BASE)).min(self.max);
        self.last
    }
}

/// A random moment within a window.
pub(super) fn spread(window: Duration) -> Duration {
    rand::random_range(Duration::ZERO..=window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_small_again() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        let pauses: Vec<Duration> = (0..1_000).map(|_| backoff.next()).collect();
        assert!(pauses.iter().all(|pause| (BASE..=Duration::from_secs(60)).contains(pause)));
        assert!(pauses[0] <= BASE * 3);
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(30)));
        backoff.reset();
        assert!(backoff.next() <= BASE * 3);
    }
}
