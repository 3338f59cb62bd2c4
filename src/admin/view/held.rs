//! What the guard holds: records the source took away and we go on serving.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Time, words};
use crate::{
    record::ServiceKey,
    store::guard::{Ends, Held, HeldCounts, HeldNamespace, HeldService, Kept},
    sys::UnixMillis,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDoc {
    pub counts: HeldCounts,
    /// Each of them by name, or the first few.
    pub rows: Vec<HeldRow>,
    /// How many more there are than rows.
    #[serde(default)]
    pub left_out: usize,
}

/// One thing that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRow {
    pub what: HeldWhat,
    pub name: String,
    /// The endpoints held, where the service itself is not.
    pub endpoints: Vec<IpAddr>,
    pub reason: String,
    /// Since when.
    pub since: Time,
    /// What ends it, unless the source brings it back first.
    pub until: Until,
    /// When that is, if it is a time.
    pub ends_at: Option<Time>,
}

/// What of a thing is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldWhat {
    Service,
    /// Endpoints of a service that is there.
    Endpoints,
    Namespace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// A second list that says the same.
    Confirmed,
    Released,
    Time,
}

fn until(ends: Ends) -> (Until, Option<Time>) {
    match ends {
        Ends::Confirmed => (Until::Confirmed, None),
        Ends::ByOperator => (Until::Released, None),
        Ends::At(at) => (Until::Time, Some(Time(at))),
    }
}

impl HeldDoc {
    /// Everything that is held, with as many rows at most.
    pub fn of(held: &Held, rows_max: usize) -> Self {
        let services = held.services().map(|(key, held)| HeldRow::of_service(key, held));
        let namespaces = held.namespaces().map(|(name, held)| HeldRow::of_namespace(name, held));
        let mut all = services.chain(namespaces);
        let rows = all.by_ref().take(rows_max).collect();
        Self { counts: held.counts(), rows, left_out: all.count() }
    }

    pub fn is_empty(&self) -> bool {
        self.counts == HeldCounts::default()
    }
}

impl HeldRow {
    /// What is held of a service.
    pub fn of_service(key: &ServiceKey, held: &HeldService) -> Self {
        let (what, endpoints) = match &held.kept {
            Kept::Service => (HeldWhat::Service, Vec::new()),
            Kept::Endpoints(endpoints) => (HeldWhat::Endpoints, endpoints.iter().map(|endpoint| endpoint.ip).collect()),
        };
        let (until, ends_at) = until(held.ends);
        let (reason, since) = (held.reason.to_string(), Time(held.since));
        Self { what, name: key.to_string(), endpoints, reason, since, until, ends_at }
    }

    fn of_namespace(name: &str, held: &HeldNamespace) -> Self {
        let (until, ends_at) = until(held.ends);
        Self {
            what: HeldWhat::Namespace,
            name: name.to_owned(),
            endpoints: Vec::new(),
            reason: held.reason.to_string(),
            since: Time(held.since),
            until,
            ends_at,
        }
    }

    /// What ends it, for people.
    pub fn until(&self, now: UnixMillis) -> String {
        match (self.until, self.ends_at) {
            (Until::Time, Some(Time(at))) => format!("for {} more", words(now.age(at))),
            (Until::Confirmed, _) => "until a second list says the same, or an operator releases it".into(),
            _ => "until an operator releases it".into(),
        }
    }
}
