//! Reads queries of clients. Never follows a compression pointer.

use super::{
    Class, EdeCode, HEADER_BYTES, Name, Opcode, Rcode, Reject, Rtype, UDP_BYTES_MAX, UDP_BYTES_MIN,
    edns::{Cookie, OPTION_COOKIE},
    reject::Echo,
};

/// A message from a client, read.
#[expect(clippy::large_enum_variant, reason = "it is on the stack for the time of one answer, and nowhere else")]
#[derive(Debug)]
pub enum Parsed<'a> {
    Query(Query<'a>),
    /// Gets an answer without data: see [`write_reject`](super::write_reject).
    Reject(Reject<'a>),
    /// Gets no answer.
    Drop(DropReason),
}

/// Why a message gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    Short,
    /// It is a response itself (QR=1); answering one can start a loop.
    Response,
}

/// A well-formed question. Opcode QUERY, one question, any class and type.
///
/// The other bits of its header (AA, TC, RA, Z, and the RCODE) are ignored (RFC 8906, 3.1).
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Copied into the response.
    pub id: u16,
    /// Recursion desired; copied into the response.
    pub rd: bool,
    /// The client understands the AD bit of a response (RFC 6840, 5.7).
    pub ad: bool,
    /// Checking disabled; copied into the response.
    pub cd: bool,
    /// The name asked for, in lower case.
    pub name: Name,
    /// The type asked for, meta types such as ANY and AXFR included.
    pub qtype: Rtype,
    /// The class asked for, `IN` nearly always.
    pub qclass: Class,
    /// The question as it came: name in the case asked, type and class.
    pub question: &'a [u8],
    /// The client's OPT record, if there is one. Its version is 0.
    pub edns: Option<Edns<'a>>,
    /// The cookie of the response, if the query has an OPT record. Never read from a message: set by
    /// `dns::cookies`.
    pub cookie: Option<Cookie>,
}

/// The client's OPT record (RFC 6891, 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// EDNS version; only 0 is defined.
    pub version: u8,
    /// Maximum bytes of a UDP answer to this client; values below 512 count as 512.
    pub payload_size: u16,
    /// DNSSEC OK; copied into the response.
    pub dnssec_ok: bool,
    /// The first COOKIE option, of any length (RFC 7873, 4); `dns::cookies` checks it.
    pub cookie: Option<&'a [u8]>,
}

impl Default for Query<'_> {
    /// An empty query, for [`Query::read`].
    #[inline]
    fn default() -> Self {
        // Field by field, for this is most cheaply made in place.
        Self {
            id: 0,
            rd: false,
            ad: false,
            cd: false,
            name: Name::ROOT,
            qtype: Rtype(0),
            qclass: Class(0),
            question: &[],
            edns: None,
            cookie: None,
        }
    }
}

impl<'a> Query<'a> {
    /// [`parse`] in place. To be called once: the parts of another message are not cleared.
    ///
    /// # Errors
    /// If the message is no query to answer; this one is then of no meaning.
    #[inline]
    pub fn read(&mut self, message: &'a [u8]) -> Result<(), NoQuery<'a>> {
        let Some((header, body)) = message.split_first_chunk::<HEADER_BYTES>() else {
            return Err(NoQuery::Drop(DropReason::Short));
        };
        let [id_high, id_low, flags, more_flags, qd_high, qd_low, counts @ ..] = *header;
        if flags & 0x80 != 0 {
            return Err(NoQuery::Drop(DropReason::Response));
        }
        self.id = u16::from_be_bytes([id_high, id_low]);
        self.rd = flags & 0x01 != 0;
        self.ad = more_flags & 0x20 != 0;
        self.cd = more_flags & 0x10 != 0;
        let mut no_question = false;
        let read = match [qd_high, qd_low] {
            [0, 1] => read_question(self, body).and_then(|rest| read_records(self, rest, counts)),
            // The records are read all the same, for the response has an OPT record if the query has one.
            [0, 0] => read_records(self, body, counts).and_then(|()| {
                no_question = true;
                Err(Malformed)
            }),
            _ => Err(Malformed),
        };
        let opcode = Opcode((flags >> 3) & 0x0F);
        let rcode = match read {
            // The opcode decides first: the sections differ by it (RFC 2136, 2).
            _ if opcode != Opcode::QUERY => Rcode::NOTIMP,
            Err(Malformed) => Rcode::FORMERR,
            Ok(()) if self.edns.is_some_and(|edns| edns.version != 0) => Rcode::BADVERS,
            Ok(()) => return Ok(()),
        };
        let asked_cookie = self.edns.and_then(|edns| edns.cookie);
        let for_cookie_alone = no_question && rcode == Rcode::FORMERR && asked_cookie.is_some();
        let echo = Echo { opcode, ..self.echo() };
        Err(NoQuery::Reject(Reject { rcode, ede: None, cookie: None, echo, asked_cookie, for_cookie_alone }))
    }

    /// Maximum bytes of a UDP answer to this client, ours included (RFC 6891, 6.2.5).
    #[inline]
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(UDP_BYTES_MIN, |edns| usize::from(edns.payload_size).min(UDP_BYTES_MAX))
    }

    /// A response without data: REFUSED, SERVFAIL and the like.
    pub fn reject(&self, rcode: Rcode, ede: Option<EdeCode>) -> Reject<'a> {
        Reject {
            rcode,
            ede: ede.map(Into::into),
            cookie: self.cookie,
            echo: self.echo(),
            asked_cookie: self.edns.and_then(|edns| edns.cookie),
            for_cookie_alone: false,
        }
    }

    fn echo(&self) -> Echo<'a> {
        Echo {
            id: self.id,
            opcode: Opcode::QUERY,
            rd: self.rd,
            cd: self.cd,
            question: self.question,
            edns: self.edns.map(|edns| edns.dnssec_ok),
        }
    }
}

/// Reads one message from a client, as it came from a datagram or behind a TCP length prefix.
///
/// Bytes behind the last record are ignored, as are records in the answer and authority sections and those in the
/// additional section that are not OPT (TSIG among them: we hold no keys, and answer as if unsigned).
///
/// A [`Query`] is large to move: to answer many, keep one in place and call [`Query::read`].
pub fn parse(message: &[u8]) -> Parsed<'_> {
    let mut query = Query::default();
    match query.read(message) {
        Ok(()) => Parsed::Query(query),
        Err(NoQuery::Reject(reject)) => Parsed::Reject(reject),
        Err(NoQuery::Drop(reason)) => Parsed::Drop(reason),
    }
}

/// A message that is not a query to answer.
#[derive(Debug)]
pub enum NoQuery<'a> {
    /// Gets an answer without data: see [`write_reject`](super::write_reject).
    Reject(Reject<'a>),
    /// Gets no answer.
    Drop(DropReason),
}

/// The message does not match its header.
struct Malformed;

/// Reads the question; returns the rest.
#[inline]
fn read_question<'a>(query: &mut Query<'a>, body: &'a [u8]) -> Result<&'a [u8], Malformed> {
    query.name.read_wire(body).map_err(|_| Malformed)?;
    let name_len = query.name.wire().len();
    let (question, rest) = body.split_at_checked(name_len + 4).ok_or(Malformed)?;
    let Some([type_high, type_low, class_high, class_low]) = question.last_chunk() else { return Err(Malformed) };
    query.qtype = Rtype(u16::from_be_bytes([*type_high, *type_low]));
    query.qclass = Class(u16::from_be_bytes([*class_high, *class_low]));
    query.question = question;
    Ok(rest)
}

/// Walks over the records of all sections and takes the OPT record in.
#[inline]
fn read_records<'a>(query: &mut Query<'a>, mut rest: &'a [u8], counts: [u8; 6]) -> Result<(), Malformed> {
    let count = |at: usize| u32::from(u16::from_be_bytes([counts[at], counts[at + 1]]));
    let before = count(0) + count(2);
    let total = before + count(4);
    for index in 0..total {
        let (root, fixed) = skip_name(rest)?;
        let (&[type_high, type_low, class_high, class_low, _ext, version, flags, _, len_high, len_low], data) =
            fixed.split_first_chunk::<10>().ok_or(Malformed)?;
        let (rdata, next) =
            data.split_at_checked(usize::from(u16::from_be_bytes([len_high, len_low]))).ok_or(Malformed)?;
        rest = next;
        if Rtype(u16::from_be_bytes([type_high, type_low])) != Rtype::OPT {
            continue;
        }
        // Exactly one, owned by the root, in the additional section (RFC 6891, 6.1.1).
        if !root || index < before || query.edns.is_some() {
            return Err(Malformed);
        }
        let payload_size = u16::from_be_bytes([class_high, class_low]).max(512);
        query.edns = Some(Edns { version, payload_size, dnssec_ok: flags & 0x80 != 0, cookie: None });
        // The options of another EDNS version are not checked.
        if version == 0 {
            let cookie = read_options(rdata)?;
            query.edns = query.edns.map(|edns| Edns { cookie, ..edns });
        }
    }
    Ok(())
}

/// Skips a name that may end in a pointer. True if it is the root, uncompressed; and what follows it.
#[inline]
fn skip_name(mut rest: &[u8]) -> Result<(bool, &[u8]), Malformed> {
    if let Some((0, next)) = rest.split_first() {
        return Ok((true, next));
    }
    let whole = rest.len();
    loop {
        let (&len, next) = rest.split_first().ok_or(Malformed)?;
        rest = match len {
            0 => return if whole - next.len() <= 255 { Ok((false, next)) } else { Err(Malformed) },
            1..=63 => next.get(usize::from(len)..).ok_or(Malformed)?,
            0xC0.. => return next.get(1..).map(|next| (false, next)).ok_or(Malformed),
            _ => return Err(Malformed),
        };
    }
}

/// Checks that a list of options fills its record, and finds the cookie.
#[inline]
fn read_options(mut rest: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut cookie = None;
    while !rest.is_empty() {
        let (&[code_high, code_low, len_high, len_low], data) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
        let (value, next) =
            data.split_at_checked(usize::from(u16::from_be_bytes([len_high, len_low]))).ok_or(Malformed)?;
        if u16::from_be_bytes([code_high, code_low]) == OPTION_COOKIE && cookie.is_none() {
            cookie = Some(value);
        }
        rest = next;
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x02Db\x04prod\0\x00\x1c\x00\x01";
    const OPT: &[u8] = b"\0\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";

    /// A message of a header with these flags and counts, and a body.
    fn message(flags: u16, counts: [u16; 4], body: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![0x12, 0x34];
        message.extend(flags.to_be_bytes());
        message.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        message.extend(body.concat());
        message
    }

    fn query(message: &[u8]) -> Query<'_> {
        match parse(message) {
            Parsed::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    fn rejected(message: &[u8]) -> (Rcode, bool, bool) {
        match parse(message) {
            Parsed::Reject(reject) => (reject.rcode, !reject.echo.question.is_empty(), reject.echo.edns.is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_read() {
        let bytes = message(0x0130, [1, 0, 0, 0], &[QUESTION]);
        let query = query(&bytes);
        assert_eq!((query.id, query.rd, query.ad, query.cd), (0x1234, true, true, true));
        assert_eq!(query.name.to_string(), "db.prod.");
        assert_eq!((query.qtype, query.qclass), (Rtype::AAAA, Class::IN));
        assert_eq!((query.question, query.edns), (QUESTION, None));
        assert_eq!(query.udp_limit(), 512);
    }

    #[test]
    fn flags_that_mean_nothing_in_a_query_are_ignored() {
        let bytes = message(0x06CF, [1, 0, 0, 0], &[QUESTION]);
        let query = query(&bytes);
        assert_eq!((query.rd, query.ad, query.cd), (false, false, false));
    }

    #[test]
    fn edns_is_read_wherever_it_stands() {
        let record = b"\x01x\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x01";
        let tsig = b"\x01k\0\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x02\xff\xff";
        for (counts, body) in [
            ([1, 0, 0, 1], vec![QUESTION, OPT]),
            ([1, 1, 1, 3], vec![QUESTION, record, record, record, OPT, tsig]),
            ([1, 0, 0, 1], vec![QUESTION, OPT, b"trailing bytes"]),
        ] {
            let bytes = message(0x0100, counts, &body);
            let edns = Edns { version: 0, payload_size: 4096, dnssec_ok: true, cookie: None };
            assert_eq!(query(&bytes).edns, Some(edns));
            assert_eq!(query(&bytes).udp_limit(), 1232);
        }
    }

    #[test]
    fn payload_sizes_below_512_count_as_512() {
        for (said, counts) in [(0, 512), (511, 512), (512, 512), (513, 513), (1231, 1231), (1233, 1232)] {
            let [high, low] = u16::to_be_bytes(said);
            let opt = [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0];
            let bytes = message(0, [1, 0, 0, 1], &[QUESTION, &opt]);
            assert_eq!(query(&bytes).udp_limit(), counts, "{said}");
        }
    }

    #[test]
    fn the_first_cookie_is_exposed_and_unknown_options_are_ignored() {
        let options = b"\xfd\xe9\x00\x03abc\x00\x0a\x00\x0812345678\x00\x0a\x00\x00\x00\x0c\x00\x00";
        let opt = [&OPT[..9], &u16::to_be_bytes(options.len().try_into().unwrap()), options].concat();
        let bytes = message(0, [1, 0, 0, 1], &[QUESTION, &opt]);
        assert_eq!(query(&bytes).edns.unwrap().cookie, Some(&b"12345678"[..]));
    }

    #[test]
    fn malformed_messages_are_formerr_and_say_what_could_be_read() {
        let opt_of_a_name = b"\x01x\0\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00";
        let cut_option = b"\0\x00\x29\x10\x00\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x02x";
        let cut_option_header = b"\0\x00\x29\x10\x00\x00\x00\x00\x00\x00\x03\x00\x0a\x00";
        let long_rdata = b"\0\x00\x29\x10\x00\x00\x00\x00\x00\x00\x05";
        for (case, counts, body, question, edns) in [
            ("no question", [0, 0, 0, 0], vec![], false, false),
            ("no question but EDNS", [0, 0, 0, 1], vec![OPT], false, true),
            ("two questions", [2, 0, 0, 0], vec![QUESTION, QUESTION], false, false),
            ("question missing", [1, 0, 0, 0], vec![], false, false),
            ("name cut", [1, 0, 0, 0], vec![&QUESTION[..5]], false, false),
            ("class cut", [1, 0, 0, 0], vec![&QUESTION[..11]], false, false),
            ("compressed name", [1, 0, 0, 0], vec![b"\x02db\xc0\x0c\x00\x01\x00\x01"], false, false),
            ("label of type 0x40", [1, 0, 0, 0], vec![b"\x41x\0\x00\x01\x00\x01"], false, false),
            ("two OPTs", [1, 0, 0, 2], vec![QUESTION, OPT, OPT], true, true),
            ("OPT of a name", [1, 0, 0, 1], vec![QUESTION, opt_of_a_name], true, false),
            ("OPT as answer", [1, 1, 0, 0], vec![QUESTION, OPT], true, false),
            ("option cut", [1, 0, 0, 1], vec![QUESTION, cut_option], true, true),
            ("option header cut", [1, 0, 0, 1], vec![QUESTION, cut_option_header], true, true),
            ("record cut", [1, 0, 0, 1], vec![QUESTION, &OPT[..10]], true, false),
            ("rdata cut", [1, 0, 0, 1], vec![QUESTION, long_rdata], true, false),
            ("record missing", [1, 0, 0, 2], vec![QUESTION, OPT], true, true),
        ] {
            let bytes = message(0x0100, counts, &body);
            assert_eq!(rejected(&bytes), (Rcode::FORMERR, question, edns), "{case}");
        }
    }

    #[test]
    fn other_opcodes_are_not_implemented_whatever_they_carry() {
        for opcode in 1..16 {
            let bytes = message(opcode << 11, [1, 0, 0, 1], &[QUESTION, OPT]);
            assert_eq!(rejected(&bytes), (Rcode::NOTIMP, true, true), "{opcode}");
            let bytes = message(opcode << 11, [7, 7, 7, 7], &[b"garbage"]);
            assert_eq!(rejected(&bytes), (Rcode::NOTIMP, false, false), "{opcode}");
        }
    }

    #[test]
    fn other_versions_of_edns_are_badvers_and_their_options_not_judged() {
        let opt = b"\0\x00\x29\x10\x00\x00\x01\x00\x00\x00\x01x";
        let bytes = message(0, [1, 0, 0, 1], &[QUESTION, opt]);
        assert_eq!(rejected(&bytes), (Rcode::BADVERS, true, true));
    }

    #[test]
    fn responses_and_what_is_shorter_than_a_header_are_dropped() {
        let bytes = message(0x8180, [1, 0, 0, 0], &[QUESTION]);
        assert!(matches!(parse(&bytes), Parsed::Drop(DropReason::Response)));
        for len in 0..HEADER_BYTES {
            assert!(matches!(parse(&bytes[..len]), Parsed::Drop(DropReason::Short)), "{len}");
        }
    }
}
