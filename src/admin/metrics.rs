//! Counters of the admin listeners.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::sys;

/// Reads the count of lost log lines from `sys`, which knows no registry.
struct LinesLost(IntCounter);

impl LinesLost {
    fn new() -> Result<Self, prometheus::Error> {
        let help = "Log lines dropped because standard error was not read.";
        IntCounter::new("holdfast_log_lines_lost_total", help).map(Self)
    }
}

impl Collector for LinesLost {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.inc_by(sys::log_lines_lost().saturating_sub(self.0.get()));
        self.0.collect()
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub refused: IntCounterVec,
    pub not_allowed: IntCounterVec,
    pub health: Histogram,
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// If the registry has one of them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let refused = IntCounterVec::new(
            Opts::new(
                "holdfast_admin_refused_total",
                "Connections to the admin socket, the health and the metrics listener closed because there were too many: refused, or evicted while idle.",
            ),
            &["listener"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let not_allowed = IntCounterVec::new(
            Opts::new(
                "holdfast_admin_not_allowed_total",
                "Connections to the health and the metrics listener closed because `http_allow` or `metrics_allow` does not name \
                 their address.",
            ),
            &["listener"],
        )?;
        registry.register(Box::new(not_allowed.clone()))?;
        for listener in ["http", "metrics"] {
            let _ = not_allowed.with_label_values(&[listener]);
        }
        let health = HistogramOpts::new("holdfast_admin_health_duration_seconds", "Duration of answers to `/health`.");
        let bounds = prometheus::exponential_buckets(0.000_25, 10.0, 5)?;
        let health = Histogram::with_opts(health.buckets(bounds))?;
        registry.register(Box::new(health.clone()))?;
        registry.register(Box::new(LinesLost::new()?))?;
        Ok(Self { refused, not_allowed, health })
    }
}
