//! A name on its own route: from the cache, from upstreams, or from the cache past its TTL (RFC 8767).
//!
//! [`State`] says what is stored; here and nowhere else is decided what may be served (what is kept: `fetch`):
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

mod denials;
mod failures;
mod fetch;
mod in_flight;
mod nxdomain_cut;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::Record;
use tokio::time::Instant;

use self::fetch::Fetch;
pub use self::{denials::Released, failures::Failures, in_flight::InFlight};
use super::{
    Failure, Inner,
    route::{Route, Routes, Via},
};
use crate::{
    dns::{
        Question,
        cache::{Age, Entry, Key},
        request::{Asker, ServedFrom},
    },
    sys::UnixMillis,
};

/// Minimum time between two attempts to renew a stale name (RFC 8767, 5 asks for at most one every 30 s; sooner is kinder here).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// Seconds that a held answer lives in a client (RFC 8767, 4).
const HELD_TTL_MAX: u32 = 30;

/// The flags DO and CD of questions, which have answers of their own, the most usual first.
pub const FLAGS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// An answer and how it may be used.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    pub age: Age,
    pub from: ServedFrom,
    /// The first record is of a name of the cluster.
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

/// The result of an exchange, for all that wait for it.
pub type Outcome = Result<Arc<Entry>, Failure>;

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

/// A question on its own route.
pub struct Lookup<'l> {
    pub inner: &'l Arc<Inner>,
    pub routes: &'l Arc<Routes>,
    pub route: &'l Arc<Route>,
    pub key: Key,
    pub question: &'l Question,
    pub via: Via,
    /// `None` where no client asks, as for a refresh.
    pub asker: Option<&'l Asker>,
}

impl<'l> Lookup<'l> {
    /// # Errors
    /// If there is no route.
    pub fn new(
        inner: &'l Arc<Inner>,
        routes: &'l Arc<Routes>,
        question: &'l Question,
        via: Via,
        asker: Option<&'l Asker>,
    ) -> Result<Self, Failure> {
        let (route, key) = place(routes, question, via)?;
        Ok(Self { inner, routes, route, key, question, via, asker })
    }

    /// The answer that the client gets, `deadline` at the latest.
    pub async fn answer(self, deadline: Instant) -> Result<Found, Failure> {
        let Self { inner, route, key, .. } = &self;
        let now = inner.now();
        let stored = inner.cache.get(key);
        let state = State::of(route, stored.as_deref(), now);
        let at_once = match &stored {
            Some(entry) => self.at_once(state, entry, now),
            None => inner.cut(route, self.question, now),
        };
        if let Some(found) = at_once {
            return Ok(found);
        }
        let kept = stored.clone().filter(|_| state == State::StaleIfNeeded);
        let patience = match &kept {
            Some(_) => deadline.min(Instant::now() + route.config.lifetimes.client_timeout),
            None => deadline,
        };
        inner.cache.metrics.misses.inc();
        if route.is_looped() {
            return kept.map(|entry| inner.stale(route, entry)).ok_or_else(Failure::looped);
        }
        if route.has_no_upstreams() {
            inner.metrics().down.inc();
            return inner.last_resort(route, stored, Failure::no_upstreams(route));
        }
        if kept.is_none()
            && let Some(failure) = inner.failures.get(key.as_bytes(), now)
        {
            return inner.last_resort(route, stored, failure.again());
        }
        match (self.fetched(patience).await, kept) {
            (Ok(entry), _) => Ok(Found::kept(entry, Age::Fresh, ServedFrom::Upstream)),
            (Err(Failure::Held(entry)), _) => Ok(inner.stale(route, entry)),
            (Err(_), Some(entry)) => {
                entry.refresh_failed(inner.now());
                Ok(inner.stale(route, entry))
            }
            (Err(failure), None) => inner.last_resort(route, stored, failure),
        }
    }

    /// The stored answer, if the client gets it without waiting.
    fn at_once(&self, state: State, entry: &Arc<Entry>, now: UnixMillis) -> Option<Found> {
        let Self { inner, route, .. } = self;
        let refresh = || Refresh { question: self.question.clone(), via: self.via };
        match state {
            State::Fresh => {
                inner.cache.metrics.hits.inc();
                if entry.record_use(now) {
                    inner.prefetch(route, entry, refresh, now);
                }
                Some(Found::kept(Arc::clone(entry), Age::Fresh, ServedFrom::Cache))
            }
            State::StaleAtOnce => Some(inner.stale(route, Arc::clone(entry))),
            State::StaleFirst => {
                if entry.claim_refresh(now, REFRESH_INTERVAL) {
                    inner.refresh_later(refresh());
                }
                Some(inner.stale(route, Arc::clone(entry)))
            }
            State::StaleIfNeeded | State::TooOld | State::Missing => None,
        }
    }

    /// Waits for the upstreams' answer to the question, which they are asked unless that is under way.
    async fn fetched(&self, patience: Instant) -> Outcome {
        let Self { inner, route, key, .. } = self;
        let waiter = route.places.take(self.client()).and_then(|place| {
            let waiter = inner.in_flight.join(key.as_bytes(), || Fetch::new(self).run());
            waiter.ok().map(|waiter| (place, waiter))
        });
        let Some((_place, waiter)) = waiter else {
            inner.metrics().over_limit.inc();
            return Err(Failure::busy());
        };
        match tokio::time::timeout_at(patience, waiter.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Failure::broken_off()),
            Err(_) => Err(Failure::timed_out()),
        }
    }

    /// The client whose share of the route's limits this takes; unspecified where no client waits.
    pub fn client(&self) -> IpAddr {
        self.asker.map_or(Ipv4Addr::UNSPECIFIED.into(), |asker| asker.client.ip())
    }
}

impl Inner {
    /// Begins a refresh of `entry`, a popular answer, if it is about to expire.
    pub fn prefetch(&self, route: &Route, entry: &Entry, refresh: impl FnOnce() -> Refresh, now: UnixMillis) {
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
    pub fn refresh_later(&self, refresh: Refresh) {
        let _ = self.refreshes.try_send(refresh);
    }

    /// Asks upstreams again, without a client.
    pub async fn refresh(self: &Arc<Self>, Refresh { question, via }: Refresh) -> Option<Outcome> {
        let routes = self.routes.load_full();
        let lookup = Lookup::new(self, &routes, &question, via, None).ok()?;
        let mut result = self.in_flight.start(lookup.key.as_bytes(), || Fetch::new(&lookup).run());
        result.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The route of `question` and the key its answer is stored under.
pub fn place<'r>(routes: &'r Routes, question: &Question, via: Via) -> Result<(&'r Arc<Route>, Key), Failure> {
    let missing = || if via == Via::Fallback { Failure::not_ready() } else { Failure::no_route() };
    let route = routes.via(via, &question.name).ok_or_else(missing)?;
    Ok((route, Key::new(route.id, question.by_ref())))
}

/// The TTL of the stale answer `entry`. While its name is denied, it is no longer than the TTL that its records had.
pub fn stale_age(route: &Route, entry: &Entry) -> Age {
    let ttl = seconds(route.config.lifetimes.stale_ttl);
    Age::Stale { ttl: if entry.is_denied() { ttl.min(HELD_TTL_MAX).min(entry.ttl()) } else { ttl } }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
