//! How long to wait before an expensive request or connection is tried again.

use std::time::Duration;

/// Exponential backoff with full jitter: after the n-th failure in a row, anything from nothing to `min`·2ⁿ⁻¹, at most
/// `max`. The jitter keeps clients that failed together from coming back together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The longest the next wait may be.
    fn ceiling(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            n => self.min.saturating_mul(1_u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(self.max),
        }
    }

    pub(super) fn delay(&self) -> Duration {
        self.ceiling().mul_f64(rand::random_range(0.0..=1.0))
    }
}

/// A random moment within a window: clients that were sent away together do not come back together.
pub(super) fn spread(window: Duration) -> Duration {
    rand::random_range(Duration::ZERO..=window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_bound_and_the_wait_stays_below_it() {
        let mut backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(30));
        assert_eq!(backoff.delay(), Duration::ZERO);
        let mut ceilings = Vec::new();
        for _ in 0..40 {
            backoff.failed();
            ceilings.push(backoff.ceiling().as_millis());
            assert!(backoff.delay() <= backoff.ceiling());
        }
        assert_eq!(ceilings[..7], [800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert_eq!(ceilings[39], 30_000);
        backoff.succeeded();
        assert_eq!(backoff.delay(), Duration::ZERO);
    }
}
