//! Settings of the cluster zone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{sys::labels, wire::Name};

/// TTL of the version record in seconds: the value in the specification's example (2.2).
pub const VERSION_TTL: u32 = 28_800;

/// Maximum TTL of answers from stale records, in seconds (RFC 8767, 5).
pub const STALE_TTL_MAX: u32 = 30;

/// Names and rules of the zone.
#[derive(Clone, Debug)]
pub struct Config {
    pub zone: Name,
    /// Which names of pods exist.
    pub pods: Pods,
    /// TTL of every answer but the version, and of negative answers, in seconds.
    pub ttl: u32,
    /// Networks whose reverse names belong to this zone, with records or without.
    pub reverse: Vec<IpNet>,
    /// Whose answers are given where those of holdfast differ from CoreDNS on purpose.
    pub compat: Compat,
    /// The listen addresses, which `ns.dns` of the zone resolves to. Unspecified addresses are left out.
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

labels! {
    /// The answers to `1-2-3-4.namespace.pod`.
    #[derive(Default)]
    pub enum Pods {
        /// The address in the name, with or without such a pod.
        #[default]
        Insecure = "insecure",
        /// NXDOMAIN.
        Disabled = "disabled",
    }
}

labels! {
    /// Whose answers are given where those of holdfast differ from CoreDNS on purpose.
    #[derive(Default)]
    pub enum Compat {
        /// holdfast's answers, as the RFCs define them.
        #[default]
        None = "none",
        /// Answers of CoreDNS's kubernetes plugin: the addresses of the service for A and AAAA of `_port._proto` names,
        /// and an empty answer for an alias whose target has no addresses, in place of the alias with that outcome.
        CoreDns = "coredns",
    }
}
