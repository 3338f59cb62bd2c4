//! The disk's metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::sys::{Clock, UnixMillis};

/// Handles to the disk's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) errors: IntCounter,
    pub(super) commit_duration: Histogram,
    pub(super) age: Age,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If one of the names is taken in `registry`.
    pub fn register(registry: &Registry, clock: &Clock) -> Result<Self, prometheus::Error> {
        let errors = IntCounter::new(
            "holdfast_disk_errors_total",
            "Attempts to read or write the store on disk that failed; answers come from memory regardless.",
        )?;
        let buckets = vec![0.001, 0.004, 0.016, 0.063, 0.25, 1.0, 4.0, 16.0];
        let commit_duration = Histogram::with_opts(
            HistogramOpts::new("holdfast_disk_commit_duration_seconds", "Time one commit to the store on disk took.")
                .buckets(buckets),
        )?;
        let age = Age::new(clock.clone())?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(commit_duration.clone()))?;
        registry.register(Box::new(age.clone()))?;
        Ok(Self { errors, commit_duration, age })
    }
}

/// `holdfast_disk_age_seconds`, reckoned when it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Age {
    gauge: prometheus::Gauge,
    /// `as_of` of the state on disk in milliseconds since 1970; 0 while there is none.
    as_of: Arc<AtomicU64>,
    clock: Clock,
}

impl Age {
    fn new(clock: Clock) -> Result<Self, prometheus::Error> {
        let gauge = prometheus::Gauge::new(
            "holdfast_disk_age_seconds",
            "Time since the source confirmed the records on disk, which a restart begins with; up to 30 s above \
             holdfast_source_age_seconds while the disk keeps up. Absent while the disk holds nothing.",
        )?;
        Ok(Self { gauge, as_of: Arc::default(), clock })
    }

    pub(super) fn set(&self, as_of: UnixMillis) {
        self.as_of.store(as_of.0, Ordering::Relaxed);
    }
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let as_of = self.as_of.load(Ordering::Relaxed);
        if as_of == 0 {
            return Vec::new();
        }
        self.gauge.set(UnixMillis(as_of).age(self.clock.now()).as_secs_f64());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::ManualClock;

    #[test]
    fn the_age_on_disk_grows_by_itself_and_is_absent_before_there_is_any() {
        let manual = ManualClock::new(UnixMillis(100_000));
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &Clock::Manual(manual.clone())).unwrap();
        let age = || {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == "holdfast_disk_age_seconds")?;
            Some(family.get_metric()[0].get_gauge().get_value())
        };
        assert_eq!(age(), None);
        metrics.age.set(UnixMillis(90_000));
        assert_eq!(age(), Some(10.0));
        manual.advance(Duration::from_secs(5));
        assert_eq!(age(), Some(15.0));
    }
}
