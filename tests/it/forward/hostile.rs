//! Floods and forgery.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use holdfast::{
    dns::{
        Question,
        cache::{self, Cache, Entry, Key, Kind, Parts},
    },
    sys::UnixMillis,
    wire::{Class, Rtype},
};

use super::world::World;
use crate::support::upstream::{Say, Upstream, a, name};

const TRUE: [u8; 4] = [192, 0, 2, 1];
const FORGED: [u8; 4] = [203, 0, 113, 66];

/// 100,000 answers from elsewhere with every id there is and the right question, spelling included, while the true
/// answer is on its way: the kernel hands none of them to the connected socket.
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_forged_answers_change_nothing() {
    let upstream =
        Upstream::start(|asked| vec![Say::Wait(Duration::from_secs(1)), asked.found(vec![a(&asked.name(), 60, TRUE)])])
            .await;
    let world = Arc::new(World::new(&[&upstream]));
    let client = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.a("www.example").await }
    });
    while upstream.count() == 0 {
        tokio::task::yield_now().await;
    }
    let asked = upstream.seen()[0].clone();
    let mut forged = asked.found(vec![a(&asked.name(), 60, FORGED)]).bytes();
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    for nth in 0..100_000_u32 {
        forged[..2].copy_from_slice(&nth.to_be_bytes()[2..]);
        // The port is closed to strangers: the kernel may say so.
        let _ = attacker.send_to(&forged, asked.from);
    }
    assert_eq!(client.await.unwrap(), "NoError 192.0.2.1");
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1", "and that is what was kept");
}

/// From the upstream's own address and port (an attacker on its host): sixteen guesses of the id, then TCP decides.
#[tokio::test(start_paused = true)]
async fn guessing_from_the_upstreams_own_address_ends_in_tcp() {
    let upstream = Upstream::start(|asked| {
        if asked.tcp {
            return vec![asked.found(vec![a(&asked.name(), 60, TRUE)])];
        }
        let forged = asked.found(vec![a(&asked.name(), 60, FORGED)]).bytes();
        let right = u16::from_be_bytes([forged[0], forged[1]]);
        let guess = |id: u16| {
            let mut guess = forged.clone();
            guess[..2].copy_from_slice(&id.to_be_bytes());
            Say::Bytes(guess)
        };
        (1..=200).map(|off: u16| guess(right.wrapping_add(off))).collect()
    })
    .await;
    let world = World::new(&[&upstream]);
    assert_eq!(world.a("www.example").await, "NoError 192.0.2.1");
}

fn cache(max_bytes: u64) -> Cache {
    let metrics = cache::Metrics::register(&prometheus::Registry::new()).unwrap();
    Cache::new(&cache::Config { max_bytes, ..cache::Config::default() }, metrics)
}

fn entry(nth: u32) -> Arc<Entry> {
    let owner = name(&format!("n{nth}.flood.example"));
    let parts = Parts {
        name: owner,
        rtype: Rtype::A,
        class: Class::IN,
        kind: Kind::Data,
        answers: vec![a(&format!("n{nth}.flood.example"), 60, TRUE)],
        authorities: Vec::new(),
        authentic: false,
        continues: false,
    };
    Arc::new(Entry::new(&parts, UnixMillis(1), 60).unwrap())
}

fn key(cache: &Cache, prefix: u8, nth: u32) -> Key {
    let digits = format!("{}{nth:08}", char::from(prefix));
    let name = format!("{digits}.flood.example.").parse().unwrap();
    Key::new(cache.route(b"\0"), Question::new(name, Rtype::A).by_ref())
}

/// A flood of ten times what the cache holds, while a thousand names are asked for all along. A million names against
/// the default size are in `benches/cache.rs`.
#[test]
fn a_flood_of_random_names_neither_passes_the_limit_nor_drives_popular_names_out() {
    const LIMIT: u64 = 16 << 20;
    const FLOOD: u32 = 250_000;
    const HOT: u32 = 1_000;
    let cache = cache(LIMIT);
    for round in 0..20 {
        for nth in 0..HOT {
            let key = key(&cache, b'h', nth);
            if cache.get(&key).is_none() {
                cache.insert(&key, entry(nth));
            }
        }
        assert!(cache.bytes() <= LIMIT, "round {round}");
    }
    let (mut asked, mut found) = (0_u32, 0_u32);
    let mut highest = 0;
    for nth in 0..FLOOD {
        let key_of_flood = key(&cache, b'r', nth);
        // As a client's question does: looked up first.
        assert!(cache.get(&key_of_flood).is_none());
        cache.insert(&key_of_flood, entry(nth));
        highest = highest.max(cache.bytes());
        if nth % 10 == 0 {
            let hot = key(&cache, b'h', nth / 10 % HOT);
            asked += 1;
            if cache.get(&hot).is_some() {
                found += 1;
            } else {
                cache.insert(&hot, entry(nth));
            }
        }
    }
    assert!(highest <= LIMIT, "{highest} bytes");
    assert!(found * 100 > asked * 99, "{found} of {asked}");
}
