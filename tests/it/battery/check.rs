//! Asks the cases and compares what comes back.

use hickory_proto::{
    op::{Message, MessageType, OpCode},
    rr::{Name, RData, Record, rdata::opt::EdnsOption},
};
use holdfast::dns::Transport;

use super::{
    TRANSPORTS,
    case::{Case, Section},
};
use crate::support::ask::query;

/// Whoever answers: a message that came by a transport becomes the answer to it, if there is one.
pub type Asker<'a> = &'a mut dyn FnMut(Transport, &[u8]) -> Option<Vec<u8>>;

/// Asks every case of a section in every way, and panics with all that went wrong.
pub fn check(section: &Section, ask: Asker<'_>) {
    let mut wrong = Vec::new();
    for case in &section.cases {
        for transport in TRANSPORTS {
            for edns in [None, Some(1232)] {
                for mixed in [false, true] {
                    let asked = Asked { transport, edns, name: wire_name(case, mixed) };
                    if let Err(error) = asked.check(case, ask) {
                        let way = format!("{transport:?}, EDNS {edns:?}, mixed case {mixed}");
                        wrong.push(format!("{}: {} {} ({way}): {error}", case.place, case.name, case.qtype));
                    }
                }
            }
        }
    }
    let first: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{}: {} of its checks failed:\n{}", section.title, wrong.len(), first.join("\n"));
}

/// The name in wire form, every third letter in upper case if `mixed`.
fn wire_name(case: &Case, mixed: bool) -> Vec<u8> {
    let mut name = case.name.wire().to_vec();
    if mixed {
        // Length bytes are below the letters.
        name.iter_mut().step_by(3).for_each(u8::make_ascii_uppercase);
    }
    name
}

struct Asked {
    transport: Transport,
    edns: Option<u16>,
    name: Vec<u8>,
}

impl Asked {
    fn check(&self, case: &Case, ask: Asker<'_>) -> Result<(), String> {
        let query = query(&self.name, case.qtype, self.edns);
        let reply = ask(self.transport, &query).ok_or("there is no answer")?;
        let message = Message::from_vec(&reply).map_err(|error| format!("the answer does not parse: {error}"))?;
        let expect = &case.expect;
        self.header(&query, &reply, &message)?;
        equal("rcode", rcode(&message), &*expect.rcode)?;
        if expect.ours != message.metadata.authoritative {
            return Err(format!("AA is {}", message.metadata.authoritative));
        }
        let ede = ede(&message);
        equal("EDE", ede, expect.ede.filter(|_| self.edns.is_some()))?;
        if message.metadata.truncation {
            return self.truncated(&message);
        }
        if let Some(first) = message.answers.first() {
            equal("the first owner, in the case asked", wire_form(&first.name), self.name.clone())?;
        }
        equal("answers", sorted(shown(&message.answers)), sorted(lower(&expect.answers)))?;
        in_order(&message.answers)?;
        equal("authorities", shown(&message.authorities), lower(&expect.authorities))?;
        let additionals = shown(&message.additionals);
        let mut wanted = sorted(lower(&expect.additionals));
        // What does not fit in the additional section is left out.
        if self.transport == Transport::Udp {
            wanted.retain(|record| additionals.contains(record));
        }
        equal("additionals", sorted(additionals), wanted)
    }

    /// What holds of every answer.
    fn header(&self, query: &[u8], reply: &[u8], message: &Message) -> Result<(), String> {
        let question = 12..12 + self.name.len() + 4;
        equal("id", &reply[..2], &query[..2])?;
        equal("question", &reply[question.clone()], &query[question])?;
        equal("type", message.metadata.message_type, MessageType::Response)?;
        equal("opcode", message.metadata.op_code, OpCode::Query)?;
        equal("RD", message.metadata.recursion_desired, true)?;
        equal("RA", message.metadata.recursion_available, true)?;
        equal("AD", message.metadata.authentic_data, false)?;
        equal("EDNS", message.edns.is_some(), self.edns.is_some())?;
        let limit = match (self.transport, self.edns) {
            (Transport::Udp, None) => 512,
            (Transport::Udp, Some(size)) => usize::from(size),
            _ => 65_535,
        };
        if reply.len() > limit { Err(format!("{} bytes are more than {limit}", reply.len())) } else { Ok(()) }
    }

    fn truncated(&self, message: &Message) -> Result<(), String> {
        equal("transport of a truncated answer", self.transport, Transport::Udp)?;
        // Sets of the cases are small: with EDNS each fits.
        equal("EDNS of a truncated answer", self.edns, None)?;
        equal("additionals of a truncated answer", message.additionals.len(), 0)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "both are made for the comparison")]
fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}:\n   got {got:?}\n  want {want:?}")) }
}

/// A name's bytes in the case they came in.
fn wire_form(name: &Name) -> Vec<u8> {
    let label = |label: &[u8]| [&[u8::try_from(label.len()).expect("a label is short")], label].concat();
    name.iter().flat_map(label).chain([0]).collect()
}

pub fn rcode(message: &Message) -> &'static str {
    holdfast::wire::Rcode(message.metadata.response_code.into()).name().unwrap_or("unknown")
}

/// The code of the extended error, if there is one.
pub fn ede(message: &Message) -> Option<u16> {
    message.edns.as_ref()?.options().as_ref().iter().find_map(|(_, option)| match option {
        EdnsOption::Unknown(15, bytes) => bytes.first_chunk().map(|code| u16::from_be_bytes(*code)),
        _ => None,
    })
}

/// Records in presentation form, lower case, with the serial of a SOA as `*`.
fn shown(records: &[Record]) -> Vec<String> {
    let shown = records.iter().map(|record| match &record.data {
        RData::SOA(soa) => {
            let text = record.to_string();
            text.replacen(&format!(" {} ", soa.serial), " * ", 1)
        }
        _ => record.to_string(),
    });
    // hickory escapes a dash at the start of a label, which is no more special than elsewhere.
    shown.map(|text| text.trim_end().replace("\\-", "-").to_ascii_lowercase()).collect()
}

fn lower(records: &[String]) -> Vec<String> {
    records.iter().map(|record| record.to_ascii_lowercase()).collect()
}

fn sorted(mut records: Vec<String>) -> Vec<String> {
    records.sort();
    records
}

/// Aliases come before what they lead to, each from the name that the one before leads to.
fn in_order(answers: &[Record]) -> Result<(), String> {
    let mut owner = answers.first().map(|record| &record.name);
    for record in answers {
        if Some(&record.name) != owner {
            return Err(format!("{record} does not follow from {owner:?}"));
        }
        if let RData::CNAME(target) = &record.data {
            owner = Some(&target.0);
        }
    }
    Ok(())
}
