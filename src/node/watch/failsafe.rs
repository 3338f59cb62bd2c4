//! When the addresses are given to the cluster's DNS, and when they are taken. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Answers in a row after which the addresses are taken: one could be the last of a process that dies.
const ANSWERS: u32 = 2;

#[derive(Debug)]
pub(super) struct Failsafe {
    /// `None` for never giving them away.
    after: Option<Duration>,
    answered: Instant,
    in_a_row: u32,
    released: bool,
}

impl Failsafe {
    /// `released` as the node was found.
    pub(super) fn new(after: Option<Duration>, now: Instant, released: bool) -> Self {
        Self { after, answered: now, in_a_row: 0, released }
    }

    pub(super) fn released(&self) -> bool {
        self.released
    }

    pub(super) fn note(&mut self, answered: bool, now: Instant) {
        if answered {
            self.answered = now;
            self.in_a_row += 1;
        } else {
            self.in_a_row = 0;
        }
    }

    /// Whether there was no answer for so long that the cluster's DNS is to answer.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.after.is_some_and(|after| now - self.answered >= after)
    }

    /// Whether there are answers again.
    pub(super) fn may_take(&self) -> bool {
        self.released && self.in_a_row >= ANSWERS
    }

    pub(super) fn set(&mut self, released: bool, now: Instant) {
        self.released = released;
        self.in_a_row = 0;
        self.answered = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_gives_away_and_two_answers_take_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failsafe = Failsafe::new(Some(Duration::from_secs(3)), start, false);
        failsafe.note(true, at(1));
        failsafe.note(false, at(3));
        assert!(!failsafe.is_silent(at(3)), "2 s");
        failsafe.note(true, at(3));
        assert!(!failsafe.is_silent(at(5)) && failsafe.is_silent(at(6)));
        failsafe.set(true, at(6));
        failsafe.note(true, at(7));
        assert!(!failsafe.may_take(), "one answer is not enough");
        failsafe.note(false, at(8));
        failsafe.note(true, at(9));
        assert!(!failsafe.may_take());
        failsafe.note(true, at(10));
        assert!(failsafe.may_take());
        failsafe.set(false, at(10));
        assert!(!failsafe.may_take() && !failsafe.is_silent(at(12)));
        assert!(!Failsafe::new(None, start, false).is_silent(at(9_999)), "none is never");
    }
}
