//! The part of forwarding in `holdfast status`.

use super::Inner;
use crate::report::{CacheStatus, ForwardStatus, ZoneStatus};

/// The zones of one forwarder, the shortest name first.
pub fn zones(inner: &Inner) -> Vec<ZoneStatus> {
    let routes = inner.routes.load();
    let mut zones: Vec<ZoneStatus> = routes
        .iter()
        .map(|route| ZoneStatus {
            zone: route.config.zone.to_string(),
            policy: route.config.policy,
            down: route.is_down(),
            looped: route.upstreams().iter().any(|upstream| upstream.is_looped()),
            missing: route.and_next().find_map(|route| route.missing()).map(|missing| missing.to_string()),
            hosts_missing: route.names.hosts_problem(),
            weights_missing: route.names.weights_problem(),
            upstreams: (route.and_next().flat_map(|route| route.upstreams().to_vec()))
                .map(|upstream| upstream.status(inner.now()))
                .collect(),
        })
        .collect();
    zones.sort_by(|one, other| (one.zone.len(), &one.zone).cmp(&(other.zone.len(), &other.zone)));
    zones
}

/// The state now; the caller adds views and the node's hosts file.
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
        keep: inner.keep_status(),
        held_names: inner.cache.holds_len(),
        hosts_file: None,
        views: Vec::new(),
    }
}
