//! A domain name on the stack.

use std::{fmt, str::FromStr};

use super::flat::{Flat, LABEL_BYTES_MAX, NameError};

/// A domain name in lower case, on the stack.
///
/// Labels are indexed from both ends. Equality, order and hash are those of the wire form.
#[derive(Clone)]
pub struct Name(Flat);

impl Name {
    pub const ROOT: Self = Self(Flat::ROOT);

    /// Reads an uncompressed name from the start of `bytes`, which may go on after it.
    ///
    /// # Errors
    /// If it is cut off, compressed (RFC 1035, 4.1.4), or breaks a length limit.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, NameError> {
        let mut name = Self::ROOT;
        name.read_wire(bytes)?;
        Ok(name)
    }

    /// [`Self::from_wire`] in place; after an error the name has no meaning.
    #[inline]
    pub(super) fn read_wire(&mut self, bytes: &[u8]) -> Result<(), NameError> {
        self.0.read_lower(bytes)
    }

    /// Makes a name from labels, the leftmost first, in lower case.
    ///
    /// # Errors
    /// If a label is empty, or a length limit broken.
    pub fn from_labels<'l>(labels: impl IntoIterator<Item = &'l [u8]>) -> Result<Self, NameError> {
        let mut flat = Flat::ROOT;
        for label in labels {
            flat.push(label)?;
        }
        flat.make_lower();
        Ok(Self(flat))
    }

    /// The wire form, lower case, with the root's zero byte.
    #[inline]
    pub fn wire(&self) -> &[u8] {
        self.0.suffix(0)
    }

    /// The wire form without the first `skip` labels; the root's zero byte if there are no more.
    #[inline]
    pub fn suffix(&self, skip: usize) -> &[u8] {
        self.0.suffix(skip)
    }

    /// How many labels it has, the root not counted.
    #[inline]
    pub fn label_count(&self) -> usize {
        self.0.labels()
    }

    #[inline]
    pub fn is_root(&self) -> bool {
        self.0.labels() == 0
    }

    /// The label at `index`, counted from the left.
    #[inline]
    pub fn label(&self, index: usize) -> Option<&[u8]> {
        (index < self.label_count()).then(|| self.0.label(index))
    }

    /// The label at `index`, counted from the right: 0 is the one before the root.
    #[inline]
    pub fn label_from_end(&self, index: usize) -> Option<&[u8]> {
        (index < self.label_count()).then(|| self.0.label(self.label_count() - 1 - index))
    }

    /// The labels from left to right, without the root.
    pub fn labels(&self) -> Labels<'_> {
        Labels { name: &self.0, front: 0, back: self.label_count() }
    }

    /// How many labels stand in front of `zone`, if this name is `zone` or below it.
    #[inline]
    pub fn labels_above(&self, zone: &Self) -> Option<usize> {
        let skip = self.label_count().checked_sub(zone.label_count())?;
        (self.suffix(skip) == zone.wire()).then_some(skip)
    }

    #[inline]
    pub(super) fn flat(&self) -> &Flat {
        &self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.wire().cmp(other.wire())
    }
}

impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.wire().hash(state);
    }
}

impl fmt::Display for Name {
    /// Presentation form with the final dot (RFC 1035, 5.1); dots, backslashes and what does not print are escaped, so
    /// it is safe in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7E => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation form, with or without the final dot; all names are taken as absolute.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut flat = Flat::ROOT;
        let mut label = [0; LABEL_BYTES_MAX + 1];
        let mut len = 0;
        let mut bytes = text.bytes();
        if text == "." {
            return Ok(Self::ROOT);
        }
        loop {
            let byte = match bytes.next() {
                Some(b'.') => {
                    flat.push(&label[..len])?;
                    len = 0;
                    continue;
                }
                Some(b'\\') => unescape(&mut bytes).ok_or(NameError::Escape)?,
                Some(byte) => byte,
                None => break,
            };
            *label.get_mut(len).ok_or(NameError::LabelTooLong)? = byte.to_ascii_lowercase();
            len += 1;
        }
        if len > 0 || text.is_empty() {
            flat.push(&label[..len])?;
        }
        Ok(Self(flat))
    }
}

/// The byte escaped after a backslash: three digits, or one character.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).ok()
}

/// Labels of a [`Name`], from either end.
#[derive(Clone)]
pub struct Labels<'a> {
    name: &'a Flat,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        (self.front < self.back).then(|| {
            self.front += 1;
            self.name.label(self.front - 1)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.back - self.front, Some(self.back - self.front))
    }
}

impl DoubleEndedIterator for Labels<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        (self.front < self.back).then(|| {
            self.back -= 1;
            self.name.label(self.back)
        })
    }
}

impl ExactSizeIterator for Labels<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn labels_are_had_from_both_ends() {
        let name = name("Db.Prod.svc.cluster.local.");
        assert_eq!(name.label_count(), 5);
        assert_eq!(name.label(0), Some(&b"db"[..]));
        assert_eq!(name.label_from_end(0), Some(&b"local"[..]));
        assert_eq!(name.label_from_end(4), Some(&b"db"[..]));
        assert_eq!((name.label(5), name.label_from_end(5)), (None, None));
        assert_eq!(name.labels().rev().nth(2), Some(&b"svc"[..]));
        assert_eq!(name.wire(), b"\x02db\x04prod\x03svc\x07cluster\x05local\0");
        assert_eq!(name.suffix(3), b"\x07cluster\x05local\0");
        assert_eq!(name.suffix(9), b"\0");
    }

    #[test]
    fn wire_form_is_lower_cased_whatever_follows_it() {
        let wire = b"\x02DB\x04pRoD\x03svc\x07Cluster\x05LOCAL\0";
        let want = name("db.prod.svc.cluster.local");
        for more in 0..40 {
            let mut bytes = wire.to_vec();
            bytes.resize(wire.len() + more, b'X');
            assert_eq!(Name::from_wire(&bytes), Ok(want.clone()), "{more} bytes more");
        }
        for cut in 0..wire.len() {
            assert_eq!(Name::from_wire(&wire[..cut]), Err(NameError::Malformed), "cut at {cut}");
        }
    }

    #[test]
    fn only_letters_change_case() {
        let all: Vec<u8> = (0..=255).collect();
        for label in all.chunks(50) {
            let lower = Name::from_labels([label]).unwrap();
            assert_eq!(lower.label(0), Some(&*label.to_ascii_lowercase()));
            assert_eq!(Name::from_wire(lower.wire()), Ok(lower));
        }
    }

    #[test]
    fn zones_are_matched_at_label_borders() {
        let zone = name("cluster.local");
        assert_eq!(name("db.prod.svc.cluster.local").labels_above(&zone), Some(3));
        assert_eq!(name("cluster.local").labels_above(&zone), Some(0));
        assert_eq!(name("xcluster.local").labels_above(&zone), None);
        assert_eq!(name("local").labels_above(&zone), None);
        assert_eq!(name("local").labels_above(&Name::ROOT), Some(1));
        let inside = Name::from_labels([&b"x\x07cluster\x05local"[..]]).unwrap();
        assert_eq!(inside.labels_above(&zone), None, "a label that holds the zone's bytes is not below it");
    }

    #[test]
    fn limits_are_63_and_255() {
        let label = "x".repeat(63);
        assert_eq!(name(&label).label_count(), 1);
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong));
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        assert_eq!(name(&longest).wire().len(), 255);
        assert_eq!(Name::from_wire(name(&longest).wire()), Ok(name(&longest)));
        assert_eq!(format!("{longest}x").parse::<Name>(), Err(NameError::TooLong));
        let mut wire = name(&longest).wire().to_vec();
        wire.splice(..0, *b"\x01x");
        assert_eq!(Name::from_wire(&wire), Err(NameError::TooLong));
        let many = "a.".repeat(127);
        assert_eq!((name(&many).label_count(), name(&many).label(126)), (127, Some(&b"a"[..])));
        assert_eq!(Name::from_wire(name(&many).wire()), Ok(name(&many)));
        assert_eq!("a.".repeat(128).parse::<Name>(), Err(NameError::TooLong));
    }

    #[test]
    fn text_is_read_as_it_is_shown() {
        for (text, shown) in [
            (".", "."),
            ("a", "a."),
            (r"a\.b.C", r"a\.b.c."),
            (r"\000\255x.y", r"\000\255x.y."),
            (r"sp\ ace", r"sp\032ace."),
            ("*._tcp", "*._tcp."),
        ] {
            assert_eq!(name(text).to_string(), shown, "{text}");
            assert_eq!(name(shown), name(text));
        }
        for (text, error) in [
            ("", NameError::EmptyLabel),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256", NameError::Escape),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
    }
}
