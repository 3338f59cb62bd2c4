//! The counters of one thread.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    dns::{ServedFrom, Transport},
    sys::labels,
    wire::{self, Rcode, Rtype},
};

/// A type of question, as far as it is told apart in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) struct QuestionType(u8);

impl QuestionType {
    /// The words for them, in order; types without one of their own are the last.
    pub(super) const WORDS: [&'static str; 13] =
        ["A", "AAAA", "ANY", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT", "other"];

    /// The label of a message whose question cannot be read.
    pub(in crate::dns) const OTHER: Self = Self(12);

    /// The label of `rtype`.
    #[inline]
    pub(in crate::dns) fn of(rtype: Rtype) -> Self {
        Self(match rtype {
            Rtype::A => 0,
            Rtype::AAAA => 1,
            Rtype::ANY => 2,
            Rtype::CNAME => 3,
            Rtype::HTTPS => 4,
            Rtype::MX => 5,
            Rtype::NS => 6,
            Rtype::PTR => 7,
            Rtype::SOA => 8,
            Rtype::SRV => 9,
            Rtype::SVCB => 10,
            Rtype::TXT => 11,
            _ => return Self::OTHER,
        })
    }
}

labels! {
    /// Why a query got no answer.
    pub enum DropCause {
        /// A message shorter than a header.
        Short = "short",
        Response = "response",
        /// The answer could not be sent.
        Send = "send",
        /// The TCP connection was gone before the answer.
        Gone = "gone",
        /// The client is in no network of `allow`.
        NotAllowed = "not_allowed",
        /// A public network asks more than `open_rate`.
        RateLimited = "rate_limited",
        /// A rule of the zone says so.
        Acl = "acl",
    }
}

impl From<wire::DropReason> for DropCause {
    fn from(reason: wire::DropReason) -> Self {
        match reason {
            wire::DropReason::Short => Self::Short,
            wire::DropReason::Response => Self::Response,
        }
    }
}

/// The counted properties of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dns) struct Tally {
    pub rcode: Rcode,
    pub from: ServedFrom,
}

/// The words for response codes, in order; codes without one of their own are the last.
pub(super) const RCODES: [&str; 9] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "BADCOOKIE", "other"];

pub(super) fn place_of(rcode: Rcode) -> usize {
    match rcode.0 {
        code @ 0..=5 => usize::from(code),
        16 => 6,
        23 => 7,
        _ => 8,
    }
}

/// Upper ends of the buckets of durations, in microseconds. From 250 on they are those of CoreDNS.
pub(super) const BUCKETS_US: [u64; 20] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000,
    1_024_000, 2_048_000, 4_096_000, 8_192_000,
];

#[derive(Debug, Default)]
pub(super) struct Durations {
    /// Not cumulative; the last one is beyond all bounds.
    pub buckets: [AtomicU64; BUCKETS_US.len() + 1],
    pub sum_ns: AtomicU64,
}

/// The counters of one thread, or of everything that shares them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(in crate::dns) struct Shard {
    /// More than one thread writes here.
    shared: bool,
    pub(super) requests: [[AtomicU64; QuestionType::WORDS.len()]; Transport::ALL.len()],
    pub(super) responses: [[AtomicU64; ServedFrom::ALL.len()]; RCODES.len()],
    pub(super) drops: [AtomicU64; DropCause::ALL.len()],
    pub(super) durations: [Durations; ServedFrom::ALL.len()],
}

impl Shard {
    /// For one thread, which alone may count in it.
    pub(super) fn exclusive() -> Self {
        Self::default()
    }

    /// For any number of threads.
    pub(super) fn shared() -> Self {
        Self { shared: true, ..Self::default() }
    }

    #[inline]
    fn add(&self, counter: &AtomicU64, by: u64) {
        if self.shared {
            counter.fetch_add(by, Relaxed);
        } else {
            // The shard has a single writer, so no locked instruction is needed.
            counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    #[inline]
    pub(in crate::dns) fn request(&self, transport: Transport, kind: QuestionType) {
        self.add(&self.requests[transport as usize][usize::from(kind.0)], 1);
    }

    #[inline]
    pub(in crate::dns) fn responses(&self, tally: Tally, count: u64) {
        self.add(&self.responses[place_of(tally.rcode)][tally.from as usize], count);
    }

    /// Counts one query that gets no answer.
    #[inline]
    pub(in crate::dns) fn dropped(&self, cause: DropCause) {
        self.add(&self.drops[cause as usize], 1);
    }

    /// Counts `count` answers that took `each`.
    #[inline]
    pub(in crate::dns) fn durations(&self, from: ServedFrom, each: Duration, count: u64) {
        let durations = &self.durations[from as usize];
        let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().position(|&bound| nanos <= bound * 1_000).unwrap_or(BUCKETS_US.len());
        self.add(&durations.buckets[bucket], count);
        self.add(&durations.sum_ns, nanos.saturating_mul(count));
    }
}
