//! The two kinds of shard a [`Snapshot`](super::Snapshot) is made of: buckets by name, and shards of the reverse index.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use hashbrown::HashTable;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::{Digest, Service, ServiceKey};

/// Longest `namespace/name` hashed on the stack: two DNS labels and the slash.
const KEY_BYTES_MAX: usize = 63 + 1 + 63;

/// Stable hash of a key: the same on every machine and in every version, for it decides the bucket.
pub(super) fn hash_key(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// [`hash_key`] of `namespace/name` without putting the string together.
pub(super) fn hash_parts(namespace: &[u8], name: &[u8]) -> u64 {
    let len = namespace.len() + 1 + name.len();
    if len <= KEY_BYTES_MAX {
        let mut key = [0; KEY_BYTES_MAX];
        key[..namespace.len()].copy_from_slice(namespace);
        key[namespace.len()] = b'/';
        key[namespace.len() + 1..len].copy_from_slice(name);
        return xxh3_64(&key[..len]);
    }
    let mut hasher = Xxh3Default::new();
    hasher.update(namespace);
    hasher.update(b"/");
    hasher.update(name);
    hasher.digest()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NamespaceEntry {
    /// The source listed the namespace itself.
    pub listed: bool,
    /// Services held in it; while there are any, the namespace exists even if it was not listed.
    pub services: u32,
}

/// Services and namespaces whose key hashes to one of the 256 buckets.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    services: HashTable<Arc<Service>>,
    namespaces: HashMap<Arc<str>, NamespaceEntry>,
    digest: Digest,
}

impl Bucket {
    /// The services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The namespaces the source listed, in no order.
    pub fn listed_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.iter().filter(|(_, entry)| entry.listed).map(|(name, _)| name)
    }

    /// Sum of the digests of its services and listed namespaces.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.namespaces.keys()
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&NamespaceEntry> {
        self.namespaces.get(name)
    }

    pub(super) fn find(&self, hash: u64, namespace: &[u8], name: &[u8]) -> Option<&Arc<Service>> {
        self.services
            .find(hash, |service| service.name().as_bytes() == name && service.namespace().as_bytes() == namespace)
    }

    /// Puts a service in, and returns the one it replaces.
    pub(super) fn put(&mut self, hash: u64, service: Arc<Service>) -> Option<Arc<Service>> {
        let before = self.remove(hash, service.key());
        self.digest = self.digest.plus(service.digest());
        self.services.insert_unique(hash, service, |service| hash_key(service.key().as_str()));
        before
    }

    pub(super) fn remove(&mut self, hash: u64, key: &ServiceKey) -> Option<Arc<Service>> {
        let found = self.services.find_entry(hash, |service| service.key() == key).ok()?;
        let (before, _) = found.remove();
        self.digest = self.digest.minus(before.digest());
        Some(before)
    }

    /// Lists a namespace, or strikes it off. False if that changed nothing.
    pub(super) fn list_namespace(&mut self, name: &Arc<str>, listed: bool) -> bool {
        let entry = self.namespaces.entry(Arc::clone(name)).or_default();
        let changed = entry.listed != listed;
        entry.listed = listed;
        if changed {
            let record = namespace_digest(name);
            self.digest = if listed { self.digest.plus(record) } else { self.digest.minus(record) };
        }
        self.forget_empty(name);
        changed
    }

    /// Counts a service into or out of its namespace.
    pub(super) fn count_service(&mut self, namespace: &str, more: bool) {
        let entry = self.namespaces.entry(namespace.into()).or_default();
        entry.services = if more { entry.services + 1 } else { entry.services.saturating_sub(1) };
        self.forget_empty(namespace);
    }

    fn forget_empty(&mut self, namespace: &str) {
        if self.namespaces.get(namespace) == Some(&NamespaceEntry::default()) {
            self.namespaces.remove(namespace);
        }
    }
}

/// Digest of a listed namespace; the leading slash keeps it apart from every service.
fn namespace_digest(name: &str) -> Digest {
    Digest::of(format!("/{name}").as_bytes())
}

/// A service that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub service: ServiceKey,
    /// True if the address is one of its cluster IPs, false if it is an endpoint's.
    pub cluster_ip: bool,
}

/// The services that hold one address; nearly always one.
#[derive(Clone, Debug)]
pub enum Holders {
    One(Holder),
    /// Two or more, in the order they came.
    Many(Vec<Holder>),
}

impl Holders {
    pub fn as_slice(&self) -> &[Holder] {
        match self {
            Self::One(holder) => std::slice::from_ref(holder),
            Self::Many(holders) => holders,
        }
    }
}

/// One shard of the reverse index.
#[derive(Clone, Debug, Default)]
pub(super) struct ReverseShard(HashMap<IpAddr, Holders>);

impl ReverseShard {
    pub(super) fn get(&self, ip: IpAddr) -> &[Holder] {
        self.0.get(&ip).map_or(&[], Holders::as_slice)
    }

    pub(super) fn add(&mut self, ip: IpAddr, holder: Holder) {
        use std::collections::hash_map::Entry;
        match self.0.entry(ip) {
            Entry::Vacant(entry) => {
                entry.insert(Holders::One(holder));
            }
            Entry::Occupied(mut entry) => {
                if !entry.get().as_slice().contains(&holder) {
                    let mut holders = entry.get().as_slice().to_vec();
                    holders.push(holder);
                    entry.insert(Holders::Many(holders));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, ip: IpAddr, holder: &Holder) {
        let Some(holders) = self.0.get(&ip) else { return };
        let mut left: Vec<Holder> = holders.as_slice().iter().filter(|held| *held != holder).cloned().collect();
        match left.len() {
            0 => self.0.remove(&ip),
            1 => self.0.insert(ip, Holders::One(left.remove(0))),
            _ => self.0.insert(ip, Holders::Many(left)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hashes_alike_whole_and_in_parts() {
        let long = "x".repeat(200);
        for (namespace, name) in [("prod", "db"), ("", ""), (long.as_str(), "db")] {
            assert_eq!(hash_key(&format!("{namespace}/{name}")), hash_parts(namespace.as_bytes(), name.as_bytes()));
        }
    }
}
