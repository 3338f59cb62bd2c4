//! What is kept, for how long, and what never takes its place.

use std::{sync::Arc, time::Duration};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::{
    ServedFrom,
    cache::Lifetimes,
    forward::{Policy, ZoneConfig},
};

use super::world::{World, asked_for, secs, settle, short, zone};
use crate::support::upstream::{Asked, Say, Upstream, a, name, soa};

const GOOD: [u8; 4] = [192, 0, 2, 1];

type Script = fn(&Asked) -> Vec<Say>;

#[tokio::test(start_paused = true)]
async fn ttls_count_down_and_the_upstream_is_asked_once() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.ask("www.example", RecordType::A).await.answers[0].ttl, 60);
    world.elapse(secs(20)).await;
    let (reply, from) = world.at_hand("WWW.example", RecordType::A).unwrap();
    assert_eq!((reply.answers[0].ttl, from), (40, ServedFrom::Cache));
    assert!(reply.answers[0].name.eq_case(&name("WWW.example")));
    assert!(!reply.authoritative && reply.recursion_available);
    assert_eq!(asked_for(&upstream, "www.example"), 1);
    world.elapse(secs(41)).await;
    assert!(world.at_hand("www.example", RecordType::A).is_none());
    assert_eq!(world.ask("www.example", RecordType::A).await.answers[0].ttl, 60);
    assert_eq!(asked_for(&upstream, "www.example"), 2);
}

#[tokio::test(start_paused = true)]
async fn ttls_are_capped_at_both_ends_and_an_rrset_takes_its_lowest() {
    let upstream = Upstream::start(|asked| {
        let ttls: &[u32] = match asked.name().as_str() {
            "week.example" => &[604_800],
            "top-bit.example" => &[0x8000_0000],
            "short.example" => &[1],
            _ => &[300, 20, 900],
        };
        let last = |nth: usize| u8::try_from(nth).unwrap();
        let records = ttls.iter().enumerate().map(|(nth, ttl)| a(&asked.name(), *ttl, [192, 0, 2, last(nth)]));
        vec![asked.found(records.collect())]
    })
    .await;
    let lifetimes = Lifetimes { min_ttl: secs(5), ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    for (owner, ttl) in
        [("week.example", 3_600), ("top-bit.example", 3_600), ("short.example", 5), ("mixed.example", 20)]
    {
        let reply = world.ask(owner, RecordType::A).await;
        assert!(reply.answers.iter().all(|record| record.ttl == ttl), "{owner}: {:?}", reply.answers);
    }
}

#[tokio::test(start_paused = true)]
async fn negative_answers_live_for_the_soas_minimum_and_at_most_thirty_seconds() {
    let upstream = Upstream::start(|asked| {
        let mut reply =
            asked.reply(if asked.name().starts_with("nx") { ResponseCode::NXDomain } else { ResponseCode::NoError });
        reply.authorities = vec![soa("example", if asked.name().contains("short") { 7 } else { 900 })];
        vec![Say::message(&reply)]
    })
    .await;
    let world = World::new(&[&upstream]);
    for (owner, ttl) in [("nx.example", 30), ("nx-short.example", 7), ("empty.example", 30), ("empty-short.example", 7)]
    {
        assert_eq!(world.ask(owner, RecordType::A).await.authorities[0].ttl, ttl, "{owner}");
        world.elapse(secs(u64::from(ttl) - 1)).await;
        assert!(world.at_hand(owner, RecordType::A).is_some(), "{owner} is still there");
        world.elapse(secs(1)).await;
        assert!(world.at_hand(owner, RecordType::A).is_none(), "{owner} has expired");
    }
}

#[tokio::test(start_paused = true)]
async fn type_dnssec_ok_and_route_are_told_apart() {
    let upstream = Upstream::with_a(60, GOOD).await;
    let stub = Upstream::with_a(60, [10, 0, 0, 1]).await;
    let world = World::with(vec![zone(".", &[&upstream]), zone("corp.example", &[&stub])]);
    assert_eq!(world.a("www.corp.example").await, "NoError 10.0.0.1");
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    assert_eq!(short(&world.ask("www.example", RecordType::AAAA).await), "NoError");
    assert!(world.at_hand("www.example", RecordType::TXT).is_none());
    assert_eq!((asked_for(&upstream, "www.corp.example"), asked_for(&stub, "www.corp.example")), (0, 1));
}

/// `NodeLocal DNSCache` with `serve_stale` stores the SERVFAIL over the good entry: 2 stale answers, then 72 SERVFAILs of 72.
#[tokio::test(start_paused = true)]
async fn failures_never_displace_data() {
    let failures: [(&str, Script); 5] = [
        ("SERVFAIL", |asked| vec![asked.code(ResponseCode::ServFail)]),
        ("REFUSED", |asked| vec![asked.code(ResponseCode::Refused)]),
        ("NOTIMP", |asked| vec![asked.code(ResponseCode::NotImp)]),
        ("FORMERR", |asked| vec![asked.code(ResponseCode::FormErr)]),
        ("silence", |_| Vec::new()),
    ];
    for (case, say) in failures {
        let upstream = Upstream::with_a(10, GOOD).await;
        let world = World::new(&[&upstream]);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        upstream.now(move |asked| say(&asked));
        world.elapse(secs(11)).await;
        for nth in 0..74 {
            let reply = world.ask("www.example", RecordType::A).await;
            assert_eq!(short(&reply), "NoError 192.0.2.1 ede=3", "{case}, answer {nth}");
            assert_eq!(reply.answers[0].ttl, 30);
            world.elapse(secs(2)).await;
        }
        upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 10, [192, 0, 2, 2])])]);
        world.elapse(secs(6)).await;
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.2", "{case}: and back at once when it works");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_answers_have_no_end_while_every_upstream_fails() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    upstream.now(|_| Vec::new());
    world.elapse(secs(30 * 86_400)).await;
    for _ in 0..5 {
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
        world.elapse(secs(6)).await;
    }
    let status = world.forwarder.status();
    assert!(status.zones[0].down, "{status:?}");
    assert!(status.stale_answers_total >= 5);
    let (reply, from) = world.at_hand("www.example", RecordType::A).unwrap();
    assert_eq!((reply.answers[0].ttl, from), (30, ServedFrom::Stale), "in the client's own thread");
}

#[tokio::test(start_paused = true)]
async fn stale_answers_end_after_stale_max_while_upstreams_work() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let lifetimes = Lifetimes { stale_max: secs(60), ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| {
        let broken = asked.name() == "www.example";
        vec![if broken { asked.code(ResponseCode::ServFail) } else { asked.found(vec![a(&asked.name(), 10, GOOD)]) }]
    });
    world.elapse(secs(69)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    world.elapse(secs(6)).await;
    assert_eq!(world.a("other.example").await, "NoError 192.0.2.1", "it answers others");
    assert_eq!(world.a("www.example").await, "ServFail ede=23");
}

#[tokio::test(start_paused = true)]
async fn a_slow_refresh_gives_the_stale_answer_after_client_timeout_and_lands_behind() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    upstream.now(|asked| vec![Say::Wait(secs(3)), asked.found(vec![a(&asked.name(), 10, [192, 0, 2, 2])])]);
    world.elapse(secs(11)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(1_800) && waited < secs(2), "{waited:?}");
    world.elapse(secs(4)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn with_no_client_timeout_the_stale_answer_comes_first() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let lifetimes = Lifetimes { client_timeout: Duration::ZERO, ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    world.a("www.example").await;
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 10, [192, 0, 2, 2])])]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    world.elapse(secs(1)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.2");
    assert_eq!(asked_for(&upstream, "www.example"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_name_is_asked_for_at_most_every_five_seconds() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    upstream.now(|asked| vec![asked.code(ResponseCode::ServFail)]);
    world.elapse(secs(11)).await;
    for _ in 0..100 {
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
        world.elapse(Duration::from_millis(100)).await;
    }
    let asked = asked_for(&upstream, "www.example");
    assert!((2..=4).contains(&asked), "{asked} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_good_is_not_gone_until_that_is_confirmed() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    // A flap: gone for a second.
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 10, GOOD)])]);
    world.elapse(secs(6)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    // Gone for good: believed when it has been said twice, two seconds apart.
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    world.elapse(secs(3)).await;
    assert_eq!(world.a("www.example").await, "NXDomain");
}

#[tokio::test(start_paused = true)]
async fn a_second_upstream_confirms_at_once_or_contradicts() {
    for (second_says_gone, expect) in [(true, "NXDomain"), (false, "NoError 192.0.2.9")] {
        let one = Upstream::with_a(10, GOOD).await;
        let two = Upstream::with_a(10, [192, 0, 2, 9]).await;
        let world = World::with(vec![ZoneConfig { policy: Policy::RoundRobin, ..zone(".", &[&one, &two]) }]);
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
        one.now(|asked| vec![asked.nxdomain("example")]);
        if second_says_gone {
            two.now(|asked| vec![asked.nxdomain("example")]);
        }
        world.elapse(secs(11)).await;
        assert_eq!(world.a("www.example").await, expect);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_equal_questions_at_once_are_one_upstream_query() {
    let upstream = Upstream::start(|asked| {
        vec![Say::Wait(Duration::from_millis(50)), asked.found(vec![a(&asked.name(), 60, GOOD)])]
    })
    .await;
    let world = Arc::new(World::new(&[&upstream]));
    let clients: Vec<_> = (0..1_000)
        .map(|nth| {
            let world = Arc::clone(&world);
            let owner = if nth % 2 == 0 { "www.example" } else { "WWW.EXAMPLE" };
            tokio::spawn(async move { world.a(owner).await })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), "NoError 192.0.2.1");
    }
    assert_eq!(asked_for(&upstream, "www.example"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_stuck_takes_only_its_own_slots() {
    let stuck = Upstream::silent().await;
    let good = Upstream::with_a(60, GOOD).await;
    let world = Arc::new(World::with(vec![
        ZoneConfig { max_concurrent: 10, ..zone("stuck.example", &[&stuck]) },
        ZoneConfig { max_concurrent: 10, ..zone(".", &[&good]) },
    ]));
    let waiting: Vec<_> = (0..5)
        .map(|nth| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.a(&format!("n{nth}.stuck.example")).await })
        })
        .collect();
    settle().await;
    assert_eq!(world.a("one-more.stuck.example").await, "ServFail ede=0");
    assert_eq!(world.metrics.over_limit.get(), 1);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    for client in waiting {
        assert_eq!(client.await.unwrap(), "ServFail ede=22");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_ask_a_stuck_zone_for_one_name_leave_room_for_others() {
    let stuck = Upstream::silent().await;
    let world = Arc::new(World::with(vec![ZoneConfig { max_concurrent: 10, ..zone(".", &[&stuck]) }]));
    let ask = |world: &Arc<World>| {
        let world = Arc::clone(world);
        tokio::spawn(async move { world.a("one.example").await })
    };
    let waiting: Vec<_> = (0..10).map(|_| ask(&world)).collect();
    settle().await;
    assert_eq!(world.a("one.example").await, "ServFail ede=0", "two clients for each slot, no more");
    assert_eq!(world.metrics.over_limit.get(), 1);
    for client in waiting {
        assert_eq!(client.await.unwrap(), "ServFail ede=22");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_remembered_for_a_moment_and_longer_each_time() {
    let upstream = Upstream::start(|asked| vec![asked.code(ResponseCode::ServFail)]).await;
    let world = World::new(&[&upstream]);
    let mut counts = Vec::new();
    for wait in [100, 1_000, 1_000, 1_000, 4_000, 4_000] {
        assert_eq!(world.a("broken.example").await, "ServFail ede=23");
        counts.push(asked_for(&upstream, "broken.example"));
        world.elapse(Duration::from_millis(wait)).await;
    }
    assert_eq!(counts, [1, 1, 2, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn popular_names_are_renewed_before_they_expire() {
    let upstream = Upstream::with_a(100, GOOD).await;
    let world = World::new(&[&upstream]);
    for owner in ["popular.example", "rare.example"] {
        world.a(owner).await;
    }
    for _ in 0..10 {
        assert!(world.at_hand("popular.example", RecordType::A).is_some());
    }
    world.elapse(secs(92)).await;
    for owner in ["popular.example", "rare.example"] {
        assert!(world.at_hand(owner, RecordType::A).is_some());
    }
    world.elapse(secs(1)).await;
    assert_eq!((asked_for(&upstream, "popular.example"), asked_for(&upstream, "rare.example")), (2, 1));
    assert!(world.at_hand("popular.example", RecordType::A).unwrap().0.answers[0].ttl >= 98);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_time_to_live_is_shared_but_not_kept() {
    let upstream = Upstream::with_a(0, GOOD).await;
    let world = World::new(&[&upstream]);
    for _ in 0..3 {
        assert_eq!(world.a("now.example").await, "NoError 192.0.2.1");
        assert!(world.at_hand("now.example", RecordType::A).is_none());
    }
    assert_eq!(asked_for(&upstream, "now.example"), 3);
}
