//! The dump: every record, in a form that `--manifests` reads back.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HeldDoc, RecordsView, SourceDoc, Time, VersionDoc, ZoneDoc};
use crate::{
    record::{self, Counts},
    zone,
};

/// All records as a Kubernetes `List`, with what holdfast knows of them beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// `v1`.
    pub api_version: String,
    pub kind: String,
    /// Facts that Kubernetes objects have no field for.
    pub holdfast: DumpHead,
    pub items: Vec<Value>,
}

/// The fields that holdfast adds about the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub struct DumpHead {
    pub made_at: Time,
    /// The version of the records.
    pub version: VersionDoc,
    /// The source, and the age of the records.
    pub source: SourceDoc,
    /// The records that the source deleted and that are still served.
    #[serde(default)]
    pub held: HeldDoc,
    /// The settings of the zone.
    pub zone: ZoneDoc,
    /// Numbers of all records, of every namespace.
    pub counts: Counts,
    /// The namespace given with `-n`; null without.
    pub namespace: Option<String>,
    /// The records are of a part of the cluster: names of other namespaces get SERVFAIL or `cluster_fallback`, not NXDOMAIN.
    #[serde(default)]
    pub partial: bool,
}

impl Dump {
    /// Every record, or those of one namespace.
    pub fn of(moment: &RecordsView<'_>, zone: &zone::Config, namespace: Option<&str>) -> Self {
        let snapshot = moment.snapshot;
        Self {
            api_version: "v1".into(),
            kind: "List".into(),
            holdfast: DumpHead {
                made_at: Time(moment.now),
                version: VersionDoc::of(snapshot),
                source: SourceDoc::of(moment),
                held: HeldDoc::of(moment.held, usize::MAX),
                zone: zone.into(),
                counts: snapshot.counts(),
                namespace: namespace.map(str::to_owned),
                partial: namespace.is_some() || snapshot.is_partial(),
            },
            items: record::objects(snapshot, namespace),
        }
    }
}
