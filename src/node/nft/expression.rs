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
const FIB_REGISTER: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const SOCKET_KEY: u16 = 1;
const SOCKET_REGISTER: u16 = 2;
const CT_REGISTER: u16 = 1;
const CT_KEY: u16 = 2;
const CT_DIRECTION: u16 = 3;
const CT_REGISTER_FROM: u16 = 4;
const PAYLOAD_REGISTER_FROM: u16 = 5;
const PAYLOAD_CHECKSUM_KIND: u16 = 6;
const PAYLOAD_CHECKSUM_OFFSET: u16 = 7;
const PAYLOAD_CHECKSUM_FLAGS: u16 = 8;

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

/// The kind of the route to an address, and that of the destination.
const FIB_KIND: u32 = 3;
const FIB_DESTINATION: u32 = 2;
/// The kind of a route to an address of this machine (`RTN_LOCAL`).
const LOCAL: u32 = 2;
const CT_ZONE: u32 = 17;
/// The direction of a connection's first packet.
const ORIGINAL: u8 = 0;
/// The header's own checksum, of IPv4, and where it is.
const CHECKSUM_INET: u32 = 1;
const CHECKSUM_OFFSET_V4: u32 = 10;
/// The checksum of UDP or TCP covers the address too.
const CHECKSUM_PSEUDO_HEADER: u32 = 1;

/// Whether a socket takes addresses that the machine has not: any answer says that there is a socket.
const SOCKET_TRANSPARENT: u32 = 0;
/// The loopback interface is the first of each network namespace.
const LOOPBACK: u32 = 1;

const META_MARK: u32 = 3;
const META_INPUT: u32 = 4;
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
    /// Loads metadata of a packet.
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
    /// Loads the kind of the route to the packet's destination.
    DestinationKind,
    /// Loads something about the socket that gets the packet; goes on if there is one.
    Socket,
    /// The packet's connection is in the zone in the register, in the direction of this packet, which is its first.
    SetZone,
    /// Loads the zone that a connection's first packet set.
    Zone,
    /// Puts the loaded address in the place of the packet's own.
    SetAddress {
        field: Field,
        v6: bool,
    },
    /// Counts packets. The count is no part of the rule.
    Counter,
    /// The packet's connection is not tracked.
    Notrack,
    Accept,
    /// Of another program.
    Other(String),
}

impl Expression {
    /// `meta mark != … ip daddr … udp dport … counter dnat to ip:to`.
    pub(super) fn redirecting(ip: IpAddr, protocol: u8, port: u16, to: u16, mark: u32) -> Vec<Self> {
        let mut rule = Self::mark_is_not(mark).to_vec();
        rule.extend(Self::packet(ip, protocol, Field::Destination, port));
        rule.extend([
            Self::Counter,
            Self::Load { register: REGISTER, bytes: octets(ip) },
            Self::Load { register: REGISTER_PORT, bytes: to.to_be_bytes().to_vec() },
            Self::Dnat { family: u32::from(family(ip)) },
        ]);
        rule
    }

    /// `ip daddr … udp dport … fib daddr type local socket … accept`: a process of the node gets it.
    pub(super) fn heard(ip: IpAddr, protocol: u8, port: u16) -> Vec<Self> {
        let mut rule = Self::packet(ip, protocol, Field::Destination, port);
        rule.extend([Self::DestinationKind, Self::Equal(LOCAL.to_ne_bytes().to_vec()), Self::Socket, Self::Accept]);
        rule
    }

    /// Of what comes from elsewhere, after [`heard`](Self::heard): `ip daddr … udp dport … iif != lo counter ct original zone set …
    /// ip daddr set to`. Of processes of the node with `own`: those without its mark, `fib daddr type != local`.
    pub(super) fn steering(ip: IpAddr, protocol: u8, port: u16, to: IpAddr, zone: u16, own: Option<u32>) -> Vec<Self> {
        let mut rule = Self::packet(ip, protocol, Field::Destination, port);
        match own {
            Some(mark) => {
                rule.extend(Self::mark_is_not(mark));
                rule.extend([Self::DestinationKind, Self::NotEqual(LOCAL.to_ne_bytes().to_vec())]);
            }
            None => rule.extend([Self::Meta(META_INPUT), Self::NotEqual(LOOPBACK.to_ne_bytes().to_vec())]),
        }
        rule.extend([
            Self::Counter,
            Self::Load { register: REGISTER, bytes: zone.to_ne_bytes().to_vec() },
            Self::SetZone,
            Self::Load { register: REGISTER, bytes: octets(to) },
            Self::SetAddress { field: Field::Destination, v6: to.is_ipv6() },
        ]);
        rule
    }

    /// The answers to what [`steering`](Self::steering) sends to `from`: `ip saddr from udp sport … ct original zone … ip saddr set ip`.
    pub(super) fn steered(ip: IpAddr, protocol: u8, port: u16, from: IpAddr, zone: u16) -> Vec<Self> {
        let mut rule = Self::packet(from, protocol, Field::Source, port);
        rule.extend([
            Self::Zone,
            Self::Equal(zone.to_ne_bytes().to_vec()),
            Self::Load { register: REGISTER, bytes: octets(ip) },
            Self::SetAddress { field: Field::Source, v6: ip.is_ipv6() },
        ]);
        rule
    }

    fn mark_is_not(mark: u32) -> [Self; 2] {
        [Self::Meta(META_MARK), Self::NotEqual(mark.to_ne_bytes().to_vec())]
    }

    /// The address of ours that a rule is about.
    pub(super) fn address(rule: &[Self]) -> Option<IpAddr> {
        let bytes = rule.windows(2).find_map(|pair| match pair {
            // The other address of such a rule is that of the cluster's DNS.
            [Self::Load { bytes, .. }, Self::SetAddress { field: Field::Source, .. }] => Some(bytes),
            _ => None,
        });
        let compared = || {
            rule.windows(2).find_map(|pair| match pair {
                [Self::Payload { base: NETWORK_HEADER, .. }, Self::Equal(bytes)] => Some(bytes),
                _ => None,
            })
        };
        let bytes = bytes.or_else(compared)?;
        let v4 = || <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
        v4().or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
    }

    /// `ip daddr … udp dport … counter VERDICT`.
    pub(super) fn matching(ip: IpAddr, protocol: u8, field: Field, port: u16, verdict: Self) -> Vec<Self> {
        let mut rule = Self::packet(ip, protocol, field, port);
        rule.extend([Self::Counter, verdict]);
        rule
    }

    /// `ip daddr … udp dport …`.
    fn packet(ip: IpAddr, protocol: u8, field: Field, port: u16) -> Vec<Self> {
        let (offset, length) = place(field, ip.is_ipv6());
        let port_offset = if field == Field::Source { 0 } else { 2 };
        vec![
            Self::Meta(META_FAMILY),
            Self::Equal(vec![family(ip)]),
            Self::Payload { base: NETWORK_HEADER, offset, length },
            Self::Equal(octets(ip)),
            Self::Meta(META_PROTOCOL),
            Self::Equal(vec![protocol]),
            Self::Payload { base: TRANSPORT_HEADER, offset: port_offset, length: 2 },
            Self::Equal(port.to_be_bytes().to_vec()),
        ]
    }

    /// Its name and data as attributes.
    pub(super) fn put(&self, to: &mut Attributes) {
        let name = match self {
            Self::Meta(_) => "meta",
            Self::Payload { .. } | Self::SetAddress { .. } => "payload",
            Self::DestinationKind => "fib",
            Self::SetZone | Self::Zone => "ct",
            Self::Socket => "socket",
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
            Self::DestinationKind => {
                data.u32(FIB_REGISTER, REGISTER);
                data.u32(FIB_RESULT, FIB_KIND);
                data.u32(FIB_FLAGS, FIB_DESTINATION);
            }
            Self::Socket => {
                data.u32(SOCKET_KEY, SOCKET_TRANSPARENT);
                data.u32(SOCKET_REGISTER, REGISTER);
            }
            Self::SetZone | Self::Zone => {
                data.u32(CT_KEY, CT_ZONE);
                data.put(CT_DIRECTION, &[ORIGINAL]);
                data.u32(if *self == Self::Zone { CT_REGISTER } else { CT_REGISTER_FROM }, REGISTER);
            }
            Self::SetAddress { field, v6 } => {
                let (offset, length) = place(*field, *v6);
                let (kind, at) = if *v6 { (0, 0) } else { (CHECKSUM_INET, CHECKSUM_OFFSET_V4) };
                data.u32(PAYLOAD_REGISTER_FROM, REGISTER);
                data.u32(PAYLOAD_BASE, NETWORK_HEADER);
                data.u32(PAYLOAD_OFFSET, offset);
                data.u32(PAYLOAD_LENGTH, length);
                data.u32(PAYLOAD_CHECKSUM_KIND, kind);
                data.u32(PAYLOAD_CHECKSUM_OFFSET, at);
                data.u32(PAYLOAD_CHECKSUM_FLAGS, CHECKSUM_PSEUDO_HEADER);
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
            "payload" if number(PAYLOAD_REGISTER_FROM) == Some(REGISTER) => {
                let at = (number(PAYLOAD_OFFSET)?, number(PAYLOAD_LENGTH)?);
                let known = [
                    (Field::Source, false),
                    (Field::Destination, false),
                    (Field::Source, true),
                    (Field::Destination, true),
                ];
                let (field, v6) = known.into_iter().find(|(field, v6)| place(*field, *v6) == at)?;
                Some(Self::SetAddress { field, v6 })
            }
            "fib" if number(FIB_REGISTER) == Some(REGISTER) => {
                let kind = (number(FIB_RESULT), number(FIB_FLAGS));
                (kind == (Some(FIB_KIND), Some(FIB_DESTINATION))).then_some(Self::DestinationKind)
            }
            "socket" if number(SOCKET_REGISTER) == Some(REGISTER) => {
                (number(SOCKET_KEY) == Some(SOCKET_TRANSPARENT)).then_some(Self::Socket)
            }
            "ct" if number(CT_KEY) == Some(CT_ZONE) && bytes(CT_DIRECTION) == Some(&[ORIGINAL]) => {
                let sets = number(CT_REGISTER_FROM) == Some(REGISTER);
                Some(if sets { Self::SetZone } else { Self::Zone })
            }
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

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Offset and length of an address in its header, in bytes.
fn place(field: Field, v6: bool) -> (u32, u32) {
    match (field, v6) {
        (Field::Source, false) => (12, 4),
        (Field::Destination, false) => (16, 4),
        (Field::Source, true) => (8, 16),
        (Field::Destination, true) => (24, 16),
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

/// The attributes in some bytes, up to the first that does not parse; kinds without their flags.
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
