//! The loop between the source and the store: one update after the other into the one writer.

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    admin::Latch,
    store::{SourceState, Update, Writer},
};

/// Updates that may wait for the writer. A source that is further ahead waits; nothing is dropped.
pub(super) const UPDATES_WAITING: usize = 64;

/// Applies what the source sends until it ends. `first_records` is let go when there is a complete set of records.
pub(super) async fn run(mut writer: Writer, mut updates: mpsc::Receiver<Update>, first_records: Option<Latch>) {
    let mut waiting = first_records;
    while let Some(update) = updates.recv().await {
        let before = writer.reader().freshness().source;
        let complete = matches!(update, Update::Reset { .. });
        match writer.apply(update) {
            Ok(applied) => {
                if complete {
                    waiting = None;
                    let reader = writer.reader();
                    let (snapshot, counts) = (reader.snapshot(), reader.load().counts());
                    info!(
                        version = %snapshot.version(),
                        cluster = %snapshot.version().cluster,
                        services = counts.services,
                        endpoints = counts.endpoints,
                        namespaces = counts.namespaces,
                        changes = applied.changes,
                        "records complete"
                    );
                }
            }
            Err(error) => warn!(%error, "update refused, records stand as they were"),
        }
        tell(&before, &writer.reader().freshness().source);
    }
    drop(waiting);
}

/// Logs when the source comes and goes, not every time it says so.
fn tell(before: &SourceState, now: &SourceState) {
    match (before, now) {
        (SourceState::Lost(_), SourceState::Lost(_)) => {}
        (_, SourceState::Lost(reason)) => warn!(%reason, "source lost, serving what is held"),
        (SourceState::Lost(_), SourceState::Up) => info!("source is back"),
        (_, SourceState::Starting | SourceState::Up) => {}
    }
}
