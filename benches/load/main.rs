//! What a query costs on sockets: holdfast against a bare echo on the same machine in the same run.
//!
//! `cargo bench --bench load` starts each subject in turn on loopback, pins it to its own processors, drives it with one
//! generator pinned to another, and prints medians over several runs with the ratio to the echo. `docs/performance.md`
//! says how to read it.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops where it stands")]

mod busy;
mod cache;
mod crowd;
mod dnsperf;
mod echo;
mod generator;
mod options;
mod peers;
mod report;
mod subject;
mod traffic;

use crowd::Crowd;
use generator::Run;
use options::{Options, Task};
use report::{Row, Table};
use subject::Subject;
use tempfile::TempDir;
use traffic::{Asked, CLUSTER_IP, Case, Cluster, EXTERNAL};

/// A cache of this size is full of what one of the default `cache.max_bytes` has room for before it begins to evict.
const FULL_BYTES: u64 = 60 << 20;

/// From the end of what disturbs a subject until it is quiet.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

fn main() {
    match Options::read(std::env::args().skip(1)) {
        Ok(Task::Measure(options)) => measure(&options),
        Ok(Task::Echo { address, workers }) => echo::run(address, workers),
        Ok(Task::Busy { address, home }) => busy::run(address, &home),
        Ok(Task::Pinned { processors, command }) => subject::become_pinned(&processors, &command),
        Err(error) => {
            eprintln!("{error}\n{}", options::USAGE);
            std::process::exit(2);
        }
    }
}

fn measure(options: &Options) {
    println!("{}", report::machine());
    let files = tempfile::tempdir().unwrap();
    let mut tables = Vec::new();
    for &workers in &options.workers {
        let bench = Bench::new(options, &files, workers);
        let mut table = Table::new(workers, bench.shared);
        bench.cluster_names(&mut table);
        bench.cached_names(&mut table);
        if workers == 1 {
            bench.in_a_crowd(&mut table);
            bench.while_busy(&mut table);
        }
        table.print();
        tables.push(table);
    }
    tables.iter().filter(|table| table.workers == 1).for_each(report::print_targets);
}

/// The measurements with one number of workers.
struct Bench<'a> {
    options: &'a Options,
    files: &'a TempDir,
    cluster: Cluster,
    processors: Vec<usize>,
    /// The generator has no processor to itself.
    shared: bool,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, files: &'a TempDir, workers: usize) -> Self {
        let processors: Vec<usize> = (0..workers).collect();
        // The generator has the last processor to itself, unless the workers need it too.
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        let last = options.generator.unwrap_or(last);
        holdfast::sys::pin(&[last]).unwrap();
        let shared = processors.contains(&last);
        Self { options, files, cluster: Cluster::new(), processors, shared }
    }

    fn cluster_names(&self, table: &mut Table) {
        let cases: Vec<Case> = self.wanted(false);
        if cases.is_empty() {
            return;
        }
        let mut subjects = vec![self.echo(), Subject::holdfast(self.options, &self.cluster, &self.processors, None)];
        if self.options.peers {
            subjects.extend(peers::all(&self.cluster, &self.processors, subjects[1].address()));
        }
        for case in &cases {
            self.compare(&subjects, case, table);
        }
        if self.options.peers && self.processors.len() == 1 {
            dnsperf::run(&subjects, &CLUSTER_IP.queries(&self.cluster), self.options);
        }
    }

    fn cached_names(&self, table: &mut Table) {
        let cases = self.wanted(true);
        if cases.is_empty() {
            return;
        }
        let file = self.cache_file("million", EXTERNAL, 4 << 30);
        let subjects = [self.echo(), Subject::holdfast(self.options, &self.cluster, &self.processors, Some(&file))];
        for case in &cases {
            self.compare(&subjects, case, table);
        }
    }

    /// One holdfast, by turns alone and with clients of TCP that want nothing.
    fn in_a_crowd(&self, table: &mut Table) {
        let title = "1,000 idle TCP clients and a slow one";
        if !self.options.wants(title) {
            return;
        }
        let subject = Subject::holdfast(self.options, &self.cluster, &self.processors, None);
        let (queries, echo) = (CLUSTER_IP.queries(&self.cluster), self.echo());
        let rate = self.half_rate(&echo, &queries);
        let mut crowd = None;
        self.two_states(&subject, &queries, (title, rate), table, |disturbed| {
            drop(crowd.take());
            crowd = disturbed.then(|| Crowd::gather(subject.address(), self.processors.len()));
        });
    }

    /// One holdfast, by turns quiet and with changing records and a cache being saved.
    fn while_busy(&self, table: &mut Table) {
        let title = "1,000 changes/s, 64 MiB cache being saved";
        if !self.options.wants(title) {
            return;
        }
        let file = self.cache_file("full", EXTERNAL, FULL_BYTES);
        let subject = Subject::busy(&self.cluster, &self.processors, &file);
        let (queries, echo) = (CLUSTER_IP.queries(&self.cluster), self.echo());
        let rate = self.half_rate(&echo, &queries);
        let mut busy = false;
        self.two_states(&subject, &queries, (title, rate), table, |disturbed| {
            if std::mem::replace(&mut busy, disturbed) != disturbed {
                subject.be_busy(disturbed);
            }
            if !disturbed {
                // What was begun, a save and the last changes on their way to disk, is no part of the quiet.
                std::thread::sleep(SETTLE);
            }
        });
    }

    fn wanted(&self, cached: bool) -> Vec<Case> {
        Case::all().into_iter().filter(|case| case.cached == cached && self.options.wants(case.title)).collect()
    }

    fn echo(&self) -> Subject {
        Subject::echo(&self.processors)
    }

    /// A cache file with as many names as fit, made once for all.
    fn cache_file(&self, name: &str, names: usize, max_bytes: u64) -> std::path::PathBuf {
        let file = self.files.path().join(name);
        if !file.exists() {
            let held = cache::write(&file, names, max_bytes);
            println!("{name}: a cache of {held} names");
        }
        file
    }

    fn half_rate(&self, echo: &Subject, queries: &[Asked]) -> f64 {
        let runs: Vec<Run> = (0..self.options.runs).map(|_| self.closed(echo, queries)).collect();
        self.options.rate.unwrap_or_else(|| report::median_rate(&runs) / 2.0)
    }

    fn closed(&self, subject: &Subject, queries: &[Asked]) -> Run {
        generator::closed(subject, queries, self.shared, self.options)
    }

    fn open(&self, subject: &Subject, queries: &[Asked], rate: f64) -> Run {
        generator::open(subject, queries, rate, self.shared, self.options)
    }

    /// A case with each subject, the first of which is the echo. In turn, so that whatever else the machine does meets all
    /// alike.
    fn compare(&self, subjects: &[Subject], case: &Case, table: &mut Table) {
        let queries = case.queries(&self.cluster);
        let mut saturated = vec![Vec::new(); subjects.len()];
        let mut half = vec![Vec::new(); subjects.len()];
        for _ in 0..self.options.runs {
            for (place, subject) in subjects.iter().enumerate() {
                saturated[place].push(self.closed(subject, &queries));
            }
        }
        let rate = self.options.rate.unwrap_or_else(|| report::median_rate(&saturated[0]) / 2.0);
        for _ in 0..self.options.runs {
            for (place, subject) in subjects.iter().enumerate() {
                half[place].push(self.open(subject, &queries, rate));
            }
        }
        for (place, subject) in subjects.iter().enumerate() {
            table.add(Row::new(case.title, subject.name(), &saturated[place], &half[place], rate));
        }
    }

    /// ClusterIP hits with one subject in two states.
    fn two_states(
        &self,
        subject: &Subject,
        queries: &[Asked],
        (title, rate): (&'static str, f64),
        table: &mut Table,
        mut disturb: impl FnMut(bool),
    ) {
        let mut runs = [const { (Vec::new(), Vec::new()) }; 2];
        for _ in 0..self.options.runs {
            for disturbed in [false, true] {
                disturb(disturbed);
                let (saturated, half) = &mut runs[usize::from(disturbed)];
                saturated.push(self.closed(subject, queries));
                half.push(self.open(subject, queries, rate));
            }
        }
        let [quiet, disturbed] = &runs;
        table.add(Row::new(title, report::QUIET, &quiet.0, &quiet.1, rate));
        table.add(Row::new(title, report::DISTURBED, &disturbed.0, &disturbed.1, rate));
    }
}
