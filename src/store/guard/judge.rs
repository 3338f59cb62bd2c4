//! The rules of the guard: pure functions of what is lost, of what there was, and of the numbers in [`Config`].

use std::collections::HashSet;

use super::Config;
use crate::record::ServiceKey;

/// How a list compares with the served records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    pub served: usize,
    /// Services served and not in the list.
    pub missing: usize,
    /// Size of the largest class of records that is served and of which the list has nothing; 0 if there is none.
    pub emptied: usize,
    /// A person keeps the list in a file: small ones may become empty.
    pub from_files: bool,
}

/// The verdict on the removals in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Pass,
    /// They wait for a second list that agrees.
    Confirm,
    /// The same, but that list must come much later.
    ConfirmLate,
    /// They wait for an operator.
    Operator,
}

/// Judges a list by the records it lacks.
pub(super) fn list(list: List, config: &Config) -> Verdict {
    let List { served, missing, emptied, from_files } = list;
    let allowed = config.list_services_min.max(percent(config.list_percent, served));
    let emptied = emptied > 0 && emptied >= config.class_min;
    let half = missing > 0 && missing.saturating_mul(2) >= served && !from_files && !config.is_off();
    if missing <= allowed && !emptied && !half {
        return Verdict::Pass;
    }
    if missing <= percent(config.confirm_percent_max, served) {
        Verdict::Confirm
    } else if missing < config.deletes_min && missing < served {
        Verdict::ConfirmLate
    } else {
        Verdict::Operator
    }
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

/// Whether `deleted` services within the window, of the `of` there were, are too many.
pub(super) fn deletes(deleted: usize, of: usize, config: &Config) -> bool {
    deleted >= config.deletes_min && deleted > percent(config.deletes_percent, of)
}

/// Whether `lost` endpoints within the window, of the `of` there were, over `services`, are too many.
pub(super) fn losses(lost: usize, of: usize, services: usize, config: &Config) -> bool {
    services > config.losses_services_min && lost > percent(config.losses_percent, of)
}

/// Whether `deleted` services within the window, deleted with their namespaces, are most of the `of` there were.
pub(super) fn meant(deleted: usize, of: usize, config: &Config) -> bool {
    deleted >= config.meant_min && deleted >= percent(config.meant_percent, of)
}

/// `percent` of `total`, rounded down; 100 and above are all of it.
fn percent(percent: u8, total: usize) -> usize {
    total / 100 * usize::from(percent.min(100)) + total % 100 * usize::from(percent.min(100)) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_lack_fifty_services_or_two_in_a_hundred_but_not_half_and_no_whole_class() {
        use Verdict::{Confirm, ConfirmLate, Operator, Pass};
        // served, missing, largest class emptied, verdict, verdict for files
        let cases = [
            (0, 0, 0, Pass, Pass),
            (10_000, 0, 0, Pass, Pass),
            (1, 1, 0, Operator, Pass),
            (18, 18, 18, Operator, Pass),
            (18, 9, 0, ConfirmLate, Pass),
            (18, 8, 0, Pass, Pass),
            (5, 3, 0, ConfirmLate, Pass),
            (2, 1, 0, ConfirmLate, Pass),
            (38, 19, 0, ConfirmLate, Pass),
            (39, 20, 0, Operator, Pass),
            (60, 29, 0, Pass, Pass),
            (60, 30, 0, Operator, Pass),
            (118, 30, 0, Pass, Pass),
            (51, 51, 0, Operator, Operator),
            (1_000, 50, 0, Pass, Pass),
            (1_000, 51, 0, Confirm, Confirm),
            (10_000, 200, 0, Pass, Pass),
            (10_000, 201, 0, Confirm, Confirm),
            (10_000, 2_000, 0, Confirm, Confirm),
            (10_000, 2_001, 0, Operator, Operator),
            (10_000, 10_000, 9_000, Operator, Operator),
            (1_000, 19, 19, Pass, Pass),
            (1_000, 20, 20, Confirm, Confirm),
            (1_000, 0, 5_000, Confirm, Confirm),
            (100, 20, 20, Confirm, Confirm),
            (99, 20, 20, Operator, Operator),
            (25, 25, 25, Operator, Operator),
        ];
        for (served, missing, emptied, expected, for_files) in cases {
            for (from_files, expected) in [(false, expected), (true, for_files)] {
                let verdict = list(List { served, missing, emptied, from_files }, &Config::default());
                assert_eq!(verdict, expected, "{missing} of {served}, a class of {emptied}, files: {from_files}");
            }
        }
    }

    #[test]
    fn two_lists_agree_when_they_lack_nearly_the_same() {
        let keys = |range: std::ops::Range<u32>| -> HashSet<ServiceKey> {
            range.map(|n| ServiceKey::new("prod", &n.to_string())).collect()
        };
        // missing then, missing now, of, agree
        let cases = [
            (0..300, 0..300, 10_000, true),
            (0..300, 0..400, 10_000, true),
            (0..300, 0..401, 10_000, false),
            (0..300, 50..350, 10_000, true),
            (0..300, 300..600, 10_000, false),
            (0..10, 0..10, 50, true),
            (0..10, 0..9, 50, false),
        ];
        for (then, now, of, expected) in cases {
            let told = format!("{then:?} then, {now:?} now, of {of}");
            assert_eq!(agrees(&keys(then), &keys(now), of, &Config::default()), expected, "{told}");
        }
    }

    #[test]
    fn a_namespace_may_be_deleted_unless_that_is_half_of_the_cluster_and_fifty_services() {
        let cases =
            [(30, 118, false), (49, 60, false), (50, 100, true), (50, 101, true), (50, 103, false), (100, 416, false)];
        for (deleted, of, expected) in cases {
            assert_eq!(meant(deleted, of, &Config::default()), expected, "{deleted} of {of}");
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
        assert_eq!(
            list(List { served: 10_000, missing: 10_000, emptied: 10_000, from_files: false }, &off),
            Verdict::Pass
        );
        assert!(!deletes(10_000, 10_000, &off));
        assert!(!losses(10_000, 10_000, 10_000, &off));
        assert!(!meant(10_000, 10_000, &off));
    }

    #[test]
    fn percent_does_not_overflow() {
        assert_eq!(percent(2, usize::MAX), usize::MAX / 100 * 2 + usize::MAX % 100 * 2 / 100);
        assert_eq!(percent(255, 7), 7);
    }
}
