//! Every RRset of the zone, for a zone file or a table. It sorts and allocates: never used for answers.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    EndpointLabel, ReverseName, RrSet, Zone, ZoneName, alias,
    endpoints::Endpoints,
    ports::{PortFilter, Ports},
};
use crate::{
    record::{Kind, Port, Service, Snapshot},
    wire::Rtype,
};

const FAMILIES: [Rtype; 2] = [Rtype::A, Rtype::AAAA];

impl Zone {
    /// Every set of the cluster zone with its owner, as [`Zone::lookup`] finds it: SOA and NS first, then services by
    /// namespace and name, each with the names below it.
    ///
    /// Names of pods are left out: with `pods: insecure` every address has one in every namespace.
    pub fn for_each_set<'a>(&'a self, snapshot: &'a Snapshot, mut put: impl FnMut(ZoneName<'a>, RrSet<'a>)) {
        put(ZoneName::Apex, self.soa(snapshot.version()));
        put(ZoneName::Apex, self.ns());
        let glue = FAMILIES.into_iter().filter_map(|rtype| RrSet::addresses(self.name_servers(), rtype, self.ttl()));
        glue.for_each(|set| put(ZoneName::NameServer, set));
        put(ZoneName::Version, RrSet::version());
        let mut services: Vec<&Arc<Service>> = snapshot.services().collect();
        services.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        for service in services {
            self.for_each_set_of(service, &mut put);
        }
    }

    /// Every PTR set that [`Zone::lookup`] finds, with its owner, in the order of the addresses: those in our reverse
    /// zones, or all if there are none.
    pub fn for_each_pointer<'a>(&'a self, snapshot: &'a Snapshot, mut put: impl FnMut(ZoneName<'a>, RrSet<'a>)) {
        let ours = |ip: &IpAddr| self.reverse().is_empty() || self.reverse().iter().any(|net| net.contains(ip));
        let held = snapshot.services().flat_map(|service| service.addresses()).map(|(ip, _)| ip).filter(ours);
        for ip in held.collect::<BTreeSet<IpAddr>>() {
            if let Some(set) = self.pointer(snapshot, ip) {
                put(ZoneName::Reverse(ReverseName::of(ip)), set);
            }
        }
    }

    fn for_each_set_of<'a>(&'a self, service: &'a Service, put: &mut impl FnMut(ZoneName<'a>, RrSet<'a>)) {
        let name = ZoneName::Service(service);
        let ports: Vec<&'a Port> = match service.kind() {
            Kind::ExternalName(_) => {
                if alias::target_name(service).is_some() {
                    put(name, RrSet::alias(alias::target_of(service), self.ttl()));
                }
                return;
            }
            Kind::ClusterIp(ips) => {
                let sets = FAMILIES.into_iter().filter_map(|rtype| RrSet::addresses(ips, rtype, self.ttl()));
                sets.for_each(|set| put(name, set));
                service.ports().iter().collect()
            }
            Kind::Headless => {
                let endpoints = Endpoints { service, port: None };
                let sets = FAMILIES.into_iter().filter_map(|rtype| RrSet::endpoints(endpoints, rtype, self.ttl()));
                sets.for_each(|set| put(name, set));
                service.ready_endpoints().flat_map(|endpoint| endpoint.ports.iter()).collect()
            }
        };
        let srv = |filter| RrSet::ports(Ports { service, filter }, self.ttl());
        if let Some(set) = srv(PortFilter::All) {
            put(name, set);
        }
        let mut named: Vec<&'a Port> = ports.into_iter().filter(|port| !port.name.is_empty()).collect();
        named.sort_unstable_by_key(|port| (&port.name, port.protocol));
        named.dedup_by_key(|port| (&port.name, port.protocol));
        for port in named {
            if let Some(set) = srv(PortFilter::Named(&port.name, port.protocol)) {
                put(ZoneName::Port(service, port), set);
            }
        }
        let mut hostname = None;
        let unnamed = service.ready_endpoints().filter(|endpoint| endpoint.hostname.is_none());
        let by_hostname = service.endpoints_by_hostname();
        for endpoint in unnamed.chain(by_hostname.iter().filter(|endpoint| endpoint.ready)) {
            let label = EndpointLabel::of(endpoint);
            if hostname == Some(label) {
                continue;
            }
            hostname = Some(label);
            let owner = ZoneName::Endpoint(service, label);
            let sets = FAMILIES.into_iter().filter_map(|rtype| RrSet::of_endpoint(service, label, rtype, self.ttl()));
            sets.for_each(|set| put(owner, set));
        }
    }
}
