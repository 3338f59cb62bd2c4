//! Hosts of a zone: names and addresses in the form of a hosts file.
//!
//! For names outside the cluster only: those of the cluster are answered before.

use std::{collections::HashMap, io, net::IpAddr, path::Path};

use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, PTR},
};

use crate::{
    dns::{
        cache::Kind,
        question::{Question, question_name},
    },
    sys::read_file,
    wire::{self, Rtype},
};

/// Longer files are no hosts files.
const BYTES_MAX: u64 = 4 << 20;
/// Names of one address in a reverse lookup: more do not fit an answer.
const REVERSE_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    /// Its names, the first one for the reverse lookup.
    pub names: Vec<Name>,
}

/// Hosts by name and by address.
#[derive(Debug, Default)]
pub struct Hosts {
    by_name: HashMap<wire::Name, Vec<IpAddr>>,
    by_reverse: HashMap<wire::Name, Vec<Name>>,
}

impl Hosts {
    /// Inline lines and those of `file`, in the format of `/etc/hosts`; with `reverse`, their addresses have names too.
    ///
    /// # Errors
    /// If the file cannot be read or is over 4 MiB.
    pub fn new(lines: &[Host], file: Option<&Path>, reverse: bool) -> io::Result<Self> {
        let mut hosts = Self::default();
        for host in lines {
            hosts.add(host, reverse);
        }
        if let Some(path) = file {
            let bytes = read_file(path, BYTES_MAX)?;
            // Comments may be in any character set.
            String::from_utf8_lossy(&bytes).lines().filter_map(parse_line).for_each(|host| hosts.add(&host, reverse));
        }
        Ok(hosts)
    }

    fn add(&mut self, host: &Host, reverse: bool) {
        for name in &host.names {
            let addresses = self.by_name.entry(question_name(name)).or_default();
            if !addresses.contains(&host.address) {
                addresses.push(host.address);
            }
        }
        if reverse {
            let known = self.by_reverse.entry(question_name(&Name::from(host.address))).or_default();
            for name in &host.names {
                if !known.contains(name) && known.len() < REVERSE_MAX {
                    known.push(name.clone());
                }
            }
        }
    }

    pub fn holds(&self, name: &wire::Name, rtype: Rtype) -> bool {
        match rtype {
            Rtype::PTR => self.by_reverse.contains_key(name),
            _ => self.by_name.contains_key(name),
        }
    }

    /// The records that answer `question`, with this TTL; `None` if the name has no host of the type's kind.
    pub fn find(&self, question: &Question, ttl: u32) -> Option<(Kind, Vec<Record>)> {
        let data: Vec<RData> = match question.rtype {
            Rtype::PTR => {
                self.by_reverse.get(&question.name)?.iter().map(|name| RData::PTR(PTR(name.clone()))).collect()
            }
            Rtype::A | Rtype::AAAA => {
                let data = self.by_name.get(&question.name)?.iter().filter_map(|ip| match (ip, question.rtype) {
                    (IpAddr::V4(ip), Rtype::A) => Some(RData::A(A(*ip))),
                    (IpAddr::V6(ip), Rtype::AAAA) => Some(RData::AAAA(AAAA(*ip))),
                    _ => None,
                });
                data.collect()
            }
            // A host has no other records, and no upstream has them for it.
            _ => self.by_name.contains_key(&question.name).then(Vec::new)?,
        };
        let owner = question.record_name();
        let records: Vec<Record> = data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)).collect();
        Some((if records.is_empty() { Kind::NoData } else { Kind::Data }, records))
    }
}

/// An address, without its scope: a record has none.
pub fn parse_ip(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse().ok()
}

/// Reads one line; comments and lines without an address are none.
pub fn parse_line(line: &str) -> Option<Host> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address = parse_ip(words.next()?)?;
    let names: Vec<Name> = words
        .filter_map(|word| {
            let mut name = Name::from_ascii(word).ok()?;
            name.set_fqdn(true);
            Some(name)
        })
        .collect();
    (!names.is_empty()).then_some(Host { address, names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn hosts_answer_forward_and_reverse_and_say_nodata_for_the_other_family() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            b"# caf\xE9\n10.0.0.1 one.example One # x\nnonsense line\n2001:db8::1\tone.example\nfe80::1%eth0 zoned.example\n",
        )
        .unwrap();
        let inline = [Host { address: "10.0.0.2".parse().unwrap(), names: vec![name("two.example.")] }];
        let hosts = Hosts::new(&inline, Some(file.path()), true).unwrap();
        let find = |owner: &str, rtype| {
            let found = hosts.find(&Question::new(owner.parse().unwrap(), rtype), 30);
            found.map(|(_, records)| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(find("ONE.example.", Rtype::A).unwrap(), ["10.0.0.1"]);
        assert_eq!(find("one.example.", Rtype::AAAA).unwrap(), ["2001:db8::1"]);
        assert_eq!(find("two.example.", Rtype::AAAA).unwrap(), [""; 0]);
        assert_eq!(find("1.0.0.10.in-addr.arpa.", Rtype::PTR).unwrap(), ["one.example.", "One."]);
        assert_eq!(find("one.example.", Rtype::TXT).unwrap(), [""; 0], "a host has no other records");
        assert_eq!(find("zoned.example.", Rtype::AAAA).unwrap(), ["fe80::1"]);
        let forward_only = Hosts::new(&inline, None, false).unwrap();
        let reverse = Question::new("2.0.0.10.in-addr.arpa.".parse().unwrap(), Rtype::PTR);
        assert!(forward_only.find(&reverse, 30).is_none());
        assert_eq!(find("three.example.", Rtype::A), None);
    }
}
