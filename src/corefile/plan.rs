//! A server block as forward zones: each zone that a directive names becomes a zone with the settings that hold for it.

use super::{
    cache::Cache,
    forward::{self, Forward},
    local::{Acl, Hosts},
    template::Template,
    words::{holds, text},
};
use crate::config::Shown;

/// The content of a block for its zones.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive of its own")]
pub(super) struct Content {
    pub forwards: Vec<Forward>,
    pub cache: Option<Cache>,
    pub hosts: Vec<Hosts>,
    pub rewrites: Vec<Shown>,
    /// Options of EDNS for upstreams.
    pub edns: Vec<Shown>,
    /// No further `rewrite` is reached.
    pub rewrites_end: bool,
    pub templates: Vec<Template>,
    pub acls: Vec<Acl>,
    /// ANY gets a minimal answer.
    pub any: bool,
    /// Which record of an answer comes first.
    pub order: Option<Vec<(&'static str, Shown)>>,
    /// Maximum bytes of answers over UDP.
    pub udp_bytes: Option<usize>,
    /// Settings of the forward zones.
    pub dns64: Vec<(&'static str, Shown)>,
    /// Every question is answered without records.
    pub whoami: bool,
    /// Some directive handles questions at all.
    pub handles: bool,
}

impl Content {
    /// The forward zones for `zone` of this block.
    pub fn zones(&self, zone: &str) -> Vec<(String, Shown)> {
        let mut zones = vec![zone];
        let spoken_of = (self.forwards.iter().flat_map(|forward| forward.except.iter().chain([&forward.from])))
            .chain(self.cache.iter().flat_map(|cache| &cache.zones))
            .chain(self.cache.iter().flat_map(|cache| cache.disabled.iter().flat_map(|(_, zones)| zones)))
            .chain(self.hosts.iter().flat_map(|hosts| hosts.zones.iter().chain(&hosts.fallthrough)))
            .chain(self.templates.iter().flat_map(|template| &template.zones))
            .chain(self.acls.iter().flat_map(|acl| &acl.zones));
        for inner in spoken_of {
            if holds(zone, inner) && !zones.contains(&inner.as_str()) {
                zones.push(inner);
            }
        }
        zones.iter().map(|zone| ((*zone).to_owned(), self.zone(zone, &zones))).collect()
    }

    /// The forward zone `zone`, one of `all` of the block.
    fn zone(&self, zone: &str, all: &[&str]) -> Shown {
        let mut fields = vec![("zone".to_owned(), text(zone))];
        let mut add = |name: &str, value: Shown| fields.push((name.to_owned(), value));
        let covers = |zones: &[String]| zones.is_empty() || zones.iter().any(|outer| holds(outer, zone));
        let within = |zones: &[String]| zones.iter().any(|outer| holds(outer, zone));
        let templates: Vec<&Template> = self.templates.iter().filter(|template| covers(&template.zones)).collect();
        // A code for everything in front of all others is the answer of the zone.
        let template = templates.first().filter(|template| template.answer.is_some());
        // A template comes before hosts, and hosts before forward.
        let hosts = if template.is_none() { self.hosts.iter().find(|hosts| covers(&hosts.zones)) } else { None };
        // CoreDNS has no SOA to give for hosts, and fails where a name is not among them.
        let last_word = hosts.filter(|hosts| !within(&hosts.fallthrough)).map(|_| "servfail");
        let cache = self.cache.as_ref().filter(|cache| covers(&cache.zones));
        let mut forwards =
            self.forwards.iter().filter(|forward| holds(&forward.from, zone) && !forward.leaves_out(zone));
        let forward = forwards.next();
        let nobody = match (self.whoami, self.handles) {
            (true, _) => "noerror",
            (false, true) => "servfail",
            (false, false) => "refused",
        };
        let answer = template.and_then(|template| template.answer).or(last_word);
        match (answer, forward) {
            (Some(answer), _) => add("answer", text(answer)),
            (None, None) => add("answer", text(nobody)),
            (None, Some(forward)) if forward.upstreams.is_empty() => add("answer", text("servfail")),
            (None, Some(forward)) => {
                add("upstreams", Shown::List(forward.upstreams.iter().map(text).collect()));
                forward.fields.iter().for_each(|(name, value)| add(name, value.clone()));
                if !self.edns.is_empty() {
                    add("edns", Shown::List(self.edns.clone()));
                }
                let next = forward::next(forward, forwards);
                if !next.is_empty() {
                    add("next", Shown::List(next));
                }
                match cache {
                    Some(cache) => {
                        cache.fields.iter().for_each(|(name, value)| add(name, value.clone()));
                        for (name, zones) in &cache.disabled {
                            if within(zones) {
                                add(name, text(false));
                            }
                        }
                    }
                    None => add("cache", text(false)),
                }
            }
        }
        if template.is_none() {
            self.dns64.iter().for_each(|(name, value)| add(name, value.clone()));
        }
        if let Some(hosts) = hosts {
            hosts.fields(cache.map(|cache| cache.success)).for_each(|(name, value)| add(name, value));
        }
        if template.is_none() && !templates.is_empty() {
            let texts = templates.iter().map(|template| text(template.text(zone))).collect();
            add("template", Shown::List(texts));
        }
        if !self.rewrites.is_empty() {
            add("rewrite", Shown::List(self.rewrites.clone()));
            add("rewrite_zones", Shown::List(all.iter().map(text).collect()));
        }
        let acl: Vec<Shown> = self.acls.iter().filter(|acl| covers(&acl.zones)).flat_map(Acl::texts).collect();
        if !acl.is_empty() {
            add("acl", Shown::List(acl));
        }
        if self.any {
            add("minimal_any", text(true));
        }
        self.order.iter().flatten().for_each(|(name, value)| add(name, value.clone()));
        if let Some(bytes) = self.udp_bytes {
            add("udp_bytes_max", text(bytes));
        }
        Shown::Map(fields)
    }
}
