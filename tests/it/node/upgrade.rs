//! A new process beside the old one. Under load: `tests/hand_over.rs`.

use super::rig::{BY_COREDNS, LINK_LOCAL, Node, OWN, VIP, have};
use crate::support::process::Agent;

#[test]
fn a_process_that_cannot_start_again_says_why_and_the_failsafe_answers() {
    let Some(node) = Node::new() else { return };
    let _coredns = node.coredns();
    let mut agent = node.agent(&["--intercept-failsafe", "1s"]);
    std::fs::write(node.home.path().join("agent.yaml"), "sauce: {}\n").unwrap();
    agent.signal("KILL");
    agent.wait_for_nth("ended with code 2", 2);
    let deaths = std::fs::read_to_string(node.home.path().join("agent.deaths")).unwrap();
    assert!(deaths.contains("sauce") && deaths.contains("\"running\":false"), "{deaths}");
    let (code, told) = node.tool(&["status", "--admin", node.home.path().join("agent.sock").to_str().unwrap()]);
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("sauce"), "{told}");
    node.until("the cluster's DNS answers", |node| node.answer("pod1", VIP) == Some(BY_COREDNS.to_owned()));
    node.until("the relay answers", |node| node.answer("pod1", LINK_LOCAL) == Some(BY_COREDNS.to_owned()));
    std::fs::write(node.home.path().join("agent.yaml"), "").unwrap();
    node.until("the agent answers", |node| node.answer("pod1", VIP).as_deref() == Some(OWN));
    node.until("the agent answers", |node| node.answer("pod1", LINK_LOCAL).as_deref() == Some(OWN));
    node.until("forgotten", |node| !node.home.path().join("agent.deaths").exists());
}

#[test]
fn a_process_that_dies_is_started_again_from_the_program_that_its_parent_is() {
    let Some(node) = Node::new() else { return };
    let program = node.home.path().join("holdfast");
    let ours = env!("CARGO_BIN_EXE_holdfast");
    // An image or a package puts another version in its place, here one that cannot start.
    if std::fs::hard_link(ours, &program).is_err() {
        std::fs::copy(ours, &program).unwrap();
    }
    let flags = node.flags();
    let words: Vec<&str> = ["agent"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let mut agent = Agent::spawn(&mut node.command("node", program.to_str().unwrap(), &words));
    let other = node.home.path().join("other");
    std::fs::write(&other, "another version").unwrap();
    std::fs::rename(other, &program).unwrap();
    agent.signal("KILL");
    agent.wait_for_nth("answering DNS listen=", 2);
    let (udp, tcp) = node.ask("pod1", VIP, 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
}

/// Everything an agent has, as somebody on the node sees it.
fn is_whole(node: &Node) -> bool {
    let socket = node.home.path().join("agent.sock");
    let owner = || std::fs::File::open(node.home.path().join("store").join("owner")).unwrap();
    std::os::unix::net::UnixStream::connect(socket).is_ok()
        && matches!(owner().try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
        && node.http("169.254.20.10:8080", "/ready").starts_with("HTTP/1.1 200 ")
        && node.http("127.0.0.1:9253", "/metrics").starts_with("HTTP/1.1 200 ")
}

#[test]
fn a_newcomer_killed_at_any_step_leaves_everything_to_the_one_before() {
    let Some(node) = Node::new() else { return };
    if !have("curl") {
        return;
    }
    let mut old = node.agent(&[]);
    // It was handed over to; it has the store; it has ports and socket, and answers.
    let steps = ["the agent before handed over: joining its ports", "store loaded", "answering"];
    for (taken_back, step) in (1..).zip(steps) {
        Agent::spawn_until(&mut node.agent_command(&[]), step).kill();
        old.wait_for_nth("the new process died; this one took ports and store back", taken_back);
        node.until("whole again", is_whole);
        let (udp, tcp) = node.ask("pod1", VIP, 53);
        assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{step}: {udp} {tcp}");
    }
    // It was ready, and had the ports of probes and metrics for itself.
    let new = node.agent(&[]);
    old.wait_for("the new process is ready");
    assert!(is_whole(&node));
    let socket = node.home.path().join("agent.sock");
    let status = node.holdfast("node", &["status", "--admin", socket.to_str().unwrap()]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains(", ready; took over from pid "), "{status}");
    new.kill();
    old.wait_for_nth("the new process died; this one took ports and store back", steps.len() + 1);
    node.until("whole again", is_whole);
    // It is ended by somebody who thinks that enough were started.
    let new = node.agent(&[]);
    old.wait_for_nth("the new process is ready", 2);
    assert!(new.terminate().success());
    old.wait_for_nth("the new process died; this one took ports and store back", steps.len() + 2);
    node.until("whole again", is_whole);
    assert_eq!(node.node("check"), (0, String::new()), "and the node is as it was");
    // And the next one can take over.
    let third = node.agent(&[]);
    old.wait_for_nth("the new process is ready", 3);
    assert!(old.terminate().success());
    node.until("whole", is_whole);
    drop(third);
}

#[test]
fn a_process_with_the_number_of_another_is_told_from_it() {
    let Some(node) = Node::new() else { return };
    if !have("unshare") {
        return;
    }
    // The owner of the store died, and its number is another process's by now.
    let (store, running) = (node.home.path().join("store"), std::process::id());
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("owner"), format!("{{\"pid\":{running},\"admin\":null}}")).unwrap();
    // Two pods: in each the numbers begin at 1.
    let flags = node.flags();
    let apart = ["--pid", "--fork", "--kill-child", "--mount-proc", env!("CARGO_BIN_EXE_holdfast"), "agent"];
    let words: Vec<&str> = apart.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let start = || Agent::spawn(&mut node.command("node", "unshare", &words));
    let owner = || std::fs::read_to_string(store.join("owner")).unwrap();
    let mut old = start();
    let before = owner();
    assert!(!before.contains(&running.to_string()), "{before}");
    let new = start();
    assert_eq!(owner(), before, "the same number");
    old.wait_for("the new process is ready");
    // The end of the newcomer is noticed, though a process with its number runs: this one.
    new.kill();
    old.wait_for("the new process died; this one took ports and store back");
    node.until("whole again", is_whole);
    let third = start();
    old.wait_for_nth("the new process is ready", 2);
    drop(third);
}

#[test]
fn a_newcomer_without_records_is_not_taken_for_ready_by_the_answers_of_the_old() {
    let Some(node) = Node::new() else { return };
    if !have("curl") {
        return;
    }
    // Without a store nothing is handed over but the ports, and the newcomer's records come from nowhere.
    let mut old = node.agent(&["--store", "none"]);
    old.wait_for("records complete");
    let hub = ["--store", "none", "--hub", "127.0.0.1:9", "--tls", "insecure"];
    let mut new = node.agent(&hub);
    let socket = node.home.path().join("agent.sock");
    let ready = || {
        let done = node.holdfast("node", &["node", "ready", "--admin", socket.to_str().unwrap()]).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, told) = ready();
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("waiting for first records"), "the socket is the newcomer's: {told}");
    for _ in 0..20 {
        assert!(
            node.http("169.254.20.10:8080", "/ready").starts_with("HTTP/1.1 200 "),
            "the port still is the old one's"
        );
    }
    // Ended all the same, the old one leaves its ports to the newcomer, which tells what it is.
    assert!(old.terminate().success());
    new.wait_for("the other process left this port");
    node.until("told", |node| node.http("169.254.20.10:8080", "/ready").starts_with("HTTP/1.1 503 "));
    assert!(node.http("169.254.20.10:8080", "/health").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_probe_in_another_container_is_not_answered_by_this_ones_agent() {
    let Some(node) = Node::new() else { return };
    if !have("unshare") {
        return;
    }
    let mut agent = node.agent(&[]);
    agent.wait_for("records complete");
    let socket = node.home.path().join("agent.sock");
    let words = ["node", "ready", "--admin", socket.to_str().unwrap()];
    let here = node.holdfast("node", &words).output().unwrap();
    assert_eq!((here.status.code(), here.stdout), (Some(0), Vec::new()));
    let apart = [&["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_holdfast")][..], &words].concat();
    let there = node.command("node", "unshare", &apart).output().unwrap();
    let told = String::from_utf8([there.stdout, there.stderr].concat()).unwrap();
    assert_eq!((there.status.code(), told.as_str()), (Some(1), "the agent that answers is another container's\n"));
}

#[test]
fn a_newcomer_with_other_flags_waits_beside_the_old_one_and_says_why() {
    let Some(node) = Node::new() else { return };
    let old = node.agent(&[]);
    let flags = node.flags();
    let words: Vec<&str> =
        ["agent"].into_iter().chain(flags.iter().map(String::as_str)).chain(["--listen", "127.0.0.1"]).collect();
    let waiting = "waiting for another process to end";
    let mut newcomer = Agent::spawn_until(&mut node.holdfast("node", &words), waiting);
    let told = newcomer.wait_for(waiting);
    assert!(told.contains("no hand-over: it listens on 169.254.20.10:53, 10.96.0.10:53, "), "{told}");
    assert!(told.contains("is in use by pid "), "{told}");
    assert_eq!(node.node("check"), (0, String::new()), "it touches nothing");
    // Once the other one ends, it takes over.
    assert!(old.terminate().success());
    newcomer.wait_for("answering DNS listen=");
    node.until("taken", |node| node.node("check").0 == 0);
}
