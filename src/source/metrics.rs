//! The metrics of whatever source feeds the store.

use std::sync::Arc;

use prometheus::{Histogram, IntCounterVec, Registry};

use super::{
    Objects, Resource,
    apiserver::{self, Health},
};
use crate::{
    report::{ApiserverStatus, Measures},
    store::{Reader, SourceState},
    sys::{Clock, Registrar, UnixMillis, labels},
};

labels! {
    /// The request a source is waiting for, as RBAC rules and the metric spell it.
    pub enum Verb {
        /// A list, or a page of one. The freshness probe is a list too.
        List = "list",
        /// A watch, with or without initial events.
        Watch = "watch",
        Get = "get",
        Create = "create",
        Update = "update",
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    rejected: IntCounterVec,
    broken_streams: IntCounterVec,
    programming: Histogram,
    health: Arc<Health>,
    clock: Clock,
}

impl Metrics {
    /// Makes the metrics and registers them. `source_up` and `source_age_seconds` are read from the store whenever they
    /// are scraped, so they hold for every kind of source.
    ///
    /// # Errors
    /// If one of the names is registered already.
    pub fn register(registry: &Registry, reader: &Reader, clock: &Clock) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        let (up, reading, time) = (reader.clone(), reader.clone(), clock.clone());
        made.reading(
            "holdfast_source_up",
            "1 while the source delivers, 0 while it is not reachable or was not reached yet.",
            move || f64::from(u8::from(up.freshness().source == SourceState::Up)),
        )?;
        made.reading(
            "holdfast_source_age_seconds",
            "Seconds since the source last confirmed the records; +Inf until there was a first list or a load from disk.",
            move || reading.as_of().map_or(f64::INFINITY, |as_of| as_of.age(time.now()).as_secs_f64()),
        )?;
        let metrics = Self {
            requests: made.counter_vec(
                "holdfast_source_requests_total",
                "Requests sent to the apiserver; a page of a list and a probe count as one each.",
                &["verb", "resource"],
            )?,
            rejected: made.counter_vec(
                "holdfast_source_rejected_total",
                "Objects or files that could not be used. All others are used.",
                &["kind"],
            )?,
            broken_streams: made.counter_vec(
                "holdfast_source_broken_streams_total",
                "Watches that ended in broken data: half a line, garbage, a line too long.",
                &["resource"],
            )?,
            programming: made.histogram(
                "holdfast_dns_programming_duration_seconds",
                "Time from the change of an object to the first answer with it on this node.",
                vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
            )?,
            health: Arc::default(),
            clock: clock.clone(),
        };
        metrics.register_health(made)?;
        for of in Objects::ALL {
            for verb in [Verb::List, Verb::Watch] {
                metrics.requests.with_label_values(&[verb.as_str(), of.as_str()]);
            }
            metrics.rejected.with_label_values(&[of.kind()]);
            metrics.broken_streams.with_label_values(&[of.as_str()]);
        }
        metrics.rejected.with_label_values(&["file"]);
        Ok(metrics)
    }

    /// Metrics of no registry, for requests outside of a running source.
    ///
    /// # Panics
    /// Never: the names are valid and the registry is new.
    pub fn unregistered() -> Self {
        let (_writer, reader) = crate::store::open();
        Self::register(&Registry::new(), &reader, &Clock::System).expect("a new registry has no such names")
    }

    /// The row of the apiserver, if this process watches one that has the records of `reader`.
    pub fn apiserver(&self, reader: &Reader) -> Option<ApiserverStatus> {
        let mut status = self.health.status(apiserver::Timing::default().slow);
        status.endpoints = apiserver::endpoints(&reader.snapshot()).iter().map(ToString::to_string).collect();
        Some(status).filter(|status| !status.server.is_empty())
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Requests to the apiserver by result.
    pub fn health(&self) -> &Health {
        &self.health
    }

    fn register_health(&self, made: Registrar<'_>) -> Result<(), prometheus::Error> {
        type Read = fn(&Measures) -> f64;
        let gauges: [(&str, &str, Read); 4] = [
            (
                "holdfast_source_latency_seconds",
                "Slowest answer of the apiserver in the last minute; a request under way counts with its age.",
                |measures| measures.latency_seconds,
            ),
            (
                "holdfast_source_requests_per_minute",
                "Requests sent to the apiserver in the last minute. They fall while it is slow or refuses.",
                |measures| to_f64(measures.requests_per_minute),
            ),
            (
                "holdfast_source_busy_per_minute",
                "Answers of the apiserver with status 429 (too many requests) in the last minute.",
                |measures| to_f64(measures.busy_per_minute),
            ),
            (
                "holdfast_source_refused_per_minute",
                "Other refusals of the apiserver in the last minute (401, 403, 5xx).",
                |measures| to_f64(measures.refused_per_minute),
            ),
        ];
        for (name, help, read) in gauges {
            let health = Arc::clone(&self.health);
            made.reading(name, help, move || read(&health.measures()))?;
        }
        made.put(self.health.abandoned().clone()).map(drop)
    }

    /// Counts a request about to be sent.
    pub(super) fn request(&self, verb: Verb, of: Resource) {
        self.requests.with_label_values(&[verb.as_str(), of.name()]).inc();
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
        self.broken_streams.with_label_values(&[of.as_str()]).inc();
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a gauge")]
fn to_f64(count: u64) -> f64 {
    count as f64
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
