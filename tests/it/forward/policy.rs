//! Whose answer counts when several upstreams could give one, and what an upstream that takes no EDNS or no TCP still gives.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::dns::{
    Transport,
    forward::{Policy, UpstreamState, ZoneConfig},
};
use tokio::time::Instant;

use super::world::{World, asked_for, query, secs, short, zone};
use crate::support::upstream::{Say, Upstream, a};

const INTERNAL: [u8; 4] = [10, 20, 30, 40];

fn sequential(upstreams: &[&Upstream]) -> World {
    World::with(vec![ZoneConfig { policy: Policy::Sequential, ..zone(".", upstreams) }])
}

/// Names of `corp.example` do not exist outside; a cold cache inside takes longer than any usual round trip.
#[tokio::test(start_paused = true)]
async fn a_later_server_of_a_sequential_zone_does_not_speak_while_the_first_takes_its_time() {
    let public = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    for wait in [300, 1_500] {
        let internal = Upstream::start(move |asked| {
            vec![Say::Wait(Duration::from_millis(wait)), asked.found(vec![a(&asked.name(), 60, INTERNAL)])]
        })
        .await;
        let world = sequential(&[&internal, &public]);
        assert_eq!(world.a("cold.corp.example").await, "NoError 10.20.30.40", "after {wait} ms");
    }
    assert_eq!(asked_for(&public, "cold.corp.example"), 0, "not even asked");
}

#[tokio::test(start_paused = true)]
async fn a_later_server_of_a_sequential_zone_speaks_when_the_first_fails() {
    let public = Upstream::with_a(60, [192, 0, 2, 1]).await;
    let servfail = Upstream::start(|asked| vec![asked.code(ResponseCode::ServFail)]).await;
    let silent = Upstream::silent().await;
    let closed = holdfast::dns::forward::UpstreamSource::clone(&super::world::source("127.0.0.1:9"));
    for (first, least, most) in [(&servfail, 0, 50), (&silent, 2_000, 2_500)] {
        let world = sequential(&[first, &public]);
        let started = Instant::now();
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        let took = started.elapsed().as_millis();
        assert!((least..=most).contains(&took), "{took} ms");
    }
    let mut config = ZoneConfig { policy: Policy::Sequential, ..zone(".", &[&public]) };
    config.upstreams.insert(0, closed);
    let started = Instant::now();
    assert_eq!(World::with(vec![config]).a("www.example").await, "NoError 192.0.2.1");
    assert!(started.elapsed() < Duration::from_millis(500), "refused is failed: {:?}", started.elapsed());
}

/// `read_timeout` may be as long as `upstream_timeout`.
#[tokio::test(start_paused = true)]
async fn a_silent_first_server_leaves_time_for_the_next_one() {
    let (silent, public) = (Upstream::silent().await, Upstream::with_a(60, [192, 0, 2, 1]).await);
    for budget in [1, 2, 5] {
        let mut config = ZoneConfig { policy: Policy::Sequential, ..zone(".", &[&silent, &public]) };
        (config.budget, config.silence_max) = (secs(budget), secs(2));
        assert_eq!(World::with(vec![config]).a("www.example").await, "NoError 192.0.2.1", "{budget} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_without_soa_is_the_word_of_the_first_server_of_a_sequential_zone() {
    let blocking = Upstream::start(|asked| vec![asked.code(ResponseCode::NXDomain)]).await;
    let public = Upstream::with_a(60, [203, 0, 113, 9]).await;
    let world = sequential(&[&blocking, &public]);
    assert_eq!(world.a("ads.blocked.example").await, "NXDomain");
    assert_eq!(public.count(), 0);
}

/// dnsmasq and CoreDNS's `template` deny without SOA.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_removed_where_denials_have_no_soa_is_gone_after_its_ttl() {
    for (code, expect) in [(ResponseCode::NXDomain, "NXDomain"), (ResponseCode::NoError, "NoError")] {
        let upstream = Upstream::with_a(10, INTERNAL).await;
        let world = World::new(&[&upstream]);
        assert_eq!(world.a("printer.example").await, "NoError 10.20.30.40");
        upstream.now(move |asked| vec![asked.code(code)]);
        world.elapse(secs(11)).await;
        let held = world.ask("printer.example", RecordType::A).await;
        assert_eq!(short(&held), "NoError 10.20.30.40 ede=3", "said once");
        assert!(held.answers[0].ttl <= 10, "never longer than the record was to live: {}", held.answers[0].ttl);
        world.elapse(secs(6)).await;
        assert_eq!(world.a("printer.example").await, expect, "said twice");
        // What was denied does not come back when the upstream is silent.
        upstream.now(|_| Vec::new());
        world.elapse(secs(6)).await;
        assert!(world.a("printer.example").await.starts_with("ServFail"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_drops_or_refuses_edns_answers_and_is_then_asked_without() {
    for code in [None, Some(ResponseCode::NotImp), Some(ResponseCode::FormErr)] {
        let upstream = Upstream::start(move |asked| match (asked.message.edns.is_some(), code) {
            (false, _) => vec![asked.found(vec![a(&asked.name(), 60, INTERNAL)])],
            (true, None) => Vec::new(),
            (true, Some(code)) => vec![asked.code(code)],
        })
        .await;
        let world = World::new(&[&upstream]);
        for nth in 0..3 {
            let started = Instant::now();
            assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 10.20.30.40", "{code:?}");
            let most = if code.is_none() && nth < 2 { 1_000 } else { 50 };
            let took = started.elapsed().as_millis();
            assert!(took <= most, "{code:?}, question {nth}: {took} ms");
        }
        let status = world.upstream_status(0);
        assert!(status.without_edns && status.state == UpstreamState::Up, "{status:?}");
        // It is tried again after a while.
        upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 60, INTERNAL)])]);
        world.elapse(secs(16 * 60)).await;
        assert_eq!(world.a("later.example").await, "NoError 10.20.30.40");
        assert!(!world.upstream_status(0).without_edns);
    }
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_given_in_part_where_tcp_is_closed_and_the_server_is_not_down() {
    let upstream = Upstream::start(|asked| {
        if asked.tcp {
            return vec![Say::Close];
        }
        let bytes = asked.found((1..=9).map(|nth| a(&asked.name(), 60, [10, 0, 0, nth])).collect()).bytes();
        let mut cut = Message::from_vec(&bytes).unwrap();
        cut.metadata.truncation = true;
        vec![Say::message(&cut)]
    })
    .await;
    let world = World::new(&[&upstream]);
    for nth in 0..5 {
        let asked = query(&format!("n{nth}.example"), RecordType::A, None);
        let reply = Message::from_vec(&world.resolve(asked, Transport::Udp).await.message).unwrap();
        assert_eq!((reply.metadata.truncation, reply.answers.len()), (true, 9));
        assert!(world.at_hand(&format!("n{nth}.example"), RecordType::A).is_none(), "not kept");
        world.elapse(secs(2)).await;
    }
    assert_eq!(world.upstream_status(0).state, UpstreamState::Up);
    assert!(!world.forwarder.status().zones[0].down);
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_from_outside_is_given_in_part_over_udp_and_each_record_has_its_turn() {
    let upstream = Upstream::start(|asked| {
        vec![asked.found((1..=100).map(|nth| a(&asked.name(), 600, [10, 0, 0, nth])).collect())]
    })
    .await;
    let world = World::new(&[&upstream]);
    for (payload, fit) in [(None, 30), (Some(1232), 75)] {
        let mut seen = std::collections::BTreeSet::new();
        for id in 0..100_u16 {
            let mut asked = query("big.example", RecordType::A, payload);
            asked[..2].copy_from_slice(&id.to_be_bytes());
            let reply = world.resolve(asked, Transport::Udp).await.message;
            assert!(reply.len() <= usize::from(payload.unwrap_or(512)));
            let reply = Message::from_vec(&reply).unwrap();
            assert!(reply.metadata.truncation && reply.answers.len().abs_diff(fit) <= 1, "{}", reply.answers.len());
            seen.extend(reply.answers.iter().map(|record| record.data.to_string()));
        }
        assert_eq!(seen.len(), 100, "{payload:?}");
    }
    assert_eq!(world.ask("big.example", RecordType::A).await.answers.len(), 100, "all of it over TCP");
}
