//! Bad input: one line that names the thing and the remedy, and the exit code scripts rely on.

use crate::support::command::holdfast;

#[test]
fn bad_input_is_named_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let config = |name: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        path(name)
    };
    let unknown = config("unknown.yaml", "manifest: x\nsource: {manifests: {path: x}}\n");
    let misplaced = config("misplaced.yaml", "addresses: [x]\nsource: {manifests: {path: x}}\n");
    let broken = config("broken.yaml", "zone: [\n");
    let address = config("address.yaml", "listen: [10.0.0.1.5]\nsource: {manifests: {path: x}}\n");
    let file = config("file", "no socket");
    let (missing, empty) = (path("missing.yaml"), path("empty"));
    std::fs::create_dir(&empty).unwrap();
    let cases: &[(&[&str], i32, String)] = &[
        (&["check-config", "--config", &unknown], 2, format!("{unknown}:1:1: manifest: unknown key, known here are ")),
        (
            &["check-config", "--config", &misplaced],
            2,
            format!("{misplaced}:1:1: addresses: unknown key here, did you mean source.hub.addresses?\n"),
        ),
        (&["check-config", "--config", &broken], 2, format!("{broken}:1:7: not YAML: ")),
        (
            &["check-config", "--config", &address],
            2,
            format!(
                "{address}:1:10: listen: \"10.0.0.1.5\" is not an address such as 127.0.0.1:53 or [::1]:53; names are not looked up here\n"
            ),
        ),
        (
            &["check-config", "--config", &missing],
            2,
            format!("{missing}: cannot be read: No such file or directory (os error 2)\n"),
        ),
        (
            &["check-config", "--manifests", "x", "--pods", "verified"],
            2,
            "--pods: \"verified\" is not one of insecure, disabled\n".into(),
        ),
        (
            &["check-config", "--manifests", "x", "--kubeconfig", "y"],
            2,
            "--manifests: --kubeconfig is given too: records come from one source\n".into(),
        ),
        (
            &["check-config"],
            2,
            "no source: give --manifests PATH, --kubeconfig FILE or --hub HOST:PORT, or `source` in the file (a pod "
                .into(),
        ),
        (&["status", "--store", &empty], 3, format!("holdfast: no store in {empty}\n")),
        (
            &["status", "--admin", &missing],
            3,
            format!(
                "holdfast: no process is running at {missing}: No such file or directory (os error 2). To read its disk: --store DIR\n"
            ),
        ),
        (
            &["dump", "--admin", &file],
            3,
            format!(
                "holdfast: no process is running at {file}: Connection refused (os error 111). To read its disk: --store DIR\n"
            ),
        ),
        (&["diff", &missing, &missing], 3, format!("holdfast: {missing}: No such file or directory (os error 2)\n")),
    ];
    for (args, code, expect) in cases {
        let ran = holdfast(*args);
        assert_eq!((ran.code, ran.out.as_str()), (*code, ""), "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with(expect.as_str()) && ran.err.lines().count() == 1, "{args:?}: {}", ran.err);
    }
}

#[test]
fn an_agent_that_cannot_start_says_why_in_its_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/online-boutique.yaml");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _answers = std::os::unix::net::UnixListener::bind(path("taken.sock")).unwrap();
    let start = |source: [&str; 2], listen: &str, admin: &str| {
        let (store, admin) = (path("store"), path(admin));
        let fixed = ["--http", "none", "--metrics", "none", "--upstream", "127.0.0.1:1", "--store", &store];
        let given = [source[0], source[1], "--listen", listen, "--admin", &admin];
        holdfast(["agent"].iter().chain(&fixed).chain(&given))
    };
    let free = "127.0.0.1:0";
    let cases = [
        (start(["--manifests", manifests], &taken, "a.sock"), taken.clone()),
        (
            start(["--manifests", manifests], free, "taken.sock"),
            format!("admin socket {}: another process answers", path("taken.sock")),
        ),
    ];
    for (ran, expect) in cases {
        let last = ran.err.lines().last().unwrap_or_default();
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", ran.err);
        assert!(last.starts_with("holdfast: ") && last.contains(&expect), "{expect}: {}", ran.err);
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    for args in
        [&["nonsense"][..], &[], &["lookup"], &["lookup", "x", "NOTYPE"], &["status", "--admin", "a", "--store", "b"]]
    {
        assert_eq!(holdfast(args).code, 2, "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["version"], &["lookup", "--help"], &["completions", "bash"]] {
        let ran = holdfast(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        assert!(!ran.out.is_empty(), "{args:?}");
    }
}

#[test]
fn every_error_has_one_form_for_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let config = path("config.yaml");
    std::fs::write(&config, "zone: 5s.\nlisten: [x]\nsource: {manifests: {path: x}}\n").unwrap();
    for (line, code, error) in [
        ("status --admn x -o json", 2, "unexpected argument '--admn' found; tip: "),
        ("nonsense -ojson", 2, "unrecognized subcommand 'nonsense'"),
        ("lookup a NOTYPE --output json", 2, "invalid value 'NOTYPE' for '[TYPE]'"),
        ("dump -o json --store /nowhere", 3, "no store in /nowhere"),
        (
            &format!("check-config -o json --config {config}"),
            2,
            &format!("{config}:2:10: listen: \"x\" is not an address"),
        ),
        ("pin db 1.2.3.4 -o json --admin /nowhere", 3, "no process is running at /nowhere: "),
        ("simulate queries --server 127.0.0.1:1 --qps 0 -o json", 2, "invalid value '0' for '--qps"),
    ] {
        let ran = holdfast(line.split(' '));
        assert_eq!(ran.code, code, "{line}: {}", ran.err);
        let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let told = document["error"].as_str().unwrap();
        assert!(told.starts_with(error) && document["exit_code"] == code, "{line}: {document}");
        assert_eq!(document.as_object().unwrap().len(), 2, "{document}");
        assert!(!ran.err.is_empty(), "{line}: people have it on standard error");
    }
    let fine = holdfast(["check-config", "-o", "json", "--manifests", "/nowhere", "--listen", "127.0.0.1:53"]);
    let document: serde_json::Value = serde_json::from_str(&fine.out).unwrap();
    assert_eq!((fine.code, &document["configuration"]["listen"][0]), (0, &"127.0.0.1:53".into()));
    assert!(document["warnings"][0].as_str().unwrap().starts_with("source.manifests.path: /nowhere: "), "{document}");
}

#[test]
fn the_effective_configuration_is_printed_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = holdfast(["check-config", "--manifests", "cluster.yaml", "--listen", "::1", "--http", "none"]);
    assert_eq!(first.code, 0, "{}", first.err);
    let file = dir.path().join("effective.yaml");
    std::fs::write(&file, &first.out).unwrap();
    let second = holdfast(["check-config", "--config", file.to_str().unwrap()]);
    assert_eq!((second.code, second.out), (0, first.out), "{}", second.err);
}

#[test]
fn the_shipped_configuration_is_checked_on_any_machine() {
    let dir = tempfile::tempdir().unwrap();
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config_map = std::fs::read_to_string(repository.join("deploy/kustomize/base/agent.yaml")).unwrap();
    let (_, text) = config_map.split_once("agent.yaml: |\n").unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n"));
    let file = dir.path().join("agent.yaml");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let file = file.to_str().unwrap();
    let here = holdfast(["check-config", "--config", file]);
    assert!(here.code == 2 && here.err.contains("check-config --offline"), "{}", here.err);
    let offline = holdfast(["check-config", "--offline", "--config", file]);
    assert_eq!(offline.code, 0, "{}", offline.err);
    let note = "note: no source is given; a pod finds its hub in HOLDFAST_HUB_SERVICE_HOST, for which holdfast-hub.invalid stands here\n";
    assert_eq!(offline.err, note);
    assert!(offline.out.contains("tool_path: /var/lib/holdfast-tools/holdfast"), "{}", offline.out);
    let hub = holdfast(["check-config", "--offline", "--role", "hub", "--tls", "/nowhere"]);
    assert!(
        hub.code == 0 && hub.err.starts_with("note: the apiserver is that of the pod's environment"),
        "{}",
        hub.err
    );
}

#[test]
fn files_that_are_missing_are_told_with_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.yaml");
    let text = "listen: [127.0.0.1:5353]\nsource: {manifests: {path: /nowhere/cluster.yaml}}\ntls: /nowhere/tls\n\
                forward: [{zone: corp.example, upstreams: [127.0.0.1], hosts_file: /nowhere/hosts}]\nupstream: [127.0.0.1]\n";
    std::fs::write(&config, text).unwrap();
    let ran = holdfast(["check-config", "--config", config.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for named in [
        "tls: /nowhere/tls/ca.crt",
        "tls: /nowhere/tls/tls.key",
        "source.manifests.path: /nowhere/cluster.yaml",
        "forward zone corp.example: hosts_file: /nowhere/hosts",
    ] {
        let line = format!("warning: {named}: No such file or directory (os error 2): missing on this machine");
        assert!(ran.err.contains(&line), "{line}: {}", ran.err);
    }
    let offline = holdfast(["check-config", "--offline", "--config", config.to_str().unwrap()]);
    assert_eq!((offline.code, offline.err.as_str()), (0, ""));
}

#[test]
fn an_agent_puts_its_tools_on_the_node() {
    let home = tempfile::tempdir().unwrap();
    let tool = home.path().join("tools/holdfast");
    let config = home.path().join("agent.yaml");
    std::fs::write(&config, format!("node: {{tool_path: {}}}\n", tool.display())).unwrap();
    let arguments = ["--config", config.to_str().unwrap(), "--manifests", super::EXAMPLE];
    let mut agent = crate::support::process::Agent::start(home.path(), &arguments);
    agent.wait_for("records complete");
    let socket = home.path().join("agent.sock");
    let asked = std::process::Command::new(&tool).arg("status").env("HOLDFAST_ADMIN", &socket).output().unwrap();
    let out = String::from_utf8(asked.stdout).unwrap();
    assert!(asked.status.success() && out.starts_with("state       ok: answering"), "{out}");
}
