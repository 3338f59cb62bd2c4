//! How far a hub's clock is from this machine's.

use std::collections::VecDeque;

use crate::{proto::Vouched, sys::UnixMillis};

/// Marks looked back at: a minute of heartbeats. A clock that is set right is believed after that.
const MARKS_MAX: usize = 12;

/// Clocks that differ by less are taken for the same.
const SAME_MS: i64 = 1_000;

/// The clock of the hub that is followed.
///
/// A mark says when it was made; it was received some delay later. The least difference seen is the nearest to the truth.
#[derive(Debug, Default)]
pub(super) struct Offset {
    /// This machine's clock less the hub's, in ms, for the latest marks.
    behind_ms: VecDeque<i64>,
}

impl Offset {
    /// Translates the times in `vouched` from the hub's clock to this machine's, which reads `now`. None of them is
    /// later than `now` then, whatever the hub says.
    pub(super) fn translate(&mut self, vouched: &mut Vouched, now: UnixMillis) {
        // Hubs of older versions do not say what their clock reads.
        if vouched.now.0 > 0 {
            if self.behind_ms.len() == MARKS_MAX {
                self.behind_ms.pop_front();
            }
            self.behind_ms.push_back(signed(now).saturating_sub(signed(vouched.now)));
            let behind = self.behind_ms.iter().copied().min().unwrap_or_default();
            // This little is the way of the mark, or what clocks that are kept right differ by.
            let behind = if behind.abs() < SAME_MS { 0 } else { behind };
            vouched.as_of = UnixMillis(vouched.as_of.0.saturating_add_signed(behind));
        }
        vouched.as_of = vouched.as_of.min(now);
    }

    /// By how many ms the hub's clock is ahead.
    pub(super) fn ahead_ms(&self) -> Option<i64> {
        self.behind_ms.iter().min().map(|behind| -behind)
    }
}

fn signed(at: UnixMillis) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_the_hub_whatever_its_clock_says() {
        const HOUR: u64 = 3_600_000;
        let now = UnixMillis(100 * HOUR);
        for (theirs, ahead) in [(101 * HOUR, 3_600_000), (99 * HOUR, -3_600_000), (100 * HOUR, 0)] {
            let mut offset = Offset::default();
            // Ninety seconds old, made this very moment.
            let mut vouched =
                Vouched { as_of: UnixMillis(theirs - 90_000), now: UnixMillis(theirs), ..Vouched::default() };
            offset.translate(&mut vouched, now);
            assert_eq!((vouched.as_of, offset.ahead_ms()), (UnixMillis(now.0 - 90_000), Some(ahead)));
            // A later one that took five seconds to come is not taken for younger.
            let mut late = Vouched { as_of: UnixMillis(theirs), now: UnixMillis(theirs), ..Vouched::default() };
            offset.translate(&mut late, UnixMillis(now.0 + 5_000));
            assert_eq!(late.as_of, now);
        }
    }

    #[test]
    fn a_hub_that_does_not_tell_its_clock_vouches_for_nothing_after_now() {
        let (mut offset, now) = (Offset::default(), UnixMillis(10_000));
        let mut vouched = Vouched { as_of: UnixMillis(13_600_000), ..Vouched::default() };
        offset.translate(&mut vouched, now);
        assert_eq!((vouched.as_of, offset.ahead_ms()), (now, None));
    }
}
