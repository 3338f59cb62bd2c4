//! UDP: one thread a worker, a batch of queries at a time.
//!
//! Owns the workers' threads and sockets. On the way of an answer from the records or the cache nothing is allocated,
//! locked, logged or awaited; forwards are handed to tokio and come back through the same socket.

mod worker;

use std::{
    io::{self, PipeWriter, Write},
    process,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

use self::worker::Worker;
use super::{access::Guard, server::Core};
use crate::sys::{DatagramSocket, take_turns_of};

/// The time of a worker for a batch of the usual size. It wakes up for that long and sleeps again, beside threads that
/// write a cache to disk or apply a relist without a pause: with turns as long as theirs it would wait for them to end.
const TURN: Duration = Duration::from_micros(200);

/// The byte in a worker's pipe that tells it to leave new queries to others, and to answer those received.
const DIVERT: u8 = 1;

/// The byte that tells it to answer what is left, and to end.
const CLOSE: u8 = 2;

/// The server's handle of a worker.
#[derive(Debug)]
struct WorkerHandle {
    wake: PipeWriter,
    diverted: Option<oneshot::Receiver<()>>,
    closed: Option<oneshot::Receiver<()>>,
}

/// The workers. Dropped, they are told to end.
#[derive(Debug)]
pub(super) struct Workers(Vec<WorkerHandle>);

/// Starts a thread for each list of sockets; `guards` are in the order of each list.
///
/// # Panics
/// If not called on a tokio runtime, or if the system gives no threads or pipes.
pub(super) fn start(
    core: &Arc<Core>,
    sockets: Vec<Vec<Arc<DatagramSocket>>>,
    guards: &[Option<Arc<Guard>>],
    open_rate: u32,
    forwards: &TaskTracker,
) -> Workers {
    let runtime = Handle::current();
    // The kernel spreads the queries of a network over the workers.
    let rate = (open_rate > 0).then(|| open_rate.div_ceil(u32::try_from(sockets.len()).unwrap_or(1).max(1)));
    let begin = |(number, sockets): (usize, Vec<Arc<DatagramSocket>>)| {
        let (woken, wake) = io::pipe().expect("a pipe");
        let (diverted_in, diverted) = oneshot::channel();
        let (closed_in, closed) = oneshot::channel();
        let worker = Worker::new(Arc::clone(core), sockets, guards.to_vec(), rate, forwards.clone(), runtime.clone());
        thread::Builder::new()
            .name(format!("dns-udp-{number}"))
            .spawn(move || {
                let guard = AbortOnPanic;
                // A kernel that refuses, or a sandbox, leaves the turns as they are.
                if let Err(error) = take_turns_of(TURN) {
                    tracing::debug!(%error, "cannot shorten the turns of the UDP workers");
                }
                worker.run(&woken, diverted_in);
                drop(guard);
                let _ = closed_in.send(());
            })
            .expect("a thread");
        WorkerHandle { wake, diverted: Some(diverted), closed: Some(closed) }
    };
    Workers(sockets.into_iter().enumerate().map(begin).collect())
}

impl Workers {
    /// Takes the sockets out of their groups. Returns when every query received until then is answered or forwarded.
    pub(super) async fn divert(&mut self) {
        self.send(DIVERT);
        for worker in &mut self.0 {
            if let Some(diverted) = worker.diverted.take() {
                let _ = diverted.await;
            }
        }
    }

    /// Ends the workers. Returns when their sockets are no longer read.
    pub(super) async fn close(&mut self) {
        self.send(CLOSE);
        for worker in &mut self.0 {
            if let Some(closed) = worker.closed.take() {
                let _ = closed.await;
            }
        }
    }

    fn send(&mut self, byte: u8) {
        for worker in &mut self.0 {
            // A worker that has ended has closed its end.
            let _ = worker.wake.write_all(&[byte]);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.send(CLOSE);
    }
}

/// Takes the process down if the thread unwinds: with one worker gone, the kernel would go on giving its share of the
/// queries to a socket that nobody reads.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a UDP worker panicked: the process ends and is started again");
            process::abort();
        }
    }
}
