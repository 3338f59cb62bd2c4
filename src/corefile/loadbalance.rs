//! `loadbalance`: which record of an answer comes first.

use ipnet::IpNet;

use super::{
    Directive, Weight,
    findings::Findings,
    words::{self, text},
};
use crate::config::Shown;

/// Reads `loadbalance [round_robin|weighted FILE]` as settings of the forward zone.
pub(super) fn read(directive: &Directive, found: &mut Findings) -> Vec<(&'static str, Shown)> {
    let words: Vec<&str> = directive.args.iter().map(|token| token.text.as_str()).collect();
    let weighted = words.first() == Some(&"weighted");
    let mut fields = match words.as_slice() {
        [] | ["round_robin"] => vec![("rotate", text(true))],
        ["weighted", file] => vec![("weights_file", text(file))],
        ["weighted", ..] => {
            found.error(directive.name.at, "loadbalance weighted takes one file of weights");
            return Vec::new();
        }
        _ => {
            let said = format!("{:?} is neither round_robin nor weighted with a file", words.join(" "));
            found.error(directive.name.at, said);
            return Vec::new();
        }
    };
    let mut networks = Vec::new();
    for property in &directive.properties {
        match property.name.text.as_str() {
            "prefer" if !weighted => {
                for token in &property.args {
                    match token.text.parse::<IpNet>() {
                        Ok(network) => networks.push(text(network.trunc())),
                        Err(_) => {
                            found.error(token.at, format!("{:?} is not a network such as 10.0.0.0/8", token.text));
                        }
                    }
                }
            }
            "reload" if weighted => {
                if found.one(property).and_then(|token| found.take(words::duration(token))).is_some() {
                    found.met(directive, property, "the file is read again within 2 s of a change");
                }
            }
            "limit_answers" => {
                let said = "answers have all their records";
                found.note(property.name.at, "loadbalance limit_answers", Weight::Answers, said);
            }
            _ => found.unknown(directive, property),
        }
    }
    if !networks.is_empty() {
        fields.push(("prefer", Shown::List(networks)));
    }
    fields
}
