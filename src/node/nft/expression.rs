//! The handful of nftables expressions our rules are made of, and the attributes they travel in.

use std::net::IpAddr;

use super::NlasIterator;

// linux/netfilter/nf_tables.h
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const CMP_REGISTER: u16 = 1;
const CMP_OPERATION: u16 = 2;
const CMP_DATA: u16 = 3;
const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS_MIN: u16 = 3;
const NAT_PORT_MIN: u16 = 5;

const NESTED: u16 = 0x8000;
/// The flags of an attribute's kind.
const KIND_MASK: u16 = 0x3FFF;

const REGISTER: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const CMP_EQUAL: u32 = 0;
const CMP_NOT_EQUAL: u32 = 1;
const ACCEPT: u32 = 1;

const DNAT: u32 = 1;
/// The registers of a new destination.
const REGISTER_PORT: u32 = 2;

const META_MARK: u32 = 3;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

const FAMILY_V4: u8 = 2;
const FAMILY_V6: u8 = 10;

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Field {
    Source,
    Destination,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Expression {
    /// Loads what is known about a packet.
    Meta(u32),
    /// Loads bytes of a packet.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    /// Goes on if these bytes were loaded.
    Equal(Vec<u8>),
    /// Goes on if other bytes were loaded.
    NotEqual(Vec<u8>),
    /// Loads these bytes into a register.
    Load {
        register: u32,
        bytes: Vec<u8>,
    },
    /// The packet's connection goes to the address and port in the registers.
    Dnat {
        family: u32,
    },
    /// Counts. What it has counted is no part of the rule.
    Counter,
    /// The packet's connection is not tracked.
    Notrack,
    Accept,
    /// Somebody else's.
    Other(String),
}

impl Expression {
    /// `meta mark != … ip daddr … udp dport … counter dnat to ip:to`.
    pub(super) fn redirecting(ip: IpAddr, protocol: u8, port: u16, to: u16, mark: u32) -> Vec<Self> {
        let (family, address) = match ip {
            IpAddr::V4(ip) => (FAMILY_V4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (FAMILY_V6, ip.octets().to_vec()),
        };
        let mut rule = vec![Self::Meta(META_MARK), Self::NotEqual(mark.to_ne_bytes().to_vec())];
        let dnat = Self::Dnat { family: u32::from(family) };
        rule.extend(Self::matching(ip, protocol, Field::Destination, port, dnat));
        let load = [
            Self::Load { register: REGISTER, bytes: address },
            Self::Load { register: REGISTER_PORT, bytes: to.to_be_bytes().to_vec() },
        ];
        rule.splice(rule.len() - 1..rule.len() - 1, load);
        rule
    }

    /// The address that a rule of ours is about.
    pub(super) fn address(rule: &[Self]) -> Option<IpAddr> {
        let bytes = rule.windows(2).find_map(|pair| match pair {
            [Self::Payload { base: NETWORK_HEADER, .. }, Self::Equal(bytes)] => Some(bytes),
            _ => None,
        })?;
        let v4 = || <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
        v4().or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
    }

    /// `ip daddr … udp dport … counter VERDICT`.
    pub(super) fn matching(ip: IpAddr, protocol: u8, field: Field, port: u16, verdict: Self) -> Vec<Self> {
        let (family, offset, address) = match (ip, field) {
            (IpAddr::V4(ip), Field::Source) => (FAMILY_V4, 12, ip.octets().to_vec()),
            (IpAddr::V4(ip), Field::Destination) => (FAMILY_V4, 16, ip.octets().to_vec()),
            (IpAddr::V6(ip), Field::Source) => (FAMILY_V6, 8, ip.octets().to_vec()),
            (IpAddr::V6(ip), Field::Destination) => (FAMILY_V6, 24, ip.octets().to_vec()),
        };
        let port_offset = if field == Field::Source { 0 } else { 2 };
        vec![
            Self::Meta(META_FAMILY),
            Self::Equal(vec![family]),
            Self::Payload { base: NETWORK_HEADER, offset, length: if ip.is_ipv4() { 4 } else { 16 } },
            Self::Equal(address),
            Self::Meta(META_PROTOCOL),
            Self::Equal(vec![protocol]),
            Self::Payload { base: TRANSPORT_HEADER, offset: port_offset, length: 2 },
            Self::Equal(port.to_be_bytes().to_vec()),
            Self::Counter,
            verdict,
        ]
    }

    /// Its name and data as attributes.
    pub(super) fn put(&self, to: &mut Attributes) {
        let name = match self {
            Self::Meta(_) => "meta",
            Self::Payload { .. } => "payload",
            Self::Equal(_) | Self::NotEqual(_) => "cmp",
            Self::Dnat { .. } => "nat",
            Self::Counter => "counter",
            Self::Notrack => "notrack",
            Self::Accept | Self::Load { .. } => "immediate",
            Self::Other(name) => name,
        };
        to.text(EXPRESSION_NAME, name);
        to.nest(EXPRESSION_DATA, |data| match self {
            Self::Meta(key) => {
                data.u32(META_KEY, *key);
                data.u32(META_REGISTER, REGISTER);
            }
            Self::Payload { base, offset, length } => {
                data.u32(PAYLOAD_REGISTER, REGISTER);
                data.u32(PAYLOAD_BASE, *base);
                data.u32(PAYLOAD_OFFSET, *offset);
                data.u32(PAYLOAD_LENGTH, *length);
            }
            Self::Equal(bytes) => {
                data.u32(CMP_REGISTER, REGISTER);
                data.u32(CMP_OPERATION, CMP_EQUAL);
                data.nest(CMP_DATA, |value| value.put(DATA_VALUE, bytes));
            }
            Self::NotEqual(bytes) => {
                data.u32(CMP_REGISTER, REGISTER);
                data.u32(CMP_OPERATION, CMP_NOT_EQUAL);
                data.nest(CMP_DATA, |value| value.put(DATA_VALUE, bytes));
            }
            Self::Load { register, bytes } => {
                data.u32(IMMEDIATE_REGISTER, *register);
                data.nest(IMMEDIATE_DATA, |value| value.put(DATA_VALUE, bytes));
            }
            Self::Dnat { family } => {
                data.u32(NAT_TYPE, DNAT);
                data.u32(NAT_FAMILY, *family);
                data.u32(NAT_ADDRESS_MIN, REGISTER);
                data.u32(NAT_PORT_MIN, REGISTER_PORT);
            }
            Self::Counter => {
                data.put(COUNTER_BYTES, &[0; 8]);
                data.put(COUNTER_PACKETS, &[0; 8]);
            }
            Self::Accept => {
                data.u32(IMMEDIATE_REGISTER, REGISTER_VERDICT);
                data.nest(IMMEDIATE_DATA, |value| {
                    value.nest(DATA_VERDICT, |verdict| verdict.u32(VERDICT_CODE, ACCEPT));
                });
            }
            Self::Notrack | Self::Other(_) => {}
        });
    }

    /// The expression in an element of a rule's list.
    pub(super) fn read(element: &[u8]) -> Self {
        let find = |wanted| attributes(element).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let name = find(EXPRESSION_NAME).map(text).unwrap_or_default();
        let data = find(EXPRESSION_DATA).unwrap_or_default();
        Self::known(&name, data).unwrap_or(Self::Other(name))
    }

    fn known(name: &str, data: &[u8]) -> Option<Self> {
        let bytes = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let number = |wanted| bytes(wanted).map(u32_of);
        match name {
            "meta" if number(META_REGISTER) == Some(REGISTER) => Some(Self::Meta(number(META_KEY)?)),
            "payload" if number(PAYLOAD_REGISTER) == Some(REGISTER) => Some(Self::Payload {
                base: number(PAYLOAD_BASE)?,
                offset: number(PAYLOAD_OFFSET)?,
                length: number(PAYLOAD_LENGTH)?,
            }),
            "cmp" if number(CMP_REGISTER) == Some(REGISTER) => {
                let (_, value) = attributes(bytes(CMP_DATA)?).find(|(kind, _)| *kind == DATA_VALUE)?;
                match number(CMP_OPERATION)? {
                    CMP_EQUAL => Some(Self::Equal(value.to_vec())),
                    CMP_NOT_EQUAL => Some(Self::NotEqual(value.to_vec())),
                    _ => None,
                }
            }
            "nat" if (number(NAT_TYPE), number(NAT_ADDRESS_MIN)) == (Some(DNAT), Some(REGISTER)) => {
                (number(NAT_PORT_MIN) == Some(REGISTER_PORT)).then_some(Self::Dnat { family: number(NAT_FAMILY)? })
            }
            "counter" => Some(Self::Counter),
            "notrack" => Some(Self::Notrack),
            "immediate" if number(IMMEDIATE_REGISTER) == Some(REGISTER_VERDICT) => {
                let (_, verdict) = attributes(bytes(IMMEDIATE_DATA)?).find(|(kind, _)| *kind == DATA_VERDICT)?;
                let (_, code) = attributes(verdict).find(|(kind, _)| *kind == VERDICT_CODE)?;
                (u32_of(code) == ACCEPT).then_some(Self::Accept)
            }
            "immediate" => {
                let (_, value) = attributes(bytes(IMMEDIATE_DATA)?).find(|(kind, _)| *kind == DATA_VALUE)?;
                Some(Self::Load { register: number(IMMEDIATE_REGISTER)?, bytes: value.to_vec() })
            }
            _ => None,
        }
    }
}

/// Attributes being written, padded as netlink wants them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Attributes(Vec<u8>);

impl Attributes {
    pub(in crate::node) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("attributes of a rule are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// nftables has its numbers in network order.
    pub(in crate::node) fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(in crate::node) fn text(&mut self, kind: u16, value: &str) {
        self.put(kind, &[value.as_bytes(), b"\0"].concat());
    }

    pub(in crate::node) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let mut nested = Self::default();
        inner(&mut nested);
        self.put(kind | NESTED, &nested.0);
    }

    pub(in crate::node) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in some bytes, kinds without their flags; what does not parse ends them.
pub(in crate::node) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let inner: &[u8] = attribute.into_inner();
        let length = usize::from(u16::from_ne_bytes([inner[0], inner[1]]));
        (u16::from_ne_bytes([inner[2], inner[3]]) & KIND_MASK, &inner[4..length])
    })
}

/// A text without the zero at its end.
pub(in crate::node) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

/// A number in network order; the largest for one of another size.
pub(in crate::node) fn u32_of(value: &[u8]) -> u32 {
    value.try_into().map_or(u32::MAX, u32::from_be_bytes)
}
