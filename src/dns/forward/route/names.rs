//! Names that a forward zone answers or renames on the node, in the order of CoreDNS's plugins: rewrites, templates, hosts,
//! a fixed answer.
//!
//! Never asks an upstream.

use std::{collections::HashMap, io, net::IpAddr, path::Path, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::rr::{Record, RecordType};
use tracing::warn;

use super::{
    Config, FixedAnswer, ZoneConfig,
    hosts::Hosts,
    rewrite::{Rewritten, rewrite},
    template::{self, Filled, Reason},
};
use crate::{
    dns::{
        cache::{Kind, rotate},
        question::{Question, question_name, record_name},
        request::Transport,
    },
    wire::{Name, Query, Rcode, Rtype},
};

/// The rewrites, templates, hosts and the fixed answer of one zone.
#[derive(Debug)]
pub struct ZoneNames {
    pub config: Arc<ZoneConfig>,
    hosts: ArcSwap<Hosts>,
    /// Why the hosts file could not be read when it was last looked at.
    hosts_problem: ArcSwapOption<String>,
}

/// The answer of a zone to a question, as far as no upstream is needed.
#[derive(Debug)]
pub enum OnNode {
    /// Records of hosts or of a template.
    Records {
        kind: Kind,
        answers: Vec<Record>,
        authorities: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// A code, and why if a template says so.
    Fixed(FixedAnswer, Option<Reason>),
    Upstreams,
}

impl ZoneNames {
    /// A hosts file that cannot be read now is read as soon as it can.
    pub fn new(config: Arc<ZoneConfig>) -> Self {
        let mut problem = None;
        let hosts = read_hosts(&config).unwrap_or_else(|error| {
            problem = Some(Arc::new(error.to_string()));
            let path = config.hosts_file.as_deref().unwrap_or(Path::new("")).display();
            warn!(zone = %config.zone, %path, %error, "cannot read the hosts file: its names are not answered until it can be read");
            Hosts::new(&config.hosts, None, config.hosts_reverse).unwrap_or_default()
        });
        Self { config, hosts: ArcSwap::from_pointee(hosts), hosts_problem: ArcSwapOption::from(problem) }
    }

    /// The question that is asked in place of this one, if a rule fits it.
    pub fn rewrite(&self, question: &Question) -> Option<Rewritten<'_>> {
        rewrite(&self.config.rewrites, &question.record_name(), question.record_type())
    }

    /// The zone of `rewrite_zones` that answers a rewritten name; `None` if that is the zone the name is in.
    pub fn answering(&self, new: &Name) -> Option<Name> {
        let zones = &self.config.rewrite_zones;
        let new = record_name(new);
        let longest = zones.iter().filter(|zone| zone.zone_of(&new)).max_by_key(|zone| zone.num_labels());
        (!zones.is_empty()).then(|| question_name(longest.unwrap_or(&self.config.zone)))
    }

    pub fn on_node(&self, question: &Question, client: Option<IpAddr>) -> OnNode {
        let config = &self.config;
        if !config.templates.is_empty() {
            let rtype = RecordType::from(question.rtype.0);
            let filled = template::answer(&config.templates, &config.zone, &question.record_name(), rtype, client);
            if let Some(Filled { rcode, mut answers, mut authorities, mut additionals, reason }) = filled {
                let bare = answers.is_empty() && authorities.is_empty() && reason.is_some();
                let kind = match rcode {
                    Rcode::NXDOMAIN if bare => return OnNode::Fixed(FixedAnswer::NxDomain, reason),
                    Rcode::NOERROR if bare => return OnNode::Fixed(FixedAnswer::NoError, reason),
                    Rcode::NXDOMAIN => Kind::NxDomain,
                    Rcode::NOERROR if answers.is_empty() => Kind::NoData,
                    Rcode::NOERROR => Kind::Data,
                    Rcode::REFUSED => return OnNode::Fixed(FixedAnswer::Refused, reason),
                    _ => return OnNode::Fixed(FixedAnswer::ServFail, reason),
                };
                // CoreDNS's cache stands before its templates.
                if config.lifetimes.keep {
                    let records = answers.iter_mut().chain(&mut authorities).chain(&mut additionals);
                    records.for_each(|record| record.ttl = config.lifetimes.capped(kind, record.ttl));
                }
                return OnNode::Records { kind, answers, authorities, additionals };
            }
        }
        let ttl = u32::try_from(config.hosts_ttl.as_secs()).unwrap_or(u32::MAX);
        if let Some((kind, answers)) = self.hosts.load().find(question, ttl) {
            return OnNode::Records { kind, answers, authorities: Vec::new(), additionals: Vec::new() };
        }
        config.answer.map_or(OnNode::Upstreams, |answer| OnNode::Fixed(answer, None))
    }

    /// Whether the question's answer is in the cache under its own name, if it is anywhere.
    #[inline]
    pub fn is_plain(&self, question: Question<&Name>) -> bool {
        self.config.answer.is_none()
            && !self.config.lifetimes.keep_ttl
            && self.config.rewrites.is_empty()
            && self.config.acl.is_empty()
            && !(self.config.minimal_any && question.rtype == Rtype::ANY)
            && !self.config.templates.iter().any(|template| template.is_for(RecordType::from(question.rtype.0)))
            && (self.config.dns64.is_none() || question.rtype != Rtype::AAAA)
            && !self.hosts.load().holds(question.name, question.rtype)
    }

    /// Writes an answer of this zone with `write` as this client gets it: within the zone's bound, and with its records turned.
    #[inline]
    pub fn written(
        &self,
        query: &Query<'_>,
        transport: Transport,
        out: &mut [u8],
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let config = &self.config;
        let limit = if transport == Transport::Udp { config.udp_bytes_max.min(out.len()) } else { out.len() };
        let length = write(&mut out[..limit]);
        if config.rotate {
            rotate(&mut out[..length], query.id);
        }
        length
    }

    /// The hosts file and why it could not be read when it was last looked at.
    pub fn hosts_problem(&self) -> Option<String> {
        let (path, problem) = (self.config.hosts_file.as_deref()?, self.hosts_problem.load_full()?);
        Some(format!("{}: {problem}", path.display()))
    }

    /// Reads the hosts file again.
    ///
    /// # Errors
    /// If it cannot be read; the hosts stay as they were.
    pub fn reread_hosts(&self) -> io::Result<()> {
        let hosts = read_hosts(&self.config);
        self.hosts_problem.store(hosts.as_ref().err().map(|error| Arc::new(error.to_string())));
        self.hosts.store(Arc::new(hosts?));
        Ok(())
    }
}

fn read_hosts(config: &ZoneConfig) -> io::Result<Hosts> {
    Hosts::new(&config.hosts, config.hosts_file.as_deref(), config.hosts_reverse)
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
        zones.insert(&question_name(&zone.zone), ZoneNames::new(Arc::new(zone.clone())));
    }
    zones
}
