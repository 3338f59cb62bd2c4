//! The text of a manifest into objects: YAML or JSON, several documents, lists, lists of one kind.
//!
//! Reads a document in one pass and keeps only the fields used. A broken object rejects itself; a broken document
//! rejects itself and leaves the others of the file.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    report::Time,
    source::{
        Objects,
        convert::{self, Broken, Object},
        objects, one_line,
    },
    sys::UnixMillis,
};

/// Deepest nesting of lists and maps read.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Text {
    /// The objects of the kinds used, in order.
    pub objects: Vec<Object>,
    /// Objects of those kinds that cannot be used.
    pub broken: Vec<(Objects, Broken)>,
    /// Documents that are neither YAML nor JSON: the line the trouble was found in, and the trouble.
    pub unreadable: Vec<(u64, String)>,
    /// Documents read, of whatever kind.
    pub documents: usize,
    /// Objects of kinds that are not used. Lists are no objects.
    pub others: usize,
    /// The header of a dump.
    pub heads: Vec<Head>,
    /// Lists and objects, of whatever kind.
    maps: usize,
    /// Documents that are text, a number or a bare sequence.
    no_maps: usize,
}

/// Age and scope of a dump's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// UID of the cluster, or a word for the source.
    pub cluster: Option<Arc<str>>,
    /// When the source last confirmed the records; `None` of a process that had none.
    pub as_of: Option<UnixMillis>,
    /// The dump has some namespaces of the cluster, and others are not known.
    pub is_partial: bool,
}

impl Head {
    /// Reads the head; `None` for something else under its name.
    fn of(head: &Map<String, Value>) -> Option<Self> {
        let source = head.get("source")?;
        let as_of = Option::<Time>::deserialize(source.get("as_of")?).ok()?;
        let cluster = head.get("version").and_then(|version| version.get("cluster")).and_then(Value::as_str);
        let is_partial = head.get("namespace").is_some_and(Value::is_string)
            || head.get("partial").and_then(Value::as_bool).unwrap_or_default();
        Some(Self {
            cluster: cluster.filter(|cluster| !cluster.is_empty()).map(Into::into),
            as_of: as_of.map(|as_of| as_of.0),
            is_partial,
        })
    }
}

pub fn parse(text: &str) -> Text {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut read = Text::default();
    if text.trim_start().starts_with(['{', '[']) && parse_json(text, &mut read) {
        return read;
    }
    for (line, document) in documents(text) {
        parse_yaml(line, document, &mut read);
    }
    read
}

/// Reads concatenated JSON documents. False if the very first is none: it may still be YAML in flow style.
fn parse_json(text: &str, read: &mut Text) -> bool {
    for document in serde_json::Deserializer::from_str(text).into_iter::<Document>() {
        match document {
            Ok(document) => read.take(document),
            Err(error) if read.documents == 0 && !error.is_eof() => return false,
            Err(error) => {
                read.unreadable.push((error.line() as u64, one_line(&error.to_string())));
                break;
            }
        }
    }
    true
}

fn parse_yaml(first_line: u64, document: &str, read: &mut Text) {
    // The limits of the library are made for configuration files; a cluster has millions of nodes. The size of a file is
    // checked before it is read, and no byte of it makes more than a few nodes; aliases keep their limits.
    let nodes_max = document.len().saturating_mul(4) + 1024;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: nodes_max,
            max_nodes: nodes_max,
            max_total_scalar_bytes: nodes_max,
            max_documents: nodes_max,
            max_depth: DEPTH_MAX,
        },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    match serde_saphyr::from_multiple_with_options::<Document>(document, options) {
        Ok(documents) => documents.into_iter().for_each(|document| read.take(document)),
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            read.unreadable.push((first_line + line.saturating_sub(1), one_line(&error.to_string())));
        }
    }
}

/// The documents of a YAML text with the number of their first line. A line that begins with `---` ends a document
/// wherever it stands, so a document can be told apart without parsing the one before it.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut begin, mut first_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && offset > begin {
            documents.push((first_line, &text[begin..offset]));
            (begin, first_line) = (offset, index as u64 + 1);
        }
        offset += line.len();
    }
    documents.push((first_line, &text[begin..]));
    documents
}

impl Text {
    /// Whether it says something, and nothing of it is an object: a log, a table, a page with an error.
    pub fn is_something_else(&self) -> bool {
        self.no_maps > 0 && self.maps == 0 && self.unreadable.is_empty()
    }

    fn take(&mut self, document: Document) {
        self.documents += 1;
        for entry in document.0 {
            self.take_entry(entry);
        }
    }

    fn take_entry(&mut self, entry: Entry) {
        self.maps += usize::from(!matches!(entry, Entry::NoMap | Entry::Head(_)));
        match entry {
            Entry::Object(object) => self.objects.push(object),
            Entry::Broken(of, broken) => self.broken.push((of, broken)),
            Entry::Kindless(_) | Entry::Other => self.others += 1,
            Entry::List => {}
            Entry::Head(head) => self.heads.push(head),
            Entry::NoMap => self.no_maps += 1,
        }
    }
}

/// One YAML or JSON document, with lists laid flat.
struct Document(Vec<Entry>);

enum Entry {
    Object(Object),
    Broken(Objects, Broken),
    /// An object without a kind: an item of a `ServiceList` and the like, which has it from the list.
    Kindless(Map<String, Value>),
    /// Of no kind we use.
    Other,
    /// A list, whose items are laid beside it.
    List,
    /// The head of a list that is a dump.
    Head(Head),
    /// The document is neither an object nor empty.
    NoMap,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = Vec::new();
        let left = deserializer.deserialize_any(Node { entries: &mut entries, picked: Picked::Object })?;
        if !left.is_null() {
            entries.push(Entry::NoMap);
        }
        Ok(Self(entries))
    }
}

/// The kind of a node of the document, which decides the fields that are kept.
#[derive(Clone, Copy)]
enum Picked {
    Object,
    Metadata,
    Labels,
    Spec,
    /// The header, if the document is a dump.
    Head,
}

impl Picked {
    /// How a field is read; `None` skips it.
    fn field(self, name: &str) -> Option<Field> {
        match (self, name) {
            (Self::Object, "metadata") => Some(Field::Picked(Self::Metadata)),
            (Self::Object, "spec") => Some(Field::Picked(Self::Spec)),
            (Self::Object, "holdfast") => Some(Field::Picked(Self::Head)),
            (Self::Object, "items") => Some(Field::Items),
            (Self::Metadata, "labels") => Some(Field::Picked(Self::Labels)),
            (Self::Object, "apiVersion" | "kind" | "addressType" | "endpoints" | "ports")
            | (Self::Metadata, "name" | "namespace" | "uid")
            | (Self::Labels, "kubernetes.io/service-name")
            | (Self::Head, "source" | "version" | "namespace" | "partial")
            | (
                Self::Spec,
                "type" | "clusterIP" | "clusterIPs" | "externalName" | "ports" | "publishNotReadyAddresses",
            ) => Some(Field::Whole),
            _ => None,
        }
    }
}

enum Field {
    Whole,
    Picked(Picked),
    Items,
}

/// Reads a node of any shape: of a map the fields picked, of everything else nothing that could be an object.
struct Node<'a> {
    entries: &'a mut Vec<Entry>,
    picked: Picked,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut items = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            match self.picked.field(&name) {
                Some(Field::Whole) => {
                    map.insert(name, access.next_value()?);
                }
                Some(Field::Picked(picked)) => {
                    let value = access.next_value_seed(Node { entries: &mut items, picked })?;
                    map.insert(name, value);
                }
                Some(Field::Items) => access.next_value_seed(Items(&mut items))?,
                None => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        if matches!(self.picked, Picked::Object) {
            let of_items = list_of(&map);
            for item in items {
                self.entries.push(match (item, of_items) {
                    (Entry::Kindless(object), Some(of)) => object_of(of, object),
                    (item, _) => item,
                });
            }
            if let Some(Value::Object(head)) = map.remove("holdfast") {
                self.entries.extend(Head::of(&head).map(Entry::Head));
            }
            self.entries.push(entry(map));
            return Ok(Value::Null);
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// `items` of a list: null, or a sequence of objects.
struct Items<'a>(&'a mut Vec<Entry>);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while access.next_element_seed(Node { entries: self.0, picked: Picked::Object })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("items is not a list"))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn text_of<'a>(map: &'a Map<String, Value>, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The kind of the items of a `ServiceList` and the like, which do not repeat it.
fn list_of(map: &Map<String, Value>) -> Option<Objects> {
    kind_of(text_of(map, "kind").strip_suffix("List")?, text_of(map, "apiVersion"))
}

fn kind_of(kind: &str, api_version: &str) -> Option<Objects> {
    match (kind, api_version) {
        ("Service", "v1") => Some(Objects::Services),
        ("Namespace", "v1") => Some(Objects::Namespaces),
        ("EndpointSlice", "discovery.k8s.io/v1") => Some(Objects::Slices),
        _ => None,
    }
}

fn entry(map: Map<String, Value>) -> Entry {
    if !map.contains_key("kind") && map.contains_key("metadata") {
        return Entry::Kindless(map);
    }
    match kind_of(text_of(&map, "kind"), text_of(&map, "apiVersion")) {
        Some(of) => object_of(of, map),
        None if text_of(&map, "kind").ends_with("List") => Entry::List,
        None => Entry::Other,
    }
}

fn object_of(of: Objects, mut map: Map<String, Value>) -> Entry {
    default_namespace(of, &mut map);
    let key = map.get("metadata").and_then(|metadata| objects::Metadata::deserialize(metadata).ok());
    let key = key.and_then(|metadata| convert::key(of, &metadata).ok());
    let object = Value::Object(map);
    let converted = match of {
        Objects::Services => objects::Service::deserialize(object).map(convert::service),
        Objects::Slices => objects::EndpointSlice::deserialize(object).map(convert::slice),
        Objects::Namespaces => objects::Namespace::deserialize(object).map(convert::namespace_object),
    };
    match converted {
        Ok(Ok(object)) => Entry::Object(object),
        Ok(Err(broken)) => Entry::Broken(of, broken),
        Err(error) => Entry::Broken(of, Broken { key, reason: one_line(&error.to_string()) }),
    }
}

/// An object without a namespace goes to `default`, as with `kubectl apply`.
fn default_namespace(of: Objects, map: &mut Map<String, Value>) {
    if of != Objects::Namespaces
        && let Some(Value::Object(metadata)) = map.get_mut("metadata")
        && metadata.get("namespace").is_none_or(|namespace| namespace.is_null() || namespace == "")
    {
        metadata.insert("namespace".to_owned(), "default".into());
    }
}

#[cfg(test)]
mod tests;
