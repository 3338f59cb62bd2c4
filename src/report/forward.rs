//! The rows of the upstreams and the cache.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Time;
use crate::sys::labels;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForwardStatus {
    /// Every zone, the shortest name first.
    pub zones: Vec<ZoneStatus>,
    /// Expired answers given since the start of the process.
    pub stale_answers_total: u64,
    /// Queries answered SERVFAIL since the start of the process.
    pub servfail_total: u64,
    /// Queries that wait for an upstream now.
    pub in_flight: usize,
    pub cache: CacheStatus,
    /// Names that upstreams deny and whose last good answer is served.
    #[serde(default)]
    pub held_names: usize,
    /// The keep list; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepStatus>,
    /// The keep list in the node's hosts file; absent unless `node.hosts_file` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_file: Option<HostsFileStatus>,
    /// Listeners with forwarding of their own.
    #[serde(default)]
    pub views: Vec<ViewStatus>,
}

/// A view's forwarding. All else is counted with that of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ViewStatus {
    pub listen: Vec<SocketAddr>,
    /// Every zone, the shortest name first.
    pub zones: Vec<ZoneStatus>,
    /// The keep list by the upstreams of this view; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepStatus>,
}

/// The rule of a forward zone that answers in place of its upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ZoneRule {
    Hosts,
    Template,
    /// The fixed `answer` of the zone.
    Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ZoneStatus {
    pub zone: String,
    /// How its upstreams are chosen.
    pub policy: Policy,
    /// Whether none of them answers.
    pub down: bool,
    /// Whether queries sent to one of them come back to this agent (a forwarding loop).
    pub looped: bool,
    /// The file that must name the upstreams or hold the certificates for TLS to them and cannot be used, with the reason; null if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The hosts file that cannot be read, with the reason; null if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_missing: Option<String>,
    /// The file of weights that cannot be used, with the reason; null if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights_missing: Option<String>,
    pub upstreams: Vec<UpstreamStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CacheStatus {
    /// Bytes used.
    pub bytes: u64,
    pub max_bytes: u64,
    pub entries: u64,
}

/// How the keep list does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeepStatus {
    pub names: usize,
    /// Names of the list without an address when upstreams were last asked.
    pub unresolved: Vec<UnresolvedName>,
}

/// The block of the keep list in the node's hosts file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostsFileStatus {
    pub path: PathBuf,
    /// Names in the block, as last written.
    pub names: usize,
    /// When the block was last known to be right; null for never.
    pub written: Option<Time>,
    /// Why it cannot be written; null if it can.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnresolvedName {
    /// With its final dot.
    pub name: String,
    /// When upstreams last had an address; null for never.
    pub answered: Option<Time>,
}

/// A name outside the cluster that upstreams deny and that is served its last good answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutsideHold {
    /// With its final dot.
    pub name: String,
    #[serde(rename = "type")]
    pub rtype: String,
    /// The forward zone, or `cluster_fallback`.
    pub zone: String,
    /// The view, if it is not of the main listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// `NXDOMAIN` or `NODATA`.
    pub denial: String,
    /// The upstream that denied it last.
    pub upstream: String,
    /// `good`: it was good for long; `bulk`: the upstream denies too many names; `keep`: it is on the keep list.
    pub reason: String,
    /// When it was first denied.
    pub since: Time,
    /// When it was last denied.
    pub last: Time,
    /// When the hold ends and the denial is believed; null for never.
    pub until: Option<Time>,
    /// When an upstream gave the answer that is served.
    pub answered: Time,
    /// The data of the records served.
    pub answers: Vec<String>,
}

/// An upstream, for `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own in the document")]
pub struct UpstreamStatus {
    pub upstream: String,
    pub state: UpstreamState,
    /// Smoothed round trip in milliseconds; absent until measured.
    pub rtt_ms: Option<f64>,
    /// Queries without an answer since its last answer.
    pub failures_in_a_row: u32,
    /// The same, since the start of the process.
    pub failures_total: u64,
    /// Queries it answered since the start of the process.
    pub answers_total: u64,
    /// Seconds since it last answered; absent if it never did.
    pub answered_seconds_ago: Option<u64>,
    /// Whether queries to it have no EDNS, because it answers FORMERR to those with EDNS.
    pub without_edns: bool,
    /// Whether queries to it have no random case, because it does not copy the question's case.
    pub folds_case: bool,
    /// Whether queries sent to it come back to this agent (a forwarding loop); it is not asked any more.
    #[serde(default)]
    pub looped: bool,
    /// Whether it denies so many names that it answered before that its denials are ignored.
    #[serde(default)]
    pub lying: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    Unknown,
    Up,
    /// It does not; it is asked last, and probed.
    Failing,
}

labels! {
    /// The order in which a zone's upstreams are asked; those that fail always come last.
    #[derive(Default, Serialize, Deserialize)]
    #[cfg_attr(test, derive(schemars::JsonSchema))]
    #[serde(rename_all = "snake_case")]
    pub enum Policy {
        /// A new order for each question.
        #[default]
        Random = "random",
        /// Each question starts with the next one.
        RoundRobin = "round_robin",
        /// As written: the first that works.
        Sequential = "sequential",
    }
}
