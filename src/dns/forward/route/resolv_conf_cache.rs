//! The last servers of resolv.conf files, and the last addresses of upstreams that are given by name, kept on disk. They are used if
//! the file names no server after a restart, or the name cannot be looked up.
//!
//! Never decides whether they are asked.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::resolv_conf;
use crate::{
    dns::forward::upstream::Server,
    sys::{Lock, put_file, read_file},
    wire::Name,
};

/// Most files in the cache; a configuration names one or two.
const FILES_MAX: usize = 64;
/// Largest list read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The servers of files, by path. Clones share the place.
#[derive(Clone, Debug, Default)]
pub struct ResolvConfCache(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    file: PathBuf,
    /// Held while the file changes, for views have files of their own.
    changing: Lock<()>,
}

type Servers = BTreeMap<String, Vec<SocketAddr>>;

impl ResolvConfCache {
    /// In `file`, or not at all.
    #[must_use]
    pub fn in_file(file: Option<PathBuf>) -> Self {
        Self(file.map(|file| Arc::new(Place { file, changing: Lock::default() })))
    }

    /// The servers that `path` named last.
    pub fn last(&self, path: &Path) -> Vec<Server> {
        let named = path.to_str().map(|path| self.last_of(path)).unwrap_or_default().into_iter();
        named.map(|address| Server { address, tls: None, https: None }).collect()
    }

    /// The addresses that `host` had last.
    pub fn last_addresses(&self, host: &Name) -> Vec<IpAddr> {
        self.last_of(&host.to_string()).iter().map(SocketAddr::ip).collect()
    }

    fn last_of(&self, key: &str) -> Vec<SocketAddr> {
        let Some(place) = &self.0 else { return Vec::new() };
        let all = place.read().unwrap_or_else(|error| {
            tracing::warn!(%error, file = %place.file.display(), "cannot read the saved upstreams");
            Servers::default()
        });
        all.get(key).cloned().unwrap_or_default()
    }

    /// Remembers the addresses of `host`. Blocks.
    pub fn note_addresses(&self, host: &Name, addresses: &[IpAddr]) {
        // Paths begin with a slash.
        let addresses = addresses.iter().map(|ip| SocketAddr::new(*ip, 0)).collect();
        self.change(|all| drop(all.insert(host.to_string(), addresses)));
    }

    /// Reads each of `paths` and remembers the servers that it names, if any. Blocks.
    pub fn note(&self, paths: &[PathBuf]) {
        self.change(|all| {
            for path in paths {
                if let (Some(path), Ok(servers)) = (path.to_str(), resolv_conf::read(path)) {
                    all.insert(path.to_owned(), servers.iter().map(|server| server.address).collect());
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Servers)) {
        let Some(place) = &self.0 else { return };
        let _changing = place.changing.lock();
        let before = place.read().unwrap_or_default();
        let mut all = if before.len() < FILES_MAX { before.clone() } else { Servers::default() };
        change(&mut all);
        if all == before {
            return;
        }
        match serde_json::to_vec_pretty(&all)
            .map_err(io::Error::other)
            .and_then(|text| put_file(&place.file, &text, 0o640))
        {
            Ok(()) => tracing::debug!(files = all.len(), "upstreams of files saved to the store"),
            Err(error) => {
                tracing::warn!(%error, file = %place.file.display(), "cannot save the upstreams of files to the store");
            }
        }
    }
}

impl Place {
    fn read(&self) -> io::Result<Servers> {
        match read_file(&self.file, BYTES_MAX) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Servers::default()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn texts(servers: &[Server]) -> Vec<String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_file_named_last_is_known_while_it_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let kept = folder.path().join("upstreams.json");
        let note = |text: &str| {
            fs::write(&one, text).unwrap();
            ResolvConfCache::in_file(Some(kept.clone())).note(&[one.clone(), two.clone()]);
            texts(&ResolvConfCache::in_file(Some(kept.clone())).last(&one))
        };
        assert_eq!(note(""), [""; 0]);
        assert!(!kept.exists(), "there is nothing to keep");
        assert_eq!(note("nameserver 10.0.0.1\nnameserver 2001:db8::1\n"), ["10.0.0.1:53", "[2001:db8::1]:53"]);
        fs::write(&two, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(note("search example\n"), ["10.0.0.1:53", "[2001:db8::1]:53"]);
        assert_eq!(texts(&ResolvConfCache::in_file(Some(kept.clone())).last(&two)), ["10.0.0.2:53"]);
        let before = fs::metadata(&kept).unwrap().modified().unwrap();
        assert_eq!(note("nameserver 10.0.0.1\nnameserver 2001:db8::1\n").len(), 2);
        assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before, "written only when it changes");
        // An unreadable file counts as empty, and is written anew.
        fs::write(&kept, "[").unwrap();
        assert_eq!(texts(&ResolvConfCache::in_file(Some(kept.clone())).last(&one)), [""; 0]);
        assert_eq!(note("nameserver 10.0.0.3\n"), ["10.0.0.3:53"]);
    }

    #[test]
    fn addresses_of_names_are_known_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let kept = ResolvConfCache::in_file(Some(folder.path().join("upstreams.json")));
        let hosts: [Name; 2] = ["dns.example", "other.example"].map(|host| host.parse().unwrap());
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        kept.note_addresses(&hosts[0], &addresses);
        let after = ResolvConfCache::in_file(Some(folder.path().join("upstreams.json")));
        assert_eq!(after.last_addresses(&hosts[0]), addresses);
        assert!(after.last_addresses(&hosts[1]).is_empty());
    }

    #[test]
    fn without_a_store_and_in_one_that_does_not_work_nothing_is_remembered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 10.0.0.1\n").unwrap();
        for resolv_conf_cache in
            [ResolvConfCache::default(), ResolvConfCache::in_file(Some("/nonexistent/upstreams.json".into()))]
        {
            resolv_conf_cache.note(&[file.path().to_owned()]);
            assert_eq!(texts(&resolv_conf_cache.last(file.path())), [""; 0]);
        }
    }
}
