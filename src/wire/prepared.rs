//! Responses whose sections lie ready: copied, with the client's own header, question and OPT.

use super::{
    Ede, HEADER_BYTES, Opcode, Query, Rcode,
    edns::{COOKIE_BYTES, EDE_BYTES, OPT_BYTES, Opt},
    reject::Echo,
    response::header,
};

/// A response without what differs from client to client.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    /// A header of which only the counts matter, a question for the same name, type and class, and the answer and
    /// authority sections; names may be compressed.
    pub message: &'a [u8],
    pub rcode: Rcode,
    /// Whether AD may be set for a client that asked for it (RFC 6840, 5.7 and 5.8).
    pub authentic: bool,
    /// Told to clients with EDNS.
    pub ede: Option<Ede<'a>>,
}

/// Writes `prepared` as the response to `query`, at most `limit` bytes: whole, or with TC set and without records.
///
/// Returns the length and whether the records are there. AA is never set.
///
/// # Panics
/// If `buf` or `limit` is below 512 bytes.
pub fn write_prepared(query: &Query<'_>, prepared: &Prepared<'_>, limit: usize, buf: &mut [u8]) -> (usize, bool) {
    let limit = limit.min(buf.len());
    assert!(limit >= super::UDP_BYTES_MIN, "an answer buffer holds 512 bytes");
    let buf = &mut buf[..limit];
    let opt = match (query.edns, prepared.ede) {
        (None, _) => 0,
        (Some(_), None) => OPT_BYTES,
        (Some(_), Some(_)) => OPT_BYTES + EDE_BYTES,
    };
    let cookie = query.cookie.as_ref().filter(|_| opt > 0);
    let opt = if cookie.is_some() { opt + COOKIE_BYTES } else { opt };
    let fixed = HEADER_BYTES + query.question.len();
    let whole = prepared.message.len() >= fixed && prepared.message.len() + opt <= limit;
    // A question is at most 259 bytes: with header and OPT it fits 512.
    let mut len = if whole { prepared.message.len() } else { fixed };
    let counts = if whole {
        buf[fixed..len].copy_from_slice(&prepared.message[fixed..]);
        let count = |at: usize| u16::from_be_bytes([prepared.message[at], prepared.message[at + 1]]);
        [count(6), count(8)]
    } else {
        [0, 0]
    };
    buf[HEADER_BYTES..fixed].copy_from_slice(query.question);
    let edns = query.edns.map(|edns| edns.dnssec_ok);
    if let Some(dnssec_ok) = edns {
        len += Opt { rcode: prepared.rcode, dnssec_ok, cookie, ede: prepared.ede }.write(&mut buf[len..]);
    }
    let echo = Echo { id: query.id, opcode: Opcode::QUERY, rd: query.rd, cd: query.cd, question: query.question, edns };
    let counts = [1, counts[0], counts[1], u16::from(opt > 0)];
    buf[..HEADER_BYTES].copy_from_slice(&header(&echo, false, !whole, prepared.rcode, counts));
    if prepared.authentic && (query.ad || edns == Some(true)) {
        buf[3] |= 0x20;
    }
    (len, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{EdeCode, Parsed, parse};

    const QUERY: &[u8] = b"\x12\x34\x01\x30\x00\x01\x00\x00\x00\x00\x00\x01\x02Db\0\x00\x01\x00\x01\
        \0\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
    const READY: &[u8] =
        b"\0\0\0\0\0\x01\0\x01\0\0\0\0\x02db\0\x00\x01\x00\x01\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01";

    fn query(message: &[u8]) -> Query<'_> {
        match parse(message) {
            Parsed::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn header_question_and_opt_are_the_clients_and_the_records_are_copied() {
        let query = query(QUERY);
        let ready = Prepared {
            message: READY,
            rcode: Rcode::NOERROR,
            authentic: true,
            ede: Some(EdeCode::STALE_ANSWER.into()),
        };
        let mut buf = [0xFF; 600];
        let (len, whole) = write_prepared(&query, &ready, 1232, &mut buf);
        assert!(whole);
        assert_eq!(
            &buf[..len],
            b"\x12\x34\x81\xb0\0\x01\0\x01\0\0\0\x01\x02Db\0\x00\x01\x00\x01\
            \xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01\
            \0\x00\x29\x04\xd0\0\0\x80\0\0\x06\0\x0f\0\x02\0\x03"
        );
    }

    #[test]
    fn what_does_not_fit_is_cut_to_the_byte() {
        for room in 480..520 {
            let mut message = READY.to_vec();
            message.resize(room, 0);
            let query = query(QUERY);
            let ready = Prepared { message: &message, rcode: Rcode::NXDOMAIN, authentic: false, ede: None };
            let mut buf = [0; 2_000];
            let (len, whole) = write_prepared(&query, &ready, 512, &mut buf);
            assert_eq!(whole, room + OPT_BYTES <= 512, "{room}");
            assert_eq!(buf[2] & 0x02 == 0, whole);
            assert_eq!(buf[3] & 0x0F, 3);
            assert_eq!(len, if whole { room + OPT_BYTES } else { 20 + OPT_BYTES });
        }
    }
}
