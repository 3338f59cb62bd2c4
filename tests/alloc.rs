//! No answer allocates, and the cache holds its limit as the allocator sees it. A binary of its own: the counter is its
//! global allocator.

#[path = "it/support/ask.rs"]
mod ask;
#[path = "it/support/cached.rs"]
mod cached;
#[path = "it/support/cluster.rs"]
mod cluster;
#[path = "it/support/hot.rs"]
mod hot;

use cached::{LEARNT, entry, key, outside_name};
use holdfast::{
    dns::{
        Cookies, Forward, Outcome, Question, Rotation, Transport, answer,
        cache::{self, Age, Cache, Key},
    },
    sys::{Lock, ResidentMemory, UnixMillis, give_free_pages_back},
    wire::{self, Parsed, TCP_BYTES_MAX},
};

const MIB: u64 = 1 << 20;

/// Held by each test with a cache or a measurement of resident memory. The library's collector of garbage is one for the process: a look-up
/// of another test keeps it from freeing what this one left, so that more is in use after a measurement than before.
static COLLECTOR: Lock<()> = Lock::new(());

fn cache(max_bytes: u64) -> Cache {
    let metrics = cache::Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    Cache::new(&cache::Config { max_bytes, ..cache::Config::default() }, metrics)
}

/// Ten times as many names as there is room for, which nobody asks for again, against a thousand that are asked for all along.
#[test]
fn a_flood_of_names_stays_within_the_limit_and_leaves_popular_names_in() {
    const FLOOD: u32 = 250_000;
    const HOT: u32 = 1_000;
    const LIMIT: u64 = 16 * MIB;
    let _alone = COLLECTOR.lock();
    let (mut asked, mut found) = (0_u32, 0_u32);
    let mut cache_of_flood = None;
    let counted = allocation_counter::measure(|| {
        let cache = cache(LIMIT);
        for _ in 0..20 {
            for nth in 0..HOT {
                if cache.get(&key(&cache, nth)).is_none() {
                    cache.insert(&key(&cache, nth), entry(nth));
                }
            }
        }
        for nth in 0..FLOOD {
            let random = key(&cache, 10_000_000 + nth);
            // As a client's question does: looked up first.
            assert!(cache.get(&random).is_none());
            cache.insert(&random, entry(nth));
            if nth % 10 == 0 {
                asked += 1;
                let popular = nth / 10 % HOT;
                if cache.get(&key(&cache, popular)).is_some() {
                    found += 1;
                } else {
                    cache.insert(&key(&cache, popular), entry(popular));
                }
            }
        }
        cache_of_flood = Some(cache);
    });
    let peak = counted.bytes_max;
    let held = cache_of_flood.unwrap().bytes();
    assert!(peak <= LIMIT, "the allocator saw {peak} of {LIMIT} bytes at most, the ledger {held} at the end");
    assert!(held * 10 >= LIMIT * 8, "the limit is made use of: {held}");
    assert!(found * 1_000 > asked * 990, "{found} of {asked}");
}

/// The cache that workers share, which is asked for what is not in a worker's own cache: nothing is allocated for an answer. The
/// library's collector of garbage, once it has something to free, frees its own list of it in turn and makes another: one of
/// 2 kB for each time that reads are put in order, which is once in 64 look-ups at most. The collector is one for the process, so
/// garbage of the inserts may be freed during the measurement: less may be in use after it, never more.
#[test]
fn a_cached_answer_allocates_nothing_but_the_librarys_list_of_garbage() {
    const NAMES: u32 = 1_000;
    const LOOKUPS_A_LIST: u64 = 64;
    let _alone = COLLECTOR.lock();
    let cache = cache(64 * MIB);
    for nth in 0..NAMES {
        cache.insert(&key(&cache, nth), entry(nth));
    }
    cache.settle();
    let queries: Vec<Vec<u8>> = (0..NAMES)
        .map(|nth| [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], &outside_name(nth), b"\0\x01\0\x01"].concat())
        .collect();
    let route = cache.route(b"\0");
    let mut out = [0; wire::UDP_BYTES_MAX];
    let mut hits = || {
        let mut found = 0;
        for query in &queries {
            let Parsed::Query(query) = wire::parse(query) else { panic!("a query") };
            let key = Key::new(route, Question::of(&query));
            let length = cache.get(&key).map(|entry| entry.write(&query, Transport::Udp, LEARNT, Age::Fresh, &mut out));
            found += usize::from(length.is_some_and(|length| length > query.name.wire().len()));
        }
        found
    };
    // What was left to do for the inserts is done along with the first look-ups.
    for _ in 0..10 {
        hits();
    }
    let mut found = 0;
    let counted = allocation_counter::measure(|| found = hits());
    assert_eq!(found, queries.len());
    assert!(counted.count_current <= 0 && counted.bytes_current <= 0, "{counted:?}");
    assert!(counted.count_total <= u64::from(NAMES) / LOOKUPS_A_LIST, "{counted:?}");
}

/// What a worker keeps of the cache: copied when it is new, found, and copied again when it is time.
#[test]
fn a_popular_answer_allocates_nothing_not_even_when_it_is_copied() {
    // Where a copy may be is by chance, with a few places each: of a thousand names one finds them taken in one run of eighty,
    // of a hundred in one of some millions.
    const NAMES: u32 = 100;
    let _alone = COLLECTOR.lock();
    let cache = cache(64 * MIB);
    let entries: Vec<_> = (0..NAMES).map(entry).collect();
    let queries: Vec<Vec<u8>> = (0..NAMES)
        .map(|nth| [&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], &outside_name(nth), b"\0\x01\0\x01"].concat())
        .collect();
    let mut worker_cache = cache.worker_cache();
    let mut out = [0; wire::UDP_BYTES_MAX];
    let mut round = |millis: u64| {
        let now = UnixMillis(LEARNT.0 + millis);
        let (mut found, mut copied) = (0, 0);
        for (query, entry) in queries.iter().zip(&entries) {
            let Parsed::Query(query) = wire::parse(query) else { panic!("a query") };
            let probe = worker_cache.probe(Question::of(&query), 0);
            if let Some(ready) = worker_cache.find(&probe, now) {
                found += usize::from(
                    ready.write(&query, Transport::Udp, now, Age::Fresh, &mut out) > query.name.wire().len(),
                );
            } else {
                worker_cache.keep(&probe, entry, now);
                copied += 1;
            }
        }
        (found, copied)
    };
    let all = queries.len();
    for (millis, expected) in [(0, (0, all)), (1_999, (all, 0)), (2_000, (0, all)), (3_999, (all, 0))] {
        let mut seen = (0, 0);
        let counted = allocation_counter::measure(|| seen = round(millis));
        assert_eq!((seen, counted.count_total), (expected, 0), "{counted:?}");
    }
}

#[test]
fn an_answer_allocates_nothing() {
    let context = hot::context();
    let rotation = Rotation::default();
    let mut out = vec![0; TCP_BYTES_MAX];
    for question in hot::questions() {
        let mut outcome = None;
        let counted = allocation_counter::measure(|| {
            let batch = context.load();
            let view = context.view(&batch, hot::NOW, &rotation);
            outcome = Some(answer(&context, &view, &question.message, question.transport, None, &mut out));
        });
        assert_eq!(counted.count_total, 0, "{}: {counted:?}", question.title);
        match outcome {
            Some(Outcome::Reply(_)) => {
                let answers = u16::from_be_bytes([out[6], out[7]]);
                assert_eq!(answers, question.answers, "{}", question.title);
            }
            Some(Outcome::Forward(Forward::Whole)) => assert_eq!(question.title, "outside"),
            other => panic!("{}: {other:?}", question.title),
        }
    }
}

#[test]
fn an_answer_with_a_cookie_allocates_nothing() {
    const OPTION: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678";
    let context = hot::context().with_cookies(Some(Cookies::new([7; 16])));
    let rotation = Rotation::default();
    let mut out = vec![0; TCP_BYTES_MAX];
    let client = Some([192, 0, 2, 1].into());
    for question in hot::questions().iter().filter(|question| question.message[11] == 0) {
        let mut message = [&question.message, OPTION].concat();
        message[11] = 1;
        let mut outcome = None;
        let counted = allocation_counter::measure(|| {
            let batch = context.load();
            let view = context.view(&batch, hot::NOW, &rotation);
            outcome = Some(answer(&context, &view, &message, question.transport, client, &mut out));
        });
        assert_eq!(counted.count_total, 0, "{}: {counted:?}", question.title);
        if let Some(Outcome::Reply(reply)) = outcome {
            assert_eq!(out[reply.len - 24..][..8], *b"12345678", "{}", question.title);
        }
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(1))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn what_made_room_is_counted_and_what_was_replaced_is_not() {
    const NAMES: u32 = 10_000;
    let _alone = COLLECTOR.lock();
    let cache = cache(MIB);
    // What is freed late, because another thread is looking something up, takes room until then.
    let stored = (0..NAMES).filter(|nth| cache.insert(&key(&cache, *nth), entry(*nth))).count() as u64;
    cache.settle();
    let (gone, evicted) = (stored - cache.len(), cache.metrics.evictions.get());
    assert!(evicted > 0 && evicted <= gone, "{evicted} of {gone}");

    let roomy = self::cache(64 * MIB);
    for nth in 0..NAMES {
        assert!(roomy.insert(&key(&roomy, nth % 10), entry(nth % 10)));
    }
    roomy.settle();
    assert_eq!((roomy.len(), roomy.metrics.evictions.get()), (10, 0));
}

/// What a burst took and a few blocks between its pages keep glibc from giving back by itself.
#[test]
#[cfg(target_env = "gnu")]
fn free_pages_go_back_to_the_system() {
    const BLOCKS: usize = 64 << 10;
    const BLOCK_BYTES: usize = 1 << 10;
    let _alone = COLLECTOR.lock();
    let memory = ResidentMemory::open().expect("/proc");
    let resident = || memory.bytes().expect("a number");
    let mut blocks: Vec<_> = (0..BLOCKS).map(|_| Some(vec![1_u8; BLOCK_BYTES])).collect();
    let full = resident();
    for (place, block) in blocks.iter_mut().enumerate() {
        if place % 64 != 0 {
            *block = None;
        }
    }
    give_free_pages_back();
    let (after, freed) = (resident(), (BLOCKS * BLOCK_BYTES) as u64);
    assert!(after + freed / 2 < full, "{} KiB, then {} KiB", full >> 10, after >> 10);
}
