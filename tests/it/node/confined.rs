//! What a process that has given up its rights still does: everything a reload may ask for.

use std::{fs, os::unix::fs::symlink, path::Path};

use hickory_proto::rr::RecordType;

use super::rig::capabilities;
use crate::{
    forward::tls,
    support::{
        process::{Agent, answers},
        upstream::Upstream,
    },
};

/// Puts a file where an agent reads it, as the kubelet does with a `ConfigMap`: the whole directory at once.
fn put(directory: &Path, version: u32, text: &str) {
    let made = directory.join(format!("..{version}"));
    fs::create_dir(&made).unwrap();
    fs::write(made.join("agent.yaml"), text).unwrap();
    symlink(&made, directory.join("..new")).unwrap();
    fs::rename(directory.join("..new"), directory.join("..data")).unwrap();
    if version == 1 {
        symlink("..data/agent.yaml", directory.join("agent.yaml")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_and_upstreams_over_tcp_and_tls_are_taken_up_at_a_reload() {
    let home = tempfile::tempdir().unwrap();
    let (config, ca) = (home.path().join("config"), home.path().join("ca.pem"));
    fs::create_dir(&config).unwrap();
    let (udp, tcp) = (Upstream::with_a(60, [192, 0, 2, 1]).await, Upstream::with_a(60, [192, 0, 2, 2]).await);
    let behind = Upstream::with_a(60, [192, 0, 2, 3]).await;
    let (port, _) = tls::serve(behind, &ca).await;
    let zone = |more: String| format!("source: {{ none: true }}\nforward:\n  - {{ zone: example, {more} }}\n");
    put(&config, 1, &zone(format!("upstreams: ['{}']", udp.address)));
    let file = config.join("agent.yaml");
    let mut agent = Agent::start(home.path(), &["--config", file.to_str().unwrap(), "--sandbox", "true"]);
    let asked = |agent: &Agent, name: &str| answers(&agent.ask(name, RecordType::A));
    assert_eq!(asked(&agent, "one.example."), ["60 A 192.0.2.1"]);
    assert!(capabilities(agent.pid()).ends_with("NoNewPrivs:\t1 Seccomp:\t2"));

    put(&config, 2, &zone(format!("upstreams: ['{}'], force_tcp: true", tcp.address)));
    agent.signal("HUP");
    agent.wait_for_nth("configuration and credentials read again", 1);
    assert_eq!(asked(&agent, "two.example."), ["60 A 192.0.2.2"]);
    assert!(tcp.seen().iter().all(|asked| asked.tcp));

    let tls = format!("upstreams: ['tls://127.0.0.1:{port}#dns.corp.example'], tls_ca: {}", ca.display());
    put(&config, 3, &zone(tls));
    agent.signal("HUP");
    agent.wait_for_nth("configuration and credentials read again", 2);
    assert_eq!(asked(&agent, "three.example."), ["60 A 192.0.2.3"]);
    assert!(agent.terminate().success());
    assert!(home.path().join("store").read_dir().unwrap().count() > 0, "what it kept is written");
}
