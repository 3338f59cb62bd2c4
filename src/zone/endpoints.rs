//! The endpoints of an answer: ready ones of one family, each address once, rotated.

use std::net::IpAddr;

use super::{EndpointLabel, address, ports::PortFilter};
use crate::{
    record::{Endpoint, Service},
    wire::Rtype,
};

/// True if an address is of the family that A or AAAA asks for.
pub(super) fn is_of(ip: IpAddr, rtype: Rtype) -> bool {
    (rtype == Rtype::A && ip.is_ipv4()) || (rtype == Rtype::AAAA && ip.is_ipv6())
}

/// The endpoints of one family; those of IPv4 sort before those of IPv6.
fn of_family(service: &Service, rtype: Rtype) -> &[Endpoint] {
    let endpoints = service.endpoints();
    let (v4, v6) = endpoints.split_at(endpoints.partition_point(|endpoint| endpoint.ip.is_ipv4()));
    match rtype {
        Rtype::A => v4,
        Rtype::AAAA => v6,
        _ => &[],
    }
}

/// The addresses of those ready endpoints that have a port of the filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints<'a> {
    pub service: &'a Service,
    /// `None`: those without ports too.
    pub port: Option<PortFilter<'a>>,
}

impl<'a> Endpoints<'a> {
    fn holds(&self, endpoint: &Endpoint) -> bool {
        endpoint.ready && self.port.is_none_or(|filter| filter.select(&endpoint.ports).next().is_some())
    }

    /// True if there is an endpoint of the family.
    pub fn any(&self, rtype: Rtype) -> bool {
        of_family(self.service, rtype).iter().any(|endpoint| self.holds(endpoint))
    }

    /// Each address of the family once, beginning with the one at `rotation`.
    pub fn try_each<E>(
        &self,
        rtype: Rtype,
        rotation: u32,
        mut put: impl FnMut(IpAddr) -> Result<(), E>,
    ) -> Result<(), E> {
        let endpoints: &'a [Endpoint] = of_family(self.service, rtype);
        for index in rotated(endpoints.len(), rotation) {
            let (before, endpoint) = (&endpoints[..index], &endpoints[index]);
            // They are sorted by address, so those with the same one are neighbours.
            let twin = |other: &&Endpoint| other.ip == endpoint.ip;
            if self.holds(endpoint) && !before.iter().rev().take_while(twin).any(|other| self.holds(other)) {
                put(endpoint.ip)?;
            }
        }
        Ok(())
    }
}

/// The indices below `len`, rotated: they begin at `rotation`, a fraction of 2³².
pub(super) fn rotated(len: usize, rotation: u32) -> impl Iterator<Item = usize> {
    let from = start(len, rotation);
    (from..len).chain(0..from)
}

/// The first index of a rotated list of `len`.
fn start(len: usize, rotation: u32) -> usize {
    usize::try_from((u64::from(rotation) * len as u64) >> 32).expect("below the length")
}

/// The name of the ready endpoints with this `label`, if there are any.
pub(super) fn find<'a>(service: &'a Service, label: &[u8]) -> Option<EndpointLabel<'a>> {
    if let Some(endpoint) = service.endpoints_named(label).find(|endpoint| endpoint.ready) {
        return Some(EndpointLabel::of(endpoint));
    }
    let ip = address::parse_dashed(label)?;
    let canonical = address::Dashed::of(ip).as_bytes() == label;
    // With a hostname its dashed name does not exist.
    let holds = |endpoint: &Endpoint| endpoint.ready && endpoint.hostname.is_none();
    (canonical && service.endpoints_at(ip).iter().any(holds)).then_some(EndpointLabel::Address(ip))
}

/// The ready endpoint that a reverse look-up of `ip` names; the one without a hostname if there are several.
pub(super) fn at(service: &Service, ip: IpAddr) -> Option<&Endpoint> {
    service.endpoints_at(ip).iter().find(|endpoint| endpoint.ready)
}

/// The ready endpoints of one hostname and family.
pub(super) fn named<'a>(
    service: &'a Service,
    hostname: &'a str,
    rtype: Rtype,
) -> impl Iterator<Item = IpAddr> + Clone + use<'a> {
    let ready = service.endpoints_named(hostname.as_bytes()).filter(|endpoint| endpoint.ready);
    ready.map(|endpoint| endpoint.ip).filter(move |ip| is_of(*ip, rtype))
}

pub(super) fn named_from<'a>(
    service: &'a Service,
    hostname: &'a str,
    rtype: Rtype,
    rotation: u32,
) -> impl Iterator<Item = IpAddr> + use<'a> {
    let ips = named(service, hostname, rtype);
    let from = start(ips.clone().count(), rotation);
    ips.clone().skip(from).chain(ips.take(from))
}
