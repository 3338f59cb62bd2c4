//! An answer as it lies in memory: bytes ready to be sent, with the places of its TTLs.
//!
//! Writing it to a client copies and patches; nothing is parsed or allocated there. Never sets AA.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::Message,
    rr::{Name, Record, RecordType},
};

use super::{
    encode::{Encoded, encode},
    memory::Reservation,
};
use crate::{
    dns::{Question, request::Transport},
    sys::UnixMillis,
    wire::{Class, EdeCode, Prepared, Query, Rcode, Rtype, UDP_BYTES_MIN, write_prepared},
};

/// The kind of an answer: data, NODATA or NXDOMAIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records of the type asked, or a CNAME.
    Data,
    /// The name exists without records of the type asked.
    NoData,
    /// The name does not exist.
    NxDomain,
}

/// How far an answer's own TTLs can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Within its TTL, which is counted down.
    Fresh,
    /// Within its TTL too, but with records of the cluster that are stale: a client with EDNS is told. Never stored.
    OfStaleRecords,
    /// Past its TTL: every TTL reads `ttl` seconds, and a client with EDNS is told.
    Stale {
        /// Seconds, RFC 8767, 4.
        ttl: u32,
    },
}

/// Everything an [`Entry`] is made from.
#[derive(Debug)]
pub struct Parts {
    pub name: Name,
    pub rtype: Rtype,
    pub class: Class,
    pub kind: Kind,
    /// Answer section, in order.
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// Whether the upstream vouches for it (AD).
    pub authentic: bool,
    /// Whether the answer ends with a CNAME whose target has to be asked elsewhere.
    pub continues: bool,
}

impl Parts {
    /// An answer to `question` that ends here.
    pub fn new(question: &Question, kind: Kind, answers: Vec<Record>, authorities: Vec<Record>) -> Self {
        Self {
            name: question.record_name(),
            rtype: question.rtype,
            class: question.class,
            kind,
            answers,
            authorities,
            authentic: false,
            continues: false,
        }
    }
}

const AUTHENTIC: u8 = 1;
const CONTINUES: u8 = 2;
const TRUNCATED: u8 = 4;
const KEEPS_TTL: u8 = 8;

#[derive(Debug)]
pub struct Entry {
    wire: Box<[u8]>,
    ttl_offsets: Box<[u16]>,
    stored: UnixMillis,
    ttl: u32,
    kind: Kind,
    flags: u8,
    /// Its bytes in the memory limit, once it is stored.
    reservation: OnceLock<Reservation>,
    hits: AtomicU32,
    /// The answer before it was popular.
    was_popular: bool,
    /// When a refresh was last begun, when one last failed, and since when upstreams deny the name; 0 for never.
    attempted: AtomicU64,
    failed: AtomicU64,
    doubted: AtomicU64,
    /// Since when the name has had records; a denial that was believed begins it anew.
    good_since: UnixMillis,
    /// When a client was last given it.
    asked: AtomicU64,
    /// Until when it is served although upstreams deny the name; 0 for never held, `u64::MAX` for no end, [`ENDED`] after it.
    held_until: AtomicU64,
    /// It is of a name on the keep list.
    kept: AtomicBool,
}

/// Uses before an answer counts as popular: it is then renewed ahead of time, and kept by workers that are asked for it.
const POPULAR_HITS: u32 = 3;
/// Shorter TTLs leave no time to renew them.
const PREFETCH_TTL_MIN: u32 = 5;
/// A time long past: the hold is over.
const ENDED: u64 = 1;
/// A denial longer ago than this does not count as the first of two.
const DOUBT_MAX: Duration = Duration::from_secs(600);

impl Entry {
    /// Lays out `parts` as of `stored`, good for `ttl` seconds; `None` if it passes 65,535 bytes.
    pub fn new(parts: &Parts, stored: UnixMillis, ttl: u32) -> Option<Self> {
        let Encoded { mut wire, ttl_offsets } =
            encode(&parts.name, parts.rtype, parts.class, &parts.answers, &parts.authorities)?;
        wire[3] = if parts.kind == Kind::NxDomain { 3 } else { 0 };
        let flags = (u8::from(parts.authentic) * AUTHENTIC) | (u8::from(parts.continues) * CONTINUES);
        Some(Self::put_together(
            wire.into_boxed_slice(),
            ttl_offsets.into_boxed_slice(),
            stored,
            ttl,
            parts.kind,
            flags,
        ))
    }

    /// An entry from its stored form; `None` unless `wire` is a message as [`new`](Self::new) lays it out.
    pub(super) fn restore(wire: Box<[u8]>, stored: UnixMillis, ttl: u32, kind: Kind, flags: u8) -> Option<Self> {
        let message = crate::wire::Message::new(&wire).ok()?;
        message.question().ok()?;
        let mut ttl_offsets = Vec::new();
        for record in message.records().ok()? {
            ttl_offsets.push(u16::try_from(record.ok()?.ttl_start()).ok()?);
        }
        // Once for the names in the data, which are parsed where answers are put together.
        Message::from_vec(&wire).ok()?;
        Some(Self::put_together(wire, ttl_offsets.into_boxed_slice(), stored, ttl, kind, flags))
    }

    fn put_together(
        wire: Box<[u8]>,
        ttl_offsets: Box<[u16]>,
        stored: UnixMillis,
        ttl: u32,
        kind: Kind,
        flags: u8,
    ) -> Self {
        Self {
            wire,
            ttl_offsets,
            stored,
            ttl,
            kind,
            flags,
            reservation: OnceLock::new(),
            hits: AtomicU32::new(0),
            was_popular: false,
            attempted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            doubted: AtomicU64::new(0),
            good_since: stored,
            asked: AtomicU64::new(stored.0),
            held_until: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// This entry as the successor of `before`: the name has been good for as long as both.
    #[must_use]
    pub fn succeeding(mut self, before: &Self) -> Self {
        self.good_since = before.good_since;
        self.was_popular = before.hits.load(Ordering::Relaxed) >= POPULAR_HITS;
        self
    }

    /// This entry, good since `good_since` and last asked for at `asked`, popular or not.
    pub(super) fn remembered(mut self, good_since: UnixMillis, asked: UnixMillis, popular: bool) -> Self {
        self.good_since = good_since.min(self.stored);
        self.asked = AtomicU64::new(asked.0);
        self.was_popular = popular;
        self
    }

    pub fn good_since(&self) -> UnixMillis {
        self.good_since
    }

    /// How long the name has had records, as far as upstreams promised it.
    pub fn good_for(&self, now: UnixMillis) -> Duration {
        let promised = self.stored.plus(Duration::from_secs(self.ttl.into()));
        self.good_since.age(promised.min(now))
    }

    /// When a client was last given it.
    pub fn asked(&self) -> UnixMillis {
        UnixMillis(self.asked.load(Ordering::Relaxed))
    }

    /// Notes that a client is given it.
    pub fn note_asked(&self, now: UnixMillis) {
        self.asked.store(now.0, Ordering::Relaxed);
    }

    /// Holds it until then, although its name is denied; `None` for no end.
    pub fn hold(&self, until: Option<UnixMillis>) {
        self.held_until.store(until.map_or(u64::MAX, |until| until.0), Ordering::Relaxed);
    }

    /// Ends the hold for good: the next client waits for upstreams, and the next denial is believed.
    pub fn end_hold(&self) {
        self.held_until.store(ENDED, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }

    /// Whether it is served although its name is denied.
    pub fn is_held(&self, now: UnixMillis) -> bool {
        now.0 < self.held_until.load(Ordering::Relaxed)
    }

    /// Whether it was held, and is no longer.
    pub fn hold_is_over(&self, now: UnixMillis) -> bool {
        let until = self.held_until.load(Ordering::Relaxed);
        until != 0 && until <= now.0
    }

    /// Whether its name is on the keep list.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    pub fn set_kept(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Whether it, or the answer before it, was given to clients often.
    pub fn is_popular(&self) -> bool {
        self.was_popular || self.hits.load(Ordering::Relaxed) >= POPULAR_HITS
    }

    /// Its part of the memory limit.
    pub(super) fn reservation(&self) -> &OnceLock<Reservation> {
        &self.reservation
    }

    /// Its message: header with counts, question, records.
    pub(super) fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub(super) fn flags(&self) -> u8 {
        self.flags
    }

    /// Bytes of memory it takes, allocator rounding apart.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.wire.len() + size_of_val(&*self.ttl_offsets)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn stored(&self) -> UnixMillis {
        self.stored
    }

    /// How long it is good for, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// This entry as a part of an answer whose rest cannot be had. Never stored.
    #[must_use]
    pub fn truncated(mut self) -> Self {
        self.flags |= TRUNCATED;
        self
    }

    /// This entry with TTLs that are not counted down.
    #[must_use]
    pub fn keeping_ttl(mut self) -> Self {
        self.flags |= KEEPS_TTL;
        self
    }

    /// When its TTLs begin to count.
    fn counted_from(&self, now: UnixMillis) -> UnixMillis {
        if self.flags & KEEPS_TTL == 0 { self.stored } else { now }
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & TRUNCATED != 0
    }

    /// Whether its last CNAME leads to another route.
    pub fn continues(&self) -> bool {
        self.flags & CONTINUES != 0
    }

    /// How long it has been there.
    pub fn age(&self, now: UnixMillis) -> Duration {
        self.stored.age(now)
    }

    /// Whether it is within its TTL.
    pub fn is_fresh(&self, now: UnixMillis) -> bool {
        self.age(now) < Duration::from_secs(self.ttl.into())
    }

    /// Its records again, TTLs as `age` says, for putting answers together.
    pub fn records(&self, now: UnixMillis, age: Age) -> (Vec<Record>, Vec<Record>) {
        let Ok(mut message) = Message::from_vec(&self.wire) else { return (Vec::new(), Vec::new()) };
        let ttl = Ttl::of(self.counted_from(now), now, age);
        for record in message.answers.iter_mut().chain(&mut message.authorities) {
            record.ttl = ttl.now(record.ttl);
        }
        (message.answers, message.authorities)
    }

    /// The last CNAME's target, for an answer that [`continues`](Self::continues).
    pub fn target(&self) -> Option<Name> {
        let message = Message::from_vec(&self.wire).ok()?;
        message.answers.iter().rev().find(|record| record.record_type() == RecordType::CNAME).and_then(|record| {
            match &record.data {
                hickory_proto::rr::RData::CNAME(target) => Some(target.0.clone()),
                _ => None,
            }
        })
    }

    /// The answer as it is written.
    pub(super) fn ready(&self) -> Ready<'_> {
        Ready {
            message: &self.wire,
            ttl_offsets: &self.ttl_offsets,
            stored: self.stored,
            is_gone: self.kind == Kind::NxDomain,
            authentic: self.flags & AUTHENTIC != 0,
        }
    }

    /// Writes the answer to `query` into `out` and returns its length.
    ///
    /// # Panics
    /// If `out` is below 512 bytes.
    pub fn write(&self, query: &Query<'_>, transport: Transport, now: UnixMillis, age: Age, out: &mut [u8]) -> usize {
        Ready { stored: self.counted_from(now), ..self.ready() }.write(query, transport, now, age, out)
    }

    /// Counts one use; returns whether the answer is popular by now.
    pub fn record_use(&self, now: UnixMillis) -> bool {
        self.note_asked(now);
        self.hits.fetch_add(1, Ordering::Relaxed) >= POPULAR_HITS
    }

    /// Whether it is to be renewed ahead of time if it is popular: in the last tenth of its TTL.
    pub fn is_ending(&self, now: UnixMillis) -> bool {
        self.ttl >= PREFETCH_TTL_MIN && now >= self.ends()
    }

    /// When the last tenth of its TTL begins.
    pub fn ends(&self) -> UnixMillis {
        self.stored.plus(Duration::from_millis(u64::from(self.ttl) * 900))
    }

    /// Claims the right to ask upstream again, at most once per `interval`.
    pub fn claim_refresh(&self, now: UnixMillis, interval: Duration) -> bool {
        let last = self.attempted.load(Ordering::Relaxed);
        (last == 0 || UnixMillis(last).age(now) >= interval)
            && self.attempted.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that a refresh gave nothing, or took longer than a client waits.
    pub fn refresh_failed(&self, now: UnixMillis) {
        self.failed.store(now.0, Ordering::Relaxed);
    }

    /// Whether a refresh failed within `interval`.
    pub fn refresh_failed_within(&self, now: UnixMillis, interval: Duration) -> bool {
        let failed = self.failed.load(Ordering::Relaxed);
        failed != 0 && UnixMillis(failed).age(now) < interval
    }

    /// Whether an upstream said that this name is gone.
    pub fn is_denied(&self) -> bool {
        self.doubted.load(Ordering::Relaxed) != 0 || self.held_until.load(Ordering::Relaxed) != 0
    }

    /// Notes that an upstream says this name is gone, and returns whether one said so `after` or longer ago already.
    pub fn doubt(&self, now: UnixMillis, after: Duration) -> bool {
        let since = self.doubted.load(Ordering::Relaxed);
        let age = UnixMillis(since).age(now);
        if since == 0 || age > DOUBT_MAX {
            self.doubted.store(now.0, Ordering::Relaxed);
            return false;
        }
        age >= after
    }
}

/// An answer to be written, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Header with counts, question, records.
    pub(super) message: &'a [u8],
    /// Where the TTLs stand in it.
    pub(super) ttl_offsets: &'a [u16],
    pub(super) stored: UnixMillis,
    /// The name does not exist.
    pub(super) is_gone: bool,
    /// The upstream vouches for it.
    pub(super) authentic: bool,
}

impl Ready<'_> {
    #[inline]
    pub fn write(&self, query: &Query<'_>, transport: Transport, now: UnixMillis, age: Age, out: &mut [u8]) -> usize {
        let ede = match (age, self.is_gone) {
            (Age::Fresh, _) => None,
            (Age::Stale { .. }, true) => Some(EdeCode::STALE_NXDOMAIN_ANSWER.into()),
            (Age::Stale { .. } | Age::OfStaleRecords, _) => Some(EdeCode::STALE_ANSWER.into()),
        };
        let rcode = if self.is_gone { Rcode::NXDOMAIN } else { Rcode::NOERROR };
        let prepared =
            Prepared { message: self.message, ttls: self.ttl_offsets, rcode, authentic: self.authentic, ede };
        let ttl = Ttl::of(self.stored, now, age);
        write_prepared(query, &prepared, limit(query, transport), |stored| ttl.now(stored), out)
    }
}

/// How many bytes of an upstream's answer reach this client.
fn limit(query: &Query<'_>, transport: Transport) -> usize {
    // A small question for much data (RFC 8482): the rest is for TCP, where a source address is true.
    if query.qtype == Rtype::ANY && transport == Transport::Udp { UDP_BYTES_MIN } else { transport.limit(query) }
}

/// The treatment of an answer's TTLs.
#[derive(Clone, Copy)]
enum Ttl {
    /// So many seconds have passed.
    CountedDown(u32),
    Fixed(u32),
}

impl Ttl {
    #[inline]
    fn of(stored: UnixMillis, now: UnixMillis, age: Age) -> Self {
        match age {
            Age::Fresh | Age::OfStaleRecords => {
                Self::CountedDown(u32::try_from(stored.age(now).as_secs()).unwrap_or(u32::MAX))
            }
            Age::Stale { ttl } => Self::Fixed(ttl),
        }
    }

    #[inline]
    fn now(self, stored: u32) -> u32 {
        match self {
            Self::CountedDown(passed) => stored.saturating_sub(passed),
            Self::Fixed(ttl) => ttl,
        }
    }
}

#[cfg(test)]
mod tests;
