//! Puts a client's answer together: the answer of one route, and where a CNAME leaves it, that of the next.
//!
//! Decides nothing about upstreams; never returns nothing.

use std::sync::Arc;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record},
    serialize::binary::{BinDecodable, BinDecoder},
};
use tokio::time::Instant;

use super::{Failure, Inner, Wanted};
use crate::{
    dns::{
        cache::{Age, Entry, Kind, Parts, encode::put_name, limit},
        request::ForwardRequest,
    },
    sys::UnixMillis,
    wire::{Ede, EdeCode, HEADER_BYTES, Parsed, Query, Rcode, UDP_BYTES_MIN, parse, write_reject},
};

/// Routes one answer may lead through.
const LEGS_MAX: usize = 8;
const FORMERR: u8 = 1;

/// The whole answer to `request`.
pub async fn respond(inner: &Inner, request: &ForwardRequest) -> Vec<u8> {
    let Parsed::Query(client) = parse(&request.query) else { return unparsed(&request.query) };
    let Some(wanted) = Wanted::by(&client, request.cluster_fallback) else { return unparsed(&request.query) };
    let deadline = request.received + inner.config.budget;
    let now = inner.surroundings.clock.now();
    let answer = match &request.chase {
        None => resolve(inner, &wanted, deadline).await,
        Some(fallback) => match chase(inner, &wanted, fallback, deadline).await {
            Some(entry) => Ok(entry),
            None => return fallback.clone(),
        },
    };
    match answer {
        Ok(entry) => write(&entry, &client, request, now),
        Err(failure) => {
            inner.surroundings.metrics.servfail.inc();
            servfail(&client, &failure)
        }
    }
}

/// Looks `wanted` up and follows it over as many routes as its CNAMEs lead through.
async fn resolve(inner: &Inner, wanted: &Wanted, deadline: Instant) -> Result<Arc<Entry>, Failure> {
    let first = inner.lookup(wanted, deadline).await?;
    if !first.continues() {
        return Ok(first);
    }
    let now = inner.surroundings.clock.now();
    let (mut answers, _) = first.records(now, Age::Fresh);
    let mut next = first.target();
    let mut last = first;
    for _ in 1..LEGS_MAX {
        let Some(target) = next.take() else { break };
        if target == wanted.name || answers.iter().any(|record| record.name == target) {
            // A loop ends as what was collected.
            break;
        }
        let leg = Wanted { wire: wire_of(&target), name: target, ..wanted.clone() };
        last = match own(inner, &leg, now) {
            Some(own) => own,
            None => inner.lookup(&leg, deadline).await?,
        };
        answers.extend(last.records(now, Age::Fresh).0);
        if last.continues() {
            next = last.target();
        }
    }
    let (_, authorities) = last.records(now, Age::Fresh);
    join(wanted, last.kind(), answers, authorities, now)
}

/// Looks the target of our own CNAMEs up; `None` means that they have to do alone.
async fn chase(inner: &Inner, wanted: &Wanted, fallback: &[u8], deadline: Instant) -> Option<Arc<Entry>> {
    let mut answers = Message::from_vec(fallback).ok()?.answers;
    let target = answers.iter().rev().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    })?;
    let leg = Wanted { wire: wire_of(&target), name: target, ..wanted.clone() };
    let entry = resolve(inner, &leg, deadline).await.ok()?;
    let now = inner.surroundings.clock.now();
    let (found, authorities) = entry.records(now, Age::Fresh);
    answers.extend(found);
    join(wanted, entry.kind(), answers, authorities, now).ok()
}

/// The answer of our own zones for `wanted`, if its name is in one.
fn own(inner: &Inner, wanted: &Wanted, now: UnixMillis) -> Option<Arc<Entry>> {
    let reply = (inner.surroundings.own)(&query(&wanted.name, wanted.qtype, wanted.qclass))?;
    let message = Message::from_vec(&reply).ok()?;
    let kind = match (message.response_code, message.answers.is_empty()) {
        (ResponseCode::NXDomain, _) => Kind::NxDomain,
        (_, true) => Kind::NoData,
        (_, false) => Kind::Data,
    };
    let parts = parts(wanted, kind, message.answers, message.authorities);
    Entry::new(&parts, now, 0).map(Arc::new)
}

fn join(
    wanted: &Wanted,
    kind: Kind,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    now: UnixMillis,
) -> Result<Arc<Entry>, Failure> {
    let parts = parts(wanted, kind, answers, authorities);
    let entry = Entry::new(&parts, now, 0);
    entry.map(Arc::new).ok_or_else(|| Failure { ede: EdeCode::OTHER, text: "answer over 65,535 bytes".into() })
}

fn parts(wanted: &Wanted, kind: Kind, answers: Vec<Record>, authorities: Vec<Record>) -> Parts {
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

fn write(entry: &Entry, client: &Query<'_>, request: &ForwardRequest, now: UnixMillis) -> Vec<u8> {
    let mut out = vec![0; limit(client, request.transport)];
    let length = entry.write(client, request.transport, now, Age::Fresh, &mut out);
    out.truncate(length);
    out
}

fn servfail(client: &Query<'_>, failure: &Failure) -> Vec<u8> {
    let mut reject = client.reject(Rcode::SERVFAIL, None);
    reject.ede = Some(Ede { code: failure.ede, text: &failure.text });
    let mut out = vec![0; UDP_BYTES_MIN];
    let length = write_reject(&reject, &mut out);
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
    /// What `client` asks for.
    fn by(client: &Query<'_>, cluster_fallback: bool) -> Option<Self> {
        Some(Self {
            name: read_name(client.name.wire())?,
            wire: client.name.wire().into(),
            qtype: client.qtype.0,
            qclass: client.qclass.0,
            dnssec_ok: client.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: client.cd,
            cluster_fallback,
        })
    }
}

/// A plain query for `name`.
pub fn query(name: &Name, qtype: u16, qclass: u16) -> Vec<u8> {
    let mut wire = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    put_name(&mut wire, name);
    wire.extend_from_slice(&qtype.to_be_bytes());
    wire.extend_from_slice(&qclass.to_be_bytes());
    wire
}

fn read_name(wire: &[u8]) -> Option<Name> {
    Name::read(&mut BinDecoder::new(wire)).ok()
}

fn wire_of(name: &Name) -> Box<[u8]> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    put_name(&mut wire, name);
    wire.make_ascii_lowercase();
    wire.into_boxed_slice()
}
