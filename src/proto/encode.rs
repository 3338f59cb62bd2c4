//! Records to frames. Each frame is made once and shared by every subscriber that needs it.

use std::sync::Arc;

use bytes::Bytes;

pub use super::pack::framed;
use super::{
    Batch, Changes, Contents, Drain, Frame, FrameKind, Mark, Mode, PROTOCOL, Part, StateReply, Verdicts, VerdictsBody,
    Welcome, pack::pack, root_bytes, wire_epochs, wire_released, wire_version,
};
use crate::{
    record::{BUCKETS, Change, Released, Service, Snapshot, Version, encode_hold, encode_service},
    sys::UnixMillis,
};

/// A frame is closed when its records reach this size; far below [`super::UNPACKED_BYTES_MAX`].
const BODY_BYTES: usize = 4 << 20;
/// For frames made again and again: batches, single buckets.
const LEVEL_LIVE: i32 = 3;
/// For the snapshot, which is made once and sent to thousands.
const LEVEL_SNAPSHOT: i32 = 12;

/// The state of a hub's records: version, age, source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// When the source last confirmed them.
    pub as_of: UnixMillis,
    /// Why the source is out of reach; `None` while it is not.
    pub lost: Option<String>,
    /// The hubs from the source to the client; the one that speaks comes first.
    pub path: Vec<String>,
    /// Over how long clients spread their first retry, in ms.
    pub window_ms: u32,
    /// Where else clients may go.
    pub hubs: Vec<String>,
    /// When a guard on the path last let deletions pass; 0 if never. For readers that know no holds.
    pub let_go: UnixMillis,
    /// The clock of the sending hub, which the other times refer to; 0 from a hub that does not send it.
    pub now: UnixMillis,
    /// The last releases by operators, the oldest first.
    pub releases: Vec<Released>,
    /// The hub says which of its records are held. One that does not is of an older release.
    pub verdicts: bool,
}

fn frame(kind: FrameKind) -> Bytes {
    framed(&Frame { kind: Some(kind) })
}

/// The first frame of a stream.
pub fn welcome(mode: Mode, node: &str) -> Bytes {
    let node = node.to_owned();
    frame(FrameKind::Welcome(Welcome { protocol: PROTOCOL, mode: mode.into(), node, reason: String::new() }))
}

/// The welcome of a hub that has nothing to give yet, and why.
pub fn wait(node: &str, reason: &str) -> Bytes {
    let (node, reason) = (node.to_owned(), reason.to_owned());
    frame(FrameKind::Welcome(Welcome { protocol: PROTOCOL, mode: Mode::Wait.into(), node, reason }))
}

/// The heartbeat, and the end of a run of parts.
pub fn mark(snapshot: &Snapshot, vouched: &Vouched) -> Bytes {
    frame(FrameKind::Mark(mark_message(snapshot, vouched)))
}

fn mark_message(snapshot: &Snapshot, vouched: &Vouched) -> Mark {
    Mark {
        version: Some(wire_version(snapshot.version())),
        root: root_bytes(snapshot.root()),
        as_of_ms: vouched.as_of.0,
        lost: vouched.lost.clone().unwrap_or_default(),
        path: vouched.path.clone(),
        window_ms: vouched.window_ms,
        hubs: vouched.hubs.clone(),
        let_go_ms: vouched.let_go.0,
        now_ms: vouched.now.0,
        held: snapshot.held().digest().to_bytes().to_vec().into(),
        releases: vouched.releases.iter().map(wire_released).collect(),
    }
}

/// A hub's state, for clients that do not follow it.
pub fn state_reply(snapshot: &Snapshot, vouched: Vouched, serves: String) -> StateReply {
    let has_records = !snapshot.version().cluster.is_empty();
    StateReply {
        version: has_records.then(|| wire_version(snapshot.version())),
        as_of_ms: vouched.as_of.0,
        now_ms: vouched.now.0,
        lost: vouched.lost.unwrap_or_default(),
        path: vouched.path,
        hubs: vouched.hubs,
        serves,
    }
}

/// The notice that a hub leaves.
pub fn drain(window_ms: u32, hubs: &[String]) -> Bytes {
    frame(FrameKind::Drain(Drain { window_ms, hubs: hubs.to_vec() }))
}

/// The batch that leads from version `from` to `to`: one frame, or a run of them when it is large.
///
/// `changed_ms` says when objects behind it changed, `made` when the batch is made.
pub fn batch(
    from: &Version,
    changes: &[Change],
    to: &Snapshot,
    vouched: &Vouched,
    changed_ms: Vec<u64>,
    made: UnixMillis,
) -> Bytes {
    let epochs = if from.epoch == to.version().epoch { Vec::new() } else { wire_epochs(to.lineage()) };
    let mut bodies = vec![Changes { changed_ms, epochs, ..Changes::default() }];
    let mut size = 0;
    for change in changes {
        if size >= BODY_BYTES {
            bodies.push(Changes::default());
            size = 0;
        }
        let body = bodies.last_mut().expect("never empty");
        match change {
            Change::Put(service) => {
                let bytes = encode_service(service);
                size += bytes.len();
                body.put.push(bytes.into());
            }
            Change::Remove(key) => {
                size += key.as_str().len();
                body.remove.push(key.as_str().to_owned());
            }
            Change::PutNamespace(name) => body.put_namespaces.push(name.to_string()),
            Change::RemoveNamespace(name) => body.remove_namespaces.push(name.to_string()),
            Change::Hold(key, hold) => {
                let bytes = encode_hold(key, hold);
                size += bytes.len();
                body.hold.push(bytes.into());
            }
            Change::Release(key) => {
                size += key.as_str().len();
                body.release.push(key.as_str().to_owned());
            }
        }
    }
    let last = bodies.len() - 1;
    let frames = bodies.iter().enumerate().map(|(index, body)| {
        let (unpacked_bytes, body) = pack(body, LEVEL_LIVE);
        let to = (index == last).then(|| mark_message(to, vouched));
        frame(FrameKind::Batch(Batch { from: Some(wire_version(from)), to, unpacked_bytes, body, made_ms: made.0 }))
    });
    concat(frames.collect())
}

fn concat(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 { frames.remove(0) } else { frames.concat().into() }
}

/// The holds and epochs of a snapshot: goes before the mark of a repair or snapshot.
pub fn verdicts(snapshot: &Snapshot) -> Bytes {
    let holds = snapshot.held().all().map(|(key, hold)| encode_hold(&key, hold).into()).collect();
    let body = VerdictsBody { holds, epochs: wire_epochs(snapshot.lineage()) };
    let (unpacked_bytes, body) = pack(&body, LEVEL_LIVE);
    frame(FrameKind::Verdicts(Verdicts { unpacked_bytes, body }))
}

pub fn bucket_part(snapshot: &Snapshot, bucket: usize) -> Bytes {
    part(snapshot, bucket..bucket + 1, LEVEL_LIVE)
}

/// All buckets, in as few frames as the size of the cluster allows.
pub fn snapshot_parts(snapshot: &Snapshot) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let (mut first, mut size) = (0, 0);
    for (index, bucket) in snapshot.buckets().iter().enumerate() {
        size += bucket.services().map(|service| rough_bytes(service)).sum::<usize>();
        if size >= BODY_BYTES || index + 1 == BUCKETS {
            parts.push(part(snapshot, first..index + 1, LEVEL_SNAPSHOT));
            (first, size) = (index + 1, 0);
        }
    }
    parts
}

fn rough_bytes(service: &Service) -> usize {
    96 + 40 * service.endpoints().len()
}

fn part(snapshot: &Snapshot, buckets: std::ops::Range<usize>, level: i32) -> Bytes {
    let held = &snapshot.buckets()[buckets.clone()];
    let mut services: Vec<&Arc<Service>> = held.iter().flat_map(|bucket| bucket.services()).collect();
    // Neighbours in the alphabet look alike, which zstd turns into fewer bytes.
    services.sort_by(|a, b| a.key().cmp(b.key()));
    let mut namespaces: Vec<String> =
        held.iter().flat_map(|bucket| bucket.listed_namespaces()).map(ToString::to_string).collect();
    namespaces.sort();
    let contents =
        Contents { services: services.into_iter().map(|service| encode_service(service).into()).collect(), namespaces };
    let (unpacked_bytes, body) = pack(&contents, level);
    let buckets = buckets.map(|bucket| u8::try_from(bucket).expect("256 buckets")).collect();
    frame(FrameKind::Part(Part { buckets, unpacked_bytes, body }))
}
