//! Adds up the shards when they are scraped. The names and the help of what they count stand here.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Metric, MetricFamily, MetricType},
};

use super::{
    DropCause,
    shard::{BUCKETS_US, QuestionType, RCODES, Shard, place_of},
};
use crate::{
    dns::{ServedFrom, Transport},
    sys::{Lock, series},
    wire::Rcode,
};

/// The shards as one collector.
pub(super) struct Shards {
    all: Arc<Lock<Vec<Arc<Shard>>>>,
    requests: Desc,
    responses: Desc,
    drops: Desc,
    durations: Desc,
}

impl Shards {
    pub(super) fn new(shards: Arc<Lock<Vec<Arc<Shard>>>>) -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())
        };
        Ok(Self {
            all: shards,
            requests: desc("holdfast_dns_requests_total", "Queries received.", &["proto", "type"])?,
            responses: desc("holdfast_dns_responses_total", "Answers sent.", &["from", "rcode"])?,
            drops: desc("holdfast_dns_drops_total", "Queries dropped without an answer, by reason.", &["reason"])?,
            durations: desc(
                "holdfast_dns_request_duration_seconds",
                "Time from receiving a query to sending its answer; over UDP, of the batch it came with.",
                &["from"],
            )?,
        })
    }

    fn durations_of(shards: &[Arc<Shard>], from: ServedFrom) -> Metric {
        let mut count = 0;
        let mut up_to = |place: usize| {
            count += sum(shards, |shard| &shard.durations[from as usize].buckets[place]);
            count
        };
        let ends = BUCKETS_US.iter().enumerate();
        let buckets: Vec<(f64, u64)> = ends.map(|(place, &end)| (float(end) / 1e6, up_to(place))).collect();
        let count = up_to(BUCKETS_US.len());
        let seconds = float(sum(shards, |shard| &shard.durations[from as usize].sum_ns)) / 1e9;
        series::histogram(&[("from", from.as_str())], &buckets, count, seconds)
    }
}

impl Collector for Shards {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.requests, &self.responses, &self.drops, &self.durations]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let shards = self.all.lock();
        let mut requests = Vec::new();
        for proto in Transport::ALL {
            for (kind, word) in QuestionType::WORDS.into_iter().enumerate() {
                let count = sum(&shards, |shard| &shard.requests[proto as usize][kind]);
                requests.push(counter(&[("proto", proto.as_str()), ("type", word)], count));
            }
        }
        let mut responses = Vec::new();
        for (rcode, word) in RCODES.into_iter().enumerate() {
            for from in ServedFrom::ALL {
                let count = sum(&shards, |shard| &shard.responses[rcode][from as usize]);
                responses.push(counter(&[("from", from.as_str()), ("rcode", word)], count));
            }
        }
        let drop = |cause: DropCause| counter(&[("reason", cause.as_str())], dropped(&shards, cause));
        let drops = DropCause::ALL.map(drop);
        let durations = ServedFrom::ALL.map(|from| Self::durations_of(&shards, from));
        vec![
            family(&self.requests, MetricType::COUNTER, requests),
            family(&self.responses, MetricType::COUNTER, responses),
            family(&self.drops, MetricType::COUNTER, drops),
            family(&self.durations, MetricType::HISTOGRAM, durations),
        ]
    }
}

/// The sum of one counter over all shards.
fn sum(shards: &[Arc<Shard>], counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
    shards.iter().map(|shard| counter(shard).load(Relaxed)).fold(0, u64::wrapping_add)
}

/// The sum of some counters of each shard, over all shards.
fn sum_of<'a>(shards: &'a [Arc<Shard>], counters: impl Fn(&'a Shard) -> &'a [AtomicU64]) -> u64 {
    let all = shards.iter().flat_map(|shard| counters(shard));
    all.map(|counter| counter.load(Relaxed)).fold(0, u64::wrapping_add)
}

/// Queries received.
pub(super) fn received(shards: &[Arc<Shard>]) -> u64 {
    sum_of(shards, |shard| shard.requests.as_flattened())
}

/// Answers with SERVFAIL.
pub(super) fn servfail(shards: &[Arc<Shard>]) -> u64 {
    sum_of(shards, |shard| &shard.responses[place_of(Rcode::SERVFAIL)])
}

pub(super) fn dropped(shards: &[Arc<Shard>], cause: DropCause) -> u64 {
    sum(shards, |shard| &shard.drops[cause as usize])
}

/// Exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "what Prometheus reads is a double")]
fn float(count: u64) -> f64 {
    count as f64
}

fn counter(with: &[(&str, &str)], count: u64) -> Metric {
    series::counter(with, float(count))
}

fn family(desc: &Desc, kind: MetricType, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    series::family(&desc.fq_name, &desc.help, kind, series)
}
