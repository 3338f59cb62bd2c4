//! Names answered or renamed on the node before anybody is asked: hosts and rewrites, per zone.
//!
//! Looks at names outside the cluster only: the cluster's own are answered before they get here.

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
    wire::{self, Rtype},
};

/// Longer files are no hosts files.
const BYTES_MAX: u64 = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    /// Its names, the first one for the reverse lookup.
    pub names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// This name is asked for as that one.
    Exact {
        from: Name,
        /// As it is looked up.
        to: Name,
    },
    /// Names that end in `from`, and `from` itself, are asked for with `to` in its place.
    Suffix {
        from: Name,
        /// As it is looked up.
        to: Name,
    },
}

/// Hosts by name and by address.
#[derive(Debug, Default)]
pub struct Hosts {
    by_name: HashMap<wire::Name, Vec<IpAddr>>,
    by_reverse: HashMap<wire::Name, Name>,
}

impl Hosts {
    /// Inline lines and those of `file`, in the format of `/etc/hosts`.
    ///
    /// # Errors
    /// If the file cannot be read or is over 4 MiB.
    pub fn new(lines: &[Host], file: Option<&Path>) -> io::Result<Self> {
        let mut hosts = Self::default();
        for host in lines {
            hosts.add(host);
        }
        if let Some(path) = file {
            use io::Read as _;
            let mut text = String::new();
            std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
            if text.len() as u64 > BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 4 MiB"));
            }
            text.lines().filter_map(parse_line).for_each(|host| hosts.add(&host));
        }
        Ok(hosts)
    }

    fn add(&mut self, host: &Host) {
        for name in &host.names {
            let addresses = self.by_name.entry(question_name(name)).or_default();
            if !addresses.contains(&host.address) {
                addresses.push(host.address);
            }
        }
        if let Some(first) = host.names.first() {
            self.by_reverse.entry(question_name(&Name::from(host.address))).or_insert_with(|| first.clone());
        }
    }

    pub fn holds(&self, name: &wire::Name, rtype: Rtype) -> bool {
        match rtype {
            Rtype::A | Rtype::AAAA => self.by_name.contains_key(name),
            Rtype::PTR => self.by_reverse.contains_key(name),
            _ => false,
        }
    }

    /// The records that answer `question`, with this TTL; `None` if the name has no host of the type's kind.
    pub fn find(&self, question: &Question, ttl: u32) -> Option<(Kind, Vec<Record>)> {
        let data: Vec<RData> = match question.rtype {
            Rtype::PTR => vec![RData::PTR(PTR(self.by_reverse.get(&question.name)?.clone()))],
            Rtype::A | Rtype::AAAA => {
                let data = self.by_name.get(&question.name)?.iter().filter_map(|ip| match (ip, question.rtype) {
                    (IpAddr::V4(ip), Rtype::A) => Some(RData::A(A(*ip))),
                    (IpAddr::V6(ip), Rtype::AAAA) => Some(RData::AAAA(AAAA(*ip))),
                    _ => None,
                });
                data.collect()
            }
            _ => return None,
        };
        let owner = question.record_name();
        let records: Vec<Record> = data.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)).collect();
        Some((if records.is_empty() { Kind::NoData } else { Kind::Data }, records))
    }
}

/// Reads one line; comments and lines without an address are none.
pub fn parse_line(line: &str) -> Option<Host> {
    let mut words = line.split('#').next()?.split_whitespace();
    let address = words.next()?.parse().ok()?;
    let names: Vec<Name> = words
        .filter_map(|word| {
            let mut name = Name::from_ascii(word).ok()?;
            name.set_fqdn(true);
            Some(name)
        })
        .collect();
    (!names.is_empty()).then_some(Host { address, names })
}

/// What `name` is to be looked up as, by the first rule that fits.
pub fn rewrite(rules: &[Rewrite], name: &Name) -> Option<Name> {
    rules.iter().find_map(|rule| match rule {
        Rewrite::Exact { from, to } => (from == name).then(|| to.clone()),
        Rewrite::Suffix { from, to } => {
            if !from.zone_of(name) {
                return None;
            }
            let labels: Vec<&[u8]> = name.iter().collect();
            let head = labels[..labels.len() - usize::from(from.num_labels())].iter().copied();
            let tail: Vec<&[u8]> = to.iter().collect();
            // Too long a name is not rewritten, and asked for as it is.
            Name::from_labels(head.chain(tail)).ok()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn the_first_fitting_rewrite_counts() {
        let rules = [
            Rewrite::Exact { from: name("db.example."), to: name("db.prod.svc.cluster.local.") },
            Rewrite::Suffix { from: name("example."), to: name("example.org.") },
            Rewrite::Suffix { from: name("old.test."), to: name(".") },
        ];
        let cases = [
            ("DB.example.", Some("db.prod.svc.cluster.local.")),
            ("www.Example.", Some("www.example.org.")),
            ("example.", Some("example.org.")),
            ("www.old.test.", Some("www.")),
            ("notexample.", None),
        ];
        for (from, to) in cases {
            assert_eq!(rewrite(&rules, &name(from)), to.map(name), "{from}");
        }
    }

    #[test]
    fn hosts_answer_forward_and_reverse_and_say_nodata_for_the_other_family() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "# comment\n10.0.0.1 one.example One # x\nnonsense line\n2001:db8::1\tone.example\n",
        )
        .unwrap();
        let inline = [Host { address: "10.0.0.2".parse().unwrap(), names: vec![name("two.example.")] }];
        let hosts = Hosts::new(&inline, Some(file.path())).unwrap();
        let find = |owner: &str, rtype| {
            let found = hosts.find(&Question::new(owner.parse().unwrap(), rtype), 30);
            found.map(|(_, records)| records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(find("ONE.example.", Rtype::A).unwrap(), ["10.0.0.1"]);
        assert_eq!(find("one.example.", Rtype::AAAA).unwrap(), ["2001:db8::1"]);
        assert_eq!(find("two.example.", Rtype::AAAA).unwrap(), [""; 0]);
        assert_eq!(find("1.0.0.10.in-addr.arpa.", Rtype::PTR).unwrap(), ["one.example."]);
        assert_eq!(find("one.example.", Rtype::TXT), None);
        assert_eq!(find("three.example.", Rtype::A), None);
    }
}
