//! States of followers, each computed once however many reach it.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    proto::{Event, Fault, Frame, Mirror, Mode},
    record::{RootDigest, Snapshot},
    sys::{Lock, UnixMillis},
};

/// Steps remembered; a few batches' worth is enough, for the agents are at nearly the same place.
const STEPS_MAX: usize = 4_096;

/// One state a follower can be in.
#[derive(Debug)]
pub(super) struct State {
    id: u64,
    mirror: Mirror,
    pub root: RootDigest,
}

/// The result of a frame, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// How the stream begins, or that it waits.
    Begins(Mode),
    Partial,
    /// A batch, made by the hub at this time.
    Changed(UnixMillis),
    Replaced,
    Fresh,
    Leaving,
}

/// Why a stream had to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The records do not add up.
    Digest,
    /// A frame that does not continue what is held.
    Gap,
    /// Anything else that is against the protocol.
    Protocol,
}

/// A state, what the frame that led to it meant, and the window announced with it.
type Step = Result<(Arc<State>, Meaning, Option<u32>), Broken>;

#[derive(Debug, Default)]
pub(super) struct Memo {
    steps: Lock<HashMap<(u64, u128), Step>>,
    next: AtomicU64,
    empty: OnceLock<Arc<State>>,
    /// States between frames that belong together, by epoch, revision and root: two that agree in these go on alike,
    /// whatever the marks said that led there.
    settled: Lock<HashMap<(u64, u64, RootDigest), Arc<State>>>,
}

impl State {
    pub(super) fn held(&self) -> &Snapshot {
        self.mirror.held()
    }
}

impl Memo {
    /// The state of a follower that holds nothing, one for all.
    pub(super) fn empty(&self) -> Arc<State> {
        let empty = || self.state(Mirror::new("simulated", Snapshot::default()));
        Arc::clone(self.empty.get_or_init(empty))
    }

    /// The state a new stream begins with.
    pub(super) fn restart(&self, state: &Arc<State>) -> Arc<State> {
        self.remember(state.id, 0, || {
            let mut mirror = state.mirror.clone();
            mirror.restart();
            Ok((self.state(mirror), Meaning::Partial, None))
        })
        .map_or_else(|_| Arc::clone(state), |(state, ..)| state)
    }

    /// The state after a frame, gRPC header taken off.
    pub(super) fn step(&self, state: &Arc<State>, frame: &Bytes) -> Step {
        self.remember(state.id, xxh3_128(frame), || {
            let frame = Frame::decode(frame.clone()).map_err(|_| Broken::Protocol)?;
            let mut mirror = state.mirror.clone();
            let event = mirror.take(frame).map_err(|fault| match fault {
                Fault::Digest { .. } => Broken::Digest,
                Fault::Gap { .. } => Broken::Gap,
                _ => Broken::Protocol,
            })?;
            Ok(match event {
                Event::Fresh(vouched) => (Arc::clone(state), Meaning::Fresh, Some(vouched.window_ms)),
                Event::Leaving { window_ms, .. } => (Arc::clone(state), Meaning::Leaving, Some(window_ms)),
                Event::Waiting(_) => (self.state(mirror), Meaning::Begins(Mode::Wait), None),
                Event::Partial => (self.state(mirror), Meaning::Partial, None),
                Event::Begins(mode) => (self.state(mirror), Meaning::Begins(mode), None),
                Event::Replaced(whole) => (self.settled(mirror), Meaning::Replaced, Some(whole.vouched.window_ms)),
                Event::Changed(whole) => {
                    let made = whole.made.unwrap_or_default();
                    (self.settled(mirror), Meaning::Changed(made), Some(whole.vouched.window_ms))
                }
            })
        })
    }

    fn state(&self, mirror: Mirror) -> Arc<State> {
        let root = mirror.held().root();
        Arc::new(State { id: self.next.fetch_add(1, Ordering::Relaxed), mirror, root })
    }

    fn settled(&self, mirror: Mirror) -> Arc<State> {
        let (version, root) = (mirror.held().version(), mirror.held().root());
        let key = (version.epoch, version.rev, root);
        let mut settled = self.settled.lock();
        if settled.len() >= STEPS_MAX {
            settled.clear();
        }
        Arc::clone(settled.entry(key).or_insert_with(|| self.state(mirror)))
    }

    /// Others wait while one computes: they would compute the same.
    fn remember(&self, state: u64, frame: u128, compute: impl FnOnce() -> Step) -> Step {
        let mut steps = self.steps.lock();
        if let Some(step) = steps.get(&(state, frame)) {
            return step.clone();
        }
        if steps.len() >= STEPS_MAX {
            steps.clear();
        }
        let step = compute();
        steps.insert((state, frame), step.clone());
        step
    }
}
