//! The thread that keeps the disk up with memory.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        mpsc::{self, TryRecvError},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{
    Config, Disk, DiskState, DiskStatus, Metrics, Start, claim,
    database::{RecordsFile, Step as _, is_corrupt, is_missing},
    layout,
    owner::Ownership,
    pace::{Behind, Due, Pace},
};
use crate::{
    record::Snapshot,
    store::Reader,
    sys::{Clock, Lock, UnixMillis, contained},
};

/// Shortest time between two log lines about a disk that keeps failing.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why a flush or a release did not get everything to disk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// The disk took longer than it was given.
    #[error("disk did not finish within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("{0}")]
    Failed(String),
    /// The store was released before.
    #[error("this process does not have the store any more")]
    Released,
}

type Reply = oneshot::Sender<Result<(), FlushError>>;

#[derive(Debug)]
enum Command {
    Flush(Reply),
    Release(Reply),
}

/// Handle to the thread that follows. When the last clone is dropped the thread flushes, closes and ends by itself.
#[derive(Clone, Debug)]
pub struct Follower {
    line: Arc<Line>,
    status: Arc<Lock<DiskStatus>>,
}

/// The line to the thread: each command must also wake it.
#[derive(Debug)]
struct Line {
    commands: Option<mpsc::Sender<Command>>,
    thread: Thread,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.commands = None;
        self.thread.unpark();
    }
}

impl Disk {
    /// Starts writing the records of `reader`.
    ///
    /// Nothing is written before there is something to say: a reader that never had a list leaves the disk as it was.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn follow(self, reader: &Reader) -> io::Result<Follower> {
        let keep_existing = matches!(self.status.start, Start::Unreadable { .. });
        let status = Arc::new(Lock::new(self.status));
        let (commands, inbox) = mpsc::channel();
        let (written, as_of) = match self.loaded {
            Some(loaded) => (Some(Arc::new(loaded.snapshot)), Some(loaded.as_of)),
            None => (None, None),
        };
        let work = Work {
            pace: Pace::new(self.config.records_every, self.config.age_every),
            config: self.config,
            clock: self.clock,
            metrics: self.metrics,
            reader: reader.clone(),
            status: Arc::clone(&status),
            ownership: self.ownership,
            file: None,
            written,
            as_of,
            keep_existing,
            complained: None,
        };
        let published = reader.subscribe();
        let thread =
            thread::Builder::new().name("holdfast-disk".to_owned()).spawn(move || work.run(&inbox, published))?;
        Ok(Follower { line: Arc::new(Line { commands: Some(commands), thread: thread.thread().clone() }), status })
    }
}

impl Follower {
    pub fn status(&self) -> DiskStatus {
        self.status.lock().clone()
    }

    /// Writes the records in memory, and returns when they are durable.
    ///
    /// # Errors
    /// If the disk fails, or does not finish `within` that time (it may still do so later).
    pub async fn flush(&self, within: Duration) -> Result<(), FlushError> {
        self.ask(Command::Flush, within).await
    }

    /// Flushes, closes the file and gives the store up, so that another process can claim it.
    ///
    /// The store is given up even if the flush fails. Nothing is written afterwards.
    ///
    /// # Errors
    /// As [`Follower::flush`].
    pub async fn release(&self, within: Duration) -> Result<(), FlushError> {
        self.ask(Command::Release, within).await
    }

    async fn ask(&self, command: impl FnOnce(Reply) -> Command, within: Duration) -> Result<(), FlushError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.line.commands.as_ref().expect("taken only when the last handle is dropped");
        commands.send(command(reply)).map_err(|_| FlushError::Released)?;
        self.line.thread.unpark();
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(FlushError::Released),
            Err(_) => Err(FlushError::Late(within)),
        }
    }
}

struct Work {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    reader: Reader,
    status: Arc<Lock<DiskStatus>>,
    pace: Pace,
    ownership: Option<Ownership>,
    file: Option<RecordsFile>,
    /// The version on disk.
    written: Option<Arc<Snapshot>>,
    as_of: Option<UnixMillis>,
    /// The file that is there may hold records we could not read: set it aside rather than replace it.
    keep_existing: bool,
    complained: Option<Instant>,
}

impl Work {
    fn run(mut self, inbox: &mpsc::Receiver<Command>, mut published: watch::Receiver<u64>) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match inbox.try_recv() {
                Ok(Command::Flush(reply)) => {
                    // The waiting task may be gone; the flush is done all the same.
                    let _ = reply.send(self.flush());
                    continue;
                }
                Ok(Command::Release(reply)) => {
                    let flushed = self.flush();
                    self.close("released");
                    let _ = reply.send(flushed);
                    return;
                }
                Err(TryRecvError::Disconnected) => {
                    // `attempt` counts and logs a failure.
                    let _ = self.flush();
                    self.close("the process is ending");
                    return;
                }
                Err(TryRecvError::Empty) => {}
            }
            let behind = self.behind();
            match self.pace.due(behind, Instant::now()) {
                Due::Now => {
                    // A failure is counted and logged there, and tried again when the pace says so.
                    let _ = self.attempt();
                }
                // Versions published until then are written with the rest.
                Due::At(at) if behind == Behind::Records => park_until(Some(at)),
                Due::At(at) => wait(&mut published, &waker, Some(at)),
                Due::Never => wait(&mut published, &waker, None),
            }
        }
    }

    fn behind(&self) -> Behind {
        let Some(as_of) = self.reader.as_of() else { return Behind::Nothing };
        let snapshot = self.reader.load();
        match &self.written {
            Some(written) if Arc::ptr_eq(written, &snapshot) => {
                if self.as_of == Some(as_of) {
                    Behind::Nothing
                } else {
                    Behind::Age
                }
            }
            _ => Behind::Records,
        }
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        match self.behind() {
            Behind::Nothing => Ok(()),
            Behind::Age | Behind::Records => self.attempt().map_err(FlushError::Failed),
        }
    }

    /// Brings the disk up to memory, and takes note of how that went.
    fn attempt(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        self.note(|status, now| status.writing_since = Some(now));
        let done = contained(|| self.write().map_err(|error| format!("{error:#}"))).unwrap_or_else(|panic| {
            // redb's state in memory cannot be trusted, not even to be dropped.
            std::mem::forget(self.file.take());
            self.written = None;
            self.keep_existing = true;
            Err(format!("redb panicked ({panic}); the whole file will be written again"))
        });
        let bytes = self.file.as_ref().map(RecordsFile::bytes);
        let mut status = self.status.lock();
        status.writing_since = None;
        match done {
            Ok(wrote) => {
                if wrote {
                    self.pace.wrote(begun);
                    self.metrics.commit_duration.observe(begun.elapsed().as_secs_f64());
                    status.committed_at = Some(self.clock.now());
                }
                // That there was nothing to write says nothing of a disk that does not let us have the store.
                if wrote || self.ownership.is_some() {
                    if status.state == DiskState::Degraded {
                        info!(path = %self.config.path.display(), "disk works again");
                    }
                    status.state = DiskState::Ok;
                    status.reason = None;
                    self.complained = None;
                }
                if let (Some(written), Some(as_of)) = (&self.written, self.as_of) {
                    let bytes = bytes.unwrap_or(status.bytes);
                    status.holds(written, as_of, bytes);
                    *self.metrics.as_of.lock() = Some(as_of);
                }
                Ok(())
            }
            Err(reason) => {
                self.pace.failed(Instant::now());
                self.metrics.errors.inc();
                status.degraded(reason.clone());
                drop(status);
                if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
                    warn!(path = %self.config.path.display(), reason, "store cannot be written: answers go on from memory, a restart loses what is not written");
                    self.complained = Some(Instant::now());
                }
                Err(reason)
            }
        }
    }

    fn note(&self, what: impl FnOnce(&mut DiskStatus, UnixMillis)) {
        what(&mut self.status.lock(), self.clock.now());
    }

    /// Writes once; false if the disk turned out to hold everything already.
    fn write(&mut self) -> anyhow::Result<bool> {
        // The age before the records: were it the other way round, it could be that of records newer than these.
        let Some(as_of) = self.reader.as_of() else { return Ok(false) };
        let snapshot = self.reader.snapshot();
        if let Some(written) = &self.written {
            let same = written.version() == snapshot.version() && snapshot.diff(written).is_empty();
            if same && self.as_of == Some(as_of) {
                self.written = Some(snapshot);
                return Ok(false);
            }
        }
        if self.ownership.is_none() {
            self.ownership = Some(claim(&self.config)?);
        }
        let written = self.bring_up(&snapshot, as_of);
        if written.is_err() {
            // redb refuses everything after a failure until it is opened again; what it holds is found out then.
            self.file = None;
        }
        written?;
        self.written = Some(snapshot);
        self.as_of = Some(as_of);
        Ok(true)
    }

    fn bring_up(&mut self, snapshot: &Snapshot, as_of: UnixMillis) -> anyhow::Result<()> {
        if self.file.as_ref().is_some_and(|file| !file.in_place()) {
            warn!(path = %self.config.path.display(), "the store was removed: writing it again");
            self.file = None;
        }
        if self.file.is_none() {
            self.file = self.reopen()?;
        }
        if let (Some(file), Some(written)) = (&self.file, &self.written) {
            return file.commit(written, snapshot, as_of);
        }
        self.file = Some(RecordsFile::rewrite(&self.config, snapshot, as_of)?);
        Ok(())
    }

    /// Opens the existing file if it has the expected records.
    fn reopen(&mut self) -> anyhow::Result<Option<RecordsFile>> {
        if self.keep_existing {
            self.set_aside("it could not be read")?;
        }
        let Some(written) = &self.written else { return Ok(None) };
        match RecordsFile::open(&self.config) {
            Ok(file) => Ok(file.holds(written)?.then_some(file)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) if is_corrupt(&error) => {
                self.set_aside(&format!("{error:#}"))?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn set_aside(&mut self, reason: &str) -> anyhow::Result<()> {
        match layout::set_aside(&self.config.path, self.clock.now()) {
            Ok(to) => error!(to = %to.display(), reason, "store set aside, writing a new one"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).step("set aside", &self.config.path),
        }
        self.keep_existing = false;
        Ok(())
    }

    fn close(&mut self, why: &str) {
        if let Some(file) = self.file.take()
            && let Err(error) = file.close()
        {
            // Committed pages stay; the next process repairs the rest.
            warn!(error = format!("{error:#}"), "store was not closed cleanly");
        }
        self.ownership = None;
        self.note(|status, _| {
            status.state = DiskState::Off;
            status.reason = Some(why.to_owned());
        });
    }
}

/// Waits for a publication, a command or `until`.
fn wait(published: &mut watch::Receiver<u64>, waker: &Waker, until: Option<Instant>) {
    let changed = pin!(published.changed());
    // An error would mean that the store is gone, which the reader we hold keeps from happening.
    if changed.poll(&mut Context::from_waker(waker)).is_pending() {
        park_until(until);
    }
}

fn park_until(until: Option<Instant>) {
    match until {
        Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
        None => thread::park(),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
