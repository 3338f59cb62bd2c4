//! The rules of the guard: pure functions of what is lost, of what there was, and of the numbers in [`Config`].

use std::{collections::HashSet, time::Duration};

use super::Config;
use crate::{record::ServiceKey, sys::UnixMillis};

/// How a list compares with what is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    pub served: usize,
    /// Services served and not in the list.
    pub missing: usize,
    /// Size of the largest class of records that is served and of which the list has nothing; 0 if there is none.
    pub emptied: usize,
}

/// What is to become of the removals in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// They wait for a second list that says the same.
    Confirm,
    /// They wait for a person.
    Operator,
}

/// Judges a list by what it lacks.
pub(super) fn list(list: List, config: &Config) -> Verdict {
    let allowed = config.list_services_min.max(percent(config.list_percent, list.served));
    let emptied = list.emptied > 0 && list.emptied >= config.class_min;
    if list.missing <= allowed && !emptied {
        Verdict::Pass
    } else if list.missing <= percent(config.confirm_percent_max, list.served) {
        Verdict::Confirm
    } else {
        Verdict::Operator
    }
}

/// Whether a list that lacks `missing` confirms an earlier one that lacked `before`, `since` then.
pub(super) fn confirms(
    before: &HashSet<ServiceKey>,
    missing: &HashSet<ServiceKey>,
    served: usize,
    since: Duration,
    config: &Config,
) -> bool {
    since >= config.confirm_after && agrees(before, missing, served, config)
}

/// Whether two lists lack the same services, but for a few.
pub(super) fn agrees(
    before: &HashSet<ServiceKey>,
    missing: &HashSet<ServiceKey>,
    served: usize,
    config: &Config,
) -> bool {
    before.symmetric_difference(missing).count() <= percent(config.confirm_tolerance_percent, served)
}

/// Whether `deleted` services within the window, of the `of` there were, are too many to be meant.
pub(super) fn deletes(deleted: usize, of: usize, config: &Config) -> bool {
    deleted >= config.deletes_min && deleted > percent(config.deletes_percent, of)
}

/// Whether `lost` endpoints within the window, of the `of` there were, over `services`, are too many to be true.
pub(super) fn losses(lost: usize, of: usize, services: usize, config: &Config) -> bool {
    services > config.losses_services_min && lost > percent(config.losses_percent, of)
}

/// `percent` of `total`, rounded down; 100 and above are all of it.
fn percent(percent: u8, total: usize) -> usize {
    total / 100 * usize::from(percent.min(100)) + total % 100 * usize::from(percent.min(100)) / 100
}

/// When something held at `since` is given up by itself.
pub(super) fn until(since: UnixMillis, config: &Config) -> UnixMillis {
    since.plus(config.losses_held_for)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_lack_fifty_services_or_two_in_a_hundred_and_no_whole_class() {
        use Verdict::{Confirm, Operator, Pass};
        // served, missing, largest class emptied, verdict
        let cases = [
            (0, 0, 0, Pass),
            (10_000, 0, 0, Pass),
            (10, 10, 10, Pass),
            (40, 40, 19, Pass),
            (50, 50, 0, Pass),
            (51, 51, 0, Operator),
            (1_000, 50, 0, Pass),
            (1_000, 51, 0, Confirm),
            (10_000, 200, 0, Pass),
            (10_000, 201, 0, Confirm),
            (10_000, 2_000, 0, Confirm),
            (10_000, 2_001, 0, Operator),
            (10_000, 10_000, 9_000, Operator),
            (1_000, 19, 19, Pass),
            (1_000, 20, 20, Confirm),
            (1_000, 0, 5_000, Confirm),
            (100, 20, 20, Confirm),
            (99, 20, 20, Operator),
            (25, 25, 25, Operator),
        ];
        for (served, missing, emptied, expected) in cases {
            let verdict = list(List { served, missing, emptied }, &Config::default());
            assert_eq!(verdict, expected, "{missing} of {served} missing, a class of {emptied} emptied");
        }
    }

    #[test]
    fn a_second_list_confirms_when_it_is_late_enough_and_nearly_the_same() {
        let keys = |range: std::ops::Range<u32>| -> HashSet<ServiceKey> {
            range.map(|n| ServiceKey::new("prod", &n.to_string())).collect()
        };
        // missing then, missing now, of, seconds between, confirmed
        let cases = [
            (0..300, 0..300, 10_000, 10, true),
            (0..300, 0..300, 10_000, 9, false),
            (0..300, 0..400, 10_000, 10, true),
            (0..300, 0..401, 10_000, 10, false),
            (0..300, 50..350, 10_000, 10, true),
            (0..300, 300..600, 10_000, 10, false),
            (0..10, 0..10, 50, 3_600, true),
            (0..10, 0..9, 50, 3_600, false),
        ];
        for (then, now, of, seconds, expected) in cases {
            let told = format!("{then:?} then, {now:?} now, of {of}, after {seconds} s");
            let since = Duration::from_secs(seconds);
            assert_eq!(confirms(&keys(then), &keys(now), of, since, &Config::default()), expected, "{told}");
        }
    }

    #[test]
    fn deletes_are_held_above_a_fifth_of_all_services() {
        let cases = [
            (1, 1, false),
            (19, 19, false),
            (20, 20, true),
            (20, 100, false),
            (21, 100, true),
            (2_000, 10_000, false),
            (2_001, 10_000, true),
        ];
        for (deleted, of, expected) in cases {
            assert_eq!(deletes(deleted, of, &Config::default()), expected, "{deleted} of {of}");
        }
    }

    #[test]
    fn losses_are_held_above_three_in_ten_over_more_than_fifty_services() {
        let cases = [
            (100, 100, 1, false),
            (100, 100, 50, false),
            (100, 100, 51, true),
            (3_000, 10_000, 900, false),
            (3_001, 10_000, 900, true),
            (3_001, 10_000, 50, false),
        ];
        for (lost, of, services, expected) in cases {
            assert_eq!(losses(lost, of, services, &Config::default()), expected, "{lost} of {of} over {services}");
        }
    }

    #[test]
    fn nothing_is_held_when_it_is_off() {
        let off = Config::off();
        assert_eq!(list(List { served: 10_000, missing: 10_000, emptied: 10_000 }, &off), Verdict::Pass);
        assert!(!deletes(10_000, 10_000, &off));
        assert!(!losses(10_000, 10_000, 10_000, &off));
    }

    #[test]
    fn percent_does_not_overflow() {
        assert_eq!(percent(2, usize::MAX), usize::MAX / 100 * 2 + usize::MAX % 100 * 2 / 100);
        assert_eq!(percent(255, 7), 7);
    }
}
