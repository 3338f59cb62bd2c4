//! Upstreams that are silent, odd or answered for by somebody else, and what questions to them may cost.

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::dns::{Resolve, Transport, forward::ZoneConfig};

use crate::{
    forward::world::{World, query, settle, short, zone},
    support::upstream::{Asked, Say, Upstream, a},
};

const TRUE: [u8; 4] = [192, 0, 2, 1];

/// 199 wrong ids from the upstream's own address, then the right answer, and nothing over TCP.
#[tokio::test(start_paused = true)]
async fn the_true_answer_after_199_wrong_ids_is_taken_where_there_is_no_tcp() {
    let upstream = Upstream::start(|asked| {
        if asked.tcp {
            return Vec::new();
        }
        let truth = asked.found(vec![a(&asked.name(), 60, TRUE)]).bytes();
        let right = u16::from_be_bytes([truth[0], truth[1]]);
        let wrong = |off: u16| {
            let mut wrong = truth.clone();
            wrong[..2].copy_from_slice(&right.wrapping_add(off).to_be_bytes());
            Say::Bytes(wrong)
        };
        (1..200).map(wrong).chain([Say::Bytes(truth.clone())]).collect()
    })
    .await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
}

/// One name answered FORMERR says nothing of the others.
#[tokio::test(start_paused = true)]
async fn one_name_answered_formerr_leaves_edns_on() {
    let upstream = Upstream::start(|asked| {
        let odd = asked.name().starts_with("odd") && asked.message.edns.is_some();
        if odd { vec![asked.code(ResponseCode::FormErr)] } else { vec![asked.found(vec![a(&asked.name(), 60, TRUE)])] }
    })
    .await;
    let world = World::new(&[&upstream]);
    for _ in 0..2 {
        world.a("odd.example").await;
    }
    world.a("www.example").await;
    assert!(upstream.seen().last().unwrap().message.edns.is_some());
}

/// Three names answered FORMERR are a server without EDNS, but for questions that mean nothing without it.
#[tokio::test(start_paused = true)]
async fn questions_for_dnssec_records_are_asked_with_edns_each_time() {
    let upstream = Upstream::start(|asked| {
        let edns = asked.message.edns.is_some();
        if edns { vec![asked.code(ResponseCode::FormErr)] } else { vec![asked.found(vec![a(&asked.name(), 60, TRUE)])] }
    })
    .await;
    let world = World::new(&[&upstream]);
    for nth in 0..4 {
        world.a(&format!("n{nth}.example")).await;
    }
    let with_edns = || upstream.seen().iter().filter(|asked| asked.message.edns.is_some()).count();
    assert_eq!(with_edns(), 3, "the fourth is asked without at once");
    let mut asked = Message::from_vec(&query("signed.example", RecordType::A, Some(1232))).unwrap();
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);
    let reply = world.resolve(asked.to_vec().unwrap(), Transport::Tcp).await;
    assert_eq!(short(&Message::from_vec(&reply.message).unwrap()), "NoError 192.0.2.1");
    assert_eq!(with_edns(), 4);
}

/// Four hundred questions to an upstream that says nothing: one socket each, and no more than twice as many queries.
#[tokio::test(start_paused = true)]
async fn questions_to_a_silent_upstream_become_at_most_twice_as_many_queries() {
    const QUESTIONS: usize = 400;
    let upstream = Upstream::silent().await;
    let world = Arc::new(World::with(vec![zone(".", &[&upstream])]));
    let clients: Vec<_> = (0..QUESTIONS)
        .map(|nth| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.a(&format!("n{nth}.example")).await })
        })
        .collect();
    settle().await;
    world.elapse(Duration::from_secs(6)).await;
    for client in clients {
        assert!(client.await.unwrap().starts_with("ServFail"));
    }
    let queries = world.metrics.queries_udp.get();
    assert!(queries <= 2 * QUESTIONS as u64, "{queries} queries for {QUESTIONS} questions");
    let ports: std::collections::BTreeSet<_> = upstream.seen().iter().map(|asked| asked.from).collect();
    assert!(ports.len() <= QUESTIONS + 10, "{} sockets", ports.len());
}

/// One client waits for as many names as it may; another one is answered meanwhile.
#[tokio::test(start_paused = true)]
async fn a_client_whose_names_have_no_answer_leaves_room_in_the_zone() {
    let upstream = Upstream::start(|asked| {
        if asked.name().starts_with("stuck") { Vec::new() } else { vec![asked.found(vec![a(&asked.name(), 60, TRUE)])] }
    })
    .await;
    let world = Arc::new(World::with(vec![ZoneConfig { max_concurrent: 10, ..zone(".", &[&upstream]) }]));
    let stuck: Vec<_> = (0..100)
        .map(|nth| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.a(&format!("stuck{nth}.example")).await })
        })
        .collect();
    settle().await;
    let mut request = world.request(query("www.example", RecordType::A, None), Transport::Udp).unwrap_err();
    request.client.set_ip([10, 9, 9, 9].into());
    let reply = world.forwarder.resolve(*request).await;
    assert_eq!(short(&Message::from_vec(&reply.message).unwrap()), "NoError 192.0.2.1");
    for client in stuck {
        client.abort();
    }
}

/// Names without an answer say nothing of the upstream while it answers a probe.
#[tokio::test(start_paused = true)]
async fn an_upstream_with_unanswerable_names_is_up() {
    let upstream = Upstream::start(|asked| {
        if asked.name().starts_with("stuck") { Vec::new() } else { vec![asked.found(vec![a(&asked.name(), 60, TRUE)])] }
    })
    .await;
    let world = Arc::new(World::new(&[&upstream]));
    for round in 0..5 {
        let stuck: Vec<_> = (0..25)
            .map(|nth| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.a(&format!("stuck{round}-{nth}.example")).await })
            })
            .collect();
        for client in stuck {
            assert!(client.await.unwrap().starts_with("ServFail"));
        }
        assert!(!world.forwarder.status().zones[0].down);
        assert_eq!(world.a(&format!("n{round}.example")).await, "NoError 192.0.2.1");
        world.elapse(Duration::from_secs(3)).await;
    }
    assert_eq!(world.upstream_status(0).state, holdfast::report::UpstreamState::Up);
}

/// However often one question is asked again, a forger has one port to guess and one id, or two once the query goes out without EDNS as
/// well, also where case says nothing.
#[tokio::test(start_paused = true)]
async fn one_question_is_asked_from_one_port_with_few_ids() {
    let upstream = Upstream::silent().await;
    let config = ZoneConfig { case_randomization: false, ..zone(".", &[&upstream]) };
    let world = Arc::new(World::with(vec![config]));
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.a("www.example").await })
        })
        .collect();
    settle().await;
    world.elapse(Duration::from_secs(6)).await;
    for client in clients {
        assert!(client.await.unwrap().starts_with("ServFail"));
    }
    let asked: Vec<_> =
        upstream.seen().into_iter().filter(|asked| asked.name() == "www.example" && !asked.tcp).collect();
    assert!(asked.len() > 1, "asked again");
    let set = |of: fn(&Asked) -> u16| asked.iter().map(of).collect::<std::collections::BTreeSet<_>>();
    let (ports, ids) = (set(|asked| asked.from.port()), set(|asked| asked.message.id));
    assert!(ports.len() == 1 && ids.len() <= 2, "{ports:?} {ids:?}");
}

/// ANY with a large buffer over UDP gets no more than 512 bytes back, whether the answer comes from upstream or from the cache.
#[tokio::test(start_paused = true)]
async fn any_over_udp_is_small_from_upstream_and_from_the_cache() {
    let upstream = Upstream::start(|asked| {
        let owner = asked.name();
        vec![if asked.tcp {
            asked.found((0..=200).map(|last| a(&owner, 60, [192, 0, 2, last])).collect())
        } else {
            let mut cut = asked.reply(ResponseCode::NoError);
            cut.metadata.truncation = true;
            Say::message(&cut)
        }]
    })
    .await;
    let world = World::new(&[&upstream]);
    for round in 0..3 {
        for payload in [512, 1_232, 4_096] {
            let asked = query("large.example", RecordType::ANY, Some(payload));
            let told = world.resolve(asked, Transport::Udp).await.message;
            assert!(told.len() <= 512, "round {round}: {} bytes for a buffer of {payload}", told.len());
            assert!(Message::from_vec(&told).unwrap().truncation, "round {round}");
        }
    }
    let whole = world.ask("large.example", RecordType::ANY).await;
    assert_eq!(whole.answers.len(), 201, "over TCP it is whole");
}
