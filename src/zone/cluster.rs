//! Names in the cluster zone, by the number of labels in front of it.

use super::{
    Compat, Pods, RrSet, Zone, address, alias,
    endpoints::{self, Endpoints, is_of},
    ports::{self, PortFilter, Ports},
};
use crate::{
    record::{Kind, Protocol, Service, Snapshot},
    wire::{Name, Rtype},
};

/// The data of a name in the zone, aliases not followed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Hit(RrSet<'a>),
    /// The service is an alias of another name.
    Alias(&'a Service),
    NoData,
    NxDomain,
    NotReady,
}

impl Zone {
    /// The data of `name`, which has `depth` labels in front of the zone.
    #[inline]
    pub(super) fn find<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        synced: bool,
        name: &Name,
        depth: usize,
        qtype: Rtype,
    ) -> Found<'a> {
        let Some(class) = depth.checked_sub(1).and_then(|last| name.label(last)) else {
            return self.apex(snapshot, qtype);
        };
        let found = match (class, depth) {
            (b"dns-version", 1) if qtype == Rtype::TXT => Found::Hit(RrSet::version()),
            (b"svc" | b"pod" | b"dns" | b"dns-version", 1) => self.no_data(qtype),
            (b"dns", 2) if name.label(0) == Some(b"ns") => self.hit(self.addresses_of_name_server(qtype), qtype),
            (b"svc" | b"pod", 2..=5) if !synced => Found::NotReady,
            (b"svc" | b"pod", 2) => self.namespace(snapshot, label(name, 0), qtype),
            (b"svc", 3) => self.service(snapshot, name, qtype),
            (b"svc", 4) => self.below_service(snapshot, name, qtype),
            (b"svc", 5) => self.port(snapshot, name, qtype),
            (b"pod", 3) => self.pod(snapshot, name, qtype),
            _ => Found::NxDomain,
        };
        // Names are denied only after the first list, and only in namespaces that the source saw.
        match found {
            Found::NxDomain if !synced => Found::NotReady,
            Found::NxDomain if snapshot.is_partial() && is_unknown(snapshot, name, class, depth) => Found::NotReady,
            found => found,
        }
    }

    fn apex<'a>(&'a self, snapshot: &'a Snapshot, qtype: Rtype) -> Found<'a> {
        match qtype {
            Rtype::SOA => Found::Hit(self.soa(snapshot.version())),
            Rtype::NS => Found::Hit(self.ns()),
            _ => self.no_data(qtype),
        }
    }

    /// A name without records of the question's type. ANY is answered with HINFO (RFC 8482, 4.2).
    #[inline]
    pub(super) fn no_data(&self, qtype: Rtype) -> Found<'_> {
        if qtype == Rtype::ANY { Found::Hit(self.any()) } else { Found::NoData }
    }

    /// A name that exists, and its records of the type if there are any.
    #[inline]
    fn hit<'a>(&'a self, set: Option<RrSet<'a>>, qtype: Rtype) -> Found<'a> {
        set.map_or_else(|| self.no_data(qtype), Found::Hit)
    }

    fn addresses_of_name_server(&self, qtype: Rtype) -> Option<RrSet<'_>> {
        RrSet::addresses(self.name_servers(), qtype, self.ttl())
    }

    fn namespace(&self, snapshot: &Snapshot, namespace: &[u8], qtype: Rtype) -> Found<'_> {
        if snapshot.has_namespace(namespace) { self.no_data(qtype) } else { Found::NxDomain }
    }

    #[inline]
    fn service<'a>(&'a self, snapshot: &'a Snapshot, name: &Name, qtype: Rtype) -> Found<'a> {
        let Some(service) = service_at(snapshot, name, 0) else { return Found::NxDomain };
        let set = match service.kind() {
            Kind::ExternalName(_) => {
                return match qtype {
                    _ if alias::target_name(service).is_none() => Found::NxDomain,
                    Rtype::A | Rtype::AAAA | Rtype::CNAME => Found::Alias(service),
                    _ => self.no_data(qtype),
                };
            }
            Kind::Headless if !has_ready(service) => return Found::NxDomain,
            _ if qtype == Rtype::SRV => RrSet::ports(Ports { service, filter: PortFilter::All }, self.ttl()),
            Kind::ClusterIp(ips) => RrSet::addresses(ips, qtype, self.ttl()),
            Kind::Headless => RrSet::endpoints(Endpoints { service, port: None }, qtype, self.ttl()),
        };
        self.hit(set, qtype)
    }

    fn below_service<'a>(&'a self, snapshot: &'a Snapshot, name: &Name, qtype: Rtype) -> Found<'a> {
        let Some(service) = service_at(snapshot, name, 1) else { return Found::NxDomain };
        if matches!(service.kind(), Kind::ExternalName(_)) {
            return Found::NxDomain;
        }
        let below = label(name, 0);
        if let Some(protocol) = Protocol::from_srv_label(below) {
            // An empty non-terminal exists (RFC 8020).
            return if ports::has_named(service, protocol) { self.no_data(qtype) } else { Found::NxDomain };
        }
        match endpoints::find(service, below) {
            Some(label) => self.hit(RrSet::of_endpoint(service, label, qtype, self.ttl()), qtype),
            None => Found::NxDomain,
        }
    }

    fn port<'a>(&'a self, snapshot: &'a Snapshot, name: &Name, qtype: Rtype) -> Found<'a> {
        let (Some(port), Some(protocol)) =
            (label(name, 0).strip_prefix(b"_"), Protocol::from_srv_label(label(name, 1)))
        else {
            return Found::NxDomain;
        };
        let Some(service) = service_at(snapshot, name, 2) else { return Found::NxDomain };
        if matches!(service.kind(), Kind::ExternalName(_)) {
            return Found::NxDomain;
        }
        let Some(port) = ports::find(service, port, protocol) else { return Found::NxDomain };
        let filter = PortFilter::Named(&port.name, protocol);
        let set = match (qtype, self.compat(), service.kind()) {
            (Rtype::SRV, ..) => RrSet::ports(Ports { service, filter }, self.ttl()),
            (_, Compat::CoreDns, Kind::ClusterIp(ips)) => RrSet::addresses(ips, qtype, self.ttl()),
            (_, Compat::CoreDns, _) => RrSet::endpoints(Endpoints { service, port: Some(filter) }, qtype, self.ttl()),
            _ => None,
        };
        self.hit(set, qtype)
    }

    /// `1-2-3-4.namespace.pod`.
    fn pod<'a>(&'a self, snapshot: &'a Snapshot, name: &Name, qtype: Rtype) -> Found<'a> {
        if self.pods() == Pods::Disabled {
            return Found::NxDomain;
        }
        match address::parse_dashed(label(name, 0)) {
            Some(ip) if snapshot.has_namespace(label(name, 1)) => {
                self.hit(is_of(ip, qtype).then(|| RrSet::address(ip, self.ttl())), qtype)
            }
            _ => Found::NxDomain,
        }
    }
}

/// Whether the name is in a namespace that the source, which saw only part of the cluster, did not list.
#[cold]
fn is_unknown(snapshot: &Snapshot, name: &Name, class: &[u8], depth: usize) -> bool {
    matches!(class, b"svc" | b"pod") && depth >= 2 && !snapshot.knows_namespace(label(name, depth - 2))
}

/// A headless service without a ready endpoint is NXDOMAIN, as the specification says: workloads poll for it.
fn has_ready(service: &Service) -> bool {
    service.ready_endpoints().next().is_some()
}

#[inline]
fn label(name: &Name, index: usize) -> &[u8] {
    name.label(index).unwrap_or_default()
}

/// The service whose name is the label at `index`, its namespace the next.
#[inline]
fn service_at<'a>(snapshot: &'a Snapshot, name: &Name, index: usize) -> Option<&'a Service> {
    snapshot.service(label(name, index + 1), label(name, index)).map(|service| &**service)
}
