//! Counters of the cache.

use prometheus::{IntCounter, IntGauge, Opts, Registry};

use super::protected::{End, Reason};
use crate::{
    dns::metrics::{StripedCounter, StripedCounterVec},
    sys::Registrar,
};

/// Handles of the `holdfast_cache_*` metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Bytes used.
    pub bytes: IntGauge,
    pub entries: IntGauge,
    pub hits: StripedCounter,
    pub stale: StripedCounter,
    /// Questions without a usable entry.
    pub misses: StripedCounter,
    /// Answers not stored because `max_bytes` was reached.
    pub refused: IntCounter,
    /// Answers evicted for others.
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
        let made = Registrar(registry);
        let lookups = made.put(StripedCounterVec::new(
            Opts::new("holdfast_cache_lookups_total", "Cache lookups, by result."),
            &["result"],
        )?)?;
        Ok(Self {
            bytes: made.gauge("holdfast_cache_bytes", "Memory used by cached answers, with overhead.")?,
            entries: made.gauge("holdfast_cache_entries", "Answers in the cache.")?,
            hits: lookups.with_label_values(&["fresh"]),
            stale: lookups.with_label_values(&["stale"]),
            misses: lookups.with_label_values(&["miss"]),
            refused: made.counter(
                "holdfast_cache_refused_total",
                "Answers not stored because they are too large or the cache was full.",
            )?,
            evictions: made.counter(
                "holdfast_cache_evictions_total",
                "Answers evicted before their TTL ended, to make room for others.",
            )?,
            prefetches: made
                .counter("holdfast_cache_prefetches_total", "Refreshes of popular answers before their TTL ended.")?,
            saves: made.counter("holdfast_cache_saves_total", "Times the cache was written to disk.")?,
            disk_errors: made
                .counter("holdfast_cache_disk_errors_total", "Failed writes and reads of the cache file.")?,
            held: made.gauge(
                "holdfast_cache_held_names",
                "Names that upstreams deny and whose last good answer is served.",
            )?,
            holds_begun: made.counters(
                "holdfast_cache_holds_total",
                "Names that upstreams denied and whose last good answer was kept, by reason.",
                "reason",
                Reason::ALL.map(Reason::as_str),
            )?,
            holds_ended: made.counters(
                "holdfast_cache_holds_ended_total",
                "Names whose last good answer is served no longer, by cause.",
                "cause",
                End::ALL.map(End::as_str),
            )?,
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
