//! How clients find our encrypted transports: discovery of designated resolvers (DDR, RFC 9462) by SVCB records (RFC 9461).
//!
//! Owns the names of `resolver.arpa` and `_dns.NAME` of each name in our certificate. Both are answered here even if nothing
//! encrypted is served: an upstream that answers in our place would lead clients past us (RFC 9462, 6.4).

use std::net::{IpAddr, SocketAddr};

use hickory_proto::{
    rr::{self, RData, Record, RecordType},
    serialize::binary::{BinDecoder, Restrict},
};

use super::{Question, Transport};
use crate::wire::{Name, NameRef, Query, Rcode, Rdata, ResponseWriter, Rtype, Section};

/// TTL of the records, in seconds; the listeners change with a restart only.
const TTL: u32 = 60;
/// The keys of an SVCB record's parameters (RFC 9460, 14.3.2; RFC 9461, 5).
const KEY_ALPN: u16 = 1;
const KEY_PORT: u16 = 3;
const KEY_IPV4_HINT: u16 = 4;
const KEY_IPV6_HINT: u16 = 6;
const KEY_DOHPATH: u16 = 7;

/// The URI template of DoH (RFC 8484, 3).
const DOHPATH: &[u8] = b"/dns-query{?dns}";

/// The announced encrypted transports.
#[derive(Clone, Debug)]
pub struct Discovery {
    arpa: Name,
    designated: Name,
    /// `_dns.NAME` of each name.
    by_name: Vec<Name>,
    /// Data of the SVCB records: one for each transport and port, the preferred first.
    records: Vec<Vec<u8>>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self::new(&[], &[])
    }
}

impl Discovery {
    /// Announces the `listeners` under `names`, which are in their certificate.
    ///
    /// Without a name nothing is announced: a client has to find the announced name in the certificate (RFC 9462, 4.2).
    pub fn new(listeners: &[(Transport, SocketAddr)], names: &[String]) -> Self {
        let name = |text: String| Name::from_labels(text.split('.').map(str::as_bytes)).ok();
        let arpa = name("resolver.arpa".into()).expect("a name");
        let designated = name("_dns.resolver.arpa".into()).expect("a name");
        let target = names.iter().find_map(|host| name(host.clone()));
        let records = target.map(|target| records(listeners, &target)).unwrap_or_default();
        let by_name = names.iter().filter_map(|host| name(format!("_dns.{host}"))).collect();
        Self { arpa, designated, by_name: if records.is_empty() { Vec::new() } else { by_name }, records }
    }

    /// Whether a question is answered here and never by upstreams.
    #[inline]
    pub fn owns(&self, name: &Name, rtype: Rtype) -> bool {
        name.labels_above(&self.arpa).is_some() || (rtype == Rtype::SVCB && self.by_name.contains(name))
    }

    /// Whether the name of an [owned](Self::owns) question exists, and whether it has records of that type.
    fn finds(&self, name: &Name, rtype: Rtype) -> (bool, bool) {
        let exists = *name == self.arpa || *name == self.designated || self.by_name.contains(name);
        (exists, exists && *name != self.arpa && rtype == Rtype::SVCB && !self.records.is_empty())
    }

    /// The answer to an [owned](Self::owns) question as records: whether the name exists, and the answer section.
    pub(super) fn records(&self, question: &Question, owner: &rr::Name) -> (bool, Vec<Record>) {
        let (exists, has_records) = self.finds(&question.name, question.rtype);
        let record = |rdata: &Vec<u8>| {
            let length = u16::try_from(rdata.len()).ok()?;
            let data = RData::read(&mut BinDecoder::new(rdata), RecordType::SVCB, Restrict::new(length)).ok()?;
            Some(Record::from_rdata(owner.clone(), TTL, data))
        };
        let answers = if has_records { self.records.iter().filter_map(record).collect() } else { Vec::new() };
        (exists, answers)
    }

    /// Writes the answer to a query that is [owned](Self::owns), at most `limit` bytes. Returns its length and rcode.
    pub(super) fn answer(&self, query: &Query<'_>, limit: usize, out: &mut [u8]) -> (usize, Rcode) {
        let mut writer = ResponseWriter::new(out, query, limit);
        let (exists, has_records) = self.finds(&query.name, query.qtype);
        if has_records {
            // A set that does not fit sets TC.
            let _ = writer.rrset(Section::Answer, |set| {
                let svcb = |rdata| Rdata::Raw { rtype: Rtype::SVCB, rdata };
                self.records.iter().try_for_each(|rdata| set.put(NameRef::QUESTION, TTL, svcb(rdata)))
            });
            return (writer.finish(Rcode::NOERROR, true, None), Rcode::NOERROR);
        }
        let apex = query.name.labels_above(&self.arpa).unwrap_or(0);
        let _ = writer.rrset(Section::Authority, |set| {
            let mname = NameRef::question_suffix(apex);
            let soa = Rdata::Soa {
                mname,
                rname: mname,
                serial: 1,
                refresh: 7_200,
                retry: 1_800,
                expire: 86_400,
                minimum: TTL,
            };
            set.put(mname, TTL, soa)
        });
        let rcode = if exists { Rcode::NOERROR } else { Rcode::NXDOMAIN };
        (writer.finish(rcode, true, None), rcode)
    }
}

/// The data of one record for each transport and port, with the addresses it is reached at.
fn records(listeners: &[(Transport, SocketAddr)], target: &Name) -> Vec<Vec<u8>> {
    let mut ends: Vec<(Transport, u16)> = listeners.iter().map(|(transport, at)| (*transport, at.port())).collect();
    ends.dedup();
    ends.iter()
        .enumerate()
        .map(|(place, &(transport, port))| {
            let at = |v4| {
                let here = listeners
                    .iter()
                    .filter(move |(other, at)| (*other, at.port()) == (transport, port) && at.is_ipv4() == v4);
                here.map(|(_, at)| at.ip()).filter(|ip| !ip.is_unspecified())
            };
            let hints = |v4| -> Vec<u8> {
                at(v4)
                    .flat_map(|ip| match ip {
                        IpAddr::V4(ip) => ip.octets().to_vec(),
                        IpAddr::V6(ip) => ip.octets().to_vec(),
                    })
                    .collect()
            };
            let alpn: &[u8] = match transport {
                Transport::Https => b"\x02h2",
                Transport::Quic => b"\x03doq",
                _ => b"\x03dot",
            };
            let mut rdata = u16::try_from(place + 1).unwrap_or(u16::MAX).to_be_bytes().to_vec();
            rdata.extend_from_slice(target.wire());
            let mut parameter = |key: u16, value: &[u8]| {
                let Ok(length) = u16::try_from(value.len()) else { return };
                if length > 0 {
                    rdata.extend(key.to_be_bytes());
                    rdata.extend(length.to_be_bytes());
                    rdata.extend_from_slice(value);
                }
            };
            // In the order of their keys (RFC 9460, 2.2).
            parameter(KEY_ALPN, alpn);
            parameter(KEY_PORT, &port.to_be_bytes());
            parameter(KEY_IPV4_HINT, &hints(true));
            parameter(KEY_IPV6_HINT, &hints(false));
            parameter(KEY_DOHPATH, if transport == Transport::Https { DOHPATH } else { &[] });
            rdata
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, ResponseCode},
        rr::{RData, RecordType},
    };

    use super::*;
    use crate::wire::{Parsed, parse};

    const LISTENERS: [(Transport, &str); 4] = [
        (Transport::Tls, "169.254.20.10:853"),
        (Transport::Tls, "[fd00::10]:853"),
        (Transport::Https, "169.254.20.10:443"),
        (Transport::Quic, "169.254.20.10:8853"),
    ];

    fn discovery(listeners: &[(Transport, &str)], names: &[&str]) -> Discovery {
        let listeners: Vec<_> = listeners.iter().map(|(transport, at)| (*transport, at.parse().unwrap())).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Discovery::new(&listeners, &names)
    }

    /// The answer's rcode and its records as text; `None` if the name is not answered here.
    fn ask(discovery: &Discovery, name: &str, rtype: RecordType) -> Option<(ResponseCode, Vec<String>)> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(hickory_proto::op::Query::query(name.parse().unwrap(), rtype));
        let bytes = message.to_vec().unwrap();
        let Parsed::Query(query) = parse(&bytes) else { panic!("a query") };
        if !discovery.owns(&query.name, query.qtype) {
            return None;
        }
        let mut out = [0; 1232];
        let (length, _) = discovery.answer(&query, 1232, &mut out);
        let answer = Message::from_vec(&out[..length]).unwrap();
        let svcb = |record: &Record| match &record.data {
            RData::SVCB(svcb) => svcb.to_string(),
            other => other.to_string(),
        };
        assert_eq!(answer.answers.is_empty(), answer.authorities.len() == 1, "an SOA if and only if there is nothing");
        Some((answer.metadata.response_code, answer.answers.iter().map(svcb).collect()))
    }

    #[test]
    fn each_transport_is_told_of_with_its_port_and_addresses() {
        let discovery = discovery(&LISTENERS, &["dns.example", "dns2.example"]);
        for name in ["_dns.resolver.arpa.", "_DNS.Resolver.ARPA.", "_dns.dns.example.", "_dns.dns2.example."] {
            let (rcode, records) = ask(&discovery, name, RecordType::SVCB).unwrap();
            assert_eq!(rcode, ResponseCode::NoError);
            assert_eq!(records.len(), 3, "{records:?}");
            for (record, words) in records.iter().zip([
                ["1 dns.example. ", "alpn=\"dot\"", "port=853", "ipv4hint=\"169.254.20.10\"", "fd00::10"],
                ["2 dns.example. ", "alpn=\"h2\"", "port=443", "169.254.20.10", "/dns-query{?dns}"],
                ["3 dns.example. ", "alpn=\"doq\"", "port=8853", "169.254.20.10", ""],
            ]) {
                for word in words {
                    let (record, word) = (record.replace('"', ""), word.replace('"', ""));
                    assert!(record.contains(&word), "{word} in {record}");
                }
            }
        }
    }

    #[test]
    fn without_listeners_or_a_name_there_is_nothing_and_nobody_else_is_asked() {
        for discovery in [discovery(&[], &["dns.example"]), discovery(&LISTENERS, &[])] {
            let (rcode, records) = ask(&discovery, "_dns.resolver.arpa.", RecordType::SVCB).unwrap();
            assert_eq!((rcode, records.len()), (ResponseCode::NoError, 0));
            assert_eq!(ask(&discovery, "_dns.dns.example.", RecordType::SVCB), None);
        }
    }

    #[test]
    fn other_types_are_nodata_and_other_names_below_do_not_exist() {
        let discovery = discovery(&LISTENERS, &["dns.example"]);
        for (name, rtype, rcode) in [
            ("_dns.resolver.arpa.", RecordType::A, ResponseCode::NoError),
            ("resolver.arpa.", RecordType::SOA, ResponseCode::NoError),
            ("resolver.arpa.", RecordType::SVCB, ResponseCode::NoError),
            ("a.resolver.arpa.", RecordType::SVCB, ResponseCode::NXDomain),
        ] {
            assert_eq!(ask(&discovery, name, rtype).unwrap(), (rcode, vec![]), "{name}");
        }
        for name in ["arpa.", "dns.example.", "1.resolver-arpa.", "_dns.other.example."] {
            assert_eq!(ask(&discovery, name, RecordType::SVCB), None, "{name}");
        }
    }
}
