//! A new process beside the old one, under load.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use super::rig::{Node, VIP, report};
use crate::support::process::Agent;

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
    // What a machine that does other things besides adds is in the time the start took.
    let allowed = OUTAGE_MS.max(u64::try_from((start + Duration::from_millis(100)).as_millis()).unwrap());
    assert!(gap <= allowed, "{gap} ms; {udp}");
}

#[test]
fn a_newcomer_that_dies_leaves_everything_to_the_one_before() {
    let Some(node) = Node::new() else { return };
    let mut old = node.agent(&[]);
    let new = node.agent(&[]);
    old.wait_for("handed over; answering from memory until told to end");
    new.kill();
    old.wait_for("the successor is gone, the store is taken back");
    node.until("the socket is back", |node| {
        std::os::unix::net::UnixStream::connect(node.home.path().join("agent.sock")).is_ok()
    });
    let (udp, tcp) = node.ask("pod1", VIP, 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
    // And the next one can take over.
    let _third: Agent = node.agent(&[]);
    old.wait_for_nth("handed over; answering from memory until told to end", 2);
}

#[test]
fn a_newcomer_with_other_flags_is_refused_with_the_reason() {
    let Some(node) = Node::new() else { return };
    let _old = node.agent(&[]);
    let flags = node.flags();
    let words: Vec<&str> =
        ["agent"].into_iter().chain(flags.iter().map(String::as_str)).chain(["--listen", "127.0.0.1"]).collect();
    let refused = node.holdfast("node", &words).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("no hand-over: it listens on 169.254.20.10:53, 10.96.0.10:53, "), "{told}");
    assert!(told.contains("is in use by pid "), "{told}");
}
