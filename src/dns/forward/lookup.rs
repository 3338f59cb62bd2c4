//! A name on its own route: from the cache, from upstreams, or from the cache past its TTL (RFC 8767).
//!
//! [`State`] says what is stored; here and nowhere else is decided what may be served and what may be kept:
//!
//! | stored answer | its route | the client gets | upstreams are asked |
//! |---|---|---|---|
//! | `Fresh` | any | the answer | no; in the last tenth of the TTL of a popular name, in the background |
//! | `StaleAtOnce` | no upstream answers, or a refresh failed in the last 5 s | the stale answer | no |
//! | `StaleFirst` | `client_timeout` is 0, or the name is denied and held (`denials`) | the stale answer | in the background, once in 5 s |
//! | `StaleIfNeeded` | works | the new answer; after `client_timeout` or on failure the stale one | yes |
//! | `TooOld`, `Missing` | works | the new answer or the failure | yes |
//! | `TooOld` | none of its upstreams can be reached | the stale answer | yes |
//! | `StaleIfNeeded` | leads back to us, or names no upstream yet | the stale answer | no |
//! | `TooOld` | names no upstream yet | the stale answer | no |
//! | `TooOld`, `Missing` | leads back to us | SERVFAIL | no |
//! | `Missing` | names no upstream yet | SERVFAIL | no |

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::{Name as RecordName, Record};
use tokio::{task_local, time::Instant};

use super::{
    Failure, Inner,
    denials::{self, Ruling},
    route::{Route, Routes},
    upstream::{Answered, Attempts, ExchangeOptions, Failed, Sanitized, race},
};
use crate::{
    dns::{
        Local, Question,
        cache::{Age, Denials, Entry, Key, Kind, Lifetimes, RouteId},
        question::question_name,
        request::{Asker, ServedFrom},
    },
    report::Policy,
    sys::UnixMillis,
    wire::{Name, Rtype},
};

/// Minimum time between two attempts to renew a stale name (RFC 8767, 5 asks for at most one every 30 s; sooner is kinder here).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// With every upstream known to fail, a question is given this long before the client is told.
const BUDGET_DOWN: Duration = Duration::from_secs(1);
/// How long a second upstream may take to confirm that a name is gone.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);
/// Seconds that a held answer lives in a client (RFC 8767, 4).
const HELD_TTL_MAX: u32 = 30;
/// Two answers of one upstream that a name is gone count if they are this far apart.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// An answer and how it may be used.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    pub age: Age,
    pub from: ServedFrom,
    /// The first owner is a name of the cluster.
    pub ours: bool,
    /// Records of the additional section, for this client alone.
    pub additionals: Vec<Record>,
}

impl Found {
    pub fn new(entry: Entry, age: Age, from: ServedFrom) -> Self {
        Self::kept(Arc::new(entry), age, from)
    }

    pub fn kept(entry: Arc<Entry>, age: Age, from: ServedFrom) -> Self {
        Self { entry, age, from, ours: false, additionals: Vec::new() }
    }
}

/// How an exchange ended, for everything that waits for it.
pub type Outcome = Result<Arc<Entry>, Failure>;

/// Whose upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The upstreams of the longest zone that holds the name.
    Zone,
    /// The upstreams of this route, also for names of other zones.
    Route(RouteId),
    /// The upstreams of `cluster_fallback`, which stand in for the records of the cluster.
    Fallback,
}

/// A question to be asked again without a client.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub question: Question,
    pub via: Via,
}

/// The state of the cache entry of a question, for serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    /// Within its TTL.
    Fresh,
    /// Expired, and to be served without waiting.
    StaleAtOnce,
    /// Expired, to be served without waiting, and to be refreshed.
    StaleFirst,
    /// Expired, to be served if upstreams do not answer in time.
    StaleIfNeeded,
    /// Expired for so long that it is served only when no upstream can be reached.
    TooOld,
}

impl State {
    pub fn of(route: &Route, stored: Option<&Entry>, now: UnixMillis) -> Self {
        let Some(entry) = stored else { return Self::Missing };
        let lifetimes = &route.config.lifetimes;
        // Of a zone without a cache there are the answers of the keep list, for when upstreams fail.
        if entry.is_fresh(now) && lifetimes.stores(entry.kind()) {
            return Self::Fresh;
        }
        if entry.is_held(now) {
            let at_once = route.is_down() || entry.refresh_failed_within(now, REFRESH_INTERVAL);
            return if at_once { Self::StaleAtOnce } else { Self::StaleFirst };
        }
        let past = entry.age(now).saturating_sub(Duration::from_secs(entry.ttl().into()));
        let may_end = !lifetimes.serve_stale || (past > lifetimes.stale_max && !route.is_useless());
        if may_end && !entry.is_kept() {
            Self::TooOld
        } else if route.is_down() || entry.refresh_failed_within(now, REFRESH_INTERVAL) {
            Self::StaleAtOnce
        } else if lifetimes.client_timeout.is_zero() {
            Self::StaleFirst
        } else {
            Self::StaleIfNeeded
        }
    }
}

impl Inner {
    /// Looks `question` up until `deadline`.
    pub(super) async fn lookup(
        self: &Arc<Self>,
        routes: &Arc<Routes>,
        question: &Question,
        via: Via,
        deadline: Instant,
    ) -> Result<Found, Failure> {
        let (route, key) = place(routes, question, via)?;
        let now = self.now();
        let stored = self.cache.get(&key);
        let state = State::of(route, stored.as_deref(), now);
        let refresh = || Refresh { question: question.clone(), via };
        match &stored {
            Some(entry) => {
                if let Some(found) = self.serve(state, route, entry, refresh, now) {
                    return Ok(found);
                }
            }
            None => {
                if let Some(found) = self.cut(route, question, now) {
                    return Ok(found);
                }
            }
        }
        let kept = stored.clone().filter(|_| state == State::StaleIfNeeded);
        let patience = match &kept {
            Some(_) => deadline.min(Instant::now() + route.config.lifetimes.client_timeout),
            None => deadline,
        };
        self.cache.metrics.misses.inc();
        if route.is_looped() {
            return kept.map(|entry| self.stale(route, entry)).ok_or_else(Failure::looped);
        }
        if route.has_nobody() {
            self.metrics().down.inc();
            return self.last_resort(route, stored, Failure::no_upstreams(route));
        }
        if kept.is_none()
            && let Some(failure) = self.failures.get(key.as_bytes(), now)
        {
            return self.last_resort(route, stored, failure.again());
        }
        let outcome = self.wait(routes, route, &key, question, via, patience).await;
        match (outcome, kept) {
            (Ok(entry), _) => Ok(Found::kept(entry, Age::Fresh, ServedFrom::Upstream)),
            (Err(Failure::Held(entry)), _) => Ok(self.stale(route, entry)),
            (Err(_), Some(entry)) => {
                entry.refresh_failed(self.now());
                Ok(self.stale(route, entry))
            }
            (Err(failure), None) => self.last_resort(route, stored, failure),
        }
    }

    /// The stored answer, if the client is not to wait for another.
    fn serve(
        &self,
        state: State,
        route: &Route,
        entry: &Arc<Entry>,
        refresh: impl FnOnce() -> Refresh,
        now: UnixMillis,
    ) -> Option<Found> {
        match state {
            State::Fresh => {
                self.cache.metrics.hits.inc();
                if entry.record_use(now) {
                    self.prefetch(route, entry, refresh, now);
                }
                Some(Found::kept(Arc::clone(entry), Age::Fresh, ServedFrom::Cache))
            }
            State::StaleAtOnce => Some(self.stale(route, Arc::clone(entry))),
            State::StaleFirst => {
                if entry.claim_refresh(now, REFRESH_INTERVAL) {
                    self.refresh_later(refresh());
                }
                Some(self.stale(route, Arc::clone(entry)))
            }
            State::StaleIfNeeded | State::TooOld | State::Missing => None,
        }
    }

    /// Waits for the exchange about `question`, which is begun unless it is under way.
    async fn wait(
        self: &Arc<Self>,
        routes: &Arc<Routes>,
        route: &Arc<Route>,
        key: &Key,
        question: &Question,
        via: Via,
        patience: Instant,
    ) -> Outcome {
        let waiter = route.places.take(client()).and_then(|place| {
            let start = || self.exchange(routes, route, key, question.clone(), via);
            self.in_flight.join(key.as_bytes(), start).ok().map(|waiter| (place, waiter))
        });
        let Some((_place, waiter)) = waiter else {
            self.metrics().over_limit.inc();
            return Err(Failure::busy());
        };
        match tokio::time::timeout_at(patience, waiter.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Failure::broken_off()),
            Err(_) => Err(Failure::timed_out()),
        }
    }

    /// Begins a refresh of `entry`, a popular answer, if it is about to expire.
    pub(super) fn prefetch(&self, route: &Route, entry: &Entry, refresh: impl FnOnce() -> Refresh, now: UnixMillis) {
        if route.config.lifetimes.prefetch && entry.is_ending(now) && entry.claim_refresh(now, REFRESH_INTERVAL) {
            self.cache.metrics.prefetches.inc();
            self.refresh_later(refresh());
        }
    }

    fn stale(&self, route: &Route, entry: Arc<Entry>) -> Found {
        self.cache.metrics.stale.inc();
        entry.note_asked(self.now());
        let age = stale_age(route, &entry);
        Found::kept(entry, age, ServedFrom::Stale)
    }

    /// An answer that is too old while upstreams work is still better than none when no upstream can be reached.
    fn last_resort(&self, route: &Route, stored: Option<Arc<Entry>>, failure: Failure) -> Result<Found, Failure> {
        match stored {
            Some(entry) if route.config.lifetimes.serve_stale && failure.is_unreachable() => {
                Ok(self.stale(route, entry))
            }
            _ => Err(failure),
        }
    }

    /// Hands `refresh` to the background. If the queue is full, a client's question will do it.
    pub(super) fn refresh_later(&self, refresh: Refresh) {
        let _ = self.refreshes.try_send(refresh);
    }

    /// Asks upstreams again, without a client.
    pub(super) async fn refresh(self: &Arc<Self>, Refresh { question, via }: Refresh) -> Option<Outcome> {
        let routes = self.routes.load_full();
        let (route, key) = place(&routes, &question, via).ok()?;
        let start = || self.exchange(&routes, route, &key, question, via);
        let mut result = self.in_flight.start(key.as_bytes(), start);
        result.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// An exchange with the upstreams of `route`, from its place among those in flight to the cache.
    fn exchange(
        self: &Arc<Self>,
        routes: &Arc<Routes>,
        route: &Arc<Route>,
        key: &Key,
        question: Question,
        via: Via,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let (asker, mut edns_options) = (asking(), Vec::new());
        for option in &route.config.edns_options {
            option.put(&question, asker.as_ref(), &mut edns_options);
        }
        let exchange = Exchange {
            inner: Arc::clone(self),
            routes: Arc::clone(routes),
            route: Arc::clone(route),
            // Futures that hold it by value would be larger by its 270 bytes at each level.
            key: Box::new(*key),
            question,
            via,
            client: client(),
            edns_options,
        };
        async move { exchange.run().await }
    }
}

task_local! {
    /// The client whose question a task resolves.
    pub(super) static ASKER: Asker;
}

/// The client that a place is taken for; unspecified where no client waits, as for a refresh.
fn client() -> IpAddr {
    asking().map_or(Ipv4Addr::UNSPECIFIED.into(), |asker| asker.client.ip())
}

/// The client whose question is resolved; `None` where no client asks, as for the tools.
pub(super) fn asking() -> Option<Asker> {
    ASKER.try_with(|asker| *asker).ok()
}

/// A question on its way to the upstreams of its route.
struct Exchange {
    inner: Arc<Inner>,
    routes: Arc<Routes>,
    route: Arc<Route>,
    key: Box<Key>,
    question: Question,
    via: Via,
    /// For its share of the slots.
    client: IpAddr,
    /// As they stand in an OPT record.
    edns_options: Vec<u8>,
}

impl Exchange {
    async fn run(self) -> Outcome {
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
        for (on, next) in route.next() {
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
        let denial = (answered.sanitized.parts.kind, answered.upstream.label());
        if known.is_none()
            && let Some(held) = inner.held_with_other_flags(&self.key, &self.question, denial)
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
        if sanitized.parts.kind == Kind::NxDomain
            && inner.has_held_address(&self.key, &self.question, &route.config.lifetimes, inner.now())
        {
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

    /// The answer that counts after a denial of a name that was good.
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
        inner.hold(&self.key, known, (denied.sanitized.parts.kind, denied.upstream.label()), began);
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
    /// Whether `name` is none of the cluster's, and not pinned.
    pub(super) fn is_outside(&self, name: &Name) -> bool {
        let context = &self.environment.records;
        let batch = context.load();
        let question = Question::new(name.clone(), Rtype::A);
        let records = context.records(&batch, self.now());
        matches!(context.rules().local(&records, question.by_ref()), Local::Outside)
    }
}

/// The route of `question` and the key its answer is stored under.
pub fn place<'r>(routes: &'r Routes, question: &Question, via: Via) -> Result<(&'r Arc<Route>, Key), Failure> {
    let route = match via {
        Via::Fallback => routes.cluster_fallback.as_ref().ok_or_else(Failure::not_ready)?,
        Via::Zone => routes.find(&question.name).ok_or_else(Failure::no_route)?,
        Via::Route(id) => routes.get(id).ok_or_else(Failure::no_route)?,
    };
    Ok((route, Key::new(route.id, question.by_ref())))
}

/// How TTLs read on the stale answer `entry`. While its name is denied they are no longer than the records were to live.
pub fn stale_age(route: &Route, entry: &Entry) -> Age {
    let ttl = seconds(route.config.lifetimes.stale_ttl);
    Age::Stale { ttl: if entry.is_denied() { ttl.min(HELD_TTL_MAX).min(entry.ttl()) } else { ttl } }
}

/// Brings every TTL within what the operator allows and returns how long the answer is good for.
fn cap(sanitized: &mut Sanitized, lifetimes: &Lifetimes) -> u32 {
    let kind = sanitized.parts.kind;
    let capped = |ttl| lifetimes.capped(kind, ttl);
    let each = |record: &mut Record| record.ttl = capped(record.ttl);
    sanitized.parts.answers.iter_mut().chain(&mut sanitized.parts.authorities).for_each(each);
    capped(sanitized.ttl)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
