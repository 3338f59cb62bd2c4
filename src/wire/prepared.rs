//! Responses with prepared sections: copied, with the client's own header, question and OPT.

use super::{
    Ede, HEADER_BYTES, Opcode, Query, Rcode,
    edns::{COOKIE_BYTES, EDE_BYTES, OPT_BYTES, Opt},
    reject::Echo,
    response::header,
};

/// A response without the parts that differ between clients.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    /// A header of which only the counts matter, a question for the same name, type and class, and the answer and
    /// authority sections; names may be compressed.
    pub message: &'a [u8],
    /// Offset of each record's TTL.
    pub ttls: &'a [u16],
    pub rcode: Rcode,
    /// Whether AD may be set for a client that asked for it (RFC 6840, 5.7 and 5.8).
    pub authentic: bool,
    /// Sent to clients with EDNS.
    pub ede: Option<Ede<'a>>,
}

/// Writes `prepared` as the response to `query`, at most `limit` bytes; each TTL becomes what `ttl` makes of it. AA is never
/// set.
///
/// If it does not fit, TC is set and the answer section has as many whole records as fit. The last RRset then
/// begins at a record that the query's id chooses, so that over many queries each record has its turn.
///
/// # Panics
/// If `buf` or `limit` is below 512 bytes.
pub fn write_prepared(
    query: &Query<'_>,
    prepared: &Prepared<'_>,
    limit: usize,
    ttl: impl Fn(u32) -> u32,
    buf: &mut [u8],
) -> usize {
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
    let message = prepared.message;
    let fixed = HEADER_BYTES + query.question.len();
    let whole = message.len() >= fixed && message.len() + opt <= limit;
    // A question is at most 259 bytes: with header and OPT it fits 512.
    let (mut len, counts) = if whole {
        buf[fixed..message.len()].copy_from_slice(&message[fixed..]);
        for &at in prepared.ttls {
            put_ttl(&mut buf[usize::from(at)..], &ttl);
        }
        let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        (message.len(), [count(6), count(8)])
    } else {
        let (len, answers) = put_part(query.id, prepared, fixed, &ttl, &mut buf[..limit - opt]);
        (len, [answers, 0])
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
    len
}

#[inline]
fn put_ttl(place: &mut [u8], ttl: impl Fn(u32) -> u32) {
    if let Some(place) = place.first_chunk_mut::<4>() {
        *place = ttl(u32::from_be_bytes(*place)).to_be_bytes();
    }
}

/// Writes the records of the answer section that fit behind `fixed` bytes. Returns where they end and how many they are.
#[cold]
fn put_part(
    turn: u16,
    prepared: &Prepared<'_>,
    fixed: usize,
    ttl: impl Fn(u32) -> u32,
    buf: &mut [u8],
) -> (usize, u16) {
    let Prepared { message, ttls, .. } = *prepared;
    let answers = message.get(6..8).map_or(0, |count| usize::from(u16::from_be_bytes([count[0], count[1]])));
    let answers = answers.min(ttls.len());
    // Behind the TTL stands the length of the data.
    let end = |nth: usize| {
        let at = usize::from(ttls[nth]) + 4;
        let data = message.get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        at + 2 + data
    };
    let start = |nth: usize| if nth == 0 { fixed } else { end(nth - 1) };
    // Owner, type and class: those of one RRset are the same bytes.
    let set = |nth: usize| message.get(start(nth)..usize::from(ttls[nth]));
    let is_pointer = |nth: usize| message.get(start(nth)).is_some_and(|byte| byte & 0xC0 == 0xC0);
    let last =
        (1..answers).rev().take_while(|nth| set(*nth - 1) == set(answers - 1)).last().map_or(answers, |nth| nth - 1);
    let turning = answers - last;
    // The other owners point to the one that is written whole: it stays in place.
    let turn = if turning > 0 && is_pointer(last) { usize::from(turn) % turning } else { 0 };
    let order = (0..last).chain((0..turning).map(|nth| last + (turn + nth) % turning));
    let (mut len, mut count) = (fixed, 0);
    for nth in order {
        let Some(record) = message.get(start(nth)..end(nth)) else { break };
        let Some(place) = buf.get_mut(len..len + record.len()) else { break };
        place.copy_from_slice(record);
        put_ttl(&mut place[usize::from(ttls[nth]) - start(nth)..], &ttl);
        len += record.len();
        count += 1;
    }
    (len, count)
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
            ttls: &[26],
            rcode: Rcode::NOERROR,
            authentic: true,
            ede: Some(EdeCode::STALE_ANSWER.into()),
        };
        let mut buf = [0xFF; 600];
        let len = write_prepared(&query, &ready, 1232, |ttl| ttl + 1, &mut buf);
        assert_eq!(
            &buf[..len],
            b"\x12\x34\x81\xb0\0\x01\0\x01\0\0\0\x01\x02Db\0\x00\x01\x00\x01\
            \xc0\x0c\0\x01\0\x01\0\0\0\x06\0\x04\x0a\0\0\x01\
            \0\x00\x29\x04\xd0\0\0\x80\0\0\x06\0\x0f\0\x02\0\x03"
        );
    }

    /// An answer with so many addresses, as it lies in the cache.
    fn addresses(count: u8) -> (Vec<u8>, Vec<u16>) {
        let mut message = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x02db\0\x00\x01\x00\x01".to_vec();
        message[7] = count;
        let mut ttls = Vec::new();
        for nth in 0..count {
            message.extend(b"\xc0\x0c\0\x01\0\x01");
            ttls.push(u16::try_from(message.len()).unwrap());
            message.extend([0, 0, 0, 5, 0, 4, 10, 0, 0, nth]);
        }
        (message, ttls)
    }

    #[test]
    fn an_answer_that_does_not_fit_holds_the_records_that_do_and_each_has_its_turn() {
        let (message, ttls) = addresses(100);
        for (limit, fit) in [(512, 30), (1232, 75)] {
            let mut seen = std::collections::BTreeSet::new();
            for id in 0..200_u16 {
                let mut asked = QUERY.to_vec();
                asked[..2].copy_from_slice(&id.to_be_bytes());
                let ready =
                    Prepared { message: &message, ttls: &ttls, rcode: Rcode::NOERROR, authentic: false, ede: None };
                let mut buf = [0; 2_000];
                let len = write_prepared(&query(&asked), &ready, limit, |_| 7, &mut buf);
                assert!(len <= limit && len + 16 > limit, "{len} of {limit} bytes");
                assert_eq!((buf[2] & 0x02, buf[7]), (2, fit), "TC, and whole records");
                let answer = crate::wire::Message::new(&buf[..len]).unwrap();
                for record in answer.records().unwrap().take(usize::from(fit)) {
                    let at = record.unwrap().ttl_start();
                    assert_eq!(buf[at..at + 6], [0, 0, 0, 7, 0, 4]);
                    seen.insert(buf[at + 9]);
                }
            }
            assert_eq!(seen.len(), 100, "each record in turn");
        }
    }

    #[test]
    fn an_answer_that_fits_to_the_byte_is_whole() {
        let (message, ttls) = addresses(30);
        // Header, question, 30 records, and the OPT record.
        let bytes = message.len() + OPT_BYTES;
        for (limit, truncated) in [(bytes, false), (bytes - 1, true)] {
            let ready =
                Prepared { message: &message, ttls: &ttls, rcode: Rcode::NXDOMAIN, authentic: false, ede: None };
            let mut buf = [0; 2_000];
            let limit = limit.max(crate::wire::UDP_BYTES_MIN);
            let len = write_prepared(&query(QUERY), &ready, limit, |ttl| ttl, &mut buf);
            assert_eq!(
                (buf[2] & 0x02 != 0, buf[7]),
                (truncated && bytes > 512, 30 - u8::from(truncated && bytes > 512))
            );
            assert_eq!(buf[3] & 0x0F, 3);
            assert!(len <= limit);
        }
    }
}
