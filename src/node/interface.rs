//! The interface that carries the addresses pods ask: looked at, made, filled and removed over netlink.
//!
//! Decides nothing: `setup` plans the wanted state.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::netlink::{Message, Netlink};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// As `ip link add … type` calls it; empty for hardware.
    pub kind: String,
    pub up: bool,
    /// The bridge it is a port of.
    pub controller: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
}

/// A socket for interfaces and addresses.
#[derive(Debug)]
pub(super) struct Interfaces(Netlink);

/// The addresses of an interface of this machine; `None` if there is no interface of that name.
#[must_use]
pub fn addresses_of(name: &str) -> Option<Vec<IpAddr>> {
    let mut interfaces = Interfaces::open().ok()?;
    let index = interfaces.links().ok()?.into_iter().find(|link| link.name == name)?.index;
    let own = |address: &Address| address.index == index;
    Some(interfaces.addresses().ok()?.into_iter().filter(own).map(|address| address.ip).collect())
}

impl Interfaces {
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_ROUTE).map(Self)
    }

    /// Every interface; one the kernel describes in a way we do not know is left out.
    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.0.dump(&Message::new(RTM_GETLINK, 0, &LinkMessage::default()))?;
        Ok(answers.iter().filter_map(|body| link(&LinkMessage::parse(body).ok()?)).collect())
    }

    /// Every address of every interface.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let answers = self.0.dump(&Message::new(RTM_GETADDR, 0, &AddressMessage::default()))?;
        Ok(answers.iter().filter_map(|body| address(&AddressMessage::parse(body).ok()?)).collect())
    }

    /// Makes an interface of type dummy, or a bridge without ports where the kernel has no dummy.
    pub(super) fn make(&mut self, name: &str) -> io::Result<()> {
        match self.make_as(name, InfoKind::Dummy) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => self.make_as(name, InfoKind::Bridge),
            made => made,
        }
    }

    fn make_as(&mut self, name: &str, kind: InfoKind) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), info];
        self.0.request(&Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message))
    }

    /// Brings an interface up: v6 addresses need that.
    pub(super) fn bring_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.0.request(&Message::new(RTM_NEWLINK, 0, &message))
    }

    pub(super) fn remove(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.0.request(&Message::new(RTM_DELLINK, 0, &message))
    }

    /// Adds an address, alone in its network. IPv6 ones skip duplicate address detection: no other machine is on the link.
    pub(super) fn add(&mut self, index: u32, ip: IpAddr) -> io::Result<()> {
        let mut message = address_message(index, ip, host_prefix(ip));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        match self.0.request(&Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            done => done,
        }
    }

    pub(super) fn take_off(&mut self, address: Address) -> io::Result<()> {
        let message = address_message(address.index, address.ip, address.prefix);
        match self.0.request(&Message::new(RTM_DELADDR, 0, &message)) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            done => done,
        }
    }
}

/// The prefix length of an address alone.
pub(super) fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn address_message(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        controller: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn address(message: &AddressMessage) -> Option<Address> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    let plain = find(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None });
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let ip = local.or(plain).filter(|ip| !unspecified.contains(ip))?;
    Some(Address { index: message.header.index, ip, prefix: message.header.prefix_len })
}
