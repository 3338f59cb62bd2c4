//! A watch started by an agent: how it is started, listened to and told to end. The agent's side.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::{Event, Order};
use crate::{
    node::Config,
    sys::{Interest, Poll},
};

/// The time a first setup may take before the agent goes on without it: it takes milliseconds.
const READY: Duration = Duration::from_secs(5);
/// Longest text kept of a line that does not end.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A watch at work.
#[derive(Debug)]
pub struct Watcher {
    process: Child,
    orders: Option<ChildStdin>,
    events: Option<ChildStdout>,
}

/// Starts a watch and waits for its first setup. Gives what it reported meanwhile.
///
/// # Errors
/// If it cannot be started, or says nothing in time.
pub fn start(config: &Config) -> io::Result<(Watcher, Vec<Event>)> {
    // The program this process runs, whatever stands in its place by now.
    let mut process = Command::new("/proc/self/exe")
        .args(["node", "watch", "--child"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A ^C on the terminal is for the agent, which then tells us.
        .process_group(0)
        .spawn()?;
    let mut orders = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut events = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = serde_json::to_vec(config)?;
    line.push(b'\n');
    orders.write_all(&line)?;
    let first = until_ready(&mut events);
    let mut watcher = Watcher { process, orders: Some(orders), events: Some(events) };
    match first {
        Ok(first) => Ok((watcher, first)),
        Err(error) => {
            // It would be there with nobody to listen to it.
            let _ = watcher.process.kill();
            let _ = watcher.process.wait();
            Err(error)
        }
    }
}

fn until_ready(events: &mut ChildStdout) -> io::Result<Vec<Event>> {
    let end = Instant::now() + READY;
    let (mut found, mut text) = (Vec::new(), Vec::new());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || text.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the watch does not get ready"));
        }
        let mut poll = Poll::new([(events.as_fd(), Interest::Read)]);
        poll.wait(Some(left))?;
        if !poll.is_ready(0) {
            continue;
        }
        let mut bytes = [0; 4096];
        let read = events.read(&mut bytes)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the watch ended at once"));
        }
        text.extend_from_slice(&bytes[..read]);
        while let Some(at) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=at).collect();
            match Event::from_line(String::from_utf8_lossy(&line).trim_end()) {
                Some(Event::Ready) => return Ok(found),
                event => found.extend(event),
            }
        }
    }
}

impl Watcher {
    /// Hands on what it reports until it ends. Once; to be called on a tokio runtime.
    pub async fn listen(events: ChildStdout, mut tell: impl FnMut(Event)) {
        let Ok(pipe) = pipe::Receiver::from_owned_fd(OwnedFd::from(events)) else { return };
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(event) = Event::from_line(&line) {
                tell(event);
            }
        }
    }

    /// What it reports from now on, for [`listen`](Self::listen).
    pub fn events(&mut self) -> Option<ChildStdout> {
        self.events.take()
    }

    /// Whether it has ended; reaps it then.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Tells it to end, and waits until it has done what that takes.
    pub fn end(mut self, order: Order) {
        if let Some(mut orders) = self.orders.take() {
            // One that has ended by itself needs no order.
            let _ = writeln!(orders, "{}", order.as_str());
        }
        let _ = self.process.wait();
    }
}
