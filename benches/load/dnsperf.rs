//! The same questions from a generator of somebody else, as a check on ours.

use std::{fmt::Write as _, fs, process::Command};

use crate::{options::Options, subject::Subject, traffic::Asked};

/// Prints what dnsperf says of each subject, if it is installed.
pub fn run(subjects: &[Subject], asked: &[Asked], options: &Options) {
    if Command::new("dnsperf").arg("-h").output().is_err() {
        println!("dnsperf is not installed, and left out");
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut lines = String::new();
    for asked in asked {
        writeln!(lines, "{} A", name(&asked.query)).unwrap();
    }
    fs::write(file.path(), lines).unwrap();
    println!("\ndnsperf, ClusterIP hit, 1 worker\n| subject | qps | CPU µs/query |\n|---|--:|--:|");
    for subject in subjects {
        let (before, address) = (subject.processor_time(), subject.address());
        let seconds = options.time.as_secs().max(1).to_string();
        let output = Command::new("dnsperf")
            .args(["-s", &address.ip().to_string(), "-p", &address.port().to_string(), "-l", &seconds])
            .args(["-c", "16", "-q", "256", "-d"])
            .arg(file.path())
            .output()
            .unwrap();
        let used = subject.processor_time().saturating_sub(before);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let figure = |label: &str| -> f64 {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
            line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
        };
        let (rate, completed) = (figure("Queries per second:"), figure("Queries completed:"));
        println!("| {} | {rate:.0} | {:.2} |", subject.name(), used.as_secs_f64() * 1e6 / completed);
    }
}

/// The name in a query, as text.
fn name(query: &[u8]) -> String {
    let (mut text, mut at) = (String::new(), 12);
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        text.push_str(std::str::from_utf8(&query[at + 1..end]).unwrap());
        text.push('.');
        at = end;
    }
    text
}
