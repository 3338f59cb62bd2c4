//! RRsets: borrowed from the snapshot, each record made only when it is read.

use std::net::IpAddr;

use super::{
    EndpointLabel, VERSION_TTL, Zone, ZoneName,
    endpoints::{self, Endpoints, is_of},
    ports::Ports,
};
use crate::{
    record::{Service, Snapshot, Version},
    wire::Rtype,
};

/// The records of one name and type. Never empty.
#[derive(Clone, Copy, Debug)]
pub struct RrSet<'a> {
    rtype: Rtype,
    ttl: u32,
    source: Source<'a>,
}

/// Where the records come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// The addresses of the type's family.
    Addresses(&'a [IpAddr]),
    Address(IpAddr),
    Endpoints(Endpoints<'a>),
    /// The ready endpoints with a hostname.
    Hostname(&'a Service, &'a str),
    Ports(Ports<'a>),
    Alias(&'a str),
    ServicePointer(&'a Service),
    /// A name for each service that holds the address with a ready endpoint.
    EndpointPointers(&'a Snapshot, IpAddr),
    Soa {
        serial: u32,
        minimum: u32,
    },
    NameServer(&'a [IpAddr]),
    Version,
    Any,
}

/// The data of one record.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Address(IpAddr),
    Cname(ZoneName<'a>),
    Ptr(ZoneName<'a>),
    /// SRV; the priority is 0.
    Srv {
        /// Share among the records of the set.
        weight: u16,
        port: u16,
        target: ZoneName<'a>,
    },
    /// SOA; times in seconds. The zone cannot be transferred, so only the minimum has a meaning.
    Soa {
        mname: ZoneName<'a>,
        /// The mailbox of the administrator.
        rname: ZoneName<'a>,
        serial: u32,
        /// For secondaries, of which there are none.
        refresh: u32,
        /// For secondaries, of which there are none.
        retry: u32,
        /// For secondaries, of which there are none.
        expire: u32,
        /// How long a negative answer may be cached.
        minimum: u32,
    },
    Ns(ZoneName<'a>),
    Txt(&'static str),
    /// HINFO in answer to ANY (RFC 8482, 4.2).
    Hinfo {
        cpu: &'static str,
        /// Empty.
        os: &'static str,
    },
}

impl<'a> RrSet<'a> {
    /// The type of its records.
    pub fn rtype(&self) -> Rtype {
        self.rtype
    }

    /// The TTL of its records, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    pub(super) fn new(rtype: Rtype, ttl: u32, source: Source<'a>) -> Self {
        Self { rtype, ttl, source }
    }

    /// The addresses of one family, if there are any.
    pub(super) fn addresses(ips: &'a [IpAddr], rtype: Rtype, ttl: u32) -> Option<Self> {
        ips.iter().any(|ip| is_of(*ip, rtype)).then(|| Self::new(rtype, ttl, Source::Addresses(ips)))
    }

    pub(super) fn address(ip: IpAddr, ttl: u32) -> Self {
        Self::new(if ip.is_ipv4() { Rtype::A } else { Rtype::AAAA }, ttl, Source::Address(ip))
    }

    /// The addresses of one hostname and family, if there are any.
    pub(super) fn hostname(service: &'a Service, hostname: &'a str, rtype: Rtype, ttl: u32) -> Option<Self> {
        let any = endpoints::named(service, hostname, rtype).next().is_some();
        any.then(|| Self::new(rtype, ttl, Source::Hostname(service, hostname)))
    }

    /// The addresses of one family that the name of an endpoint has, if there are any.
    pub(super) fn of_endpoint(service: &'a Service, label: EndpointLabel<'a>, rtype: Rtype, ttl: u32) -> Option<Self> {
        match label {
            EndpointLabel::Hostname(hostname) => Self::hostname(service, hostname, rtype, ttl),
            EndpointLabel::Address(ip) => is_of(ip, rtype).then(|| Self::address(ip, ttl)),
        }
    }

    /// The addresses of the endpoints of one family, if there are any.
    pub(super) fn endpoints(endpoints: Endpoints<'a>, rtype: Rtype, ttl: u32) -> Option<Self> {
        endpoints.any(rtype).then(|| Self::new(rtype, ttl, Source::Endpoints(endpoints)))
    }

    pub(super) fn ports(ports: Ports<'a>, ttl: u32) -> Option<Self> {
        ports.any().then(|| Self::new(Rtype::SRV, ttl, Source::Ports(ports)))
    }

    /// The version of the specification.
    pub(super) fn version() -> Self {
        Self::new(Rtype::TXT, VERSION_TTL, Source::Version)
    }

    pub(super) fn alias(target: &'a str, ttl: u32) -> Self {
        Self::new(Rtype::CNAME, ttl, Source::Alias(target))
    }

    /// Hands the data of each record to `put`, until it fails.
    ///
    /// Sets of several endpoints begin with the one at `rotation`, a fraction of 2³² of their number: moving it from answer
    /// to answer shares the load among them.
    ///
    /// # Errors
    /// The error of `put`.
    #[inline]
    pub fn try_each<E>(&self, rotation: u32, mut put: impl FnMut(Data<'a>) -> Result<(), E>) -> Result<(), E> {
        match self.source {
            Source::Addresses(ips) => {
                ips.iter().filter(|ip| is_of(**ip, self.rtype)).try_for_each(|ip| put(Data::Address(*ip)))
            }
            Source::Address(ip) => put(Data::Address(ip)),
            Source::Endpoints(endpoints) => endpoints.try_each(self.rtype, rotation, |ip| put(Data::Address(ip))),
            Source::Hostname(service, hostname) => {
                endpoints::named_from(service, hostname, self.rtype, rotation).try_for_each(|ip| put(Data::Address(ip)))
            }
            Source::Ports(ports) => ports.try_each(rotation, |target| {
                put(Data::Srv { weight: target.weight, port: target.port, target: target.name })
            }),
            Source::Alias(target) => put(Data::Cname(ZoneName::Target(target))),
            Source::ServicePointer(service) => put(Data::Ptr(ZoneName::Service(service))),
            Source::EndpointPointers(snapshot, ip) => pointers(snapshot, ip).try_for_each(|name| put(Data::Ptr(name))),
            Source::Soa { serial, minimum } => put(Data::Soa {
                mname: ZoneName::NameServer,
                rname: ZoneName::Hostmaster,
                serial,
                refresh: 7200,
                retry: 1800,
                expire: 86_400,
                minimum,
            }),
            Source::NameServer(_) => put(Data::Ns(ZoneName::NameServer)),
            Source::Version => put(Data::Txt("1.1.0")),
            Source::Any => put(Data::Hinfo { cpu: "RFC8482", os: "" }),
        }
    }

    /// Hands the sets that belong into the additional section, with their owners, to `put`, until it fails: the
    /// addresses of SRV targets and of the name server.
    ///
    /// # Errors
    /// The error of `put`.
    pub fn try_each_additional<E>(
        &self,
        mut put: impl FnMut(ZoneName<'a>, RrSet<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.source {
            Source::Ports(ports) => ports.try_each_address(self.ttl, put),
            Source::NameServer(ips) => [Rtype::A, Rtype::AAAA]
                .into_iter()
                .filter_map(|rtype| RrSet::addresses(ips, rtype, self.ttl))
                .try_for_each(|set| put(ZoneName::NameServer, set)),
            _ => Ok(()),
        }
    }
}

/// The names an endpoint's address points to: one for each service that holds it, by a ready endpoint.
pub(super) fn pointers(snapshot: &Snapshot, ip: IpAddr) -> impl Iterator<Item = ZoneName<'_>> {
    snapshot.holders(ip).iter().filter(|holder| !holder.cluster_ip).filter_map(move |holder| {
        let service = snapshot.service_by_key(&holder.service)?;
        let endpoint = endpoints::at(service, ip)?;
        Some(ZoneName::Endpoint(service, EndpointLabel::of(endpoint)))
    })
}

impl Zone {
    /// The SOA of every zone we answer for: the owner differs, the data do not.
    pub fn soa(&self, version: &Version) -> RrSet<'static> {
        // Rises with every change and every epoch, up to 16 million changes in an epoch.
        let serial = version.epoch.wrapping_shl(24).wrapping_add(version.rev) & u64::from(u32::MAX);
        let serial = u32::try_from(serial).expect("masked to 32 bits");
        RrSet::new(Rtype::SOA, self.ttl(), Source::Soa { serial, minimum: self.ttl() })
    }

    pub(super) fn ns(&self) -> RrSet<'_> {
        RrSet::new(Rtype::NS, self.ttl(), Source::NameServer(self.name_servers()))
    }

    pub(super) fn any(&self) -> RrSet<'static> {
        RrSet::new(Rtype::HINFO, self.ttl(), Source::Any)
    }
}
