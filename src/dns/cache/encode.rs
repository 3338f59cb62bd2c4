//! Lays records out as the message a client gets: question first, owners pointing at it, and where each TTL stands.
//!
//! Never adds OPT, id or flags: those belong to each client and are written with the answer.

use hickory_proto::{
    rr::{Name, Record},
    serialize::binary::{BinEncodable, BinEncoder, NameEncoding},
};

use crate::wire::{Class, HEADER_BYTES, Rtype};

/// How many names before this one an owner may point back at; more would only help long CNAME chains.
const POINTERS_MAX: usize = 20;

/// A message in the making.
#[derive(Debug)]
pub struct Encoded {
    /// Header (counts set, all else zero), question, answer and authority section.
    pub wire: Vec<u8>,
    pub ttl_offsets: Vec<u16>,
}

/// Lays out `answers` and `authorities` behind the question for `name`; `None` if that passes 65,535 bytes.
///
/// Owners equal to the question's name point at it, so that they take the case of whoever asks.
pub fn encode(name: &Name, rtype: Rtype, class: Class, answers: &[Record], authorities: &[Record]) -> Option<Encoded> {
    let mut wire = vec![0; HEADER_BYTES];
    wire[5] = 1;
    wire[6..8].copy_from_slice(&u16::try_from(answers.len()).ok()?.to_be_bytes());
    wire[8..10].copy_from_slice(&u16::try_from(authorities.len()).ok()?.to_be_bytes());
    put_name(&mut wire, name);
    wire[HEADER_BYTES..].make_ascii_lowercase();
    wire.extend_from_slice(&rtype.0.to_be_bytes());
    wire.extend_from_slice(&class.0.to_be_bytes());

    let mut pointers: Vec<(&Name, u16)> = vec![(name, u16::try_from(HEADER_BYTES).ok()?)];
    let mut ttl_offsets = Vec::with_capacity(answers.len() + authorities.len());
    let mut rdata = Vec::new();
    for record in answers.iter().chain(authorities) {
        if let Some((_, at)) = pointers.iter().find(|(known, _)| *known == &record.name) {
            wire.extend_from_slice(&(0xC000 | at).to_be_bytes());
        } else {
            remember(&mut pointers, &record.name, wire.len());
            put_name(&mut wire, &record.name);
        }
        // Type and class stand in front of the TTL, and the length of the data behind it.
        let ttl = wire.len() + 4;
        ttl_offsets.push(u16::try_from(ttl).ok()?);
        put_rest(&mut wire, record, &mut rdata)?;
        if let hickory_proto::rr::RData::CNAME(target) = &record.data {
            remember(&mut pointers, &target.0, ttl + 6);
        }
        if wire.len() > usize::from(u16::MAX) {
            return None;
        }
    }
    Some(Encoded { wire, ttl_offsets })
}

/// Appends a record whose names are written whole; `None` if its data passes 65,535 bytes.
pub fn put_record(wire: &mut Vec<u8>, record: &Record) -> Option<()> {
    put_name(wire, &record.name);
    put_rest(wire, record, &mut Vec::new())
}

/// Appends a record without its owner; its data passes through `rdata`.
fn put_rest(wire: &mut Vec<u8>, record: &Record, rdata: &mut Vec<u8>) -> Option<()> {
    wire.extend_from_slice(&u16::from(record.record_type()).to_be_bytes());
    wire.extend_from_slice(&u16::from(record.dns_class).to_be_bytes());
    wire.extend_from_slice(&record.ttl.to_be_bytes());
    rdata.clear();
    let mut encoder = BinEncoder::new(rdata);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    record.data.emit(&mut encoder).ok()?;
    wire.extend_from_slice(&u16::try_from(rdata.len()).ok()?.to_be_bytes());
    wire.extend_from_slice(rdata);
    Some(())
}

/// Notes that `name` stands at `at`, if a pointer can reach it (14 bits, RFC 1035, 4.1.4).
fn remember<'a>(pointers: &mut Vec<(&'a Name, u16)>, name: &'a Name, at: usize) {
    if pointers.len() < POINTERS_MAX
        && !name.is_root()
        && let Some(at) = u16::try_from(at).ok().filter(|at| *at < 0x4000)
    {
        pointers.push((name, at));
    }
}

pub fn put_name(wire: &mut Vec<u8>, name: &Name) {
    for label in name {
        // A label is at most 63 bytes: `Name` cannot hold a longer one.
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label);
    }
    wire.push(0);
}
