//! Where the names of a response begin, so that later ones can point to them (RFC 1035, 4.1.4).

/// Pointers have 14 bits.
const OFFSET_MAX: usize = 0x3FFF;

/// Slots of the table; a name without a slot is not pointed to, which costs bytes and nothing else.
///
/// Sixty-four hold every target of the largest SRV set that fits a datagram.
const SLOTS: usize = 64;

/// How many slots a name may be in.
const PROBES: usize = 4;

/// Offsets of names and of their suffixes, by a hash.
///
/// A slot is a hint: the name at its offset is compared before it is used.
#[derive(Debug)]
pub(super) struct Offsets([u16; SLOTS]);

impl Offsets {
    pub(super) const EMPTY: Self = Self([0; SLOTS]);

    /// Where `written` already holds `name`, in wire form and in this case; if nowhere, notes that it is going to be
    /// at `offset`.
    pub(super) fn find_or_note(&mut self, written: &[u8], name: &[u8], offset: usize) -> Option<usize> {
        let first = hash(name);
        for probe in 0..PROBES {
            let slot = &mut self.0[(first + probe) % SLOTS];
            let held = usize::from(*slot);
            if held == 0 {
                *slot = if offset <= OFFSET_MAX { u16::try_from(offset).unwrap_or_default() } else { 0 };
                return None;
            }
            if holds(written, held, name) {
                return Some(held);
            }
        }
        None
    }

    /// Forgets names that begin at `end` or behind it.
    pub(super) fn forget_from(&mut self, end: usize) {
        // A slot emptied may hide one noted later in the same run of probes: that one is found no more, and no harm.
        for slot in self.0.iter_mut().filter(|slot| usize::from(**slot) >= end) {
            *slot = 0;
        }
    }
}

/// Mixes the first and the last bytes of the first label, and the length of the name.
fn hash(name: &[u8]) -> usize {
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let label = name.first().and_then(|len| name.get(..=usize::from(*len))).unwrap_or_default();
    let word = match (label.first_chunk::<8>(), label.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first).rotate_left(21) ^ u64::from_le_bytes(*last),
        _ => label.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    let length = u64::try_from(name.len()).unwrap_or_default();
    usize::try_from((word ^ length << 56).wrapping_mul(MIX) >> 48).unwrap_or_default()
}

/// Whether the name at an offset, pointers followed, is this one.
fn holds(written: &[u8], mut at: usize, mut name: &[u8]) -> bool {
    if written.get(at..at + name.len()) == Some(name) {
        return true;
    }
    loop {
        let Some(&len) = written.get(at) else { return false };
        if len >= 0xC0 {
            let Some(&low) = written.get(at + 1) else { return false };
            let target = usize::from(u16::from_be_bytes([len & 0x3F, low]));
            // We never write a pointer that does not lead backwards; each label read makes `name` shorter.
            if target >= at {
                return false;
            }
            at = target;
            continue;
        }
        let bytes = 1 + usize::from(len);
        let (Some(ours), Some((theirs, rest))) = (written.get(at..at + bytes), name.split_at_checked(bytes)) else {
            return false;
        };
        if ours != theirs {
            return false;
        }
        if len == 0 {
            return true;
        }
        name = rest;
        at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_names_are_found() {
        let written = b"\0\0\x02db\x04prod\0\x03web\xc0\x05\x02db\x04prod\x01x\0";
        let mut offsets = Offsets::EMPTY;
        let names: [(&[u8], usize); 3] = [(b"\x02db\x04prod\0", 2), (b"\x04prod\0", 5), (b"\x03web\x04prod\0", 11)];
        for (name, offset) in names {
            assert_eq!(offsets.find_or_note(&written[..offset], name, offset), None);
        }
        for (name, offset) in names {
            assert_eq!(offsets.find_or_note(written, name, 99), Some(offset));
        }
        assert_eq!(offsets.find_or_note(written, b"\x04Prod\0", 99), None, "the case of a name is kept");
        assert_eq!(offsets.find_or_note(written, b"\x03web\x04prod\x01x\0", 99), None);
        offsets.forget_from(11);
        assert_eq!(offsets.find_or_note(written, b"\x03web\x04prod\0", 99), None);
        assert_eq!(offsets.find_or_note(written, b"\x04prod\0", 99), Some(5));
    }

    #[test]
    fn a_hint_that_leads_to_another_name_is_not_taken() {
        let written = b"\0\0\x02db\x04test\0\xc0\x0b\xc0\xff\x02db";
        for offset in [2, 11, 13, 15, 17, 99] {
            let mut offsets = Offsets::EMPTY;
            assert_eq!(offsets.find_or_note(written, b"\x02db\x04prod\0", offset), None);
            assert_eq!(offsets.find_or_note(written, b"\x02db\x04prod\0", 99), None, "{offset}");
        }
    }

    #[test]
    fn offsets_a_pointer_cannot_hold_are_not_noted() {
        let mut offsets = Offsets::EMPTY;
        for offset in [OFFSET_MAX + 1, 1 << 16, 1 << 20] {
            assert_eq!(offsets.find_or_note(&[], b"\x02db\0", offset), None);
        }
        assert_eq!(offsets.0, Offsets::EMPTY.0);
    }

    #[test]
    fn a_full_table_forgets_nothing_and_takes_nothing() {
        let names: Vec<Vec<u8>> = (0..1000).map(|index| format!("\x05n{index:04}\0").into_bytes()).collect();
        let mut written = vec![0, 0];
        let mut offsets = Offsets::EMPTY;
        for name in &names {
            assert_eq!(offsets.find_or_note(&written, name, written.len()), None);
            written.extend_from_slice(name);
        }
        let full = offsets.0;
        let found = names.iter().filter(|name| offsets.find_or_note(&written, name, 1 << 20).is_some()).count();
        assert!((50..=SLOTS).contains(&found), "{found}");
        assert_eq!(offsets.0, full);
    }
}
