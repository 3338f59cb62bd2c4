//! A name to be written, given as parts.

use super::{Name, NameError, flat::Flat};

/// A name to be written into a response: labels, and what they stand in front of.
///
/// What the response already holds is pointed to instead of being repeated, so a name may be given in whichever way is
/// at hand; only [`NameRef::QUESTION`] and [`NameRef::question_suffix`] are free of any search.
#[derive(Clone, Copy, Debug)]
pub struct NameRef<'a> {
    /// Labels, the leftmost first.
    pub head: &'a [&'a [u8]],
    /// The rest.
    pub tail: Tail<'a>,
}

/// What the labels of a [`NameRef`] stand in front of.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// The name asked for without this many labels from the left, in the case asked.
    Question(usize),
    /// A name.
    Name(&'a Name),
    /// Text such as `db.example.com`, with or without the final dot and without escapes.
    Dotted(&'a str),
}

impl<'a> NameRef<'a> {
    /// The name asked for, in the case asked.
    pub const QUESTION: Self = Self::question_suffix(0);

    /// The name asked for without its first `skip` labels.
    #[must_use]
    pub const fn question_suffix(skip: usize) -> Self {
        Self { head: &[], tail: Tail::Question(skip) }
    }

    /// A name.
    #[must_use]
    pub const fn name(name: &'a Name) -> Self {
        Self { head: &[], tail: Tail::Name(name) }
    }

    /// Labels in front of a name.
    #[must_use]
    pub const fn under(head: &'a [&'a [u8]], name: &'a Name) -> Self {
        Self { head, tail: Tail::Name(name) }
    }

    /// Labels in front of the name asked for without its first `skip` labels.
    #[must_use]
    pub const fn under_question(head: &'a [&'a [u8]], skip: usize) -> Self {
        Self { head, tail: Tail::Question(skip) }
    }

    /// Text such as `db.example.com`, with or without the final dot and without escapes.
    #[must_use]
    pub const fn dotted(text: &'a str) -> Self {
        Self { head: &[], tail: Tail::Dotted(text) }
    }

    /// The whole name; `question` is the name asked for, and its wire form in the case asked.
    pub(super) fn flatten(&self, question: (&Name, &[u8])) -> Result<Flat, NameError> {
        let mut flat = Flat::ROOT;
        for label in self.head {
            flat.push(label)?;
        }
        match self.tail {
            Tail::Question(skip) => flat.push_suffix(question.0.flat(), skip, question.1)?,
            Tail::Name(name) => flat.push_suffix(name.flat(), 0, name.wire())?,
            Tail::Dotted("" | ".") => {}
            Tail::Dotted(text) => {
                for label in text.strip_suffix('.').unwrap_or(text).split('.') {
                    flat.push(label.as_bytes())?;
                }
            }
        }
        Ok(flat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_one_name() {
        let zone: Name = "cluster.local".parse().unwrap();
        let question: Name = "web.svc".parse().unwrap();
        let flat =
            |parts: NameRef<'_>| parts.flatten((&question, b"\x03Web\x03Svc\0")).map(|flat| flat.suffix(0).to_vec());
        assert_eq!(flat(NameRef::under(&[b"db", b"prod"], &zone)).unwrap(), b"\x02db\x04prod\x07cluster\x05local\0");
        assert_eq!(flat(NameRef::under_question(&[b"db"], 1)).unwrap(), b"\x02db\x03Svc\0");
        assert_eq!(flat(NameRef::under_question(&[b"db"], 2)).unwrap(), b"\x02db\0");
        assert_eq!(flat(NameRef::dotted("a.b.")).unwrap(), b"\x01a\x01b\0");
        assert_eq!(flat(NameRef::dotted("")).unwrap(), b"\0");
        assert_eq!(flat(NameRef::dotted("a..b")), Err(NameError::EmptyLabel));
        assert_eq!(flat(NameRef::under(&[b""], &zone)), Err(NameError::EmptyLabel));
    }

    #[test]
    fn parts_keep_the_limits_of_names() {
        let label = [b'x'; 63];
        let zone = Name::from_labels([&label[..], &label, &label[..62]]).unwrap();
        let flat = |head: &[&[u8]]| NameRef::under(head, &zone).flatten((&Name::ROOT, &[0])).map(|flat| flat.labels());
        assert_eq!(flat(&[&label[..62]]), Ok(4), "255 bytes");
        assert_eq!(flat(&[&label]), Err(NameError::TooLong));
        assert_eq!(flat(&[&label, &label]), Err(NameError::TooLong));
        assert_eq!(flat(&[&[b'x'; 64]]), Err(NameError::LabelTooLong));
    }
}
