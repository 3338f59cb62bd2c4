//! How upstreams are asked: with what, over what, and for how long.

use std::{collections::BTreeSet, time::Duration};

use hickory_proto::{
    op::Message,
    rr::{
        RData, Record, RecordType,
        rdata::{
            MX, SRV,
            opt::{EdnsCode, EdnsOption},
        },
    },
};
use holdfast::dns::{
    Transport,
    forward::{Config, FailureKind, ZoneConfig},
};
use tokio::time::Instant;

use super::world::{World, no_cluster, query, short, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, name};

const TRUE: [u8; 4] = [192, 0, 2, 1];
/// ECS for 198.51.100.0/24, RFC 7871, 6.
const SUBNET: [u8; 7] = [0, 1, 24, 0, 198, 51, 100];

fn truth(asked: &Asked) -> Message {
    Message::from_vec(&asked.found(vec![a(&asked.name(), 60, TRUE)]).bytes()).unwrap()
}

fn with_subnet(mut message: Message) -> Message {
    let mut edns = message.edns.take().unwrap_or_default();
    edns.set_max_payload(1_232);
    edns.options_mut().insert(EdnsOption::Unknown(8, SUBNET.to_vec()));
    message.set_edns(edns);
    message
}

fn has_subnet(message: &Message) -> bool {
    message.edns.as_ref().is_some_and(|edns| edns.options().get(EdnsCode::Subnet).is_some())
}

#[tokio::test(start_paused = true)]
async fn a_client_subnet_is_handed_on_in_neither_direction() {
    let upstream = Upstream::start(|asked| vec![Say::message(&with_subnet(truth(&asked)))]).await;
    let world = World::new(&[&upstream]);
    let question = with_subnet(Message::from_vec(&query("www.example", RecordType::A, Some(1_232))).unwrap());
    assert!(has_subnet(&Message::from_vec(&question.to_vec().unwrap()).unwrap()), "the option is one");
    for round in ["from upstream", "from the cache"] {
        let resolved = world.resolve(question.to_vec().unwrap(), Transport::Udp).await;
        let reply = Message::from_vec(&resolved.message).unwrap();
        assert_eq!(short(&reply), "NoError 192.0.2.1", "{round}");
        assert!(!has_subnet(&reply), "{round}: {reply:?}");
    }
    assert_eq!(upstream.count(), 1);
    let asked = &upstream.seen()[0].message;
    assert!(asked.edns.is_some() && !has_subnet(asked), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn case_is_mixed_unless_that_is_off() {
    let owner = "abcdefghijklmnopqrstuvwx.abcdefghijklmnopqrstuvwx.example";
    for mixed in [true, false] {
        let upstream = Upstream::with_a(60, TRUE).await;
        let world = World::with(vec![ZoneConfig { case_randomization: mixed, ..zone(".", &[&upstream]) }]);
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
        let asked = upstream.seen()[0].message.queries[0].name().to_ascii();
        // All lower case by chance once in 2^55.
        assert_eq!(asked.bytes().any(|byte| byte.is_ascii_uppercase()), mixed, "{asked}");
    }
}

/// MX data may point at the question in the message, and a template may write out the name as it was asked.
#[tokio::test(start_paused = true)]
async fn random_case_is_left_in_data_only_where_the_upstream_wrote_it_out() {
    let upstream = Upstream::start(|asked| {
        let sent = asked.message.queries[0].name().clone();
        let data = match asked.qtype() {
            RecordType::MX => RData::MX(MX::new(10, sent.clone())),
            // RFC 2782: not compressed.
            _ => RData::SRV(SRV::new(0, 1, 80, sent.clone())),
        };
        vec![asked.found(vec![Record::from_rdata(sent, 60, data)])]
    })
    .await;
    let world = World::new(&[&upstream]);
    // All lower case by chance once in 2^52.
    let owner = "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.example";
    let sent = |rtype| {
        let seen = upstream.seen();
        seen.iter().find(|asked| asked.qtype() == rtype).unwrap().message.queries[0].name().to_ascii()
    };
    assert_eq!(short(&world.ask(owner, RecordType::MX).await), format!("NoError 10 {owner}."));
    assert!(sent(RecordType::MX).bytes().any(|byte| byte.is_ascii_uppercase()));
    let reply = world.ask(owner, RecordType::SRV).await;
    assert_eq!(short(&reply), format!("NoError 0 1 80 {}", sent(RecordType::SRV)));
    assert_eq!(reply.answers[0].name.to_ascii(), format!("{owner}."), "owners are in the case of the client");
}

/// Addresses of SRV and MX targets: the least trusted records of a message (RFC 2181, 5.4.1).
#[tokio::test(start_paused = true)]
async fn additional_records_of_an_upstream_are_not_passed_on_and_their_names_are_asked() {
    let upstream = Upstream::start(|asked| {
        let target = name("mail.example");
        let data = match asked.qtype() {
            RecordType::MX => RData::MX(MX::new(10, target)),
            RecordType::SRV => RData::SRV(SRV::new(0, 1, 25, target)),
            _ => return vec![asked.found(vec![a(&asked.name(), 60, TRUE)])],
        };
        let answers = vec![Record::from_rdata(name(&asked.name()), 60, data)];
        let mut reply = Message::from_vec(&asked.found(answers).bytes()).unwrap();
        reply.additionals = vec![a("mail.example", 60, [192, 0, 2, 66])];
        vec![Say::message(&reply)]
    })
    .await;
    let world = World::new(&[&upstream]);
    for rtype in [RecordType::MX, RecordType::SRV] {
        for round in ["from upstream", "from the cache"] {
            let reply = world.ask("example", rtype).await;
            assert_eq!((reply.answers.len(), reply.additionals.len()), (1, 0), "{rtype} {round}: {reply}");
        }
    }
    assert_eq!(world.a("mail.example").await, "NoError 192.0.2.1", "its own answer");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_neither_told_nor_kept_where_tcp_does_not_work() {
    let upstream = Upstream::start(|asked| {
        if asked.tcp {
            return vec![Say::Close];
        }
        let mut cut = truth(&asked);
        cut.metadata.truncation = true;
        vec![Say::message(&cut)]
    })
    .await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert!(world.at_hand("www.example", RecordType::A).is_none());
    assert!(upstream.seen().iter().any(|asked| asked.tcp));
    upstream.now(|asked| {
        let mut message = truth(&asked);
        message.metadata.truncation = !asked.tcp;
        vec![Say::message(&message)]
    });
    world.elapse(Duration::from_secs(6)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert!(world.at_hand("www.example", RecordType::A).is_some(), "whole from TCP, and kept");
}

#[tokio::test(start_paused = true)]
async fn a_connection_gets_no_new_questions_past_its_age() {
    let upstream = Upstream::with_a(60, TRUE).await;
    // The search for loops is answered at once: a connection on which an answer stays away is not used again.
    upstream.hear_loop_probes();
    let age_max = Duration::from_secs(20);
    let zones = vec![ZoneConfig { force_tcp: true, connection_age_max: age_max, ..zone(".", &[&upstream]) }];
    let config = Config { zones, ..Config::default() };
    let world = World::build(&config, no_cluster());
    let mut asked = 0;
    while asked < 10 {
        // Often enough that the connection is never idle for long.
        assert_eq!(world.a(&format!("n{asked}.example")).await, "NoError 192.0.2.1");
        world.elapse(Duration::from_secs(5)).await;
        asked += 1;
    }
    let seen = upstream.seen();
    let questions = seen.iter().filter(|asked| asked.qtype() == RecordType::A);
    let ports: Vec<u16> = questions.map(|asked| asked.from.port()).collect();
    assert_eq!(ports.len(), 10);
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 3, "45 s by 20 s: {ports:?}");
    assert_eq!(ports[0], ports[3]);
    assert_ne!(ports[3], ports[5]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_accepts_and_never_answers_costs_the_budget_and_is_counted() {
    let upstream = Upstream::silent().await;
    let world = World::with(vec![ZoneConfig { force_tcp: true, ..zone(".", &[&upstream]) }]);
    let started = Instant::now();
    assert_eq!(world.a("www.example").await, "ServFail ede=22");
    assert!(started.elapsed() <= Duration::from_secs(5));
    assert!(upstream.seen().iter().all(|asked| asked.tcp) && upstream.count() > 0);
    assert!(world.metrics.failures(FailureKind::Timeout) >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_working_upstream_answers_although_the_other_accepts_and_is_silent() {
    let stuck = Upstream::silent().await;
    let good = Upstream::with_a(0, TRUE).await;
    let world = World::with(vec![ZoneConfig {
        force_tcp: true,
        policy: holdfast::dns::forward::Policy::RoundRobin,
        ..zone(".", &[&stuck, &good])
    }]);
    for nth in 0..10 {
        let started = Instant::now();
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
        assert!(started.elapsed() <= Duration::from_millis(450), "{nth}: {:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn nonsense_over_tcp_is_passed_over_and_the_true_answer_taken() {
    let upstream = Upstream::start(|asked| {
        let truth = truth(&asked).to_vec().unwrap();
        let spoilt = |spoil: fn(&mut Vec<u8>)| {
            let mut bytes = truth.clone();
            spoil(&mut bytes);
            Say::Bytes(bytes)
        };
        vec![
            spoilt(|m| m[0] ^= 0xFF),
            spoilt(|m| m[13] = b'x'),
            spoilt(|m| m[2] &= 0x7F),
            spoilt(|m| m.truncate(5)),
            spoilt(|m| m.truncate(m.len() - 2)),
            spoilt(|m| m[2] |= 2),
            Say::Bytes(truth),
        ]
    })
    .await;
    let world = World::with(vec![ZoneConfig { force_tcp: true, ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    let ports: BTreeSet<u16> = upstream.seen().iter().map(|asked| asked.from.port()).collect();
    assert_eq!(ports.len(), 1, "on the one connection");
    assert_eq!(world.metrics.failures(FailureKind::Io), 0);
}
