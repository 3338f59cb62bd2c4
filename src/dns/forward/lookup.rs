//! One name on its own route: from the cache, from upstream, or from the cache past its time.
//!
//! Here and nowhere else is decided what may be served and what may be kept.

use std::{sync::Arc, time::Duration};

use hickory_proto::rr::{Name, Record};
use tokio::time::Instant;

use super::{
    Failure, Inner, Wanted,
    observe::FailureKind,
    route::Route,
    upstream::{Answered, Ask, Attempts, Failed, Sanitized, race},
};
use crate::{
    dns::{
        cache::{Age, Entry, Key, Kind, Lifetimes},
        request::ServedFrom,
    },
    sys::UnixMillis,
    wire::EdeCode,
};

/// One attempt to renew a stale name in this time (RFC 8767, 5 asks for at most one every 30 s; sooner is kinder here).
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// With every upstream known to fail, a question is given this long before the client is told.
const BUDGET_DOWN: Duration = Duration::from_secs(1);
/// How long a second upstream may take to confirm that a name is gone.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);
/// Two answers of one upstream that a name is gone count if they are this far apart.
const CONFIRM_AFTER: Duration = Duration::from_secs(2);

/// An answer and how it may be used.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Arc<Entry>,
    pub age: Age,
    pub from: ServedFrom,
}

/// How an exchange ended, for all who wait for it.
pub type Outcome = Result<Arc<Entry>, Failure>;

impl Inner {
    /// Looks `wanted` up until `deadline`.
    pub(super) async fn lookup(self: &Arc<Self>, wanted: &Wanted, deadline: Instant) -> Result<Found, Failure> {
        let (route, key) = self.place(wanted)?;
        let now = self.now();
        let lifetimes = &route.config.lifetimes;
        let stored = self.cache.get(&key);
        if let Some(entry) = &stored {
            if entry.is_fresh(now) {
                self.cache.metrics.hits.inc();
                self.prefetch(&route, entry, wanted, now);
                return Ok(Found { entry: Arc::clone(entry), age: Age::Fresh, from: ServedFrom::Cache });
            }
            if let Some(found) = self.stale_at_once(&route, entry, wanted, now) {
                return Ok(found);
            }
        }
        if stored.is_none()
            && let Some(found) = self.cut(&route, wanted, now)
        {
            return Ok(found);
        }
        self.cache.metrics.misses.inc();
        let kept = stored.as_ref().filter(|entry| may_be_stale(&route, entry, now)).cloned();
        if route.is_looped() {
            return kept.map(|entry| self.stale(&route, entry)).ok_or_else(Failure::looped);
        }
        if route.has_nobody() {
            self.metrics().down.inc();
            return self.last_resort(&route, stored, Failure::nobody(&route));
        }
        if kept.is_none()
            && let Some(failure) = self.failures.get(key.as_bytes(), now)
        {
            return self.last_resort(&route, stored, failure.again());
        }
        let patience = match &kept {
            Some(_) => deadline.min(Instant::now() + lifetimes.client_timeout),
            None => deadline,
        };
        let waiter = route.places.try_acquire().ok().and_then(|place| {
            let start = || Arc::clone(self).ask_upstreams(Arc::clone(&route), Box::new(key), wanted.clone());
            self.in_flight.join(key.as_bytes(), start).ok().map(|waiter| (place, waiter))
        });
        let outcome = match waiter {
            None => {
                self.metrics().over_limit.inc();
                Err(Failure::busy())
            }
            Some((_place, waiter)) => match tokio::time::timeout_at(patience, waiter.outcome()).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => Err(Failure::broken_off()),
                Err(_) => Err(Failure::timed_out()),
            },
        };
        match (outcome, kept) {
            (Ok(entry), _) => Ok(Found { entry, age: Age::Fresh, from: ServedFrom::Upstream }),
            (Err(_), Some(entry)) => {
                entry.refresh_failed(self.now());
                Ok(self.stale(&route, entry))
            }
            (Err(failure), None) => self.last_resort(&route, stored, failure),
        }
    }

    /// The route of `wanted` and what its answer is stored under.
    pub(super) fn place(&self, wanted: &Wanted) -> Result<(Arc<Route>, Key), Failure> {
        let routes = self.routes.load();
        let route = if wanted.cluster_fallback {
            routes.cluster_fallback.as_ref().ok_or_else(Failure::not_ready)?
        } else {
            routes.find(&wanted.wire).ok_or_else(Failure::no_route)?
        };
        let Wanted { wire, qtype, qclass, dnssec_ok, checking_disabled, .. } = wanted;
        let key = Key::new(route.id, wire, *qtype, *qclass, *dnssec_ok, *checking_disabled);
        Ok((Arc::clone(route), key.ok_or_else(Failure::no_route)?))
    }

    /// Starts a refresh if `entry` is popular and about to expire.
    pub(super) fn prefetch(&self, route: &Route, entry: &Entry, wanted: &Wanted, now: UnixMillis) {
        if route.config.lifetimes.prefetch
            && entry.is_popular()
            && entry.is_ending(now)
            && entry.claim_refresh(now, REFRESH_INTERVAL)
        {
            self.cache.metrics.prefetches.inc();
            self.refresh_later(wanted.clone());
        }
    }

    /// The stale answer, if the client is not to wait for a refresh.
    fn stale_at_once(&self, route: &Route, entry: &Arc<Entry>, wanted: &Wanted, now: UnixMillis) -> Option<Found> {
        if !may_be_stale(route, entry, now) {
            return None;
        }
        let first = route.config.lifetimes.client_timeout.is_zero();
        if first && !route.is_down() && entry.claim_refresh(now, REFRESH_INTERVAL) {
            self.refresh_later(wanted.clone());
        }
        (first || serves_stale_now(route, entry, now)).then(|| self.stale(route, Arc::clone(entry)))
    }

    fn stale(&self, route: &Route, entry: Arc<Entry>) -> Found {
        self.cache.metrics.stale.inc();
        Found { entry, age: stale_age(route), from: ServedFrom::Stale }
    }

    /// What is too old to be served while upstreams work is still better than nothing when none could be reached.
    fn last_resort(&self, route: &Route, stored: Option<Arc<Entry>>, failure: Failure) -> Result<Found, Failure> {
        match stored {
            Some(entry) if route.config.lifetimes.serve_stale && failure.ede == EdeCode::NO_REACHABLE_AUTHORITY => {
                Ok(self.stale(route, entry))
            }
            _ => Err(failure),
        }
    }

    /// Hands `wanted` to the background; a full queue means that it is asked for again soon enough.
    pub(super) fn refresh_later(&self, wanted: Wanted) {
        let _ = self.refreshes.try_send(wanted);
    }

    /// Renews `wanted` for nobody in particular.
    pub(super) async fn refresh(self: &Arc<Self>, wanted: Wanted) {
        let Ok((route, key)) = self.place(&wanted) else { return };
        let mut result =
            self.in_flight.start(key.as_bytes(), || Arc::clone(self).ask_upstreams(route, Box::new(key), wanted));
        let _ = result.wait_for(Option::is_some).await;
    }

    /// One exchange with the upstreams of `route`, from slot to cache.
    async fn ask_upstreams(self: Arc<Self>, route: Arc<Route>, key: Box<Key>, wanted: Wanted) -> Outcome {
        let Ok(_slot) = route.slots.try_acquire() else {
            self.metrics().over_limit.inc();
            return Err(Failure::busy());
        };
        self.metrics().in_flight.inc();
        let outcome = self.ask_and_keep(&route, &key, &wanted).await;
        self.metrics().in_flight.dec();
        if let Err(failure) = &outcome {
            let now = self.now();
            if let Some(entry) = self.cache.get(&key) {
                entry.refresh_failed(now);
            }
            self.failures.insert(key.as_bytes(), failure.clone(), now);
        }
        outcome
    }

    async fn ask_and_keep(self: &Arc<Self>, route: &Arc<Route>, key: &Key, wanted: &Wanted) -> Outcome {
        // A little less than clients wait, so that they learn the reason.
        let budget = route.config.budget * 49 / 50;
        let down = route.is_down();
        if down {
            self.metrics().down.inc();
        }
        let budget = if down { BUDGET_DOWN.min(budget) } else { budget };
        let attempts = Attempts::new(route.order());
        let answered = self
            .ask(route, attempts, wanted, Instant::now() + budget)
            .await
            .map_err(|failed| Failure::failed(&failed))?;
        let known = self.cache.holds_data(key).filter(|_| route.config.lifetimes.serve_stale);
        let sanitized = match known {
            // Without proof it is no reason to give up what is known.
            Some(_) if answered.sanitized.unproven => return Err(Failure::unconfirmed()),
            Some(known) if route.config.lifetimes.confirm_negative && answered.sanitized.parts.kind != Kind::Data => {
                self.confirm(route, wanted, &known, answered).await?
            }
            _ => answered.sanitized,
        };
        self.keep(route, key, wanted, sanitized)
    }

    async fn ask(
        &self,
        route: &Arc<Route>,
        attempts: Attempts,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Result<Answered, Failed> {
        let Wanted { qtype, qclass, dnssec_ok, checking_disabled, .. } = *wanted;
        let ask = Ask { name: &wanted.wire, qtype, qclass, dnssec_ok, checking_disabled };
        let routes = self.routes.load_full();
        let ours = |name: &Name| {
            // Who stands in for the cluster speaks for all its names, and there is nobody else to ask for them.
            wanted.cluster_fallback
                || routes.find_name(name).is_some_and(|other| Arc::ptr_eq(other, route)) && !self.is_own(name)
        };
        race(route.exchange_options(), attempts, &wanted.name, &ask, ours, deadline, self.metrics()).await
    }

    /// A name that was good is said to be gone: believes it if a second upstream, or the same one later, says so too.
    async fn confirm(
        self: &Arc<Self>,
        route: &Arc<Route>,
        wanted: &Wanted,
        known: &Entry,
        answered: Answered,
    ) -> Result<Sanitized, Failure> {
        let others: Vec<_> =
            route.order().into_iter().filter(|other| !Arc::ptr_eq(other, &answered.upstream)).collect();
        if !others.is_empty() && !others.iter().all(|other| other.is_failing()) {
            let second = self.ask(route, Attempts::new(others), wanted, Instant::now() + CONFIRM_WAIT).await;
            match second {
                Ok(second) if !second.sanitized.unproven => return Ok(second.sanitized),
                // Silence and what comes without proof confirm nothing.
                Ok(_) | Err(_) => {}
            }
        }
        if known.doubt(self.now(), CONFIRM_AFTER) {
            return Ok(answered.sanitized);
        }
        let (inner, wanted) = (Arc::clone(self), wanted.clone());
        tokio::spawn(async move {
            tokio::time::sleep(CONFIRM_AFTER).await;
            inner.refresh_later(wanted);
        });
        Err(Failure::unconfirmed())
    }

    /// Makes an entry of `sanitized`, and stores it if it may be kept.
    fn keep(&self, route: &Route, key: &Key, wanted: &Wanted, mut sanitized: Sanitized) -> Outcome {
        self.failures.remove(key.as_bytes());
        let keep = route.config.lifetimes.keep;
        let ttl = if keep { cap(&mut sanitized, &route.config.lifetimes) } else { sanitized.ttl };
        let now = self.now();
        let entry = Entry::new(&sanitized.parts, now, ttl).map(Arc::new).ok_or_else(Failure::too_large)?;
        if keep && ttl > 0 && !sanitized.unproven {
            self.cache.insert(key, Arc::clone(&entry));
            self.keep_cut(route, wanted, &entry, now);
        }
        Ok(entry)
    }
}

/// Whether `entry` may be served past its TTL: without end while nobody answers for its zone, or nobody to any use.
pub fn may_be_stale(route: &Route, entry: &Entry, now: UnixMillis) -> bool {
    if !route.config.lifetimes.serve_stale {
        return false;
    }
    let past = entry.age(now).saturating_sub(Duration::from_secs(entry.ttl().into()));
    past <= route.config.lifetimes.stale_max || route.is_useless()
}

/// Whether a client gets the stale `entry` without waiting: nobody answers, or somebody waited in vain just now.
pub fn serves_stale_now(route: &Route, entry: &Entry, now: UnixMillis) -> bool {
    route.is_down() || entry.refresh_failed_within(now, REFRESH_INTERVAL)
}

/// How TTLs read on stale answers of `route`.
pub fn stale_age(route: &Route) -> Age {
    Age::Stale { ttl: seconds(route.config.lifetimes.stale_ttl) }
}

/// Brings every TTL within what the operator allows and returns how long the answer is good for.
fn cap(sanitized: &mut Sanitized, lifetimes: &Lifetimes) -> u32 {
    let (low, high) = match sanitized.parts.kind {
        Kind::Data => (seconds(lifetimes.min_ttl), seconds(lifetimes.max_ttl)),
        Kind::NoData | Kind::NxDomain => (seconds(lifetimes.min_negative_ttl), seconds(lifetimes.negative_ttl)),
    };
    let capped = |ttl: u32| ttl.max(low).min(high.max(low));
    let each = |record: &mut Record| record.ttl = capped(record.ttl);
    sanitized.parts.answers.iter_mut().chain(&mut sanitized.parts.authorities).for_each(each);
    capped(sanitized.ttl)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

impl Failure {
    fn no_route() -> Self {
        Self { ede: EdeCode::NO_REACHABLE_AUTHORITY, text: "no upstream for this name".into() }
    }

    /// There is a route, and nobody on it.
    fn nobody(route: &Route) -> Self {
        let file = route.missing().map(|missing| format!("no upstreams in {}", missing.path.display()));
        file.map_or_else(Self::no_route, |text| Self { text, ..Self::no_route() })
    }

    fn not_ready() -> Self {
        Self { ede: EdeCode::NOT_READY, text: "no records yet".into() }
    }

    fn busy() -> Self {
        Self { ede: EdeCode::OTHER, text: "too many questions in flight".into() }
    }

    fn broken_off() -> Self {
        Self { ede: EdeCode::OTHER, text: "broken off".into() }
    }

    fn timed_out() -> Self {
        Self { ede: EdeCode::NO_REACHABLE_AUTHORITY, text: "no answer in time".into() }
    }

    fn looped() -> Self {
        Self { ede: EdeCode::NO_REACHABLE_AUTHORITY, text: "forwarding loop".into() }
    }

    fn unconfirmed() -> Self {
        Self { ede: EdeCode::NETWORK_ERROR, text: "unconfirmed".into() }
    }

    pub(super) fn too_large() -> Self {
        Self { ede: EdeCode::NETWORK_ERROR, text: "answer over 65,535 bytes".into() }
    }

    /// The same failure, told from memory.
    fn again(mut self) -> Self {
        self.text.push_str(" (cached)");
        self
    }

    fn failed(failed: &Failed) -> Self {
        let ede = match failed.kind {
            FailureKind::Timeout | FailureKind::Io | FailureKind::Tls => EdeCode::NO_REACHABLE_AUTHORITY,
            _ => EdeCode::NETWORK_ERROR,
        };
        Self { ede, text: format!("{} {}", failed.upstream, failed.kind.label()) }
    }
}
