//! `holdfast pin` and `unpin`.

use std::{process::Command, time::Duration};

use super::{Live, ok, records, stored, text};
use crate::support::command::holdfast;

#[test]
fn a_name_is_pinned_by_hand_listed_explained_and_let_go() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path(), Duration::ZERO);
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    let socket = text(&live.socket);
    assert_eq!(ok(holdfast(["pin", "--admin", socket])), "nothing is pinned\n");

    let name = "frontend.default.svc.cluster.local";
    let pin = ["pin", name, "10.9.9.9", "--for", "2h", "--reason", "the slice is wrong", "--admin", socket];
    let shown = ok(holdfast(pin));
    let row = "\nfrontend.default.svc.cluster.local.   10.9.9.9    5s    ";
    assert!(shown.contains(row) && shown.ends_with("   the slice is wrong\n1 name\n"), "{shown}");
    let status = ok(holdfast(["status", "--admin", socket]));
    assert!(status.contains(&format!("pinned      1 name PINNED by hand: {name}.\n")), "{status}");
    let lookup = ok(holdfast(["lookup", "frontend.default", "--admin", socket]));
    assert!(lookup.starts_with(&format!("{name}. 5 IN A 10.9.9.9\n\n")), "{lookup}");
    assert!(
        lookup.contains(": the slice is wrong\n") && lookup.contains("PINNED        by an operator for "),
        "{lookup}"
    );
    let offline = ok(holdfast(["lookup", "frontend.default", "--store", text(dir.path())]));
    assert!(offline.starts_with(&format!("{name}. 5 IN A 10.9.9.9\n")), "with nothing running too: {offline}");

    assert_eq!(ok(holdfast(["unpin", name, "--admin", socket])), "nothing is pinned\n");
    assert_eq!(holdfast(["unpin", name, "--admin", socket]).code, 1, "it was not pinned");
    // What `lookup` completes, `pin` and `unpin` do; a service that is gone is known by its namespace.
    for (given, pinned) in [
        ("frontend.default", name),
        ("gone.default", "gone.default.svc.cluster.local"),
        ("frontend.default.", "frontend.default"),
        ("www.example.com", "www.example.com"),
        ("frontend", name),
        ("default/frontend", name),
    ] {
        let shown = ok(holdfast(["pin", given, "10.9.9.9", "--admin", socket]));
        assert!(shown.contains(&format!("\n{pinned}.   10.9.9.9 ")), "{given}: {shown}");
        assert_eq!(ok(holdfast(["unpin", given, "--admin", socket])), "nothing is pinned\n", "{given}");
    }
    let lookup = ok(holdfast(["lookup", "frontend.default", "--admin", socket]));
    assert!(lookup.starts_with(&format!("{name}. 5 IN A 10.96.130.4\n")), "{lookup}");
    // The namespace is kubectl's, and one that is given goes before it.
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "{current-context: a, contexts: [{name: a, context: {cluster: c, namespace: kube-system}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    let pin = |words: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["pin", words[0], "10.9.9.9", "--admin", socket])
            .args(&words[1..])
            .env("KUBECONFIG", &kubeconfig)
            .output();
        let ran = ran.unwrap();
        String::from_utf8(ran.stdout).unwrap() + &String::from_utf8(ran.stderr).unwrap()
    };
    let missing = pin(&["frontend"]);
    assert!(missing.contains("no service is called \"frontend\" in namespace kube-system"), "{missing}");
    assert!(pin(&["frontend", "-n", "default"]).contains(&format!("\n{name}.   10.9.9.9 ")));
    let forced = pin(&["soon", "--force"]);
    assert!(forced.contains("\nsoon.kube-system.svc.cluster.local. ") && forced.contains("2 names"), "{forced}");
    assert_eq!(ok(holdfast(["unpin", "frontend", "--admin", socket])).lines().count(), 3, "one is left");
}

#[test]
fn a_pin_that_cannot_be_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = records(Duration::ZERO);
    let live = Live::start(dir.path(), reader);
    let socket = text(&live.socket);
    let long = "a".repeat(64);
    for (args, code, text) in [
        (vec!["pin", "db.prod", "--admin", socket], 2, "required"),
        (vec!["pin", "db.prod", "10.0.0", "--admin", socket], 2, "invalid IP address syntax"),
        (vec!["pin", "db.prod", "::1", "--for", "soon", "--admin", socket], 2, "is not a duration"),
        (vec!["pin", "db.prod", "::1", "--for", "0s", "--admin", socket], 2, "a pin lasts a second at least"),
        (vec!["pin", &long, "::1", "--admin", socket], 2, "is no name"),
        (
            vec!["pin", "foo", "::1", "--admin", socket],
            2,
            "no service is called \"foo\" in namespace default: give its namespace (-n), or the whole name with a final dot",
        ),
        (
            vec!["pin", "db.prod", "::1", "--ttl", "3600", "--admin", socket],
            2,
            "TTL 3600 s: the TTL of a pin is 0 to 300 s",
        ),
        (vec!["unpin", "--admin", socket], 2, "required"),
        (
            vec!["pin", "--admin", "/nowhere/agent.sock"],
            3,
            "Only a running process can do that: give its --admin SOCKET",
        ),
        (
            vec!["guard", "--admin", "/nowhere/agent.sock"],
            3,
            "no process is running at /nowhere/agent.sock: No such file",
        ),
        (vec!["lookup", "a..b", "--admin", socket], 2, "is no name"),
        (vec!["lookup", "", "--admin", socket], 2, "is no name"),
    ] {
        let ran = holdfast(&args);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}");
        assert!(ran.err.contains(text), "{args:?}: {}", ran.err);
    }
}
