//! The exchange with an upstream: what counts as its answer, and what does not.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use holdfast::dns::forward::{FailureKind, Mismatch, ZoneConfig};
use tokio::time::Instant;

use super::world::{World, short, zone};
use crate::support::upstream::{Asked, Say, Upstream, a};

const TRUE: [u8; 4] = [192, 0, 2, 1];
const FORGED: [u8; 4] = [203, 0, 113, 66];

fn truth(asked: &Asked) -> Say {
    asked.found(vec![a(&asked.name(), 60, TRUE)])
}

/// A forged answer, spoilt so that it does not fit.
fn forged(asked: &Asked, spoil: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = asked.found(vec![a(&asked.name(), 60, FORGED)]).bytes();
    spoil(&mut bytes);
    bytes
}

type Spoil = fn(&mut Vec<u8>);
type Lame = fn(&Asked) -> Say;

#[tokio::test(start_paused = true)]
async fn every_near_miss_is_passed_over_and_the_true_answer_taken() {
    // Offsets: the question is 11 "www.example" as 3www7example0 (13 bytes) from 12 on, type at 25, class at 27.
    let cases: [(&str, Spoil, Mismatch); 13] = [
        ("wrong id", |m| m[0] ^= 0xFF, Mismatch::Id),
        ("wrong name", |m| m[13] = b'x', Mismatch::Question),
        ("wrong type", |m| m[26] = 28, Mismatch::Question),
        ("wrong class", |m| m[28] = 3, Mismatch::Question),
        (
            "no question",
            |m| {
                m[5] = 0;
                m.drain(12..29);
            },
            Mismatch::QuestionCount,
        ),
        ("QR=0", |m| m[2] &= 0x7F, Mismatch::NotResponse),
        ("opcode", |m| m[2] |= 0x28, Mismatch::Opcode),
        ("header only", |m| m.truncate(12), Mismatch::Question),
        ("short", |m| m.truncate(5), Mismatch::Short),
        (
            "garbage",
            |m| {
                let end = m.len();
                m[40..end].fill(0xFF);
            },
            Mismatch::Garbage,
        ),
        (
            "pointer loop",
            |m| {
                m[29] = 0xC0;
                m[30] = 29;
            },
            Mismatch::Garbage,
        ),
        ("cut short", |m| m.truncate(m.len() - 3), Mismatch::Garbage),
        ("oversized", |m| m.resize(5_000, 0), Mismatch::Oversized),
    ];
    for (case, spoil, kind) in cases {
        let upstream = Upstream::start(move |asked| {
            vec![Say::Bytes(forged(&asked, spoil)), Say::Wait(Duration::from_millis(5)), truth(&asked)]
        })
        .await;
        let world = World::new(&[&upstream]);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "{case}");
        assert_eq!(world.metrics.mismatches(kind), 1, "{case} is counted");
        assert_eq!(upstream.count(), 1, "{case}: one query is enough");
    }
}

#[tokio::test(start_paused = true)]
async fn another_port_or_address_does_not_reach_the_socket() {
    for from in [Say::Elsewhere, Say::Stranger] {
        let upstream = Upstream::start(move |asked| {
            vec![from(forged(&asked, |_| ())), Say::Wait(Duration::from_millis(5)), truth(&asked)]
        })
        .await;
        let world = World::new(&[&upstream]);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        assert_eq!(upstream.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_case_sends_the_question_over_tcp_and_a_true_answer_still_counts() {
    let flip: Spoil = |m| {
        m[12..25].iter_mut().for_each(|byte| {
            if byte.is_ascii_alphabetic() {
                *byte ^= 0x20;
            }
        });
    };
    let upstream = Upstream::start(move |asked| {
        if asked.tcp {
            return vec![truth(&asked)];
        }
        vec![Say::Bytes(forged(&asked, flip)), Say::Wait(Duration::from_millis(5)), truth(&asked)]
    })
    .await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert!(!world.upstream_status(0).folds_case, "the server itself keeps case: TCP proved it");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_folds_case_is_asked_over_tcp_once_and_remembered() {
    let upstream = Upstream::start(|asked| {
        let mut bytes = truth(&asked).bytes();
        bytes[12..25].make_ascii_lowercase();
        vec![Say::Bytes(bytes)]
    })
    .await;
    let world = World::new(&[&upstream]);
    // Enough letters that they are not all lower case by chance: 2^-60.
    for nth in 0..3 {
        let owner = format!("{nth}abcdefghijkl.abcdefghijklmnopqrstuvwx.abcdefghijklmnopqrstuvwx");
        let reply = world.ask(&owner, RecordType::A).await;
        assert_eq!(short(&reply), "NoError 192.0.2.1");
    }
    assert_eq!(upstream.seen().iter().filter(|asked| asked.tcp).count(), 1);
    assert!(world.upstream_status(0).folds_case);
}

#[tokio::test(start_paused = true)]
async fn after_sixteen_near_misses_the_question_goes_over_tcp() {
    let upstream = Upstream::start(|asked| {
        if asked.tcp {
            return vec![truth(&asked)];
        }
        (0..16).map(|_| Say::Bytes(forged(&asked, |m| m[1] ^= 1))).collect()
    })
    .await;
    let world = World::new(&[&upstream]);
    let started = Instant::now();
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert!(started.elapsed() < Duration::from_millis(100), "at once, not after a timeout");
    assert_eq!(upstream.seen().iter().map(|asked| asked.tcp).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn each_query_has_its_own_port_and_id() {
    let upstream = Upstream::with_a(0, TRUE).await;
    let world = World::new(&[&upstream]);
    for nth in 0..50 {
        world.a(&format!("n{nth}.example")).await;
    }
    let ports: std::collections::BTreeSet<u16> = upstream.seen().iter().map(|asked| asked.from.port()).collect();
    let ids: std::collections::BTreeSet<u16> = upstream.seen().iter().map(|asked| asked.message.id).collect();
    assert!(ports.len() >= 48 && ids.len() >= 48, "{} ports, {} ids", ports.len(), ids.len());
}

#[tokio::test(start_paused = true)]
async fn edns_is_left_out_after_formerr_only_and_tried_again_after_a_quarter_hour() {
    let upstream = Upstream::start(|asked| {
        if asked.message.edns.is_some() { vec![asked.code(ResponseCode::FormErr)] } else { vec![truth(&asked)] }
    })
    .await;
    let world = World::new(&[&upstream]);
    let with_edns = |upstream: &Upstream| upstream.seen().iter().filter(|asked| asked.message.edns.is_some()).count();
    for name in ["a.example", "b.example", "c.example", "d.example"] {
        assert_eq!(world.a(name).await, "NoError 192.0.2.1");
    }
    // One odd name is no server without EDNS; three names are.
    assert_eq!((upstream.count(), with_edns(&upstream)), (7, 3));
    world.elapse(Duration::from_secs(16 * 60)).await;
    assert_eq!(world.a("e.example").await, "NoError 192.0.2.1");
    assert_eq!(with_edns(&upstream), 4);
}

#[tokio::test(start_paused = true)]
async fn silence_never_turns_edns_off() {
    let upstream = Upstream::silent().await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("a.example").await, "ServFail ede=22");
    assert!(upstream.seen().iter().any(|asked| asked.message.edns.is_some()));
    assert!(!world.upstream_status(0).without_edns, "nothing was answered without it either");
}

#[tokio::test(start_paused = true)]
async fn lame_answers_go_to_the_next_upstream() {
    let cases: [(&str, Lame); 7] = [
        ("SERVFAIL", |asked| asked.code(ResponseCode::ServFail)),
        ("REFUSED", |asked| asked.code(ResponseCode::Refused)),
        ("NOTIMP", |asked| asked.code(ResponseCode::NotImp)),
        ("FORMERR", |asked| asked.code(ResponseCode::FormErr)),
        ("empty NOERROR", |asked| asked.code(ResponseCode::NoError)),
        ("NXDOMAIN without SOA", |asked| asked.code(ResponseCode::NXDomain)),
        ("another name's records", |asked| asked.found(vec![a("other.example", 60, FORGED)])),
    ];
    for (case, say) in cases {
        let lame = Upstream::start(move |asked| vec![say(&asked)]).await;
        let good = Upstream::with_a(60, TRUE).await;
        let in_turn = holdfast::dns::forward::Policy::RoundRobin;
        let world = World::with(vec![ZoneConfig { policy: in_turn, ..zone(".", &[&lame, &good]) }]);
        let started = Instant::now();
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "{case}");
        assert!(started.elapsed() < Duration::from_millis(50), "{case}: at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_overtaken_by_the_next_before_it_is_given_up() {
    let slow = Upstream::start(|asked| vec![Say::Wait(Duration::from_secs(3)), truth(&asked)]).await;
    let fast = Upstream::with_a(60, TRUE).await;
    let in_turn = holdfast::dns::forward::Policy::RoundRobin;
    let world = World::with(vec![ZoneConfig { policy: in_turn, ..zone(".", &[&slow, &fast]) }]);
    let started = Instant::now();
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert!(started.elapsed() <= Duration::from_millis(450), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_later_than_the_next_try_still_counts() {
    let slow = Upstream::start(|asked| match asked.nth {
        0 => vec![Say::Wait(Duration::from_secs(3)), truth(&asked)],
        _ => Vec::new(),
    })
    .await;
    let world = World::new(&[&slow]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
}

#[tokio::test(start_paused = true)]
async fn tcp_is_used_at_once_when_forced_and_the_connection_is_reused() {
    let upstream = Upstream::with_a(60, TRUE).await;
    let world = World::with(vec![ZoneConfig { force_tcp: true, ..zone(".", &[&upstream]) }]);
    for nth in 0..5 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
    }
    let ports: std::collections::BTreeSet<u16> = upstream.seen().iter().map(|asked| asked.from.port()).collect();
    assert!(upstream.seen().iter().all(|asked| asked.tcp));
    assert_eq!(ports.len(), 1);
    world.elapse(ZoneConfig::default().connection_idle_max + Duration::from_secs(1)).await;
    tokio::task::yield_now().await;
    assert_eq!(world.a("late.example").await, "NoError 192.0.2.1");
    assert_ne!(upstream.seen()[5].from.port(), upstream.seen()[0].from.port(), "an idle connection was closed");
}

#[tokio::test(start_paused = true)]
async fn a_connection_reset_is_not_the_end() {
    let upstream = Upstream::start(|asked| match asked.nth {
        1 => vec![Say::Close],
        _ => vec![truth(&asked)],
    })
    .await;
    let world = World::with(vec![ZoneConfig { force_tcp: true, ..zone(".", &[&upstream]) }]);
    for nth in 0..3 {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1", "{nth}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_is_reported_soon_and_counted() {
    let upstream = Upstream::with_a(60, TRUE).await;
    let world = World::with(vec![ZoneConfig {
        upstreams: vec![super::world::source("127.0.0.1:1")],
        ..zone(".", &[&upstream])
    }]);
    let started = Instant::now();
    let reply = world.ask("www.example", RecordType::A).await;
    assert_eq!(short(&reply), "ServFail ede=22");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(world.metrics.failures(FailureKind::Io) >= 1);
    let _: &Message = &reply;
}
