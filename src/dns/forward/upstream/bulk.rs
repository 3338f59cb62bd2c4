//! Whether one upstream denies too many names that were good, all at once: then it is wrong, and not the names.
//!
//! Pure: the time is handed in. Counts names, not questions.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Denials are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// As many names have to be denied.
const DENIED_MIN: usize = 10;
/// More than one in so many of the popular names asked must be denied.
const DENIED_SHARE: usize = 5;
/// How long nothing it denies is believed.
const LYING: Duration = Duration::from_secs(600);
/// Names remembered.
const NAMES_MAX: usize = 1_024;

/// An upstream's recent answers for popular names.
#[derive(Debug, Default)]
pub struct Bulk {
    seen: VecDeque<Seen>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    name: u64,
    denied: bool,
}

impl Bulk {
    /// Notes what it says of a popular name. Returns whether it is not believed from now on.
    pub fn note(&mut self, name: u64, denied: bool, now: Instant) -> bool {
        self.seen.retain(|seen| seen.name != name && now.duration_since(seen.at) < WINDOW);
        if self.seen.len() >= NAMES_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { at: now, name, denied });
        let many = self.seen.iter().filter(|seen| seen.denied).count();
        if !denied || many < DENIED_MIN || many * DENIED_SHARE <= self.seen.len() {
            return false;
        }
        let began = !self.is_lying(now);
        self.until = Some(now + LYING);
        began
    }

    /// Goes on with what was found so long before a restart.
    pub fn resume(&mut self, ago: Duration, now: Instant) {
        let left = LYING.saturating_sub(ago);
        if !left.is_zero() {
            self.until = self.until.max(Some(now + left));
        }
    }

    pub fn is_lying(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_names_and_more_than_a_fifth_within_a_minute_are_too_many() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        // Denied names, names that it has records of, seconds between two of them, whether that is too much.
        let cases = [(9, 0, 1, false), (10, 0, 1, true), (10, 40, 1, false), (11, 40, 1, true), (20, 0, 7, false)];
        for (denied, good, apart, expect) in cases {
            let mut bulk = Bulk::default();
            for name in 0..good {
                assert!(!bulk.note(1_000 + name, false, at(0)));
            }
            let began = (0..denied).filter(|nth| bulk.note(*nth, true, at(nth * apart))).count();
            assert_eq!((began, bulk.is_lying(at(denied * apart))), (usize::from(expect), expect), "{denied} {good}");
        }
    }

    #[test]
    fn one_name_counts_once_and_what_an_upstream_did_is_forgiven() {
        let (start, mut bulk) = (Instant::now(), Bulk::default());
        for _ in 0..100 {
            assert!(!bulk.note(7, true, start));
        }
        assert_eq!((0..12).filter(|name| bulk.note(*name, true, start)).count(), 1, "told once");
        assert!(bulk.is_lying(start + LYING - Duration::from_secs(1)));
        assert!(!bulk.is_lying(start + LYING));
        let mut resumed = Bulk::default();
        resumed.resume(LYING, start);
        assert!(!resumed.is_lying(start), "long ago");
        resumed.resume(Duration::from_secs(540), start);
        resumed.resume(Duration::from_secs(570), start);
        assert!(
            resumed.is_lying(start + Duration::from_secs(59)) && !resumed.is_lying(start + Duration::from_secs(60))
        );
        for name in 0..10_000 {
            bulk.note(name, false, start);
        }
        assert_eq!(bulk.seen.len(), NAMES_MAX);
    }
}
