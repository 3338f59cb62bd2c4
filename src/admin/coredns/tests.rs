use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::*;

fn text(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&named(&registry.gather(), "dns://169.254.20.10:53")).unwrap()
}

fn counters_of(registry: &Registry, name: &str, labels: &[&str], series: &[(&[&str], u64)]) {
    let vec = IntCounterVec::new(Opts::new(name, "x"), labels).unwrap();
    registry.register(Box::new(vec.clone())).unwrap();
    for (values, count) in series {
        vec.with_label_values(values).inc_by(*count);
    }
}

#[test]
fn counts_stand_under_the_names_and_labels_of_coredns() {
    let registry = Registry::new();
    counters_of(
        &registry,
        "holdfast_dns_requests_total",
        &["proto", "type"],
        &[(&["udp", "A"], 7), (&["tcp", "SRV"], 2)],
    );
    let responses: &[(&[&str], u64)] = &[
        (&["cache", "NOERROR"], 3),
        (&["stale", "NOERROR"], 2),
        (&["upstream", "SERVFAIL"], 1),
        (&["cluster", "NXDOMAIN"], 4),
    ];
    counters_of(&registry, "holdfast_dns_responses_total", &["from", "rcode"], responses);
    let lookups: &[(&[&str], u64)] = &[(&["fresh"], 5), (&["stale"], 2), (&["miss"], 4)];
    counters_of(&registry, "holdfast_cache_lookups_total", &["result"], lookups);
    let errors: &[(&[&str], u64)] =
        &[(&["nftables"], 1), (&["privilege"], 1), (&["interface_add"], 2), (&["address"], 1), (&["admin_socket"], 1)];
    counters_of(&registry, "holdfast_node_setup_errors_total", &["errortype"], errors);
    counters_of(&registry, "holdfast_corefile_errors_total", &["what"], &[(&["configmap"], 3), (&["corefile"], 1)]);
    for (name, value) in [
        ("holdfast_cache_prefetches_total", 6),
        ("holdfast_cache_evictions_total", 8),
        ("holdfast_forward_over_limit_total", 9),
        ("holdfast_forward_down_total", 10),
    ] {
        let counter = IntCounter::new(name, "x").unwrap();
        counter.inc_by(value);
        registry.register(Box::new(counter)).unwrap();
    }
    let entries = IntGauge::new("holdfast_cache_entries", "x").unwrap();
    entries.set(11);
    registry.register(Box::new(entries)).unwrap();

    let text = text(&registry);
    let server = "server=\"dns://169.254.20.10:53\"";
    for line in [
        format!("coredns_dns_requests_total{{family=\"1\",proto=\"udp\",{server},type=\"A\",view=\"\",zone=\".\"}} 7"),
        format!(
            "coredns_dns_requests_total{{family=\"1\",proto=\"tcp\",{server},type=\"SRV\",view=\"\",zone=\".\"}} 2"
        ),
        format!("coredns_dns_responses_total{{plugin=\"cache\",rcode=\"NOERROR\",{server},view=\"\",zone=\".\"}} 5"),
        format!("coredns_dns_responses_total{{plugin=\"forward\",rcode=\"SERVFAIL\",{server},view=\"\",zone=\".\"}} 1"),
        format!(
            "coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NXDOMAIN\",{server},view=\"\",zone=\".\"}} 4"
        ),
        format!("coredns_cache_entries{{{server},type=\"success\",view=\"\",zones=\".\"}} 11"),
        format!("coredns_cache_hits_total{{{server},type=\"success\",view=\"\",zones=\".\"}} 7"),
        format!("coredns_cache_misses_total{{{server},view=\"\",zones=\".\"}} 4"),
        format!("coredns_cache_requests_total{{{server},view=\"\",zones=\".\"}} 11"),
        format!("coredns_cache_served_stale_total{{{server},view=\"\",zones=\".\"}} 2"),
        format!("coredns_cache_prefetch_total{{{server},view=\"\",zones=\".\"}} 6"),
        format!("coredns_cache_evictions_total{{{server},type=\"success\",view=\"\",zones=\".\"}} 8"),
        "coredns_forward_max_concurrent_rejects_total 9".into(),
        "coredns_forward_healthcheck_broken_total 10".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"iptables\"} 2".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"iptables_lock\"} 0".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"interface_add\"} 3".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"interface_check\"} 0".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"configmap\"} 4".into(),
        "coredns_nodecache_setup_errors_total{errortype=\"admin_socket\"} 1".into(),
        "coredns_panics_total 0".into(),
        format!(
            "coredns_build_info{{goversion=\"\",revision=\"\",version=\"holdfast-{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        ),
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
}

#[test]
fn times_of_upstreams_have_coredns_buckets_under_both_names() {
    let registry = Registry::new();
    let bounds = prometheus::exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS).unwrap();
    let opts = HistogramOpts::new("holdfast_forward_upstream_duration_seconds", "x").buckets(bounds);
    let times = HistogramVec::new(opts, &["upstream", "rcode"]).unwrap();
    registry.register(Box::new(times.clone())).unwrap();
    for (rcode, seconds) in [("NOERROR", 0.0003), ("NOERROR", 0.003), ("SERVFAIL", 100.0)] {
        times.with_label_values(&["10.0.0.1:53", rcode]).observe(seconds);
    }
    counters_of(&registry, "holdfast_forward_probe_failures_total", &["upstream"], &[(&["10.0.0.1:53"], 2)]);
    let text = text(&registry);
    for line in [
        "coredns_proxy_request_duration_seconds_bucket{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"10.0.0.1:53\",le=\"0.00025\"} 0",
        "coredns_proxy_request_duration_seconds_bucket{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"10.0.0.1:53\",le=\"0.0005\"} 1",
        "coredns_proxy_request_duration_seconds_bucket{proxy_name=\"forward\",rcode=\"NOERROR\",to=\"10.0.0.1:53\",le=\"8.192\"} 2",
        "coredns_proxy_request_duration_seconds_bucket{proxy_name=\"forward\",rcode=\"SERVFAIL\",to=\"10.0.0.1:53\",le=\"8.192\"} 0",
        "coredns_proxy_request_duration_seconds_bucket{proxy_name=\"forward\",rcode=\"SERVFAIL\",to=\"10.0.0.1:53\",le=\"+Inf\"} 1",
        "coredns_forward_request_duration_seconds_count{rcode=\"NOERROR\",to=\"10.0.0.1:53\"} 2",
        "coredns_forward_requests_total{to=\"10.0.0.1:53\"} 3",
        "coredns_forward_responses_total{rcode=\"NOERROR\",to=\"10.0.0.1:53\"} 2",
        "coredns_proxy_healthcheck_failures_total{proxy_name=\"forward\",to=\"10.0.0.1:53\"} 2",
        "coredns_forward_healthcheck_failures_total{to=\"10.0.0.1:53\"} 2",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
    }
}

#[test]
fn metrics_that_are_not_counted_have_no_series() {
    let text = text(&Registry::new());
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(names, ["coredns_build_info", "coredns_nodecache_setup_errors_total", "coredns_panics_total"]);
}
