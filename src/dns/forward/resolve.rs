//! Follows a question to its answer: over the records of this node, over hosts and rewrites, over one route after another.
//!
//! The same code answers clients and `holdfast lookup`; they differ in [`Reach`] alone. Never decides what an upstream's
//! answer is worth (that is `fetch`).

use std::sync::Arc;

use hickory_proto::rr::{
    RData, Record, RecordType,
    rdata::{CNAME, HINFO},
};
use tokio::time::Instant;

use super::{
    Failure, Inner,
    inspect::{Leg, Trail},
    lookup::{Found, Lookup},
    route::{
        ByZone, OnNode, Reason, Routes, Via, ZoneNames,
        acl::{self, Action},
        dns64,
    },
};
use crate::{
    dns::{
        Context, Local, Question, Records, Rules,
        cache::{Age, Entry, Kind, Parts},
        question::question_name,
        request::{Asker, ServedFrom},
    },
    report::ZoneRule,
    sys::{Lock, UnixMillis},
    wire::{Class, Name, Rcode, Rtype},
};

/// Routes one answer may lead through.
const LEGS_MAX: usize = 8;
/// Seconds that the CNAME of a completed name lives: a service of that name may be created at any time.
const COMPLETION_TTL: u32 = 5;
/// Seconds, as CoreDNS has it.
const MINIMAL_ANY_TTL: u32 = 8_482;

/// How far a question may go.
#[derive(Clone, Copy)]
pub enum Reach<'i> {
    Upstreams {
        inner: &'i Arc<Inner>,
        routes: &'i Arc<Routes>,
        deadline: Instant,
    },
    /// The cache, and no upstream.
    Cache {
        inner: &'i Inner,
        routes: &'i Routes,
        trail: &'i Lock<Trail>,
    },
    /// Hosts and rewrites alone, for a store without a process.
    Names {
        zones: &'i ByZone<ZoneNames>,
        trail: &'i Lock<Trail>,
    },
}

/// The records of this node.
#[derive(Clone, Copy)]
pub enum Source<'i> {
    /// The current ones, at each look.
    Live(&'i Context, UnixMillis),
    At(&'i Rules, Records<'i>),
}

/// The inputs of following a question, under one configuration.
#[derive(Clone, Copy)]
pub struct Resolver<'i> {
    pub records: Source<'i>,
    pub reach: Reach<'i>,
    /// `None` where no client asks, as for the tools.
    pub asker: Option<&'i Asker>,
}

/// The result of this node's records for a question.
enum Here {
    Answer(Found),
    /// CNAMEs, and the name outside that the last one leads to.
    Leads(Found, Name),
    /// The outside name to look up, and the denial that stands if it does not exist.
    Completion(Name, Found),
    NoRecords,
    Outside,
}

impl Resolver<'_> {
    /// The whole answer to `question`.
    pub async fn resolve(&self, question: &Question) -> Result<Found, Failure> {
        match self.here(question) {
            Here::Answer(found) => Ok(found),
            Here::Leads(ours, target) => {
                let found = self.outside(&question.renamed(target)).await.map_err(Failure::of_target)?;
                let now = self.now();
                let (mut answers, _) = ours.entry.records(now, ours.age);
                let (records, authorities) = found.entry.records(now, found.age);
                answers.extend(records);
                let age = older(ours.age, found.age);
                let joined = join(question, found.entry.kind(), answers, authorities, now, age, found.from)?;
                Ok(Found { ours: true, ..with_part(joined, &found) })
            }
            Here::Completion(target, denial) => match self.complete(question, target, denial.age).await {
                Err(Failure::NotAsked) => Err(Failure::NotAsked),
                Ok(Some(found)) => Ok(found),
                Ok(None) | Err(_) => Ok(denial),
            },
            Here::NoRecords => self.follow(question, Via::Zone).await,
            Here::Outside => self.outside(question).await,
        }
    }

    /// The records of an outside name behind a CNAME to it; `None` if that does not exist, or is a name of the cluster.
    async fn complete(&self, question: &Question, target: Name, age: Age) -> Result<Option<Found>, Failure> {
        let outside = question.renamed(target);
        if !matches!(self.here(&outside), Here::Outside) {
            return Ok(None);
        }
        let found = self.outside(&outside).await?;
        if found.entry.kind() == Kind::NxDomain {
            return Ok(None);
        }
        let now = self.now();
        let (records, authorities) = found.entry.records(now, found.age);
        let alias = RData::CNAME(CNAME(outside.record_name()));
        let mut answers = vec![Record::from_rdata(question.record_name(), COMPLETION_TTL, alias)];
        answers.extend(records);
        // It is the records that say there is no service of the name.
        let age = older(age, found.age);
        let joined = join(question, found.entry.kind(), answers, authorities, now, age, found.from)?;
        Ok(Some(Found { ours: true, ..with_part(joined, &found) }))
    }

    /// A name outside, by the rules of its zone in the order of CoreDNS's plugins: IPv6 addresses made of IPv4 ones, ANY,
    /// rewrites, who may ask, templates, hosts, upstreams.
    async fn outside(&self, question: &Question) -> Result<Found, Failure> {
        let Some(names) = self.names(&question.name) else { return self.follow(question, Via::Zone).await };
        if question.rtype == Rtype::ANY && names.config.minimal_any {
            let data = RData::HINFO(HINFO::new("ANY obsoleted".into(), "See RFC 8482".into()));
            let answers = vec![Record::from_rdata(question.record_name(), MINIMAL_ANY_TTL, data)];
            return join(question, Kind::Data, answers, Vec::new(), self.now(), Age::Fresh, ServedFrom::Cluster);
        }
        let found = self.rewritten(names, question).await?;
        self.translate(names, question, found).await
    }

    /// The answer to `question` by way of the question that rewrites make of it.
    async fn rewritten(&self, names: &ZoneNames, question: &Question) -> Result<Found, Failure> {
        let Some(rewritten) = names.rewrite(question) else { return self.known(names, question, Via::Zone).await };
        let new = rewritten.question(question);
        let (zone, via) = self.answering(names, &new.name);
        let found = self.known(zone, &new, via).await;
        let code = match &found {
            Ok(found) if found.entry.kind() == Kind::NxDomain => Rcode::NXDOMAIN,
            Ok(_) => Rcode::NOERROR,
            Err(failure) => match failure.answer() {
                Some(code) => code,
                None => return found,
            },
        };
        let said = rewritten.code(code);
        let mut kind = match (said, &found) {
            (Rcode::NXDOMAIN, _) => Kind::NxDomain,
            (_, _) if said != code && said != Rcode::NOERROR => return Err(Failure::Fixed(said, None)),
            (_, Ok(found)) if found.entry.kind() != Kind::NxDomain => found.entry.kind(),
            _ => Kind::NoData,
        };
        let now = self.now();
        let Found { entry, age, from, additionals, .. } = match found {
            Ok(found) => found,
            Err(failure) if said == code => return Err(failure),
            Err(_) => join(&new, kind, Vec::new(), Vec::new(), now, Age::Fresh, ServedFrom::Upstream)?,
        };
        let (mut answers, mut authorities) = entry.records(now, age);
        if let Some((at, target)) = rewritten.cname(&answers) {
            answers.truncate(at + 1);
            answers[at].data = RData::CNAME(CNAME(target.clone()));
            match self.follow(&new.renamed(question_name(&target)), via).await {
                Ok(behind) if new.rtype != Rtype::CNAME => {
                    let (records, others) = behind.entry.records(now, behind.age);
                    answers.extend(records);
                    (authorities, kind) = (others, behind.entry.kind());
                }
                Err(Failure::NotAsked) => return Err(Failure::NotAsked),
                _ => {}
            }
        }
        let asked = question.record_name();
        rewritten.restore(&asked, &mut answers);
        rewritten.restore(&asked, &mut authorities);
        let joined = Found { additionals, ..join(question, kind, answers, authorities, now, age, from)? };
        let truncated = entry.is_truncated();
        Ok(if truncated { truncate(joined) } else { joined })
    }

    /// The zone that answers the name which a name of `names` was rewritten to, and whose upstreams are asked.
    fn answering<'z>(&'z self, names: &'z ZoneNames, new: &Name) -> (&'z ZoneNames, Via) {
        match self.reach {
            Reach::Upstreams { routes, .. } => routes.answering(names, new),
            Reach::Cache { routes, .. } => routes.answering(names, new),
            Reach::Names { zones, .. } => {
                let zone = names.answering(new).and_then(|zone| zones.get(&zone));
                (zone.unwrap_or(names), Via::Zone)
            }
        }
    }

    /// The answer of the zone's own rules and names, or else of upstreams.
    async fn known(&self, names: &ZoneNames, question: &Question, via: Via) -> Result<Found, Failure> {
        if !names.config.acl.is_empty()
            && let Some(asker) = self.asker
        {
            let rules = &names.config.acl;
            let action = acl::judge(rules, &question.record_name(), question.rtype, asker.client.ip());
            if action == Action::Drop {
                return Err(Failure::Dropped);
            }
            if let Some((answer, code)) = action.answer() {
                return Err(Failure::Fixed(answer, Some(Reason { code, text: "".into() })));
            }
        }
        let (kind, mut answers, authorities, additionals) = match names.on_node(question, self.asker) {
            OnNode::Records { rule, kind, answers, authorities, additionals } => {
                self.note(rule);
                (kind, answers, authorities, additionals)
            }
            OnNode::Fixed(rule, answer, reason) => {
                self.note(rule);
                return Err(Failure::Fixed(answer, reason));
            }
            OnNode::Upstreams => return self.follow(question, via).await,
        };
        let (mut age, mut from) = (Age::Fresh, ServedFrom::Cluster);
        if matches!(question.rtype, Rtype::A | Rtype::AAAA)
            && let Some(RData::CNAME(CNAME(target))) = answers.last().map(|record| &record.data)
        {
            // A target that cannot be looked up leaves the CNAME alone, as in CoreDNS.
            match self.follow(&question.renamed(question_name(target)), Via::Zone).await {
                Ok(found) => {
                    answers.extend(found.entry.records(self.now(), found.age).0);
                    (age, from) = (found.age, found.from);
                }
                Err(Failure::NotAsked) => return Err(Failure::NotAsked),
                Err(_) => {}
            }
        }
        let joined = join(question, kind, answers, authorities, self.now(), age, from)?;
        Ok(Found { additionals, ..joined })
    }

    /// `found`, or IPv6 addresses made of IPv4 ones where the zone says so and the name has no others.
    async fn translate(&self, names: &ZoneNames, question: &Question, found: Found) -> Result<Found, Failure> {
        // A client that validates gets no answer that is made up (RFC 6147, 5.5).
        let validates = question.dnssec_ok && question.checking_disabled;
        let config = &names.config;
        let for_client =
            config.dns64_over_ipv4 || self.asker.is_none_or(|asker| asker.client.ip().to_canonical().is_ipv6());
        let applies = question.rtype == Rtype::AAAA && !validates && for_client;
        let Some(prefix) = config.dns64.filter(|_| applies) else { return Ok(found) };
        let now = self.now();
        let (answers, authorities) = found.entry.records(now, found.age);
        let has_others = !config.dns64_all && dns64::has_usable_aaaa(&answers);
        if found.entry.kind() == Kind::NxDomain || has_others {
            return Ok(found);
        }
        match self.rewritten(names, &question.retyped(Rtype::A)).await {
            Ok(four) if four.entry.kind() == Kind::Data => {
                // RFC 6147, 5.1.7.
                let soa = authorities.iter().find(|record| record.record_type() == RecordType::SOA);
                let ttl_max = soa.map_or(dns64::TTL_MAX, |soa| soa.ttl);
                let answers = prefix.synthesize(four.entry.records(now, four.age).0, ttl_max);
                join(question, Kind::Data, answers, Vec::new(), now, four.age, four.from)
            }
            _ => Ok(found),
        }
    }

    /// Follows `question` over as many routes as its CNAMEs lead through.
    async fn follow(&self, question: &Question, via: Via) -> Result<Found, Failure> {
        let first = self.leg(question, via).await?;
        if !first.entry.continues() {
            return Ok(first);
        }
        let now = self.now();
        let (mut answers, _) = first.entry.records(now, first.age);
        let mut next = first.entry.target();
        let asked = question.record_name();
        let mut last = first;
        let (mut age, mut from) = (last.age, last.from);
        for _ in 1..LEGS_MAX {
            let Some(target) = next.take() else { break };
            if target == asked || answers.iter().any(|record| record.name == target) {
                // A loop ends as what was collected.
                break;
            }
            last = match self.leg(&question.renamed(question_name(&target)), Via::Zone).await {
                Ok(found) => found,
                // The tools show the part that is known.
                Err(Failure::NotAsked) => break,
                Err(failure) => return Err(failure),
            };
            age = older(age, last.age);
            if let Age::Stale { .. } = last.age {
                from = last.from;
            } else if from == ServedFrom::Cache && last.from != ServedFrom::Cluster {
                from = last.from;
            }
            answers.extend(last.entry.records(now, last.age).0);
            if last.entry.continues() {
                next = last.entry.target();
            }
        }
        let (_, authorities) = last.entry.records(now, last.age);
        Ok(with_part(join(question, last.entry.kind(), answers, authorities, now, age, from)?, &last))
    }

    /// One name of a chain: from the records of this node if it is theirs, else as `via` says.
    async fn leg(&self, question: &Question, via: Via) -> Result<Found, Failure> {
        let via = match self.here(question) {
            Here::Answer(found) | Here::Leads(found, _) | Here::Completion(_, found) => return Ok(found),
            Here::NoRecords => Via::Fallback,
            Here::Outside => via,
        };
        if question.class != Class::IN
            && !self.names(&question.name).is_some_and(|names| names.asks_of_class(question.class))
        {
            return Err(Failure::Fixed(Rcode::REFUSED, None));
        }
        if via == Via::Zone && self.names(&question.name).is_some_and(|names| names.config.answer.is_some()) {
            return Err(Failure::fixed_target());
        }
        match self.reach {
            Reach::Upstreams { inner, routes, deadline } => {
                Lookup::new(inner, routes, question, via, self.asker)?.answer(deadline).await
            }
            Reach::Cache { inner, routes, trail } => {
                let (leg, found) = inner.inspect(routes, question, via)?;
                trail.lock().legs.push(leg);
                found.ok_or(Failure::NotAsked)
            }
            Reach::Names { trail, .. } => {
                trail.lock().legs.push(Leg::unknown(question));
                Err(Failure::NotAsked)
            }
        }
    }

    /// Notes the rule for the tools: the first one counts.
    fn note(&self, rule: ZoneRule) {
        if let Reach::Cache { trail, .. } | Reach::Names { trail, .. } = self.reach {
            trail.lock().rule.get_or_insert(rule);
        }
    }

    fn here(&self, question: &Question) -> Here {
        match self.records {
            Source::At(rules, records) => here(rules, &records, question),
            Source::Live(context, now) => {
                let batch = context.load();
                here(context.rules(), &context.records(&batch, now), question)
            }
        }
    }

    fn names(&self, name: &Name) -> Option<&ZoneNames> {
        match self.reach {
            Reach::Upstreams { routes, .. } => routes.find(name).map(|route| &route.names),
            Reach::Cache { routes, .. } => routes.find(name).map(|route| &route.names),
            Reach::Names { zones, .. } => zones.find(name),
        }
    }

    pub fn now(&self) -> UnixMillis {
        match (self.reach, self.records) {
            (Reach::Upstreams { inner, .. }, _) => inner.now(),
            (_, Source::Live(_, now)) => now,
            (_, Source::At(_, records)) => records.now,
        }
    }
}

fn here(rules: &Rules, records: &Records<'_>, question: &Question) -> Here {
    let local = rules.local(records, question.by_ref());
    let Some(sections) = rules.sections(records, question, &local) else {
        return match local {
            Local::NotReady | Local::Fallback => Here::NoRecords,
            _ => Here::Outside,
        };
    };
    let mut parts = Parts::new(question, sections.kind, sections.answers, sections.authorities);
    parts.continues = sections.leads_to.is_some();
    let Some(entry) = Entry::new(&parts, records.now, 0) else { return Here::Outside };
    let age = if records.stale && !matches!(local, Local::Pinned(_)) { Age::OfStaleRecords } else { Age::Fresh };
    let found = Found { ours: true, ..Found::new(entry, age, ServedFrom::Cluster) };
    match (local, sections.leads_to) {
        (_, Some(target)) => Here::Leads(found, target),
        (Local::Completion { labels }, None) => match Name::from_labels(question.name.labels().take(labels)) {
            Ok(target) => Here::Completion(target, found),
            Err(_) => Here::Answer(found),
        },
        (_, None) => Here::Answer(found),
    }
}

/// The age of an answer made of two parts: the older one.
fn older(one: Age, other: Age) -> Age {
    match (one, other) {
        (Age::Fresh, age) | (age, Age::Fresh | Age::OfStaleRecords) => age,
        (Age::OfStaleRecords | Age::Stale { .. }, Age::Stale { .. }) => other,
    }
}

fn join(
    question: &Question,
    kind: Kind,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    now: UnixMillis,
    age: Age,
    from: ServedFrom,
) -> Result<Found, Failure> {
    let entry = Entry::new(&Parts::new(question, kind, answers, authorities), now, 0).ok_or_else(Failure::too_large)?;
    Ok(Found::new(entry, age, from))
}

/// An answer put together with `part`, which may be truncated.
fn with_part(found: Found, part: &Found) -> Found {
    if part.entry.is_truncated() { truncate(found) } else { found }
}

fn truncate(found: Found) -> Found {
    let entry = Arc::try_unwrap(found.entry).map_or_else(|entry| entry, |entry| Arc::new(entry.truncated()));
    Found { entry, ..found }
}
