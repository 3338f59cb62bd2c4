//! The answer of a running process to a tool's question over DNS.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Record;

/// The questions that a pod's resolver would have sent, and the answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LiveDoc {
    pub server: SocketAddr,
    /// An entry for each name and type, in the order of the queries. Names after the first with an answer were not queried.
    pub answers: Vec<LiveAnswer>,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LiveAnswer {
    /// The name, with its final dot.
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// Null if no answer came.
    pub rcode: Option<String>,
    pub answer: Vec<Record>,
    /// Extended errors (RFC 8914), as in `3 (Stale Answer)`.
    pub extended_errors: Vec<String>,
    pub microseconds: u64,
    /// The reason if no answer came.
    pub error: Option<String>,
}

impl LiveDoc {
    /// Whether records came.
    pub fn found(&self) -> bool {
        self.answers.iter().any(|answer| !answer.answer.is_empty())
    }
}

impl LiveAnswer {
    /// Whether a resolver goes on to the next name of its search list.
    pub fn goes_on(&self) -> bool {
        match self.rcode.as_deref() {
            Some("NXDOMAIN") => true,
            Some("NOERROR") => self.answer.is_empty(),
            _ => false,
        }
    }
}
