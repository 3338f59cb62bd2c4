//! Attack after attack on an agent and a hub with 200 followers, while records change and the hub stalls or restarts: what grows and what is
//! lost. See docs/performance.md.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops where it stands")]

#[path = "../hostile/mod.rs"]
mod hostile;
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../../tests/it/support/process.rs"]
mod process;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use holdfast::simulate;
use hostile::{
    Clients,
    attack::ATTACKS,
    places::{Daemons, TARGETS, Targets, mib, write_records},
};
use process::Agent;

const USAGE: &str = "usage: cargo bench --bench soak -- [--holdfast PATH] [--minutes N]";
const FOLLOWERS: usize = 200;
/// Of one attack.
const ROUND_S: u32 = 4;
/// Between an attack and the look at memory and descriptors.
const SETTLE: Duration = Duration::from_secs(3);
/// A service is created and another one deleted this often: 42 times a minute.
const CHURN: Duration = Duration::from_millis(1_429);
/// How long the hub is stopped once in all attacks, longer than its followers wait for it.
const STALL: Duration = Duration::from_secs(8);
/// Growth is judged after this.
const WARM_UP_MIN: f64 = 10.0;
const SLOPE_MIB_H: f64 = 1.0;

/// A look at both daemons.
struct Sample {
    minutes: f64,
    agent_mib: f64,
    hub_mib: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if hostile::played_client(&words) {
        return;
    }
    let (mut holdfast, mut minutes) = (env!("CARGO_BIN_EXE_holdfast"), 10.0);
    for option in words.chunks(2) {
        match option {
            ["--holdfast", path] => holdfast = path,
            ["--minutes", number] => minutes = number.parse().expect(USAGE),
            _ => panic!("{USAGE}"),
        }
    }
    soak(holdfast, minutes);
}

fn soak(holdfast: &str, minutes: f64) {
    let home = tempfile::tempdir().unwrap();
    let clients = Clients::new();
    let daemons = Daemons::start(home.path(), holdfast);
    let targets = home.path().join(TARGETS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let followers = runtime.block_on(async { follow(&Targets::read(targets.to_str().unwrap())) });
    let stop = Arc::new(AtomicBool::new(false));
    let churn = thread::spawn({
        let (home, stop) = (home.path().to_owned(), Arc::clone(&stop));
        move || {
            for turn in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(CHURN);
                write_records(&home, turn);
            }
        }
    });
    let (began, mut samples) = (Instant::now(), Vec::new());
    let (mut asked, mut lost) = (0, 0);
    println!("| minute | attack | agent | hub | descriptors | followers in step | asked, lost so far |");
    println!("|--:|---|--:|--:|--:|--:|--:|");
    let now = || began.elapsed().as_secs_f64() / 60.0;
    for run in 0.. {
        let attack = &ATTACKS[run as usize % ATTACKS.len()];
        if run as usize % ATTACKS.len() == ATTACKS.len() - 1 {
            daemons.hub.signal("STOP");
            thread::sleep(STALL);
            daemons.hub.signal("CONT");
        }
        let report = clients.play(&targets, attack, ROUND_S, run);
        asked += report.values().map(|kind| kind.asked).sum::<u32>();
        lost += report.values().map(|kind| kind.lost).sum::<u32>();
        thread::sleep(SETTLE);
        let [agent, hub] = [&daemons.agent, &daemons.hub];
        let sample =
            Sample { minutes: now(), agent_mib: mib(agent.resident_bytes()), hub_mib: mib(hub.resident_bytes()) };
        println!(
            "| {:.1} | {} | {:.1} MiB | {:.1} MiB | {}, {} | {} | {asked}, {lost} |",
            sample.minutes,
            attack.name,
            sample.agent_mib,
            sample.hub_mib,
            descriptors(agent),
            descriptors(hub),
            followers.progress().live,
        );
        samples.push(sample);
        if now() >= minutes {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    churn.join().unwrap();
    let warm_up = WARM_UP_MIN.min(minutes / 2.0);
    samples.retain(|sample| sample.minutes >= warm_up);
    let slopes = [slope(&samples, |sample| sample.agent_mib), slope(&samples, |sample| sample.hub_mib)];
    println!(
        "after {warm_up:.0} min: agent {:+.1} MiB/h, hub {:+.1} MiB/h; {lost} of {asked} lost",
        slopes[0], slopes[1]
    );
    let live = followers.progress().live;
    runtime.block_on(followers.stop());
    drop((clients, daemons));
    let judged = minutes >= 2.0 * WARM_UP_MIN;
    if live < FOLLOWERS || (judged && slopes.iter().any(|slope| *slope > SLOPE_MIB_H)) {
        println!("missed: at most {SLOPE_MIB_H} MiB/h, and {FOLLOWERS} followers in step ({live} are)");
        std::process::exit(1);
    }
}

/// 200 agents, from this machine's own address.
fn follow(targets: &Targets) -> simulate::Running {
    let options = simulate::Options {
        hubs: vec![targets.hub.to_string()],
        tls: Some(targets.agent_tls.clone().into()),
        count: FOLLOWERS,
        ramp: Duration::from_secs(2),
        watch: Duration::ZERO,
        patience: Duration::ZERO,
    };
    simulate::start(&options).unwrap()
}

fn descriptors(daemon: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// Least squares, in MiB an hour.
#[expect(clippy::cast_precision_loss, reason = "few samples")]
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|sample| sample.minutes), mean(&of));
    let over: f64 = samples.iter().map(|sample| (sample.minutes - x) * (of(sample) - y)).sum();
    let under: f64 = samples.iter().map(|sample| (sample.minutes - x).powi(2)).sum();
    if under == 0.0 { 0.0 } else { over / under * 60.0 }
}
