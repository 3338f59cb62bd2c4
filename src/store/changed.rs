//! When the objects behind recent versions changed. Never says what changed, and forgets the oldest when it is full.

use std::collections::VecDeque;

use crate::{
    record::Version,
    sys::{Lock, UnixMillis},
};

/// Most moments remembered: those of a large burst, in 64 KiB or so.
const MOMENTS_MAX: usize = 4096;
/// Most moments of one update; more tell nothing new.
const OF_ONE_MAX: usize = 256;

/// Moments by the version that shows what happened then.
#[derive(Debug, Default)]
pub(super) struct ChangeTimes(Lock<VecDeque<(Version, UnixMillis)>>);

impl ChangeTimes {
    /// Notes the moments behind `version`.
    pub(super) fn note(&self, version: &Version, moments: Vec<UnixMillis>) {
        let mut times = self.0.lock();
        for at in moments.into_iter().take(OF_ONE_MAX) {
            if times.len() == MOMENTS_MAX {
                times.pop_front();
            }
            times.push_back((version.clone(), at));
        }
    }

    /// The moments behind the versions after `before`, up to `version`.
    pub(super) fn between(&self, before: &Version, version: &Version) -> Vec<UnixMillis> {
        let times = self.0.lock();
        let within = |of: &Version| of.follows(before) && !of.follows(version);
        times.iter().filter(|(of, _)| within(of)).map(|(_, at)| *at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(rev: u64) -> Version {
        Version { cluster: "uid".into(), epoch: 1, rev }
    }

    #[test]
    fn moments_are_found_by_the_versions_that_show_them_and_are_bounded() {
        let times = ChangeTimes::default();
        for rev in 1..=3 {
            times.note(&version(rev), vec![UnixMillis(rev * 10), UnixMillis(rev * 10 + 1)]);
        }
        assert_eq!(times.between(&version(1), &version(2)), [UnixMillis(20), UnixMillis(21)]);
        assert_eq!(times.between(&version(3), &version(3)), []);
        for rev in 4..=10_000 {
            times.note(&version(rev), vec![UnixMillis(rev); 1_000]);
        }
        assert_eq!(times.between(&version(0), &version(10_000)).len(), MOMENTS_MAX);
        assert_eq!(times.between(&version(9_999), &version(10_000)).len(), OF_ONE_MAX);
    }
}
