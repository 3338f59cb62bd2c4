//! Each option of each plugin that is read: what it becomes, as docs/corefile.md says.

use std::path::Path;

use super::*;
use crate::config::{self, Flags, Role};

/// Lines of a block, the settings they become (`zone` settings without their indent), and what is told of them.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    ("forward . 10.0.0.1 {\n except a.example\n}", &["zone: a.example", "answer: servfail"], &[]),
    ("forward . 10.0.0.1 {\n force_tcp\n}", &["force_tcp: true"], &[]),
    ("forward . 10.0.0.1 {\n prefer_udp\n}", &["upstreams: [10.0.0.1]"], &[]),
    ("forward . 10.0.0.1 {\n policy sequential\n}", &["policy: sequential"], &[]),
    ("forward . 10.0.0.1 {\n max_fails 0\n}", &["max_fails: 0"], &[]),
    ("forward . 10.0.0.1 {\n expire 20s\n}", &["connection_idle: 20s"], &[]),
    ("forward . 10.0.0.1 {\n max_age 1m\n}", &["connection_age: 60s"], &[]),
    ("forward . 10.0.0.1 {\n max_idle_conns 5\n}", &["idle_connections: 5"], &[]),
    ("forward . 10.0.0.1 {\n max_concurrent 50\n}", &["max_concurrent: 50"], &[]),
    ("forward . 10.0.0.1 {\n max_connect_attempts 4\n}", &["max_attempts: 4"], &[]),
    ("forward . 10.0.0.1 {\n read_timeout 3s\n}", &["read_timeout: 3s"], &[]),
    ("forward . 10.0.0.1 {\n source_address 127.0.0.1\n}", &["source_address: 127.0.0.1"], &[]),
    ("forward . 10.0.0.1 {\n failfast_all_unhealthy_upstreams\n}", &["fail_fast: true"], &[]),
    ("forward . 10.0.0.1 {\n failover NXDOMAIN REFUSED\n}", &["failover: [nxdomain, refused]"], &[]),
    (
        "forward . 10.0.0.1 {\n next NXDOMAIN\n next_on_nodata\n}\nforward . 10.0.0.2 10.0.0.3 {\n policy sequential\n force_tcp\n}",
        &["next: [\"nodata nxdomain then sequential force_tcp 10.0.0.2 10.0.0.3\"]"],
        &[],
    ),
    (
        "forward . 10.0.0.1 {\n health_check 500ms no_rec domain Probe.example\n}",
        &["probe_interval: 500ms", "probe_recursion: false", "probe_name: probe.example"],
        &[],
    ),
    ("forward . 10.0.0.1 {\n resolver 10.0.0.2\n}", &["upstreams: [10.0.0.1]"], &["forward resolver"]),
    (
        "forward . 10.0.0.1 dns.example {\n resolver 10.0.0.2\n}",
        &["upstreams: [10.0.0.1]"],
        &["forward resolver", "forward!"],
    ),
    (
        "forward . tls://10.0.0.1 tls://10.0.0.2:8853 {\n tls_servername dns.example\n}",
        &["\"tls://10.0.0.1#dns.example\"", "\"tls://10.0.0.2:8853#dns.example\""],
        &[],
    ),
    (
        "forward . tls://10.0.0.1%a.example tls://[2001:db8::1%b.example]:8853",
        &["\"tls://10.0.0.1#a.example\"", "\"tls://[2001:db8::1]:8853#b.example\""],
        &[],
    ),
    (
        "forward . https://10.0.0.1 https://[2001:db8::1]:8443 {\n tls_servername dns.example\n doh_method GET\n}",
        &["\"https://10.0.0.1#dns.example\"", "\"https://[2001:db8::1]:8443#dns.example\"", "doh_method: get"],
        &[],
    ),
    ("forward . tls://10.0.0.1 {\n tls /etc/ca.crt\n}", &["tls_ca: /etc/ca.crt"], &[]),
    (
        "forward . 10.0.0.1 {\n option_of_next_year yes\n}",
        &["upstreams: [10.0.0.1]"],
        &["forward option_of_next_year!"],
    ),
    ("cache 60", &["max_ttl: 60s", "negative_ttl: 60s"], &[]),
    ("cache {\n success 9984 120 10 7\n}", &["max_ttl: 120s", "min_ttl: 10s"], &[]),
    ("cache {\n denial 9984 15 2\n}", &["negative_ttl: 15s", "min_negative_ttl: 2s"], &[]),
    ("cache {\n success 100\n}", &[], &["cache success"]),
    ("cache {\n prefetch 2 30s 20%\n}", &["prefetch: true"], &["cache prefetch"]),
    (
        "cache {\n serve_stale 2h immediate\n}",
        &["serve_stale: true", "stale_max: 7200s", "client_timeout: 0s"],
        &["cache serve_stale"],
    ),
    (
        "cache {\n serve_stale 1h Verify 400ms 30s 2s\n serve_stale_policy prefer_positive\n}",
        &["client_timeout: 400ms", "stale_ttl: 30s"],
        &["cache serve_stale", "cache serve_stale_policy"],
    ),
    ("cache {\n serve_stale 0s\n}", &["serve_stale: false"], &[]),
    ("cache {\n servfail 0\n}", &["failure_ttl: 0s"], &[]),
    ("cache {\n disable denial\n}", &["cache_negative: false"], &[]),
    ("cache {\n disable success a.example\n}", &["zone: a.example", "cache_positive: false"], &[]),
    ("cache {\n keepttl\n}", &["keep_ttl: true"], &[]),
];

#[test]
fn each_option_becomes_what_the_table_says() {
    for (lines, settings, told) in CASES {
        let forward = if lines.contains("forward") { "" } else { "forward . 10.0.0.1\n" };
        let text = format!(". {{\n{lines}\n{forward}}}\n");
        let file = parse(Path::new("Corefile"), &text, &Surroundings::NONE).unwrap();
        let Translation { yaml, notes, .. } =
            translate(&file, &Options::default()).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        for setting in *settings {
            assert!(yaml.contains(setting), "{lines}\n{setting} is not in\n{yaml}");
        }
        let name = |note: &Note| format!("{}{}", note.directive, if note.weight == Weight::Answers { "!" } else { "" });
        let mut names: Vec<String> = notes.iter().map(name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names, *told, "{lines}\n{notes:?}");
        let loaded = config::load_str(Role::Agent, (Path::new("Corefile"), &yaml), &Flags::default(), |_| None);
        assert!(loaded.is_ok(), "{lines}\n{}", loaded.unwrap_err());
    }
}

/// Values that CoreDNS 1.14 refuses.
#[test]
fn values_that_coredns_refuses_are_errors() {
    for lines in [
        "cache 0",
        "cache -1",
        "cache {\n success 9984 0\n}",
        "cache {\n denial 9984 5 -1\n}",
        "cache {\n serve_stale 1h soon\n}",
        "cache {\n serve_stale 1h verify 1s 1500ms\n}",
        "cache {\n serve_stale 1h immediate 1s 10m\n}",
        "cache {\n serve_stale_policy prefer_positive\n}",
        "cache {\n serve_stale\n serve_stale_policy prefer_positive\n serve_stale_policy prefer_positive\n}",
        "cache {\n servfail 6m\n}",
        "cache {\n disable\n}",
        "cache {\n disable everything\n}",
        "cache {\n keepttl yes\n}",
        "forward . 10.0.0.1 {\n policy best\n}",
        "forward . 10.0.0.1 {\n next\n}",
        "forward . 10.0.0.1 {\n next NOWHERE\n}",
        "forward . 10.0.0.1 {\n failover NOERROR\n}",
        "forward . 10.0.0.1 {\n next_on_nodata yes\n}",
        "forward . 10.0.0.1 {\n max_age 5s\n}",
        "forward . 10.0.0.1 {\n expire 20s\n max_age 15s\n}",
        "forward . 10.0.0.1 {\n read_timeout 0s\n}",
        "forward . 10.0.0.1 {\n source_address here\n}",
        "forward . 10.0.0.1 {\n doh_method PUT\n}",
        "forward . 10.0.0.1 {\n resolver dns.example\n}",
        "forward . 10.0.0.1 {\n health_check often\n}",
        "forward . tls://10.0.0.1%a.example {\n tls_servername b.example\n}",
        "forward . 10.0.0.300",
        "forward . https://10.0.0.1/dns-query",
    ] {
        let text = format!(". {{\n{lines}\n}}\n");
        let file = parse(Path::new("Corefile"), &text, &Surroundings::NONE).unwrap();
        assert!(translate(&file, &Options::default()).is_err(), "{lines}");
    }
}
