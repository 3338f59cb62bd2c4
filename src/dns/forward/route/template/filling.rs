//! The values that a template sees: of the question, its client, and the match of its pattern.

use std::net::{Ipv6Addr, SocketAddr};

use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, rdata};

use super::{
    Pattern,
    eval::Data,
    expression::Facts,
    value::{Object, Steps, Value},
};
use crate::{
    dns::{
        Question,
        forward::route::{classes::class_name, edns::protocol, pattern::spelled},
        request::Asker,
    },
    wire::{TCP_BYTES_MAX, UDP_BYTES_MIN},
};

/// TTL of a record without one, in seconds (CoreDNS).
const TTL: u32 = 3_600;

pub struct Filling<'q> {
    pub name: &'q str,
    pub zone: &'q Name,
    pub question: &'q Question,
    pub asker: Option<&'q Asker>,
    pub pattern: &'q str,
    pub groups: Option<regex::Captures<'q>>,
    pub variables: Vec<(String, Value)>,
    pub steps: &'q Steps,
}

impl Filling<'_> {
    /// The groups of the match by number, without a match the whole name.
    fn matches(&self) -> Vec<Value> {
        let text = |text: &str| Value::Text(text.to_owned());
        match &self.groups {
            None => vec![text(self.name)],
            Some(groups) => groups.iter().map(|group| text(group.map_or("", |group| group.as_str()))).collect(),
        }
    }

    /// The names of the groups of the pattern that fits.
    fn names(&self) -> Vec<String> {
        let regex = Pattern::new(self.pattern).ok();
        regex.iter().flat_map(|pattern| pattern.regex().capture_names().flatten().map(str::to_owned)).collect()
    }
    fn client(&self) -> SocketAddr {
        let client = self.asker.map(|asker| asker.client);
        client.map_or_else(unknown, |client| (client.ip().to_canonical(), client.port()).into())
    }

    fn server(&self) -> SocketAddr {
        let server = self.asker.map(|asker| asker.server);
        server.map_or_else(unknown, |server| (server.ip().to_canonical(), server.port()).into())
    }

    fn is_udp(&self) -> bool {
        self.asker.is_none_or(|asker| protocol(asker.transport) == "udp")
    }

    fn rtype(&self) -> String {
        match self.question.record_type() {
            // Types without a name have none in CoreDNS.
            RecordType::Unknown(_) => String::new(),
            rtype => rtype.to_string(),
        }
    }

    fn asked(&self) -> Value {
        let (rtype, class) = (self.question.rtype.0, self.question.class.0);
        Value::Object(Object {
            fields: vec![
                ("Name", Value::Text(self.name.to_owned())),
                ("Qtype", Value::Uint(rtype.into())),
                ("Qclass", Value::Uint(class.into())),
            ],
            shown: format!(";{}\t{}\t {}", self.name, class_name(self.question.class), self.rtype()),
        })
    }

    fn message(&self) -> Value {
        let no = Value::Bool(false);
        let (id, desired) = self.asker.map_or((0, true), |asker| (asker.id, asker.recursion_desired));
        let additional =
            if self.asker.is_some_and(|asker| asker.payload.is_some()) { vec![Value::Nil] } else { Vec::new() };
        Value::Object(Object {
            fields: vec![
                ("Id", Value::Uint(id.into())),
                ("Response", no.clone()),
                ("Opcode", Value::Int(0)),
                ("Authoritative", no.clone()),
                ("Truncated", no.clone()),
                ("RecursionDesired", Value::Bool(desired)),
                ("RecursionAvailable", no.clone()),
                ("Zero", no.clone()),
                ("AuthenticatedData", no.clone()),
                ("CheckingDisabled", Value::Bool(self.question.checking_disabled)),
                ("Rcode", Value::Int(0)),
                ("Compress", no),
                ("Question", Value::List(vec![self.asked()])),
                ("Answer", Value::List(Vec::new())),
                ("Ns", Value::List(Vec::new())),
                ("Extra", Value::List(additional)),
            ],
            shown: format!("id: {id}"),
        })
    }
}

fn unknown() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, 0).into()
}

impl Data for Filling<'_> {
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "Name" => Value::Text(self.name.to_owned()),
            "Zone" => Value::Text(spelled(self.zone)),
            "Class" => Value::Text(class_name(self.question.class)),
            "Type" => Value::Text(self.rtype()),
            "Remote" => Value::Text(self.client().ip().to_string()),
            "Regex" => Value::Text(self.pattern.to_owned()),
            "Match" => Value::List(self.matches()),
            "Group" => {
                let numbered = self.matches().into_iter().enumerate().map(|(at, group)| (at.to_string(), group));
                let named = self.groups.iter().flat_map(|groups| {
                    let names = self.names();
                    names.into_iter().map(|name| {
                        let group = groups.name(&name).map_or("", |group| group.as_str());
                        (name, Value::Text(group.to_owned()))
                    })
                });
                Value::Map(numbered.chain(named).collect())
            }
            "Var" => Value::Map(self.variables.iter().cloned().collect()),
            "Question" => self.asked(),
            "Message" => self.message(),
            _ => return None,
        })
    }
}

impl Facts for Filling<'_> {
    fn fact(&self, name: &str) -> Value {
        let number = |number: usize| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match name {
            "name" => Value::Text(self.name.to_owned()),
            "type" => Value::Text(self.rtype()),
            "class" => Value::Text(class_name(self.question.class)),
            "proto" => Value::Text(if self.is_udp() { "udp" } else { "tcp" }.into()),
            "client_ip" => Value::Text(self.client().ip().to_string()),
            "port" => Value::Text(self.client().port().to_string()),
            "server_ip" => Value::Text(self.server().ip().to_string()),
            "server_port" => Value::Text(self.server().port().to_string()),
            "id" => number(self.asker.map_or(0, |asker| asker.id.into())),
            "size" => number(self.asker.map_or(0, |asker| asker.bytes)),
            "do" => Value::Bool(self.question.dnssec_ok),
            "bufsize" => {
                let payload = self.asker.and_then(|asker| asker.payload).map_or(UDP_BYTES_MIN, usize::from);
                number(if self.is_udp() { payload.max(UDP_BYTES_MIN) } else { TCP_BYTES_MAX })
            }
            // Of the opcodes, QUERY alone gets here.
            _ => Value::Int(0),
        }
    }

    fn group(&self, name: &str) -> String {
        match (&self.groups, name.parse::<usize>()) {
            (None, Ok(0)) => self.name.to_owned(),
            (None, _) => String::new(),
            (Some(groups), Ok(number)) => groups.get(number).map_or("", |group| group.as_str()).to_owned(),
            (Some(groups), Err(_)) => groups.name(name).map_or("", |group| group.as_str()).to_owned(),
        }
    }
}

/// A line of a zone file, with an owner.
pub fn record(line: &str) -> Option<Record> {
    let mut rest = line.trim();
    let mut word = || {
        let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        rest = after.trim_start();
        word
    };
    let mut owner = Name::from_ascii(word()).ok()?;
    owner.set_fqdn(true);
    let (mut ttl, mut class) = (TTL, DNSClass::IN);
    let rtype = loop {
        let said = word();
        match said.to_ascii_uppercase().as_str() {
            "" => return None,
            "IN" => {}
            "CH" => class = DNSClass::CH,
            "HS" => class = DNSClass::HS,
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => ttl = number.parse().ok()?,
            rtype => break rtype.parse::<RecordType>().ok()?,
        }
    };
    let mut data = RData::try_from_str(rtype, rest).ok()?;
    if let RData::CNAME(rdata::CNAME(name)) | RData::PTR(rdata::PTR(name)) = &mut data {
        name.set_fqdn(true);
    }
    let mut record = Record::from_rdata(owner, ttl, data);
    record.dns_class = class;
    Some(record)
}
