//! The names under which dashboards and alerts of CoreDNS and node-cache look for counts: all of them are there, and move.

use std::{
    fs,
    time::{Duration, Instant},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::process::{listeners, node_cache};
use crate::support::{
    http::get,
    process::{Agent, ask},
    upstream::{Upstream, a},
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Those that count what this test does; histograms by their count.
const MOVING: [&str; 19] = [
    "coredns_dns_requests_total",
    "coredns_dns_responses_total",
    "coredns_dns_request_duration_seconds_count",
    "coredns_cache_entries",
    "coredns_cache_hits_total",
    "coredns_cache_misses_total",
    "coredns_cache_requests_total",
    "coredns_cache_served_stale_total",
    "coredns_cache_prefetch_total",
    "coredns_forward_request_duration_seconds_count",
    "coredns_forward_requests_total",
    "coredns_forward_responses_total",
    "coredns_forward_healthcheck_failures_total",
    "coredns_forward_healthcheck_broken_total",
    "coredns_proxy_request_duration_seconds_count",
    "coredns_proxy_healthcheck_failures_total",
    "coredns_nodecache_setup_errors_total",
    "coredns_build_info",
    "coredns_health_request_duration_seconds_count",
];
/// Those that count what happens to nobody here; that they move is shown where they are made of ours.
const STILL: [&str; 3] =
    ["coredns_cache_evictions_total", "coredns_forward_max_concurrent_rejects_total", "coredns_panics_total"];

/// The sum of the series of a metric; `None` if it has none.
fn sum(text: &str, name: &str) -> Option<f64> {
    let series = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values: Vec<f64> = series.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_is_there_and_moves() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let upstream = Upstream::start(|asked| {
        let name = asked.name();
        // The least that is refreshed before it ends is 5 s.
        let ttl = if name.starts_with("short") {
            1
        } else if name.starts_with("hot") {
            5
        } else {
            60
        };
        vec![asked.found(vec![a(&asked.name(), ttl, [10, 0, 0, 1])])]
    })
    .await;
    let corefile = format!(
        ".:0 {{\n bind 127.0.0.1\n forward . {}\n cache 60 {{\n  success 9984 60 1\n  prefetch 2\n  serve_stale\n }}\n prometheus 127.0.0.1:0\n health 127.0.0.1:0\n}}\n",
        upstream.address
    );
    fs::write(home.join("Corefile.base"), corefile).unwrap();
    // A setup error, so that one is counted.
    fs::create_dir(home.join("kube-dns")).unwrap();
    fs::write(home.join("kube-dns/stubDomains"), "{").unwrap();
    let mut agent = Agent::spawn(&mut node_cache(home, &[]));
    // The log is there before the first file is read.
    let line = agent.wait_for("the ConfigMap kube-dns is wrong");
    assert!(line.contains("ERROR") && line.contains("stubDomains"), "{line}");
    let metrics = listeners(home, "metrics").remove(0);
    let scrape = || get(&metrics, "/metrics");
    // Series of upstreams are there from the first event on, as CoreDNS has it.
    let value = |name: &str| sum(&scrape(), name).unwrap_or_default();
    // Asks for a name until a count has moved.
    let until = |name: &str, asked: &str| {
        let end = Instant::now() + PATIENCE;
        while value(name) == 0.0 {
            assert!(Instant::now() < end, "{name} does not move");
            for _ in 0..5 {
                agent.ask(asked, RecordType::A);
            }
        }
    };
    for _ in 0..2 {
        assert_eq!(agent.ask("long.example.", RecordType::A).response_code, ResponseCode::NoError);
    }
    until("coredns_cache_prefetch_total", "hot.example.");
    agent.ask("short.example.", RecordType::A);
    assert!(get(&listeners(home, "http")[0], "/health").starts_with("HTTP/1.1 200 "));
    upstream.now(|_| Vec::new());
    until("coredns_cache_served_stale_total", "short.example.");
    // Several questions without an answer are what makes an upstream a failing one, which is probed.
    std::thread::scope(|scope| {
        for nth in 0..6 {
            let server = agent.dns;
            scope.spawn(move || ask(server, &format!("never-{nth}.example."), RecordType::A));
        }
    });
    until("coredns_forward_healthcheck_failures_total", "short.example.");
    until("coredns_forward_healthcheck_broken_total", "never.example.");
    let text = scrape();
    for name in MOVING {
        assert!(sum(&text, name).unwrap_or_else(|| panic!("{name} in {text}")) > 0.0, "{name} in {text}");
    }
    for name in STILL {
        assert_eq!(sum(&text, name), Some(0.0), "{name} in {text}");
    }
    assert!(agent.terminate().success());
}
