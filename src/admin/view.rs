//! The documents the tools print: what is served, how old it is, and why a name answers what it answers.
//!
//! Owns their shape, which scripts rely on: keys are only ever added. Built from a snapshot alike in a running process
//! and from a store on disk; never reads either itself.

mod cached;
mod dump;
mod given;
mod held;
mod live;
mod lookup;
mod pins;
mod records;
mod status;
mod why;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use cached::CachedDoc;
pub use dump::{Dump, DumpHead};
pub use given::host_of;
pub use held::{HeldDoc, HeldRow, HeldWhat, Until};
pub use live::{LiveAnswer, LiveDoc};
pub use lookup::{
    Answer, Inspect, Lookup, Outcome, Question, SentDoc, ServiceDoc, candidates, lookup, meant, text_of_ede, types,
};
pub use pins::PinDoc;
pub use records::{Record, pointers, records};
pub use status::{DiskDoc, ListenerDoc, Process, StateWord, Status, known_namespaces, status};
pub use why::misspelt;

pub use crate::report::{Time, words};
use crate::{
    dns::{Records, pins::PinSet},
    record::{Snapshot, Version},
    store::{Freshness, SourceState, guard::Held},
    sys::UnixMillis,
    zone,
};

/// The records at one moment, with all that decides how they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct RecordsView<'a> {
    pub snapshot: &'a Snapshot,
    /// How old they are, and how the source is.
    pub freshness: &'a Freshness,
    /// The part of the records that the guard holds.
    pub held: &'a Held,
    /// The pins of operators, which win over the records.
    pub pins: &'a PinSet,
    /// The source in a word or two; `None` without a process that has one.
    pub source: Option<&'a str>,
    /// Since when the source is lost, if it is.
    pub lost_since: Option<UnixMillis>,
    /// The age from which records count as stale.
    pub stale_after: Duration,
    pub now: UnixMillis,
}

impl<'a> RecordsView<'a> {
    /// The records as DNS answers from them.
    pub fn records(&self) -> Records<'a> {
        let as_of = self.freshness.as_of;
        Records {
            snapshot: self.snapshot,
            synced: as_of.is_some(),
            stale: as_of.is_some_and(|as_of| as_of.age(self.now) > self.stale_after),
            pins: (!self.pins.is_empty()).then_some(self.pins),
            now: self.now,
        }
    }
}

/// The source, and the age of the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SourceDoc {
    /// Kind and place of the source, as in `manifests /etc/holdfast/cluster.yaml`.
    pub name: Option<String>,
    pub state: SourceWord,
    pub reason: Option<String>,
    /// When the source was lost; null while it is not.
    #[serde(default)]
    pub lost_since: Option<Time>,
    /// When the source last confirmed the records; null for never.
    pub as_of: Option<Time>,
    /// Seconds since `as_of`.
    pub age_seconds: Option<u64>,
    /// Whether the records are older than `stale_after`: clients see EDE 3 (Stale Answer).
    pub stale: bool,
    pub stale_after_seconds: u64,
}

/// The state of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceWord {
    /// Not heard of since the process started.
    Starting,
    Up,
    Lost,
    /// No process: the records were read from a store.
    Offline,
}

impl SourceDoc {
    /// How the source is at this moment.
    pub fn of(moment: &RecordsView<'_>) -> Self {
        let RecordsView { freshness, source, lost_since, stale_after, now, .. } = *moment;
        let (state, reason) = match &freshness.source {
            _ if source.is_none() => (SourceWord::Offline, None),
            SourceState::Starting => (SourceWord::Starting, None),
            SourceState::Up => (SourceWord::Up, None),
            SourceState::Lost(reason) => (SourceWord::Lost, Some(reason.clone())),
        };
        let age = freshness.as_of.map(|as_of| as_of.age(now));
        Self {
            name: source.map(str::to_owned),
            state,
            reason,
            lost_since: lost_since.filter(|_| state == SourceWord::Lost).map(Time),
            as_of: freshness.as_of.map(Time),
            age_seconds: age.map(|age| age.as_secs()),
            stale: age.is_some_and(|age| age > stale_after),
            stale_after_seconds: stale_after.as_secs(),
        }
    }

    /// The age as people say it.
    pub fn age(&self) -> Option<String> {
        self.age_seconds.map(|seconds| words(Duration::from_secs(seconds)))
    }
}

/// The rules of the zone, as far as they are needed to answer like the process does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ZoneDoc {
    /// The zone, with its final dot.
    pub name: String,
    /// TTL of answers, in seconds.
    pub ttl: u32,
    pub pods: String,
    /// `none` or `coredns`.
    pub compat: String,
    /// Networks whose reverse names are answered from records only.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub reverse: Vec<ipnet::IpNet>,
    /// Addresses of the name server.
    pub name_servers: Vec<std::net::IpAddr>,
}

impl From<&zone::Config> for ZoneDoc {
    fn from(config: &zone::Config) -> Self {
        Self {
            name: config.zone.to_string(),
            ttl: config.ttl,
            pods: config.pods.as_str().into(),
            compat: config.compat.as_str().into(),
            reverse: config.reverse.clone(),
            name_servers: config.name_servers.clone(),
        }
    }
}

impl ZoneDoc {
    /// The rules again. A name that is none becomes the default zone: it can only come from a document made by hand.
    pub fn config(&self) -> zone::Config {
        let default = zone::Config::default();
        let labels = self.name.trim_end_matches('.').split('.').map(str::as_bytes);
        zone::Config {
            zone: crate::wire::Name::from_labels(labels).unwrap_or(default.zone),
            pods: self.pods.parse().unwrap_or_default(),
            ttl: self.ttl,
            reverse: self.reverse.clone(),
            compat: self.compat.parse().unwrap_or_default(),
            name_servers: self.name_servers.clone(),
        }
    }
}

/// The version of records, for scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VersionDoc {
    pub cluster: String,
    pub epoch: u64,
    pub rev: u64,
    /// Digest over all records; equal digests are equal records. Null for those on disk.
    #[serde(default)]
    pub digest: Option<String>,
}

impl VersionDoc {
    /// The version of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let Version { cluster, epoch, rev } = snapshot.version();
        Self { cluster: (**cluster).into(), epoch: *epoch, rev: *rev, digest: Some(snapshot.root().to_string()) }
    }
}

#[cfg(test)]
mod tests;
