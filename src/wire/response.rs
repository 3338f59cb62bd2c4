//! Writes a response into the caller's buffer, whole RRsets at a time.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    EdeCode, HEADER_BYTES, NameError, NameRef, Opcode, Query, Rcode, Rtype, Section, Tail, UDP_BYTES_MAX,
    UDP_BYTES_MIN,
    compress::{OFFSET_MAX, Offsets},
    flat::Flat,
    query::OPTION_COOKIE,
    reject::Echo,
};

/// The option code of extended errors (RFC 8914, 2).
const OPTION_EDE: u16 = 15;

/// Bytes of an OPT record without options.
const OPT_BYTES: usize = 11;

/// Bytes of an EDE option without text.
const EDE_BYTES: usize = 6;

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It does not fit the limit.
    #[error("the response is full")]
    Full,
    /// A name in it breaks a limit of names.
    #[error("a name cannot be written: {0}")]
    Name(#[from] NameError),
    /// A string of a TXT or HINFO record is longer than 255 bytes, or a record longer than 65,535.
    #[error("a string or record is too long")]
    TooLong,
}

/// An extended error (RFC 8914): why a response is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede<'a> {
    /// For machines.
    pub code: EdeCode,
    /// For people; short, and left out where it does not fit.
    pub text: &'a str,
}

impl From<EdeCode> for Ede<'_> {
    fn from(code: EdeCode) -> Self {
        Self { code, text: "" }
    }
}

/// The data of a record.
#[derive(Clone, Copy, Debug)]
pub enum Rdata<'a> {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name an address points to.
    Ptr(NameRef<'a>),
    /// The name this one is an alias of.
    Cname(NameRef<'a>),
    /// A name server.
    Ns(NameRef<'a>),
    /// The start of a zone; times in seconds (RFC 1035, 3.3.13; RFC 2308, 4).
    Soa {
        /// The primary name server.
        mname: NameRef<'a>,
        /// The person in charge.
        rname: NameRef<'a>,
        /// Version of the zone.
        serial: u32,
        /// How often a secondary looks.
        refresh: u32,
        /// How soon it looks again after a failure.
        retry: u32,
        /// How long it serves without having seen the primary.
        expire: u32,
        /// How long NXDOMAIN and NODATA may be cached.
        minimum: u32,
    },
    /// Where a service is (RFC 2782). The target is written whole as that RFC asks, and compressed only where the set
    /// would not fit otherwise (RFC 3597, 4: receivers take both).
    Srv {
        /// Lower ones are tried first.
        priority: u16,
        /// Share among those of equal priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: NameRef<'a>,
    },
    /// Strings of up to 255 bytes each.
    Txt(&'a [&'a [u8]]),
    /// Two strings of up to 255 bytes.
    Hinfo {
        /// The machine; `RFC8482` in the answer to ANY.
        cpu: &'a [u8],
        /// Its system.
        os: &'a [u8],
    },
    /// Anything else, without compressed names in it.
    Raw {
        /// Its type.
        rtype: Rtype,
        /// Its bytes.
        rdata: &'a [u8],
    },
}

impl Rdata<'_> {
    /// The type of the record.
    #[must_use]
    #[inline]
    pub const fn rtype(&self) -> Rtype {
        match self {
            Self::A(_) => Rtype::A,
            Self::Aaaa(_) => Rtype::AAAA,
            Self::Ptr(_) => Rtype::PTR,
            Self::Cname(_) => Rtype::CNAME,
            Self::Ns(_) => Rtype::NS,
            Self::Soa { .. } => Rtype::SOA,
            Self::Srv { .. } => Rtype::SRV,
            Self::Txt(_) => Rtype::TXT,
            Self::Hinfo { .. } => Rtype::HINFO,
            Self::Raw { rtype, .. } => *rtype,
        }
    }
}

/// A response being written: header and question, then RRsets in the order of the sections, then [`Self::finish`].
///
/// The buffer always ends after the last whole RRset. If a set of the answer or authority section does not fit, it is
/// left out, TC is set and nothing more is taken in; a set of the additional section that does not fit is just left
/// out (RFC 2181, 9).
#[derive(Debug)]
pub struct ResponseWriter<'b, 'q> {
    /// The caller's buffer, cut to the limit.
    buf: &'b mut [u8],
    query: &'q Query<'q>,
    cookie: Option<&'q [u8]>,
    /// Bytes written.
    len: usize,
    /// Where records have to end, so that the OPT record has its room.
    end: usize,
    section: Section,
    /// Records in each section.
    counts: [u16; 3],
    truncated: bool,
    /// SRV targets are compressed: they do not fit otherwise.
    squeeze: bool,
    /// Made when the first name needs it.
    offsets: Option<Offsets>,
}

impl<'b, 'q> ResponseWriter<'b, 'q> {
    /// Begins the response to `query` with its header and question.
    ///
    /// `limit` is in bytes, DNS header included, UDP header not (RFC 6891, 6.2.3): [`Query::udp_limit`] over UDP,
    /// [`TCP_BYTES_MAX`](super::TCP_BYTES_MAX) over TCP. The buffer's own length limits too.
    ///
    /// # Panics
    /// If `buf` or `limit` is below [`UDP_BYTES_MIN`].
    #[must_use]
    #[inline]
    pub fn new(buf: &'b mut [u8], query: &'q Query<'q>, limit: usize) -> Self {
        let limit = limit.min(buf.len()).min(super::TCP_BYTES_MAX);
        assert!(limit >= UDP_BYTES_MIN, "an answer buffer holds 512 bytes");
        let buf = &mut buf[..limit];
        let len = HEADER_BYTES + query.question.len();
        buf[HEADER_BYTES..len].copy_from_slice(query.question);
        let reserved = if query.edns.is_some() { OPT_BYTES + EDE_BYTES } else { 0 };
        Self {
            end: limit - reserved,
            buf,
            query,
            cookie: None,
            len,
            section: Section::Answer,
            counts: [0; 3],
            truncated: false,
            squeeze: false,
            offsets: None,
        }
    }

    /// Puts a COOKIE option into the response, if the query has an OPT record: client and server cookie together, 16 to
    /// 40 bytes (RFC 7873, 4). To be called before the first set, so that there is room.
    pub fn set_cookie(&mut self, cookie: &'q [u8]) {
        if self.query.edns.is_some() && self.cookie.is_none() && self.len + 4 + cookie.len() <= self.end {
            self.end -= 4 + cookie.len();
            self.cookie = Some(cookie);
        }
    }

    /// Writes one RRset, by as many calls of [`Rrset::put`] as it has records, or none of it.
    ///
    /// If the set does not fit with SRV targets written whole, `write` is called a second time, so it must put the same
    /// records whenever it is called.
    ///
    /// # Errors
    /// What `write` returned, and `Full` without calling it once the response is truncated. The response then ends
    /// after the last whole RRset; whether `Full` sets TC is said at the type.
    ///
    /// # Panics
    /// If the section is one before that of the last set.
    #[inline]
    pub fn rrset<F>(&mut self, section: Section, mut write: F) -> Result<(), WriteError>
    where
        F: FnMut(&mut Rrset<'_, 'b, 'q>) -> Result<(), WriteError>,
    {
        assert!(section >= self.section, "sections are written in order");
        self.section = section;
        if self.truncated {
            return Err(WriteError::Full);
        }
        let start = self.len;
        let mut set = Rrset { writer: self, count: 0, squeezable: false };
        let mut result = write(&mut set);
        let squeezable = set.squeezable;
        let mut count = set.count;
        if result == Err(WriteError::Full) && squeezable {
            self.roll_back(start);
            self.squeeze = true;
            let mut set = Rrset { writer: self, count: 0, squeezable: false };
            result = write(&mut set);
            count = set.count;
            self.squeeze = false;
        }
        match result {
            Ok(()) => self.counts[section as usize] += count,
            Err(error) => {
                self.roll_back(start);
                self.truncated = error == WriteError::Full && section != Section::Additional;
            }
        }
        result
    }

    /// Whether a set did not fit, so that TC will be set.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// How many records a section has so far.
    #[must_use]
    pub fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// Writes the header and, if the query had one, the OPT record. Returns the length of the response.
    ///
    /// RA is set, RD and CD are copied, AD is clear: nothing was validated (RFC 6840, 5.8). The EDE is for clients with
    /// EDNS; its text is left out where it does not fit. Without EDNS an `rcode` above 15 becomes SERVFAIL.
    #[inline]
    pub fn finish(self, rcode: Rcode, authoritative: bool, ede: Option<Ede<'_>>) -> usize {
        let Self { buf, query, cookie, mut len, counts: [answers, authority, mut additional], truncated, .. } = self;
        if let Some(edns) = query.edns {
            additional += 1;
            let opt = Opt { rcode, dnssec_ok: edns.dnssec_ok, cookie, ede };
            len += opt.write(&mut buf[len..]);
        }
        let counts = [1, answers, authority, additional];
        let edns = query.edns.map(|edns| edns.dnssec_ok);
        let Query { id, rd, cd, question, .. } = *query;
        let echo = Echo { id, opcode: Opcode::QUERY, rd, cd, question, edns };
        if let Some(head) = buf.first_chunk_mut() {
            *head = header(&echo, authoritative, truncated, rcode, counts);
        }
        len
    }

    fn roll_back(&mut self, start: usize) {
        self.len = start;
        if let Some(offsets) = &mut self.offsets {
            offsets.forget_from(start);
        }
    }

    /// Appends bytes.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.len + bytes.len();
        if end > self.end {
            return Err(WriteError::Full);
        }
        self.buf.get_mut(self.len..end).ok_or(WriteError::Full)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends a name, compressed as far as it can be.
    #[inline]
    fn name(&mut self, name: NameRef<'_>) -> Result<(), WriteError> {
        if let (Tail::Question(skip), []) = (name.tail, name.head)
            && skip < self.query.name.label_count()
        {
            return self.pointer(HEADER_BYTES + self.query.name.start(skip));
        }
        self.parts(name, true)
    }

    fn pointer(&mut self, offset: usize) -> Result<(), WriteError> {
        let [high, low] = u16::try_from(offset).unwrap_or_default().to_be_bytes();
        self.bytes(&[0xC0 | high, low])
    }

    /// Appends a name and notes where its labels are.
    fn parts(&mut self, name: NameRef<'_>, compress: bool) -> Result<(), WriteError> {
        let skip = self.question_skip(name.tail);
        let question = self.query.question;
        let question_len = question.len() - 4;
        let tail = skip.map_or(&[][..], |skip| &question[self.query.name.start(skip)..question_len]);
        let flat = if skip.is_some() {
            NameRef { tail: Tail::Question(0), ..name }.flatten(tail)?
        } else {
            name.flatten(tail)?
        };
        // Where the labels of the question begin there is no need to search.
        let known = skip.map(|skip| (name.head.len(), HEADER_BYTES + self.query.name.start(skip)));
        let offsets = self.offsets.get_or_insert_with(|| question_offsets(self.query));
        let written = &self.buf[..self.len];
        let mut found = None;
        let mut fresh = 0;
        while fresh < flat.labels() && found.is_none() {
            found = match known {
                Some((head, offset)) if head == fresh => Some(offset),
                _ => offsets.find(written, &flat, fresh).map(usize::from),
            };
            fresh += usize::from(found.is_none());
        }
        let start = self.len;
        match found {
            Some(offset) if compress && offset <= OFFSET_MAX => {
                self.bytes(&flat.suffix(0)[..flat.start(fresh)])?;
                self.pointer(offset)?;
            }
            _ => self.bytes(flat.suffix(0))?,
        }
        if let Some(offsets) = &mut self.offsets {
            for skip in 0..fresh {
                offsets.note(&flat, skip, start + flat.start(skip));
            }
        }
        Ok(())
    }

    /// How many labels of the question a tail leaves out, if it is part of the question.
    fn question_skip(&self, tail: Tail<'_>) -> Option<usize> {
        match tail {
            Tail::Question(skip) => Some(skip),
            Tail::Name(name) => self.query.name.labels_above(name),
            Tail::Dotted(_) => None,
        }
    }

    /// Appends the data of a record without its length.
    fn rdata(&mut self, rdata: Rdata<'_>) -> Result<(), WriteError> {
        match rdata {
            Rdata::A(ip) => self.bytes(&ip.octets()),
            Rdata::Aaaa(ip) => self.bytes(&ip.octets()),
            Rdata::Ptr(name) | Rdata::Cname(name) | Rdata::Ns(name) => self.name(name),
            Rdata::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
                self.name(mname)?;
                self.name(rname)?;
                let mut numbers = [0; 20];
                let values = [serial, refresh, retry, expire, minimum];
                for (bytes, value) in numbers.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *bytes = value.to_be_bytes();
                }
                self.bytes(&numbers)
            }
            Rdata::Srv { priority, weight, port, target } => {
                for value in [priority, weight, port] {
                    self.bytes(&value.to_be_bytes())?;
                }
                if self.squeeze { self.name(target) } else { self.parts(target, false) }
            }
            Rdata::Txt(strings) => strings.iter().try_for_each(|string| self.string(string)),
            Rdata::Hinfo { cpu, os } => {
                self.string(cpu)?;
                self.string(os)
            }
            Rdata::Raw { rdata, .. } => self.bytes(rdata),
        }
    }

    fn string(&mut self, string: &[u8]) -> Result<(), WriteError> {
        let len = u8::try_from(string.len()).map_err(|_| WriteError::TooLong)?;
        self.bytes(&[len])?;
        self.bytes(string)
    }
}

/// The table with the question's name in it.
#[cold]
fn question_offsets(query: &Query<'_>) -> Offsets {
    let mut offsets = Offsets::EMPTY;
    let flat = NameRef::name(&query.name).flatten(&[]).unwrap_or(Flat::ROOT);
    for skip in 0..flat.labels() {
        offsets.note(&flat, skip, HEADER_BYTES + flat.start(skip));
    }
    offsets
}

/// One RRset being written.
#[derive(Debug)]
pub struct Rrset<'w, 'b, 'q> {
    writer: &'w mut ResponseWriter<'b, 'q>,
    count: u16,
    squeezable: bool,
}

impl Rrset<'_, '_, '_> {
    /// Appends one record of class IN; `ttl` in seconds.
    ///
    /// # Errors
    /// To be handed on by the caller: the whole set is then rolled back.
    #[inline]
    pub fn put(&mut self, owner: NameRef<'_>, ttl: u32, rdata: Rdata<'_>) -> Result<(), WriteError> {
        let writer = &mut *self.writer;
        writer.name(owner)?;
        let [type_high, type_low] = rdata.rtype().0.to_be_bytes();
        let [t0, t1, t2, t3] = ttl.to_be_bytes();
        writer.bytes(&[type_high, type_low, 0, 1, t0, t1, t2, t3, 0, 0])?;
        let start = writer.len;
        if let Rdata::Srv { .. } = rdata {
            self.squeezable = !writer.squeeze;
        }
        writer.rdata(rdata)?;
        let len = u16::try_from(writer.len - start).map_err(|_| WriteError::TooLong)?;
        writer.buf[start - 2..start].copy_from_slice(&len.to_be_bytes());
        self.count += 1;
        Ok(())
    }
}

/// The header of a response (RFC 1035, 4.1.1).
#[inline]
pub(super) fn header(
    echo: &Echo<'_>,
    authoritative: bool,
    truncated: bool,
    rcode: Rcode,
    counts: [u16; 4],
) -> [u8; HEADER_BYTES] {
    let [id_high, id_low] = echo.id.to_be_bytes();
    let rcode = if rcode.0 > 15 && echo.edns.is_none() { Rcode::SERVFAIL } else { rcode };
    let flags = 0x80 | echo.opcode.0 << 3 | u8::from(authoritative) << 2 | u8::from(truncated) << 1 | u8::from(echo.rd);
    let more_flags = 0x80 | u8::from(echo.cd) << 4 | rcode.0.to_be_bytes()[1] & 0x0F;
    let [[qd0, qd1], [an0, an1], [ns0, ns1], [ar0, ar1]] = counts.map(u16::to_be_bytes);
    [id_high, id_low, flags, more_flags, qd0, qd1, an0, an1, ns0, ns1, ar0, ar1]
}

/// The OPT record of a response (RFC 6891, 6.1.2).
pub(super) struct Opt<'a> {
    pub rcode: Rcode,
    pub dnssec_ok: bool,
    pub cookie: Option<&'a [u8]>,
    pub ede: Option<Ede<'a>>,
}

impl Opt<'_> {
    /// Writes the record to the start of `buf`, which has room for all but the text of the EDE. Returns its length.
    #[inline]
    pub(super) fn write(&self, buf: &mut [u8]) -> usize {
        let [size_high, size_low] = u16::try_from(UDP_BYTES_MAX).unwrap_or_default().to_be_bytes();
        let extended = (self.rcode.0 >> 4).to_be_bytes()[1];
        let dnssec_ok = u8::from(self.dnssec_ok) << 7;
        let fixed = [0, 0, 41, size_high, size_low, extended, 0, dnssec_ok, 0, 0, 0];
        buf[..OPT_BYTES].copy_from_slice(&fixed);
        if self.cookie.is_none() && self.ede.is_none() {
            return OPT_BYTES;
        }
        self.write_options(buf)
    }

    fn write_options(&self, buf: &mut [u8]) -> usize {
        let mut len = OPT_BYTES;
        let mut option = |code: u16, parts: [&[u8]; 2]| {
            let value = parts[0].len() + parts[1].len();
            let Some(room) = buf.get_mut(len..len + 4 + value) else { return false };
            room[..2].copy_from_slice(&code.to_be_bytes());
            room[2..4].copy_from_slice(&u16::try_from(value).unwrap_or_default().to_be_bytes());
            room[4..4 + parts[0].len()].copy_from_slice(parts[0]);
            room[4 + parts[0].len()..].copy_from_slice(parts[1]);
            len += 4 + value;
            true
        };
        if let Some(cookie) = self.cookie {
            option(OPTION_COOKIE, [cookie, &[]]);
        }
        if let Some(Ede { code, text }) = self.ede {
            let code = code.0.to_be_bytes();
            let _fits = option(OPTION_EDE, [&code, text.as_bytes()]) || option(OPTION_EDE, [&code, &[]]);
        }
        let options = u16::try_from(len - OPT_BYTES).unwrap_or_default();
        buf[OPT_BYTES - 2..OPT_BYTES].copy_from_slice(&options.to_be_bytes());
        len
    }
}

#[cfg(test)]
mod tests;
