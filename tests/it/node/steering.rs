//! Queries to addresses at which no process listens: the kernel steers them to the cluster's DNS.

use std::{fs, thread};

use super::{
    rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, UPSTREAM, UPSTREAM6, VIP, VIP6, have},
    watch::{processes, signal},
};

/// Rules as node-cache has them, which it removes some time after its interface.
const NOTRACK: &str = "table inet foreign {
    chain in { type filter hook prerouting priority raw; meta l4proto { tcp, udp } th dport 53 notrack; }
    chain out { type filter hook output priority raw; meta l4proto { tcp, udp } th dport 53 notrack; }
}";

fn nft(node: &Node, command: &str) -> String {
    let done = node.command("node", "nft", &[command]).output().unwrap();
    assert!(done.status.success(), "{command}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Whether a pod and a process of the node get this answer at each of the servers.
fn answers(node: &Node, servers: &[&str], who: &str) -> bool {
    let asked = |from| servers.iter().all(|server| node.answer(from, server).as_deref() == Some(who));
    ["pod1", "node"].into_iter().all(asked)
}

fn lose_nothing(node: &Node, servers: &[&str]) {
    thread::scope(|scope| {
        for server in servers {
            scope.spawn(move || {
                let (udp, tcp) = node.ask("pod1", server, 53);
                for told in [udp, tcp] {
                    assert_eq!((&told["lost"], &told["failed"]), (&0.into(), &0.into()), "{server}: {told}");
                }
            });
        }
    });
}

#[test]
fn queries_reach_the_cluster_dns_without_the_interface_after_a_kill_and_after_an_orderly_end() {
    let Some(node) = Node::new() else { return };
    if !have("dig") || !have("nft") {
        return;
    }
    let _coredns = node.coredns();
    let config = format!("cluster_fallback: [{UPSTREAM}, '{UPSTREAM6}']\n");
    fs::write(node.home.path().join("agent.yaml"), config).unwrap();
    let all = [VIP, VIP6, LINK_LOCAL];
    let agent = node.agent(&[]);
    node.until("taken", |node| answers(node, &all, OWN));
    nft(&node, NOTRACK);
    let [watch] = processes(&node, "--kept")[..] else { panic!("one watch") };
    signal(watch, "STOP");
    node.ip("node", "link del nodelocaldns");
    node.until("steered", |node| answers(node, &all, BY_COREDNS));
    lose_nothing(&node, &all);
    signal(watch, "CONT");
    node.until("put back", |node| answers(node, &all, OWN));
    lose_nothing(&node, &all);

    // Killed as a whole, while its interface and the rules stay as they are. Nothing is left that would let a stopped process go on.
    let [watch] = processes(&node, "--kept")[..] else { panic!("one watch") };
    signal(watch, "STOP");
    agent.kill();
    node.until("steered", |node| all.iter().all(|server| node.answer("pod1", server).as_deref() == Some(BY_COREDNS)));
    lose_nothing(&node, &all);
    assert!(node.addresses().contains(VIP));
    let agent = node.agent(&[]);
    node.until("taken", |node| answers(node, &all, OWN));

    assert!(agent.terminate().success());
    assert_eq!((node.addresses().as_str(), processes(&node, "node").as_slice()), ("", &[][..]));
    node.until("steered", |node| answers(node, &[LINK_LOCAL], BY_COREDNS));
    lose_nothing(&node, &[LINK_LOCAL]);
    // The next one takes it back, and what is asked is answered all the time.
    let agent = node.agent(&[]);
    node.until("taken", |node| answers(node, &all, OWN));
    assert_eq!(node.node("check"), (0, String::new()));
    assert!(agent.terminate().success());
    assert_eq!(node.node("teardown").0, 0);
    assert!(!nft(&node, "list tables").contains("holdfast"));
    assert_eq!(node.answer("pod1", LINK_LOCAL), None);
}
