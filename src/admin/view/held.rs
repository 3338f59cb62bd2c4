//! The records the source deleted that are still served, as documents.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Time, words};
use crate::{
    record::ServiceKey,
    store::guard::{Ends, Held, HeldCounts, HeldKey, Hold, Kept},
    sys::UnixMillis,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldDoc {
    pub counts: HeldCounts,
    /// The held records by name; the first 100 in `status`.
    pub rows: Vec<HeldRow>,
    /// Number of held records without a row.
    #[serde(default)]
    pub left_out: usize,
}

/// One held record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldRow {
    pub what: HeldWhat,
    pub name: String,
    /// The endpoints held, where the source has the service itself.
    pub endpoints: Vec<IpAddr>,
    pub reason: String,
    /// The rule of the guard that applies.
    #[serde(default)]
    pub rule: String,
    /// Since when.
    pub since: Time,
    /// The end of the hold, unless the source brings the record back first.
    pub until: Until,
    /// The time of that end; for `confirmed`, the earliest time at which a list can confirm the deletion. Null for `released`.
    pub ends_at: Option<Time>,
    /// This process holds the record although its hub deleted it: that hub started without its disk and could not know the record.
    #[serde(default)]
    pub refused: bool,
}

/// The held part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeldWhat {
    Service,
    /// Endpoints of a service that is there.
    Endpoints,
    Namespace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// A complete list that agrees.
    Confirmed,
    Released,
    Time,
}

impl HeldDoc {
    /// All held records, with as many rows at most.
    pub fn of(held: &Held, rows_max: usize) -> Self {
        let mut all = held.all().map(|(key, hold)| HeldRow::of(&key, hold));
        let rows = all.by_ref().take(rows_max).collect();
        Self { counts: held.counts(), rows, left_out: all.count() }
    }

    pub fn is_empty(&self) -> bool {
        self.counts == HeldCounts::default()
    }
}

impl HeldRow {
    fn of(key: &HeldKey, hold: &Hold) -> Self {
        let (what, endpoints) = match (key, &hold.kept) {
            (HeldKey::Namespace(_), _) => (HeldWhat::Namespace, Vec::new()),
            (HeldKey::Service(_), Kept::Whole) => (HeldWhat::Service, Vec::new()),
            (HeldKey::Service(_), Kept::Endpoints(ips)) => (HeldWhat::Endpoints, ips.to_vec()),
        };
        let (until, ends_at) = match hold.ends {
            Ends::Listed(at) => (Until::Confirmed, Some(Time(at))),
            Ends::ByOperator => (Until::Released, None),
            Ends::At(at) => (Until::Time, Some(Time(at))),
        };
        Self {
            what,
            name: key.as_str().to_owned(),
            endpoints,
            reason: hold.reason.to_string(),
            rule: hold.reason.rule().to_owned(),
            since: Time(hold.since),
            until,
            ends_at,
            refused: hold.refused,
        }
    }

    /// The hold of a service.
    pub fn of_service(key: &ServiceKey, hold: &Hold) -> Self {
        Self::of(&HeldKey::Service(key.clone()), hold)
    }

    /// The end of a hold, for a column: a time, or the operator.
    pub fn ends(&self, now: UnixMillis) -> String {
        match (self.until, self.ends_at) {
            (Until::Time, Some(Time(at))) => format!("in {}", words(now.age(at))),
            (Until::Confirmed, Some(Time(at))) if now < at => format!("by a list in {} or later", words(now.age(at))),
            (Until::Confirmed, _) => "by the next list that agrees".into(),
            _ => "when released".into(),
        }
    }

    /// The end of the hold, in words.
    pub fn until(&self, now: UnixMillis) -> String {
        match (self.until, self.ends_at) {
            (Until::Time, Some(Time(at))) => format!("for {} more", words(now.age(at))),
            (Until::Confirmed, Some(Time(at))) if now < at => {
                format!("until a list in {} or later agrees, or `holdfast guard release`", words(now.age(at)))
            }
            (Until::Confirmed, _) => "until the next complete list agrees, or `holdfast guard release`".into(),
            _ => "until an operator runs `holdfast guard release`".into(),
        }
    }
}
