//! What the admin listeners count.

use prometheus::{IntCounterVec, Opts, Registry};

/// Handles made at start.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// By listener.
    pub refused: IntCounterVec,
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
        Ok(Self { refused })
    }
}
