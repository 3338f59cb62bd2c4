//! The cluster's DNS address while nothing is answered.

use super::{
    rig::{LINK_LOCAL, Node, VIP, VIP6},
    watch::Resident,
};

#[test]
fn an_agent_that_does_not_answer_loses_the_address_until_it_does() {
    let Some(node) = Node::new() else { return };
    let agent = node.agent(&["--intercept-failsafe", "1s"]);
    let has = |node: &Node, ip: &str| node.addresses().contains(&format!(" {ip}/"));
    assert!(has(&node, VIP));
    agent.signal("STOP");
    node.until("given back", |node| !has(node, VIP) && !has(node, VIP6));
    assert!(has(&node, LINK_LOCAL), "nobody else could answer there");
    agent.signal("CONT");
    node.until("taken again", |node| has(node, VIP) && has(node, VIP6));
    let (udp, _) = node.ask("pod1", VIP, 53);
    assert_eq!(udp["lost"], 0, "{udp}");
    assert_eq!(node.node("check"), (0, String::new()));
    // Killed, it is watched over still; another finds everything as it was.
    agent.kill();
    node.until("given back", |node| !has(node, VIP));
    let _second = node.agent(&["--intercept-failsafe", "1s"]);
    // It is taken when answers have come, not before.
    node.until("taken again", |node| has(node, VIP) && has(node, VIP6));
}

#[test]
fn an_agent_tells_what_a_resident_watch_has_given_back() {
    let Some(node) = Node::new() else { return };
    let _resident = Resident::start(&node, &["--intercept-failsafe", "1s"]);
    node.until("set up", |node| node.node("check").0 == 0);
    let agent = node.agent(&["--intercept-failsafe", "1s"]);
    let released = |node: &Node| node.metric("holdfast_node_intercept_released ");
    assert_eq!(released(&node), 0);
    // Dead for so long that the address is given back, and there again for as long as it takes to take it.
    agent.kill();
    node.until("given back", |node| !node.addresses().contains(&format!(" {VIP}/")));
    let mut agent = node.agent(&["--intercept-failsafe", "1s"]);
    agent.wait_for("nothing is answered: the cluster's DNS has its address back");
    agent.wait_for("there are answers again");
    node.until("told", |node| released(node) == 0);
}
