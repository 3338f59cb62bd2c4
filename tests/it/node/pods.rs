//! What pods see of a node, and what the node's kernel sees of pods.

use std::thread;

use super::rig::{LINK_LOCAL, Node, VIP, VIP6, have};

#[test]
fn pods_are_answered_at_every_address_and_strangers_are_not() {
    let Some(node) = Node::new() else { return };
    let _agent = node.agent(&[]);
    thread::scope(|scope| {
        let node = &node;
        for server in [LINK_LOCAL, VIP, VIP6] {
            for pod in ["pod1", "pod2", "node"] {
                // Its sockets take answers only from the very address that was asked.
                scope.spawn(move || {
                    let (udp, tcp) = node.ask(pod, server, 53);
                    for told in [&udp, &tcp] {
                        assert!(told["answered"].as_u64() >= Some(5), "{pod} {server}: {told}");
                        assert_eq!(told["lost"], 0, "{pod} {server}: {told}");
                    }
                });
            }
        }
        scope.spawn(move || {
            let (udp, tcp) = node.ask("out", VIP, 53);
            assert_eq!((udp["answered"].as_u64(), tcp["answered"].as_u64()), (Some(0), Some(0)), "{udp} {tcp}");
        });
    });
    assert!(node.metric("holdfast_dns_drops_total{reason=\"not_allowed\"}") > 0);
    assert!(node.metric("holdfast_dns_tcp_refused_total{reason=\"not_allowed\"}") > 0);
}

#[test]
fn queries_leave_no_entry_in_the_table_of_connections() {
    let Some(node) = Node::new() else { return };
    if !have("nft") {
        return;
    }
    // Without a rule that looks at it, nothing is tracked at all.
    let rule = "add table inet look; add chain inet look in { type filter hook input priority 0; }; \
                add rule inet look in ct state new counter";
    assert!(node.command("node", "nft", &[rule]).status().unwrap().success());
    let _agent = node.agent(&[]);
    node.ask("pod1", VIP, 53);
    node.ask("pod1", VIP6, 53);
    // Nobody listens there, and nothing keeps it from being tracked.
    node.ask("pod1", VIP, 54);
    let table = node.command("node", "cat", &["/proc/net/nf_conntrack"]).output().unwrap();
    let Ok(table) = String::from_utf8(table.stdout) else { panic!("it is text") };
    if !table.contains("dport=54 ") {
        println!("skipped in part: the kernel does not show the connections it tracks: {table}");
        return;
    }
    // The cluster's DNS is asked as well.
    let ours = |entry: &&str| {
        entry.contains("dport=53 ") && [VIP, VIP6].iter().any(|ip| entry.contains(&format!("dst={ip} ")))
    };
    assert_eq!(table.lines().find(ours), None, "{table}");
}
