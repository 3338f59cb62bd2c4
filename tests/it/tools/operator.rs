//! What an operator does by hand, and what the log and the files say of it afterwards.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::EXAMPLE;
use crate::support::{command::holdfast, process};

#[test]
fn a_pin_is_in_the_log_with_its_user_once_it_is_in_effect() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = process::Agent::start(home.path(), &["--manifests", EXAMPLE]);
    let start = agent.wait_for("holdfast starts");
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let source = format!("source=manifests {EXAMPLE}");
    assert!([&version, "role=\"agent\"", &source].iter().all(|field| start.contains(*field)), "{start}");
    agent.wait_for("records complete");
    let socket = home.path().join("agent.sock");
    let pin = |words: &[&str]| holdfast(["pin"].iter().chain(words).chain(&["--admin", socket.to_str().unwrap()]));
    assert_eq!(pin(&["frontend.default", "10.9.9.9", "--ttl", "9999"]).code, 2, "refused");
    assert_eq!(pin(&["frontend.default", "10.9.9.9", "--ttl", "7", "--reason", "a test"]).code, 0);
    // The first line about a pin: nothing was logged of the refused one.
    let line = agent.wait_for("pinned");
    let user = format!("peer=uid {}", fs::metadata("/proc/self").unwrap().uid());
    for field in ["name pinned", "frontend.default.svc.cluster.local.", "ttl=7", "until=\"no end\"", "a test", &user] {
        assert!(line.contains(field), "{field}: {line}");
    }
    // So has a release, at the process where it took effect.
    assert_eq!(holdfast(["guard", "release", "--admin", socket.to_str().unwrap()]).code, 0);
    let line = agent.wait_for("guard released");
    assert!(line.contains("which=\"all\" changes=0") && line.contains(&user), "{line}");
}

#[test]
fn errors_are_logged_whatever_the_filter_says() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("agent.yaml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("log: {{filter: holdfast::wire=info}}\nmetrics: {}\n", taken.local_addr().unwrap());
    fs::write(&config, text).unwrap();
    let (store, socket) = (home.path().join("store"), home.path().join("agent.sock"));
    let mut command =
        process::holdfast(&["agent", "--manifests", EXAMPLE, "--listen", "127.0.0.1:0", "--http", "none"]);
    command.arg("--config").arg(&config).arg("--store").arg(&store).arg("--admin").arg(&socket);
    let agent = process::Agent::spawn_until(&mut command, "ERROR");
    agent.kill();
}

#[test]
fn certificates_that_are_there_are_not_replaced_without_force() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("certs");
    let make = |more: &[&str]| holdfast(["certs", "--out", out.to_str().unwrap()].iter().chain(more));
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    let first = make(&["--trust-domain", "corp.example"]);
    assert!(
        first.code == 0 && first.out.contains("spiffe://corp.example/holdfast/hub, valid until "),
        "{}{}",
        first.out,
        first.err
    );
    let (ca, hub) = (read("ca/ca.crt"), read("hub/tls.crt"));
    let again = make(&[]);
    assert_eq!((again.code, again.out.as_str()), (2, ""));
    let told = "has certificates already (spiffe://corp.example/holdfast/hub, valid until ";
    assert!(again.err.contains(told) && again.err.contains("trust domain cluster.local"), "{}", again.err);
    assert_eq!((read("ca/ca.crt"), read("hub/tls.crt")), (ca.clone(), hub.clone()), "nothing was written");
    let forced = make(&["--force"]);
    assert!(forced.code == 0 && forced.out.contains("spiffe://cluster.local/holdfast/hub"), "{}", forced.err);
    assert!(read("ca/ca.crt") == ca && read("hub/tls.crt") != hub, "the CA stays");
}
