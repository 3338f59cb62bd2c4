//! The names of the zone and of its targets, by their meaning.

use std::net::IpAddr;

use super::{ReverseName, Zone, address::Dashed};
use crate::{
    record::{Endpoint, Port, Service},
    wire::{Name, NameError, NameRef, Tail},
};

/// A name in terms of the records it comes from.
#[derive(Clone, Copy, Debug)]
pub enum ZoneName<'a> {
    Apex,
    NameServer,
    /// `hostmaster` of the zone, a mailbox.
    Hostmaster,
    Version,
    Service(&'a Service),
    Endpoint(&'a Service, EndpointLabel<'a>),
    Port(&'a Service, &'a Port),
    /// The target of an alias, in whatever zone.
    Target(&'a str),
    /// The reverse name of an address, or of the network it begins.
    Reverse(ReverseName),
}

/// The label of an endpoint below its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointLabel<'a> {
    Hostname(&'a str),
    Address(IpAddr),
}

impl<'a> EndpointLabel<'a> {
    /// The label of an endpoint: its hostname if it has one, else its address.
    pub fn of(endpoint: &'a Endpoint) -> Self {
        endpoint.hostname.as_deref().map_or(Self::Address(endpoint.ip), Self::Hostname)
    }
}

impl Zone {
    /// Hands the parts of a name to `write`, without copying them together.
    pub fn with_ref<R>(&self, name: ZoneName<'_>, write: impl FnOnce(NameRef<'_>) -> R) -> R {
        let below = self.name();
        match name {
            ZoneName::Apex => write(NameRef::under(&[], below)),
            ZoneName::NameServer => write(NameRef::under(&[b"ns", b"dns"], below)),
            ZoneName::Hostmaster => write(NameRef::under(&[b"hostmaster"], below)),
            ZoneName::Version => write(NameRef::under(&[b"dns-version"], below)),
            ZoneName::Service(service) => {
                let [name, namespace] = labels_of(service);
                write(NameRef::under(&[name, namespace, b"svc"], below))
            }
            ZoneName::Endpoint(service, EndpointLabel::Hostname(hostname)) => {
                let [name, namespace] = labels_of(service);
                write(NameRef::under(&[hostname.as_bytes(), name, namespace, b"svc"], below))
            }
            ZoneName::Endpoint(service, EndpointLabel::Address(ip)) => {
                let [name, namespace] = labels_of(service);
                write(NameRef::under(&[Dashed::of(ip).as_bytes(), name, namespace, b"svc"], below))
            }
            ZoneName::Port(service, port) => {
                let [name, namespace] = labels_of(service);
                let mut label = [b'_'; 1 + LABEL_BYTES_MAX];
                let label = match label.get_mut(..=port.name.len()) {
                    Some(label) => {
                        label[1..].copy_from_slice(port.name.as_bytes());
                        &*label
                    }
                    // Too long for a label: the reader of the name refuses it.
                    None => port.name.as_bytes(),
                };
                write(NameRef::under(&[label, port.protocol.srv_label(), name, namespace, b"svc"], below))
            }
            ZoneName::Target(text) => write(NameRef::dotted(text)),
            ZoneName::Reverse(reverse) => write(NameRef::name(&reverse.to_name())),
        }
    }

    /// A name as a whole, in lower case.
    ///
    /// # Errors
    /// If a record has a name that is not a label. Sources refuse such records.
    pub fn name_of(&self, name: ZoneName<'_>) -> Result<Name, NameError> {
        self.with_ref(name, |NameRef { head, tail }| match tail {
            Tail::Name(name) => Name::from_labels(head.iter().copied().chain(name.labels())),
            Tail::Dotted(text) => Name::from_labels(text.split('.').map(str::as_bytes)),
            Tail::Question(_) => unreachable!("names of the zone do not depend on a question"),
        })
    }
}

fn labels_of(service: &Service) -> [&[u8]; 2] {
    [service.name().as_bytes(), service.namespace().as_bytes()]
}

/// Longest label (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
