//! Queries of a pod while a road is walked, each accounted for.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::node::rig::Node;

/// The interface of the node that leads to the asking pod.
const INTERFACE: &str = "/sys/class/net/cali1/statistics/rx_packets";
/// Packets of the pod that show that it asks.
const ASKS: u64 = 100;

/// Queries to one address: over UDP, kept TCP connections, and a new connection for each.
pub struct Load(Vec<Child>);

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub asked: u64,
    pub lost: u64,
    /// Answered with an error, or without a record.
    pub bad: u64,
    /// The longest time without an answer over UDP, in milliseconds.
    pub gap_ms: u64,
}

impl Load {
    /// A query is sent once, and lost without an answer after `timeout` seconds.
    pub fn start(node: &Node, server: &str, timeout: &str) -> Self {
        let server = format!("{server}:53");
        let common =
            ["simulate", "queries", "--server", &server, "--seconds", "600", "--timeout", timeout, "-o", "json"];
        let datagrams = ["--qps", "200", "--tcp", "4"];
        let connections = ["--proto", "tcp", "--new-connections", "--connections", "2", "--qps", "20"];
        let start = |more: &[&str]| {
            let mut command = node.holdfast("pod1", &[&common[..], more].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        Self(vec![start(&datagrams), start(&connections)])
    }

    /// Ends it, and waits for the last answers.
    pub fn end(self) -> Tally {
        for child in &self.0 {
            let told = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
            assert!(told.success());
        }
        let mut tally = Tally::default();
        for child in self.0 {
            let done = child.wait_with_output().unwrap();
            let told: Value = serde_json::from_slice(&done.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
            for kind in ["udp", "tcp"] {
                let count = |key: &str| told[kind][key].as_u64().unwrap();
                tally.asked += count("asked");
                tally.lost += count("lost");
                tally.bad += count("failed") + count("wrong");
                if kind == "udp" && count("asked") > 0 {
                    tally.gap_ms = count("longest_gap_ms");
                }
            }
        }
        tally
    }
}

/// Waits until the pod has asked for a while.
pub fn asked(node: &Node) {
    let packets = || -> u64 {
        let done = node.command("node", "cat", &[INTERFACE]).output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()
    };
    let before = packets();
    node.until("asked", |_| packets() >= before + ASKS);
}
