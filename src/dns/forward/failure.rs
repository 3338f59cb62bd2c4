//! Why a question has no answer.

use std::{borrow::Cow, sync::Arc};

use super::{
    observe::FailureKind,
    route::{Reason, Route},
    upstream::Failed,
};
use crate::{
    dns::cache::Entry,
    wire::{EdeCode, Rcode},
};

#[derive(Clone, Debug)]
pub enum Failure {
    /// The zone answers with this code, and says why if a rule of it has a reason.
    Fixed(Rcode, Option<Reason>),
    /// A rule of the zone lets nothing be answered.
    Dropped,
    /// The answer is not on this node, and upstreams were not to be asked.
    NotAsked,
    /// Upstreams deny the name, and it is held: this is its last good answer.
    Held(Arc<Entry>),
    /// SERVFAIL, with the reason.
    Servfail {
        ede: EdeCode,
        text: Cow<'static, str>,
        /// The upstreams said REFUSED.
        refused: bool,
    },
}

impl Failure {
    fn because(ede: EdeCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Servfail { ede, text: text.into(), refused: false }
    }

    pub fn no_route() -> Self {
        Self::because(EdeCode::NO_REACHABLE_AUTHORITY, "no upstream for this name")
    }

    /// The route's file names no upstream.
    pub fn no_upstreams(route: &Route) -> Self {
        let reason = route.missing().map(|missing| {
            let path = missing.path.display();
            if missing.is_file() { format!("no upstreams in {path}") } else { format!("no address of {path}") }
        });
        reason.map_or_else(Self::no_route, |text| Self::because(EdeCode::NO_REACHABLE_AUTHORITY, text))
    }

    pub fn not_ready() -> Self {
        Self::because(EdeCode::NOT_READY, "no records yet")
    }

    pub fn busy() -> Self {
        Self::because(EdeCode::OTHER, "too many questions in flight")
    }

    /// Every upstream fails, and the zone is set to fail fast.
    pub fn down() -> Self {
        Self::because(EdeCode::NO_REACHABLE_AUTHORITY, "every upstream fails")
    }

    pub fn broken_off() -> Self {
        Self::because(EdeCode::OTHER, "broken off")
    }

    pub fn timed_out() -> Self {
        Self::because(EdeCode::NO_REACHABLE_AUTHORITY, "no answer in time")
    }

    pub fn looped() -> Self {
        Self::because(EdeCode::NO_REACHABLE_AUTHORITY, "forwarding loop")
    }

    pub fn unconfirmed() -> Self {
        Self::because(EdeCode::NETWORK_ERROR, "unconfirmed")
    }

    /// A CNAME leads to a zone that has one answer for everything.
    pub fn fixed_target() -> Self {
        Self::because(EdeCode::OTHER, "the CNAME leads to a zone with a fixed answer")
    }

    /// The failure of an alias of the cluster whose target failed like this: a fixed answer is the target's alone.
    pub fn of_target(self) -> Self {
        if let Self::Fixed(..) | Self::Dropped = self { Self::fixed_target() } else { self }
    }

    pub fn truncated() -> Self {
        Self::because(EdeCode::NO_REACHABLE_AUTHORITY, "truncated, and the upstream does not answer over TCP")
    }

    pub fn too_large() -> Self {
        Self::because(EdeCode::NETWORK_ERROR, "answer over 65,535 bytes")
    }

    /// The upstream that failed last, and how.
    pub fn failed(failed: &Failed) -> Self {
        let ede = match failed.kind {
            FailureKind::Timeout | FailureKind::Io | FailureKind::Tls | FailureKind::Http => {
                EdeCode::NO_REACHABLE_AUTHORITY
            }
            _ => EdeCode::NETWORK_ERROR,
        };
        let text = format!("{} {}", failed.upstream, failed.kind.as_str()).into();
        Self::Servfail { ede, text, refused: failed.kind == FailureKind::Refused }
    }

    /// This failure as remembered.
    pub fn again(self) -> Self {
        match self {
            Self::Servfail { ede, text, refused } => {
                Self::Servfail { ede, text: (text.into_owned() + " (cached)").into(), refused }
            }
            other => other,
        }
    }

    /// The code of the answer; `None` if there is an answer all the same, or no question.
    pub fn answer(&self) -> Option<Rcode> {
        match self {
            Self::Fixed(answer, _) => Some(*answer),
            Self::Servfail { refused: true, .. } => Some(Rcode::REFUSED),
            Self::Servfail { .. } => Some(Rcode::SERVFAIL),
            Self::Dropped | Self::NotAsked | Self::Held(_) => None,
        }
    }

    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Servfail { ede: EdeCode::NO_REACHABLE_AUTHORITY, .. })
    }

    /// The extended error (RFC 8914) and its text.
    pub fn ede(&self) -> (EdeCode, Cow<'static, str>) {
        match self {
            Self::Fixed(..) | Self::Dropped | Self::NotAsked | Self::Held(_) => (EdeCode::OTHER, Cow::Borrowed("")),
            Self::Servfail { ede, text, .. } => (*ede, text.clone()),
        }
    }
}
