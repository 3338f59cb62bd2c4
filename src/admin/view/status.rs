//! The status: what a person wants to know first.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{HeldDoc, PinDoc, RecordsView, SourceDoc, Time, VersionDoc};
use crate::{
    record::{Counts, Snapshot, Version},
    report::{
        ApiserverStatus, ConfigStatus, ElectionStatus, FollowStatus, ForwardStatus, NodeStatus, QueriesStatus, Row,
        StreamStatus,
    },
    store::{
        Rejections,
        disk::{DiskState, DiskStatus, Start},
    },
    sys::UnixMillis,
    zone,
};

/// How many held records are named; the rest is counted, and `dump` names them all.
const HELD_MAX: usize = 100;

/// How a process, or a store without one, stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The state of DNS in one word; set by the tool that prints the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateWord>,
    /// The version of holdfast that made the document.
    pub holdfast: String,
    pub at: Time,
    /// The process; null for a store without one.
    pub process: Option<Process>,
    /// The zone answered for, with its final dot.
    pub zone: String,
    /// Whether there are records: from a first list, or from disk.
    pub synced: bool,
    pub serving: Counts,
    /// The known namespaces, if the records are of a part of the cluster; null if they are of the whole.
    #[serde(default)]
    pub known_namespaces: Option<Vec<String>>,
    /// The version of the records.
    pub version: VersionDoc,
    /// The source, and the age of the records.
    pub source: SourceDoc,
    /// The records that the source deleted and that are still served; the first 100 by name.
    #[serde(default)]
    pub held: HeldDoc,
    /// The names pinned by an operator.
    #[serde(default)]
    pub pinned: Vec<PinDoc>,
    pub disk: Option<DiskDoc>,
    /// The configuration in effect.
    #[serde(default)]
    pub config: Option<Row<ConfigStatus>>,
    /// The queries that an agent received in the last minute.
    #[serde(default)]
    pub queries: Option<Row<QueriesStatus>>,
    /// Upstreams and cache.
    #[serde(default)]
    pub forward: Option<Row<ForwardStatus>>,
    /// The hubs followed.
    #[serde(default)]
    pub follows: Option<Row<FollowStatus>>,
    /// The apiserver, for a process that watches it.
    #[serde(default)]
    pub apiserver: Option<Row<ApiserverStatus>>,
    /// The election among hubs.
    #[serde(default)]
    pub lease: Option<Row<ElectionStatus>>,
    /// The followers.
    #[serde(default)]
    pub serves: Option<Row<StreamStatus>>,
    /// The node of an agent: the interface, its addresses, the process that keeps them, deaths of the answering process.
    #[serde(default)]
    pub node: Option<Row<NodeStatus>>,
    /// Objects of the source that cannot be used.
    pub rejected: Rejections,
}

/// How DNS is at a process, the worst first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// No process answers; the document was made from its store on disk.
    NoProcess,
    /// There are no records to answer from.
    Nothing,
    /// The source is lost; answers come from memory.
    Lost,
    /// The source is not known to be lost, and the records are older than `stale_after`.
    Stale,
    Serving,
    /// A store was asked for, and read.
    Store,
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Process {
    pub role: String,
    pub pid: u32,
    pub started: Time,
    /// The process that handed ports and store over at the start, as it numbers itself; null without one.
    #[serde(default)]
    pub took_over_from: Option<u32>,
    pub listeners: Vec<ListenerDoc>,
    /// Conditions that keep the process from being ready; empty when it is ready.
    #[serde(default)]
    pub waiting_for: Vec<String>,
}

/// An address a process listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListenerDoc {
    pub name: String,
    /// The address, or the path of a socket.
    pub address: String,
    /// Answers clients of all networks (an open resolver).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

impl ListenerDoc {
    /// A listener that is no open resolver.
    pub fn new(name: impl Into<String>, address: &impl ToString) -> Self {
        Self { name: name.into(), address: address.to_string(), open: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiskDoc {
    /// Directory of the store; null if there is none.
    pub path: Option<PathBuf>,
    pub state: DiskState,
    pub reason: Option<String>,
    /// The state of the store at the start.
    pub start: Start,
    pub bytes: u64,
    /// The version of the records on disk.
    #[serde(default, deserialize_with = "lenient")]
    pub version: Option<VersionDoc>,
    /// When the source last confirmed the records on disk.
    pub as_of: Option<Time>,
    /// The last write.
    pub committed_at: Option<Time>,
    /// The start of the write under way; null if there is none.
    pub writing_since: Option<Time>,
    /// Failed writes and reads since the start of the process.
    pub errors: u64,
}

/// A version as another release wrote it is not read.
fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<VersionDoc>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

impl From<DiskStatus> for DiskDoc {
    fn from(status: DiskStatus) -> Self {
        let time = |at: Option<UnixMillis>| at.map(Time);
        Self {
            path: status.path,
            state: status.state,
            reason: status.reason,
            start: status.start,
            bytes: status.bytes,
            version: status.version.map(|Version { cluster, epoch, rev }| VersionDoc {
                cluster: (*cluster).into(),
                epoch,
                rev,
                digest: None,
            }),
            as_of: time(status.as_of),
            committed_at: time(status.committed_at),
            writing_since: time(status.writing_since),
            errors: status.errors,
        }
    }
}

/// The namespaces of a source that saw only part of the cluster, by name.
pub fn known_namespaces(snapshot: &Snapshot) -> Option<Vec<String>> {
    let mut names: Vec<String> = snapshot.namespaces().map(ToString::to_string).collect();
    names.sort_unstable();
    snapshot.is_partial().then_some(names)
}

/// The status at this moment.
pub fn status(
    moment: &RecordsView<'_>,
    zone: &zone::Config,
    process: Option<Process>,
    disk: Option<DiskStatus>,
    rejected: Rejections,
) -> Status {
    Status {
        state: None,
        holdfast: env!("CARGO_PKG_VERSION").into(),
        at: Time(moment.now),
        process,
        zone: zone.zone.to_string(),
        synced: moment.freshness.as_of.is_some(),
        serving: moment.snapshot.counts(),
        known_namespaces: known_namespaces(moment.snapshot),
        version: VersionDoc::of(moment.snapshot),
        source: SourceDoc::of(moment),
        held: HeldDoc::of(moment.held, HELD_MAX),
        pinned: moment.pins.list(moment.now).into_iter().map(PinDoc::from).collect(),
        disk: disk.map(Into::into),
        config: None,
        queries: None,
        forward: None,
        follows: None,
        apiserver: None,
        lease: None,
        serves: None,
        node: None,
        rejected,
    }
}
