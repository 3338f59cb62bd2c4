//! What an answer is stored under: the question and who may answer it, as plain bytes that are compared whole.

/// Longest name on the wire, RFC 1035, 2.3.4.
const NAME_BYTES_MAX: usize = 255;
const FIXED_BYTES: usize = 7;

/// The zone whose upstreams gave an answer, as numbered by [`Cache::route`](super::Cache::route).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub(super) u16);

/// A question whose `name` is lower-cased and in wire form: a key but for the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    pub name: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// A key on the stack: looking up allocates nothing.
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; FIXED_BYTES + NAME_BYTES_MAX],
    len: u16,
}

impl Key {
    /// The key of a question whose `name` is lower-cased and in wire form. `None` if that is over 255 bytes.
    pub fn new(
        route: RouteId,
        name: &[u8],
        qtype: u16,
        qclass: u16,
        dnssec_ok: bool,
        checking_disabled: bool,
    ) -> Option<Self> {
        let mut key = Self { bytes: [0; FIXED_BYTES + NAME_BYTES_MAX], len: 0 };
        key.bytes[..2].copy_from_slice(&route.0.to_be_bytes());
        key.bytes[2..4].copy_from_slice(&qtype.to_be_bytes());
        key.bytes[4..6].copy_from_slice(&qclass.to_be_bytes());
        key.bytes[6] = u8::from(dnssec_ok) | u8::from(checking_disabled) << 1;
        key.bytes.get_mut(FIXED_BYTES..FIXED_BYTES + name.len())?.copy_from_slice(name);
        key.len = u16::try_from(FIXED_BYTES + name.len()).ok()?;
        Some(key)
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

    pub(super) fn asked(&self) -> Asked<'_> {
        let [_, _, type_high, type_low, class_high, class_low, flags, ..] = self.bytes;
        Asked {
            name: &self.as_bytes()[FIXED_BYTES..],
            qtype: u16::from_be_bytes([type_high, type_low]),
            qclass: u16::from_be_bytes([class_high, class_low]),
            dnssec_ok: flags & 1 != 0,
            checking_disabled: flags & 2 != 0,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_question_and_the_route_tell_keys_apart() {
        let key = |route, name: &[u8], qtype, qclass, dnssec, checking| {
            Key::new(RouteId(route), name, qtype, qclass, dnssec, checking).unwrap().as_bytes().to_vec()
        };
        let keys = [
            key(0, b"\x01a\0", 1, 1, false, false),
            key(1, b"\x01a\0", 1, 1, false, false),
            key(0, b"\x01b\0", 1, 1, false, false),
            key(0, b"\x01a\0", 28, 1, false, false),
            key(0, b"\x01a\0", 1, 3, false, false),
            key(0, b"\x01a\0", 1, 1, true, false),
            key(0, b"\x01a\0", 1, 1, false, true),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!(Key::new(RouteId(0), &[b'a'; 256], 1, 1, false, false).is_none());
    }

    #[test]
    fn a_stored_key_comes_back_under_another_route() {
        let key = Key::new(RouteId(3), b"\x01a\0", 1, 1, true, false).unwrap();
        let (route, rest) = split(key.as_bytes()).unwrap();
        assert_eq!(route, RouteId(3));
        let again = Key::restore(RouteId(9), rest).unwrap();
        let asked = Asked { name: b"\x01a\0", qtype: 1, qclass: 1, dnssec_ok: true, checking_disabled: false };
        assert_eq!(again.asked(), asked);
        assert_eq!(again.as_bytes(), Key::new(RouteId(9), b"\x01a\0", 1, 1, true, false).unwrap().as_bytes());
    }
}
