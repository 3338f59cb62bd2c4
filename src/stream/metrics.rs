//! Metrics of the stream, on the hub's side.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets};

use crate::{proto::Mode, report::StreamStatus, sys::labels};

labels! {
    /// Why a connection came to nothing.
    pub(super) enum Refused {
        Full = "full",
        /// The handshake failed or took too long.
        Handshake = "handshake",
        /// The call is not ours, or its greeting is none.
        Request = "request",
        /// A hub that would close a circle.
        Loop = "loop",
    }
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) subscribers: IntGauge,
    pub(super) refusing: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) bytes: IntCounter,
    pub(super) fallen: IntCounter,
    pub(super) ring_bytes: IntGauge,
    pub(super) batch_changes: Histogram,
    resume: IntCounterVec,
    refused: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            subscribers: IntGauge::new("holdfast_stream_subscribers", "Connected agents and hubs.")?,
            refusing: IntGauge::new(
                "holdfast_stream_refusing",
                "Connected agents and hubs that refuse deletions of this hub, because it could not know their records.",
            )?,
            connections: IntGauge::new(
                "holdfast_stream_connections",
                "Open connections of agents and hubs, handshakes included.",
            )?,
            bytes: IntCounter::new("holdfast_stream_bytes_total", "Bytes sent to agents and hubs, before TLS.")?,
            fallen: IntCounter::new(
                "holdfast_stream_fallen_total",
                "Times an agent or hub was too slow for the stream and was resynced.",
            )?,
            ring_bytes: IntGauge::new(
                "holdfast_stream_history_bytes",
                "Bytes of the history that slow agents and hubs catch up from.",
            )?,
            batch_changes: Histogram::with_opts(
                HistogramOpts::new("holdfast_stream_batch_changes", "Changes in one batch of the stream.")
                    .buckets(exponential_buckets(1.0, 4.0, 8)?),
            )?,
            resume: IntCounterVec::new(
                Opts::new(
                    "holdfast_stream_resume_total",
                    "First syncs of agents and hubs, by mode: delta, repair (changed parts), snapshot (everything), wait.",
                ),
                &["mode"],
            )?,
            refused: IntCounterVec::new(
                Opts::new("holdfast_stream_refused_total", "Connections and calls refused or failed, by reason."),
                &["reason"],
            )?,
        };
        registry.register(Box::new(metrics.subscribers.clone()))?;
        registry.register(Box::new(metrics.refusing.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.fallen.clone()))?;
        registry.register(Box::new(metrics.ring_bytes.clone()))?;
        registry.register(Box::new(metrics.batch_changes.clone()))?;
        registry.register(Box::new(metrics.resume.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        for mode in Mode::ALL {
            let _ = metrics.resume.with_label_values(&[mode.label()]);
        }
        for reason in Refused::ALL {
            let _ = metrics.refused.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// How the stream stands, for `status`, of a hub with this name that says it is reached there.
    pub fn status(&self, name: &str, advertise: &[String]) -> StreamStatus {
        let count = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        StreamStatus {
            name: name.to_owned(),
            advertise: advertise.to_vec(),
            subscribers: count(&self.subscribers),
            refusing: count(&self.refusing),
            connections: count(&self.connections),
            history_bytes: count(&self.ring_bytes),
            sent_bytes: self.bytes.get(),
            fallen: self.fallen.get(),
            resumed: Mode::ALL
                .map(|mode| (mode.label().to_owned(), self.resume.with_label_values(&[mode.label()]).get()))
                .into(),
            refused: Refused::ALL
                .map(|reason| (reason.as_str().to_owned(), self.refused.with_label_values(&[reason.as_str()]).get()))
                .into(),
        }
    }

    pub(super) fn served(&self, mode: Mode) {
        self.resume.with_label_values(&[mode.label()]).inc();
    }

    pub(super) fn refused(&self, reason: Refused) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }
}
