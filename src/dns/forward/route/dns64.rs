//! DNS64 (RFC 6147): IPv6 addresses made of IPv4 ones, for clients behind a NAT64.
//!
//! Pure.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use hickory_proto::rr::{RData, Record, rdata::AAAA};

/// Longest TTL of a synthesized address without an SOA (RFC 6147, 5.1.7), in seconds.
pub const TTL_MAX: u32 = 600;

/// A prefix that a NAT64 translates, RFC 6052.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: Ipv6Addr,
    bits: u8,
}

impl Prefix {
    /// The well-known prefix `64:ff9b::/96`, RFC 6052, 2.1.
    pub const WELL_KNOWN: Self = Self { address: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), bits: 96 };

    /// The address that stands for `ip`, RFC 6052, 2.2: its bytes behind the prefix, around the byte at bits 64 to 71,
    /// which is zero.
    pub fn embed(self, ip: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.address.octets();
        let mut at = usize::from(self.bits / 8);
        for byte in ip.octets() {
            if at == 8 {
                at += 1;
            }
            bytes[at] = byte;
            at += 1;
        }
        bytes.into()
    }

    /// `records` with every A record as the AAAA record that stands for it, which lives for `ttl_max` seconds at most.
    pub fn synthesize(self, records: Vec<Record>, ttl_max: u32) -> Vec<Record> {
        let each = |mut record: Record| {
            if let RData::A(ip) = &record.data {
                record.data = RData::AAAA(AAAA(self.embed(ip.0)));
                record.ttl = record.ttl.min(ttl_max);
            }
            record
        };
        records.into_iter().map(each).collect()
    }
}

/// Whether `records` hold an IPv6 address a client can use: IPv4-mapped ones are none (RFC 6147, 5.1.4).
pub fn has_usable_aaaa(records: &[Record]) -> bool {
    records.iter().any(|record| matches!(&record.data, RData::AAAA(ip) if ip.0.to_ipv4_mapped().is_none()))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected =
            || format!("{text:?}: expected an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, such as 64:ff9b::/96");
        let (address, bits) = text.split_once('/').ok_or_else(expected)?;
        let address: Ipv6Addr = address.parse().map_err(|_| expected())?;
        let bits: u8 = bits.parse().map_err(|_| expected())?;
        let beyond = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
        if !matches!(bits, 32 | 40 | 48 | 56 | 64 | 96) || u128::from(address) & beyond != 0 {
            return Err(expected());
        }
        Ok(Self { address, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_6052_hold() {
        let cases = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ];
        for (prefix, expect) in cases {
            let made = prefix.parse::<Prefix>().unwrap().embed(Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(made, expect.parse::<Ipv6Addr>().unwrap(), "{prefix}");
            assert_eq!(prefix.parse::<Prefix>().unwrap().to_string(), prefix);
        }
        assert_eq!("64:ff9b::/96".parse::<Prefix>().unwrap(), Prefix::WELL_KNOWN);
    }

    #[test]
    fn other_lengths_and_set_host_bits_are_refused() {
        for text in ["64:ff9b::", "64:ff9b::/97", "64:ff9b::/0", "64:ff9b::1/96", "10.0.0.0/8", "x/96"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }
}
