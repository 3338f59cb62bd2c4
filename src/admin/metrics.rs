//! Counters of the admin listeners.

use prometheus::{Histogram, IntCounter, IntCounterVec, Registry};

use crate::sys::{self, Registrar};

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
        let made = Registrar(registry);
        let lines_lost =
            IntCounter::new("holdfast_log_lines_lost_total", "Log lines dropped because standard error was not read.")?;
        made.refreshed(lines_lost, |lost| lost.inc_by(sys::log_lines_lost().saturating_sub(lost.get())))?;
        let not_allowed = made.counter_vec(
            "holdfast_admin_not_allowed_total",
            "Connections to the health and the metrics listener closed because `http_allow` or `metrics_allow` does not name \
             their address.",
            &["listener"],
        )?;
        for listener in ["http", "metrics"] {
            not_allowed.with_label_values(&[listener]);
        }
        Ok(Self {
            refused: made.counter_vec(
                "holdfast_admin_refused_total",
                "Connections to the admin socket, the health and the metrics listener closed because there were too many: refused, or evicted while idle.",
                &["listener"],
            )?,
            not_allowed,
            health: made.histogram(
                "holdfast_admin_health_duration_seconds",
                "Duration of answers to `/health`.",
                prometheus::exponential_buckets(0.000_25, 10.0, 5)?,
            )?,
        })
    }
}
