//! A drowning apiserver: how long a hub takes to be ready, how many requests it makes and how many it gives up, beside a plain
//! informer on the same server at the same time.
//!
//! The informer lists and watches as client-go does: all kinds over one connection, no time limit, the same pauses after a
//! failure. The apiserver is the scripted one of the tests in a process of its own: slow by a pause at each step, or,
//! for root, with a share of a CPU while 24 clients list everything again and again. Ends with an error if the hub takes
//! longer than one and a half times CoreDNS, which starts beside them where `COREDNS` names its binary, or else the informer; or
//! if it gives up a request. Words choose the states whose names have one of them: `cargo bench --bench flood -- 0.1`.
//! `benches/README.md` says how to read the table.

#![allow(clippy::unwrap_used, reason = "helpers shared with the tests fail by panicking, as tests do")]

#[allow(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/it/support/apiserver/mod.rs"]
mod apiserver;
mod coredns;
mod informer;
mod server;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use server::{Remote, Requests, State};

/// The hub may take so many times as long as CoreDNS, or as the informer where there is no CoreDNS.
const TARGET: f64 = 1.5;
/// Below this the process's own start is what is measured.
const NOTHING: Duration = Duration::from_millis(500);
/// A hub or a CoreDNS that takes longer has failed; an informer that does has no time in the table.
const PATIENCE: Duration = Duration::from_secs(1_200);

const STATES: [State; 6] = [
    State { name: "healthy", pause_ms: 0, cpu_percent: 0, floods: 0 },
    State { name: "700 ms a step", pause_ms: 700, cpu_percent: 0, floods: 0 },
    State { name: "1,100 ms a step", pause_ms: 1_100, cpu_percent: 0, floods: 0 },
    State { name: "0.5 CPU, 24 full lists", pause_ms: 0, cpu_percent: 50, floods: 24 },
    State { name: "0.25 CPU, 24 full lists", pause_ms: 0, cpu_percent: 25, floods: 24 },
    State { name: "0.1 CPU, 24 full lists", pause_ms: 0, cpu_percent: 10, floods: 24 },
];

/// A hub with an empty store. Killed when dropped.
struct Hub(Child);

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Hub {
    /// Starts one; how long it took until its records were complete.
    fn start(home: &Path) -> anyhow::Result<(Self, Duration)> {
        let path = |name: &str| home.join(name).to_str().map(str::to_owned).context("a path of UTF-8");
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["hub", "--tls", "insecure", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(["--metrics", "127.0.0.1:0", "--kubeconfig", &path("kubeconfig")?, "--store", &path("store")?])
            .args(["--admin", &path("hub.sock")?])
            .stderr(Stdio::piped())
            .spawn()?;
        let log = BufReader::new(child.stderr.take().context("a pipe")?);
        let hub = Self(child);
        let mut lines = log.lines();
        let complete = lines.by_ref().map_while(Result::ok).any(|line| line.contains("records complete"));
        ensure!(complete, "the hub ended before its records were complete");
        let took = begun.elapsed();
        // The pipe is read to the end, so that the hub never waits for it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok((hub, took))
    }

    /// Requests it gave up before their answer began.
    fn abandoned(home: &Path) -> anyhow::Result<u64> {
        let socket = home.join("hub.sock");
        let mut tool = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let output = tool.args(["status", "-o", "json", "--admin"]).arg(&socket).output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let count = find(&status, "abandoned_total").with_context(|| format!("no abandoned_total: {status}"))?;
        Ok(count)
    }
}

/// The first number of this name, wherever it stands.
fn find(value: &serde_json::Value, name: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => map
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| map.values().find_map(|value| find(value, name))),
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// One row.
struct Row {
    hub: Duration,
    informer: Option<Duration>,
    coredns: Option<Duration>,
    requests: Requests,
    abandoned: u64,
}

impl Row {
    /// The hub's time as a multiple of the peer's.
    fn times(&self) -> f64 {
        let peer = self.coredns.or(self.informer).unwrap_or(PATIENCE);
        self.hub.as_secs_f64() / peer.as_secs_f64()
    }

    fn met(&self) -> bool {
        self.abandoned == 0 && (self.hub <= NOTHING || self.times() <= TARGET)
    }
}

fn measure(state: State) -> anyhow::Result<Row> {
    let dir = tempfile::tempdir()?;
    let mut remote = Remote::start(dir.path(), state)?;
    let address: SocketAddr = remote.address;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let informer = informer::Target::new(address, dir.path())?;
    let floods: Vec<_> = (0..state.floods).map(|_| runtime.spawn(informer.clone().flood())).collect();
    if state.floods > 0 {
        // All of them wait for their first list when the two begin.
        std::thread::sleep(Duration::from_secs(2));
    }
    let informer = runtime.spawn(async move { tokio::time::timeout(PATIENCE, informer.ready()).await });
    let (home, binary) = (dir.path().to_owned(), coredns::binary());
    let coredns =
        std::thread::spawn(move || binary.map(|binary| coredns::CoreDns::start(&binary, &home, PATIENCE)).transpose());
    let (_hub, hub) = Hub::start(dir.path())?;
    let informer = runtime.block_on(informer)?.ok().transpose()?;
    let coredns = coredns.join().map_err(|_| anyhow::anyhow!("the thread of CoreDNS panicked"))??.map(|(_, took)| took);
    let row = Row { hub, informer, coredns, requests: remote.requests()?, abandoned: Hub::abandoned(dir.path())? };
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(row)
}

/// A time in the table; none for who was not there, or not ready in time.
fn seconds(took: Option<Duration>) -> String {
    took.map_or_else(|| "-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()))
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|word| word == "apiserver").is_some() {
        return server::main(Path::new(&arguments.next().context("a directory")?));
    }
    println!("{} services, {} endpoints\n", server::SERVICES, server::ENDPOINTS);
    println!(
        "{:<26} {:>9} {:>9} {:>9} {:>6} {:>12} {:>13} {:>9} {:>8} {:>10}  target",
        "apiserver",
        "hub",
        "informer",
        "CoreDNS",
        "times",
        "hub requests",
        "of the Lease",
        "informer",
        "CoreDNS",
        "abandoned"
    );
    let mut missed = Vec::new();
    let words: Vec<String> = arguments.collect();
    let is_chosen = |state: &State| words.is_empty() || words.iter().any(|word| state.name.contains(word.as_str()));
    for state in STATES.into_iter().filter(is_chosen) {
        if state.cpu_percent > 0 && !server::may_limit() {
            println!("{:<26} left out: a share of a CPU takes root and a writable cgroup", state.name);
            continue;
        }
        let row = measure(state).with_context(|| state.name.to_owned())?;
        let Requests { hub, lease, informer, coredns } = row.requests;
        println!(
            "{:<26} {:>9} {:>9} {:>9} {:>6.2} {hub:>12} {lease:>13} {informer:>9} {coredns:>8} {:>10}  {}",
            state.name,
            seconds(Some(row.hub)),
            seconds(row.informer),
            seconds(row.coredns),
            row.times(),
            row.abandoned,
            if row.met() { "met" } else { "MISSED" }
        );
        if !row.met() {
            missed.push(state.name);
        }
    }
    if !missed.is_empty() {
        bail!("missed: {}", missed.join(", "));
    }
    Ok(())
}
