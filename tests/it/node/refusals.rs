//! What cannot be set up is named and counted, and DNS is answered all the same.

use std::{collections::BTreeMap, process::Command, thread};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::rig::{LINK_LOCAL, Node, VIP, have};
use crate::support::process::Agent;

fn errors(node: &Node, kind: &str) -> u64 {
    node.metric(&format!("holdfast_node_setup_errors_total{{errortype=\"{kind}\"}}"))
}

#[test]
fn a_name_that_is_taken_is_named_and_the_rest_is_served() {
    let Some(node) = Node::new() else { return };
    node.ip("node", "link add nodelocaldns type veth peer name other");
    let mut agent = node.agent(&["--listen", "127.0.0.1"]);
    let line = agent.wait_for("nodelocaldns exists and is of type veth, not one of ours");
    assert!(line.contains("give node.interface another name"), "{line}");
    assert!(errors(&node, "interface_check") >= 1);
    let (udp, tcp) = node.ask("node", "127.0.0.1", 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
}

#[test]
fn an_address_that_another_interface_has_is_left_there_and_served() {
    let Some(node) = Node::new() else { return };
    node.ip("node", &format!("addr add {VIP}/32 dev lo"));
    let mut agent = node.agent(&[]);
    agent.wait_for("address 10.96.0.10 is on interface lo already");
    assert!(errors(&node, "address") >= 1);
    assert!(!node.addresses().contains(VIP));
    for server in [VIP, LINK_LOCAL] {
        let (udp, _) = node.ask("pod1", server, 53);
        assert_eq!(udp["lost"], 0, "{server}: {udp}");
    }
    let (code, told) = node.node("check");
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("address 10.96.0.10 is on interface lo already"), "{told}");
}

/// Runs a command to which the kernel says that it has no netlink protocol of this number.
fn without_netlink(command: &mut Command, protocol: i32) -> Agent {
    let is = |index, value: i32| {
        let value = u64::try_from(value).unwrap();
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let rule = SeccompRule::new(vec![is(0, libc::AF_NETLINK), is(2, protocol)]).unwrap();
    let missing = SeccompAction::Errno(u32::try_from(libc::EPROTONOSUPPORT).unwrap());
    let rules = BTreeMap::from([(libc::SYS_socket, vec![rule])]);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap().try_into().unwrap();
    // What a thread may do is what the programs may that it starts.
    thread::scope(|scope| {
        let starting = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            Agent::spawn(command)
        });
        starting.join().unwrap()
    })
}

#[test]
fn a_kernel_without_nftables_is_named_and_dns_is_served() {
    let Some(node) = Node::new() else { return };
    let mut agent = without_netlink(&mut node.agent_command(&[]), libc::NETLINK_NETFILTER);
    let line = agent.wait_for("the kernel has no nftables");
    assert!(line.contains("load the modules") && line.contains("kind=\"nftables\""), "{line}");
    assert!(errors(&node, "nftables") >= 1);
    assert!(node.addresses().contains(VIP), "the interface is there all the same");
    for server in [VIP, LINK_LOCAL] {
        let (udp, tcp) = node.ask("pod1", server, 53);
        assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{server}: {udp} {tcp}");
    }
}

#[test]
fn a_kernel_that_tells_nothing_of_interfaces_is_named_and_dns_is_served() {
    let Some(node) = Node::new() else { return };
    if !have("nsenter") {
        return;
    }
    assert_eq!(node.node("setup").0, 0);
    // `ip` would not come as far as starting it.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", node.space("node"))).arg(env!("CARGO_BIN_EXE_holdfast")).arg("agent");
    let mut agent = without_netlink(command.args(node.flags()), libc::NETLINK_ROUTE);
    let line = agent.wait_for("open a netlink socket (route)");
    assert!(line.contains("kind=\"interface_check\""), "{line}");
    assert!(errors(&node, "interface_check") >= 1);
    // Who is of this node cannot be known either; nobody is kept out for that.
    let (udp, _) = node.ask("pod1", VIP, 53);
    assert_eq!(udp["lost"], 0, "{udp}");
}

#[test]
fn without_a_socket_for_the_tools_dns_is_served_and_the_socket_made_when_it_can_be() {
    let Some(node) = Node::new() else { return };
    let admin = node.home.path().join("other.sock");
    std::fs::write(&admin, "in the way").unwrap();
    let mut agent = node.agent(&["--admin", admin.to_str().unwrap()]);
    let line = agent.wait_for("kind=\"admin_socket\"");
    assert!(line.contains(&format!("admin socket {}: there is a file of this name", admin.display())), "{line}");
    let (udp, tcp) = node.ask("pod1", VIP, 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
    let metrics = node.http("127.0.0.1:9253", "/metrics");
    assert!(metrics.contains("holdfast_node_setup_errors_total{errortype=\"admin_socket\"} 1\n"), "{metrics}");
    std::fs::remove_file(&admin).unwrap();
    node.until("made", |_| std::os::unix::net::UnixStream::connect(&admin).is_ok());
}
