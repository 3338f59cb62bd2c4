//! The hubs known, and which to try next: healthiest and freshest first.

use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Status;
use crate::sys::UnixMillis;

/// Most addresses learnt from the stream.
const LEARNT_MAX: usize = 32;
/// How long a hub that failed is not looked at by those who have another: all hubs fail their clients in a rolling restart,
/// and a dead one is not to cost thousands of them the one they have again and again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);
/// Hubs whose records are older than the best known by more than this come later.
const BEHIND_MS: u64 = 15_000;

#[derive(Clone, Debug)]
struct Candidate {
    address: String,
    learnt: bool,
    failures: u32,
    failed_at: Option<Instant>,
    /// How old its records were, when it was last heard.
    as_of: Option<UnixMillis>,
    tried_in_round: bool,
    /// Orders equals differently on every node, so that clients spread over hubs.
    weight: u64,
}

/// The candidates, and what is shown of them.
#[derive(Debug)]
pub(super) struct Book {
    node: String,
    candidates: Vec<Candidate>,
    current: Option<usize>,
    current_good: bool,
    pub status: Status,
}

impl Book {
    pub(super) fn new(node: &str, configured: &[String], learnt: &[String]) -> Self {
        let mut book = Self {
            node: node.to_owned(),
            candidates: Vec::new(),
            current: None,
            current_good: false,
            status: Status::default(),
        };
        for address in configured {
            book.add(address, false);
        }
        for address in learnt.iter().take(LEARNT_MAX) {
            book.add(address, true);
        }
        book.status.hubs = book.addresses();
        book
    }

    fn add(&mut self, address: &str, learnt: bool) {
        if self.candidates.iter().any(|known| known.address == address) || address.is_empty() {
            return;
        }
        let weight = xxh3_64(format!("{}\n{address}", self.node).as_bytes());
        let address = address.to_owned();
        let candidate =
            Candidate { address, learnt, failures: 0, failed_at: None, as_of: None, tried_in_round: false, weight };
        self.candidates.push(candidate);
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.candidates.iter().map(|candidate| candidate.address.clone()).collect()
    }

    /// The hub to try now: the best one not tried in this round.
    pub(super) fn next(&mut self) -> Option<&str> {
        let newest = self.candidates.iter().filter_map(|candidate| candidate.as_of).max().unwrap_or_default();
        let behind = |as_of: Option<UnixMillis>| as_of.is_some_and(|as_of| as_of.0 + BEHIND_MS < newest.0);
        let best = self
            .candidates
            .iter()
            .enumerate()
            .min_by_key(|(_, it)| (it.tried_in_round, it.failures, behind(it.as_of), it.learnt, it.weight))?
            .0;
        self.current = Some(best);
        self.current_good = false;
        let candidate = &mut self.candidates[best];
        candidate.tried_in_round = true;
        Some(&candidate.address)
    }

    /// The current hub failed us.
    pub(super) fn failed(&mut self, now: Instant) {
        if let Some(candidate) = self.current.and_then(|at| self.candidates.get_mut(at)) {
            candidate.failures = candidate.failures.saturating_add(1).min(8);
            candidate.failed_at = Some(now);
        }
    }

    /// The current hub proved its records, which are this old.
    pub(super) fn good(&mut self, as_of: UnixMillis) {
        if let Some(candidate) = self.current.and_then(|at| self.candidates.get_mut(at)) {
            candidate.failures = 0;
            candidate.failed_at = None;
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

    /// Whether there is any hub but the current one.
    pub(super) fn knows_others(&self) -> bool {
        self.candidates.len() > 1
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

    /// Begins a round after a hub that had been followed was lost. Always true; reads well in a guard.
    pub(super) fn begin_round(&mut self) -> bool {
        self.new_round();
        true
    }

    /// Whether a hub other than the current one may have newer records: not heard of since, or newer when last heard, and not
    /// one that has failed us lately.
    pub(super) fn fresher_may_exist(&self, now: Instant) -> bool {
        let Some(current) = self.current.map(|at| &self.candidates[at]) else { return false };
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < FORGIVEN_AFTER);
        self.candidates.iter().any(|other| {
            other.address != current.address
                // What one that failed had when it was last heard says little of what it has now.
                && (other.as_of.is_none() || other.failed_at.is_some() || other.as_of > current.as_of)
                && !lately(other.failed_at)
        })
    }

    /// Takes in addresses heard from a hub; the list to keep, if it changed.
    pub(super) fn learn(&mut self, hubs: &[String]) -> Option<Vec<String>> {
        if hubs.is_empty() {
            return None;
        }
        let learnt = |book: &Self| -> Vec<String> {
            book.candidates.iter().filter(|it| it.learnt).map(|it| it.address.clone()).collect()
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
        let mut book = Book::new("node", &strings(&["a", "b"]), &strings(&["c"]));
        let mut tried: Vec<String> = (0..3).map(|_| book.next().unwrap().to_owned()).collect();
        assert!(!book.more_in_round());
        assert_eq!(tried[2], "c", "those configured first");
        tried.sort();
        assert_eq!(tried, ["a", "b", "c"]);
    }

    #[test]
    fn the_healthiest_comes_first_and_among_those_the_freshest() {
        let mut book = Book::new("node", &strings(&["a", "b", "c"]), &[]);
        let first = book.next().unwrap().to_owned();
        book.good(UnixMillis(100_000));
        book.failed(Instant::now());
        let second = book.next().unwrap().to_owned();
        assert_ne!(first, second);
        book.good(UnixMillis(50_000));
        let third = book.next().unwrap().to_owned();
        book.good(UnixMillis(99_000));
        book.new_round();
        assert_eq!(book.next().unwrap(), third, "healthy and fresh");
        book.new_round();
        book.candidates.iter_mut().for_each(|it| it.tried_in_round = it.address == third);
        assert_eq!(book.next().unwrap(), second, "behind, but healthy");
    }

    #[test]
    fn nodes_spread_over_equal_hubs() {
        let hubs = strings(&["a", "b", "c"]);
        let mut counts = std::collections::HashMap::new();
        for n in 0..3_000 {
            *counts.entry(Book::new(&format!("node-{n}"), &hubs, &[]).next().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_is_learnt_is_kept_bounded_and_forgotten_when_no_hub_names_it() {
        let mut book = Book::new("node", &strings(&["a"]), &strings(&["old"]));
        assert_eq!(book.next(), Some("a"));
        assert_eq!(book.learn(&strings(&["a", "b", "c"])), Some(strings(&["b", "c"])));
        assert_eq!(book.learn(&strings(&["c", "b"])), None);
        assert_eq!(book.learn(&[]), None, "silence is no news");
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(book.learn(&many).unwrap().len(), LEARNT_MAX);
        assert!(book.addresses().contains(&"a".to_owned()), "what is configured stays");
    }

    #[test]
    fn a_stale_hub_is_left_only_for_one_that_may_be_fresher() {
        let mut book = Book::new("node", &strings(&["a", "b"]), &[]);
        let now = Instant::now();
        book.next();
        book.good(UnixMillis(10));
        assert!(book.fresher_may_exist(now), "the other was not heard");
        book.next();
        book.good(UnixMillis(5));
        assert!(book.fresher_may_exist(now));
        book.good(UnixMillis(10));
        assert!(!book.fresher_may_exist(now), "both are equally old: no hopping about");
        book.failed(now);
        book.next();
        book.good(UnixMillis(10));
        assert!(!book.fresher_may_exist(now + FORGIVEN_AFTER / 2), "it failed us lately");
        assert!(book.fresher_may_exist(now + FORGIVEN_AFTER), "and may have come back");
    }
}
