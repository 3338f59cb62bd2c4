//! When the addresses are given to the cluster's DNS, and when they are taken. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::probe::Answer;

/// Answers in a row after which the addresses are taken: one could be the last of a process that dies.
const ANSWERS: u32 = 2;
/// How long a port that no process listens at is waited for: its agent is gone with its parent, and only a supervisor brings them back.
const CLOSED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Failsafe {
    /// `None` for never giving them away.
    after: Option<Duration>,
    /// The last time there was an answer that need not be compared with the cluster's DNS.
    good: Instant,
    /// Since when no process listens.
    closed: Option<Instant>,
    in_a_row: u32,
    released: bool,
}

impl Failsafe {
    /// `released` as the node was found.
    pub(super) fn new(after: Option<Duration>, now: Instant, released: bool) -> Self {
        Self { after, good: now, closed: None, in_a_row: 0, released }
    }

    pub(super) fn released(&self) -> bool {
        self.released
    }

    pub(super) fn note(&mut self, answer: Answer, now: Instant) {
        if answer == Answer::Good {
            self.good = now;
        }
        self.closed = if answer == Answer::Closed { self.closed.or(Some(now)) } else { None };
        self.in_a_row = if answer.is_missing() { 0 } else { self.in_a_row + 1 };
    }

    /// The time without a process that listens after which [`is_due`](Self::is_due) holds.
    pub(super) fn closed_after(&self) -> Duration {
        self.after.map_or(CLOSED, |after| after.min(CLOSED))
    }

    /// Whether there was no good answer for so long that the cluster's DNS is to be asked whether it has one.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let closed = self.closed.is_some_and(|since| now - since >= self.closed_after());
        self.after.is_some_and(|after| closed || now - self.good >= after)
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
        self.closed = None;
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
    fn a_port_that_no_process_listens_at_is_waited_for_a_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let open = |after| Failsafe::new(Some(Duration::from_secs(after)), start, false);
        let mut failsafe = open(30);
        failsafe.note(Answer::Closed, at(500));
        failsafe.note(Answer::Closed, at(1_000));
        assert!(!failsafe.is_due(at(1_400)) && failsafe.is_due(at(1_500)));
        // A process that listens and does not answer: it may be starting.
        failsafe.note(Answer::Bad, at(1_500));
        failsafe.note(Answer::Closed, at(2_000));
        assert!(!failsafe.is_due(at(2_900)) && failsafe.is_due(at(3_000)));
        failsafe.set(true, at(3_000));
        failsafe.note(Answer::Closed, at(3_500));
        assert!(!failsafe.is_due(at(4_000)), "counted anew");
        assert!(!Failsafe::new(None, start, false).is_due(at(9_999_999)), "none is never");
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
