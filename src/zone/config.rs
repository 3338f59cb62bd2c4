//! What can be set about the cluster zone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::wire::Name;

/// TTL of the version record, in seconds: it changes with the software only (the specification's own example, 2.2).
pub const VERSION_TTL: u32 = 28_800;

/// The most an answer from stale records may be cached, in seconds (RFC 8767, 5).
pub const STALE_TTL_MAX: u32 = 30;

/// Names and rules of the zone.
#[derive(Clone, Debug)]
pub struct Config {
    pub zone: Name,
    /// Which names of pods exist.
    pub pods: Pods,
    /// TTL of every answer but the version, in seconds, and of negative ones.
    pub ttl: u32,
    /// Networks whose reverse names are ours, empty or not.
    pub reverse: Vec<IpNet>,
    /// Whose answers to give where ours differ on purpose.
    pub compat: Compat,
    /// The addresses we are reached at, which `ns.dns` of the zone resolves to. Unspecified ones are left out.
    pub name_servers: Vec<IpAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zone: Name::from_labels([&b"cluster"[..], b"local"]).expect("two short labels are a name"),
            pods: Pods::default(),
            ttl: 5,
            reverse: Vec::new(),
            compat: Compat::default(),
            name_servers: Vec::new(),
        }
    }
}

/// What `1-2-3-4.namespace.pod` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pods {
    /// The address in the name, whether or not there is such a pod.
    #[default]
    Insecure,
    /// Nothing: no such name exists.
    Disabled,
}

/// Whose answers to give where ours differ on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compat {
    /// Ours, as the RFCs have it.
    #[default]
    None,
    /// Those of the kubernetes plugin of CoreDNS: the addresses of the service for A and AAAA of `_port._proto` names,
    /// and an empty answer for an alias whose target has no addresses, in place of the alias with that outcome.
    CoreDns,
}
