//! Puts a client's answer together: the answer of one route, and where a CNAME leaves it, that of the next.
//!
//! Decides nothing about upstreams; never returns nothing.

use std::sync::Arc;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, opt::EdnsOption},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};
use tokio::time::Instant;

use super::{
    Failure, Inner, Wanted,
    lookup::Found,
    observe,
    route::{Route, dns64, hosts},
};
use crate::{
    dns::{
        cache::{Age, Entry, Kind, Parts, encode::put_name, limit},
        request::{Completion, ForwardRequest, Resolved, ServedFrom},
    },
    sys::UnixMillis,
    wire::{Ede, EdeCode, HEADER_BYTES, Parsed, Query, Rcode, Reject, UDP_BYTES_MIN, parse, write_reject},
};

/// Routes one answer may lead through.
const LEGS_MAX: usize = 8;
const FORMERR: u8 = 1;
/// AA in the third byte of a header.
const AUTHORITATIVE: u8 = 0x04;
/// Seconds a completed name stays one: a service of that name may come to be at any time.
const COMPLETION_TTL: u32 = 5;
/// The option of extended errors (RFC 8914, 2).
const OPTION_EDE: u16 = 15;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// The whole answer to `request`.
pub async fn respond(inner: &Arc<Inner>, request: &ForwardRequest) -> Resolved {
    let unparsed = || Resolved { message: unparsed(&request.query), from: ServedFrom::Cluster };
    let Parsed::Query(client) = parse(&request.query) else { return unparsed() };
    let client = Query { cookie: request.cookie, ..client };
    let Some(wanted) = Wanted::by(&client, request.cluster_fallback) else { return unparsed() };
    let of_upstreams = request.chase.is_none() && request.complete.is_none();
    if let Some(message) = of_upstreams.then(|| fixed(inner, &client, &wanted)).flatten() {
        return Resolved { message, from: ServedFrom::Cluster };
    }
    let deadline = request.received + inner.budget(&wanted);
    inner.loading.over().await;
    let otherwise = |message: &Vec<u8>| Resolved { message: message.clone(), from: ServedFrom::Cluster };
    let answer = match (&request.chase, &request.complete) {
        (None, None) if inner.is_loop_probe(&wanted) => {
            Err(Failure { ede: EdeCode::NO_REACHABLE_AUTHORITY, text: "forwarding loop".into() })
        }
        (None, None) => answer(inner, &wanted, false, deadline).await,
        (Some(fallback), _) => match chase(inner, &wanted, fallback, deadline).await {
            Some(found) => Ok(found),
            None => return otherwise(fallback),
        },
        (None, Some(completion)) => match complete(inner, &wanted, completion, deadline).await {
            Some(found) => Ok(found),
            None => return otherwise(&completion.otherwise),
        },
    };
    let (message, from) = match answer {
        Ok(found) => {
            let mut out = vec![0; limit(&client, request.transport)];
            let length = found.entry.write(&client, request.transport, inner.now(), found.age, &mut out);
            out.truncate(length);
            if !of_upstreams {
                // AA is about the first owner (RFC 1035, 4.1.1), and that alias is ours.
                out[2] |= AUTHORITATIVE;
            }
            (out, found.from)
        }
        Err(failure) => {
            inner.metrics().servfail.inc();
            (servfail(&client, &failure), ServedFrom::Upstream)
        }
    };
    if inner.query_log.take() {
        observe::log(&client, request.client, from, request.received.elapsed());
    }
    inner.tap.note(request, &message, inner.now(), inner.metrics());
    Resolved { message, from }
}

/// The answer to `wanted` if its zone has one for everything, and knows of no host by that name.
fn fixed(inner: &Inner, client: &Query<'_>, wanted: &Wanted) -> Option<Vec<u8>> {
    let routes = inner.routes.load();
    let route = routes.find(&wanted.wire).filter(|_| !wanted.cluster_fallback)?;
    let answer = route.config.answer?;
    let known = route.hosts.load().holds(&wanted.wire, wanted.qtype);
    (!known).then(|| written(&client.reject(answer.rcode(), None)))
}

/// What is said of `wanted` on the node, or else by upstreams.
///
/// `may_be_ours` says that the name is another than the client asked for, so that our own zones may hold it.
async fn answer(inner: &Arc<Inner>, wanted: &Wanted, may_be_ours: bool, deadline: Instant) -> Result<Found, Failure> {
    let routes = inner.routes.load_full();
    let Some(route) = routes.find(&wanted.wire).filter(|_| !wanted.cluster_fallback) else {
        return resolve(inner, wanted, may_be_ours, deadline).await;
    };
    let ttl = u32::try_from(route.config.hosts_ttl.as_secs()).unwrap_or(u32::MAX);
    if let Some((kind, answers)) = route.hosts.load().find(&wanted.wire, &wanted.name, wanted.qtype, ttl) {
        let soa = Vec::new();
        return join(wanted, kind, answers, soa, inner.now(), Age::Fresh, ServedFrom::Cluster);
    }
    let Some(name) = hosts::rewrite(&route.config.rewrites, &wanted.name) else {
        return translate(inner, route, wanted, may_be_ours, deadline).await;
    };
    let renamed = Wanted { wire: wire_of(&name), name, ..wanted.clone() };
    let found = translate(inner, route, &renamed, true, deadline).await?;
    let now = inner.now();
    let (mut answers, authorities) = found.entry.records(now, found.age);
    for record in answers.iter_mut().filter(|record| record.name == renamed.name) {
        record.name = wanted.name.clone();
    }
    join(wanted, found.entry.kind(), answers, authorities, now, found.age, found.from)
}

/// Resolves `wanted`, with IPv6 addresses made of IPv4 ones where the route says so and there are no others.
async fn translate(
    inner: &Arc<Inner>,
    route: &Route,
    wanted: &Wanted,
    may_be_ours: bool,
    deadline: Instant,
) -> Result<Found, Failure> {
    let found = resolve(inner, wanted, may_be_ours, deadline).await?;
    // Who validates for himself is not to be lied to (RFC 6147, 5.5).
    let validates = wanted.dnssec_ok && wanted.checking_disabled;
    let Some(prefix) = route.config.dns64.filter(|_| wanted.qtype == TYPE_AAAA && !validates) else { return Ok(found) };
    let now = inner.now();
    if found.entry.kind() == Kind::NxDomain || dns64::has_usable_aaaa(&found.entry.records(now, found.age).0) {
        return Ok(found);
    }
    let four = Wanted { qtype: TYPE_A, ..wanted.clone() };
    match resolve(inner, &four, may_be_ours, deadline).await {
        Ok(four) if four.entry.kind() == Kind::Data => {
            let (answers, _) = four.entry.records(now, four.age);
            let answers = prefix.synthesize(answers);
            join(wanted, Kind::Data, answers, Vec::new(), now, four.age, four.from)
        }
        _ => Ok(found),
    }
}

/// Looks `wanted` up and follows it over as many routes as its CNAMEs lead through.
async fn resolve(inner: &Arc<Inner>, wanted: &Wanted, may_be_ours: bool, deadline: Instant) -> Result<Found, Failure> {
    let first = if may_be_ours { leg(inner, wanted, deadline).await? } else { inner.lookup(wanted, deadline).await? };
    if !first.entry.continues() {
        return Ok(first);
    }
    let now = inner.now();
    let (mut answers, _) = first.entry.records(now, first.age);
    let mut next = first.entry.target();
    let mut last = first;
    let (mut age, mut from) = (last.age, last.from);
    for _ in 1..LEGS_MAX {
        let Some(target) = next.take() else { break };
        if target == wanted.name || answers.iter().any(|record| record.name == target) {
            // A loop ends as what was collected.
            break;
        }
        let next_wanted = Wanted { wire: wire_of(&target), name: target, ..wanted.clone() };
        last = leg(inner, &next_wanted, deadline).await?;
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
    join(wanted, last.entry.kind(), answers, authorities, now, age, from)
}

/// Looks the target of our own CNAMEs up; `None` means that they have to do alone.
async fn chase(inner: &Arc<Inner>, wanted: &Wanted, fallback: &[u8], deadline: Instant) -> Option<Found> {
    let ours = Message::from_vec(fallback).ok()?;
    let age = age_of(&ours);
    let mut answers = ours.answers;
    let target = answers.iter().rev().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    })?;
    let leg = Wanted { wire: wire_of(&target), name: target, ..wanted.clone() };
    // Outside the cluster's zone, but perhaps in one of the reverse zones.
    let found = answer(inner, &leg, true, deadline).await.ok()?;
    let now = inner.now();
    let (records, authorities) = found.entry.records(now, found.age);
    answers.extend(records);
    join(wanted, found.entry.kind(), answers, authorities, now, older(age, found.age), found.from).ok()
}

/// Looks up the outside name that `wanted` begins with, and puts it behind a CNAME; `None` if it does not exist, is one
/// of ours, or cannot be looked up.
async fn complete(inner: &Arc<Inner>, wanted: &Wanted, completion: &Completion, deadline: Instant) -> Option<Found> {
    let mut target = Name::from_labels(wanted.name.iter().take(completion.labels)).ok()?;
    target.set_fqdn(true);
    if inner.is_own(&target) {
        return None;
    }
    let outside = Wanted { wire: wire_of(&target), name: target.clone(), ..wanted.clone() };
    let found = answer(inner, &outside, false, deadline).await.ok()?;
    if found.entry.kind() == Kind::NxDomain {
        return None;
    }
    let now = inner.now();
    let (records, authorities) = found.entry.records(now, found.age);
    let mut answers = vec![Record::from_rdata(wanted.name.clone(), COMPLETION_TTL, RData::CNAME(CNAME(target)))];
    answers.extend(records);
    // It is the records that say there is no service of the name.
    let age = older(age_of(&Message::from_vec(&completion.otherwise).ok()?), found.age);
    join(wanted, found.entry.kind(), answers, authorities, now, age, found.from).ok()
}

/// One name that upstreams or a rewrite lead to: from our own zones if it is theirs, else on its own route.
async fn leg(inner: &Arc<Inner>, wanted: &Wanted, deadline: Instant) -> Result<Found, Failure> {
    let own = if wanted.cluster_fallback { None } else { inner.own(&wanted.name, wanted.qtype, wanted.qclass) };
    let Some(message) = own else { return inner.lookup(wanted, deadline).await };
    let kind = match (message.response_code, message.answers.is_empty()) {
        (ResponseCode::NXDomain, _) => Kind::NxDomain,
        (ResponseCode::NoError, true) => Kind::NoData,
        (ResponseCode::NoError, false) => Kind::Data,
        // There are no records yet: whoever stands in for them is asked, and nobody else.
        _ => return inner.lookup(&Wanted { cluster_fallback: true, ..wanted.clone() }, deadline).await,
    };
    let age = age_of(&message);
    // An alias of ours that leads out.
    let ends_in_alias = message.answers.last().is_some_and(|last| last.record_type() == RecordType::CNAME);
    let mut parts = parts(wanted, kind, message.answers, message.authorities);
    parts.continues = kind == Kind::Data && ends_in_alias && wanted.qtype != u16::from(RecordType::CNAME);
    let entry = Entry::new(&parts, inner.now(), 0).map(Arc::new).ok_or_else(Failure::too_large)?;
    Ok(Found { entry, age, from: ServedFrom::Cluster })
}

/// How far an answer of our own can be trusted: it says so itself, to who asked with EDNS.
fn age_of(ours: &Message) -> Age {
    let options = ours.edns.as_ref().map(|edns| edns.options().as_ref()).unwrap_or_default();
    let stale = options.iter().any(|(_, option)| match option {
        EdnsOption::Unknown(OPTION_EDE, told) => told.starts_with(&EdeCode::STALE_ANSWER.0.to_be_bytes()),
        _ => false,
    });
    if stale { Age::OfStaleRecords } else { Age::Fresh }
}

/// The age of an answer made of two parts.
fn older(one: Age, other: Age) -> Age {
    match (one, other) {
        (Age::Fresh, age) | (age, Age::Fresh | Age::OfStaleRecords) => age,
        (Age::OfStaleRecords | Age::Stale { .. }, Age::Stale { .. }) => other,
    }
}

fn join(
    wanted: &Wanted,
    kind: Kind,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    now: UnixMillis,
    age: Age,
    from: ServedFrom,
) -> Result<Found, Failure> {
    let parts = parts(wanted, kind, answers, authorities);
    let entry = Entry::new(&parts, now, 0).map(Arc::new).ok_or_else(Failure::too_large)?;
    Ok(Found { entry, age, from })
}

pub(super) fn parts(wanted: &Wanted, kind: Kind, answers: Vec<Record>, authorities: Vec<Record>) -> Parts {
    Parts {
        name: wanted.name.clone(),
        qtype: wanted.qtype,
        qclass: wanted.qclass,
        kind,
        answers,
        authorities,
        authentic: false,
        continues: false,
    }
}

fn servfail(client: &Query<'_>, failure: &Failure) -> Vec<u8> {
    let mut reject = client.reject(Rcode::SERVFAIL, None);
    reject.ede = Some(Ede { code: failure.ede, text: &failure.text });
    written(&reject)
}

fn written(reject: &Reject<'_>) -> Vec<u8> {
    let mut out = vec![0; UDP_BYTES_MIN];
    let length = write_reject(reject, &mut out);
    out.truncate(length);
    out
}

/// For a message that `answer()` should not have handed on: FORMERR with its id.
fn unparsed(query: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    for (to, from) in out.iter_mut().zip(query.iter().take(2)) {
        *to = *from;
    }
    out[2] = 0x80;
    out[3] = 0x80 | FORMERR;
    out
}

impl Wanted {
    pub(super) fn by(client: &Query<'_>, cluster_fallback: bool) -> Option<Self> {
        Some(Self {
            name: Name::read(&mut BinDecoder::new(client.name.wire())).ok()?,
            wire: client.name.wire().into(),
            qtype: client.qtype.0,
            qclass: client.qclass.0,
            dnssec_ok: client.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: client.cd,
            cluster_fallback,
        })
    }
}

/// A query for `name`, with EDNS.
pub fn query(name: &Name, qtype: u16, qclass: u16) -> Vec<u8> {
    let mut wire = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    put_name(&mut wire, name);
    wire.extend_from_slice(&qtype.to_be_bytes());
    wire.extend_from_slice(&qclass.to_be_bytes());
    // An OPT record: whether the answer is stale is told to nobody else.
    wire.extend_from_slice(&[0, 0, 41, 4, 0xD0, 0, 0, 0, 0, 0, 0]);
    wire
}

fn wire_of(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    put_name(&mut wire, name);
    wire.make_ascii_lowercase();
    wire.into_boxed_slice()
}
