//! What is served past its time: negatives too, without end when nobody is of use, and no stampede when somebody is again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use holdfast::dns::{
    cache::{Denials, Lifetimes},
    forward::{Policy, ZoneConfig},
};

use super::world::{World, asked_for, secs, short, zone};
use crate::support::upstream::{Say, Upstream, a};

const GOOD: [u8; 4] = [192, 0, 2, 1];

#[tokio::test(start_paused = true)]
async fn a_stale_nxdomain_says_so_by_its_own_code() {
    let upstream = Upstream::start(|asked| vec![asked.nxdomain("example")]).await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("gone.example").await, "NXDomain");
    upstream.now(|_| Vec::new());
    world.elapse(secs(31)).await;
    let reply = world.ask("gone.example", RecordType::A).await;
    assert_eq!(short(&reply), "NXDomain ede=19");
    assert!(reply.authorities.iter().all(|record| record.ttl == 30), "{:?}", reply.authorities);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_for_a_name_that_was_good_waits_for_confirmation_too() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| vec![asked.nodata("example")]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    world.elapse(secs(3)).await;
    assert_eq!(world.a("www.example").await, "NoError", "said twice, two seconds apart");
}

#[tokio::test(start_paused = true)]
async fn without_confirmation_the_first_denial_counts() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let lifetimes = Lifetimes { denials: Denials::Believe, ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NXDomain");
}

#[tokio::test(start_paused = true)]
async fn a_denial_without_proof_confirms_nothing() {
    let one = Upstream::with_a(10, GOOD).await;
    let two = Upstream::start(|asked| vec![asked.code(ResponseCode::NXDomain)]).await;
    let world = World::with(vec![ZoneConfig { policy: Policy::RoundRobin, ..zone(".", &[&one, &two]) }]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
    one.now(|asked| vec![asked.nxdomain("example")]);
    world.elapse(secs(11)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    assert!(asked_for(&two, "www.example") > 0, "it was asked");
}

/// An upstream whose own way out is gone answers SERVFAIL to everything.
#[tokio::test(start_paused = true)]
async fn stale_answers_have_no_end_while_upstreams_say_nothing_of_use() {
    let upstream = Upstream::with_a(10, GOOD).await;
    let lifetimes = Lifetimes { stale_max: secs(60), ..Lifetimes::default() };
    let world = World::with(vec![ZoneConfig { lifetimes, ..zone(".", &[&upstream]) }]);
    for owner in ["www.example", "asked-late.example"] {
        assert_eq!(world.a(owner).await, "NoError 192.0.2.1");
    }
    upstream.now(|asked| vec![asked.code(ResponseCode::ServFail)]);
    world.elapse(secs(10)).await;
    for _ in 0..100 {
        world.elapse(secs(6)).await;
        assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    }
    assert!(!world.forwarder.status().zones[0].down, "it does answer");
    assert_eq!(world.a("asked-late.example").await, "NoError 192.0.2.1 ede=3", "ten minutes past its time");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_outage_is_no_stampede() {
    const NAMES: usize = 500;
    const SLOTS: usize = 20;
    let upstream = Upstream::with_a(10, GOOD).await;
    let config = ZoneConfig { max_concurrent: 2 * SLOTS, ..zone(".", &[&upstream]) };
    let world = Arc::new(World::with(vec![config]));
    for nth in 0..NAMES {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1");
    }
    upstream.now(|_| Vec::new());
    world.elapse(secs(11)).await;
    for nth in 0..4 {
        world.a(&format!("n{nth}.example")).await;
    }
    world.elapse(secs(5)).await;
    assert!(world.forwarder.status().zones[0].down);
    let during = upstream.count();
    for nth in 0..NAMES {
        assert_eq!(world.a(&format!("n{nth}.example")).await, "NoError 192.0.2.1 ede=3");
    }
    assert_eq!(upstream.count(), during, "while it is down nobody's question goes there");

    let (now, highest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at_once, most) = (Arc::clone(&now), Arc::clone(&highest));
    upstream.now(move |asked| {
        most.fetch_max(at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let at_once = Arc::clone(&at_once);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            at_once.fetch_sub(1, Ordering::Relaxed);
        });
        vec![Say::Wait(Duration::from_millis(50)), asked.found(vec![a(&asked.name(), 300, GOOD)])]
    });
    // The probe finds it within 5 s; then every client asks for every name, three times over.
    world.elapse(secs(6)).await;
    assert!(!world.forwarder.status().zones[0].down);
    let before = upstream.count();
    for round in 0..3 {
        let clients: Vec<_> = (0..NAMES)
            .map(|nth| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.a(&format!("n{nth}.example")).await })
            })
            .collect();
        for client in clients {
            let got = client.await.unwrap();
            assert!(got.starts_with("NoError 192.0.2.1"), "round {round}: {got}");
        }
        world.elapse(secs(6)).await;
    }
    let asked = upstream.count() - before;
    let highest = highest.load(Ordering::Relaxed);
    assert!(highest <= SLOTS, "{highest} at once");
    assert!(asked <= NAMES, "{asked} questions for {NAMES} names");
    assert!(asked >= 3 * SLOTS, "it is asked again: {asked}");
}
