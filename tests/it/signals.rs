//! What signals do to a running agent.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use tempfile::TempDir;

use crate::support::process::{Agent, answers, ask, holdfast, run};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const CLUSTER: &str = "{kind: List, items: [{apiVersion: v1, kind: Service, metadata: {namespace: prod, name: web}, \
                       spec: {clusterIP: 10.96.0.7}}]}\n";

#[test]
fn sighup_reads_the_configuration_again_and_a_broken_one_changes_nothing() {
    let home = TempDir::new().unwrap();
    let (old, new) = (home.path().join("old.yaml"), home.path().join("new.yaml"));
    fs::write(&old, CLUSTER).unwrap();
    fs::write(&new, CLUSTER.replace("10.96.0.7", "10.96.0.8")).unwrap();
    let file = home.path().join("agent.yaml");
    let settings = |path: &std::path::Path| format!("source: {{ manifests: {{ path: {} }} }}\n", path.display());
    fs::write(&file, settings(&old)).unwrap();
    let mut agent = Agent::start(home.path(), &["--config", file.to_str().unwrap()]);
    agent.wait_for("records complete");
    let ask = |agent: &Agent| answers(&agent.ask("web.prod.svc.cluster.local.", RecordType::A));
    assert_eq!(ask(&agent), ["5 A 10.96.0.7"]);

    fs::write(&file, "sauce: {}\n").unwrap();
    agent.signal("HUP");
    let line = agent.wait_for("sauce");
    assert!(line.contains("configuration refused") && line.contains("agent.yaml:1:1"), "{line}");
    assert_eq!(ask(&agent), ["5 A 10.96.0.7"]);

    fs::write(&file, settings(&new)).unwrap();
    agent.signal("HUP");
    agent.wait_for("read again");
    agent.wait_for_nth("records complete", 2);
    assert_eq!(ask(&agent), ["5 A 10.96.0.8"]);
    assert!(agent.terminate().success());
}

#[test]
fn every_reload_says_what_still_waits_for_a_start_and_a_view_keeps_its_own_forwarding() {
    let home = TempDir::new().unwrap();
    let (manifests, file) = (home.path().join("cluster.yaml"), home.path().join("agent.yaml"));
    fs::write(&manifests, CLUSTER).unwrap();
    let view = |host: &str, answer: &str| {
        format!("  - {{ listen: ['{host}:0'], forward: [{{ zone: ., answer: {answer} }}] }}\n")
    };
    let (first, second) = (view("127.0.0.2", "refused"), view("127.0.0.3", "nxdomain"));
    let settings = |ttl: u32, views: &str| {
        let source = format!("source: {{ manifests: {{ path: {} }} }}", manifests.display());
        format!("{source}\nttl: {ttl}s\nviews:\n{views}")
    };
    fs::write(&file, settings(5, &format!("{first}{second}"))).unwrap();
    let mut agent = Agent::start(home.path(), &["--config", file.to_str().unwrap()]);
    agent.wait_for("records complete");
    let line = agent.wait_for("answering");
    let code = |host: &str| {
        let (_, rest) = line.split_once(host).expect("the line names each address");
        let (port, _) = rest[1..].split_once([',', ' ']).expect("a list of addresses");
        let server = format!("{host}:{port}").parse().unwrap();
        ask(server, "www.example.com.", RecordType::A).metadata.response_code
    };
    let codes = || ["127.0.0.2", "127.0.0.3"].map(code);
    assert_eq!(codes(), [ResponseCode::Refused, ResponseCode::NXDomain]);

    fs::write(&file, settings(9, &second)).unwrap();
    for nth in 1..=2 {
        agent.signal("HUP");
        let line = agent.wait_for_nth("take effect with the next start", nth);
        assert!(line.contains("ttl") && line.contains("views"), "{line}");
        agent.wait_for_nth("read again", nth);
    }
    assert_eq!(codes(), [ResponseCode::Refused, ResponseCode::NXDomain]);
}

#[test]
fn the_tools_know_the_zone_of_a_store_whose_process_is_gone() {
    let home = TempDir::new().unwrap();
    let manifests = home.path().join("cluster.yaml");
    fs::write(&manifests, CLUSTER).unwrap();
    let arguments = ["--manifests", manifests.to_str().unwrap(), "--zone", "k8s.example"];
    let mut agent = Agent::start(home.path(), &arguments);
    agent.wait_for("records complete");
    assert!(agent.terminate().success());
    let store = home.path().join("store");
    let asked =
        |line: &[&str]| String::from_utf8(run(&[line, &["--store", store.to_str().unwrap()]].concat()).stdout).unwrap();
    let status = asked(&["status"]);
    assert!(status.contains(" of zone k8s.example\n"), "{status}");
    assert!(asked(&["dump", "-o", "hosts"]).contains("10.96.0.7\tweb.prod.svc.k8s.example"));
    assert!(asked(&["lookup", "web.prod"]).starts_with("web.prod.svc.k8s.example. 5 IN A 10.96.0.7\n"));

    fs::write(store.join("settings.yaml"), "zone: [").unwrap();
    let broken = run(&["status", "--store", store.to_str().unwrap()]);
    let told = String::from_utf8(broken.stderr).unwrap();
    assert!(told.contains("settings.yaml") && told.contains("the defaults"), "{told}");
    assert!(String::from_utf8(broken.stdout).unwrap().contains(" of zone cluster.local\n"));
}

#[test]
fn a_signal_at_any_moment_of_a_start_ends_it_in_order() {
    let home = TempDir::new().unwrap();
    let manifests = home.path().join("cluster.yaml");
    fs::write(&manifests, CLUSTER).unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (store, admin, manifests) = (at("store"), at("agent.sock"), at("cluster.yaml"));
    // It has records; then, with those on disk: it serves nothing yet; it answers from now on.
    let moments =
        [("records complete", "TERM"), ("store loaded", "TERM"), ("store loaded", "INT"), ("answering", "TERM")];
    for (moment, signal) in moments {
        let mut command = holdfast(&["agent", "--listen", "127.0.0.1:0", "--http", "none", "--metrics", "none"]);
        command.args(["--upstream", "127.0.0.1:9", "--store", &store, "--admin", &admin, "--manifests", &manifests]);
        let mut agent = Agent::spawn_until(&mut command, moment);
        agent.signal(signal);
        agent.wait_for("stopping");
        assert!(agent.ended().success(), "{moment} {signal}");
        assert!(!home.path().join("agent.sock").exists(), "{moment} {signal}");
    }
}

#[test]
fn sigterm_flushes_what_came_last() {
    let home = TempDir::new().unwrap();
    let manifests = home.path().join("cluster.yaml");
    fs::write(&manifests, CLUSTER).unwrap();
    let mut agent = Agent::start(home.path(), &["--manifests", manifests.to_str().unwrap()]);
    agent.wait_for("records complete");
    assert!(agent.terminate().success());
    let store = home.path().join("store");
    let dump = run(&["dump", "--store", store.to_str().unwrap(), "-o", "hosts"]);
    assert!(String::from_utf8_lossy(&dump.stdout).contains("10.96.0.7"), "{dump:?}");
    assert!(!home.path().join("agent.sock").exists());
}

#[test]
fn a_second_agent_on_the_same_store_is_refused_and_told_who_has_it() {
    let home = TempDir::new().unwrap();
    let manifests = home.path().join("cluster.yaml");
    fs::write(&manifests, CLUSTER).unwrap();
    let mut first = Agent::start(home.path(), &["--manifests", manifests.to_str().unwrap()]);
    first.wait_for("records complete");
    let store = home.path().join("store");
    let other = home.path().join("other.sock");
    let second = run(&[
        "agent",
        "--upstream",
        "127.0.0.1:9",
        "--listen",
        "127.0.0.1:0",
        "--http",
        "none",
        "--metrics",
        "none",
        "--manifests",
        manifests.to_str().unwrap(),
        "--store",
        store.to_str().unwrap(),
        "--admin",
        other.to_str().unwrap(),
    ]);
    assert_eq!(second.status.code(), Some(3));
    let error = String::from_utf8_lossy(&second.stderr);
    let line = error.lines().last().unwrap();
    assert!(line.contains("is in use by") && line.contains("--store"), "{error}");
    assert_eq!(answers(&first.ask("web.prod.svc.cluster.local.", RecordType::A)).len(), 1);
}

#[test]
fn a_service_manager_is_told_when_the_agent_is_ready_and_when_it_leaves() {
    let home = TempDir::new().unwrap();
    let (manifests, notify) = (home.path().join("cluster.yaml"), home.path().join("notify"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut state = [0; 32];
        let bytes = manager.recv(&mut state).unwrap();
        String::from_utf8(state[..bytes].to_vec()).unwrap()
    };
    fs::write(&manifests, CLUSTER).unwrap();
    let mut command = holdfast(&["agent", "--listen", "127.0.0.1:0", "--http", "none", "--metrics", "none"]);
    command.args(["--upstream", "127.0.0.1:9", "--store"]).arg(home.path().join("store"));
    command.arg("--admin").arg(home.path().join("agent.sock")).arg("--manifests").arg(&manifests);
    let mut agent = command.env("NOTIFY_SOCKET", &notify).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(heard(), "READY=1");
    let status = run(&["status", "--admin", home.path().join("agent.sock").to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&status.stdout).contains(", ready\n"), "{status:?}");
    let kill = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(heard(), "STOPPING=1");
    assert!(agent.wait().unwrap().success());
}
