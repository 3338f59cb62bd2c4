//! Names looked up under another name, by the rules of a zone in their order.
//!
//! Pure. Rules see names as CoreDNS gives them to its own: in lower case, with the final dot.

use std::{fmt, str::FromStr};

use hickory_proto::rr::{Name, RData, Record};
use regex::Regex;

use super::words;

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub how: How,
    /// The next rules see the new name; without this, a rule that fits is the last one.
    pub goes_on: bool,
    /// Names in the answer that are given as others.
    pub answers: Vec<AnswerRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// This name is looked up as that name.
    Exact { from: Name, to: Name },
    /// Names that end in the labels of `from`, and `from` itself, are looked up with `to` in its place.
    Suffix { from: Name, to: Name },
    /// Names that the pattern fits are looked up as `to`, where `{1}` is the first group of the pattern.
    Regex { pattern: Pattern, to: String },
}

/// A rule for names in answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRule {
    /// For names in the data of records; otherwise for the records' own names.
    pub value: bool,
    pub pattern: Pattern,
    pub to: String,
}

#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// # Errors
    /// Not a regular expression, or one that is too large.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_MAX {
            return Err(format!("a pattern has at most {PATTERN_MAX} bytes"));
        }
        Regex::new(text).map(Self).map_err(|error| {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or_default().to_owned();
            format!("{text:?} is not a regular expression: {}", last.trim_start_matches("error: "))
        })
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.0
    }

    /// `to` with the groups of the match put in; `None` if the pattern does not fit, or the result is no name.
    fn replace(&self, name: &str, to: &str) -> Option<Name> {
        let groups = self.0.captures(name)?;
        let mut text = to.to_owned();
        for (number, group) in groups.iter().enumerate() {
            text = text.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
        }
        fqdn(&text)
    }
}

/// A name in lower case with its final dot.
pub(super) fn spelled(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

fn fqdn(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

impl How {
    fn apply(&self, name: &Name) -> Option<Name> {
        match self {
            Self::Exact { from, to } => (from == name).then(|| to.clone()),
            Self::Suffix { from, to } => {
                if !from.zone_of(name) {
                    return None;
                }
                let labels: Vec<&[u8]> = name.iter().collect();
                let head = labels[..labels.len() - usize::from(from.num_labels())].iter().copied();
                let tail: Vec<&[u8]> = to.iter().collect();
                // Too long a name is not rewritten, and asked for as it is.
                Name::from_labels(head.chain(tail)).ok()
            }
            Self::Regex { pattern, to } => pattern.replace(&spelled(name), to),
        }
    }
}

/// A name that rules changed, and the rules for the names in its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten<'r> {
    pub name: Name,
    answers: Vec<&'r AnswerRule>,
}

/// The name to look `name` up under; `None` if no rule fits.
pub fn rewrite<'r>(rules: &'r [Rewrite], name: &Name) -> Option<Rewritten<'r>> {
    let mut found: Option<Rewritten<'r>> = None;
    for rule in rules {
        let Some(to) = rule.how.apply(found.as_ref().map_or(name, |found| &found.name)) else { continue };
        let found = found.get_or_insert_with(|| Rewritten { name: name.clone(), answers: Vec::new() });
        found.name = to;
        found.answers.extend(&rule.answers);
        if !rule.goes_on {
            break;
        }
    }
    found
}

impl Rewritten<'_> {
    /// Gives the answer to the new name as the answer to `asked`.
    pub fn restore(&self, asked: &Name, records: &mut [Record]) {
        for record in records {
            if record.name == self.name {
                record.name = asked.clone();
            } else if let Some(name) = self.renamed(&record.name, false) {
                record.name = name;
            }
            if let Some(name) = target(&mut record.data) {
                if *name == self.name {
                    *name = asked.clone();
                } else if let Some(renamed) = self.renamed(name, true) {
                    *name = renamed;
                }
            }
        }
    }

    fn renamed(&self, name: &Name, value: bool) -> Option<Name> {
        let mut rules = self.answers.iter().filter(|rule| rule.value == value).peekable();
        rules.peek()?;
        let name = spelled(name);
        rules.find_map(|rule| rule.pattern.replace(&name, &rule.to))
    }
}

/// The name in the data of a record.
fn target(data: &mut RData) -> Option<&mut Name> {
    match data {
        RData::CNAME(name) => Some(&mut name.0),
        RData::NS(name) => Some(&mut name.0),
        RData::PTR(name) => Some(&mut name.0),
        RData::MX(mx) => Some(&mut mx.exchange),
        RData::SRV(srv) => Some(&mut srv.target),
        _ => None,
    }
}

impl FromStr for Rewrite {
    type Err = String;

    /// `[continue] exact|suffix|regex FROM TO [answer name|value PATTERN TO]…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = words::split(text)?;
        let mut words = words.iter().map(String::as_str).peekable();
        let usage = || {
            format!(
                "{text:?} is not \"exact NAME NAME\", \"suffix ZONE ZONE\" or \"regex PATTERN NAME\", such as \"suffix old.example \
                 new.example\", with \"answer name PATTERN NAME\" or \"answer value PATTERN NAME\" behind it"
            )
        };
        let goes_on = words.next_if_eq(&"continue").is_some();
        let (Some(kind), Some(from), Some(to)) = (words.next(), words.next(), words.next()) else {
            return Err(usage());
        };
        let name = |text: &str| {
            let text = if text == "." { text } else { text.strip_suffix('.').unwrap_or(text) };
            let name = fqdn(text).filter(|_| !text.is_empty());
            name.ok_or_else(|| format!("{text:?} is no name"))
        };
        let how = match kind {
            "exact" => How::Exact { from: name(from)?, to: name(to)? },
            "suffix" => How::Suffix { from: name(from)?, to: name(to)? },
            "regex" => How::Regex { pattern: Pattern::new(from)?, to: to.to_owned() },
            _ => return Err(usage()),
        };
        let mut answers = Vec::new();
        while let Some(word) = words.next() {
            let value = match (word, words.next()) {
                ("answer", Some("name")) => false,
                ("answer", Some("value")) => true,
                _ => return Err(usage()),
            };
            let (Some(pattern), Some(to)) = (words.next(), words.next()) else { return Err(usage()) };
            answers.push(AnswerRule { value, pattern: Pattern::new(pattern)?, to: to.to_owned() });
        }
        Ok(Self { how, goes_on, answers })
    }
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &Name| {
            let text = name.to_ascii().to_ascii_lowercase();
            text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(".").to_owned()
        };
        let mut said: Vec<String> = Vec::new();
        if self.goes_on {
            said.push("continue".into());
        }
        said.extend(match &self.how {
            How::Exact { from, to } => ["exact".into(), shown(from), shown(to)],
            How::Suffix { from, to } => ["suffix".into(), shown(from), shown(to)],
            How::Regex { pattern, to } => ["regex".into(), pattern.as_str().to_owned(), to.clone()],
        });
        for rule in &self.answers {
            let kind = if rule.value { "value" } else { "name" };
            said.extend(["answer".into(), kind.into(), rule.pattern.as_str().to_owned(), rule.to.clone()]);
        }
        f.write_str(&words::join(said.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME, SRV};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn rules(texts: &[&str]) -> Vec<Rewrite> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_continue_goes_on_to_the_next() {
        let rules = rules(&[
            "exact db.example db.prod.svc.cluster.local",
            "continue suffix one.test two.test",
            "suffix two.test three.test",
            "suffix example example.org",
            "suffix old.test .",
            r"regex ^(.*)-(us|eu)\.regions\.test\.$ {1}.{2}.svc.test",
            "regex (.*)too-long {1}..",
        ]);
        for (from, to) in [
            ("DB.example.", Some("db.prod.svc.cluster.local.")),
            ("www.Example.", Some("www.example.org.")),
            ("example.", Some("example.org.")),
            ("www.old.test.", Some("www.")),
            ("notexample.", None),
            ("a.one.test.", Some("a.three.test.")),
            ("a.two.test.", Some("a.three.test.")),
            ("Web-EU.regions.test.", Some("web.eu.svc.test.")),
            ("web-ap.regions.test.", None),
            ("x.too-long.", None),
        ] {
            assert_eq!(rewrite(&rules, &name(from)).map(|found| found.name), to.map(name), "{from}");
        }
    }

    #[test]
    fn answers_have_the_name_asked_for_also_in_their_data() {
        let rules = rules(&[
            r"regex (.*)\.intern\.example {1}.default.svc.cluster.local answer name (.*)\.default\.svc\.cluster\.local {1}.intern.example answer value (.*)\.default\.svc\.cluster\.local {1}.intern.example",
        ]);
        let asked = name("Web.intern.example.");
        let found = rewrite(&rules, &asked).unwrap();
        assert_eq!(found.name, name("web.default.svc.cluster.local."));
        let record = |owner: &str, data| Record::from_rdata(name(owner), 5, data);
        let mut records = [
            record("web.default.svc.cluster.local.", RData::CNAME(CNAME(name("db.default.svc.cluster.local.")))),
            record("db.default.svc.cluster.local.", RData::A(A([10, 0, 0, 1].into()))),
            record("other.test.", RData::SRV(SRV::new(0, 1, 80, name("web.default.svc.cluster.local.")))),
        ];
        found.restore(&asked, &mut records);
        let shown: Vec<String> = records.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
        assert_eq!(
            shown,
            [
                "Web.intern.example. db.intern.example.",
                "db.intern.example. 10.0.0.1",
                "other.test. 0 1 80 Web.intern.example."
            ]
        );
    }

    /// As node-cache with CoreDNS 1.13.2 answers `answer auto`.
    #[test]
    fn names_in_data_are_given_back_as_names_asked_for() {
        for (rule, asked, data, expect) in [
            (r"exact a.net b.test answer value ^(|.*\.)b\.test\.$ {1}a.net.", "a.net.", "b.test.", "a.net."),
            (r"exact a.net b.test answer value ^(|.*\.)b\.test\.$ {1}a.net.", "a.net.", "x.b.test.", "x.a.net."),
            (r"exact a.net b.test answer value ^(|.*\.)b\.test\.$ {1}a.net.", "a.net.", "xb.test.", "xb.test."),
            (r"suffix s.net b.test answer value ^(.*)\.b\.test\.$ {1}.s.net.", "w.s.net.", "o.b.test.", "o.s.net."),
            (r"regex ^o-(.*)$ n-{1} answer value ^n-(.*)$ o-{1}", "o-a.net.", "n-b.net.", "o-b.net."),
        ] {
            let (rules, asked) = (rules(&[rule]), name(asked));
            let mut records = [Record::from_rdata(name("any.test."), 5, RData::SRV(SRV::new(0, 1, 80, name(data))))];
            rewrite(&rules, &asked).unwrap().restore(&asked, &mut records);
            assert_eq!(records[0].data.to_string(), format!("0 1 80 {expect}"), "{rule}");
        }
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "exact a.example b.example",
            "suffix old.test .",
            r"continue regex ^(.*)\.a\.$ {1}.b answer name (.*)b {1}a answer value x y",
            "regex \"a b\" c",
        ] {
            assert_eq!(text.parse::<Rewrite>().unwrap().to_string(), text);
        }
        for text in
            ["", "a b", "exact a", "suffix a b c", "prefix a b", "exact a..b c", "regex ( b", "exact a b answer name c"]
        {
            assert!(text.parse::<Rewrite>().is_err(), "{text:?}");
        }
        assert_eq!(
            "regex a(b c".parse::<Rewrite>().unwrap_err(),
            "\"a(b\" is not a regular expression: unclosed group"
        );
    }
}
