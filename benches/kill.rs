//! The longest time without an answer when the process that answers is killed, at 5,000 queries a second with 10,000 services and
//! 10,000 headless endpoints on disk. Needs root. See benches/README.md.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on panics")]

#[path = "../tests/it/support/process.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod process;
#[path = "../tests/it/node/rig.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod rig;
#[path = "../tests/it/support/synthetic.rs"]
mod synthetic;

/// The path by which `rig` names it.
mod support {
    pub(super) use super::process;
}

use std::{
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10_000;
const KILLS: usize = 5;
/// Queries between two kills, at least.
const BETWEEN: u64 = 1_000;
/// The longest gap that passes, in milliseconds.
const GAP_MS: u64 = 150;

fn main() -> ExitCode {
    let Some(node) = rig::Node::new() else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(synthetic::store_with(&node.home.path().join("store"), synthetic::records(SERVICES, ENDPOINTS)));
    let mut agent = node.agent(&["--manifests", "/nonexistent/cluster.yaml"]);
    node.until("taken", |node| node.addresses().contains(rig::VIP));

    let (server, name) = (format!("{}:53", rig::VIP), synthetic::name(SERVICES - 1));
    let words = ["simulate", "queries", "--server", &server, "--name", &name, "--qps", "5000", "--tcp", "200"];
    let words = [&words[..], &["--seconds", "600", "-o", "json"]].concat();
    let load = node.holdfast("pod1", &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = || node.metric("holdfast_dns_requests_total{proto=\"udp\",type=\"A\"}");
    for death in 1..=KILLS {
        node.until("asked", |_| asked() > BETWEEN);
        // At any moment.
        thread::sleep(Duration::from_millis(rand::random_range(0..500)));
        agent.signal("KILL");
        agent.wait_for_nth("answering DNS listen=", death + 1);
    }
    node.until("asked", |_| asked() > BETWEEN);
    assert!(Command::new("kill").args(["-s", "INT", &load.id().to_string()]).status().unwrap().success());
    let (udp, tcp) = rig::report(&load.wait_with_output().unwrap());
    let lost = udp["lost"].as_u64().unwrap() + tcp["lost"].as_u64().unwrap();
    let gap = udp["longest_gap_ms"].as_u64().unwrap();
    println!("{SERVICES} services + {ENDPOINTS} headless endpoints, {} queries, {}", udp["asked"], tcp["asked"]);
    println!("kills {KILLS}, longest gap {gap} ms, lost {lost}");
    if gap <= GAP_MS && lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
