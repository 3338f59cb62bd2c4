//! Who may speak for a name: the upstreams of its own zone, and nobody else, whatever comes along with an answer.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::{
    dns::{AnswerConfig, forward::Config},
    zone as rules,
};

use super::world::{World, asked_for, cluster, no_records, own_cluster, source, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, cname};

const FORGED: [u8; 4] = [203, 0, 113, 66];

/// What the upstream of a.corp.example would like to speak for, by the first label of what it is asked, and what is true:
/// a public name, the cluster, another stub zone, a sibling zone, the zone above, its own zone's namesake elsewhere.
const TARGETS: [(&str, &str, &str); 6] = [
    ("public", "www.bank.example", "192.0.2.1"),
    ("cluster", "db.default.svc.cluster.local", "10.96.0.9"),
    ("stub", "www.stub.example", "10.9.9.9"),
    ("sibling", "www.b.corp.example", "10.8.8.8"),
    ("above", "www.corp.example", "10.7.7.7"),
    ("namesake", "a.corp.example.org", "192.0.2.1"),
];

/// Answers whatever it is asked with a CNAME to its target and forged addresses for every target, in every section.
fn lie(asked: &Asked) -> Vec<Say> {
    let owner = asked.name();
    let mut reply = asked.reply(ResponseCode::NoError);
    match TARGETS.iter().find(|(label, ..)| owner.split('.').next() == Some(label)) {
        Some((_, target, _)) => reply.answers = vec![cname(&owner, 60, target), a(target, 60, FORGED)],
        None => reply.answers = vec![a(&owner, 60, [10, 0, 0, 1])],
    }
    for (_, target, _) in TARGETS {
        reply.answers.push(a(target, 60, FORGED));
        reply.authorities.push(a(target, 60, FORGED));
        reply.additionals.push(a(target, 60, FORGED));
    }
    // Names of its own zone that nobody asked for.
    if owner != "other.a.corp.example" {
        reply.answers.push(a("other.a.corp.example", 60, FORGED));
    }
    reply.additionals.push(a("other.a.corp.example", 60, FORGED));
    vec![Say::message(&reply)]
}

#[tokio::test(start_paused = true)]
async fn nothing_forged_is_served_or_kept() {
    let evil = Upstream::start(|asked| lie(&asked)).await;
    let public = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let stub = Upstream::with_a(60, [10, 9, 9, 9]).await;
    let sibling = Upstream::with_a(60, [10, 8, 8, 8]).await;
    let above = Upstream::with_a(60, [10, 7, 7, 7]).await;
    let zones = vec![
        zone(".", &[&public]),
        zone("stub.example", &[&stub]),
        zone("corp.example", &[&above]),
        zone("a.corp.example", &[&evil]),
        zone("b.corp.example", &[&sibling]),
    ];
    let world = World::build(&Config { zones, ..Config::default() }, own_cluster());
    assert_eq!(world.a("honest.a.corp.example").await, "NoError 10.0.0.1", "what it may say is taken");
    for round in ["asked", "cached"] {
        for (label, target, truth) in TARGETS {
            let got = world.a(&format!("{label}.a.corp.example")).await;
            assert_eq!(got, format!("NoError {target}. {truth}"), "{label}, {round}");
        }
    }
    for (label, target, truth) in TARGETS.into_iter().filter(|(label, ..)| *label != "cluster") {
        assert_eq!(world.a(target).await, format!("NoError {truth}"), "{label}");
        assert!(world.at_hand(target, RecordType::A).is_some(), "{label} is kept from those who may speak for it");
        assert_eq!(asked_for(&evil, target), 0, "{label}");
    }
    // Its own siblings are its own to speak for, but only when it is asked.
    assert!(world.at_hand("other.a.corp.example", RecordType::A).is_none());
    assert_eq!(world.a("other.a.corp.example").await, "NoError 10.0.0.1");
    assert_eq!(asked_for(&evil, "other.a.corp.example"), 1);
    assert!(world.metrics.dropped_records.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn an_alias_of_the_cluster_that_leads_out_is_followed_and_not_overruled() {
    let upstream = Upstream::start(|asked| {
        let owner = asked.name();
        vec![match &*owner {
            "evil.example" => asked.found(vec![
                cname(&owner, 60, "away.default.svc.cluster.local"),
                a("away.default.svc.cluster.local", 60, FORGED),
            ]),
            _ => asked.found(vec![a(&owner, 60, [192, 0, 2, 1])]),
        }]
    })
    .await;
    let config = Config { zones: vec![zone(".", &[&upstream])], ..Config::default() };
    let world = World::build(
        &config,
        cluster(
            "namespace default\nexternal default/away www.example\n",
            0,
            AnswerConfig::default(),
            &rules::Config::default(),
        ),
    );
    let expect = "NoError away.default.svc.cluster.local. www.example. 192.0.2.1";
    assert_eq!(world.a("evil.example").await, expect);
    assert_eq!(asked_for(&upstream, "away.default.svc.cluster.local"), 0, "a name of ours does not leave the node");
}

#[tokio::test(start_paused = true)]
async fn before_there_are_records_no_upstream_speaks_for_the_cluster() {
    let upstream = Upstream::start(|asked| {
        vec![asked.found(vec![
            cname(&asked.name(), 60, "db.default.svc.cluster.local"),
            a("db.default.svc.cluster.local", 60, FORGED),
        ])]
    })
    .await;
    let fallback = Upstream::with_a(5, [10, 96, 0, 10]).await;
    let zones = vec![zone(".", &[&upstream])];
    for (cluster_fallback, expect) in [
        (Vec::new(), "ServFail ede=14"),
        (vec![source(&fallback.address.to_string())], "NoError db.default.svc.cluster.local. 10.96.0.10"),
    ] {
        let config = Config { zones: zones.clone(), cluster_fallback, ..Config::default() };
        let world = World::build(&config, no_records(!config.cluster_fallback.is_empty()));
        assert_eq!(world.a("evil.example").await, expect);
    }
    assert_eq!(asked_for(&upstream, "db.default.svc.cluster.local"), 0);
}
