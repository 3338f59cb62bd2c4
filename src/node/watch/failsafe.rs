//! When the addresses are given back, and when they are taken again. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Answers in a row after which the addresses are taken again: one could be the last of a process that dies.
const ANSWERS: u32 = 2;

#[derive(Debug)]
pub(super) struct Failsafe {
    after: Duration,
    answered: Instant,
    in_a_row: u32,
    released: bool,
}

impl Failsafe {
    /// `released` as the node was found.
    pub(super) fn new(after: Duration, now: Instant, released: bool) -> Self {
        Self { after, answered: now, in_a_row: 0, released }
    }

    pub(super) fn released(&self) -> bool {
        self.released
    }

    /// Takes note of a probe. If it changes anything: whether the addresses are released now.
    pub(super) fn note(&mut self, answered: bool, now: Instant) -> Option<bool> {
        if answered {
            self.answered = now;
            self.in_a_row += 1;
        } else {
            self.in_a_row = 0;
        }
        let released = if self.released { self.in_a_row < ANSWERS } else { now - self.answered >= self.after };
        (std::mem::replace(&mut self.released, released) != released).then_some(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_releases_and_answers_take_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut failsafe = Failsafe::new(Duration::from_secs(30), start, false);
        assert_eq!(failsafe.note(true, at(1)), None);
        assert_eq!(failsafe.note(false, at(30)), None, "29 s");
        assert_eq!(failsafe.note(true, at(30)), None);
        assert_eq!(failsafe.note(false, at(59)), None);
        assert_eq!(failsafe.note(false, at(60)), Some(true));
        assert_eq!(failsafe.note(false, at(90)), None, "once");
        assert_eq!(failsafe.note(true, at(91)), None, "one answer is not enough");
        assert_eq!(failsafe.note(false, at(92)), None);
        assert_eq!(failsafe.note(true, at(93)), None);
        assert_eq!(failsafe.note(true, at(94)), Some(false));
        assert_eq!(failsafe.note(false, at(123)), None);
        assert_eq!(failsafe.note(false, at(124)), Some(true));
        // Another watch finds it so, and takes nothing that nobody would answer at.
        let mut next = Failsafe::new(Duration::from_secs(30), at(125), true);
        assert_eq!((next.note(true, at(126)), next.note(true, at(127))), (None, Some(false)));
    }
}
