//! What the cache holds for a name outside the cluster, as a document.

use serde::{Deserialize, Serialize};

use super::{Answer, Outcome, Record, Time};
use crate::wire::{Name, Rcode, Rtype};

/// Looks a name and a type up in a cache.
pub type FindCached = dyn Fn(&Name, Rtype) -> Option<Cached> + Send + Sync;

/// An answer in the cache, of whoever holds the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// How it ends: with records, or one of the two negative ways.
    pub outcome: Outcome,
    /// The answer section, with the TTLs a client would get.
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    /// Where it came from and how old it is.
    pub doc: CachedDoc,
}

/// Where a cached answer came from, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedDoc {
    /// The zone of `forward` whose upstreams gave it.
    pub zone: String,
    /// The upstreams of that zone.
    pub upstreams: Vec<String>,
    pub stored: Time,
    /// The time since then.
    pub age_seconds: u64,
    /// What is left of its TTL; null past it.
    pub ttl_left_seconds: Option<u64>,
    /// Past its TTL, whether clients get it at once, because no upstream of the zone answers. Else upstreams are asked first.
    pub served_stale: bool,
    /// Whether its last alias is followed over the upstreams of another zone.
    pub continues: bool,
}

impl Cached {
    /// The answer to a question of this type.
    pub(super) fn into_answer(self, rtype: Rtype) -> Answer {
        let denied = self.outcome == Outcome::NoSuchName;
        let stale = if denied { "19 (Stale NXDOMAIN Answer)" } else { "3 (Stale Answer)" };
        Answer {
            rtype: rtype.to_string(),
            outcome: self.outcome,
            rcode: Some(if denied { Rcode::NXDOMAIN } else { Rcode::NOERROR }.to_string()),
            answer: self.answer,
            authority: self.authority,
            additional: vec![],
            extended_error: self.doc.served_stale.then(|| stale.to_owned()),
            cached: Some(self.doc),
        }
    }
}
