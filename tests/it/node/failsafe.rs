//! Who answers while an agent does not: at its start, and when it stops answering.

use super::{
    rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, VIP, VIP6, have},
    watch::Resident,
};

fn has(node: &Node, ip: &str) -> bool {
    node.addresses().contains(&format!(" {ip}/"))
}

#[test]
fn the_cluster_dns_answers_at_every_address_while_an_agent_does_not() {
    let Some(node) = Node::new() else { return };
    if !have("dig") {
        return;
    }
    let _coredns = node.coredns();
    let mut agent = node.agent(&["--intercept-failsafe", "1s"]);
    let both = |node: &Node, who: &str| {
        [VIP, LINK_LOCAL].iter().all(|server| node.answer("pod1", server).as_deref() == Some(who))
    };
    agent.wait_for("records complete");
    assert!(both(&node, OWN));
    agent.signal("STOP");
    node.until("given away", |node| !has(node, VIP) && !has(node, VIP6));
    node.until("answered", |node| both(node, BY_COREDNS));
    let (udp, tcp) = node.ask("pod2", LINK_LOCAL, 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
    // Processes of the node are steered as well.
    assert_eq!(node.answer("node", LINK_LOCAL), Some(BY_COREDNS.to_owned()));
    agent.signal("CONT");
    node.until("taken again", |node| has(node, VIP) && has(node, VIP6));
    assert!(both(&node, OWN));
    assert_eq!(node.node("check"), (0, String::new()));
    agent.wait_for("failsafe: queries go to the cluster's DNS");
    // Killed with its parent, it is watched over still.
    agent.kill();
    node.until("answered", |node| both(node, BY_COREDNS));
    let _agent = node.agent(&["--intercept-failsafe", "1s"]);
    node.until("taken when answers have come", |node| both(node, OWN));
}

#[test]
fn an_agent_takes_nothing_before_it_answers_as_well_as_the_cluster_dns() {
    let Some(node) = Node::new() else { return };
    if !have("dig") {
        return;
    }
    // No hub answers, and nothing is on disk; the cluster's DNS answers by the fallback.
    let coredns = node.coredns();
    let hub = ["--hub", "127.0.0.1:9", "--tls", "insecure"];
    let agent = node.agent(&hub);
    assert!(has(&node, VIP));
    assert_eq!(node.answer("pod1", VIP), Some(BY_COREDNS.to_owned()));
    assert_eq!(node.answer("pod1", LINK_LOCAL), Some(BY_COREDNS.to_owned()));
    assert!(agent.terminate().success());
    node.until("given back", |node| !has(node, VIP));

    // Another zone than the cluster's: it would answer names that no pod asks for.
    let mut agent = node.agent(&["--zone", "cluster.example", "--store", "none"]);
    agent.wait_for("check the setting zone");
    assert!(!has(&node, VIP));
    assert_eq!(node.answer("pod1", VIP), Some(BY_COREDNS.to_owned()));
    let status = node.status();
    assert_eq!(status["node"]["interface"]["state"], "waiting", "{status}");
    assert_eq!(status["process"]["waiting_for"], serde_json::json!(["addresses"]), "{status}");
    assert_eq!(status["node"]["interface"]["keeper"]["kind"], "agent", "{status}");
    assert_eq!(node.metric("holdfast_node_addresses_waiting "), 1);
    assert!(agent.terminate().success());

    // Neither records nor a fallback that answers.
    coredns.kill();
    let mut agent = node.agent(&hub);
    // Its cache has the name that is probed, from the agent before.
    agent.wait_for("no records yet, and cluster_fallback gives no answer");
    assert!(!has(&node, VIP) && has(&node, LINK_LOCAL));
    let _coredns = node.coredns();
    node.until("taken", |node| has(node, VIP));
    assert_eq!(node.answer("pod1", VIP), Some(BY_COREDNS.to_owned()));
    agent.wait_for("queries to the node's addresses are answered here");
}

#[test]
fn a_newcomer_with_another_zone_gives_back_what_the_one_before_had_taken() {
    let Some(node) = Node::new() else { return };
    if !have("dig") {
        return;
    }
    let _coredns = node.coredns();
    let mut old = node.agent(&[]);
    old.wait_for("records complete");
    assert_eq!(node.answer("pod1", VIP).as_deref(), Some(OWN));
    assert_eq!(node.status()["process"]["waiting_for"], serde_json::json!([]));
    // The rollout of a wrong setting: it takes over ports and store, and is not ready, which ends the rollout.
    let mut new = node.agent(&["--zone", "cluster.example"]);
    new.wait_for("check the setting zone");
    node.until("given back", |node| !has(node, VIP));
    assert_eq!(node.answer("pod1", VIP).as_deref(), Some(BY_COREDNS));
    assert_eq!(node.status()["process"]["waiting_for"], serde_json::json!(["addresses"]));
    new.kill();
    drop(old);
}

#[test]
fn an_agent_tells_why_a_resident_watch_takes_nothing() {
    let Some(node) = Node::new() else { return };
    let _coredns = node.coredns();
    let zone = ["--zone", "cluster.example", "--store", "none"];
    let _resident = Resident::start(&node, &zone[..2]);
    let mut agent = node.agent(&zone);
    agent.wait_for("check the setting zone");
    let interface = node.status()["node"]["interface"].clone();
    assert_eq!(interface["state"], "waiting", "{interface}");
    assert_eq!(interface["keeper"]["kind"], "resident", "{interface}");
    assert_eq!(node.metric("holdfast_node_addresses_waiting "), 1);
    assert_eq!(node.metric("holdfast_node_intercept_released "), 0);
}

#[test]
fn an_agent_tells_what_a_resident_watch_has_given_away() {
    let Some(node) = Node::new() else { return };
    let _coredns = node.coredns();
    let resident = Resident::start(&node, &["--intercept-failsafe", "1s"]);
    let agent = node.agent(&["--intercept-failsafe", "1s"]);
    let released = |node: &Node| node.metric("holdfast_node_intercept_released ");
    node.until("taken", |node| has(node, VIP));
    assert_eq!(released(&node), 0);
    agent.signal("STOP");
    node.until("given away", |node| !has(node, VIP));
    agent.signal("CONT");
    node.until("taken again", |node| has(node, VIP));
    node.until("told", |node| released(node) == 0);
    agent.kill();
    node.until("given away", |node| !has(node, VIP));
    let _agent = node.agent(&["--intercept-failsafe", "1s"]);
    node.until("taken again", |node| has(node, VIP));
    drop(resident);
}
