//! The Lease as it is read and written.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Candidate;
use crate::sys::UnixMillis;

/// Where the holder serves its stream.
const SERVES: &str = "holdfast.io/serves";
/// Which hub the holder is, whatever it is called (`super::identity`).
const HUB: &str = "holdfast.io/hub";
/// The epoch the holder stamps.
const EPOCH: &str = "holdfast.io/epoch";

/// A lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Lease {
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pub holder_identity: Option<String>,
    pub lease_transitions: Option<i64>,
    pub acquire_time: Option<String>,
}

/// The holder of a lease, as one candidate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Free,
    /// Ours, maybe of an earlier life.
    Ours,
    /// It was taken under our name where we serve, and with another store: ours of a life before we lost that, or a namesake's
    /// behind the same balancer.
    Here,
    /// It has our name, and was taken by another hub, or by this one before it moved.
    Namesake,
    Other,
}

impl Lease {
    /// The holder. Two hubs may have one name by mistake, so the lease is `us`'s only if its holder served at the same address,
    /// with the same store.
    pub(super) fn whose(&self, us: &Candidate) -> Whose {
        let hub = self.annotation(HUB);
        match self.holder() {
            None => Whose::Free,
            Some(holder) if holder != us.name => Whose::Other,
            // A Lease taken by a hub of an older release has no identity.
            Some(_) if self.serves() == us.serves && (hub.is_empty() || hub == us.hub) => Whose::Ours,
            Some(_) if self.serves() == us.serves && !us.serves.is_empty() => Whose::Here,
            Some(_) => Whose::Namesake,
        }
    }

    /// The holder; `None` if it is free.
    pub(super) fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Where the holder serves its stream; empty if it does not say.
    pub(super) fn serves(&self) -> &str {
        self.annotation(SERVES)
    }

    /// The last epoch a holder said it stamps; 0 if none did.
    pub(super) fn epoch(&self) -> u64 {
        self.annotation(EPOCH).parse().unwrap_or(0)
    }

    fn annotation(&self, name: &str) -> &str {
        self.metadata.annotations.get(name).map_or("", String::as_str)
    }
}

/// A lease to be written.
pub(super) struct Written<'a> {
    pub name: &'a str,
    /// Empty if it is let go.
    pub holder: &'a str,
    /// HOST:PORT where the holder serves its stream.
    pub serves: &'a str,
    pub hub: &'a str,
    pub epoch: u64,
    pub duration: Duration,
    pub now: UnixMillis,
    /// Its holder is another one than before.
    pub taken: bool,
}

impl Written<'_> {
    /// The request body, to replace `before` if there was one.
    pub(super) fn body(&self, before: Option<&Lease>) -> Value {
        let now = micro_time(self.now);
        let (serves, hub) = if self.holder.is_empty() { ("", "") } else { (self.serves, self.hub) };
        let mut metadata = json!({
            "name": self.name,
            "annotations": { SERVES: serves, HUB: hub, EPOCH: self.epoch.to_string() },
        });
        if let Some(before) = before {
            metadata["resourceVersion"] = before.metadata.resource_version.as_str().into();
        }
        let transitions = before.map_or(-1, |before| before.spec.lease_transitions.unwrap_or(0));
        let acquired = before.and_then(|before| before.spec.acquire_time.clone()).filter(|_| !self.taken);
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": self.duration.as_secs(),
                "leaseTransitions": transitions.saturating_add(i64::from(self.taken)).max(0),
                "acquireTime": acquired.unwrap_or_else(|| now.clone()),
                "renewTime": now,
            },
        })
    }
}

/// RFC 3339 with six digits, as `MicroTime` takes it.
fn micro_time(at: UnixMillis) -> String {
    let text = at.to_string();
    text.strip_suffix('Z').map_or(text.clone(), |text| format!("{text}000Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_reads_them() {
        assert_eq!(micro_time(UnixMillis(1_733_941_800_123)), "2024-12-11T18:30:00.123000Z");
    }

    #[test]
    fn a_lease_is_ours_if_it_was_taken_under_our_name_where_we_serve_and_with_our_store() {
        let us = |serves: &str| Candidate { hub: "1f".into(), ..Candidate::new("hub", "a", serves) };
        let taken = |holder, serves, hub| {
            let now = UnixMillis(1_000);
            let duration = Duration::from_secs(15);
            let body = Written { name: "hub", holder, serves, hub, epoch: 7, duration, now, taken: true }.body(None);
            serde_json::from_value::<Lease>(body).unwrap()
        };
        for (holder, serves, hub, whose, why) in [
            ("a", "10.0.0.1:7443", "1f", Whose::Ours, "a restart"),
            ("a", "10.0.0.1:7443", "", Whose::Ours, "taken before there were identities"),
            (
                "a",
                "10.0.0.2:7443",
                "1f",
                Whose::Namesake,
                "a copy of our store elsewhere, or a pod that came back elsewhere",
            ),
            ("a", "10.0.0.2:7443", "", Whose::Namesake, "elsewhere"),
            ("a", "10.0.0.1:7443", "2e", Whose::Here, "a restart without its store, or one address for all hubs"),
            ("a", "", "1f", Whose::Namesake, "it did not say where it serves, and we do"),
            ("b", "10.0.0.1:7443", "1f", Whose::Other, "another name"),
            ("", "", "", Whose::Free, "let go"),
        ] {
            assert_eq!(taken(holder, serves, hub).whose(&us("10.0.0.1:7443")), whose, "{why}");
        }
        // Neither says where it serves.
        assert_eq!(taken("a", "", "1f").whose(&us("")), Whose::Ours);
        assert_eq!(taken("a", "", "2e").whose(&us("")), Whose::Namesake);
    }

    #[test]
    fn a_renewal_keeps_what_a_change_of_holders_counts() {
        let mut written = Written {
            name: "hub",
            holder: "a",
            serves: "10.0.0.1:7443",
            hub: "1f",
            epoch: 7,
            duration: Duration::from_secs(15),
            now: UnixMillis(1_000),
            taken: true,
        };
        let read = |value: &Value| serde_json::from_value::<Lease>(value.clone()).unwrap();
        let spec = |value: &Value| (value["spec"]["leaseTransitions"].clone(), value["spec"]["acquireTime"].clone());
        let first = written.body(None);
        assert_eq!(spec(&first), (0.into(), "1970-01-01T00:00:01.000000Z".into()));
        assert_eq!((read(&first).serves(), read(&first).epoch()), ("10.0.0.1:7443", 7));
        (written.now, written.taken) = (UnixMillis(2_000), false);
        let renewed = written.body(Some(&read(&first)));
        assert_eq!(spec(&renewed), spec(&first));
        assert_eq!(renewed["spec"]["renewTime"], "1970-01-01T00:00:02.000000Z");
        (written.holder, written.taken) = ("b", true);
        assert_eq!(spec(&written.body(Some(&read(&renewed)))), (1.into(), "1970-01-01T00:00:02.000000Z".into()));
        (written.holder, written.taken) = ("", false);
        let free = read(&written.body(Some(&read(&renewed))));
        assert_eq!((free.holder(), free.serves(), free.epoch()), (None, "", 7), "an epoch is never forgotten");
    }
}
