//! SRV: the ports of a service, or of its endpoints, and the weights of the records.

use super::{EndpointLabel, RrSet, ZoneName, endpoints::rotated};
use crate::{
    record::{Endpoint, Kind, Port, Protocol, Service},
    wire::Rtype,
};

impl Protocol {
    /// Its label in the owner of an SRV record.
    pub(super) fn srv_label(self) -> &'static [u8] {
        match self {
            Self::Tcp => b"_tcp",
            Self::Udp => b"_udp",
            Self::Sctp => b"_sctp",
        }
    }

    /// The protocol of a lower-case label.
    pub(super) fn from_srv_label(label: &[u8]) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.srv_label() == label)
    }
}

/// The ports of a question.
#[derive(Clone, Copy, Debug)]
pub(super) enum PortFilter<'a> {
    /// All, unnamed ones too: SRV of the service's own name.
    All,
    Named(&'a str, Protocol),
}

impl<'f> PortFilter<'f> {
    /// The ports of `ports` that match.
    pub fn select<'p>(self, ports: &'p [Port]) -> impl Iterator<Item = &'p Port> + Clone + use<'p, 'f> {
        ports.iter().filter(move |port| match self {
            Self::All => true,
            Self::Named(name, protocol) => port.protocol == protocol && *port.name == *name,
        })
    }
}

/// The port lists that decide which `_port._proto` names a service has. Neighbours mostly share one list, which comes once.
fn lists(service: &Service) -> impl Iterator<Item = &[Port]> {
    let headless = matches!(service.kind(), Kind::Headless);
    let own = (!headless).then(|| service.ports());
    let endpoints: &[Endpoint] = if headless { service.endpoints() } else { &[] };
    let mut last = std::ptr::null();
    let endpoints = endpoints.iter().filter(move |endpoint| {
        endpoint.ready && std::mem::replace(&mut last, endpoint.ports.as_ptr()) != endpoint.ports.as_ptr()
    });
    own.into_iter().chain(endpoints.map(|endpoint| &*endpoint.ports))
}

pub(super) fn find<'a>(service: &'a Service, name: &[u8], protocol: Protocol) -> Option<&'a Port> {
    let is_it = |port: &&Port| port.protocol == protocol && port.name.as_bytes() == name;
    lists(service).find_map(|ports| ports.iter().filter(|port| !port.name.is_empty()).find(is_it))
}

/// Whether `_protocol` has a name below it.
pub(super) fn has_named(service: &Service, protocol: Protocol) -> bool {
    lists(service).flatten().any(|port| port.protocol == protocol && !port.name.is_empty())
}

/// The SRV records of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports<'a> {
    pub service: &'a Service,
    pub filter: PortFilter<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub weight: u16,
    pub port: u16,
    pub name: ZoneName<'a>,
}

impl<'a> Ports<'a> {
    /// True if there is a record.
    pub fn any(&self) -> bool {
        self.pairs().next().is_some()
    }

    /// Each record once, those of endpoints beginning with the one at `rotation`.
    pub fn try_each<E>(&self, rotation: u32, mut put: impl FnMut(Target<'a>) -> Result<(), E>) -> Result<(), E> {
        let weight = self.weight();
        let service = self.service;
        if let Kind::ClusterIp(_) = service.kind() {
            return self
                .distinct(service.ports())
                .try_for_each(|port| put(Target { weight, port, name: ZoneName::Service(service) }));
        }
        for index in rotated(service.endpoints().len(), rotation) {
            let endpoint = &service.endpoints()[index];
            if !endpoint.ready || endpoint.hostname.is_some() {
                continue;
            }
            let name = ZoneName::Endpoint(service, EndpointLabel::of(endpoint));
            self.distinct(&endpoint.ports).try_for_each(|port| put(Target { weight, port, name }))?;
        }
        let named = service.endpoints_by_hostname();
        for index in rotated(named.len(), rotation) {
            let endpoint = named.get(index);
            if !endpoint.ready {
                continue;
            }
            let name = ZoneName::Endpoint(service, EndpointLabel::of(endpoint));
            // Endpoints of one hostname are neighbours, and one record where they agree on the port.
            let twins = (0..index).rev().map(|before| named.get(before));
            let twins = twins.take_while(|twin| twin.hostname == endpoint.hostname).filter(|twin| twin.ready);
            for port in self.distinct(&endpoint.ports) {
                if !twins.clone().any(|twin| self.distinct(&twin.ports).any(|other| other == port)) {
                    put(Target { weight, port, name })?;
                }
            }
        }
        Ok(())
    }

    /// The addresses of the targets, a set for each target and family.
    pub fn try_each_address<E>(
        &self,
        ttl: u32,
        mut put: impl FnMut(ZoneName<'a>, RrSet<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        const FAMILIES: [Rtype; 2] = [Rtype::A, Rtype::AAAA];
        let service = self.service;
        if let Kind::ClusterIp(ips) = service.kind() {
            return FAMILIES
                .into_iter()
                .filter_map(|rtype| RrSet::addresses(ips, rtype, ttl))
                .try_for_each(|set| put(ZoneName::Service(service), set));
        }
        let has_port = |endpoint: &&Endpoint| endpoint.ready && self.filter.select(&endpoint.ports).next().is_some();
        for endpoint in service.endpoints().iter().filter(has_port) {
            if endpoint.hostname.is_none() {
                put(ZoneName::Endpoint(service, EndpointLabel::of(endpoint)), RrSet::address(endpoint.ip, ttl))?;
            }
        }
        let mut last = None;
        for endpoint in service.endpoints_by_hostname().iter().filter(has_port) {
            let Some(hostname) = endpoint.hostname.as_deref().filter(|hostname| last != Some(*hostname)) else {
                continue;
            };
            last = Some(hostname);
            let owner = ZoneName::Endpoint(service, EndpointLabel::Hostname(hostname));
            let sets = FAMILIES.into_iter().filter_map(|rtype| RrSet::hostname(service, hostname, rtype, ttl));
            sets.into_iter().try_for_each(|set| put(owner, set))?;
        }
        Ok(())
    }

    /// Every address with every port asked for, which is what the weight is shared among.
    fn pairs(&self) -> impl Iterator<Item = ()> {
        let (ips, own) = match self.service.kind() {
            Kind::ClusterIp(ips) => (ips.len(), self.service.ports()),
            Kind::Headless | Kind::ExternalName(_) => (0, &[][..]),
        };
        let own = self.filter.select(own).flat_map(move |_| (0..ips).map(|_| ()));
        let endpoints = matches!(self.service.kind(), Kind::Headless).then(|| self.service.ready_endpoints());
        let endpoints = endpoints.into_iter().flatten();
        own.chain(endpoints.flat_map(|endpoint| self.filter.select(&endpoint.ports).map(|_| ())))
    }

    fn weight(&self) -> u16 {
        let pairs = u16::try_from(self.pairs().take(101).count()).unwrap_or(u16::MAX);
        (100 / pairs.max(1)).max(1)
    }

    /// The port numbers asked for, each once: a port for TCP and one for UDP make one record.
    fn distinct<'p>(&self, ports: &'p [Port]) -> impl Iterator<Item = u16> + Clone + use<'a, 'p> {
        let asked = self.filter.select(ports);
        let earlier = asked.clone();
        asked.enumerate().filter_map(move |(index, port)| {
            let seen = earlier.clone().take(index).any(|other| other.port == port.port);
            (!seen).then_some(port.port)
        })
    }
}
