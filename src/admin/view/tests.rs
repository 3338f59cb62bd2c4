use std::sync::Arc;

use super::*;
use crate::{
    dns::{
        AnswerConfig, Records, Rules,
        forward::{Config, FixedAnswer, Names, ZoneConfig, parse_host},
    },
    record::{Change, Endpoint, Kind, Port, Protocol, Service, ServiceKey},
    report::ZoneRule,
    store::Rejections,
    zone::Zone,
};

const NOW: UnixMillis = UnixMillis(1_733_941_800_000);

fn port(name: &str, port: u16) -> Port {
    Port { name: name.into(), protocol: Protocol::Tcp, port }
}

fn put(key: &str, kind: Kind, ports: &[Port], endpoints: &[(&str, Option<&str>, bool)]) -> Change {
    let (namespace, name) = key.split_once('/').unwrap();
    let endpoint = |(ip, hostname, ready): &(&str, Option<&str>, bool)| Endpoint {
        ip: ip.parse().unwrap(),
        hostname: hostname.map(Into::into),
        ports: ports.into(),
        ready: *ready,
    };
    let endpoints = endpoints.iter().map(endpoint).collect();
    Change::Put(Arc::new(Service::new(ServiceKey::new(namespace, name), kind, ports.to_vec(), endpoints)))
}

fn snapshot() -> Snapshot {
    let ip = |ip: &str| Kind::ClusterIp([ip.parse().unwrap()].into());
    let version = Version { cluster: "uid".into(), epoch: 1, rev: 42 };
    let endpoints: &[(&str, Option<&str>, bool)] =
        &[("10.1.0.1", Some("db-0"), true), ("10.1.0.2", Some("db-1"), true), ("10.1.0.3", Some("db-2"), false)];
    let changes = [
        Change::PutNamespace("empty".into()),
        put("prod/web", ip("10.96.0.1"), &[port("http", 80)], &[]),
        put("prod/db", Kind::Headless, &[port("pg", 5432)], endpoints),
        put("prod/idle", Kind::Headless, &[], &[("10.1.0.9", None, false)]),
        put("prod/ext", Kind::ExternalName("db.example.com".into()), &[], &[]),
        put("prod/inner", Kind::ExternalName("web.prod.svc.cluster.local".into()), &[], &[]),
        put("prod/lost", Kind::ExternalName("nothing.prod.svc.cluster.local".into()), &[], &[]),
    ];
    Snapshot::default().apply(changes, version)
}

fn freshness(age: u64) -> Freshness {
    Freshness { as_of: Some(UnixMillis(NOW.0 - age * 1000)), source: SourceState::Up }
}

fn ask(name: &str, rtype: Option<&str>, age: u64) -> Lookup {
    let (snapshot, freshness) = (snapshot(), freshness(age));
    let question = Question { name: name.into(), rtype: rtype.map(|rtype| rtype.parse().unwrap()), namespace: None };
    look(&snapshot, &freshness, &question).unwrap()
}

fn look(snapshot: &Snapshot, freshness: &Freshness, question: &Question) -> Result<Lookup, String> {
    look_with(&Names::default(), snapshot, freshness, question)
}

fn look_with(names: &Names, snapshot: &Snapshot, freshness: &Freshness, question: &Question) -> Result<Lookup, String> {
    let rules = Rules::new(zone(), AnswerConfig::default());
    let inspect =
        |rules: &Rules, records: Records<'_>, question: &crate::dns::Question| names.inspect(rules, records, question);
    lookup(&rules, &moment(snapshot, freshness), question, &inspect)
}

fn zone() -> Zone {
    Zone::new(&zone::Config { name_servers: vec!["127.0.0.1".parse().unwrap()], ..zone::Config::default() })
}

static NOTHING_PINNED: std::sync::LazyLock<PinSet> = std::sync::LazyLock::new(PinSet::default);
static NOTHING_HELD: std::sync::LazyLock<Held> = std::sync::LazyLock::new(Held::default);

fn moment<'a>(snapshot: &'a Snapshot, freshness: &'a Freshness) -> RecordsView<'a> {
    RecordsView {
        snapshot,
        held: &NOTHING_HELD,
        pins: &NOTHING_PINNED,
        freshness,
        source: Some("a test"),
        lost_since: None,
        stale_after: Duration::from_secs(60),
        now: NOW,
    }
}

#[test]
fn a_lookup_says_what_is_answered_and_why() {
    let cases = [
        (
            "db.prod",
            "db.prod.svc.cluster.local. 5 IN A 10.1.0.1; db.prod.svc.cluster.local. 5 IN A 10.1.0.2",
            "headless service prod/db: 2 of 3 endpoints are ready",
        ),
        ("web.prod.svc", "web.prod.svc.cluster.local. 5 IN A 10.96.0.1", "service prod/web has a cluster IP"),
        (
            "WEB.prod.svc.Cluster.Local",
            "web.prod.svc.cluster.local. 5 IN A 10.96.0.1",
            "service prod/web has a cluster IP",
        ),
        (
            "_http._tcp.web.prod",
            "_http._tcp.web.prod.svc.cluster.local. 5 IN SRV 0 100 80 web.prod.svc.cluster.local.",
            "port http of service prod/web",
        ),
        (
            "db-0.db.prod",
            "db-0.db.prod.svc.cluster.local. 5 IN A 10.1.0.1",
            "endpoint db-0 of headless service prod/db is ready",
        ),
        (
            "ext.prod",
            "ext.prod.svc.cluster.local. 5 IN CNAME db.example.com.",
            "service prod/ext is an alias (ExternalName) of db.example.com",
        ),
        (
            "inner.prod",
            "inner.prod.svc.cluster.local. 5 IN CNAME web.prod.svc.cluster.local.; \
             web.prod.svc.cluster.local. 5 IN A 10.96.0.1",
            "service prod/inner is an alias (ExternalName) of web.prod.svc.cluster.local",
        ),
        (
            "10.96.0.1",
            "1.0.96.10.in-addr.arpa. 5 IN PTR web.prod.svc.cluster.local.",
            "a service or a ready endpoint has this address",
        ),
        (
            "10-9-8-7.prod.pod",
            "10-9-8-7.prod.pod.cluster.local. 5 IN A 10.9.8.7",
            "the address is spelled in the name; pods are not looked at (pods: insecure)",
        ),
        (
            "dns-version.cluster.local",
            "dns-version.cluster.local. 28800 IN TXT \"1.1.0\"",
            "the version of the DNS specification that is followed",
        ),
    ];
    for (name, records, why) in cases {
        let found = ask(name, None, 0);
        let answers: Vec<String> =
            found.answers.iter().flat_map(|answer| &answer.answer).map(ToString::to_string).collect();
        let mut unique = answers.clone();
        unique.dedup();
        // An alias answers A and AAAA alike.
        let shown: Vec<String> = unique
            .iter()
            .enumerate()
            .filter(|(at, line)| !unique[..*at].contains(line))
            .map(|(_, line)| line.clone())
            .collect();
        assert_eq!(shown.join("; "), records, "{name}");
        assert_eq!(found.why, why, "{name}");
        assert!(found.found, "{name}");
    }
}

#[test]
fn a_name_without_an_answer_says_what_was_probably_meant() {
    let cases = [
        ("bd.prod", Outcome::NoSuchName, "there is no service \"bd\" in namespace prod, did you mean \"db\"?"),
        ("db.prdo", Outcome::NoSuchName, "there is no namespace \"prdo\", did you mean \"prod\"?"),
        ("db", Outcome::NoSuchName, "there is no namespace \"db\", did you mean service \"db.prod\"?"),
        ("db.elsewhere.svc.cluster.local", Outcome::NoSuchName, "there is no namespace \"elsewhere\""),
        ("db.elsewhere", Outcome::Forwarded, "not a name of cluster.local.: upstreams are asked"),
        (
            "idle.prod",
            Outcome::NoSuchName,
            "headless service prod/idle has no ready endpoint (0 of 1), so its name does not exist",
        ),
        ("db-2.db.prod", Outcome::NoSuchName, "endpoint db-2 of headless service prod/db is not ready"),
        (
            "db-9.db.prod",
            Outcome::NoSuchName,
            "headless service prod/db has no endpoint \"db-9\", did you mean \"db-0\"?",
        ),
        (
            "_htp._tcp.web.prod",
            Outcome::NoSuchName,
            "service prod/web has no port named \"htp\", did you mean \"http\"?",
        ),
        (
            "_tcp.web.prod.svc.cluster.local",
            Outcome::NoData,
            "names of the ports of service prod/web are below this name",
        ),
        ("prod.svc.cluster.local", Outcome::NoData, "namespace prod exists; names of its services are below this name"),
        (
            "lost.prod",
            Outcome::NoSuchName,
            "service prod/lost is an alias (ExternalName) of nothing.prod.svc.cluster.local",
        ),
        ("www.example.com.", Outcome::Forwarded, "not a name of cluster.local.: upstreams are asked"),
        (".", Outcome::Forwarded, "not a name of cluster.local.: upstreams are asked"),
        ("192.0.2.1", Outcome::Forwarded, "no known service or endpoint has this address: upstreams are asked"),
        (
            "300-1-2-3.prod.pod.cluster.local",
            Outcome::NoSuchName,
            "names of pods are switched off (pods: disabled), or this spells no address",
        ),
    ];
    for (name, outcome, why) in cases {
        let missed = ask(name, None, 0);
        assert_eq!((missed.answers[0].outcome, missed.why.as_str(), missed.found), (outcome, why, false), "{name}");
    }
}

#[test]
fn a_name_is_completed_as_by_a_resolver_and_what_was_tried_is_told() {
    let found = ask("web.prod.svc", None, 0);
    assert_eq!(found.tried.len(), 1);
    assert_eq!(found.tried[0].name, "web.prod.svc.svc.cluster.local.");
    let missed = ask("bd.prod", None, 0);
    let tried: Vec<&str> = missed.tried.iter().map(|tried| tried.name.as_str()).collect();
    assert_eq!(tried, ["bd.prod.cluster.local.", "bd.prod."]);
    let (snapshot, freshness) = (snapshot(), freshness(0));
    let question = Question { name: "web".into(), rtype: None, namespace: Some("prod".into()) };
    let found = look(&snapshot, &freshness, &question).unwrap();
    assert_eq!((found.found, found.name.as_str()), (true, "web.prod.svc.cluster.local."));
    for name in ["", "a..b", &"x".repeat(64)] {
        let question = Question { name: name.into(), ..Question::default() };
        assert!(look(&snapshot, &freshness, &question).is_err(), "{name:?}");
    }
}

#[test]
fn a_name_outside_is_the_headline_unless_one_in_the_cluster_was_meant() {
    let outside = ask("example.com", None, 0);
    assert_eq!((outside.name.as_str(), outside.answers[0].outcome), ("example.com.", Outcome::Forwarded));
    assert_eq!(outside.why, "not a name of cluster.local.: upstreams are asked");
    assert_eq!(outside.goes_on, None);
    let meant = ask("db.prdo", None, 0);
    assert_eq!((meant.name.as_str(), meant.answers[0].outcome), ("db.prdo.svc.cluster.local.", Outcome::NoSuchName));
    assert_eq!(meant.goes_on.unwrap().name, "db.prdo.", "the resolver of a pod goes on to upstreams");
    for (given, name) in
        [("prod/web", "web.prod.svc.cluster.local."), ("http://web.prod:8080/x", "web.prod.svc.cluster.local.")]
    {
        assert_eq!((ask(given, None, 0).name.as_str(), ask(given, None, 0).found), (name, true), "{given}");
    }
}

#[test]
fn a_name_that_the_configuration_answers_says_by_which_rule() {
    let templates = [
        r#"A match ^printer[0-9]+[.] answer "{{ .Name }} 60 IN A 10.4.0.2" fallthrough"#,
        "ANY match ^gone[.] rcode NXDOMAIN fallthrough",
        "AAAA match ^bare[.] fallthrough",
    ];
    let zone = |name: &str| ZoneConfig { zone: name.parse().unwrap(), ..ZoneConfig::default() };
    let names = Names::new(&Config {
        zones: vec![
            ZoneConfig {
                templates: templates.map(|text| text.parse().unwrap()).to_vec(),
                hosts: vec![parse_host("10.4.0.1 registry.example").unwrap()],
                ..zone(".")
            },
            ZoneConfig { answer: Some(FixedAnswer::Refused), ..zone("blocked.example.") },
            ZoneConfig { answer: Some(FixedAnswer::NoError), ..zone("empty.example.") },
        ],
        ..Config::default()
    });
    let (snapshot, freshness) = (snapshot(), freshness(0));
    let why = |name: &str, rtype: Option<&str>| {
        let question =
            Question { name: name.into(), rtype: rtype.map(|rtype| rtype.parse().unwrap()), namespace: None };
        let found = look_with(&names, &snapshot, &freshness, &question).unwrap();
        (found.answers[0].rule, found.why)
    };
    let cases = [
        ("registry.example.", None, Some(ZoneRule::Hosts), "hosts of the configuration have this name"),
        (
            "registry.example.",
            Some("AAAA"),
            Some(ZoneRule::Hosts),
            "hosts of the configuration have this name, without such records",
        ),
        ("printer7.example.", None, Some(ZoneRule::Template), "a template of the configuration answers this name"),
        (
            "gone.example.",
            None,
            Some(ZoneRule::Template),
            "a template of the configuration answers this name with NXDOMAIN",
        ),
        (
            "bare.example.",
            Some("AAAA"),
            Some(ZoneRule::Template),
            "a template of the configuration answers this name with NOERROR",
        ),
        (
            "x.blocked.example.",
            None,
            Some(ZoneRule::Answer),
            "a fixed answer of the configuration: every name of its forward zone is answered REFUSED",
        ),
        (
            "x.empty.example.",
            None,
            Some(ZoneRule::Answer),
            "a fixed answer of the configuration: every name of its forward zone is answered NOERROR",
        ),
        ("other.example.", None, None, "not a name of cluster.local.: upstreams are asked"),
    ];
    for (name, rtype, rule, text) in cases {
        assert_eq!(why(name, rtype), (rule, text.to_owned()), "{name}");
    }
    assert_eq!(ask("_dns.resolver.arpa", None, 0).why, "clients find encrypted DNS by this name (RFC 9462)");
}

#[test]
fn names_of_namespaces_that_a_dump_left_out_are_not_known() {
    let partial = snapshot().apply(
        [
            Change::PutNamespace(crate::record::PARTIAL.into()),
            put("prod/far", Kind::ExternalName("web.elsewhere.svc.cluster.local".into()), &[], &[]),
        ],
        Version { cluster: "uid".into(), epoch: 1, rev: 43 },
    );
    let look = |name: &str| {
        let question = Question { name: name.into(), ..Question::default() };
        look(&partial, &freshness(0), &question).unwrap()
    };
    let unknown = look("web.elsewhere.svc.cluster.local");
    assert_eq!(unknown.answers[0].outcome, Outcome::NotReady);
    assert_eq!(unknown.why, "namespace \"elsewhere\" is not known: the records come from a dump of empty, prod only");
    assert_eq!(look("far.prod").answers[0].outcome, Outcome::NotReady, "an alias to a name that is not known");
    assert_eq!(look("nope.prod.svc.cluster.local").answers[0].outcome, Outcome::NoSuchName);
    let freshness = freshness(0);
    let status = status(&moment(&partial, &freshness), &zone::Config::default(), None, None, Rejections::default());
    assert_eq!(status.known_namespaces, Some(vec!["empty".into(), "prod".into()]));
    assert_eq!(status.serving.namespaces, 2);
    assert!(Dump::of(&moment(&partial, &freshness), &zone::Config::default(), None).holdfast.partial);
}

#[test]
fn negative_answers_have_the_soa_and_services_their_additional_addresses() {
    let missed = ask("bd.prod", Some("A"), 0);
    assert_eq!(missed.answers[0].rcode.as_deref(), Some("NXDOMAIN"));
    assert!(missed.answers[0].authority[0].to_string().starts_with("cluster.local. 5 IN SOA ns.dns.cluster.local. "));
    let srv = ask("db.prod", Some("SRV"), 0);
    let additional: Vec<String> = srv.answers[0].additional.iter().map(ToString::to_string).collect();
    assert_eq!(
        additional,
        ["db-0.db.prod.svc.cluster.local. 5 IN A 10.1.0.1", "db-1.db.prod.svc.cluster.local. 5 IN A 10.1.0.2"]
    );
    let any = ask("web.prod", Some("any"), 0);
    assert_eq!(any.answers[0].answer[0].to_string(), "web.prod.svc.cluster.local. 5 IN HINFO \"RFC8482\" \"\"");
}

#[test]
fn old_records_say_so() {
    let fresh = ask("dns-version.cluster.local", None, 60);
    assert_eq!((fresh.source.stale, &fresh.answers[0].extended_error), (false, &None));
    let stale = ask("dns-version.cluster.local", None, 61);
    assert_eq!(stale.answers[0].extended_error.as_deref(), Some("3 (Stale Answer)"));
    assert_eq!(stale.answers[0].answer[0].ttl, 30);
    assert_eq!((stale.source.stale, stale.source.age().as_deref()), (true, Some("1m1s")));
}

#[test]
fn before_the_first_list_nothing_is_said_not_to_exist() {
    let (snapshot, freshness) = (Snapshot::default(), Freshness::default());
    let question = Question { name: "web.prod".into(), ..Question::default() };
    let missed = look(&snapshot, &freshness, &question).unwrap();
    assert_eq!(missed.answers[0].outcome, Outcome::NotReady);
    assert_eq!(missed.answers[0].extended_error.as_deref(), Some("14 (Not Ready)"));
    assert_eq!(missed.why, "there are no records: none on disk, and none from the source yet");
}

#[test]
fn a_status_reads_back_as_it_was() {
    let (snapshot, freshness) = (snapshot(), freshness(3 * 86_400));
    let status = status(&moment(&snapshot, &freshness), &zone::Config::default(), None, None, Rejections::default());
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    assert_eq!(status.serving.services, 6);
    assert_eq!(status.source.age_seconds, Some(3 * 86_400));
}

#[test]
fn a_dump_holds_everything_or_one_namespace() {
    let (snapshot, freshness) = (snapshot(), freshness(0));
    let all = Dump::of(&moment(&snapshot, &freshness), &zone::Config::default(), None);
    assert!(all.items.len() > 7);
    assert_eq!(serde_json::from_str::<Dump>(&serde_json::to_string(&all).unwrap()).unwrap(), all);
    let one = Dump::of(&moment(&snapshot, &freshness), &zone::Config::default(), Some("empty"));
    assert_eq!(one.items.len(), 1);
    assert_eq!(all.holdfast.zone.config().zone, zone::Config::default().zone);
}
