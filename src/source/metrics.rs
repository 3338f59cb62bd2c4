//! The metrics of whatever source feeds the store.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, PullingGauge, Registry};

use super::{Objects, Resource};
use crate::{
    store::{Reader, SourceState},
    sys::{Clock, UnixMillis},
};

/// What a source is asking for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A list, or a page of one. The freshness probe is a list too.
    List,
    /// A watch, with or without initial events.
    Watch,
    Get,
    Create,
    Update,
}

impl Verb {
    /// As RBAC rules and the metric spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    rejected: IntCounterVec,
    broken_streams: IntCounterVec,
    programming: Histogram,
}

impl Metrics {
    /// Makes the metrics and registers them. `source_up` and `source_age_seconds` are read from the store whenever they
    /// are scraped, so they hold for every kind of source.
    ///
    /// # Errors
    /// If one of the names is registered already.
    pub fn register(registry: &Registry, reader: &Reader, clock: &Clock) -> Result<Self, prometheus::Error> {
        let up = {
            let reader = reader.clone();
            move || f64::from(u8::from(reader.freshness().source == SourceState::Up))
        };
        registry.register(Box::new(PullingGauge::new(
            "holdfast_source_up",
            "1 while the source delivers, 0 while it is out of reach or not heard of yet.",
            Box::new(up),
        )?))?;
        let age = {
            let (reader, clock) = (reader.clone(), clock.clone());
            move || reader.as_of().map_or(f64::INFINITY, |as_of| as_of.age(clock.now()).as_secs_f64())
        };
        registry.register(Box::new(PullingGauge::new(
            "holdfast_source_age_seconds",
            "Seconds since the source last vouched for the records; +Inf until there was a first list or a load from disk.",
            Box::new(age),
        )?))?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let metrics = Self {
            requests: counter(
                "holdfast_source_requests_total",
                "Requests sent to the apiserver; a page of a list and a probe count as one each.",
                &["verb", "resource"],
            )?,
            rejected: counter(
                "holdfast_source_rejected_total",
                "Objects, or files, that could not be used. Each rejects itself alone.",
                &["kind"],
            )?,
            broken_streams: counter(
                "holdfast_source_broken_streams_total",
                "Watches that ended with something that is no event: half a line, garbage, a line too long.",
                &["resource"],
            )?,
            programming: Histogram::with_opts(
                HistogramOpts::new(
                    "holdfast_dns_programming_duration_seconds",
                    "From the change of an object to its being answerable on this node.",
                )
                .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
        };
        registry.register(Box::new(metrics.programming.clone()))?;
        for of in [Objects::Services, Objects::Slices, Objects::Namespaces] {
            for verb in [Verb::List, Verb::Watch] {
                metrics.requests.with_label_values(&[verb.name(), of.resource()]);
            }
            metrics.rejected.with_label_values(&[of.kind()]);
            metrics.broken_streams.with_label_values(&[of.resource()]);
        }
        metrics.rejected.with_label_values(&["file"]);
        Ok(metrics)
    }

    /// Counts a request about to be sent.
    pub(super) fn request(&self, verb: Verb, of: Resource) {
        self.requests.with_label_values(&[verb.name(), of.name()]).inc();
    }

    /// Observes that what changed `at` is answerable here `now`.
    pub fn programmed(&self, at: UnixMillis, now: UnixMillis) {
        self.programming.observe(at.age(now).as_secs_f64());
    }

    /// Counts a rejected object; `None` for a file.
    pub(super) fn rejected(&self, of: Option<Objects>) {
        self.rejected.with_label_values(&[of.map_or("file", Objects::kind)]).inc();
    }

    /// Counts a watch that ended in garbage.
    pub(super) fn broken_stream(&self, of: Objects) {
        self.broken_streams.with_label_values(&[of.resource()]).inc();
    }

    /// How many requests of a kind were sent.
    #[must_use]
    pub fn requests(&self, verb: Verb, of: Objects) -> u64 {
        self.requests.with_label_values(&[verb.name(), of.resource()]).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{self, What},
        sys::ManualClock,
    };

    #[test]
    fn up_and_age_are_those_of_the_store_when_scraped() {
        let (mut writer, reader) = store::open();
        let time = ManualClock::new(UnixMillis(10_000));
        let registry = Registry::new();
        Metrics::register(&registry, &reader, &Clock::Manual(time.clone())).unwrap();
        let scrape = |name: &str| {
            let family = registry.gather().into_iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(scrape("holdfast_source_age_seconds").is_infinite());
        assert!(scrape("holdfast_source_up").abs() < f64::EPSILON);
        writer.apply(What::Fresh { as_of: UnixMillis(10_000) }).unwrap();
        time.advance(std::time::Duration::from_secs(90));
        assert!((scrape("holdfast_source_age_seconds") - 90.0).abs() < f64::EPSILON);
        assert!((scrape("holdfast_source_up") - 1.0).abs() < f64::EPSILON);
    }
}
