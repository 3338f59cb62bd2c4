//! Where the names of a response begin, so that later ones can point to them (RFC 1035, 4.1.4).

use super::flat::Flat;

/// Pointers have 14 bits.
const OFFSET_MAX: usize = 0x3FFF;

/// Slots of the table; what finds none is not pointed to, which costs bytes and nothing else.
///
/// Sixty-four hold every target of the largest SRV set that fits a datagram.
const SLOTS: usize = 64;

/// How many slots a suffix may be in.
const PROBES: usize = 4;

/// Offsets of names and of their suffixes, by a hash over the suffix's first label and length.
///
/// A slot is a hint: what it points to is compared before it is used.
#[derive(Debug)]
pub(super) struct Offsets([u16; SLOTS]);

impl Offsets {
    pub(super) const EMPTY: Self = Self([0; SLOTS]);

    /// Where `written` already holds `name` without its first `skip` labels.
    pub(super) fn find(&self, written: &[u8], name: &Flat, skip: usize) -> Option<u16> {
        for slot in slots(name, skip) {
            match self.0[slot] {
                0 => return None,
                offset if holds(written, usize::from(offset), name.suffix(skip)) => return Some(offset),
                _ => {}
            }
        }
        None
    }

    /// Notes that `name` without its first `skip` labels begins at `offset`.
    pub(super) fn note(&mut self, name: &Flat, skip: usize, offset: usize) {
        let Some(offset) = u16::try_from(offset).ok().filter(|offset| usize::from(*offset) <= OFFSET_MAX) else {
            return;
        };
        for slot in slots(name, skip) {
            if self.0[slot] == 0 {
                self.0[slot] = offset;
                return;
            }
        }
    }

    /// Forgets what begins at `end` or behind it.
    pub(super) fn forget_from(&mut self, end: usize) {
        // A slot emptied may hide one noted later in the same run of probes: that one is found no more, and no harm.
        for slot in self.0.iter_mut().filter(|slot| usize::from(**slot) >= end) {
            *slot = 0;
        }
    }
}

/// The slots of a suffix. Letters count alike in both cases.
fn slots(name: &Flat, skip: usize) -> impl Iterator<Item = usize> {
    const CASE: u64 = 0x2020_2020_2020_2020;
    const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
    let label = name.label(skip);
    let suffix = name.suffix(skip);
    let mut hash = u64::try_from(suffix.len()).unwrap_or_default();
    let (words, rest) = label.as_chunks::<8>();
    for word in words {
        hash = (hash ^ (u64::from_le_bytes(*word) | CASE)).wrapping_mul(MIX).rotate_left(29);
    }
    for &byte in rest {
        hash = hash.rotate_left(8) ^ u64::from(byte | 0x20);
    }
    let first = usize::try_from(hash.wrapping_mul(MIX) >> 48).unwrap_or_default();
    (0..PROBES).map(move |probe| (first + probe) % SLOTS)
}

/// Whether the name at an offset, pointers followed, is this one in any case.
fn holds(written: &[u8], mut at: usize, mut name: &[u8]) -> bool {
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
        if !ours.eq_ignore_ascii_case(theirs) {
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
    use crate::wire::{Name, NameRef};

    fn flat(text: &str) -> Flat {
        NameRef::dotted(text).flatten((&Name::ROOT, &[0])).unwrap()
    }

    #[test]
    fn what_was_written_is_found_in_any_case() {
        let written = b"\0\0\x02DB\x04Prod\0\x03web\xc0\x05\x02db\x04prod\x01x\0";
        let mut offsets = Offsets::EMPTY;
        offsets.note(&flat("db.prod"), 0, 2);
        offsets.note(&flat("db.prod"), 1, 5);
        offsets.note(&flat("web.prod"), 0, 11);
        assert_eq!(offsets.find(written, &flat("db.prod"), 0), Some(2));
        assert_eq!(offsets.find(written, &flat("db.PROD"), 1), Some(5));
        assert_eq!(offsets.find(written, &flat("WEB.prod"), 0), Some(11));
        assert_eq!(offsets.find(written, &flat("web.prod.x"), 0), None);
        assert_eq!(offsets.find(written, &flat("web"), 0), None);
        offsets.forget_from(11);
        assert_eq!(offsets.find(written, &flat("web.prod"), 0), None);
        assert_eq!(offsets.find(written, &flat("prod"), 0), Some(5));
    }

    #[test]
    fn a_hint_that_leads_to_another_name_is_not_taken() {
        let written = b"\0\0\x02db\x04test\0\xc0\x0b\xc0\xff\x02db";
        let mut offsets = Offsets::EMPTY;
        for offset in [2, 11, 13, 15, 17, 99] {
            offsets.note(&flat("db.prod"), 0, offset);
        }
        assert_eq!(offsets.find(written, &flat("db.prod"), 0), None);
    }

    #[test]
    fn offsets_a_pointer_cannot_hold_are_not_noted() {
        let mut offsets = Offsets::EMPTY;
        offsets.note(&flat("db"), 0, OFFSET_MAX + 1);
        offsets.note(&flat("db"), 0, 1 << 16);
        assert_eq!(offsets.0, Offsets::EMPTY.0);
    }

    #[test]
    fn a_full_table_forgets_nothing_and_takes_nothing() {
        let names: Vec<Flat> = (0..1000).map(|index| flat(&format!("n{index}.x"))).collect();
        let mut written = vec![0, 0];
        let mut offsets = Offsets::EMPTY;
        for name in &names {
            offsets.note(name, 0, written.len());
            written.extend_from_slice(name.suffix(0));
        }
        let found = names.iter().filter(|name| offsets.find(&written, name, 0).is_some()).count();
        assert!((50..=SLOTS).contains(&found), "{found}");
    }
}
