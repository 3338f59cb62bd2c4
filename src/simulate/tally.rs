//! Counters of all agents together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{Progress, memo::Meaning};
use crate::{record::RootDigest, sys::Lock};

/// Delays beyond this are counted as this, in ms.
const DELAY_MS_MAX: usize = 60_000;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub live: AtomicUsize,
    pub connects: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    batches: AtomicU64,
    mismatches: AtomicU64,
    modes: Lock<BTreeMap<&'static str, u64>>,
    failures: Lock<BTreeMap<String, u64>>,
    delays: Lock<Vec<u32>>,
    roots: Lock<HashMap<RootDigest, usize>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Millis {
    pub count: u64,
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    pub max: u64,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    pub agents: usize,
    /// Agents proven equal to their hub at the end.
    pub live: usize,
    /// From the start until all were live; none if they never were.
    pub all_live_ms: Option<u64>,
    pub seconds: f64,
    /// Connections that were opened, TLS included.
    pub connects: u64,
    /// Attempts and streams that ended, by reason.
    pub failures: BTreeMap<String, u64>,
    /// How agents were brought up to date.
    pub modes: BTreeMap<&'static str, u64>,
    /// Bytes received over all sockets, TLS included.
    pub bytes_received: u64,
    /// Bytes sent over all sockets, TLS included.
    pub bytes_sent: u64,
    /// Batches applied, summed over the agents.
    pub batches: u64,
    /// From the hub's making a batch until an agent had proven it.
    pub propagation_ms: Millis,
    /// Times a state did not add up to the hub's digest.
    pub mismatches: u64,
    /// Live agents whose records differ from those of most.
    pub divergent: usize,
}

impl Tally {
    pub(super) fn progress(&self) -> Progress {
        Progress {
            live: self.live.load(Ordering::Relaxed),
            bytes: self.bytes_in.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            failed: {
                let failures = self.failures.lock();
                let most = failures.iter().max_by_key(|(_, count)| **count);
                most.map(|(reason, _)| (failures.values().sum(), reason.clone()))
            },
        }
    }

    pub(super) fn meant(&self, meaning: Meaning, delay_ms: u64) {
        match meaning {
            Meaning::Begins(mode) => *self.modes.lock().entry(mode.label()).or_default() += 1,
            Meaning::Changed(_) => {
                self.batches.fetch_add(1, Ordering::Relaxed);
                let delay = usize::try_from(delay_ms).unwrap_or(usize::MAX).min(DELAY_MS_MAX);
                let mut delays = self.delays.lock();
                let len = delays.len().max(delay + 1);
                delays.resize(len, 0);
                delays[delay] += 1;
            }
            Meaning::Partial | Meaning::Replaced | Meaning::Fresh | Meaning::Leaving => {}
        }
    }

    pub(super) fn mismatch(&self) {
        self.mismatches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, reason: &str) {
        let mut failures = self.failures.lock();
        // Reasons come from systems and peers: bounded.
        let reason = if failures.len() < 64 || failures.contains_key(reason) { reason } else { "other" };
        *failures.entry(reason.to_owned()).or_default() += 1;
    }

    /// A live agent moved from one root to another; `None` is not live.
    pub(super) fn moved(&self, from: Option<RootDigest>, to: Option<RootDigest>) {
        if from == to {
            return;
        }
        let mut roots = self.roots.lock();
        if let Some(from) = from {
            if let Some(count) = roots.get_mut(&from) {
                *count -= 1;
                if *count == 0 {
                    roots.remove(&from);
                }
            }
            if to.is_none() {
                self.live.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if let Some(to) = to {
            *roots.entry(to).or_default() += 1;
            if from.is_none() {
                self.live.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn at(&self, root: RootDigest) -> usize {
        self.roots.lock().get(&root).copied().unwrap_or(0)
    }

    pub(super) fn report(&self, agents: usize) -> Report {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let delays = std::mem::take(&mut *self.delays.lock());
        let roots = self.roots.lock();
        Report {
            agents,
            live: self.live.load(Ordering::Relaxed),
            all_live_ms: None,
            seconds: 0.0,
            connects: take(&self.connects),
            failures: std::mem::take(&mut *self.failures.lock()),
            modes: std::mem::take(&mut *self.modes.lock()),
            bytes_received: take(&self.bytes_in),
            bytes_sent: take(&self.bytes_out),
            batches: take(&self.batches),
            propagation_ms: percentiles(&delays),
            mismatches: take(&self.mismatches),
            divergent: roots.values().sum::<usize>() - roots.values().max().copied().unwrap_or(0),
        }
    }
}

fn percentiles(delays: &[u32]) -> Millis {
    let count: u64 = delays.iter().map(|count| u64::from(*count)).sum();
    let at = |rank: u64| {
        let mut seen = 0;
        let found = delays.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank.max(1)
        });
        found.map_or(0, |ms| ms as u64)
    };
    Millis { count, p50: at(count.div_ceil(2)), p99: at((count * 99).div_ceil(100)), max: at(count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_ranks() {
        let mut delays = vec![0; 1_001];
        assert_eq!(percentiles(&delays), Millis::default());
        (1..=100).for_each(|ms| delays[ms * 10] = 1);
        assert_eq!(percentiles(&delays), Millis { count: 100, p50: 500, p99: 990, max: 1_000 });
    }

    #[test]
    fn divergence_is_what_differs_from_the_most() {
        let tally = Tally::default();
        for root in [1, 1, 1, 2] {
            tally.moved(None, Some(RootDigest(root)));
        }
        let report = tally.report(4);
        assert_eq!((report.live, report.divergent), (4, 1));
        tally.moved(Some(RootDigest(2)), Some(RootDigest(1)));
        assert_eq!(tally.report(4).divergent, 0);
        tally.moved(Some(RootDigest(1)), None);
        assert_eq!((tally.progress().live, tally.at(RootDigest(1))), (3, 3));
    }
}
