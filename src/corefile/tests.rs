//! Whole files: what they become, and what is told of them.

use std::path::Path;

use super::*;
use crate::config::{self, Flags, Role};

fn translated(text: &str, options: &Options) -> Translation {
    let file = parse(Path::new("Corefile"), text, &Surroundings::NONE).unwrap();
    translate(&file, options).unwrap()
}

/// What the configuration made of `text` comes to, read as the agent would.
fn loaded(text: &str, options: &Options) -> config::Config {
    let yaml = translated(text, options).yaml;
    config::load_str(Role::Agent, ("Corefile".as_ref(), &yaml), &Flags::default(), |_| None)
        .unwrap_or_else(|errors| panic!("{errors}\n{yaml}"))
}

fn errors(text: &str) -> Vec<String> {
    let shown = |errors: Vec<Error>| errors.iter().map(ToString::to_string).collect();
    match parse(Path::new("Corefile"), text, &Surroundings::NONE) {
        Err(error) => shown(vec![error]),
        Ok(file) => translate(&file, &Options::default()).map_or_else(shown, |_| Vec::new()),
    }
}

fn notes(text: &str) -> Vec<String> {
    translated(text, &Options::default()).notes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_block_becomes_a_forward_zone_with_its_cache() {
    let text = "cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.99 {
        force_tcp
    }
    prometheus :9253
    health 169.254.20.10:8080
}
.:53 {
    errors
    cache 30
    reload
    loop
    bind 169.254.20.10 10.96.0.10
    forward . 1.2.3.4
    prometheus :9253
}
";
    let translation = translated(text, &Options::default());
    assert_eq!(translation.notes, []);
    assert_eq!(translation.reload, Some(std::time::Duration::from_secs(30)));
    let expect = "source:
  none: true
listen: [169.254.20.10:53, 10.96.0.10:53]
forward:
  - zone: cluster.local
    upstreams: [10.96.0.99]
    force_tcp: true
    max_ttl: 30s
    min_ttl: 5s
    negative_ttl: 5s
    min_negative_ttl: 5s
  - zone: .
    upstreams: [1.2.3.4]
    max_ttl: 30s
    min_ttl: 5s
    negative_ttl: 30s
    min_negative_ttl: 5s
http: 169.254.20.10:8080
metrics: 0.0.0.0:9253
";
    assert_eq!(translation.yaml, expect);
    loaded(text, &Options::default());
}

#[test]
fn with_a_hub_the_zone_asked_of_the_cluster_is_answered_from_records() {
    let text = "example.test {\n forward . 10.96.0.99\n}\nkube.local {\n forward . 10.96.0.99 {\n force_tcp\n }\n}\n. {\n forward . 1.2.3.4\n}";
    let options = Options { hub: true, cluster_dns: Some("10.96.0.99".parse().unwrap()), ..Options::default() };
    let yaml = translated(text, &options).yaml;
    assert!(yaml.starts_with("zone: kube.local\ncluster_fallback: [10.96.0.99]\nlisten: [0.0.0.0:53]\n"), "{yaml}");
}

#[test]
fn blocks_on_addresses_of_their_own_are_views() {
    let text = "a.test b.test {\n bind 127.0.0.1\n forward . 10.0.0.1\n}\n. {\n bind 127.0.0.1\n forward . 10.0.0.2\n}\n.:54 {\n bind 127.0.0.2\n forward . 10.0.0.3\n}\n";
    let config = loaded(text, &Options::default());
    let zones = |zones: &[config::ForwardZone]| zones.iter().map(|z| z.zone.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(zones(&config.settings.forward), ["a.test", "b.test", "."]);
    assert_eq!(config.settings.views.len(), 1);
    assert_eq!(config.settings.views[0].listen[0].0.to_string(), "127.0.0.2:54");
    assert_eq!(zones(&config.settings.views[0].forward), ["."]);
}

#[test]
fn options_of_forward_and_cache_are_settings_of_the_zone() {
    let text = ". {
  forward . 10.0.0.1 tls://10.0.0.2 {
    policy sequential
    max_fails 0
    expire 20s
    max_concurrent 50
    tls_servername dns.example
    tls /etc/ca.crt
    prefer_udp
  }
  cache 60 {
    success 9984 120 10
    denial 9984 15 2
    prefetch 0
    serve_stale 2h immediate
    servfail 5s
  }
}";
    let config = loaded(text, &Options::default());
    let [zone] = &config.settings.forward[..] else { panic!() };
    let secs = |seconds| Some(std::time::Duration::from_secs(seconds));
    assert_eq!((zone.max_fails, zone.max_concurrent), (0, 50));
    assert_eq!((Some(zone.connection_idle), zone.max_ttl, zone.min_ttl), (secs(20), secs(120), secs(10)));
    assert_eq!((zone.negative_ttl, Some(zone.min_negative_ttl)), (secs(15), secs(2)));
    assert_eq!((zone.serve_stale, zone.stale_max, zone.client_timeout), (Some(true), secs(7_200), secs(0)));
    assert_eq!(zone.prefetch, Some(false));
    assert_eq!(zone.tls_ca.as_deref(), Some("/etc/ca.crt".as_ref()));
    let yaml = translated(text, &Options::default()).yaml;
    assert!(yaml.contains("upstreams: [10.0.0.1, \"tls://10.0.0.2#dns.example\"]"), "{yaml}");
    assert!(yaml.contains("policy: sequential"), "{yaml}");
}

#[test]
fn a_scope_of_an_upstream_is_kept_as_written() {
    let yaml = translated(".:53 {\n  forward . fe80::1%eth0 [fe80::2%2]:54\n}", &Options::default()).yaml;
    assert!(yaml.contains("fe80::1%eth0") && yaml.contains("[fe80::2%2]:54"), "{yaml}");
}

#[test]
fn zones_that_a_block_leaves_out_get_the_answer_coredns_gives() {
    let text = "corp.test {
  forward . 10.0.0.1 {
    except x.corp.test other.test
  }
  forward y.corp.test 10.0.0.2
  template ANY ANY gone.corp.test {
    rcode NXDOMAIN
  }
  hosts /dev/null h.corp.test {
    10.0.0.9 a.h.corp.test
  }
  cache 30 y.corp.test
}";
    let config = loaded(text, &Options::default());
    let of = |name: &str| {
        let zone = config.settings.forward.iter().find(|zone| zone.zone.as_str() == name).unwrap();
        let answer = zone.answer.map(|answer| format!("{answer:?}"));
        (answer.unwrap_or_else(|| format!("{} upstreams", zone.upstreams.len())), zone.cache, zone.hosts.len())
    };
    assert_eq!(of("corp.test"), ("1 upstreams".into(), false, 0));
    assert_eq!(of("x.corp.test"), ("ServFail".into(), true, 0));
    assert_eq!(of("y.corp.test"), ("1 upstreams".into(), true, 0));
    assert_eq!(of("gone.corp.test"), ("NxDomain".into(), true, 0));
    assert_eq!(of("h.corp.test"), ("ServFail".into(), true, 1));
    assert_eq!(of("."), ("Refused".into(), true, 0));
    assert_eq!(config.settings.forward.len(), 6);
}

#[test]
fn hosts_that_fall_through_go_before_upstreams_and_rewrites_and_dns64_too() {
    let text = ". {
  hosts {
    10.0.0.9 printer.test p.test
    ttl 60
    fallthrough
  }
  rewrite name suffix .old.test .new.test
  rewrite stop name exact a.test b.test
  dns64 {
    allow_ipv4
  }
  forward . /etc/resolv.conf
  debug
  log
}";
    let config = loaded(text, &Options::default());
    let [zone] = &config.settings.forward[..] else { panic!() };
    assert_eq!((zone.hosts.len(), zone.hosts_ttl.as_secs(), zone.rewrite.len()), (1, 60, 2));
    assert_eq!(zone.hosts_file.as_deref(), Some("/etc/hosts".as_ref()));
    assert_eq!(zone.dns64.unwrap().to_string(), "64:ff9b::/96");
    assert!(zone.answer.is_none() && !zone.cache);
    assert_eq!((config.settings.log_filter.as_str(), config.settings.log_query_every), ("debug", 1));
}

#[test]
fn networks_are_reverse_zones() {
    let config = loaded("10.96.0.0/15:53 {\n forward . 10.0.0.1\n}", &Options::default());
    let zones: Vec<&str> = config.settings.forward.iter().map(|zone| zone.zone.as_str()).collect();
    assert_eq!(zones, ["96.10.in-addr.arpa", "97.10.in-addr.arpa", "."]);
}

#[test]
fn ignored_directives_are_listed_with_place_and_reason() {
    let text = ". {
  bufsize 4096
  nsid me
  kubernetes cluster.local
  cache {
    success 100
    keepttl
  }
  rewrite name regex a b
  template IN A x.test {
    match a
  }
  template ANY ANY {
    match a
  }
  forward . 10.0.0.1 {
    health_check 1s no_rec domain x.test
  }
}
tls://secure.test {
  forward . 10.0.0.1
}";
    assert_eq!(
        notes(text),
        [
            "2:3: bufsize: UDP answers have at most 1232 bytes, which no network cuts; longer ones go over TCP",
            "3:3: nsid: no name of a server is told (RFC 5001)",
            "4:3: kubernetes: names of the cluster come from a hub (--hub), or are asked of the block's upstreams",
            "6:5: cache success: the cache is bounded in bytes, for all zones together: cache.max_bytes",
            "20:1: tls://secure.test: nothing is served over tls here: this block is left out",
        ]
    );
    let weights = translated(text, &Options::default()).notes;
    assert_eq!(weights.iter().filter(|note| note.weight == Weight::Answers).count(), 2);
}

#[test]
fn all_errors_are_listed_at_once_by_line_and_column() {
    let text = ".:53 {
  forwrad . 10.0.0.1
  cache thirty {
    success many
    frobnicate
  }
  forward . nowhere {
    policy best
    max_fails x
    wrong
  }
  prometheus nine
  bind eth0
}
.:5x {
}
";
    assert_eq!(
        errors(text),
        [
            "2:3: unknown directive \"forwrad\", did you mean \"forward\"?",
            "4:13: \"many\" is not a whole number",
            "8:12: \"best\" is not random, round_robin or sequential",
            "9:15: \"x\" is not a whole number",
            "12:14: \"nine\" is not an address with a port, such as 127.0.0.1:9253 or :9253",
            "13:8: \"eth0\" is neither an address nor an interface of this machine",
            "15:1: \".:5x\" does not end in a port",
        ]
    );
    for (text, expect) in [
        (".:53 {\n forward .\n}", "2:10: forward takes from 1 to 15 servers, found 0"),
        (
            ". {\n forward . 1.1.1.1\n}\n.:53 {\n forward . 1.1.1.1\n}",
            "4:1: zone \".\" is served by the block at 1:1 already",
        ),
        (". {\n cache 0\n}", "2:8: a TTL of 0 keeps nothing: leave the directive out"),
        (". {\n cache\n cache\n}", "3:2: cache is given twice in this block"),
        ("tls://. {\n}", "1:1: no block of this file can be served"),
    ] {
        assert_eq!(errors(text), [expect], "{text}");
    }
}

/// Whatever is in the file, there is an answer: a configuration that loads or a place where it is wrong.
#[test]
fn no_text_makes_it_panic() {
    let words = [
        ".:53",
        "{",
        "}",
        "forward",
        ".",
        "10.0.0.1",
        "cache",
        "30",
        "\"",
        "#",
        "\n",
        "bind",
        "127.0.0.1",
        "template",
        "ANY",
        "hosts",
        "except",
        "0.0.0.0/0",
        "::/0",
        "tls://",
        "%",
        "é",
        "{$X}",
        "prefetch",
        "99999999999999999999",
        "rewrite",
        "name",
        "import",
        "(a)",
        "health",
        ":0",
        "serve_stale",
        "1e9s",
        "dns64",
        "-1s",
        ",",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..5_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[usize::try_from(state >> 33).unwrap() % words.len()]);
            text.push_str(if state & (1 << 20) == 0 { " " } else { "\n" });
        }
        if let Ok(file) = parse(Path::new("Corefile"), &text, &Surroundings::NONE)
            && let Ok(translation) = translate(&file, &Options::default())
        {
            assert!(!translation.yaml.is_empty());
        }
    }
}

#[test]
fn answer_auto_becomes_rules_for_owners_and_data() {
    let cases = [
        ("a.test b.test", r"exact a.test b.test", r"^(|.*\.)b\.test\.$ {1}a.test."),
        (
            "suffix .old.test .new.test",
            r"regex ^(.*)\.old\.test\.$ {1}.new.test.",
            r"^(.*)\.new\.test\.$ {1}.old.test.",
        ),
        ("prefix old- new-", r"regex ^old-(.*)$ new-{1}", r"^new-(.*)$ old-{1}"),
    ];
    for (rule, becomes, back) in cases {
        let text = format!(".:53 {{\n rewrite name {rule} answer auto\n forward . 192.0.2.1\n}}\n");
        let zones = loaded(&text, &Options::default()).forward().zones;
        let expect = format!("{becomes} answer name {back} answer value {back}");
        assert_eq!(zones[0].rewrites, [expect.parse().unwrap()], "{rule}");
    }
}

/// Tools and the rules for denials go by the cluster's zone, with a hub and without.
#[test]
fn the_zone_asked_of_the_clusters_dns_is_the_clusters_zone() {
    let block = |zone: &str, upstream: &str| format!("{zone}:53 {{\n forward . {upstream} {{\n  force_tcp\n }}\n}}\n");
    let node_local = |cluster: &str| {
        [(cluster, "10.96.0.99"), ("in-addr.arpa", "10.96.0.99"), ("ip6.arpa", "10.96.0.99"), (".", "1.2.3.4")]
            .map(|(zone, upstream)| block(zone, upstream))
            .concat()
    };
    let stub = block("corp.example", "10.1.1.1");
    let kubernetes = ".:53 {\n kubernetes k8s.example in-addr.arpa ip6.arpa\n forward . 1.2.3.4\n}\n";
    let dns = Some("10.96.0.99".parse().unwrap());
    for (text, cluster_dns, expect) in [
        (node_local("cluster.local"), dns, "cluster.local"),
        (node_local("k8s.example"), dns, "k8s.example"),
        (node_local("k8s.example") + &stub, None, "k8s.example"),
        (block("k8s.example", "10.96.0.99") + &stub + &block(".", "1.2.3.4"), dns, "k8s.example"),
        // All names are asked of the same server: which are the cluster's cannot be told.
        (node_local("k8s.example").replace("1.2.3.4", "10.96.0.99"), None, "cluster.local"),
        (stub.clone() + &block(".", "1.2.3.4"), None, "cluster.local"),
        (kubernetes.to_owned(), None, "k8s.example"),
    ] {
        let options = Options { cluster_dns, ..Options::default() };
        let config = loaded(&text, &options);
        assert_eq!(config.settings.zone.as_str(), expect, "{text}");
        for zone in config.forward().zones {
            if zone.zone.to_string().trim_end_matches('.') == expect {
                assert_eq!(zone.lifetimes.denials, crate::dns::cache::Denials::Confirm, "{text}");
            }
        }
        let with_hub = translated(&text, &Options { hub: true, ..options }).yaml;
        assert!(with_hub.starts_with(&format!("zone: {expect}\n")), "{with_hub}");
    }
}
