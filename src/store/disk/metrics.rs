//! The disk's metrics.

use std::sync::Arc;

use prometheus::{GaugeVec, Histogram, IntCounter, Opts, Registry};

use crate::sys::{Clock, Lock, Registrar, UnixMillis};

/// Handles to the disk's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) errors: IntCounter,
    pub(super) commit_duration: Histogram,
    /// Of the state on disk.
    pub(super) as_of: Arc<Lock<Option<UnixMillis>>>,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If one of the names is taken in `registry`.
    pub fn register(registry: &Registry, clock: &Clock) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        let age = Opts::new(
            "holdfast_disk_age_seconds",
            "Time since the source confirmed the records on disk, which a restart begins with; up to 30 s above \
             holdfast_source_age_seconds while the disk keeps up. Absent while the disk holds nothing.",
        );
        let as_of: Arc<Lock<Option<UnixMillis>>> = Arc::default();
        let (on_disk, clock) = (Arc::clone(&as_of), clock.clone());
        made.refreshed(GaugeVec::new(age, &[])?, move |age| {
            if let Some(as_of) = *on_disk.lock() {
                age.with_label_values::<&str>(&[]).set(as_of.age(clock.now()).as_secs_f64());
            }
        })?;
        let buckets = vec![0.001, 0.004, 0.016, 0.063, 0.25, 1.0, 4.0, 16.0];
        Ok(Self {
            errors: made.counter(
                "holdfast_disk_errors_total",
                "Attempts to read or write the store on disk that failed; answers come from memory regardless.",
            )?,
            commit_duration: made.histogram(
                "holdfast_disk_commit_duration_seconds",
                "Time one commit to the store on disk took.",
                buckets,
            )?,
            as_of,
        })
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
        *metrics.as_of.lock() = Some(UnixMillis(90_000));
        assert_eq!(age(), Some(10.0));
        manual.advance(Duration::from_secs(5));
        assert_eq!(age(), Some(15.0));
    }
}
