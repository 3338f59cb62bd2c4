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
    /// Answers given past their TTL since the start.
    pub stale_answers_total: u64,
    /// Questions answered SERVFAIL since the start.
    pub servfail_total: u64,
    /// Questions being asked of upstreams now.
    pub in_flight: usize,
    pub cache: CacheStatus,
    /// Names that upstreams deny and that are served.
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ZoneStatus {
    pub zone: String,
    /// How its upstreams are chosen.
    pub policy: Policy,
    /// Whether none of them answers.
    pub down: bool,
    /// Whether one of them asks us back.
    pub looped: bool,
    /// The file that is to name them, or to vouch for them, and does not, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The hosts file that cannot be read, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_missing: Option<String>,
    pub upstreams: Vec<UpstreamStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CacheStatus {
    /// Bytes held.
    pub bytes: u64,
    pub max_bytes: u64,
    pub entries: u64,
}

/// How the keep list does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeepStatus {
    pub names: usize,
    /// Kept names without an address when upstreams were last asked.
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
    /// When upstreams last had one; null for never.
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
    /// When it was first denied, and last.
    pub since: Time,
    pub last: Time,
    /// When the denial is believed; null for never.
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
    /// Questions it left without an answer since it last gave one.
    pub failures_in_a_row: u32,
    /// Same, since the start.
    pub failures_total: u64,
    /// Questions it answered since the start.
    pub answers_total: u64,
    /// Seconds since it last answered; absent if it never did.
    pub answered_seconds_ago: Option<u64>,
    /// Whether it is asked without EDNS because it answers FORMERR otherwise.
    pub without_edns: bool,
    /// Whether it is asked without random case because it does not copy the question.
    pub folds_case: bool,
    /// Whether what it is asked comes back to us; it is asked no more then.
    #[serde(default)]
    pub looped: bool,
    /// Whether it denies so many names that were good that it is not believed.
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
