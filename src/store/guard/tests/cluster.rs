//! Another cluster behind the source's address, and the same one back in time.

use super::*;
use crate::store::{ApplyError, SourceState};

fn other(services: std::ops::Range<usize>, at: u64) -> What {
    let origin = Origin::Watched { cluster: "other".into(), new_epoch: false };
    let records = services.map(|n| Change::Put(headless(n, 1, &[]))).collect();
    What::Reset { origin, records, as_of: UnixMillis(at) }
}

#[test]
fn another_cluster_changes_nothing_until_an_operator_accepts_it() {
    let mut store = Store::with((0..18).map(cluster_ip));
    let as_of = store.reader.as_of();
    let later = as_of.unwrap().0 + 5_000;
    let refused = store.writer.apply(other(10..30, later)).unwrap_err();
    assert!(matches!(refused, ApplyError::Refused { .. }), "{refused}");
    assert_eq!(store.now(), (18, 18, 0));
    assert_eq!(store.reason(), "another cluster (UID other) answers in place of this one");
    assert_eq!(&*store.reader.load().version().cluster, "uid");
    assert!(matches!(store.reader.freshness().source, SourceState::Lost(_)));
    store.writer.apply(What::Fresh { as_of: UnixMillis(later + 1) }).unwrap();
    assert_eq!(store.reader.as_of(), as_of, "it says nothing of our records");
    store.writer.release(&Release::Cluster("".into()));
    store.writer.apply(other(10..30, later + 2)).unwrap();
    assert_eq!(store.now(), (20, 0, 0));
    assert_eq!(&*store.reader.load().version().cluster, "other");
}

#[test]
fn the_old_cluster_that_answers_again_ends_it() {
    let mut store = Store::with((0..100).map(cluster_ip));
    store.writer.apply(other(10..30, 9_000_000)).unwrap_err();
    assert_eq!(store.now(), (100, 100, 0));
    store.list((0..100).map(cluster_ip));
    assert_eq!(store.now(), (100, 0, 0));
    assert_eq!(store.reader.freshness().source, SourceState::Up);
}

#[test]
fn the_same_cluster_back_in_time_is_judged_as_a_list() {
    let mut store = Store::with((0..118).map(cluster_ip));
    let back = |lacks: usize| {
        let origin = Origin::Watched { cluster: "uid".into(), new_epoch: true };
        let records = (lacks..118).map(|n| Change::Put(cluster_ip(n)));
        let records = records.chain((0..3).map(|n| Change::PutNamespace(format!("ns-{n}").into()))).collect();
        What::Reset { origin, records, as_of: UnixMillis(2_000_000) }
    };
    store.writer.apply(back(30)).unwrap();
    assert_eq!(store.now(), (88, 0, 0));
    assert_eq!(store.reader.load().version().epoch, 2);
    store.writer.apply(back(100)).unwrap();
    assert_eq!(store.now(), (88, 70, 0));
}
