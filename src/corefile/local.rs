//! Directives that answer or rename before an upstream is asked: `hosts`, `rewrite`, `template`, `dns64`.

use std::{net::IpAddr, time::Duration};

use super::{
    Directive, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::{
    config::Shown,
    dns::forward::{Rewrite, Template as Filled, words as phrase},
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
            "no_reverse" => hosts.fields.push(("hosts_reverse", text(false))),
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

/// Reads `rewrite [continue|stop] name [exact|prefix|suffix|substring|regex] FROM TO [answer …]…`, on one line or in braces, as
/// holdfast writes it. Rules for other things than names are not honoured.
pub(super) fn rewrite(directive: &Directive, found: &mut Findings) -> Option<Shown> {
    // Braces are another way to break the line.
    let options =
        directive.properties.iter().flat_map(|property| std::iter::once(&property.name).chain(&property.args));
    let words: Vec<&str> = directive.args.iter().chain(options).map(|token| token.text.as_str()).collect();
    let (goes_on, words) = match words.as_slice() {
        ["continue", rest @ ..] => (true, rest),
        ["stop", rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (how, from, to, rest) = match words {
        ["name", how @ ("exact" | "prefix" | "suffix" | "substring" | "regex"), from, to, rest @ ..] => {
            (*how, *from, *to, rest)
        }
        ["name", from, to, rest @ ..] => ("exact", *from, *to, rest),
        [] | ["name", ..] => {
            found.error(directive.name.at, "rewrite takes what to rewrite, such as `name suffix OLD NEW`");
            return None;
        }
        [field, ..] => {
            let said = "only names are rewritten: this rule is left out";
            found.note(directive.name.at, format!("rewrite {field}"), Weight::Answers, said);
            return None;
        }
    };
    let (from, to) = if how == "regex" {
        (from.to_owned(), to.to_ascii_lowercase())
    } else {
        (from.to_ascii_lowercase(), to.to_ascii_lowercase())
    };
    let dotted = |name: &str| if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
    let auto = answer_auto(how, &from, &to);
    let mut said: Vec<String> = if goes_on { vec!["continue".into()] } else { Vec::new() };
    said.extend(match how {
        "exact" => ["exact".into(), from, to],
        "prefix" => ["regex".into(), format!("^{}(.*)$", escaped(&from)), format!("{to}{{1}}")],
        // CoreDNS compares the ends of texts, not labels.
        "suffix" => ["regex".into(), format!("^(.*){}$", escaped(&dotted(&from))), format!("{{1}}{}", dotted(&to))],
        "substring" => ["regex".into(), format!("^(.*?){}(.*)$", escaped(&from)), format!("{{1}}{to}{{2}}")],
        _ => ["regex".into(), from, to],
    });
    let mut rest = rest;
    loop {
        rest = match rest {
            [] => break,
            ["answer", "auto", rest @ ..] => {
                said.extend(auto.iter().cloned());
                rest
            }
            ["answer", kind @ ("name" | "value"), pattern, to, rest @ ..] => {
                said.extend(["answer", kind, pattern].map(str::to_owned));
                said.push(to.to_ascii_lowercase());
                rest
            }
            ["answer", pattern, to, rest @ ..] => {
                said.extend(["answer", "name", pattern].map(str::to_owned));
                said.push(to.to_ascii_lowercase());
                rest
            }
            [word, ..] => {
                let said = format!("{word:?} is not known: this rule is left out");
                found.note(directive.name.at, "rewrite name", Weight::Answers, said);
                return None;
            }
        };
    }
    match phrase::join(said.iter().map(String::as_str)).parse::<Rewrite>() {
        Ok(rule) => Some(text(rule)),
        Err(message) => {
            found.error(directive.name.at, format!("rewrite: {message}"));
            None
        }
    }
}

/// The rules that `answer auto` stands for: names of the answer, owners and in data, are given back as names asked for. The owner
/// asked for needs none.
fn answer_auto(how: &str, from: &str, to: &str) -> Vec<String> {
    let dotted = |name: &str| if name.ends_with('.') { name.to_owned() } else { format!("{name}.") };
    let (pattern, back) = match how {
        "exact" => (format!("^(|.*\\.){}$", escaped(&dotted(to))), format!("{{1}}{}", dotted(from))),
        "suffix" => (format!("^(.*){}$", escaped(&dotted(to))), format!("{{1}}{}", dotted(from))),
        "prefix" => (format!("^{}(.*)$", escaped(to)), format!("{from}{{1}}")),
        // These have no way back that holds for other names.
        _ => return Vec::new(),
    };
    let rule = |kind: &str| ["answer".to_owned(), kind.to_owned(), pattern.clone(), back.clone()];
    [rule("name"), rule("value")].concat()
}

/// A regular expression that fits this text alone.
fn escaped(text: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || matches!(char, '-' | '_');
    text.chars().flat_map(|char| (!plain(char)).then_some('\\').into_iter().chain([char])).collect()
}

#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The zones it is for; none for all of the block.
    pub zones: Vec<String>,
    /// The answer to everything, if it is a code and nothing else.
    pub answer: Option<&'static str>,
    rtype: String,
    options: Vec<String>,
    /// The zones in which names that no pattern fits go on to the next directive; the root for all.
    fallthrough: Vec<String>,
}

impl Template {
    /// As holdfast writes it, for the forward zone `zone`.
    pub fn text(&self, zone: &str) -> String {
        let mut said = vec![self.rtype.as_str()];
        let own = self.zones.iter().filter(|own| words::holds(own, zone)).max_by_key(|own| own.len());
        if let Some(own) = own.filter(|own| *own != zone) {
            said.extend(["zone", own]);
        }
        said.extend(self.options.iter().map(String::as_str));
        if self.fallthrough.iter().any(|outer| words::holds(outer, zone)) {
            said.push("fallthrough");
        }
        phrase::join(said)
    }
}

/// Reads `template CLASS TYPE [ZONES…]`.
pub(super) fn template(directive: &Directive, found: &mut Findings) -> Option<Template> {
    let [class, rtype, zones @ ..] = directive.args.as_slice() else {
        found.error(directive.name.at, "template takes a class, a type and zones");
        return None;
    };
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut template = Template {
        zones,
        answer: Some("noerror"),
        rtype: rtype.text.to_ascii_uppercase(),
        options: Vec::new(),
        fallthrough: Vec::new(),
    };
    let mut code = "noerror";
    let mut plain = template.rtype == "ANY";
    for property in &directive.properties {
        let option = property.name.text.as_str();
        match (option, property.args.as_slice()) {
            ("rcode", [value]) => {
                let known = ["noerror", "nxdomain", "refused", "servfail"];
                match known.iter().find(|known| value.text.eq_ignore_ascii_case(known)) {
                    Some(known) => code = known,
                    None => return left_out(directive, &format!("rcode {} is not given", value.text), found),
                }
            }
            ("match" | "answer" | "authority", values) => {
                plain = false;
                template.options.extend(values.iter().flat_map(|value| [option.to_owned(), value.text.clone()]));
            }
            ("fallthrough", []) => template.fallthrough.push(".".into()),
            ("fallthrough", zones) => {
                for token in zones {
                    template.fallthrough.extend(found.take(words::zones(token)).unwrap_or_default());
                }
            }
            ("additional", _) => {
                let said = "records in the additional section are left out";
                found.note(property.name.at, "template additional", Weight::Answers, said);
            }
            ("ederror", _) => found.manner(directive, property, "no extended error is added"),
            ("upstream", _) => {}
            _ => found.unknown(directive, property),
        }
    }
    if !matches!(class.text.to_ascii_uppercase().as_str(), "ANY" | "IN") {
        found.note(directive.name.at, "template", Weight::Manner, "questions of other classes than IN are refused");
        return None;
    }
    if code != "noerror" {
        template.options.extend(["rcode".to_owned(), code.to_ascii_uppercase()]);
    }
    template.answer = plain.then_some(code);
    match template.text(".").parse::<Filled>() {
        Ok(_) => Some(template),
        Err(message) => left_out(directive, &message, found),
    }
}

fn left_out(directive: &Directive, reason: &str, found: &mut Findings) -> Option<Template> {
    let said = format!("{reason}: this template is left out");
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
