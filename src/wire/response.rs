//! Writes a response into the caller's buffer, whole records at a time.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Ede, HEADER_BYTES, NameError, NameRef, Opcode, Query, Rcode, Rdata, Section, Tail, UDP_BYTES_MIN,
    compress::Offsets,
    edns::{COOKIE_BYTES, EDE_BYTES, OPT_BYTES, Opt},
    flat::{LABEL_BYTES_MAX, NAME_BYTES_MAX},
    reject::Echo,
};

/// Why a record is not written.
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

/// A response being written: header and question, then RRsets in the order of the sections, then [`Self::finish`].
///
/// The buffer always ends after a whole record. A set of the answer section that does not fit is cut after the last record
/// that does, TC is set and nothing more is taken in: clients without TCP live on those records. A set of the authority
/// section that does not fit is left out and sets TC; one of the additional section is just left out (RFC 2181, 9).
#[derive(Debug)]
pub struct ResponseWriter<'b, 'q> {
    /// The caller's buffer, cut to the limit.
    buf: &'b mut [u8],
    query: &'q Query<'q>,
    /// Bytes written so far.
    len: usize,
    /// Maximum end of the records: the OPT record has its bytes after it.
    end: usize,
    section: Section,
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
    #[inline]
    pub fn new(buf: &'b mut [u8], query: &'q Query<'q>, limit: usize) -> Self {
        let limit = limit.min(buf.len()).min(super::TCP_BYTES_MAX);
        assert!(limit >= UDP_BYTES_MIN, "an answer buffer holds 512 bytes");
        let buf = &mut buf[..limit];
        let len = HEADER_BYTES + query.question.len();
        buf[HEADER_BYTES..len].copy_from_slice(query.question);
        let reserved = match (query.edns, query.cookie) {
            (None, _) => 0,
            (Some(_), None) => OPT_BYTES + EDE_BYTES,
            (Some(_), Some(_)) => OPT_BYTES + EDE_BYTES + COOKIE_BYTES,
        };
        Self {
            end: limit - reserved,
            buf,
            query,
            len,
            section: Section::Answer,
            counts: [0; 3],
            truncated: false,
            squeeze: false,
            offsets: None,
        }
    }

    /// Writes one RRset, by as many calls of [`Rrset::put`] as it has records. Of a set of the answer section that does not
    /// fit, the records before the first that does not fit stay.
    ///
    /// If the set does not fit with SRV targets written whole, `write` is called a second time, so it must put the same
    /// records whenever it is called.
    ///
    /// # Errors
    /// The error of `write`, and `Full` without calling it once the response is truncated. The response then ends
    /// after a whole record; when `Full` sets TC, and when it leaves a part of the set, is said at the type.
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
            // Clients without TCP live on the records that fit.
            Err(WriteError::Full) if section == Section::Answer => {
                self.counts[section as usize] += count;
                self.truncated = true;
            }
            Err(error) => {
                self.roll_back(start);
                self.truncated = error == WriteError::Full && section != Section::Additional;
            }
        }
        result
    }

    /// True if a set did not fit, so that TC will be set.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// How many records a section has so far.
    pub fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// Writes the header and, if the query had one, the OPT record, with the cookie if there is one to be sent. Returns the
    /// length of the response.
    ///
    /// RA is set, RD and CD are copied, AD is clear: nothing was validated (RFC 6840, 5.8). The EDE is for clients with
    /// EDNS; its text is left out where it does not fit. Without EDNS an `rcode` above 15 becomes SERVFAIL.
    #[expect(clippy::inline_always, reason = "it takes the writer, which then need not be moved")]
    #[inline(always)]
    pub fn finish(mut self, rcode: Rcode, authoritative: bool, ede: Option<Ede<'_>>) -> usize {
        self.close(rcode, authoritative, ede)
    }

    fn close(&mut self, rcode: Rcode, authoritative: bool, ede: Option<Ede<'_>>) -> usize {
        let Self { ref mut buf, query, mut len, counts: [answers, authority, mut additional], truncated, .. } = *self;
        if let Some(edns) = query.edns {
            additional += 1;
            let opt = Opt { rcode, dnssec_ok: edns.dnssec_ok, cookie: query.cookie.as_ref(), ede };
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

    /// Appends bytes of a length known beforehand.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), WriteError> {
        *self.room()? = bytes;
        Ok(())
    }

    /// Makes room for some bytes.
    #[inline]
    fn room<const N: usize>(&mut self) -> Result<&mut [u8; N], WriteError> {
        let start = self.len;
        if start + N > self.end {
            return Err(WriteError::Full);
        }
        let room = self.buf.get_mut(start..).and_then(<[u8]>::first_chunk_mut).ok_or(WriteError::Full)?;
        self.len = start + N;
        Ok(room)
    }

    /// How many labels of the name asked for a tail leaves out, if it is part of it.
    #[inline]
    fn question_skip(&self, tail: Tail<'_>) -> Option<usize> {
        match tail {
            Tail::Question(skip) => Some(skip),
            Tail::Name(name) => self.query.name.labels_above(name),
            Tail::Dotted(_) => None,
        }
    }

    /// Where the name asked for is without its first `skip` labels.
    #[inline]
    fn question_offset(&self, skip: usize) -> usize {
        HEADER_BYTES + self.query.name.flat().start(skip)
    }

    /// The name asked for without its first `skip` labels, in the case asked.
    fn question_suffix(&self, skip: usize) -> &'q [u8] {
        let asked = self.query.name.flat();
        self.query.question.get(asked.start(skip)..asked.suffix(0).len()).unwrap_or(&[0])
    }

    /// The pointer that is all of a name, if it is the one asked for or a suffix of that.
    #[inline]
    fn question_pointer(&self, name: NameRef<'_>) -> Option<[u8; 2]> {
        let skip = if name.head.is_empty() { self.question_skip(name.tail)? } else { return None };
        // The root is shorter than a pointer to it.
        (skip < self.query.name.label_count()).then(|| pointer(self.question_offset(skip)))
    }

    /// Appends a name, compressed as far as it can be.
    #[inline]
    fn name(&mut self, name: NameRef<'_>) -> Result<(), WriteError> {
        match self.question_pointer(name) {
            Some(pointer) => self.array(pointer),
            None => self.parts(name, true),
        }
    }

    /// Appends a name of an SOA record, which nothing later is likely to point to: if the question ends as it does, its
    /// labels and a pointer, without search or note. Every negative answer has two of them.
    fn soa_name(&mut self, name: NameRef<'_>) -> Result<(), WriteError> {
        let Some(skip) = self.question_skip(name.tail) else { return self.parts(name, true) };
        let mut len = self.query.name.suffix(skip).len();
        for label in name.head {
            if label.is_empty() {
                return Err(NameError::EmptyLabel.into());
            }
            if label.len() > LABEL_BYTES_MAX {
                return Err(NameError::LabelTooLong.into());
            }
            len += 1 + label.len();
            self.string(label)?;
        }
        if len > NAME_BYTES_MAX {
            return Err(NameError::TooLong.into());
        }
        if skip < self.query.name.label_count() {
            self.array(pointer(self.question_offset(skip)))
        } else {
            self.array([0])
        }
    }

    /// Appends a name and notes where its labels are.
    fn parts(&mut self, name: NameRef<'_>, compress: bool) -> Result<(), WriteError> {
        let skip = self.question_skip(name.tail);
        let question = skip.map(|skip| self.question_suffix(skip));
        let (wire, head) = name.flatten(question)?;
        let wire = wire.as_slice();
        let mut found = None;
        let mut at = 0;
        while let Some(suffix) = wire.get(at..)
            && let Some(len) = suffix.first().filter(|len| **len > 0)
        {
            found = match skip {
                Some(skip) if at == head => Some(self.question_offset(skip)),
                _ => self.find_or_note(suffix, at),
            };
            if found.is_some() {
                break;
            }
            at += 1 + usize::from(*len);
        }
        match found {
            Some(offset) if compress => {
                self.bytes(wire.get(..at).unwrap_or_default())?;
                self.array(pointer(offset))
            }
            _ => self.bytes(wire),
        }
    }

    /// Where a name is already, in the question or behind it; if nowhere, notes that it is about to be written, `ahead`
    /// bytes on.
    fn find_or_note(&mut self, name: &[u8], ahead: usize) -> Option<usize> {
        let asked = self.query.name.flat();
        if let Some(at) = asked.suffix(0).len().checked_sub(name.len())
            && asked.suffix(0).get(at..) == Some(name)
            && (0..asked.labels()).any(|skip| asked.start(skip) == at)
        {
            return Some(HEADER_BYTES + at);
        }
        let offsets = self.offsets.get_or_insert(Offsets::EMPTY);
        offsets.find_or_note(self.buf.get(..self.len).unwrap_or_default(), name, self.len + ahead)
    }

    /// Appends an address record of the question's name or a suffix of it, which is what is asked for most.
    #[inline]
    fn a(&mut self, [p0, p1]: [u8; 2], ttl: u32, ip: Ipv4Addr) -> Result<(), WriteError> {
        let [t0, t1, t2, t3] = ttl.to_be_bytes();
        let [a, b, c, d] = ip.octets();
        self.array([p0, p1, 0, 1, 0, 1, t0, t1, t2, t3, 0, 4, a, b, c, d])
    }

    /// [`Self::a`] for IPv6.
    #[inline]
    fn aaaa(&mut self, [p0, p1]: [u8; 2], ttl: u32, ip: Ipv6Addr) -> Result<(), WriteError> {
        let [t0, t1, t2, t3] = ttl.to_be_bytes();
        let room = self.room::<28>()?;
        room[..12].copy_from_slice(&[p0, p1, 0, 28, 0, 1, t0, t1, t2, t3, 0, 16]);
        room[12..].copy_from_slice(&ip.octets());
        Ok(())
    }

    /// Appends a record of any kind.
    fn record(&mut self, owner: NameRef<'_>, ttl: u32, rdata: Rdata<'_>) -> Result<(), WriteError> {
        self.name(owner)?;
        let [type_high, type_low] = rdata.rtype().0.to_be_bytes();
        let [t0, t1, t2, t3] = ttl.to_be_bytes();
        self.array([type_high, type_low, 0, 1, t0, t1, t2, t3, 0, 0])?;
        let start = self.len;
        self.rdata(rdata)?;
        let len = u16::try_from(self.len - start).map_err(|_| WriteError::TooLong)?;
        self.buf[start - 2..start].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }

    /// Appends the data of a record without its length.
    fn rdata(&mut self, rdata: Rdata<'_>) -> Result<(), WriteError> {
        match rdata {
            Rdata::A(ip) => self.bytes(&ip.octets()),
            Rdata::Aaaa(ip) => self.bytes(&ip.octets()),
            Rdata::Ptr(name) | Rdata::Cname(name) | Rdata::Ns(name) => self.name(name),
            Rdata::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
                self.soa_name(mname)?;
                self.soa_name(rname)?;
                let room = self.room::<20>()?;
                let values = [serial, refresh, retry, expire, minimum];
                for (bytes, value) in room.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *bytes = value.to_be_bytes();
                }
                Ok(())
            }
            Rdata::Srv { priority, weight, port, target } => {
                for value in [priority, weight, port] {
                    self.bytes(&value.to_be_bytes())?;
                }
                if self.squeeze { self.name(target) } else { self.parts(target, false) }
            }
            // There is no TXT record without a string (RFC 1035, 3.3.14).
            Rdata::Txt([]) => self.string(&[]),
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
    /// To be handed on by the caller: this record, and mostly the whole set, is then rolled back.
    #[expect(clippy::inline_always, reason = "with the kind of record known, nothing of the match is left")]
    #[inline(always)]
    pub fn put(&mut self, owner: NameRef<'_>, ttl: u32, rdata: Rdata<'_>) -> Result<(), WriteError> {
        match (rdata, self.writer.question_pointer(owner)) {
            (Rdata::A(ip), Some(owner)) => self.writer.a(owner, ttl, ip)?,
            (Rdata::Aaaa(ip), Some(owner)) => self.writer.aaaa(owner, ttl, ip)?,
            _ => {
                self.squeezable |= matches!(rdata, Rdata::Srv { .. }) && !self.writer.squeeze;
                let start = self.writer.len;
                // The rest of the set ends with a whole record.
                self.writer.record(owner, ttl, rdata).inspect_err(|_| self.writer.roll_back(start))?;
            }
        }
        self.count += 1;
        Ok(())
    }
}

/// A pointer to an offset (RFC 1035, 4.1.4).
#[inline]
fn pointer(offset: usize) -> [u8; 2] {
    let [high, low] = u16::try_from(offset).unwrap_or_default().to_be_bytes();
    [0xC0 | high, low]
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

#[cfg(test)]
mod tests;
