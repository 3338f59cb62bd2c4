//! Reverse names: their zone and the names they point to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    Apex, Lookup, RrSet, Zone,
    cluster::Found,
    endpoints,
    rrset::{self, Source},
};
use crate::{
    record::{Service, Snapshot},
    wire::{Name, Rtype},
};

/// The reverse name of an address, or of the network whose first address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseName {
    /// The address; bits below the network are 0.
    pub ip: IpAddr,
    /// How many of its octets (IPv4) or nibbles (IPv6) the name spells, from the most significant one.
    pub parts: usize,
}

impl ReverseName {
    /// The name of a whole address.
    pub fn of(ip: IpAddr) -> Self {
        Self { ip, parts: parts_of(ip) }
    }

    /// The name.
    ///
    /// # Panics
    /// If it has more parts than its address.
    pub fn to_name(self) -> Name {
        let mut text = [[0; 3]; 32];
        let mut labels: [&[u8]; 34] = [&[]; 34];
        let suffix: [&[u8]; 2] = [if self.ip.is_ipv4() { b"in-addr" } else { b"ip6" }, b"arpa"];
        let head = &mut labels[..self.parts + 2];
        for (index, (label, text)) in head.iter_mut().zip(&mut text).take(self.parts).enumerate() {
            *label = digits(part(self.ip, self.parts - 1 - index), self.ip.is_ipv4(), text);
        }
        head[self.parts..].copy_from_slice(&suffix);
        Name::from_labels(head.iter().copied()).expect("34 short labels are a name")
    }
}

/// How many labels spell a whole address: octets or nibbles.
fn parts_of(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 4 } else { 32 }
}

fn bits_of(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 8 } else { 4 }
}

/// The octet or nibble at `index`, from the most significant one.
fn part(ip: IpAddr, index: usize) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[index],
        IpAddr::V6(ip) => ip.octets()[index / 2] >> (4 * (1 - index % 2)) & 0x0F,
    }
}

/// The address with the octet or nibble at `index`, which is 0, set.
fn with_part(ip: IpAddr, index: usize, value: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mut octets = ip.octets();
            octets[index] |= value;
            Ipv4Addr::from(octets).into()
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[index / 2] |= value << (4 * (1 - index % 2));
            Ipv6Addr::from(octets).into()
        }
    }
}

fn digits(value: u8, decimal: bool, text: &mut [u8; 3]) -> &[u8] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    if !decimal {
        text[0] = DIGITS[usize::from(value & 0x0F)];
        return &text[..1];
    }
    *text = [value / 100, value / 10 % 10, value % 10].map(|digit| digit + b'0');
    let zeros = usize::from(value < 100) + usize::from(value < 10);
    &text[zeros..]
}

/// A name below `in-addr.arpa` or `ip6.arpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spelled {
    /// The labels, read from the right, are the start of an address or all of one.
    prefix: ReverseName,
    /// There are more labels than an address has, or one that is not part of an address.
    more: bool,
}

impl Spelled {
    fn read(name: &Name) -> Option<Self> {
        if name.label_from_end(0) != Some(b"arpa") {
            return None;
        }
        let mut ip = match name.label_from_end(1)? {
            b"in-addr" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            b"ip6" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let labels = name.label_count() - 2;
        let mut parts = 0;
        while parts < labels.min(parts_of(ip)) {
            let Some(value) = name.label_from_end(parts + 2).and_then(|label| read_part(label, ip.is_ipv4())) else {
                break;
            };
            ip = with_part(ip, parts, value);
            parts += 1;
        }
        Some(Self { prefix: ReverseName { ip, parts }, more: parts < labels })
    }

    /// The address, if the name spells a whole one and nothing else.
    fn address(self) -> Option<IpAddr> {
        (!self.more && self.prefix.parts == parts_of(self.prefix.ip)).then_some(self.prefix.ip)
    }
}

/// An octet in decimal without leading zeros, or a lower-case nibble.
fn read_part(label: &[u8], decimal: bool) -> Option<u8> {
    if decimal {
        if label.len() > 1 && label[0] == b'0' || label.len() > 3 {
            return None;
        }
        let number = label
            .iter()
            .try_fold(0_u16, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u16::from(byte - b'0')))?;
        return u8::try_from(number).ok();
    }
    match *label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Parts that the apex of the zone covering `net` exactly, or exactly with its neighbours, spells.
fn apex_parts(net: IpNet) -> usize {
    usize::from(net.prefix_len()).div_ceil(bits_of(net.addr()))
}

impl Zone {
    /// The apexes of our reverse zones, in the order configured: a network that does not end at a label border has
    /// several, which cover it exactly.
    pub fn reverse_zones(&self) -> impl Iterator<Item = ReverseName> {
        self.reverse().iter().flat_map(|net| {
            let parts = apex_parts(*net);
            let free = parts * bits_of(net.addr()) - usize::from(net.prefix_len());
            (0..1_u16 << free).map(move |index| {
                let value = u8::try_from(index).expect("fewer than 256 values of one label");
                ReverseName { ip: if parts == 0 { net.addr() } else { with_part(net.addr(), parts - 1, value) }, parts }
            })
        })
    }

    /// Names outside the cluster zone.
    pub(super) fn lookup_reverse<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        synced: bool,
        name: &Name,
        qtype: Rtype,
    ) -> Lookup<'a> {
        let Some(spelled) = Spelled::read(name) else { return Lookup::NotOurs };
        let prefix = spelled.prefix;
        let covers = |net: &&IpNet| apex_parts(**net) <= prefix.parts && net.contains(&prefix.ip);
        let Some(parts) = self.reverse().iter().filter(covers).map(|net| apex_parts(*net)).max() else {
            // Without reverse zones only addresses with records are answered.
            let ip = spelled.address().filter(|_| qtype == Rtype::PTR && self.reverse().is_empty());
            return ip.and_then(|ip| self.pointer(snapshot, ip)).map_or(Lookup::NotOurs, Lookup::Hit);
        };
        let apex = Apex::Reverse { labels: parts + 2 };
        let at_apex = !spelled.more && prefix.parts == parts;
        let found = match qtype {
            Rtype::SOA if at_apex => Found::Hit(self.soa(snapshot.version())),
            Rtype::NS if at_apex => Found::Hit(self.ns()),
            _ if !synced && !at_apex => Found::NotReady,
            _ => match spelled.address().map(|ip| self.pointer(snapshot, ip)) {
                Some(Some(set)) if qtype == Rtype::PTR => Found::Hit(set),
                Some(Some(_)) => self.no_data(qtype),
                _ if at_apex || has_names_below(snapshot, spelled) => self.no_data(qtype),
                // A service of a namespace that the source did not see may have the address.
                _ if snapshot.is_partial() => Found::NotReady,
                _ => Found::NxDomain,
            },
        };
        match found {
            Found::Hit(set) => Lookup::Hit(set),
            Found::NoData => Lookup::NoData(apex),
            Found::NotReady => Lookup::NotReady,
            Found::NxDomain | Found::Alias(_) => Lookup::NxDomain(apex),
        }
    }

    /// The target of an address: the service with this cluster IP, or else one name for each service that has a
    /// ready endpoint there.
    pub(super) fn pointer<'a>(&self, snapshot: &'a Snapshot, ip: IpAddr) -> Option<RrSet<'a>> {
        if let Some(service) = cluster_ip(snapshot, ip) {
            return Some(RrSet::new(Rtype::PTR, self.ttl(), Source::ServicePointer(service)));
        }
        let any = rrset::pointers(snapshot, ip).next().is_some();
        any.then(|| RrSet::new(Rtype::PTR, self.ttl(), Source::EndpointPointers(snapshot, ip)))
    }
}

/// The service with this cluster IP; the first by name, should two claim it.
fn cluster_ip(snapshot: &Snapshot, ip: IpAddr) -> Option<&Service> {
    let keys = snapshot.holders(ip).iter().filter(|holder| holder.cluster_ip).map(|holder| &holder.service);
    keys.min().and_then(|key| snapshot.service_by_key(key)).map(|service| &**service)
}

/// True if an address has a PTR record.
fn is_held(snapshot: &Snapshot, ip: IpAddr) -> bool {
    snapshot.holders(ip).iter().any(|holder| {
        let service = snapshot.service_by_key(&holder.service);
        holder.cluster_ip || service.is_some_and(|service| endpoints::at(service, ip).is_some())
    })
}

/// True if there may be names below one that is part of an address.
///
/// Nothing exists below a name that is not part of an address. Up to 256 addresses are all looked up; with more it is true: to
/// say NODATA of a name without names below it does no harm, while NXDOMAIN of one that has them denies them all
/// (RFC 8020).
fn has_names_below(snapshot: &Snapshot, spelled: Spelled) -> bool {
    let ReverseName { ip, parts } = spelled.prefix;
    let missing = parts_of(ip) - parts;
    if spelled.more || missing == 0 {
        return false;
    }
    let values = 0..=u8::MAX;
    match (ip, missing) {
        (IpAddr::V4(_), 1) => values.map(|value| with_part(ip, 3, value)).any(|ip| is_held(snapshot, ip)),
        (IpAddr::V6(ip), 1 | 2) => {
            let count = 1_u16 << (4 * missing);
            (0..count).any(|value| is_held(snapshot, Ipv6Addr::from_bits(ip.to_bits() | u128::from(value)).into()))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(name: &str) -> Option<(String, usize, bool)> {
        let read = Spelled::read(&name.parse().unwrap())?;
        Some((read.prefix.ip.to_string(), read.prefix.parts, read.more))
    }

    #[test]
    fn reverse_names_are_read_from_the_right_as_far_as_they_spell_an_address() {
        for (name, ip, parts, more) in [
            ("1.0.96.10.in-addr.arpa", "10.96.0.1", 4, false),
            ("255.255.255.255.IN-ADDR.ARPA", "255.255.255.255", 4, false),
            ("96.10.in-addr.arpa", "10.96.0.0", 2, false),
            ("in-addr.arpa", "0.0.0.0", 0, false),
            ("7.1.0.96.10.in-addr.arpa", "10.96.0.1", 4, true),
            ("256.0.96.10.in-addr.arpa", "10.96.0.0", 3, true),
            ("0100.0.96.10.in-addr.arpa", "10.96.0.0", 3, true),
            ("01.0.96.10.in-addr.arpa", "10.96.0.0", 3, true),
            ("-1.0.96.10.in-addr.arpa", "10.96.0.0", 3, true),
            ("1.x.96.10.in-addr.arpa", "10.96.0.0", 2, true),
            ("1.f.d.F.ip6.arpa", "fdf1::", 4, false),
            ("g.d.f.ip6.arpa", "fd00::", 2, true),
            ("10.d.f.ip6.arpa", "fd00::", 2, true),
        ] {
            assert_eq!(spelled(name), Some((ip.into(), parts, more)), "{name}");
        }
        for name in ["arpa", "e164.arpa", "1.0.96.10.in-addr.example", "in-addr", "."] {
            assert_eq!(spelled(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_spelled_as_they_are_read() {
        for (ip, name) in [
            ("10.96.0.104", "104.0.96.10.in-addr.arpa."),
            ("2001:db8::567:89ab", "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."),
        ] {
            assert_eq!(ReverseName::of(ip.parse().unwrap()).to_name().to_string(), name);
            assert_eq!(Spelled::read(&name.parse().unwrap()).unwrap().address(), Some(ip.parse().unwrap()));
        }
    }
}
