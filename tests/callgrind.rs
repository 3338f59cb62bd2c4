//! How many instructions an answer takes, as callgrind counts them: exact, and so a gate.

use std::{
    env, fs,
    io::{Write, stderr},
    path::PathBuf,
    process::{Command, Stdio},
    thread::{self, ScopedJoinHandle},
};

/// Answers counted for each kind, so that what differs from one to the next evens out.
const ANSWERS: u64 = 64;

/// Instructions an answer may take at most, and those recorded, by the kind of question of tests/it/support/hot.rs. 5 % more
/// than recorded is too many as well: so much may come of another compiler, or of where it draws the lines between the units it
/// compiles.
///
/// Answers that do not fit cost what fits, however many records there are.
const BOUNDS: [(&str, u64, u64); 3] = [
    ("cluster IP", 1_456, 1_358),
    ("SRV, 10,000 endpoints", 110_000, 105_106),
    ("A, 10,000 endpoints", 13_000, 12_242),
];

/// Says something that the test harness does not swallow.
fn say(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Builds the bench `instructions` and gives its path.
///
/// Optimised as a release but for what crosses crates: dependencies are those the tests have built already. Of this crate only what an
/// answer calls is optimised (src/instructions.rs).
fn build() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_INCREMENTAL", "0");
    command.args(["rustc", "--locked", "--bench", "instructions", "--message-format=json", "--"]);
    for setting in ["opt-level=3", "codegen-units=4", "debug-assertions=off", "overflow-checks=off"] {
        command.args(["-C", setting]);
    }
    // What cargo says of this package to this test, ring's build script would take for a change, and be compiled anew.
    for (name, _) in env::vars_os() {
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
        if ours.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    let built = command.stderr(Stdio::inherit()).output().expect("cargo is there, as it runs this");
    assert!(built.status.success(), "the bench does not build");
    let messages = String::from_utf8(built.stdout).expect("cargo speaks UTF-8");
    let executable =
        messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|message| {
            let ours = message["target"]["name"] == "instructions";
            message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
        });
    executable.expect("cargo says where the bench is")
}

/// Instructions counted in `counted_answer` for so many answers.
fn count(executable: &PathBuf, title: &str, answers: u64) -> u64 {
    let out = tempfile::NamedTempFile::new().expect("a file can be made");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_answer*"])
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(executable)
        .args([title, &answers.to_string()])
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let counted = fs::read_to_string(out).expect("callgrind has written");
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind writes totals");
    total.trim().parse().expect("one event is counted")
}

#[test]
fn an_answer_takes_no_more_instructions_than_its_bound() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        say("skipped: valgrind is not installed, instructions are not counted");
        return;
    }
    let executable = build();
    // All at once: other programs do not change what is counted.
    let (nothing, counted) = thread::scope(|scope| {
        let start = |title, answers| {
            let executable = &executable;
            scope.spawn(move || count(executable, title, answers))
        };
        let nothing = start("cluster IP", 0);
        let counted = BOUNDS.map(|(title, ..)| start(title, ANSWERS));
        let end = |run: ScopedJoinHandle<'_, u64>| run.join().expect("callgrind has counted");
        (end(nothing), counted.map(end))
    });
    assert_eq!(nothing, 0, "only answers are counted");
    let mut over = Vec::new();
    for ((title, most, recorded), counted) in BOUNDS.into_iter().zip(counted) {
        let bound = most.min(recorded + recorded / 20);
        let each = counted / ANSWERS;
        say(&format!("{title}: {each} instructions an answer, {recorded} recorded, at most {bound}"));
        if each == 0 || each > bound {
            over.push(format!("{title}: {each} instructions, the bound is {bound}"));
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}
