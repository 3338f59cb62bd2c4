//! The cached answers of upstreams, for the tools.

use hickory_proto::rr::Record;

use crate::{
    admin::view::{self, CachedDoc, Outcome, Time},
    dns::{
        cache::Kind,
        forward::{Cached, Forwarder},
    },
    sys::Clock,
    wire::{Name, Rtype},
};

/// Looks into the cache of `forwarder`.
pub(in crate::role) fn cached(forwarder: &Forwarder, clock: &Clock, name: &Name, rtype: Rtype) -> Option<view::Cached> {
    let Cached { zone, upstreams, kind, stored, left, served_stale, continues, answers, authorities } =
        forwarder.cached_answer(name, rtype)?;
    let doc = CachedDoc {
        zone,
        upstreams,
        stored: Time(stored),
        age_seconds: stored.age(clock.now()).as_secs(),
        ttl_left_seconds: left.map(|left| left.as_secs()),
        served_stale,
        continues,
    };
    let outcome = match kind {
        Kind::Data => Outcome::Records,
        Kind::NoData => Outcome::NoData,
        Kind::NxDomain => Outcome::NoSuchName,
    };
    Some(view::Cached { outcome, answer: text(&answers), authority: text(&authorities), doc })
}

fn text(records: &[Record]) -> Vec<view::Record> {
    let record = |record: &Record| view::Record {
        owner: record.name.to_string(),
        ttl: record.ttl,
        rtype: record.record_type().to_string(),
        data: record.data.to_string(),
    };
    records.iter().map(record).collect()
}
