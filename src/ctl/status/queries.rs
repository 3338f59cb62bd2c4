//! The row of the queries of the last minute: how many, how many fail, how many are refused and whose.

use std::fmt::Write as _;

use crate::report::QueriesStatus;

/// Refusals and failures in a minute from which a person must look: one a second.
const MANY: u64 = 60;

fn refused(status: &QueriesStatus) -> u64 {
    let limited = |reason: &str| status.dropped.get(reason).copied().unwrap_or_default();
    status.over_share + limited("rate_limited") + status.connections_refused.values().sum::<u64>()
}

/// Whether many queries are refused or fail.
pub(super) fn is_flood(status: &QueriesStatus) -> bool {
    refused(status) >= MANY || (status.servfail >= MANY && status.servfail * 20 > status.received)
}

pub(super) fn queries(status: &QueriesStatus) -> String {
    let mut text = format!("in the last minute: {} received, {} answered SERVFAIL", status.received, status.servfail);
    if status.over_share > 0 {
        let _ = write!(text, "; {} REFUSED (one client has too many waiting for upstreams)", status.over_share);
    }
    for (reason, count) in &status.dropped {
        let why = match reason.as_str() {
            "rate_limited" => "over open_rate",
            "not_allowed" => "their client is not in allow",
            "acl" => "a rule of acl drops them",
            "short" => "shorter than a DNS header",
            "response" => "answers, not queries",
            "send" => "the answer could not be sent",
            "gone" => "the client closed the connection",
            other => other,
        };
        let _ = write!(text, "; {count} DROPPED ({why})");
    }
    for (reason, count) in &status.connections_refused {
        let why = match reason.as_str() {
            "total" => "too many in all",
            "source" => "too many of one client",
            "not_allowed" => "the client is not in allow",
            other => other,
        };
        let _ = write!(text, "; {count} connections REFUSED ({why})");
    }
    if let Some(client) = status.most_refused {
        let _ = write!(text, "; mostly client {client}");
    }
    text
}
