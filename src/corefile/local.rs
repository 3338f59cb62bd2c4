//! What is answered or renamed before anybody is asked: `hosts`, `rewrite`, `template`, `dns64`.

use std::{net::IpAddr, time::Duration};

use super::{
    Directive, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::config::Shown;

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
    /// Settings of the forward zone.
    pub fields: Vec<(&'static str, Shown)>,
}

pub(super) fn hosts(directive: &Directive, found: &mut Findings) -> Hosts {
    let (file, zones) = match directive.args.as_slice() {
        [] => (HOSTS_FILE.to_owned(), &[][..]),
        [file, zones @ ..] => (file.text.clone(), zones),
    };
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut hosts = Hosts { zones, fallthrough: Vec::new(), fields: vec![("hosts_file", text(file))] };
    let (mut lines, mut ttl) = (Vec::new(), HOSTS_TTL);
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
                    ttl = seconds;
                }
            }
            "no_reverse" => {
                found.note(property.name.at, "hosts no_reverse", Weight::Answers, "reverse names are answered as well");
            }
            "reload" => found.manner(directive, property, "the file is looked at every 2 s"),
            word if !property.args.is_empty() && address(word).is_some() => {
                let address = address(word).unwrap_or(word);
                let names: Vec<&str> = property.args.iter().map(|token| token.text.as_str()).collect();
                lines.push(text(format!("{address} {}", names.join(" "))));
            }
            _ => found.unknown(directive, property),
        }
    }
    hosts.fields.push(("hosts_ttl", shown(Duration::from_secs(ttl), Duration::from_secs(86_400))));
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

/// Reads `rewrite [continue|stop] name [exact|suffix] FROM TO`, as holdfast writes it. Others are not honoured.
pub(super) fn rewrite(directive: &Directive, found: &mut Findings) -> Option<Shown> {
    // Braces are another way to break the line.
    let options =
        directive.properties.iter().flat_map(|property| std::iter::once(&property.name).chain(&property.args));
    let mut words: Vec<&str> = directive.args.iter().chain(options).map(|token| token.text.as_str()).collect();
    if let Some(&mode @ ("continue" | "stop")) = words.first() {
        if mode == "continue" {
            let said = "the first rule that fits is the only one";
            found.note(directive.name.at, "rewrite continue", Weight::Answers, said);
        }
        words.remove(0);
    }
    let (how, from, to) = match words[..] {
        // Answers are given the name that was asked for, which is what `answer auto` asks for.
        ["name", from, to] | ["name", "exact", from, to] | ["name", "exact", from, to, "answer", "auto"] => {
            ("exact", from, to)
        }
        ["name", "suffix", from, to] | ["name", "suffix", from, to, "answer", "auto"] => ("suffix", from, to),
        [] => {
            found.error(directive.name.at, "rewrite takes what to rewrite, such as `name suffix OLD NEW`");
            return None;
        }
        _ => {
            let said = "only `name exact` and `name suffix` are rewritten: this rule is left out";
            let name = format!("rewrite {}", words.iter().take(2).copied().collect::<Vec<_>>().join(" "));
            found.note(directive.name.at, name, Weight::Answers, said);
            return None;
        }
    };
    let zone = |word: &str| words::zone(word.strip_prefix('.').filter(|rest| !rest.is_empty()).unwrap_or(word));
    let (Some(from), Some(to)) = (zone(from), zone(to)) else {
        found.error(directive.name.at, format!("rewrite: {from:?} and {to:?} are not both names"));
        return None;
    };
    Some(text(format!("{how} {from} {to}")))
}

/// One `template` that gives the same answer to everything.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    /// The answer, as holdfast writes it.
    pub answer: &'static str,
}

/// Reads `template CLASS TYPE [ZONES…]`. One that makes a code and nothing else for everything is honoured, others are not.
pub(super) fn template(directive: &Directive, found: &mut Findings) -> Option<Template> {
    let [class, kind, zones @ ..] = directive.args.as_slice() else {
        found.error(directive.name.at, "template takes a class, a type and zones");
        return None;
    };
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let everything = matches!(class.text.as_str(), "ANY" | "IN") && kind.text == "ANY";
    let mut answer = "noerror";
    let mut plain = everything;
    for property in &directive.properties {
        match (property.name.text.as_str(), property.args.as_slice()) {
            ("rcode", [code]) => match code.text.to_ascii_uppercase().as_str() {
                "NXDOMAIN" => answer = "nxdomain",
                "NOERROR" => answer = "noerror",
                "REFUSED" => answer = "refused",
                "SERVFAIL" => answer = "servfail",
                _ => plain = false,
            },
            ("match" | "answer" | "additional" | "authority" | "fallthrough" | "upstream" | "ederror", _) => {
                plain = false;
            }
            _ => {
                found.unknown(directive, property);
                return None;
            }
        }
    }
    if plain {
        return Some(Template { zones, answer });
    }
    let said = "templates are not filled in here: only one for all types that sets an rcode and nothing else is honoured, \
                and these names are asked of the zone's upstreams instead";
    found.note(directive.name.at, "template", Weight::Answers, said);
    None
}

/// Reads `dns64 [PREFIX]` and gives the prefix.
pub(super) fn dns64(directive: &Directive, found: &mut Findings) -> Option<String> {
    let mut prefix = directive.args.first();
    let mut over_ipv4 = false;
    for property in &directive.properties {
        match property.name.text.as_str() {
            "prefix" => prefix = found.one(property).or(prefix),
            "allow_ipv4" => over_ipv4 = true,
            "translate_all" => {
                let said = "names that have IPv6 addresses keep them";
                found.note(property.name.at, "dns64 translate_all", Weight::Answers, said);
            }
            _ => found.unknown(directive, property),
        }
    }
    if !over_ipv4 {
        let said = "clients that ask over IPv4 get made-up addresses as well";
        found.note(directive.name.at, "dns64", Weight::Answers, said);
    }
    let Some(token) = prefix else { return Some(WELL_KNOWN_PREFIX.into()) };
    match token.text.parse::<crate::dns::forward::Prefix>() {
        Ok(_) => Some(token.text.clone()),
        Err(message) => {
            found.error(token.at, message);
            None
        }
    }
}
