//! The listeners for probes, the limit of open files, and a log that nobody reads.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
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

/// The value of a metric, as the listener at `metrics` tells it.
fn metric(metrics: SocketAddr, series: &str) -> u64 {
    let text = get(metrics, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {text}")).parse().unwrap()
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

/// A process of this role under these limits of open files, in the words of the shell.
fn limited(home: &Path, ulimit: &str, role: &str) -> Command {
    let mut command = Command::new("sh");
    let words = format!("{ulimit}; exec \"$0\" \"$@\"");
    command.args(["-c", &words, env!("CARGO_BIN_EXE_holdfast"), role, "--listen", "127.0.0.1:0"]);
    command.args(["--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--store"]);
    command.arg(home.join("store")).arg("--admin").arg(home.join("agent.sock"));
    command.args(["--manifests", &no_records(home)]);
    command
}

fn limited_agent(home: &Path, ulimit: &str, upstream: &str) -> Command {
    let mut command = limited(home, ulimit, "agent");
    command.args(["--upstream", upstream]);
    command
}

#[test]
fn a_low_soft_limit_of_open_files_is_raised() {
    let home = tempfile::tempdir().unwrap();
    let agent = Agent::spawn(&mut limited_agent(home.path(), "ulimit -Sn 256", "127.0.0.1:9"));
    let (soft, hard) = limits(agent.pid());
    assert_eq!(soft, hard);
}

#[test]
fn probes_and_the_admin_socket_work_when_clients_have_all_files_a_low_hard_limit_leaves() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::spawn(&mut limited_agent(home.path(), "ulimit -n 800", "127.0.0.1:9"));
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
fn a_hub_keeps_files_for_probes_and_tools_when_clients_have_all_a_low_hard_limit_leaves() {
    let home = tempfile::tempdir().unwrap();
    let mut command = limited(home.path(), "ulimit -Sn 256; ulimit -Hn 800", "hub");
    let mut hub = Agent::spawn_until(command.args(["--tls", "insecure"]), "serving the stream to agents listen=");
    let line = hub.wait_for("the limit of open files is too low for a large fleet");
    assert!(line.contains("agents=105"), "{line}");
    let (soft, hard) = limits(hub.pid());
    assert_eq!((soft.as_str(), hard.as_str()), ("800", "800"));
    let (http, stream) = (listener(home.path(), "http"), listener(home.path(), "stream"));
    let idle: Vec<TcpStream> = (0..700).map(|_| TcpStream::connect(stream).unwrap()).collect();
    for _ in 0..5 {
        assert!(get(http, "/health").starts_with("HTTP/1.1 200 "));
        assert_eq!(listener(home.path(), "stream"), stream);
    }
    drop(idle);
}

/// However many questions wait for an upstream that says nothing, their sockets are bounded.
#[test]
fn sockets_to_a_silent_upstream_are_bounded_over_all_questions() {
    const QUESTIONS: u16 = 600;
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let upstream = silent.local_addr().unwrap().to_string();
    let agent = Agent::spawn(&mut limited_agent(home.path(), "ulimit -n 800", &upstream));
    let metrics = listener(home.path(), "metrics");
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(agent.dns).unwrap();
    let mut most = 0;
    for id in 0..QUESTIONS {
        client.send(&query(id, &format!("n{id}.example."), RecordType::A)).unwrap();
        if id % 50 == 49 {
            // Taken in, so that the receive buffer holds the next ones.
            while metric(metrics, "holdfast_dns_requests_total{proto=\"udp\",type=\"A\"}") <= u64::from(id) {}
            let sockets = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().flatten();
            let udp = sockets.filter(|file| {
                fs::read_link(file.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
            });
            most = most.max(udp.count());
        }
    }
    // 70 to upstreams, and those of listeners and of the connection that tells.
    assert!((60..120).contains(&most), "{most} sockets");
}

#[test]
fn the_log_and_status_and_check_config_name_listeners_that_answer_anybody() {
    const TOLD: &str = "answers anybody who reaches it, as an open resolver";
    for (allow, open) in [(&[][..], true), (&["--allow", "10.0.0.0/8"], false)] {
        let home = tempfile::tempdir().unwrap();
        let manifests = no_records(home.path());
        let mut agent =
            Agent::start(home.path(), &[&["--manifests", &manifests, "--listen", "0.0.0.0:0"][..], allow].concat());
        assert_eq!(agent.log().iter().any(|line| line.contains(TOLD)), open, "{:#?}", agent.log());
        let checked =
            run(&[&["check-config", "--manifests", &manifests, "--listen", "0.0.0.0:5353"][..], allow].concat());
        let text = [checked.stdout, checked.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(text.contains(TOLD), open, "{text}");
        let socket = home.path().join("agent.sock");
        let output = run(&["status", "--admin", socket.to_str().unwrap()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.contains("(OPEN to all networks: set allow)"), open, "{text}");
    }
}
