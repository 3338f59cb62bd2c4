//! The owner of a store: a locked file beside the records that names the process and its admin socket.
//!
//! The lock (`flock`) decides; what is written in the file is for people and for `ctl`. The kernel drops the lock with the
//! process, so nothing is left to clean up after a crash.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Name of the lock file in the store's directory.
const FILE: &str = "owner";
/// Longest text read from it.
const TEXT_BYTES_MAX: u64 = 8 * 1024;
/// How long to try for the lock: a reader that looks at it holds it for microseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// The process that has a store open.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// Its process id, as it sees itself; 0 if it could not be read.
    pub pid: u32,
    /// Its admin socket, if it has one.
    pub admin: Option<PathBuf>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, &self.admin) {
            (0, None) => f.write_str("another process"),
            (pid, None) => write!(f, "pid {pid}"),
            (pid, Some(admin)) => write!(f, "pid {pid} (admin socket {})", admin.display()),
        }
    }
}

/// The lock on a store's directory, held as long as this lives.
#[derive(Debug)]
pub(super) struct Ownership {
    _locked: File,
}

/// Why a directory could not be claimed.
#[derive(Debug)]
pub(super) enum ClaimError {
    Held(Owner),
    /// The lock file could not be opened or written.
    Io(io::Error),
}

impl Ownership {
    /// Claims `directory` for this process.
    pub(super) fn claim(directory: &Path, admin: Option<&Path>) -> Result<Self, ClaimError> {
        let path = directory.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(ClaimError::Io)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => return Err(ClaimError::Held(read_owner(&mut file))),
                Err(TryLockError::Error(error)) => return Err(ClaimError::Io(error)),
            }
        }
        let owner = Owner { pid: std::process::id(), admin: admin.map(Path::to_owned) };
        // The lock is what counts: on a full disk the file may stay empty, and the owner is "another process".
        let _ = write_owner(&mut file, &owner);
        Ok(Self { _locked: file })
    }
}

/// Whether there is, or was, a process that had a store in `directory`.
pub(super) fn is_named_in(directory: &Path) -> bool {
    directory.join(FILE).is_file()
}

/// The process that has the store in `directory` open, if there is one.
///
/// Takes the lock shared for a moment, which [`Ownership::claim`] waits out.
pub fn owner(directory: &Path) -> Option<Owner> {
    let mut file = File::open(directory.join(FILE)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_owner(&mut file)),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn write_owner(file: &mut File, owner: &Owner) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(owner)?)
}

fn read_owner(file: &mut File) -> Owner {
    let mut text = Vec::new();
    let read = file.rewind().and_then(|()| file.take(TEXT_BYTES_MAX).read_to_end(&mut text));
    read.ok().and_then(|_| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Makes the directory of a store, closed to everybody but its user and group.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().recursive(true).mode(0o750).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it is a file"))
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_at_a_time_and_the_owner_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(owner(directory.path()), None);
        let claimed = Ownership::claim(directory.path(), Some(Path::new("/run/holdfast/agent.sock"))).unwrap();
        let expected = Owner { pid: std::process::id(), admin: Some("/run/holdfast/agent.sock".into()) };
        assert_eq!(owner(directory.path()), Some(expected.clone()));
        match Ownership::claim(directory.path(), None) {
            Err(ClaimError::Held(owner)) => assert_eq!(owner, expected),
            other => panic!("{other:?}"),
        }
        drop(claimed);
        assert_eq!(owner(directory.path()), None);
        Ownership::claim(directory.path(), None).unwrap();
    }

    #[test]
    fn an_unreadable_owner_is_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let _claimed = Ownership::claim(directory.path(), None).unwrap();
        fs::write(directory.path().join(FILE), "nonsense").unwrap();
        assert_eq!(owner(directory.path()).unwrap().to_string(), "another process");
    }
}
