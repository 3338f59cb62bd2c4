//! The process that watches over interface and rules, and over whether anybody answers.
//!
//! It alone keeps `CAP_NET_ADMIN`. It puts back what somebody removes, and gives the addresses of the cluster's DNS back to
//! the cluster while nothing is answered here. One for each interface name and network namespace: a newcomer asks the one
//! before to leave ([`seat`]), and a resident one that was asked stays behind it. Never answers DNS itself and never reads a
//! record.

pub mod child;
mod event;
mod failsafe;
pub mod keeper;
mod probe;
mod seat;

use std::{collections::HashSet, io, os::fd::AsFd, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

pub use self::event::{Event, Order};
use self::{
    failsafe::Failsafe,
    seat::{Asked, Claimed, Seat},
};
use super::{Config, Goal, is_released, reach};

/// Between two looks at whether DNS is answered.
const TICK: Duration = Duration::from_millis(500);
/// Between two looks at interface and rules, in ticks: what is removed is back within 5 s.
const LOOK_EVERY: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Of an agent, which started it and tells it by its standard input when to end.
    Child,
    /// Its own: a unit of systemd, or a container beside the agent's. A child leaves the work to it.
    Resident,
}

/// Watches until told to end, and reports to `tell`. The first thing reported after a first setup is [`Event::Ready`].
///
/// # Errors
/// If the system gives no signals.
pub async fn run(config: &Config, mode: Mode, orders: Orders, mut tell: impl FnMut(Event)) -> io::Result<()> {
    let mut orders = orders;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // One that was asked to leave by another of its kind stays behind that one.
    let mut displaced = false;
    let mut said_ready = false;
    loop {
        let mut seat = match seat::claim(&config.interface, mode, displaced).await {
            Claimed::Seat(seat) => seat,
            Claimed::Foreign(reason) => {
                tell(Event::Warn(format!("cannot be the only watch: {reason}")));
                Seat::none()
            }
            Claimed::Taken(mut held) => {
                if !std::mem::replace(&mut said_ready, true) {
                    tell(Event::Info("another watch is at work, which this one leaves it to".into()));
                    tell(Event::Ready);
                }
                let (mut ticks, mut released) = (interval(TICK * LOOK_EVERY), false);
                loop {
                    tokio::select! {
                        () = held.ended() => break,
                        _ = orders.next() => return Ok(()),
                        _ = terminate.recv() => if mode == Mode::Resident { return Ok(()) },
                        _ = interrupt.recv() => return Ok(()),
                        // What the other one does, ours is told of.
                        _ = ticks.tick(), if config.intercept_failsafe.is_some() => {
                            let now = is_released(config);
                            if std::mem::replace(&mut released, now) != now {
                                tell(if now { Event::Released } else { Event::Taken });
                            }
                        }
                    }
                }
                continue;
            }
        };
        let mut watch = Watch::new(config, &mut tell);
        watch.look();
        if !std::mem::replace(&mut said_ready, true) {
            (watch.tell)(Event::Ready);
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u32;
        loop {
            tokio::select! {
                asked = seat.asked_to_leave() => {
                    if mode == Mode::Resident && asked == Asked::Newcomer {
                        (watch.tell)(Event::Info("a newer watch takes over".into()));
                        break;
                    }
                    (watch.tell)(Event::Left);
                    return Ok(());
                }
                order = orders.next() => match order {
                    Some(order) => {
                        watch.end(order);
                        return Ok(());
                    }
                    // The agent died without a word.
                    None if config.intercept_failsafe.is_none() => return Ok(()),
                    None => {}
                },
                _ = terminate.recv() => if mode == Mode::Resident || orders.ended { return Ok(()) },
                _ = interrupt.recv() => if mode == Mode::Resident || orders.ended { return Ok(()) },
                _ = ticks.tick() => {
                    count = count.wrapping_add(1);
                    let turned = watch.probe().await;
                    if turned || count.is_multiple_of(LOOK_EVERY) {
                        watch.look();
                    }
                }
            }
        }
        displaced = true;
    }
}

/// Where orders come from.
#[derive(Debug)]
pub struct Orders {
    lines: Option<Lines<BufReader<pipe::Receiver>>>,
    ended: bool,
}

impl Orders {
    /// From nowhere: nobody gives any, and nobody can end without a word.
    #[must_use]
    pub fn none() -> Self {
        Self { lines: None, ended: false }
    }

    /// From standard input, a line each.
    ///
    /// # Errors
    /// If that is no pipe.
    pub fn stdin() -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        Ok(Self { lines: Some(BufReader::new(pipe).lines()), ended: false })
    }

    /// The next order; `None` once, when whoever gives them has gone without one.
    async fn next(&mut self) -> Option<Order> {
        let Some(lines) = &mut self.lines else { return std::future::pending().await };
        loop {
            let Ok(Some(line)) = lines.next_line().await else {
                self.lines = None;
                self.ended = true;
                return None;
            };
            if let Some(order) = Order::from_line(&line) {
                return Some(order);
            }
        }
    }
}

struct Watch<'a, F> {
    config: &'a Config,
    tell: F,
    failsafe: Option<Failsafe>,
    /// What was wrong at the last look, so that it is told once.
    told: HashSet<String>,
    looked: bool,
}

impl<'a, F: FnMut(Event)> Watch<'a, F> {
    fn new(config: &'a Config, tell: F) -> Self {
        let mut tell = tell;
        // The one before may have given the addresses back, and whether anybody answers by now is to be seen.
        let released = config.intercept_failsafe.is_some() && is_released(config);
        if released {
            tell(Event::Released);
        }
        let failsafe = config.intercept_failsafe.map(|after| Failsafe::new(after, Instant::now(), released));
        Self { config, tell, failsafe, told: HashSet::new(), looked: false }
    }

    fn goal(&self) -> Goal {
        if self.failsafe.as_ref().is_some_and(Failsafe::released) { Goal::Released } else { Goal::Serving }
    }

    fn look(&mut self) {
        let outcome = reach(self.config, self.goal());
        let first = !std::mem::replace(&mut self.looked, true);
        if !outcome.steps.is_empty() {
            let steps: Vec<String> = outcome.steps.iter().map(ToString::to_string).collect();
            let steps = steps.join("; ");
            (self.tell)(if first {
                Event::Info(format!("set up: {steps}"))
            } else {
                Event::Warn(format!("put right: {steps}"))
            });
        }
        let errors: Vec<_> = outcome.errors.iter().map(|error| (error.kind(), error.to_string())).collect();
        for (kind, text) in &errors {
            if !self.told.contains(text) {
                (self.tell)(Event::Error(*kind, text.clone()));
            }
        }
        self.told = errors.into_iter().map(|(_, text)| text).collect();
    }

    /// Asks whether DNS is answered. True if that changes what is to be done.
    async fn probe(&mut self) -> bool {
        let Some(failsafe) = &mut self.failsafe else { return false };
        let Some(ip) = self.config.local_ips.iter().find(|ip| !self.config.failsafe_ips.contains(ip)) else {
            return false;
        };
        let answered = probe::answers((*ip, self.config.dns_port).into()).await;
        let Some(released) = failsafe.note(answered, Instant::now()) else { return false };
        (self.tell)(if released { Event::Released } else { Event::Taken });
        true
    }

    fn end(&mut self, order: Order) {
        let goal = match order {
            Order::Leave => return,
            Order::Release => Goal::Released,
            Order::Teardown => Goal::Gone,
        };
        for error in reach(self.config, goal).errors {
            (self.tell)(Event::Error(error.kind(), error.to_string()));
        }
    }
}

/// Asks the watch over this interface to end, and waits until it has. For whoever is about to remove the interface.
pub async fn dismiss(interface: &str) {
    seat::dismiss(interface).await;
}
