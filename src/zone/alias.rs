//! Aliases: `ExternalName` services and their targets.

use std::net::IpAddr;

use super::{RrSet, Zone, cluster::Found};
use crate::{
    record::{Kind, Service, Snapshot},
    wire::{Name, Rtype},
};

/// Maximum aliases followed inside the zone: twice as many as `CoreDNS` follows.
pub const CHAIN_MAX: usize = 16;

/// A chain of aliases, and the result for the last target.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    first: &'a Service,
    /// The aliases after the first.
    others: [Option<&'a Service>; CHAIN_MAX - 1],
    end: ChainEnd<'a>,
    ttl: u32,
}

/// The result for the last target of a chain.
#[derive(Clone, Copy, Debug)]
pub enum ChainEnd<'a> {
    /// Records; their owner is the last target.
    Hit(RrSet<'a>),
    /// A name in the zone without records of the type.
    NoData,
    /// A name in the zone that does not exist.
    NxDomain,
    /// The last target is outside the zone: an upstream answers for it.
    Outside,
    /// The question is for the alias itself (CNAME); it is not followed.
    Asked,
    /// A loop, or more aliases than the maximum.
    Looped,
}

impl<'a> Chain<'a> {
    /// The targets, in order. The first alias is the name asked for, each other one the target before it.
    pub fn targets(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.first).chain(self.others.into_iter().flatten()).map(target_of)
    }

    /// The last target.
    pub fn last(&self) -> &'a str {
        target_of(self.others.iter().rev().find_map(|other| *other).unwrap_or(self.first))
    }

    /// The result for the last target.
    pub fn end(&self) -> ChainEnd<'a> {
        self.end
    }

    /// The aliases, each a set of its own, in the order of their targets.
    pub fn sets(&self) -> impl Iterator<Item = RrSet<'a>> {
        let ttl = self.ttl;
        self.targets().map(move |target| RrSet::alias(target, ttl))
    }

    /// True if the question's type has no records at the end of the chain.
    pub(super) fn is_empty_handed(&self) -> bool {
        matches!(self.end, ChainEnd::NoData | ChainEnd::NxDomain | ChainEnd::Looped)
    }

    /// Adds an alias. False if the chain has it already, or is full.
    fn push(&mut self, service: &'a Service) -> bool {
        let same = |held: &Service| held.key() == service.key();
        if same(self.first) || self.others.iter().flatten().any(|other| same(other)) {
            return false;
        }
        let free = self.others.iter_mut().find(|other| other.is_none());
        free.map(|free| *free = Some(service)).is_some()
    }
}

/// The target of an `ExternalName` service, without a final dot.
pub(super) fn target_of(service: &Service) -> &str {
    match service.kind() {
        Kind::ExternalName(target) => target.strip_suffix('.').unwrap_or(target),
        Kind::ClusterIp(_) | Kind::Headless => "",
    }
}

/// The target as a name. `None` if the text is not a name, or is an address: such an alias does not exist.
pub(super) fn target_name(service: &Service) -> Option<Name> {
    let target = target_of(service);
    let address = target.parse::<IpAddr>().is_ok();
    if address { None } else { Name::from_labels(target.split('.').map(str::as_bytes)).ok() }
}

/// Follows an alias to the end of the chain or to the first target outside the zone; none if the chain leads into a namespace that
/// is not known.
pub(super) fn follow<'a>(
    zone: &'a Zone,
    snapshot: &'a Snapshot,
    first: &'a Service,
    qtype: Rtype,
) -> Option<Chain<'a>> {
    let mut chain = Chain { first, others: [None; CHAIN_MAX - 1], end: ChainEnd::Asked, ttl: zone.ttl() };
    if qtype == Rtype::CNAME {
        return Some(chain);
    }
    let mut service = first;
    chain.end = loop {
        let Some(name) = target_name(service) else { break ChainEnd::NxDomain };
        let Some(depth) = name.labels_above(zone.name()) else { break ChainEnd::Outside };
        match zone.find(snapshot, true, &name, depth, qtype) {
            Found::Hit(set) => break ChainEnd::Hit(set),
            Found::NoData => break ChainEnd::NoData,
            Found::NxDomain => break ChainEnd::NxDomain,
            Found::NotReady => return None,
            Found::Alias(next) if chain.push(next) => service = next,
            Found::Alias(_) => break ChainEnd::Looped,
        }
    };
    Some(chain)
}
