//! Writes to a store: one transaction from one state to the next, or a whole new file beside the old one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use prost::Message;
use redb::{Database, ReadableDatabase};

use super::{Config, layout};
use crate::{
    record::{Change, Snapshot, encode_hold, encode_service},
    sys::{self, UnixMillis},
};

/// redb's cache. The records are in memory already, so it only has to carry one transaction.
const CACHE_BYTES: usize = 1 << 20;

/// Why a write did not happen. What the disk holds then is either the state before or the one that was being written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{step} {}: {error}", path.display())]
    Io { step: &'static str, path: PathBuf, error: io::Error },
    #[error("{step} {}: {error}", path.display())]
    Redb { step: &'static str, path: PathBuf, error: Box<redb::Error> },
}

impl WriteError {
    /// There is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// The file was read, and makes no sense.
    pub(super) fn is_corrupt(&self) -> bool {
        let Self::Redb { error, .. } = self else { return false };
        match &**error {
            redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
            redb::Error::Io(error) => {
                matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
            }
            _ => false,
        }
    }
}

/// Names the step and the file in an error.
trait Step<T> {
    fn step(self, step: &'static str, path: &Path) -> Result<T, WriteError>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str, path: &Path) -> Result<T, WriteError> {
        self.map_err(|error| WriteError::Io { step, path: path.to_owned(), error })
    }
}

impl<T> Step<T> for Result<T, redb::Error> {
    fn step(self, step: &'static str, path: &Path) -> Result<T, WriteError> {
        self.map_err(|error| WriteError::Redb { step, path: path.to_owned(), error: Box::new(error) })
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
    pub(super) fn open(config: &Config) -> Result<Self, WriteError> {
        let path = layout::records_file(&config.path);
        let file = OpenOptions::new().read(true).write(true).open(&path).step("open", &path)?;
        Self::over(config, file, path)
    }

    /// Writes a new file that holds `snapshot`, and puts it in the place of the one that is there.
    ///
    /// Until the last step the old file stands as it was.
    pub(super) fn rewrite(config: &Config, snapshot: &Snapshot, as_of: UnixMillis) -> Result<Self, WriteError> {
        let aside = layout::rewrite_file(&config.path);
        let written = Self::write_new(config, &aside, snapshot, as_of);
        let mut made = match written {
            Ok(made) => made,
            Err(error) => {
                // Room that a full disk needs back; the error says more than this could.
                let _ = fs::remove_file(&aside);
                return Err(error);
            }
        };
        made.path = layout::records_file(&config.path);
        fs::rename(&aside, &made.path).step("replace", &made.path)?;
        sys::sync_directory(&config.path).step("sync", &config.path)?;
        Ok(made)
    }

    fn write_new(config: &Config, path: &Path, snapshot: &Snapshot, as_of: UnixMillis) -> Result<Self, WriteError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).step("remove", path),
            _ => {}
        }
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let made = Self::over(config, options.step("create", path)?, path.to_owned())?;
        made.put_all(snapshot, as_of).step("write", path)?;
        Ok(made)
    }

    fn over(config: &Config, file: File, path: PathBuf) -> Result<Self, WriteError> {
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
    pub(super) fn holds(&self, snapshot: &Snapshot) -> Result<bool, WriteError> {
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
    pub(super) fn commit(&self, before: &Snapshot, after: &Snapshot, as_of: UnixMillis) -> Result<(), WriteError> {
        self.put_difference(before, after, as_of).step("write", &self.path)
    }

    fn put_difference(&self, before: &Snapshot, after: &Snapshot, as_of: UnixMillis) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let changes = after.diff(before);
            let mut holds = write.open_table(layout::HOLDS)?;
            if !changes.is_empty() {
                let mut services = write.open_table(layout::SERVICES)?;
                let mut namespaces = write.open_table(layout::NAMESPACES)?;
                for change in changes {
                    match change {
                        Change::Put(service) => {
                            services.insert(service.key().as_str(), encode_service(&service).as_slice())?;
                        }
                        Change::Remove(key) => {
                            services.remove(key.as_str())?;
                        }
                        Change::PutNamespace(name) => {
                            namespaces.insert(&*name, ())?;
                        }
                        Change::RemoveNamespace(name) => {
                            namespaces.remove(&*name)?;
                        }
                        Change::Hold(key, hold) => {
                            holds.insert(key.as_str(), encode_hold(&key, &hold).as_slice())?;
                        }
                        Change::Release(key) => {
                            holds.remove(key.as_str())?;
                        }
                    }
                }
                let mut buckets = write.open_table(layout::BUCKETS)?;
                let digests = before.digests().zip(after.digests());
                for (number, (_, digest)) in (0..=u8::MAX).zip(digests).filter(|(_, (old, new))| old != new) {
                    buckets.insert(number, digest.0)?;
                }
            }
            let mut state = write.open_table(layout::STATE)?;
            state.insert(layout::STATE_KEY, layout::State::of(after, as_of).encode_to_vec().as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// Fills an empty file. Keys go in sorted: redb then packs pages full.
    fn put_all(&self, snapshot: &Snapshot, as_of: UnixMillis) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut sorted: Vec<_> = snapshot.services().collect();
            sorted.sort_unstable_by(|a, b| a.key().cmp(b.key()));
            let mut services = write.open_table(layout::SERVICES)?;
            for service in sorted {
                services.insert(service.key().as_str(), encode_service(service).as_slice())?;
            }
            let mut listed: Vec<_> = snapshot.listed_namespaces().collect();
            listed.sort_unstable();
            let mut namespaces = write.open_table(layout::NAMESPACES)?;
            for name in listed {
                namespaces.insert(&**name, ())?;
            }
            let mut holds = write.open_table(layout::HOLDS)?;
            for (key, hold) in snapshot.held().all() {
                holds.insert(key.as_str(), encode_hold(&key, hold).as_slice())?;
            }
            let mut buckets = write.open_table(layout::BUCKETS)?;
            for (number, digest) in (0..=u8::MAX).zip(snapshot.digests()) {
                buckets.insert(number, digest.0)?;
            }
            let mut state = write.open_table(layout::STATE)?;
            state.insert(layout::STATE_KEY, layout::State::of(snapshot, as_of).encode_to_vec().as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// Closes the file cleanly. A failure leaves what was committed, for the next open to repair.
    pub(super) fn close(self) -> Result<(), WriteError> {
        let Self { database, path, .. } = self;
        database.close().map_err(redb::Error::from).step("close", &path)
    }
}

fn inode_of(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
