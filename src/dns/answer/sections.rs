//! Answers of this node as records, for the resolver to put together with what upstreams say.

use std::net::IpAddr;

use hickory_proto::rr::{
    self, RData, Record,
    rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT},
};

use super::{
    local::Local,
    view::{Records, Rules},
};
use crate::{
    dns::{
        cache::Kind,
        question::{Question, record_name},
    },
    wire::{Name, Rtype},
    zone::{Apex, ChainEnd, Data, RrSet, STALE_TTL_MAX, ZoneName},
};

/// The answer and authority sections of an answer of this node.
#[derive(Clone, Debug)]
pub struct Sections {
    pub kind: Kind,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    /// The name that the last CNAME leads to, if it is outside.
    pub leads_to: Option<Name>,
}

impl Rules {
    /// The sections of an answer that needs nothing else; those of a completion are the denial that it ends in if the
    /// outside name does not exist. `None` where the records do not answer.
    pub fn sections(&self, records: &Records<'_>, question: &Question, local: &Local<'_>) -> Option<Sections> {
        let owner = question.record_name();
        let cut = |ttl: u32| if records.stale { ttl.min(STALE_TTL_MAX) } else { ttl };
        let soa = |apex| {
            let labels = question.name.labels().skip(self.zone.labels_above(&question.name, apex));
            let owner = Name::from_labels(labels).map_or_else(|_| rr::Name::root(), |name| record_name(&name));
            self.records(&owner, &self.zone.soa(records.snapshot.version()), cut)
        };
        let (mut answers, mut authorities, mut leads_to) = (Vec::new(), Vec::new(), None);
        let kind = match local {
            Local::Refused | Local::NotReady | Local::Fallback | Local::Outside => return None,
            Local::Pinned(pin) => {
                let wanted = pin.addresses.iter().filter(|ip| ip.is_ipv4() == (question.rtype == Rtype::A));
                answers.extend(wanted.map(|ip| Record::from_rdata(owner.clone(), pin.ttl, address(*ip))));
                if answers.is_empty() { Kind::NoData } else { Kind::Data }
            }
            Local::Hit(set) => {
                answers = self.records(&owner, set, cut);
                Kind::Data
            }
            Local::Designated(discovery) => {
                let exists;
                (exists, answers) = discovery.records(question, &owner);
                match (exists, answers.is_empty()) {
                    (true, false) => Kind::Data,
                    (true, true) => Kind::NoData,
                    (false, _) => Kind::NxDomain,
                }
            }
            Local::NoData(apex) => {
                authorities = soa(*apex);
                Kind::NoData
            }
            Local::NxDomain(apex) => {
                authorities = soa(*apex);
                Kind::NxDomain
            }
            Local::Completion { .. } => {
                authorities = soa(Apex::Cluster);
                Kind::NxDomain
            }
            Local::Alias(chain) => {
                let mut alias = owner;
                for (target, set) in chain.targets().zip(chain.sets()) {
                    answers.extend(self.records(&alias, &set, cut));
                    alias = self.zone.name_of(ZoneName::Target(target)).map_or(alias, |name| record_name(&name));
                }
                match chain.end() {
                    ChainEnd::Hit(set) => answers.extend(self.records(&alias, &set, cut)),
                    ChainEnd::NoData | ChainEnd::NxDomain => authorities = soa(Apex::Cluster),
                    ChainEnd::Outside => leads_to = self.zone.name_of(ZoneName::Target(chain.last())).ok(),
                    ChainEnd::Asked | ChainEnd::Looped => {}
                }
                match chain.end() {
                    ChainEnd::NxDomain => Kind::NxDomain,
                    ChainEnd::NoData => Kind::NoData,
                    ChainEnd::Hit(_) | ChainEnd::Outside | ChainEnd::Asked | ChainEnd::Looped => Kind::Data,
                }
            }
        };
        Some(Sections { kind, answers, authorities, leads_to })
    }

    fn records(&self, owner: &rr::Name, set: &RrSet<'_>, ttl: impl Fn(u32) -> u32) -> Vec<Record> {
        let mut records = Vec::new();
        let name = |name| self.zone.name_of(name).map(|name| record_name(&name));
        let filled = set.try_each(0, |data| {
            let data = match data {
                Data::Address(ip) => address(ip),
                Data::Cname(target) => RData::CNAME(CNAME(name(target)?)),
                Data::Ptr(target) => RData::PTR(PTR(name(target)?)),
                Data::Ns(host) => RData::NS(NS(name(host)?)),
                Data::Srv { weight, port, target } => RData::SRV(SRV::new(0, weight, port, name(target)?)),
                Data::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
                    let [refresh, retry, expire] = [refresh, retry, expire].map(u32::cast_signed);
                    RData::SOA(SOA::new(name(mname)?, name(rname)?, serial, refresh, retry, expire, minimum))
                }
                Data::Txt(text) => RData::TXT(TXT::new(vec![text.to_owned()])),
                Data::Hinfo { cpu, os } => RData::HINFO(HINFO::new(cpu.to_owned(), os.to_owned())),
            };
            records.push(Record::from_rdata(owner.clone(), ttl(set.ttl()), data));
            Ok::<(), crate::wire::NameError>(())
        });
        // Sources let no name through that is none.
        debug_assert!(filled.is_ok(), "{filled:?}");
        records
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}
