//! What `kustomize build` makes of a folder, as far as ours use kustomize. Anything else in a kustomization is a panic.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::yaml::{self, text, title};

const KEYS: [&str; 8] =
    ["apiVersion", "kind", "namespace", "resources", "components", "patches", "images", "configMapGenerator"];
const CLUSTER_WIDE: [&str; 2] = ["ClusterRole", "ClusterRoleBinding"];

/// The objects of a folder with a kustomization.
pub fn build(folder: &Path) -> Vec<Value> {
    let mut objects = Vec::new();
    add(folder, &mut objects);
    objects
}

fn add(folder: &Path, objects: &mut Vec<Value>) {
    let kustomization = yaml::file(&folder.join("kustomization.yaml")).remove(0);
    let keys = kustomization.as_object().expect("a map");
    assert!(keys.keys().all(|key| KEYS.contains(&key.as_str())), "{}: {keys:?}", folder.display());
    let list = |key: &str| kustomization[key].as_array().cloned().unwrap_or_default();
    for resource in list("resources") {
        let path = folder.join(resource.as_str().expect("a path"));
        if path.is_dir() { add(&path, objects) } else { objects.extend(yaml::file(&path)) }
    }
    for component in list("components") {
        add(&folder.join(component.as_str().expect("a path")), objects);
    }
    for generated in list("configMapGenerator") {
        assert_eq!(generated["options"]["disableNameSuffixHash"], true);
        let files = generated["files"].as_array().expect("files").iter().map(|file| file.as_str().expect("a file"));
        let data: Map<String, Value> =
            files.map(|file| (file.to_owned(), yaml::read(&folder.join(file)).into())).collect();
        let metadata = json!({ "name": generated["name"], "labels": generated["options"]["labels"] });
        objects.push(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data }));
    }
    for patch in list("patches") {
        for patch in yaml::file(&folder.join(text(&patch, "/path"))) {
            let object = objects.iter_mut().find(|object| title(object) == title(&patch));
            merge(object.unwrap_or_else(|| panic!("nothing to patch: {}", title(&patch))), patch);
        }
    }
    for image in list("images") {
        for object in &mut *objects {
            let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter(|container| container["image"] == image["name"]) {
                container["image"] = format!("{}:{}", text(&image, "/newName"), text(&image, "/newTag")).into();
            }
        }
    }
    if let Some(namespace) = kustomization["namespace"].as_str() {
        for object in objects.iter_mut().filter(|object| !CLUSTER_WIDE.contains(&text(object, "/kind"))) {
            object["metadata"]["namespace"] = namespace.into();
        }
    }
}

/// A strategic merge: maps merge, lists of named things merge by name, other lists are replaced.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(mut patch)) => {
            if patch.remove("$patch").is_some_and(|how| how == "replace") {
                *into = patch;
                return;
            }
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) if patch.iter().all(|item| item["name"].is_string()) => {
            for item in patch {
                if item["$patch"] == "delete" {
                    into.retain(|other| other["name"] != item["name"]);
                    continue;
                }
                match into.iter_mut().find(|other| other["name"] == item["name"]) {
                    Some(other) => merge(other, item),
                    None => into.push(item),
                }
            }
        }
        (into, patch) => *into = patch,
    }
}
