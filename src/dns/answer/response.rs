//! Writes what a look-up found.

use std::net::IpAddr;

use super::{Context, Forward, Outcome, Reply, View};
use crate::{
    dns::{ServedFrom, Transport, pins::Pin},
    wire::{EdeCode, NameRef, Query, Rcode, Rdata, ResponseWriter, Rrset, Rtype, Section, WriteError},
    zone::{Apex, Chain, ChainEnd, Data, RrSet, STALE_TTL_MAX, Zone, ZoneName},
};

pub(super) struct Response<'o, 'c> {
    zone: &'c Zone,
    view: &'c View<'c>,
    query: &'c Query<'c>,
    writer: ResponseWriter<'o, 'c>,
    /// Where sets of several records begin.
    rotation: u32,
}

impl<'o, 'c> Response<'o, 'c> {
    #[inline]
    pub fn new(
        context: &'c Context,
        view: &'c View<'c>,
        query: &'c Query<'c>,
        transport: Transport,
        out: &'o mut [u8],
    ) -> Self {
        let writer = ResponseWriter::new(out, query, transport.limit(query));
        Self { zone: context.zone(), view, query, writer, rotation: view.rotation.next() }
    }

    #[inline]
    pub fn hit(mut self, set: &RrSet<'_>) -> Result<Outcome, WriteError> {
        self.set(Section::Answer, NameRef::QUESTION, set)?;
        self.additional(set)?;
        Ok(self.reply(Rcode::NOERROR))
    }

    /// An answer without records: the SOA says for how long (RFC 2308).
    #[inline]
    pub fn negative(mut self, rcode: Rcode, apex: Apex) -> Result<Outcome, WriteError> {
        self.soa(apex)?;
        Ok(self.reply(rcode))
    }

    /// The denial that stands if the outside name, the first `labels` labels of the question's, does not exist.
    #[cold]
    pub fn completion(mut self, labels: usize) -> Result<Outcome, WriteError> {
        self.soa(Apex::Cluster)?;
        Ok(Outcome::Forward(Forward::Complete { len: self.finish(Rcode::NXDOMAIN), labels }))
    }

    /// An answer that begins with CNAMEs.
    pub fn alias(mut self, chain: &Chain<'_>) -> Result<Outcome, WriteError> {
        let mut owner = NameRef::QUESTION;
        for (target, set) in chain.targets().zip(chain.sets()) {
            self.set(Section::Answer, owner, &set)?;
            owner = NameRef::dotted(target);
        }
        match chain.end() {
            ChainEnd::Hit(set) => self.set(Section::Answer, owner, &set)?,
            ChainEnd::NoData => self.soa(Apex::Cluster)?,
            ChainEnd::NxDomain => {
                self.soa(Apex::Cluster)?;
                return Ok(self.reply(Rcode::NXDOMAIN));
            }
            // Over TCP the client asks again, and upstream is asked then.
            ChainEnd::Outside if self.writer.truncated() => {}
            ChainEnd::Outside => return Ok(Outcome::Forward(Forward::Chase { len: self.finish(Rcode::NOERROR) })),
            ChainEnd::Asked | ChainEnd::Looped => {}
        }
        Ok(self.reply(Rcode::NOERROR))
    }

    /// The addresses of a pin that are of the asked family.
    #[cold]
    pub fn pinned(self, pin: &Pin) -> Result<Outcome, WriteError> {
        let Self { mut writer, query, .. } = self;
        let wanted = pin.addresses.iter().filter(|ip| ip.is_ipv4() == (query.qtype == Rtype::A));
        let written = writer.rrset(Section::Answer, |rrset| {
            wanted.clone().try_for_each(|ip| match *ip {
                IpAddr::V4(ip) => rrset.put(NameRef::QUESTION, pin.ttl, Rdata::A(ip)),
                IpAddr::V6(ip) => rrset.put(NameRef::QUESTION, pin.ttl, Rdata::Aaaa(ip)),
            })
        });
        written.or_else(|error| if error == WriteError::Full { Ok(()) } else { Err(error) })?;
        let len = writer.finish(Rcode::NOERROR, true, Some(EdeCode::FORGED_ANSWER.into()));
        Ok(Outcome::Reply(Reply { len, rcode: Rcode::NOERROR, from: ServedFrom::Pinned }))
    }

    /// Writes a set. One that does not fit is no error: the client is told by TC, or can do without.
    #[inline]
    fn set(&mut self, section: Section, owner: NameRef<'_>, set: &RrSet<'_>) -> Result<(), WriteError> {
        let ttl = if self.view.records.stale { set.ttl().min(STALE_TTL_MAX) } else { set.ttl() };
        let (zone, rotation) = (self.zone, self.rotation);
        let written =
            self.writer.rrset(section, |rrset| set.try_each(rotation, |data| put(zone, rrset, owner, ttl, &data)));
        written.or_else(|error| if error == WriteError::Full { Ok(()) } else { Err(error) })
    }

    /// Writes the additional records of a set, as far as there is room. The work is bounded by the room, however large the set is.
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
        let set = self.zone.soa(self.view.records.snapshot.version());
        self.set(Section::Authority, owner, &set)
    }

    #[inline]
    fn reply(self, rcode: Rcode) -> Outcome {
        Outcome::Reply(Reply { len: self.finish(rcode), rcode, from: ServedFrom::Cluster })
    }

    #[inline]
    fn finish(self, rcode: Rcode) -> usize {
        self.writer.finish(rcode, true, self.view.records.stale.then(|| EdeCode::STALE_ANSWER.into()))
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
