//! What the process may do: as little as it needs, and as root or not.

use std::{os::unix::fs::PermissionsExt, process::Command};

use super::rig::{LINK_LOCAL, Node, VIP, capabilities, have};
use crate::support::process::Agent;

/// An agent of an ordinary user, with these capabilities.
fn as_nobody(node: &Node, capabilities: &[&str], flags: &[String]) -> Command {
    let home = node.home.path();
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut words: Vec<String> = ["--reuid", "65534", "--regid", "65534", "--clear-groups"].map(str::to_owned).into();
    for set in ["--inh-caps", "--ambient-caps"] {
        let all = ["-all".to_owned()].into_iter().chain(capabilities.iter().map(|name| format!("+{name}")));
        words.extend([set.to_owned(), all.collect::<Vec<_>>().join(",")]);
    }
    words.extend([env!("CARGO_BIN_EXE_holdfast").to_owned(), "agent".to_owned()]);
    words.extend(flags.iter().cloned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    node.command("node", "setpriv", &words)
}

#[test]
fn an_agent_that_answers_has_given_up_what_it_needs_no_more() {
    let Some(node) = Node::new() else { return };
    let agent = node.agent(&[]);
    // Root keeps the one to open files of others.
    assert_eq!(capabilities(agent.pid()), "CapEff:\t0000000000000002 NoNewPrivs:\t1 Seccomp:\t2");
    assert_eq!(node.metric("holdfast_node_setup_errors_total{errortype=\"sandbox\"}"), 0);
    let (udp, tcp) = node.ask("pod1", VIP, 53);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()));
    agent.terminate();
    assert!(node.home.path().join("store").read_dir().unwrap().count() > 0, "the store is written to");
    let free = node.agent(&["--sandbox", "false"]);
    assert!(capabilities(free.pid()).ends_with("NoNewPrivs:\t0 Seccomp:\t0"));
}

#[test]
fn files_named_without_a_directory_are_in_the_one_it_was_started_in() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("none.yaml"), "").unwrap();
    let fixed = ["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9", "--http", "none", "--metrics", "none"];
    let files = ["--store", "store", "--admin", "agent.sock", "--sandbox", "true"];
    let mut agent = crate::support::process::holdfast(&["agent"]);
    agent.args(fixed).args(files).args(["--manifests", "none.yaml"]);
    let agent = Agent::spawn(agent.current_dir(home.path()));
    assert!(home.path().join("agent.sock").exists() && home.path().join("store").is_dir());
    assert!(agent.terminate().success());
    std::fs::write(home.path().join("Corefile.base"), ".:0 {\n bind 127.0.0.1\n forward . 127.0.0.1:9\n}\n").unwrap();
    let flags =
        ["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false", "-basecorefile", "Corefile.base"];
    let flags = [&flags[..], &["-conf", "Corefile", "-pidfile", "pid", "-metrics-listen-address", ""]].concat();
    let mut agent = crate::support::process::holdfast(&["node-cache"]);
    let agent = Agent::spawn(agent.args(flags).args(files).current_dir(home.path()));
    assert!(home.path().join("pid").exists() && home.path().join("Corefile").exists());
    agent.signal("HUP");
    assert!(agent.terminate().success());
    assert!(!home.path().join("pid").exists());
}

#[test]
fn an_ordinary_user_with_two_capabilities_does_all_of_it() {
    let Some(node) = Node::new() else { return };
    if !have("setpriv") {
        return;
    }
    let agent = Agent::spawn(&mut as_nobody(&node, &["net_admin", "net_bind_service"], &node.flags()));
    assert_eq!(node.node("check"), (0, String::new()));
    assert!(capabilities(agent.pid()).starts_with("CapEff:\t0000000000000000"));
    let (udp, _) = node.ask("pod1", LINK_LOCAL, 53);
    assert_eq!(udp["lost"], 0, "{udp}");
}

#[test]
fn an_ordinary_user_without_is_told_what_is_missing_and_answers() {
    let Some(node) = Node::new() else { return };
    if !have("setpriv") {
        return;
    }
    let mut flags = node.flags();
    let listen = flags.iter().position(|flag| flag == "--listen").unwrap();
    // Without the other capability, a port of everybody's.
    flags[listen + 1] = "127.0.0.1:5353".into();
    let file = node.home.path().join("agent.yaml");
    std::fs::write(file, "node: { local_ips: [169.254.20.10] }\n").unwrap();
    let mut agent = Agent::spawn(&mut as_nobody(&node, &[], &flags));
    let line = agent.wait_for("not permitted; grant the capability CAP_NET_ADMIN");
    assert!(line.contains("kind=\"privilege\""), "{line}");
    assert!(node.metric("holdfast_node_setup_errors_total{errortype=\"privilege\"}") >= 1);
    let (udp, tcp) = node.ask("node", "127.0.0.1", 5353);
    assert_eq!((&udp["lost"], &tcp["lost"]), (&0.into(), &0.into()), "{udp} {tcp}");
}
