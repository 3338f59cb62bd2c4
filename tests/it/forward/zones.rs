//! What an operator may say of one zone: a fixed answer, no cache, limits of its own, listeners of its own.

use std::time::Duration;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::{
    Resolve, Transport,
    cache::Lifetimes,
    forward::{Config, FixedAnswer, ZoneConfig},
};

use super::world::{World, zone};
use crate::support::upstream::{Say, Upstream, name, soa};

#[tokio::test(start_paused = true)]
async fn a_zone_with_a_fixed_answer_asks_nobody_but_its_hosts() {
    let upstream = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let codes = [
        (FixedAnswer::NoError, "NoError"),
        (FixedAnswer::NxDomain, "NXDomain"),
        (FixedAnswer::Refused, "Refused"),
        (FixedAnswer::ServFail, "ServFail"),
    ];
    for (answer, code) in codes {
        let hosts = holdfast::dns::forward::parse_host("10.0.0.9 printer.example").into_iter().collect();
        let fixed = ZoneConfig { zone: name("example"), answer: Some(answer), hosts, ..zone(".", &[]) };
        let world = World::with(vec![ZoneConfig { zone: name("example"), ..fixed }, zone(".", &[&upstream])]);
        assert_eq!(world.a("www.example").await, code);
        assert_eq!(world.a("printer.example").await, "NoError 10.0.0.9");
        assert_eq!(world.a("www.example.org").await, "NoError 192.0.2.1");
    }
    assert_eq!(upstream.count(), codes.len(), "only the name outside the zone was asked for");
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_every_question_is_asked_and_ttls_pass_as_they_come() {
    let upstream = Upstream::with_a(86_400, [192, 0, 2, 1]).await;
    let lifetimes = Lifetimes { keep: false, ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    for asked in 1..=3 {
        assert_eq!(world.ask("www.example", RecordType::A).await.answers[0].ttl, 86_400);
        assert_eq!(upstream.count(), asked);
    }
    assert!(world.at_hand("www.example", RecordType::A).is_none());
}

#[tokio::test(start_paused = true)]
async fn negative_answers_have_a_least_lifetime_where_one_is_given() {
    let upstream = Upstream::start(|asked| {
        let mut reply = asked.reply(ResponseCode::NXDomain);
        reply.authorities = vec![soa("example", 1)];
        vec![Say::message(&reply)]
    })
    .await;
    let lifetimes = Lifetimes { min_negative_ttl: Duration::from_secs(5), ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    assert_eq!(world.ask("nx.example", RecordType::A).await.authorities[0].ttl, 5);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_may_be_given_more_failures_or_never_be_failing() {
    for (max_fails, fails) in [(0, false), (2, true)] {
        let dead = Upstream::silent().await;
        let world = World::with(vec![ZoneConfig { max_fails, ..zone(".", &[&dead]) }]);
        for _ in 0..4 {
            let asking = world.a("www.example");
            tokio::pin!(asking);
            assert!(tokio::time::timeout(Duration::from_secs(10), &mut asking).await.is_ok());
            world.elapse(Duration::from_secs(2)).await;
        }
        let failing = world.forwarder.status().zones[0].down;
        assert_eq!(failing, fails, "max_fails {max_fails}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_shares_the_cache_and_not_the_answers() {
    let (one, other) = (Upstream::with_a(60, [192, 0, 2, 1]).await, Upstream::with_a(60, [192, 0, 2, 2]).await);
    let world = World::new(&[&one]);
    let config = Config { zones: vec![zone(".", &[&other])], ..Config::default() };
    let view = world.forwarder.view(&config, "view 0").unwrap();
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    let request = holdfast::dns::ForwardRequest {
        query: super::world::query("www.example", RecordType::A, None),
        transport: Transport::Tcp,
        client: super::world::CLIENT,
        server: super::world::SERVER,
        received: tokio::time::Instant::now(),
        cookie: None,
        forward: holdfast::dns::Forward::Whole,
        written: Vec::new(),
    };
    for _ in 0..2 {
        let answer = view.resolve(request.clone()).await.message;
        let answer = hickory_proto::op::Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "192.0.2.2");
    }
    assert_eq!((one.count(), other.count()), (1, 1), "each was asked once, the second answer came from the cache");
    assert_eq!(
        world.forwarder.status().cache.entries.max(view.status().cache.entries),
        world.forwarder.status().cache.entries
    );
}
