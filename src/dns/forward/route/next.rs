//! Answers after which another upstream is asked: `failover` within a zone, `next` in another set of upstreams.
//!
//! Pure.

use std::{fmt, str::FromStr};

use super::{UpstreamSource, words};
use crate::{dns::cache::Kind, dns::forward::observe::FailureKind, report::Policy, sys::labels};

labels! {
    /// How the answer of an upstream ends.
    pub enum Verdict {
        /// NOERROR, with or without records.
        NoError = "noerror",
        /// NOERROR without records.
        NoData = "nodata",
        NxDomain = "nxdomain",
        ServFail = "servfail",
        Refused = "refused",
        /// Any other code.
        Other = "other",
    }
}

impl Verdict {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts(u8);

impl Verdicts {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn with(self, verdict: Verdict) -> Self {
        Self(self.0 | verdict.bit())
    }

    pub fn has(self, verdict: Verdict) -> bool {
        self.0 & verdict.bit() != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Verdict> {
        Verdict::ALL.into_iter().filter(move |verdict| self.has(*verdict))
    }

    /// Whether an answer of this kind is among them.
    pub fn fit(self, kind: Kind) -> bool {
        match kind {
            Kind::Data => self.has(Verdict::NoError),
            Kind::NoData => self.has(Verdict::NoError) || self.has(Verdict::NoData),
            Kind::NxDomain => self.has(Verdict::NxDomain),
        }
    }

    /// Whether a failure that an upstream answered is among them; silence never is.
    pub fn fit_failure(self, kind: FailureKind) -> bool {
        match kind {
            FailureKind::ServFail => self.has(Verdict::ServFail),
            FailureKind::Refused => self.has(Verdict::Refused),
            FailureKind::OtherRcode => self.has(Verdict::Other),
            FailureKind::Timeout
            | FailureKind::Io
            | FailureKind::Tls
            | FailureKind::Http
            | FailureKind::Lame
            | FailureKind::Rejected => false,
        }
    }
}

impl FromIterator<Verdict> for Verdicts {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        verdicts.into_iter().fold(Self::default(), Self::with)
    }
}

/// Upstreams that are asked after one of these answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub on: Verdicts,
    pub policy: Policy,
    pub force_tcp: bool,
    pub upstreams: Vec<UpstreamSource>,
}

impl FromStr for Next {
    type Err = String;

    /// `VERDICT… then [random|round_robin|sequential] [force_tcp] UPSTREAM…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = words::split(text)?;
        let Some(then) = words.iter().position(|word| word == "then") else {
            return Err(format!("{text:?} is not \"nxdomain then 10.0.0.53\": answers, `then`, and upstreams"));
        };
        let on: Verdicts = words[..then].iter().map(|word| word.parse::<Verdict>()).collect::<Result<_, _>>()?;
        let mut next = Self { on, policy: Policy::default(), force_tcp: false, upstreams: Vec::new() };
        for word in &words[then + 1..] {
            match (word.as_str(), word.parse::<Policy>()) {
                ("force_tcp", _) => next.force_tcp = true,
                (_, Ok(policy)) => next.policy = policy,
                (upstream, _) => next.upstreams.push(upstream.parse().map_err(|error| format!("{error}"))?),
            }
        }
        if next.on.is_empty() || next.upstreams.is_empty() {
            return Err(format!("{text:?} has an answer before `then` and an upstream behind it at least"));
        }
        Ok(next)
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said: Vec<String> = self.on.iter().map(|verdict| verdict.as_str().to_owned()).collect();
        said.push("then".into());
        if self.policy != Policy::default() {
            said.push(self.policy.as_str().into());
        }
        if self.force_tcp {
            said.push("force_tcp".into());
        }
        said.extend(self.upstreams.iter().map(ToString::to_string));
        f.write_str(&words::join(said.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in [
            "nxdomain then 10.0.0.2:53",
            "nodata nxdomain then sequential force_tcp 10.0.0.2:53 tls://10.0.0.3:853#dns.example",
            "noerror servfail refused other then /etc/resolv.conf",
        ] {
            assert_eq!(text.parse::<Next>().unwrap().to_string(), text);
        }
        for text in ["", "nxdomain", "nxdomain then", "then 10.0.0.1", "gone then 10.0.0.1", "nodata then 10.0.0.300"] {
            assert!(text.parse::<Next>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_fits_its_code_and_an_empty_one_nodata_too() {
        let on = |words: &[Verdict]| words.iter().copied().collect::<Verdicts>();
        let kinds = [Kind::Data, Kind::NoData, Kind::NxDomain];
        for (verdict, expect) in [
            (Verdict::NoError, [true, true, false]),
            (Verdict::NoData, [false, true, false]),
            (Verdict::NxDomain, [false, false, true]),
            (Verdict::ServFail, [false; 3]),
        ] {
            assert_eq!(kinds.map(|kind| on(&[verdict]).fit(kind)), expect, "{verdict:?}");
        }
        assert!(on(&[Verdict::ServFail]).fit_failure(FailureKind::ServFail));
        assert!(!on(&[Verdict::ServFail]).fit_failure(FailureKind::Timeout), "silence is no answer");
    }
}
