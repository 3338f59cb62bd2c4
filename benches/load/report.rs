//! Medians and ratios.

use std::{fs, process::Command, time::Duration};

use crate::generator::Run;

/// The machine and the commit, as a number quoted needs them beside it.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim_start_matches(['\t', ':', ' ']);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{cores} x {model}, Linux {}, commit {commit}", kernel.trim())
}

/// The median rate of some runs.
pub fn median_rate(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.rate))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One line of the table.
pub struct Row {
    case: &'static str,
    subject: String,
    rate: f64,
    each_us: f64,
    /// p50, p99, p99.9 in microseconds, saturated.
    saturated_us: [f64; 3],
    half_rate: f64,
    half_each_us: f64,
    half_us: [f64; 3],
    lost: u64,
}

impl Row {
    pub fn new(case: &'static str, subject: &str, saturated: &[Run], half: &[Run], half_rate: f64) -> Self {
        let each = |runs: &[Run]| median(runs.iter().map(|run| micros(run.each)));
        let quantiles =
            |runs: &[Run]| [0.5, 0.99, 0.999].map(|share| median(runs.iter().map(|run| quantile(run, share))));
        Self {
            case,
            subject: subject.to_owned(),
            rate: median_rate(saturated),
            each_us: each(saturated),
            saturated_us: quantiles(saturated),
            half_rate,
            half_each_us: each(half),
            half_us: quantiles(half),
            lost: saturated.iter().chain(half).map(|run| run.lost).sum(),
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
fn quantile(run: &Run, share: f64) -> f64 {
    let place = (run.latencies_ns.len() as f64 * share) as usize;
    run.latencies_ns.get(place).map_or(f64::NAN, |&ns| f64::from(ns) / 1e3)
}

/// One subject in two states.
pub const QUIET: &str = "holdfast, quiet";
pub const DISTURBED: &str = "holdfast, disturbed";

/// What was measured with one number of workers.
pub struct Table {
    pub workers: usize,
    shared: bool,
    rows: Vec<Row>,
}

impl Table {
    pub fn new(workers: usize, shared: bool) -> Self {
        Self { workers, shared, rows: Vec::new() }
    }

    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// What a row is compared with: the echo, or the same subject in quiet.
    fn base<'a>(&'a self, row: &'a Row) -> &'a Row {
        let is_base = |base: &&Row| base.case == row.case && (base.subject == "echo" || base.subject == QUIET);
        self.rows.iter().find(is_base).unwrap_or(row)
    }

    pub fn print(&self) {
        let with = if self.shared { ", the generator on one of their processors" } else { "" };
        println!("\n{} worker(s){with}", self.workers);
        println!(
            "| case | subject | qps | CPU µs/query | × base | p50 | p99 | p99.9 µs | open loop qps | CPU µs/query | × base \
             | p50 | p99 | p99.9 µs | p99 × base | lost |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
        for row in &self.rows {
            let base = self.base(row);
            let [p50, p99, p999] = row.saturated_us;
            let [half_p50, half_p99, half_p999] = row.half_us;
            println!(
                "| {} | {} | {:.0} | {:.2} | {:.2} | {p50:.0} | {p99:.0} | {p999:.0} | {:.0} | {:.2} | {:.2} | {half_p50:.0} \
                 | {half_p99:.0} | {half_p999:.0} | {:.2} | {} |",
                row.case,
                row.subject,
                row.rate,
                row.each_us,
                row.each_us / base.each_us,
                row.half_rate,
                row.half_each_us,
                row.half_each_us / base.half_each_us,
                half_p99 / base.half_us[1],
                row.lost,
            );
        }
    }
}

/// What one worker must reach: a word of the case, what is meant, its value in a row and the row it is compared with.
type Target = (&'static str, &'static str, fn(&Row, &Row) -> f64, f64);

const TARGETS: [Target; 8] = [
    ("ClusterIP", "CPU per query, × echo", processor, 1.15),
    ("NXDOMAIN", "CPU per query, × echo", processor, 1.15),
    ("cached", "CPU per query, × echo", processor, 1.30),
    ("ClusterIP", "p99 at half of the saturated rate, × echo", latency, 2.0),
    ("NXDOMAIN", "p99 at half of the saturated rate, × echo", latency, 2.0),
    ("changes", "p99 at half of the saturated rate, × quiet", latency, 1.5),
    ("idle", "p99 at half of the saturated rate, × quiet: 1 within noise", latency, 1.25),
    ("idle", "CPU per query, × quiet: 1 within noise", processor, 1.25),
];

fn processor(row: &Row, base: &Row) -> f64 {
    row.each_us / base.each_us
}

fn latency(row: &Row, base: &Row) -> f64 {
    row.half_us[1] / base.half_us[1]
}

/// What must be reached, and what was.
pub fn print_targets(table: &Table) {
    println!("\n| must reach | at most | measured | |\n|---|--:|--:|---|");
    for (word, what, value, bound) in TARGETS {
        let ours = |row: &&Row| row.case.contains(word) && (row.subject == "holdfast" || row.subject == DISTURBED);
        for row in table.rows.iter().filter(ours) {
            let measured = value(row, table.base(row));
            let verdict = if measured <= bound { "reached" } else { "missed" };
            println!("| {}: {what} | {bound:.2} | {measured:.2} | {verdict} |", row.case);
        }
    }
    for row in table.rows.iter().filter(|row| row.subject == "holdfast") {
        for peer in table.rows.iter().filter(|peer| peer.case == row.case && peer.subject != "echo") {
            if peer.subject != row.subject {
                let verdict = if row.each_us < peer.each_us { "reached" } else { "missed" };
                println!(
                    "| {}: CPU µs per query, {}'s at most | {:.2} | {:.2} | {verdict} |",
                    row.case, peer.subject, peer.each_us, row.each_us
                );
            }
        }
    }
}
