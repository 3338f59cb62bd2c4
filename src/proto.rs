//! The messages two holdfast processes exchange, as bytes and as records; and what a follower's copy must be after them.
//!
//! Shared by the hub's side (`stream`) and the client's side (`source::hub`), whose module docs tell the story of a
//! stream. Pure: never opens a socket, reads a clock or chooses a peer. Whatever a peer sends, nothing here
//! panics or unpacks more than [`UNPACKED_BYTES_MAX`].

mod encode;
mod mirror;
mod pack;

#[allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated; holdfast.proto holds the words")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/holdfast.v1.rs"));
}

pub use encode::{
    Vouched, batch, bucket_part, drain, framed, mark, snapshot_parts, state_reply, verdicts, wait, welcome,
};
pub use generated::{
    Batch, Changes, Contents, Drain, Epoch, Frame, Hello, Mark, Mode, Part, Released as WireReleased, StateReply,
    StateRequest, Verdicts, VerdictsBody, Version as WireVersion, Welcome, frame::Kind as FrameKind,
    records_client::RecordsClient,
};
pub use mirror::{Complete, Event, Fault, Mirror};
pub use pack::{GRPC_HEADER_BYTES, PackError, SplitError, split, split_bytes};

use crate::{
    record::{BUCKETS, Beginning, Digest, Lineage, Release, Released, RootDigest, Snapshot, Version},
    sys::UnixMillis,
};

impl Mode {
    pub const ALL: [Self; 4] = [Self::Wait, Self::Delta, Self::Repair, Self::Snapshot];

    /// The word for it in metrics and status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Repair => "repair",
            Self::Snapshot => "snapshot",
            Self::Wait => "wait",
        }
    }
}

/// The newest protocol spoken here. It grows only when an older reader could misread a newer writer; fields and kinds
/// of frames that an older reader may skip need no new number.
pub const PROTOCOL: u32 = 1;

/// Most bytes one part or batch frame may unpack to.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// Most bytes of one frame, gRPC header excluded.
pub const FRAME_BYTES_MAX: usize = UNPACKED_BYTES_MAX + (64 << 10);

/// Where the call is served: the path of every request.
pub const FOLLOW_PATH: &str = "/holdfast.v1.Records/Follow";

/// Where a hub says what it has.
pub const STATE_PATH: &str = "/holdfast.v1.Records/State";

/// Longest text of a peer that is logged or shown, in characters.
const TEXT_CHARS_MAX: usize = 512;

/// A text that a peer sent, as it may be logged and shown: on one line, without control characters, and cut.
pub fn shown(text: &str) -> String {
    let plain = |char: char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
    let mut shown: String = text.chars().take(TEXT_CHARS_MAX).map(plain).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// The version as it travels.
pub fn wire_version(version: &Version) -> WireVersion {
    WireVersion { cluster: version.cluster.to_string(), epoch: version.epoch, rev: version.rev }
}

/// The version a peer sent; unset is the version of nothing.
pub fn record_version(version: Option<&WireVersion>) -> Version {
    version.map_or_else(Version::default, |version| Version {
        cluster: version.cluster.as_str().into(),
        epoch: version.epoch,
        rev: version.rev,
    })
}

/// The digests of a snapshot's buckets as they travel in a [`Hello`].
pub fn wire_digests(digests: impl IntoIterator<Item = Digest>) -> bytes::Bytes {
    digests.into_iter().flat_map(Digest::to_bytes).collect()
}

/// The digests a peer sent; `None` unless there is one for each bucket.
pub fn record_digests(bytes: &[u8]) -> Option<Box<[Digest]>> {
    let (digests, rest) = bytes.as_chunks::<16>();
    (digests.len() == BUCKETS && rest.is_empty())
        .then(|| digests.iter().map(|bytes| Digest::from_bytes(*bytes)).collect())
}

/// The greeting of a client that holds `snapshot`.
pub fn hello(node: &str, serves: &str, snapshot: &Snapshot) -> Hello {
    let holds = !snapshot.version().cluster.is_empty();
    Hello {
        protocol: PROTOCOL,
        node: node.to_owned(),
        have: holds.then(|| wire_version(snapshot.version())),
        digests: if holds { wire_digests(snapshot.digests()) } else { bytes::Bytes::new() },
        serves: serves.to_owned(),
        held: snapshot.held().digest().to_bytes().to_vec().into(),
        refuses: 0,
    }
}

fn wire_epochs(lineage: &Lineage) -> Vec<Epoch> {
    let epoch = |beginning: &Beginning| Epoch {
        first: Some(wire_version(&beginning.first)),
        from: (!beginning.from.cluster.is_empty()).then(|| wire_version(&beginning.from)),
    };
    lineage.beginnings().map(epoch).collect()
}

fn record_lineage(epochs: &[Epoch]) -> Lineage {
    let beginning = |epoch: &Epoch| Beginning {
        first: record_version(epoch.first.as_ref()),
        from: record_version(epoch.from.as_ref()),
    };
    epochs.iter().map(beginning).collect()
}

/// The digest of holds a peer sent; `None` from one that knows none.
pub fn held_digest(bytes: &[u8]) -> Option<Digest> {
    <[u8; 16]>::try_from(bytes).ok().map(Digest::from_bytes)
}

fn wire_released(released: &Released) -> WireReleased {
    let (namespace, cluster) = match &released.which {
        Release::All => (String::new(), String::new()),
        Release::Namespace(name) => (name.clone(), String::new()),
        Release::Cluster(uid) => (String::new(), uid.to_string()),
    };
    WireReleased { at_ms: released.at.0, namespace, cluster }
}

fn record_released(wire: WireReleased) -> Released {
    let which = match (wire.namespace, wire.cluster) {
        (_, cluster) if !cluster.is_empty() => Release::Cluster(cluster.into()),
        (namespace, _) if !namespace.is_empty() => Release::Namespace(namespace),
        _ => Release::All,
    };
    Released { at: UnixMillis(wire.at_ms), which }
}

fn root_bytes(root: RootDigest) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&root.0.to_be_bytes())
}

fn root_from(bytes: &[u8]) -> Option<RootDigest> {
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| RootDigest(u128::from_be_bytes(bytes)))
}
