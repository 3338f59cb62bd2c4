//! What a running agent answers, asked by the tools: over DNS, and from a dump in place of its source.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{EXAMPLE, ok, stored, text};
use crate::support::{
    command::holdfast,
    process::{Agent, answers, extended_errors},
};

#[test]
fn a_lookup_asks_the_running_agent_as_a_pod_does() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(home.path(), &["--manifests", EXAMPLE]);
    agent.wait_for("records complete");
    let socket = home.path().join("agent.sock");
    let lookup = |name: &str| holdfast(["lookup", name, "A", "--ask", "--admin", text(&socket)]);
    let found = lookup("frontend.default");
    assert_eq!((found.code, found.err.as_str()), (0, ""), "{}", found.out);
    let records = "frontend.default.svc.cluster.local. 5 IN A 10.96.130.4\n\n";
    assert!(found.out.starts_with(records), "{}", found.out);
    assert!(found.out.contains(&format!("by {} over DNS\n", agent.dns)), "{}", found.out);
    let told = "frontend.default.svc.cluster.local. A: NOERROR, 1 record, ";
    assert!(found.out.contains(told), "{}", found.out);
    // Names are asked in the order of the search list, and the last one goes to an upstream that is not there.
    let json = holdfast(["lookup", "frontend.nowhere", "A", "--ask", "-o", "json", "--admin", text(&socket)]);
    assert_eq!(json.code, 1, "{}", json.out);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let asked: Vec<String> = json["live"]["answers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| format!("{} {}", answer["name"].as_str().unwrap(), answer["rcode"].as_str().unwrap()))
        .collect();
    assert_eq!(
        asked,
        [
            "frontend.nowhere.default.svc.cluster.local. NXDOMAIN",
            "frontend.nowhere.svc.cluster.local. NXDOMAIN",
            "frontend.nowhere.cluster.local. NXDOMAIN",
            "frontend.nowhere. SERVFAIL"
        ]
    );
    let refused = holdfast(["lookup", "frontend.default", "--ask", "--store", text(&home.path().join("store"))]);
    assert_eq!(refused.code, 2, "{}", refused.err);
}

#[test]
fn an_agent_on_the_dump_of_a_namespace_knows_its_age_and_denies_no_name_of_others() {
    let home = tempfile::tempdir().unwrap();
    let old = home.path().join("old");
    stored(&old, Duration::from_secs(41 * 3600));
    let dump = ok(holdfast(["dump", "--store", text(&old), "-n", "data", "-o", "yaml"]));
    let file = home.path().join("data.yaml");
    std::fs::write(&file, dump).unwrap();
    let mut agent = Agent::start(home.path(), &["--manifests", text(&file)]);
    agent.wait_for("records complete");

    let known = agent.ask("postgres.data.svc.cluster.local.", RecordType::A);
    assert_eq!(answers(&known), ["5 A 10.244.1.40", "5 A 10.244.2.41"]);
    assert!(extended_errors(&known).contains(&3), "{known}");
    let denied = agent.ask("nope.data.svc.cluster.local.", RecordType::A);
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    let unknown = agent.ask("frontend.default.svc.cluster.local.", RecordType::A);
    assert_eq!(unknown.metadata.response_code, ResponseCode::ServFail);

    let socket = home.path().join("agent.sock");
    let status = holdfast(["status", "--admin", text(&socket)]);
    assert_eq!(status.code, 4, "{}", status.out);
    assert!(status.out.contains("records     STALE: last confirmed 1d17h ago ("), "{}", status.out);
    assert!(status.out.contains("known       ONLY data: "), "{}", status.out);
    let lookup = holdfast(["lookup", "frontend.default", "--admin", text(&socket)]);
    assert_eq!(lookup.code, 1, "{}", lookup.out);
    let told = "frontend.default.svc.cluster.local. cannot be answered: it is not known whether it exists (SERVFAIL)\n";
    assert!(lookup.out.starts_with(told), "{}", lookup.out);
    // Compared are the namespaces that both sides know.
    let equal = holdfast(["diff", text(&socket), text(&file)]);
    assert_eq!((equal.code, equal.out.lines().last()), (0, Some("equal: 2 services")), "{}", equal.out);
    assert!(equal.out.contains("; knows only data: other namespaces are not compared\n"), "{}", equal.out);
    let equal = holdfast(["diff", EXAMPLE, text(&file)]);
    assert_eq!(equal.code, 0, "{}", equal.out);
}
