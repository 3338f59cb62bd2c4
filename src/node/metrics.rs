//! Counters of the node's setup.

use prometheus::{IntCounter, IntGauge, Registry};

use super::ErrorType;
use crate::{
    report::{AddressState, Keeper, KeeperKind},
    sys::Registrar,
};

/// Counters of the setup. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    setup_errors: [IntCounter; ErrorType::ALL.len()],
    /// 1 while the failsafe has given the addresses back.
    released: IntGauge,
    /// 1 while the addresses are not taken, as the cluster's DNS answers better.
    waiting: IntGauge,
    watch_deaths: IntCounter,
    process_deaths: IntCounter,
    /// Of this process, and of each kind of another one.
    keepers: (IntGauge, [IntGauge; KeeperKind::ALL.len()]),
}

impl Metrics {
    /// Makes the counters and puts them into `registry`.
    ///
    /// # Errors
    /// If one of their names is taken there.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        let keepers = made.gauge_vec(
            "holdfast_node_keeper_since_timestamp_seconds",
            "Unix time at which this keeper took interface and rules of the agent's addresses; 0: it has not.",
            &["keeper"],
        )?;
        Ok(Self {
            setup_errors: made.counters(
                "holdfast_node_setup_errors_total",
                "Parts of the node that could not be set up, by kind.",
                "errortype",
                ErrorType::ALL.map(ErrorType::as_str),
            )?,
            released: made.gauge(
                "holdfast_node_intercept_released",
                "1 while the failsafe has given queries to the cluster's DNS because the agent did not answer.",
            )?,
            waiting: made.gauge(
                "holdfast_node_addresses_waiting",
                "1 while the agent leaves its addresses to the cluster's DNS, which can answer better: no records here, or another zone.",
            )?,
            watch_deaths: made.counter(
                "holdfast_node_watch_deaths_total",
                "Times the node watch (interface and rules) died and was started again.",
            )?,
            process_deaths: made.counter(
                "holdfast_node_process_deaths_total",
                "Times the answering process died and its parent started it again, since the parent started.",
            )?,
            keepers: (
                keepers.with_label_values(&["own"]),
                KeeperKind::ALL.map(|kind| keepers.with_label_values(&[&format!("other_{}", kind.as_str())])),
            ),
        })
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

    /// The answering process died this often before it was started.
    pub fn processes_died(&self, times: u64) {
        self.process_deaths.inc_by(times);
    }

    /// Where queries to the addresses go.
    pub fn set_state(&self, state: AddressState) {
        self.released.set((state == AddressState::Released).into());
        self.waiting.set((state == AddressState::Waiting).into());
    }

    /// The watch that keeps interface and rules: this agent's `own`, another one, or one that says nothing of itself.
    pub fn set_keeper(&self, own: bool, keeper: Option<&Keeper>) {
        let since = |is: bool| match keeper {
            Some(keeper) if is => i64::try_from(keeper.since.0.0 / 1000).unwrap_or(i64::MAX),
            _ => 0,
        };
        self.keepers.0.set(since(own));
        for (kind, gauge) in KeeperKind::ALL.into_iter().zip(&self.keepers.1) {
            gauge.set(since(!own && keeper.is_some_and(|keeper| keeper.kind == kind)));
        }
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
        }
    }
}
