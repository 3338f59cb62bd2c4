//! One question against all upstreams of a route: who is asked when, and whose answer counts.
//!
//! The first is given the time it usually takes; then the next is asked as well, while the wait for the first goes on.
//! The first usable answer wins. Never takes longer than the deadline.

use std::{io, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use hickory_proto::{op::Message, rr::Name};
use tokio::time::{Instant, sleep_until};

use super::{
    exchange::{Manner, exchange},
    message::Ask,
    metrics::{FailureKind, Metrics},
    route::Route,
    sanitize::{Asked, Sane, sanitize},
    upstream::Upstream,
};

/// Tries for one question: with a third of all packets lost, all ten are lost once in 100,000.
const TRIES_MAX: u32 = 10;
/// How long the wait between two tries may grow.
const INTERVAL_MAX: Duration = Duration::from_millis(600);
/// Times an upstream may refuse by ICMP or reset before it is not asked again for this question.
const REFUSALS_MAX: u32 = 3;

/// An answer and who gave it.
#[derive(Debug)]
pub struct Won {
    pub sane: Sane,
    pub upstream: Arc<Upstream>,
}

/// Nobody gave a usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The most telling failure: what an upstream said counts more than silence.
    pub kind: FailureKind,
    /// Who failed last in that way.
    pub upstream: String,
}

struct Runner {
    upstream: Arc<Upstream>,
    tries: u32,
    first_try: Instant,
    refusals: u32,
    /// It has spoken, and what it said was no use: asking it again would not help.
    spent: bool,
    answered: bool,
}

/// Asks until there is an answer or `deadline` is there.
///
/// # Errors
/// [`Lost`] when no upstream gives a usable answer in time.
pub async fn race(
    route: &Route,
    mut field: Field,
    name: &Name,
    ask: &Ask<'_>,
    ours: impl Fn(&Name) -> bool,
    deadline: Instant,
    metrics: &Metrics,
) -> Result<Won, Lost> {
    let manner = Manner { force_tcp: route.config.force_tcp, mix_case: route.config.case_randomization };
    let mut tries = FuturesUnordered::new();
    let mut interval = field.runners.first().map_or(INTERVAL_MAX, |runner| runner.upstream.patience());
    let mut next_try = Instant::now();
    let mut unproven = None;
    let asked = Asked { name, qtype: ask.qtype, qclass: ask.qclass, dnssec_ok: ask.dnssec_ok };
    loop {
        if Instant::now() >= next_try {
            if let Some((at, upstream)) = field.next() {
                tries.push(async move { (at, exchange(&upstream, ask, manner, metrics).await) });
            }
            next_try = Instant::now() + interval;
            interval = (interval * 3 / 2).min(INTERVAL_MAX.max(interval));
        }
        if field.is_spent() || (tries.is_empty() && field.is_exhausted()) {
            break;
        }
        tokio::select! {
            biased;
            Some((at, result)) = tries.next() => match judge(result, &asked, &ours) {
                Ok(sane) => {
                    metrics.dropped_records.inc_by(sane.dropped as u64);
                    field.runners[at].answered = true;
                    let won = Won { sane, upstream: Arc::clone(&field.runners[at].upstream) };
                    if !won.sane.unproven {
                        won.upstream.was_of_use();
                        field.settle(metrics);
                        return Ok(won);
                    }
                    metrics.failure(FailureKind::Lame, won.upstream.server());
                    won.upstream.was_of_no_use();
                    field.runners[at].spent = true;
                    unproven = Some(won);
                    next_try = Instant::now();
                }
                Err(kind) => {
                    metrics.failure(kind, field.runners[at].upstream.server());
                    if field.failed(at, kind) {
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
    field.settle(metrics);
    // Everybody says so without proof: it may be told once, and is not kept.
    unproven.ok_or(field.lost)
}

fn judge(
    result: io::Result<Box<Message>>,
    asked: &Asked<'_>,
    ours: impl Fn(&Name) -> bool,
) -> Result<Sane, FailureKind> {
    match result {
        Ok(message) => sanitize(&message, asked, ours),
        Err(error) if error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some() => {
            Err(FailureKind::Tls)
        }
        Err(_) => Err(FailureKind::Io),
    }
}

/// The upstreams to be asked, in order, and how each did.
pub struct Field {
    runners: Vec<Runner>,
    launched: u32,
    lost: Lost,
}

impl Field {
    pub fn new(order: Vec<Arc<Upstream>>) -> Self {
        let now = Instant::now();
        let upstream = order.first().map(|upstream| upstream.server().to_string()).unwrap_or_default();
        let runner =
            |upstream| Runner { upstream, tries: 0, first_try: now, refusals: 0, spent: false, answered: false };
        Self {
            runners: order.into_iter().map(runner).collect(),
            launched: 0,
            lost: Lost { kind: FailureKind::Timeout, upstream },
        }
    }

    /// The least tried upstream that may still help, in order.
    fn next(&mut self) -> Option<(usize, Arc<Upstream>)> {
        if self.is_exhausted() {
            return None;
        }
        let able = self.runners.iter().enumerate().filter(|(_, runner)| !runner.spent);
        let at = able.min_by_key(|(_, runner)| runner.tries).map(|(at, _)| at)?;
        let runner = &mut self.runners[at];
        if runner.tries == 0 {
            runner.first_try = Instant::now();
        }
        runner.tries += 1;
        self.launched += 1;
        Some((at, Arc::clone(&runner.upstream)))
    }

    /// Whether everybody has spoken in vain.
    fn is_spent(&self) -> bool {
        self.runners.iter().all(|runner| runner.spent)
    }

    fn is_exhausted(&self) -> bool {
        self.launched >= TRIES_MAX || self.is_spent()
    }

    /// Notes a failed try. Returns whether the next upstream should be asked at once.
    fn failed(&mut self, at: usize, kind: FailureKind) -> bool {
        let runner = &mut self.runners[at];
        let spoke = !matches!(kind, FailureKind::Io | FailureKind::Tls | FailureKind::Timeout);
        if spoke {
            runner.spent = true;
            runner.answered = true;
            runner.upstream.was_of_no_use();
        } else {
            runner.refusals += 1;
            runner.spent |= runner.refusals >= REFUSALS_MAX;
            if runner.upstream.failed() {
                tracing::warn!(upstream = %runner.upstream.server(), "upstream does not answer");
            }
        }
        let known = matches!(self.lost.kind, FailureKind::Io | FailureKind::Tls | FailureKind::Timeout);
        if spoke || known {
            self.lost = Lost { kind, upstream: runner.upstream.server().to_string() };
        }
        self.runners.iter().any(|runner| !runner.spent && runner.tries == 0)
    }

    /// At the end: who was given its time and stayed silent has failed once.
    fn settle(&mut self, metrics: &Metrics) {
        for runner in &self.runners {
            let waited = runner.tries > 0 && runner.first_try.elapsed() >= runner.upstream.patience();
            if waited && !runner.answered && runner.refusals == 0 {
                metrics.failure(FailureKind::Timeout, runner.upstream.server());
                if runner.upstream.failed() {
                    tracing::warn!(upstream = %runner.upstream.server(), "upstream does not answer");
                }
            }
        }
    }
}
