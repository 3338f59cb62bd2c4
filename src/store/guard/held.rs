//! What is held back, and why: for the tools, the metrics, and the source that is to confirm.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
};

use crate::{
    record::{Endpoint, Service, ServiceKey},
    sys::UnixMillis,
};

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A list came without too many services.
    List { missing: usize, of: usize },
    /// A list came without any record of a class that had many.
    Class { class: Class, of: usize },
    /// Too many services were deleted within too short a time.
    Deletes {
        /// How many, within the window.
        deleted: usize,
        of: usize,
    },
    /// Too many endpoints of too many services went away within too short a time.
    Endpoints {
        /// How many, within the window.
        lost: usize,
        of: usize,
        services: usize,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { missing, of } => write!(f, "a list came without {missing} of {of} services"),
            Self::Class { class, of } => write!(f, "a list came without any of {of} {class}"),
            Self::Deletes { deleted, of } => write!(f, "{deleted} of {of} services were deleted at once"),
            Self::Endpoints { lost, of, services } => {
                write!(f, "{lost} of {of} endpoints went away from {services} services at once")
            }
        }
    }
}

/// A class of records that should not become empty in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    ClusterIp,
    Headless,
    ExternalName,
    /// Endpoints of more than one service.
    Endpoints,
    Namespaces,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "services with cluster IPs",
            Self::Headless => "headless services",
            Self::ExternalName => "external names",
            Self::Endpoints => "endpoints",
            Self::Namespaces => "namespaces",
        })
    }
}

/// What ends a hold, if the source does not bring the record back first. An operator can end any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// A second list on a new connection that says the same.
    Confirmed,
    ByOperator,
    At(UnixMillis),
}

/// What of a service is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it: the source says it is gone.
    Service,
    /// These endpoints: the source says they are gone or not ready.
    Endpoints(Vec<Endpoint>),
}

/// Something the source took away and we go on serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldService {
    pub kept: Kept,
    pub reason: Reason,
    /// Since when.
    pub since: UnixMillis,
    pub ends: Ends,
    /// What the source says of the service; none if it is gone.
    pub(super) source: Option<Arc<Service>>,
}

/// A namespace the source no longer lists and we go on serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldNamespace {
    pub reason: Reason,
    /// Since when.
    pub since: UnixMillis,
    pub ends: Ends,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeldCounts {
    pub services: usize,
    /// Endpoints of services that are there.
    pub endpoints: usize,
    pub namespaces: usize,
}

/// Everything the source took away and we go on serving.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub(super) services: BTreeMap<ServiceKey, HeldService>,
    pub(super) namespaces: BTreeMap<Arc<str>, HeldNamespace>,
    pub(super) list: Option<PendingList>,
}

/// A list that was not believed yet.
#[derive(Clone, Debug)]
pub(super) struct PendingList {
    pub since: UnixMillis,
    pub confirm_at: UnixMillis,
    pub missing: HashSet<ServiceKey>,
}

impl Held {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.namespaces.is_empty()
    }

    /// The services of which something is held, by name.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &HeldService)> {
        self.services.iter()
    }

    /// What is held of one service.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&HeldService> {
        self.services.get(key)
    }

    /// The namespaces held, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &HeldNamespace)> {
        self.namespaces.iter()
    }

    #[must_use]
    pub fn counts(&self) -> HeldCounts {
        let mut counts = HeldCounts { namespaces: self.namespaces.len(), ..HeldCounts::default() };
        for held in self.services.values() {
            match &held.kept {
                Kept::Service => counts.services += 1,
                Kept::Endpoints(endpoints) => counts.endpoints += endpoints.len(),
            }
        }
        counts
    }

    /// The moment from which a list on a new connection could confirm what one said before; none if none is waited for.
    ///
    /// A source that can list again should do so then.
    #[must_use]
    pub fn confirm_at(&self) -> Option<UnixMillis> {
        self.list.as_ref().map(|list| list.confirm_at)
    }

    /// Why the latest hold began.
    #[must_use]
    pub fn latest_reason(&self) -> Option<&Reason> {
        let services = self.services.values().map(|held| (held.since, &held.reason));
        let namespaces = self.namespaces.values().map(|held| (held.since, &held.reason));
        services.chain(namespaces).max_by_key(|(since, _)| *since).map(|(_, reason)| reason)
    }

    /// When something is given up by itself next, so that [`Writer::tick`](crate::store::Writer::tick) has work.
    #[must_use]
    pub fn next_end(&self) -> Option<UnixMillis> {
        let ends = |held: &HeldService| match held.ends {
            Ends::At(at) => Some(at),
            Ends::Confirmed | Ends::ByOperator => None,
        };
        self.services.values().filter_map(ends).min()
    }
}
