//! Whether one upstream denies too many names that were good, all at once: then the upstream is wrong, not the names.
//!
//! The time is handed in. Counts names, not questions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use xxhash_rust::xxh3::xxh3_64;

use super::key::RouteId;
use crate::sys::{Lock, UnixMillis};

/// Denials are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer denied names are never too many.
const DENIED_MIN: usize = 10;
/// One in this many of the popular names asked may be denied.
const DENIED_SHARE: usize = 5;
/// How long its denials are ignored.
const LYING: Duration = Duration::from_secs(600);
/// Names remembered.
const NAMES_MAX: usize = 1_024;
/// Upstreams remembered.
pub(super) const UPSTREAMS_MAX: usize = 1_024;

/// An upstream's recent answers for popular names of one zone. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct BulkDenials(Arc<Lock<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    seen: VecDeque<Seen>,
    until: Option<UnixMillis>,
}

#[derive(Debug)]
struct Seen {
    at: UnixMillis,
    /// Hash of the name.
    name: u64,
    denied: bool,
}

impl BulkDenials {
    /// Notes an answer for a popular name. Returns whether the upstream is not believed from now on.
    pub fn note(&self, name: &[u8], denied: bool, now: UnixMillis) -> bool {
        let name = xxh3_64(name);
        let mut counted = self.0.lock();
        counted.seen.retain(|seen| seen.name != name && seen.at.age(now) < WINDOW);
        if counted.seen.len() >= NAMES_MAX {
            counted.seen.pop_front();
        }
        counted.seen.push_back(Seen { at: now, name, denied });
        let many = counted.seen.iter().filter(|seen| seen.denied).count();
        if !denied || many < DENIED_MIN || many * DENIED_SHARE <= counted.seen.len() {
            return false;
        }
        let began = !counted.is_lying(now);
        counted.until = Some(now.plus(LYING));
        began
    }

    /// Whether its denials are ignored.
    pub fn is_lying(&self, now: UnixMillis) -> bool {
        self.0.lock().is_lying(now)
    }

    fn until(&self) -> Option<UnixMillis> {
        self.0.lock().until
    }

    /// Ignores its denials until then, as was found before a restart at `now`.
    fn resume(&self, until: UnixMillis, now: UnixMillis) {
        let mut counted = self.0.lock();
        // Later only if the clock was set back meanwhile.
        counted.until = counted.until.max(Some(until.min(now.plus(LYING))));
    }
}

impl Counted {
    fn is_lying(&self, now: UnixMillis) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// The counts of all upstreams, by zone and upstream, so that they outlive a new configuration and a restart.
#[derive(Debug, Default)]
pub(super) struct AllBulkDenials(Lock<HashMap<(RouteId, Box<str>), BulkDenials>>);

impl AllBulkDenials {
    /// The bulk denials of `upstream` for the zone of `route`.
    pub fn of(&self, route: RouteId, upstream: &str) -> BulkDenials {
        let mut all = self.0.lock();
        let key = (route, Box::from(upstream));
        if let Some(known) = all.get(&key) {
            return known.clone();
        }
        if all.len() >= UPSTREAMS_MAX {
            // No route has them any more.
            all.retain(|_, denials| Arc::strong_count(&denials.0) > 1);
        }
        let new = BulkDenials::default();
        // Zones without a number share it.
        if all.len() < UPSTREAMS_MAX && route != RouteId::UNCACHED {
            all.insert(key, new.clone());
        }
        new
    }

    pub fn resume(&self, route: RouteId, upstream: &str, until: UnixMillis, now: UnixMillis) {
        if now < until {
            self.of(route, upstream).resume(until, now);
        }
    }

    /// The upstreams that were found to lie, and until when they are not believed.
    pub fn lying(&self) -> Vec<(RouteId, Box<str>, UnixMillis)> {
        let all = self.0.lock();
        let until = |((route, upstream), denials): (&(RouteId, Box<str>), &BulkDenials)| {
            denials.until().map(|until| (*route, upstream.clone(), until))
        };
        all.iter().filter_map(until).collect()
    }

    pub fn clear(&self) {
        for denials in self.0.lock().values() {
            *denials.0.lock() = Counted::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMillis = UnixMillis(1_760_943_600_000);

    fn at(seconds: u64) -> UnixMillis {
        START.plus(Duration::from_secs(seconds))
    }

    fn denied(denials: &BulkDenials, nth: u64, now: UnixMillis) -> bool {
        denials.note(&nth.to_be_bytes(), true, now)
    }

    #[test]
    fn ten_names_and_more_than_a_fifth_within_a_minute_are_too_many() {
        // Denied names, names that it has records of, seconds between two of them, whether that is too much.
        let cases = [(9, 0, 1, false), (10, 0, 1, true), (10, 40, 1, false), (11, 40, 1, true), (20, 0, 7, false)];
        for (many, good, apart, expect) in cases {
            let denials = BulkDenials::default();
            for name in 0..good {
                assert!(!denials.note(format!("good {name}").as_bytes(), false, at(0)));
            }
            let began = (0..many).filter(|nth| denied(&denials, *nth, at(nth * apart))).count();
            assert_eq!((began, denials.is_lying(at(many * apart))), (usize::from(expect), expect), "{many} {good}");
        }
    }

    #[test]
    fn one_name_counts_once_and_what_an_upstream_did_is_forgiven() {
        let denials = BulkDenials::default();
        for _ in 0..100 {
            assert!(!denied(&denials, 7, START));
        }
        assert_eq!((0..12).filter(|name| denied(&denials, *name, START)).count(), 1, "told once");
        assert!(denials.is_lying(START.plus(LYING).minus(Duration::from_secs(1))));
        assert!(!denials.is_lying(START.plus(LYING)));
        for name in 0..3_000 {
            denials.note(format!("good {name}").as_bytes(), false, START);
        }
        assert_eq!(denials.0.lock().seen.len(), NAMES_MAX);
    }

    #[test]
    fn a_finding_outlives_the_routes_and_is_resumed_for_the_rest_of_its_time() {
        let all = AllBulkDenials::default();
        let (zone, other) = (RouteId(1), RouteId(2));
        for name in 0..10 {
            denied(&all.of(zone, "10.0.0.1:53"), name, START);
        }
        assert!(all.of(zone, "10.0.0.1:53").is_lying(at(1)), "as a new configuration finds it");
        assert!(!all.of(other, "10.0.0.1:53").is_lying(at(1)) && !all.of(zone, "10.0.0.2:53").is_lying(at(1)));
        let [(route, upstream, until)] = &all.lying()[..] else { panic!("{:?}", all.lying()) };
        let after = AllBulkDenials::default();
        let early = after.of(*route, upstream);
        after.resume(*route, upstream, *until, at(540));
        assert!(early.is_lying(at(599)) && !early.is_lying(at(600)), "routes that were built before share it");
        after.resume(other, "10.0.0.3:53", at(0), at(1));
        after.resume(other, "10.0.0.4:53", at(5_000), START);
        assert!(after.of(other, "10.0.0.4:53").is_lying(at(599)) && !after.of(other, "10.0.0.4:53").is_lying(at(600)));
        after.clear();
        assert!(!early.is_lying(at(541)) && after.lying().is_empty());
    }

    #[test]
    fn upstreams_are_bounded_and_those_of_no_route_go() {
        let all = AllBulkDenials::default();
        let in_use: Vec<_> = (0..10).map(|nth| all.of(RouteId(0), &format!("used {nth}"))).collect();
        for nth in 0..3 * UPSTREAMS_MAX {
            all.of(RouteId(0), &format!("gone {nth}"));
            assert!(all.0.lock().len() <= UPSTREAMS_MAX);
        }
        for name in 0..10 {
            denied(&in_use[3], name, START);
        }
        assert!(all.of(RouteId(0), "used 3").is_lying(START));
        for name in 0..10 {
            denied(&all.of(RouteId::UNCACHED, "shared"), name, START);
        }
        assert!(!all.of(RouteId::UNCACHED, "shared").is_lying(START));
    }
}
