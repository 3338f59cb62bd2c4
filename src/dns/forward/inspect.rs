//! The result for a question without asking an upstream, for the tools. Never changes anything.

use std::time::Duration;

use futures::FutureExt;
use hickory_proto::rr::Record;

use super::{
    Failure, Forwarder, Inner,
    lookup::{FLAGS, Found, State, place, stale_age},
    resolve::{Reach, Resolver, Source},
    route::{ByZone, Config, Route, Routes, Via, ZoneNames, zone_names},
};
use crate::{
    dns::{
        Question, Records, Rules,
        cache::{Age, Key, Kind},
        request::ServedFrom,
    },
    report::{OutsideHold, ZoneRule},
    sys::{Lock, UnixMillis},
    wire::{Name, Rcode},
};

/// A name on the way to an answer that upstreams speak for.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    pub name: Name,
    /// The forward zone, or `cluster_fallback`.
    pub zone: String,
    pub upstreams: Vec<String>,
    pub cached: Option<Cached>,
}

/// An answer in the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    pub stored: UnixMillis,
    /// The rest of its TTL; `None` if it has expired.
    pub left: Option<Duration>,
    /// It has expired, and clients get it without waiting.
    pub served_stale: bool,
    /// Its last CNAME is followed over another zone's upstreams.
    pub continues: bool,
    /// Upstreams deny the name since, and the answer is served.
    pub held: Option<OutsideHold>,
}

/// The result for a question.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// `None` if an upstream would have to be asked.
    pub answer: Option<InspectedAnswer>,
    /// The names that upstreams speak for, in the order they are looked up.
    pub legs: Vec<Leg>,
    /// The first rule of a forward zone that answers in place of upstreams.
    pub rule: Option<ZoneRule>,
}

/// The way to an answer.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub legs: Vec<Leg>,
    /// The first rule of a forward zone that answered.
    pub rule: Option<ZoneRule>,
}

#[derive(Clone, Debug)]
pub struct InspectedAnswer {
    pub rcode: Rcode,
    pub kind: Kind,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub age: Age,
}

/// The hosts, fixed answers and rewrites of a configuration, for a store without a process.
#[derive(Debug, Default)]
pub struct Names(ByZone<ZoneNames>);

impl Names {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(zone_names(config))
    }

    /// The result for `question` from `records` and these names.
    #[must_use]
    pub fn inspect(&self, rules: &Rules, records: Records<'_>, question: &Question) -> Inspected {
        let trail = Lock::default();
        let reach = Reach::Names { zones: &self.0, trail: &trail };
        trace(Resolver { records: Source::At(rules, records), reach, asker: None }, question, &trail)
    }
}

impl Forwarder {
    /// The result for `question` from `records`, the configuration and the cache.
    #[must_use]
    pub fn inspect(&self, rules: &Rules, records: Records<'_>, question: &Question) -> Inspected {
        let routes = self.0.routes.load_full();
        let trail = Lock::default();
        let reach = Reach::Cache { inner: &self.0, routes: &routes, trail: &trail };
        trace(Resolver { records: Source::At(rules, records), reach, asker: None }, question, &trail)
    }
}

fn trace(resolver: Resolver<'_>, question: &Question, trail: &Lock<Trail>) -> Inspected {
    // Nothing on the way waits: no upstream is asked.
    let outcome = resolver.resolve(question).now_or_never().unwrap_or(Err(Failure::NotAsked));
    let answer = match outcome {
        Ok(found) => {
            let (answers, authorities) = found.entry.records(resolver.now(), found.age);
            let rcode = if found.entry.kind() == Kind::NxDomain { Rcode::NXDOMAIN } else { Rcode::NOERROR };
            Some(InspectedAnswer { rcode, kind: found.entry.kind(), answers, authorities, age: found.age })
        }
        Err(Failure::Fixed(answer, _)) => Some(InspectedAnswer {
            rcode: answer,
            kind: if answer == Rcode::NXDOMAIN { Kind::NxDomain } else { Kind::NoData },
            answers: Vec::new(),
            authorities: Vec::new(),
            age: Age::Fresh,
        }),
        Err(Failure::Dropped | Failure::NotAsked | Failure::Held(_) | Failure::Servfail { .. }) => None,
    };
    let Trail { legs, rule } = std::mem::take(&mut *trail.lock());
    Inspected { answer, legs, rule }
}

impl Leg {
    /// A name whose upstreams are not known.
    pub(super) fn unknown(question: &Question) -> Self {
        Self { name: question.name.clone(), zone: String::new(), upstreams: Vec::new(), cached: None }
    }

    fn of(route: &Route, question: &Question, via: Via) -> Self {
        let zone = match via {
            Via::Zone | Via::Route(_) => route.config.zone.to_string(),
            Via::Fallback => "cluster_fallback".into(),
        };
        let upstreams = route.upstreams().iter().map(|upstream| upstream.server().to_string()).collect();
        Self { name: question.name.clone(), zone, upstreams, cached: None }
    }
}

impl Inner {
    /// The cache entry of `question` on its own route.
    pub(super) fn inspect(
        &self,
        routes: &Routes,
        question: &Question,
        via: Via,
    ) -> Result<(Leg, Option<Found>), Failure> {
        let (route, _) = place(routes, question, via)?;
        let mut leg = Leg::of(route, question, via);
        let find = |(dnssec_ok, checking_disabled)| {
            let question = Question { dnssec_ok, checking_disabled, ..question.by_ref() };
            let key = Key::new(route.id, question);
            self.cache.get(&key).map(|entry| (key, entry))
        };
        let now = self.now();
        let Some((key, entry)) = FLAGS.into_iter().find_map(find) else {
            return Ok((leg, self.cut(route, question, now)));
        };
        let state = State::of(route, Some(&entry), now);
        let left = Duration::from_secs(entry.ttl().into()).saturating_sub(entry.age(now));
        let fresh = state == State::Fresh;
        leg.cached = Some(Cached {
            stored: entry.stored().moved_ms(self.environment.clock.wall_ahead_ms()),
            left: fresh.then_some(left),
            served_stale: matches!(state, State::StaleAtOnce | State::StaleFirst),
            continues: entry.continues(),
            held: self.held_by(&key),
        });
        let (age, from) =
            if fresh { (Age::Fresh, ServedFrom::Cache) } else { (stale_age(route, &entry), ServedFrom::Stale) };
        Ok((leg, Some(Found::kept(entry, age, from))))
    }
}
