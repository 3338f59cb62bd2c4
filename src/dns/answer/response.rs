//! Writes what a look-up found.

use std::net::IpAddr;

use super::{Context, Forward, Outcome, Reply, View};
use crate::{
    dns::{ServedFrom, Transport, pins::Pin},
    wire::{EdeCode, NameRef, Query, Rcode, Rdata, ResponseWriter, Rrset, Rtype, Section, TCP_BYTES_MAX, WriteError},
    zone::{Apex, Chain, ChainEnd, Data, RrSet, STALE_TTL_MAX, Zone, ZoneName},
};

#[inline]
pub(super) fn hit(
    context: &Context,
    view: &View<'_>,
    query: &Query<'_>,
    transport: Transport,
    out: &mut [u8],
    set: &RrSet<'_>,
) -> Result<Outcome, WriteError> {
    let mut response = Response::new(context, view, query, transport, out);
    response.set(Section::Answer, NameRef::QUESTION, set)?;
    response.additional(set)?;
    Ok(response.reply(Rcode::NOERROR))
}

/// An answer that there is nothing: the SOA says for how long (RFC 2308).
#[inline]
pub(super) fn negative(
    context: &Context,
    view: &View<'_>,
    query: &Query<'_>,
    transport: Transport,
    out: &mut [u8],
    (rcode, apex): (Rcode, Apex),
) -> Result<Outcome, WriteError> {
    let mut response = Response::new(context, view, query, transport, out);
    response.soa(apex)?;
    Ok(response.reply(rcode))
}

/// An answer that begins with aliases.
pub(super) fn alias(
    context: &Context,
    view: &View<'_>,
    query: &Query<'_>,
    transport: Transport,
    out: &mut [u8],
    chain: &Chain<'_>,
) -> Result<Outcome, WriteError> {
    let mut response = Response::new(context, view, query, transport, out);
    let mut owner = NameRef::QUESTION;
    for (target, set) in chain.targets().zip(chain.sets()) {
        response.set(Section::Answer, owner, &set)?;
        owner = NameRef::dotted(target);
    }
    match chain.end() {
        ChainEnd::Hit(set) => response.set(Section::Answer, owner, &set)?,
        ChainEnd::NoData => response.soa(Apex::Cluster)?,
        ChainEnd::NxDomain => {
            response.soa(Apex::Cluster)?;
            return Ok(response.reply(Rcode::NXDOMAIN));
        }
        // Over TCP the client asks again, and upstream is asked then.
        ChainEnd::Outside if response.writer.truncated() => {}
        ChainEnd::Outside => return Ok(Outcome::Forward(Forward::Chase { len: response.finish(Rcode::NOERROR) })),
        ChainEnd::Asked | ChainEnd::Looped => {}
    }
    Ok(response.reply(Rcode::NOERROR))
}

/// An answer an operator pinned; none for types that are not.
#[cold]
pub(super) fn pinned(
    context: &Context,
    view: &View<'_>,
    query: &Query<'_>,
    transport: Transport,
    out: &mut [u8],
    pin: &Pin,
) -> Result<Option<Outcome>, WriteError> {
    if query.qtype != Rtype::A && query.qtype != Rtype::AAAA {
        return Ok(None);
    }
    let Response { mut writer, .. } = Response::new(context, view, query, transport, out);
    let wanted = pin.addresses.iter().filter(|ip| ip.is_ipv4() == (query.qtype == Rtype::A));
    let written = writer.rrset(Section::Answer, |rrset| {
        wanted.clone().try_for_each(|ip| match *ip {
            IpAddr::V4(ip) => rrset.put(NameRef::QUESTION, pin.ttl, Rdata::A(ip)),
            IpAddr::V6(ip) => rrset.put(NameRef::QUESTION, pin.ttl, Rdata::Aaaa(ip)),
        })
    });
    written.or_else(|error| if error == WriteError::Full { Ok(()) } else { Err(error) })?;
    let len = writer.finish(Rcode::NOERROR, true, Some(EdeCode::FORGED_ANSWER.into()));
    Ok(Some(Outcome::Reply(Reply { len, rcode: Rcode::NOERROR, from: ServedFrom::Pinned })))
}

struct Response<'o, 'c> {
    zone: &'c Zone,
    view: &'c View<'c>,
    query: &'c Query<'c>,
    writer: ResponseWriter<'o, 'c>,
    /// Where sets of several records begin.
    rotation: u32,
}

impl<'o, 'c> Response<'o, 'c> {
    #[inline]
    fn new(
        context: &'c Context,
        view: &'c View<'c>,
        query: &'c Query<'c>,
        transport: Transport,
        out: &'o mut [u8],
    ) -> Self {
        let limit = match transport {
            Transport::Udp => query.udp_limit(),
            Transport::Tcp => TCP_BYTES_MAX,
        };
        let writer = ResponseWriter::new(out, query, limit);
        Self { zone: context.zone(), view, query, writer, rotation: view.rotation.next() }
    }

    /// Writes a set. One that does not fit is no error: the client is told by TC, or can do without.
    #[inline]
    fn set(&mut self, section: Section, owner: NameRef<'_>, set: &RrSet<'_>) -> Result<(), WriteError> {
        let ttl = if self.view.stale { set.ttl().min(STALE_TTL_MAX) } else { set.ttl() };
        let (zone, rotation) = (self.zone, self.rotation);
        let written =
            self.writer.rrset(section, |rrset| set.try_each(rotation, |data| put(zone, rrset, owner, ttl, &data)));
        written.or_else(|error| if error == WriteError::Full { Ok(()) } else { Err(error) })
    }

    /// Writes what goes with a set, as far as there is room. What it costs is bound by what fits, however large the set is.
    #[inline]
    fn additional(&mut self, set: &RrSet<'_>) -> Result<(), WriteError> {
        // The client asks again over TCP, or takes what it got: nothing more is taken in.
        if self.writer.truncated() {
            return Ok(());
        }
        let zone = self.zone;
        set.try_each_additional(|owner, set| zone.with_ref(owner, |owner| self.set(Section::Additional, owner, &set)))
    }

    /// Writes the SOA of a negative answer.
    #[inline]
    fn soa(&mut self, apex: Apex) -> Result<(), WriteError> {
        let owner = NameRef::question_suffix(self.zone.labels_above(&self.query.name, apex));
        let set = self.zone.soa(self.view.snapshot.version());
        self.set(Section::Authority, owner, &set)
    }

    #[inline]
    fn reply(self, rcode: Rcode) -> Outcome {
        Outcome::Reply(Reply { len: self.finish(rcode), rcode, from: ServedFrom::Cluster })
    }

    #[inline]
    fn finish(self, rcode: Rcode) -> usize {
        self.writer.finish(rcode, true, self.view.stale.then(|| EdeCode::STALE_ANSWER.into()))
    }
}

#[inline]
fn put(
    zone: &Zone,
    rrset: &mut Rrset<'_, '_, '_>,
    owner: NameRef<'_>,
    ttl: u32,
    data: &Data<'_>,
) -> Result<(), WriteError> {
    let with =
        |name: ZoneName<'_>, write: &mut dyn FnMut(NameRef<'_>) -> Result<(), WriteError>| zone.with_ref(name, write);
    match *data {
        Data::Address(IpAddr::V4(ip)) => rrset.put(owner, ttl, Rdata::A(ip)),
        Data::Address(IpAddr::V6(ip)) => rrset.put(owner, ttl, Rdata::Aaaa(ip)),
        Data::Cname(target) => with(target, &mut |target| rrset.put(owner, ttl, Rdata::Cname(target))),
        Data::Ptr(target) => with(target, &mut |target| rrset.put(owner, ttl, Rdata::Ptr(target))),
        Data::Ns(host) => with(host, &mut |host| rrset.put(owner, ttl, Rdata::Ns(host))),
        Data::Srv { weight, port, target } => {
            with(target, &mut |target| rrset.put(owner, ttl, Rdata::Srv { priority: 0, weight, port, target }))
        }
        Data::Soa { mname, rname, serial, refresh, retry, expire, minimum } => with(mname, &mut |mname| {
            with(rname, &mut |rname| {
                rrset.put(owner, ttl, Rdata::Soa { mname, rname, serial, refresh, retry, expire, minimum })
            })
        }),
        Data::Txt(text) => rrset.put(owner, ttl, Rdata::Txt(&[text.as_bytes()])),
        Data::Hinfo { cpu, os } => rrset.put(owner, ttl, Rdata::Hinfo { cpu: cpu.as_bytes(), os: os.as_bytes() }),
    }
}
