//! Queries to upstreams and their answers: builds the query, and tells a true answer from a near miss.
//!
//! Pure. Never forwards a client's EDNS options (so no client subnet leaves the node, RFC 7871, 11.1) and hands on none
//! of an upstream's; options of a question are those of its zone.

use hickory_proto::op::Message;
use rand::RngExt;

use crate::{
    dns::{Question, forward::observe::Mismatch},
    wire::{HEADER_BYTES, UDP_BYTES_MAX},
};

/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// Code and length of an option.
const OPTION_HEAD_BYTES: usize = 4;
/// The padding option (RFC 7830, 3).
const OPTION_PADDING: u8 = 12;
/// Queries over encrypted connections have a multiple of this many bytes (RFC 8467, 4.1).
const PADDED_BYTES: usize = 128;

/// A query as it went out.
#[derive(Clone, Debug)]
pub struct Query {
    wire: Vec<u8>,
    question_end: usize,
}

/// A message that answers the query.
#[derive(Debug)]
pub enum Reply {
    Whole(Box<Message>),
    /// TC is set: to be asked over TCP. What came, if it parses.
    Truncated(Option<Box<Message>>),
}

impl Query {
    /// A query for `question` with a fresh id; `mix_case` randomizes the name's case (draft-vixie-dnsext-dns0x20).
    pub fn new(question: &Question, edns: bool, mix_case: bool) -> Self {
        let mut random = rand::rng();
        let id: u16 = random.random();
        let [id_high, id_low] = id.to_be_bytes();
        // RD, and AD to learn whether the upstream vouches (RFC 6840, 5.7).
        let flags = 0x20 | u8::from(question.checking_disabled) << 4;
        let mut wire = vec![id_high, id_low, 1, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        wire.extend_from_slice(question.name.wire());
        if mix_case {
            for byte in &mut wire[HEADER_BYTES..] {
                // Length bytes are below 64 and so never letters.
                if byte.is_ascii_lowercase() && random.random::<bool>() {
                    byte.make_ascii_uppercase();
                }
            }
        }
        wire.extend_from_slice(&question.rtype.0.to_be_bytes());
        wire.extend_from_slice(&question.class.0.to_be_bytes());
        let question_end = wire.len();
        if edns {
            let [high, low] = u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX).to_be_bytes();
            wire.extend_from_slice(&[0, 0, 41, high, low, 0, 0, u8::from(question.dnssec_ok) << 7, 0, 0, 0]);
        }
        Self { wire, question_end }
    }

    /// The same with RD cleared.
    #[must_use]
    pub fn without_recursion(mut self) -> Self {
        self.wire[2] &= !1;
        self
    }

    /// The same with these options of EDNS, laid out as in an OPT record; unchanged without one.
    #[must_use]
    pub fn with_options(mut self, options: &[u8]) -> Self {
        let opt = self.question_end + OPT_BYTES;
        if self.wire.len() >= opt && !options.is_empty() {
            self.wire.extend_from_slice(options);
            self.set_options_length(opt);
        }
        self
    }

    /// Writes the length of the options behind the OPT record that ends at `opt` without them.
    fn set_options_length(&mut self, opt: usize) {
        let length = u16::try_from(self.wire.len() - opt).unwrap_or(u16::MAX);
        self.wire[opt - 2..opt].copy_from_slice(&length.to_be_bytes());
    }

    /// The same with a length that tells less of the name (RFC 8467, 4.1): an OPT record, if there is one, is padded.
    #[must_use]
    pub fn padded(mut self) -> Self {
        let opt = self.question_end + OPT_BYTES;
        if self.wire.len() < opt {
            return self;
        }
        let bare = self.wire.len() + OPTION_HEAD_BYTES;
        let zeros = bare.next_multiple_of(PADDED_BYTES) - bare;
        let [_, zeros_byte] = zeros.to_be_bytes().last_chunk::<2>().copied().unwrap_or_default();
        self.wire.extend([0, OPTION_PADDING, 0, zeros_byte]);
        self.wire.resize(bare + zeros, 0);
        self.set_options_length(opt);
        self
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire
    }

    /// Replaces the id: a connection chooses one that no other query on it has.
    pub fn set_id(&mut self, id: u16) {
        self.wire[..2].copy_from_slice(&id.to_be_bytes());
    }

    /// Whether a server that copies the question would send mixed case back.
    pub fn has_mixed_case(&self) -> bool {
        self.wire[HEADER_BYTES..self.question_end - 4].iter().any(u8::is_ascii_uppercase)
    }

    /// Whether `message` is the answer, everything compared but (over a stream) the case.
    ///
    /// # Errors
    /// The first thing that does not fit; the caller goes on waiting.
    pub fn check(&self, message: &[u8], exact_case: bool) -> Result<Reply, Mismatch> {
        let Some(header) = message.first_chunk::<HEADER_BYTES>() else { return Err(Mismatch::Short) };
        if header[..2] != self.wire[..2] {
            return Err(Mismatch::Id);
        }
        if header[2] & 0x80 == 0 {
            return Err(Mismatch::NotResponse);
        }
        if header[2] & 0x78 != 0 {
            return Err(Mismatch::Opcode);
        }
        if header[4..6] != [0, 1] {
            return Err(Mismatch::QuestionCount);
        }
        let sent = &self.wire[HEADER_BYTES..self.question_end];
        let Some(got) = message.get(HEADER_BYTES..self.question_end) else { return Err(Mismatch::Question) };
        // Type and class hold no letters with another case that would be a type anybody uses, but compare them exactly.
        let name = sent.len() - 4;
        if sent[name..] != got[name..] || !sent[..name].eq_ignore_ascii_case(&got[..name]) {
            return Err(Mismatch::Question);
        }
        if exact_case && sent != got {
            return Err(Mismatch::Case);
        }
        // Names in the data may point at the question: they are not to keep the case we made up.
        let mut plain = message.to_vec();
        plain[HEADER_BYTES..self.question_end - 4].make_ascii_lowercase();
        let parsed = Message::from_vec(&plain).map(Box::new);
        if header[2] & 0x02 != 0 {
            return Ok(Reply::Truncated(parsed.ok()));
        }
        parsed.map(Reply::Whole).map_err(|_| Mismatch::Garbage)
    }

    /// Whether the answer to this query came back in the case it was sent in.
    pub fn same_case(&self, message: &[u8]) -> bool {
        message.get(HEADER_BYTES..self.question_end) == Some(&self.wire[HEADER_BYTES..self.question_end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Question {
        Question::new("www.example.".parse().unwrap(), crate::wire::Rtype::A)
    }

    /// The answer a server that copies the question gives.
    fn answer(query: &Query) -> Vec<u8> {
        let mut message = query.as_bytes()[..query.question_end].to_vec();
        message[2] |= 0x80;
        message[11] = 0;
        message
    }

    #[test]
    fn the_true_answer_is_taken() {
        let query = Query::new(&ask(), true, true);
        assert!(matches!(query.check(&answer(&query), true), Ok(Reply::Whole(_))));
    }

    #[test]
    fn truncation_is_seen_even_if_the_rest_is_cut() {
        let query = Query::new(&ask(), true, true);
        let mut message = answer(&query);
        message[2] |= 0x02;
        message[7] = 9;
        assert!(matches!(query.check(&message, true), Ok(Reply::Truncated(None))));
    }

    type Spoil = fn(&mut Vec<u8>, usize);

    #[test]
    fn every_near_miss_is_named() {
        let query = Query::new(&ask(), true, false);
        let end = query.question_end;
        let cases: [(&str, Spoil, Mismatch); 12] = [
            ("id", |m, _| m[1] ^= 1, Mismatch::Id),
            ("query", |m, _| m[2] &= 0x7F, Mismatch::NotResponse),
            ("opcode", |m, _| m[2] |= 0x20, Mismatch::Opcode),
            ("name", |m, _| m[13] = b'x', Mismatch::Question),
            ("type", |m, end| m[end - 3] = 28, Mismatch::Question),
            ("class", |m, end| m[end - 1] = 3, Mismatch::Question),
            ("case", |m, _| m[13] = b'W', Mismatch::Case),
            (
                "no question",
                |m, _| {
                    m[5] = 0;
                    m.truncate(12);
                },
                Mismatch::QuestionCount,
            ),
            ("two questions", |m, _| m[5] = 2, Mismatch::QuestionCount),
            ("header only", |m, _| m.truncate(12), Mismatch::Question),
            ("short", |m, _| m.truncate(7), Mismatch::Short),
            (
                "pointer loop",
                |m, end| {
                    m[7] = 1;
                    m.extend([0xC0, u8::try_from(end).unwrap(), 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
                },
                Mismatch::Garbage,
            ),
        ];
        for (name, spoil, expect) in cases {
            let mut message = answer(&query);
            spoil(&mut message, end);
            assert_eq!(query.check(&message, true).map(|_| ()), Err(expect), "{name}");
        }
    }

    #[test]
    fn ids_and_case_are_random() {
        let sent: std::collections::BTreeSet<Vec<u8>> =
            (0..200).map(|_| Query::new(&ask(), false, true).wire).collect();
        let ids: std::collections::BTreeSet<&[u8]> = sent.iter().map(|wire| &wire[..2]).collect();
        let names: std::collections::BTreeSet<&[u8]> = sent.iter().map(|wire| &wire[12..]).collect();
        assert!(ids.len() > 190 && names.len() > 100, "{} ids, {} spellings", ids.len(), names.len());
        assert!(!Query::new(&ask(), false, false).has_mixed_case());
    }

    #[test]
    fn padded_queries_have_lengths_that_tell_little() {
        for name in [
            "a.",
            "www.example.",
            "a-name-that-is-so-long-that.it-fills-more-than-one-block-of-bytes.when-it-is.asked-for.in-the-middle.of-a-very-long.zone.example.",
        ] {
            let question = Question::new(name.parse().unwrap(), crate::wire::Rtype::A);
            let query = Query::new(&question, true, false).padded();
            assert_eq!(query.as_bytes().len() % PADDED_BYTES, 0, "{name}");
            let message = Message::from_vec(query.as_bytes()).unwrap();
            assert_eq!(message.queries.len(), 1);
            let edns = message.edns.unwrap();
            assert!(edns.option(hickory_proto::rr::rdata::opt::EdnsCode::Padding).is_some(), "{name}");
            assert!(matches!(query.check(&answer(&query), false), Ok(Reply::Whole(_))));
            let plain = Query::new(&question, false, false);
            assert_eq!(plain.clone().padded().as_bytes(), plain.as_bytes(), "without EDNS there is no padding");
        }
    }

    #[test]
    fn options_of_the_zone_go_out_in_the_opt_record() {
        let options = [0xFF, 0xEE, 0, 2, b'a', b'b', 0, 3, 0, 0];
        let query = Query::new(&ask(), true, false).with_options(&options);
        let sent = |query: &Query| {
            let message = Message::from_vec(query.as_bytes()).unwrap();
            let options = message.edns.map(|edns| edns.options().as_ref().to_vec()).unwrap_or_default();
            options.iter().map(|(code, _)| u16::from(*code)).collect::<Vec<_>>()
        };
        assert_eq!(sent(&query), [0xFFEE, 3]);
        let padded = query.padded();
        assert_eq!((sent(&padded), padded.as_bytes().len() % PADDED_BYTES), (vec![0xFFEE, 3, 12], 0));
        assert!(sent(&Query::new(&ask(), false, false).with_options(&options)).is_empty());
    }

    #[test]
    fn no_client_option_goes_out() {
        let query = Query::new(&Question { dnssec_ok: true, ..ask() }, true, false);
        let message = Message::from_vec(query.as_bytes()).unwrap();
        let edns = message.edns.unwrap();
        assert_eq!(edns.max_payload(), 1232);
        assert!(edns.flags().dnssec_ok && edns.options().as_ref().is_empty());
        assert!(Message::from_vec(Query::new(&ask(), false, false).as_bytes()).unwrap().edns.is_none());
    }
}
