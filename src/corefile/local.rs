//! Directives that answer or refuse before an upstream is asked: `hosts`, `dns64`, `acl`.

use std::{net::IpAddr, time::Duration};

use super::{
    Directive,
    findings::Findings,
    words::{self, shown, text},
};
use crate::{
    config::Shown,
    dns::forward::{Acl as AccessRule, words as phrase},
};

const HOSTS_FILE: &str = "/etc/hosts";
/// TTL of hosts in CoreDNS, in seconds.
const HOSTS_TTL: u64 = 3_600;
const WELL_KNOWN_PREFIX: &str = "64:ff9b::/96";

#[derive(Clone, Debug)]
pub(super) struct Hosts {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    /// The zones in which names it does not know go on to the next directive; the root for all.
    pub fallthrough: Vec<String>,
    /// In seconds.
    ttl: u64,
    /// Settings of the forward zone.
    fields: Vec<(&'static str, Shown)>,
}

impl Hosts {
    /// Its settings, where a cache in front of it keeps answers for `ttl_max` seconds.
    pub fn fields(&self, ttl_max: Option<u64>) -> impl Iterator<Item = (&'static str, Shown)> {
        let ttl = ttl_max.map_or(self.ttl, |most| self.ttl.min(most));
        let ttl = shown(Duration::from_secs(ttl), Duration::from_secs(86_400));
        self.fields.iter().cloned().chain([("hosts_ttl", ttl)])
    }
}

pub(super) fn hosts(directive: &Directive, found: &mut Findings) -> Hosts {
    let (file, zones) = match directive.args.as_slice() {
        [] => (HOSTS_FILE.to_owned(), &[][..]),
        [file, zones @ ..] => (file.text.clone(), zones),
    };
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut hosts = Hosts { zones, fallthrough: Vec::new(), ttl: HOSTS_TTL, fields: vec![("hosts_file", text(file))] };
    let mut lines = Vec::new();
    for property in &directive.properties {
        match property.name.text.as_str() {
            "fallthrough" if property.args.is_empty() => hosts.fallthrough.push(".".into()),
            "fallthrough" => {
                for token in &property.args {
                    hosts.fallthrough.extend(found.take(words::zones(token)).unwrap_or_default());
                }
            }
            "ttl" => {
                if let Some(seconds) = found.one(property).and_then(|token| found.take(words::number(token))) {
                    hosts.ttl = seconds;
                }
            }
            "no_reverse" => hosts.fields.push(("hosts_reverse", text(false))),
            "reload" => {
                if found.one(property).and_then(|token| found.take(words::duration(token))).is_some() {
                    found.met(directive, property, "the file is read again within 2 s of a change");
                }
            }
            word if !property.args.is_empty() && address(word).is_some() => {
                let address = address(word).unwrap_or(word);
                let names: Vec<&str> = property.args.iter().map(|token| token.text.as_str()).collect();
                lines.push(text(format!("{address} {}", names.join(" "))));
            }
            _ => found.unknown(directive, property),
        }
    }
    if !lines.is_empty() {
        hosts.fields.push(("hosts", Shown::List(lines)));
    }
    hosts
}

/// The address of a hosts line, without its scope, as CoreDNS reads it.
fn address(word: &str) -> Option<&str> {
    let bare = word.split('%').next().unwrap_or(word);
    bare.parse::<IpAddr>().is_ok().then_some(bare)
}

/// Reads `dns64 [PREFIX]` as settings of the forward zone.
pub(super) fn dns64(directive: &Directive, found: &mut Findings) -> Vec<(&'static str, Shown)> {
    let mut prefix = directive.args.first();
    let (mut over_ipv4, mut all) = (false, false);
    for property in &directive.properties {
        match property.name.text.as_str() {
            "prefix" => prefix = found.one(property).or(prefix),
            "allow_ipv4" => over_ipv4 = true,
            "translate_all" => all = true,
            _ => found.unknown(directive, property),
        }
    }
    let mut fields = vec![("dns64", text(prefix.map_or(WELL_KNOWN_PREFIX, |token| &token.text)))];
    if let Some(token) = prefix
        && let Err(message) = token.text.parse::<crate::dns::forward::Prefix>()
    {
        found.error(token.at, message);
    }
    fields.extend(all.then(|| ("dns64_all", text(true))));
    fields.extend((!over_ipv4).then(|| ("dns64_over_ipv4", text(false))));
    fields
}

/// The rules of one `acl`.
#[derive(Clone, Debug)]
pub(super) struct Acl {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    rules: Vec<String>,
}

impl Acl {
    /// As holdfast writes it, for the forward zone `zone`.
    pub fn texts(&self) -> impl Iterator<Item = Shown> {
        self.rules.iter().map(text)
    }
}

/// Reads `acl [ZONES…]`.
pub(super) fn acl(directive: &Directive, found: &mut Findings) -> Acl {
    let zones = directive.args.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut acl = Acl { zones, rules: Vec::new() };
    for property in &directive.properties {
        let action = property.name.text.to_ascii_lowercase();
        let mut words = vec![action.as_str()];
        let mut any = false;
        for token in &property.args {
            match token.text.as_str() {
                // All types or all networks, which need not be said.
                "*" => any = true,
                word if word.eq_ignore_ascii_case("type") || word.eq_ignore_ascii_case("net") => {
                    any = false;
                    words.push(word);
                }
                word if !any => words.push(word),
                _ => {}
            }
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let lower = |word: &String| match word.to_ascii_lowercase() {
            keyword if keyword == "type" || keyword == "net" => keyword,
            _ => word.clone(),
        };
        let said = phrase::join(words.iter().map(lower).collect::<Vec<_>>().iter().map(String::as_str));
        match said.parse::<AccessRule>() {
            Ok(rule) => acl.rules.push(rule.to_string()),
            Err(message) => found.error(property.name.at, format!("acl: {message}")),
        }
    }
    acl
}
