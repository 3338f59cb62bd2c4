use super::{table::Described, types::Addr, *};
use crate::dns::cache::{Denials, HOLD};

const SOURCE: &str = "source: { manifests: { path: cluster.yaml } }\n";

fn read(text: &str) -> Result<Config, ConfigErrors> {
    let errors = Gather::new(Some(Path::new("f.yaml")));
    load_text(Role::Agent, text, &Flags::default(), |_| None, errors)
}

fn with_flags(text: &str, given: &[(&str, &[&str])]) -> Result<Config, ConfigErrors> {
    let given = given.iter().map(|(flag, values)| {
        let row =
            Settings::rows().iter().find(|row| row.setting.flag.is_some_and(|known| known.name == *flag)).unwrap();
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Given { key: row.setting.key, flag: row.setting.flag.unwrap().name, values }
    });
    let flags = Flags { file: None, given: given.collect() };
    load_text(Role::Agent, text, &flags, |_| None, Gather::new(Some(Path::new("f.yaml"))))
}

fn errors(outcome: Result<Config, ConfigErrors>) -> Vec<String> {
    outcome.expect_err("this is no configuration").0.iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_a_configuration() {
    let config = read(SOURCE).unwrap();
    assert_eq!(config.source, Source::Manifests("cluster.yaml".into()));
    assert_eq!(config.settings.listen, [Addr("127.0.0.1:53".parse().unwrap())]);
    assert_eq!(config.settings.forward.len(), 1);
    assert_eq!(config.settings.forward[0].upstreams, [UpstreamSource::ResolvConf("/etc/resolv.conf".into())]);
}

#[test]
fn the_example_of_the_documentation_is_a_configuration() {
    let page = include_str!("../../docs/config.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = read(example).unwrap();
    assert_eq!(config.settings.forward.len(), 2);
    assert_ne!(config.settings, read(SOURCE).unwrap().settings);
}

#[test]
fn shown_settings_read_back_as_the_same() {
    let page = include_str!("../../docs/config.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for text in [
        SOURCE,
        example,
        "source: {manifests: {path: x}}\nkeep: [registry.example]\nforward: [{zone: a, upstreams: 1.1.1.1, denials: hold 2h, reject: [0.0.0.0, 10.0.0.0/8], hosts: ['10.0.0.9 b.a c.a'], rewrite: ['suffix x.a y.a', 'continue regex ^(.*)[.]b[.]$ {1}.c'], template: ['AAAA rcode NOERROR', 'A match ^x answer \"{{ .Name }} 60 IN A 10.0.0.1\" fallthrough'], hosts_reverse: false, dns64: '64:ff9b::/96'}]",
        "source: {kubernetes: {kubeconfig: in-cluster}}\nhttp: none\nlisten: '::1'",
    ] {
        let config = read(text).unwrap();
        let shown = config.to_yaml();
        assert_eq!(read(&shown).map_err(|errors| format!("{errors}\n{shown}")).unwrap(), config, "{shown}");
    }
}

#[test]
fn all_errors_are_reported_at_once_with_their_places() {
    let text = "\
ttl: 5 seconds
lisen: [127.0.0.1]
listen: [127.0.0.1:53, localhost]
path: x
store: { paht: /x, max: 1 }
cache: 64MiB
forward:
  - upstreams: [1.1.1.1, dns..example]
  - { zone: a..b, upstreams: [] }
pods: verified
reverse: 10.96.0.1/12
stale_after: 1s
log: { filter: 'a=b=c' }
http:
";
    let expect = [
        "f.yaml: no source: give --manifests PATH, --kubeconfig FILE or --hub HOST:PORT, or `source` in the file \
         (a pod finds hubs and apiserver in its environment: check-config --offline)",
        "f.yaml:1:6: ttl: \"5 seconds\" is not a duration such as 250ms, 5s, 1m30s, 12h or 30d",
        "f.yaml:2:1: lisen: unknown key, did you mean \"listen\"?",
        "f.yaml:3:24: listen[1]: \"localhost\" is not an address such as 127.0.0.1:53 or [::1]:53; names are not looked up here",
        "f.yaml:4:1: path: unknown key here, did you mean source.manifests.path or store.path?",
        "f.yaml:5:10: store.paht: unknown key, did you mean \"path\"?",
        "f.yaml:5:20: store.max: unknown key, known here are path",
        "f.yaml:6:8: cache: expected a mapping of max_bytes, max_ttl, min_ttl, negative_ttl, serve_stale, client_timeout, \
         stale_max, confirm_negative, nxdomain_cut, save_interval, prefetch, found a single value",
        "f.yaml:8:5: forward[0]: \"zone\" is missing",
    ];
    let found = errors(read(text));
    assert_eq!(found[..expect.len()], expect, "{found:#?}");
    assert_eq!(found.len(), 16, "{found:#?}");
}

#[test]
fn bad_values_are_named_with_what_would_be_right() {
    for (line, expect) in [
        (
            "stale_after: 1s",
            "f.yaml:2:14: stale_after: \"1s\" is not within 20s and 30d (behind two hubs, records of a healthy cluster are up to 20s old)",
        ),
        ("ttl: 1500ms", "f.yaml:2:6: ttl: a TTL is in whole seconds (RFC 1035, 3.2.1)"),
        ("pods: verified", "f.yaml:2:7: pods: \"verified\" is not one of insecure, disabled"),
        ("pods: [insecure]", "f.yaml:2:7: pods: expected insecure, disabled, found a list"),
        ("zone: .", "f.yaml:2:7: zone: the cluster's zone cannot be the root"),
        ("listen: []", "f.yaml:2:9: listen: give at least one address, such as 127.0.0.1:53"),
        ("listen: [10.0.0.1:53, '[::]:53', 10.0.0.1]", "f.yaml:2:9: listen: 10.0.0.1:53 is given twice"),
        (
            "views: [{listen: [127.0.0.1], forward: [{zone: a., upstreams: [9.9.9.9]}]}]",
            "f.yaml:2:8: views: 127.0.0.1:53 is given twice",
        ),
        (
            "listen: [127.0.0.1:0, 127.0.0.1:0, 127.0.0.1:53, 0.0.0.0:53]",
            "f.yaml:2:9: listen: 0.0.0.0:53 and 127.0.0.1:53 are the same port of one address: give one of the two",
        ),
        ("ttl:", "f.yaml:2:4: ttl: expected duration, found nothing"),
        (
            "http: 8080",
            "f.yaml:2:7: http: \"8080\" is not an address such as 127.0.0.1:8080 or [::1]:8080; names are not looked up here",
        ),
        (
            "upstream: 127.0.0.1",
            "f.yaml:2:11: upstream: 127.0.0.1:53 is an address we listen on: questions would come back to us",
        ),
        ("cookies: maybe", "f.yaml:2:10: cookies: \"maybe\" is neither true nor false"),
        (
            "tcp: {max_connections: -1}",
            "f.yaml:2:24: tcp.max_connections: \"-1\" is not a whole number from 0 to 18446744073709551615",
        ),
        ("forward: [{zone: a.example, upstreams: []}]", "f.yaml:2:11: forward: zone \"a.example\" has no upstreams"),
        (
            "forward: [{zone: a.example, upstreams: [dns.example], resolvers: [dns.example]}]",
            "f.yaml:2:10: forward[0].resolvers: a resolver is an address or a resolv.conf, not a name",
        ),
        (
            "forward: [{zone: a.example, upstreams: ['tls://10.0.0.1'], tls_key: /key}]",
            "f.yaml:2:10: forward[0]: tls_certificate and tls_key go together: one of them is missing",
        ),
        ("- a", "f.yaml:2:3: not YAML: "),
    ] {
        let found = errors(read(&format!("{SOURCE}{line}\n")));
        assert!(found.len() == 1 && found[0].starts_with(expect), "{line}: {found:#?}");
    }
}

#[test]
fn lifetimes_are_those_of_the_cache_unless_a_zone_has_its_own() {
    let text = format!(
        "{SOURCE}cache: {{ max_ttl: 10m, min_ttl: 2s, nxdomain_cut: true, save_interval: 5m }}\nforward:\n\
         - {{ zone: ., upstreams: [9.9.9.9] }}\n\
         - {{ zone: corp.example, upstreams: [10.0.0.1], max_ttl: 1m, min_ttl: 3s, negative_ttl: 4s }}\n"
    );
    let config = read(&text).unwrap();
    let seconds = |zone: &crate::dns::forward::ZoneConfig| {
        let lifetimes = &zone.lifetimes;
        [lifetimes.max_ttl, lifetimes.min_ttl, lifetimes.negative_ttl].map(|time| time.as_secs())
    };
    let forward = config.forward();
    assert_eq!(forward.zones.iter().map(seconds).collect::<Vec<_>>(), [[600, 2, 30], [60, 3, 4]]);
    assert!(forward.zones.iter().all(|zone| zone.lifetimes.nxdomain_cut));
    assert_eq!(config.cache().save_interval.as_secs(), 300);
    let found = errors(read(&text.replace("min_ttl: 3s", "min_ttl: 2m")));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("forward[1].min_ttl: is above max_ttl"), "{found:?}");
}

#[test]
fn flags_win_over_the_file() {
    let text = "ttl: 30s\nlisten: [10.0.0.1]\nforward: [{zone: ., upstreams: [9.9.9.9]}]\nsource: {hub: {addresses: [hub.example]}}\n";
    let flags: &[(&str, &[&str])] = &[
        ("--listen", &["127.0.0.1:5353", "::1"]),
        ("--manifests", &["x.yaml"]),
        ("--upstream", &["1.1.1.1"]),
        ("--http", &["none"]),
    ];
    let config = with_flags(text, flags).unwrap();
    assert_eq!(config.settings.ttl.as_secs(), 30);
    assert_eq!(config.settings.listen.len(), 2);
    assert_eq!(config.source, Source::Manifests("x.yaml".into()));
    assert_eq!(config.settings.forward[0].upstreams, ["1.1.1.1".parse().unwrap()]);
    assert_eq!(config.settings.http, None);
    assert!(config.settings.source_hub_addresses.is_empty());
    let found = errors(with_flags(SOURCE, &[("--listen", &["x"])]));
    assert_eq!(
        found,
        ["--listen: \"x\" is not an address such as 127.0.0.1:53 or [::1]:53; names are not looked up here"]
    );
}

#[test]
fn there_is_exactly_one_source() {
    let two = "source:\n  manifests: {path: a}\n  kubernetes: {kubeconfig: b}\n";
    assert_eq!(
        errors(read(two)),
        ["f.yaml:3:28: source.kubernetes.kubeconfig: source.manifests.path is given too: records come from one source"]
    );
    let flags: &[(&str, &[&str])] = &[("--manifests", &["a"]), ("--kubeconfig", &["b"])];
    assert_eq!(errors(with_flags("", flags)), ["--kubeconfig: --manifests is given too: records come from one source"]);

    let environment = |wanted: &'static [(&'static str, &'static str)]| {
        move |name: &'static str| wanted.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let load = |environment| {
        load_text(Role::Agent, "tls: /x", &Flags::default(), environment, Gather::new(None)).map(|config| config.source)
    };
    let pod = environment(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]);
    assert_eq!(load(pod), Ok(Source::Kubernetes(None)));
    let beside_hub = environment(&[
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("HOLDFAST_HUB_SERVICE_HOST", "10.96.0.11"),
        ("HOLDFAST_HUB_SERVICE_PORT", "7000"),
    ]);
    let hub = HostPort { host: "10.96.0.11".into(), port: 7000 };
    assert_eq!(load(beside_hub), Ok(Source::Hub(vec![hub.clone()])));
    assert_eq!(source::hub_service(beside_hub), Some(hub), "by which hubs find each other");
}

#[test]
fn a_hub_takes_certificates() {
    let hub = "source: {hub: {addresses: [10.0.0.1]}}\n";
    assert_eq!(
        errors(read(hub)),
        ["f.yaml: tls: hub 10.0.0.1:7443 takes certificates: give --tls DIR (or --tls insecure on loopback)"]
    );
    assert_eq!(
        errors(read(&format!("{hub}tls: insecure\n"))),
        [
            "f.yaml:2:6: tls: insecure is for loopback only, and hub 10.0.0.1:7443 is not: give a directory of certificates"
        ]
    );
    assert!(read("source: {hub: {addresses: ['[::1]']}}\ntls: insecure\n").is_ok());
}

#[test]
fn a_reload_says_what_takes_a_restart() {
    let before = read(SOURCE).unwrap();
    let after = read(&format!("{SOURCE}log: {{filter: debug}}\nstore: {{path: none}}\n")).unwrap();
    let changes = before.changes(&after);
    assert_eq!((changes.reloaded, changes.restart), (vec!["log.filter"], vec!["store.path"]));
    assert_eq!(before.changes(&before), Changes::default());
}

#[test]
fn keys_and_flags_are_unique_and_documented() {
    fn check(rows: &[Described]) {
        for (index, row) in rows.iter().enumerate() {
            let same = |other: &Described| {
                let roles = [row.setting.role, other.setting.role];
                other.setting.key == row.setting.key && (roles[0] == roles[1] || roles.contains(&None))
            };
            assert!(!rows[..index].iter().any(same), "{}", row.setting.key);
            assert!(row.doc.trim().ends_with('.'), "{}: {}", row.setting.key, row.doc);
            check(&row.inner);
        }
    }
    check(&Settings::described());
}

#[test]
fn the_documentation_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    let page = std::fs::read_to_string(path).unwrap();
    if std::env::var_os("HOLDFAST_UPDATE_DOCS").is_some() {
        std::fs::write(path, doc::renewed(&page).unwrap()).unwrap();
        return;
    }
    doc::check(&page).unwrap_or_else(|drift| panic!("docs/config.md {drift}; HOLDFAST_UPDATE_DOCS=1 writes it"));
    for (from, to) in [("default `5s`", "default `6s`"), ("### `ttl`", "### `tll`"), (doc::END, ""), (doc::BEGIN, "")] {
        assert!(page.contains(from), "{from}");
        assert!(doc::check(&page.replacen(from, to, 1)).is_err(), "{from} became {to} and nobody noticed");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let flags = Flags { file: Some("/nonexistent/holdfast.yaml".into()), given: vec![] };
    let found = errors(load(Role::Agent, &flags, |_| None));
    assert_eq!(found, ["/nonexistent/holdfast.yaml: cannot be read: No such file or directory (os error 2)"]);
}

fn hub(text: &str, pod_ip: Option<&str>) -> Result<Config, ConfigErrors> {
    let environment = |name| pod_ip.filter(|_| name == "POD_IP").map(str::to_owned);
    load_text(Role::Hub, text, &Flags::default(), environment, Gather::new(Some(Path::new("f.yaml"))))
}

#[test]
fn a_hub_listens_for_streams_and_says_where_it_is_reached() {
    let config = hub(&format!("{SOURCE}tls: /tls"), Some("10.1.2.3")).unwrap();
    let stream = config.stream("hub-0");
    assert_eq!(stream.listen, ["0.0.0.0:7443".parse().unwrap()]);
    assert_eq!((stream.node.as_str(), stream.advertise), ("hub-0", vec!["10.1.2.3:7443".to_owned()]));
    assert_eq!(config.certificates(), Some("/tls".into()));
    let config = hub(&format!("{SOURCE}tls: insecure\nlisten: '::1'"), None).unwrap();
    assert_eq!(config.stream("").advertise, ["[::1]:7443"]);
    assert_eq!(config.certificates(), None);
    let shown = config.to_yaml();
    assert_eq!(hub(&shown, None).map_err(|errors| format!("{errors}\n{shown}")).unwrap(), config);
}

#[test]
fn a_hub_beyond_loopback_takes_certificates_and_none_of_an_agents_settings() {
    let missing = "tls: listening on 0.0.0.0:7443 takes certificates: give --tls DIR (or --tls insecure on loopback)";
    assert!(errors(hub(SOURCE, None))[0].ends_with(missing));
    let far = "insecure is for loopback only, and listening on 10.0.0.1:7443 is not: give a directory of certificates";
    assert!(errors(hub(&format!("{SOURCE}tls: insecure\nlisten: 10.0.0.1"), None))[0].ends_with(far));
    let other = errors(hub(&format!("{SOURCE}tls: /tls\nttl: 5s"), None));
    assert!(other[0].ends_with("ttl: this is a setting of the agent"), "{other:?}");
    assert!(
        errors(read("source: {manifests: {path: x}}\nadvertise: a:1"))[0].ends_with("this is a setting of the hub")
    );
}

#[test]
fn a_misspelt_log_level_is_refused_with_the_level_that_was_meant() {
    for (filter, problem) in [
        ("info", None),
        ("WARN,holdfast::dns=debug", None),
        ("off", None),
        ("infoo", Some("\"infoo\" is not a log level, did you mean \"info\"?")),
        (
            "info,hyper",
            Some(
                "\"hyper\" is not a log level: levels are off, error, warn, info, debug, trace; for one target: hyper=debug",
            ),
        ),
    ] {
        assert_eq!(log_filter_problem(filter).as_deref(), problem, "{filter}");
    }
    assert!(log_filter_problem("holdfast=loud").is_some_and(|told| told.contains("is not a log filter")));
}

#[test]
fn encrypted_dns_takes_a_build_that_has_it_and_a_certificate() {
    for (built, certificate, expected) in
        [(false, false, "is built without"), (false, true, "is built without"), (true, false, "takes a certificate")]
    {
        assert!(encrypted_refused(built, certificate).is_some_and(|told| told.contains(expected)), "{expected}");
    }
    assert_eq!(encrypted_refused(true, true), None);
    for (text, place) in
        [("encrypted: { quic: [127.0.0.1] }", "encrypted.quic"), ("encrypted: { tls: [::1] }", "encrypted.tls")]
    {
        let told = errors(read(&format!("{SOURCE}{text}")));
        assert!(told.iter().any(|told| told.contains(place) && told.contains("encrypted DNS")), "{told:?}");
    }
}

#[test]
fn denials_and_refused_addresses_of_a_zone_are_checked() {
    let of = |more: &str| read(&format!("{SOURCE}forward: [{{zone: ., upstreams: [9.9.9.9], {more}}}]\n"));
    for (more, expect) in [
        ("denials: hold 31d", "denials: \"hold 31d\" is not within hold 1s and hold 30d (a name that is gone must go)"),
        ("denials: never", "denials: \"never\" is not one of auto, believe, confirm, hold or hold DURATION"),
        ("reject: 10.0.0.1/8", "reject: "),
    ] {
        let found = errors(of(more));
        assert!(
            found.len() == 1
                && found[0].starts_with(&format!("f.yaml:2:{}: forward.{expect}", 43 + more.find(": ").unwrap() + 2)),
            "{found:?}"
        );
    }
    let zone = of("denials: hold, reject: [0.0.0.0, 10.0.0.0/8]").unwrap().forward().zones.remove(0);
    assert_eq!((zone.lifetimes.denials, zone.reject.len()), (Denials::Hold(HOLD), 2));
    let of = |zone: &str, more: &str| {
        let zone = format!("{SOURCE}zone: k8s.test\nforward: [{{zone: {zone}, upstreams: [9.9.9.9], {more}}}]\n");
        read(&zone).unwrap().forward().zones.remove(0).lifetimes.denials
    };
    assert_eq!(of("k8s.test", ""), Denials::Confirm, "services go and come");
    assert_eq!(of("svc.k8s.test", ""), Denials::Confirm);
    assert_eq!(of("svc.k8s.test", "denials: hold"), Denials::Hold(HOLD));
    assert_eq!([of("test", ""), of("10.in-addr.arpa", ""), of(".", "")], [Denials::Auto; 3]);
    let believed = read(&format!("{SOURCE}cache: {{confirm_negative: false}}\n")).unwrap().forward().zones.remove(0);
    assert_eq!(believed.lifetimes.denials, Denials::Believe);
}

#[test]
fn the_keep_list_ends_at_a_thousand_names() {
    let of = |many: usize| {
        let names = (0..many).fold(String::new(), |names, nth| names + &format!("  - n{nth}.example\n"));
        read(&format!("{SOURCE}keep:\n{names}"))
    };
    assert_eq!(of(1_000).unwrap().settings.keep.0.len(), 1_000);
    let told = "f.yaml:1003:5: keep[1000]: 1002 names, 1000 at most: this is the first beyond";
    assert_eq!(errors(of(1_002)), [told]);
}
