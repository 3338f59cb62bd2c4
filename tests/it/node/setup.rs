//! Interface and rules: made, made again, put back, removed.

use std::time::Duration;

use super::{
    rig::{Node, UPSTREAM, VIP, have},
    watch::Resident,
};
use crate::support::process::Agent;

#[test]
fn setting_up_twice_is_setting_up_once_and_a_teardown_leaves_nothing() {
    let Some(node) = Node::new() else { return };
    let (code, told) = node.node("check");
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("interface nodelocaldns: missing\naddress 169.254.20.10: missing\n"), "{told}");
    let links = node.ip("node", "-o link").stdout;
    let (code, told) = node.node("setup");
    assert_eq!(code, 0, "{told}");
    assert!(told.starts_with("fixed: interface nodelocaldns: missing\n"), "{told}");
    assert_eq!(node.node("check"), (0, String::new()));
    let before = node.addresses();
    assert_eq!(node.node("setup"), (0, String::new()), "nothing is left to do");
    assert_eq!(node.addresses(), before);
    assert_eq!(node.node("teardown").0, 0);
    assert_eq!(node.node("teardown"), (0, String::new()), "nothing is left to remove");
    let names = |links: Vec<u8>| String::from_utf8(links).unwrap().lines().count();
    assert_eq!(names(node.ip("node", "-o link").stdout), names(links));
    if have("nft") {
        let tables = node.command("node", "nft", &["list", "tables"]).output().unwrap();
        assert_eq!(String::from_utf8(tables.stdout).unwrap(), "");
    }
}

#[test]
fn tools_in_the_pod_of_an_agent_need_no_flags() {
    let Some(node) = Node::new() else { return };
    let (code, told) = node.tool(&["node", "check"]);
    assert_eq!(code, 2, "no agent runs: {told}");
    assert!(told.contains("no agent keeps one on this node"), "{told}");
    let agent = node.agent(&[]);
    let (code, told) = node.tool(&["node", "check"]);
    assert_eq!(code, 0, "{told}");
    let kept = "kept: 169.254.20.10, 10.96.0.10, fd00:10:96::10 on nodelocaldns by the watch of an agent (pid ";
    assert!(told.starts_with(kept), "{told}");
    node.ip("node", &format!("addr del {VIP}/32 dev nodelocaldns"));
    let (code, told) = node.tool(&["node", "setup"]);
    assert_eq!(code, 0, "{told}");
    assert!(node.addresses().contains(VIP));
    let (code, told) = node.tool(&["node", "teardown"]);
    assert_eq!((code, node.addresses().as_str()), (0, ""), "{told}");
    drop(agent);
}

#[test]
fn a_teardown_without_flags_takes_the_block_out_of_the_hosts_file_too() {
    const REST: &str = "127.0.0.1 localhost\n";
    let Some(node) = Node::new() else { return };
    let _coredns = node.coredns();
    let hosts = node.home.path().join("hosts");
    std::fs::write(&hosts, REST).unwrap();
    let config = format!(
        "keep: [registry.example]\nforward: [{{ zone: example, upstreams: [{UPSTREAM}] }}]\nnode: {{ hosts_file: {} }}\n",
        hosts.display()
    );
    std::fs::write(node.home.path().join("agent.yaml"), config).unwrap();
    let mut agent = node.agent(&[]);
    agent.wait_for("keep list written to the node's hosts file");
    assert!(std::fs::read_to_string(&hosts).unwrap().contains("\n192.0.2.7 registry.example\n"));
    // A second watch, as the container beside an agent is one, does not undo it either.
    let mut resident = Resident::start(&node, &[]);
    node.until("kept by it", |node| node.tool(&["node", "check"]).1.contains(" by `holdfast node watch` "));
    let (code, told) = node.tool(&["node", "teardown"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.ends_with(&format!("removed the keep list from {}\n", hosts.display())), "{told}");
    agent.wait_for("the node was torn down by hand");
    assert!(resident.has_ended());
    assert_eq!((std::fs::read_to_string(&hosts).unwrap().as_str(), node.addresses().as_str()), (REST, ""));
    // A file that cannot be mended keeps nothing else from being removed.
    assert!(agent.terminate().success());
    let mut agent = node.agent(&[]);
    agent.wait_for("keep list written to the node's hosts file");
    let block = std::fs::read_to_string(&hosts).unwrap();
    std::fs::write(&hosts, block.replace("# END holdfast\n", "")).unwrap();
    let (code, told) = node.tool(&["node", "teardown"]);
    assert_eq!((code, node.addresses().as_str()), (3, ""), "{told}");
    assert!(told.contains("the keep list is not removed: ") && told.contains("remove its block by hand"), "{told}");
}

#[test]
fn a_second_set_of_agents_adds_its_addresses_and_takes_no_others_away() {
    let Some(node) = Node::new() else { return };
    let path = |name: &str| node.home.path().join(name).to_str().unwrap().to_owned();
    let _first = node.agent(&[]);
    std::fs::write(path("second.yaml"), "node: { skip_teardown: false }\n").unwrap();
    let (config, manifests, store, admin) =
        (path("second.yaml"), path("cluster.yaml"), path("second"), path("second.sock"));
    let second =
        ["agent", "--config", &config, "--listen", "169.254.20.11", "--manifests", &manifests, "--store", &store];
    let more = ["--admin", &admin, "--http", "none", "--metrics", "none", "--upstream", "127.0.0.1:9"];
    let setup = ["--setup-interface", "true", "--setup-notrack", "true"];
    let second = Agent::spawn(&mut node.holdfast("node", &[&second[..], &more, &setup].concat()));
    node.until("added", |node| node.addresses().contains(" 169.254.20.11/"));
    assert!(node.addresses().contains(VIP) && node.node("check").0 == 0);
    let (code, told) = node.tool(&["node", "check"]);
    assert_eq!((code, told.matches("kept: ").count()), (0, 2), "{told}");
    for server in [VIP, "169.254.20.11"] {
        let (udp, tcp) = node.ask("pod1", server, 53);
        assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{server}: {udp} {tcp}");
    }
    assert!(second.terminate().success());
    assert_eq!(node.node("check"), (0, String::new()), "the addresses of the first");
    assert!(!node.addresses().contains("169.254.20.11"));
}

#[test]
fn removed_parts_are_back_within_five_seconds() {
    let Some(node) = Node::new() else { return };
    let _agent = node.agent(&[]);
    assert_eq!(node.node("check"), (0, String::new()));
    node.ip("node", &format!("addr del {VIP}/32 dev nodelocaldns"));
    if have("nft") {
        assert!(node.command("node", "nft", &["delete", "table", "inet", "holdfast"]).status().unwrap().success());
    }
    assert_eq!(node.node("check").0, 1);
    assert!(node.until("mended", |node| node.node("check").0 == 0) < Duration::from_secs(5));
    node.ip("node", "link del nodelocaldns");
    assert!(node.until("made again", |node| node.node("check").0 == 0) < Duration::from_secs(5));
}

#[test]
fn interface_and_rules_outlive_the_process_and_go_with_it_where_that_is_asked() {
    let Some(node) = Node::new() else { return };
    let leave = |agent: Agent| assert!(agent.terminate().success());
    node.agent(&[]).kill();
    assert_eq!(node.node("check"), (0, String::new()), "after SIGKILL");
    leave(node.agent(&["--intercept-failsafe", "none"]));
    assert_eq!(node.node("check"), (0, String::new()), "after SIGTERM");
    leave(node.agent(&[]));
    assert_eq!(node.addresses(), "", "the cluster's DNS has its address, and what is sent to the link-local one");
    let file = node.home.path().join("agent.yaml");
    std::fs::write(file, "node: { skip_teardown: false }\n").unwrap();
    node.agent(&[]).kill();
    assert_eq!(node.node("check"), (0, String::new()), "after SIGKILL");
    leave(node.agent(&[]));
    assert_eq!(node.addresses(), "", "after SIGTERM");
    // What was set up at the start is taken away at the end, whatever the file says by then.
    let mut agent = node.agent(&[]);
    std::fs::write(node.home.path().join("agent.yaml"), "node: { skip_teardown: true, interface: other }\n").unwrap();
    agent.signal("HUP");
    agent.wait_for("configuration and credentials read again");
    leave(agent);
    assert_eq!(node.addresses(), "", "after SIGHUP and SIGTERM");
}
