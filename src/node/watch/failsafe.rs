//! When the addresses are given to the cluster's DNS, and when they are taken. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::probe::Answer;

/// Answers in a row after which the addresses are taken: one could be the last of a process that dies.
const ANSWERS: u32 = 2;

#[derive(Debug)]
pub(super) struct Failsafe {
    /// `None` for never giving them away.
    after: Option<Duration>,
    /// The last time there was an answer that need not be compared with the cluster's DNS.
    good: Instant,
    in_a_row: u32,
    released: bool,
}

impl Failsafe {
    /// `released` as the node was found.
    pub(super) fn new(after: Option<Duration>, now: Instant, released: bool) -> Self {
        Self { after, good: now, in_a_row: 0, released }
    }

    pub(super) fn released(&self) -> bool {
        self.released
    }

    pub(super) fn note(&mut self, answer: Answer, now: Instant) {
        if answer == Answer::Good {
            self.good = now;
        }
        self.in_a_row = if answer == Answer::Bad { 0 } else { self.in_a_row + 1 };
    }

    /// Whether there was no good answer for so long that the cluster's DNS is to be asked whether it has one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.after.is_some_and(|after| now - self.good >= after)
    }

    /// The cluster's DNS has no better answer: it is asked again no sooner than after another time without a good one.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.good = now;
    }

    /// Whether there are answers again.
    pub(super) fn may_take(&self) -> bool {
        self.released && self.in_a_row >= ANSWERS
    }

    pub(super) fn set(&mut self, released: bool, now: Instant) {
        self.released = released;
        self.in_a_row = 0;
        self.good = now;
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
        failsafe.note(Answer::Good, at(1));
        failsafe.note(Answer::Bad, at(3));
        assert!(!failsafe.is_due(at(3)), "2 s");
        failsafe.note(Answer::Good, at(3));
        assert!(!failsafe.is_due(at(5)) && failsafe.is_due(at(6)));
        failsafe.set(true, at(6));
        failsafe.note(Answer::Good, at(7));
        assert!(!failsafe.may_take(), "one answer is not enough");
        failsafe.note(Answer::Bad, at(8));
        failsafe.note(Answer::Denied, at(9));
        assert!(!failsafe.may_take());
        failsafe.note(Answer::Denied, at(10));
        assert!(failsafe.may_take());
        failsafe.set(false, at(10));
        assert!(!failsafe.may_take() && !failsafe.is_due(at(12)));
        assert!(!Failsafe::new(None, start, false).is_due(at(9_999)), "none is never");
    }

    #[test]
    fn denials_are_compared_with_the_cluster_dns_once_each_period() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failsafe = Failsafe::new(Some(Duration::from_secs(3)), start, false);
        for second in 0..3 {
            failsafe.note(Answer::Denied, at(second));
            assert!(!failsafe.is_due(at(second)), "{second}");
        }
        assert!(failsafe.is_due(at(3)));
        failsafe.put_off(at(3));
        assert!(!failsafe.is_due(at(5)) && failsafe.is_due(at(6)));
    }
}
