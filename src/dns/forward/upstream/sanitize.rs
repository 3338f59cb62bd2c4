//! Cleans an upstream's answer: keeps the chain from the name asked to the records asked, and nothing else.
//!
//! Pure. A chain is cut where it leaves the route that was asked: upstreams of one zone do not speak for another.

use std::collections::{HashMap, HashSet};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

use crate::{
    dns::{
        Question,
        cache::{Kind, Parts},
        forward::observe::FailureKind,
    },
    wire::Class,
};

/// Longest chain of CNAMEs followed in one answer.
const CHAIN_MAX: usize = 16;
/// Sets up to this size are freed of duplicates; nobody has larger ones, and comparing costs its square.
const SET_COMPARED_MAX: usize = 256;
/// hickory has no name for it (RFC 6672).
const DNAME: RecordType = RecordType::Unknown(39);
/// RFC 2181, 8: a TTL with the top bit set is to be treated as 0; what matters is that it is not 68 years.
const TTL_MAX: u32 = i32::MAX as u32;

/// An answer that may be believed.
#[derive(Debug)]
pub struct Sanitized {
    pub parts: Parts,
    /// Seconds the answer is good for as the upstream says, before any cap: the lowest TTL of all, RFC 2308 for negatives.
    pub ttl: u32,
    /// Whether it is a negative answer without SOA: a client gets it, the cache does not.
    pub unproven: bool,
    /// Part of an answer whose rest could not be had over TCP: a client gets it, the cache does not.
    pub truncated: bool,
    pub dropped: usize,
}

/// Keeps of `message` what answers `asked`. `ours` says whether the asked route may speak for a name.
///
/// # Errors
/// The kind of failure, if the message is no answer at all.
pub fn sanitize(message: &Message, asked: &Question, ours: impl Fn(&Name) -> bool) -> Result<Sanitized, FailureKind> {
    match message.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        ResponseCode::ServFail => return Err(FailureKind::ServFail),
        ResponseCode::Refused => return Err(FailureKind::Refused),
        _ => return Err(FailureKind::OtherRcode),
    }
    let total = message.answers.len() + message.authorities.len() + message.additionals.len();
    let Chain { mut answers, end, found, cut } = follow(message, asked, &ours);
    let soa = message
        .authorities
        .iter()
        .find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(&end) && in_class(record, asked));
    let mut authorities: Vec<Record> = Vec::new();
    let proves = |record: &&Record| {
        asked.dnssec_ok
            && in_class(record, asked)
            && matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG)
            && ours(&record.name)
            && soa.is_none_or(|soa| soa.name.zone_of(&record.name))
    };
    let negative = !found && !cut;
    if negative {
        authorities.extend(soa.cloned());
    }
    if !cut {
        authorities.extend(message.authorities.iter().filter(proves).cloned());
    }
    let nx = message.response_code == ResponseCode::NXDomain;
    let kind = match (found || cut, nx) {
        (true, _) => Kind::Data,
        (false, true) => Kind::NxDomain,
        (false, false) => Kind::NoData,
    };
    // The chain ends in a name without records: the upstream does not chase, so that name has to be asked for.
    let dangling = negative && !nx && soa.is_none() && !answers.is_empty();
    let unproven = negative && soa.is_none() && !dangling;
    // Records that answer something else are no denial.
    let elsewhere = answers.is_empty() && !message.answers.is_empty();
    if unproven && (elsewhere || kind == Kind::NoData && message.authorities.iter().any(is_referral)) {
        return Err(FailureKind::Lame);
    }
    for set in [&mut answers, &mut authorities] {
        level_ttls(set);
    }
    let mut ttl = answers.iter().chain(&authorities).map(|record| record.ttl).min().unwrap_or(0);
    if let (true, Some(RData::SOA(data))) = (negative, soa.map(|soa| &soa.data)) {
        ttl = ttl.min(data.minimum);
        for record in &mut authorities {
            record.ttl = record.ttl.min(data.minimum);
        }
    }
    let kept = answers.len() + authorities.len();
    Ok(Sanitized {
        parts: Parts {
            name: asked.record_name(),
            rtype: asked.rtype,
            class: asked.class,
            kind: if dangling { Kind::Data } else { kind },
            answers,
            authorities,
            authentic: message.authentic_data && !cut && !dangling,
            continues: cut || dangling,
        },
        ttl,
        unproven,
        truncated: message.truncation,
        dropped: total - kept,
    })
}

struct Chain {
    answers: Vec<Record>,
    /// The last name of the chain.
    end: Name,
    /// Whether records of the type asked were found.
    found: bool,
    /// Whether the chain left the route.
    cut: bool,
}

fn follow(message: &Message, asked: &Question, ours: &impl Fn(&Name) -> bool) -> Chain {
    let qtype = asked.record_type();
    let mut chain = Chain { answers: Vec::new(), end: asked.record_name(), found: false, cut: false };
    let mut seen: HashSet<Name> = HashSet::new();
    for _ in 0..CHAIN_MAX {
        if !seen.insert(chain.end.clone()) {
            break;
        }
        let here = |record: &&Record| record.name == chain.end && in_class(record, asked);
        let is_wanted = |record: &&Record| qtype == RecordType::ANY || record.record_type() == qtype;
        let wanted: Vec<&Record> = message.answers.iter().filter(here).filter(is_wanted).collect();
        let signs = |record: &&Record, covered: RecordType| {
            asked.dnssec_ok && record.record_type() == RecordType::RRSIG && covers(record, covered)
        };
        if !wanted.is_empty() {
            let mut records: Vec<Record> = Vec::with_capacity(wanted.len());
            for record in wanted {
                // A set holds each record once (RFC 2181, 5).
                if records.len() > SET_COMPARED_MAX || !records.iter().any(|known| known.data == record.data) {
                    records.push(record.clone());
                }
            }
            let signatures: Vec<Record> = message
                .answers
                .iter()
                .filter(here)
                .filter(|record| qtype != RecordType::RRSIG && signs(record, qtype))
                .cloned()
                .collect();
            chain.answers.extend(records);
            if qtype != RecordType::ANY {
                chain.answers.extend(signatures);
            }
            chain.found = true;
            return chain;
        }
        let Some(link) = message.answers.iter().filter(here).find(|record| record.record_type() == RecordType::CNAME)
        else {
            break;
        };
        let RData::CNAME(target) = &link.data else { break };
        // A DNAME above explains the CNAME to those who validate (RFC 6672, 5.3.1).
        let dname = message.answers.iter().find(|record| {
            asked.dnssec_ok
                && record.record_type() == DNAME
                && in_class(record, asked)
                // A server of one zone does not speak for those above it.
                && ours(&record.name)
                && record.name.zone_of(&chain.end)
                && record.name != chain.end
        });
        let mut links: Vec<Record> = dname.into_iter().cloned().collect();
        if let Some(dname) = dname {
            let at = |record: &&Record| record.name == dname.name && in_class(record, asked) && signs(record, DNAME);
            links.extend(message.answers.iter().filter(at).cloned());
        }
        links.push(link.clone());
        links.extend(message.answers.iter().filter(here).filter(|record| signs(record, RecordType::CNAME)).cloned());
        let target = target.0.clone();
        chain.answers.extend(links);
        chain.end = target;
        if !ours(&chain.end) {
            chain.cut = true;
            break;
        }
    }
    chain
}

fn in_class(record: &Record, asked: &Question) -> bool {
    asked.class == Class(u16::from(record.dns_class)) || asked.class == Class::ANY
}

fn is_referral(record: &Record) -> bool {
    record.record_type() == RecordType::NS
}

/// Whether an RRSIG covers `covered` (its first field, RFC 4034, 3.1.1).
fn covers(record: &Record, covered: RecordType) -> bool {
    match &record.data {
        RData::Unknown { rdata, .. } => {
            rdata.anything.first_chunk::<2>().is_some_and(|bytes| u16::from_be_bytes(*bytes) == u16::from(covered))
        }
        _ => false,
    }
}

/// Gives all records of an RRset its lowest TTL (RFC 2181, 5.2).
fn level_ttls(records: &mut [Record]) {
    let mut lowest: HashMap<(Name, RecordType), u32> = HashMap::with_capacity(records.len().min(16));
    for record in &*records {
        let ttl = lowest.entry((record.name.clone(), record.record_type())).or_insert(TTL_MAX);
        *ttl = record.ttl.min(*ttl);
    }
    for record in records {
        if let Some(ttl) = lowest.get(&(record.name.clone(), record.record_type())) {
            record.ttl = *ttl;
        }
    }
}

#[cfg(test)]
mod tests;
