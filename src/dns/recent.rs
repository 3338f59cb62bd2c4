//! The counts of the last minute, for `status`: samples of the counters, the oldest of them a minute old.
//!
//! Counts nothing itself but clients that are refused, and those in constant space.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::metrics::{DropCause, Metrics, RefuseCause};
use crate::{report::QueriesStatus, sys::Lock};

/// Between two samples.
const EVERY: Duration = Duration::from_secs(5);
/// Samples of a minute.
const SAMPLES: usize = 12;

/// Sums of the counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub received: u64,
    pub servfail: u64,
    pub dropped: [u64; DropCause::ALL.len()],
    pub over_share: u64,
    pub connections_refused: [u64; RefuseCause::ALL.len()],
}

/// The client with more than half of the refusals (Boyer and Moore); without such a client, any refused client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Majority {
    client: Option<IpAddr>,
    lead: u64,
}

impl Majority {
    pub(super) fn client(self) -> Option<IpAddr> {
        self.client
    }

    pub(super) fn note(&mut self, client: IpAddr) {
        if self.client == Some(client) {
            self.lead += 1;
        } else if self.lead == 0 {
            *self = Self { client: Some(client), lead: 1 };
        } else {
            self.lead -= 1;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    totals: Totals,
    /// The client refused most since the sample before.
    refused: Option<IpAddr>,
}

/// The counts of the last minute. Clones share them.
#[derive(Clone, Debug)]
pub struct Recent {
    metrics: Metrics,
    samples: Arc<Lock<VecDeque<Sample>>>,
}

impl Recent {
    pub fn new(metrics: Metrics) -> Self {
        let first = Sample { at: Instant::now(), totals: metrics.totals(), refused: None };
        Self { metrics, samples: Arc::new(Lock::new(VecDeque::from([first]))) }
    }

    /// Takes samples for as long as it is polled.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.sample();
        }
    }

    fn sample(&self) {
        let sample =
            Sample { at: Instant::now(), totals: self.metrics.totals(), refused: self.metrics.take_refused_client() };
        let mut samples = self.samples.lock();
        samples.push_back(sample);
        while samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    pub fn status(&self) -> QueriesStatus {
        let samples = self.samples.lock();
        let now = self.metrics.totals();
        let (since, before) = samples.front().map_or_else(|| (Instant::now(), now), |first| (first.at, first.totals));
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        let by_reason = |now: &[u64], before: &[u64], words: &[&str]| {
            let counts =
                words.iter().zip(now.iter().zip(before)).map(|(word, (now, before))| (word, grown(*now, *before)));
            counts.filter(|(_, count)| *count > 0).map(|(word, count)| ((*word).to_owned(), count)).collect()
        };
        let recent = samples.iter().skip(1).rev().find_map(|sample| sample.refused);
        QueriesStatus {
            seconds: since.elapsed().as_secs(),
            received: grown(now.received, before.received),
            servfail: grown(now.servfail, before.servfail),
            dropped: by_reason(&now.dropped, &before.dropped, &DropCause::ALL.map(DropCause::as_str)),
            over_share: grown(now.over_share, before.over_share),
            connections_refused: by_reason(
                &now.connections_refused,
                &before.connections_refused,
                &RefuseCause::ALL.map(RefuseCause::as_str),
            ),
            most_refused: self.metrics.refused_client().or(recent),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::{
        dns::{
            ServedFrom, Transport,
            metrics::{QuestionType, Tally},
        },
        wire::{Rcode, Rtype},
    };

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_minute_is_counted_and_what_came_before_is_not() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let recent = Recent::new(metrics.clone());
        assert_eq!(recent.status(), QueriesStatus::default());
        let shard = metrics.shard();
        let flood = |queries: u64| {
            for _ in 0..queries {
                shard.request(Transport::Udp, QuestionType::of(Rtype::A));
                shard.dropped(DropCause::RateLimited);
                metrics.forward_refused(Transport::Udp);
                metrics.note_refused(ip(7));
            }
            shard.responses(Tally { rcode: Rcode::SERVFAIL, from: ServedFrom::Upstream }, queries);
            metrics.connection_refused(RefuseCause::Source, ip(8));
        };
        flood(10);
        let expect = QueriesStatus {
            seconds: 0,
            received: 10,
            servfail: 10,
            dropped: [("rate_limited".to_owned(), 10)].into(),
            over_share: 10,
            connections_refused: [("source".to_owned(), 1)].into(),
            most_refused: Some(ip(7)),
        };
        assert_eq!(recent.status(), expect);
        let sampling = tokio::spawn({
            let recent = recent.clone();
            async move { recent.run().await }
        });
        tokio::time::sleep(Duration::from_secs(32)).await;
        flood(5);
        let status = recent.status();
        assert_eq!((status.seconds, status.received, status.over_share), (32, 15, 15));
        tokio::time::sleep(Duration::from_secs(35)).await;
        let status = recent.status();
        assert_eq!((status.received, status.most_refused), (5, Some(ip(7))), "the first ten are over a minute ago");
        assert!((55..=65).contains(&status.seconds), "{}", status.seconds);
        tokio::time::sleep(Duration::from_secs(65)).await;
        let status = recent.status();
        assert_eq!(status, QueriesStatus { seconds: status.seconds, ..QueriesStatus::default() }, "all is quiet again");
        sampling.abort();
    }

    #[test]
    fn the_client_refused_most_is_named_whatever_the_order() {
        let mut majority = Majority::default();
        for n in 0..90 {
            majority.note(if n % 3 == 0 { ip(n) } else { ip(200) });
        }
        assert_eq!(majority.client(), Some(ip(200)));
    }
}
