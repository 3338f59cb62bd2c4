//! The inputs of `answer()` besides the query: those of all queries, and those of a batch.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::Guard;

use crate::{
    dns::{
        Cookies, Discovery,
        pins::{PinSet, Pins},
    },
    record::Snapshot,
    store::Reader,
    sys::UnixMillis,
    zone::Zone,
};

/// How the age of the records shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Answers from records last vouched for longer ago than this say so.
    pub stale_after: Duration,
    /// There is a resolver to ask for names of the cluster before there are records.
    pub cluster_fallback: bool,
    /// Names that a search path made are answered with the outside name they hold.
    pub search_path_completion: bool,
    /// Nothing is answered from records: every question is forwarded.
    pub forward_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_secs(60),
            cluster_fallback: false,
            search_path_completion: false,
            forward_only: false,
        }
    }
}

/// The rules that questions are answered by, without any records.
#[derive(Clone, Debug)]
pub struct Rules {
    pub(super) zone: Zone,
    pub(super) config: Config,
    pub(super) discovery: Arc<Discovery>,
    /// Some forward zone has a rule for another class than IN.
    other_classes: Arc<AtomicBool>,
}

impl Rules {
    pub fn new(zone: Zone, config: Config) -> Self {
        Self { zone, config, discovery: Arc::default(), other_classes: Arc::default() }
    }

    /// Without discovery, clients that look for encrypted DNS are told that there is none.
    #[must_use]
    pub fn with_discovery(self, discovery: Arc<Discovery>) -> Self {
        Self { discovery, ..self }
    }

    /// Lets questions of other classes than IN go to forward zones from now on, which refuse those they have no rule for.
    pub(in crate::dns) fn admit_other_classes(&self) {
        self.other_classes.store(true, Ordering::Relaxed);
    }

    pub(super) fn admits_other_classes(&self) -> bool {
        self.other_classes.load(Ordering::Relaxed)
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// The rules and the records, as every worker uses them.
#[derive(Clone, Debug)]
pub struct Context {
    rules: Rules,
    reader: Reader,
    pins: Pins,
    cookies: Option<Cookies>,
}

impl Context {
    pub fn new(zone: Zone, reader: Reader, config: Config) -> Self {
        Self { rules: Rules::new(zone, config), reader, pins: Pins::default(), cookies: None }
    }

    #[must_use]
    pub fn with_pins(self, pins: Pins) -> Self {
        Self { pins, ..self }
    }

    /// Without cookies, those of clients are ignored.
    #[must_use]
    pub fn with_cookies(self, cookies: Option<Cookies>) -> Self {
        Self { cookies, ..self }
    }

    /// As [`Rules::with_discovery`].
    #[must_use]
    pub fn with_discovery(self, discovery: Arc<Discovery>) -> Self {
        Self { rules: self.rules.with_discovery(discovery), ..self }
    }

    #[inline]
    pub(in crate::dns) fn cookies(&self) -> Option<&Cookies> {
        self.cookies.as_ref()
    }

    #[inline]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub fn zone(&self) -> &Zone {
        &self.rules.zone
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The records as they are now, for one batch of queries. Not to be kept across a wait.
    pub fn load(&self) -> Batch {
        // The age first: read after the records it could vouch for a first list that these do not have yet.
        let as_of = self.reader.as_of();
        Batch { as_of, snapshot: self.reader.load(), pins: self.pins.load() }
    }

    /// The records that a batch of queries which came at `now` is answered from.
    pub fn records<'a>(&self, batch: &'a Batch, now: UnixMillis) -> Records<'a> {
        Records {
            snapshot: &batch.snapshot,
            synced: batch.as_of.is_some(),
            stale: batch.as_of.is_some_and(|as_of| as_of.age(now) > self.rules.config.stale_after),
            pins: (!batch.pins.is_empty()).then_some(&**batch.pins),
            now,
        }
    }

    pub fn view<'a>(&self, batch: &'a Batch, now: UnixMillis, rotation: &'a Rotation) -> View<'a> {
        View { records: self.records(batch, now), rotation, steady: now }
    }
}

/// The records during one batch of queries.
#[derive(Debug)]
pub struct Batch {
    as_of: Option<UnixMillis>,
    snapshot: Guard<Arc<Snapshot>>,
    pins: Guard<Arc<PinSet>>,
}

/// The records, the pins and the time that questions are answered by.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    pub snapshot: &'a Snapshot,
    /// There was a first list, or records were loaded.
    pub synced: bool,
    /// The source has not confirmed the records for longer than `stale_after`.
    pub stale: bool,
    /// `None` if nothing is pinned.
    pub pins: Option<&'a PinSet>,
    pub now: UnixMillis,
}

/// Everything that the queries of one batch are answered from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(in crate::dns) records: Records<'a>,
    /// The same time on the clock that is never set, for what is cached.
    pub(in crate::dns) steady: UnixMillis,
    pub(super) rotation: &'a Rotation,
}

impl View<'_> {
    /// With the steady time of a clock, where that may differ from the wall's.
    #[must_use]
    pub(in crate::dns) fn at(self, steady: UnixMillis) -> Self {
        Self { steady, ..self }
    }
}

/// Where the next answer with several records begins. One for each worker: nothing is shared.
///
/// Steps by the golden ratio of the whole range, so that neither a client that asks for A and AAAA in turn nor one that
/// asks for two names in turn always meets the same record first.
#[derive(Debug, Default)]
pub struct Rotation(Cell<u32>);

impl Rotation {
    /// The next beginning, as a fraction of 2³².
    pub(super) fn next(&self) -> u32 {
        const STEP: u32 = 0x9E37_79B9;
        let next = self.0.get().wrapping_add(STEP);
        self.0.set(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_comes_first_equally_often_even_for_two_questions_in_turn() {
        for every in 1..=3 {
            for records in 2..=7_u64 {
                let rotation = Rotation(Cell::new(7));
                let mut first = [0; 7];
                for _ in 0..records * 100 {
                    let at = u64::from((0..every).map(|_| rotation.next()).last().unwrap());
                    first[usize::try_from((at * records) >> 32).unwrap()] += 1;
                }
                let (seen, unused) = first.split_at(usize::try_from(records).unwrap());
                assert!(seen.iter().all(|count| (95..=105).contains(count)), "{records} of {every}: {seen:?}");
                assert!(unused.iter().all(|count| *count == 0));
            }
        }
    }
}
