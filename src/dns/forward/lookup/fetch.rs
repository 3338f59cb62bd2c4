//! A question on its way to the upstreams of its route, and its answer into the cache.
//!
//! Decides whether a denial is believed, and what is kept. Never decides what a client gets (that is `lookup`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_proto::rr::{Name as RecordName, Record};
use tokio::time::Instant;

use super::{
    Lookup, Outcome, Refresh,
    denials::{self, Ruling},
};
use crate::{
    dns::{
        Local, Question,
        cache::{Denials, Entry, Key, Kind, Lifetimes},
        forward::{
            Failure, Inner,
            route::{Route, Routes, Via},
            upstream::{Answered, Attempts, ExchangeOptions, Failed, Sanitized, race},
        },
        question::question_name,
    },
    report::Policy,
    wire::{Name, Rtype},
};

/// How long a question may take while every upstream fails.
const BUDGET_DOWN: Duration = Duration::from_secs(1);
/// How long a second upstream may take to confirm that a name is gone.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);
/// Two denials of one upstream confirm each other if they are this far apart.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// A question on its way to the upstreams of its route.
pub struct Fetch {
    inner: Arc<Inner>,
    routes: Arc<Routes>,
    route: Arc<Route>,
    key: Box<Key>,
    question: Question,
    via: Via,
    /// Its share of the slots is used.
    client: IpAddr,
    /// In the form of an OPT record.
    edns_options: Vec<u8>,
}

impl Fetch {
    pub fn new(lookup: &Lookup<'_>) -> Self {
        let Lookup { inner, routes, route, key, question, via, asker } = *lookup;
        let mut edns_options = Vec::new();
        for option in &route.config.edns_options {
            option.put(question, asker, &mut edns_options);
        }
        Self {
            inner: Arc::clone(inner),
            routes: Arc::clone(routes),
            route: Arc::clone(route),
            // Futures that hold it by value would be larger by its 270 bytes at each level.
            key: Box::new(key),
            question: question.clone(),
            via,
            client: lookup.client(),
            edns_options,
        }
    }

    pub async fn run(self) -> Outcome {
        let inner = &self.inner;
        let Some(_slot) = self.route.slots.take(self.client) else {
            inner.metrics().over_limit.inc();
            return Err(Failure::busy());
        };
        inner.metrics().in_flight.inc();
        let outcome = self.ask_and_keep().await;
        inner.metrics().in_flight.dec();
        if let Err(failure) = &outcome {
            let now = inner.now();
            if let Some(entry) = inner.cache.get(&self.key) {
                entry.refresh_failed(now);
            }
            if !matches!(failure, Failure::Held(_)) {
                let kept = self.route.config.lifetimes.failure_ttl;
                inner.failures.insert(self.key.as_bytes(), failure.clone(), now, kept);
            }
        }
        outcome
    }

    async fn ask_and_keep(&self) -> Outcome {
        let (inner, route) = (&self.inner, &self.route);
        // A little less than clients wait, so that they learn the reason.
        let budget = route.config.budget * 49 / 50;
        let down = route.is_down();
        if down {
            inner.metrics().down.inc();
        }
        let budget = if down { BUDGET_DOWN.min(budget) } else { budget };
        if down && route.config.fail_fast {
            return Err(Failure::down());
        }
        let deadline = Instant::now() + budget;
        let mut answered = self.ask(route, route.attempts(inner.now()), deadline).await;
        for (on, next) in &route.next {
            let goes_on = match &answered {
                Ok(answered) => on.fit(answered.sanitized.parts.kind),
                Err(failed) => on.fit_failure(failed.kind),
            };
            if !goes_on {
                break;
            }
            answered = self.ask(next, next.attempts(inner.now()), deadline).await;
        }
        let answered = answered.map_err(|failed| Failure::failed(&failed))?;
        let known = inner.cache.holds_data(&self.key);
        let denied = answered.sanitized.parts.kind != Kind::Data;
        if known.as_ref().is_some_and(|known| known.is_popular())
            && answered.upstream.note_popular(self.question.name.wire(), denied, inner.now())
        {
            inner.metrics().denies_in_bulk(answered.upstream.label());
            // A process that is killed in a moment must not believe it again.
            inner.cache.request_save();
        }
        if !denied {
            return self.keep(answered.sanitized);
        }
        if known.is_none()
            && let Some(held) = inner.held_with_other_flags(&self.key, &self.question, &answered)
        {
            return Err(Failure::Held(held));
        }
        let mut sanitized = match known {
            Some(known) => self.judge(&known, answered).await?,
            None if answered.upstream.is_lying(inner.now()) => {
                self.ask_others(&answered).await.map_or(answered.sanitized, |second| second.sanitized)
            }
            None => answered.sanitized,
        };
        // To some stub resolvers NXDOMAIN for one type means that the addresses of the other do not exist either.
        if sanitized.parts.kind == Kind::NxDomain && inner.has_held_address(route, &self.question, inner.now()) {
            sanitized.parts.kind = Kind::NoData;
        }
        self.keep(sanitized)
    }

    async fn ask(&self, route: &Route, attempts: Attempts, deadline: Instant) -> Result<Answered, Failed> {
        let speaks_for = |name: &RecordName| self.speaks_for(name);
        let options = ExchangeOptions { edns_options: &self.edns_options, ..route.exchange_options() };
        let metrics = self.inner.metrics();
        race(options, attempts, &self.question, speaks_for, deadline, metrics).await
    }

    /// Whether the route's upstreams may speak for `name`.
    fn speaks_for(&self, name: &RecordName) -> bool {
        // The resolver that stands in for the cluster speaks for all its names, and nothing else does.
        if self.via == Via::Fallback {
            return true;
        }
        let name = question_name(name);
        if matches!(self.via, Via::Route(_)) && name == self.question.name {
            return true;
        }
        let same = self.routes.find(&name).is_some_and(|other| Arc::ptr_eq(other, &self.route));
        same && self.inner.is_outside(&name)
    }

    /// The answer after a denial of a name with the good answer `known`: that or the answer of another upstream.
    async fn judge(&self, known: &Arc<Entry>, denied: Answered) -> Result<Sanitized, Failure> {
        let (inner, lifetimes) = (&self.inner, &self.route.config.lifetimes);
        let judged = |now| denials::ruling(lifetimes, known, denied.upstream.is_lying(now), now);
        if lifetimes.denials == Denials::Believe && judged(inner.now()) == Ruling::Believe {
            return Ok(denied.sanitized);
        }
        let second = match self.ask_others(&denied).await.map(|second| second.sanitized) {
            Some(second) if second.parts.kind == Kind::Data => return Ok(second),
            second => second,
        };
        let began = match judged(inner.now()) {
            Ruling::Believe => return Ok(denied.sanitized),
            Ruling::Confirm => return self.confirm(known, denied, second),
            Ruling::Hold { until, reason } => Some((until, reason)),
            Ruling::Held => None,
        };
        inner.hold(&self.key, known, &denied, began);
        Err(Failure::Held(Arc::clone(known)))
    }

    /// The answer of the route's other upstreams, if one of them has any.
    async fn ask_others(&self, denied: &Answered) -> Option<Answered> {
        let route = &self.route;
        // The other servers of a sequential zone speak only when this one fails, and it did not.
        let now = self.inner.now();
        let sequential = route.config.policy == Policy::Sequential && !denied.upstream.is_lying(now);
        let others = route.order(now).into_iter().filter(|other| !sequential && !Arc::ptr_eq(other, &denied.upstream));
        let others: Vec<_> = others.collect();
        if others.iter().all(|other| other.is_failing()) {
            return None;
        }
        let second = self.ask(route, route.attempts_at(others, false), Instant::now() + CONFIRM_WAIT).await.ok();
        // Silence and what comes without proof confirm nothing.
        second.filter(|second| !second.sanitized.unproven)
    }

    /// Believes a denial if a second upstream, or the same one later, says so too.
    fn confirm(&self, known: &Entry, denied: Answered, second: Option<Sanitized>) -> Result<Sanitized, Failure> {
        if let Some(second) = second {
            return Ok(second);
        }
        if known.doubt(self.inner.now(), CONFIRM_AFTER) {
            return Ok(denied.sanitized);
        }
        let (inner, refresh) = (Arc::clone(&self.inner), Refresh { question: self.question.clone(), via: self.via });
        tokio::spawn(async move {
            tokio::time::sleep(CONFIRM_AFTER).await;
            inner.refresh_later(refresh);
        });
        Err(Failure::unconfirmed())
    }

    /// Makes an entry of `sanitized`, and stores it if it may be kept.
    fn keep(&self, mut sanitized: Sanitized) -> Outcome {
        let Self { inner, route, key, question, .. } = self;
        inner.failures.remove(key.as_bytes());
        let lifetimes = &route.config.lifetimes;
        let keep = lifetimes.stores(sanitized.parts.kind);
        let ttl = if keep { cap(&mut sanitized, lifetimes) } else { sanitized.ttl };
        let now = inner.now();
        let mut entry = Entry::new(&sanitized.parts, now, ttl).ok_or_else(Failure::too_large)?;
        if let Some(before) = inner.cache.get(key) {
            if (entry.kind(), before.kind()) == (Kind::Data, Kind::Data) {
                entry = entry.succeeding(&before);
            }
            entry.set_kept(before.is_kept() && entry.kind() != Kind::NxDomain);
        }
        if sanitized.truncated {
            return Ok(Arc::new(entry.truncated()));
        }
        let entry = Arc::new(if lifetimes.keep_ttl { entry.keeping_ttl() } else { entry });
        if keep && ttl > 0 && !sanitized.unproven {
            inner.cache.insert(key, Arc::clone(&entry));
            inner.keep_cut(route, question, &entry, now);
        } else if entry.is_kept() && entry.kind() == Kind::Data {
            inner.cache.keep_only(key, &entry);
        } else if sanitized.unproven {
            // A denial without SOA is not kept (RFC 2308, 5), and what it denies is not kept either.
            inner.cache.remove(key);
        }
        Ok(entry)
    }
}

impl Inner {
    /// Whether `name` is outside the cluster and not pinned.
    pub fn is_outside(&self, name: &Name) -> bool {
        let context = &self.environment.records;
        let batch = context.load();
        let question = Question::new(name.clone(), Rtype::A);
        let records = context.records(&batch, self.now());
        matches!(context.rules().local(&records, question.by_ref()), Local::Outside)
    }
}

/// Brings every TTL within what the operator allows and returns how long the answer is good for.
fn cap(sanitized: &mut Sanitized, lifetimes: &Lifetimes) -> u32 {
    let kind = sanitized.parts.kind;
    let capped = |ttl| lifetimes.capped(kind, ttl);
    let each = |record: &mut Record| record.ttl = capped(record.ttl);
    sanitized.parts.answers.iter_mut().chain(&mut sanitized.parts.authorities).for_each(each);
    capped(sanitized.ttl)
}
