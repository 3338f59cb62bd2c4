//! What pods notice when an agent is replaced or killed, at 5,000 queries a second. A binary of its own, one test at a time: the measured
//! loss is the agent's only while nothing else uses the processors.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "it/support/process.rs"]
#[expect(dead_code, reason = "tests/it uses the rest")]
mod process;
#[path = "it/node/rig.rs"]
#[expect(dead_code, reason = "tests/it uses the rest")]
mod rig;

/// The path by which `rig` names it.
mod support {
    pub(super) use super::process;
}

use std::process::{Child, Stdio};

use holdfast::sys::{Batch, Lock};
use rig::{Node, VIP, report};

static ALONE: Lock<()> = Lock::new(());
const HAND_OVERS: usize = 20;
const KILLS: usize = 5;
/// The longest time without an answer after a kill, in milliseconds. About 100 with a processor of its own; a restart by the kubelet
/// takes 10 s and more from the second on.
const KILL_MS: u64 = 1_500;
const PARENT_BYTES_MAX: u64 = 2 << 20;

/// Questions from a pod until told to end: 5,000 a second over UDP, and 200 connections.
fn load(node: &Node) -> Child {
    let server = format!("{VIP}:53");
    let words =
        ["simulate", "queries", "--server", &server, "--qps", "5000", "--tcp", "200", "--seconds", "600", "-o", "json"];
    node.holdfast("pod1", &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn asked(node: &Node) -> u64 {
    node.metric("holdfast_dns_requests_total{proto=\"udp\",type=\"A\"}")
}

fn end(load: Child) -> (serde_json::Value, serde_json::Value) {
    let told = std::process::Command::new("kill").args(["-s", "INT", &load.id().to_string()]).status().unwrap();
    assert!(told.success());
    report(&load.wait_with_output().unwrap())
}

#[test]
fn twenty_hand_overs_under_load_lose_no_query() {
    let _alone = ALONE.lock();
    let Some(node) = Node::new() else { return };
    let mut old = node.agent(&[]);
    let load = load(&node);
    node.until("asked", |node| asked(node) > 1_000);
    // Each still answers its busy TCP connections for 4 s.
    let mut leaving = Vec::new();
    for _ in 0..HAND_OVERS {
        let new = node.agent(&[]);
        old.wait_for("the new process is ready");
        old.signal("TERM");
        leaving.push(std::mem::replace(&mut old, new));
        // The next one begins with this one under load.
        node.until("asked", |node| asked(node) > 500);
    }
    for old in leaving {
        assert!(old.ended().success());
    }
    let (udp, tcp) = end(load);
    let count = |key: &str| udp[key].as_u64().unwrap() + tcp[key].as_u64().unwrap();
    println!("{udp} {tcp}");
    println!("queries {}, lost {}, hand-overs {HAND_OVERS}", count("asked"), count("lost"));
    assert_eq!(count("lost"), 0, "{udp} {tcp}");
    assert_eq!(count("answered"), count("asked"));
}

#[test]
fn five_kills_under_load_cost_no_query_that_waits() {
    let _alone = ALONE.lock();
    let Some(node) = Node::new() else { return };
    let mut agent = node.agent(&[]);
    let load = load(&node);
    for death in 1..=KILLS {
        node.until("asked", |node| asked(node) > 1_000);
        let killed = agent.pid();
        agent.signal("KILL");
        agent.wait_for_nth("starting it again, queries wait", death);
        agent.wait_for_nth("answering DNS listen=", death + 1);
        assert_ne!(agent.pid(), killed);
    }
    node.until("asked", |node| asked(node) > 1_000);
    let (udp, tcp) = end(load);
    let lost = udp["lost"].as_u64().unwrap() + tcp["lost"].as_u64().unwrap();
    println!("kills {KILLS}, longest gap {} ms, lost {lost}", udp["longest_gap_ms"]);
    assert!(udp["longest_gap_ms"].as_u64() <= Some(KILL_MS), "{udp}");
    // Those that wait in the sockets are answered. A killed process takes with it what each of its workers had read: a batch.
    let read = KILLS * std::thread::available_parallelism().unwrap().get() * Batch::MAX;
    assert!(lost <= read as u64, "{udp} {tcp}");
    assert_eq!(node.metric("holdfast_node_process_deaths_total "), KILLS as u64);
    let status = node.status();
    assert_eq!(status["node"]["deaths"]["count"], KILLS, "{status}");
    assert_eq!(status["node"]["deaths"]["how"], "was killed by signal 9", "{status}");
    let own = anonymous_bytes(parent_of(agent.pid()));
    println!("the parent has {} KiB of its own", own / 1024);
    assert!(own <= PARENT_BYTES_MAX, "{own}");
    assert!(agent.terminate().success(), "the signal is passed on, and the end is the child's");
}

fn parent_of(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|row| row.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// The memory of a process that is not mapped from files, in bytes.
fn anonymous_bytes(pid: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut of_file, mut kib) = (false, 0);
    for row in maps.lines() {
        let columns: Vec<&str> = row.split_whitespace().collect();
        match columns[..] {
            ["Private_Dirty:" | "Private_Clean:", number, "kB"] if !of_file => kib += number.parse::<u64>().unwrap(),
            // The row that a mapping begins with: its inode is 0 without a file.
            [range, _, _, _, inode, ..] if range.contains('-') => of_file = inode != "0",
            _ => {}
        }
    }
    kib * 1024
}
