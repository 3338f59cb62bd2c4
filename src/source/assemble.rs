//! Puts services together from the objects the API keeps apart: a Service, its EndpointSlices, the Namespaces.
//!
//! Pure: objects in, [`Change`]s or complete [`Records`] out. Knows nothing of where objects come from, and never
//! drops a record because a newer version of an object is broken: a broken version rejects itself alone, the last good
//! one stands until the object is gone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub use super::convert::{Broken, NamespaceInput, Object, ServiceInput, SliceInput};
use super::{EndpointsMode, Objects};
use crate::{
    record::{Change, Digest, Endpoint, Kind, Service, ServiceKey},
    store::{Records, Rejection, Rejections},
};

/// Broken objects remembered by name; beyond that they are only counted until the next list.
const REJECTED_MAX: usize = 10_000;

/// Which list an object is on. One object is on one list, save a slice that moves from one selector to the other: it is
/// on both for a moment, and must not vanish when the old list drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Services,
    /// The slices labelled headless by the endpointslice controller; or all slices where one list has them all.
    Slices,
    /// The slices that other controllers and people made.
    OtherSlices,
    Namespaces,
}

impl Part {
    /// The kind of the objects on this list.
    pub fn objects(self) -> Objects {
        match self {
            Self::Services => Objects::Services,
            Self::Slices | Self::OtherSlices => Objects::Slices,
            Self::Namespaces => Objects::Namespaces,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SliceId {
    part: Part,
    key: ServiceKey,
}

/// Every object held, and the records last made of them.
#[derive(Debug)]
pub struct Assembler {
    mode: EndpointsMode,
    services: HashMap<ServiceKey, ServiceInput>,
    slices: HashMap<SliceId, SliceInput>,
    slices_of: HashMap<ServiceKey, Vec<SliceId>>,
    namespaces: HashMap<Arc<str>, Option<Box<str>>>,
    /// Namespaces that are being deleted.
    ending: HashSet<Arc<str>>,
    /// Namespaces whose end was not reported yet.
    newly_ending: Vec<Arc<str>>,
    told: HashMap<ServiceKey, Digest>,
    rejected: HashMap<(Part, ServiceKey), String>,
    rejected_unnamed: u64,
}

impl Assembler {
    pub fn new(mode: EndpointsMode) -> Self {
        Self {
            mode,
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            namespaces: HashMap::new(),
            ending: HashSet::new(),
            newly_ending: Vec::new(),
            told: HashMap::new(),
            rejected: HashMap::new(),
            rejected_unnamed: 0,
        }
    }

    /// Replaces an object. Appends the changes of records.
    pub fn put(&mut self, part: Part, object: Object, changes: &mut Vec<Change>) {
        self.rejected.remove(&(part, object.key()));
        match object {
            Object::Service(service) => {
                let key = service.key.clone();
                self.services.insert(key.clone(), service);
                self.tell(&key, changes);
            }
            Object::Slice(slice) => {
                let now = slice.service.clone();
                let before = self.put_slice(part, slice);
                for key in before.iter().filter(|before| Some(*before) != now.as_ref()).chain(&now) {
                    self.tell(key, changes);
                }
            }
            Object::Namespace(namespace) => {
                if !namespace.ending {
                    self.ending.remove(&namespace.name);
                } else if self.ending.insert(Arc::clone(&namespace.name)) {
                    self.newly_ending.push(Arc::clone(&namespace.name));
                }
                if self.namespaces.insert(Arc::clone(&namespace.name), namespace.uid).is_none() {
                    changes.push(Change::PutNamespace(namespace.name));
                }
            }
        }
    }

    /// Removes an object; an unknown one changes nothing. Appends the changes of records.
    pub fn delete(&mut self, part: Part, key: &ServiceKey, changes: &mut Vec<Change>) {
        self.rejected.remove(&(part, key.clone()));
        match part {
            Part::Services => {
                if self.services.remove(key).is_some() {
                    self.tell(key, changes);
                }
            }
            Part::Slices | Part::OtherSlices => {
                if let Some(service) = self.remove_slice(&SliceId { part, key: key.clone() }) {
                    self.tell(&service, changes);
                }
            }
            Part::Namespaces => {
                if let Some((name, _)) = self.namespaces.remove_entry(key.name()) {
                    self.ending.remove(&name);
                    changes.push(Change::RemoveNamespace(name));
                }
            }
        }
    }

    /// The object's newest version cannot be used; the version before stays.
    pub fn reject(&mut self, part: Part, broken: Broken) {
        match broken.key {
            Some(key) if self.rejected.len() < REJECTED_MAX => {
                self.rejected.insert((part, key), broken.reason);
            }
            Some(key) if self.rejected.contains_key(&(part, key.clone())) => {}
            _ => self.rejected_unnamed += 1,
        }
    }

    /// The list of this part is now exactly this. Follow with [`records`](Self::records).
    pub fn replace(&mut self, part: Part, objects: Vec<Object>, broken: Vec<Broken>) {
        self.rejected.retain(|(of, _), _| *of != part);
        if part == Part::Services {
            self.rejected_unnamed = 0;
        }
        let listed: HashSet<&ServiceKey> = broken.iter().filter_map(|broken| broken.key.as_ref()).collect();
        let stays = |key: &ServiceKey| listed.contains(key);
        match part {
            Part::Services => self.services.retain(|key, _| stays(key)),
            Part::Slices | Part::OtherSlices => {
                let gone: Vec<SliceId> =
                    self.slices.keys().filter(|id| id.part == part && !stays(&id.key)).cloned().collect();
                for id in gone {
                    self.remove_slice(&id);
                }
            }
            Part::Namespaces => {
                self.namespaces.retain(|name, _| stays(&ServiceKey::new("", name)));
                self.ending.retain(|name| stays(&ServiceKey::new("", name)));
            }
        }
        for object in objects {
            match object {
                Object::Service(service) => {
                    self.services.insert(service.key.clone(), service);
                }
                Object::Slice(slice) => {
                    self.put_slice(part, slice);
                }
                Object::Namespace(namespace) => {
                    if namespace.ending {
                        self.ending.insert(Arc::clone(&namespace.name));
                    } else {
                        self.ending.remove(&namespace.name);
                    }
                    self.namespaces.insert(namespace.name, namespace.uid);
                }
            }
        }
        for broken in broken {
            self.reject(part, broken);
        }
    }

    pub fn records(&mut self) -> Records {
        let services: HashMap<ServiceKey, Arc<Service>> =
            self.services.values().map(|service| (service.key.clone(), Arc::new(self.assemble(service)))).collect();
        self.told = services.iter().map(|(key, service)| (key.clone(), service.digest())).collect();
        self.newly_ending.clear();
        Records {
            services,
            namespaces: self.namespaces.keys().cloned().collect(),
            ending: self.ending.iter().cloned().collect(),
            ..Records::default()
        }
    }

    /// Namespaces whose deletion was seen to begin since this was asked last.
    pub fn take_ending(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.newly_ending)
    }

    /// The UID of `kube-system`, which names the cluster.
    pub fn cluster(&self) -> Option<&str> {
        self.namespaces.get("kube-system").and_then(Option::as_deref)
    }

    /// The objects whose newest version cannot be used, by kind and name.
    pub fn rejections(&self) -> Rejections {
        let mut objects: Vec<Rejection> =
            self.rejected.iter().map(|((part, key), reason)| rejection(part.objects(), Some(key), reason)).collect();
        objects.sort();
        let total = objects.len() as u64 + self.rejected_unnamed;
        objects.truncate(Rejections::NAMED_MAX);
        Rejections { total, objects }
    }

    fn put_slice(&mut self, part: Part, slice: SliceInput) -> Option<ServiceKey> {
        let id = SliceId { part, key: slice.key.clone() };
        let before = self.remove_slice(&id);
        if let Some(service) = &slice.service {
            self.slices_of.entry(service.clone()).or_default().push(id.clone());
            self.slices.insert(id, slice);
        }
        before
    }

    fn remove_slice(&mut self, id: &SliceId) -> Option<ServiceKey> {
        let service = self.slices.remove(id)?.service?;
        if let Some(ids) = self.slices_of.get_mut(&service) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        Some(service)
    }

    /// Appends the change of a service since the last one sent, if there is any.
    fn tell(&mut self, key: &ServiceKey, changes: &mut Vec<Change>) {
        match self.services.get(key).map(|service| self.assemble(service)) {
            Some(service) => {
                let digest = service.digest();
                if self.told.insert(key.clone(), digest) != Some(digest) {
                    changes.push(Change::Put(Arc::new(service)));
                }
            }
            None => {
                if self.told.remove(key).is_some() {
                    changes.push(Change::Remove(key.clone()));
                }
            }
        }
    }

    fn assemble(&self, service: &ServiceInput) -> Service {
        let kept = match service.kind {
            Kind::Headless => true,
            // The apiserver's own addresses are kept always: when its service address fails, they are the way to it.
            Kind::ClusterIp(_) => self.mode == EndpointsMode::All || service.key.as_str() == "default/kubernetes",
            Kind::ExternalName(_) => false,
        };
        let ids = if kept { self.slices_of.get(&service.key) } else { None };
        let endpoints = ids
            .into_iter()
            .flatten()
            .filter_map(|id| self.slices.get(id))
            .flat_map(|slice| slice.endpoints.iter())
            .map(|endpoint| Endpoint { ready: endpoint.ready || service.publish_not_ready, ..endpoint.clone() })
            .collect();
        Service::new(service.key.clone(), service.kind.clone(), service.ports.clone(), endpoints)
    }
}

/// How a broken object is shown.
pub(super) fn rejection(of: Objects, key: Option<&ServiceKey>, reason: &str) -> Rejection {
    let name = key.map_or_else(|| "?".to_owned(), |key| key.as_str().trim_start_matches('/').to_owned());
    Rejection { kind: of.kind().to_owned(), name, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
