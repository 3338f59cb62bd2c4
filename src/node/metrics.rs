//! What the setup of the node counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::ErrorType;

/// Counters of the setup. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    setup_errors: [IntCounter; ErrorType::ALL.len()],
    /// 1 while the failsafe has given the addresses back.
    released: IntGauge,
    watch_deaths: IntCounter,
}

impl Metrics {
    /// Makes the counters and puts them into `registry`.
    ///
    /// # Errors
    /// If one of their names is taken there.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let errors = IntCounterVec::new(
            Opts::new("holdfast_node_setup_errors_total", "Parts of the node that could not be set up, by kind."),
            &["errortype"],
        )?;
        let released = IntGauge::new(
            "holdfast_node_intercept_released",
            "1 while the failsafe has given the cluster's DNS address back because nothing was answered.",
        )?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(released.clone()))?;
        let watch_deaths = IntCounter::new(
            "holdfast_node_watch_deaths_total",
            "Times the process that watches over interface and rules died and was started again.",
        )?;
        registry.register(Box::new(watch_deaths.clone()))?;
        let setup_errors = ErrorType::ALL.map(|kind| errors.with_label_values(&[kind.as_str()]));
        Ok(Self { setup_errors, released, watch_deaths })
    }

    /// A part of the node could not be set up.
    pub fn setup_error(&self, kind: ErrorType) {
        self.setup_errors[kind as usize].inc();
    }

    #[must_use]
    pub fn setup_errors(&self, kind: ErrorType) -> u64 {
        self.setup_errors[kind as usize].get()
    }

    /// The watch died, and was started again.
    pub fn watch_died(&self) {
        self.watch_deaths.inc();
    }

    /// The failsafe has given the addresses back, or taken them again.
    pub fn set_released(&self, released: bool) {
        self.released.set(released.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_counts_for_itself() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        for (count, kind) in ErrorType::ALL.into_iter().enumerate() {
            for _ in 0..count {
                metrics.setup_error(kind);
            }
        }
        for (count, kind) in ErrorType::ALL.into_iter().enumerate() {
            assert_eq!(metrics.setup_errors(kind), count as u64, "{kind:?}");
            assert_eq!(ErrorType::from_word(kind.as_str()), Some(kind));
        }
    }
}
