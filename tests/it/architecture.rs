//! Holds the sources to the module arrows of docs/architecture.md, and `unsafe` to `src/sys`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Reads the arrows out of docs/architecture.md: in the fenced block after "module arrows", every line
/// `name: other, other` lists what `name` may import.
fn arrows(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let block = document.split("```arrows\n").nth(1).expect("docs/architecture.md has an `arrows` block");
    let block = block.split("```").next().expect("the block ends");
    block
        .lines()
        .map(|line| {
            let (module, imports) = line.split_once(':').expect("an arrow is `module: import, import`");
            let imports = imports.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
            (module.trim().to_owned(), imports.collect())
        })
        .collect()
}

/// The top-level modules that a source names after `crate::`, in imports and in paths alike.
fn imports(source: &str) -> BTreeSet<String> {
    let without_comment = |line: &'_ str| line.find("// ").map_or(line.len(), |at| at);
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [&line[..without_comment(line)], "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group)),
            None => found.extend(head(rest)),
        }
    }
    found
}

/// The first identifier of each item of a `{…}` group, nested groups left out.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut item_starts = vec![0];
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => item_starts.push(at + 1),
            _ => {}
        }
    }
    item_starts.into_iter().filter_map(|start| head(group[start..].trim_start())).collect()
}

fn head(path: &str) -> Option<String> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    let word = &path[..end];
    (!word.is_empty() && word.starts_with(|c: char| c.is_lowercase())).then(|| word.to_owned())
}

/// Every arrow the sources draw that `allowed` does not.
fn violations<'a>(
    allowed: &BTreeMap<String, BTreeSet<String>>,
    sources: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let mut violations = Vec::new();
    for (path, source) in sources {
        let module = path.split(['/', '.']).next().unwrap_or_default();
        let Some(may) = allowed.get(module) else {
            violations.push(format!("{path}: module {module} is not in the arrows"));
            continue;
        };
        for import in imports(source) {
            if import != module && !may.contains(&import) {
                violations.push(format!("{path}: {module} may not import {import}"));
            }
        }
    }
    violations
}

/// Every arrow of `allowed` that no source draws.
fn unused<'a>(
    allowed: &BTreeMap<String, BTreeSet<String>>,
    sources: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let mut drawn: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, source) in sources {
        drawn.entry(path.split(['/', '.']).next().unwrap_or_default()).or_default().extend(imports(source));
    }
    let is_drawn = |module: &str, import: &str| drawn.get(module).is_some_and(|imports| imports.contains(import));
    let all = allowed.iter().flat_map(|(module, imports)| imports.iter().map(move |import| (module, import)));
    all.filter(|(module, import)| !is_drawn(module, import))
        .map(|(module, import)| format!("{module} -> {import}"))
        .collect()
}

pub fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root).expect("a readable source folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(String, String)> {
    let root = repository().join("src");
    let name = |path: &Path| path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
    let read = |path: PathBuf| (name(&path), fs::read_to_string(&path).expect("a readable source"));
    // Each is the root of a crate.
    let is_root = |path: &str| ["lib.rs", "main.rs", "instructions.rs"].contains(&path);
    rust_files(&root).into_iter().map(read).filter(|(path, _)| !is_root(path)).collect()
}

fn architecture() -> String {
    fs::read_to_string(repository().join("docs/architecture.md")).expect("docs/architecture.md")
}

#[test]
fn modules_import_along_the_arrows_only() {
    let sources = sources();
    assert!(sources.len() > 10, "the checker found the sources");
    let found = violations(&arrows(&architecture()), sources.iter().map(|(path, source)| (&**path, &**source)));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_arrow_is_drawn_by_an_import() {
    let sources = sources();
    let found = unused(&arrows(&architecture()), sources.iter().map(|(path, source)| (&**path, &**source)));
    assert!(found.is_empty(), "arrows of docs/architecture.md that no source needs: {found:#?}");
    let allowed = arrows("```arrows\nrecord:\nzone: record\ndns: record, zone\n```");
    let sources = [("zone/name.rs", "use crate::record::Kind;"), ("dns/udp.rs", "use crate::zone::Zone;")];
    assert_eq!(unused(&allowed, sources), ["dns -> record"], "the check can fail");
}

#[test]
fn the_arrows_are_of_the_modules_there_are() {
    let sources = sources();
    let in_source: BTreeSet<&str> = sources.iter().filter_map(|(path, _)| path.split(['/', '.']).next()).collect();
    let arrows = arrows(&architecture());
    let drawn: BTreeSet<&str> = arrows.keys().map(String::as_str).collect();
    assert_eq!(drawn, in_source);
}

#[test]
fn the_arrows_form_no_cycle() {
    let arrows = arrows(&architecture());
    let mut settled = BTreeSet::new();
    while settled.len() < arrows.len() {
        let ready: Vec<&String> = arrows
            .iter()
            .filter(|(module, imports)| !settled.contains(*module) && imports.iter().all(|i| settled.contains(i)))
            .map(|(module, _)| module)
            .collect();
        assert!(!ready.is_empty(), "a cycle, or an unknown module, among {:?}", arrows.keys());
        settled.extend(ready);
    }
}

#[test]
fn every_module_has_its_section_with_an_invariant() {
    let document = architecture();
    for module in arrows(&document).keys() {
        let section = document.split(&format!("\n### `{module}`")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/architecture.md has no section for {module}"));
        let section = section.split("\n### ").next().expect("a section");
        assert!(section.contains("Invariant:"), "the section on {module} names no invariant");
    }
}

#[test]
fn an_import_against_the_arrows_is_found_however_it_is_written() {
    let allowed = arrows("```arrows\nrecord:\nzone: record\ndns: record, zone\nsource: record\n```");
    let bad = [
        ("zone.rs", "use crate::dns::Answer;"),
        ("zone.rs", "use crate::{record::{Kind, Port}, dns};"),
        ("zone.rs", "fn f() { crate::dns::answer(); }"),
        ("source.rs", "use crate::{\n    record,\n    dns::forward,\n};"),
        ("zone.rs", "pub(in crate::dns) fn f() {}"),
        ("unknown.rs", ""),
    ];
    for (path, source) in bad {
        assert_eq!(violations(&allowed, [(path, source)]).len(), 1, "{path}: {source}");
    }
    let good = [
        ("dns.rs", "use crate::{record::{Kind, Port}, zone::Zone};"),
        ("dns.rs", "use crate::dns::answer; // crate::source is not imported"),
        ("dns.rs", "// use crate::source;"),
        ("dns.rs", "use other_crate::source;"),
    ];
    for (path, source) in good {
        assert_eq!(violations(&allowed, [(path, source)]), Vec::<String>::new(), "{path}: {source}");
    }
}

/// Lines with `unsafe` code outside `src/sys`.
fn unsafe_lines(path: &str, source: &str) -> Vec<String> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let is_unsafe = |line: &&str| {
        ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"].iter().any(|word| line.contains(word))
    };
    if path.starts_with("sys/") {
        return Vec::new();
    }
    source.lines().filter(code).filter(is_unsafe).map(|line| format!("{path}: {line}")).collect()
}

#[test]
fn unsafe_lives_in_sys_alone() {
    let found: Vec<String> = sources().iter().flat_map(|(path, source)| unsafe_lines(path, source)).collect();
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(unsafe_lines("dns/udp.rs", "let x = unsafe { y() };").len(), 1);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let root = repository().join("src/sys");
    for path in rust_files(&root) {
        let source = fs::read_to_string(&path).expect("a readable source");
        let lines: Vec<&str> = source.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
            let above = &lines[number.saturating_sub(6)..=number];
            let reason = above.iter().any(|line| line.contains("// SAFETY:"));
            assert!(reason, "{}:{}: no SAFETY reason: {line}", path.display(), number + 1);
        }
    }
}
