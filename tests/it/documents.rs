//! Holds the documents to the code: metrics, commands, links, named files, the list of decisions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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

/// The README, the test support's, and every page of docs.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![repository().join("README.md"), repository().join("tests/it/support/README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(repository().join(folder)).expect("docs");
        pages.extend(
            entries.map(|entry| entry.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    pages
}

/// The files and folders of this repository that a text names in backticks.
fn paths_in(text: &str) -> BTreeSet<&str> {
    let folders = ["src/", "tests/", "benches/", "docs/", "deploy/", "fuzz/"];
    let is_path = |word: &&str| {
        folders.iter().any(|folder| word.starts_with(folder))
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    };
    text.split('`').skip(1).step_by(2).filter(is_path).collect()
}

#[test]
fn every_file_that_a_document_names_exists() {
    let found = paths_in("`src/lib.rs`, `src/gone.rs`, `holdfast dump`, `tests/it/{a,b}.rs`, `src/dns/`");
    assert_eq!(found, BTreeSet::from(["src/dns/", "src/gone.rs", "src/lib.rs"]));
    let mut missing = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a readable page");
        let gone = paths_in(&text).into_iter().filter(|path| !repository().join(path).exists());
        missing.extend(gone.map(|path| format!("{}: {path}", page.display())));
    }
    let lib = read("src/lib.rs");
    missing.extend(paths_in(&lib).into_iter().filter(|path| !repository().join(path).exists()).map(str::to_owned));
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_decision_has_a_status_and_a_row_in_the_list() {
    let list = read("docs/decisions/README.md");
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| page.parent().is_some_and(|folder| folder.ends_with("decisions"))) {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        // Records from before this form keep their number until they are next changed.
        if name == "README.md" || name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let text = fs::read_to_string(page).expect("a readable page");
        let status = text.lines().find_map(|line| line.strip_prefix("Status: "));
        if !list.contains(&format!("]({name})")) || status.is_none() {
            wrong.push(format!("{name}: status {status:?}, or not in docs/decisions/README.md"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_page_that_a_document_links_to_exists() {
    let mut broken = Vec::new();
    for page in pages() {
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

/// The units a text tells `systemctl` to do something with, as the file they come from is called.
fn units_in(text: &str) -> BTreeSet<String> {
    let verbs = ["start", "stop", "restart", "enable", "disable", "reload", "status", "--now"];
    let file = |word: &str| {
        let word = word.trim_end_matches(['.', ',', ';', ')']).trim_end_matches(".service");
        word.split_once('@').map_or_else(|| format!("{word}.service"), |(name, _)| format!("{name}@.service"))
    };
    let commands = text.lines().flat_map(|line| line.split("systemctl ").skip(1));
    let unit = |command: &str| command.split_whitespace().find(|word| !verbs.contains(word)).map(file);
    commands.filter_map(unit).collect()
}

#[test]
fn units_that_are_spoken_of_are_those_that_are_shipped() {
    let shipped = |unit: &str| repository().join("deploy/systemd").join(unit).exists();
    let page = "systemctl start holdfast-agent@b && systemctl stop holdfast@a\nsystemctl enable --now holdfast-watch.";
    let found = units_in(page);
    let not_shipped: Vec<&String> = found.iter().filter(|unit| !shipped(unit)).collect();
    assert_eq!((found.len(), not_shipped), (3, vec![&"holdfast-agent@.service".to_owned()]), "the check can fail");
    let pages = ["docs/runbook.md", "docs/migration.md", "README.md", "deploy/README.md"];
    let units = ["deploy/systemd/holdfast@.service", "deploy/systemd/holdfast-watch.service"];
    let mut all = 0;
    for page in pages.into_iter().chain(units) {
        for unit in units_in(&read(page)) {
            all += 1;
            assert!(shipped(&unit), "{page}: there is no {unit}");
        }
    }
    assert!(all >= 3);
}

/// Words in backticks that are the name of a test: of that many words no other name is.
fn tests_in(text: &str) -> BTreeSet<&str> {
    let is_test = |word: &&str| {
        word.matches('_').count() >= 4
            && !word.starts_with("holdfast_")
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.split('`').skip(1).step_by(2).filter(is_test).collect()
}

#[test]
fn every_test_that_the_page_on_security_names_exists() {
    let mut sources = String::new();
    for directory in ["src", "tests"] {
        rust_sources(&repository().join(directory), &mut sources);
    }
    let page = read("docs/security.md");
    let named = tests_in(&page);
    let gone: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert!(named.len() > 60, "{named:?}");
}

/// The numbers on the page, and where the code has them. A constant that changes changes the page.
const LIMITS: &[(&str, &str, &str)] = &[
    ("transport | 4,096;", "src/dns/config.rs", "forwards_max: 4_096,"),
    ("`max_concurrent` (1,000)", "src/config/settings/forward.rs", "Setting::new(\"max_concurrent\", \"1000\")"),
    ("sockets to upstreams | 2,048,", "src/dns/forward/upstream/udp.rs", "SOCKETS_MAX: usize = 2_048;"),
    ("one upstream | 5, from", "src/dns/forward/upstream/attempts.rs", "TRIES_MAX: u32 = 5;"),
    ("50 ahead of", "src/dns/forward/upstream.rs", "RETRIES_MAX: u32 = 50;"),
    ("question | 16, then", "src/dns/forward/upstream/udp.rs", "NEAR_MISSES_MAX: u32 = 16;"),
    ("1,000, then TCP alone", "src/dns/forward/upstream/udp.rs", "NEAR_MISSES_LAST: u32 = 1_000;"),
    ("`tcp.max_connections` (1,000)", "src/config/settings.rs", "Setting::new(\"tcp.max_connections\", \"1000\")"),
    ("`tcp.max_per_source` (100)", "src/config/settings.rs", "Setting::new(\"tcp.max_per_source\", \"100\")"),
    ("`max_fails` (3)", "src/config/settings/forward.rs", "Setting::new(\"max_fails\", \"3\")"),
    ("over TCP | 16 MiB", "src/dns/tcp.rs", "BUFFERED_BYTES_MAX: usize = 16 << 20;"),
    ("every 1 to 5 s", "src/dns/forward/upstream.rs", "PROBE_MAX: Duration = Duration::from_secs(5);"),
    ("listener | 128 and 16 for", "src/admin.rs", "CONNECTIONS: usize = 128;"),
    ("128 and 16 for each", "src/admin.rs", "CONNECTIONS_PER_SOURCE: usize = 16;"),
    ("64 more for the node", "src/admin.rs", "CONNECTIONS_NODE: usize = 64;"),
    ("there | 1 s, 8 KiB", "src/admin/serve.rs", "HEAD: Duration = Duration::from_secs(1);"),
    ("1 s, 8 KiB |", "src/admin/serve.rs", "HEAD_BYTES: usize = 8 * 1024;"),
    ("| 50 a second |", "src/admin/scrape.rs", "RENDERED_EVERY: Duration = Duration::from_millis(20);"),
    ("done or not | 4,096, a quarter", "src/stream.rs", "unfinished_max: 4_096,"),
    ("each address; 10 s |", "src/stream/server.rs", "HELLO_WAIT: Duration = Duration::from_secs(10);"),
    ("at a hub | 64, half", "src/stream.rs", "handshakes_max: 64,"),
    ("for 250 ms,", "src/stream/server/admission.rs", "PLACE_HELD: Duration = Duration::from_millis(250);"),
    ("40 ms while", "src/stream/server/admission.rs", "PLACE_HELD_SCARCE: Duration = Duration::from_millis(40);"),
    ("way at a hub | 256, half", "src/stream.rs", "transfers_max: 256,"),
    ("turn for 30 s", "src/stream/subscriber.rs", "TURN_MAX: Duration = Duration::from_secs(30);"),
    ("to a hub | 20,000;", "src/stream.rs", "connections_max: 20_000,"),
    ("of one node 8", "src/stream/server/of_nodes.rs", "CONNECTIONS_OF_NODE_MAX: usize = 8;"),
    ("disk | a day ahead", "src/record.rs", "EPOCH_AHEAD_MAX_MS: u64 = 86_400_000;"),
    ("cached | 65,535", "src/dns/cache/memory.rs", "ROUTES_MAX: usize = u16::MAX as usize;"),
    ("reader | 256 KiB", "src/sys/stderr.rs", "QUEUE_BYTES_MAX: usize = 256 << 10;"),
    ("660 are kept", "src/role/descriptors.rs", "RESERVED: usize = 660;"),
    ("connections | 1,024, 256;", "src/node/watch/relay.rs", "QUERIES_MAX: usize = 1_024;"),
    ("1,024, 256;", "src/node/watch/relay.rs", "CONNECTIONS_MAX: usize = 256;"),
    ("512 characters", "src/proto.rs", "TEXT_CHARS_MAX: usize = 512;"),
    ("253 bytes of its name", "src/stream/server.rs", "NAME_LOGGED_MAX: usize = 253;"),
    ("within 10 s", "src/tls.rs", "REREAD: Duration = Duration::from_secs(10);"),
    ("get 50 answers a second", "src/config/settings.rs", "Setting::new(\"open_rate\", \"50\")"),
    ("1,232 bytes", "src/wire.rs", "UDP_BYTES_MAX: usize = 1232;"),
];

/// The same of the page on encrypted DNS.
const LIMITS_ENCRYPTED: &[(&str, &str, &str)] = &[
    ("it has begun | 2 s |", "src/dns/config.rs", "partial: Duration::from_secs(2),"),
    ("its answers | 5 s |", "src/dns/config.rs", "write: Duration::from_secs(5),"),
    ("under way | 64;", "src/dns/config.rs", "in_flight_max: 64,"),
    ("16 KiB of headers", "src/dns/encrypted/https.rs", "HEADERS_BYTES_MAX: u32 = 16 * 1024;"),
    ("reset | 16 that", "src/dns/encrypted/https.rs", "RESETS_MAX: usize = 16;"),
    ("0.2 s | 32, then", "src/dns/encrypted/quic.rs", "HALF_OPEN_MAX: usize = 32;"),
    ("; 512 with proof,", "src/dns/encrypted/quic.rs", "HALF_OPEN_PROVEN_MAX: usize = 512;"),
    ("connection | 256 KiB each", "src/dns/encrypted/quic.rs", "WINDOW_BYTES: u32 = 256 * 1024;"),
    ("a multiple of 468 bytes", "src/dns/padding.rs", "BLOCK_BYTES: usize = 468;"),
    ("read again every 10 s", "src/tls.rs", "REREAD: Duration = Duration::from_secs(10);"),
    (
        "warns 7 days before",
        "src/tls/server_certificate.rs",
        "WARN_BEFORE: Duration = Duration::from_secs(7 * 86_400);",
    ),
];

#[test]
fn limits_on_the_pages_are_those_of_the_code() {
    for (page, limits) in [("docs/security.md", LIMITS), ("docs/encrypted.md", LIMITS_ENCRYPTED)] {
        let text = read(page);
        for (told, file, code) in limits {
            assert!(text.contains(told), "{page} has no {told:?}; {file} has {code:?}");
            assert!(read(file).contains(code), "{file} has no {code:?} any more; {page} has {told:?}");
        }
    }
}
