//! The row of the apiserver, as the process that watches it sees it.

use serde::{Deserialize, Serialize};

use super::Time;

/// `slow`: answers take long or are refused; changes still arrive.
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
    /// Requests cancelled before their answer began, since the start of the process.
    pub abandoned_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApiserverStatus {
    /// The configured URL.
    pub server: String,
    pub state: Reach,
    /// When it became unreachable; null while it is reachable.
    #[serde(default)]
    pub since: Option<Time>,
    /// Why it is unreachable; null while it is reachable.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it last had an older state than before, as after an etcd restore; null if it never had since the start.
    #[serde(default)]
    pub went_back_at: Option<Time>,
    #[serde(flatten)]
    pub measures: Measures,
    /// Lists under way.
    #[serde(default)]
    pub lists: Vec<Listing>,
    /// Addresses of the apiservers from the records; tried together with the configured one.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Addresses to which the last connection failed. An address is tried only while no connection is open: HTTP/2 needs just one.
    #[serde(default)]
    pub failing: Vec<FailingAddress>,
}

/// An address of the apiserver that takes no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailingAddress {
    pub address: String,
    /// The first failure since the last connection.
    pub since: Time,
    /// Why the last connection failed.
    pub reason: String,
}
