//! Regular expressions over names. They see a name as CoreDNS gives it to its own: in lower case, with the final dot.

use hickory_proto::rr::Name;
use regex::Regex;

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 1_024;
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

    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// `to` with the groups of the match put in; `None` if the pattern does not fit, or the result is no name.
    pub fn replace(&self, name: &str, to: &str) -> Option<Name> {
        let groups = self.0.captures(name)?;
        let mut text = to.to_owned();
        for (number, group) in groups.iter().enumerate() {
            text = text.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
        }
        fqdn(&text)
    }
}

/// A name in lower case with its final dot.
pub fn spelled(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// A name from text, with or without its final dot.
pub fn fqdn(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}
