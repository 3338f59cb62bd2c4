//! `template`: answers made of text.

use super::{Directive, Token, Weight, findings::Findings, words};
use crate::{
    dns::forward::{FixedAnswer, NOT_WORKED_OUT, Template as Filled, rcodes, words as phrase},
    wire::Rcode,
};

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
pub(super) fn read(directive: &Directive, found: &mut Findings) -> Option<Template> {
    let [class, rtype, zones @ ..] = directive.args.as_slice() else {
        found.error(directive.name.at, "template takes a class, a type and zones");
        return None;
    };
    let zones = zones.iter().flat_map(|token| found.take(words::zones(token)).unwrap_or_default()).collect();
    let mut template = Template {
        zones,
        answer: None,
        rtype: rtype.text.to_ascii_uppercase(),
        options: Vec::new(),
        fallthrough: Vec::new(),
    };
    let mut code = Rcode::NOERROR;
    let mut plain = template.rtype == "ANY";
    let (mut said_why, mut has_records) = (None, false);
    for property in &directive.properties {
        let option = property.name.text.as_str();
        match (option, property.args.as_slice()) {
            ("rcode", [value]) => match rcodes::named(&value.text) {
                Some(known) => code = known,
                None => found.error(value.at, format!("{:?} is no code such as NXDOMAIN", value.text)),
            },
            ("match" | "answer" | "authority" | "additional" | "expr" | "var", []) => {
                found.error(property.name.at, format!("{option} takes a value"));
            }
            ("var", [name, expression @ ..]) => {
                plain = false;
                template.options.extend(["var".to_owned(), name.text.clone(), joined(expression)]);
            }
            ("expr", words) => {
                plain = false;
                template.options.extend(["expr".to_owned(), joined(words)]);
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
    match class.text.to_ascii_uppercase().as_str() {
        "ANY" | "IN" => {}
        other => {
            plain = false;
            template.options.splice(0..0, ["class".to_owned(), other.to_owned()]);
        }
    }
    if code != Rcode::NOERROR {
        template.options.extend(["rcode".to_owned(), rcodes::shown(code)]);
    }
    let fixed = FixedAnswer::ALL.into_iter().find(|answer| answer.rcode() == code);
    template.answer = fixed.filter(|_| plain).map(FixedAnswer::as_str);
    match template.text(".").parse::<Filled>() {
        Ok(_) => Some(template),
        Err(message) if message.ends_with(NOT_WORKED_OUT) => {
            let said = format!("{message}: this template is left out");
            found.note(directive.name.at, "template", Weight::Answers, said);
            None
        }
        Err(message) => {
            found.error(directive.name.at, format!("template: {message}"));
            None
        }
    }
}

/// Words as one text again.
fn joined(words: &[Token]) -> String {
    words.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")
}
