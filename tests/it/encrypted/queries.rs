//! `holdfast certs --dns-name`, an agent with what it makes, and `holdfast simulate queries` over each transport.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use serde_json::Value;

use crate::support::{
    command::holdfast,
    process::{self, Agent},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/online-boutique.yaml");
const NAME: &str = "frontend.default.svc.cluster.local";

#[test]
fn an_agent_with_a_made_certificate_is_asked_over_each_transport() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let certs = path("certs");
    let made = holdfast(["certs", "--out", &certs, "--dns-name", "dns.example", "--dns-name", "127.0.0.1"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("for encrypted.certificate: dns.example, valid until "), "{}", made.out);
    let again = holdfast(["certs", "--out", &certs, "--dns-name", "dns.example"]);
    assert!(again.code == 2 && again.err.contains("--force"), "{}", again.err);
    let any = "[127.0.0.1:0]";
    let config = format!("encrypted: {{ tls: {any}, https: {any}, quic: {any}, certificate: {certs}/dns }}\n");
    fs::write(path("agent.yaml"), config).unwrap();
    let mut agent = Agent::start(home.path(), &["--config", &path("agent.yaml"), "--manifests", EXAMPLE]);
    agent.wait_for("records complete");

    let status = holdfast(["status", "--admin", &path("agent.sock"), "-o", "json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    let rows = status["process"]["listeners"].as_array().unwrap();
    let at = |proto: &str| {
        let row = rows
            .iter()
            .find(|row| row["name"] == format!("dns over {proto}"))
            .unwrap_or_else(|| panic!("{proto} in {rows:?}"));
        row["address"].as_str().unwrap().to_owned()
    };
    let (dns, ca) = (agent.dns.to_string(), format!("{certs}/ca/ca.crt"));
    let [tls, https, quic] = ["tls", "https", "quic"].map(at);
    let checked = ["--ca", &ca, "--server-name", "dns.example"];
    let cases: [(&str, &str, &[&str], bool); 9] = [
        ("udp", &dns, &[], true),
        ("tcp", &dns, &[], true),
        ("tls", &tls, &checked, true),
        ("tls", &tls, &["--ca", &ca, "--new-connections"], true),
        ("https", &https, &checked, true),
        ("https", &https, &["--insecure", "--new-connections"], true),
        ("quic", &quic, &checked, true),
        ("quic", &quic, &["--insecure", "--new-connections"], true),
        ("tls", &tls, &["--ca", &ca, "--server-name", "other.example"], false),
    ];
    let asking = cases.map(|(proto, server, more, good)| {
        let mut command = process::holdfast(&["simulate", "queries", "--name", NAME, "--seconds", "1", "--qps", "20"]);
        command.args(["--connections", "2", "-o", "json", "--proto", proto, "--server", server]).args(more);
        (proto, more, good, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    });
    for (proto, more, good, asking) in asking {
        let done = asking.wait_with_output().unwrap();
        let told: Value = serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&done.stderr)));
        let count = |key: &str| told[proto][key].as_u64().unwrap();
        assert_eq!(done.status.code(), Some(i32::from(!good)), "{proto} {more:?}: {told}");
        assert!(count("asked") > 0, "{told}");
        if good {
            assert_eq!(count("good"), count("asked"), "{told}");
        } else {
            assert!(
                count("lost") == count("asked") && told[proto]["errors"].to_string().contains("certificate"),
                "{told}"
            );
        }
        match (proto, more.contains(&"--new-connections")) {
            ("udp", _) => assert_eq!(count("connections"), 0, "{told}"),
            (_, true) => assert!(count("connections") >= count("good"), "{told}"),
            (_, false) if good => assert!(count("connections") < count("good"), "{told}"),
            _ => {}
        }
    }
    // Clients that know the plain address alone find them (RFC 9462).
    let found = agent.ask("_dns.resolver.arpa.", RecordType::SVCB);
    let told: Vec<String> = found.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (record, address) in told.iter().zip([&tls, &https, &quic]) {
        let (ip, port) = address.rsplit_once(':').unwrap();
        assert!(record.contains("dns.example.") && record.contains(ip) && record.contains(port), "{record}: {address}");
    }
    // Each transport is counted by its name.
    let mut stream = UnixStream::connect(home.path().join("agent.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    for proto in ["udp", "tcp", "tls", "https", "quic"] {
        let series = format!("holdfast_dns_requests_total{{proto=\"{proto}\",type=\"A\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_else(|| panic!("{series}"));
        assert!(line.trim() != "0", "{series}{line}");
    }
    agent.kill();
}

#[test]
fn without_listeners_nothing_is_found_and_no_upstream_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let agent = Agent::start(home.path(), &["--manifests", EXAMPLE]);
    for name in ["_dns.resolver.arpa.", "resolver.arpa."] {
        let answer = agent.ask(name, RecordType::SVCB);
        assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NoError, 0), "{name}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA, "{name}");
    }
}

#[test]
fn a_certificate_is_checked_or_not_by_decision() {
    let asked = holdfast(["simulate", "queries", "--server", "127.0.0.1:853", "--proto", "tls", "--seconds", "0"]);
    assert!(asked.code == 2 && asked.err.contains("--insecure"), "{} {}", asked.code, asked.err);
    let asked = holdfast(["simulate", "queries", "--server", "127.0.0.1:853", "--proto", "quic", "--ca", "/none"]);
    assert!(asked.code == 2 && asked.err.contains("--ca /none"), "{} {}", asked.code, asked.err);
}
