//! Measures a client's losses while another client attacks. See docs/performance.md.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops where it stands")]

#[path = "../hostile/mod.rs"]
mod hostile;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/it/support/process.rs"]
mod process;

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use hostile::{
    Clients,
    attack::{ATTACKS, Attack, FILLS_CACHE, NONE},
    places::{Daemons, TARGETS, mib},
    victim::{OF_NODE, OF_POD},
};
use process::Agent;

const USAGE: &str = "usage: cargo bench --bench fairness -- [--holdfast PATH] [--seconds S] [WORD]…
Attacks whose name has one of the words, or all. The same questions without an attack come first.";
const LOST: f64 = 0.01;
const P99_MS: f64 = 50.0;
const GROWN_MIB: f64 = 32.0;
/// Beyond what there was before, after 15 s: an allocator keeps a part.
const KEPT_MIB: f64 = 16.0;
/// How long the cache is filled before anything is measured: it has a limit of its own, and keeps what it holds.
const WARM_UP_S: u32 = 3;
/// How long a daemon has to give memory back.
const BACK: Duration = Duration::from_secs(15);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if hostile::played_client(&words) {
        return;
    }
    let (mut holdfast, mut seconds, mut words) = (env!("CARGO_BIN_EXE_holdfast"), 4, &words[..]);
    while let [option, value, rest @ ..] = words {
        match *option {
            "--holdfast" => holdfast = value,
            "--seconds" => seconds = value.parse().expect(USAGE),
            _ => break,
        }
        words = rest;
    }
    measure(holdfast, seconds, words);
}

fn measure(holdfast: &str, seconds: u32, words: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let clients = Clients::new();
    let daemons = Daemons::start(home.path(), holdfast);
    let targets = home.path().join(TARGETS);
    println!("of each kind ({}, {}) {} are asked", OF_POD.join(", "), OF_NODE.join(", "), 100 * seconds);
    clients.play(&targets, Attack::find(FILLS_CACHE), WARM_UP_S, u32::MAX);
    let quiet = clients.play(&targets, Attack::find(NONE), seconds, u32::MAX - 1);
    println!("| attack | lost | worst p99, and the same without | agent grew, kept | hub grew, kept |");
    println!("|---|---|---|---|---|");
    let mut missed = Vec::new();
    let mut worst: BTreeMap<String, (f64, &str)> = BTreeMap::new();
    let wanted = |attack: &&Attack| words.is_empty() || words.iter().any(|word| attack.name.contains(word));
    for (run, attack) in (0..).zip(ATTACKS.iter().filter(wanted)) {
        let (agent, hub) = (Memory::of(&daemons.agent), Memory::of(&daemons.hub));
        let report = clients.play(&targets, attack, seconds, run);
        let (agent, hub) = (agent.grown(&daemons.agent, KEPT_MIB), hub.grown(&daemons.hub, KEPT_MIB));
        let lost: Vec<String> = report
            .iter()
            .filter(|(_, kind)| kind.lost > 0)
            .map(|(name, kind)| format!("{name} {} ({})", kind.lost, kind.why))
            .collect();
        for (name, kind) in &report {
            let slowest = worst.entry(name.clone()).or_insert((0.0, attack.name));
            if kind.p99_ms > slowest.0 {
                *slowest = (kind.p99_ms, attack.name);
            }
        }
        let slowest = report.iter().map(|(name, kind)| (name, kind.p99_ms)).max_by(|a, b| a.1.total_cmp(&b.1));
        let (slowest, p99) = slowest.expect("there are kinds");
        println!(
            "| {} | {} | {slowest} {p99:.1} ms, {:.1} | {:.1}, {:.1} MiB | {:.1}, {:.1} MiB |",
            attack.name,
            if lost.is_empty() { "0".into() } else { lost.join(", ") },
            quiet[slowest].p99_ms,
            agent.0,
            agent.1,
            hub.0,
            hub.1,
        );
        let unfair = report.values().any(|kind| f64::from(kind.lost) > LOST * f64::from(kind.asked));
        if unfair || p99 > P99_MS || agent.0.max(hub.0) > GROWN_MIB || agent.1.max(hub.1) > KEPT_MIB {
            missed.push(attack.name);
        }
    }
    println!("\n| kind | p99 without an attack | worst p99 | under |\n|---|---|---|---|");
    for (name, (p99, attack)) in &worst {
        println!("| {name} | {:.1} ms | {p99:.1} ms | {attack} |", quiet[name].p99_ms);
    }
    println!("at most {LOST} of a kind lost, p99 {P99_MS} ms, {GROWN_MIB} MiB grown and {KEPT_MIB} MiB kept");
    drop((clients, daemons));
    if !missed.is_empty() {
        println!("missed: {}", missed.join(", "));
        std::process::exit(1);
    }
}

/// Memory of a process over one attack.
struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    fn of(agent: &Agent) -> Self {
        // From now on VmHWM is the most since now (proc(5): clear_refs).
        fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").unwrap();
        Self { pid: agent.pid(), before: agent.resident_bytes() }
    }

    /// MiB that it grew by at most, and those left once it has had time to give them back.
    fn grown(&self, agent: &Agent, target_mib: f64) -> (f64, f64) {
        assert_eq!(self.pid, agent.pid());
        let beyond = |bytes: u64| mib(bytes.saturating_sub(self.before));
        let most = beyond(agent.resident_bytes_most());
        let end = Instant::now() + BACK;
        while beyond(agent.resident_bytes()) > target_mib && Instant::now() < end {
            thread::sleep(Duration::from_millis(100));
        }
        (most, beyond(agent.resident_bytes()))
    }
}
