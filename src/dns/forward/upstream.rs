//! An upstream and its state: round trip, health, and the features it lacks.
//!
//! Learns only from questions asked; sends nothing by itself.

mod attempts;
mod exchange;
mod https;
mod message;
mod sanitize;
mod tcp;
mod tls;
mod udp;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use self::tcp::{Dial, Pool};
pub use self::{
    attempts::{Answered, Attempts, Failed, Rules, race},
    exchange::{ExchangeOptions, Try},
    https::{PATH as HTTPS_PATH, is_path as is_https_path},
    sanitize::Sanitized,
    tcp::Limits,
    tls::{TlsFiles, Trust, dial, trust},
    udp::limit_sockets,
};
use super::observe::{Metrics, Named};
use crate::{
    dns::cache::BulkDenials,
    report::{UpstreamState, UpstreamStatus},
    sys::{Lock, UnixMillis},
};

/// Before anything was measured (RFC 6298 says 1 s for TCP; resolvers sit closer).
const WAIT_UNKNOWN: Duration = Duration::from_millis(400);
/// Recursion takes time even behind a fast link.
const WAIT_MIN: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Questions without an answer make an upstream failing if it has been silent for this long as well: three lost packets in a
/// burst are no outage.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// The first probes of a failing upstream come this far apart, the later ones further.
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Useless answers in a row that make an upstream useless.
const USELESS_MAX: u32 = 3;
/// How long an upstream without EDNS is asked without it.
const EDNS_RECHECK: Duration = Duration::from_secs(15 * 60);
/// Answers to queries without EDNS, and none to those with it, after which an upstream is asked without.
const PLAIN_ANSWERS: u32 = 2;
/// Different names with FORMERR that show a server not to know EDNS.
const EDNS_REFUSED_NAMES: usize = 3;
/// Queries that may be sent again beyond one for each question: a burst of lost packets.
const RETRIES_MAX: u32 = 50;
/// Answers in a row to queries sent more than once that show a slow upstream, not lost packets.
const UNSURE_MAX: u32 = 3;
/// How long an upstream known to fold case is asked without random case.
const CASE_RECHECK: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub address: SocketAddr,
    /// Over TLS, with the name its certificate must carry.
    pub tls: Option<TlsName>,
    /// Over HTTPS, with this path; `tls` is set then too.
    pub https: Option<String>,
}

/// The name or address that a TLS upstream's certificate must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsName {
    Dns(String),
    Address,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tls, https } = self;
        match (tls, https.as_deref()) {
            (None, _) => write!(f, "{address}")?,
            (Some(_), None) => write!(f, "tls://{address}")?,
            (Some(_), Some(HTTPS_PATH)) => write!(f, "https://{address}")?,
            (Some(_), Some(path)) => write!(f, "https://{address}{path}")?,
        }
        match tls {
            Some(TlsName::Dns(name)) => write!(f, "#{name}"),
            Some(TlsName::Address) | None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct Upstream {
    server: Server,
    /// The address its questions are sent from; `None` as the system chooses.
    pub source: Option<IpAddr>,
    label: Named,
    /// Its TCP or TLS connections.
    pub pool: Pool,
    /// Questions in a row without an answer that make it failing; 0 for never.
    max_fails: u32,
    state: Lock<State>,
    /// A question sent to it came back to us.
    looped: AtomicBool,
    bulk_denials: BulkDenials,
}

#[derive(Debug, Default)]
struct State {
    /// Smoothed round trip and its variation, RFC 6298.
    rtt: Option<(Duration, Duration)>,
    /// Answers to queries that were sent more than once, since the last to one that was not.
    unsure: u32,
    failures: u32,
    failures_total: u64,
    answers_total: u64,
    useless: u32,
    last_answer: Option<Instant>,
    first_failure: Option<Instant>,
    failing_since: Option<Instant>,
    /// A question had no answer: a probe tells whether that was about the question or about the upstream.
    suspected: bool,
    /// A probe had no answer either, and nothing came since.
    probe_lost: bool,
    next_probe: Option<Instant>,
    probe_interval: Duration,
    no_edns_until: Option<Instant>,
    /// It answered a query with EDNS since it last began to fail.
    edns_seen: bool,
    /// Answers to queries without EDNS, one after another, while those with EDNS had none.
    plain_answers: u32,
    /// Hashes of the names that it answered FORMERR with EDNS and something else without.
    edns_refused: Vec<u64>,
    /// Queries sent again, beyond one for each question, taken from [`RETRIES_MAX`].
    retries_used: u32,
    folds_case_until: Option<Instant>,
}

impl Upstream {
    /// An upstream of which nothing is known yet.
    pub fn new(
        server: Server,
        dial: Dial,
        limits: Limits,
        max_fails: u32,
        bulk_denials: BulkDenials,
        metrics: Metrics,
    ) -> Self {
        let label = metrics.named(server.to_string());
        let pool = Pool::new(server.address, dial, limits, metrics);
        let source = limits.source_to(server.address);
        Self {
            server,
            source,
            label,
            pool,
            max_fails,
            state: Lock::default(),
            looped: AtomicBool::new(false),
            bulk_denials,
        }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn label(&self) -> &str {
        self.label.as_str()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// How long to wait before another upstream is asked as well.
    pub fn patience(&self) -> Duration {
        let rtt = self.lock().rtt;
        rtt.map_or(WAIT_UNKNOWN, |(smooth, variation)| (smooth + 4 * variation).clamp(WAIT_MIN, WAIT_MAX))
    }

    /// The round trip that an answer shows: what it took, if that is sure, or if nothing else is known of late.
    pub fn sample(&self, (took, sure): (Duration, bool)) -> Option<Duration> {
        let mut state = self.lock();
        if sure {
            state.unsure = 0;
            return Some(took);
        }
        state.unsure = state.unsure.saturating_add(1);
        (state.rtt.is_none() || state.unsure >= UNSURE_MAX).then_some(took)
    }

    /// Notes an answer, `rtt` after the question if that was measured. Returns whether this ended an outage.
    pub fn answered(&self, rtt: Option<Duration>) -> bool {
        let mut state = self.lock();
        if let Some(sample) = rtt {
            state.rtt = Some(match state.rtt {
                None => (sample, sample / 2),
                Some((smooth, variation)) => ((7 * smooth + sample) / 8, (3 * variation + smooth.abs_diff(sample)) / 4),
            });
        }
        state.failures = 0;
        state.answers_total += 1;
        state.first_failure = None;
        state.last_answer = Some(Instant::now());
        (state.suspected, state.probe_lost) = (false, false);
        state.failing_since.take().is_some()
    }

    /// Notes a question without an answer. Returns whether this began an outage.
    pub fn failed(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.failures = state.failures.saturating_add(1);
        state.failures_total += 1;
        let first = *state.first_failure.get_or_insert(now);
        let silent_since = state.last_answer.unwrap_or(first);
        if !state.suspected && state.last_answer.is_none_or(|at| now.duration_since(at) >= SILENCE_MIN) {
            state.suspected = true;
            state.next_probe = Some(now);
            state.probe_interval = PROBE_MIN;
        }
        let is_silent = now.duration_since(silent_since) >= SILENCE_MIN;
        self.begin_outage(&mut state, is_silent)
    }

    /// Notes a probe without an answer. Returns whether this began an outage.
    pub fn probe_failed(&self) -> bool {
        let mut state = self.lock();
        // An answer to a question may have come meanwhile.
        state.probe_lost = state.suspected;
        self.begin_outage(&mut state, true)
    }

    /// Begins an outage if there is enough evidence: questions without an answer, which may be about their names, and a probe.
    fn begin_outage(&self, state: &mut State, is_silent: bool) -> bool {
        let failed = self.max_fails != 0 && state.failures >= self.max_fails;
        if !(failed && state.probe_lost && is_silent && state.failing_since.is_none()) {
            return false;
        }
        let now = Instant::now();
        state.failing_since = Some(now);
        state.next_probe = Some(now + PROBE_MIN);
        state.probe_interval = PROBE_MIN;
        // Another server may have the address when it answers again.
        state.edns_seen = false;
        true
    }

    /// Notes a useful answer.
    pub fn was_of_use(&self) {
        self.lock().useless = 0;
    }

    /// Notes a useless answer: SERVFAIL, REFUSED and the like.
    pub fn was_of_no_use(&self) {
        let mut state = self.lock();
        state.useless = state.useless.saturating_add(1);
    }

    /// Whether nothing useful has come from it for some questions, answered or not.
    pub fn is_useless(&self) -> bool {
        let state = self.lock();
        state.failing_since.is_some() || state.useless >= USELESS_MAX
    }

    /// Questions it left without an answer since the start.
    pub fn failures_total(&self) -> u64 {
        self.lock().failures_total
    }

    /// Whether a question sent to it came back to us.
    pub fn is_looped(&self) -> bool {
        self.looped.load(Ordering::Relaxed)
    }

    /// Sets the looped flag; returns whether it changed.
    pub fn set_looped(&self, looped: bool) -> bool {
        self.looped.swap(looped, Ordering::Relaxed) != looped
    }

    /// Notes whether it denies a popular name. Returns whether it denies too many from now on.
    pub fn note_popular(&self, name: &[u8], denied: bool, now: UnixMillis) -> bool {
        self.bulk_denials.note(name, denied, now)
    }

    /// Whether it denies so many names that it answered before that its denials are ignored.
    pub fn is_lying(&self, now: UnixMillis) -> bool {
        self.bulk_denials.is_lying(now)
    }

    /// Whether an outage of it has begun and not ended.
    pub fn is_failing(&self) -> bool {
        self.lock().failing_since.is_some()
    }

    /// Takes the turn for a probe, if it is failing or suspected to and the time has come.
    pub fn take_due_probe(&self, every: Option<Duration>) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        if (state.failing_since.is_none() && !state.suspected) || state.next_probe.is_none_or(|at| now < at) {
            return false;
        }
        state.probe_interval = every.unwrap_or_else(|| (state.probe_interval * 3 / 2).min(PROBE_MAX));
        state.next_probe = Some(now + state.probe_interval);
        true
    }

    /// Whether to send an OPT.
    pub fn takes_edns(&self) -> bool {
        self.lock().no_edns_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Whether it may be one that drops queries with EDNS: it never answered any.
    pub fn may_drop_edns(&self) -> bool {
        !self.lock().edns_seen
    }

    /// Notes an answer to a query with EDNS; `known` if the answer has EDNS itself.
    pub fn answered_edns(&self, known: bool) {
        let mut state = self.lock();
        state.edns_seen = true;
        state.plain_answers = 0;
        if known {
            state.edns_refused.clear();
            state.no_edns_until = None;
        }
    }

    /// Notes an answer to a query that was tried without EDNS; after two it is asked without for a while.
    pub fn answered_plain(&self) {
        let mut state = self.lock();
        if state.edns_seen {
            return;
        }
        state.plain_answers += 1;
        if state.plain_answers >= PLAIN_ANSWERS {
            state.plain_answers = 0;
            state.no_edns_until = Some(Instant::now() + EDNS_RECHECK);
        }
    }

    /// Notes that it refuses `name` with EDNS and answers it without. One name may be odd; several are a server that does not
    /// know EDNS.
    pub fn refuses_edns(&self, name: &[u8]) {
        let name = xxh3_64(name);
        let mut state = self.lock();
        if !state.edns_refused.contains(&name) {
            state.edns_refused.push(name);
        }
        if state.edns_refused.len() >= EDNS_REFUSED_NAMES {
            state.edns_refused.clear();
            state.no_edns_until = Some(Instant::now() + EDNS_RECHECK);
        }
    }

    /// Notes a question to it, which allows one query to be sent again.
    pub fn asked(&self) {
        let mut state = self.lock();
        if state.failing_since.is_none() {
            state.retries_used = state.retries_used.saturating_sub(1);
        }
    }

    /// Takes the right to send a query again, if there is one. An overloaded upstream gets at most two queries a question, and one
    /// once it fails.
    pub fn take_retry(&self) -> bool {
        let mut state = self.lock();
        let allowed = state.failing_since.is_none() && state.retries_used < RETRIES_MAX;
        state.retries_used += u32::from(allowed);
        allowed
    }

    /// Whether random case comes back as sent.
    pub fn keeps_case(&self) -> bool {
        self.lock().folds_case_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Notes that it changes the case of the question, as seen over TCP.
    pub fn folds_case(&self) {
        self.lock().folds_case_until = Some(Instant::now() + CASE_RECHECK);
    }

    pub fn status(&self, now: UnixMillis) -> UpstreamStatus {
        let (without_edns, folds_case) = (!self.takes_edns(), !self.keeps_case());
        let state = self.lock();
        UpstreamStatus {
            upstream: self.server.to_string(),
            state: match (state.failing_since, state.last_answer) {
                (Some(_), _) => UpstreamState::Failing,
                (None, Some(_)) => UpstreamState::Up,
                (None, None) => UpstreamState::Unknown,
            },
            rtt_ms: state.rtt.map(|(smooth, _)| smooth.as_secs_f64() * 1e3),
            failures_in_a_row: state.failures,
            failures_total: state.failures_total,
            answers_total: state.answers_total,
            answered_seconds_ago: state.last_answer.map(|at| at.elapsed().as_secs()),
            without_edns,
            folds_case,
            looped: self.is_looped(),
            lying: self.is_lying(now),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Upstream {
        let server = Server { address: ([127, 0, 0, 1], 53).into(), tls: None, https: None };
        let limits = Limits {
            age_max: Duration::from_secs(1),
            idle_max: Duration::from_secs(1),
            idle_connections_max: 0,
            source: None,
        };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Upstream::new(server, Dial::Tcp, limits, 3, BulkDenials::default(), metrics)
    }

    #[test]
    fn patience_follows_the_measured_round_trips_within_its_bounds() {
        let upstream = upstream();
        assert_eq!(upstream.patience(), WAIT_UNKNOWN);
        for (rtt, low, high) in
            [(20, 200, 200), (300, 300, 600), (900, 900, 1_500), (5_000, 1_500, 1_500), (1, 200, 200)]
        {
            for _ in 0..60 {
                upstream.answered(Some(Duration::from_millis(rtt)));
            }
            let patience = upstream.patience().as_millis();
            assert!((low..=high).contains(&patience), "{rtt} ms: {patience} ms");
        }
        upstream.answered(Some(Duration::from_millis(600)));
        assert!(upstream.patience() > Duration::from_millis(300), "one slow answer counts at once");
    }

    #[test]
    fn an_answer_to_a_query_sent_again_measures_nothing_unless_all_are() {
        let upstream = upstream();
        let took = Duration::from_millis(800);
        assert_eq!(upstream.sample((took, false)), Some(took), "nothing else is known");
        upstream.answered(Some(Duration::from_millis(20)));
        for expected in [Some(took), None, None, Some(took), Some(took)] {
            let sure = expected.is_some() && upstream.lock().unsure < UNSURE_MAX - 1;
            assert_eq!(upstream.sample((took, sure)), expected);
        }
    }

    #[test]
    fn what_answers_without_use_is_useless_until_it_helps_again() {
        let upstream = upstream();
        for _ in 0..USELESS_MAX {
            assert!(!upstream.is_useless());
            upstream.answered(None);
            upstream.was_of_no_use();
        }
        assert!(upstream.is_useless() && !upstream.is_failing());
        upstream.was_of_use();
        assert!(!upstream.is_useless());
    }
}
