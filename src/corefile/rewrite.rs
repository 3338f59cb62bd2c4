//! `rewrite`: questions asked otherwise, and options of EDNS for upstreams.

use super::{Directive, Weight, findings::Findings, words::text};
use crate::{
    config::Shown,
    dns::forward::{EdnsOption, Rewrite, rcodes, words as phrase},
};

/// Reads `rewrite [continue|stop] RULE`, on one line or in braces, as holdfast writes it.
pub(super) fn read(directive: &Directive, found: &mut Findings) -> Option<Rewriting> {
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
            Ok(option) => return Some(Rewriting::Option { option: Some(text(option)), last: !goes_on }),
            Err(Left::Met(said)) => {
                found.note(directive.name.at, format!("rewrite {field}"), Weight::Met, said);
                // To take an option away that is not there counts as done.
                let last = !goes_on && rest.get(1).is_some_and(|action| is(action, "unset"));
                return Some(Rewriting::Option { option: None, last });
            }
            Err(left) => Err(left),
        },
        "class" => class_rule(rest),
        _ => Err(Left::Wrong(format!("{field:?} is not name, type, class, edns0, ttl, rcode or cname"))),
    };
    let read = rule.and_then(|rule| {
        let words = goes_on.then_some("continue").into_iter().chain(rule.iter().map(String::as_str));
        phrase::join(words).parse::<Rewrite>().map_err(Left::Wrong)
    });
    match read {
        Ok(rule) => Some(Rewriting::Rule(text(rule))),
        Err(Left::Out(reason)) => {
            let said = format!("{reason}: this rule is left out");
            found.note(directive.name.at, format!("rewrite {field}"), Weight::Answers, said);
            None
        }
        Err(Left::Wrong(message)) => {
            found.error(directive.name.at, format!("rewrite: {message}"));
            None
        }
        // Of edns0 alone.
        Err(Left::Met(_)) => None,
    }
}

/// A `rewrite` in holdfast's words.
pub(super) enum Rewriting {
    Rule(Shown),
    /// For questions to upstreams.
    Option {
        option: Option<Shown>,
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

fn class_rule(words: &[&str]) -> Result<Vec<String>, Left> {
    let [from, to] = words else { return Err(Left::Wrong("class takes two classes".into())) };
    Ok(vec!["class".into(), from.to_ascii_uppercase(), to.to_ascii_uppercase()])
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
    // Options of answers stay on the node: there is nothing to take back.
    let words = match words {
        [front @ .., "revert"] if !words.contains(&"unset") => front,
        all => all,
    };
    let [kind, action, data @ ..] = words else {
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
        let code = rcodes::read(word).ok_or_else(|| Left::Wrong(format!("{word:?} is no code such as NXDOMAIN")))?;
        Ok(rcodes::shown(code).to_ascii_lowercase())
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
