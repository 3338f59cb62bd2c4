//! The loop between the source and the store: one update after the other into the one writer, and what is held let go in
//! time.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{
    admin::Latch,
    source::Metrics,
    store::{Applied, SourceState, Update, Writer, guard::Release},
    sys::Clock,
};

/// Updates that may wait for the writer. A source that is further ahead waits; nothing is dropped.
pub(super) const UPDATES_WAITING: usize = 64;
/// Orders that may wait for it.
pub(super) const ORDERS_WAITING: usize = 8;
/// How often what is held is looked at while some of it ends by itself.
const TICK: Duration = Duration::from_secs(1);

/// What the writer is told by others than the source.
#[derive(Debug)]
pub(super) enum Order {
    /// An operator lets go of what is held.
    Release(Release, oneshot::Sender<Applied>),
    /// This process begins to watch the cluster itself for others: its next list is an epoch of at least this number.
    Lead(u64, oneshot::Sender<()>),
}

/// Applies what the source sends until it ends. `first_records` is let go when there is a complete set of records.
pub(super) async fn run(
    mut writer: Writer,
    mut updates: mpsc::Receiver<Update>,
    mut orders: mpsc::Receiver<Order>,
    first_records: Option<Latch>,
    metrics: Metrics,
    clock: Clock,
) {
    let mut waiting = first_records;
    loop {
        let ends = writer.reader().held().next_end().is_some();
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => {
                    let before = writer.reader().load().version().clone();
                    if apply(&mut writer, update) {
                        waiting = None;
                    }
                    let reader = writer.reader();
                    let now = clock.now();
                    for at in reader.changed_between(&before, reader.load().version()) {
                        metrics.programmed(at, now);
                    }
                }
                None => break,
            },
            Some(order) = orders.recv() => match order {
                Order::Release(which, done) => {
                    let applied = writer.release(&which);
                    info!(?which, changes = applied.changes, "an operator let go of what was held");
                    // Whoever asked may be gone.
                    let _ = done.send(applied);
                }
                Order::Lead(epoch, done) => {
                    writer.begin_epoch(epoch);
                    let _ = done.send(());
                }
            },
            () = tokio::time::sleep(TICK), if ends => {
                writer.tick();
            }
        }
    }
    drop(waiting);
}

/// Applies one update; true if there is a complete set of records since.
fn apply(writer: &mut Writer, update: Update) -> bool {
    let before = writer.reader().freshness().source;
    let complete = matches!(update, Update::Reset { .. });
    let applied = writer.apply(update);
    let done = match &applied {
        Ok(applied) if complete => {
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
            true
        }
        Ok(_) => false,
        Err(error) => {
            warn!(%error, "update refused, records stand as they were");
            false
        }
    };
    tell(&before, &writer.reader().freshness().source);
    done
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
