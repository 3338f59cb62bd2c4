//! `holdfast lookup` and DNS agree, whatever the configuration.

use std::sync::Arc;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::{
    dns::{
        AnswerConfig, Context, Question, Records, Rules, ServedFrom, Transport,
        forward::{Config, FixedAnswer, Host, Prefix, ZoneConfig},
        pins::{Pin, Pins},
    },
    sys::Clock,
    wire::Rtype,
    zone as rules,
};

use super::world::{NOW, World, cluster, no_records, query, source, zone};
use crate::{
    battery::{look, said, told},
    support::upstream::{Asked, Say, Upstream, a, cname, name},
};

const CLUSTER: &str = "
namespace prod
namespace default
service prod/web 10.96.1.1,fd00::1 http:80/tcp
headless prod/db pg:5432/tcp
endpoint prod/db 10.1.0.1 hostname=db-0 pg:5432/tcp
headless prod/empty
external prod/away www.example.org
external prod/home web.prod.svc.cluster.local
external prod/lost nothing.prod.svc.cluster.local
external prod/blocked x.blocked.example
external prod/pointer 1.1.96.10.in-addr.arpa
";
const NAMES: [&str; 36] = [
    "cluster.local",
    "svc.cluster.local",
    "dns-version.cluster.local",
    "ns.dns.cluster.local",
    "prod.svc.cluster.local",
    "web.prod.svc.cluster.local",
    "_http._tcp.web.prod.svc.cluster.local",
    "db.prod.svc.cluster.local",
    "db-0.db.prod.svc.cluster.local",
    "empty.prod.svc.cluster.local",
    "away.prod.svc.cluster.local",
    "home.prod.svc.cluster.local",
    "lost.prod.svc.cluster.local",
    "blocked.prod.svc.cluster.local",
    "pointer.prod.svc.cluster.local",
    "nothing.prod.svc.cluster.local",
    "10-1-2-3.prod.pod.cluster.local",
    "www.example.org.prod.svc.cluster.local",
    "gone.example.org.default.svc.cluster.local",
    "broken.example.org.default.svc.cluster.local",
    "printer.example.prod.svc.cluster.local",
    "x.blocked.example.prod.svc.cluster.local",
    "1.1.96.10.in-addr.arpa",
    "9.9.96.10.in-addr.arpa",
    "4.3.2.1.in-addr.arpa",
    "www.example.org",
    "alias.example.org",
    "into.example.org",
    "out.example.org",
    "gone.example.org",
    "broken.example.org",
    "printer.example",
    "old.example",
    "db.old.example",
    "x.blocked.example",
    "corp.example",
];
const TYPES: [Rtype; 8] =
    [Rtype::A, Rtype::A, Rtype::AAAA, Rtype::SRV, Rtype::TXT, Rtype::PTR, Rtype::CNAME, Rtype::ANY];

fn upstream_says(asked: &Asked) -> Vec<Say> {
    let owner = asked.name();
    let first = owner.split('.').next().unwrap_or_default();
    vec![match (first, asked.qtype()) {
        ("gone", _) => asked.nxdomain("."),
        ("broken", _) => asked.code(ResponseCode::ServFail),
        ("alias", _) => {
            asked.found(vec![cname(&owner, 600, "www.example.net"), a("www.example.net", 600, [192, 0, 2, 3])])
        }
        ("into", _) => asked.found(vec![cname(&owner, 600, "web.prod.svc.cluster.local")]),
        ("out", _) => asked.found(vec![cname(&owner, 600, "x.blocked.example")]),
        (_, RecordType::A) => asked.found(vec![a(&owner, 600, [192, 0, 2, 1])]),
        _ => asked.nodata("."),
    }]
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

fn configure(random: &mut Random, upstream: &Upstream) -> (Config, Arc<Context>, Pins) {
    let mut root = zone(".", &[upstream]);
    if random.coin() {
        let names = vec![name("printer.example")];
        root.hosts = vec![Host { address: "10.9.9.9".parse().unwrap(), names }];
    }
    if random.coin() {
        root.rewrites = vec![
            "exact old.example www.example.org".parse().unwrap(),
            "suffix db.old.example web.prod.svc.cluster.local".parse().unwrap(),
        ];
    }
    root.dns64 = random.coin().then_some(Prefix::WELL_KNOWN);
    let mut zones = vec![root];
    if random.coin() {
        let answer = [FixedAnswer::NoError, FixedAnswer::NxDomain, FixedAnswer::Refused, FixedAnswer::ServFail];
        let answer = Some(answer[random.below(4)]);
        zones.push(ZoneConfig { answer, upstreams: Vec::new(), ..zone("blocked.example", &[]) });
    }
    let fallback = random.coin();
    let cluster_fallback = if fallback { vec![source(&upstream.address.to_string())] } else { Vec::new() };
    let config = Config { zones, cluster_fallback, ..Config::default() };
    let answers = AnswerConfig {
        search_path_completion: random.coin(),
        forward_only: random.below(5) == 0,
        cluster_fallback: fallback,
        ..AnswerConfig::default()
    };
    let reverse = if random.coin() { vec!["10.96.0.0/16".parse().unwrap()] } else { Vec::new() };
    let records = if random.below(5) == 0 {
        no_records(fallback)
    } else {
        let age = if random.coin() { 5 } else { 600 };
        cluster(CLUSTER, age, answers, &rules::Config { reverse, ..rules::Config::default() })
    };
    let pins = Pins::default();
    if random.coin() {
        for pinned in ["web.prod.svc.cluster.local.", "www.example.org."] {
            let addresses = vec!["10.7.7.7".parse().unwrap()];
            let pin = Pin { name: pinned.into(), addresses, ttl: 5, since: NOW, until: None, reason: None };
            let _kept = pins.pin(pin, NOW).unwrap();
        }
    }
    let records = Arc::unwrap_or_clone(records).with_pins(pins.clone());
    (config, Arc::new(records), pins)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_random_questions_under_twenty_random_configurations() {
    let upstream = Upstream::start(|asked| upstream_says(&asked)).await;
    let mut random = Random(7);
    let (mut asked, mut wrong) = (0, Vec::new());
    for nth in 0..20 {
        let (config, records, pins) = configure(&mut random, &upstream);
        let world = World::build(&config, Arc::clone(&records));
        let clock = Clock::Manual(world.clock.clone());
        let inspect = |rules: &Rules, records: Records<'_>, question: &Question| {
            world.forwarder.inspect(rules, records, question)
        };
        for _ in 0..500 {
            let (owner, rtype) = (NAMES[random.below(NAMES.len())], TYPES[random.below(TYPES.len())]);
            let resolved = world.resolve(query(owner, RecordType::from(rtype.0), Some(1232)), Transport::Tcp).await;
            let message = Message::from_vec(&resolved.message).unwrap();
            let document = look(&records, &pins, &clock, (&owner.parse().unwrap(), rtype), &inspect);
            let failed = message.response_code == ResponseCode::ServFail && resolved.from == ServedFrom::Upstream;
            // The upstream failed, so that nothing of it is cached: the document says that it would be asked.
            let right = if failed { document.rcode.is_none() } else { said(&message) == told(&document) };
            let alone = resolved.from == ServedFrom::Cluster && document.sent.is_some();
            if !(right || alone && said(&message).1 == told(&document).1) {
                wrong.push(format!("{nth}: {owner} {rtype}:\n  {:?}\n  {:?}", said(&message), told(&document)));
            }
            asked += 1;
        }
    }
    assert_eq!(asked, 10_000);
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}
