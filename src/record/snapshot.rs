//! An immutable set of records, and the next one made from it.
//!
//! A snapshot is 256 buckets behind `Arc`s, so the next one shares all but the few buckets a change touches. Readers hold
//! whole snapshots: whatever arrives in one step becomes visible in one step.

use std::{net::IpAddr, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    Bucket, Change, Digest, Held, Holder, Lineage, RootDigest, Service, ServiceKey, Version,
    bucket::{ReverseShard, hash_key, hash_parts},
};

/// The number of buckets. Part of the stream's and the disk's format.
pub const BUCKETS: usize = 256;

/// The namespace that a source lists which saw only part of a cluster: namespaces that are not listed are not known, instead of
/// absent. No namespace of a cluster can have this name; it travels to disk and followers like any other.
pub const PARTIAL: &str = "_partial";

/// Numbers of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    pub services: usize,
    /// Endpoints of all services, ready or not.
    pub endpoints: usize,
    pub namespaces: usize,
}

/// Every record of a cluster at one version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: Version,
    buckets: Box<[Arc<Bucket>]>,
    reverse: Box<[Arc<ReverseShard>]>,
    counts: Counts,
    partial: bool,
    held: Arc<Held>,
    lineage: Arc<Lineage>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::empty(Version::default())
    }
}

impl Snapshot {
    pub fn empty(version: Version) -> Self {
        let bucket = Arc::new(Bucket::default());
        let shard = Arc::new(ReverseShard::default());
        Self {
            version,
            buckets: vec![bucket; BUCKETS].into(),
            reverse: vec![shard; BUCKETS].into(),
            counts: Counts::default(),
            partial: false,
            held: Arc::default(),
            lineage: Arc::default(),
        }
    }

    /// The version these records are.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The same records under another version.
    #[must_use]
    pub fn with_version(&self, version: Version) -> Self {
        Self { version, ..self.clone() }
    }

    /// The records among these that the source deleted.
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// The epochs that lead to this version, as far as they are known.
    pub fn lineage(&self) -> &Arc<Lineage> {
        &self.lineage
    }

    /// The same records, reached by other epochs.
    #[must_use]
    pub fn with_lineage(self, lineage: Arc<Lineage>) -> Self {
        Self { lineage, ..self }
    }

    /// How many records there are.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The buckets, [`BUCKETS`] of them.
    pub fn buckets(&self) -> &[Arc<Bucket>] {
        &self.buckets
    }

    /// The buckets' digests, in order.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.buckets.iter().map(|bucket| bucket.digest())
    }

    /// The digest over all records. Versions and holds are not part of it.
    pub fn root(&self) -> RootDigest {
        RootDigest::over(self.digests())
    }

    /// The service with these lower-case labels.
    pub fn service(&self, namespace: &[u8], name: &[u8]) -> Option<&Arc<Service>> {
        let hash = hash_parts(namespace, name);
        self.buckets[index(hash)].find(hash, namespace, name)
    }

    pub fn service_by_key(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.service(key.namespace().as_bytes(), key.name().as_bytes())
    }

    /// Whether the source saw only part of the cluster: see [`PARTIAL`].
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Whether it is known if this namespace exists.
    pub fn knows_namespace(&self, namespace: &[u8]) -> bool {
        !self.partial || self.has_namespace(namespace)
    }

    /// Whether this lower-case namespace exists: listed by the source, or named by a service held.
    pub fn has_namespace(&self, namespace: &[u8]) -> bool {
        std::str::from_utf8(namespace)
            .is_ok_and(|name| name != PARTIAL && self.buckets[bucket_of_namespace(name)].namespace(name).is_some())
    }

    /// Whether the source listed this namespace.
    pub fn lists_namespace(&self, name: &str) -> bool {
        self.buckets[bucket_of_namespace(name)].namespace(name).is_some_and(|entry| entry.listed)
    }

    /// The services that hold an address.
    pub fn holders(&self, ip: IpAddr) -> &[Holder] {
        self.reverse[shard_of(ip)].get(ip)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.buckets.iter().flat_map(|bucket| bucket.services())
    }

    /// All namespaces that exist, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.buckets.iter().flat_map(|bucket| bucket.namespaces()).filter(|name| &***name != PARTIAL)
    }

    /// The namespaces the source listed, [`PARTIAL`] among them, in no order.
    pub fn listed_namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.buckets.iter().flat_map(|bucket| bucket.listed_namespaces())
    }

    /// The next snapshot: this one with the changes made in order, at `version`.
    ///
    /// Costs a clone of the bucket and of the reverse shards each change touches, whatever the total.
    #[must_use]
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>, version: Version) -> Self {
        let mut next = self.with_version(version);
        for change in changes {
            next.make(change);
        }
        next
    }

    /// The changes that lead from `before` to this snapshot, in no order. Buckets both share cost nothing.
    pub fn diff(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (now, before) in self.buckets.iter().zip(before.buckets.iter()) {
            if !Arc::ptr_eq(now, before) {
                diff_bucket(now, before, &mut changes);
            }
        }
        if !Arc::ptr_eq(&self.held, &before.held) {
            diff_held(&self.held, &before.held, &mut changes);
        }
        changes
    }

    /// Makes one change in place, under the same version.
    pub fn make(&mut self, change: Change) {
        match change {
            Change::Put(service) => self.put(&service),
            Change::Remove(key) => self.remove(&key),
            Change::PutNamespace(name) => self.list_namespace(&name, true),
            Change::RemoveNamespace(name) => self.list_namespace(&name, false),
            Change::Hold(key, hold) => Arc::make_mut(&mut self.held).put(key, hold),
            Change::Release(key) => {
                if self.held.get(&key).is_some() {
                    Arc::make_mut(&mut self.held).remove(&key);
                }
            }
        }
    }

    fn put(&mut self, service: &Arc<Service>) {
        let hash = hash_key(service.key().as_str());
        let before = Arc::make_mut(&mut self.buckets[index(hash)]).put(hash, Arc::clone(service));
        self.reindex(before.as_deref(), Some(service));
        self.counts.endpoints += service.endpoints().len();
        if let Some(before) = before {
            self.counts.endpoints -= before.endpoints().len();
        } else {
            self.counts.services += 1;
            self.count_in_namespace(service.namespace(), true);
        }
    }

    fn remove(&mut self, key: &ServiceKey) {
        if self.service_by_key(key).is_none() {
            return;
        }
        let hash = hash_key(key.as_str());
        let Some(before) = Arc::make_mut(&mut self.buckets[index(hash)]).remove(hash, key) else { return };
        self.reindex(Some(&before), None);
        self.counts.services -= 1;
        self.counts.endpoints -= before.endpoints().len();
        self.count_in_namespace(key.namespace(), false);
    }

    fn count_in_namespace(&mut self, namespace: &str, more: bool) {
        self.change_namespace(namespace, |bucket| bucket.count_service(namespace, more));
    }

    fn list_namespace(&mut self, name: &Arc<str>, listed: bool) {
        let held = self.buckets[bucket_of_namespace(name)].namespace(name).is_some_and(|entry| entry.listed);
        if held != listed {
            self.partial = if &**name == PARTIAL { listed } else { self.partial };
            self.change_namespace(name, |bucket| {
                bucket.list_namespace(name, listed);
            });
        }
    }

    fn change_namespace(&mut self, name: &str, change: impl FnOnce(&mut Bucket)) {
        let bucket = &mut self.buckets[bucket_of_namespace(name)];
        let before = usize::from(bucket.namespace(name).is_some());
        change(Arc::make_mut(bucket));
        if name == PARTIAL {
            return;
        }
        self.counts.namespaces = self.counts.namespaces - before + usize::from(bucket.namespace(name).is_some());
    }

    /// Brings the reverse index from one state of a service to the next, touching only addresses that differ.
    fn reindex(&mut self, before: Option<&Service>, after: Option<&Service>) {
        let Some(key) = before.or(after).map(Service::key) else { return };
        let (old, new) = (sorted_addresses(before), sorted_addresses(after));
        for &(ip, cluster_ip) in old.iter().filter(|address| new.binary_search(address).is_err()) {
            let holder = Holder { service: key.clone(), cluster_ip };
            Arc::make_mut(&mut self.reverse[shard_of(ip)]).remove(ip, &holder);
        }
        for &(ip, cluster_ip) in new.iter().filter(|address| old.binary_search(address).is_err()) {
            let holder = Holder { service: key.clone(), cluster_ip };
            Arc::make_mut(&mut self.reverse[shard_of(ip)]).add(ip, holder);
        }
    }
}

fn sorted_addresses(service: Option<&Service>) -> Vec<(IpAddr, bool)> {
    let mut addresses: Vec<(IpAddr, bool)> = service.into_iter().flat_map(Service::addresses).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn diff_held(now: &Held, before: &Held, changes: &mut Vec<Change>) {
    for (key, hold) in now.all() {
        if before.get(&key) != Some(hold) {
            changes.push(Change::Hold(key, Arc::clone(hold)));
        }
    }
    changes.extend(before.all().map(|(key, _)| key).filter(|key| now.get(key).is_none()).map(Change::Release));
}

fn diff_bucket(now: &Bucket, before: &Bucket, changes: &mut Vec<Change>) {
    for service in now.services() {
        let hash = hash_key(service.key().as_str());
        let old = before.find(hash, service.namespace().as_bytes(), service.name().as_bytes());
        let same = old.is_some_and(|old| Arc::ptr_eq(old, service) || old.digest() == service.digest());
        if !same {
            changes.push(Change::Put(Arc::clone(service)));
        }
    }
    for service in before.services() {
        let hash = hash_key(service.key().as_str());
        if now.find(hash, service.namespace().as_bytes(), service.name().as_bytes()).is_none() {
            changes.push(Change::Remove(service.key().clone()));
        }
    }
    let listed = |bucket: &Bucket, name: &str| bucket.namespace(name).is_some_and(|entry| entry.listed);
    for name in now.listed_namespaces().filter(|name| !listed(before, name)) {
        changes.push(Change::PutNamespace(Arc::clone(name)));
    }
    for name in before.listed_namespaces().filter(|name| !listed(now, name)) {
        changes.push(Change::RemoveNamespace(Arc::clone(name)));
    }
}

/// The bucket a namespace's own entry lives in.
pub fn bucket_of_namespace(name: &str) -> usize {
    index(hash_key(name))
}

fn index(hash: u64) -> usize {
    usize::try_from(hash % BUCKETS as u64).expect("below 256")
}

fn shard_of(ip: IpAddr) -> usize {
    index(match ip {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Endpoint, Kind};

    fn cluster_ip(key: &str, ip: &str) -> Arc<Service> {
        let (namespace, name) = key.split_once('/').unwrap();
        let kind = Kind::ClusterIp([ip.parse().unwrap()].into());
        Arc::new(Service::new(ServiceKey::new(namespace, name), kind, vec![], vec![]))
    }

    fn headless(key: &str, ips: &[&str]) -> Arc<Service> {
        let (namespace, name) = key.split_once('/').unwrap();
        let endpoints = ips
            .iter()
            .map(|ip| Endpoint { ip: ip.parse().unwrap(), hostname: None, ports: [].into(), ready: true })
            .collect();
        Arc::new(Service::new(ServiceKey::new(namespace, name), Kind::Headless, vec![], endpoints))
    }

    fn version(rev: u64) -> Version {
        Version { cluster: "test".into(), epoch: 1, rev }
    }

    fn holders(snapshot: &Snapshot, ip: &str) -> Vec<String> {
        snapshot.holders(ip.parse().unwrap()).iter().map(|holder| holder.service.to_string()).collect()
    }

    #[test]
    fn the_bucket_of_a_name_is_part_of_the_format() {
        assert_eq!(index(hash_key("prod/db")), 174);
        assert_eq!(bucket_of_namespace("prod"), 66);
    }

    #[test]
    fn services_come_and_go_with_their_namespace_and_addresses() {
        let first = Snapshot::default().apply([Change::Put(cluster_ip("prod/web", "10.0.0.1"))], version(1));
        assert!(first.service(b"prod", b"web").is_some());
        assert!(first.has_namespace(b"prod"));
        assert_eq!(holders(&first, "10.0.0.1"), ["prod/web"]);
        assert_eq!(first.counts(), Counts { services: 1, endpoints: 0, namespaces: 1 });

        let moved = first.apply([Change::Put(cluster_ip("prod/web", "10.0.0.2"))], version(2));
        assert_eq!(holders(&moved, "10.0.0.1"), Vec::<String>::new());
        assert_eq!(holders(&moved, "10.0.0.2"), ["prod/web"]);
        assert_eq!(holders(&first, "10.0.0.1"), ["prod/web"], "a snapshot never changes");

        let gone = moved.apply([Change::Remove(ServiceKey::new("prod", "web"))], version(3));
        assert!(gone.service(b"prod", b"web").is_none());
        assert!(!gone.has_namespace(b"prod"));
        assert_eq!(gone.counts(), Counts::default());
        assert_eq!(gone.root(), Snapshot::default().root());
    }

    #[test]
    fn a_listed_namespace_needs_no_service_and_outlives_them() {
        let listed = Snapshot::default().apply([Change::PutNamespace("prod".into())], version(1));
        assert!(listed.has_namespace(b"prod"));
        let with = listed.apply([Change::Put(cluster_ip("prod/web", "10.0.0.1"))], version(2));
        let unlisted = with.apply([Change::RemoveNamespace("prod".into())], version(3));
        assert!(unlisted.has_namespace(b"prod"), "a service is still held in it");
        let without = with.apply([Change::Remove(ServiceKey::new("prod", "web"))], version(4));
        assert!(without.has_namespace(b"prod"));
        assert_eq!(without.root(), listed.root());
    }

    #[test]
    fn records_of_a_part_of_the_cluster_say_so_and_hide_the_mark() {
        let whole = Snapshot::default().apply([Change::Put(cluster_ip("prod/web", "10.0.0.1"))], version(1));
        assert!(!whole.is_partial() && whole.knows_namespace(b"other"));
        let part = whole.apply([Change::PutNamespace(PARTIAL.into())], version(2));
        assert!(part.is_partial() && part.knows_namespace(b"prod") && !part.knows_namespace(b"other"));
        assert!(!part.has_namespace(PARTIAL.as_bytes()) && part.namespaces().all(|name| &**name != PARTIAL));
        assert_eq!(part.counts(), whole.counts());
        assert_ne!(part.root(), whole.root(), "followers learn of it");
        let again = Snapshot::default().apply(part.diff(&Snapshot::default()), version(3));
        assert!(again.is_partial(), "over the disk and the stream too");
        let all = part.apply([Change::RemoveNamespace(PARTIAL.into())], version(4));
        assert!(!all.is_partial() && all.root() == whole.root());
        assert_eq!(all.counts(), whole.counts());
    }

    #[test]
    fn an_address_held_twice_is_found_twice_and_survives_one_loss() {
        let both = Snapshot::default().apply(
            [Change::Put(headless("a/x", &["10.1.0.1", "10.1.0.2"])), Change::Put(headless("b/y", &["10.1.0.1"]))],
            version(1),
        );
        assert_eq!(holders(&both, "10.1.0.1"), ["a/x", "b/y"]);
        let one = both.apply([Change::Put(headless("a/x", &["10.1.0.2"]))], version(2));
        assert_eq!(holders(&one, "10.1.0.1"), ["b/y"]);
        assert_eq!(holders(&one, "10.1.0.2"), ["a/x"]);
    }

    #[test]
    fn the_root_depends_on_the_records_and_not_on_their_order() {
        let a = Change::Put(cluster_ip("prod/a", "10.0.0.1"));
        let b = Change::Put(cluster_ip("prod/b", "10.0.0.2"));
        let ab = Snapshot::default().apply([a.clone(), b.clone()], version(1));
        let ba = Snapshot::default().apply([b, a.clone()], version(2));
        assert_eq!(ab.root(), ba.root());
        assert_ne!(ab.root(), Snapshot::default().apply([a], version(1)).root());
    }

    #[test]
    fn a_diff_applied_gives_the_other_snapshot() {
        let before = Snapshot::default().apply(
            [
                Change::PutNamespace("old".into()),
                Change::Put(cluster_ip("prod/stays", "10.0.0.1")),
                Change::Put(cluster_ip("prod/goes", "10.0.0.2")),
                Change::Put(headless("prod/changes", &["10.1.0.1"])),
            ],
            version(1),
        );
        let after = Snapshot::default().apply(
            [
                Change::PutNamespace("new".into()),
                Change::Put(cluster_ip("prod/stays", "10.0.0.1")),
                Change::Put(headless("prod/changes", &["10.1.0.1", "10.1.0.2"])),
            ],
            version(2),
        );
        let changes = after.diff(&before);
        assert_eq!(changes.len(), 4, "{changes:?}");
        let made = before.apply(changes, version(2));
        assert_eq!(made.root(), after.root());
        assert_eq!(made.counts(), after.counts());
        assert!(after.diff(&made).is_empty());
    }
}
