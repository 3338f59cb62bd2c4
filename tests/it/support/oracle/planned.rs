//! Records drawn from bytes, as we are given them and as hickory-proto should read them.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord, RecordType, rdata};
use holdfast::wire::{Name, NameRef, Rdata, Rrset, Rtype, Tail, WriteError};

use super::choices::{Choices, wire_name};

/// A name in one of the ways it can be given.
#[derive(Debug)]
pub struct GivenName {
    head: Vec<Vec<u8>>,
    tail: GivenTail,
}

#[derive(Debug)]
enum GivenTail {
    Question(usize),
    Name(Box<Name>),
    Dotted(String),
}

impl GivenName {
    fn draw(choices: &mut Choices<'_>) -> Self {
        let head = if choices.one_in(2) { choices.labels() } else { Vec::new() };
        let tail = match choices.below(4) {
            0 | 1 => GivenTail::Question(choices.below(8)),
            2 => GivenTail::Name(Name::from_labels(choices.valid_labels().iter().map(Vec::as_slice)).unwrap().into()),
            _ => {
                let plain = |label: &Vec<u8>| label.iter().all(u8::is_ascii_alphanumeric);
                let labels = choices.valid_labels().into_iter().filter(plain);
                let text: Vec<String> = labels.map(|label| String::from_utf8(label).unwrap()).collect();
                GivenTail::Dotted(text.join(".") + if choices.one_in(2) { "." } else { "" })
            }
        };
        Self { head, tail }
    }

    pub fn labels(&self, question: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let tail: Vec<Vec<u8>> = match &self.tail {
            GivenTail::Question(skip) => question.iter().skip(*skip).cloned().collect(),
            GivenTail::Name(name) => name.labels().map(<[u8]>::to_vec).collect(),
            GivenTail::Dotted(text) => {
                text.split('.').filter(|label| !label.is_empty()).map(|label| label.as_bytes().to_vec()).collect()
            }
        };
        self.head.iter().cloned().chain(tail).collect()
    }

    fn heads(&self) -> Vec<&[u8]> {
        self.head.iter().map(Vec::as_slice).collect()
    }

    fn given<'a>(&'a self, head: &'a [&'a [u8]]) -> NameRef<'a> {
        let tail = match &self.tail {
            GivenTail::Question(skip) => Tail::Question(*skip),
            GivenTail::Name(name) => Tail::Name(name),
            GivenTail::Dotted(text) => Tail::Dotted(text),
        };
        NameRef { head, tail }
    }
}

/// A record to be written.
#[derive(Debug)]
pub struct Planned {
    owner: GivenName,
    ttl: u32,
    data: PlannedData,
}

#[derive(Debug)]
enum PlannedData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Name(Rtype, GivenName),
    Soa(GivenName, GivenName, [u32; 5]),
    Srv([u16; 3], GivenName),
    Txt(Vec<Vec<u8>>),
    Hinfo(Vec<u8>, Vec<u8>),
    Raw(Vec<u8>),
}

impl Planned {
    pub fn draw(choices: &mut Choices<'_>) -> Self {
        let short = |choices: &mut Choices<'_>| {
            let len = choices.below(40);
            choices.bytes(len)
        };
        let data = match choices.below(12) {
            0 | 1 => PlannedData::A(choices.u32().into()),
            2 => PlannedData::Aaaa(Ipv6Addr::from(u128::from(choices.u32()) << 64 | u128::from(choices.u32()))),
            index @ 3..=5 => {
                PlannedData::Name([Rtype::PTR, Rtype::CNAME, Rtype::NS][index - 3], GivenName::draw(choices))
            }
            6 => {
                let numbers = [0; 5].map(|_| choices.u32());
                PlannedData::Soa(GivenName::draw(choices), GivenName::draw(choices), numbers)
            }
            7 | 8 => PlannedData::Srv([0; 3].map(|_| choices.u16()), GivenName::draw(choices)),
            9 => PlannedData::Txt((0..choices.below(4)).map(|_| short(choices)).collect()),
            10 => PlannedData::Hinfo(short(choices), short(choices)),
            _ => {
                let len = 1 + choices.below(250);
                PlannedData::Raw(choices.bytes(len))
            }
        };
        Self { owner: GivenName::draw(choices), ttl: choices.u32(), data }
    }

    pub fn put(&self, set: &mut Rrset<'_, '_, '_>) -> Result<(), WriteError> {
        let owner = self.owner.heads();
        let owner = self.owner.given(&owner);
        let mut put = |rdata: Rdata<'_>| set.put(owner, self.ttl, rdata);
        match &self.data {
            PlannedData::A(ip) => put(Rdata::A(*ip)),
            PlannedData::Aaaa(ip) => put(Rdata::Aaaa(*ip)),
            PlannedData::Name(rtype, name) => {
                let head = name.heads();
                let name = name.given(&head);
                put(match *rtype {
                    Rtype::PTR => Rdata::Ptr(name),
                    Rtype::CNAME => Rdata::Cname(name),
                    _ => Rdata::Ns(name),
                })
            }
            PlannedData::Soa(mname, rname, [serial, refresh, retry, expire, minimum]) => {
                let heads = [mname.heads(), rname.heads()];
                put(Rdata::Soa {
                    mname: mname.given(&heads[0]),
                    rname: rname.given(&heads[1]),
                    serial: *serial,
                    refresh: *refresh,
                    retry: *retry,
                    expire: *expire,
                    minimum: *minimum,
                })
            }
            PlannedData::Srv([priority, weight, port], target) => {
                let head = target.heads();
                let target = target.given(&head);
                put(Rdata::Srv { priority: *priority, weight: *weight, port: *port, target })
            }
            PlannedData::Txt(strings) => put(Rdata::Txt(&strings.iter().map(Vec::as_slice).collect::<Vec<_>>())),
            PlannedData::Hinfo(cpu, os) => put(Rdata::Hinfo { cpu, os }),
            PlannedData::Raw(rdata) => put(Rdata::Raw { rtype: Rtype(65280), rdata }),
        }
    }

    pub fn names(&self) -> Vec<&GivenName> {
        match &self.data {
            PlannedData::Name(_, name) | PlannedData::Srv(_, name) => vec![&self.owner, name],
            PlannedData::Soa(mname, rname, _) => vec![&self.owner, mname, rname],
            _ => vec![&self.owner],
        }
    }

    /// Bytes without any compression.
    pub fn bytes(&self, question: &[Vec<u8>]) -> usize {
        let names: usize = self.names().iter().map(|name| wire_name(&name.labels(question)).len()).sum();
        let data = match &self.data {
            PlannedData::A(_) => 4,
            PlannedData::Aaaa(_) => 16,
            PlannedData::Name(..) => 0,
            PlannedData::Soa(..) => 20,
            PlannedData::Srv(..) => 6,
            PlannedData::Txt(strings) => strings.iter().map(|string| 1 + string.len()).sum::<usize>().max(1),
            PlannedData::Hinfo(cpu, os) => 2 + cpu.len() + os.len(),
            PlannedData::Raw(rdata) => rdata.len(),
        };
        names + 10 + data
    }

    pub fn expected(&self, question: &[Vec<u8>]) -> HickoryRecord {
        let name = |name: &GivenName| {
            HickoryName::from_labels(name.labels(question).iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
        };
        let data = match &self.data {
            PlannedData::A(ip) => RData::A(rdata::A(*ip)),
            PlannedData::Aaaa(ip) => RData::AAAA(rdata::AAAA(*ip)),
            PlannedData::Name(Rtype::PTR, target) => RData::PTR(rdata::PTR(name(target))),
            PlannedData::Name(Rtype::CNAME, target) => RData::CNAME(rdata::CNAME(name(target))),
            PlannedData::Name(_, target) => RData::NS(rdata::NS(name(target))),
            PlannedData::Soa(mname, rname, [serial, times @ .., minimum]) => {
                let [refresh, retry, expire] = times.map(u32::cast_signed);
                RData::SOA(rdata::SOA::new(name(mname), name(rname), *serial, refresh, retry, expire, *minimum))
            }
            PlannedData::Srv([priority, weight, port], target) => {
                RData::SRV(rdata::SRV::new(*priority, *weight, *port, name(target)))
            }
            // A TXT record has at least one string.
            PlannedData::Txt(strings) if strings.is_empty() => RData::TXT(rdata::TXT::from_bytes(vec![b""])),
            PlannedData::Txt(strings) => {
                RData::TXT(rdata::TXT::from_bytes(strings.iter().map(Vec::as_slice).collect()))
            }
            PlannedData::Hinfo(cpu, os) => {
                RData::HINFO(rdata::HINFO::from_bytes(cpu.clone().into(), os.clone().into()))
            }
            PlannedData::Raw(bytes) => {
                let rdata = rdata::NULL::with(bytes.clone());
                RData::Unknown { code: RecordType::Unknown(65280), rdata }
            }
        };
        HickoryRecord::from_rdata(name(&self.owner), self.ttl, data)
    }
}
