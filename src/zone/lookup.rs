//! The results of a lookup in the zones, and how a question gets one.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Chain, Compat, Config, Pods, RrSet, alias, cluster::Found};
use crate::{
    record::Snapshot,
    wire::{Name, Rtype},
};

/// The result for a question.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// The name has records of the type.
    Hit(RrSet<'a>),
    /// The name is an alias.
    Cname(Chain<'a>),
    /// The name exists without records of the type (RFC 2308, 2.2); SOA of that zone.
    NoData(Apex),
    /// The name does not exist (RFC 2308, 2.1); SOA of that zone.
    NxDomain(Apex),
    /// The name is in no zone of ours, and is not the reverse name of a record.
    NotOurs,
    /// The name is in a zone of ours, but there was no first list yet, or none of its namespace.
    NotReady,
}

/// One of our zones, seen from a name in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apex {
    Cluster,
    /// A reverse zone: the name's last labels, this many.
    Reverse {
        /// Labels of the apex, the root not counted.
        labels: usize,
    },
}

/// The zone's rules, built once from its configuration.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Name,
    pods: Pods,
    compat: Compat,
    ttl: u32,
    reverse: Box<[IpNet]>,
    name_servers: Box<[IpAddr]>,
}

impl Zone {
    /// The rules of a zone.
    pub fn new(config: &Config) -> Self {
        let mut name_servers: Vec<IpAddr> =
            config.name_servers.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
        name_servers.sort_unstable();
        name_servers.dedup();
        Self {
            name: config.zone.clone(),
            pods: config.pods,
            compat: config.compat,
            ttl: config.ttl,
            reverse: config.reverse.iter().map(IpNet::trunc).collect(),
            name_servers: name_servers.into(),
        }
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// TTL of answers, in seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    pub(super) fn pods(&self) -> Pods {
        self.pods
    }

    pub(super) fn compat(&self) -> Compat {
        self.compat
    }

    pub(super) fn reverse(&self) -> &[IpNet] {
        &self.reverse
    }

    pub(super) fn name_servers(&self) -> &[IpAddr] {
        &self.name_servers
    }

    /// Labels of `name` in front of the apex of the zone it is in.
    #[inline]
    pub fn labels_above(&self, name: &Name, apex: Apex) -> usize {
        let labels = match apex {
            Apex::Cluster => self.name.label_count(),
            Apex::Reverse { labels } => labels,
        };
        name.label_count().saturating_sub(labels)
    }

    /// Answers a question of class IN. Never allocates, never fails.
    ///
    /// `synced` is true after the first list or after records were loaded from disk: before that no name is known not to
    /// exist, and names that need records are [`Lookup::NotReady`].
    #[inline]
    pub fn lookup<'a>(&'a self, snapshot: &'a Snapshot, synced: bool, name: &Name, qtype: Rtype) -> Lookup<'a> {
        let Some(depth) = name.labels_above(&self.name) else {
            return self.lookup_reverse(snapshot, synced, name, qtype);
        };
        match self.find(snapshot, synced, name, depth, qtype) {
            Found::Hit(set) => Lookup::Hit(set),
            Found::NxDomain => Lookup::NxDomain(Apex::Cluster),
            Found::NoData => Lookup::NoData(Apex::Cluster),
            Found::NotReady => Lookup::NotReady,
            Found::Alias(service) => {
                let Some(chain) = alias::follow(self, snapshot, service, qtype) else { return Lookup::NotReady };
                // CoreDNS puts an alias into its answer only together with what it leads to.
                let empty = self.compat == Compat::CoreDns && chain.is_empty_handed();
                if empty { Lookup::NoData(Apex::Cluster) } else { Lookup::Cname(chain) }
            }
        }
    }
}
