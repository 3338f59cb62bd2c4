//! A thousand Corefiles of the shapes that AKS, GKE, kubespray, RKE2, kOps, Gardener and the addon write: each is taken, and
//! becomes a configuration that loads.

use std::path::Path;

use super::*;
use crate::config::{self, Flags, Role};

/// A repeatable source of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn maybe<'a>(&mut self, line: &'a str) -> &'a str {
        if self.below(2) == 0 { line } else { "" }
    }

    /// Some of these lines, in order.
    fn some(&mut self, lines: &[&str]) -> String {
        let chosen: Vec<&str> = lines.iter().copied().filter(|_| self.below(2) == 0).collect();
        chosen.iter().flat_map(|line| ["    ", line, "\n"]).collect()
    }
}

fn cache(choices: &mut Choices) -> String {
    match choices.below(5) {
        0 => format!("    cache {}\n", choices.one(&["30", "10", "300#seconds", "30 {\n        disable denial\n    }"])),
        1 => "    cache {\n        success 9984 30\n        denial 9984 5\n    }\n".into(),
        // AKS LocalDNS.
        2 => format!(
            "    cache 3600s {{\n        success {} 3600 30 7\n        denial 9984 30 5\n        {}\n        {}\n        servfail {}\n    }}\n",
            choices.one(&["9984", "1000"]),
            choices.one(&["serve_stale 3600s immediate", "serve_stale 1h Verify", "serve_stale 1h verify 400ms", "serve_stale"]),
            choices.maybe("serve_stale_policy prefer_positive"),
            choices.one(&["0", "5s", "1s"]),
        ).replace("cache 3600s", "cache 3600"),
        3 => format!("    cache 30 {{\n        prefetch {}\n        {}\n    }}\n", choices.one(&["0", "2 30s 20%", "1"]), choices.maybe("keepttl")),
        _ => String::new(),
    }
}

fn forward(choices: &mut Choices, cluster: bool) -> String {
    let to = match (cluster, choices.below(4)) {
        (true, _) => "__PILLAR__CLUSTER__DNS__",
        (_, 0) => "/etc/resolv.conf",
        (_, 1) => "__PILLAR__UPSTREAM__SERVERS__",
        (_, 2) => "tls://1.1.1.1 tls://1.0.0.1",
        _ => "8.8.8.8 [2001:4860:4860::8888]:53 fe80::1%eth0 168.63.129.16",
    };
    let to = to.replace("/etc/resolv.conf", "10.0.0.2");
    let options = choices.some(&[
        "    policy sequential",
        "    force_tcp",
        "    prefer_udp",
        "    max_concurrent 1000",
        "    max_fails 2",
        "    expire 10s",
        "    health_check 5s no_rec domain example.org",
        "    tls_servername cloudflare-dns.com",
        "    max_connect_attempts 4",
        "    max_idle_conns 10",
        "    max_age 30s",
        "    next_on_nodata",
        "    failfast_all_unhealthy_upstreams",
        "    an_option_of_next_year yes",
    ]);
    if options.is_empty() {
        format!("    forward . {to}\n")
    } else {
        format!("    forward . {to} {{\n{options}    }}\n")
    }
}

fn block(choices: &mut Choices, zone: &str, port: &str) -> String {
    let cluster = !matches!(zone, "." | "corp.example" | "reddog.microsoft.com");
    let lines = choices.some(&[
        "errors",
        "errors {\n        consolidate 5m \".* i/o timeout$\" warning\n    }",
        "log",
        "log . {\n        class denial error\n    }",
        "reload",
        "reload 15s 5s",
        "loop",
        "loadbalance round_robin",
        "minimal",
        "any",
        "bufsize 1232",
        "ready :8181",
        "nsid {$NODE_NAME}",
        "prometheus :9253",
        "health 169.254.20.10:8080 {\n        lameduck 5s\n    }",
        "acl {\n        allow net 10.0.0.0/8\n        block\n    }",
        "timeouts {\n        read 5s\n        idle 1m\n    }",
        "dnstap /tmp/dnstap.sock full",
        "header {\n        response set ra\n    }",
        "chaos CoreDNS-001",
        "local",
        "multisocket 2",
        "import custom/*.override",
        "some_plugin_of_our_own x",
    ]);
    let names = choices.some(&[
        "hosts {\n        10.9.8.7 registry.corp.example registry\n        fe80::1%eth0 printer.corp.example\n        ttl 60\n        no_reverse\n        reload 5s\n        fallthrough\n    }",
        "hosts /etc/coredns/NodeHosts corp.example {\n        fallthrough corp.example\n    }",
        "rewrite name suffix .tenant.example .svc.cluster.local answer auto",
        "rewrite stop {\n        name regex (.*)\\.intern\\.example {1}.default.svc.cluster.local\n        answer name (.*)\\.default\\.svc\\.cluster\\.local {1}.intern.example\n    }",
        "rewrite continue name exact foo.example foo.default.svc.cluster.local",
        "rewrite type ANY HINFO",
        "rewrite ttl regex (.*) 30-300",
        "rewrite continue edns0 local set 0xffee 0x6162",
        "template IN MX mx.example {\n        answer \"{{ .Name }} 60 IN MX 10 mail.mx.example.\"\n        additional \"mail.mx.example. 60 IN A 192.0.2.25\"\n    }",
        "template ANY AAAA {\n        rcode NOERROR\n    }",
        "template ANY ANY internal.cloudapp.net {\n        match \"^(?:[^.]+\\.){4,}internal\\.cloudapp\\.net\\.$\"\n        rcode NXDOMAIN\n        fallthrough\n    }",
        "template IN A ip.example {\n        match \"^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)\\.ip\\.example\\.$\"\n        answer \"{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}\"\n    }",
        "dns64 {\n        translate_all\n        allow_ipv4\n    }",
    ]);
    let (cache, forward) = (cache(choices), forward(choices, cluster));
    format!("{zone}{port} {{\n    bind __PILLAR__LOCAL__DNS__\n{lines}{names}{cache}{forward}}}\n")
}

#[test]
fn a_thousand_corefiles_of_the_shapes_that_are_in_use_are_taken() {
    let values = TemplateValues {
        local: vec!["169.254.20.10".parse().unwrap(), "10.96.0.10".parse().unwrap()],
        cluster_dns: Some("10.96.0.99".parse().unwrap()),
        port: 53,
    };
    let surroundings = Surroundings {
        environment: &|name| (name == "NODE_NAME").then(|| "node-1".to_owned()),
        import: &|_, pattern| {
            let log = || ("custom/log.override".into(), "log".to_owned());
            if pattern.ends_with("*.override") { Ok(vec![log()]) } else { Ok(Vec::new()) }
        },
    };
    for seed in 1..=1_000 {
        let mut choices = Choices(seed * 0x9E37_79B9);
        let port = choices.one(&[":53", "", ":53", ":53"]);
        let domain = choices.one(&["cluster.local", "example.internal", "k8s.corp.test", "CLUSTER.LOCAL."]);
        let mut text = String::from(choices.maybe("# Managed by an operator, do not edit\n"));
        for zone in
            [domain, "in-addr.arpa", "ip6.arpa", "10.0.0.0/8 100.64.0.0/10", "reddog.microsoft.com", "corp.example"]
        {
            if zone == domain || choices.below(2) == 0 {
                text += &block(&mut choices, zone, if zone.contains(' ') { "" } else { port });
            }
        }
        text += &block(&mut choices, ".", port);
        text += choices.maybe("import generated-config/*.server\n");
        if choices.below(3) == 0 {
            text =
                format!("(shared) {{\n    errors\n    log\n}}\n{}", text.replace("    loop\n", "    import shared\n"));
        }
        if choices.below(3) == 0 {
            text = text.replace('\n', "\r\n").replace("    ", "\t");
        }
        let filled = fill(&text, &values, &KubeDns::default()).unwrap();
        let file =
            parse(Path::new("Corefile"), &filled, &surroundings).unwrap_or_else(|error| panic!("{error}\n{filled}"));
        let hub = choices.below(2) == 0;
        let options = Options { hub, cluster_dns: values.cluster_dns, ..Options::default() };
        let Translation { yaml, .. } =
            translate(&file, &options).unwrap_or_else(|errors| panic!("seed {seed}: {errors:?}\n{filled}"));
        let yaml = if hub { format!("{yaml}source: {{manifests: {{path: x}}}}\n") } else { yaml };
        // Loading takes most of the time.
        if seed % 25 > 0 {
            continue;
        }
        let loaded = config::load_str(Role::Agent, (Path::new("Corefile"), &yaml), &Flags::default(), |_| None);
        if let Err(errors) = loaded {
            panic!("seed {seed}: {errors}\n{yaml}\n{filled}");
        }
    }
}
