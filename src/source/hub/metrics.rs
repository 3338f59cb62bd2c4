//! Metrics of following hubs.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::{
    proto::Mode,
    sys::{Registrar, labels},
};

labels! {
    /// How an attempt to follow a hub went.
    pub(super) enum Attempt {
        Followed = "followed",
        Failed = "failed",
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    /// Times records did not add up to the hub's digest.
    pub digest_mismatch: IntCounter,
    attempts: [IntCounter; Attempt::ALL.len()],
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
        let made = Registrar(registry);
        let clock_offset = Opts::new(
            "holdfast_hub_clock_offset_seconds",
            "Offset of the hub's clock from this machine's, positive if the hub's is ahead. Ages are corrected by it.",
        );
        let metrics = Self {
            digest_mismatch: made.counter(
                "holdfast_store_digest_mismatch_total",
                "Times the records differed from the hub's digest; each was repaired.",
            )?,
            attempts: made.counters(
                "holdfast_hub_attempts_total",
                "Connections to hubs that ended, by result.",
                "result",
                Attempt::ALL.map(Attempt::as_str),
            )?,
            resumed: made.counter_vec(
                "holdfast_hub_resume_total",
                "Syncs with hubs, by mode: delta, repair (changed parts), snapshot (everything).",
                &["mode"],
            )?,
            connected: made.gauge_vec(
                "holdfast_hub_connected",
                "1 while a hub sends to this process, even if that hub lost the apiserver; 0 while none is reached.",
                &[],
            )?,
            clock_offset: made.put(GaugeVec::new(clock_offset, &[])?)?,
        };
        for mode in [Mode::Delta, Mode::Repair, Mode::Snapshot] {
            metrics.resumed.with_label_values(&[mode.label()]);
        }
        Ok(metrics)
    }

    pub(super) fn attempt(&self, attempt: Attempt) {
        self.attempts[attempt as usize].inc();
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
