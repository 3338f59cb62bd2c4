//! Names that a forward zone answers or renames on the node, in the order of CoreDNS's plugins: rewrites, templates, hosts,
//! a fixed answer.
//!
//! Never asks an upstream.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::rr::{Record, RecordType};
use tracing::warn;

use super::{
    Config, ZoneConfig,
    hosts::Hosts,
    rewrite::{Rewritten, What, rewrite},
    template::{self, Filled, Reason},
    weights::Weights,
};
use crate::{
    dns::{
        cache::{Kind, lead, prefer, rotate},
        question::{Question, question_name, record_name},
        request::{Asker, Transport},
    },
    report::ZoneRule,
    wire::{Class, Name, Query, Rcode, Rtype},
};

/// The rewrites, templates, hosts and the fixed answer of one zone.
#[derive(Debug)]
pub struct ZoneNames {
    pub config: Arc<ZoneConfig>,
    hosts: ArcSwap<Hosts>,
    /// Why the hosts file could not be read when it was last looked at.
    hosts_problem: ArcSwapOption<String>,
    weights: ArcSwap<Weights>,
    /// Why the file of weights could not be read when it was last looked at.
    weights_problem: ArcSwapOption<String>,
}

/// The answer of a zone to a question, as far as no upstream is needed.
#[derive(Debug)]
pub enum OnNode {
    Records {
        rule: ZoneRule,
        kind: Kind,
        answers: Vec<Record>,
        authorities: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// A code, and why if a template says so.
    Fixed(ZoneRule, Rcode, Option<Reason>),
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
        let this = Self {
            config,
            hosts: ArcSwap::from_pointee(hosts),
            hosts_problem: ArcSwapOption::from(problem),
            weights: ArcSwap::default(),
            weights_problem: ArcSwapOption::default(),
        };
        if let Some(path) = &this.config.weights_file
            && let Err(error) = this.reread_weights()
        {
            let (zone, path) = (&this.config.zone, path.display());
            warn!(%zone, %path, %error, "cannot read the file of weights: every address weighs the same until it can be read");
        }
        this
    }

    /// The question that is asked in place of this one, if a rule fits it.
    pub fn rewrite(&self, question: &Question) -> Option<Rewritten<'_>> {
        rewrite(&self.config.rewrites, question)
    }

    /// The zone of `rewrite_zones` that answers a rewritten name; `None` if that is the zone the name is in.
    pub fn answering(&self, new: &Name) -> Option<Name> {
        let zones = &self.config.rewrite_zones;
        let new = record_name(new);
        let longest = zones.iter().filter(|zone| zone.zone_of(&new)).max_by_key(|zone| zone.num_labels());
        (!zones.is_empty()).then(|| question_name(longest.unwrap_or(&self.config.zone)))
    }

    pub fn on_node(&self, question: &Question, asker: Option<&Asker>) -> OnNode {
        let config = &self.config;
        if !config.templates.is_empty() {
            let filled = template::answer(&config.templates, &config.zone, question, asker);
            if let Some(Filled { rcode, mut answers, mut authorities, mut additionals, reason }) = filled {
                let bare = answers.is_empty() && authorities.is_empty() && reason.is_some();
                let rule = ZoneRule::Template;
                let kind = match rcode {
                    _ if bare => return OnNode::Fixed(rule, rcode, reason),
                    Rcode::NXDOMAIN => Kind::NxDomain,
                    Rcode::NOERROR if answers.is_empty() => Kind::NoData,
                    Rcode::NOERROR => Kind::Data,
                    _ => return OnNode::Fixed(rule, rcode, reason),
                };
                // CoreDNS's cache stands before its templates.
                if config.lifetimes.keep {
                    let records = answers.iter_mut().chain(&mut authorities).chain(&mut additionals);
                    records.for_each(|record| record.ttl = config.lifetimes.capped(kind, record.ttl));
                }
                return OnNode::Records { rule, kind, answers, authorities, additionals };
            }
        }
        let ttl = u32::try_from(config.hosts_ttl.as_secs()).unwrap_or(u32::MAX);
        if question.class == Class::IN
            && let Some((kind, answers)) = self.hosts.load().find(question, ttl)
        {
            let (authorities, additionals) = (Vec::new(), Vec::new());
            return OnNode::Records { rule: ZoneRule::Hosts, kind, answers, authorities, additionals };
        }
        config.answer.map_or(OnNode::Upstreams, |answer| OnNode::Fixed(ZoneRule::Answer, answer.rcode(), None))
    }

    /// Whether a rule is about questions of another class than IN.
    pub fn has_classes(&self) -> bool {
        let config = &self.config;
        config.rewrites.iter().any(|rule| matches!(rule.what, What::Class { .. }))
            || config.templates.iter().any(|template| template.class.is_some_and(|class| class != Class::IN))
    }

    /// Whether a rule makes questions of this class for upstreams.
    pub fn asks_of_class(&self, class: Class) -> bool {
        self.config.rewrites.iter().any(|rule| matches!(rule.what, What::Class { to, .. } if to == class))
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

    /// Writes an answer of this zone with `write`, within the zone's bound, and arranges its records.
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
        if self.arranges() {
            self.arrange(&mut out[..length], query.id);
        }
        length
    }

    /// Whether the order of addresses is the zone's.
    #[inline]
    pub fn arranges(&self) -> bool {
        self.config.rotate || self.config.weights_file.is_some() || !self.config.prefer.is_empty()
    }

    fn arrange(&self, message: &mut [u8], turn: u16) {
        let config = &self.config;
        if config.rotate {
            rotate(message, turn);
        }
        if config.weights_file.is_some() {
            let weights = self.weights.load();
            lead(message, |name, address| weights.of(name, address), rand::random());
        }
        if !config.prefer.is_empty() {
            prefer(message, &config.prefer);
        }
    }

    /// The hosts file and why it could not be read when it was last looked at.
    pub fn hosts_problem(&self) -> Option<String> {
        let (path, problem) = (self.config.hosts_file.as_deref()?, self.hosts_problem.load_full()?);
        Some(format!("{}: {problem}", path.display()))
    }

    /// The file of weights and why it could not be read when it was last looked at.
    pub fn weights_problem(&self) -> Option<String> {
        let (path, problem) = (self.config.weights_file.as_deref()?, self.weights_problem.load_full()?);
        Some(format!("{}: {problem}", path.display()))
    }

    /// Reads the file of weights again.
    ///
    /// # Errors
    /// If it cannot be read or is wrong; the weights stay as they were.
    pub fn reread_weights(&self) -> io::Result<()> {
        let Some(path) = &self.config.weights_file else { return Ok(()) };
        let weights = Weights::read(path);
        self.weights_problem.store(weights.as_ref().err().map(|error| Arc::new(error.to_string())));
        self.weights.store(Arc::new(weights?));
        Ok(())
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
