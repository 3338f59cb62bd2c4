//! Follows the store and turns what changed into frames, each once for everybody.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Beside, Config, Metrics, Surroundings,
    bucket_frames::BucketFrames,
    choose::{Choice, Have, catch_up, choose},
    ring::{At, Place, Ring},
    round::{Idle, Round},
};
use crate::{
    limits::Turns,
    proto::{self, Vouched},
    record::{Digest, Snapshot},
    store::{Reader, SourceState},
    sys::{Clock, Lock, UnixMillis},
};

/// Reconnects a second the announced window aims at.
const RECONNECTS_PER_S: u64 = 1_500;
/// Bounds of the announced window.
const WINDOW_MS: (u64, u64) = (500, 30_000);
/// Different states that those who wait can share.
const DIGESTS_SHARED_MAX: usize = 64;

pub(super) struct Fanout {
    pub config: Config,
    pub metrics: Metrics,
    /// Turns for snapshots and large repairs.
    pub transfers: Turns,
    reader: Reader,
    clock: Clock,
    surroundings: watch::Receiver<Surroundings>,
    pub beside: Beside,
    state: Lock<State>,
    pub buckets: BucketFrames,
    prepared: tokio::sync::Mutex<Option<Arc<Prepared>>>,
    /// The states of waiting subscribers: mostly equal.
    waiting: Lock<Vec<Weak<[Digest]>>>,
    head: watch::Sender<u64>,
    round: Round,
}

struct State {
    ring: Ring,
    snapshot: Arc<Snapshot>,
    /// When the source vouched for `snapshot`; never later than it did.
    as_of: UnixMillis,
    synced: bool,
    /// Whether the last frame said that the source is lost.
    lost: bool,
}

/// A snapshot as frames, and where its reader goes on.
pub(super) struct Prepared {
    /// All but the mark at the end: what was made once stays good, what is said of its age does not.
    pub frames: Vec<Bytes>,
    pub snapshot: Arc<Snapshot>,
    /// When the source vouched for `snapshot`, as of its making.
    pub as_of: UnixMillis,
    pub cursor: u64,
    pub place: Arc<Place>,
}

/// Records on their way to one subscriber.
pub(super) struct Transfer {
    pub buckets: Vec<usize>,
    pub snapshot: Arc<Snapshot>,
    /// When the source vouched for `snapshot`, which may be long past when the last of it is sent.
    pub as_of: UnixMillis,
    pub cursor: u64,
    pub place: Arc<Place>,
}

/// The next step for a subscriber.
pub(super) enum Plan {
    /// From this cursor; with the head's snapshot and its age if that is where it stands.
    Delta(u64, Arc<Place>, Option<(Arc<Snapshot>, UnixMillis)>),
    Repair(Transfer),
    Snapshot,
    /// Nothing yet; why.
    Wait(String),
}

impl Fanout {
    pub(super) fn new(
        config: Config,
        metrics: Metrics,
        reader: Reader,
        clock: Clock,
        surroundings: watch::Receiver<Surroundings>,
        beside: Beside,
    ) -> Arc<Self> {
        let as_of = reader.as_of();
        let snapshot = reader.snapshot();
        let state = State {
            ring: Ring::new(Place::of(&snapshot), config.ring_bytes_max, config.ring_age_max),
            synced: as_of.is_some(),
            lost: false,
            as_of: as_of.unwrap_or_default(),
            snapshot,
        };
        Arc::new(Self {
            transfers: Turns::new(config.transfers_max),
            config,
            metrics,
            reader,
            clock,
            surroundings,
            beside,
            state: Lock::new(state),
            buckets: BucketFrames::default(),
            prepared: tokio::sync::Mutex::new(None),
            waiting: Lock::default(),
            head: watch::Sender::new(0),
            round: Round::default(),
        })
    }

    /// Turns what the store publishes into slots until `stop`.
    ///
    /// Self-clocked: idle, a change goes out at once; while the subscribers are still waking for the last frame, changes
    /// gather in the store and go out together.
    pub(super) async fn pump(&self, stop: CancellationToken) {
        let mut published = self.reader.subscribe();
        // Versions published before the first look.
        self.publish(false);
        let mut beat = Instant::now() + self.config.heartbeat;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(beat) => {}
                changed = published.changed() => if changed.is_err() { return },
            }
            let due = Instant::now() >= beat;
            let sent = self.publish(due);
            if sent || due {
                beat = Instant::now() + self.config.heartbeat;
            }
            if sent {
                self.round.finish().await;
            }
        }
    }

    /// Appends what is new, or a heartbeat if one is due. False if there was nothing to say.
    fn publish(&self, beat_due: bool) -> bool {
        // The age first: as the store publishes it last, it is never newer than the records.
        let Some(as_of) = self.reader.as_of() else { return false };
        let snapshot = self.reader.snapshot();
        let vouched = self.vouched(&snapshot, as_of);
        let (held, synced, news) = {
            let mut state = self.state.lock();
            let before = std::mem::replace(&mut state.lost, vouched.lost.is_some());
            (Arc::clone(&state.snapshot), state.synced, before != state.lost)
        };
        let now = Instant::now();
        if !synced || snapshot.version().cluster != held.version().cluster {
            let mut state = self.state.lock();
            state.ring.restart(Place::of(&snapshot));
            state.snapshot = snapshot;
            state.as_of = as_of;
            state.synced = true;
            drop(state);
            self.announce();
            return true;
        }
        let changes = if Arc::ptr_eq(&snapshot, &held) { Vec::new() } else { snapshot.diff(&held) };
        let (frame, place) = if !changes.is_empty() || snapshot.version() != held.version() {
            let made = self.clock.now();
            let moments = self.reader.changed_between(held.version(), snapshot.version());
            let changed_ms = moments.iter().map(|at| at.0).collect();
            self.metrics.batch_changes.observe(to_f64(changes.len()));
            (proto::batch(held.version(), &changes, &snapshot, &vouched, changed_ms, made), Place::of(&snapshot))
        } else if beat_due || news {
            // That the source is lost, or back, does not wait for the next heartbeat: followers may look elsewhere.
            (proto::mark(&held, &vouched), Arc::clone(self.state.lock().ring.place()))
        } else {
            self.state.lock().as_of = as_of;
            return false;
        };
        {
            let mut state = self.state.lock();
            state.ring.push(frame, place, now);
            state.snapshot = snapshot;
            state.as_of = as_of;
        }
        self.announce();
        true
    }

    fn announce(&self) {
        let (next, bytes) = {
            let state = self.state.lock();
            (state.ring.next(), state.ring.bytes())
        };
        self.metrics.ring_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.round.begin();
        self.head.send_replace(next);
    }

    /// Tells every subscriber to go elsewhere within `window`.
    pub(super) fn drain(&self, window: Duration) {
        let hubs: Vec<String> = self.hubs().into_iter().filter(|hub| !self.config.advertise.contains(hub)).collect();
        let frame = proto::drain(u32::try_from(window.as_millis()).unwrap_or(u32::MAX), &hubs);
        {
            let mut state = self.state.lock();
            let place = Arc::clone(state.ring.place());
            state.ring.push(frame, place, Instant::now());
        }
        self.announce();
    }

    fn vouched(&self, snapshot: &Snapshot, as_of: UnixMillis) -> Vouched {
        let freshness = self.reader.freshness();
        let subscribers = u64::try_from(self.metrics.subscribers.get()).unwrap_or(0);
        // In steps, so that those who come one after the other are told the same, byte for byte.
        let window_ms = (subscribers * 1_000 / RECONNECTS_PER_S).next_multiple_of(WINDOW_MS.0);
        let window_ms = window_ms.clamp(WINDOW_MS.0, WINDOW_MS.1);
        Vouched {
            as_of,
            lost: match freshness.source {
                SourceState::Up => None,
                SourceState::Starting => Some("no complete list since the hub started".into()),
                SourceState::Lost(reason) => Some(reason),
            },
            path: self.path(),
            window_ms: u32::try_from(window_ms).unwrap_or(u32::MAX),
            hubs: self.hubs(),
            let_go: self.reader.let_go(snapshot),
            now: self.clock.now(),
            releases: self.reader.releases(snapshot),
            verdicts: true,
        }
    }

    /// This hub's state, for clients that do not follow.
    pub(super) fn reply(&self) -> proto::StateReply {
        let as_of = self.reader.as_of().unwrap_or_default();
        let snapshot = self.reader.snapshot();
        let vouched = self.vouched(&snapshot, as_of);
        proto::state_reply(&snapshot, vouched, self.config.advertise.first().cloned().unwrap_or_default())
    }

    /// This hub, then those it follows.
    pub(super) fn path(&self) -> Vec<String> {
        let upstream = self.surroundings.borrow().path.clone();
        std::iter::once(self.config.node.clone()).chain(upstream).collect()
    }

    fn hubs(&self) -> Vec<String> {
        let mut hubs = self.config.advertise.clone();
        hubs.extend(self.surroundings.borrow().hubs.iter().cloned());
        hubs.extend(self.beside.addresses());
        let mut seen = std::collections::HashSet::new();
        hubs.retain(|hub| seen.insert(hub.clone()));
        hubs.truncate(32);
        hubs
    }

    /// The end of a transfer: what its reader now holds. `as_of` is how old that was when the transfer began; records that
    /// are what we hold still are as young as ours.
    pub(super) fn mark(&self, snapshot: &Snapshot, as_of: UnixMillis) -> Bytes {
        let as_of = {
            let state = self.state.lock();
            if state.snapshot.version() == snapshot.version() { state.as_of } else { as_of }
        };
        proto::mark(snapshot, &self.vouched(snapshot, as_of))
    }

    /// The last frames of a transfer: its holds and epochs, and the mark.
    pub(super) fn end(&self, snapshot: &Snapshot, as_of: UnixMillis) -> Bytes {
        [proto::verdicts(snapshot), self.mark(snapshot, as_of)].concat().into()
    }

    /// Wakes when there is something new.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn at(&self, cursor: u64) -> At {
        self.state.lock().ring.at(cursor)
    }

    pub(super) fn plan(&self, have: Option<&Have>) -> Plan {
        let state = self.state.lock();
        if !state.synced {
            return Plan::Wait(match self.reader.freshness().source {
                SourceState::Lost(reason) => format!("no records yet: {reason}"),
                SourceState::Starting | SourceState::Up => "no records yet".into(),
            });
        }
        match choose(have, &state.ring) {
            Choice::Delta(cursor, place) => {
                let head = (cursor == state.ring.next()).then(|| (Arc::clone(&state.snapshot), state.as_of));
                Plan::Delta(cursor, place, head)
            }
            Choice::Repair(buckets) => Plan::Repair(transfer(&state, buckets)),
            Choice::Snapshot => Plan::Snapshot,
            Choice::Wait => Plan::Wait("this hub's records are older than the client's".into()),
        }
    }

    /// The digests of a waiting client, shared with others that hold the same: thousands wait, and each copy has 4 KiB.
    pub(super) fn waits(&self, have: Have) -> Have {
        let mut waiting = self.waiting.lock();
        if let Some(digests) = waiting.iter().filter_map(Weak::upgrade).find(|digests| **digests == *have.digests) {
            return Have { digests, ..have };
        }
        waiting.retain(|digests| digests.strong_count() > 0);
        if waiting.len() < DIGESTS_SHARED_MAX {
            waiting.push(Arc::downgrade(&have.digests));
        }
        have
    }

    /// The frames for a subscriber at `place`, whose entry was removed.
    pub(super) fn plan_from(&self, place: &Place) -> Plan {
        let state = self.state.lock();
        match catch_up(&place.digests, state.ring.place()) {
            Choice::Repair(buckets) => Plan::Repair(transfer(&state, buckets)),
            _ => Plan::Snapshot,
        }
    }

    /// The snapshot as frames, made anew only when the one at hand is too far behind.
    pub(super) async fn prepared(&self) -> Arc<Prepared> {
        let mut prepared = self.prepared.lock().await;
        let (snapshot, as_of, cursor, place, useful) = {
            let state = self.state.lock();
            let useful = prepared.as_ref().is_some_and(|made| {
                let bytes: usize = made.frames.iter().map(Bytes::len).sum();
                state.ring.holds(made.cursor) && state.ring.bytes_from(made.cursor) <= bytes / 2 + 4096
            });
            (Arc::clone(&state.snapshot), state.as_of, state.ring.next(), Arc::clone(state.ring.place()), useful)
        };
        if let Some(made) = prepared.as_ref().filter(|_| useful) {
            return Arc::clone(made);
        }
        let records = Arc::clone(&snapshot);
        let encoded = tokio::task::spawn_blocking(move || proto::snapshot_parts(&records)).await;
        let frames = encoded.expect("encoding records does not panic");
        let made = Arc::new(Prepared { frames, snapshot, as_of, cursor, place });
        *prepared = Some(Arc::clone(&made));
        made
    }

    /// Waits at the head of the ring, counted as one the next round is for.
    pub(super) async fn wait(&self, head: &mut watch::Receiver<u64>) {
        let _idle = Idle::enter(&self.round);
        // The sender lives as long as we do.
        let _ = head.changed().await;
    }
}

fn transfer(state: &State, buckets: Vec<usize>) -> Transfer {
    Transfer {
        buckets,
        snapshot: Arc::clone(&state.snapshot),
        as_of: state.as_of,
        cursor: state.ring.next(),
        place: Arc::clone(state.ring.place()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a histogram")]
fn to_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{Change, Version},
        store,
    };

    #[test]
    fn who_wait_with_the_same_records_share_the_digests_of_them() {
        let snapshot = |rev| Snapshot::default().with_version(Version { cluster: "uid".into(), epoch: 1, rev });
        let one = Snapshot::default().apply([Change::PutNamespace("prod".into())], snapshot(1).version().clone());
        let (_writer, reader) = store::open();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let (_above, surroundings) = watch::channel(Surroundings::default());
        let fanout = Fanout::new(Config::default(), metrics, reader, Clock::System, surroundings, Beside::default());
        let waits = |held: &Snapshot| fanout.waits(Have::of(&proto::hello("agent", "", held)).unwrap());
        let (first, second, other) =
            (waits(&one), waits(&one.with_version(snapshot(2).version().clone())), waits(&snapshot(1)));
        assert!(Arc::ptr_eq(&first.digests, &second.digests));
        assert_eq!((first.version.rev, second.version.rev), (1, 2));
        assert_ne!(first.digests, other.digests);
        drop((first, second, other));
        for rev in 0..1_000 {
            let name = format!("n{rev}");
            waits(&Snapshot::default().apply([Change::PutNamespace(name.into())], snapshot(rev).version().clone()));
        }
        assert!(fanout.waiting.lock().len() <= DIGESTS_SHARED_MAX);
    }
}
