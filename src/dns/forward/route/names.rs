//! Names that a forward zone answers or renames on the node: hosts, a fixed answer, rewrites.
//!
//! Never asks an upstream.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use hickory_proto::rr::Record;

use super::{Config, ConfigError, FixedAnswer, ZoneConfig, hosts, hosts::Hosts};
use crate::{
    dns::{
        cache::Kind,
        question::{Question, question_name},
    },
    wire::{Name, Rtype},
};

/// The hosts, the fixed answer and the rewrites of one zone.
#[derive(Debug)]
pub struct ZoneNames {
    pub config: Arc<ZoneConfig>,
    hosts: ArcSwap<Hosts>,
}

/// What a zone makes of a question.
#[derive(Debug)]
pub enum OnNode {
    Hosts(Kind, Vec<Record>),
    Fixed(FixedAnswer),
    /// The name is looked up under another name, and the answer given under its own.
    Renamed(Box<Name>),
    Upstreams,
}

impl ZoneNames {
    /// # Errors
    /// If the hosts file cannot be read.
    pub fn new(config: Arc<ZoneConfig>) -> Result<Self, ConfigError> {
        let hosts = ArcSwap::from_pointee(read_hosts(&config)?);
        Ok(Self { config, hosts })
    }

    /// Hosts come before the fixed answer, and both before rewrites.
    pub fn find(&self, question: &Question) -> OnNode {
        let ttl = u32::try_from(self.config.hosts_ttl.as_secs()).unwrap_or(u32::MAX);
        if let Some((kind, records)) = self.hosts.load().find(question, ttl) {
            return OnNode::Hosts(kind, records);
        }
        if let Some(fixed) = self.config.answer {
            return OnNode::Fixed(fixed);
        }
        match hosts::rewrite(&self.config.rewrites, &question.record_name()) {
            Some(name) => OnNode::Renamed(Box::new(question_name(&name))),
            None => OnNode::Upstreams,
        }
    }

    /// Whether the question's answer is in the cache under its own name, if it is anywhere.
    #[inline]
    pub fn is_plain(&self, question: Question<&Name>) -> bool {
        self.config.answer.is_none()
            && self.config.rewrites.is_empty()
            && (self.config.dns64.is_none() || question.rtype != Rtype::AAAA)
            && !self.hosts.load().holds(question.name, question.rtype)
    }

    /// Reads the hosts file again.
    ///
    /// # Errors
    /// If it cannot be read; the hosts stay as they were.
    pub fn reread_hosts(&self) -> Result<(), ConfigError> {
        self.hosts.store(Arc::new(read_hosts(&self.config)?));
        Ok(())
    }
}

fn read_hosts(config: &ZoneConfig) -> Result<Hosts, ConfigError> {
    Hosts::new(&config.hosts, config.hosts_file.as_deref()).map_err(|error| ConfigError::Hosts {
        zone: config.zone.to_string(),
        path: config.hosts_file.clone().unwrap_or_default(),
        reason: error.to_string(),
    })
}

/// Something for each zone; the longest zone that holds a name counts.
#[derive(Debug)]
pub struct ByZone<T>(HashMap<Box<[u8]>, T>);

impl<T> Default for ByZone<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> ByZone<T> {
    #[inline]
    pub fn find(&self, name: &Name) -> Option<&T> {
        (0..=name.label_count()).find_map(|skip| self.0.get(name.suffix(skip)))
    }

    pub fn get(&self, zone: &Name) -> Option<&T> {
        self.0.get(zone.wire())
    }

    /// Returns what the zone had before.
    pub fn insert(&mut self, zone: &Name, value: T) -> Option<T> {
        self.0.insert(zone.wire().into(), value)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }
}

/// The names of every zone of `config`, for tools that look at a store without a process. A zone whose hosts file cannot be
/// read on this machine goes without it.
pub fn zone_names(config: &Config) -> ByZone<ZoneNames> {
    let mut zones = ByZone::default();
    for zone in &config.zones {
        let names = ZoneNames::new(Arc::new(zone.clone()))
            .or_else(|_| ZoneNames::new(Arc::new(ZoneConfig { hosts_file: None, ..zone.clone() })));
        if let Ok(names) = names {
            zones.insert(&question_name(&zone.zone), names);
        }
    }
    zones
}
