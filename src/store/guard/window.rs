//! What was lost in the last so many seconds.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{record::ServiceKey, sys::UnixMillis};

/// Entries kept. At the bound the oldest go early, so a flood of changes can only make the guard less strict.
const ENTRIES_MAX: usize = 100_000;

#[derive(Debug)]
struct Entry {
    at: UnixMillis,
    /// The service that lost them; none where only the number counts.
    service: Option<ServiceKey>,
    lost: usize,
    /// How many there were before this.
    of: usize,
}

/// A sliding window over losses.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    entries: VecDeque<Entry>,
    lost: usize,
    services: HashMap<ServiceKey, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub lost: usize,
    /// Services that lost something within it.
    pub services: usize,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, entries: VecDeque::new(), lost: 0, services: HashMap::new() }
    }

    pub(super) fn lose(&mut self, at: UnixMillis, service: Option<&ServiceKey>, lost: usize, of: usize) {
        if lost == 0 {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.drop_oldest();
        }
        self.lost += lost;
        if let Some(service) = service {
            *self.services.entry(service.clone()).or_default() += 1;
        }
        self.entries.push_back(Entry { at, service: service.cloned(), lost, of });
    }

    /// What it sees at `now`.
    pub(super) fn seen(&mut self, now: UnixMillis) -> Seen {
        while self.entries.front().is_some_and(|entry| entry.at.age(now) > self.length) {
            self.drop_oldest();
        }
        Seen { lost: self.lost, services: self.services.len() }
    }

    /// The most there were at any time within it, `now_of` being how many there are. Looks at every entry.
    pub(super) fn most(&self, now_of: usize) -> usize {
        self.entries.iter().map(|entry| entry.of).max().unwrap_or_default().max(now_of)
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.lost -= entry.lost;
        if let Some(service) = entry.service
            && let Some(times) = self.services.get_mut(&service)
        {
            *times -= 1;
            if *times == 0 {
                self.services.remove(&service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sees_what_was_lost_since_and_of_how_many() {
        let mut window = Window::new(Duration::from_secs(30));
        let (a, b) = (ServiceKey::new("prod", "a"), ServiceKey::new("prod", "b"));
        window.lose(UnixMillis(0), Some(&a), 5, 100);
        window.lose(UnixMillis(10_000), Some(&b), 3, 95);
        window.lose(UnixMillis(20_000), Some(&a), 2, 92);
        window.lose(UnixMillis(20_000), Some(&a), 0, 92);
        let mut at = |ms| {
            let seen = window.seen(UnixMillis(ms));
            (seen.lost, seen.services, window.most(90))
        };
        assert_eq!(at(30_000), (10, 2, 100));
        assert_eq!(at(30_001), (5, 2, 95));
        assert_eq!(at(45_000), (2, 1, 92));
        assert_eq!(at(90_000), (0, 0, 90));
        assert!(window.entries.is_empty() && window.services.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut window = Window::new(Duration::from_secs(30));
        for _ in 0..ENTRIES_MAX + 10 {
            window.lose(UnixMillis(1), None, 1, 1);
        }
        assert_eq!(window.seen(UnixMillis(1)).lost, ENTRIES_MAX);
    }
}
