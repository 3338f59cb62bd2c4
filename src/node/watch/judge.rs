//! Decides which server answers at the addresses, and brings interface and rules to that.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Event, FIRST_TICK, TICK,
    failsafe::Failsafe,
    inputs::agent_listens,
    probe::{self, Answer},
    relay::Relay,
};
use crate::node::{Config, ErrorType, Goal, Step, check, is_released, listeners::is_closed, reach, was_set_up};

/// How long an agent that starts is not reported for answering nothing.
pub(super) const STARTING: Duration = Duration::from_secs(1);
/// The relay answers what it was asked, after queries go to the agent again.
const RELAY_ENDS: Duration = Duration::from_secs(2);

/// The time an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Of the agent itself, which may ask the cluster's DNS for it.
    own: Duration,
    /// Of the cluster's DNS.
    fallback: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { own: Duration::from_millis(400), fallback: Duration::from_secs(1) }
    }
}

pub(super) struct Watch<'a, F> {
    config: &'a Config,
    patience: Patience,
    pub tell: F,
    failsafe: Failsafe,
    /// Where queries to the addresses that only we have go while the failsafe is on.
    relay: Option<Relay>,
    began: Instant,
    /// The state of the addresses that was reported last.
    pub place: Option<Event>,
    /// This agent answered a name that no cache has: its good answers are not left over from an earlier process.
    proven: bool,
    /// The errors of the last look, so that each is logged once.
    told: HashSet<String>,
    /// Whether a log line told that the addresses stay, as the cluster's DNS does not answer either.
    told_they_stay: bool,
    looked: bool,
}

impl<'a, F: FnMut(Event)> Watch<'a, F> {
    pub(super) fn new(config: &'a Config, patience: Patience, tell: F) -> Self {
        let now = Instant::now();
        let mut watch = Self {
            config,
            patience,
            tell,
            failsafe: Failsafe::new(config.intercept_failsafe, now, false),
            relay: None,
            began: now,
            place: None,
            proven: false,
            told: HashSet::new(),
            told_they_stay: false,
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
    pub(super) async fn judge_zone(&mut self, before: Option<Config>) {
        let changed = before.is_some_and(|before| before.zone != self.config.zone);
        if changed && self.probed().is_some() && !self.failsafe.released() {
            self.failsafe.set(matches!(self.fallback().await, Some(Answer::Good | Answer::Denied)), Instant::now());
        }
    }

    /// Whether an address that the cluster's DNS has too is not on the interface.
    fn lacks_any(&self) -> bool {
        let config = self.config;
        let lacks = |step: &Step| matches!(step, Step::Add(ip) if config.failsafe_ips.contains(ip));
        config.setup_interface && check(config, &Goal::Serving).steps.iter().any(lacks)
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

    /// Whether queries are redirected to this process.
    pub(super) fn has_relay(&self) -> bool {
        self.failsafe.released() && self.relay.is_some()
    }

    /// Whether an agent that starts need not wait for the addresses any longer.
    pub(super) fn is_settled(&self) -> bool {
        !self.failsafe.released() || self.began.elapsed() >= STARTING
    }

    /// Until the next probe.
    pub(super) fn pause(&self) -> Duration {
        let first = self.failsafe.released() && self.relay.is_none() && self.began.elapsed() < STARTING * 30;
        if first { FIRST_TICK } else { TICK }
    }

    /// Whether the addresses went with an agent that ended in order: they are not to come back without it.
    pub(super) fn is_left(&self) -> bool {
        !self.failsafe.released() && !agent_listens(self.config) && (!was_set_up(self.config) || self.lacks_any())
    }

    pub(super) fn look(&mut self) {
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

    /// Asks whether DNS is answered, and decides between the agent and the cluster's DNS. True if that changes.
    pub(super) async fn probe(&mut self) -> bool {
        let Some(own) = self.probed() else { return false };
        let zone = &self.config.zone;
        let mut answer = probe::ask(own, probe::KUBERNETES, zone, self.patience.own).await;
        if !self.failsafe.released() && !self.proven && answer == Answer::Good {
            // The cache of an earlier process may have the name.
            self.proven = !probe::ask(own, &probe::unknown(), zone, self.patience.own).await.is_missing();
            answer = if self.proven { Answer::Good } else { Answer::Bad };
        }
        // An ICMP message for the closed port says the same, unless the kernel limits their rate.
        if answer == Answer::Bad && is_closed(own) {
            answer = Answer::Closed;
        }
        let now = Instant::now();
        self.failsafe.note(answer, now);
        if self.failsafe.may_take() {
            return self.take(own, answer).await;
        }
        // A denial while the cluster's DNS answers keeps the addresses from being taken, and changes nothing else.
        if answer == Answer::Good || answer == Answer::Denied && self.failsafe.released() {
            self.told_they_stay = false;
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
            last = Some(probe::ask(*server, probe::KUBERNETES, &self.config.zone, self.patience.fallback).await);
            if last.is_some_and(|answer| !answer.is_missing()) {
                break;
            }
        }
        last
    }

    /// Takes the addresses, unless the cluster's DNS gives better answers.
    async fn take(&mut self, own: SocketAddr, answer: Answer) -> bool {
        let zone = &self.config.zone;
        if self.config.agent.is_some() && !agent_listens(self.config) {
            // The agent answers the queries it has received, and ends.
            return false;
        }
        let worse = match (answer, self.fallback().await) {
            // Also of an agent that forwards the name so far: its own records come later, and are of the wrong zone.
            (_, Some(Answer::Denied)) => {
                format!("the cluster's DNS has no kubernetes.default.svc.{zone}: check the setting zone")
            }
            (Answer::Denied, Some(Answer::Good)) => {
                format!("kubernetes.default.svc.{zone} is answered by the cluster's DNS and not here")
            }
            // The answer before may be one that its cache kept from an earlier process.
            _ if probe::ask(own, &probe::unknown(), zone, self.patience.own).await.is_missing() => {
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
            (_, Some(answer)) if answer.is_missing() => {
                if !std::mem::replace(&mut self.told_they_stay, true) {
                    let why = "no answers here, and none from the cluster's DNS: the addresses stay";
                    (self.tell)(Event::Warn(why.into()));
                }
                return false;
            }
            (Answer::Closed, _) => format!("no process listens here for {:?}", self.failsafe.closed_after()),
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

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// Longer than a loaded machine takes.
    const LONG: Patience = Patience { own: Duration::from_secs(20), fallback: Duration::from_secs(20) };

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
        let mut watch = Watch::new(&config, LONG, |_| ());
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
        // Records that lack a name of the cluster.
        goes(judged((denied, denied), knows, ZONE).await, "is answered by the cluster's DNS and not here");
        // The cluster's DNS lost its records: those here are the better ones.
        stays(judged((good, denied), Some((denied, denied)), ZONE).await);
        stays(judged((good, denied), Some((servfail, servfail)), ZONE).await);
        stays(judged((denied, denied), Some((denied, denied)), ZONE).await);
        stays(judged((denied, denied), None, ZONE).await);
        stays(judged((servfail, servfail), Some((servfail, servfail)), ZONE).await);
        // Another zone than that of the watch before: its answers are judged from the start.
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
        let mut watch = Watch::new(&config, LONG, |event| told.push(event));
        for _ in 0..2 {
            assert!(!watch.probe().await);
            watch.look();
        }
        drop(watch);
        let warned = |event: &Event| matches!(event, Event::Warn(text) if text.contains("none from the cluster's DNS"));
        assert_eq!(told.iter().filter(|event| warned(event)).count(), 1, "said once: {told:?}");

        config.fallback = vec![at(&fallback)];
        let answering = tokio::spawn(async move {
            let mut query = [0; 512];
            let (length, client) = fallback.recv_from(&mut query).await.unwrap();
            query[2] |= 0x80;
            fallback.send_to(&query[..length], client).await.unwrap();
        });
        told.clear();
        let mut watch = Watch::new(&config, LONG, |event| told.push(event));
        assert!(watch.probe().await);
        assert!(watch.failsafe.released());
        drop(watch);
        assert!(matches!(&told[..], [Event::Released(_)]), "{told:?}");
        answering.await.unwrap();
    }
}
