//! NXDOMAIN for names below one that does not exist (RFC 8020), where the operator wants that.
//!
//! Sees only what is fresh; never speaks for a name that something is stored of.

use std::sync::Arc;

use super::{Inner, Wanted, compose::parts, lookup::Found, route::Route};
use crate::{
    dns::{
        cache::{Age, Entry, Key, Kind},
        request::ServedFrom,
    },
    sys::UnixMillis,
};

/// What a name that does not exist is stored under, whatever type it was asked for: no type has this number (RFC 6895, 3.1).
const TYPE_ANY_AT_ALL: u16 = 0;

impl Inner {
    /// NXDOMAIN for `wanted` if it or a name above it, within `route`, is known not to exist.
    pub(super) fn cut(&self, route: &Route, wanted: &Wanted, now: UnixMillis) -> Option<Found> {
        if !route.config.lifetimes.nxdomain_cut {
            return None;
        }
        let mut name = &*wanted.wire;
        while name.len() > route.zone_bytes() {
            let known = self.cache.get(&cut_key(route, name, wanted)?);
            if let Some(known) = known.filter(|known| known.kind() == Kind::NxDomain && known.is_fresh(now)) {
                let (_, authorities) = known.records(now, Age::Fresh);
                let entry = Entry::new(&parts(wanted, Kind::NxDomain, Vec::new(), authorities), now, 0)?;
                self.cache.metrics.hits.inc();
                return Some(Found { entry: Arc::new(entry), age: Age::Fresh, from: ServedFrom::Cache });
            }
            name = name.get(1 + usize::from(*name.first()?)..)?;
        }
        None
    }

    /// Remembers that `wanted` itself does not exist, `parts` being the answer that says so. The end of a chain of CNAMEs
    /// is another name.
    pub(super) fn keep_cut(&self, route: &Route, wanted: &Wanted, entry: &Entry, now: UnixMillis) {
        if !route.config.lifetimes.nxdomain_cut || entry.kind() != Kind::NxDomain {
            return;
        }
        let (answers, authorities) = entry.records(now, Age::Fresh);
        let nothing = Wanted { qtype: TYPE_ANY_AT_ALL, ..wanted.clone() };
        let copy = Entry::new(&parts(&nothing, Kind::NxDomain, Vec::new(), authorities), now, entry.ttl());
        if let (true, Some(key), Some(copy)) = (answers.is_empty(), cut_key(route, &wanted.wire, wanted), copy) {
            self.cache.insert(&key, Arc::new(copy));
        }
    }
}

fn cut_key(route: &Route, name: &[u8], wanted: &Wanted) -> Option<Key> {
    Key::new(route.id, name, TYPE_ANY_AT_ALL, wanted.qclass, wanted.dnssec_ok, wanted.checking_disabled)
}
