//! A question against all upstreams of a route: which upstream is asked when, and which answer counts.
//!
//! With `random` and `round_robin`, any server's answer counts: the first is given the time it usually takes, then the next
//! is asked as well, and the first usable answer wins. A denial without SOA is an answer only if no server gives a better
//! one. With `sequential`, a server is asked only when all servers before it failed (silence for 2 s, an error of the
//! network, SERVFAIL and the like), and its denial counts with or without SOA. Never takes longer than the deadline.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use hickory_proto::{
    op::Message,
    rr::{
        Name, RData, Record,
        rdata::{
            A, AAAA, HTTPS,
            svcb::{IpHint, SvcParamValue},
        },
    },
};
use ipnet::IpNet;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Upstream,
    exchange::{ExchangeOptions, Try},
    sanitize::{Sanitized, sanitize},
    tcp::is_http,
};
use crate::dns::{
    Question,
    forward::{
        observe::{FailureKind, Metrics},
        route::Verdicts,
    },
};

/// Tries of one question at one upstream, all from one socket: with two upstreams and a third of all packets lost, all ten are
/// lost once in 60,000 questions.
const TRIES_MAX: u32 = 5;
/// How long the wait between two tries may grow.
const INTERVAL_MAX: Duration = Duration::from_millis(600);
/// Times an upstream may refuse by ICMP or reset before it is not asked again for this question.
const REFUSALS_MAX: u32 = 3;

/// A zone's settings for a question's attempts.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A server is asked only when those before it failed.
    pub sequential: bool,
    /// Answers that make the next server be asked.
    pub failover: Verdicts,
    /// Tries that may fail for want of a connection; 0 for no limit.
    pub attempts_max: u32,
    /// How long a server of a sequential zone may be silent before the next one may speak.
    pub silence_max: Duration,
}

/// An answer and its upstream.
#[derive(Debug)]
pub struct Answered {
    pub sanitized: Sanitized,
    pub upstream: Arc<Upstream>,
}

/// No upstream gave a usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// An upstream's failure in words counts more than its silence.
    pub kind: FailureKind,
    /// The upstream that failed last in that way.
    pub upstream: String,
}

struct Attempt {
    upstream: Arc<Upstream>,
    /// Sends the query once more from its socket, while that is open.
    again: Arc<Notify>,
    open: bool,
    tries: u32,
    first_try: Instant,
    refusals: u32,
    /// The upstream gave a useless answer or failed too often, and is not asked again.
    exhausted: bool,
    answered: bool,
}

impl Attempt {
    fn is_able(&self) -> bool {
        !self.exhausted && self.tries < TRIES_MAX
    }

    /// Whether the next server of a sequential zone may be asked.
    fn has_failed(&self, silence_max: Duration) -> bool {
        self.exhausted || self.refusals > 0 || (self.tries > 0 && self.first_try.elapsed() >= silence_max)
    }
}

/// Asks until there is an answer or `deadline` has come.
///
/// # Errors
/// [`Failed`] when no upstream gives a usable answer in time.
pub async fn race(
    options: ExchangeOptions<'_>,
    mut attempts: Attempts,
    question: &Question,
    ours: impl Fn(&Name) -> bool,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<Answered, Failed> {
    let mut tries = FuturesUnordered::new();
    let mut interval = attempts.servers.first().map_or(INTERVAL_MAX, |attempt| attempt.upstream.patience());
    let mut next_try = Instant::now();
    let mut unproven = None;
    loop {
        if Instant::now() >= next_try {
            if let Some((at, upstream)) = attempts.next() {
                let again = Arc::clone(&attempts.servers[at].again);
                tries.push(async move {
                    let (upstream, again) = (&*upstream, &*again);
                    (at, Try { upstream, question, options, again, metrics }.answer().await)
                });
            }
            next_try = Instant::now() + interval;
            next_try = attempts.silence_ends().map_or(next_try, |ends| ends.min(next_try));
            interval = (interval * 3 / 2).min(INTERVAL_MAX.max(interval));
        }
        if attempts.all_exhausted() || attempts.is_given_up() || (tries.is_empty() && attempts.is_over()) {
            break;
        }
        tokio::select! {
            biased;
            Some((at, result)) = tries.next() => match judge(result, question, &ours, &attempts.reject) {
                Ok(sanitized) => {
                    attempts.servers[at].open = false;
                    metrics.dropped_records.inc_by(sanitized.dropped as u64);
                    attempts.servers[at].answered = true;
                    let answered = Answered { sanitized, upstream: Arc::clone(&attempts.servers[at].upstream) };
                    let kind = answered.sanitized.parts.kind;
                    // An answer that stands for failure is given when no server has another.
                    let fails = attempts.rules.failover.fit(kind) && !attempts.is_last(at);
                    if !fails && (attempts.rules.sequential || !answered.sanitized.unproven) {
                        answered.upstream.was_of_use();
                        attempts.settle(metrics);
                        return Ok(answered);
                    }
                    if !fails {
                        metrics.failure(FailureKind::Lame, answered.upstream.server(), None);
                        answered.upstream.was_of_no_use();
                    }
                    attempts.servers[at].exhausted = true;
                    unproven = Some(answered);
                    next_try = Instant::now();
                }
                Err((kind, error)) => {
                    attempts.servers[at].open = false;
                    metrics.failure(kind, attempts.servers[at].upstream.server(), error.as_ref());
                    if attempts.failed(at, kind) {
                        next_try = Instant::now();
                    }
                }
            },
            () = sleep_until(next_try.min(deadline)) => {
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
    }
    attempts.settle(metrics);
    // Every upstream denies without proof: the client gets it, and the cache does not.
    unproven.ok_or(attempts.failed)
}

fn judge(
    result: io::Result<Box<Message>>,
    question: &Question,
    ours: impl Fn(&Name) -> bool,
    reject: &[IpNet],
) -> Result<Sanitized, (FailureKind, Option<io::Error>)> {
    match result {
        Ok(message) => {
            let sanitized = sanitize(&message, question, ours).map_err(|kind| (kind, None))?;
            let rejected =
                !reject.is_empty() && sanitized.parts.answers.iter().any(|record| leads_into(record, reject));
            if rejected { Err((FailureKind::Rejected, None)) } else { Ok(sanitized) }
        }
        Err(error) if error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some() => {
            Err((FailureKind::Tls, Some(error)))
        }
        Err(error) if is_http(&error) => Err((FailureKind::Http, Some(error))),
        Err(error) => Err((FailureKind::Io, Some(error))),
    }
}

/// Whether the record has an address in one of these networks; browsers connect to the hints of SVCB and HTTPS records too.
fn leads_into(record: &Record, networks: &[IpNet]) -> bool {
    // An IPv4 address in another form leads to the same host.
    let is_in = |ip: IpAddr| networks.iter().any(|network| network.contains(&ip.to_canonical()));
    match &record.data {
        RData::A(A(ip)) => is_in((*ip).into()),
        RData::AAAA(AAAA(ip)) => is_in((*ip).into()),
        RData::SVCB(svcb) | RData::HTTPS(HTTPS(svcb)) => svcb.svc_params.iter().any(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(IpHint(ips)) => ips.iter().any(|A(ip)| is_in((*ip).into())),
            SvcParamValue::Ipv6Hint(IpHint(ips)) => ips.iter().any(|AAAA(ip)| is_in((*ip).into())),
            _ => false,
        }),
        _ => false,
    }
}

/// The upstreams to ask, in order, and the state of each.
pub struct Attempts {
    servers: Vec<Attempt>,
    failed: Failed,
    rules: Rules,
    /// Answers with an address in these networks count as failures.
    reject: Arc<[IpNet]>,
}

impl Attempts {
    pub fn new(order: Vec<Arc<Upstream>>, rules: Rules, reject: Arc<[IpNet]>) -> Self {
        let now = Instant::now();
        let upstream = order.first().map(|upstream| upstream.server().to_string()).unwrap_or_default();
        let attempt = |upstream| Attempt {
            upstream,
            again: Arc::default(),
            open: false,
            tries: 0,
            first_try: now,
            refusals: 0,
            exhausted: false,
            answered: false,
        };
        Self {
            servers: order.into_iter().map(attempt).collect(),
            rules,
            reject,
            failed: Failed { kind: FailureKind::Timeout, upstream },
        }
    }

    /// Tries the least tried upstream that is not exhausted, in order. Returns it if a socket has to be opened; if one is open,
    /// the query is sent from it again.
    fn next(&mut self) -> Option<(usize, Arc<Upstream>)> {
        let at = self.turn()?;
        let attempt = &mut self.servers[at];
        attempt.tries += 1;
        if attempt.tries == 1 {
            attempt.first_try = Instant::now();
            attempt.upstream.asked();
        } else if !attempt.upstream.take_retry() {
            return None;
        }
        if attempt.open {
            attempt.again.notify_one();
            return None;
        }
        attempt.open = true;
        Some((at, Arc::clone(&attempt.upstream)))
    }

    /// When the next server of a sequential zone may be asked, if one is silent.
    fn silence_ends(&self) -> Option<Instant> {
        let silence_max = self.rules.silence_max;
        let waits = self.servers.iter().find(|attempt| !attempt.has_failed(silence_max) && attempt.tries > 0);
        waits.filter(|_| self.rules.sequential).map(|attempt| attempt.first_try + silence_max)
    }

    /// The server to try now.
    fn turn(&self) -> Option<usize> {
        let servers = || self.servers.iter().enumerate();
        if self.rules.sequential
            && let Some((at, attempt)) = servers().find(|(_, attempt)| !attempt.has_failed(self.rules.silence_max))
        {
            // The next server has to wait, also when this one has been asked often enough.
            return attempt.is_able().then_some(at);
        }
        let able = servers().filter(|(_, attempt)| attempt.is_able());
        able.min_by_key(|(_, attempt)| attempt.tries).map(|(at, _)| at)
    }

    /// Whether no upstream is left to ask.
    fn all_exhausted(&self) -> bool {
        self.servers.iter().all(|attempt| attempt.exhausted)
    }

    fn is_over(&self) -> bool {
        !self.servers.iter().any(Attempt::is_able)
    }

    /// Whether every other upstream is exhausted.
    fn is_last(&self, at: usize) -> bool {
        self.servers.iter().enumerate().all(|(other, attempt)| other == at || attempt.exhausted)
    }

    /// Whether so many tries failed that no more are allowed.
    fn is_given_up(&self) -> bool {
        let refusals: u32 = self.servers.iter().map(|attempt| attempt.refusals).sum();
        self.rules.attempts_max > 0 && refusals >= self.rules.attempts_max
    }

    /// Notes a failed try. Returns whether the next upstream should be asked at once.
    fn failed(&mut self, at: usize, kind: FailureKind) -> bool {
        let attempt = &mut self.servers[at];
        let spoke = !matches!(kind, FailureKind::Io | FailureKind::Tls | FailureKind::Timeout);
        if spoke {
            attempt.exhausted = true;
            attempt.answered = true;
            attempt.upstream.was_of_no_use();
        } else {
            attempt.refusals += 1;
            attempt.exhausted |= attempt.refusals >= REFUSALS_MAX;
            if attempt.upstream.failed() {
                tracing::warn!(upstream = %attempt.upstream.server(), "upstream does not answer");
            }
        }
        let known = matches!(self.failed.kind, FailureKind::Io | FailureKind::Tls | FailureKind::Timeout);
        if spoke || known {
            self.failed = Failed { kind, upstream: attempt.upstream.server().to_string() };
        }
        self.servers.iter().any(|attempt| !attempt.exhausted && attempt.tries == 0)
    }

    /// At the end: an upstream that was silent for its usual time has failed once.
    fn settle(&mut self, metrics: &Metrics) {
        for attempt in &self.servers {
            let waited = attempt.tries > 0 && attempt.first_try.elapsed() >= attempt.upstream.patience();
            if waited && !attempt.answered && attempt.refusals == 0 {
                metrics.failure(FailureKind::Timeout, attempt.upstream.server(), None);
                if attempt.upstream.failed() {
                    tracing::warn!(upstream = %attempt.upstream.server(), "upstream does not answer");
                }
            }
        }
    }
}
