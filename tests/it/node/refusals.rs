//! What cannot be set up is named and counted, and DNS is answered all the same.

use super::rig::{LINK_LOCAL, Node, VIP};

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
