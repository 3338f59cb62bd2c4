//! Addresses of peers, kept over restarts: hubs heard of on the stream, the apiserver's own addresses. Never looks a name up.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::sys::{Lock, put_file, read_file};

/// File of hub addresses in the directory of the store.
const HUBS: &str = "hubs.json";
/// File of the apiserver's addresses in the directory of the store.
const APISERVERS: &str = "apiservers.json";
/// Most bytes read of it: it has a few dozen addresses.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Keeps a list of addresses.
pub type Keep = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Addresses learnt, kept over restarts.
#[derive(Clone)]
pub struct Learnt {
    pub known: Vec<String>,
    /// Keeps these instead; called when the list changes.
    pub keep: Keep,
}

impl Learnt {
    /// Keeps nothing beyond this process.
    pub fn nothing() -> Self {
        Self { known: Vec::new(), keep: Arc::new(|_| {}) }
    }

    /// Hubs, kept in the store's `directory`.
    pub fn in_store(directory: &Path) -> Self {
        Self::in_file(directory.join(HUBS))
    }

    /// Addresses of the apiserver, kept in the store's `directory`.
    pub fn apiservers(directory: &Path) -> Self {
        Self::in_file(directory.join(APISERVERS))
    }

    /// A file that cannot be read or written costs a warning and nothing else.
    fn in_file(path: PathBuf) -> Self {
        let known = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %path.display(), %error, "cannot read the saved addresses");
            }
            Vec::new()
        });
        let latest: Arc<Lock<Vec<String>>> = Arc::default();
        let writing: Arc<Lock<()>> = Arc::default();
        let keep = move |addresses: &[String]| {
            addresses.clone_into(&mut latest.lock());
            let (path, latest, writing) = (path.clone(), Arc::clone(&latest), Arc::clone(&writing));
            // A slow disk must not hold up the stream.
            tokio::task::spawn_blocking(move || {
                // A single write at a time, each of the latest list: an older list must not come last.
                let _one = writing.lock();
                let addresses = latest.lock().clone();
                if let Err(error) = write(&path, &addresses) {
                    tracing::warn!(file = %path.display(), %error, "cannot save the addresses");
                }
            });
        };
        Self { known, keep: Arc::new(keep) }
    }
}

fn read(path: &Path) -> io::Result<Vec<String>> {
    serde_json::from_slice(&read_file(path, FILE_BYTES_MAX)?).map_err(io::Error::other)
}

fn write(path: &Path, addresses: &[String]) -> io::Result<()> {
    put_file(path, &serde_json::to_vec(addresses)?, 0o640)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn addresses_are_read_back_and_a_broken_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Learnt::in_store(dir.path()).known.is_empty());
        let addresses = ["10.0.0.1:7443".to_owned(), "[fd00::1]:7443".to_owned()];
        write(&dir.path().join(HUBS), &addresses).unwrap();
        assert_eq!(Learnt::in_store(dir.path()).known, addresses);
        fs::write(dir.path().join(HUBS), "[\"10.0").unwrap();
        assert!(Learnt::in_store(dir.path()).known.is_empty());
    }
}
