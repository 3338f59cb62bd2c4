//! The apiserver's health as requests see it: latency, refusals, requests given up.
//!
//! A process has one; every request of the process feeds it. Sends no request and decides nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus::IntCounter;
use tokio::time::Instant;

use super::server::Step;
use crate::{
    report::{ApiserverStatus, FailingAddress, Listing, Measures, Reach, Time},
    source::{Resource, assemble::Part, metrics::Verb},
    sys::{Lock, UnixMillis},
};

/// Over how long latency, refusals and requests are summed up.
const WINDOW: Duration = Duration::from_secs(60);
/// Most events remembered; a process sends far fewer requests in a minute.
const EVENTS_MAX: usize = 1024;

/// Measures of one apiserver, as this process sees it. Clones of [`Metrics`](crate::source::Metrics) share one.
#[derive(Debug)]
pub struct Health {
    inner: Lock<Inner>,
    abandoned: IntCounter,
}

impl Default for Health {
    fn default() -> Self {
        let abandoned = IntCounter::new(
            "holdfast_source_abandoned_total",
            "Requests to the apiserver cancelled before their answer began. A slow server may work on them all the same.",
        );
        Self { inner: Lock::default(), abandoned: abandoned.expect("a valid name") }
    }
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// Requests without an answer yet, by when they began.
    under_way: BTreeMap<u64, UnderWay>,
    /// Connections being opened: which step each is at, and since when.
    opening: BTreeMap<u64, (Step, Instant)>,
    events: VecDeque<(Instant, What)>,
    /// When anything last came in: the head of an answer, a piece of a list, an event.
    life: Option<Instant>,
    /// Objects received of each list that is under way.
    lists: BTreeMap<Part, usize>,
    server: String,
    lost: Option<Lost>,
    went_back_at: Option<UnixMillis>,
    /// Addresses whose last connection failed; at most those that are dialled.
    failing: BTreeMap<String, Lost>,
}

#[derive(Clone, Debug)]
struct Lost {
    since: UnixMillis,
    reason: String,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    begun: Instant,
    verb: Verb,
    of: Resource,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Sent,
    Answered(Duration),
    /// A refusal with this status code.
    Refused(u16),
}

/// A request that was not answered for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unanswered {
    /// Since when nothing came in, counted from the oldest request under way.
    pub since: Instant,
    /// The step the request waits for.
    pub step: Step,
    pub verb: Verb,
    pub of: Resource,
}

impl Health {
    /// A request is about to be sent. Dropped on the wire, before
    /// [`Sent::answered`] or [`Sent::failed`], it counts as abandoned.
    pub(super) fn begin(&self, verb: Verb, of: Resource) -> Sent<'_> {
        let mut inner = self.inner.lock();
        let id = inner.id();
        let begun = Instant::now();
        inner.under_way.insert(id, UnderWay { begun, verb, of });
        inner.note(begun, What::Sent);
        Sent { health: self, id, begun, settled: false, on_wire: Arc::default() }
    }

    /// A connection is being opened; drop the guard when it is open or failed.
    pub(super) fn opening(&self, step: Step) -> Opening<'_> {
        let mut inner = self.inner.lock();
        let id = inner.id();
        inner.opening.insert(id, (step, Instant::now()));
        Opening { health: self, id }
    }

    /// A piece of an answer came in.
    pub(super) fn heard(&self) {
        self.inner.lock().life = Some(Instant::now());
    }

    pub(in crate::source) fn abandoned(&self) -> &IntCounter {
        &self.abandoned
    }

    /// The server asked from now on.
    pub(super) fn asks(&self, server: &str) {
        server.clone_into(&mut self.inner.lock().server);
    }

    /// The server is not reachable, for this reason; or it is again.
    pub(super) fn lost(&self, reason: Option<&str>, now: UnixMillis) {
        let mut inner = self.inner.lock();
        let since = inner.lost.take().map_or(now, |lost| lost.since);
        inner.lost = reason.map(|reason| Lost { since, reason: reason.to_owned() });
    }

    /// The server has an older state than before.
    pub(super) fn went_back(&self, now: UnixMillis) {
        self.inner.lock().went_back_at = Some(now);
    }

    /// A connection to this address failed, for this reason; or it is open.
    pub(super) fn dialled(&self, address: &str, reason: Option<&str>, now: UnixMillis) {
        let failing = &mut self.inner.lock().failing;
        let since = failing.remove(address).map_or(now, |lost| lost.since);
        if let Some(reason) = reason {
            failing.insert(address.to_owned(), Lost { since, reason: reason.to_owned() });
        }
    }

    /// Forgets addresses that are dialled no more.
    pub(super) fn keep_dialled(&self, wanted: impl Fn(&str) -> bool) {
        self.inner.lock().failing.retain(|address, _| wanted(address));
    }

    /// A list is under way, until the guard is dropped.
    pub(super) fn listing(&self, part: Part) -> Progress<'_> {
        self.inner.lock().lists.insert(part, 0);
        Progress { health: self, part }
    }

    /// How the server is doing. A latency above `slow`, or a refusal, makes it slow.
    pub fn status(&self, slow: Duration) -> ApiserverStatus {
        let measures = self.measures();
        let inner = self.inner.lock();
        let is_slow = measures.latency_seconds > slow.as_secs_f64()
            || measures.busy_per_minute > 0
            || measures.refused_per_minute > 0;
        let state = match (&inner.lost, is_slow) {
            (Some(_), _) => Reach::Unreachable,
            (None, true) => Reach::Slow,
            (None, false) => Reach::Fresh,
        };
        let lists = inner.lists.iter();
        ApiserverStatus {
            server: inner.server.clone(),
            state,
            since: inner.lost.as_ref().map(|lost| Time(lost.since)),
            reason: inner.lost.as_ref().map(|lost| lost.reason.clone()),
            went_back_at: inner.went_back_at.map(Time),
            measures,
            lists: lists
                .map(|(part, objects)| Listing { resource: part.objects().as_str().into(), objects: *objects })
                .collect(),
            endpoints: Vec::new(),
            failing: inner
                .failing
                .iter()
                .map(|(address, Lost { since, reason })| FailingAddress {
                    address: address.clone(),
                    since: Time(*since),
                    reason: reason.clone(),
                })
                .collect(),
        }
    }

    /// When anything last came in.
    pub(super) fn life(&self) -> Option<Instant> {
        self.inner.lock().life
    }

    /// The request that has waited longest, if there is one.
    pub(super) fn unanswered(&self) -> Option<Unanswered> {
        let inner = self.inner.lock();
        let (_, oldest) = inner.under_way.first_key_value()?;
        let since = inner.life.map_or(oldest.begun, |life| life.max(oldest.begun));
        let step = inner.opening.first_key_value().map_or(Step::Answer, |(_, (step, _))| *step);
        Some(Unanswered { since, step, verb: oldest.verb, of: oldest.of })
    }

    pub fn measures(&self) -> Measures {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        inner.forget(now);
        let mut measures = Measures { abandoned_total: self.abandoned.get(), ..Measures::default() };
        let waiting = inner.under_way.first_key_value().map(|(_, oldest)| now.saturating_duration_since(oldest.begun));
        let mut slowest = waiting.unwrap_or_default();
        for (_, what) in &inner.events {
            match what {
                What::Sent => measures.requests_per_minute += 1,
                What::Answered(took) => slowest = slowest.max(*took),
                What::Refused(429) => measures.busy_per_minute += 1,
                What::Refused(_) => measures.refused_per_minute += 1,
            }
        }
        measures.latency_seconds = slowest.as_secs_f64();
        measures
    }
}

impl Inner {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn note(&mut self, at: Instant, what: What) {
        self.forget(at);
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((at, what));
    }

    fn forget(&mut self, now: Instant) {
        while self.events.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW) {
            self.events.pop_front();
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    health: &'a Health,
    id: u64,
    begun: Instant,
    settled: bool,
    /// The server has, or may have, the request.
    on_wire: Arc<AtomicBool>,
}

impl Sent<'_> {
    pub(super) fn on_wire(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.on_wire)
    }

    /// The head of the answer is here.
    pub(super) fn answered(mut self, status: http::StatusCode) {
        self.settled = true;
        let now = Instant::now();
        let mut inner = self.health.inner.lock();
        inner.life = Some(now);
        inner.note(now, What::Answered(now.saturating_duration_since(self.begun)));
        // 404 and 409 are ordinary answers about a Lease, 410 and 422 about a list.
        if !status.is_success() && !matches!(status.as_u16(), 404 | 409 | 410 | 422) {
            inner.note(now, What::Refused(status.as_u16()));
        }
    }

    /// The connection could not be opened or broke: the request failed, and nothing was given up.
    pub(super) fn failed(mut self) {
        self.settled = true;
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.health.inner.lock().under_way.remove(&self.id);
        if !self.settled && self.on_wire.load(Ordering::Relaxed) {
            self.health.abandoned.inc();
        }
    }
}

/// A list under way.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    health: &'a Health,
    part: Part,
}

impl Progress<'_> {
    /// Notes the objects received so far.
    pub(super) fn objects(&self, objects: usize) {
        self.health.inner.lock().lists.insert(self.part, objects);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.health.inner.lock().lists.remove(&self.part);
    }
}

/// A connection being opened.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    health: &'a Health,
    id: u64,
}

impl Opening<'_> {
    /// The next step begins.
    pub(super) fn step(&self, step: Step) {
        self.health.inner.lock().opening.insert(self.id, (step, Instant::now()));
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.health.inner.lock().opening.remove(&self.id);
    }
}

/// A time limit that grows with what is seen: with each wait it ends, and with how long an answer really took.
#[derive(Debug, Default)]
pub(super) struct Limit {
    level: Lock<usize>,
}

/// The limits, in seconds.
const LIMITS_S: [u64; 5] = [2, 4, 8, 15, 30];

impl Limit {
    pub(super) fn now(&self) -> Duration {
        Duration::from_secs(LIMITS_S[*self.level.lock()])
    }

    /// A wait ended by the limit.
    pub(super) fn ran_out(&self) {
        let mut level = self.level.lock();
        *level = (*level + 1).min(LIMITS_S.len() - 1);
    }

    /// A wait ended well after this long. The limit leaves room for three times that.
    pub(super) fn took(&self, took: Duration) {
        let wanted = LIMITS_S.iter().position(|limit| Duration::from_secs(*limit) >= took * 3);
        *self.level.lock() = wanted.unwrap_or(LIMITS_S.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Objects;

    const SERVICES: Resource = Resource::Of(Objects::Services);

    #[tokio::test(start_paused = true)]
    async fn latency_is_the_slowest_answer_of_a_minute_and_counts_what_is_under_way() {
        let health = Health::default();
        assert_eq!(health.measures(), Measures::default());
        let first = health.begin(Verb::List, SERVICES);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!((health.measures().latency_seconds - 3.0).abs() < 0.1, "under way");
        first.answered(http::StatusCode::OK);
        health.begin(Verb::Get, Resource::Leases).answered(http::StatusCode::TOO_MANY_REQUESTS);
        health.begin(Verb::Get, Resource::Leases).answered(http::StatusCode::FORBIDDEN);
        health.begin(Verb::Get, Resource::Leases).answered(http::StatusCode::NOT_FOUND);
        let measures = health.measures();
        assert!((measures.latency_seconds - 3.0).abs() < 0.1);
        assert_eq!((measures.requests_per_minute, measures.busy_per_minute, measures.refused_per_minute), (4, 1, 1));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(health.measures(), Measures::default(), "a minute later");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_dropped_before_its_answer_is_abandoned_and_one_whose_connection_broke_is_not() {
        let health = Health::default();
        let given_up = health.begin(Verb::List, SERVICES);
        given_up.on_wire().store(true, Ordering::Relaxed);
        drop(given_up);
        drop(health.begin(Verb::List, SERVICES));
        health.begin(Verb::List, SERVICES).failed();
        assert_eq!(health.measures().abandoned_total, 1);
        assert_eq!(health.unanswered(), None);
    }

    #[test]
    fn an_address_fails_since_its_first_failure_until_it_takes_a_connection() {
        let health = Health::default();
        let failing = || -> Vec<(String, u64, String)> {
            let of = |at: FailingAddress| (at.address, at.since.0.0, at.reason);
            health.status(Duration::from_secs(1)).failing.into_iter().map(of).collect()
        };
        health.dialled("10.0.0.1:6443", Some("connect: refused"), UnixMillis(1_000));
        health.dialled("10.0.0.1:6443", Some("TLS handshake: timed out"), UnixMillis(6_000));
        health.dialled("10.0.0.2:6443", Some("connect: timed out"), UnixMillis(2_000));
        let [a, b] = [
            ("10.0.0.1:6443".to_owned(), 1_000, "TLS handshake: timed out".to_owned()),
            ("10.0.0.2:6443".to_owned(), 2_000, "connect: timed out".to_owned()),
        ];
        assert_eq!(failing(), [a.clone(), b.clone()]);
        health.dialled("10.0.0.2:6443", None, UnixMillis(7_000));
        assert_eq!(failing(), [a]);
        health.dialled("10.0.0.2:6443", Some("connect: timed out"), UnixMillis(8_000));
        health.keep_dialled(|address| address == "10.0.0.2:6443");
        assert_eq!(failing(), [(b.0, 8_000, b.2)], "a new failure, and an address that is asked no more is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_fresh_slow_or_not_reachable() {
        let (health, slow) = (Health::default(), Duration::from_secs(1));
        assert_eq!(health.status(slow).state, Reach::Fresh);
        health.begin(Verb::Get, Resource::Leases).answered(http::StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(health.status(slow).state, Reach::Slow);
        health.lost(Some("refused"), UnixMillis(5));
        health.lost(Some("timed out"), UnixMillis(9));
        let status = health.status(slow);
        assert_eq!(
            (status.state, status.since, status.reason.as_deref()),
            (Reach::Unreachable, Some(Time(UnixMillis(5))), Some("timed out"))
        );
        health.lost(None, UnixMillis(10));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(health.status(slow), ApiserverStatus::default());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_oldest_request_and_ends_with_any_sign_of_life() {
        let health = Health::default();
        let _list = health.begin(Verb::List, SERVICES);
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(20)).await;
        let _lease = health.begin(Verb::Get, Resource::Leases);
        let opening = health.opening(Step::Connect);
        opening.step(Step::Tls);
        let unanswered = health.unanswered().unwrap();
        assert_eq!((unanswered.since, unanswered.step, unanswered.of), (begun, Step::Tls, SERVICES));
        health.heard();
        assert_eq!(health.unanswered().unwrap().since, Instant::now(), "an event on a watch");
    }

    #[test]
    fn limits_grow_when_they_end_a_wait_and_follow_what_answers_took() {
        let limit = Limit::default();
        let mut seen = vec![limit.now().as_secs()];
        for _ in 0..5 {
            limit.ran_out();
            seen.push(limit.now().as_secs());
        }
        assert_eq!(seen, [2, 4, 8, 15, 30, 30]);
        for (took_ms, expected) in [(10, 2), (700, 4), (1_100, 4), (4_000, 15), (20_000, 30)] {
            limit.took(Duration::from_millis(took_ms));
            assert_eq!(limit.now().as_secs(), expected, "{took_ms} ms");
        }
    }
}
