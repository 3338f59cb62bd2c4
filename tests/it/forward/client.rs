//! What a client gets, whatever it can take.

use hickory_proto::{op::Message, rr::RecordType};
use holdfast::dns::{
    AnswerConfig, Resolve, Transport,
    forward::{Config, ZoneConfig},
};

use tokio::time::Instant;

use super::world::{World, cluster, no_records, own_cluster, query, short, source, zone};
use crate::support::upstream::{Upstream, a, cname, name};

#[tokio::test(start_paused = true)]
async fn id_question_case_and_flags_are_the_clients_own() {
    let upstream = Upstream::start(|asked| {
        let mut reply = Message::from_vec(&asked.found(vec![a(&asked.name(), 60, [192, 0, 2, 1])]).bytes()).unwrap();
        reply.metadata.authoritative = true;
        vec![crate::support::upstream::Say::message(&reply)]
    })
    .await;
    let world = World::new(&[&upstream]);
    let resolved = world.resolve(query("WwW.eXample.org", RecordType::A, None), Transport::Udp).await;
    let reply = Message::from_vec(&resolved.message).unwrap();
    assert_eq!(reply.id, 0x4242);
    assert!(reply.queries[0].name().eq_case(&name("WwW.eXample.org")), "question in the client's case");
    assert!(reply.answers[0].name.eq_case(&name("WwW.eXample.org")), "owner in the client's case");
    assert!(!reply.authoritative, "AA is never set");
    assert!(reply.recursion_available && reply.recursion_desired);
    assert!(reply.edns.is_none(), "no OPT for a client without");
    assert!(upstream.seen()[0].message.edns.is_some(), "EDNS towards the upstream");
}

#[tokio::test(start_paused = true)]
async fn an_opt_is_there_if_and_only_if_the_client_had_one() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let world = World::new(&[&upstream]);
    for payload in [None, Some(512), Some(4096)] {
        let resolved = world.resolve(query("a.example", RecordType::A, payload), Transport::Udp).await;
        let reply = Message::from_vec(&resolved.message).unwrap();
        assert_eq!(reply.edns.is_some(), payload.is_some(), "{payload:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_large_for_the_client_is_truncated_and_whole_over_tcp() {
    let upstream = Upstream::start(|asked| {
        let answers = (0..60).map(|last| a(&asked.name(), 60, [192, 0, 2, last])).collect();
        if asked.tcp {
            vec![asked.found(answers)]
        } else {
            let mut cut = asked.reply(hickory_proto::op::ResponseCode::NoError);
            cut.metadata.truncation = true;
            vec![crate::support::upstream::Say::message(&cut)]
        }
    })
    .await;
    let world = World::new(&[&upstream]);
    for (payload, limit, cut) in [(None, 512, true), (Some(900), 900, true), (Some(4096), 1232, false)] {
        let resolved = world.resolve(query("big.example", RecordType::A, payload), Transport::Udp).await;
        let reply = Message::from_vec(&resolved.message).unwrap();
        assert!(resolved.message.len() <= limit);
        assert_eq!((reply.truncation, reply.answers.len() < 60), (cut, cut), "{payload:?}");
        assert!(reply.answers.len() >= 25, "what fits is given: {payload:?}");
    }
    assert_eq!(world.ask("big.example", RecordType::A).await.answers.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn negative_answers_keep_their_soa() {
    let upstream = Upstream::start(|asked| {
        vec![if asked.name().starts_with("nx") { asked.nxdomain("example") } else { asked.nodata("example") }]
    })
    .await;
    let world = World::new(&[&upstream]);
    for (owner, code) in [("nx.example", "NXDomain"), ("empty.example", "NoError")] {
        let reply = world.ask(owner, RecordType::A).await;
        assert_eq!(short(&reply), code);
        assert_eq!(reply.authorities.len(), 1);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test(start_paused = true)]
async fn dead_upstreams_give_servfail_with_a_reason_within_the_budget() {
    let upstream = Upstream::silent().await;
    let world = World::new(&[&upstream]);
    let started = Instant::now();
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert!(started.elapsed() <= ZoneConfig::default().budget);
}

#[tokio::test(start_paused = true)]
async fn an_external_name_is_followed_and_stands_alone_when_upstream_fails() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 7]).await;
    let owner = "db.default.svc.cluster.local";
    let alias = || {
        let text = "namespace default\nexternal default/db db.example\n";
        cluster(text, 0, AnswerConfig::default(), &holdfast::zone::Config::default())
    };
    let config = Config { zones: vec![zone(".", &[&upstream])], ..Config::default() };
    let asked = || query(owner, RecordType::A, None);
    let world = World::build(&config, alias());
    let reply = Message::from_vec(&world.resolve(asked(), Transport::Udp).await.message).unwrap();
    assert_eq!(short(&reply), "NoError db.example. 192.0.2.7");
    assert_eq!(reply.queries[0].name(), &name(owner));

    upstream.now(|asked| vec![asked.code(hickory_proto::op::ResponseCode::Refused)]);
    let world = World::build(&config, alias());
    let request = world.request(asked(), Transport::Udp).unwrap_err();
    let alone = request.written.clone();
    assert_eq!(world.forwarder.resolve(*request).await.message, alone);
}

#[tokio::test(start_paused = true)]
async fn a_cname_into_the_cluster_is_answered_from_the_records() {
    let upstream = Upstream::start(|asked| {
        vec![asked.found(vec![
            cname(&asked.name(), 60, "db.default.svc.cluster.local"),
            a("db.default.svc.cluster.local", 60, [203, 0, 113, 66]),
        ])]
    })
    .await;
    let world = World::build(&Config { zones: vec![zone(".", &[&upstream])], ..Config::default() }, own_cluster());
    assert_eq!(world.a("evil.example").await, "NoError db.default.svc.cluster.local. 10.96.0.9");
}

#[tokio::test(start_paused = true)]
async fn cluster_names_before_there_are_records_go_to_the_fallback_or_are_not_ready() {
    let stub = Upstream::with_a(5, [10, 96, 0, 10]).await;
    let public = Upstream::silent().await;
    for (fallback, expect) in
        [(vec![source(&stub.address.to_string())], "NoError 10.96.0.10"), (Vec::new(), "ServFail ede=14")]
    {
        let config = Config { zones: vec![zone(".", &[&public])], cluster_fallback: fallback, ..Config::default() };
        let world = World::build(&config, no_records(!config.cluster_fallback.is_empty()));
        let asked = query("db.default.svc.cluster.local", RecordType::A, Some(1232));
        let resolved = world.resolve(asked, Transport::Udp).await;
        assert_eq!(short(&Message::from_vec(&resolved.message).unwrap()), expect);
    }
    assert_eq!(public.count(), 0);
}
