//! Standard error that never makes the process wait: what reads it may be stuck, and DNS goes on.
//!
//! Owns the queue of log lines, its bound, and the count of lines lost.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{Interest, Poll};

/// Bytes of log lines that may wait.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Most bytes that a pipe takes at once without waiting when it is ready (`PIPE_BUF`).
const PIPE_BYTES: usize = 4_096;
/// Longest wait for a reader where a line is written directly: before the thread runs, and at a panic.
const READY: Duration = Duration::from_millis(100);

/// Lines lost since the start of this process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Log lines lost since the start, because standard error was not read.
pub fn log_lines_lost() -> u64 {
    LOST.load(Relaxed)
}

/// Writes to standard error, and gives up where that would wait for longer than a moment.
pub fn write_stderr(text: &str) {
    let _ = write_when_ready(text.as_bytes());
}

fn write_when_ready(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    let mut poll = Poll::new([(stderr.as_fd(), Interest::Write)]);
    while !bytes.is_empty() {
        poll.wait(Some(READY))?;
        if !poll.is_ready(0) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let some = &bytes[..bytes.len().min(PIPE_BYTES)];
        // Without the lock of `io::stderr`: a thread that waits for the reader may hold it.
        let written = rustix::io::write(&stderr, some)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Takes log lines and writes them behind the caller's back. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Told when a line comes in.
    filled: Condvar,
    /// Told when the last line is out.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lost lines not yet reported in the log.
    untold: u64,
    /// A thread takes the lines.
    threaded: bool,
    /// That thread has one in hand.
    writing: bool,
}

impl LogQueue {
    /// Takes a line: queues it, or drops and counts it if the queue is full. Before [`start`](Self::start) it is written at
    /// once.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        if !queue.threaded {
            if write_when_ready(line).is_err() {
                LOST.fetch_add(1, Relaxed);
            }
            return;
        }
        if queue.bytes + line.len() > QUEUE_BYTES_MAX {
            queue.untold += 1;
            LOST.fetch_add(1, Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Starts the thread that writes; `on_start` runs on it first.
    ///
    /// # Errors
    /// If the system gives no thread; lines are then written by their callers.
    pub fn start(&self, on_start: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let queue = self.clone();
        self.queue().threaded = true;
        let started = thread::Builder::new().name("log".into()).spawn(move || {
            on_start();
            queue.write(io::stderr().as_fd());
        });
        started.map(drop).inspect_err(|_| self.queue().threaded = false)
    }

    /// Waits until everything is written, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut queue = self.queue();
        while queue.threaded && (queue.writing || !queue.lines.is_empty()) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            queue = self.0.emptied.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines for as long as the process lives.
    fn write(&self, fd: BorrowedFd<'_>) {
        let mut queue = self.queue();
        loop {
            queue.writing = false;
            let Some(line) = queue.lines.pop_front() else {
                self.0.emptied.notify_all();
                queue = self.0.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= line.len();
            queue.writing = true;
            let untold = std::mem::take(&mut queue.untold);
            drop(queue);
            let mut rest = &line[..];
            while !rest.is_empty() {
                match rustix::io::write(fd, rest) {
                    Ok(written @ 1..) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    // Nothing reads any more, or the disk is full.
                    Ok(0) | Err(_) => {
                        LOST.fetch_add(1, Relaxed);
                        break;
                    }
                }
            }
            if untold > 0 {
                let told = format!("{untold} log lines were lost: nothing read standard error; DNS was not affected\n");
                let _ = rustix::io::write(fd, told.as_bytes());
            }
            queue = self.queue();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn a_reader_that_stands_still_makes_no_caller_wait_and_the_lost_lines_are_told() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::default();
        queue.queue().threaded = true;
        let behind = queue.clone();
        thread::spawn(move || behind.write(writer.as_fd()));
        let line = format!("{}\n", "x".repeat(999));
        let before = log_lines_lost();
        let started = Instant::now();
        for _ in 0..1_000 {
            queue.push(line.as_bytes());
        }
        // A pipe takes 64 KiB, the queue 256 KiB.
        let lost = log_lines_lost() - before;
        assert!((600..=750).contains(&lost), "{lost}");
        assert!(started.elapsed() < Duration::from_secs(5));
        queue.flush(Duration::from_millis(1));
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        // In one line, or in several if the thread took a line between two that were lost.
        let mut told = 0;
        while told < lost {
            let line = lines.find(|line| line.starts_with(|first: char| first.is_ascii_digit())).unwrap();
            let (count, rest) = line.split_once(' ').unwrap();
            assert_eq!(rest, "log lines were lost: nothing read standard error; DNS was not affected");
            told += count.parse::<u64>().unwrap();
        }
        assert_eq!(told, lost);
    }
}
