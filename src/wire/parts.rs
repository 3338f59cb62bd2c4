//! A name to be written, as parts.

use super::{
    Name, NameError,
    flat::{LABEL_BYTES_MAX, NAME_BYTES_MAX},
};

/// A name to be written into a response: labels in front of a tail.
///
/// A suffix that the response has already in the same case becomes a compression pointer, so a name may be given in
/// any form. A suffix of the question is found without a search, also where it is given as a name.
#[derive(Clone, Copy, Debug)]
pub struct NameRef<'a> {
    /// Labels, the leftmost first.
    pub head: &'a [&'a [u8]],
    pub tail: Tail<'a>,
}

/// The rest of a [`NameRef`] after its labels.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// The name asked for without this many labels from the left, in the case asked.
    Question(usize),
    Name(&'a Name),
    /// Text such as `db.example.com`, with or without the final dot and without escapes.
    Dotted(&'a str),
}

impl<'a> NameRef<'a> {
    /// The name asked for, in the case asked.
    pub const QUESTION: Self = Self::question_suffix(0);

    /// The name asked for without its first `skip` labels.
    pub const fn question_suffix(skip: usize) -> Self {
        Self { head: &[], tail: Tail::Question(skip) }
    }

    pub const fn name(name: &'a Name) -> Self {
        Self { head: &[], tail: Tail::Name(name) }
    }

    /// Labels in front of a name.
    pub const fn under(head: &'a [&'a [u8]], name: &'a Name) -> Self {
        Self { head, tail: Tail::Name(name) }
    }

    /// Text such as `db.example.com`, with or without the final dot and without escapes.
    pub const fn dotted(text: &'a str) -> Self {
        Self { head: &[], tail: Tail::Dotted(text) }
    }

    /// The whole name, and the offset of its tail. `question` is the tail, if that is part of the question.
    pub(super) fn flatten(&self, question: Option<&[u8]>) -> Result<(Wire, usize), NameError> {
        let mut wire = Wire { bytes: [0; 256], len: 0 };
        for label in self.head {
            wire.push(label)?;
        }
        let head = wire.len;
        match (question, self.tail) {
            (Some(tail), _) => wire.close(tail)?,
            (None, Tail::Name(name)) => wire.close(name.wire())?,
            (None, Tail::Question(_) | Tail::Dotted("" | ".")) => wire.close(&[0])?,
            (None, Tail::Dotted(text)) => {
                for label in text.strip_suffix('.').unwrap_or(text).split('.') {
                    wire.push(label.as_bytes())?;
                }
                wire.close(&[0])?;
            }
        }
        Ok((wire, head))
    }
}

/// The wire form of a name to be written.
pub(super) struct Wire {
    bytes: [u8; 256],
    len: usize,
}

impl Wire {
    /// Its bytes, with the root's.
    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        let len = match u8::try_from(label.len()) {
            Ok(0) => return Err(NameError::EmptyLabel),
            Ok(len) if label.len() <= LABEL_BYTES_MAX => len,
            _ => return Err(NameError::LabelTooLong),
        };
        let room = self.bytes.get_mut(self.len..=self.len + label.len()).ok_or(NameError::TooLong)?;
        let (first, rest) = room.split_first_mut().ok_or(NameError::TooLong)?;
        *first = len;
        rest.copy_from_slice(label);
        self.len += 1 + label.len();
        Ok(())
    }

    /// Appends the rest of the name, in wire form to its root.
    fn close(&mut self, tail: &[u8]) -> Result<(), NameError> {
        let end = self.len + tail.len();
        if end > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        self.bytes.get_mut(self.len..end).ok_or(NameError::TooLong)?.copy_from_slice(tail);
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(name: NameRef<'_>, question: Option<&[u8]>) -> Result<Vec<u8>, NameError> {
        name.flatten(question).map(|(wire, _)| wire.as_slice().to_vec())
    }

    #[test]
    fn parts_make_one_name() {
        let zone: Name = "cluster.local".parse().unwrap();
        for (name, question, wire) in [
            (NameRef::under(&[b"db", b"prod"], &zone), None, &b"\x02db\x04prod\x07cluster\x05local\0"[..]),
            (NameRef::under(&[b"db"], &zone), Some(&b"\x07Cluster\x05local\0"[..]), b"\x02db\x07Cluster\x05local\0"),
            (NameRef { head: &[b"db"], tail: Tail::Question(1) }, Some(b"\x03Svc\0"), b"\x02db\x03Svc\0"),
            (NameRef::dotted("a.b."), None, b"\x01a\x01b\0"),
            (NameRef::dotted(""), None, b"\0"),
            (NameRef { head: &[b"db"], tail: Tail::Dotted("a.b") }, None, b"\x02db\x01a\x01b\0"),
        ] {
            assert_eq!(flat(name, question).unwrap(), wire, "{name:?}");
        }
        assert_eq!(NameRef::under(&[b"db", b"prod"], &zone).flatten(None).unwrap().1, 8);
    }

    #[test]
    fn parts_keep_the_limits_of_names() {
        let label = [b'x'; 63];
        let zone = Name::from_labels([&label[..], &label, &label[..62]]).unwrap();
        let len = |head: &[&[u8]]| flat(NameRef::under(head, &zone), None).map(|wire| wire.len());
        assert_eq!(len(&[&label[..62]]), Ok(255));
        assert_eq!(len(&[&label]), Err(NameError::TooLong));
        assert_eq!(len(&[&label[..]; 5]), Err(NameError::TooLong));
        assert_eq!(len(&[&[b'x'; 64]]), Err(NameError::LabelTooLong));
        assert_eq!(len(&[&[b'x'; 300]]), Err(NameError::LabelTooLong));
        assert_eq!(len(&[b""]), Err(NameError::EmptyLabel));
        assert_eq!(flat(NameRef::dotted("a..b"), None), Err(NameError::EmptyLabel));
        let long = "x.".repeat(127);
        assert_eq!(flat(NameRef::dotted(&long), None).unwrap().len(), 255);
        assert_eq!(flat(NameRef::dotted(&(long + "x")), None), Err(NameError::TooLong));
    }
}
