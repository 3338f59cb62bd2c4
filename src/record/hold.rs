//! Holds: records that the source deleted and that are still served, each with its reason and its end.
//!
//! A hold is itself a record: snapshots carry holds, streams and disks store them, and one digest proves them equal.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use prost::Message;

use super::{DecodeError, Digest, ServiceKey};
use crate::sys::{UnixMillis, labels};

/// The record that is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldKey {
    Service(ServiceKey),
    Namespace(Arc<str>),
}

impl HeldKey {
    pub fn namespace(&self) -> &str {
        match self {
            Self::Service(key) => key.namespace(),
            Self::Namespace(name) => name,
        }
    }

    /// `namespace/name`, or the name of a namespace.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Service(key) => key.as_str(),
            Self::Namespace(name) => name,
        }
    }

    /// Reads [`as_str`](Self::as_str) back; `None` if a label is out of range.
    pub fn parse(text: &str) -> Option<Self> {
        let label = |label: &str| !label.is_empty() && label.len() <= 63 && !label.contains('/');
        match text.split_once('/') {
            Some((namespace, name)) => {
                (label(namespace) && label(name)).then(|| Self::Service(ServiceKey::new(namespace, name)))
            }
            None => label(text).then(|| Self::Namespace(text.into())),
        }
    }
}

/// Why a record is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A list lacked too many services.
    List { missing: u64, of: u64 },
    /// A list lacked every record of a class that had many.
    Class { class: Class, of: u64 },
    /// Too many services were deleted within a short time.
    Deletes { deleted: u64, of: u64 },
    /// Too many services were deleted with their namespaces within a short time.
    Namespaces { deleted: u64, of: u64 },
    /// The namespace was deleted and is in `guard.protect`.
    Protected,
    /// Too many endpoints of too many services went away within a short time.
    Endpoints { lost: u64, of: u64, services: u64 },
    /// The source shows another cluster, of this UID.
    Cluster { uid: Arc<str> },
}

impl Reason {
    /// Whether the deletion is only a claim: the record is absent from a list.
    pub fn is_claim(&self) -> bool {
        matches!(self, Self::List { .. } | Self::Class { .. } | Self::Cluster { .. })
    }

    /// The rule that fired, for people.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::List { .. } => "a list that lacks more services than guard.list_percent is not believed",
            Self::Class { .. } => "a list that lacks a whole class of records is not believed (guard.class_min)",
            Self::Deletes { .. } => "too many services deleted within a short time (guard.deletes_percent)",
            Self::Namespaces { .. } => "most of the cluster deleted with its namespaces (guard.meant_percent)",
            Self::Protected => "the namespace is protected (guard.protect)",
            Self::Endpoints { .. } => "too many endpoints of too many services gone at once (guard.losses_percent)",
            Self::Cluster { .. } => "records of another cluster are not used until `holdfast guard accept-cluster`",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { missing, of } => write!(f, "the source's list is missing {missing} of {of} services"),
            Self::Class { class, of } => write!(f, "the source's list is missing all {of} {}", class.as_str()),
            Self::Deletes { deleted, of } => write!(f, "{deleted} of {of} services were deleted in a short time"),
            Self::Namespaces { deleted, of } => {
                write!(f, "{deleted} of {of} services were deleted with their namespaces in a short time")
            }
            Self::Protected => f.write_str("a protected namespace was deleted"),
            Self::Endpoints { lost, of, services } => {
                write!(f, "{lost} of {of} endpoints of {services} services were removed in a short time")
            }
            Self::Cluster { uid } => write!(f, "another cluster (UID {uid}) answers in place of this one"),
        }
    }
}

labels! {
    /// A class of records that should not become empty in one list. Encoded by its position.
    pub enum Class {
        ClusterIp = "services with cluster IPs",
        Headless = "headless services",
        ExternalName = "external names",
        /// Endpoints of more than one service.
        Endpoints = "endpoints",
        Namespaces = "namespaces",
    }
}

/// The end of a hold. An operator can end any hold, and the record's return ends it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ends {
    /// The first consistent list from then on that lacks the record.
    Listed(UnixMillis),
    ByOperator,
    At(UnixMillis),
}

/// The held part of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it: the source deleted it.
    Whole,
    /// These endpoints of a service: the source says they are gone or not ready. Sorted.
    Endpoints(Box<[IpAddr]>),
}

/// Why a record is still served that the source deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub kept: Kept,
    pub reason: Reason,
    pub since: UnixMillis,
    pub ends: Ends,
    /// A follower holds it against its hub, which could not know the record.
    pub refused: bool,
}

#[derive(Clone, PartialEq, Message)]
struct HoldMessage {
    /// As [`HeldKey::as_str`].
    #[prost(string, tag = "1")]
    key: String,
    /// Addresses of the endpoints held, 4 or 16 bytes each; none: all of the record.
    #[prost(bytes = "vec", repeated, tag = "2")]
    endpoints: Vec<Vec<u8>>,
    /// 1 list, 2 class, 3 deletes, 4 namespaces, 5 protected, 6 endpoints, 7 cluster.
    #[prost(uint32, tag = "3")]
    reason: u32,
    #[prost(uint64, tag = "4")]
    count: u64,
    #[prost(uint64, tag = "5")]
    of: u64,
    /// Services for `endpoints`, number of the class for `class`.
    #[prost(uint64, tag = "6")]
    more: u64,
    #[prost(string, tag = "7")]
    cluster: String,
    #[prost(uint64, tag = "8")]
    since_ms: u64,
    /// 0 by an operator, 1 by a list, 2 by time.
    #[prost(uint32, tag = "9")]
    ends: u32,
    #[prost(uint64, tag = "10")]
    ends_ms: u64,
    #[prost(bool, tag = "11")]
    refused: bool,
}

/// The canonical bytes of a hold, which digests are taken over.
pub fn encode_hold(key: &HeldKey, hold: &Hold) -> Vec<u8> {
    let endpoints = match &hold.kept {
        Kept::Whole => Vec::new(),
        Kept::Endpoints(ips) => ips.iter().map(super::codec::ip_bytes).collect(),
    };
    let (reason, count, of, more) = match &hold.reason {
        Reason::List { missing, of } => (1, *missing, *of, 0),
        Reason::Class { class, of } => (2, 0, *of, *class as u64),
        Reason::Deletes { deleted, of } => (3, *deleted, *of, 0),
        Reason::Namespaces { deleted, of } => (4, *deleted, *of, 0),
        Reason::Protected => (5, 0, 0, 0),
        Reason::Endpoints { lost, of, services } => (6, *lost, *of, *services),
        Reason::Cluster { .. } => (7, 0, 0, 0),
    };
    let cluster = match &hold.reason {
        Reason::Cluster { uid } => uid.to_string(),
        _ => String::new(),
    };
    let (ends, ends_ms) = match hold.ends {
        Ends::ByOperator => (0, 0),
        Ends::Listed(at) => (1, at.0),
        Ends::At(at) => (2, at.0),
    };
    let (key, since_ms, refused) = (key.as_str().to_owned(), hold.since.0, hold.refused);
    HoldMessage { key, endpoints, reason, count, of, more, cluster, since_ms, ends, ends_ms, refused }.encode_to_vec()
}

/// Reads a hold back.
///
/// # Errors
/// If the bytes are no hold, or one of its fields is out of range. Never panics, whatever the bytes.
pub fn decode_hold(bytes: &[u8]) -> Result<(HeldKey, Hold), DecodeError> {
    let message = HoldMessage::decode(bytes)?;
    let bad = |field, value: String| DecodeError::Field { key: format!("hold {:?}", message.key), field, value };
    let Some(key) = HeldKey::parse(&message.key) else { return Err(bad("key", message.key.clone())) };
    let HoldMessage { count, of, more, .. } = message;
    let reason = match message.reason {
        1 => Reason::List { missing: count, of },
        2 => {
            let class = usize::try_from(more).ok().and_then(|at| Class::ALL.get(at)).copied();
            Reason::Class { class: class.ok_or_else(|| bad("class", more.to_string()))?, of }
        }
        3 => Reason::Deletes { deleted: count, of },
        4 => Reason::Namespaces { deleted: count, of },
        5 => Reason::Protected,
        6 => Reason::Endpoints { lost: count, of, services: more },
        7 => Reason::Cluster { uid: message.cluster.as_str().into() },
        other => return Err(bad("reason", other.to_string())),
    };
    let ends_at = UnixMillis(message.ends_ms);
    let ends = match message.ends {
        0 => Ends::ByOperator,
        1 => Ends::Listed(ends_at),
        2 => Ends::At(ends_at),
        other => return Err(bad("ends", other.to_string())),
    };
    let mut ips = Vec::with_capacity(message.endpoints.len());
    for bytes in &message.endpoints {
        ips.push(super::codec::ip_from(bytes).ok_or_else(|| bad("endpoint", format!("{bytes:02x?}")))?);
    }
    let kept = if ips.is_empty() { Kept::Whole } else { Kept::Endpoints(ips.into()) };
    Ok((key, Hold { kept, reason, since: UnixMillis(message.since_ms), ends, refused: message.refused }))
}

/// Numbers of held records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldCounts {
    pub services: usize,
    /// Endpoints of services that the source has.
    pub endpoints: usize,
    pub namespaces: usize,
}

impl HeldCounts {
    pub fn add(&mut self, key: &HeldKey, hold: &Hold) {
        match (key, &hold.kept) {
            (HeldKey::Namespace(_), _) => self.namespaces += 1,
            (HeldKey::Service(_), Kept::Whole) => self.services += 1,
            (HeldKey::Service(_), Kept::Endpoints(ips)) => self.endpoints += ips.len(),
        }
    }
}

/// All holds of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// By name, services first.
    holds: BTreeMap<HeldKey, Arc<Hold>>,
    digest: Digest,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// The sum of the digests of all holds; 0 if there are none.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The services of which something is held, by name.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceKey, &Hold)> {
        self.holds.iter().filter_map(|(key, hold)| match key {
            HeldKey::Service(key) => Some((key, &**hold)),
            HeldKey::Namespace(_) => None,
        })
    }

    pub fn service(&self, key: &ServiceKey) -> Option<&Hold> {
        self.get(&HeldKey::Service(key.clone())).map(|hold| &**hold)
    }

    pub fn namespace(&self, name: &str) -> Option<&Hold> {
        self.get(&HeldKey::Namespace(name.into())).map(|hold| &**hold)
    }

    pub fn all(&self) -> impl Iterator<Item = (HeldKey, &Arc<Hold>)> {
        self.holds.iter().map(|(key, hold)| (key.clone(), hold))
    }

    pub fn get(&self, key: &HeldKey) -> Option<&Arc<Hold>> {
        self.holds.get(key)
    }

    pub(super) fn put(&mut self, key: HeldKey, hold: Arc<Hold>) {
        self.remove(&key);
        self.digest = self.digest.plus(Digest::of(&encode_hold(&key, &hold)));
        self.holds.insert(key, hold);
    }

    pub(super) fn remove(&mut self, key: &HeldKey) {
        if let Some(hold) = self.holds.remove(key) {
            self.digest = self.digest.minus(Digest::of(&encode_hold(key, &hold)));
        }
    }

    pub fn counts(&self) -> HeldCounts {
        let mut counts = HeldCounts::default();
        self.holds.iter().for_each(|(key, hold)| counts.add(key, hold));
        counts
    }

    /// How many records this process holds against its hub.
    pub fn refused(&self) -> usize {
        self.holds.values().filter(|hold| hold.refused).count()
    }

    /// When a list on a new connection can end holds, the earliest of them: of those refused here, or of the others.
    pub fn confirm_at(&self, refused: bool) -> Option<UnixMillis> {
        let listed = |hold: &Arc<Hold>| match hold.ends {
            Ends::Listed(at) if hold.refused == refused => Some(at),
            _ => None,
        };
        self.holds.values().filter_map(listed).min()
    }

    /// The reason of the latest hold.
    pub fn latest_reason(&self) -> Option<&Reason> {
        self.holds.values().max_by_key(|hold| hold.since).map(|hold| &hold.reason)
    }

    /// When a hold ends by time alone, the earliest of them.
    pub fn next_end(&self) -> Option<UnixMillis> {
        let timed = |(_, hold): (&ServiceKey, &Hold)| match hold.ends {
            Ends::At(at) => Some(at),
            Ends::Listed(_) | Ends::ByOperator => None,
        };
        self.services().filter_map(timed).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_reads_back_as_it_was_written() {
        let key = HeldKey::Service(ServiceKey::new("prod", "db"));
        let ips = Kept::Endpoints(["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()].into());
        let reasons = [
            Reason::List { missing: 3, of: 4 },
            Reason::Class { class: Class::Namespaces, of: 20 },
            Reason::Deletes { deleted: 30, of: 118 },
            Reason::Namespaces { deleted: 60, of: 100 },
            Reason::Protected,
            Reason::Endpoints { lost: 9, of: 10, services: 51 },
            Reason::Cluster { uid: "other".into() },
        ];
        let ends = [Ends::ByOperator, Ends::Listed(UnixMillis(7)), Ends::At(UnixMillis(8))];
        for (n, reason) in reasons.into_iter().enumerate() {
            let kept = if n % 2 == 0 { Kept::Whole } else { ips.clone() };
            let hold = Hold { kept, reason, since: UnixMillis(5), ends: ends[n % 3], refused: n == 2 };
            let bytes = encode_hold(&key, &hold);
            assert_eq!(decode_hold(&bytes), Ok((key.clone(), hold)));
            for cut in 0..bytes.len() {
                let _ = decode_hold(&bytes[..cut]);
            }
        }
        let bad = HoldMessage { key: "a/b/c".into(), reason: 1, ..HoldMessage::default() };
        assert!(decode_hold(&bad.encode_to_vec()).is_err());
    }
}
