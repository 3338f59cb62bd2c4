//! Follows one list: lists it, watches it, resumes or lists again, and tells the session what it sees.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::debug;

use super::{
    Timing,
    decode::{self, Event},
    request::{self, Ask},
    server::{Answer, Failure, Server, Step, refused},
};
use crate::{
    record::ServiceKey,
    source::{
        EndpointsMode, Metrics,
        assemble::{Broken, Object, Part},
        backoff::Backoff,
        metrics::Verb,
    },
};

/// Longest line of a watch, in bytes. etcd holds no object larger than 1.5 MiB.
const LINE_BYTES_MAX: usize = 16 << 20;
/// Largest page of a list, in bytes after decompression.
const PAGE_BYTES_MAX: usize = 256 << 20;
/// A watch that ends sooner than this without a word is a failure.
const WATCH_SHORTEST: Duration = Duration::from_secs(5);
/// Broken streams in a row from one version before it is given up for a list.
const BROKEN_MAX: u32 = 3;
/// A watch that lasted this long makes the next list an unhurried one again.
const SETTLED: Duration = Duration::from_secs(120);

/// The messages of a follower to the session.
#[derive(Debug)]
pub(super) enum Said {
    /// Everything on the list, as of a version. The watch is open, or about to be.
    Listed {
        objects: Vec<Object>,
        broken: Vec<Broken>,
        version: String,
    },
    Open,
    Put(Result<Box<Object>, Broken>, Option<String>),
    Deleted(ServiceKey, Option<String>),
    /// Nothing changed up to a version.
    Bookmark(String),
    /// The list is not being followed, for this reason, and will be again.
    Down(Verb, Failure),
}

/// Whether the server is there. The session opens and closes it by the results of probes.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    pub(super) successes: u64,
    /// Times the server came back; watches that were open before may be deaf.
    pub(super) returns: u64,
    /// Whether the latest probe succeeded.
    pub(super) open: bool,
}

/// A follower of one list.
pub(super) struct Follower {
    pub(super) part: Part,
    pub(super) mode: EndpointsMode,
    pub(super) timing: Timing,
    pub(super) metrics: Metrics,
    pub(super) server: watch::Receiver<Server>,
    pub(super) gate: watch::Receiver<Gate>,
    pub(super) said: mpsc::Sender<(Part, Said)>,
}

struct Unheard;

/// How one request of a follower ended before its time.
enum End {
    /// The server came back from an outage; watches opened before may be deaf.
    Deaf,
    Failed(Verb, Failure),
    Unheard,
}

impl End {
    fn list(failure: Failure) -> Self {
        Self::Failed(Verb::List, failure)
    }

    fn watch(failure: Failure) -> Self {
        Self::Failed(Verb::Watch, failure)
    }
}

impl From<Unheard> for End {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

/// State kept between the requests.
struct Memory {
    /// The version held; without one, list.
    version: Option<String>,
    /// The server has streaming lists, as far as we know.
    streaming: bool,
    failures: Backoff,
    /// Lists made because a version was too old, lately.
    relists: Backoff,
    /// Broken streams in a row.
    broken: u32,
    /// Something was received on the current request.
    heard: bool,
}

impl Follower {
    pub(super) async fn run(mut self) {
        let Timing { backoff_min, backoff_max, .. } = self.timing;
        let backoff = Backoff::new(backoff_min, backoff_max);
        let mut memory =
            Memory { version: None, streaming: true, failures: backoff, relists: backoff, broken: 0, heard: false };
        loop {
            let before = self.gate.borrow().successes;
            let begun = Instant::now();
            memory.heard = false;
            let end = match memory.version.clone() {
                Some(version) => self.resume(&version, &mut memory).await,
                None if memory.streaming => self.streaming_list(&mut memory).await,
                None => self.paged_list(&mut memory).await,
            };
            if memory.heard {
                memory.failures.succeeded();
                memory.broken = 0;
            }
            if begun.elapsed() > SETTLED {
                memory.relists.succeeded();
            }
            match end {
                Err(End::Unheard) => return,
                Err(End::Deaf) => {}
                Ok(()) => {
                    if !memory.heard && begun.elapsed() < WATCH_SHORTEST {
                        memory.failures.failed();
                        tokio::time::sleep(memory.failures.delay()).await;
                    }
                }
                Err(End::Failed(verb, failure)) => {
                    if self.recover(verb, failure, before, &mut memory).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Tells of a failure and waits for as long as it calls for.
    async fn recover(&mut self, verb: Verb, failure: Failure, before: u64, memory: &mut Memory) -> Result<(), Unheard> {
        debug!(part = ?self.part, ?failure, "not following");
        let unreachable = matches!(failure, Failure::Unreachable { .. });
        let wait = match &failure {
            Failure::Expired => {
                memory.version = None;
                memory.relists.failed();
                memory.relists.delay()
            }
            Failure::Refused { code, .. } if memory.version.is_none() && memory.streaming && no_streaming(*code) => {
                memory.streaming = false;
                return Ok(());
            }
            Failure::Refused { code, retry_after, .. } => {
                memory.failures.failed();
                let denied = matches!(code, 401 | 403 | 404);
                let limit = if denied { self.timing.backoff_denied } else { self.timing.backoff_max };
                memory.failures.delay().min(limit) + retry_after.unwrap_or_default()
            }
            Failure::Unreachable { .. } => {
                memory.failures.failed();
                memory.failures.delay()
            }
            Failure::Garbage(_) => {
                self.metrics.broken_stream(self.part.objects());
                memory.failures.failed();
                memory.broken += 1;
                if memory.broken >= BROKEN_MAX {
                    memory.version = None;
                    memory.broken = 0;
                }
                memory.failures.delay()
            }
        };
        self.say(Said::Down(verb, failure)).await?;
        if !unreachable {
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        // The probe finds the end of an outage first, at the least cost. It does not have the last word: a probe may fail for
        // as long as the server is slow, and a watch is worth resuming even then.
        let alone = self.timing.backoff_max.mul_f64(rand::random_range(0.5..=1.0));
        let returned = async {
            let opened = self.gate.wait_for(|gate| gate.open && gate.successes > before).await;
            opened.map(|_| ()).map_err(|_| Unheard)
        };
        match tokio::time::timeout(alone, returned).await {
            Ok(Err(unheard)) => Err(unheard),
            Ok(Ok(())) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    async fn say(&self, said: Said) -> Result<(), Unheard> {
        self.said.send((self.part, said)).await.map_err(|_| Unheard)
    }

    async fn send(&self, ask: Ask) -> Result<Answer, Failure> {
        let server = self.server.borrow().clone();
        server.send(ask, server.patience()).await
    }

    /// Seconds a watch is asked to last. The jitter keeps those opened together from ending together.
    fn seconds(&self) -> u64 {
        self.timing.watch.mul_f64(rand::random_range(1.0..=2.0)).as_secs().max(1)
    }

    async fn streaming_list(&mut self, memory: &mut Memory) -> Result<(), End> {
        let ask = request::streaming_list(self.part, self.mode, self.seconds());
        let mut answer = self.send(ask).await.map_err(End::watch)?;
        let mut lines = Lines::default();
        let (mut objects, mut broken) = (Vec::new(), Vec::new());
        let part = self.part;
        let progress = self.metrics.health().listing(part);
        let version = loop {
            let heard = Instant::now();
            let event = tokio::select! {
                event = self.event(&mut answer, &mut lines, self.timing.idle_list) => event,
                () = self.stalled(heard) => {
                    // Servers up to 1.26 ignore sendInitialEvents: all objects come, and then no end.
                    memory.streaming = false;
                    return Ok(());
                }
            };
            match event {
                Ok(Some(Event::Put(Ok(object), _))) => objects.push(*object),
                Ok(Some(Event::Put(Err(bad), _))) => broken.push(bad),
                Ok(Some(Event::Delete(..))) => {
                    let reason = "an object was deleted within the initial events".to_owned();
                    return Err(End::watch(Failure::Garbage(reason)));
                }
                Ok(Some(Event::Bookmark { version, ends_list: true })) => break version,
                // As above: a bookmark of the minute, in place of the one that ends the list.
                Ok(Some(Event::Bookmark { .. })) => {
                    memory.streaming = false;
                    return Ok(());
                }
                Ok(Some(Event::Error(status))) => return Err(End::watch(refused(0, status, None))),
                Ok(None) => {
                    // A server that does not know streaming lists never ends one.
                    memory.streaming = false;
                    let reason = "ended before the end of the initial events".to_owned();
                    return Err(End::watch(Failure::Unreachable { step: Step::Body, reason }));
                }
                Err(failure) => {
                    memory.streaming &= !matches!(failure, Failure::Unreachable { step: Step::Silence, .. });
                    return Err(End::watch(failure));
                }
            }
            progress.objects(objects.len() + broken.len());
        };
        drop(progress);
        memory.heard = true;
        memory.version = Some(version.clone());
        self.say(Said::Listed { objects, broken, version }).await?;
        self.follow(answer, lines, memory).await
    }

    /// Resolves when a streaming list has brought nothing since `heard` for a while and the server answered others meanwhile.
    /// A server that answers no request is slow, and is waited for.
    async fn stalled(&self, heard: Instant) {
        loop {
            let quiet = quiet_max(self.timing.idle_initial, self.metrics.health().measures().latency_seconds);
            tokio::time::sleep(quiet).await;
            if self.metrics.health().life().is_some_and(|life| life > heard + quiet / 2) {
                return;
            }
        }
    }

    async fn paged_list(&mut self, memory: &mut Memory) -> Result<(), End> {
        let (mut objects, mut broken) = (Vec::new(), Vec::new());
        let mut next: Option<String> = None;
        let part = self.part;
        let progress = self.metrics.health().listing(part);
        let version = loop {
            let ask = request::page(self.part, self.mode, next.as_deref());
            let answer = self.send(ask).await.map_err(End::list)?;
            let body = answer.whole(PAGE_BYTES_MAX, self.timing.idle_list).await.map_err(End::list)?;
            let page =
                decode::page(self.part.objects(), &body).map_err(|reason| End::list(Failure::Garbage(reason)))?;
            objects.extend(page.objects);
            broken.extend(page.broken);
            progress.objects(objects.len() + broken.len());
            match (page.next, page.version) {
                (Some(token), _) if next.as_ref() != Some(&token) => next = Some(token),
                (Some(_), _) => return Err(End::list(Failure::Garbage("a page that leads to itself".to_owned()))),
                (None, Some(version)) => break version,
                (None, None) => return Err(End::list(Failure::Garbage("a list without a version".to_owned()))),
            }
        };
        drop(progress);
        memory.heard = true;
        memory.version = Some(version.clone());
        Ok(self.say(Said::Listed { objects, broken, version }).await?)
    }

    async fn resume(&mut self, version: &str, memory: &mut Memory) -> Result<(), End> {
        let answer =
            self.send(request::watch(self.part, self.mode, version, self.seconds())).await.map_err(End::watch)?;
        self.say(Said::Open).await?;
        self.follow(answer, Lines::default(), memory).await
    }

    /// Reads a watch until it ends.
    async fn follow(&mut self, mut answer: Answer, mut lines: Lines, memory: &mut Memory) -> Result<(), End> {
        let returns = self.gate.borrow().returns;
        let mut gate = self.gate.clone();
        loop {
            let event = tokio::select! {
                event = self.event(&mut answer, &mut lines, self.timing.idle_watch) => event,
                returned = gate.wait_for(|gate| gate.returns != returns) => {
                    return Err(if returned.is_ok() { End::Deaf } else { End::Unheard });
                }
            };
            let (said, version) = match event {
                Ok(Some(Event::Put(object, version))) => (Said::Put(object, version.clone()), version),
                Ok(Some(Event::Delete(key, version))) => (Said::Deleted(key, version.clone()), version),
                Ok(Some(Event::Bookmark { version, .. })) => (Said::Bookmark(version.clone()), Some(version)),
                Ok(Some(Event::Error(status))) => return Err(End::watch(refused(0, status, None))),
                Ok(None) => return Ok(()),
                Err(failure) => return Err(End::watch(failure)),
            };
            memory.heard = true;
            if let Some(version) = version {
                memory.version = Some(version);
            }
            self.say(said).await?;
        }
    }

    /// The next event; `None` where the stream ends between two of them.
    async fn event(&self, answer: &mut Answer, lines: &mut Lines, idle: Duration) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(line) = lines.next() {
                return decode::event(self.part.objects(), line).map(Some).map_err(Failure::Garbage);
            }
            match answer.piece(idle).await? {
                Some(piece) => lines.push(&piece).map_err(Failure::Garbage)?,
                None if lines.is_empty() => return Ok(None),
                None => return Err(Failure::Garbage("it ended within a line".to_owned())),
            }
        }
    }
}

/// Whether a refusal of a streaming list may mean that the server does not have them: any that is not about rights, or
/// about how much there is to do. An old etcd makes it a 500, a switched-off gate a 422.
fn no_streaming(code: u16) -> bool {
    code >= 400 && !matches!(code, 401 | 403 | 408 | 410 | 429 | 503)
}

/// Cuts pieces into lines, each bounded.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Where the lines handed out end.
    done: usize,
    /// Up to here there is no line end after `done`.
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        self.buffer.drain(..self.done);
        self.searched -= self.done;
        self.done = 0;
        if self.buffer.len() + piece.len() > LINE_BYTES_MAX {
            return Err(format!("a line of more than {LINE_BYTES_MAX} bytes"));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole line that is not blank, without its end.
    fn next(&mut self) -> Option<&[u8]> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let (begin, end) = (self.done, self.searched + at);
            self.done = end + 1;
            self.searched = end + 1;
            if !self.buffer[begin..end].iter().all(u8::is_ascii_whitespace) {
                return Some(&self.buffer[begin..end]);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.buffer[self.done..].iter().all(u8::is_ascii_whitespace)
    }
}

/// How long a streaming list may bring nothing: `usual`, or three times what answers take now. A starved server has
/// streaming lists all the same, and a list that is dropped is work it does twice.
fn quiet_max(usual: Duration, latency_seconds: f64) -> Duration {
    usual.max(Duration::try_from_secs_f64(latency_seconds * 3.0).unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streaming_list_may_be_as_quiet_as_the_server_is_slow() {
        let usual = Duration::from_secs(5);
        for (latency, seconds) in [(0.0, 5), (0.02, 5), (1.5, 5), (4.0, 12), (40.0, 120), (f64::MAX, 5)] {
            assert_eq!(quiet_max(usual, latency).as_secs(), seconds, "{latency} s");
        }
    }

    #[test]
    fn lines_are_the_same_however_the_pieces_fall() {
        let text = b"one\n\ntwo\r\nthree\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece).unwrap();
                while let Some(line) = lines.next() {
                    seen.push(String::from_utf8_lossy(line).trim().to_owned());
                }
            }
            assert_eq!(seen, ["one", "two", "three"], "pieces of {size}");
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..100).find(|_| lines.push(&piece).is_err());
        assert_eq!(refused, Some(16));
        assert!(lines.next().is_none());
    }
}
