//! What the admin listeners count.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

#[derive(Clone, Debug)]
pub struct Metrics {
    pub refused: IntCounterVec,
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
                "Connections to the admin socket, the health and the metrics listener closed because there were too many.",
            ),
            &["listener"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        let health = HistogramOpts::new("holdfast_admin_health_duration_seconds", "Time an answer to `/health` took.");
        let bounds = prometheus::exponential_buckets(0.000_25, 10.0, 5)?;
        let health = Histogram::with_opts(health.buckets(bounds))?;
        registry.register(Box::new(health.clone()))?;
        Ok(Self { refused, health })
    }
}
