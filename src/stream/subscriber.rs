//! A subscriber: a cursor, and the frames it needs next.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    beside::Follows,
    choose::Have,
    fanout::{Fanout, Plan, Prepared, Transfer},
    ring::{At, Place},
};
use crate::{
    limits::Turn,
    proto::{self, Hello, Mode},
};

/// A reader of a large transfer counts against the cap for at most this long: a slow one must not keep others out, and its bytes
/// are shared anyway.
const TURN_MAX: Duration = Duration::from_secs(30);
/// A repair of more buckets waits for its turn as a snapshot does: each on its way has up to 40 kB of its own, encrypted for it
/// or about to be.
const REPAIR_BUCKETS_AT_ONCE: usize = 16;

/// Yields the frames one client is owed, one by one, as fast as it takes them.
pub(super) struct Subscriber {
    fanout: Arc<Fanout>,
    head: watch::Receiver<u64>,
    stage: Stage,
    stop: CancellationToken,
    /// The client's address.
    source: IpAddr,
    /// Records the client holds against this hub.
    refuses: u32,
    _relay: Option<Follows>,
}

enum Stage {
    /// Nothing was sent yet; or nothing could be, the last time.
    Deciding {
        have: Option<Have>,
        waited: bool,
    },
    /// Parts of a repair; `sent` buckets were sent.
    Repairing {
        transfer: Transfer,
        sent: usize,
        _turn: Option<DropGuard>,
    },
    /// Waiting for its turn to be sent this repair, or a snapshot.
    Queueing {
        repair: Option<Transfer>,
    },
    /// The snapshot; `sent` of its frames were sent, the mark behind them included.
    Loading {
        prepared: Arc<Prepared>,
        sent: usize,
        _turn: DropGuard,
    },
    Live {
        cursor: u64,
        place: Arc<Place>,
    },
}

impl Subscriber {
    pub(super) fn new(fanout: Arc<Fanout>, hello: &Hello, source: IpAddr, stop: CancellationToken) -> Self {
        fanout.metrics.subscribers.inc();
        if hello.refuses > 0 {
            fanout.metrics.refusing.inc();
        }
        Self {
            head: fanout.subscribe(),
            _relay: fanout.beside.follows(&hello.serves),
            stage: Stage::Deciding { have: Have::of(hello), waited: false },
            refuses: hello.refuses,
            fanout,
            source,
            stop,
        }
    }

    /// The next frame; `None` when the stream ends. Cancel-safe in that a subscriber dropped while it waits leaves nothing behind.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let frame = self.step().await?;
        self.fanout.metrics.bytes.inc_by(frame.len() as u64);
        Some(frame)
    }

    async fn step(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.stage {
                Stage::Deciding { have, waited } => {
                    let plan = self.fanout.plan(have.as_ref());
                    if let Plan::Wait(reason) = plan {
                        if std::mem::replace(waited, true) {
                            self.pause().await?;
                            if !matches!(self.fanout.plan(self.have()), Plan::Wait(_)) {
                                continue;
                            }
                        } else {
                            *have = have.take().map(|have| self.fanout.waits(have));
                            self.fanout.metrics.served(Mode::Wait);
                        }
                        return Some(proto::wait(&self.fanout.config.node, &reason));
                    }
                    if let Some(welcome) = self.begin(plan) {
                        return Some(welcome);
                    }
                }
                Stage::Queueing { repair } => {
                    let wait = self.fanout.config.heartbeat;
                    let Ok(turn) = timeout(wait, self.fanout.transfers.take(self.source)).await else {
                        if self.stop.is_cancelled() {
                            return None;
                        }
                        return Some(proto::wait(&self.fanout.config.node, "others are being brought up to date"));
                    };
                    if let Some(transfer) = repair.take() {
                        self.stage = Stage::Repairing { transfer, sent: 0, _turn: Some(hold(turn)) };
                        return Some(self.welcome(Mode::Repair));
                    }
                    let prepared = self.fanout.prepared().await;
                    self.stage = Stage::Loading { prepared, sent: 0, _turn: hold(turn) };
                    return Some(self.welcome(Mode::Snapshot));
                }
                Stage::Loading { prepared, sent, .. } => {
                    let next = *sent;
                    *sent += 1;
                    if let Some(frame) = prepared.frames.get(next) {
                        return Some(frame.clone());
                    }
                    if next == prepared.frames.len() {
                        let end = self.fanout.end(&prepared.snapshot, prepared.as_of);
                        return Some(end);
                    }
                    // A client that asks for more has taken all of it.
                    self.stage = Stage::Live { cursor: prepared.cursor, place: Arc::clone(&prepared.place) };
                }
                Stage::Repairing { transfer, sent, .. } => {
                    let owed = transfer.buckets.get(*sent..).unwrap_or_default();
                    if let Some((frames, more)) = self.fanout.buckets.next(&transfer.snapshot, owed) {
                        *sent += more;
                        return Some(frames);
                    }
                    let end = self.fanout.end(&transfer.snapshot, transfer.as_of);
                    self.stage = Stage::Live { cursor: transfer.cursor, place: Arc::clone(&transfer.place) };
                    return Some(end);
                }
                Stage::Live { cursor, place } => {
                    // Seen before looking, so that what comes in between wakes us.
                    self.head.mark_unchanged();
                    match self.fanout.at(*cursor) {
                        At::Slot(slot) => {
                            *cursor += 1;
                            *place = slot.place;
                            return Some(slot.frame);
                        }
                        At::Gone => {
                            let plan = self.fanout.plan_from(place);
                            self.fanout.metrics.fallen.inc();
                            if let Some(welcome) = self.begin(plan) {
                                return Some(welcome);
                            }
                        }
                        At::Head if self.stop.is_cancelled() => return None,
                        At::Head => {
                            tokio::select! {
                                () = self.fanout.wait(&mut self.head) => {}
                                () = self.stop.cancelled() => {}
                            }
                        }
                    }
                }
            }
        }
    }

    fn have(&self) -> Option<&Have> {
        match &self.stage {
            Stage::Deciding { have, .. } => have.as_ref(),
            _ => None,
        }
    }

    /// Sets out on a plan; the welcome, unless it comes later.
    fn begin(&mut self, plan: Plan) -> Option<Bytes> {
        match plan {
            Plan::Delta(cursor, place, head) => {
                self.stage = Stage::Live { cursor, place };
                let welcome = self.welcome(Mode::Delta);
                // Nothing to send: the mark that proves it goes with the welcome, not seconds later.
                Some(match head {
                    Some((head, as_of)) => [welcome, self.fanout.mark(&head, as_of)].concat().into(),
                    None => welcome,
                })
            }
            Plan::Repair(transfer) if transfer.buckets.len() <= REPAIR_BUCKETS_AT_ONCE => {
                self.stage = Stage::Repairing { transfer, sent: 0, _turn: None };
                Some(self.welcome(Mode::Repair))
            }
            Plan::Repair(transfer) => {
                self.stage = Stage::Queueing { repair: Some(transfer) };
                None
            }
            Plan::Snapshot | Plan::Wait(_) => {
                self.stage = Stage::Queueing { repair: None };
                None
            }
        }
    }

    fn welcome(&self, mode: Mode) -> Bytes {
        self.fanout.metrics.served(mode);
        proto::welcome(mode, &self.fanout.config.node)
    }

    /// Until something changes or a sign of life is due; `None` if the hub stops.
    async fn pause(&mut self) -> Option<()> {
        tokio::select! {
            () = tokio::time::sleep(self.fanout.config.heartbeat) => Some(()),
            changed = self.head.changed() => changed.ok(),
            () = self.stop.cancelled() => None,
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.fanout.metrics.subscribers.dec();
        if self.refuses > 0 {
            self.fanout.metrics.refusing.dec();
        }
    }
}

/// Ends the turn when the guard is dropped, or when it was held long enough.
fn hold(turn: Turn) -> DropGuard {
    let done = CancellationToken::new();
    let guard = done.clone().drop_guard();
    tokio::spawn(async move {
        let _ = timeout(TURN_MAX, done.cancelled()).await;
        drop(turn);
    });
    guard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::Snapshot,
        store::{self, Origin, Records, What},
        stream::{Beside, Config, Metrics, Surroundings},
        sys::{Clock, UnixMillis},
    };

    /// Clients of one address that read nothing of their snapshots wait for each other; one of another address does not.
    #[tokio::test(start_paused = true)]
    async fn snapshots_for_one_address_leave_turns_to_others() {
        let (mut writer, reader) = store::open();
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch: false };
        writer.apply(What::Reset { origin, records: Records::default(), as_of: UnixMillis(7) }).unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (_above, surroundings) = watch::channel(Surroundings::default());
        let config = Config { transfers_max: 4, ..Config::default() };
        let fanout = Fanout::new(config, metrics, reader, Clock::System, surroundings, Beside::default());
        let hello = proto::hello("agent", "", &Snapshot::default());
        let subscribe =
            |last: u8| Subscriber::new(Arc::clone(&fanout), &hello, [10, 0, 0, last].into(), CancellationToken::new());
        let (snapshot, wait) = (proto::welcome(Mode::Snapshot, ""), "others are being brought up to date");
        let wait = proto::wait("", wait);
        let mut stuck = Vec::new();
        for expected in [&snapshot, &snapshot, &wait, &wait] {
            let mut subscriber = subscribe(1);
            assert_eq!(subscriber.next().await.as_ref(), Some(expected));
            stuck.push(subscriber);
        }
        assert_eq!(subscribe(2).next().await, Some(snapshot));
    }
}
