//! Denials (NXDOMAIN, NODATA) of names that were good: which are believed, and which names are held meanwhile.
//!
//! A held name is served its last good answer. Never holds a name that has no good answer, and never keeps an address that
//! upstreams replaced by another.

use std::{sync::Arc, time::Duration};

use hickory_proto::rr::RecordType;

use super::{FLAGS, Refresh};
use crate::{
    dns::{
        Question,
        cache::{Age, Denials, Entry, HOLD, Hold, Key, Kind, Lifetimes, Parts, Reason},
        forward::{
            Forwarder, Inner,
            route::{Route, Routes, Via},
            upstream::Answered,
        },
    },
    report::{OutsideHold, Time},
    sys::UnixMillis,
    wire::{Name, Rtype},
};

/// Names that were good for less are held only if the zone says so.
const GOOD_MIN: Duration = Duration::from_secs(600);
/// So are names that were last asked for longer ago.
const ASKED_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The verdict on a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Believe,
    /// The denial is believed if it is confirmed.
    Confirm,
    /// The last good answer is served until then; `None` for no end.
    Hold {
        until: Option<UnixMillis>,
        reason: Reason,
    },
    /// The name is held already, and stays so.
    Held,
}

/// The verdict on a denial at `now` of a name with the good answer `known`; `in_bulk` if its upstream denies too many names.
pub fn ruling(lifetimes: &Lifetimes, known: &Entry, in_bulk: bool, now: UnixMillis) -> Ruling {
    if known.is_kept() {
        return Ruling::Hold { until: None, reason: Reason::Keep };
    }
    if lifetimes.denials == Denials::Believe || known.hold_is_over(now) {
        return Ruling::Believe;
    }
    if known.is_held(now) {
        return Ruling::Held;
    }
    let good = |length| Ruling::Hold { until: Some(now.plus(length)), reason: Reason::Good };
    if let Denials::Hold(length) = lifetimes.denials {
        return good(length);
    }
    if in_bulk {
        return Ruling::Hold { until: Some(now.plus(HOLD)), reason: Reason::Bulk };
    }
    let past = known.age(now).saturating_sub(Duration::from_secs(known.ttl().into()));
    if !lifetimes.serve_stale || past > lifetimes.stale_max {
        return Ruling::Believe;
    }
    let earned = known.good_for(now) >= GOOD_MIN && known.asked().age(now) <= ASKED_MAX;
    if lifetimes.denials == Denials::Auto && earned { good(HOLD) } else { Ruling::Confirm }
}

/// The names that are to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    Name(Name),
    /// Every name in this zone.
    Zone(Name),
}

impl Released {
    /// As `covers`, for a name as text.
    #[must_use]
    pub fn covers_text(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name| self.covers(&name))
    }

    fn covers(&self, name: &Name) -> bool {
        match self {
            Self::Name(one) => one == name,
            Self::Zone(zone) => name.labels_above(zone).is_some(),
        }
    }
}

impl Forwarder {
    /// Every name outside the cluster that is denied and served, those of views too; the oldest first.
    #[must_use]
    pub fn held(&self) -> Vec<OutsideHold> {
        let holds = self.0.cache.holds();
        holds.iter().filter_map(|(key, hold)| self.0.told(key, hold)).collect()
    }

    /// Ends holds: the next denial of these names is believed. Returns those that end, or would with `dry_run`. Names of the
    /// keep list stay held.
    #[must_use]
    pub fn release(&self, which: &Released, dry_run: bool) -> Vec<OutsideHold> {
        let inner = &self.0;
        let routes = inner.routes.load_full();
        let mut released = Vec::new();
        for (key, hold) in inner.cache.holds() {
            let Some(question) = key.question().filter(|question| which.covers(&question.name)) else { continue };
            if hold.reason == Reason::Keep {
                continue;
            }
            released.extend(inner.told(&key, &hold));
            if !dry_run && inner.cache.release(&key) {
                inner.refresh_now(&routes, question, &key);
                // A process that is killed in a moment must not hold the name again.
                inner.cache.request_save();
            }
        }
        released
    }
}

impl Inner {
    /// Serves `known` although it is `denied`.
    pub fn hold(&self, key: &Key, known: &Arc<Entry>, denied: &Answered, began: Option<(Option<UnixMillis>, Reason)>) {
        let (now, denial, by) = (self.now(), denied.sanitized.parts.kind, denied.upstream.label());
        let before = self.cache.held(key).filter(|hold| hold.entry.is_held(now));
        let Some((until, reason)) = began.or_else(|| before.as_ref().map(|hold| (hold.until, hold.reason))) else {
            return;
        };
        let since = before.map_or(now, |hold| hold.since);
        let hold = Hold { entry: Arc::clone(known), since, last: now, until, by: by.into(), denial, reason };
        if self.cache.hold(key, hold)
            && let Some(question) = key.question()
        {
            self.metrics().held(&question.name, &question.rtype, by, word(denial));
        }
    }

    /// The held answer to `question`, which is `denied`, of clients with other flags (DO, CD): a denial is about the name, whatever
    /// the flags. From now on it is held under `key` too, until the same time. Without signatures.
    pub fn held_with_other_flags(&self, key: &Key, question: &Question, denied: &Answered) -> Option<Arc<Entry>> {
        let now = self.now();
        let hold = FLAGS.into_iter().find_map(|(dnssec_ok, checking_disabled)| {
            let other = Question { dnssec_ok, checking_disabled, ..question.by_ref() };
            self.cache.held(&Key::new(key.route(), other)).filter(|hold| hold.entry.is_held(now))
        })?;
        let known = &hold.entry;
        let (mut answers, authorities) = known.records(now, Age::Stale { ttl: known.ttl() });
        answers.retain(|record| record.record_type() != RecordType::RRSIG);
        let parts = Parts { continues: known.continues(), ..Parts::new(question, Kind::Data, answers, authorities) };
        let entry = Arc::new(Entry::new(&parts, known.stored(), known.ttl())?);
        self.hold(key, &entry, denied, Some((hold.until, hold.reason)));
        Some(entry)
    }

    /// Whether the name of `question` has an address that a denial at `now` would not end, asked with the same flags.
    pub fn has_held_address(&self, route: &Route, question: &Question, now: UnixMillis) -> bool {
        [Rtype::A, Rtype::AAAA].into_iter().filter(|rtype| *rtype != question.rtype).any(|rtype| {
            let known = self.cache.holds_data(&Key::new(route.id, question.retyped(rtype).by_ref()));
            known.is_some_and(|known| {
                matches!(ruling(&route.config.lifetimes, &known, false, now), Ruling::Hold { .. } | Ruling::Held)
            })
        })
    }

    /// Asks for `question` soon, if it is one of this forwarder's own.
    fn refresh_now(&self, routes: &Routes, question: Question, key: &Key) {
        if routes.find(&question.name).is_some_and(|route| route.id == key.route()) {
            self.refresh_later(Refresh { question, via: Via::Zone });
        }
    }

    /// The hold of `key`.
    pub fn held_by(&self, key: &Key) -> Option<OutsideHold> {
        self.cache.held(key).and_then(|hold| self.told(key, &hold))
    }

    fn told(&self, key: &Key, hold: &Hold) -> Option<OutsideHold> {
        if !hold.entry.is_held(self.now()) {
            return None;
        }
        let question = key.question()?;
        let zone = self.cache.zone(key.route());
        // The view's name stands behind the zone, which for `cluster_fallback` is empty.
        let (zone, view) = match Name::from_wire(&zone) {
            Ok(name) => (name.to_string(), zone.get(name.wire().len()..).unwrap_or_default()),
            Err(_) => ("cluster_fallback".into(), &*zone),
        };
        let time = |time: UnixMillis| Time(time.moved_ms(self.environment.clock.wall_ahead_ms()));
        let (answers, _) = hold.entry.records(self.now(), Age::Fresh);
        Some(OutsideHold {
            name: question.name.to_string(),
            rtype: question.rtype.to_string(),
            zone,
            view: (!view.is_empty()).then(|| String::from_utf8_lossy(view).into_owned()),
            denial: word(hold.denial).into(),
            upstream: hold.by.to_string(),
            reason: hold.reason.as_str().into(),
            since: time(hold.since),
            last: time(hold.last),
            until: hold.until.map(time),
            answered: time(hold.entry.stored()),
            answers: answers.iter().map(|record| record.data.to_string()).collect(),
        })
    }
}

fn word(denial: Kind) -> &'static str {
    if denial == Kind::NxDomain { "NXDOMAIN" } else { "NODATA" }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name as RecordName, RData, Record, rdata::A};

    use super::*;
    use crate::wire::{Class, Rtype};

    const NOW: UnixMillis = UnixMillis(1_760_943_600_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An answer of `ttl` seconds stored `age` seconds before [`NOW`].
    fn entry(age: u64, ttl: u32) -> Entry {
        let name = RecordName::from_ascii("www.example.").unwrap();
        let parts = Parts {
            name: name.clone(),
            rtype: Rtype::A,
            class: Class::IN,
            kind: Kind::Data,
            answers: vec![Record::from_rdata(name, ttl, RData::A(A::new(192, 0, 2, 1)))],
            authorities: Vec::new(),
            authentic: false,
            continues: false,
        };
        Entry::new(&parts, NOW.minus(seconds(age)), ttl).unwrap()
    }

    /// The last of answers of 60 s since `good` seconds ago, stored `age` seconds ago.
    fn good_since(good: u64, age: u64) -> Entry {
        entry(age, 60).succeeding(&entry(good, 60))
    }

    #[test]
    fn what_a_denial_does_depends_on_how_long_the_name_was_good_and_on_the_zone() {
        let hold = |length| Ruling::Hold { until: Some(NOW.plus(length)), reason: Reason::Good };
        let (kept, over, going_on) = (good_since(60, 60), good_since(3_600, 60), good_since(3_600, 60));
        kept.set_kept(true);
        over.hold(Some(NOW));
        going_on.hold(Some(NOW.plus(seconds(1))));
        let day = 24 * 3_600;
        let cases = [
            ("good for ten minutes", Denials::Auto, good_since(600, 60), hold(HOLD)),
            ("good for less", Denials::Auto, good_since(599, 60), Ruling::Confirm),
            ("one answer that promised ten minutes", Denials::Auto, entry(600, 600), hold(HOLD)),
            ("one answer long ago promised one", Denials::Auto, entry(day / 2, 60), Ruling::Confirm),
            ("asked a day ago", Denials::Auto, good_since(2 * day, day + 1), Ruling::Confirm),
            ("older than `stale_max`", Denials::Auto, good_since(2 * day, day + 61), Ruling::Believe),
            ("held before", Denials::Auto, over, Ruling::Believe),
            ("held", Denials::Confirm, going_on, Ruling::Held),
            ("on the keep list", Denials::Believe, kept, Ruling::Hold { until: None, reason: Reason::Keep }),
            ("young", Denials::Hold(seconds(60)), entry(10, 5), hold(seconds(60))),
            ("old", Denials::Hold(seconds(60)), entry(30 * day, 5), hold(seconds(60))),
            ("good", Denials::Believe, good_since(3_600, 60), Ruling::Believe),
            ("good", Denials::Confirm, good_since(3_600, 60), Ruling::Confirm),
        ];
        for (what, denials, known, expect) in cases {
            let lifetimes = Lifetimes { denials, ..Lifetimes::default() };
            assert_eq!(ruling(&lifetimes, &known, false, NOW), expect, "{what}, {denials:?}");
        }
        let in_bulk = Ruling::Hold { until: Some(NOW.plus(HOLD)), reason: Reason::Bulk };
        for (denials, expect) in
            [(Denials::Auto, in_bulk), (Denials::Confirm, in_bulk), (Denials::Believe, Ruling::Believe)]
        {
            let lifetimes = Lifetimes { denials, ..Lifetimes::default() };
            assert_eq!(ruling(&lifetimes, &entry(10, 5), true, NOW), expect, "{denials:?}");
        }
        let never_stale = Lifetimes { serve_stale: false, ..Lifetimes::default() };
        assert_eq!(ruling(&never_stale, &good_since(3_600, 60), false, NOW), Ruling::Believe);
    }
}
