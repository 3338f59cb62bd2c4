//! Answers made of text, as by CoreDNS's template plugin: for names that fit a pattern, records with parts of the name.
//!
//! Pure, and bounded in its work: a template that never ends has no answer.

mod eval;
mod expression;
mod filling;
mod functions;
mod lex;
mod parse;
mod value;

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use hickory_proto::rr::{Name, Record, RecordType};

pub use self::expression::NOT_WORKED_OUT;
use self::{
    expression::Expression,
    filling::Filling,
    parse::Parsed,
    value::{Failed, Result, Steps, Value},
};
use super::{
    classes::{class_name, class_named},
    pattern::{Pattern, spelled},
    rcodes, words,
};
use crate::{
    dns::{Question, request::Asker},
    wire::{Class, EdeCode, Rcode},
};

/// Pattern of a template without any (CoreDNS).
const EVERYTHING: &str = ".*";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The type it is for; `None` for all.
    pub rtype: Option<RecordType>,
    /// The class it is for; `None` for all.
    pub class: Option<Class>,
    /// A pattern must match the name; an empty list matches every name.
    pub patterns: Vec<Pattern>,
    /// The zone it is for, `.Zone` in texts; `None` for that of its `forward` entry.
    pub zone: Option<Name>,
    /// Worked out in turn; each knows those before.
    variables: Vec<(String, Expression)>,
    /// Each must be true, or else the name does not fit.
    conditions: Vec<Expression>,
    answers: Vec<Text>,
    authorities: Vec<Text>,
    additionals: Vec<Text>,
    pub rcode: Rcode,
    /// The extended error of the answer.
    pub reason: Option<Reason>,
    /// Names that no pattern fits go on to the next template; otherwise they get SERVFAIL.
    pub falls_through: bool,
}

/// An extended error (RFC 8914) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: EdeCode,
    pub text: Arc<str>,
}

/// A record as a Go template.
#[derive(Clone, Debug)]
struct Text {
    source: String,
    parsed: Parsed,
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Text {}

/// The answer of a template.
#[derive(Debug, PartialEq)]
pub struct Filled {
    pub rcode: Rcode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    pub reason: Option<Reason>,
}

impl Filled {
    fn failed(reason: Option<Failed>) -> Self {
        let reason =
            reason.map(|Failed(text)| Reason { code: EdeCode::OTHER, text: format!("template: {text}").into() });
        let [answers, authorities, additionals] = [Vec::new(), Vec::new(), Vec::new()];
        Self { rcode: Rcode::SERVFAIL, answers, authorities, additionals, reason }
    }
}

impl Template {
    /// Whether it may answer questions of this type.
    pub fn is_for(&self, rtype: RecordType) -> bool {
        self.rtype.is_none_or(|only| only == rtype || rtype == RecordType::ANY)
    }
}

/// The answer of the first template that is for this question, if one is. `zone` is the zone they stand in; without an `asker`,
/// as for the tools, its address reads `::`.
pub fn answer(templates: &[Template], zone: &Name, question: &Question, asker: Option<&Asker>) -> Option<Filled> {
    if templates.is_empty() {
        return None;
    }
    let (name, rtype) = (question.record_name(), question.record_type());
    let spelled = spelled(&name);
    let steps = Steps::default();
    for template in templates {
        let within = template.zone.as_ref().is_none_or(|zone| zone.zone_of(&name));
        if !within || !template.is_for(rtype) || template.class.is_some_and(|class| class != question.class) {
            continue;
        }
        let (pattern, groups) = match template.patterns.as_slice() {
            [] => (EVERYTHING, None),
            patterns => {
                let fits = patterns
                    .iter()
                    .find_map(|pattern| pattern.regex().captures(&spelled).map(|groups| (pattern, groups)));
                match fits {
                    Some((pattern, groups)) => (pattern.as_str(), Some(groups)),
                    None if template.falls_through => continue,
                    None => return Some(Filled::failed(None)),
                }
            }
        };
        let zone = template.zone.as_ref().unwrap_or(zone);
        let mut filling =
            Filling { name: &spelled, zone, question, asker, pattern, groups, variables: Vec::new(), steps: &steps };
        match filling.fits(template) {
            Ok(true) => {}
            Ok(false) if template.falls_through => continue,
            Ok(false) => return Some(Filled::failed(None)),
            Err(failed) => return Some(Filled::failed(Some(failed))),
        }
        return Some(filling.fill(template).unwrap_or_else(|failed| Filled::failed(Some(failed))));
    }
    None
}

impl Filling<'_> {
    /// Works out the variables, and whether every condition is true.
    fn fits(&mut self, template: &Template) -> Result<bool> {
        for (name, expression) in &template.variables {
            let value = expression.value(self, &self.variables, self.steps)?;
            self.variables.push((name.clone(), value));
        }
        for condition in &template.conditions {
            if condition.value(self, &self.variables, self.steps)? != Value::Bool(true) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fill(&self, template: &Template) -> Result<Filled> {
        let records = |texts: &[Text]| texts.iter().map(|text| self.record(text)).collect::<Result<Vec<Record>>>();
        if template.rcode == Rcode::SERVFAIL {
            return Ok(Filled::failed(None));
        }
        Ok(Filled {
            rcode: template.rcode,
            answers: records(&template.answers)?,
            additionals: records(&template.additionals)?,
            authorities: records(&template.authorities)?,
            reason: template.reason.clone(),
        })
    }

    fn record(&self, text: &Text) -> Result<Record> {
        let line = eval::fill(&text.parsed, self, self.steps)?;
        filling::record(&line).ok_or_else(|| Failed(format!("not a record: {line:?}")))
    }
}

impl FromStr for Text {
    type Err = String;

    fn from_str(source: &str) -> std::result::Result<Self, String> {
        Ok(Self { source: source.to_owned(), parsed: parse::parse(source)? })
    }
}

impl FromStr for Template {
    type Err = String;

    /// `TYPE [class CLASS] [zone ZONE] [match PATTERN]… [var NAME EXPRESSION]… [expr EXPRESSION]… [answer RECORD]…
    /// [authority RECORD]… [additional RECORD]… [rcode CODE] [ederror NUMBER TEXT] [fallthrough]`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words = words::split(text)?;
        let mut words = words.iter().map(String::as_str);
        let rtype = match words.next() {
            Some(word) if word.eq_ignore_ascii_case("ANY") => None,
            Some(word) => Some(
                word.to_ascii_uppercase()
                    .parse::<RecordType>()
                    .map_err(|_| format!("template: {word:?} is not a type such as A, AAAA or ANY"))?,
            ),
            None => return Err("a template begins with a type such as A, AAAA or ANY".into()),
        };
        let mut template = Self {
            rtype,
            class: Some(Class::IN),
            patterns: Vec::new(),
            zone: None,
            variables: Vec::new(),
            conditions: Vec::new(),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            rcode: Rcode::NOERROR,
            reason: None,
            falls_through: false,
        };
        while let Some(option) = words.next() {
            if option == "fallthrough" {
                template.falls_through = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("template: {option} takes a value"))?;
            let known: Vec<&str> = template.variables.iter().map(|(name, _)| name.as_str()).collect();
            match option {
                "match" => template.patterns.push(Pattern::new(value)?),
                "answer" => template.answers.push(value.parse()?),
                "authority" => template.authorities.push(value.parse()?),
                "additional" => template.additionals.push(value.parse()?),
                "expr" => {
                    let condition = Expression::parse(value, &known)?;
                    template.conditions.push(condition);
                }
                "var" => {
                    let text = words.next().ok_or("template: var takes a name and an expression")?;
                    if !expression::is_free_name(value) {
                        return Err(format!("template: a variable cannot have the name {value:?}"));
                    }
                    let expression = Expression::parse(text, &known)?;
                    template.variables.push((value.to_owned(), expression));
                }
                "class" => {
                    let class = class_named(value);
                    template.class =
                        class.ok_or_else(|| format!("template: {value:?} is no class such as IN or ANY"))?;
                }
                "zone" => {
                    let mut zone = Name::from_ascii(value).map_err(|error| format!("template: {value:?}: {error}"))?;
                    zone.set_fqdn(true);
                    template.zone = Some(zone);
                }
                "ederror" => {
                    let code = value.parse().map_err(|_| format!("template: {value:?} is no extended error"))?;
                    let text = words.next().ok_or("template: ederror takes a number and a text")?;
                    template.reason = Some(Reason { code: EdeCode(code), text: text.into() });
                }
                "rcode" => {
                    template.rcode = rcodes::named(value).ok_or_else(|| format!("template: {value:?} is no rcode"))?;
                }
                _ => {
                    return Err(format!(
                        "template: {option:?} is not match, var, expr, answer, authority, additional, class, zone, rcode, ederror \
                         or fallthrough"
                    ));
                }
            }
        }
        Ok(template)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = vec![self.rtype.map_or_else(|| "ANY".into(), |rtype| rtype.to_string())];
        if self.class != Some(Class::IN) {
            said.extend(["class".into(), self.class.map_or_else(|| "ANY".into(), class_name)]);
        }
        if let Some(zone) = &self.zone {
            said.extend(["zone".into(), spelled(zone)]);
        }
        let texts = |option: &str, texts: &[Text]| {
            texts.iter().flat_map(|text| [option.to_owned(), text.source.clone()]).collect::<Vec<_>>()
        };
        said.extend(self.patterns.iter().flat_map(|pattern| ["match".to_owned(), pattern.as_str().to_owned()]));
        let variable =
            |(name, value): &(String, Expression)| ["var".to_owned(), name.clone(), value.source().to_owned()];
        said.extend(self.variables.iter().flat_map(variable));
        said.extend(self.conditions.iter().flat_map(|condition| ["expr".to_owned(), condition.source().to_owned()]));
        said.extend(texts("answer", &self.answers));
        said.extend(texts("authority", &self.authorities));
        said.extend(texts("additional", &self.additionals));
        if self.rcode != Rcode::NOERROR {
            said.extend(["rcode".into(), rcodes::shown(self.rcode)]);
        }
        if let Some(Reason { code, text }) = &self.reason {
            said.extend(["ederror".into(), code.0.to_string(), text.to_string()]);
        }
        if self.falls_through {
            said.push("fallthrough".into());
        }
        f.write_str(&words::join(said.iter().map(String::as_str)))
    }
}
