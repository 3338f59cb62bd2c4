//! A wall clock that is set while something waits, is counted or is held: each takes as long as it would have.

use super::*;

const DAY_MS: i64 = 86_400_000;
/// Hours back after a start with a wrong clock, the same forward, and months.
const JUMPS_MS: [i64; 4] = [-DAY_MS / 3, DAY_MS / 3, -90 * DAY_MS, 90 * DAY_MS];

/// A store at a moment that can be set back by months.
fn store(services: usize) -> Store {
    let mut store = Store::new();
    store.clock.set_wall(UnixMillis(1_733_941_800_000));
    store.list((0..services).map(cluster_ip));
    store
}

fn set(store: &Store, by_ms: i64) {
    store.clock.set_wall(store.clock.now().moved_ms(by_ms));
}

#[test]
fn a_deletion_is_decided_half_a_second_later() {
    for jump in JUMPS_MS {
        let mut store = store(100);
        store.watch([Change::Remove(key(1))]);
        set(&store, jump);
        store.clock.advance(Duration::from_millis(400));
        store.writer.tick();
        assert_eq!(store.now(), (100, 0, 0), "{jump}");
        store.clock.advance(Duration::from_millis(101));
        assert!(store.writer.next_tick().unwrap() <= store.clock.now(), "{jump}");
        store.writer.tick();
        assert_eq!(store.now(), (99, 0, 0), "{jump}");
    }
}

#[test]
fn a_jump_is_followed_at_once() {
    let mut store = store(100);
    store.watch([Change::Remove(key(1))]);
    set(&store, -DAY_MS);
    // The writer does not wait a day for its next tick.
    assert_eq!(store.writer.next_tick(), Some(store.clock.now()));
    store.writer.tick();
    assert_eq!(store.writer.next_tick(), Some(store.clock.now().plus(SETTLE)));
}

#[test]
fn deletions_are_counted_together_for_a_minute() {
    for jump in JUMPS_MS {
        let mut store = store(300);
        store.delete(0..40);
        set(&store, jump);
        store.pass(50);
        store.delete(40..50);
        assert_eq!(store.now(), (250, 0, 0), "{jump}: fewer than a fifth");
        store.pass(12);
        store.delete(50..90);
        assert_eq!(store.now(), (210, 0, 0), "{jump}: the first forty are more than a minute ago");
        store.delete(90..110);
        assert_eq!(store.now(), (210, 20, 0), "{jump}: seventy within a minute are a fifth");
    }
}

#[test]
fn endpoints_are_counted_together_for_half_a_minute() {
    for jump in JUMPS_MS {
        let mut store = Store::new();
        store.clock.set_wall(UnixMillis(1_733_941_800_000));
        store.list((0..100).map(|n| headless(n, 10, &[])));
        let lose = |store: &mut Store, services: std::ops::Range<usize>| {
            store.watch(services.map(|n| Change::Put(headless(n, 3, &[]))));
            store.reader.held().counts().endpoints
        };
        assert_eq!(lose(&mut store, 0..30), 0, "{jump}: of thirty services");
        set(&store, jump);
        store.pass(31);
        assert_eq!(lose(&mut store, 30..60), 0, "{jump}: the first thirty are longer ago");
        assert!(lose(&mut store, 60..85) > 0, "{jump}");
    }
}

#[test]
fn a_hold_ends_ten_minutes_later_and_not_before() {
    for jump in JUMPS_MS {
        let mut store = store(300);
        store.delete(0..100);
        assert_eq!(store.now(), (300, 100, 0));
        set(&store, jump);
        store.pass(580);
        store.list((100..300).map(cluster_ip));
        assert_eq!(store.now(), (300, 100, 0), "{jump}: too early");
        store.pass(20);
        assert!(store.reader.held().confirm_at(false).unwrap() <= store.clock.now(), "{jump}");
        store.list((100..300).map(cluster_ip));
        assert_eq!(store.now(), (200, 0, 0), "{jump}");
    }
}
