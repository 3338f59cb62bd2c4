//! Rewrites: rules of a zone that change a question (its name, its type) and the answer to it.
//!
//! Pure.

use std::{fmt, str::FromStr};

use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::{
    classes::{class_name, class_named},
    pattern::{Pattern, fqdn, spelled},
    rcodes, words,
};
use crate::{
    dns::question::{Question, question_name},
    wire::{Class, Rcode, Rtype},
};

/// RFC 2181, 8.
const TTL_MAX: u32 = 2_147_483_647;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub what: What,
    /// The next rules see the new question; without this, a rule that fits is the last one.
    pub goes_on: bool,
}

/// The part of a question or answer that a rule changes. Its pattern is compared with the name as the rules before have left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The name, and rules for names in the answer.
    Name { how: How, answers: Vec<AnswerRule> },
    /// The type; the answer is given as it comes.
    Type { from: RecordType, to: RecordType },
    /// TTLs in the answer are brought within these bounds, in seconds.
    Ttl { names: Pattern, least: u32, most: u32 },
    /// The code of the answer.
    Rcode { names: Pattern, from: Rcode, to: Rcode },
    /// The class; records of the answer keep theirs.
    Class { from: Class, to: Class },
    /// A CNAME in the answer leads to `to`, where `{1}` is the first group of the pattern, and that is looked up.
    Cname { from: Pattern, to: String },
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

impl How {
    fn words(&self) -> [String; 3] {
        let shown = |name: &Name| {
            let text = name.to_ascii().to_ascii_lowercase();
            text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(".").to_owned()
        };
        match self {
            Self::Exact { from, to } => ["exact".into(), shown(from), shown(to)],
            Self::Suffix { from, to } => ["suffix".into(), shown(from), shown(to)],
            Self::Regex { pattern, to } => ["regex".into(), pattern.as_str().to_owned(), to.clone()],
        }
    }

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

/// A question that rules changed, and the rules for its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten<'r> {
    pub name: Name,
    pub rtype: RecordType,
    pub class: Class,
    /// The rules that fitted, in their order.
    rules: Vec<&'r What>,
}

/// The question that is asked in place of this one; `None` if no rule fits.
pub fn rewrite<'r>(rules: &'r [Rewrite], question: &Question) -> Option<Rewritten<'r>> {
    let (name, rtype, class) = (question.record_name(), question.record_type(), question.class);
    let mut found = Rewritten { name, rtype, class, rules: Vec::new() };
    for rule in rules {
        match &rule.what {
            What::Name { how, .. } => match how.apply(&found.name) {
                Some(to) => found.name = to,
                None => continue,
            },
            What::Type { from, to } if *from == found.rtype => found.rtype = *to,
            What::Class { from, to } if *from == found.class => found.class = *to,
            What::Ttl { names, .. } | What::Rcode { names, .. } if names.regex().is_match(&spelled(&found.name)) => {}
            What::Cname { .. } => {}
            What::Type { .. } | What::Class { .. } | What::Ttl { .. } | What::Rcode { .. } => continue,
        }
        found.rules.push(&rule.what);
        if !rule.goes_on {
            break;
        }
    }
    (!found.rules.is_empty()).then_some(found)
}

impl Rewritten<'_> {
    /// The question that is asked in place of `asked`.
    pub fn question(&self, asked: &Question) -> Question {
        let question = asked.renamed(question_name(&self.name)).retyped(Rtype(self.rtype.into()));
        Question { class: self.class, ..question }
    }

    /// Makes the records of the answer to the new question those of the answer to `asked`.
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
            for rule in self.rules.iter().rev() {
                if let What::Ttl { least, most, .. } = rule {
                    record.ttl = record.ttl.max(*least).min(*most);
                }
            }
        }
    }

    /// The code to answer with in place of `code`.
    pub fn code(&self, code: Rcode) -> Rcode {
        let to = |now, rule: &&What| match rule {
            What::Rcode { from, to, .. } if *from == now => *to,
            _ => now,
        };
        self.rules.iter().rev().fold(code, to)
    }

    /// The first CNAME of `records` that leads elsewhere by a rule, and where to.
    pub fn cname(&self, records: &[Record]) -> Option<(usize, Name)> {
        records.iter().enumerate().find_map(|(at, record)| {
            let RData::CNAME(target) = &record.data else { return None };
            let to = |rule: &&What| match rule {
                What::Cname { from, to } => from.replace(&spelled(&target.0), to),
                _ => None,
            };
            self.rules.iter().rev().find_map(to).filter(|to| *to != target.0).map(|to| (at, to))
        })
    }

    fn renamed(&self, name: &Name, value: bool) -> Option<Name> {
        let answers = self.rules.iter().filter_map(|rule| match rule {
            What::Name { answers, .. } => Some(answers),
            _ => None,
        });
        let mut rules = answers.flatten().filter(|rule| rule.value == value).peekable();
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

    /// `[continue]`, then one of `exact|suffix|regex FROM TO [answer name|value PATTERN TO]…`, `type FROM TO`,
    /// `class FROM TO`, `ttl PATTERN LEAST-MOST`, `rcode PATTERN FROM TO`, `cname PATTERN TO`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = words::split(text)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (goes_on, words) = match words.as_slice() {
            ["continue", rest @ ..] => (true, rest),
            all => (false, all),
        };
        let usage = || {
            format!(
                "{text:?} is not \"exact NAME NAME\", \"suffix ZONE ZONE\" or \"regex PATTERN NAME\", such as \"suffix old.example \
                 new.example\", with \"answer name PATTERN NAME\" or \"answer value PATTERN NAME\" behind it, nor \"type TYPE TYPE\", \"class CLASS CLASS\", \
                 \"ttl PATTERN LEAST-MOST\", \"rcode PATTERN CODE CODE\" or \"cname PATTERN NAME\""
            )
        };
        let rtype = |word: &str| {
            let read = word.to_ascii_uppercase().parse::<RecordType>();
            read.map_err(|_| format!("{word:?} is not a type such as A or AAAA"))
        };
        let code = |word: &str| rcodes::read(word).ok_or_else(|| format!("{word:?} is no code such as nxdomain"));
        let class =
            |word: &str| class_named(word).flatten().ok_or_else(|| format!("{word:?} is no class such as IN or CH"));
        let what = match *words {
            ["class", from, to] => What::Class { from: class(from)?, to: class(to)? },
            ["type", from, to] => What::Type { from: rtype(from)?, to: rtype(to)? },
            ["ttl", names, range] => {
                let (least, most) =
                    ttl_range(range).ok_or_else(|| format!("{range:?} is not a TTL or a range of TTLs"))?;
                What::Ttl { names: Pattern::new(names)?, least, most }
            }
            ["rcode", names, from, to] => What::Rcode { names: Pattern::new(names)?, from: code(from)?, to: code(to)? },
            ["cname", from, to] => What::Cname { from: Pattern::new(from)?, to: to.to_owned() },
            [kind @ ("exact" | "suffix" | "regex"), from, to, ref answers @ ..] => {
                What::Name { how: how(kind, from, to)?, answers: answer_rules(answers)?.ok_or_else(usage)? }
            }
            _ => return Err(usage()),
        };
        Ok(Self { what, goes_on })
    }
}

/// `SECONDS`, `LEAST-MOST`, `LEAST-` or `-MOST`.
fn ttl_range(text: &str) -> Option<(u32, u32)> {
    let (least, most) = match text.split_once('-') {
        None => (text.parse().ok()?, text.parse().ok()?),
        Some(("", "")) => return None,
        Some(("", most)) => (0, most.parse().ok()?),
        Some((least, "")) => (least.parse().ok()?, TTL_MAX),
        Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
    };
    (least <= most).then_some((least, most))
}

fn how(kind: &str, from: &str, to: &str) -> Result<How, String> {
    let name = |text: &str| {
        let text = if text == "." { text } else { text.strip_suffix('.').unwrap_or(text) };
        let name = fqdn(text).filter(|_| !text.is_empty());
        name.ok_or_else(|| format!("{text:?} is no name"))
    };
    Ok(match kind {
        "exact" => How::Exact { from: name(from)?, to: name(to)? },
        "suffix" => How::Suffix { from: name(from)?, to: name(to)? },
        _ => How::Regex { pattern: Pattern::new(from)?, to: to.to_owned() },
    })
}

/// `answer name|value PATTERN TO`, any number of them; `None` for anything else.
fn answer_rules(words: &[&str]) -> Result<Option<Vec<AnswerRule>>, String> {
    let mut rules = Vec::new();
    for rule in words.chunks(4) {
        let ["answer", kind @ ("name" | "value"), pattern, to] = *rule else { return Ok(None) };
        rules.push(AnswerRule { value: kind == "value", pattern: Pattern::new(pattern)?, to: to.to_owned() });
    }
    Ok(Some(rules))
}

impl fmt::Display for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = Vec::new();
        if self.goes_on {
            said.push("continue".into());
        }
        match &self.what {
            What::Class { from, to } => said.extend(["class".into(), class_name(*from), class_name(*to)]),
            What::Type { from, to } => said.extend(["type".into(), from.to_string(), to.to_string()]),
            What::Ttl { names, least, most } if least == most => {
                said.extend(["ttl".into(), names.as_str().to_owned(), least.to_string()]);
            }
            What::Ttl { names, least, most } => {
                said.extend(["ttl".into(), names.as_str().to_owned(), format!("{least}-{most}")]);
            }
            What::Rcode { names, from, to } => {
                let code = |code: &Rcode| rcodes::shown(*code).to_ascii_lowercase();
                said.extend(["rcode".into(), names.as_str().to_owned(), code(from), code(to)]);
            }
            What::Cname { from, to } => said.extend(["cname".into(), from.as_str().to_owned(), to.clone()]),
            What::Name { how, answers } => {
                said.extend(how.words());
                for rule in answers {
                    let kind = if rule.value { "value" } else { "name" };
                    said.extend(["answer".into(), kind.into(), rule.pattern.as_str().to_owned(), rule.to.clone()]);
                }
            }
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

    fn asked_as(name: &Name, rtype: RecordType) -> Question {
        Question::new(question_name(name), Rtype(rtype.into()))
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
            assert_eq!(
                rewrite(&rules, &asked_as(&name(from), RecordType::A)).map(|found| found.name),
                to.map(name),
                "{from}"
            );
        }
    }

    #[test]
    fn answers_have_the_name_asked_for_also_in_their_data() {
        let rules = rules(&[
            r"regex (.*)\.intern\.example {1}.default.svc.cluster.local answer name (.*)\.default\.svc\.cluster\.local {1}.intern.example answer value (.*)\.default\.svc\.cluster\.local {1}.intern.example",
        ]);
        let asked = name("Web.intern.example.");
        let found = rewrite(&rules, &asked_as(&asked, RecordType::A)).unwrap();
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
            rewrite(&rules, &asked_as(&asked, RecordType::SRV)).unwrap().restore(&asked, &mut records);
            assert_eq!(records[0].data.to_string(), format!("0 1 80 {expect}"), "{rule}");
        }
    }

    #[test]
    fn rules_change_types_codes_ttls_and_where_cnames_lead() {
        let rules = rules(&[
            "continue type HINFO TXT",
            "continue exact old.example new.example",
            r"continue ttl ^new\.example\.$ 10-60",
            "continue rcode . refused nxdomain",
            r"cname ^cdn\.(.*)$ edge.{1}",
        ]);
        let asked = name("Old.example.");
        let found = rewrite(&rules, &asked_as(&asked, RecordType::HINFO)).unwrap();
        assert_eq!((found.name.to_string(), found.rtype), ("new.example.".into(), RecordType::TXT));
        assert_eq!([Rcode::REFUSED, Rcode::SERVFAIL].map(|code| found.code(code)), [Rcode::NXDOMAIN, Rcode::SERVFAIL]);
        let record = |ttl, data| Record::from_rdata(name("new.example."), ttl, data);
        let cname = |to: &str| RData::CNAME(CNAME(name(to)));
        let mut records = [record(5, cname("a.example.")), record(600, cname("CDN.example."))];
        assert_eq!(found.cname(&records), Some((1, name("edge.example."))));
        assert_eq!(found.cname(&records[..1]), None);
        found.restore(&asked, &mut records);
        let shown = records.map(|record| format!("{} {}", record.name, record.ttl));
        assert_eq!(shown, ["Old.example. 10", "Old.example. 60"]);
        let other = rewrite(&rules, &asked_as(&name("other.example."), RecordType::A)).unwrap();
        let mut records = [record(5, cname("a.example."))];
        other.restore(&name("other.example."), &mut records);
        assert_eq!(records[0].ttl, 5, "the rule for TTLs is for another name");
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "exact a.example b.example",
            "suffix old.test .",
            r"continue regex ^(.*)\.a\.$ {1}.b answer name (.*)b {1}a answer value x y",
            "regex \"a b\" c",
            "type HINFO TXT",
            r"continue ttl ^a\.example\.$ 30-300",
            "ttl . 5",
            "rcode (.*) servfail nxdomain",
            "rcode . notauth 15",
            "class CH IN",
            r"cname ^cdn\.(.*)$ edge.{1}",
        ] {
            assert_eq!(text.parse::<Rewrite>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a b",
            "exact a",
            "suffix a b c",
            "prefix a b",
            "exact a..b c",
            "regex ( b",
            "exact a b answer name c",
            "type A NONSENSE",
            "ttl . 9-8",
            "ttl . -",
            "rcode . nonsense noerror",
            "rcode . 24 noerror",
            "class IN ANY",
            "class XX IN",
            "cname x",
        ] {
            assert!(text.parse::<Rewrite>().is_err(), "{text:?}");
        }
        assert_eq!(
            "regex a(b c".parse::<Rewrite>().unwrap_err(),
            "\"a(b\" is not a regular expression: unclosed group"
        );
    }
}
