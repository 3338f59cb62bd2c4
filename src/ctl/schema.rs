//! The page of JSON fields and the schema files, made from the types: `docs/json.md` and `docs/schemas/`.
//!
//! With `HOLDFAST_UPDATE_DOCS=1` the test writes them.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{control_plane::ControlPlane, diff::Diff};
use crate::admin::{
    GuardDoc, PinsDoc, ReleasedDoc,
    view::{Dump, Lookup, Status},
};

/// Levels of objects in objects shown on the page.
const DEPTH_MAX: usize = 6;

/// The commands, the names of their schema files, and what they print.
fn documents() -> [(&'static str, &'static str, Value); 8] {
    let schema = |schema: schemars::Schema| schema.to_value();
    [
        ("holdfast status", "status", schema(schemars::schema_for!(Status))),
        ("holdfast lookup", "lookup", schema(schemars::schema_for!(Lookup))),
        ("holdfast dump", "dump", schema(schemars::schema_for!(Dump))),
        ("holdfast diff", "diff", schema(schemars::schema_for!(Diff))),
        ("holdfast guard", "guard", schema(schemars::schema_for!(GuardDoc))),
        ("holdfast guard release, accept-cluster", "guard-release", schema(schemars::schema_for!(ReleasedDoc))),
        ("holdfast pin, unpin", "pin", schema(schemars::schema_for!(PinsDoc))),
        ("holdfast control-plane", "control-plane", schema(schemars::schema_for!(ControlPlane))),
    ]
}

const HEAD: &str = "\
# Fields of `-o json`

Made from the types by a test (`HOLDFAST_UPDATE_DOCS=1 cargo test --lib`); `schemas/` has the same as JSON Schema. Fields keep
their names and meanings; new ones may join, so take no offence at one you do not know.

- A time is RFC 3339 in UTC, with milliseconds: `2024-12-11T18:23:15.000Z`. A length of time has its unit in its name
  (`age_seconds`, `rtt_ms`).
- A version is `cluster`, `epoch` and `rev`: a higher epoch is newer, and within an epoch a higher rev.
- A command that fails with `-o json` prints `{\"error\": \"…\", \"exit_code\": 3}` on standard output, and the error on standard error.
  So do an unknown flag and a faulty configuration; several faults are lines of one `error`.
- `holdfast check-config -o json` prints `configuration`, with the keys of [config.md](config.md), and `warnings`, a list of lines.
";

struct Page<'a> {
    definitions: &'a Map<String, Value>,
    text: String,
}

impl<'a> Page<'a> {
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        name.and_then(|name| self.definitions.get(name)).unwrap_or(schema)
    }

    /// The schema without null, and whether null was in it.
    fn without_null(&self, schema: &'a Value) -> (&'a Value, bool) {
        let is_null = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("null");
        if let Some(any) = schema.get("anyOf").and_then(Value::as_array)
            && let [one, null] = any.as_slice()
            && is_null(null)
        {
            return (self.resolve(one), true);
        }
        let types = schema.get("type").and_then(Value::as_array);
        let nullable = types.is_some_and(|types| types.iter().any(|kind| kind == "null"));
        (self.resolve(schema), nullable)
    }

    /// The type in words, and what is to be looked into.
    fn kind(&self, schema: &'a Value) -> (String, Option<&'a Value>, &'static str) {
        let (schema, nullable) = self.without_null(schema);
        let or_null = if nullable { " or null" } else { "" };
        let words = words_of(schema);
        if !words.is_empty() {
            let inner = (!properties(schema).is_empty()).then_some(schema);
            let or_object = if inner.is_some() { ", or object" } else { "" };
            return (format!("{}{or_object}{or_null}", words.join(", ")), inner, "");
        }
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
            kind => kind.and_then(Value::as_str),
        };
        match kind {
            Some("array") => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                let (of, inner, suffix) = self.kind(items);
                (format!("list of {of}{or_null}"), inner, if suffix.is_empty() { "[]" } else { "[][]" })
            }
            Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => {
                let (of, ..) = self.kind(&schema["additionalProperties"]);
                (format!("object of {of}{or_null}"), None, "")
            }
            Some("string") if schema.get("format").is_some_and(|format| format == "date-time") => {
                (format!("time{or_null}"), None, "")
            }
            Some(kind @ ("string" | "integer" | "number" | "boolean")) => (format!("{kind}{or_null}"), None, ""),
            _ if !properties(schema).is_empty() => (format!("object{or_null}"), Some(schema), ""),
            _ => (format!("any{or_null}"), None, ""),
        }
    }

    fn fields(&mut self, schema: &'a Value, before: &str, depth: usize) {
        for (name, field) in properties(schema) {
            let (mut kind, inner, suffix) = self.kind(field);
            // The word by which forms of an object are told apart.
            let forms = words_in(schema, name);
            if forms.len() > 1 {
                kind = forms.join(", ");
            }
            let described = field.get("description").or_else(|| self.resolve(field).get("description"));
            let described =
                described.and_then(Value::as_str).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            let path = format!("{before}{name}{suffix}");
            let _ = writeln!(self.text, "| `{path}` | {kind} | {described} |");
            if let Some(inner) = inner.filter(|_| depth < DEPTH_MAX) {
                self.fields(inner, &format!("{path}."), depth + 1);
            }
        }
    }
}

/// The words of an enum.
fn words_of(schema: &Value) -> Vec<String> {
    let constant = |schema: &Value| schema.get("const").and_then(Value::as_str).map(|word| format!("`{word}`"));
    let listed = |schema: &Value| -> Vec<String> {
        let words = schema.get("enum").and_then(Value::as_array);
        words.into_iter().flatten().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect()
    };
    let mut words = listed(schema);
    words.extend(constant(schema));
    for member in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        words.extend(constant(member));
        words.extend(listed(member));
    }
    words
}

/// The words that a field has in the forms of an object.
fn words_in(schema: &Value, name: &str) -> Vec<String> {
    let members = ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|list| schema.get(list)?.as_array()).flatten();
    members
        .flat_map(|member| {
            let own = member.get("properties").and_then(|properties| properties.get(name)).map(words_of);
            own.unwrap_or_default().into_iter().chain(words_in(member, name))
        })
        .collect()
}

/// The fields of an object: its own, and those of what is flattened into it.
fn properties(schema: &Value) -> Vec<(&String, &Value)> {
    let mut all: Vec<(&String, &Value)> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
    for list in ["allOf", "oneOf", "anyOf"] {
        for member in schema.get(list).and_then(Value::as_array).into_iter().flatten() {
            for (name, field) in properties(member) {
                if all.iter().all(|(known, _)| *known != name) {
                    all.push((name, field));
                }
            }
        }
    }
    all
}

fn page(documents: &[(&str, &str, Value)]) -> String {
    let mut text = HEAD.to_owned();
    let none = Map::new();
    for (command, file, schema) in documents {
        let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
        let mut page = Page { definitions, text: String::new() };
        page.fields(schema, "", 0);
        let _ = write!(
            text,
            "\n## `{command} -o json`\n\n[Schema](schemas/{file}.json).\n\n| field | type | meaning |\n|---|---|---|\n{}",
            page.text
        );
    }
    text
}

#[test]
fn the_page_of_json_fields_and_the_schema_files_are_those_of_the_types() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let documents = documents();
    let mut wanted: Vec<(PathBuf, String)> = vec![(docs.join("json.md"), page(&documents))];
    for (_, file, schema) in &documents {
        let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
        wanted.push((docs.join("schemas").join(format!("{file}.json")), text));
    }
    for (path, text) in wanted {
        if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "{} is not that of the types: HOLDFAST_UPDATE_DOCS=1 writes it anew", path.display());
    }
}

#[test]
fn fields_within_objects_lists_and_enums_are_listed() {
    let page = page(&documents());
    for row in [
        "| `state` | `serving`, ",
        "| `disk.start` | `empty`, `loaded`, or object |",
        "| `disk.start.set_aside.reason` | string |",
        "| `source.as_of` | time or null | When the source last confirmed the records; null for never. |",
        "| `held.rows[].until` | `",
        "| `lease.failing.since` | time |",
        "| `lease.state` | `unknown`, `holder`, `follower`, `namesake` |",
        "| `serves.refused` | object of integer |",
    ] {
        assert!(page.lines().any(|line| line.starts_with(row)), "{row}");
    }
}
