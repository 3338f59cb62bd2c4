//! How a subscriber is brought up to date: a pure decision.

use std::sync::Arc;

use super::ring::{Place, Ring};
use crate::{
    proto::{Hello, PROTOCOL, held_digest, record_digests, record_version},
    record::{BUCKETS, Digest, Version},
};

/// With more buckets different than this, everything is sent: the snapshot is shared by all and packed better.
const REPAIR_BUCKETS_MAX: usize = BUCKETS * 3 / 4;

/// The records a client has, from its request.
#[derive(Debug)]
pub(super) struct Have {
    pub version: Version,
    /// Shared by waiting subscribers that have the same.
    pub digests: Arc<[Digest]>,
    /// Of its holds; `None` from a client that knows none.
    pub held: Option<Digest>,
}

impl Have {
    /// `None` if it holds nothing, or says it in a way that is of no use.
    pub(super) fn of(hello: &Hello) -> Option<Self> {
        let version = record_version(hello.have.as_ref());
        let digests = record_digests(&hello.digests)?.into();
        let held = held_digest(&hello.held);
        (!version.cluster.is_empty()).then_some(Self { version, digests, held })
    }
}

#[derive(Debug)]
pub(super) enum Choice {
    /// Batches from this cursor on.
    Delta(u64, Arc<Place>),
    Repair(Vec<usize>),
    Snapshot,
    /// The client is ahead of us.
    Wait,
}

/// Decides for a client that holds `have`.
pub(super) fn choose(have: Option<&Have>, ring: &Ring) -> Choice {
    let Some(have) = have else { return Choice::Snapshot };
    let here = ring.place();
    if have.version.cluster != here.version.cluster {
        return Choice::Snapshot;
    }
    if have.version.follows(&here.version) {
        return Choice::Wait;
    }
    if let Some((cursor, place)) = ring.find(&have.version, &have.digests, have.held) {
        return Choice::Delta(cursor, place);
    }
    catch_up(&have.digests, here)
}

/// Repair or snapshot, whichever is less.
pub(super) fn catch_up(held: &[Digest], here: &Place) -> Choice {
    let differ: Vec<usize> = held
        .iter()
        .zip(&*here.digests)
        .enumerate()
        .filter(|(_, (held, here))| held != here)
        .map(|(at, _)| at)
        .collect();
    if differ.len() > REPAIR_BUCKETS_MAX { Choice::Snapshot } else { Choice::Repair(differ) }
}

/// Why a client is turned away at once; `None` if it is welcome.
///
/// `node` is our name, `path` the hubs we follow ourselves.
pub(super) fn refusal(hello: &Hello, node: &str, path: &[String]) -> Option<String> {
    if hello.protocol == 0 {
        return Some(format!("protocol {} is not spoken here, 1 to {PROTOCOL} are", hello.protocol));
    }
    if hello.node.is_empty() || hello.node.len() > 255 || hello.serves.len() > 255 {
        return Some("the name of a node has 1 to 255 bytes".into());
    }
    if hello.serves.is_empty() {
        return None;
    }
    if hello.node == node {
        return Some(format!("loop: hub {} follows itself", node.escape_default()));
    }
    path.contains(&hello.node).then(|| format!("loop: {node} follows {} already", hello.node.escape_default()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        proto::hello,
        record::{Change, Kind, Service, ServiceKey, Snapshot},
    };

    fn version(cluster: &str, epoch: u64, rev: u64) -> Version {
        Version { cluster: cluster.into(), epoch, rev }
    }

    fn cluster(from: u32, to: u32, at: Version) -> Snapshot {
        let services = (from..to).map(|n| {
            let kind = Kind::ClusterIp([std::net::IpAddr::from(n.to_be_bytes())].into());
            Change::Put(Arc::new(Service::new(ServiceKey::new("prod", &format!("s{n}")), kind, vec![], vec![])))
        });
        Snapshot::default().apply(services, at)
    }

    fn name(choice: &Choice) -> String {
        match choice {
            Choice::Delta(cursor, _) => format!("delta from {cursor}"),
            Choice::Repair(buckets) => format!("repair of {}", buckets.len()),
            Choice::Snapshot => "snapshot".into(),
            Choice::Wait => "wait".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_gets_the_least_that_brings_it_up_to_date() {
        let first = cluster(0, 1_000, version("uid", 2, 10));
        let second = cluster(0, 1_001, version("uid", 2, 12));
        let mut ring = Ring::new(Place::of(&first), 1 << 20, Duration::from_secs(600));
        ring.push(Bytes::from_static(b"batch"), Place::of(&second), Instant::now());
        let cases = [
            ("nothing held", Snapshot::default(), "snapshot"),
            ("another cluster", first.with_version(version("other", 2, 10)), "snapshot"),
            ("up to date", second.clone(), "delta from 1"),
            ("one batch behind", first.clone(), "delta from 0"),
            ("between batches", first.with_version(version("uid", 2, 11)), "repair of 1"),
            ("thrown away already", first.with_version(version("uid", 2, 3)), "repair of 1"),
            ("epoch before, same records", second.with_version(version("uid", 1, 99)), "repair of 0"),
            ("same version, other records", first.with_version(version("uid", 2, 12)), "repair of 1"),
            ("older and nearly all different", cluster(5_000, 6_000, version("uid", 1, 1)), "snapshot"),
            ("ahead in revision", second.with_version(version("uid", 2, 13)), "wait"),
            ("ahead in epoch", second.with_version(version("uid", 3, 1)), "wait"),
        ];
        for (case, held, expected) in cases {
            let have = Have::of(&hello("agent", "", &held));
            assert_eq!(name(&choose(have.as_ref(), &ring)), expected, "{case}");
        }
    }

    #[test]
    fn half_a_list_of_digests_is_none() {
        let mut said = hello("agent", "", &cluster(0, 3, version("uid", 1, 1)));
        assert!(Have::of(&said).is_some());
        said.digests.truncate(100);
        assert!(Have::of(&said).is_none());
    }

    #[test]
    fn circles_and_strangers_are_refused() {
        let path = ["leader".to_owned()];
        let cases = [
            ("agent-1", "", 1, None),
            ("agent-1", "", 7, None),
            ("hub", "", 1, None),
            ("relay", "10.0.0.2:7443", 1, None),
            ("hub", "10.0.0.1:7443", 1, Some("loop: hub hub follows itself")),
            ("leader", "10.0.0.3:7443", 1, Some("loop: hub follows leader already")),
            ("agent-1", "", 0, Some("protocol 0 is not spoken here, 1 to 1 are")),
            ("", "", 1, Some("the name of a node has 1 to 255 bytes")),
        ];
        for (node, serves, protocol, expected) in cases {
            let mut said = hello(node, serves, &Snapshot::default());
            said.protocol = protocol;
            assert_eq!(refusal(&said, "hub", &path).as_deref(), expected, "{node} {serves} {protocol}");
        }
    }
}
