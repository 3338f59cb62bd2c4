//! The row of the apiserver, as the process that watches it sees it.

use serde::{Deserialize, Serialize};

use super::Time;

/// Whether the apiserver delivers, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    #[default]
    Fresh,
    /// Answers take long or are refused; changes still arrive.
    Slow,
    Unreachable,
}

/// A list under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Listing {
    pub resource: String,
    /// Objects received so far.
    pub objects: usize,
}

/// Requests to the apiserver in the last minute, by result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measures {
    /// The slowest answer, in seconds; a request under way counts with its age.
    pub latency_seconds: f64,
    pub requests_per_minute: u64,
    /// Answers with status 429.
    pub busy_per_minute: u64,
    /// Other refusals: 401, 403, 5xx.
    pub refused_per_minute: u64,
    /// Requests given up before their answer began, since the start of the process.
    pub abandoned_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApiserverStatus {
    /// Its URL, as configured.
    pub server: String,
    pub state: Reach,
    /// Since when it is not reachable.
    #[serde(default)]
    pub since: Option<Time>,
    /// Why it is not reachable.
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(flatten)]
    pub measures: Measures,
    /// Lists under way.
    #[serde(default)]
    pub lists: Vec<Listing>,
    /// The addresses of the apiserver itself, as the records have them; dialled beside the one configured.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Addresses to which the last connection failed. With HTTP/2 one connection carries all requests, so that an address is
    /// dialled only when there is none.
    #[serde(default)]
    pub failing: Vec<FailingAddress>,
}

/// An address of the apiserver that takes no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailingAddress {
    pub address: String,
    /// The first failure without a connection since.
    pub since: Time,
    /// Why the last connection failed.
    pub reason: String,
}
