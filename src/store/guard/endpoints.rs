//! Endpoints that go, and services that are served with some they lost.

use std::{collections::HashSet, mem::discriminant, net::IpAddr};

use crate::record::{Endpoint, Service};

/// The endpoints that were answered before and are not now, but for those that are held already.
pub(super) fn lost(before: &Service, after: &Service, kept: &[Endpoint]) -> Vec<Endpoint> {
    if discriminant(before.kind()) != discriminant(after.kind()) {
        return Vec::new();
    }
    let kept: HashSet<IpAddr> = kept.iter().map(|endpoint| endpoint.ip).collect();
    let gone = before.ready_endpoints().filter(|endpoint| !is_ready_at(after, endpoint.ip));
    gone.filter(|endpoint| !kept.contains(&endpoint.ip)).cloned().collect()
}

/// Whether the service answers with this address.
pub(super) fn is_ready_at(service: &Service, ip: IpAddr) -> bool {
    service.endpoints_at(ip).iter().any(|endpoint| endpoint.ready)
}

/// The service with these endpoints in place of its own at the same addresses.
pub(super) fn with_endpoints(service: &Service, kept: &[Endpoint]) -> Service {
    let ips: HashSet<IpAddr> = kept.iter().map(|endpoint| endpoint.ip).collect();
    let own = service.endpoints().iter().filter(|own| !ips.contains(&own.ip));
    let endpoints = own.chain(kept).cloned().collect();
    Service::new(service.key().clone(), service.kind().clone(), service.ports().to_vec(), endpoints)
}
