//! Counters of the cache.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::protected::{End, Reason};
use crate::dns::metrics::{StripedCounter, StripedCounterVec};

/// Handles of the `holdfast_cache_*` metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Bytes used.
    pub bytes: IntGauge,
    pub entries: IntGauge,
    pub hits: StripedCounter,
    pub stale: StripedCounter,
    /// Questions nothing was there for.
    pub misses: StripedCounter,
    /// Answers not stored because `max_bytes` was reached.
    pub refused: IntCounter,
    /// Answers given up for others.
    pub evictions: IntCounter,
    /// Refreshes started before the TTL ended.
    pub prefetches: IntCounter,
    /// Times the cache was written to disk.
    pub saves: IntCounter,
    /// Times writing or reading it failed.
    pub disk_errors: IntCounter,
    /// Names served although they are denied.
    pub held: IntGauge,
    holds_begun: [IntCounter; Reason::ALL.len()],
    holds_ended: [IntCounter; End::ALL.len()],
}

impl Metrics {
    /// Registers every metric of this module.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let lookups = StripedCounterVec::new(
            Opts::new("holdfast_cache_lookups_total", "Cache lookups, by result."),
            &["result"],
        )?;
        registry.register(Box::new(lookups.clone()))?;
        let vec = |name: &str, help: &str, label: &str| {
            let vec = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let begun = vec(
            "holdfast_cache_holds_total",
            "Names that upstreams denied and whose last good answer was kept, by reason.",
            "reason",
        )?;
        let ended = vec(
            "holdfast_cache_holds_ended_total",
            "Names whose last good answer is served no longer, by cause.",
            "cause",
        )?;
        Ok(Self {
            bytes: gauge("holdfast_cache_bytes", "Memory used by cached answers, with overhead.")?,
            entries: gauge("holdfast_cache_entries", "Answers in the cache.")?,
            hits: lookups.with_label_values(&["fresh"]),
            stale: lookups.with_label_values(&["stale"]),
            misses: lookups.with_label_values(&["miss"]),
            refused: counter(
                "holdfast_cache_refused_total",
                "Answers not stored because they are too large or the cache was full.",
            )?,
            evictions: counter(
                "holdfast_cache_evictions_total",
                "Answers evicted before their TTL ended, to make room for others.",
            )?,
            prefetches: counter(
                "holdfast_cache_prefetches_total",
                "Refreshes of popular answers before their TTL ended.",
            )?,
            saves: counter("holdfast_cache_saves_total", "Times the cache was written to disk.")?,
            disk_errors: counter("holdfast_cache_disk_errors_total", "Failed writes and reads of the cache file.")?,
            held: gauge(
                "holdfast_cache_held_names",
                "Names that upstreams deny and whose last good answer is served.",
            )?,
            holds_begun: Reason::ALL.map(|reason| begun.with_label_values(&[reason.as_str()])),
            holds_ended: End::ALL.map(|end| ended.with_label_values(&[end.as_str()])),
        })
    }

    /// Holds begun for `reason`.
    pub fn holds_begun(&self, reason: Reason) -> &IntCounter {
        &self.holds_begun[reason as usize]
    }

    /// Holds that ended like that.
    pub fn holds_ended(&self, end: End) -> &IntCounter {
        &self.holds_ended[end as usize]
    }
}
