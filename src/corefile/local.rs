//! Directives that answer, rename or refuse before an upstream is asked: `hosts`, `rewrite`, `template`, `dns64`, `acl`.

use std::{net::IpAddr, time::Duration};

use super::{
    Directive, Weight,
    findings::Findings,
    words::{self, shown, text},
};
use crate::{
    config::Shown,
    dns::forward::{Acl as AccessRule, EdnsOption, Rewrite, Template as Filled, words as phrase},
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

/// Reads `rewrite [continue|stop] RULE`, on one line or in braces, as holdfast writes it. Rules for classes are not honoured.
pub(super) fn rewrite(directive: &Directive, found: &mut Findings) -> Option<Rewriting> {
    // Braces are another way to break the line.
    let options =
        directive.properties.iter().flat_map(|property| std::iter::once(&property.name).chain(&property.args));
    let words: Vec<&str> = directive.args.iter().chain(options).map(|token| token.text.as_str()).collect();
    let is = |word: &str, other: &str| word.eq_ignore_ascii_case(other);
    let (goes_on, words) = match words.as_slice() {
        [mode, rest @ ..] if is(mode, "continue") => (true, rest),
        [mode, rest @ ..] if is(mode, "stop") => (false, rest),
        all => (false, all),
    };
    let Some((field, rest)) = words.split_first() else {
        found.error(directive.name.at, "rewrite takes what to rewrite, such as `name suffix OLD NEW`");
        return None;
    };
    let rule = match field.to_ascii_lowercase().as_str() {
        "name" => name_rule(rest),
        "type" => type_rule(rest),
        "ttl" => ttl_rule(rest),
        "rcode" => rcode_rule(rest),
        "cname" => cname_rule(rest),
        "edns0" => match edns_option(rest) {
            Ok(option) => return Some(Rewriting::Option { option: text(option), last: !goes_on }),
            Err(left) => Err(left),
        },
        "class" => Err(Left::Out("questions of other classes than IN are refused".into())),
        _ => Err(Left::Wrong(format!("{field:?} is not name, type, class, edns0, ttl, rcode or cname"))),
    };
    let read = rule.and_then(|rule| {
        let words = goes_on.then_some("continue").into_iter().chain(rule.iter().map(String::as_str));
        phrase::join(words).parse::<Rewrite>().map_err(Left::Wrong)
    });
    match read {
        Ok(rule) => Some(Rewriting::Rule(text(rule))),
        Err(Left::Met(said)) => {
            found.note(directive.name.at, format!("rewrite {field}"), Weight::Met, said);
            None
        }
        Err(Left::Out(reason)) => {
            let said = format!("{reason}: this rule is left out");
            found.note(directive.name.at, format!("rewrite {field}"), Weight::Answers, said);
            None
        }
        Err(Left::Wrong(message)) => {
            found.error(directive.name.at, format!("rewrite: {message}"));
            None
        }
    }
}

/// A `rewrite` in holdfast's words.
pub(super) enum Rewriting {
    Rule(Shown),
    /// For questions to upstreams.
    Option {
        option: Shown,
        /// No rule behind it is reached.
        last: bool,
    },
}

/// Why a rule is none.
enum Left {
    /// There is nothing for it to do.
    Met(&'static str),
    Out(String),
    /// CoreDNS does not take it either.
    Wrong(String),
}

const HOW: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];

/// `[exact|prefix|suffix|substring|regex]` in front of `rest`: `exact` if it is not given and `rest` has `bare` words.
fn how<'w>(words: &'w [&'w str], bare: usize) -> Result<(&'static str, &'w [&'w str]), Left> {
    if words.len() <= bare {
        return Ok(("exact", words));
    }
    let how = HOW.into_iter().find(|how| words[0].eq_ignore_ascii_case(how));
    how.map(|how| (how, &words[1..]))
        .ok_or_else(|| Left::Wrong(format!("{:?} is not one of {}", words[0], HOW.join(", "))))
}

fn dotted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

/// `FROM TO` as a pattern and what takes its place. CoreDNS compares texts, not labels.
fn patterns(how: &str, from: &str, to: &str) -> (String, String) {
    let to = to.to_ascii_lowercase();
    let lower = from.to_ascii_lowercase();
    match how {
        "exact" => (format!("^{}$", escaped(&dotted(&lower))), dotted(&to)),
        "prefix" => (format!("^{}(.*)$", escaped(&lower)), format!("{to}{{1}}")),
        "suffix" => (format!("^(.*){}$", escaped(&dotted(&lower))), format!("{{1}}{}", dotted(&to))),
        "substring" => (format!("^(.*?){}(.*)$", escaped(&lower)), format!("{{1}}{to}{{2}}")),
        _ => (from.to_owned(), to),
    }
}

fn name_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let (how, rest) = match words {
        [first, _, "answer", ..] if !HOW.contains(first) => ("exact", words),
        _ => how(words, 2)?,
    };
    let [from, to, answers @ ..] = rest else {
        return Err(Left::Wrong("name takes a name and the one that is asked for in its place".into()));
    };
    let mut said: Vec<String> = if how == "exact" {
        vec!["exact".into(), from.to_ascii_lowercase(), to.to_ascii_lowercase()]
    } else {
        let (from, to) = patterns(how, from, to);
        vec!["regex".into(), from, to]
    };
    let auto = answer_auto(how, &from.to_ascii_lowercase(), &to.to_ascii_lowercase());
    let mut rest = answers;
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
            [word, ..] => return Err(Left::Out(format!("{word:?} is not known"))),
        };
    }
    Ok(said)
}

fn type_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let [from, to] = words else { return Err(Left::Wrong("type takes two types".into())) };
    Ok(vec!["type".into(), (*from).to_owned(), (*to).to_owned()])
}

/// The names that `how NAME` fits, as a pattern.
fn fitting(how: &str, name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match how {
        "exact" => format!("^{}$", escaped(&dotted(&lower))),
        "prefix" => format!("^{}", escaped(&lower)),
        "suffix" => format!("{}$", escaped(&dotted(&lower))),
        "substring" => escaped(&lower),
        _ => name.to_owned(),
    }
}

/// Reads `local|nsid|subnet set|append|replace|unset …`.
fn edns_option(words: &[&str]) -> Result<EdnsOption, Left> {
    let words: Vec<&str> = words.iter().copied().filter(|word| *word != "revert").collect();
    let [kind, action, data @ ..] = words.as_slice() else {
        return Err(Left::Wrong(
            "edns0 takes an option and what is done with it, such as `local set 0xffee 0x61`".into(),
        ));
    };
    if !["set", "append", "replace", "unset"].contains(action) {
        return Err(Left::Wrong(format!("{action:?} is not set, append, replace or unset")));
    }
    if ["replace", "unset"].contains(action) {
        return Err(Left::Met("no option of a client is passed on, so there is none to change"));
    }
    match (*kind, data) {
        ("nsid", []) => "3".parse().map_err(Left::Wrong),
        ("local", [_, value @ ("{client_port}" | "{protocol}" | "{server_ip}" | "{server_port}")]) => {
            Err(Left::Out(format!("{value} is not known where upstreams are asked")))
        }
        // Labels of other plugins.
        ("local", [_, value]) if value.starts_with('{') && value.contains('/') => {
            Err(Left::Out(format!("there is no label {value}")))
        }
        ("local", [code, value]) => format!("{code} {value}").parse().map_err(Left::Wrong),
        ("subnet", [v4, v6]) => format!("subnet {v4} {v6}").parse().map_err(Left::Wrong),
        _ => Err(Left::Wrong(format!("{kind} {action} {} is no option", data.join(" ")))),
    }
}

fn ttl_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let (how, rest) = how(words, 2)?;
    let [name, range] = rest else { return Err(Left::Wrong("ttl takes a name, and a TTL or a range of TTLs".into())) };
    Ok(vec!["ttl".into(), fitting(how, name), (*range).to_owned()])
}

fn rcode_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let (how, rest) = how(words, 3)?;
    let [name, from, to] = rest else { return Err(Left::Wrong("rcode takes a name, a code and another code".into())) };
    let code = |word: &str| {
        let named = words::rcode(word).or_else(|| words::rcode_of_number(word.parse().ok()?));
        let named = named.ok_or_else(|| Left::Wrong(format!("{word:?} is no code such as NXDOMAIN")))?;
        let given = ["NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL"].contains(&named);
        if given { Ok(named.to_ascii_lowercase()) } else { Err(Left::Out(format!("{named} is not given"))) }
    };
    Ok(vec!["rcode".into(), fitting(how, name), code(from)?, code(to)?])
}

fn cname_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let (how, rest) = how(words, 2)?;
    let [from, to] = rest else { return Err(Left::Wrong("cname takes a target and the one in its place".into())) };
    let (from, to) = patterns(how, from, to);
    Ok(vec!["cname".into(), from, to])
}

/// The rules that `answer auto` stands for: names of the answer, owners and in data, are given back as names asked for. The owner
/// asked for needs none.
fn answer_auto(how: &str, from: &str, to: &str) -> Vec<String> {
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
    let (mut said_why, mut has_records) = (None, false);
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
            ("match" | "answer" | "authority" | "additional", values) => {
                plain = false;
                has_records |= option != "match";
                template.options.extend(values.iter().flat_map(|value| [option.to_owned(), value.text.clone()]));
            }
            ("fallthrough", []) => template.fallthrough.push(".".into()),
            ("fallthrough", zones) => {
                for token in zones {
                    template.fallthrough.extend(found.take(words::zones(token)).unwrap_or_default());
                }
            }
            ("ederror", [number, reason @ ..]) if reason.len() <= 1 => {
                let reason = reason.first().map(|token| token.text.clone()).unwrap_or_default();
                if found.take(words::number(number)).is_some() {
                    template.options.extend(["ederror".to_owned(), number.text.clone(), reason]);
                    said_why = Some(property);
                }
            }
            ("ederror", _) => found.error(property.name.at, "ederror takes a number, and a text if need be"),
            ("expr" | "var", _) => {
                return left_out(directive, &format!("{option} is not worked out"), found);
            }
            ("upstream", _) => {}
            _ => found.unknown(directive, property),
        }
    }
    if let Some(property) = said_why {
        plain = false;
        if has_records {
            found.manner(directive, property, "answers with records carry no extended error");
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
        let action = match property.name.text.to_ascii_lowercase().as_str() {
            "drop" => {
                found.manner(directive, property, "clients are told REFUSED, and do not wait for an answer");
                "block".to_owned()
            }
            other => other.to_owned(),
        };
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
