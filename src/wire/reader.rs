//! Reads messages in place, mostly upstream responses: the offsets of their records, and their data.
//!
//! Compression pointers are followed only where the caller reads a name, and only backwards.

use super::{HEADER_BYTES, Name, NameError, Rcode, Rtype, Section};

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end before the message does.
    #[error("the message is cut off at byte {0}")]
    CutOff(usize),
    /// A label's first byte has an undefined type.
    #[error("the label at byte {0} is of an unknown kind")]
    LabelKind(usize),
    /// A pointer does not lead backwards.
    #[error("the pointer at byte {0} does not lead backwards")]
    Pointer(usize),
    /// A name breaks a length limit.
    #[error("the name at byte {0} is too long")]
    NameTooLong(usize),
    /// There is not exactly one question.
    #[error("the message has {0} questions")]
    Questions(u16),
}

/// A message with a whole header.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_BYTES],
}

impl<'a> Message<'a> {
    /// Reads the header of a message.
    ///
    /// # Errors
    /// If it is shorter than a header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let header = bytes.first_chunk().ok_or(ReadError::CutOff(bytes.len()))?;
        Ok(Self { bytes, header })
    }

    /// The four bits of the result code that are in the header; the rest is in the OPT record.
    pub fn rcode(&self) -> Rcode {
        Rcode(u16::from(self.header[3] & 0x0F))
    }

    fn count(&self, index: usize) -> u16 {
        u16::from_be_bytes([self.header[4 + 2 * index], self.header[5 + 2 * index]])
    }

    /// The bytes of the only question.
    ///
    /// # Errors
    /// If there is none, more than one, or it is malformed.
    pub fn question(&self) -> Result<&'a [u8], ReadError> {
        match self.count(0) {
            1 => Ok(&self.bytes[HEADER_BYTES..skip_question(self.bytes, HEADER_BYTES)?]),
            other => Err(ReadError::Questions(other)),
        }
    }

    /// The records of all sections, in order. Ends after the first that is malformed.
    ///
    /// # Errors
    /// If the questions in front of them are malformed.
    pub fn records(&self) -> Result<Records<'a>, ReadError> {
        let mut at = HEADER_BYTES;
        for _ in 0..self.count(0) {
            at = skip_question(self.bytes, at)?;
        }
        Ok(Records { message: self.bytes, at, left: [1, 2, 3].map(|index| self.count(index)) })
    }
}

/// A record of a message.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub section: Section,
    pub name: NameAt<'a>,
    pub rtype: Rtype,
    /// Its time to live in seconds, as it came (RFC 2181, 8: the top bit means 0); of an OPT record the flags.
    pub ttl: u32,
    /// Its data; names in it may point anywhere before them.
    pub rdata: &'a [u8],
    /// Offset of its first byte in the message.
    pub start: usize,
    /// Offset of its data in the message.
    pub rdata_start: usize,
}

impl Record<'_> {
    /// Offset of the four bytes of its time to live in the message.
    pub fn ttl_start(&self) -> usize {
        self.rdata_start - 6
    }
}

/// Records of a message, see [`Message::records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl<'a> Records<'a> {
    fn read(&mut self, section: Section) -> Result<Record<'a>, ReadError> {
        let start = self.at;
        let fixed = skip_name(self.message, start)?;
        let &[type_high, type_low, _, _, t0, t1, t2, t3, len_high, len_low] = chunk(self.message, fixed)?;
        let rdata_start = fixed + 10;
        let end = rdata_start + usize::from(u16::from_be_bytes([len_high, len_low]));
        let rdata = self.message.get(rdata_start..end).ok_or(ReadError::CutOff(self.message.len()))?;
        self.at = end;
        Ok(Record {
            section,
            name: NameAt { message: self.message, at: start },
            rtype: Rtype(u16::from_be_bytes([type_high, type_low])),
            ttl: u32::from_be_bytes([t0, t1, t2, t3]),
            rdata,
            start,
            rdata_start,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let (left, section) = self.left.iter_mut().zip(sections).find(|(left, _)| **left > 0)?;
        *left -= 1;
        let record = self.read(section);
        if record.is_err() {
            self.left = [0; 3];
        }
        Some(record)
    }
}

/// A name in a message, perhaps compressed.
#[derive(Clone, Copy, Debug)]
pub struct NameAt<'a> {
    message: &'a [u8],
    at: usize,
}

impl NameAt<'_> {
    /// The name, in lower case.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn to_name(&self) -> Result<Name, ReadError> {
        let mut wire = [0; 255];
        let mut len = 0;
        self.walk(|label| {
            let end = len + label.len();
            wire.get_mut(len..end).ok_or(ReadError::NameTooLong(self.at))?.copy_from_slice(label);
            len = end;
            Ok(())
        })?;
        Name::from_wire(&wire).map_err(|error| match error {
            NameError::Malformed => ReadError::CutOff(self.at),
            _ => ReadError::NameTooLong(self.at),
        })
    }

    /// Hands out the labels one by one, each with its length byte, the root's too.
    fn walk(&self, mut each: impl FnMut(&[u8]) -> Result<(), ReadError>) -> Result<(), ReadError> {
        let mut at = self.at;
        // A pointer must lead before the part that it ends: this excludes loops.
        let mut part = self.at;
        loop {
            let &len = self.message.get(at).ok_or(ReadError::CutOff(at))?;
            match len {
                0..=63 => {
                    let end = at + 1 + usize::from(len);
                    each(self.message.get(at..end).ok_or(ReadError::CutOff(at))?)?;
                    if len == 0 {
                        return Ok(());
                    }
                    at = end;
                }
                0xC0.. => {
                    let &low = self.message.get(at + 1).ok_or(ReadError::CutOff(at))?;
                    let target = usize::from(u16::from_be_bytes([len & 0x3F, low]));
                    if target >= part {
                        return Err(ReadError::Pointer(at));
                    }
                    (at, part) = (target, target);
                }
                _ => return Err(ReadError::LabelKind(at)),
            }
        }
    }
}

/// Offset after a question.
fn skip_question(message: &[u8], start: usize) -> Result<usize, ReadError> {
    let fixed = skip_name(message, start)?;
    chunk::<4>(message, fixed)?;
    Ok(fixed + 4)
}

/// Offset after a name. Pointers are not followed.
fn skip_name(message: &[u8], start: usize) -> Result<usize, ReadError> {
    let mut at = start;
    loop {
        let &len = message.get(at).ok_or(ReadError::CutOff(at))?;
        match len {
            0 => return Ok(at + 1),
            1..=63 => at += 1 + usize::from(len),
            0xC0.. => return Ok(at + 2),
            _ => return Err(ReadError::LabelKind(at)),
        }
        if at - start >= 255 {
            return Err(ReadError::NameTooLong(start));
        }
    }
}

fn chunk<const N: usize>(message: &[u8], at: usize) -> Result<&[u8; N], ReadError> {
    message.get(at..).and_then(<[u8]>::first_chunk).ok_or(ReadError::CutOff(message.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] = b"\x12\x34\x86\xa3\x00\x01\x00\x02\x00\x00\x00\x01\x01A\x02Io\0\x00\x01\x00\x01\
        \xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x1e\x00\x04\x01b\xc0\x0e\
        \x01b\xc0\x0e\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01\
        \0\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00";

    #[test]
    fn header_question_and_records_are_read() {
        let message = Message::new(RESPONSE).unwrap();
        assert_eq!((message.rcode(), message.question()), (Rcode::NXDOMAIN, Ok(&RESPONSE[12..22])));

        let records: Vec<_> = message.records().unwrap().map(Result::unwrap).collect();
        let [cname, a, opt] = &records[..] else { panic!("{records:?}") };
        assert_eq!((cname.section, cname.rtype, cname.ttl), (Section::Answer, Rtype::CNAME, 30));
        assert_eq!((a.name.to_name().unwrap().to_string(), a.rdata), ("b.io.".into(), &[10, 0, 0, 1][..]));
        assert_eq!(RESPONSE[a.ttl_start()..a.ttl_start() + 4], [0, 0, 0, 0x3c]);
        assert_eq!((opt.section, opt.rtype, opt.start), (Section::Additional, Rtype::OPT, RESPONSE.len() - 11));
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error() {
        for cut in 0..RESPONSE.len() {
            let whole = Message::new(&RESPONSE[..cut])
                .and_then(|message| message.records())
                .and_then(|mut records| records.try_for_each(|record| record.map(drop)));
            assert!(matches!(whole, Err(ReadError::CutOff(_))), "cut at {cut}: {whole:?}");
        }
    }

    #[test]
    fn pointers_that_do_not_lead_backwards_are_no_names() {
        let name = |bytes: &'static [u8], at| NameAt { message: bytes, at }.to_name();
        assert_eq!(name(b"\xc0\x00", 0), Err(ReadError::Pointer(0)));
        assert_eq!(name(b"\x01a\xc0\x00", 0), Err(ReadError::Pointer(2)), "a loop through a label");
        assert_eq!(name(b"\xc0\x02\0", 0), Err(ReadError::Pointer(0)));
        assert_eq!(name(b"\x01a\xc0\x04\xc0\x00", 4), Err(ReadError::Pointer(2)));
        assert_eq!(name(b"\x80", 0), Err(ReadError::LabelKind(0)));
        assert_eq!(name(b"\0\xc0", 1), Err(ReadError::CutOff(1)));
        assert_eq!(name(b"\0", 7), Err(ReadError::CutOff(7)));
    }

    #[test]
    fn questions_are_counted() {
        let mut two = RESPONSE.to_vec();
        two[5] = 2;
        assert_eq!(Message::new(&two).unwrap().question().map(drop), Err(ReadError::Questions(2)));
    }
}
