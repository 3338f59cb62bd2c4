//! The layout of a store on disk: file names, tables, and the description of their state.
//!
//! ```text
//! <store.path>/                       0750
//!   owner                             locked by the process that writes; its pid and admin socket
//!   records-1.redb                    the records; the number is the format
//!   records-1.redb.new                a rewrite that did not finish; overwritten by the next
//!   records-1.redb.corrupt-<time>     set aside, never deleted by holdfast
//!   settings.yaml                     what the last process was started with (`config::kept`)
//!   pins.json, upstreams.json, hub-id, …   of the modules that write them
//! ```
//!
//! Tables of `records-1.redb`, all changed in one transaction: `state` (one [`State`] message), `buckets` (digest of each
//! bucket), `services` (`namespace/name` → [`encode_service`](crate::record::encode_service)), `namespaces` (those the
//! source listed), `holds` (key of a hold → [`encode_hold`](crate::record::encode_hold)). The format stands in the file's name and nowhere else, so it can be read whatever happened to the
//! inside, and a format of another database needs no reader of this one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use prost::Message;
use redb::TableDefinition;

use crate::{
    record::{Beginning, Digest, Lineage, RootDigest, Snapshot, Version},
    sys::{self, ASIDE_MAX, UnixMillis},
};

/// The format this holdfast writes, and the newest it reads. Format 1 is the first there was.
pub const FORMAT: u32 = 1;

/// Key [`STATE_KEY`] holds a [`State`].
pub(super) const STATE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("state");
pub(super) const STATE_KEY: &str = "state";
/// Bucket number to its digest.
pub(super) const BUCKETS: TableDefinition<'static, u8, u128> = TableDefinition::new("buckets");
/// `namespace/name` to the service's canonical bytes.
pub(super) const SERVICES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("services");
/// Key of a hold to its canonical bytes. A release that knows no holds neither reads nor changes it, but writes a [`State`]
/// without their digest.
pub(super) const HOLDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("holds");
/// Namespaces listed by the source.
pub(super) const NAMESPACES: TableDefinition<'static, &str, ()> = TableDefinition::new("namespaces");

/// The state of the tables, stored with them.
#[derive(Clone, PartialEq, Message)]
pub(super) struct State {
    #[prost(string, tag = "1")]
    pub cluster: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub rev: u64,
    /// When the source last confirmed the records, in milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub as_of: u64,
    /// [`RootDigest`], most significant byte first.
    #[prost(bytes = "vec", tag = "5")]
    pub root: Vec<u8>,
    /// Digest of the holds, most significant byte first; empty if the table of holds says nothing of this state.
    #[prost(bytes = "vec", tag = "6")]
    pub held: Vec<u8>,
    #[prost(message, repeated, tag = "7")]
    pub epochs: Vec<Epoch>,
}

/// An epoch of the history that led to the records.
#[expect(clippy::struct_field_names, reason = "two versions in one message")]
#[derive(Clone, PartialEq, Message)]
pub(super) struct Epoch {
    #[prost(string, tag = "1")]
    pub cluster: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The version it began from; of no cluster if there were no records.
    #[prost(string, tag = "3")]
    pub from_cluster: String,
    #[prost(uint64, tag = "4")]
    pub from_epoch: u64,
    #[prost(uint64, tag = "5")]
    pub from_rev: u64,
}

impl State {
    pub(super) fn of(snapshot: &Snapshot, as_of: UnixMillis) -> Self {
        let version = snapshot.version();
        Self {
            cluster: version.cluster.to_string(),
            epoch: version.epoch,
            rev: version.rev,
            as_of: as_of.0,
            root: snapshot.root().0.to_be_bytes().to_vec(),
            held: snapshot.held().digest().to_bytes().to_vec(),
            epochs: snapshot.lineage().beginnings().map(Epoch::of).collect(),
        }
    }

    pub(super) fn version(&self) -> Version {
        Version { cluster: self.cluster.as_str().into(), epoch: self.epoch, rev: self.rev }
    }

    pub(super) fn lineage(&self) -> Lineage {
        let version = |cluster: &str, epoch, rev| Version { cluster: cluster.into(), epoch, rev };
        let beginning = |epoch: &Epoch| Beginning {
            first: version(&epoch.cluster, epoch.epoch, 1),
            from: version(&epoch.from_cluster, epoch.from_epoch, epoch.from_rev),
        };
        self.epochs.iter().map(beginning).collect()
    }

    /// `None` if the state was written by a release that knows no holds.
    pub(super) fn held(&self) -> Option<Digest> {
        self.held.as_slice().try_into().ok().map(Digest::from_bytes)
    }

    pub(super) fn root(&self) -> Option<RootDigest> {
        self.root.as_slice().try_into().ok().map(|bytes| RootDigest(u128::from_be_bytes(bytes)))
    }
}

impl Epoch {
    fn of(beginning: &Beginning) -> Self {
        Self {
            cluster: beginning.first.cluster.to_string(),
            epoch: beginning.first.epoch,
            from_cluster: beginning.from.cluster.to_string(),
            from_epoch: beginning.from.epoch,
            from_rev: beginning.from.rev,
        }
    }
}

/// The file that holds the records in `directory`.
pub(super) fn records_file(directory: &Path) -> PathBuf {
    directory.join(format!("records-{FORMAT}.redb"))
}

/// Where a rewrite is prepared.
pub(super) fn rewrite_file(directory: &Path) -> PathBuf {
    directory.join(format!("records-{FORMAT}.redb.new"))
}

/// The newest format found in `directory`, if there is any store in it.
pub(super) fn newest_format(directory: &Path) -> io::Result<Option<u32>> {
    let mut newest = None;
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        newest = newest.max(name.to_str().and_then(format_of));
    }
    Ok(newest)
}

fn format_of(file: &str) -> Option<u32> {
    file.strip_prefix("records-")?.strip_suffix(".redb")?.parse().ok()
}

/// Renames the records file to `….corrupt-<time>` and says where it went.
pub(super) fn set_aside(directory: &Path, now: UnixMillis) -> io::Result<PathBuf> {
    let full = || io::Error::other(format!("{ASIDE_MAX} corrupt files are there already; move them away"));
    sys::set_aside(&records_file(directory), now)?.ok_or_else(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stands_in_the_name() {
        let cases = [
            ("records-1.redb", Some(1)),
            ("records-12.redb", Some(12)),
            ("records-1.redb.new", None),
            ("records-1.redb.corrupt-20241211T183000.250Z", None),
            ("records-.redb", None),
            ("records--1.redb", None),
            ("owner", None),
        ];
        for (name, format) in cases {
            assert_eq!(format_of(name), format, "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(newest_format(directory.path()).unwrap(), None);
        for name in ["records-1.redb", "records-3.redb", "records-9.redb.new"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(newest_format(directory.path()).unwrap(), Some(3));
    }

    #[test]
    fn with_too_many_corrupt_files_the_disk_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..=ASIDE_MAX {
            fs::write(records_file(directory.path()), n.to_string()).unwrap();
            let set_aside = set_aside(directory.path(), UnixMillis(0));
            let told = "8 corrupt files are there already; move them away".to_owned();
            assert_eq!(
                set_aside.map(|_| ()).map_err(|error| error.to_string()),
                if n < 8 { Ok(()) } else { Err(told) }
            );
        }
        assert_eq!(fs::read_to_string(records_file(directory.path())).unwrap(), "8");
    }
}
