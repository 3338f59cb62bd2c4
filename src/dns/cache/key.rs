//! The key of a stored answer: the question and its route, as plain bytes that are compared whole.

use crate::{
    dns::Question,
    wire::{Class, Name, Rtype},
};

/// Longest name on the wire, RFC 1035, 2.3.4.
const NAME_BYTES_MAX: usize = 255;
const FIXED_BYTES: usize = 7;

/// The zone whose upstreams gave an answer, as numbered by [`Cache::route`](super::Cache::route).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub(super) u16);

impl RouteId {
    /// Shared by zones that got no number; nothing is stored under it.
    pub(super) const UNCACHED: Self = Self(u16::MAX);

    /// Whether a stored key is of this route.
    pub fn is_of(self, key: &[u8]) -> bool {
        key.starts_with(&self.0.to_be_bytes())
    }
}

/// A key on the stack: looking up allocates nothing.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; FIXED_BYTES + NAME_BYTES_MAX],
    len: u16,
}

impl Key {
    #[inline]
    pub fn new(route: RouteId, question: Question<&Name>) -> Self {
        let name = question.name.wire();
        let mut key = Self { bytes: [0; FIXED_BYTES + NAME_BYTES_MAX], len: 0 };
        key.bytes[..2].copy_from_slice(&route.0.to_be_bytes());
        key.bytes[2..4].copy_from_slice(&question.rtype.0.to_be_bytes());
        key.bytes[4..6].copy_from_slice(&question.class.0.to_be_bytes());
        key.bytes[6] = flags(question);
        key.bytes[FIXED_BYTES..FIXED_BYTES + name.len()].copy_from_slice(name);
        key.len = u16::try_from(FIXED_BYTES + name.len()).expect("a name has at most 255 bytes");
        key
    }

    /// Reads a stored key again, for another `route`.
    pub(super) fn restore(route: RouteId, rest: &[u8]) -> Option<Self> {
        let mut key = Self { bytes: [0; FIXED_BYTES + NAME_BYTES_MAX], len: u16::try_from(2 + rest.len()).ok()? };
        if rest.len() < FIXED_BYTES - 2 + 1 {
            return None;
        }
        key.bytes[..2].copy_from_slice(&route.0.to_be_bytes());
        key.bytes.get_mut(2..2 + rest.len())?.copy_from_slice(rest);
        Some(key)
    }

    /// The name, and the rest of the question as [`rest`] has it.
    pub(super) fn parts(&self) -> (&[u8], u64) {
        let [_, _, type_high, type_low, class_high, class_low, flags, ..] = self.bytes;
        let (rtype, class) = (u16::from_be_bytes([type_high, type_low]), u16::from_be_bytes([class_high, class_low]));
        (&self.as_bytes()[FIXED_BYTES..], joined(rtype, class, flags))
    }

    /// A key as it was stored.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (route, rest) = split(bytes)?;
        Self::restore(route, rest)
    }

    pub fn route(&self) -> RouteId {
        RouteId(u16::from_be_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// The question it stands for.
    pub fn question(&self) -> Option<Question> {
        let [_, _, type_high, type_low, class_high, class_low, flags, ..] = self.bytes;
        Some(Question {
            name: Name::from_wire(&self.as_bytes()[FIXED_BYTES..]).ok()?,
            rtype: Rtype(u16::from_be_bytes([type_high, type_low])),
            class: Class(u16::from_be_bytes([class_high, class_low])),
            dnssec_ok: flags & 1 != 0,
            checking_disabled: flags & 2 != 0,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The route and the rest of a stored key.
pub(super) fn split(key: &[u8]) -> Option<(RouteId, &[u8])> {
    let (route, rest) = key.split_first_chunk::<2>()?;
    Some((RouteId(u16::from_be_bytes(*route)), rest))
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.as_bytes().escape_ascii())
    }
}

/// DO and CD as one byte.
#[inline]
pub(super) fn flags(question: Question<&Name>) -> u8 {
    u8::from(question.dnssec_ok) | u8::from(question.checking_disabled) << 1
}

/// Everything of a question but its name, as one number.
#[inline]
pub(super) fn rest(question: Question<&Name>) -> u64 {
    joined(question.rtype.0, question.class.0, flags(question))
}

#[inline]
fn joined(rtype: u16, class: u16, flags: u8) -> u64 {
    (u64::from(rtype) << 32) | (u64::from(class) << 16) | u64::from(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Question {
        Question::new(name.parse().unwrap(), Rtype::A)
    }

    #[test]
    fn every_part_of_the_question_and_the_route_tell_keys_apart() {
        let key = |route, question: Question| Key::new(RouteId(route), question.by_ref()).as_bytes().to_vec();
        let keys = [
            key(0, question("a.")),
            key(1, question("a.")),
            key(0, question("b.")),
            key(0, Question { rtype: Rtype::AAAA, ..question("a.") }),
            key(0, Question { class: Class(3), ..question("a.") }),
            key(0, Question { dnssec_ok: true, ..question("a.") }),
            key(0, Question { checking_disabled: true, ..question("a.") }),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn a_stored_key_comes_back_under_another_route() {
        let question = Question { dnssec_ok: true, ..question("a.") };
        let key = Key::new(RouteId(3), question.by_ref());
        let (route, rest) = split(key.as_bytes()).unwrap();
        assert_eq!(route, RouteId(3));
        let again = Key::restore(RouteId(9), rest).unwrap();
        assert_eq!(again.as_bytes(), Key::new(RouteId(9), question.by_ref()).as_bytes());
        assert_eq!((again.route(), again.question()), (RouteId(9), Some(question)));
    }
}
