//! The hubs known, and which to try next: healthiest and freshest first.

use xxhash_rust::xxh3::xxh3_64;

use super::Status;
use crate::sys::UnixMillis;

/// Most addresses learnt from the stream.
const LEARNT_MAX: usize = 32;
/// Hubs whose records are older than the best known by more than this come later.
const BEHIND_MS: u64 = 15_000;

#[derive(Clone, Debug)]
struct Candidate {
    address: String,
    learnt: bool,
    failures: u32,
    /// How old its records were, when it was last heard.
    as_of: Option<UnixMillis>,
    tried_in_round: bool,
    /// Orders equals differently on every node, so that clients spread over hubs.
    weight: u64,
}

/// The candidates, and their row in `status`.
#[derive(Debug)]
pub(super) struct HubList {
    node: String,
    candidates: Vec<Candidate>,
    current: Option<usize>,
    current_good: bool,
    /// The address to try next, whatever the others are like: it said that it is fresh.
    preferred: Option<String>,
    pub status: Status,
}

impl HubList {
    pub(super) fn new(node: &str, configured: &[String], learnt: &[String]) -> Self {
        let mut list = Self {
            node: node.to_owned(),
            candidates: Vec::new(),
            current: None,
            current_good: false,
            preferred: None,
            status: Status::default(),
        };
        for address in configured {
            list.add(address, false);
        }
        for address in learnt.iter().take(LEARNT_MAX) {
            list.add(address, true);
        }
        list.status.hubs = list.addresses();
        list
    }

    fn add(&mut self, address: &str, learnt: bool) {
        if self.candidates.iter().any(|known| known.address == address) || address.is_empty() {
            return;
        }
        let weight = xxh3_64(format!("{}\n{address}", self.node).as_bytes());
        let address = address.to_owned();
        let candidate = Candidate { address, learnt, failures: 0, as_of: None, tried_in_round: false, weight };
        self.candidates.push(candidate);
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.candidates.iter().map(|candidate| candidate.address.clone()).collect()
    }

    /// The hub to try now: the best one not tried in this round.
    pub(super) fn next(&mut self) -> Option<&str> {
        let newest = self.candidates.iter().filter_map(|candidate| candidate.as_of).max().unwrap_or_default();
        let behind = |as_of: Option<UnixMillis>| as_of.is_some_and(|as_of| as_of.0 + BEHIND_MS < newest.0);
        let preferred = self.preferred.take();
        let best = self
            .candidates
            .iter()
            .enumerate()
            .min_by_key(|(_, it)| {
                (
                    Some(&it.address) != preferred.as_ref(),
                    it.tried_in_round,
                    it.failures,
                    behind(it.as_of),
                    it.learnt,
                    it.weight,
                )
            })?
            .0;
        self.current = Some(best);
        self.current_good = false;
        let candidate = &mut self.candidates[best];
        candidate.tried_in_round = true;
        Some(&candidate.address)
    }

    /// The current hub failed us.
    pub(super) fn failed(&mut self) {
        if let Some(candidate) = self.current.and_then(|at| self.candidates.get_mut(at)) {
            candidate.failures = candidate.failures.saturating_add(1).min(8);
        }
    }

    /// The current hub proved its records, which are this old.
    pub(super) fn good(&mut self, as_of: UnixMillis) {
        if let Some(candidate) = self.current.and_then(|at| self.candidates.get_mut(at)) {
            candidate.failures = 0;
            candidate.as_of = Some(as_of);
        }
        if !std::mem::replace(&mut self.current_good, true) {
            self.new_round();
            if let Some(at) = self.current {
                self.candidates[at].tried_in_round = true;
            }
        }
    }

    /// Whether the current hub was good to us at any time.
    pub(super) fn current_was_good(&self) -> bool {
        self.current_good
    }

    /// Whether there is a hub that was not tried since the last pause.
    pub(super) fn more_in_round(&self) -> bool {
        self.candidates.iter().any(|candidate| !candidate.tried_in_round)
    }

    /// All may be tried again.
    pub(super) fn new_round(&mut self) {
        for candidate in &mut self.candidates {
            candidate.tried_in_round = false;
        }
    }

    /// The next hub to try is this one.
    pub(super) fn prefer(&mut self, address: &str) {
        self.preferred = Some(address.to_owned());
    }

    pub(super) fn has_preferred(&self) -> bool {
        self.preferred.is_some()
    }

    /// Up to `max` hubs but the current one, others each time.
    pub(super) fn others(&self, max: usize) -> Vec<String> {
        let current = self.current.map(|at| &self.candidates[at].address);
        let mut others: Vec<String> =
            self.candidates.iter().map(|it| &it.address).filter(|it| Some(*it) != current).cloned().collect();
        if others.len() > max {
            let first = rand::random_range(0..others.len());
            others.rotate_left(first);
            others.truncate(max);
        }
        others
    }

    /// Takes in addresses heard from a hub; the list to keep, if it changed.
    pub(super) fn learn(&mut self, hubs: &[String]) -> Option<Vec<String>> {
        if hubs.is_empty() {
            return None;
        }
        let learnt = |list: &Self| -> Vec<String> {
            list.candidates.iter().filter(|it| it.learnt).map(|it| it.address.clone()).collect()
        };
        let before = learnt(self);
        let current = self.current.map(|at| self.candidates[at].address.clone());
        self.candidates.retain(|it| !it.learnt || hubs.contains(&it.address) || Some(&it.address) == current.as_ref());
        for hub in hubs.iter().take(LEARNT_MAX) {
            self.add(hub, true);
        }
        self.current = current.and_then(|address| self.candidates.iter().position(|it| it.address == address));
        let after = learnt(self);
        (before != after).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_hub_is_tried_before_one_is_tried_twice() {
        let mut list = HubList::new("node", &strings(&["a", "b"]), &strings(&["c"]));
        let mut tried: Vec<String> = (0..3).map(|_| list.next().unwrap().to_owned()).collect();
        assert!(!list.more_in_round());
        assert_eq!(tried[2], "c", "those configured first");
        tried.sort();
        assert_eq!(tried, ["a", "b", "c"]);
    }

    #[test]
    fn the_healthiest_comes_first_and_among_those_the_freshest() {
        let mut list = HubList::new("node", &strings(&["a", "b", "c"]), &[]);
        let first = list.next().unwrap().to_owned();
        list.good(UnixMillis(100_000));
        list.failed();
        let second = list.next().unwrap().to_owned();
        assert_ne!(first, second);
        list.good(UnixMillis(50_000));
        let third = list.next().unwrap().to_owned();
        list.good(UnixMillis(99_000));
        list.new_round();
        assert_eq!(list.next().unwrap(), third, "healthy and fresh");
        list.new_round();
        list.candidates.iter_mut().for_each(|it| it.tried_in_round = it.address == third);
        assert_eq!(list.next().unwrap(), second, "behind, but healthy");
    }

    #[test]
    fn nodes_spread_over_equal_hubs() {
        let hubs = strings(&["a", "b", "c"]);
        let mut counts = std::collections::HashMap::new();
        for n in 0..3_000 {
            *counts.entry(HubList::new(&format!("node-{n}"), &hubs, &[]).next().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn learnt_hubs_are_bounded_and_forgotten_when_no_hub_names_them() {
        let mut list = HubList::new("node", &strings(&["a"]), &strings(&["old"]));
        assert_eq!(list.next(), Some("a"));
        assert_eq!(list.learn(&strings(&["a", "b", "c"])), Some(strings(&["b", "c"])));
        assert_eq!(list.learn(&strings(&["c", "b"])), None);
        assert_eq!(list.learn(&[]), None, "silence is no news");
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(list.learn(&many).unwrap().len(), LEARNT_MAX);
        assert!(list.addresses().contains(&"a".to_owned()), "what is configured stays");
    }

    #[test]
    fn a_hub_that_said_it_is_fresh_comes_next_however_often_it_failed() {
        let mut list = HubList::new("node", &strings(&["a", "b", "c"]), &[]);
        let first = list.next().unwrap().to_owned();
        list.failed();
        list.next();
        list.good(UnixMillis(10));
        list.prefer(&first);
        assert!(list.has_preferred());
        assert_eq!(list.next().unwrap(), first);
        assert!(!list.has_preferred(), "once");
    }

    #[test]
    fn others_are_all_but_the_current_hub_and_no_more_than_asked_for() {
        let many: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let mut list = HubList::new("node", &many, &[]);
        let current = list.next().unwrap().to_owned();
        assert_eq!(list.others(4).len(), 4);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            seen.extend(list.others(4));
        }
        assert!(seen.len() == 9 && !seen.contains(&current), "{seen:?}");
    }
}
