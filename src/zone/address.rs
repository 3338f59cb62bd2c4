//! Dashed addresses: the labels of endpoints and pods, such as `10-1-2-3`. Never allocates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest dashed address: eight groups of four digits.
const DASHED_BYTES_MAX: usize = 39;

/// An address as a label: `10-1-2-3`, `2001-db8--1`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dashed {
    bytes: [u8; DASHED_BYTES_MAX],
    len: usize,
}

impl Dashed {
    /// The label of an address: its canonical text (RFC 5952) with dashes for dots and colons. A label that would end in a
    /// dash gets a 0: labels must not end in one (RFC 1123, 2.1).
    pub(super) fn of(ip: IpAddr) -> Self {
        let mut label = Self { bytes: [0; DASHED_BYTES_MAX], len: 0 };
        match ip {
            IpAddr::V4(ip) => {
                for (index, octet) in ip.octets().into_iter().enumerate() {
                    if index > 0 {
                        label.push(b'-');
                    }
                    label.number(u16::from(octet), 10, 100);
                }
            }
            IpAddr::V6(ip) => label.groups(ip),
        }
        label
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn groups(&mut self, ip: Ipv6Addr) {
        let groups = ip.segments();
        let (from, to) = longest_zeros(&groups);
        for (index, group) in groups.into_iter().enumerate() {
            if index == from && from < to {
                self.push(b'-');
                if index == 0 {
                    self.push(b'-');
                }
            }
            if (from..to).contains(&index) {
                continue;
            }
            self.number(group, 16, 0x1000);
            if index < 7 {
                self.push(b'-');
            }
        }
        if to == 8 && from < to {
            self.push(b'0');
        }
    }

    /// Digits of a number, without leading zeros; `top` is the value of the first digit it could have.
    fn number(&mut self, mut value: u16, base: u16, mut top: u16) {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        while top > 1 && value < top {
            top /= base;
        }
        while top > 0 {
            self.push(DIGITS[usize::from(value / top)]);
            value %= top;
            top /= base;
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

/// The first longest run of two or more zero groups (RFC 5952, 4.2); empty if there is none.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut from = 0;
    for (index, group) in groups.iter().copied().chain([1]).enumerate() {
        if group == 0 {
            continue;
        }
        if index - from > (best.1 - best.0).max(1) {
            best = (from, index);
        }
        from = index + 1;
    }
    best
}

/// The address of a lower-case label: `10-1-2-3`, or an IPv6 address in any valid spelling with dashes for colons.
pub(super) fn parse_dashed(label: &[u8]) -> Option<IpAddr> {
    let mut text = [0; DASHED_BYTES_MAX];
    let text = text.get_mut(..label.len())?;
    let double = label.windows(2).any(|pair| pair == b"--");
    let v4 = !double && label.split(|byte| *byte == b'-').count() == 4;
    for (to, &from) in text.iter_mut().zip(label) {
        *to = match from {
            b'-' if v4 => b'.',
            b'-' => b':',
            b'0'..=b'9' | b'a'..=b'f' => from,
            _ => return None,
        };
    }
    let text = std::str::from_utf8(text).ok()?;
    if v4 { text.parse::<Ipv4Addr>().ok().map(IpAddr::V4) } else { text.parse::<Ipv6Addr>().ok().map(IpAddr::V6) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dashed(ip: &str) -> String {
        String::from_utf8(Dashed::of(ip.parse().unwrap()).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn addresses_become_labels() {
        for (ip, label) in [
            ("10.1.2.3", "10-1-2-3"),
            ("0.0.0.0", "0-0-0-0"),
            ("255.20.100.9", "255-20-100-9"),
            ("2001:db8::1", "2001-db8--1"),
            ("2001:db8:0:1::10", "2001-db8-0-1--10"),
            ("::1", "--1"),
            ("::", "--0"),
            ("fd00::", "fd00--0"),
            ("1:2:3:4:5:6:7:8", "1-2-3-4-5-6-7-8"),
            ("1:0:2:0:0:3:0:0", "1-0-2--3-0-0"),
            ("1:0:3:4:5:6:7:8", "1-0-3-4-5-6-7-8"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff-ffff-ffff-ffff-ffff-ffff-ffff-ffff"),
        ] {
            assert_eq!(dashed(ip), label, "{ip}");
        }
    }

    #[test]
    fn labels_that_spell_no_address_are_none() {
        for label in [
            "",
            "-",
            "10",
            "10-1-2",
            "10-1-2-256",
            "10-1-2-03",
            "10-1-2-3-4",
            "10.1.2.3",
            "--10.1.2.3",
            "a-b-c-d",
            "2001-db8---1",
            "1--2--3",
            "g--1",
            "1-2-3-4-5-6-7-8-9",
            "12345--1",
            "ffff-ffff-ffff-ffff-ffff-ffff-ffff-fffff",
            "fe80--1%eth0",
        ] {
            assert_eq!(parse_dashed(label.as_bytes()), None, "{label}");
        }
        for (label, ip) in
            [("1--2-3", "1::2:3"), ("--1", "::1"), ("--", "::"), ("2001-0db8-0-0-0-0-0-1", "2001:db8::1")]
        {
            assert_eq!(parse_dashed(label.as_bytes()), Some(ip.parse().unwrap()), "{label}");
        }
    }

    proptest! {
        #[test]
        fn a_label_is_the_canonical_text_with_dashes_and_spells_its_address(words in any::<[u16; 8]>(), zeros in any::<u8>()) {
            let groups: [u16; 8] = std::array::from_fn(|index| if zeros >> index & 1 == 1 { 0 } else { words[index] });
            let ip = Ipv6Addr::from(groups);
            let label = Dashed::of(ip.into());
            prop_assert_eq!(parse_dashed(label.as_bytes()), Some(IpAddr::V6(ip)));
            let mut text = ip.to_string().replace(':', "-");
            if text.ends_with('-') {
                text.push('0');
            }
            if !text.contains('.') {
                prop_assert_eq!(std::str::from_utf8(label.as_bytes()).unwrap(), text);
            }
            let ip = Ipv4Addr::from(groups.map(|group| group.to_le_bytes()[0]).first_chunk::<4>().copied().unwrap());
            let label = Dashed::of(ip.into());
            prop_assert_eq!(std::str::from_utf8(label.as_bytes()).unwrap(), ip.to_string().replace('.', "-"));
            prop_assert_eq!(parse_dashed(label.as_bytes()), Some(IpAddr::V4(ip)));
        }
    }
}
