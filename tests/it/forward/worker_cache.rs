//! What a worker keeps of the cache says what the cache says, and ends when that does.

use std::{fs, time::Duration};

use hickory_proto::rr::RecordType;
use holdfast::dns::{
    ServedFrom,
    forward::{Config, ZoneConfig},
};

use super::world::{World, asked_for, no_cluster, secs, settle, zone};
use crate::support::upstream::{Upstream, a};

const GOOD: [u8; 4] = [192, 0, 2, 1];

impl World {
    /// Asks on the client's own thread for A: the address, its TTL, and whether it was within that.
    fn at_hand_in_short(&self, owner: &str) -> Option<(String, u32, bool)> {
        let (reply, from) = self.at_hand(owner, RecordType::A)?;
        let record = &reply.answers[0];
        Some((record.data.to_string(), record.ttl, from == ServedFrom::Cache))
    }

    fn cache_bytes(&self) -> u64 {
        self.forwarder.status().cache.bytes
    }

    /// Asks until the client's own thread has an answer of its own.
    fn make_popular(&self, owner: &str) {
        let before = self.cache_bytes();
        for _ in 0..6 {
            assert!(self.at_hand(owner, RecordType::A).is_some());
        }
        assert!(self.cache_bytes() > before, "{owner} is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn popular_answers_count_down_and_every_hit_counts() {
    let upstream = Upstream::with_a(600, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    let bytes = world.cache_bytes();
    for nth in 0..3 {
        assert!(world.at_hand("www.example", RecordType::A).is_some());
        assert_eq!(world.cache_bytes(), bytes, "kept after {nth} uses");
    }
    world.make_popular("www.example");
    let before = world.cache_metrics.hits.get();
    let mut asked = 0;
    for passed in 0..500 {
        for owner in ["www.example", "WWW.Example"] {
            asked += 1;
            let expected = ("192.0.2.1".to_owned(), 600 - passed, true);
            assert_eq!(world.at_hand_in_short(owner), Some(expected), "after {passed} s");
        }
        world.clock.advance(secs(1));
    }
    assert_eq!(world.cache_metrics.hits.get() - before, asked);
    assert_eq!(world.cache_metrics.misses.get(), 1);
    assert_eq!(asked_for(&upstream, "www.example"), 1);
    assert!(world.at_hand("www.example", RecordType::AAAA).is_none());
}

#[tokio::test(start_paused = true)]
async fn popular_answers_are_renewed_ahead_of_time_and_the_new_one_is_given_at_once() {
    let upstream = Upstream::with_a(100, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    world.make_popular("www.example");
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 100, [192, 0, 2, 2])])]);
    world.elapse(secs(89)).await;
    assert_eq!(world.at_hand_in_short("www.example"), Some(("192.0.2.1".into(), 11, true)));
    settle().await;
    assert_eq!(asked_for(&upstream, "www.example"), 1);
    world.elapse(secs(1)).await;
    assert_eq!(world.at_hand_in_short("www.example"), Some(("192.0.2.1".into(), 10, true)));
    world.elapse(Duration::from_millis(100)).await;
    assert_eq!(world.cache_metrics.prefetches.get(), 1);
    assert_eq!(asked_for(&upstream, "www.example"), 2);
    let (address, ttl, fresh) = world.at_hand_in_short("www.example").unwrap();
    assert!(address == "192.0.2.2" && ttl >= 99 && fresh, "{address} {ttl}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_learnt_anew_replaces_a_popular_one_at_once() {
    let upstream = Upstream::with_a(100, GOOD).await;
    let world = World::new(&[&upstream]);
    world.a("www.example").await;
    world.make_popular("www.example");
    world.elapse(secs(101)).await;
    assert!(world.at_hand("www.example", RecordType::A).is_none(), "it has expired");
    upstream.now(|asked| vec![asked.nxdomain("example")]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1 ede=3");
    assert_eq!(world.at_hand_in_short("www.example"), Some(("192.0.2.1".into(), 30, false)), "stale, as it is there");
    upstream.now(|asked| vec![asked.found(vec![a(&asked.name(), 100, [192, 0, 2, 3])])]);
    world.elapse(secs(6)).await;
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.3");
    assert_eq!(world.at_hand_in_short("www.example").unwrap().0, "192.0.2.3");
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_or_hosts_file_ends_popular_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hosts");
    fs::write(&path, "10.0.0.9 other.example\n").unwrap();
    let (one, two) = (Upstream::with_a(600, GOOD).await, Upstream::with_a(600, [192, 0, 2, 2]).await);
    let root = ZoneConfig { hosts_file: Some(path.clone()), ..zone(".", &[&one]) };
    let world = World::with(vec![root.clone()]);
    for owner in ["www.example", "host.example"] {
        world.a(owner).await;
        world.make_popular(owner);
    }
    fs::write(&path, "10.0.0.9 host.example\n10.0.0.9 other.example\n").unwrap();
    let mut taken_over = false;
    for _ in 0..30 {
        world.elapse(Duration::from_millis(100)).await;
        taken_over = world.a("host.example").await == "NoError 10.0.0.9";
        assert_eq!(world.at_hand("host.example", RecordType::A).is_none(), taken_over, "as soon as that is read");
    }
    assert!(taken_over);
    for _ in 0..2 {
        assert_eq!(world.at_hand_in_short("www.example").unwrap().0, "192.0.2.1");
    }
    let zones = vec![root, zone("www.example", &[&two])];
    world.forwarder.reload(&Config { zones, ..Config::default() }).unwrap();
    assert!(world.at_hand("www.example", RecordType::A).is_none(), "another zone speaks for it now");
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.2");
    assert_eq!(world.at_hand_in_short("www.example").unwrap().0, "192.0.2.2");
}

#[tokio::test(start_paused = true)]
async fn every_nth_popular_question_is_logged_like_any_other() {
    let upstream = Upstream::with_a(600, GOOD).await;
    let config = Config { zones: vec![zone(".", &[&upstream])], query_log_every: 10, ..Config::default() };
    let world = World::build(&config, no_cluster());
    world.a("www.example").await;
    let mut elsewhere = 0;
    for _ in 0..200 {
        if world.at_hand("www.example", RecordType::A).is_none() {
            elsewhere += 1;
            world.a("www.example").await;
        }
    }
    assert_eq!(elsewhere, 20);
}
