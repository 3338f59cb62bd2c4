//! Licences, sources and duplicates of every crate that is built in, by `deny.toml`; `cargo deny check` says the same and more where it is
//! installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Whether a licence expression can be met by allowed licences alone.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.contains(&licence.trim())))
}

/// The strings of a list in `deny.toml`.
fn list(name: &str) -> Vec<&'static str> {
    let list = include_str!("../../../deny.toml").split(&format!("\n{name} = [")).nth(1);
    let list = list.and_then(|rest| rest.split(']').next()).unwrap_or_else(|| panic!("no list {name}"));
    list.split('"').skip(1).step_by(2).collect()
}

/// What cargo says of all packages for Linux: those for other systems need not be on this machine.
fn metadata() -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--offline", "--manifest-path", manifest]);
    cargo.args(["--filter-platform", &platform]);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_crate_has_an_allowed_licence_and_comes_from_the_registry() {
    let allowed = list("allow");
    assert!(!is_allowed("GPL-3.0", &allowed) && !is_allowed("MIT AND GPL-3.0", &allowed));
    let metadata = metadata();
    let wrong: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter(|package| {
            let licensed = package["license"].as_str().is_some_and(|licence| is_allowed(licence, &allowed));
            !licensed || !package["source"].as_str().is_some_and(|source| source.starts_with("registry+"))
        })
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(wrong.is_empty(), "not in deny.toml: {wrong:#?}");
}

/// Crates of the daemon in two versions are more code to trust, and each has its reason in `deny.toml`.
#[test]
fn no_crate_is_built_in_twice_without_a_reason() {
    let metadata = metadata();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let here = |kind: &Value| kind["kind"] != "dev";
    let mut next = vec![metadata["resolve"]["root"].as_str().unwrap()];
    let mut built_in = BTreeSet::new();
    while let Some(id) = next.pop() {
        if built_in.insert(id) {
            let dependencies = nodes[id]["deps"].as_array().unwrap().iter();
            let dependencies =
                dependencies.filter(|dependency| dependency["dep_kinds"].as_array().unwrap().iter().any(here));
            next.extend(dependencies.map(|dependency| dependency["pkg"].as_str().unwrap()));
        }
    }
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        if built_in.contains(package["id"].as_str().unwrap()) {
            versions.entry(package["name"].as_str().unwrap()).or_default().push(package["version"].as_str().unwrap());
        }
    }
    let skipped = list("skip");
    let is_skipped = |name: &str, version: &str| {
        skipped
            .iter()
            .any(|skip| skip.split_once('@').is_some_and(|(known, of)| known == name && version.starts_with(of)))
    };
    for (name, versions) in &mut versions {
        versions.retain(|version| !is_skipped(name, version));
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "twice, and not in deny.toml: {versions:#?}");
}
