//! The next snapshot while an update is being decided.

use std::{net::IpAddr, sync::Arc};

use crate::{
    record::{Change, Endpoint, Ends, HeldKey, Hold, Kept, Service, ServiceKey, Snapshot},
    sys::UnixMillis,
};

/// The served records with the changes decided so far. Makes only changes that differ.
#[derive(Debug)]
pub(in crate::store) struct Draft {
    snapshot: Snapshot,
    /// Records that differ from before.
    pub changes: usize,
    /// Changes other than records that are new.
    pub losses: usize,
    /// Holds that begin, change or end.
    pub holds: usize,
}

impl Draft {
    pub(in crate::store) fn of(served: &Snapshot) -> Self {
        Self { snapshot: served.clone(), changes: 0, losses: 0, holds: 0 }
    }

    pub(in crate::store) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(in crate::store) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// Whether anything differs from before.
    pub(in crate::store) fn differs(&self) -> bool {
        self.changes + self.holds > 0
    }

    pub(super) fn hold_of(&self, key: &ServiceKey) -> Option<&Hold> {
        self.snapshot.held().service(key)
    }

    /// Whether all of the service is held.
    pub(super) fn holds_whole(&self, key: &ServiceKey) -> bool {
        self.hold_of(key).is_some_and(|hold| hold.kept == Kept::Whole)
    }

    pub(super) fn put(&mut self, service: &Arc<Service>) {
        let before = self.snapshot.service_by_key(service.key());
        if before.is_some_and(|before| before.digest() == service.digest()) {
            return;
        }
        self.losses += usize::from(before.is_some());
        self.changes += 1;
        self.snapshot.make(Change::Put(Arc::clone(service)));
    }

    /// Removes a service and its hold.
    pub(super) fn remove(&mut self, key: &ServiceKey) {
        self.release(&HeldKey::Service(key.clone()));
        if self.snapshot.service_by_key(key).is_some() {
            self.changes += 1;
            self.losses += 1;
            self.snapshot.make(Change::Remove(key.clone()));
        }
    }

    pub(super) fn put_namespace(&mut self, name: &Arc<str>) {
        self.release(&HeldKey::Namespace(Arc::clone(name)));
        if !self.snapshot.lists_namespace(name) {
            self.changes += 1;
            self.snapshot.make(Change::PutNamespace(Arc::clone(name)));
        }
    }

    /// Removes a namespace and its hold.
    pub(super) fn remove_namespace(&mut self, name: &Arc<str>) {
        self.release(&HeldKey::Namespace(Arc::clone(name)));
        if self.snapshot.lists_namespace(name) {
            self.changes += 1;
            self.losses += 1;
            self.snapshot.make(Change::RemoveNamespace(Arc::clone(name)));
        }
    }

    /// Removes the record, whatever it is, and its hold.
    pub(super) fn remove_held(&mut self, key: &HeldKey) {
        match key {
            HeldKey::Service(key) => self.remove(key),
            HeldKey::Namespace(name) => self.remove_namespace(name),
        }
    }

    pub(super) fn hold(&mut self, key: HeldKey, hold: Hold) {
        if self.snapshot.held().get(&key).is_none_or(|before| **before != hold) {
            self.holds += 1;
            self.snapshot.make(Change::Hold(key, Arc::new(hold)));
        }
    }

    /// Moves beginning and end of these holds by `by_ms`.
    pub(in crate::store) fn move_holds(&mut self, by_ms: i64, which: impl Fn(&Hold) -> bool) {
        let moved = |at: UnixMillis| at.moved_ms(by_ms);
        let held = Arc::clone(self.snapshot.held());
        for (key, hold) in held.all().filter(|(_, hold)| which(hold)) {
            let ends = match hold.ends {
                Ends::Listed(at) => Ends::Listed(moved(at)),
                Ends::At(at) => Ends::At(moved(at)),
                Ends::ByOperator => Ends::ByOperator,
            };
            self.hold(key, Hold { since: moved(hold.since), ends, ..(**hold).clone() });
        }
    }

    pub(super) fn release(&mut self, key: &HeldKey) {
        if self.snapshot.held().get(key).is_some() {
            self.holds += 1;
            self.snapshot.make(Change::Release(key.clone()));
        }
    }

    /// Makes a change a hub decided.
    pub(super) fn make(&mut self, change: &Change) {
        match change {
            Change::Put(service) => self.put(service),
            Change::Remove(key) => self.remove(key),
            Change::PutNamespace(name) => self.put_namespace(name),
            Change::RemoveNamespace(name) => self.remove_namespace(name),
            Change::Hold(key, hold) => self.hold(key.clone(), (**hold).clone()),
            Change::Release(key) => self.release(key),
        }
    }
}

/// The endpoints that were answered before and are not now.
pub(super) fn lost(before: &Service, after: &Service) -> Vec<Endpoint> {
    before.ready_endpoints().filter(|endpoint| !is_ready_at(after, endpoint.ip)).cloned().collect()
}

/// Whether the service answers with this address.
pub(super) fn is_ready_at(service: &Service, ip: IpAddr) -> bool {
    service.endpoints_at(ip).iter().any(|endpoint| endpoint.ready)
}

/// The service with these endpoints in place of its own at the same addresses.
pub(super) fn with_endpoints(service: &Service, kept: &[Endpoint]) -> Service {
    let own = service.endpoints().iter().filter(|own| kept.iter().all(|kept| kept.ip != own.ip));
    let endpoints = own.chain(kept).cloned().collect();
    Service::new(service.key().clone(), service.kind().clone(), service.ports().to_vec(), endpoints)
}

/// The service without the endpoints at these addresses.
pub(super) fn without(service: &Service, ips: &[IpAddr]) -> Service {
    let endpoints = service.endpoints().iter().filter(|endpoint| !ips.contains(&endpoint.ip)).cloned().collect();
    Service::new(service.key().clone(), service.kind().clone(), service.ports().to_vec(), endpoints)
}
