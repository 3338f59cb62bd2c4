//! Counters of queries by result.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{sys::Lock, wire::Rcode};

/// Counters of the queries over one transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// Questions asked, each counted once.
    pub asked: u64,
    /// Queries that got an answer of any kind.
    pub answered: u64,
    pub lost: u64,
    /// Answers with records for the name that was asked for.
    pub good: u64,
    /// Answers with another rcode than NOERROR.
    pub failed: u64,
    /// NOERROR without the records that were asked for, or an answer to another question.
    pub wrong: u64,
    /// Answers by rcode.
    pub rcodes: BTreeMap<String, u64>,
    /// Queries asked once more because their connection was closed before it answered.
    pub asked_again: u64,
    /// The longest time without any answer, in milliseconds.
    pub longest_gap_ms: u64,
    /// The longest time one answer took, in milliseconds.
    pub slowest_ms: u64,
    /// Connections opened, handshakes included.
    pub connections: u64,
    /// Why connections and exchanges on them failed, each with how often.
    pub errors: BTreeMap<String, u64>,
}

/// Counters of all queries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How long it was asked.
    pub seconds: f64,
    pub udp: Kind,
    pub tcp: Kind,
    pub tls: Kind,
    pub https: Kind,
    pub quic: Kind,
}

impl Report {
    /// Each transport's, with its name.
    pub fn kinds(&self) -> [(&'static str, &Kind); 5] {
        [("udp", &self.udp), ("tcp", &self.tcp), ("tls", &self.tls), ("https", &self.https), ("quic", &self.quic)]
    }
}

/// Different errors kept of one transport; more are counted as others.
const ERRORS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Tally {
    asked: AtomicU64,
    answered: AtomicU64,
    lost: AtomicU64,
    good: AtomicU64,
    wrong: AtomicU64,
    /// By the four bits of the header.
    rcodes: [AtomicU64; 16],
    again: AtomicU64,
    /// Of the last answer, in microseconds after the start.
    last: AtomicU64,
    gap_us: AtomicU64,
    slowest_us: AtomicU64,
    connections: AtomicU64,
    errors: Lock<BTreeMap<String, u64>>,
}

#[derive(Debug)]
pub(super) struct Count {
    began: Instant,
    stopped: AtomicBool,
    pub udp: Tally,
    pub tcp: Tally,
    pub tls: Tally,
    pub https: Tally,
    pub quic: Tally,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Count {
    pub(super) fn new(began: Instant) -> Self {
        let [udp, tcp, tls, https, quic] = Default::default();
        Self { began, stopped: AtomicBool::new(false), udp, tcp, tls, https, quic }
    }

    /// No more questions are to be asked.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    pub(super) fn report(&self, asked_for: Duration) -> Report {
        let asking = micros(asked_for);
        let [udp, tcp, tls, https, quic] =
            [&self.udp, &self.tcp, &self.tls, &self.https, &self.quic].map(|tally| tally.kind(asking));
        Report { seconds: asked_for.as_secs_f64(), udp, tcp, tls, https, quic }
    }

    /// Counts an answer to a message that asks for `question`.
    pub(super) fn answered(&self, tally: &Tally, asked: Instant, question: &[u8], answer: &[u8]) {
        let rcode = answer.get(3).map_or(0, |byte| usize::from(byte & 0x0f));
        tally.rcodes[rcode].fetch_add(1, Relaxed);
        // The question begins after the header of 12 bytes; one record at least is to come with NOERROR.
        let same = answer.get(12..question.len()).is_some_and(|asked| asked.eq_ignore_ascii_case(&question[12..]));
        let records = answer.get(6..8).is_some_and(|count| *count != [0, 0]);
        match (rcode, same && records) {
            (0, true) => tally.good.fetch_add(1, Relaxed),
            (0, false) => tally.wrong.fetch_add(1, Relaxed),
            _ => 0,
        };
        let now = micros(self.began.elapsed());
        tally.answered.fetch_add(1, Relaxed);
        let last = tally.last.fetch_max(now, Relaxed);
        tally.gap_us.fetch_max(now.saturating_sub(last), Relaxed);
        tally.slowest_us.fetch_max(micros(asked.elapsed()), Relaxed);
    }
}

impl Tally {
    pub(super) fn asked(&self) {
        self.asked.fetch_add(1, Relaxed);
    }

    pub(super) fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    pub(super) fn again(&self) {
        self.again.fetch_add(1, Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self, error: &std::io::Error) {
        let mut errors = self.errors.lock();
        let text = error.to_string();
        let key = if errors.contains_key(&text) || errors.len() < ERRORS_MAX { text } else { "others".into() };
        *errors.entry(key).or_default() += 1;
    }

    /// `asking` is how long it was asked, in microseconds: the time after the last answer is a gap, too.
    fn kind(&self, asking: u64) -> Kind {
        let count = |rcode: usize| self.rcodes[rcode].load(Relaxed);
        let name = |rcode: usize| Rcode(u16::try_from(rcode).unwrap_or(0)).to_string();
        let asked = self.asked.load(Relaxed);
        let end = if asked > 0 { asking.saturating_sub(self.last.load(Relaxed)) } else { 0 };
        Kind {
            asked,
            answered: self.answered.load(Relaxed),
            lost: self.lost.load(Relaxed),
            good: self.good.load(Relaxed),
            failed: (1..16).map(count).sum(),
            wrong: self.wrong.load(Relaxed),
            rcodes: (0..16).filter(|rcode| count(*rcode) > 0).map(|rcode| (name(rcode), count(rcode))).collect(),
            asked_again: self.again.load(Relaxed),
            longest_gap_ms: self.gap_us.load(Relaxed).max(end) / 1_000,
            slowest_ms: self.slowest_us.load(Relaxed) / 1_000,
            connections: self.connections.load(Relaxed),
            errors: self.errors.lock().clone(),
        }
    }
}
