//! Holds docs/metrics.md, the README and `.ci/run` to the code.

use std::{collections::BTreeSet, fs, path::Path};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metric names a source writes down: every string literal that begins with `holdfast_`.
fn named_in_source(source: &str) -> BTreeSet<String> {
    let is_name = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|t| t.starts_with("holdfast_") && is_name(t))
        .map(str::to_owned)
        .collect()
}

/// The metric names a document describes: the first cell of each row, in backticks.
fn named_in_document(document: &str) -> BTreeSet<String> {
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    document.lines().filter_map(cell).map(|name| name.split('{').next().unwrap_or_default().to_owned()).collect()
}

/// What stands in one and not in the other.
fn drift(sources: &BTreeSet<String>, document: &str) -> Vec<String> {
    let documented = named_in_document(document);
    let missing = sources.difference(&documented).map(|name| format!("{name} is not in docs/metrics.md"));
    let gone = documented.difference(sources).map(|name| format!("docs/metrics.md has {name}, the code has not"));
    missing.chain(gone).collect()
}

fn rust_sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            rust_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).expect("a readable source"));
            // A quote left open in one file must not turn the next inside out.
            if found.matches('"').count() % 2 == 1 {
                found.push('"');
            }
        }
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let mut sources = String::new();
    rust_sources(&repository().join("src"), &mut sources);
    // Literals are told from the text between them by counting quotes, which a `'"'` in a source upsets: look at both.
    let mut names = named_in_source(&sources);
    names.extend(named_in_source(&format!("\"{sources}")));
    assert!(names.len() > 20, "the checker found the metrics: {names:?}");
    assert_eq!(drift(&names, &read("docs/metrics.md")), Vec::<String>::new());
}

#[test]
fn a_metric_without_a_row_and_a_row_without_a_metric_are_found() {
    let names = named_in_source(r#"Opts::new("holdfast_a_total", "help of holdfast_x"); "holdfast_b{c}""#);
    assert_eq!(names, BTreeSet::from(["holdfast_a_total".to_owned()]));
    assert_eq!(drift(&names, "| `holdfast_a_total{kind}` | … |"), Vec::<String>::new());
    assert_eq!(drift(&names, "holdfast_a_total without a row").len(), 1);
    assert_eq!(drift(&names, "| `holdfast_a_total` | … |\n| `holdfast_z` | … |").len(), 1);
}

/// The lines of a document's `sh` blocks.
fn commands(document: &str) -> Vec<&str> {
    document.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).flat_map(str::lines).collect()
}

#[test]
fn the_test_command_of_the_readme_is_what_ci_runs() {
    let readme = read("README.md");
    let commands = commands(&readme);
    assert_eq!(commands.len(), 2, "the README has two commands: {commands:?}");
    let ci = read(".ci/run");
    assert!(ci.lines().any(|line| line == format!("step {}", commands[1])), ".ci/run does not run {:?}", commands[1]);
    assert!(!ci.contains("|| true"), ".ci/run hides a failure");
}

#[test]
fn every_page_that_a_document_links_to_exists() {
    let mut broken = Vec::new();
    let mut pages = vec![repository().join("README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(repository().join(folder)).expect("docs");
        pages.extend(
            entries.map(|entry| entry.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    for page in pages {
        let text = fs::read_to_string(&page).expect("a readable page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let linked = page.parent().expect("a folder").join(target);
            if !target.is_empty() && !target.contains("://") && !linked.exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
