//! The cache entry behind an answer, as a document.

use serde::{Deserialize, Serialize};

use super::Time;
use crate::{
    dns::forward::{Cached, Leg},
    report::OutsideHold,
    sys::UnixMillis,
};

/// Where a cached answer came from, and how old it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CachedDoc {
    /// The forward zone whose upstreams gave the answer.
    pub zone: String,
    /// The upstreams of that zone.
    pub upstreams: Vec<String>,
    pub stored: Time,
    pub age_seconds: u64,
    /// Seconds until it expires; null if it has expired.
    pub ttl_left_seconds: Option<u64>,
    /// The answer has expired and clients get it at once, because no upstream of the zone answers. False: upstreams are asked first.
    pub served_stale: bool,
    /// Its last CNAME is resolved by the upstreams of another zone.
    pub continues: bool,
    /// Set if upstreams deny the name and this answer is served all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<OutsideHold>,
}

impl CachedDoc {
    pub(super) fn of(leg: &Leg, now: UnixMillis) -> Option<Self> {
        let Cached { stored, left, served_stale, continues, ref held } = *leg.cached.as_ref()?;
        Some(Self {
            zone: leg.zone.clone(),
            upstreams: leg.upstreams.clone(),
            stored: Time(stored),
            age_seconds: stored.age(now).as_secs(),
            ttl_left_seconds: left.map(|left| left.as_secs()),
            served_stale,
            continues,
            held: held.clone(),
        })
    }
}
