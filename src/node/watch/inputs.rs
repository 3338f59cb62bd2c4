//! The inputs of a watch: orders of the agent, and signals.

use std::{
    io,
    os::{fd::AsFd, linux::net::SocketAddrExt, unix::net},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Mode, Order};
use crate::node::{Config, was_set_up};

pub(super) struct Inputs {
    pub orders: Orders,
    terminate: Signal,
    interrupt: Signal,
    mode: Mode,
}

impl Inputs {
    pub(super) fn new(orders: Orders, mode: Mode) -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { orders, terminate, interrupt, mode })
    }

    /// Whether there is something to watch.
    pub(super) fn begun(&self, config: &Config) -> bool {
        match self.mode {
            Mode::Child => self.orders.begun,
            Mode::Resident => agent_listens(config) || was_set_up(config),
        }
    }

    /// The next order; `None` if a signal ends this process, or the agent has gone without an order.
    pub(super) async fn next(&mut self) -> Option<Order> {
        loop {
            // The agent of a child decides, as long as there is one.
            let ends = self.mode == Mode::Resident || self.orders.ended;
            tokio::select! {
                order = self.orders.next() => return order,
                _ = self.terminate.recv() => if ends { self.orders.told_to_end = true; return None },
                _ = self.interrupt.recv() => if ends { self.orders.told_to_end = true; return None },
            }
        }
    }
}

/// Where orders come from.
#[derive(Debug)]
pub struct Orders {
    lines: Option<Lines<BufReader<pipe::Receiver>>>,
    /// The agent has gone.
    pub(super) ended: bool,
    begun: bool,
    pub(super) told_to_end: bool,
}

impl Orders {
    /// From nowhere.
    #[must_use]
    pub fn none() -> Self {
        Self { lines: None, ended: false, begun: false, told_to_end: false }
    }

    /// From standard input, a line each; [`Order::Begin`] was read before if `begun`.
    ///
    /// # Errors
    /// If that is no pipe.
    pub fn stdin(begun: bool) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        Ok(Self { lines: Some(BufReader::new(pipe).lines()), begun, ..Self::none() })
    }

    /// The next order; `None` once, when the agent has gone without one.
    async fn next(&mut self) -> Option<Order> {
        let Some(lines) = &mut self.lines else { return std::future::pending().await };
        loop {
            let Ok(Some(line)) = lines.next_line().await else {
                self.lines = None;
                self.ended = true;
                return None;
            };
            if let Ok(order) = serde_json::from_str::<Order>(&line) {
                self.begun |= order == Order::Begin;
                return Some(order);
            }
        }
    }
}

/// Whether an agent with these addresses runs and does not end: it has a name in this network namespace then.
pub(super) fn agent_listens(config: &Config) -> bool {
    let Some(name) = &config.agent else { return false };
    net::SocketAddr::from_abstract_name(name).is_ok_and(|name| net::UnixStream::connect_addr(&name).is_ok())
}
