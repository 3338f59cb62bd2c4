//! docs/logging.md against the code: every warning and error line has its row, and no row stands for a line that is gone.

use std::{collections::BTreeSet, fs, path::Path};

use super::architecture::rust_files;

/// The level and the text of each `warn!` and `error!` in a source, unit tests left out.
fn lines(source: &str) -> BTreeSet<(String, String)> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    for level in ["warn", "error"] {
        let call = format!("{level}!(");
        for (at, _) in code.match_indices(&call) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            if let Some(text) = last_literal(&code[at + call.len()..]) {
                found.insert((level.to_owned(), text));
            }
        }
    }
    found
}

/// The last string literal among the arguments of a macro, which is its message.
fn last_literal(arguments: &str) -> Option<String> {
    let (mut depth, mut last) = (1, None);
    let mut chars = arguments.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let mut end = at + 1;
                while let Some((next, char)) = chars.next() {
                    end = next;
                    match char {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                if depth == 1 {
                    last = Some(&arguments[at + 1..end]);
                }
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    // A literal that goes on in the next line goes on without its indent.
    let parts: Vec<&str> = last?.split("\\\n").collect();
    Some(parts.iter().enumerate().map(|(nth, part)| if nth == 0 { part } else { part.trim_start() }).collect())
}

fn logged() -> BTreeSet<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_test = |path: &Path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        name == "tests" || name.ends_with("_tests") || path.components().any(|part| part.as_os_str() == "tests")
    };
    let files = rust_files(&src).into_iter().filter(|path| !is_test(path));
    files.flat_map(|path| lines(&fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_warning_and_error_is_explained() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logging.md")).unwrap();
    let rows: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|row| {
            let mut cells = row.strip_prefix("| ")?.splitn(3, " | ");
            let (level, line, meaning) = (cells.next()?, cells.next()?, cells.next()?);
            let line = line.strip_prefix('`')?.strip_suffix('`')?;
            assert!(!meaning.trim_matches([' ', '|']).is_empty(), "{row}: no meaning");
            Some((level.to_owned(), line.to_owned()))
        })
        .collect();
    let logged = logged();
    assert!(logged.len() > 50, "the lines were found: {}", logged.len());
    let missing: Vec<_> = logged.difference(&rows).collect();
    let gone: Vec<_> = rows.difference(&logged).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/logging.md lacks {missing:#?} and has lines that are gone: {gone:#?}"
    );
}

/// Fields of `info!`, `warn!` and `error!` in Rust's debug form, which people read as it is.
fn fields_in_debug_form(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let calls = ["info!(", "warn!(", "error!("].into_iter().flat_map(|call| code.match_indices(call));
    let arguments = calls.map(|(at, call)| {
        let rest = &code[at + call.len()..];
        &rest[..rest.find(");").unwrap_or(rest.len())]
    });
    let has_sigil = |field: &&str| field.trim_start().starts_with('?') || field.contains("= ?");
    arguments
        .flat_map(|arguments| arguments.split(['"']).next().unwrap_or_default().split(','))
        .filter(has_sigil)
        .collect()
}

#[test]
fn no_field_of_a_line_is_in_the_debug_form() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in rust_files(&src) {
        let source = fs::read_to_string(&path).unwrap();
        let found = fields_in_debug_form(&source);
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
    assert_eq!(fields_in_debug_form("info!(?which, a = 1, took = ?x(), %y, \"? = ?\");"), ["?which", " took = ?x()"]);
}

#[test]
fn the_lines_of_a_source_are_found() {
    let source = r#"
        tracing::warn!(%error, "cannot \"x\"");
        error!(to = %to.display(), reason = format!("{error:#}"), "a line that \
               goes on");
        info!("not this one");
        my_warn!("nor this");
        #[cfg(test)]
mod tests { error!("nor this"); }
    "#;
    let expect = [("error", "a line that goes on"), ("warn", "cannot \\\"x\\\"")];
    let found = lines(source);
    let found: Vec<(&str, &str)> = found.iter().map(|(level, text)| (level.as_str(), text.as_str())).collect();
    assert_eq!(found, expect);
}

/// The messages in the first column of the tables of a page that are headed `you see`, cut at what the process fills in.
fn quoted(page: &str) -> BTreeSet<String> {
    let mut within = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        within = line.starts_with("| you see |") || (within && line.starts_with('|'));
        let Some(cell) = line.strip_prefix("| ").and_then(|line| line.split(" | ").next()).filter(|_| within) else {
            continue;
        };
        let messages = cell.split('`').skip(1).step_by(2).filter(|message| message.contains(' '));
        let parts = messages.flat_map(|message| message.split('…'));
        found.extend(
            parts.map(|part| part.trim_matches([' ', ':', ',', '(', ')']).to_owned()).filter(|part| part.len() > 3),
        );
    }
    found
}

#[test]
fn the_runbook_quotes_messages_that_exist() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(here.join("docs/runbook.md")).unwrap();
    let quoted = quoted(&page);
    assert!(quoted.len() > 30, "{quoted:?}");
    let source: String = rust_files(&here.join("src"))
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .flat_map(|text| text.split("\\\n").map(|part| part.trim_start().to_owned()).collect::<Vec<_>>())
        .collect();
    // Names and numbers that the process fills in stand for themselves on the page.
    let filled = [
        "NAMESPACE/NAME",
        " for 3m",
        " X",
        "spiffe://A/",
        " B",
        " N",
        "leader",
        "received fatal alert",
        "every hub",
        "fatal alert: CertificateRevoked",
    ];
    let missing: Vec<&String> = quoted
        .iter()
        .filter(|part| {
            filled
                .iter()
                .fold((*part).clone(), |part, word| part.replace(word, "\0"))
                .split('\0')
                .any(|part| !source.contains(part.trim()))
        })
        .collect();
    assert_eq!(missing, Vec::<&String>::new(), "messages in docs/runbook.md that no code has");
}
