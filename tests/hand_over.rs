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

use holdfast::sys::Lock;
use rig::{Node, VIP, report};

static ALONE: Lock<()> = Lock::new(());
const HAND_OVERS: usize = 20;
/// What a kill may cost, in milliseconds.
const OUTAGE_MS: u64 = 300;

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
    for _ in 0..HAND_OVERS {
        let new = node.agent(&[]);
        old.wait_for("the successor is ready");
        assert!(old.terminate().success());
        old = new;
        // The next one begins with this one under load.
        node.until("asked", |node| asked(node) > 500);
    }
    let (udp, tcp) = end(load);
    let count = |key: &str| udp[key].as_u64().unwrap() + tcp[key].as_u64().unwrap();
    println!("{udp} {tcp}");
    println!("queries {}, lost {}, hand-overs {HAND_OVERS}", count("asked"), count("lost"));
    assert_eq!(count("lost"), 0, "{udp} {tcp}");
    assert_eq!(count("answered"), count("asked"));
}

#[test]
fn a_killed_agent_is_missed_for_a_moment_only() {
    let _alone = ALONE.lock();
    let Some(node) = Node::new() else { return };
    let first = node.agent(&[]);
    let load = load(&node);
    node.until("asked", |node| asked(node) > 1_000);
    first.kill();
    let second = node.agent(&[]);
    let start = second.age();
    node.until("asked", |node| asked(node) > 1_000);
    let (udp, tcp) = end(load);
    let gap = udp["longest_gap_ms"].as_u64().unwrap();
    println!("outage {gap} ms over UDP, {} ms over TCP; the start took {start:?}", tcp["longest_gap_ms"]);
    assert!(gap <= OUTAGE_MS, "{gap} ms; the start took {start:?}; {udp}");
}
