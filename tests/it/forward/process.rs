//! The real agent: what a configuration must not say, a cache that outlives SIGKILL, a loop, and what is told of questions.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tempfile::TempDir;
use tokio::{net::UdpSocket, sync::watch};

use crate::support::{
    process::{Agent, answers, extended_errors, holdfast, run},
    upstream::{Upstream, a},
};

const CLUSTER: &str = "{kind: List, items: [{apiVersion: v1, kind: Service, metadata: {namespace: prod, name: web}, \
                       spec: {clusterIP: 10.96.0.7}}]}\n";

/// A configuration file in `home` with `more` at its end.
fn configure(home: &Path, more: &str) -> String {
    let (manifests, file) = (home.join("cluster.yaml"), home.join("agent.yaml"));
    fs::write(&manifests, CLUSTER).unwrap();
    fs::write(&file, format!("source: {{ manifests: {{ path: {} }} }}\n{more}", manifests.display())).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_answered_before_sigkill_answer_after_it_with_the_upstream_dead() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::start(|asked| {
        let ttl = if asked.name().starts_with("short") { 1 } else { 600 };
        vec![asked.found(vec![a(&asked.name(), ttl, [192, 0, 2, 1])])]
    })
    .await;
    let more = format!(
        "forward: [{{ zone: example, upstreams: ['{}'] }}]\nupstream_timeout: 500ms\n\
         cache: {{ save_interval: 1s, client_timeout: 0s }}\nlog: {{ filter: 'info,holdfast::dns::forward=debug' }}\n",
        upstream.address
    );
    let file = configure(home.path(), &more);
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    for owner in ["long.example.", "short.example.", "short-too.example."] {
        let reply = agent.ask(owner, RecordType::A);
        assert_eq!((reply.answers.len(), extended_errors(&reply).len()), (1, 0), "{owner}: {reply}");
    }
    // Two seconds: the short ones have run out.
    agent.wait_for_nth("cache saved entries=3", 3);
    upstream.now(|_| Vec::new());
    agent.kill();

    let mut agent = Agent::start(home.path(), &["--config", &file]);
    let reply = agent.ask("long.example.", RecordType::A);
    assert_eq!(extended_errors(&reply), [0; 0], "within its time: {reply}");
    let ttl = reply.answers[0].ttl;
    assert!((500..600).contains(&ttl), "counted down while it was away: {ttl}");
    for owner in ["short.example.", "short-too.example."] {
        let reply = agent.ask(owner, RecordType::A);
        assert_eq!(answers(&reply), ["30 A 192.0.2.1"], "{owner}");
        assert_eq!(extended_errors(&reply), [3], "{owner}");
    }
    // Names nobody has asked before tell it that the upstream is dead.
    for nth in 0..4 {
        let reply = agent.ask(&format!("new{nth}.example."), RecordType::A);
        assert_eq!(extended_errors(&reply), [22]);
    }
    // A probe has to be lost as well.
    agent.wait_for("upstream does not answer");
    let socket = home.path().join("agent.sock");
    let status = run(&["status", "--admin", socket.to_str().unwrap()]);
    let status = String::from_utf8_lossy(&status.stdout);
    let row = status.lines().find(|line| line.contains(&upstream.address.to_string()));
    assert!(row.is_some_and(|row| row.contains("FAILING")), "{status}");
    assert!(status.contains("zone example. is DOWN") && status.contains("2 stale answers given"), "{status}");
    assert_eq!(answers(&agent.ask("web.prod.svc.cluster.local.", RecordType::A)), ["5 A 10.96.0.7"]);
}

/// An upstream loses a zone, and the process is killed as soon as it has told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_denies_many_names_is_not_believed_by_the_process_after_sigkill() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(1, [192, 0, 2, 1]).await;
    let more = format!(
        "forward: [{{ zone: example, upstreams: ['{}'], denials: confirm }}]\n\
         cache: {{ save_interval: 1h }}\nlog: {{ filter: 'info,holdfast::dns::forward=debug' }}\n",
        upstream.address
    );
    let file = configure(home.path(), &more);
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    let names: Vec<String> = (0..24).map(|nth| format!("n{nth}.example.")).collect();
    for owner in &names {
        for _ in 0..5 {
            assert_eq!(answers(&agent.ask(owner, RecordType::A)).len(), 1, "{owner}");
        }
    }
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    // The names run out, and are denied one after another.
    while !agent.log().iter().any(|line| line.contains("upstream denies many names at once")) {
        for owner in &names[..12] {
            assert_eq!(answers(&agent.ask(owner, RecordType::A)).len(), 1, "{owner}");
        }
    }
    agent.wait_for("cache saved");
    agent.kill();

    let mut agent = Agent::start(home.path(), &["--config", &file]);
    for owner in &names {
        let reply = agent.ask(owner, RecordType::A);
        assert_eq!((answers(&reply), extended_errors(&reply)), (vec!["1 A 192.0.2.1".into()], vec![3]), "{owner}");
    }
    let socket = home.path().join("agent.sock");
    let status = String::from_utf8(run(&["status", "--admin", socket.to_str().unwrap()]).stdout).unwrap();
    let row = status.lines().find(|line| line.contains(&upstream.address.to_string()));
    assert!(row.is_some_and(|row| row.contains("DENIES good names")), "{status}");
    assert!(!agent.log().iter().any(|line| line.contains("upstream denies many names at once")), "it is known already");
}

/// What forwarding must not be told, and what is said to it with its place.
const BAD: [(&str, &str); 6] = [
    ("forward: [{ zone: a..b, upstreams: [10.0.0.1] }]", "agent.yaml:2:"),
    ("forward: [{ zone: example, upstreams: [dns..example] }]", "agent.yaml:2:"),
    ("forward: [{ zone: example, upstreams: ['tls://10.0.0.1#not a name'] }]", "agent.yaml:2:"),
    ("forward: [{ zone: example, upstreams: [] }]", "has no upstreams"),
    ("forward: [{ zone: example, upstreams: [127.0.0.9] }]\nlisten: [127.0.0.9]", "questions would come back to us"),
    ("forward: [{ zone: example, upstreams: [10.0.0.1], min_ttl: 1h, max_ttl: 1m }]", "is above max_ttl"),
];

#[test]
fn bad_forwarding_is_refused_at_start_with_its_place() {
    let home = TempDir::new().unwrap();
    for (more, expect) in BAD {
        let file = configure(home.path(), more);
        let started = run(&["agent", "--store", "none", "--http", "none", "--metrics", "none", "--config", &file]);
        let error = String::from_utf8_lossy(&started.stderr);
        assert_eq!(started.status.code(), Some(2), "{more}: {error}");
        assert!(error.contains(expect) && error.contains("agent.yaml:2:"), "{more}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_upstreams_names_of_the_cluster_are_answered_and_it_is_said_aloud() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let resolv_conf = home.path().join("resolv.conf");
    fs::write(&resolv_conf, "").unwrap();
    let more = format!(
        "forward: [{{ zone: ., upstreams: [{}] }}]\nlog: {{ filter: 'info,holdfast::dns::forward=debug' }}\n",
        resolv_conf.display()
    );
    let file = configure(home.path(), &more);
    let reason = format!("{}: no nameserver line with an address", resolv_conf.display());
    let checked = run(&["check-config", "--config", &file]);
    let (warned, code) = (String::from_utf8_lossy(&checked.stderr), checked.status.code());
    assert!(code == Some(0) && warned.starts_with(&format!("warning: forward zone .: {reason}")), "{warned}");

    let args = ["agent", "--config", &file, "--listen", "127.0.0.1:0", "--http", "none", "--metrics", "none"];
    let (store, socket) = (home.path().join("store"), home.path().join("agent.sock"));
    let start = || Agent::spawn(holdfast(&args).arg("--store").arg(&store).arg("--admin").arg(&socket));
    let mut agent = start();
    let line = agent.wait_for("a file names no upstreams");
    assert!(line.contains("ERROR") && line.contains("zone=.") && line.contains(&reason), "{line}");
    agent.wait_for("records complete");
    assert_eq!(answers(&agent.ask("web.prod.svc.cluster.local.", RecordType::A)), ["5 A 10.96.0.7"]);
    let reply = agent.ask("www.example.", RecordType::A);
    assert_eq!((reply.response_code, extended_errors(&reply)), (ResponseCode::ServFail, vec![22]));
    let status = || String::from_utf8(run(&["status", "--admin", socket.to_str().unwrap()]).stdout).unwrap();
    assert!(status().contains(&format!("none; zone . has NO UPSTREAMS ({reason})")), "{}", status());

    fs::write(&resolv_conf, format!("nameserver {}\n", upstream.address)).unwrap();
    agent.wait_for("upstreams read again");
    assert_eq!(answers(&agent.ask("www.example.", RecordType::A)), ["60 A 192.0.2.1"]);
    assert!(status().contains(&upstream.address.to_string()) && !status().contains("NO UPSTREAMS"), "{}", status());

    // After a crash, with the file gone, those it named are asked on.
    agent.wait_for("upstreams of files saved to the store");
    agent.kill();
    fs::remove_file(&resolv_conf).unwrap();
    let agent = start();
    assert_eq!(answers(&agent.ask("other.example.", RecordType::A)), ["60 A 192.0.2.1"]);
    assert!(status().contains("No such file or directory (os error 2); those it named last are asked"), "{}", status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_forwarding_at_reload_leaves_the_old_one_at_work() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(0, [192, 0, 2, 1]).await;
    let other = Upstream::with_a(0, [192, 0, 2, 2]).await;
    let good = |upstream: &Upstream| format!("forward: [{{ zone: example, upstreams: ['{}'] }}]\n", upstream.address);
    let file = configure(home.path(), &good(&upstream));
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    let ask = |agent: &Agent| answers(&agent.ask("www.example.", RecordType::A));
    assert_eq!(ask(&agent), ["0 A 192.0.2.1"]);
    let mut times = 0;
    for (more, expect) in BAD.into_iter().filter(|(more, _)| !more.contains("listen")) {
        configure(home.path(), more);
        agent.signal("HUP");
        times += 1;
        let line = agent.wait_for_nth("configuration refused", times);
        assert!(line.contains(expect), "{more}: {line}");
        assert_eq!(ask(&agent), ["0 A 192.0.2.1"], "{more}");
    }
    // What only the system can tell, and what only the running agent can: the ports it found.
    let missing = "forward: [{ zone: example, upstreams: [/nonexistent/resolv.conf] }]".to_owned();
    let itself = format!("forward: [{{ zone: example, upstreams: ['{}'] }}]", agent.dns);
    for (nth, (more, expect)) in
        [(missing, "/nonexistent/resolv.conf"), (itself, "itself listens on")].iter().enumerate()
    {
        configure(home.path(), more);
        agent.signal("HUP");
        let line = agent.wait_for_nth("new forwarding refused: the old one stays in effect", nth + 1);
        assert!(line.contains(expect) && line.contains("zone example."), "{line}");
        assert_eq!(ask(&agent), ["0 A 192.0.2.1"]);
    }
    configure(home.path(), &good(&other));
    agent.signal("HUP");
    agent.wait_for_nth("read again", 3);
    assert_eq!(ask(&agent), ["0 A 192.0.2.2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_that_is_missing_at_the_start_stops_dns_and_each_is_taken_up_when_it_appears() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let path = |name: &str| home.path().join(name).display().to_string();
    fs::create_dir(path("hosts")).unwrap();
    let config = format!(
        "source: {{ manifests: {{ path: {} }} }}
encrypted: {{ tls: ['127.0.0.1:0'], certificate: {} }}
log: {{ dnstap: {} }}
forward:
- {{ zone: example, upstreams: ['{}'], hosts_file: {} }}
- {{ zone: named.example, upstreams: [{}] }}
- {{ zone: tls.example, upstreams: ['tls://127.0.0.1:1'], tls_ca: {} }}
- {{ zone: shown.example, upstreams: ['tls://127.0.0.1:1'], tls_ca: {}, tls_certificate: {}, tls_key: {} }}
- {{ zone: by-name.example, upstreams: [dns.example], resolvers: ['127.0.0.1:9'] }}
",
        path("manifests.yaml"),
        path("certificate"),
        path("dnstap.sock"),
        upstream.address,
        path("hosts"),
        path("resolv.conf"),
        path("ca.pem"),
        path("other-ca.pem"),
        path("client.pem"),
        path("client.key"),
    );
    fs::write(path("agent.yaml"), config).unwrap();
    let mut agent = Agent::start(home.path(), &["--config", &path("agent.yaml")]);
    assert_eq!(answers(&agent.ask("www.example.", RecordType::A)), ["60 A 192.0.2.1"]);
    for line in
        ["cannot read the hosts file", "a file names no upstreams", "no certificate, every handshake is refused"]
    {
        agent.wait_for(line);
    }
    for (name, code) in [
        ("a.named.example.", ResponseCode::ServFail),
        ("a.tls.example.", ResponseCode::ServFail),
        ("a.shown.example.", ResponseCode::ServFail),
        ("a.by-name.example.", ResponseCode::ServFail),
        ("web.prod.svc.cluster.local.", ResponseCode::ServFail),
    ] {
        assert_eq!(agent.ask(name, RecordType::A).response_code, code, "{name}");
    }
    let socket = path("agent.sock");
    let told = String::from_utf8(run(&["status", "--admin", &socket]).stdout).unwrap();
    for file in ["hosts", "resolv.conf", "ca.pem", "client.pem", "manifests.yaml"] {
        assert!(told.contains(&path(file)), "{file}: {told}");
    }

    fs::write(path("resolv.conf"), format!("nameserver {}\n", upstream.address)).unwrap();
    agent.wait_for("upstreams read again");
    assert_eq!(answers(&agent.ask("a.named.example.", RecordType::A)), ["60 A 192.0.2.1"]);
    fs::remove_dir(path("hosts")).unwrap();
    fs::write(path("hosts"), "10.0.0.9 printer.example\n").unwrap();
    agent.wait_for("hosts file read");
    assert_eq!(answers(&agent.ask("printer.example.", RecordType::A)), ["30 A 10.0.0.9"]);
    fs::write(path("manifests.yaml"), CLUSTER).unwrap();
    agent.wait_for("records complete");
    assert_eq!(answers(&agent.ask("web.prod.svc.cluster.local.", RecordType::A)), ["5 A 10.96.0.7"]);
}

/// Where the kubelet and the container runtime look first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keep_list_is_a_block_in_the_hosts_file_of_the_node_until_teardown() {
    const REST: &[u8] = b"127.0.0.1 localhost # caf\xE9";
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let hosts = home.path().join("hosts");
    let more = format!(
        "forward: [{{ zone: example, upstreams: ['{}'] }}]\nkeep: [registry.example, none.elsewhere]\n\
         node: {{ hosts_file: {}, skip_teardown: false }}\n",
        upstream.address,
        hosts.display()
    );
    let file = configure(home.path(), &more);
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    let line = agent.wait_for("the keep list is not in the node's hosts file");
    assert!(line.contains("No such file"), "{line}");
    fs::write(&hosts, REST).unwrap();
    agent.wait_for("keep list written to the node's hosts file");
    let text = fs::read(&hosts).unwrap();
    assert!(text.starts_with(REST) && text.ends_with(b"\n192.0.2.1 registry.example\n# END holdfast\n"));
    assert!(agent.terminate().success());
    assert_eq!(fs::read(&hosts).unwrap(), REST);
}

/// Mounted by itself, the file cannot be replaced in one step, nor can a read-only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_file_of_the_node_that_cannot_be_replaced_is_told_and_left_alone() {
    const REST: &str = "127.0.0.1 localhost\n";
    let mounts = Command::new("unshare").args(["--mount", "true"]).output();
    if !mounts.is_ok_and(|ran| ran.status.success()) {
        println!("NOT TESTED: a hosts file that is read-only. It takes mounts of its own (unshare --mount, as root)");
        return;
    }
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("hosts"), REST).unwrap();
    let more = format!(
        "forward: [{{ zone: example, upstreams: ['{}'] }}]\nkeep: [registry.example]\n\
         node: {{ hosts_file: {}, skip_teardown: false }}\n",
        upstream.address,
        path("hosts")
    );
    let file = configure(home.path(), &more);
    let (store, socket) = (path("store"), path("agent.sock"));
    let words = [
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "127.0.0.1:9",
        "--http",
        "none",
        "--metrics",
        "none",
        "--config",
        &file,
    ];
    let read_only = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", read_only, "sh", &path("hosts")]);
    command.args([env!("CARGO_BIN_EXE_holdfast"), "agent", "--store", &store, "--admin", &socket]).args(words);
    let mut agent = Agent::spawn(&mut command);
    let line = agent.wait_for("the keep list is not in the node's hosts file");
    assert!(line.contains("ERROR") && line.contains(&format!("{}: ", path("hosts"))), "{line}");
    assert!(answers(&agent.ask("registry.example.", RecordType::A))[0].ends_with(" A 192.0.2.1"));
    let status = |output: &str| {
        let ran = run(&["status", "--admin", &socket, "-o", output]);
        String::from_utf8(ran.stdout).unwrap()
    };
    let row = status("table");
    let row = row.lines().find(|row| row.starts_with("hosts ")).unwrap_or_else(|| panic!("{row}"));
    assert!(row.contains("NOT WRITTEN") && row.contains(&path("hosts")), "{row}");
    assert!(status("table").lines().next().unwrap().contains("hosts"), "{}", status("table"));
    let document: serde_json::Value = serde_json::from_str(&status("json")).unwrap();
    let hosts = &document["forward"]["hosts_file"];
    assert_eq!((&hosts["path"], &hosts["names"]), (&path("hosts").into(), &0.into()));
    assert!(hosts["error"].as_str().is_some_and(|error| error.starts_with(&path("hosts"))), "{hosts}");
    assert!(agent.terminate().success());
    assert_eq!(fs::read_to_string(path("hosts")).unwrap(), REST);
    assert!(!Path::new(&path("hosts.new")).exists(), "nothing is left beside it");
}

/// Passes every datagram on to whoever is named, and the answer back.
async fn relay(socket: Arc<UdpSocket>, to: watch::Receiver<Option<SocketAddr>>) {
    let mut buffer = [0; 4_096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let (query, back, mut to) = (buffer[..length].to_vec(), Arc::clone(&socket), to.clone());
        tokio::spawn(async move {
            let to = to.wait_for(Option::is_some).await.unwrap().unwrap();
            let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            onward.send_to(&query, to).await.unwrap();
            let mut answer = [0; 4_096];
            if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(10), onward.recv(&mut answer)).await {
                let _ = back.send_to(&answer[..length], from).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_through_another_resolver_is_reported_and_the_cluster_goes_on() {
    let home = TempDir::new().unwrap();
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let upstream = socket.local_addr().unwrap();
    let (tell, to) = watch::channel(None);
    tokio::spawn(relay(socket, to));
    let file = configure(home.path(), &format!("forward: [{{ zone: example, upstreams: ['{upstream}'] }}]\n"));
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    agent.wait_for("records complete");
    tell.send(Some(agent.dns)).unwrap();
    let line = agent.wait_for("forwarding loop");
    assert!(line.contains(&upstream.to_string()) && line.contains("zone=example."), "{line}");
    let socket = home.path().join("agent.sock");
    let status = run(&["status", "--admin", socket.to_str().unwrap()]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains("forwarding LOOP: queries for zone example. come back to this agent"), "{status}");
    let reply = agent.ask("www.example.", RecordType::A);
    assert_eq!(extended_errors(&reply), [22], "{reply}");
    assert_eq!(answers(&agent.ask("web.prod.svc.cluster.local.", RecordType::A)), ["5 A 10.96.0.7"]);
}

/// A frame of Frame Streams that is no data: its type and fields.
fn read_control(stream: &mut UnixStream) -> Vec<u8> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[..4], [0; 4], "the escape");
    let mut body = vec![0; usize::from(head[7])];
    stream.read_exact(&mut body).unwrap();
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_told_to_the_log_and_to_a_dnstap_collector_if_wanted() {
    let home = TempDir::new().unwrap();
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let tap = home.path().join("tap.sock");
    let listener = UnixListener::bind(&tap).unwrap();
    let more = format!(
        "forward: [{{ zone: example, upstreams: ['{}'] }}]\nlog: {{ query_every: 1, dnstap: {} }}\n",
        upstream.address,
        tap.display()
    );
    let file = configure(home.path(), &more);
    let mut agent = Agent::start(home.path(), &["--config", &file]);
    for from in ["from=\"upstream\"", "from=\"cache\""] {
        assert_eq!(agent.ask("www.example.", RecordType::A).answers.len(), 1);
        let line = agent.wait_for(from);
        assert!(line.contains("holdfast::query") && line.contains("name=www.example"), "{line}");
    }
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ready = read_control(&mut stream);
    assert_eq!(ready[..4], [0, 0, 0, 4], "READY");
    // ACCEPT with the content type it offers.
    let mut accept = vec![0, 0, 0, 0, 0, 0, 0, u8::try_from(ready.len()).unwrap(), 0, 0, 0, 1];
    accept.extend(&ready[4..]);
    stream.write_all(&accept).unwrap();
    assert_eq!(read_control(&mut stream)[..4], [0, 0, 0, 2], "START");
    for _ in 0..2 {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame).unwrap();
        let names = frame.windows(13).filter(|bytes| *bytes == b"\x03www\x07example\0");
        assert_eq!(names.count(), 2, "the question and the answer");
        assert!(frame.windows(4).any(|bytes| bytes == [192, 0, 2, 1]));
    }
}
