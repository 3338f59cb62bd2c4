//! What `helm template` makes of a chart, as far as ours uses templates. Anything else in one is a panic.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::yaml;

/// The objects of a chart in `kube-system`, with `values` over its own.
pub fn template(chart: &Path, values: &Value) -> Vec<Value> {
    let mut scope = json!({ "Values": yaml::file(&chart.join("values.yaml")).remove(0) });
    overlay(&mut scope["Values"], values);
    scope["Release"] = json!({ "Name": "holdfast", "Namespace": "kube-system" });
    let templates = fs::read_dir(chart.join("templates")).expect("templates");
    let mut paths: Vec<_> = templates.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| yaml::documents(&render(&yaml::read(path), chart, &scope))).collect()
}

fn overlay(into: &mut Value, over: &Value) {
    match over.as_object() {
        Some(over) => over.iter().for_each(|(key, value)| overlay(&mut into[key], value)),
        None => *into = over.clone(),
    }
}

fn render(template: &str, chart: &Path, scope: &Value) -> String {
    let mut out = String::new();
    // Whether each `if` around this place holds.
    let mut shown = Vec::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (action, after) = behind.split_once("}}").expect("an end of the action");
        let (before, action) = action.strip_prefix('-').map_or((before, action), |action| (before.trim_end(), action));
        rest = action.strip_suffix('-').map_or(after, |_| after.trim_start());
        let action = action.trim_end_matches('-').trim();
        if shown.iter().all(|shown| *shown) {
            out.push_str(before);
        }
        if let Some(condition) = action.strip_prefix("if ") {
            let value = value(condition, chart, scope);
            shown.push(match value {
                Value::Null | Value::Bool(false) => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
        } else if action == "end" {
            shown.pop().expect("an if");
        } else if shown.iter().all(|shown| *shown) {
            match value(action, chart, scope) {
                Value::String(text) => out.push_str(&text),
                value @ (Value::Number(_) | Value::Bool(_)) => out.push_str(&value.to_string()),
                value => panic!("{action} is {value}"),
            }
        }
    }
    if shown.iter().all(|shown| *shown) { out + rest } else { out }
}

fn value(pipeline: &str, chart: &Path, scope: &Value) -> Value {
    let mut stages = pipeline.split('|').map(str::trim);
    let first = stages.next().unwrap_or_default();
    let found = match first.split_once(' ') {
        Some(("toYaml", path)) => serde_saphyr::to_string(&lookup(path, scope)).expect("YAML").trim_end().into(),
        Some((".Files.Get", file)) => yaml::read(&chart.join(file.trim_matches('"'))).into(),
        None => lookup(first, scope),
        Some(_) => panic!("no such function: {first}"),
    };
    stages.fold(found, |value, stage| {
        let spaces = stage.strip_prefix("nindent ").and_then(|spaces| spaces.parse().ok());
        let indent = " ".repeat(spaces.unwrap_or_else(|| panic!("no such function: {stage}")));
        let lines = value.as_str().expect("text").lines().map(|line| format!("\n{indent}{line}"));
        lines.collect::<String>().into()
    })
}

fn lookup(path: &str, scope: &Value) -> Value {
    let keys = path.strip_prefix('.').unwrap_or_else(|| panic!("{path} is no path")).split('.');
    keys.fold(scope, |value, key| value.get(key).unwrap_or_else(|| panic!("{path}: there is no {key}"))).clone()
}
