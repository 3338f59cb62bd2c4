//! Deletions and lost endpoints within a time window, counted by service.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{record::ServiceKey, sys::UnixMillis};

/// Entries kept. At the bound the oldest go early, so a flood of changes can only make the guard less strict.
const ENTRIES_MAX: usize = 100_000;

/// Services deleted within the window and not created again.
#[derive(Debug)]
pub(super) struct Deleted {
    length: Duration,
    at: HashMap<ServiceKey, UnixMillis>,
    order: VecDeque<(UnixMillis, ServiceKey)>,
}

impl Deleted {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, at: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn delete(&mut self, key: &ServiceKey, now: UnixMillis) {
        if self.at.insert(key.clone(), now) != Some(now) {
            self.order.push_back((now, key.clone()));
        }
        while self.order.len() > ENTRIES_MAX {
            self.drop_oldest();
        }
    }

    /// The service was created again.
    pub(super) fn restore(&mut self, key: &ServiceKey) {
        self.at.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.order.clear();
    }

    pub(super) fn move_times(&mut self, by_ms: i64) {
        for at in self.at.values_mut().chain(self.order.iter_mut().map(|(at, _)| at)) {
            *at = at.moved_ms(by_ms);
        }
    }

    /// The services in the window.
    pub(super) fn services(&mut self, now: UnixMillis) -> impl Iterator<Item = &ServiceKey> {
        while self.order.front().is_some_and(|(at, _)| at.age(now) > self.length) {
            self.drop_oldest();
        }
        self.at.keys()
    }

    fn drop_oldest(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.at.get(&key) == Some(&at)
        {
            self.at.remove(&key);
        }
    }
}

/// Ready endpoints of one service at the start of the window and now.
#[derive(Debug)]
struct Count {
    at: UnixMillis,
    before: usize,
    now: usize,
    /// Endpoints of all services at `at`.
    of: usize,
}

/// Ready endpoints lost within the window, net for each service.
#[derive(Debug)]
pub(super) struct Lost {
    length: Duration,
    counts: HashMap<ServiceKey, Count>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub lost: usize,
    /// Services that lost some.
    pub services: usize,
    /// The most endpoints there were within the window.
    pub of: usize,
}

impl Lost {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, counts: HashMap::new() }
    }

    /// The service had `before` ready endpoints and has `after`; there were `of` in all. Returns its net loss.
    pub(super) fn change(
        &mut self,
        key: &ServiceKey,
        now: UnixMillis,
        before: usize,
        after: usize,
        of: usize,
    ) -> usize {
        if before == after && !self.counts.contains_key(key) {
            return 0;
        }
        if self.counts.len() >= ENTRIES_MAX {
            self.counts.clear();
        }
        let length = self.length;
        let count = self.counts.entry(key.clone()).or_insert(Count { at: now, before, now: after, of });
        if count.at.age(now) > length {
            *count = Count { at: now, before, now: after, of };
        }
        count.now = after;
        count.before.saturating_sub(after)
    }

    pub(super) fn forget(&mut self, key: &ServiceKey) {
        self.counts.remove(key);
    }

    pub(super) fn clear(&mut self) {
        self.counts.clear();
    }

    pub(super) fn move_times(&mut self, by_ms: i64) {
        for count in self.counts.values_mut() {
            count.at = count.at.moved_ms(by_ms);
        }
    }

    pub(super) fn seen(&mut self, now: UnixMillis, of: usize) -> Seen {
        let length = self.length;
        self.counts.retain(|_, count| count.at.age(now) <= length);
        self.counts.values().fold(Seen { of, ..Seen::default() }, |seen, count| {
            let lost = count.before.saturating_sub(count.now);
            Seen { lost: seen.lost + lost, services: seen.services + usize::from(lost > 0), of: seen.of.max(count.of) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ServiceKey {
        ServiceKey::new("prod", &format!("s{n}"))
    }

    #[test]
    fn deletions_are_counted_once_a_service_and_not_when_taken_back() {
        let mut window = Deleted::new(Duration::from_secs(60));
        for at in 0..42 {
            window.delete(&key(1), UnixMillis(at));
        }
        window.delete(&key(2), UnixMillis(30_000));
        assert_eq!(window.services(UnixMillis(60_000)).count(), 2);
        window.restore(&key(1));
        assert_eq!(window.services(UnixMillis(60_000)).count(), 1);
        assert_eq!(window.services(UnixMillis(90_001)).count(), 0);
        assert!(window.order.is_empty());
        for n in 0..ENTRIES_MAX + 10 {
            window.delete(&key(n), UnixMillis(100_000));
        }
        assert_eq!((window.services(UnixMillis(100_000)).count(), window.order.len()), (ENTRIES_MAX, ENTRIES_MAX));
    }

    #[test]
    fn endpoints_are_counted_net() {
        let mut window = Lost::new(Duration::from_secs(30));
        let mut change = |n, at, before, after| window.change(&key(n), UnixMillis(at), before, after, 100);
        assert_eq!(change(1, 0, 3, 6), 0, "surge");
        assert_eq!(change(1, 1, 6, 3), 0, "as many as before it");
        assert_eq!(change(2, 0, 3, 2), 1);
        assert_eq!(change(2, 5_000, 2, 0), 3);
        assert_eq!(change(3, 5_000, 2, 2), 0);
        assert_eq!(window.seen(UnixMillis(5_000), 95), Seen { lost: 3, services: 1, of: 100 });
        assert_eq!(window.seen(UnixMillis(30_001), 95), Seen { lost: 0, services: 0, of: 95 });
    }
}
