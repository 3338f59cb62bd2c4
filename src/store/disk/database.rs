//! Writes to a store: one transaction from one state to the next, or a whole new file beside the old one.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use prost::Message;
use redb::{Database, ReadableDatabase};

use super::{Config, layout};
use crate::{
    record::{Change, Snapshot, encode_hold, encode_service},
    sys::{self, UnixMillis},
};

/// redb's cache. The records are in memory already, so it only has to carry one transaction.
const CACHE_BYTES: usize = 1 << 20;

/// There is no such file.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The file was read, and makes no sense.
pub(super) fn is_corrupt(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_)) => true,
        Some(redb::Error::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        }
        _ => false,
    }
}

/// Names the step and the file in an error. What the disk holds after a failed write is either the state before or the one
/// that was being written.
pub(super) trait Step<T> {
    fn step(self, step: &'static str, path: &Path) -> anyhow::Result<T>;
}

impl<T, E: Error + Send + Sync + 'static> Step<T> for Result<T, E> {
    fn step(self, step: &'static str, path: &Path) -> anyhow::Result<T> {
        self.with_context(|| format!("{step} {}", path.display()))
    }
}

/// A records file open for writing.
#[derive(Debug)]
pub(super) struct RecordsFile {
    database: Database,
    path: PathBuf,
    inode: (u64, u64),
}

impl RecordsFile {
    /// Opens the file that is there, repairing what a killed process left, and checks every page of it.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let path = layout::records_file(&config.path);
        let file = OpenOptions::new().read(true).write(true).open(&path).step("open", &path)?;
        Self::over(config, file, path)
    }

    /// Writes a new file that holds `snapshot`, and puts it in the place of the one that is there.
    ///
    /// Until the last step the old file stands as it was.
    pub(super) fn rewrite(config: &Config, snapshot: &Snapshot, as_of: UnixMillis) -> anyhow::Result<Self> {
        let aside = layout::rewrite_file(&config.path);
        // Room that a full disk needs back; the error says more than a second one could.
        let written = Self::write_new(config, &aside, snapshot, as_of).inspect_err(|_| drop(fs::remove_file(&aside)));
        let mut made = written?;
        made.path = layout::records_file(&config.path);
        fs::rename(&aside, &made.path).step("replace", &made.path)?;
        sys::sync_directory(&config.path).step("sync", &config.path)?;
        Ok(made)
    }

    fn write_new(config: &Config, path: &Path, snapshot: &Snapshot, as_of: UnixMillis) -> anyhow::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).step("remove", path),
            _ => {}
        }
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let made = Self::over(config, options.step("create", path)?, path.to_owned())?;
        made.commit(&Snapshot::default(), snapshot, as_of)?;
        Ok(made)
    }

    fn over(config: &Config, file: File, path: PathBuf) -> anyhow::Result<Self> {
        let inode = inode_of(&file.metadata().step("examine", &path)?);
        let backend = config.backend(file).map_err(redb::Error::from).step("open", &path)?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(redb::Error::from)
            .step("open", &path)?;
        Ok(Self { database, path, inode })
    }

    /// Whether the file still stands where it was opened.
    pub(super) fn in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| inode_of(&metadata) == self.inode)
    }

    /// Size of the file in bytes; 0 if it is gone.
    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// Whether the file holds these records, by their digests.
    pub(super) fn holds(&self, snapshot: &Snapshot) -> anyhow::Result<bool> {
        let stored = (|| -> Result<_, redb::Error> {
            let read = self.database.begin_read()?;
            let table = match read.open_table(layout::STATE) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let bytes = table.get(layout::STATE_KEY)?.map(|value| value.value().to_vec());
            Ok(bytes.and_then(|bytes| layout::State::decode(bytes.as_slice()).ok()))
        })()
        .step("read", &self.path)?;
        let same = |state: layout::State| {
            state.root() == Some(snapshot.root()) && state.held() == Some(snapshot.held().digest())
        };
        Ok(stored.is_some_and(same))
    }

    /// Makes the file hold `after`, given that it holds `before`: one transaction, durable when this returns.
    pub(super) fn commit(&self, before: &Snapshot, after: &Snapshot, as_of: UnixMillis) -> anyhow::Result<()> {
        self.put(before, after, as_of).step("write", &self.path)
    }

    /// Keys go in sorted: redb then packs the pages of a new file full.
    fn put(&self, before: &Snapshot, after: &Snapshot, as_of: UnixMillis) -> Result<(), redb::Error> {
        let mut changes = after.diff(before);
        changes.sort_unstable_by(|one, other| key_of(one).cmp(key_of(other)));
        let write = self.database.begin_write()?;
        {
            let mut services = write.open_table(layout::SERVICES)?;
            let mut namespaces = write.open_table(layout::NAMESPACES)?;
            let mut holds = write.open_table(layout::HOLDS)?;
            for change in &changes {
                let key = key_of(change);
                match change {
                    Change::Put(service) => drop(services.insert(key, encode_service(service).as_slice())?),
                    Change::Remove(_) => drop(services.remove(key)?),
                    Change::PutNamespace(_) => drop(namespaces.insert(key, ())?),
                    Change::RemoveNamespace(_) => drop(namespaces.remove(key)?),
                    Change::Hold(whose, hold) => drop(holds.insert(key, encode_hold(whose, hold).as_slice())?),
                    Change::Release(_) => drop(holds.remove(key)?),
                }
            }
            let mut buckets = write.open_table(layout::BUCKETS)?;
            let digests = before.digests().zip(after.digests());
            for (number, (_, digest)) in (0..=u8::MAX).zip(digests).filter(|(_, (old, new))| old != new) {
                buckets.insert(number, digest.0)?;
            }
            let mut state = write.open_table(layout::STATE)?;
            state.insert(layout::STATE_KEY, layout::State::of(after, as_of).encode_to_vec().as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// Closes the file cleanly. After a failure the next open repairs the file; commits are kept.
    pub(super) fn close(self) -> anyhow::Result<()> {
        let Self { database, path, .. } = self;
        database.close().map_err(redb::Error::from).step("close", &path)
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(service) => service.key().as_str(),
        Change::Remove(key) => key.as_str(),
        Change::PutNamespace(name) | Change::RemoveNamespace(name) => name,
        Change::Hold(key, _) | Change::Release(key) => key.as_str(),
    }
}

fn inode_of(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
