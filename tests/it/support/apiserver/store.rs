//! The objects, their versions, and what happened to them: a small etcd.

use std::collections::BTreeMap;

use serde_json::Value;

type Key = (String, String, String);

#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) resource: String,
    /// The object before, if it was there.
    pub(super) before: Option<Value>,
    /// The object after, if it is there; with the version of this event.
    pub(super) after: Option<Value>,
}

/// A state to go back to.
#[derive(Clone, Debug)]
pub struct Backup {
    objects: BTreeMap<Key, Value>,
    version: u64,
}

#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Happened>,
    version: u64,
    /// Below this the history is forgotten.
    compacted: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), history: Vec::new(), version: 100, compacted: 100 }
    }
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(super) fn tick(&mut self) {
        self.version += 1;
    }

    pub(super) fn put(&mut self, mut object: Value) -> u64 {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let key = key_of(&object);
        let before = self.objects.insert(key.clone(), object.clone());
        self.history.push(Happened { version: self.version, resource: key.0, before, after: Some(object) });
        self.version
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut before) = self.objects.remove(&key) else { return };
        self.version += 1;
        before["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push(Happened { version: self.version, resource: key.0, before: Some(before), after: None });
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
    }

    pub(super) fn backup(&self) -> Backup {
        Backup { objects: self.objects.clone(), version: self.version }
    }

    /// Every watch at or below the version of now goes on being served from the history that is made from here.
    pub(super) fn restore(&mut self, backup: &Backup) {
        self.objects = backup.objects.clone();
        self.version = backup.version;
        self.compacted = backup.version.min(self.compacted);
        self.history.retain(|happened| happened.version <= backup.version);
    }

    /// The objects of a resource, in order, after a key.
    pub(super) fn list(&self, resource: &str, after: Option<(String, String)>) -> impl Iterator<Item = (&Key, &Value)> {
        let resource = resource.to_owned();
        self.objects.iter().filter(move |((of, namespace, name), _)| {
            *of == resource && after.as_ref().is_none_or(|after| (namespace, name) > (&after.0, &after.1))
        })
    }

    /// What happened to a resource after a version.
    pub(super) fn since(&self, resource: &str, version: u64) -> Vec<Happened> {
        // In the order of versions.
        let old = self.history.partition_point(|happened| happened.version <= version);
        self.history[old..].iter().filter(|happened| happened.resource == resource).cloned().collect()
    }
}

fn key_of(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let resource = match object["kind"].as_str().unwrap() {
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "Namespace" => "namespaces",
        "Lease" => "leases",
        other => panic!("this server has no {other}"),
    };
    (resource.to_owned(), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

/// Label and field selectors, as far as they are used.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<String>,
    name: Option<String>,
}

impl Selector {
    pub(super) fn new(labels: Option<&str>, fields: Option<&str>) -> Self {
        let name = fields.map(|fields| fields.strip_prefix("metadata.name=").expect("the one field known").to_owned());
        Self { labels: labels.into_iter().flat_map(|labels| labels.split(',').map(str::to_owned)).collect(), name }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let term = |term: &String| match (term.strip_prefix('!'), term.split_once("!="), term.split_once('=')) {
            (Some(key), ..) => label(key).is_none(),
            (_, Some((key, value)), _) => label(key) != Some(value),
            (_, _, Some((key, value))) => label(key) == Some(value),
            _ => label(term).is_some(),
        };
        self.labels.iter().all(term) && self.name.as_deref().is_none_or(|name| object["metadata"]["name"] == name)
    }

    /// How something that happened looks through this selector.
    pub(super) fn event(&self, happened: &Happened) -> Option<(&'static str, Value)> {
        let before = happened.before.as_ref().is_some_and(|object| self.matches(object));
        match (&happened.after, before) {
            (Some(after), false) if self.matches(after) => Some(("ADDED", after.clone())),
            (Some(after), true) if self.matches(after) => Some(("MODIFIED", after.clone())),
            (_, true) => {
                let mut gone = happened.before.clone()?;
                gone["metadata"]["resourceVersion"] = happened.version.to_string().into();
                Some(("DELETED", gone))
            }
            _ => None,
        }
    }
}
