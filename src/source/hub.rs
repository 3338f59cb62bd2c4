//! Follows a hub: the source of agents, relays and hubs that do not hold the lease.
//!
//! Owns the choice among hubs, the connection, and the copy of what the hub says; sends it on as
//! [`Update`]s stamped by the hub. Never stops serving anything: whatever happens here, the store keeps what it has, and
//! is told how old that is.
//!
//! ```text
//!   Disk ──▶ Connecting ──▶ Delta | Repair | Snapshot ──▶ Live
//!                ▲                                         │ silence, end, lies
//!                └──── retry, spread and backing off ◀── Stale
//! ```
//!
//! The protocol is told in `src/stream.rs`. The copy is [`Mirror`], which takes nothing it cannot prove; when digests
//! disagree the hub is greeted again on the same connection with what is held, and repairs it.

mod ask;
mod config;
mod dial;
mod doubt;
mod end;
mod last_read;
mod list;
mod metrics;
mod offset;

pub use ask::{Asks, HubState, ask};
pub use config::{Config, Parts};
pub use dial::{Dial, Io, dial};
pub use doubt::ask_all;
pub use metrics::Metrics;

use std::{sync::Arc, time::Duration};

use futures::future::OptionFuture;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Streaming, transport::Channel};

use self::{
    dial::connect,
    doubt::{ASKED_MAX, Asker, Doubt, Next},
    end::{End, chain, unanswered},
    last_read::LastRead,
    list::HubList,
    metrics::Attempt,
    offset::Offset,
};
use super::backoff::{Backoff, spread};
use crate::report::Time;
pub use crate::report::{FollowState as State, FollowStatus as Status};
use crate::{
    proto::{self, Complete, Event, FRAME_BYTES_MAX, Fault, Frame, Mirror, Mode, RecordsClient, Vouched},
    record::{Release, Released, Version},
    store::{Origin, Records, SourceState, Update, Upstream, What},
    sys::UnixMillis,
};

/// Times in a row a hub may be asked to repair what does not add up, before another is tried.
const RESYNCS_MAX: u32 = 3;
/// Longest time one frame may take to come in: 16 MiB at some 30 KB a second.
const FRAME_TIME_MAX: Duration = Duration::from_secs(600);
/// Why a hub is left for another that said it is better off.
const FRESHER: &str = "its records are old, and another hub has fresh ones";
/// Shortest wait between two attempts.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Bounds of the window over which followers spread their move to another hub.
const MOVE_SPREAD: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// Follows hubs until nobody takes the updates any more.
pub async fn run(config: Config, parts: Parts, updates: mpsc::Sender<Update>) {
    let mirror = Mirror::new(&config.node, (*parts.reader.snapshot()).clone());
    let hubs = HubList::new(&config.node, &config.addresses, &parts.learnt.known);
    let mut follower = Follower {
        config,
        parts,
        updates,
        mirror,
        hubs,
        window: Duration::ZERO,
        released: None,
        refuses: 0,
        offset: Offset::default(),
        doubt: Doubt::default(),
        leave: None,
    };
    let mut backoff = Backoff::new(RETRY_MIN, follower.config.retry_max);
    loop {
        let Some(address) = follower.hubs.next().map(str::to_owned) else {
            tracing::error!("no hub is known: give --hub an address");
            return follower.updates.closed().await;
        };
        let end = follower.attempt(&address).await;
        if follower.hubs.current_was_good() {
            backoff.succeeded();
        }
        if matches!(end, End::Closed) || follower.updates.is_closed() {
            return;
        }
        tracing::info!(hub = %address, reason = %end, "leaving hub");
        follower.set_state(State::Stale);
        let lost = What::Lost { reason: format!("hub {address}: {end}") };
        if !matches!(end, End::Elsewhere(_)) && follower.updates.send(lost.into()).await.is_err() {
            return;
        }
        let pause = match &end {
            // The first retry is spread over the window the hub announced; all its clients are on their way.
            End::Broken(_) => {
                follower.hubs.new_round();
                spread(follower.window)
            }
            // The move was spread before it began.
            End::Elsewhere(_) if follower.hubs.has_preferred() => Duration::ZERO,
            _ if follower.hubs.more_in_round() => spread(Duration::from_millis(250)),
            _ => {
                follower.hubs.new_round();
                backoff.failed();
                RETRY_MIN + backoff.delay()
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = follower.updates.closed() => return,
        }
    }
}

struct Follower {
    config: Config,
    parts: Parts,
    updates: mpsc::Sender<Update>,
    mirror: Mirror,
    hubs: HubList,
    /// The silence after which the stream counts as lost, as the hub followed last announced it.
    window: Duration,
    /// The last release by an operator upstream that the store was told of.
    released: Option<UnixMillis>,
    /// Records the hub was told this process holds against it.
    refuses: usize,
    /// The clock of the hub followed.
    offset: Offset,
    /// Reasons to look at other hubs.
    doubt: Doubt,
    leave: Option<Leave>,
}

/// When the hub followed is left, and why.
struct Leave {
    at: Instant,
    why: &'static str,
}

/// The outcome of a stream.
enum Step {
    /// The hub ended it.
    Over,
    /// Greet again on the same connection, to be repaired.
    Resync,
    /// Greet again on the same connection, to tell the hub how many of its deletions are refused.
    Greet,
}

impl Follower {
    async fn attempt(&mut self, address: &str) -> End {
        address.clone_into(&mut self.status_draft().address);
        self.set_state(State::Connecting);
        let last_read = LastRead::now();
        let connecting = connect(&self.parts.dial, address, last_read.clone());
        let connected = timeout(self.config.connect_timeout, connecting).await;
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return self.failed(&error),
            Err(_) => return self.failed("no connection in time"),
        };
        let end = self.follow(channel, &last_read).await;
        let good = self.hubs.current_was_good();
        self.parts.metrics.attempt(if good { Attempt::Followed } else { Attempt::Failed });
        match end {
            End::Failed(reason) if good => End::Broken(reason),
            end => end,
        }
    }

    fn failed(&mut self, reason: &str) -> End {
        self.parts.metrics.attempt(Attempt::Failed);
        self.ended(reason)
    }

    /// Follows the hub at the other end of `channel` until that ends.
    async fn follow(&mut self, channel: Channel, last_read: &LastRead) -> End {
        let mut client = RecordsClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let mut resyncs = 0;
        loop {
            self.mirror.restart();
            self.leave_future_epoch();
            self.refuses = self.parts.reader.held().refused();
            let mut hello = proto::hello(&self.config.node, &self.config.serves, self.mirror.held());
            hello.refuses = u32::try_from(self.refuses).unwrap_or(u32::MAX);
            // A hub that is stopped takes connections and says nothing: half of the silence is enough to try the next.
            let stream = match timeout(self.config.silence / 2, client.follow(hello)).await {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => return self.ended(&unanswered(&status, last_read.error())),
                Err(_) => return self.ended("no answer to the greeting"),
            };
            match self.read(stream, last_read, &mut resyncs).await {
                Ok(Step::Greet) => {}
                Ok(Step::Resync) if resyncs <= RESYNCS_MAX => {}
                Ok(Step::Resync) => return self.ended("records do not add up, whatever the hub repairs"),
                Ok(Step::Over) => return self.ended("stream ended"),
                Err(end) => return end,
            }
        }
    }

    /// Lets any hub of the cluster be followed if the epoch in memory was begun by a clock that was far ahead: no hub with a right clock
    /// would be later for as long.
    fn leave_future_epoch(&mut self) {
        let held = self.mirror.held();
        let version = held.version();
        if version.is_ahead(self.parts.clock.now()) {
            tracing::warn!(%version, "the epoch of the records is more than a day in the future: a hub's clock was wrong; any hub of the cluster is followed now");
            let first = Version { epoch: 0, rev: 0, ..version.clone() };
            self.mirror = Mirror::new(&self.config.node, held.with_version(first));
        }
    }

    fn ended(&mut self, reason: &str) -> End {
        self.hubs.failed();
        // The reason may hold text of the hub.
        End::Failed(proto::shown(reason))
    }

    async fn read(
        &mut self,
        mut stream: Streaming<Frame>,
        last_read: &LastRead,
        resyncs: &mut u32,
    ) -> Result<Step, End> {
        let mut spoke = Instant::now();
        self.offset = Offset::default();
        self.parts.metrics.clock_ahead(None);
        self.doubt = Doubt::default();
        self.leave = None;
        loop {
            // Bytes that come in are no silence, as long as they amount to a frame some day.
            let patience = (spoke.max(last_read.at()) + self.config.silence).min(spoke + FRAME_TIME_MAX);
            let doubtful = spoke.max(last_read.at()) + self.config.silence / 2;
            let message = tokio::select! {
                message = stream.message() => message,
                () = sleep_until(patience) => {
                    if last_read.at() + self.config.silence > Instant::now() && Instant::now() < spoke + FRAME_TIME_MAX {
                        continue;
                    }
                    return Err(self.ended("silent for too long"));
                }
                Some(()) = OptionFuture::from(self.leave.as_ref().map(|leave| sleep_until(leave.at))) => {
                    if let Some(address) = self.doubt.target.take() {
                        self.hubs.prefer(&address);
                    }
                    return Err(End::Elsewhere(self.leave.as_ref().map_or("", |leave| leave.why)));
                }
                // A hub that missed a heartbeat is doubted long before it counts as gone.
                () = sleep_until(doubtful), if self.doubt.is_idle() && self.leave.is_none() => {
                    self.doubt.begin();
                    continue;
                }
                step = self.doubt.next() => {
                    match step {
                        Next::Ask => self.ask_others(),
                        Next::Answers(answers) if self.leave.is_none() => self.decide(answers),
                        Next::Answers(_) => {}
                    }
                    continue;
                }
                () = self.updates.closed() => return Err(End::Closed),
            };
            spoke = Instant::now();
            let frame = match message {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Step::Over),
                Err(status) => return Err(self.ended(status.message())),
            };
            match self.mirror.take(frame) {
                Ok(event) => {
                    if matches!(event, Event::Changed(_) | Event::Fresh(_)) {
                        *resyncs = 0;
                    }
                    let settled = matches!(event, Event::Fresh(_));
                    self.handle(event).await?;
                    if settled && self.parts.reader.held().refused() != self.refuses {
                        return Ok(Step::Greet);
                    }
                }
                Err(fault @ (Fault::Digest { .. } | Fault::Holds { .. } | Fault::Gap { .. })) => {
                    if !matches!(fault, Fault::Gap { .. }) {
                        self.parts.metrics.digest_mismatch.inc();
                        self.status_draft().mismatches = self.parts.metrics.digest_mismatch.get();
                    }
                    tracing::warn!(hub = %self.hubs.status.address, %fault, "records differ from the hub's: fetching them again");
                    *resyncs += 1;
                    return Ok(Step::Resync);
                }
                Err(fault) => return Err(self.ended(&fault.to_string())),
            }
        }
    }

    fn ask_others(&mut self) {
        let (node, serves) = (self.config.node.clone(), self.config.serves.clone());
        let (dial, who) = (Arc::clone(&self.parts.dial), Asks { node, serves });
        self.doubt.ask(ask_all(dial, who, self.parts.clock.now(), self.hubs.others(ASKED_MAX)));
    }

    /// Decides to leave for a hub that is better off than the one followed; if there is none, others are asked again later.
    fn decide(&mut self, answers: Vec<(String, HubState)>) {
        let asker = Asker {
            node: &self.config.node,
            held: self.mirror.held().version(),
            as_of: self.parts.reader.as_of().unwrap_or_default(),
            waiting: self.doubt.waiting,
        };
        let Some(address) = asker.better(answers) else {
            return self.doubt.again();
        };
        self.doubt.target = Some(address);
        let pause = spread(self.window.clamp(MOVE_SPREAD.0, MOVE_SPREAD.1));
        self.leave = Some(Leave { at: Instant::now() + pause, why: FRESHER });
    }

    async fn handle(&mut self, mut event: Event) -> Result<(), End> {
        if let Event::Changed(Complete { vouched, .. })
        | Event::Replaced(Complete { vouched, .. })
        | Event::Fresh(vouched) = &mut event
        {
            self.offset.translate(vouched, self.parts.clock.now());
            self.parts.metrics.clock_ahead(self.offset.ahead_ms());
            self.status_draft().clock_ahead_ms = self.offset.ahead_ms();
        }
        match event {
            Event::Partial => Ok(()),
            Event::Waiting(reason) => {
                tracing::debug!(%reason, "hub has no records yet");
                // Another hub may have; if none has, the last one asked will tell us first.
                if self.hubs.more_in_round() {
                    return Err(End::Elsewhere("hub has no records yet"));
                }
                self.doubt.waiting = true;
                self.doubt.begin();
                // Without any records that is what DNS here lacks.
                let freshness = self.parts.reader.freshness();
                let reason = chain(&self.hubs.status.address, &reason);
                let news = !matches!(freshness.source, SourceState::Lost(known) if known == reason);
                if freshness.as_of.is_none() && news { self.send(What::Lost { reason }).await } else { Ok(()) }
            }
            Event::Begins(mode) => {
                self.parts.metrics.resumed(mode);
                self.status_draft().resumed = Some(mode.label().to_owned());
                self.set_state(match mode {
                    Mode::Repair => State::Repair,
                    Mode::Snapshot => State::Snapshot,
                    Mode::Delta | Mode::Wait => State::Delta,
                });
                Ok(())
            }
            Event::Changed(whole) => {
                let Complete { changes, version, vouched, changed_ms, .. } = whole;
                let what = What::Changes { origin: Origin::Stamped(version), changes, as_of: vouched.as_of };
                let changed_at = changed_ms.into_iter().map(UnixMillis).collect();
                let upstream = self.upstream(&vouched);
                self.send(Update { changed_at, upstream, ..what.into() }).await?;
                self.vouched(vouched).await
            }
            Event::Replaced(whole) => {
                self.status_draft().repaired_at = Some(Time(self.parts.clock.now()));
                let held = self.mirror.held();
                let records = Records {
                    services: held.services().map(|service| (service.key().clone(), Arc::clone(service))).collect(),
                    namespaces: held.listed_namespaces().cloned().collect(),
                    held: Arc::clone(held.held()),
                    ..Records::default()
                };
                let as_of = whole.vouched.as_of;
                let what = What::Reset { origin: Origin::Stamped(whole.version), records, as_of };
                self.send(Update { upstream: self.upstream(&whole.vouched), ..what.into() }).await?;
                self.vouched(whole.vouched).await
            }
            Event::Fresh(vouched) => {
                let what = What::Fresh { as_of: vouched.as_of };
                let upstream = self.upstream(&vouched);
                let last = upstream.releases.last().map(|released| released.at);
                let released = std::mem::replace(&mut self.released, last) != last;
                // A hub that lost its source vouches for nothing anew; the source must not seem to be back at every heartbeat.
                let news = vouched.lost.is_none() || released || self.parts.reader.as_of() != Some(vouched.as_of);
                if news {
                    self.send(Update { upstream, ..what.into() }).await?;
                }
                self.vouched(vouched).await
            }
            Event::Leaving { window_ms, hubs } => {
                self.learn(&hubs);
                self.hubs.failed();
                self.hubs.new_round();
                let window = Duration::from_millis(window_ms.into()).min(self.config.retry_max);
                self.leave = Some(Leave { at: Instant::now() + spread(window), why: "hub is leaving" });
                Ok(())
            }
        }
    }

    /// The hub's verdicts, for the store. A hub of an older release says only when its guard last released anything.
    fn upstream(&self, vouched: &Vouched) -> Upstream {
        let lineage = Arc::clone(self.mirror.held().lineage());
        let releases = if vouched.verdicts || vouched.let_go == UnixMillis(0) {
            vouched.releases.clone()
        } else {
            vec![Released { at: vouched.let_go, which: Release::All }]
        };
        Upstream { lineage, let_go: vouched.let_go, releases }
    }

    /// Takes note of what came with records that add up: we are live.
    async fn vouched(&mut self, vouched: Vouched) -> Result<(), End> {
        self.hubs.good(vouched.as_of);
        self.window = Duration::from_millis(vouched.window_ms.into()).min(self.config.retry_max);
        self.learn(&vouched.hubs);
        let status = self.status_draft();
        status.path = vouched.path;
        self.set_state(State::Live);
        self.doubt.waiting = false;
        let old = vouched.as_of.age(self.parts.clock.now()) > self.config.stale_after;
        if old || vouched.lost.is_some() {
            self.doubt.begin();
        } else {
            self.doubt = Doubt::default();
            self.leave.take_if(|leave| leave.why == FRESHER);
        }
        let Some(reason) = vouched.lost else { return Ok(()) };
        let reason = chain(self.hubs.status.path.first().map_or("hub", String::as_str), &reason);
        self.send(What::Lost { reason }).await
    }

    async fn send(&mut self, update: impl Into<Update>) -> Result<(), End> {
        self.updates.send(update.into()).await.map_err(|_| End::Closed)
    }

    fn learn(&mut self, hubs: &[String]) {
        let ours = &self.config.serves;
        let others: Vec<String> = hubs.iter().filter(|hub| *hub != ours).cloned().collect();
        if let Some(learnt) = self.hubs.learn(&others) {
            (self.parts.learnt.keep)(&learnt);
        }
        let known = self.hubs.addresses();
        self.status_draft().hubs = known;
    }

    /// The status to change; readers see it with the next state.
    fn status_draft(&mut self) -> &mut Status {
        &mut self.hubs.status
    }

    fn set_state(&mut self, state: State) {
        self.hubs.status.state = state;
        self.parts.metrics.connected(!matches!(state, State::Disk | State::Connecting | State::Stale));
        let status = &self.hubs.status;
        self.parts.status.send_if_modified(|shown| {
            let changed = *shown != *status;
            if changed {
                shown.clone_from(status);
            }
            changed
        });
    }
}
