//! Properties that hold over random sequences of events.

use std::collections::BTreeMap;

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::store::guard::draft::is_ready_at;

/// Whatever the source does, what is served is what it says plus what is held, and letting go of that leaves what it says.
#[test]
fn served_is_always_what_the_source_says_and_what_is_held() {
    // Small numbers, so that in a small store everything happens often.
    let config = Config {
        meant_min: 3,
        list_services_min: 3,
        list_percent: 10,
        class_min: 4,
        deletes_min: 3,
        losses_services_min: 2,
        confirm_tolerance_percent: 5,
        ..Config::default()
    };
    let service = |rng: &mut dyn Rng, n: usize| match rng.random_range(0..4) {
        0 => cluster_ip(n),
        1 => headless(n, 0, &[]),
        _ => headless(n, rng.random_range(1..4), &[rng.random_range(1..4)]),
    };
    let (mut holds, mut confirmed) = (0, 0);
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut store = Store::new();
        store.writer = store.writer.guarded(config.clone(), Clock::Manual(store.clock.clone()));
        let mut source: BTreeMap<usize, Arc<Service>> = (0..30).map(|n| (n, service(&mut rng, n))).collect();
        store.list(source.values().cloned());
        for step in 0..40 {
            let mut told = Vec::new();
            for _ in 0..rng.random_range(0..8) {
                let n = rng.random_range(0..30);
                if rng.random() {
                    let service = service(&mut rng, n);
                    source.insert(n, Arc::clone(&service));
                    told.push(Change::Put(service));
                } else {
                    source.remove(&n);
                    told.push(Change::Remove(key(n)));
                }
            }
            let waited_for = store.reader.held().confirm_at(false).is_some();
            if rng.random_range(0..3) == 0 {
                store.list(source.values().cloned());
            } else {
                store.watch(told);
            }
            if rng.random_range(0..10) == 0 {
                store.ending([0]);
            }
            store.pass(rng.random_range(0..30));
            store.writer.tick();
            let held = store.reader.held();
            holds += usize::from(!held.is_empty());
            confirmed += usize::from(waited_for && held.is_empty());
            let served = store.reader.load();
            for (key, held) in held.services() {
                assert!(served.service_by_key(key).is_some(), "seed {seed}, step {step}: {key} is held, not served");
                let Kept::Endpoints(kept) = &held.kept else { continue };
                for ip in kept {
                    let service = served.service_by_key(key).unwrap();
                    assert!(is_ready_at(service, *ip), "seed {seed}, step {step}: {key} {ip}");
                }
            }
        }
        store.list(source.values().cloned());
        store.writer.release(&Release::All);
        let expected = Snapshot::default().apply(
            source.into_values().map(Change::Put).chain((0..3).map(|n| Change::PutNamespace(format!("ns-{n}").into()))),
            Version::default(),
        );
        let served = store.reader.snapshot();
        assert_eq!(served.diff(&expected), [], "seed {seed}");
        assert_eq!(served.root(), expected.root(), "seed {seed}");
        assert!(store.reader.held().is_empty() && store.reader.held().confirm_at(false).is_none(), "seed {seed}");
    }
    assert!(holds > 100 && confirmed > 5, "{holds} holds, {confirmed} confirmed: this tests nothing");
}
