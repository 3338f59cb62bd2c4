//! Metrics of the stream, on the hub's side.

use prometheus::{Histogram, IntCounter, IntGauge, Registry, exponential_buckets};

use crate::{
    proto::Mode,
    report::StreamStatus,
    sys::{Registrar, labels},
};

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
    resume: [IntCounter; Mode::ALL.len()],
    refused: [IntCounter; Refused::ALL.len()],
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// If one is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Registrar(registry);
        Ok(Self {
            subscribers: made.gauge("holdfast_stream_subscribers", "Connected agents and hubs.")?,
            refusing: made.gauge(
                "holdfast_stream_refusing",
                "Connected agents and hubs that refuse deletions of this hub, because it could not know their records.",
            )?,
            connections: made
                .gauge("holdfast_stream_connections", "Open connections of agents and hubs, handshakes included.")?,
            bytes: made.counter("holdfast_stream_bytes_total", "Bytes sent to agents and hubs, before TLS.")?,
            fallen: made.counter(
                "holdfast_stream_fallen_total",
                "Times an agent or hub was too slow for the stream and was resynced.",
            )?,
            ring_bytes: made.gauge(
                "holdfast_stream_history_bytes",
                "Bytes of the history that slow agents and hubs catch up from.",
            )?,
            batch_changes: made.histogram(
                "holdfast_stream_batch_changes",
                "Changes in one batch of the stream.",
                exponential_buckets(1.0, 4.0, 8)?,
            )?,
            resume: made.counters(
                "holdfast_stream_resume_total",
                "First syncs of agents and hubs, by mode: delta, repair (changed parts), snapshot (everything), wait.",
                "mode",
                Mode::ALL.map(Mode::label),
            )?,
            refused: made.counters(
                "holdfast_stream_refused_total",
                "Connections and calls refused or failed, by reason.",
                "reason",
                Refused::ALL.map(Refused::as_str),
            )?,
        })
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
            resumed: Mode::ALL.map(|mode| (mode.label().to_owned(), self.resume[mode as usize].get())).into(),
            refused: Refused::ALL
                .map(|reason| (reason.as_str().to_owned(), self.refused[reason as usize].get()))
                .into(),
        }
    }

    pub(super) fn served(&self, mode: Mode) {
        self.resume[mode as usize].inc();
    }

    pub(super) fn refused(&self, reason: Refused) {
        self.refused[reason as usize].inc();
    }
}
