//! Reads a store into memory and proves it whole, without touching it.
//!
//! The file is copied into memory first, and redb opens the copy. So one path serves the agent at start, the tools while
//! an agent writes, a directory without write permission, and a file that a killed process left: redb repairs
//! the copy. What comes out is checked twice: redb's checksum of every page, and our own digest of every
//! bucket, so a copy taken in the middle of a commit is either a state that was committed or is refused.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};

use super::layout;
use crate::{
    record::{Change, Digest, Snapshot, decode_hold, decode_service},
    sys::{Lock, UnixMillis, contained},
};

/// Largest file read: a cluster of a million services stays below it.
const FILE_BYTES_MAX: usize = 1 << 30;
/// redb's cache over the copy: it need not keep what is in memory already.
const CACHE_BYTES: usize = 256 * 1024;
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    /// When the source last confirmed them, as far as the disk knows: never later than it was.
    pub as_of: UnixMillis,
    /// The file they came from.
    pub file: PathBuf,
    pub bytes: u64,
    pub format: u32,
}

/// Why a file gave no records.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The file could not be read; its content may be good.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file was read, and does not verify.
    #[error("{0}")]
    Corrupt(String),
}

/// Loads and verifies one records file.
pub(super) fn load(file: &Path) -> Result<Loaded, LoadError> {
    let content = copy(&File::open(file)?)?;
    let bytes = content.len() as u64;
    let (snapshot, as_of) = from_bytes(content).map_err(LoadError::Corrupt)?;
    Ok(Loaded { snapshot, as_of, file: file.to_owned(), bytes, format: layout::FORMAT })
}

/// Verifies the content of a records file. Whatever the bytes are, this comes back.
pub(super) fn from_bytes(content: Vec<u8>) -> Result<(Snapshot, UnixMillis), String> {
    let read = contained(|| verified(Image::new(content)).map_err(|error| format!("{error:#}")));
    read.unwrap_or_else(|panic| Err(format!("redb gave up on it: {panic}")))
}

fn verified(image: Image) -> anyhow::Result<(Snapshot, UnixMillis)> {
    ensure!(image.bytes() != 0, "the file is empty");
    let database =
        Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(image)?;
    let read = database.begin_read()?;

    let table = read.open_table(layout::STATE)?;
    let bytes = table.get(layout::STATE_KEY)?.context("it says of no state")?;
    let state = layout::State::decode(bytes.value()).context("state")?;

    let mut changes = Vec::new();
    for row in read.open_table(layout::NAMESPACES)?.iter()? {
        changes.push(Change::PutNamespace(row?.0.value().into()));
    }
    for row in read.open_table(layout::SERVICES)?.iter()? {
        let (key, value) = row?;
        let service = decode_service(value.value()).with_context(|| format!("service {:?}", key.value()))?;
        let named = service.key();
        ensure!(named.as_str() == key.value(), "service {named:?} is stored as {:?}", key.value());
        changes.push(Change::Put(Arc::new(service)));
    }
    let snapshot = Snapshot::default().apply(changes, state.version());

    let stored = read.open_table(layout::BUCKETS)?;
    for (number, digest) in (0..=u8::MAX).zip(snapshot.digests()) {
        let expected = stored.get(number)?.map_or(Digest::default(), |value| Digest(value.value()));
        ensure!(digest == expected, "bucket {number} has digest {digest}, stored is {expected}");
    }
    let root = snapshot.root();
    ensure!(state.root() == Some(root), "the root digest is {root}, another is stored");

    // Written by a release that knows no holds.
    let Some(expected) = state.held() else { return Ok((snapshot, UnixMillis(state.as_of))) };
    let mut holds = Vec::new();
    for row in read.open_table(layout::HOLDS)?.iter()? {
        let (name, value) = row?;
        let (key, hold) = decode_hold(value.value()).with_context(|| format!("hold {:?}", name.value()))?;
        holds.push(Change::Hold(key, Arc::new(hold)));
    }
    let snapshot = snapshot.apply(holds, state.version()).with_lineage(Arc::new(state.lineage()));
    let digest = snapshot.held().digest();
    ensure!(digest == expected, "the holds have digest {digest}, stored is {expected}");
    Ok((snapshot, UnixMillis(state.as_of)))
}

/// Copies a file, which may be growing, up to its end or [`FILE_BYTES_MAX`].
fn copy(file: &File) -> io::Result<Vec<u8>> {
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(FILE_BYTES_MAX);
    let mut bytes = Vec::with_capacity(expected + 1);
    loop {
        let at = bytes.len();
        bytes.resize(at + CHUNK_BYTES.min(expected.saturating_sub(at)).max(1), 0);
        let read = match file.read_at(&mut bytes[at..], at as u64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                bytes.truncate(at);
                continue;
            }
            read => read?,
        };
        bytes.truncate(at + read);
        if read == 0 {
            return Ok(bytes);
        }
        if bytes.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any store holdfast writes"));
        }
    }
}

/// A file's content in memory, as a storage of redb.
#[derive(Debug)]
struct Image {
    bytes: Lock<Vec<u8>>,
    /// Maximum size to which a damaged header may make it grow.
    bytes_max: usize,
}

impl Image {
    fn new(bytes: Vec<u8>) -> Self {
        let bytes_max = bytes.len() * 2 + CHUNK_BYTES * 16;
        Self { bytes: Lock::new(bytes), bytes_max }
    }

    fn bytes(&self) -> u64 {
        self.bytes.lock().len() as u64
    }
}

fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file")
}

fn range(offset: u64, len: usize, total: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(|_| out_of_range())?;
    let end = start.checked_add(len).filter(|end| *end <= total).ok_or_else(out_of_range)?;
    Ok(start..end)
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let range = range(offset, out.len(), bytes.len())?;
        out.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.bytes_max).ok_or_else(out_of_range)?;
        self.bytes.lock().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        let range = range(offset, data.len(), bytes.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
}
