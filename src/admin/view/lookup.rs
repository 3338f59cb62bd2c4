//! The look-up of a name: the answer as DNS gives it, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Cached, CachedDoc, HeldRow, Moment, PinDoc, Record, SourceDoc, Time, VersionDoc,
    records::{set_of, text_of},
    why,
};
use crate::{
    dns::pins::{Pin, name_of},
    record::{Kind, Service},
    wire::{Name, Rcode, Rtype},
    zone::{self, Apex, ChainEnd, ReverseName, STALE_TTL_MAX, Zone, ZoneName},
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
pub struct Lookup {
    /// The name as it was given.
    pub asked: String,
    pub at: Time,
    /// Whether there are records to answer, or an answer of upstreams in the cache.
    pub found: bool,
    /// The name that was looked up, with its final dot.
    pub name: String,
    /// The answers, one a type.
    pub answers: Vec<Answer>,
    /// What they come from, or why there are none.
    pub why: String,
    /// The service the name is of.
    pub service: Option<ServiceDoc>,
    /// What of that service the source took away and the guard holds.
    #[serde(default)]
    pub held: Option<HeldRow>,
    /// What an operator pinned the name to; then the answers for A and AAAA are from here.
    #[serde(default)]
    pub pinned: Option<PinDoc>,
    /// The names that were tried besides, as a pod's resolver completes what it is given, and why each has no answer.
    pub tried: Vec<Tried>,
    /// How the source is, and how old what it said.
    pub source: SourceDoc,
    /// Which state of which cluster this is.
    pub version: VersionDoc,
}

/// A name without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The name, with its final dot.
    pub name: String,
    pub why: String,
}

/// The answer to one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Where the answer came from if it is one of upstreams, from the cache.
    #[serde(default)]
    pub cached: Option<CachedDoc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A service as it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDoc {
    pub namespace: String,
    pub name: String,
    pub kind: String,
    pub cluster_ips: Vec<IpAddr>,
    /// What it is an alias of.
    pub external_name: Option<String>,
    /// Its ports, as in `http 80/TCP`.
    pub ports: Vec<String>,
    /// Its endpoints, as far as they are held.
    pub endpoints: Vec<EndpointDoc>,
}

/// An endpoint as it is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDoc {
    pub ip: IpAddr,
    pub hostname: Option<String>,
    pub ready: bool,
    pub ports: Vec<String>,
}

impl ServiceDoc {
    /// The service, all of it.
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
        let protocol = port.protocol.label().to_ascii_uppercase();
        let name = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
        format!("{name}{}/{protocol}", port.port)
    };
    ports.iter().map(text).collect()
}

/// Looks a name up among the records, completing it like the resolver of a pod does.
///
/// # Errors
/// If it is no name.
pub fn lookup(zone: &Zone, moment: &Moment<'_>, question: &Question) -> Result<Lookup, String> {
    lookup_cached(zone, moment, question, &|_, _| None)
}

/// As [`lookup`], and for names that upstreams are asked for also in what is `cached` of their answers.
///
/// # Errors
/// If it is no name.
pub fn lookup_cached(
    zone: &Zone,
    moment: &Moment<'_>,
    question: &Question,
    cached: &dyn Fn(&Name, Rtype) -> Option<Cached>,
) -> Result<Lookup, String> {
    let candidates = candidates(zone, question)?;
    let ask = |name: &Name| -> Vec<Answer> {
        let one = |rtype| {
            let answer = answer(zone, moment, name, rtype);
            let cached = if answer.outcome == Outcome::Forwarded { cached(name, rtype) } else { None };
            cached.map_or(answer, |cached| cached.into_answer(rtype))
        };
        types(zone, name, question.rtype).into_iter().map(one).collect()
    };
    let answers = |answer: &Answer| answer.outcome == Outcome::Records || answer.cached.is_some();
    let found = candidates.iter().position(|name| ask(name).iter().any(answers));
    // Where nothing is found, the name that was most probably meant stands first.
    let chosen = found.unwrap_or(0);
    let name = &candidates[chosen];
    let explained = why::why(zone, moment, name);
    let others = candidates.iter().enumerate().filter(|(at, _)| found.map_or(*at != chosen, |found| *at < found));
    let held = explained
        .service
        .and_then(|service| moment.held.service(service.key()).map(|held| HeldRow::of_service(service.key(), held)));
    let pin = moment.pins.get(name, moment.now).cloned().map(PinDoc::from);
    let tried = others.map(|(_, name)| Tried { name: name.to_string(), why: why::why(zone, moment, name).text });
    Ok(Lookup {
        asked: question.name.clone(),
        at: Time(moment.now),
        found: found.is_some(),
        name: name.to_string(),
        answers: ask(name),
        why: explained.text,
        service: explained.service.map(ServiceDoc::of),
        held,
        pinned: pin,
        tried: tried.collect(),
        source: SourceDoc::of(moment),
        version: VersionDoc::of(moment.snapshot),
    })
}

/// The name a person means: of those a pod's resolver would try the one that has an answer, else that of a service in a
/// namespace there is, else the name as it was given.
///
/// # Errors
/// If it is no name, or a single word that could be anything.
pub fn meant(zone: &Zone, moment: &Moment<'_>, given: &str) -> Result<Name, String> {
    let whole = name_of(given).map_err(|error| error.to_string())?;
    let mut candidates = candidates(zone, &Question { name: given.to_owned(), ..Question::default() })?;
    // The last one is the name as it was given, and a name that nothing is put behind is the only one.
    candidates.pop();
    if candidates.is_empty() {
        return Ok(whole);
    }
    let answers = |name: &&Name| {
        let has = |rtype| answer(zone, moment, name, rtype).outcome == Outcome::Records;
        types(zone, name, None).into_iter().any(has)
    };
    if let Some(name) = candidates.iter().find(answers) {
        return Ok(name.clone());
    }
    let labels: Vec<&[u8]> = whole.labels().collect();
    match labels.as_slice() {
        [_] => Err(format!(
            "no service is called {given:?} alone: give its namespace too, or the whole name with a final dot"
        )),
        [_, namespace] if moment.snapshot.has_namespace(namespace) => Ok(candidates.swap_remove(0)),
        _ => Ok(whole),
    }
}

/// The names to try, in the order of a pod's resolver.
fn candidates(zone: &Zone, question: &Question) -> Result<Vec<Name>, String> {
    let given = question.name.trim();
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
    if absolute || reverse || name.labels_above(zone.name()).is_some() {
        return Ok(vec![name]);
    }
    let namespace = question.namespace.as_deref();
    let completed = namespace.map(|namespace| below(&[namespace, "svc"], Some(zone.name()))).into_iter();
    let completed = completed.chain([below(&["svc"], Some(zone.name())), below(&[], Some(zone.name()))]);
    // What becomes too long by completion is not tried, as by a resolver.
    Ok(completed.flatten().chain([name]).collect())
}

fn types(zone: &Zone, name: &Name, asked: Option<Rtype>) -> Vec<Rtype> {
    if let Some(rtype) = asked {
        return vec![rtype];
    }
    let first = name.label(0).unwrap_or_default();
    match name.labels_above(zone.name()) {
        Some(0) => vec![Rtype::SOA, Rtype::NS],
        Some(1) if first == b"dns-version" => vec![Rtype::TXT],
        Some(_) if first.starts_with(b"_") => vec![Rtype::SRV],
        None if name.label_from_end(0) == Some(b"arpa") => vec![Rtype::PTR],
        _ => vec![Rtype::A, Rtype::AAAA],
    }
}

fn answer(zone: &Zone, moment: &Moment<'_>, name: &Name, rtype: Rtype) -> Answer {
    let mut written = Written { zone, stale: SourceDoc::of(moment).stale, records: Vec::new() };
    if let Some(pin) = moment.pins.get(name, moment.now)
        && (rtype == Rtype::A || rtype == Rtype::AAAA)
    {
        return pinned(pin, rtype);
    }
    let synced = moment.freshness.as_of.is_some();
    let owner = name.to_string();
    let mut sections = (Vec::new(), Vec::new(), Vec::new());
    let soa = |written: &mut Written<'_>, apex| {
        let labels = name.labels().skip(zone.labels_above(name, apex));
        let owner = Name::from_labels(labels).map_or_else(|_| ".".into(), |apex| apex.to_string());
        written.set(&owner, &zone.soa(moment.snapshot.version()))
    };
    let (outcome, rcode) = match zone.lookup(moment.snapshot, synced, name, rtype) {
        zone::Lookup::Hit(set) => {
            sections.0 = written.set(&owner, &set);
            sections.2 = written.additional(&set);
            (Outcome::Records, Some(Rcode::NOERROR))
        }
        zone::Lookup::Cname(chain) => {
            let mut alias = owner;
            for (set, target) in chain.sets().zip(chain.targets()) {
                sections.0.extend(written.set(&alias, &set));
                alias = text_of(zone, ZoneName::Target(target));
            }
            match chain.end() {
                ChainEnd::Hit(set) => {
                    sections.0.extend(written.set(&alias, &set));
                    (Outcome::Records, Some(Rcode::NOERROR))
                }
                ChainEnd::NxDomain => {
                    sections.1 = soa(&mut written, Apex::Cluster);
                    (Outcome::NoSuchName, Some(Rcode::NXDOMAIN))
                }
                ChainEnd::NoData => {
                    sections.1 = soa(&mut written, Apex::Cluster);
                    (Outcome::NoData, Some(Rcode::NOERROR))
                }
                ChainEnd::Outside | ChainEnd::Asked | ChainEnd::Looped => (Outcome::Records, Some(Rcode::NOERROR)),
            }
        }
        zone::Lookup::NoData(apex) => {
            sections.1 = soa(&mut written, apex);
            (Outcome::NoData, Some(Rcode::NOERROR))
        }
        zone::Lookup::NxDomain(apex) => {
            sections.1 = soa(&mut written, apex);
            (Outcome::NoSuchName, Some(Rcode::NXDOMAIN))
        }
        zone::Lookup::NotOurs => (Outcome::Forwarded, None),
        zone::Lookup::NotReady => (Outcome::NotReady, Some(Rcode::SERVFAIL)),
    };
    let extended_error = match outcome {
        Outcome::Forwarded => None,
        Outcome::NotReady => Some("14 (Not Ready)".to_owned()),
        _ => written.stale.then(|| "3 (Stale Answer)".to_owned()),
    };
    let (answer, authority, additional) = sections;
    let rcode = rcode.map(|rcode| rcode.to_string());
    Answer { rtype: rtype.to_string(), outcome, rcode, answer, authority, additional, extended_error, cached: None }
}

/// What a pinned name answers.
fn pinned(pin: &Pin, rtype: Rtype) -> Answer {
    let addresses = pin.addresses.iter().filter(|ip| ip.is_ipv4() == (rtype == Rtype::A));
    let (owner, rtype) = (&pin.name, rtype.to_string());
    let record =
        |ip: &IpAddr| Record { owner: owner.clone(), ttl: pin.ttl, rtype: rtype.clone(), data: ip.to_string() };
    let answer: Vec<Record> = addresses.map(record).collect();
    Answer {
        rtype,
        outcome: if answer.is_empty() { Outcome::NoData } else { Outcome::Records },
        rcode: Some(Rcode::NOERROR.to_string()),
        answer,
        authority: vec![],
        additional: vec![],
        extended_error: Some("4 (Forged Answer)".into()),
        cached: None,
    }
}

/// Renders sets with the TTL they would have.
struct Written<'a> {
    zone: &'a Zone,
    stale: bool,
    records: Vec<Record>,
}

impl Written<'_> {
    fn set(&mut self, owner: &str, set: &zone::RrSet<'_>) -> Vec<Record> {
        set_of(self.zone, owner, set, &mut |record| self.records.push(record));
        if self.stale {
            self.records.iter_mut().for_each(|record| record.ttl = record.ttl.min(STALE_TTL_MAX));
        }
        std::mem::take(&mut self.records)
    }

    fn additional(&mut self, set: &zone::RrSet<'_>) -> Vec<Record> {
        let mut records = Vec::new();
        let Ok(()) = set.try_each_additional(|owner, set| {
            records.extend(self.set(&text_of(self.zone, owner), &set));
            Ok::<(), std::convert::Infallible>(())
        });
        records
    }
}
