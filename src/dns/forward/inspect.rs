//! What the cache holds for a name, for the tools. Asks nobody and changes nothing.

use std::time::Duration;

use hickory_proto::rr::Record;

use super::{
    Forwarder,
    lookup::{may_be_stale, serves_stale_now, stale_age},
};
use crate::{
    dns::cache::{Age, Key, Kind},
    sys::UnixMillis,
    wire::{Name, Rtype},
};

/// Ways to ask that have answers of their own, the most usual first: DO and CD.
const FLAGS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// An answer in the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The zone whose upstreams gave it.
    pub zone: String,
    pub upstreams: Vec<String>,
    pub kind: Kind,
    pub stored: UnixMillis,
    /// What is left of its TTL; `None` past it.
    pub left: Option<Duration>,
    /// Past its TTL, whether clients get it without waiting, because nobody answers for the zone.
    pub served_stale: bool,
    /// Whether its last alias is followed over another zone's upstreams.
    pub continues: bool,
    /// Its answer section, with the TTLs a client would get.
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
}

impl Forwarder {
    /// What is cached for a name, if anything is.
    #[must_use]
    pub fn cached_answer(&self, name: &Name, rtype: Rtype) -> Option<Cached> {
        let inner = &self.0;
        let routes = inner.routes.load();
        let route = routes.find(name.wire())?;
        let find = |(dnssec_ok, checking_disabled)| {
            inner.cache.get(&Key::new(route.id, name.wire(), rtype.0, 1, dnssec_ok, checking_disabled)?)
        };
        let entry = FLAGS.into_iter().find_map(find)?;
        let now = inner.now();
        let left = Duration::from_secs(entry.ttl().into()).saturating_sub(entry.age(now));
        let fresh = entry.is_fresh(now);
        let (answers, authorities) = entry.records(now, if fresh { Age::Fresh } else { stale_age(route) });
        Some(Cached {
            zone: route.config.zone.to_string(),
            upstreams: route.upstreams().iter().map(|upstream| upstream.status().upstream).collect(),
            kind: entry.kind(),
            stored: entry.stored(),
            left: fresh.then_some(left),
            served_stale: !fresh && may_be_stale(route, &entry, now) && serves_stale_now(route, &entry, now),
            continues: entry.continues(),
            answers,
            authorities,
        })
    }
}
