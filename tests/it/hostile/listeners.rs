//! The listeners for probes, the limit of open files, and a log that nobody reads.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use hickory_proto::rr::RecordType;

use crate::support::{
    dns::{ask_tcp, query},
    http::get,
    process::{Agent, run},
};

/// A file of manifests without any.
fn no_records(home: &Path) -> String {
    let file = home.join("none.yaml");
    fs::write(&file, "").unwrap();
    file.to_str().unwrap().to_owned()
}

/// The address of a listener, as `status` tells it.
fn listener(home: &Path, name: &str) -> SocketAddr {
    let socket = home.join("agent.sock");
    let output = run(&["status", "-o", "json", "--admin", socket.to_str().unwrap()]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let listeners = status["process"]["listeners"].as_array().unwrap();
    let row = listeners.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{status}"));
    row["address"].as_str().unwrap().parse().unwrap()
}

#[test]
fn probes_are_answered_while_idle_connections_take_every_place() {
    let home = tempfile::tempdir().unwrap();
    let _agent = Agent::start(home.path(), &["--manifests", &no_records(home.path())]);
    for name in ["http", "metrics"] {
        let address = listener(home.path(), name);
        let path = if name == "http" { "/health" } else { "/metrics" };
        let mut idle: Vec<TcpStream> = (0..128).map(|_| TcpStream::connect(address).unwrap()).collect();
        for probe in 0..40 {
            // More than come in between two probes of a second at 26 a second.
            idle.extend((0..26).map(|_| TcpStream::connect(address).unwrap()));
            let half = idle.last_mut().unwrap();
            half.write_all(b"GET / HT").unwrap();
            assert!(get(address, path).starts_with("HTTP/1.1 200 "), "{name} {probe}");
        }
    }
}

/// The soft and the hard limit of a process.
fn limits(pid: u32) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut words = line.split_whitespace().skip(3).map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// An agent under these limits of open files, in the words of the shell.
fn limited(home: &Path, ulimit: &str) -> Command {
    let mut command = Command::new("sh");
    let words = format!("{ulimit}; exec \"$0\" \"$@\"");
    command.args(["-c", &words, env!("CARGO_BIN_EXE_holdfast"), "agent", "--listen", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:0", "--metrics", "none", "--upstream", "127.0.0.1:9", "--store"]);
    command.arg(home.join("store")).arg("--admin").arg(home.join("agent.sock"));
    command.args(["--manifests", &no_records(home)]);
    command
}

#[test]
fn a_low_soft_limit_of_open_files_is_raised() {
    let home = tempfile::tempdir().unwrap();
    let agent = Agent::spawn(&mut limited(home.path(), "ulimit -Sn 256"));
    let (soft, hard) = limits(agent.pid());
    assert_eq!(soft, hard);
}

#[test]
fn probes_and_the_admin_socket_work_when_clients_have_all_files_a_low_hard_limit_leaves() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::spawn(&mut limited(home.path(), "ulimit -n 800"));
    let line = agent.wait_for("the limit of open files is too low for tcp.max_connections");
    assert!(line.contains("used=70"), "{line}");
    let http = listener(home.path(), "http");
    let idle: Vec<TcpStream> = (0..700).map(|_| TcpStream::connect(agent.dns).unwrap()).collect();
    for _ in 0..5 {
        assert!(get(http, "/health").starts_with("HTTP/1.1 200 "));
        assert_eq!(listener(home.path(), "dns"), agent.dns);
        assert_eq!(ask_tcp(agent.dns, &query(7, "none.default.svc.cluster.local.", RecordType::A)).id, 7);
    }
    drop(idle);
}

#[test]
fn status_names_listeners_that_answer_anybody() {
    for (allow, open) in [(&[][..], true), (&["--allow", "10.0.0.0/8"], false)] {
        let home = tempfile::tempdir().unwrap();
        let manifests = no_records(home.path());
        let _agent =
            Agent::start(home.path(), &[&["--manifests", &manifests, "--listen", "0.0.0.0:0"][..], allow].concat());
        let socket = home.path().join("agent.sock");
        let output = run(&["status", "--admin", socket.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.contains("(OPEN to all networks: set allow)"), open, "{text}");
    }
}
