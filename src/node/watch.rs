//! The process that keeps interface and rules, and knows whether queries are answered.
//!
//! It alone keeps `CAP_NET_ADMIN`. It takes the addresses that the cluster's DNS has only once queries are answered here as well as
//! there, restores what is deleted, and gives them to the cluster's DNS while nothing answers here. One for each agent's addresses
//! in a network namespace ([`seat`]): a newcomer takes over, and the one before stays behind it, for when it ends. Never reads a
//! record; passes queries on to the cluster's DNS ([`relay`]) only while the failsafe is on.

pub mod child;
mod event;
mod failsafe;
pub mod keeper;
mod probe;
mod relay;
mod removals;
mod seat;

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::AsFd, linux::net::SocketAddrExt, unix::net},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::unix::pipe,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, interval, sleep, sleep_until, timeout},
};

pub use self::event::{Event, Order};
use self::{
    failsafe::Failsafe,
    probe::Answer,
    relay::Relay,
    removals::Removals,
    seat::{Asked, Claimed, Seat},
};
use super::{Config, ErrorType, Goal, approach, is_released, reach, was_set_up};
use crate::{
    report::{AddressState, Keeper, KeeperKind, Time},
    sys::Clock,
};

/// Between two looks at whether DNS is answered.
const TICK: Duration = Duration::from_millis(500);
/// The same while the addresses wait to be taken for the first time.
const FIRST_TICK: Duration = Duration::from_millis(50);
/// Between two looks at interface and rules: what is deleted is back within 5 s.
const LOOK: Duration = Duration::from_secs(2);
/// The same after something was removed from the node, which may go on and on.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// How long an agent that starts is not reported for answering nothing.
const STARTING: Duration = Duration::from_secs(1);
/// The time an answer may take: of the agent itself, which may ask the cluster's DNS for it, and of the cluster's DNS.
const OWN_PATIENCE: Duration = if cfg!(test) { Duration::from_secs(20) } else { Duration::from_millis(400) };
const FALLBACK_PATIENCE: Duration = if cfg!(test) { Duration::from_secs(20) } else { Duration::from_secs(1) };
/// The time for answers under way to leave when an address is given away.
const ANSWERS_LEAVE: Duration = Duration::from_millis(50);
/// The relay answers what it was asked, after queries go to the agent again.
const RELAY_ENDS: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Of an agent, which started it and gives it orders by its standard input.
    Child,
    /// Its own: a unit of systemd, or a container beside the agent's. A child leaves the work to it.
    Resident,
}

/// Watches until told to end, and reports to `tell`. [`Event::Ready`] comes once the addresses are taken, or will not be soon.
///
/// # Errors
/// If the system gives no signals.
pub async fn run(config: &Config, mode: Mode, orders: Orders, mut tell: impl FnMut(Event)) -> io::Result<()> {
    let mut inputs = Inputs {
        orders,
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        mode,
    };
    // A watch that another watch displaced waits behind it.
    let mut displaced = false;
    let mut said_ready = false;
    loop {
        // Before an agent has its ports, interface and rules are not ours to touch: another one may use them.
        while !inputs.begun(config) {
            if mode == Mode::Resident && !std::mem::replace(&mut said_ready, true) {
                tell(Event::Info("waiting for the agent to listen".into()));
                tell(Event::Ready);
            }
            tokio::select! {
                order = inputs.next() => if order != Some(Order::Begin) { return Ok(()) },
                () = sleep(TICK), if mode == Mode::Resident => {}
            }
        }
        let before = keeper_of(config, FALLBACK_PATIENCE).await;
        let mut seat = match seat::claim(&config.seat(), mode, displaced, || About::of(config, mode).to_json()).await {
            Claimed::Seat(seat) => seat,
            Claimed::Foreign(reason) => {
                tell(Event::Warn(format!("cannot be the only watch: {reason}")));
                Seat::none()
            }
            Claimed::Taken(held) => {
                tell(Event::KeptBy(keeper_of(config, FALLBACK_PATIENCE).await.map(|about| about.keeper)));
                if !behind(config, held, &mut inputs, &mut said_ready, &mut tell).await {
                    return Ok(());
                }
                continue;
            }
        };
        if !inputs.begun(config) {
            // Removed by hand meanwhile.
            continue;
        }
        let mut about = About::of(config, mode);
        tell(Event::Keeps(about.keeper.clone()));
        let mut watch = Watch::new(config, &mut tell);
        watch.judge_zone(before.map(|before| before.config)).await;
        watch.look();
        let (mut next_probe, mut next_look) = (Instant::now(), Instant::now() + LOOK);
        let removals = Removals::open();
        loop {
            if !said_ready && watch.is_settled() {
                said_ready = true;
                (watch.tell)(Event::Ready);
            }
            let place = watch.place.as_ref().and_then(Place::of);
            if about.place != place {
                about.place = place;
                seat.set_about(about.to_json());
            }
            tokio::select! {
                asked = seat.asked_to_leave() => {
                    if asked == Asked::Newcomer && !inputs.orders.ended {
                        (watch.tell)(Event::Info("a newer watch takes over".into()));
                        displaced = true;
                        break;
                    }
                    (watch.tell)(Event::Left);
                    return Ok(());
                }
                order = inputs.next() => match order {
                    Some(Order::Begin) => {}
                    Some(order) => {
                        end(config, &order, &mut watch.tell).await;
                        return Ok(());
                    }
                    // The agent died without a word.
                    None if mode == Mode::Child && config.intercept_failsafe.is_some() && !inputs.orders.told_to_end => {}
                    None => return Ok(()),
                },
                () = sleep_until(next_probe) => {
                    if watch.probe().await {
                        watch.look();
                    }
                    next_probe = Instant::now() + watch.pause();
                }
                // The agent of another mode removes the addresses itself at its end, while it still listens.
                () = removals.next(), if mode == Mode::Child => {
                    next_look = next_look.min((next_look - LOOK + LOOK_SOON).max(Instant::now()));
                }
                () = sleep_until(next_look) => {
                    // The addresses went with an agent that ended in order, and are not to come back without it.
                    if mode == Mode::Resident && !watch.failsafe.released() && watch.is_left() {
                        break;
                    }
                    watch.look();
                    next_look = Instant::now() + LOOK;
                }
            }
        }
    }
}

/// Stays behind another watch, and reports what that one does. False if told to end.
async fn behind(
    config: &Config,
    mut held: seat::Held,
    inputs: &mut Inputs,
    said_ready: &mut bool,
    tell: &mut impl FnMut(Event),
) -> bool {
    let began = Instant::now();
    let (mut ticks, mut told) = (interval(FIRST_TICK), None);
    loop {
        tokio::select! {
            () = held.ended() => return true,
            order = inputs.next() => match order {
                Some(Order::Begin) => {}
                Some(order) => {
                    end(config, &order, tell).await;
                    return false;
                }
                None => return false,
            },
            _ = ticks.tick() => {
                let keeper = keeper_of(config, TICK).await;
                let place = keeper.and_then(|about| about.place).map_or_else(|| seen(config), Place::event);
                if told.as_ref() != Some(&place) && (place == Event::Taken || began.elapsed() >= STARTING) {
                    told = Some(place.clone());
                    tell(place);
                }
                if told.is_some() {
                    ticks = interval(TICK);
                    ticks.tick().await;
                    if !std::mem::replace(said_ready, true) {
                        tell(Event::Ready);
                    }
                }
            }
        }
    }
}

/// Where the addresses are, of a keeper that does not say.
fn seen(config: &Config) -> Event {
    if is_released(config) {
        Event::Waiting("the process that keeps them has not taken them".into())
    } else {
        Event::Taken
    }
}

/// Leaves the node as `order` says.
async fn end(config: &Config, order: &Order, tell: &mut impl FnMut(Event)) {
    let goal = match order {
        Order::Begin | Order::Leave => return,
        Order::Release => Goal::Released(Vec::new()),
        Order::Teardown => Goal::Gone,
        Order::Yield(kept) => Goal::Yielded(kept.clone()),
    };
    let mut errors = approach(config, &goal).errors;
    sleep(ANSWERS_LEAVE).await;
    errors.extend(reach(config, &goal).errors);
    for error in errors {
        tell(Event::Error(error.kind(), error.to_string()));
    }
}

/// Whether an agent with these addresses listens: it has a name in this network namespace then.
fn agent_listens(config: &Config) -> bool {
    let Some(name) = &config.agent else { return false };
    net::SocketAddr::from_abstract_name(name).is_ok_and(|name| net::UnixStream::connect_addr(&name).is_ok())
}

struct Inputs {
    orders: Orders,
    terminate: Signal,
    interrupt: Signal,
    mode: Mode,
}

impl Inputs {
    /// Whether there is something to watch.
    fn begun(&self, config: &Config) -> bool {
        match self.mode {
            Mode::Child => self.orders.begun,
            Mode::Resident => agent_listens(config) || was_set_up(config),
        }
    }

    /// The next order; `None` if a signal ends this process, or the agent has gone without an order.
    async fn next(&mut self) -> Option<Order> {
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
    ended: bool,
    begun: bool,
    told_to_end: bool,
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
            if let Some(order) = Order::from_line(&line) {
                self.begun |= order == Order::Begin;
                return Some(order);
            }
        }
    }
}

struct Watch<'a, F> {
    config: &'a Config,
    tell: F,
    failsafe: Failsafe,
    /// Where queries to the addresses that only we have go while the failsafe is on.
    relay: Option<Relay>,
    began: Instant,
    /// The state of the addresses that was reported last.
    place: Option<Event>,
    /// A name that no cache has was answered by this agent: good answers are more than what an earlier process left behind.
    proven: bool,
    /// The errors of the last look, so that each is logged once.
    told: HashSet<String>,
    looked: bool,
}

impl<'a, F: FnMut(Event)> Watch<'a, F> {
    fn new(config: &'a Config, tell: F) -> Self {
        let now = Instant::now();
        let mut watch = Self {
            config,
            tell,
            failsafe: Failsafe::new(config.intercept_failsafe, now, false),
            relay: None,
            began: now,
            place: None,
            proven: false,
            told: HashSet::new(),
            looked: false,
        };
        // Addresses that are there stay until answers are judged: after a crash, or at a hand-over. Others wait for answers.
        let missing = watch.probed().is_some() && is_released(config);
        watch.failsafe.set(missing || (watch.probed().is_some() && !was_set_up(config) && watch.lacks_any()), now);
        if watch.failsafe.released() && was_set_up(config) {
            watch.say(Event::Released("given away before this start".into()));
        }
        watch
    }

    /// Gives the addresses away that a watch with another zone took, if the cluster's DNS answers: its answers for this zone are
    /// judged like those of a fresh install.
    async fn judge_zone(&mut self, before: Option<Config>) {
        let changed = before.is_some_and(|before| before.zone != self.config.zone);
        if changed && self.probed().is_some() && !self.failsafe.released() {
            self.failsafe.set(matches!(self.fallback().await, Some(Answer::Good | Answer::Denied)), Instant::now());
        }
    }

    /// Whether an address that the cluster's DNS has too is not on the interface.
    fn lacks_any(&self) -> bool {
        let config = self.config;
        let lacks = |step: &super::Step| matches!(step, super::Step::Add(ip) if config.failsafe_ips.contains(ip));
        config.setup_interface && super::check(config, &Goal::Serving).steps.iter().any(lacks)
    }

    /// An address that is ours whatever happens, where it can be seen whether the agent answers.
    fn probed(&self) -> Option<SocketAddr> {
        let ip = self.config.local_ips.iter().find(|ip| !self.config.failsafe_ips.contains(ip))?;
        Some((*ip, self.config.dns_port).into())
    }

    fn say(&mut self, event: Event) {
        if self.place.as_ref() != Some(&event) {
            self.place = Some(event.clone());
            (self.tell)(event);
        }
    }

    fn goal(&self) -> Goal {
        if self.failsafe.released() {
            Goal::Released(self.relay.as_ref().map(|relay| relay.ports.clone()).unwrap_or_default())
        } else {
            Goal::Serving
        }
    }

    /// Whether an agent that starts need not wait for the addresses any longer.
    fn is_settled(&self) -> bool {
        !self.failsafe.released() || self.began.elapsed() >= STARTING
    }

    /// Until the next probe.
    fn pause(&self) -> Duration {
        let first = self.failsafe.released() && self.relay.is_none() && self.began.elapsed() < STARTING * 30;
        if first { FIRST_TICK } else { TICK }
    }

    /// Whether no agent listens and addresses are missing.
    fn is_left(&self) -> bool {
        !agent_listens(self.config) && (!was_set_up(self.config) || self.lacks_any())
    }

    fn look(&mut self) {
        let outcome = reach(self.config, &self.goal());
        let first = !std::mem::replace(&mut self.looked, true);
        if !outcome.steps.is_empty() {
            let steps: Vec<String> = outcome.steps.iter().map(ToString::to_string).collect();
            let steps = steps.join("; ");
            let calm = first || self.place.is_none();
            (self.tell)(if calm {
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
        if !self.failsafe.released() {
            self.say(Event::Taken);
        }
    }

    /// Asks whether DNS is answered, and decides who is to answer. True if that changes.
    async fn probe(&mut self) -> bool {
        let Some(own) = self.probed() else { return false };
        let zone = &self.config.zone;
        let mut answer = probe::ask(own, probe::KUBERNETES, zone, OWN_PATIENCE).await;
        if !self.failsafe.released() && !self.proven && answer == Answer::Good {
            // The cache of an earlier process may have the name.
            self.proven = probe::ask(own, &probe::unknown(), zone, OWN_PATIENCE).await != Answer::Bad;
            answer = if self.proven { Answer::Good } else { Answer::Bad };
        }
        let now = Instant::now();
        self.failsafe.note(answer, now);
        if self.failsafe.may_take() {
            return self.take(own, answer).await;
        }
        // A denial while the cluster's DNS answers keeps the addresses from being taken, and changes nothing else.
        if answer == Answer::Good || answer == Answer::Denied && self.failsafe.released() {
            return false;
        }
        if self.failsafe.released() && self.place.is_none() {
            self.lacks_answers();
        }
        if self.failsafe.is_due(now) && (self.relay.is_none() || !self.failsafe.released()) {
            return self.give_away(answer).await;
        }
        false
    }

    /// Says what is missing for an answer, of an agent that had the time to start.
    fn lacks_answers(&mut self) {
        if self.began.elapsed() < STARTING {
            return;
        }
        let without = self.config.fallback.is_empty();
        let from = if without { "there is no cluster_fallback" } else { "cluster_fallback gives no answer" };
        self.say(Event::Waiting(format!("no records yet, and {from}: names of {} get no answer", self.config.zone)));
    }

    /// The answer of the cluster's DNS for the same name; `None` if its address is not known.
    async fn fallback(&self) -> Option<Answer> {
        let mut last = None;
        for server in &self.config.fallback {
            last = Some(probe::ask(*server, probe::KUBERNETES, &self.config.zone, FALLBACK_PATIENCE).await);
            if last != Some(Answer::Bad) {
                break;
            }
        }
        last
    }

    /// Takes the addresses, unless the cluster's DNS gives better answers.
    async fn take(&mut self, own: SocketAddr, answer: Answer) -> bool {
        let zone = &self.config.zone;
        let worse = match (answer, self.fallback().await) {
            // Also of an agent that forwards the name so far: its own records come later, and are of the wrong zone.
            (_, Some(Answer::Denied)) => {
                format!("the cluster's DNS has no kubernetes.default.svc.{zone}: check the setting zone")
            }
            (Answer::Denied, Some(Answer::Good)) => {
                format!("kubernetes.default.svc.{zone} is answered by the cluster's DNS and not here")
            }
            // The answer before may be one that its cache kept from an earlier process.
            _ if probe::ask(own, &probe::unknown(), zone, OWN_PATIENCE).await == Answer::Bad => {
                self.lacks_answers();
                return false;
            }
            _ => {
                self.proven = true;
                self.failsafe.set(false, Instant::now());
                if let Some(relay) = self.relay.take() {
                    // Answers under way.
                    tokio::spawn(async move {
                        sleep(RELAY_ENDS).await;
                        drop(relay);
                    });
                }
                return true;
            }
        };
        self.say(Event::Waiting(worse));
        false
    }

    /// Has the cluster's DNS answer, if it does so better than `own`.
    async fn give_away(&mut self, own: Answer) -> bool {
        let fallback = self.fallback().await;
        let why = match (own, fallback) {
            (Answer::Denied, Some(Answer::Good)) => {
                format!("kubernetes.default.svc.{} is answered by the cluster's DNS and not here", self.config.zone)
            }
            (Answer::Good | Answer::Denied, _) => {
                self.failsafe.put_off(Instant::now());
                return false;
            }
            (Answer::Bad, Some(Answer::Bad)) => {
                let why = "no answers here, and none from the cluster's DNS: the addresses stay".to_owned();
                if self.told.insert(why.clone()) {
                    (self.tell)(Event::Warn(why));
                }
                return false;
            }
            (Answer::Bad, _) => {
                format!("nothing is answered here for {:?}", self.config.intercept_failsafe.unwrap_or_default())
            }
        };
        if fallback.is_some() && self.config.setup_notrack {
            let kept: Vec<IpAddr> =
                (self.config.local_ips.iter().copied()).filter(|ip| !self.config.failsafe_ips.contains(ip)).collect();
            match Relay::start(&kept, &self.config.fallback).await {
                Ok(relay) => self.relay = Some(relay),
                Err(error) => (self.tell)(Event::Error(ErrorType::Address, format!("start the relay: {error}"))),
            }
        } else if self.failsafe.released() {
            return false;
        }
        let was_waiting = matches!(self.place, Some(Event::Waiting(_)));
        self.failsafe.set(true, Instant::now());
        if !was_waiting {
            self.say(Event::Released(why));
        }
        true
    }
}

/// A watch's description of itself, for other processes of the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub keeper: Keeper,
    /// The settings it keeps in place.
    pub config: Config,
    /// Where queries to the addresses go; none until that is settled, and of older versions.
    #[serde(default)]
    place: Option<Place>,
}

/// Where queries to the addresses go, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    state: AddressState,
    #[serde(default)]
    reason: String,
}

impl Place {
    fn of(event: &Event) -> Option<Self> {
        let (state, reason) = match event {
            Event::Taken => (AddressState::Taken, ""),
            Event::Waiting(why) => (AddressState::Waiting, why.as_str()),
            Event::Released(why) => (AddressState::Released, why.as_str()),
            _ => return None,
        };
        Some(Self { state, reason: reason.to_owned() })
    }

    fn event(self) -> Event {
        match self.state {
            AddressState::Taken => Event::Taken,
            AddressState::Waiting => Event::Waiting(self.reason),
            AddressState::Released => Event::Released(self.reason),
        }
    }
}

impl About {
    fn of(config: &Config, mode: Mode) -> Self {
        let keeper = Keeper {
            kind: if mode == Mode::Resident { KeeperKind::Resident } else { KeeperKind::Agent },
            pid: std::process::id(),
            since: Time(Clock::System.now()),
            interface: config.interface.clone(),
            addresses: config.local_ips.clone(),
            holdfast: env!("CARGO_PKG_VERSION").into(),
        };
        Self { keeper, config: config.clone(), place: None }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None` for the text of a version that this one cannot read.
    fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The watches that keep interfaces and rules in this network namespace, whatever container they run in.
pub async fn keepers() -> Vec<About> {
    let mut found = Vec::new();
    for seat in seat::taken() {
        found.extend(seat::about(&seat).await.as_deref().and_then(About::from_json));
    }
    found
}

/// The watch that keeps these addresses; `None` if there is none, or it does not say in time.
async fn keeper_of(config: &Config, patience: Duration) -> Option<About> {
    let text = timeout(patience, seat::about(&config.seat())).await.ok()??;
    About::from_json(&text)
}

/// Asks the watch over these addresses to end, and waits until it has: before they are removed by hand.
pub async fn dismiss(config: &Config) {
    seat::dismiss(&config.seat()).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// Answers names of `kubernetes` with the first code, and all others with the second.
    async fn server(kubernetes: u8, others: u8) -> (SocketAddr, AbortOnDropHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let rcode = if query[13..].starts_with(b"kubernetes") { kubernetes } else { others };
                (query[2], query[3]) = (0x81, rcode);
                let _ = socket.send_to(&query[..length], client).await;
            }
        });
        (address, AbortOnDropHandle::new(answering))
    }

    /// Addresses that were taken, of an agent and a cluster's DNS that answer as said: where they are after one look.
    async fn judged(own: (u8, u8), fallback: Option<(u8, u8)>, zone_before: &str) -> Option<Event> {
        let (agent, _agent) = server(own.0, own.1).await;
        let mut config = Config {
            local_ips: vec![agent.ip()],
            dns_port: agent.port(),
            intercept_failsafe: Some(Duration::ZERO),
            ..Config::default()
        };
        let mut tasks = Vec::new();
        if let Some((kubernetes, others)) = fallback {
            let (address, task) = server(kubernetes, others).await;
            config.fallback.push(address);
            tasks.push(task);
        }
        let mut watch = Watch::new(&config, |_| ());
        watch.judge_zone(Some(Config { zone: zone_before.into(), ..config.clone() })).await;
        for _ in 0..3 {
            watch.probe().await;
        }
        let place = watch.place.clone();
        assert_eq!(watch.failsafe.released(), place.is_some(), "{place:?}");
        place
    }

    #[tokio::test]
    async fn addresses_that_were_taken_are_given_back_by_an_agent_that_answers_worse() {
        const ZONE: &str = "cluster.local";
        let (good, denied, servfail) = (0, 3, 2);
        let knows = Some((good, denied));
        let stays = |place: Option<Event>| assert_eq!(place, None);
        let goes = |place: Option<Event>, why: &str| match place {
            Some(Event::Released(text) | Event::Waiting(text)) if text.contains(why) => {}
            other => panic!("{why}: {other:?}"),
        };
        stays(judged((good, denied), knows, ZONE).await);
        goes(judged((servfail, servfail), knows, ZONE).await, "nothing is answered here");
        // No records: only the cache of an earlier process has the name.
        goes(judged((good, servfail), knows, ZONE).await, "nothing is answered here");
        // Records that lack what the cluster has.
        goes(judged((denied, denied), knows, ZONE).await, "is answered by the cluster's DNS and not here");
        // The cluster's DNS lost what it knew: the records here are the better ones.
        stays(judged((good, denied), Some((denied, denied)), ZONE).await);
        stays(judged((good, denied), Some((servfail, servfail)), ZONE).await);
        stays(judged((denied, denied), Some((denied, denied)), ZONE).await);
        stays(judged((denied, denied), None, ZONE).await);
        stays(judged((servfail, servfail), Some((servfail, servfail)), ZONE).await);
        // Another zone than that of the watch before: its answers are judged anew.
        goes(judged((good, denied), Some((denied, denied)), "cluster.example").await, "check the setting zone");
        stays(judged((good, denied), knows, "cluster.example").await);
        stays(judged((good, denied), Some((servfail, servfail)), "cluster.example").await);
    }

    #[tokio::test]
    async fn nothing_is_given_to_a_cluster_dns_that_does_not_answer() {
        let socket = || async { UdpSocket::bind("127.0.0.1:0").await.unwrap() };
        let (agent, fallback) = (socket().await, socket().await);
        let at = |socket: &UdpSocket| socket.local_addr().unwrap();
        let mut config = Config {
            local_ips: vec![at(&agent).ip()],
            dns_port: at(&agent).port(),
            fallback: vec![at(&agent)],
            intercept_failsafe: Some(Duration::ZERO),
            ..Config::default()
        };
        drop(agent);
        let mut told = Vec::new();
        let mut watch = Watch::new(&config, |event| told.push(event));
        assert!(!watch.probe().await && !watch.probe().await);
        drop(watch);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(matches!(&told[0], Event::Warn(text) if text.contains("none from the cluster's DNS")), "{told:?}");

        config.fallback = vec![at(&fallback)];
        let answering = tokio::spawn(async move {
            let mut query = [0; 512];
            let (length, client) = fallback.recv_from(&mut query).await.unwrap();
            query[2] |= 0x80;
            fallback.send_to(&query[..length], client).await.unwrap();
        });
        told.clear();
        let mut watch = Watch::new(&config, |event| told.push(event));
        assert!(watch.probe().await);
        assert!(watch.failsafe.released());
        drop(watch);
        assert!(matches!(&told[..], [Event::Released(_)]), "{told:?}");
        answering.await.unwrap();
    }
}
