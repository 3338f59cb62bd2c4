//! The loop between the source and the store: applies one update after the other by the one writer, and ends holds in
//! time.

use std::time::Duration;

use futures::future::OptionFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::source_log::SourceLog;
use crate::{
    admin::Latch,
    record::Version,
    source::{
        Metrics,
        apiserver::lease::{Fence, Verdict},
    },
    store::{Applied, Update, What, Writer, guard::Release},
    sys::Clock,
};

/// Updates that may wait for the writer. A source that is further ahead waits; nothing is dropped.
pub(super) const UPDATES_WAITING: usize = 64;
/// Orders that may wait for it.
pub(super) const ORDERS_WAITING: usize = 8;
/// Shortest time between two looks at holds that end by time.
const TICK_MIN: Duration = Duration::from_millis(20);

/// Orders to the writer that do not come from the source.
#[derive(Debug)]
pub(super) enum Order {
    /// An operator releases holds.
    Release(Release, oneshot::Sender<Applied>),
    /// From now on this fence decides whether own updates are stamped.
    Fence(Fence),
    /// This process begins to watch the cluster itself for others: its next list is of this epoch at least. If it is `listing`
    /// already, that is the list which waits.
    Lead { epoch: u64, listing: bool, done: oneshot::Sender<()> },
}

/// Applies the updates of the source until it ends. `first_records` is dropped with the first complete set of records.
pub(super) async fn run(
    mut writer: Writer,
    mut updates: mpsc::Receiver<Update>,
    mut orders: mpsc::Receiver<Order>,
    first_records: Option<Latch>,
    metrics: Metrics,
    clock: Clock,
    mut log: SourceLog,
) {
    let mut waiting = first_records;
    let mut stamping = Stamping::default();
    // Seen by this process itself, and not to be stamped before it is known that it may.
    let mut held_up: Option<(Update, Instant)> = None;
    loop {
        let tick = writer.next_tick().map(|at| Duration::from_millis(at.0.saturating_sub(clock.now().0)).max(TICK_MIN));
        let update = tokio::select! {
            update = updates.recv(), if held_up.is_none() => match update {
                Some(update) => match stamping.verdict(&update) {
                    Verdict::Stamp => update,
                    Verdict::Drop => continue,
                    Verdict::Wait => {
                        held_up = Some((update, Instant::now()));
                        continue;
                    }
                },
                None => break,
            },
            verdict = stamping.decided(held_up.as_ref()), if held_up.is_some() => match held_up.take() {
                Some((update, _)) if verdict == Verdict::Stamp => update,
                _ => {
                    info!("dropped own updates: another hub is the leader now");
                    continue;
                }
            },
            Some(order) = orders.recv() => {
                match order {
                    Order::Release(which, done) => {
                        let applied = writer.release(&which);
                        // The receiver of the answer may be gone.
                        let _ = done.send(applied);
                    }
                    Order::Fence(fence) => stamping.fence = Some(fence),
                    Order::Lead { epoch, listing, done } => {
                        writer.begin_epoch(epoch);
                        stamping.epoch = Some(epoch);
                        if !listing {
                            // A list is to come, which has it too.
                            held_up = None;
                        }
                        let _ = done.send(());
                    }
                }
                continue;
            }
            Some(()) = OptionFuture::from(log.next().map(sleep_until)) => {
                log.tell();
                continue;
            }
            () = tokio::time::sleep(tick.unwrap_or_default()), if tick.is_some() => {
                let before = writer.reader().load().version().clone();
                writer.tick();
                observe(&writer, &before, &metrics, &clock);
                continue;
            }
        };
        let before = writer.reader().load().version().clone();
        if apply(&mut writer, update, &mut log) {
            waiting = None;
        }
        observe(&writer, &before, &metrics, &clock);
    }
    drop(waiting);
}

/// Counts how long objects took from their change until the records show it.
fn observe(writer: &Writer, before: &Version, metrics: &Metrics, clock: &Clock) {
    let reader = writer.reader();
    let now = clock.now();
    for at in reader.changed_between(before, reader.load().version()) {
        metrics.programmed(at, now);
    }
}

/// Whether this process may stamp its own updates.
#[derive(Debug, Default)]
struct Stamping {
    /// Without one it may.
    fence: Option<Fence>,
    /// The epoch it was last ordered to begin.
    epoch: Option<u64>,
}

impl Stamping {
    fn verdict(&self, update: &Update) -> Verdict {
        match &self.fence {
            Some(fence) if update.is_watched() => fence.verdict(self.epoch),
            _ => Verdict::Stamp,
        }
    }

    async fn decided(&mut self, held_up: Option<&(Update, Instant)>) -> Verdict {
        match (&mut self.fence, held_up) {
            (Some(fence), Some((_, seen))) => fence.decided(self.epoch, *seen).await,
            _ => Verdict::Stamp,
        }
    }
}

/// Applies one update; true if there is a complete set of records since.
fn apply(writer: &mut Writer, update: Update, log: &mut SourceLog) -> bool {
    let before = writer.reader().freshness().source;
    let complete = matches!(update.what, What::Reset { .. });
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
            warn!(%error, "update refused: the old records stay in effect");
            false
        }
    };
    let changes = applied.as_ref().map_or(0, |applied| applied.changes);
    log.note(&before, &writer.reader().freshness(), changes);
    done
}
