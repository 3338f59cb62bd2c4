//! The cache alone: a hit, what an entry costs, a flood, and the file. `benches/README.md` says how to read it.

#![allow(missing_docs, reason = "criterion's macros make public items without any")]

#[path = "../tests/it/support/cached.rs"]
mod cached;

use std::{hint::black_box, time::Instant};

use cached::{LEARNT, entry, key, outside_name};
use criterion::{Criterion, criterion_group, criterion_main};
use holdfast::{
    dns::{
        Question, Transport,
        cache::{self, Age, Cache, Key, RouteId, WorkerCache},
    },
    wire::{self, Parsed},
};

const MIB: u64 = 1 << 20;
/// Names that are asked for again and again.
const POPULAR: usize = 10_000;
/// Rounds of look-ups before allocations are counted.
const ROUNDS: usize = 30;

fn cache(max_bytes: u64) -> Cache {
    let metrics = cache::Metrics::register(&prometheus::Registry::new()).expect("a fresh registry");
    Cache::new(&cache::Config { max_bytes, ..cache::Config::default() }, metrics)
}

/// A query for every 997th name, so that lookups do not stay in the processor's caches.
fn queries(entries: u32) -> Vec<Vec<u8>> {
    let query = |nth: u32| {
        let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        query.extend(outside_name(nth * 997 % entries));
        query.extend(b"\0\x01\0\x01");
        query
    };
    (0..entries.min(100_000)).map(query).collect()
}

/// What a worker does for a hit: parse, look up, write.
fn hit(cache: &Cache, route: RouteId, query: &[u8], out: &mut [u8]) -> usize {
    let Parsed::Query(query) = wire::parse(query) else { return 0 };
    let key = Key::new(route, Question::of(&query));
    cache.get(&key).map_or(0, |entry| entry.write(&query, Transport::Udp, LEARNT, Age::Fresh, out))
}

/// The same, for a worker that keeps what it is asked for most.
fn popular_hit(cache: &Cache, worker_cache: &mut WorkerCache, route: RouteId, query: &[u8], out: &mut [u8]) -> usize {
    let Parsed::Query(query) = wire::parse(query) else { return 0 };
    let probe = worker_cache.probe(Question::of(&query), 0);
    if let Some(ready) = worker_cache.find(&probe, LEARNT) {
        return ready.write(&query, Transport::Udp, LEARNT, Age::Fresh, out);
    }
    let Some(entry) = cache.get(&Key::new(route, Question::of(&query))) else { return 0 };
    worker_cache.keep(&probe, &entry, LEARNT);
    entry.write(&query, Transport::Udp, LEARNT, Age::Fresh, out)
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hit");
    for entries in [1_000, 1_000_000_u32] {
        let cache = cache(2_048 * MIB);
        let counted = allocation_counter::measure(|| {
            for nth in 0..entries {
                cache.insert(&key(&cache, nth), entry(nth));
            }
            cache.settle();
        });
        let each = |bytes: u64| bytes / u64::from(entries);
        println!(
            "{entries} entries: {} bytes each by the allocator, {} by the ledger",
            each(u64::try_from(counted.bytes_current).unwrap_or(0)),
            each(cache.bytes())
        );
        let (queries, route) = (queries(entries), cache.route(b"\0"));
        let mut out = [0; wire::UDP_BYTES_MAX];
        let mut found = 0;
        let mut round = || {
            allocation_counter::measure(|| {
                found = queries.iter().filter(|query| hit(&cache, route, query, &mut out) > 0).count();
            })
            .count_total
        };
        // What the inserts left to tidy up is done along with the first look-ups, and allocates.
        let (first, after) = (round(), (0..ROUNDS).map(|_| round()).last().unwrap_or(0));
        println!("{entries} entries: {after} allocations in {found} hits; {first} in the first ones after the inserts");
        let mut next = queries.iter().cycle();
        group.bench_function(format!("{entries}"), |bencher| {
            bencher.iter(|| next.next().map(|query| hit(&cache, route, black_box(query), &mut out)));
        });
        let popular = queries.len().min(POPULAR);
        for (title, mut worker_cache) in [("", WorkerCache::none()), (", kept by the worker", cache.worker_cache())] {
            let mut next = queries[..popular].iter().cycle();
            group.bench_function(format!("{popular} names of {entries}{title}"), |bencher| {
                bencher.iter(|| {
                    next.next().map(|query| popular_hit(&cache, &mut worker_cache, route, black_box(query), &mut out))
                });
            });
        }
    }
    group.finish();
}

/// A million random names against the default size, a thousand popular names asked for all along.
fn flood(_: &mut Criterion) {
    let cache = cache(64 * MIB);
    let (mut asked, mut found, mut highest) = (0_u32, 0_u32, 0);
    for _ in 0..20 {
        for nth in 0..1_000 {
            if cache.get(&key(&cache, nth)).is_none() {
                cache.insert(&key(&cache, nth), entry(nth));
            }
        }
    }
    let began = Instant::now();
    for nth in 0..1_000_000_u32 {
        let random = key(&cache, 10_000_000 + nth);
        if cache.get(&random).is_none() {
            cache.insert(&random, entry(nth));
        }
        highest = highest.max(cache.bytes());
        if nth % 10 == 0 {
            let popular = key(&cache, nth / 10 % 1_000);
            asked += 1;
            if cache.get(&popular).is_some() {
                found += 1;
            } else {
                cache.insert(&popular, entry(nth));
            }
        }
    }
    println!(
        "flood: {:.2} % of {asked} popular questions hit, at most {highest} of {} bytes, {:?}",
        100.0 * f64::from(found) / f64::from(asked),
        cache.max_bytes(),
        began.elapsed()
    );
}

/// Saving and loading a full cache of the default size.
fn file(_: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache.zst");
    let full = cache(64 * MIB);
    let mut nth = 0;
    // As much as there is room for before something is evicted.
    while full.bytes() < 55 * MIB {
        full.insert(&key(&full, nth), entry(nth));
        nth += 1;
    }
    full.settle();
    let began = Instant::now();
    let saved = cache::save(&full, &path, 0).expect("saved");
    let save = began.elapsed();
    let bytes = std::fs::metadata(&path).expect("there").len();
    let again = cache(64 * MIB);
    let began = Instant::now();
    let loaded = cache::load(&again, &path, LEARNT, 0).expect("loaded");
    println!("file: {saved} entries saved in {save:?} ({bytes} bytes), {loaded} loaded in {:?}", began.elapsed());
}

criterion_group!(benches, hits, flood, file);
criterion_main!(benches);
