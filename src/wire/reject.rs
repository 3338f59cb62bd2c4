//! Responses that carry no data: the query was malformed, or we will not or cannot answer it.

use super::{Cookie, Ede, Opcode, Query, Rcode, UDP_BYTES_MIN, edns::Opt, response::header};

/// A response without data.
#[derive(Clone, Debug)]
pub struct Reject<'a> {
    /// Codes above 15 need a query with EDNS.
    pub rcode: Rcode,
    /// Why, for a client with EDNS.
    pub ede: Option<Ede<'a>>,
    /// The cookie, for a client with EDNS.
    pub cookie: Option<Cookie>,
    pub(super) echo: Echo<'a>,
    pub(super) asked_cookie: Option<&'a [u8]>,
    pub(super) for_cookie_alone: bool,
}

/// The parts of a query that a response repeats.
#[derive(Clone, Debug)]
pub(super) struct Echo<'a> {
    pub id: u16,
    pub opcode: Opcode,
    pub rd: bool,
    pub cd: bool,
    /// Empty if it could not be read.
    pub question: &'a [u8],
    /// Whether there was an OPT record, and its DO bit.
    pub edns: Option<bool>,
}

impl<'a> Reject<'a> {
    /// The first COOKIE option of the query as it came.
    pub fn asked_cookie(&self) -> Option<&'a [u8]> {
        self.asked_cookie
    }

    /// Whether the query has no question and is well-formed but for that, and has a COOKIE option (RFC 7873, 5.4).
    pub fn is_for_cookie_alone(&self) -> bool {
        self.for_cookie_alone
    }

    /// The kind of request.
    pub fn opcode(&self) -> Opcode {
        self.echo.opcode
    }
}

/// Writes the response, which fits 512 bytes; the text of an EDE that does not is left out. Returns its length.
///
/// # Panics
/// If `buf` is shorter than [`UDP_BYTES_MIN`].
pub fn write_reject(reject: &Reject<'_>, buf: &mut [u8]) -> usize {
    assert!(buf.len() >= UDP_BYTES_MIN, "an answer buffer holds 512 bytes");
    let buf = &mut buf[..UDP_BYTES_MIN];
    let echo = &reject.echo;
    let questions = u16::from(!echo.question.is_empty());
    let additional = u16::from(echo.edns.is_some());
    let counts = [questions, 0, 0, additional];
    let head = header(echo, false, false, reject.rcode, counts);
    buf[..head.len()].copy_from_slice(&head);
    let mut len = head.len();
    // A question is at most 259 bytes, an OPT record with a cookie and an EDE code 45: both fit behind the header.
    buf[len..len + echo.question.len()].copy_from_slice(echo.question);
    len += echo.question.len();
    if let Some(dnssec_ok) = echo.edns {
        let opt = Opt { rcode: reject.rcode, dnssec_ok, cookie: reject.cookie.as_ref(), ede: reject.ede };
        len += opt.write(&mut buf[len..]);
    }
    len
}

/// Writes an empty answer with TC to a query: the client is to ask over TCP. `None` if `message` is no query to answer.
///
/// # Panics
/// If `buf` is shorter than [`UDP_BYTES_MIN`].
pub fn write_truncated(message: &[u8], buf: &mut [u8]) -> Option<usize> {
    let mut query = Query::default();
    query.read(message).ok()?;
    let echo = Echo { edns: None, ..query.reject(Rcode::NOERROR, None).echo };
    let head = header(&echo, false, true, Rcode::NOERROR, [1, 0, 0, 0]);
    let len = head.len() + echo.question.len();
    buf[..head.len()].copy_from_slice(&head);
    buf[head.len()..len].copy_from_slice(echo.question);
    Some(len)
}

/// A query again, with its question, flags and what its OPT record says, and without options.
pub fn write_query(query: &Query<'_>) -> Vec<u8> {
    let flags = [u8::from(query.rd), u8::from(query.ad) << 5 | u8::from(query.cd) << 4];
    let mut message = Vec::with_capacity(super::HEADER_BYTES + query.question.len() + super::edns::OPT_BYTES);
    message.extend_from_slice(&query.id.to_be_bytes());
    message.extend_from_slice(&flags);
    message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(query.edns.is_some())]);
    message.extend_from_slice(query.question);
    if let Some(edns) = query.edns {
        // The root, OPT, the size, the extended code, the version, DO, and no options (RFC 6891, 6.1.2).
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&edns.payload_size.to_be_bytes());
        message.extend_from_slice(&[0, edns.version, u8::from(edns.dnssec_ok) << 7, 0, 0, 0]);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EdeCode, Parsed, parse};

    const QUERY: &[u8] = b"\x12\x34\x01\x10\x00\x01\x00\x00\x00\x00\x00\x01\x02Db\0\x00\x01\x00\x03\
        \0\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

    fn write(reject: &Reject<'_>) -> Vec<u8> {
        let mut buf = [0xFF; 600];
        let len = write_reject(reject, &mut buf);
        buf[..len].to_vec()
    }

    #[test]
    fn a_refusal_repeats_the_question_and_says_why() {
        let Parsed::Query(query) = parse(QUERY) else { panic!("a query") };
        let reject = query.reject(Rcode::REFUSED, Some(EdeCode::NOT_AUTHORITATIVE));
        assert_eq!(
            write(&reject),
            b"\x12\x34\x81\x95\x00\x01\x00\x00\x00\x00\x00\x01\x02Db\0\x00\x01\x00\x03\
            \0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x06\x00\x0f\x00\x02\x00\x14"
        );
        let texted = Reject { ede: Some(Ede { code: EdeCode::OTHER, text: "no" }), ..reject.clone() };
        assert!(write(&texted).ends_with(b"\x00\x08\x00\x0f\x00\x04\x00\x00no"));
        let long = "x".repeat(512);
        let cut = Reject { ede: Some(Ede { code: EdeCode::OTHER, text: &long }), ..reject };
        assert!(write(&cut).ends_with(b"\x00\x06\x00\x0f\x00\x02\x00\x00"), "text that does not fit is left out");
    }

    #[test]
    fn badvers_is_an_extended_code_of_our_version() {
        let mut query = QUERY.to_vec();
        query[26] = 1;
        let Parsed::Reject(reject) = parse(&query) else { panic!("a reject") };
        assert_eq!(
            write(&reject),
            b"\x12\x34\x81\x90\x00\x01\x00\x00\x00\x00\x00\x01\x02Db\0\x00\x01\x00\x03\
            \0\x00\x29\x04\xd0\x01\x00\x80\x00\x00\x00"
        );
    }

    #[test]
    fn unreadable_parts_are_not_repeated() {
        let Parsed::Reject(reject) = parse(&QUERY[..12]) else { panic!("a reject") };
        assert_eq!(write(&reject), b"\x12\x34\x81\x91\x00\x00\x00\x00\x00\x00\x00\x00");
        let notify = [&b"\x12\x34\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..], b"?"].concat();
        let Parsed::Reject(reject) = parse(&notify) else { panic!("a reject") };
        assert_eq!(write(&reject), b"\x12\x34\xa0\x84\x00\x00\x00\x00\x00\x00\x00\x00");
    }

    #[test]
    fn without_edns_an_extended_code_becomes_servfail() {
        let plain = [&QUERY[..10], &[0, 0], &QUERY[12..20]].concat();
        let Parsed::Query(query) = parse(&plain) else { panic!("a query") };
        let reply = write(&query.reject(Rcode::BADCOOKIE, Some(EdeCode::OTHER)));
        assert_eq!((reply[3] & 0x0F, reply.len()), (2, plain.len()));
    }
}
