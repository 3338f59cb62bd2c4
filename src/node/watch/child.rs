//! A watch started by an agent: how it is started, listened to and told to end. The agent's side.

use std::{
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::{Event, Order, to_line};
use crate::node::Config;

#[derive(Debug)]
pub struct Watcher {
    process: Child,
    orders: Option<ChildStdin>,
    events: Option<ChildStdout>,
}

/// Starts a watch, behind a keeper that starts it again should it die.
///
/// # Errors
/// If it cannot be started.
pub fn start(config: &Config) -> io::Result<Watcher> {
    // The program this process runs, whatever stands in its place by now.
    let mut process = Command::new("/proc/self/exe")
        .args(["node", "watch", "--child"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A ^C on the terminal is for the agent, which then tells us.
        .process_group(0)
        .spawn()?;
    let orders = process.stdin.take();
    let mut watcher = Watcher { events: process.stdout.take(), process, orders };
    let mut line = serde_json::to_vec(config)?;
    line.push(b'\n');
    match watcher.orders.as_mut().map_or(Ok(()), |orders| orders.write_all(&line)) {
        Ok(()) => Ok(watcher),
        Err(error) => {
            // The watch has no configuration.
            let _ = watcher.process.kill();
            let _ = watcher.process.wait();
            Err(error)
        }
    }
}

impl Watcher {
    /// Passes its events on until it ends. To be called once, on a tokio runtime.
    pub async fn listen(events: ChildStdout, mut tell: impl FnMut(Event)) {
        let Ok(pipe) = pipe::Receiver::from_owned_fd(OwnedFd::from(events)) else { return };
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(event) = serde_json::from_str::<Event>(&line) {
                tell(event);
            }
        }
    }

    /// The watch's reports from now on, for [`listen`](Self::listen).
    pub fn events(&mut self) -> Option<ChildStdout> {
        self.events.take()
    }

    /// Tells it that the ports are bound.
    pub fn begin(&mut self) {
        if let Some(orders) = &mut self.orders {
            // A watch that has ended is noticed because its reports stop.
            let _ = writeln!(orders, "{}", to_line(&Order::Begin));
        }
    }

    /// Orders it to end, and waits for that.
    pub fn end(mut self, order: &Order) {
        if let Some(mut orders) = self.orders.take() {
            // A watch that has ended by itself needs no order.
            let _ = writeln!(orders, "{}", to_line(order));
        }
        let _ = self.process.wait();
    }
}
