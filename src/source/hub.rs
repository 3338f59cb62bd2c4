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
//! The protocol is told in `src/stream/mod.rs`. The copy is [`Mirror`], which takes nothing it cannot prove; when digests
//! disagree the hub is greeted again on the same connection with what is held, and repairs it.

mod backoff;
mod book;
mod dial;
mod heard;
mod learnt;
mod metrics;

pub use dial::{Dial, Io, dial};
pub use learnt::{Keep, Learnt};
pub use metrics::Metrics;

use std::{fmt, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

use self::{
    backoff::{Backoff, spread},
    book::Book,
    heard::{Heard, Listening},
    metrics::Attempt,
};
pub use crate::report::{FollowState as State, FollowStatus as Status};
use crate::{
    proto::{self, Event, FRAME_BYTES_MAX, Fault, Frame, Mirror, Mode, RecordsClient, Vouched, Whole},
    store::{Origin, Reader, Records, Update, What},
    sys::{Clock, UnixMillis},
};

/// Times in a row a hub may be asked to repair what does not add up, before another is tried.
const RESYNCS_MAX: u32 = 3;
/// Longest time one frame may take to come in: 16 MiB at some 30 KB a second.
const FRAME_TIME_MAX: Duration = Duration::from_secs(600);
/// Why a hub is left that has had nothing for us, and nothing but signs of life.
const NOTHING_YET: &str = "hub has still nothing for us, and another may";
/// Window over which connections are received: a snapshot fits without waiting for the reader.
const WINDOW_BYTES: u32 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Config {
    /// HOST:PORT of hubs, as configured.
    pub addresses: Vec<String>,
    /// This node's name; unique among hubs if it is one.
    pub node: String,
    /// HOST:PORT where this node serves the stream itself; empty for agents.
    pub serves: String,
    /// Silence after which a hub counts as gone.
    pub silence: Duration,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    pub retry_max: Duration,
    /// Age of records after which another hub is looked for.
    pub stale_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            node: String::new(),
            serves: String::new(),
            silence: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            retry_max: Duration::from_secs(60),
            stale_after: Duration::from_secs(60),
        }
    }
}

/// What a follower works with.
pub struct Parts {
    /// The store that takes the updates.
    pub reader: Reader,
    pub clock: Clock,
    pub metrics: Metrics,
    pub dial: Dial,
    pub learnt: Learnt,
    /// Told where the follower stands.
    pub status: watch::Sender<Status>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("learnt", &self.learnt).finish_non_exhaustive()
    }
}

/// Follows hubs until nobody takes the updates any more.
pub async fn run(config: Config, parts: Parts, updates: mpsc::Sender<Update>) {
    let mirror = Mirror::new(&config.node, (*parts.reader.snapshot()).clone());
    let book = Book::new(&config.node, &config.addresses, &parts.learnt.known);
    let mut follower = Follower { config, parts, updates, mirror, book, window: Duration::ZERO, let_go: UnixMillis(0) };
    let mut backoff = Backoff::new(follower.config.retry_max);
    loop {
        let Some(address) = follower.book.next().map(str::to_owned) else {
            tracing::error!("no hub is known: give --hub an address");
            return follower.updates.closed().await;
        };
        let end = follower.attempt(&address).await;
        if follower.book.current_was_good() {
            backoff.reset();
        }
        if matches!(end, End::Closed) || follower.updates.is_closed() {
            return;
        }
        tracing::info!(hub = %address, reason = %end, "hub left");
        follower.set_state(State::Stale);
        let lost = What::Lost { reason: format!("hub {address}: {end}") };
        if !matches!(end, End::Elsewhere(_)) && follower.updates.send(lost.into()).await.is_err() {
            return;
        }
        let pause = match &end {
            // The first retry is spread over the window the hub announced; all its clients are on their way.
            End::Broken(_) if follower.book.begin_round() => spread(follower.window),
            _ if follower.book.more_in_round() => spread(Duration::from_millis(250)),
            _ => {
                follower.book.new_round();
                backoff.next()
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = follower.updates.closed() => return,
        }
    }
}

/// Why following one hub ended.
#[derive(Debug, thiserror::Error)]
enum End {
    /// It never came to anything.
    #[error("{0}")]
    Failed(String),
    /// It was followed, and then no more.
    #[error("{0}")]
    Broken(String),
    /// It lives, but another may serve us better.
    #[error("{0}")]
    Elsewhere(&'static str),
    /// Nobody takes the updates any more.
    #[error("stopping")]
    Closed,
}

struct Follower {
    config: Config,
    parts: Parts,
    updates: mpsc::Sender<Update>,
    mirror: Mirror,
    book: Book,
    /// What the hub last followed announced.
    window: Duration,
    /// When a guard upstream last let go of something, as far as the store was told.
    let_go: UnixMillis,
}

/// What reading one stream led to.
enum Step {
    On,
    /// Greet again on the same connection.
    Resync,
    End(End),
}

impl Follower {
    async fn attempt(&mut self, address: &str) -> End {
        address.clone_into(&mut self.status_draft().address);
        self.set_state(State::Connecting);
        let heard = Heard::now();
        let connecting = connect(&self.parts.dial, address, heard.clone());
        let connected = timeout(self.config.connect_timeout, connecting).await;
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return self.failed(error),
            Err(_) => return self.failed("no connection in time".into()),
        };
        let end = self.follow(channel, &heard).await;
        let good = self.book.current_was_good();
        self.parts.metrics.attempt(if good { Attempt::Followed } else { Attempt::Failed });
        match end {
            End::Failed(reason) if good => End::Broken(reason),
            end => end,
        }
    }

    fn failed(&mut self, reason: String) -> End {
        self.book.failed(Instant::now());
        self.parts.metrics.attempt(Attempt::Failed);
        End::Failed(reason)
    }

    /// Follows the hub at the other end of `channel` until that ends.
    async fn follow(&mut self, channel: Channel, heard: &Heard) -> End {
        let mut client = RecordsClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let mut resyncs = 0;
        loop {
            self.mirror.restart();
            let hello = proto::hello(&self.config.node, &self.config.serves, self.mirror.held());
            let stream = match timeout(self.config.silence, client.follow(hello)).await {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => return self.ended(&unanswered(&status)),
                Err(_) => return self.ended("no answer to the greeting"),
            };
            match self.read(stream, heard, &mut resyncs).await {
                Step::Resync if resyncs <= RESYNCS_MAX => {}
                Step::Resync => return self.ended("records do not add up, whatever the hub repairs"),
                Step::End(end) => return end,
                Step::On => return self.ended("stream ended"),
            }
        }
    }

    fn ended(&mut self, reason: &str) -> End {
        self.book.failed(Instant::now());
        End::Failed(reason.to_owned())
    }

    async fn read(&mut self, mut stream: Streaming<Frame>, heard: &Heard, resyncs: &mut u32) -> Step {
        let mut leave: Option<(Instant, &'static str)> = None;
        let mut spoke = Instant::now();
        loop {
            // Bytes that come in are no silence, as long as they amount to a frame some day.
            let patience = (spoke.max(heard.at()) + self.config.silence).min(spoke + FRAME_TIME_MAX);
            let message = tokio::select! {
                message = stream.message() => message,
                () = sleep_until(patience) => {
                    if heard.at() + self.config.silence > Instant::now() && Instant::now() < spoke + FRAME_TIME_MAX {
                        continue;
                    }
                    return Step::End(self.ended("silent for too long"));
                }
                () = until(leave.map(|(at, _)| at)) => {
                    return Step::End(End::Elsewhere(leave.map_or("", |(_, why)| why)));
                }
                () = self.updates.closed() => return Step::End(End::Closed),
            };
            spoke = Instant::now();
            let frame = match message {
                Ok(Some(frame)) => frame,
                Ok(None) => return Step::On,
                Err(status) => return Step::End(self.ended(status.message())),
            };
            match self.mirror.take(frame) {
                Ok(event) => {
                    if matches!(event, Event::Changed(_) | Event::Fresh(_)) {
                        *resyncs = 0;
                    }
                    match self.handle(event, &mut leave).await {
                        Step::On => {}
                        step => return step,
                    }
                }
                Err(fault @ (Fault::Digest { .. } | Fault::Gap { .. })) => {
                    if matches!(fault, Fault::Digest { .. }) {
                        self.parts.metrics.digest_mismatch.inc();
                        self.status_draft().mismatches = self.parts.metrics.digest_mismatch.get();
                    }
                    tracing::warn!(hub = %self.book.status.address, %fault, "hub is asked to repair");
                    *resyncs += 1;
                    return Step::Resync;
                }
                Err(fault) => return Step::End(self.ended(&fault.to_string())),
            }
        }
    }

    async fn handle(&mut self, event: Event, leave: &mut Option<(Instant, &'static str)>) -> Step {
        match event {
            Event::Partial => Step::On,
            Event::Waiting(reason) => {
                tracing::debug!(%reason, "hub has nothing for us yet");
                // Another hub may have; if none has, the last one asked will tell us first.
                if self.book.more_in_round() {
                    return Step::End(End::Elsewhere("hub has nothing for us yet"));
                }
                // Any of the others may have by now, and this one may never have.
                if leave.is_none() && self.book.knows_others() {
                    *leave = Some((Instant::now() + spread(self.config.retry_max), NOTHING_YET));
                }
                Step::On
            }
            Event::Begins(mode) => {
                self.parts.metrics.resumed(mode);
                self.status_draft().resumed = Some(metrics::label(mode).to_owned());
                self.set_state(match mode {
                    Mode::Repair => State::Repair,
                    Mode::Snapshot => State::Snapshot,
                    Mode::Delta | Mode::Wait => State::Delta,
                });
                Step::On
            }
            Event::Changed(whole) => {
                let Whole { changes, version, vouched, changed_ms, .. } = whole;
                let what = What::Changes { origin: Origin::Stamped(version), changes, as_of: vouched.as_of };
                let changed_at = changed_ms.into_iter().map(UnixMillis).collect();
                let update = Update { what, changed_at, let_go_at: self.let_go(&vouched) };
                if self.updates.send(update).await.is_err() {
                    return Step::End(End::Closed);
                }
                self.vouched(vouched, leave).await
            }
            Event::Replaced(whole) => {
                self.status_draft().repaired_at = Some(self.parts.clock.now());
                let held = self.mirror.held();
                let records = Records {
                    services: held.services().map(|service| (service.key().clone(), Arc::clone(service))).collect(),
                    namespaces: held.listed_namespaces().cloned().collect(),
                };
                let as_of = whole.vouched.as_of;
                let what = What::Reset { origin: Origin::Stamped(whole.version), records, as_of };
                let update = Update { let_go_at: self.let_go(&whole.vouched), ..what.into() };
                if self.updates.send(update).await.is_err() {
                    return Step::End(End::Closed);
                }
                self.vouched(whole.vouched, leave).await
            }
            Event::Fresh(vouched) => {
                let what = What::Fresh { as_of: vouched.as_of };
                let update = Update { let_go_at: self.let_go(&vouched), ..what.into() };
                // A hub that lost its source vouches for nothing anew; the source must not seem to be back at every heartbeat.
                let news = vouched.lost.is_none()
                    || update.let_go_at.is_some()
                    || self.parts.reader.as_of() != Some(vouched.as_of);
                if news && self.updates.send(update).await.is_err() {
                    return Step::End(End::Closed);
                }
                self.vouched(vouched, leave).await
            }
            Event::Leaving { window_ms, hubs } => {
                self.learn(&hubs);
                self.book.failed(Instant::now());
                self.book.new_round();
                let window = Duration::from_millis(window_ms.into()).min(self.config.retry_max);
                *leave = Some((Instant::now() + spread(window), "hub is leaving"));
                Step::On
            }
        }
    }

    /// When a guard upstream last released deletions, if that is news.
    fn let_go(&mut self, vouched: &Vouched) -> Option<UnixMillis> {
        if vouched.let_go <= self.let_go {
            return None;
        }
        self.let_go = vouched.let_go;
        Some(vouched.let_go)
    }

    /// Takes note of what came with records that add up: we are live.
    async fn vouched(&mut self, vouched: Vouched, leave: &mut Option<(Instant, &'static str)>) -> Step {
        self.book.good(vouched.as_of);
        self.window = Duration::from_millis(vouched.window_ms.into()).min(self.config.retry_max);
        self.learn(&vouched.hubs);
        let status = self.status_draft();
        status.path = vouched.path;
        self.set_state(State::Live);
        leave.take_if(|(_, why)| *why == NOTHING_YET);
        let old = vouched.as_of.age(self.parts.clock.now()) > self.config.stale_after;
        if (old || vouched.lost.is_some()) && leave.is_none() && self.book.fresher_may_exist(Instant::now()) {
            *leave = Some((Instant::now() + spread(self.config.retry_max), "another hub may know more"));
        }
        if let Some(reason) = vouched.lost {
            let reason = format!("hub has lost its source: {reason}");
            if self.updates.send(What::Lost { reason }.into()).await.is_err() {
                return Step::End(End::Closed);
            }
        }
        Step::On
    }

    fn learn(&mut self, hubs: &[String]) {
        let ours = &self.config.serves;
        let others: Vec<String> = hubs.iter().filter(|hub| *hub != ours).cloned().collect();
        if let Some(learnt) = self.book.learn(&others) {
            (self.parts.learnt.keep)(&learnt);
        }
        let known = self.book.addresses();
        self.status_draft().hubs = known;
    }

    /// The status to change; readers see it with the next state.
    fn status_draft(&mut self) -> &mut Status {
        &mut self.book.status
    }

    fn set_state(&mut self, state: State) {
        self.book.status.state = state;
        let status = &self.book.status;
        self.parts.status.send_if_modified(|shown| {
            let changed = *shown != *status;
            if changed {
                shown.clone_from(status);
            }
            changed
        });
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Why a greeting was not followed by a stream.
fn unanswered(status: &tonic::Status) -> String {
    match status.code() {
        // What a hub says to those it turns away.
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => status.message().to_owned(),
        _ => format!("no answer to the greeting: {}", status.message()),
    }
}

/// One connection as a channel; it is never made anew behind our back.
async fn connect(dial: &Dial, address: &str, heard: Heard) -> Result<Channel, String> {
    let io = dial(address.to_owned()).await.map_err(|error| error.to_string())?;
    let mut once = Some(TokioIo::new(Listening::new(io, heard)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = once.take().ok_or_else(|| std::io::Error::other("connection broke off, or what came was no HTTP/2"));
        async move { io }
    });
    Endpoint::from_static("http://holdfast.invalid")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.to_string())
}
