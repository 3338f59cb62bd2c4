//! Each option of each plugin that is read: what it becomes, and docs/corefile.md, which is made from it.

use std::{fmt::Write as _, path::Path};

use super::*;
use crate::config::{self, Flags, Role};

/// Lines of a block, the settings they become (`zone` settings without their indent), and what is told of them: with `!` if
/// answers differ, with `=` if nothing does.
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
    ("forward . 10.0.0.1 {\n resolver 10.0.0.2\n}", &["upstreams: [10.0.0.1]", "resolvers: [10.0.0.2]"], &[]),
    (
        "forward . 10.0.0.1 dns.example {\n resolver 10.0.0.2\n}",
        &["upstreams: [10.0.0.1, dns.example]", "resolvers: [10.0.0.2]"],
        &[],
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
        "forward . tls://10.0.0.1 {\n tls /etc/tls.crt /etc/tls.key /etc/ca.crt\n}",
        &["tls_certificate: /etc/tls.crt", "tls_key: /etc/tls.key", "tls_ca: /etc/ca.crt"],
        &[],
    ),
    (
        "forward . tls://10.0.0.1 {\n tls /etc/tls.crt /etc/tls.key\n}",
        &["tls_certificate: /etc/tls.crt", "tls_key: /etc/tls.key"],
        &[],
    ),
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
        &["client_timeout: 400ms", "stale_ttl: 30s", "hold 3600s"],
        &["cache serve_stale"],
    ),
    ("cache {\n serve_stale 0s\n}", &["serve_stale: false"], &[]),
    ("cache {\n servfail 0\n}", &["failure_ttl: 0s"], &[]),
    ("cache {\n disable denial\n}", &["cache_negative: false"], &[]),
    ("cache {\n disable success a.example\n}", &["zone: a.example", "cache_positive: false"], &[]),
    ("cache {\n keepttl\n}", &["keep_ttl: true"], &[]),
    ("rewrite name exact Old.example new.example", &["exact old.example new.example", "rewrite_zones: [.]"], &[]),
    ("rewrite name prefix a- b-", &[r"regex ^a-(.*)$ b-{1}"], &[]),
    ("rewrite name suffix .a.example .b.example", &["a", ".example", "{1}.b.example."], &[]),
    ("rewrite name substring .a. .b.", &["{1}.b.{2}"], &[]),
    (
        "rewrite continue {\n name regex (.*)[.]a {1}.b\n answer name (.*)[.]b {1}.a\n}",
        &["continue regex (.*)[.]a {1}.b answer name (.*)[.]b {1}.a"],
        &[],
    ),
    ("rewrite name suffix .a .b answer auto", &["{1}.b."], &[]),
    ("rewrite type HINFO TXT", &["type HINFO TXT"], &[]),
    ("rewrite ttl suffix .a.example 10-60", &["ttl ", "example", "$ 10-60"], &[]),
    ("rewrite ttl a.example 30", &["ttl ^a", "$ 30"], &[]),
    ("rewrite continue rcode regex (.*) SERVFAIL NXDOMAIN", &["continue rcode (.*) servfail nxdomain"], &[]),
    ("rewrite cname exact a.example b.example", &["cname ^a", "$ b.example."], &[]),
    ("rewrite class CH IN", &["class CH IN"], &[]),
    ("rewrite continue edns0 local set 0xffee 0x61", &["65518 0x61"], &[]),
    ("rewrite edns0 nsid set\nrewrite name a b", &["edns: [3]"], &["rewrite"]),
    ("rewrite edns0 local replace 0xffee abc", &[], &["rewrite edns0="]),
    ("rewrite edns0 local set 0xffee {client_ip}", &["65518 {client_ip}"], &[]),
    ("rewrite edns0 local set 0xffee {server_port} revert", &["65518 {server_port}"], &[]),
    ("rewrite edns0 local set 0xffee {kubernetes/client-namespace}", &[], &["rewrite edns0!"]),
    ("rewrite edns0 subnet set 24 56", &["subnet 24 56"], &[]),
    ("rewrite rcode a.example NOTIMP 9", &["notimp notauth"], &[]),
    (
        "template IN ANY a.example {\n rcode NXDOMAIN\n ederror 15 blocked\n}",
        &["zone: a.example", "rcode NXDOMAIN", "ederror 15 blocked"],
        &[],
    ),
    ("template IN A a.example {\n answer \"{{ .Name }} 60 IN A 10.0.0.9\"\n ederror 15\n}", &[], &["template ederror"]),
    (
        "template IN MX a.example {\n answer \"{{ .Name }} 60 IN MX 10 b.example.\"\n additional \"b.example. 60 IN A 10.0.0.9\"\n}",
        &["additional \\\"b.example. 60 IN A 10.0.0.9"],
        &[],
    ),
    ("template IN A a.example {\n answer \"{{ .Name }} 60 IN TXT {{ .Remote }}\"\n}", &["{{ .Remote }}"], &[]),
    (
        "template IN A a.example {\n answer \"{{ .Name }} 60 IN A {{ if .Meta `a/b` }}10.0.0.9{{ else }}10.0.0.8{{ end }}\"\n}",
        &["{{ else }}10.0.0.8"],
        &[],
    ),
    ("template CH TXT a.example {\n rcode NOTIMP\n}", &["TXT class CH rcode NOTIMP"], &[]),
    (
        "template IN A a.example {\n var ip client_ip()\n expr incidr(ip, '10.0.0.0/8')\n answer \"{{ .Name }} A {{ .Var.ip }}\"\n}",
        &["var ip client_ip() expr"],
        &[],
    ),
    ("template IN A a.example {\n var t now().Hour()\n answer \"{{ .Name }} A 10.0.0.9\"\n}", &[], &["template!"]),
    (
        "acl a.example {\n allow net 10.0.0.0/8\n block type A AAAA\n filter\n}",
        &["zone: a.example", "allow net 10.0.0.0/8", "block type A AAAA", "filter"],
        &[],
    ),
    ("acl {\n drop type * net 192.0.2.1\n}", &["drop net 192.0.2.1/32"], &[]),
    ("any", &["minimal_any: true"], &[]),
    ("dns64", &["64:ff9b::/96", "dns64_over_ipv4: false"], &[]),
    ("dns64 {\n prefix 64:ff9b:1::/96\n translate_all\n allow_ipv4\n}", &["64:ff9b:1::/96", "dns64_all: true"], &[]),
    (
        "hosts {\n 10.9.8.7 a.example\n ttl 60\n no_reverse\n fallthrough\n}",
        &["10.9.8.7 a.example", "hosts_ttl: 60s", "hosts_reverse: false"],
        &[],
    ),
    ("hosts {\n reload 5s\n fallthrough\n}", &["hosts_file: /etc/hosts"], &["hosts reload="]),
    ("log . {\n class error denial\n}", &["query_every: 1", "query_classes: [denial, error]"], &[]),
    ("log", &["query_every: 1"], &[]),
    ("errors {\n consolidate 5m \".* i/o timeout$\" warning\n}", &[], &["errors consolidate="]),
    ("errors {\n stacktrace\n}", &[], &["errors stacktrace="]),
    ("health :8080 {\n lameduck 20s\n}", &["0.0.0.0:8080"], &["health lameduck="]),
    ("bufsize 1232", &[], &[]),
    ("bufsize 512", &["udp_bytes_max: 512"], &[]),
    ("bufsize 4096", &[], &["bufsize="]),
    ("timeouts {\n read 5s\n write 10s\n idle 1m\n}", &["idle: 60s", "read: 5s", "write: 10s"], &[]),
    ("loadbalance", &["rotate: true"], &[]),
    (
        "loadbalance round_robin {\n prefer 10.0.0.0/8 fd00::/8\n}",
        &["rotate: true", "prefer: [10.0.0.0/8, fd00::/8]"],
        &[],
    ),
    ("loadbalance weighted /etc/weights {\n reload 5s\n}", &["weights_file: /etc/weights"], &["loadbalance reload="]),
    ("loadbalance {\n limit_answers 1\n}", &["rotate: true"], &["loadbalance limit_answers!"]),
    ("minimal", &[], &["minimal="]),
    ("dnstap /run/dnstap.sock full", &["dnstap: /run/dnstap.sock"], &[]),
    ("reload 15s 5s", &[], &["reload jitter="]),
    ("debug", &["filter: debug"], &[]),
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
        let mark = |weight| match weight {
            Weight::Answers => "!",
            Weight::Manner => "",
            Weight::Met => "=",
        };
        let name = |note: &Note| format!("{}{}", note.directive, mark(note.weight));
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
        "rewrite name a",
        "rewrite nothing a b",
        "rewrite type A NONSENSE",
        "rewrite ttl a.example 9-8",
        "rewrite rcode a.example NONSENSE NXDOMAIN",
        "rewrite cname a.example",
        "rewrite edns0 local",
        "rewrite edns0 local change 1 2",
        "rewrite edns0 local set 70000 a",
        "rewrite edns0 nsid set x",
        "rewrite edns0 local set 1 {nonsense}",
        "rewrite edns0 subnet set 33 56",
        "acl {\n refuse net 10.0.0.0/8\n}",
        "acl {\n block net 10.0.0.0/33\n}",
        "log . {\n class everything\n}",
        "template IN A a.example {\n ederror many\n}",
        "template IN A a.example {\n answer \"{{ nonsense }}\"\n}",
        "template IN A a.example {\n answer \"{{ if .Name }}\"\n}",
        "template IN A a.example {\n var len 1\n}",
        "template IN A a.example {\n expr 1 % 0\n}",
        "template IN A a.example {\n match (\n}",
        "template IN A a.example {\n match\n}",
        "template IN A a.example {\n rcode NONSENSE\n}",
        "template XX A a.example {\n rcode NXDOMAIN\n}",
        "rewrite class IN",
        "rewrite class IN XX",
        "rewrite edns0 local set 1 revert",
        "rewrite rcode a.example NOERROR 24",
        "dns64 10.0.0.0/8",
        "loadbalance best",
        "loadbalance round_robin x",
        "loadbalance weighted",
        "loadbalance weighted a b",
        "loadbalance weighted a {\n reload often\n}",
        "loadbalance {\n prefer 10.0.0.0/33\n}",
        "bufsize 511",
        "hosts {\n reload often\n}",
    ] {
        let text = format!(". {{\n{lines}\n}}\n");
        let file = parse(Path::new("Corefile"), &text, &Surroundings::NONE).unwrap();
        assert!(translate(&file, &Options::default()).is_err(), "{lines}");
    }
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The findings for some lines of a block.
fn findings(lines: &str) -> (String, Vec<Note>) {
    let forward = if lines.contains("forward") { "" } else { "forward . 10.0.0.1\n" };
    let text = format!(". {{\n{lines}\n{forward}}}\n");
    let file = parse(Path::new("Corefile"), &text, &Surroundings::NONE).unwrap();
    let Translation { yaml, notes, .. } = translate(&file, &Options::default()).unwrap();
    (yaml, notes)
}

/// The settings that some lines add to a block.
fn added(lines: &str) -> String {
    let (with, _) = findings(lines);
    let (without, _) = findings(if lines.starts_with("cache") { "cache" } else { "" });
    let trimmed = |line: &str| line.trim_start_matches(['-', ' ']).trim_end().to_owned();
    let before: Vec<String> = without.lines().map(trimmed).collect();
    let new: Vec<String> = with.lines().map(trimmed).filter(|line| !before.contains(line)).collect();
    if new.is_empty() { "–".into() } else { format!("`{}`", cell(&new.join("; "))) }
}

fn page() -> String {
    let mut page = String::from(
        "# Corefiles\n\nEvery plugin and option that is read, made from the code by a test. *Becomes* is the difference to the same block \
         without the line. What is **not honoured** changes answers: `holdfast import-corefile` ends with 1 for it, and \
         `holdfast node-cache` logs and counts it. What is done *otherwise* gives the same answers, and is told once. A remark \
         without a mark says why an option needs no setting. No option keeps a process from starting. Plugins stand in the order \
         of CoreDNS's plugin.cfg whatever their order in the file: dns64, any, rewrite, acl, cache, template, hosts, forward.\n\n",
    );
    page += "| in a block | becomes | remark |\n|---|---|---|\n";
    for (lines, ..) in CASES {
        let (_, notes) = findings(lines);
        let told: Vec<String> = notes
            .iter()
            .map(|note| {
                let mark = match note.weight {
                    Weight::Answers => format!("**not honoured**: {}: ", note.directive),
                    Weight::Manner => format!("*otherwise*: {}: ", note.directive),
                    Weight::Met => String::new(),
                };
                format!("{mark}{}", note.text)
            })
            .collect();
        let told = if told.is_empty() { "–".to_owned() } else { cell(&told.join("; ")) };
        let _ = writeln!(page, "| `{}` | {} | {told} |", cell(lines), added(lines));
    }
    page += "\n## Plugins without an effect\n\n| plugin | instead |\n|---|---|\n";
    for (list, weight) in [(&unhonoured::ANSWERS[..], "**not honoured**: "), (&unhonoured::MANNER[..], "")] {
        for (name, said) in list {
            let _ = writeln!(page, "| `{name}` | {weight}{said} |");
        }
    }
    page += DIFFERENCES;
    page
}

const DIFFERENCES: &str = "
## Where answers differ from CoreDNS on purpose

Eleven Corefiles of the shapes that are in use, with 205 questions each, were put to node-cache and CoreDNS 1.14.7; the answers are
kept in `tests/it/dropin/reference` and compared in every run. What differs is listed there by question, and is this:

- A CNAME that leaves its zone is looked up over the zone it leads to. A stub domain's server cannot speak for other names.
- REFUSED by every upstream is SERVFAIL to the client.
- Each record keeps its own TTL; CoreDNS gives all the shortest.
- Answers have the name that was asked for, also behind `rewrite name` without `answer auto`.
- `rewrite name prefix OLD- NEW-` renames; CoreDNS compares with `OLD-.`, which no name begins with.
- Behind `dns64`, an empty answer keeps its SOA, an answer with records has none, and a CNAME to a name that does not exist stays
  NXDOMAIN (RFC 6147, 5.1.2).
- ADDITIONAL of upstreams is left out, and AA is for names of the cluster alone.
- Options of EDNS go to upstreams by `rewrite edns0` alone: those of clients stay on the node. As in CoreDNS, answers to
  questions with a client's address are kept for all clients.
- `template` may take 20,000 steps and make 16 KiB of text for one answer; beyond, the answer is SERVFAIL, with the reason as an
  extended error. Expressions of `var` and `expr` are checked for their types when they are worked out.
- A code that `rewrite rcode` gives in place of another has no records with it, unless it is NXDOMAIN or NOERROR.
- Questions of other classes than IN are refused where no `rewrite class` and no `template` names their class; `ANY` names none.
- A file of `loadbalance weighted` with a wrong line is a warning, and so is one that is missing: the old weights stay.
";

#[test]
fn the_page_of_corefiles_is_what_the_code_does() {
    let (page, path) = (page(), concat!(env!("CARGO_MANIFEST_DIR"), "/docs/corefile.md"));
    if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let known = std::fs::read_to_string(path).unwrap_or_default();
    assert!(known == page, "docs/corefile.md is not what the code does; HOLDFAST_UPDATE_DOCS=1 writes it");
}
