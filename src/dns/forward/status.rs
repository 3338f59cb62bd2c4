//! What `holdfast status` says of forwarding.

use std::net::SocketAddr;

use super::{Inner, Policy, upstream::UpstreamStatus};

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ForwardStatus {
    /// Every zone, the shortest name first.
    pub zones: Vec<ZoneStatus>,
    /// Answers given past their TTL since the start.
    pub stale_answers_total: u64,
    /// Questions answered SERVFAIL since the start.
    pub servfail_total: u64,
    /// Questions being asked of upstreams now.
    pub in_flight: usize,
    pub cache: CacheStatus,
    /// Listeners with forwarding of their own.
    #[serde(default)]
    pub views: Vec<ViewStatus>,
}

/// A view's forwarding. All else is counted with that of the others.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ViewStatus {
    pub listen: Vec<SocketAddr>,
    /// Every zone, the shortest name first.
    pub zones: Vec<ZoneStatus>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ZoneStatus {
    pub zone: String,
    /// How its upstreams are chosen.
    pub policy: Policy,
    /// Whether none of them answers.
    pub down: bool,
    /// Whether one of them asks us back.
    pub looped: bool,
    /// The file that is to name them and does not, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    pub upstreams: Vec<UpstreamStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheStatus {
    /// Bytes held.
    pub bytes: u64,
    pub max_bytes: u64,
    pub entries: u64,
}

/// How the zones of one forwarder are now.
pub fn zones(inner: &Inner) -> Vec<ZoneStatus> {
    let routes = inner.routes.load();
    let mut zones: Vec<ZoneStatus> = routes
        .iter()
        .map(|route| ZoneStatus {
            zone: route.config.zone.to_string(),
            policy: route.config.policy,
            down: route.is_down(),
            looped: route.upstreams().iter().any(|upstream| upstream.is_looped()),
            missing: route.missing().map(|missing| missing.to_string()),
            upstreams: route.upstreams().iter().map(|upstream| upstream.status()).collect(),
        })
        .collect();
    zones.sort_by(|one, other| (one.zone.len(), &one.zone).cmp(&(other.zone.len(), &other.zone)));
    zones
}

/// How things are now. Views are for others to add.
pub fn of(inner: &Inner) -> ForwardStatus {
    ForwardStatus {
        zones: zones(inner),
        stale_answers_total: inner.cache.metrics.stale.get(),
        servfail_total: inner.metrics().servfail.get(),
        in_flight: inner.in_flight.len(),
        cache: CacheStatus {
            bytes: inner.cache.bytes(),
            max_bytes: inner.cache.max_bytes(),
            entries: inner.cache.len(),
        },
        views: Vec::new(),
    }
}
