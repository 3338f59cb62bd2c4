//! YAML files as JSON values.

use std::{fs, path::Path};

use serde_json::Value;

/// The text of a file.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document of a text, those of a `List` each for itself.
pub fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let objects = documents.into_iter().filter(|document| !document.is_null());
    objects
        .flat_map(|mut document| match document["kind"].as_str() {
            Some("List") => document["items"].as_array_mut().map(std::mem::take).unwrap_or_default(),
            _ => vec![document],
        })
        .collect()
}

/// Every document of a file.
pub fn file(path: &Path) -> Vec<Value> {
    documents(&read(path))
}

/// Text at a path of keys.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {pointer} in {:.200}", value.to_string()))
}

pub fn title(object: &Value) -> String {
    format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"))
}
