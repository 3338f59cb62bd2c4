//! Answers made of text: for names that fit a pattern, records with the parts of the name put in.
//!
//! Pure. Text is filled in as CoreDNS's template plugin does it, as far as fields go: no `if`, no `range`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::{
    rewrite::{Pattern, spelled},
    words,
};
use crate::wire::{EdeCode, Rcode};

/// TTL of a record without one, in seconds (CoreDNS).
const TTL: u32 = 3_600;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The type it is for; `None` for all.
    pub rtype: Option<RecordType>,
    /// A pattern must match the name; an empty list matches every name.
    pub patterns: Vec<Pattern>,
    /// The zone it is for, `.Zone` in texts; `None` for that of its `forward` entry.
    pub zone: Option<Name>,
    pub answers: Vec<Text>,
    pub authorities: Vec<Text>,
    pub additionals: Vec<Text>,
    pub rcode: Rcode,
    /// Says why, in answers without records.
    pub reason: Option<Reason>,
    /// Names that no pattern fits go on to the next template; without this, they get SERVFAIL.
    pub falls_through: bool,
}

/// An extended error (RFC 8914) and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: EdeCode,
    pub text: Arc<str>,
}

/// A record as text with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Plain(String),
    Name,
    Zone,
    Class,
    Type,
    /// The number of the type.
    TypeNumber,
    /// The address of the client.
    Remote,
    Match(usize),
    Group(String),
    /// A group as a number of this base, in decimal.
    Number(Box<Part>, u32),
}

/// The answer of a template.
#[derive(Debug, PartialEq)]
pub struct Filled {
    pub rcode: Rcode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
    pub reason: Option<Reason>,
}

const FAILED: Filled = Filled {
    rcode: Rcode::SERVFAIL,
    answers: Vec::new(),
    authorities: Vec::new(),
    additionals: Vec::new(),
    reason: None,
};

impl Template {
    /// Whether it may answer questions of this type.
    pub fn is_for(&self, rtype: RecordType) -> bool {
        self.rtype.is_none_or(|only| only == rtype || rtype == RecordType::ANY)
    }
}

/// The answer of the first template that is for this question, if one is. `zone` is the zone they stand in; without a `client`,
/// as for the tools, its address reads `::`.
pub fn answer(
    templates: &[Template],
    zone: &Name,
    name: &Name,
    rtype: RecordType,
    client: Option<IpAddr>,
) -> Option<Filled> {
    if templates.is_empty() {
        return None;
    }
    let spelled = spelled(name);
    for template in templates {
        let within = template.zone.as_ref().is_none_or(|zone| zone.zone_of(name));
        if !within || !template.is_for(rtype) {
            continue;
        }
        let groups = match template.patterns.as_slice() {
            [] => None,
            patterns => match patterns.iter().find_map(|pattern| pattern.regex().captures(&spelled)) {
                Some(groups) => Some(groups),
                None if template.falls_through => continue,
                None => return Some(FAILED),
            },
        };
        let zone = template.zone.as_ref().unwrap_or(zone);
        let client = client.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let question = Filling { name: &spelled, zone, rtype, client, groups };
        return Some(question.fill(template).unwrap_or(FAILED));
    }
    None
}

/// The values of fields.
struct Filling<'q> {
    name: &'q str,
    zone: &'q Name,
    rtype: RecordType,
    client: IpAddr,
    groups: Option<regex::Captures<'q>>,
}

impl Filling<'_> {
    /// `None` if a text comes to no record.
    fn fill(&self, template: &Template) -> Option<Filled> {
        let records = |texts: &[Text]| texts.iter().map(|text| self.record(text)).collect::<Option<Vec<Record>>>();
        Some(Filled {
            rcode: template.rcode,
            answers: records(&template.answers)?,
            authorities: records(&template.authorities)?,
            additionals: records(&template.additionals)?,
            reason: template.reason.clone(),
        })
    }

    /// The record that a text comes to; `None` if it is no record.
    fn record(&self, text: &Text) -> Option<Record> {
        let mut line = String::new();
        for part in &text.parts {
            line.push_str(&self.value(part)?);
        }
        record(&line)
    }

    fn value(&self, part: &Part) -> Option<String> {
        let group = |group: Option<regex::Match<'_>>| group.map_or_else(String::new, |group| group.as_str().to_owned());
        Some(match part {
            Part::Plain(text) => text.clone(),
            Part::Name => self.name.to_owned(),
            Part::Zone => spelled(self.zone),
            Part::Class => "IN".into(),
            Part::Type => self.rtype.to_string(),
            Part::TypeNumber => u16::from(self.rtype).to_string(),
            Part::Remote => self.client.to_canonical().to_string(),
            Part::Match(0) if self.groups.is_none() => self.name.to_owned(),
            Part::Match(number) => {
                let groups = self.groups.as_ref()?;
                (*number < groups.len()).then(|| group(groups.get(*number)))?
            }
            Part::Group(name) => match (name.parse::<usize>(), &self.groups) {
                (Ok(0), None) => self.name.to_owned(),
                (_, None) => "<no value>".into(),
                (Ok(number), Some(groups)) => group(groups.get(number)),
                (Err(_), Some(groups)) => group(groups.name(name)),
            },
            Part::Number(part, base) => i64::from_str_radix(&self.value(part)?, *base).ok()?.to_string(),
        })
    }
}

/// A line of a zone file, with an owner.
fn record(line: &str) -> Option<Record> {
    let mut rest = line.trim();
    let mut word = || {
        let (word, after) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        rest = after.trim_start();
        word
    };
    let mut owner = Name::from_ascii(word()).ok()?;
    owner.set_fqdn(true);
    let mut ttl = TTL;
    let rtype = loop {
        match word() {
            "" => return None,
            class if class.eq_ignore_ascii_case("IN") => {}
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => ttl = number.parse().ok()?,
            rtype => break rtype.to_ascii_uppercase().parse::<RecordType>().ok()?,
        }
    };
    let mut data = RData::try_from_str(rtype, rest).ok()?;
    if let RData::CNAME(hickory_proto::rr::rdata::CNAME(name)) | RData::PTR(hickory_proto::rr::rdata::PTR(name)) =
        &mut data
    {
        name.set_fqdn(true);
    }
    let mut record = Record::from_rdata(owner, ttl, data);
    record.dns_class = DNSClass::IN;
    Some(record)
}

impl FromStr for Text {
    type Err = String;

    fn from_str(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, behind) =
                after.split_once("}}").ok_or_else(|| format!("{source:?} has a {{{{ that is not closed"))?;
            let (inside, before) = match inside.strip_prefix("- ") {
                Some(inside) => (inside, before.trim_end()),
                None => (inside, before),
            };
            let (inside, behind) = match inside.strip_suffix(" -") {
                Some(inside) => (inside, behind.trim_start()),
                None => (inside, behind),
            };
            parts.push(Part::Plain(before.to_owned()));
            parts.push(part(inside.trim()).ok_or_else(|| format!("{{{{{inside}}}}} is not filled in here"))?);
            rest = behind;
        }
        parts.push(Part::Plain(rest.to_owned()));
        Ok(Self { source: source.to_owned(), parts })
    }
}

/// The field that the inside of two braces names.
fn part(inside: &str) -> Option<Part> {
    let words: Vec<&str> = inside.split_whitespace().collect();
    Some(match words.as_slice() {
        [".Name" | ".Question.Name"] => Part::Name,
        [".Zone"] => Part::Zone,
        [".Class"] => Part::Class,
        [".Type"] => Part::Type,
        [".Question.Qtype"] => Part::TypeNumber,
        [".Question.Qclass"] => Part::Plain("1".into()),
        [".Remote"] => Part::Remote,
        ["index", ".Match", number] => Part::Match(number.parse().ok()?),
        ["index", ".Group", name] => Part::Group(name.trim_matches('"').to_owned()),
        [field] => Part::Group(field.strip_prefix(".Group.")?.to_owned()),
        ["parseInt", field @ .., base, _bits] => {
            let field = field.join(" ");
            let field = field.strip_prefix('(').and_then(|field| field.strip_suffix(')')).unwrap_or(&field);
            let base: u32 = base.parse().ok().filter(|base| (2..=36).contains(base))?;
            Part::Number(Box::new(part(field)?), base)
        }
        _ => return None,
    })
}

impl FromStr for Template {
    type Err = String;

    /// `TYPE [zone ZONE] [match PATTERN]… [answer RECORD]… [authority RECORD]… [additional RECORD]… [rcode CODE]
    /// [ederror NUMBER TEXT] [fallthrough]`.
    fn from_str(text: &str) -> Result<Self, String> {
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
            patterns: Vec::new(),
            zone: None,
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
            match option {
                "match" => template.patterns.push(Pattern::new(value)?),
                "answer" => template.answers.push(value.parse()?),
                "authority" => template.authorities.push(value.parse()?),
                "additional" => template.additionals.push(value.parse()?),
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
                "rcode" => template.rcode = rcode(value).ok_or_else(|| format!("template: {value:?} is no rcode"))?,
                _ => {
                    return Err(format!(
                        "template: {option:?} is not match, answer, authority, additional, zone, rcode, ederror or \
                         fallthrough"
                    ));
                }
            }
        }
        Ok(template)
    }
}

/// The codes a template gives.
const RCODES: [(&str, Rcode); 4] = [
    ("NOERROR", Rcode::NOERROR),
    ("NXDOMAIN", Rcode::NXDOMAIN),
    ("REFUSED", Rcode::REFUSED),
    ("SERVFAIL", Rcode::SERVFAIL),
];

fn rcode(word: &str) -> Option<Rcode> {
    RCODES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, code)| *code)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = vec![self.rtype.map_or_else(|| "ANY".into(), |rtype| rtype.to_string())];
        if let Some(zone) = &self.zone {
            said.extend(["zone".into(), spelled(zone)]);
        }
        let texts = |option: &str, texts: &[Text]| {
            texts.iter().flat_map(|text| [option.to_owned(), text.source.clone()]).collect::<Vec<_>>()
        };
        said.extend(self.patterns.iter().flat_map(|pattern| ["match".to_owned(), pattern.as_str().to_owned()]));
        said.extend(texts("answer", &self.answers));
        said.extend(texts("authority", &self.authorities));
        said.extend(texts("additional", &self.additionals));
        if self.rcode != Rcode::NOERROR {
            let name = RCODES.iter().find(|(_, code)| *code == self.rcode).map_or("SERVFAIL", |(name, _)| name);
            said.extend(["rcode".into(), name.into()]);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(templates: &[&str], name: &str, rtype: RecordType) -> String {
        let templates: Vec<Template> = templates.iter().map(|text| text.parse().unwrap()).collect();
        let name = Name::from_ascii(name).unwrap();
        let client = Some([192, 0, 2, 9].into());
        let Some(filled) = answer(&templates, &Name::from_ascii("example.").unwrap(), &name, rtype, client) else {
            return "next".into();
        };
        let records = |records: &[Record]| {
            records.iter().flat_map(|record| [" ".to_owned(), record.to_string()]).collect::<String>()
        };
        let rcode = RCODES.iter().find(|(_, code)| *code == filled.rcode).unwrap().0;
        let section = |mark: &str, set: &[Record]| {
            if set.is_empty() { String::new() } else { format!(" {mark}{}", records(set)) }
        };
        let [authorities, additionals] = [section("/", &filled.authorities), section("+", &filled.additionals)];
        format!("{rcode}{}{authorities}{additionals}", records(&filled.answers))
    }

    #[test]
    fn a_type_may_be_answered_empty_and_a_pattern_denied() {
        let both = [
            "AAAA",
            r#"ANY zone internal.example match "^(?:[^.]+\.){4,}internal\.example\.$" rcode NXDOMAIN fallthrough"#,
        ];
        for (name, rtype, expect) in [
            ("www.example.", RecordType::AAAA, "NOERROR"),
            ("www.example.", RecordType::A, "next"),
            ("a.b.c.d.e.Internal.example.", RecordType::A, "NXDOMAIN"),
            ("a.internal.example.", RecordType::A, "next"),
        ] {
            assert_eq!(shown(&both, name, rtype), expect, "{name} {rtype}");
        }
    }

    #[test]
    fn fields_are_filled_in() {
        for (template, name, expect) in [
            (
                r#"A match "^ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)\.example\.$" answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}" fallthrough"#,
                "IP-10-1-2-3.example.",
                "NOERROR ip-10-1-2-3.example. 60 IN A 10.1.2.3",
            ),
            (
                r#"A match ^ip0a(..)(..)(..)\. answer "{{.Name}} IN {{ .Type }} 10.{{ parseInt .Group.1 16 8 }}.{{ parseInt (index .Match 2) 16 8 }}.{{ parseInt .Group.3 16 8 }}""#,
                "ip0a5f6f0a.example.",
                "NOERROR ip0a5f6f0a.example. 3600 IN A 10.95.111.10",
            ),
            (
                r#"ANY match "^(.*)\.corp\.example\.$" answer "{{ .Name }} 5 {{ .Class }} CNAME {{ index .Match 1 }}.{{ .Zone }}""#,
                "a.corp.example.",
                "NOERROR a.corp.example. 5 IN CNAME a.example.",
            ),
            (
                r#"ANY rcode NXDOMAIN authority "{{ .Zone }} 60 IN SOA ns.{{ .Zone }} host.{{ .Zone }} 1 60 60 60 60""#,
                "x.example.",
                "NXDOMAIN / example. 60 IN SOA ns.example. host.example. 1 60 60 60 60",
            ),
            (
                r#"A answer "{{ .Name }} 5 IN A {{ .Remote }}" additional "x.example. 5 IN TXT {{ .Question.Qtype }}-{{ .Question.Qclass }}""#,
                "b.example.",
                "NOERROR b.example. 5 IN A 192.0.2.9 + x.example. 5 IN TXT 1-1",
            ),
            (r#"A match ^a$ answer "x 1 IN A 10.0.0.1""#, "b.example.", "SERVFAIL"),
            (r#"A answer "{{ .Name }} 60 IN A nonsense""#, "b.example.", "SERVFAIL"),
        ] {
            assert_eq!(shown(&[template], name, RecordType::A), expect, "{template}");
        }
    }

    #[test]
    fn templates_are_shown_as_they_are_written() {
        for text in [
            "AAAA",
            r#"ANY rcode NXDOMAIN ederror 15 "no such thing" fallthrough"#,
            r#"ANY zone internal.example. match ^a\.b$ answer "{{ .Name }} 60 IN A 10.0.0.1" rcode NXDOMAIN fallthrough"#,
            r#"MX answer "{{ .Name }} MX 1 a.example." additional "a.example. A 10.0.0.1""#,
        ] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
        for text in
            ["", "NONSENSE-TYPE", "A match", "A match (", "A rcode WRONG", "A answer {{.Meta}}", "A answer {{", "A x y"]
        {
            assert!(text.parse::<Template>().is_err(), "{text:?}");
        }
    }
}
