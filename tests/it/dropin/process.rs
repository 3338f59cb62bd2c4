//! The real binary, started as the `DaemonSet` of nodelocaldns starts node-cache, on loopback and with other ports.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::support::{
    http::get,
    process::{Agent, answers, ask, holdfast, run},
    upstream::Upstream,
};

/// What every run of these tests is told: no interface, no rules, a home of its own.
pub fn node_cache(home: &Path, more: &[&str]) -> Command {
    let mut command = holdfast(&[]);
    flags(&mut command, home, more);
    command
}

fn flags(command: &mut Command, home: &Path, more: &[&str]) {
    let at = |name: &str| home.join(name).to_str().unwrap().to_owned();
    command
        // As the DaemonSet writes it: the image's entrypoint and flags, no subcommand.
        .args(["-localip", "127.0.0.1", "-conf", &at("Corefile"), "-upstreamsvc", "kube-dns-upstream"])
        .args([
            "-setupinterface=false",
            "-setupiptables=false",
            "-dns.port",
            "0",
            "-metrics-listen-address",
            "127.0.0.1:0",
        ])
        .args(["-pidfile", &at("pid"), "-basecorefile", &at("Corefile.base"), "-kubednscm", &at("kube-dns")])
        .args(["--store", &at("store"), "--admin", &at("agent.sock")])
        .args(more)
        .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.9");
}

fn configmap(home: &Path, key: &str, value: &str) {
    fs::create_dir_all(home.join("kube-dns")).unwrap();
    fs::write(home.join("kube-dns").join(key), value).unwrap();
}

/// The addresses of the listeners with this name, as `holdfast status` tells them.
pub fn listeners(home: &Path, name: &str) -> Vec<String> {
    let output = run(&["status", "--admin", home.join("agent.sock").to_str().unwrap(), "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = status["process"]["listeners"].as_array().unwrap();
    let named = rows.iter().filter(|row| row["name"] == name);
    named.map(|row| row["address"].as_str().unwrap().to_owned()).collect()
}

fn a(agent: &Agent, name: &str) -> Vec<String> {
    answers(&agent.ask(name, RecordType::A)).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flags_of_the_daemonset_run_its_corefile_and_follow_its_configmaps() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let cluster = Upstream::with_a(60, [10, 0, 0, 1]).await;
    let (outside, other) = (Upstream::with_a(1, [10, 0, 0, 2]).await, Upstream::with_a(1, [10, 0, 0, 4]).await);
    let stub = Upstream::with_a(60, [10, 0, 0, 3]).await;
    let base = format!(
        "cluster.local {{\n errors\n cache {{\n  success 9984 30\n  denial 9984 5\n }}\n reload 2s\n loop\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n forward . {} {{\n  force_tcp\n }}\n prometheus 127.0.0.1:0\n health __PILLAR__LOCAL__DNS__:0\n}}\n. {{\n errors\n bind __PILLAR__LOCAL__DNS__\n forward . __PILLAR__UPSTREAM__SERVERS__\n}}\nimport custom/*.server\n",
        cluster.address
    );
    fs::write(home.join("Corefile.base"), base).unwrap();
    configmap(home, "upstreamNameservers", &format!("[\"{}\"]", outside.address));
    configmap(home, "stubDomains", &format!("{{\"corp.example\": [\"{}\"]}}", stub.address));
    let mut agent = Agent::spawn(&mut node_cache(home, &[]));

    assert_eq!(a(&agent, "db.prod.svc.cluster.local."), ["10.0.0.1"]);
    assert!(cluster.seen().iter().all(|asked| asked.tcp), "the cluster's DNS is asked over TCP");
    let ttl = answers(&agent.ask("db.prod.svc.cluster.local.", RecordType::A)).remove(0);
    assert!(["30 ", "29 ", "28 "].iter().any(|start| ttl.starts_with(start)), "{ttl}");
    assert_eq!(a(&agent, "www.example."), ["10.0.0.2"]);
    assert_eq!(a(&agent, "www.corp.example."), ["10.0.0.3"]);
    let pid = fs::read_to_string(home.join("pid")).unwrap();
    assert!(Path::new("/proc").join(pid.trim()).exists());
    let written = fs::read_to_string(home.join("Corefile")).unwrap();
    assert!(written.contains("bind 127.0.0.1 \n") && written.contains("corp.example:0 {"), "{written}");
    assert!(get(&listeners(home, "http")[0], "/health").starts_with("HTTP/1.1 200 "));
    assert!(
        get(&listeners(home, "http")[0], "/ready").starts_with("HTTP/1.1 200 "),
        "there are no records to wait for"
    );

    // Files are looked at every 2 s, as the Corefile says.
    configmap(home, "upstreamNameservers", &format!("[\"{}\"]", other.address));
    agent.wait_for("configuration and credentials read again");
    assert_eq!(a(&agent, "www2.example."), ["10.0.0.4"]);

    configmap(home, "stubDomains", "{\"corp.example\": [");
    let line = agent.wait_for("its old values stay");
    assert!(line.contains("ConfigMap kube-dns: stubDomains: "), "{line}");
    assert_eq!(a(&agent, "www2.corp.example."), ["10.0.0.3"]);
    // The look that found it has to end before the next change, which it would take up as well.
    agent.wait_for_nth("configuration and credentials read again", 2);

    fs::create_dir(home.join("custom")).unwrap();
    let block = format!("imported.example {{\n bind 127.0.0.1\n forward . {}\n}}\n", stub.address);
    fs::write(home.join("custom/imported.server"), block).unwrap();
    agent.wait_for_nth("configuration and credentials read again", 3);
    assert_eq!(a(&agent, "www.imported.example."), ["10.0.0.3"], "an imported file is taken up when it appears");

    fs::write(home.join("Corefile.base"), "cluster.local {\n forwrad . 127.0.0.1:9\n}\n").unwrap();
    let line = agent.wait_for("Corefile refused");
    assert!(line.contains("Corefile:2:2: unknown directive"), "{line}");
    assert_eq!(a(&agent, "other.prod.svc.cluster.local."), ["10.0.0.1"]);

    let metrics = get(&listeners(home, "metrics")[0], "/metrics");
    for line in [
        "holdfast_corefile_errors_total{what=\"configmap\"} ",
        "holdfast_corefile_errors_total{what=\"corefile\"} ",
        "holdfast_corefile_unhonoured 0",
        // What dashboards and alerts of node-cache read.
        "coredns_dns_requests_total{family=\"1\",proto=\"udp\",server=\"dns://127.0.0.1:0\",type=\"A\",view=\"\",zone=\".\"} 8",
        "coredns_nodecache_setup_errors_total{errortype=\"configmap\"} ",
        "coredns_health_request_duration_seconds_count ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let asked = format!("coredns_forward_requests_total{{to=\"{}\"}} 3", stub.address);
    assert!(metrics.contains(&asked), "{asked} in {metrics}");
    assert!(!metrics.contains("holdfast_source_up"), "there is no source that could be lost");
    assert!(agent.terminate().success());
    assert!(!home.join("pid").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_of_one_zone_on_two_addresses_forward_each_in_its_own_way() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (node, pods) = (Upstream::with_a(60, [10, 0, 0, 1]).await, Upstream::with_a(60, [10, 0, 0, 2]).await);
    let corefile = format!(
        "health-check.localdns.local {{\n bind 127.0.0.1 127.0.0.2\n whoami\n}}\n. {{\n bind 127.0.0.1\n forward . {}\n cache 30\n template ANY ANY reddog.example {{\n  rcode NXDOMAIN\n }}\n}}\n. {{\n bind 127.0.0.2\n forward . {}\n cache 30\n}}\n",
        node.address, pods.address
    );
    fs::write(home.join("Corefile"), corefile).unwrap();
    let agent = Agent::spawn(&mut node_cache(home, &[]));
    let addresses: Vec<std::net::SocketAddr> =
        listeners(home, "dns").iter().map(|address| address.parse().unwrap()).collect();
    let [node_side, pod_side] = addresses[..] else { panic!("{addresses:?}") };
    let short = |server, name: &str| {
        let reply = ask(server, name, RecordType::A);
        (reply.response_code, answers(&reply).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect())
    };
    let found = |ip: &str| (ResponseCode::NoError, vec![ip.to_owned()]);
    for _ in 0..2 {
        assert_eq!(short(node_side, "www.example."), found("10.0.0.1"));
        assert_eq!(short(pod_side, "www.example."), found("10.0.0.2"));
    }
    assert_eq!(short(node_side, "x.reddog.example."), (ResponseCode::NXDomain, vec![]));
    assert_eq!(short(pod_side, "x.reddog.example."), found("10.0.0.2"));
    for side in [node_side, pod_side] {
        assert_eq!(short(side, "health-check.localdns.local."), (ResponseCode::NoError, vec![]));
    }
    assert_eq!((node.count(), pods.count()), (1, 2), "each name was asked once, and of its own upstream");
    let status = run(&["status", "--admin", home.join("agent.sock").to_str().unwrap()]);
    let status = String::from_utf8(status.stdout).unwrap();
    for (zone, upstream) in [(". ".to_owned(), node.address), (format!(". at {pod_side} "), pods.address)] {
        let row = status.lines().find(|line| line.starts_with(&zone) && line.contains(&upstream.to_string()));
        assert!(row.is_some_and(|row| row.contains(" up ")), "{zone}{upstream} in {status}");
    }
    assert!(agent.terminate().success());
}

#[test]
fn names_no_block_is_for_are_refused_as_coredns_does() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::write(home.join("Corefile"), "cluster.local {\n bind 127.0.0.1\n forward . 127.0.0.1:9\n}\n").unwrap();
    let agent = Agent::spawn(&mut node_cache(home, &[]));
    assert_eq!(agent.ask("www.example.", RecordType::A).response_code, ResponseCode::Refused);
}

#[test]
fn an_error_at_the_start_is_named_and_ends_the_process_with_code_2() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let failed = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = failed(&mut node_cache(home, &[]));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("Corefile: No such file"), "{text}");

    fs::write(home.join("Corefile.base"), ".:53 {\n  forward . 127.0.0.1:9\n  frobnicate\n").unwrap();
    let (code, text) = failed(&mut node_cache(home, &[]));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("Corefile:1:6: this brace is not closed"), "{text}");

    fs::write(home.join("Corefile.base"), ". {\n  forward . __PILLAR__CLUSTER__DNS__\n}\n").unwrap();
    let (code, text) = failed(node_cache(home, &[]).env_remove("KUBE_DNS_UPSTREAM_SERVICE_HOST"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the address of that service is not known"), "{text}");

    let (code, text) = failed(&mut node_cache(home, &["-nope"]));
    assert_eq!((code, text.trim_end()), (Some(2), "holdfast: node-cache: flag provided but not defined: -nope"));
}

#[test]
fn the_binary_goes_by_the_name_of_node_cache_too() {
    let named = |arguments: &[&str]| {
        let output = holdfast(arguments).arg0("/node-cache").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(named(&["-version"]).ends_with("in the place of node-cache\n"));
    assert!(named(&["-h"]).contains("-upstreamsvc VALUE"));
    assert!(named(&["version"]).starts_with("holdfast "), "the tools are there under every name");
}
