//! Metrics of following hubs.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::proto::Mode;

/// How an attempt to follow a hub went.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    Followed,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    /// Times records did not add up to the hub's digest.
    pub digest_mismatch: IntCounter,
    attempts: IntCounterVec,
    resumed: IntCounterVec,
    /// Without a series until hubs are followed.
    connected: IntGaugeVec,
    /// Without a series until a hub has said what its clock reads.
    clock_offset: GaugeVec,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            digest_mismatch: IntCounter::new(
                "holdfast_store_digest_mismatch_total",
                "Times the records differed from the hub's digest; each was repaired.",
            )?,
            attempts: IntCounterVec::new(
                Opts::new("holdfast_hub_attempts_total", "Connections to hubs that ended, by result."),
                &["result"],
            )?,
            resumed: IntCounterVec::new(
                Opts::new(
                    "holdfast_hub_resume_total",
                    "Syncs with hubs, by mode: delta, repair (changed parts), snapshot (everything).",
                ),
                &["mode"],
            )?,
            connected: IntGaugeVec::new(
                Opts::new(
                    "holdfast_hub_connected",
                    "1 while a hub sends to this process, even if that hub lost the apiserver; 0 while none is reached.",
                ),
                &[],
            )?,
            clock_offset: GaugeVec::new(
                Opts::new(
                    "holdfast_hub_clock_offset_seconds",
                    "Offset of the hub's clock from this machine's, positive if the hub's is ahead. Ages are corrected by it.",
                ),
                &[],
            )?,
        };
        registry.register(Box::new(metrics.digest_mismatch.clone()))?;
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.resumed.clone()))?;
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.clock_offset.clone()))?;
        for attempt in ["followed", "failed"] {
            let _ = metrics.attempts.with_label_values(&[attempt]);
        }
        for mode in [Mode::Delta, Mode::Repair, Mode::Snapshot] {
            let _ = metrics.resumed.with_label_values(&[mode.label()]);
        }
        Ok(metrics)
    }

    pub(super) fn attempt(&self, attempt: Attempt) {
        let result = match attempt {
            Attempt::Followed => "followed",
            Attempt::Failed => "failed",
        };
        self.attempts.with_label_values(&[result]).inc();
    }

    pub(super) fn connected(&self, connected: bool) {
        self.connected.with_label_values::<&str>(&[]).set(connected.into());
    }

    /// By how many ms the hub's clock is ahead, if it has said what it reads.
    #[allow(clippy::cast_precision_loss, reason = "a clock that is off by centuries may be off by a ms more")]
    pub(super) fn clock_ahead(&self, ms: Option<i64>) {
        match ms {
            Some(ms) => self.clock_offset.with_label_values::<&str>(&[]).set(ms as f64 / 1_000.0),
            None => self.clock_offset.reset(),
        }
    }

    pub(super) fn resumed(&self, mode: Mode) {
        self.resumed.with_label_values(&[mode.label()]).inc();
    }
}
