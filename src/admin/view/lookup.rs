//! The look-up of a name: the answer as DNS gives it, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    CachedDoc, HeldRow, LiveDoc, PinDoc, Record, RecordsView, SourceDoc, Time, VersionDoc, host_of,
    records::{set_of, text_of},
    why,
};
use crate::{
    dns::{
        self, Local, Records, Rules,
        cache::{self, Age},
        forward::{Inspected, Leg},
        pins::name_of,
    },
    record::{Kind, Service},
    report::ZoneRule,
    wire::{EdeCode, Name, Rcode, Rtype},
    zone::{self, ChainEnd, ReverseName, STALE_TTL_MAX, Zone},
};

#[derive(Clone, Debug, Default)]
pub struct Question {
    /// A name, whole or to be completed like a pod's resolver would, or an address for its reverse name.
    pub name: String,
    /// The type; several that make sense for the name if there is none.
    pub rtype: Option<Rtype>,
    /// The namespace of the pod that would ask, for names without one.
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lookup {
    /// The name as given to the command.
    pub asked: String,
    pub at: Time,
    /// Whether there is an answer: from records, or from the cache.
    pub found: bool,
    /// The name that was looked up, with its final dot.
    pub name: String,
    /// The answers, one for each type.
    pub answers: Vec<Answer>,
    /// Where the answers come from, or why there is none.
    pub why: String,
    /// The service that the name belongs to.
    pub service: Option<ServiceDoc>,
    /// The held records of that service.
    #[serde(default)]
    pub held: Option<HeldRow>,
    /// The pin of the name; A and AAAA are answered from it.
    #[serde(default)]
    pub pinned: Option<PinDoc>,
    /// The other names of the search list, in order, with the reason that each has no answer.
    pub tried: Vec<Tried>,
    /// The next query of a pod's resolver, to upstreams, if none of the names in the cluster has an answer.
    #[serde(default)]
    pub goes_on: Option<SentDoc>,
    /// The answers that the running agent gave over DNS (`--ask`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveDoc>,
    /// The source, and the age of the records.
    pub source: SourceDoc,
    /// The version of the records.
    pub version: VersionDoc,
}

/// A name without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tried {
    /// The name, with its final dot.
    pub name: String,
    pub why: String,
}

/// The answer to one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Answer {
    #[serde(rename = "type")]
    pub rtype: String,
    pub outcome: Outcome,
    /// The response code a client gets; null where an upstream decides.
    pub rcode: Option<String>,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    /// The additional section, as far as it fits the client's limit.
    pub additional: Vec<Record>,
    /// The extended error (RFC 8914) a client with EDNS gets.
    pub extended_error: Option<String>,
    /// The cached answer of an upstream, if the answer is that.
    #[serde(default)]
    pub cached: Option<CachedDoc>,
    /// The query that would be sent to upstreams; null if none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<SentDoc>,
    /// The rule of a forward zone that answers in place of its upstreams; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ZoneRule>,
}

/// A question that would be sent to upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SentDoc {
    /// The name in that query, with its final dot; a rewrite, an alias or a search path may have changed it.
    pub name: String,
    /// The forward zone, or `cluster_fallback`; empty if it is not known.
    pub zone: String,
    pub upstreams: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Records,
    /// The name exists and has none of this type.
    NoData,
    /// The name does not exist.
    NoSuchName,
    Forwarded,
    /// There are no records at all yet.
    NotReady,
    /// Another response code, REFUSED or SERVFAIL, by a rule of the configuration.
    Refused,
}

/// A service as it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceDoc {
    pub namespace: String,
    pub name: String,
    pub kind: String,
    pub cluster_ips: Vec<IpAddr>,
    /// The target of the alias.
    pub external_name: Option<String>,
    /// Its ports, as in `http 80/TCP`.
    pub ports: Vec<String>,
    /// Its known endpoints.
    pub endpoints: Vec<EndpointDoc>,
}

/// An endpoint as it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndpointDoc {
    pub ip: IpAddr,
    pub hostname: Option<String>,
    pub ready: bool,
    pub ports: Vec<String>,
}

impl ServiceDoc {
    pub fn of(service: &Service) -> Self {
        let (kind, cluster_ips, external_name) = match service.kind() {
            Kind::ClusterIp(ips) => ("ClusterIP", ips.to_vec(), None),
            Kind::Headless => ("Headless", vec![], None),
            Kind::ExternalName(target) => ("ExternalName", vec![], Some(target.to_string())),
        };
        let endpoints = service.endpoints().iter().map(|endpoint| EndpointDoc {
            ip: endpoint.ip,
            hostname: endpoint.hostname.as_deref().map(str::to_owned),
            ready: endpoint.ready,
            ports: ports(&endpoint.ports),
        });
        Self {
            namespace: service.namespace().to_owned(),
            name: service.name().to_owned(),
            kind: kind.into(),
            cluster_ips,
            external_name,
            ports: ports(service.ports()),
            endpoints: endpoints.collect(),
        }
    }
}

fn ports(ports: &[crate::record::Port]) -> Vec<String> {
    let text = |port: &crate::record::Port| {
        let name = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
        format!("{name}{}/{}", port.port, port.protocol.as_str())
    };
    ports.iter().map(text).collect()
}

/// The result for a question outside the records: from a [`Forwarder`](dns::forward::Forwarder), or from
/// [`Names`](dns::forward::Names) for a store without a process.
pub type Inspect<'a> = &'a dyn Fn(&Rules, Records<'_>, &dns::Question) -> Inspected;

/// Looks a name up as DNS does, completing it as the resolver of a pod does.
///
/// # Errors
/// If it is no name.
pub fn lookup(
    rules: &Rules,
    moment: &RecordsView<'_>,
    question: &Question,
    inspect: Inspect<'_>,
) -> Result<Lookup, String> {
    let zone = rules.zone();
    let asker = Asker { rules, records: moment.records(), inspect };
    let candidates = candidates(zone.name(), question)?;
    let ask = |name: &Name| -> Vec<Answer> {
        types(zone.name(), name, question.rtype).into_iter().map(|rtype| asker.answer(name, rtype)).collect()
    };
    let answers = |answer: &Answer| answer.outcome == Outcome::Records || answer.cached.is_some();
    // A resolver goes to the next name only where there is none, and no data.
    let ends = |answer: &Answer| answers(answer) || !matches!(answer.outcome, Outcome::NoData | Outcome::NoSuchName);
    let end = candidates.iter().position(|name| ask(name).iter().any(ends));
    let found = end.filter(|end| ask(&candidates[*end]).iter().any(answers));
    // Where nothing is found, a name in the cluster that was most probably meant stands first.
    let given = host_of(&question.name).trim_end_matches('.').split('.').count();
    let is_meant = |name: &Name| {
        let above = name.labels_above(zone.name()).and_then(|above| above.checked_sub(2));
        above.is_some_and(|above| {
            let namespace = name.label(above).unwrap_or_default();
            let is_completed = above + 1 == given || (given == 1 && above == 1);
            let is_completed = is_completed && name.label(above + 1) == Some(b"svc");
            let may_exist = moment.snapshot.has_namespace(namespace) || !moment.snapshot.knows_namespace(namespace);
            is_completed && (may_exist || why::misspelt(rules, moment, name).is_some())
        })
    };
    let meant = || candidates.iter().position(is_meant);
    let chosen = found.or_else(meant).or(end).unwrap_or(0);
    let name = &candidates[chosen];
    // A name that a resolver tries before may have to be asked of upstreams first.
    let found = found.or_else(|| ask(name).iter().any(answers).then_some(chosen));
    let goes_on = end.filter(|end| found.is_none() && *end != chosen).and_then(|end| {
        let sent = ask(&candidates[end]).into_iter().find_map(|answer| answer.sent)?;
        (name.labels_above(zone.name()).is_some() && ask(name).iter().all(|answer| !ends(answer))).then_some(sent)
    });
    let answers = ask(name);
    let explained = why::why(rules, moment, name, &answers);
    let others = candidates.iter().enumerate().filter(|(at, _)| found.map_or(*at != chosen, |found| *at < found));
    let held = explained
        .service
        .and_then(|service| moment.held.service(service.key()).map(|held| HeldRow::of_service(service.key(), held)));
    let pin = moment.pins.get(name, moment.now).cloned().map(PinDoc::from);
    let tried =
        others.map(|(_, name)| Tried { name: name.to_string(), why: why::why(rules, moment, name, &ask(name)).text });
    Ok(Lookup {
        asked: question.name.clone(),
        at: Time(moment.now),
        found: found.is_some(),
        name: name.to_string(),
        why: explained.text,
        service: explained.service.map(ServiceDoc::of),
        held,
        pinned: pin,
        tried: tried.collect(),
        goes_on,
        live: None,
        source: SourceDoc::of(moment),
        version: VersionDoc::of(moment.snapshot),
        answers,
    })
}

/// The name a person means: of those a pod's resolver would try the one that has an answer, else that of a service in a
/// namespace there is, else the name as it was given.
///
/// # Errors
/// If it is no name, or a single word that no service has; `force` takes it for one of the namespace.
pub fn meant(
    rules: &Rules,
    moment: &RecordsView<'_>,
    given: &str,
    namespace: Option<&str>,
    force: bool,
) -> Result<Name, String> {
    let given = host_of(given);
    let whole = name_of(&given).map_err(|error| error.to_string())?;
    let zone = rules.zone();
    let mut candidates = candidates(
        zone.name(),
        &Question { name: given.clone(), namespace: namespace.map(str::to_owned), rtype: None },
    )?;
    candidates.retain(|name| *name != whole);
    if candidates.is_empty() {
        return Ok(whole);
    }
    let answers = |name: &&Name| {
        let records = moment.records();
        let has = |rtype| {
            let question = dns::Question::new((*name).clone(), rtype);
            let local = rules.local(&records, question.by_ref());
            rules.sections(&records, &question, &local).is_some_and(|sections| !sections.answers.is_empty())
        };
        types(zone.name(), name, None).into_iter().any(has)
    };
    if let Some(name) = candidates.iter().find(answers) {
        return Ok(name.clone());
    }
    let labels: Vec<&[u8]> = whole.labels().collect();
    match labels.as_slice() {
        [_] if force && namespace.is_some() => Ok(candidates.swap_remove(0)),
        [_] => {
            let place = namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
            Err(format!(
                "no service is called {given:?}{place}: give its namespace (-n), or the whole name with a final dot"
            ))
        }
        // The last candidate is the name below the zone, the one before it that below `svc`.
        [_, of] if moment.snapshot.has_namespace(of) => Ok(candidates.into_iter().nth_back(1).unwrap_or(whole)),
        _ => Ok(whole),
    }
}

/// Dots from which a pod's resolver asks for the name as it is first (`ndots` of `ClusterFirst`).
const NDOTS: usize = 5;

/// The names to try, in the order of a pod's resolver.
///
/// # Errors
/// If it is no name.
pub fn candidates(zone: &Name, question: &Question) -> Result<Vec<Name>, String> {
    let given = &*host_of(&question.name);
    if let Ok(ip) = given.parse::<IpAddr>() {
        return Ok(vec![ReverseName::of(ip).to_name()]);
    }
    if given == "." {
        return Ok(vec![Name::ROOT]);
    }
    let absolute = given.ends_with('.');
    let text = given.strip_suffix('.').unwrap_or(given).to_ascii_lowercase();
    let below = |suffix: &[&str], zone: Option<&Name>| {
        let labels = text.split('.').chain(suffix.iter().copied()).map(str::as_bytes);
        Name::from_labels(labels.chain(zone.into_iter().flat_map(Name::labels)))
    };
    let name = below(&[], None).map_err(|error| format!("{given:?} is no name: {error}"))?;
    let reverse = name.label_from_end(0) == Some(b"arpa");
    if absolute || reverse || name.labels_above(zone).is_some() {
        return Ok(vec![name]);
    }
    let namespace = question.namespace.as_deref();
    let completed = namespace.map(|namespace| below(&[namespace, "svc"], Some(zone))).into_iter();
    let completed = completed.chain([below(&["svc"], Some(zone)), below(&[], Some(zone))]);
    // A completed name that is too long is not tried, as by a resolver.
    let mut names: Vec<Name> = completed.flatten().chain([name]).collect();
    if text.matches('.').count() >= NDOTS {
        names.rotate_right(1);
    }
    Ok(names)
}

/// The types asked for: those that make sense for the name, if none is given.
pub fn types(zone: &Name, name: &Name, asked: Option<Rtype>) -> Vec<Rtype> {
    if let Some(rtype) = asked {
        return vec![rtype];
    }
    let first = name.label(0).unwrap_or_default();
    match name.labels_above(zone) {
        Some(0) => vec![Rtype::SOA, Rtype::NS],
        Some(1) if first == b"dns-version" => vec![Rtype::TXT],
        Some(_) if first.starts_with(b"_") => vec![Rtype::SRV],
        None if name.label_from_end(0) == Some(b"arpa") => vec![Rtype::PTR],
        _ => vec![Rtype::A, Rtype::AAAA],
    }
}

/// Asks for one type after another.
struct Asker<'a> {
    rules: &'a Rules,
    records: Records<'a>,
    inspect: Inspect<'a>,
}

impl Asker<'_> {
    fn answer(&self, name: &Name, rtype: Rtype) -> Answer {
        let question = dns::Question::new(name.clone(), rtype);
        let local = self.rules.local(&self.records, question.by_ref());
        match local {
            Local::Refused => coded(rtype, Outcome::Refused, Rcode::REFUSED, None),
            Local::NotReady => coded(rtype, Outcome::NotReady, Rcode::SERVFAIL, Some(EdeCode::NOT_READY)),
            Local::Outside | Local::Fallback | Local::Completion { .. } => self.inspected(&question),
            Local::Alias(chain) if matches!(chain.end(), ChainEnd::Outside) => self.inspected(&question),
            Local::Designated(_)
            | Local::Pinned(_)
            | Local::Hit(_)
            | Local::Alias(_)
            | Local::NoData(_)
            | Local::NxDomain(_) => self.settled(&question, &local),
        }
    }

    /// The answer that the records and pins give alone.
    fn settled(&self, question: &dns::Question, local: &Local<'_>) -> Answer {
        let sections = self.rules.sections(&self.records, question, local);
        let (kind, answers, authorities) = sections.map_or((cache::Kind::NoData, vec![], vec![]), |sections| {
            (sections.kind, sections.answers, sections.authorities)
        });
        let ede = match local {
            Local::Pinned(_) => Some(EdeCode::FORGED_ANSWER),
            _ => self.records.stale.then_some(EdeCode::STALE_ANSWER),
        };
        let rcode = if kind == cache::Kind::NxDomain { Rcode::NXDOMAIN } else { Rcode::NOERROR };
        let additional = match local {
            Local::Hit(set) => additional(self.rules.zone(), set, self.records.stale),
            _ => vec![],
        };
        let coded = coded(question.rtype, outcome_of(rcode, kind), rcode, ede);
        Answer { answer: text(&answers), authority: text(&authorities), additional, ..coded }
    }

    /// The answer for which upstreams may have to be asked.
    fn inspected(&self, question: &dns::Question) -> Answer {
        let Inspected { answer, legs, rule } = (self.inspect)(self.rules, self.records, question);
        let cached = legs.iter().find_map(|leg| CachedDoc::of(leg, self.records.now));
        let sent = legs.iter().rev().find(|leg| leg.cached.is_none()).map(SentDoc::of);
        let Some(answer) = answer else {
            let ours = self.rules.local(&self.records, question.by_ref());
            // The CNAMEs of the cluster alone are the answer while upstreams fail.
            let known = self.rules.sections(&self.records, question, &ours).map(|sections| text(&sections.answers));
            let forwarded = coded(question.rtype, Outcome::Forwarded, Rcode::NOERROR, None);
            return match known.filter(|known| !known.is_empty()) {
                None => Answer { rcode: None, sent, rule, ..forwarded },
                Some(answer) => {
                    let extended_error = self.records.stale.then(|| text_of_ede(EdeCode::STALE_ANSWER));
                    Answer { outcome: Outcome::Records, answer, sent, rule, extended_error, ..forwarded }
                }
            };
        };
        let ede = match (answer.age, answer.rcode) {
            (Age::Fresh, _) => None,
            (Age::Stale { .. }, _) if !cached.as_ref().is_some_and(|cached| cached.served_stale) => None,
            (Age::Stale { .. }, Rcode::NXDOMAIN) => Some(EdeCode::STALE_NXDOMAIN_ANSWER),
            (Age::Stale { .. } | Age::OfStaleRecords, _) => Some(EdeCode::STALE_ANSWER),
        };
        let coded = coded(question.rtype, outcome_of(answer.rcode, answer.kind), answer.rcode, ede);
        Answer { answer: text(&answer.answers), authority: text(&answer.authorities), cached, sent, rule, ..coded }
    }
}

fn coded(rtype: Rtype, outcome: Outcome, rcode: Rcode, ede: Option<EdeCode>) -> Answer {
    Answer {
        rtype: rtype.to_string(),
        outcome,
        rcode: Some(rcode.to_string()),
        answer: vec![],
        authority: vec![],
        additional: vec![],
        extended_error: ede.map(text_of_ede),
        cached: None,
        sent: None,
        rule: None,
    }
}

fn outcome_of(rcode: Rcode, kind: cache::Kind) -> Outcome {
    match (rcode, kind) {
        (Rcode::NXDOMAIN, _) => Outcome::NoSuchName,
        (Rcode::NOERROR, cache::Kind::Data) => Outcome::Records,
        (Rcode::NOERROR, _) => Outcome::NoData,
        _ => Outcome::Refused,
    }
}

fn text(records: &[hickory_proto::rr::Record]) -> Vec<Record> {
    records.iter().map(Record::from).collect()
}

/// An extended error as in `3 (Stale Answer)`.
pub fn text_of_ede(code: EdeCode) -> String {
    match code.name() {
        Some(name) => format!("{} ({name})", code.0),
        None => code.0.to_string(),
    }
}

fn additional(zone: &Zone, set: &zone::RrSet<'_>, stale: bool) -> Vec<Record> {
    let mut records = Vec::new();
    let Ok(()) = set.try_each_additional(|owner, set| {
        let mut put = |mut record: Record| {
            record.ttl = if stale { record.ttl.min(STALE_TTL_MAX) } else { record.ttl };
            records.push(record);
        };
        set_of(zone, &text_of(zone, owner), &set, &mut put);
        Ok::<(), std::convert::Infallible>(())
    });
    records
}

impl SentDoc {
    fn of(leg: &Leg) -> Self {
        Self { name: leg.name.to_string(), zone: leg.zone.clone(), upstreams: leg.upstreams.clone() }
    }
}
