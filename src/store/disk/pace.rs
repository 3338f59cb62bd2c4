//! When to write: pure, the time is handed in.

use std::time::{Duration, Instant};

/// Longest wait between two attempts on a disk that fails.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The first wait after a failure; doubles with each.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// How far the disk is behind memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Not at all.
    Nothing,
    /// Only `as_of` is newer in memory.
    Age,
    Records,
}

/// When the next write is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Instant),
    Never,
}

/// The rhythm of commits: the first change after quiet at once, then no more than one an interval.
#[derive(Debug)]
pub(super) struct Pace {
    records_every: Duration,
    age_every: Duration,
    last: Option<Instant>,
    failures: u32,
}

impl Pace {
    pub(super) fn new(records_every: Duration, age_every: Duration) -> Self {
        Self { records_every, age_every, last: None, failures: 0 }
    }

    /// Notes that a write begun at `at` was done.
    pub(super) fn wrote(&mut self, at: Instant) {
        self.last = Some(at);
        self.failures = 0;
    }

    /// Notes that an attempt ended in failure at `at`.
    pub(super) fn failed(&mut self, at: Instant) {
        self.last = Some(at);
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) fn due(&self, behind: Behind, now: Instant) -> Due {
        let wait = match (behind, self.failures) {
            (Behind::Nothing, _) => return Due::Never,
            (Behind::Records, 0) => self.records_every,
            (Behind::Age, 0) => self.age_every,
            (_, failures) => RETRY_MIN.saturating_mul(1 << (failures - 1).min(16)).min(RETRY_MAX),
        };
        match self.last.map(|last| last + wait) {
            Some(at) if at > now => Due::At(at),
            _ => Due::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_secs(1), Duration::from_secs(30))
    }

    #[test]
    fn the_first_change_after_quiet_is_due_at_once() {
        let start = Instant::now();
        let mut pace = pace();
        assert_eq!(pace.due(Behind::Nothing, start), Due::Never);
        assert_eq!(pace.due(Behind::Age, start), Due::Now);
        assert_eq!(pace.due(Behind::Records, start), Due::Now);
        pace.wrote(start);
        assert_eq!(pace.due(Behind::Records, start + Duration::from_secs(2)), Due::Now);
    }

    #[test]
    fn a_run_of_changes_is_written_once_an_interval_and_age_alone_rarely() {
        let start = Instant::now();
        let mut pace = pace();
        pace.wrote(start);
        let soon = start + Duration::from_millis(10);
        assert_eq!(pace.due(Behind::Records, soon), Due::At(start + Duration::from_secs(1)));
        assert_eq!(pace.due(Behind::Age, soon), Due::At(start + Duration::from_secs(30)));
        assert_eq!(pace.due(Behind::Nothing, soon), Due::Never);
    }

    #[test]
    fn failures_back_off_to_half_a_minute_and_a_success_ends_that() {
        let start = Instant::now();
        let mut pace = pace();
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.failed(start);
            let Due::At(at) = pace.due(Behind::Records, start) else { panic!("due at once after a failure") };
            waits.push((at - start).as_millis());
        }
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        pace.failures = u32::MAX;
        pace.failed(start);
        assert_eq!(pace.due(Behind::Age, start), Due::At(start + RETRY_MAX));
        pace.wrote(start);
        assert_eq!(pace.due(Behind::Records, start), Due::At(start + Duration::from_secs(1)));
    }
}
