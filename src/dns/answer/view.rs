//! What `answer()` is told besides the query: once for all queries, and once for a batch of them.

use std::{cell::Cell, sync::Arc, time::Duration};

use arc_swap::Guard;

use crate::{
    dns::{
        Cookies,
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

/// The zone and the records, as every worker uses them.
#[derive(Clone, Debug)]
pub struct Context {
    zone: Zone,
    reader: Reader,
    pins: Pins,
    cookies: Option<Cookies>,
    config: Config,
}

impl Context {
    /// Puts the rules and the records together.
    #[must_use]
    pub fn new(zone: Zone, reader: Reader, config: Config) -> Self {
        Self { zone, reader, pins: Pins::default(), cookies: None, config }
    }

    /// Names in `pins` answer what they are pinned to.
    #[must_use]
    pub fn with_pins(self, pins: Pins) -> Self {
        Self { pins, ..self }
    }

    /// Cookies are answered with these; without, they are ignored.
    #[must_use]
    pub fn with_cookies(self, cookies: Option<Cookies>) -> Self {
        Self { cookies, ..self }
    }

    /// How cookies are answered, if they are.
    #[inline]
    pub(in crate::dns) fn cookies(&self) -> Option<&Cookies> {
        self.cookies.as_ref()
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(super) fn is_forward_only(&self) -> bool {
        self.config.forward_only
    }

    pub(super) fn has_fallback(&self) -> bool {
        self.config.cluster_fallback
    }

    pub(super) fn completes(&self) -> bool {
        self.config.search_path_completion
    }

    /// Takes hold of the records as they stand, for one batch of queries. Not to be kept across a wait.
    #[must_use]
    pub fn load(&self) -> Batch {
        // The age first: read after the records it could vouch for a first list that these do not have yet.
        let as_of = self.reader.as_of();
        Batch { as_of, snapshot: self.reader.load(), pins: self.pins.load() }
    }

    /// What one batch is answered from, `now` being the time its queries came.
    #[must_use]
    pub fn view<'a>(&self, batch: &'a Batch, now: UnixMillis, rotation: &'a Rotation) -> View<'a> {
        View {
            snapshot: &batch.snapshot,
            synced: batch.as_of.is_some(),
            stale: batch.as_of.is_some_and(|as_of| as_of.age(now) > self.config.stale_after),
            pins: (!batch.pins.is_empty()).then_some(&**batch.pins),
            now,
            rotation,
        }
    }
}

/// The records during one batch of queries.
#[derive(Debug)]
pub struct Batch {
    as_of: Option<UnixMillis>,
    snapshot: Guard<Arc<Snapshot>>,
    pins: Guard<Arc<PinSet>>,
}

/// What the queries of one batch are answered from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// There was a first list, or records were loaded.
    pub(super) synced: bool,
    /// The records were last vouched for too long ago not to say so.
    pub(super) stale: bool,
    /// What an operator pinned, if anything.
    pub(super) pins: Option<&'a PinSet>,
    pub(in crate::dns) now: UnixMillis,
    pub(super) rotation: &'a Rotation,
}

/// Where the next answer with several records begins. One for each worker: nothing is shared.
///
/// Steps by the golden ratio of the whole range, so that neither a client that asks for A and AAAA in turn nor one that
/// asks for two names in turn always meets the same record first.
#[derive(Debug, Default)]
pub struct Rotation(Cell<u32>);

impl Rotation {
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self(Cell::new(seed))
    }

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
                let rotation = Rotation::new(7);
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
