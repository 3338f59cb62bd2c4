//! What a guard upstream let go: a follower with older records lets it go with it, one with newer judges as ever.

use std::sync::Arc;

use super::{Config, Release};
use crate::{
    record::{Change, Kind, Service, ServiceKey, Version},
    store::{self, Origin, Reader, Update, What, Writer},
    sys::{Clock, ManualClock, UnixMillis},
};

const T0: u64 = 1_000_000;

fn store() -> (Writer, Reader) {
    let (writer, reader) = store::open();
    (writer.guarded(Config::default(), Clock::Manual(ManualClock::new(UnixMillis(T0)))), reader)
}

fn stamped(rev: u64) -> Origin {
    Origin::Stamped(Version { cluster: "uid".into(), epoch: 1, rev })
}

fn service(n: u8) -> Change {
    let kind = Kind::ClusterIp([std::net::IpAddr::from([10, 96, 0, n])].into());
    Change::Put(Arc::new(Service::new(ServiceKey::new("prod", &format!("s{n}")), kind, vec![], vec![])))
}

fn list(origin: Origin, count: u8, as_of: u64) -> What {
    What::Reset { origin, records: (0..count).map(service).collect(), as_of: UnixMillis(as_of) }
}

fn let_go(at: u64, what: What) -> Update {
    Update { let_go_at: Some(UnixMillis(at)), ..what.into() }
}

fn deletes(rev: u64, range: std::ops::Range<u8>, as_of: u64) -> What {
    let changes = range.map(|n| Change::Remove(ServiceKey::new("prod", &format!("s{n}")))).collect();
    What::Changes { origin: stamped(rev), changes, as_of: UnixMillis(as_of) }
}

#[test]
fn a_batch_that_shows_what_was_let_go_is_not_held_and_the_next_one_is() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(1), 200, T0)).unwrap();
    writer.apply(let_go(T0 + 5, deletes(2, 0..90, T0))).unwrap();
    assert_eq!((reader.load().counts().services, reader.held().is_empty()), (110, true));
    assert_eq!(reader.let_go(&reader.snapshot()), UnixMillis(T0 + 5), "and passes it on");
    writer.apply(let_go(T0 + 5, deletes(3, 90..180, T0 + 10))).unwrap();
    assert_eq!(reader.held().counts().services, 90, "said again is not said anew");
}

#[test]
fn a_repair_of_one_who_was_away_is_not_held() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(1), 200, T0)).unwrap();
    writer.apply(let_go(T0 + 5, list(stamped(2), 10, T0 + 50))).unwrap();
    assert_eq!(reader.load().counts().services, 10);
}

#[test]
fn one_whose_records_are_newer_goes_on_judging() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(1), 200, T0)).unwrap();
    writer.apply(let_go(T0, list(stamped(2), 0, T0 + 1))).unwrap();
    assert_eq!((reader.load().counts().services, reader.held().counts().services), (200, 200));
}

#[test]
fn what_a_follower_holds_itself_goes_with_the_next_sign_of_life() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(1), 200, T0)).unwrap();
    writer.apply(list(stamped(2), 0, T0)).unwrap();
    assert_eq!(reader.held().counts().services, 200);
    writer.apply(let_go(T0 + 5, What::Fresh { as_of: UnixMillis(T0 + 10) })).unwrap();
    assert_eq!((reader.load().counts().services, reader.held().is_empty()), (0, true));
}

#[test]
fn what_was_let_go_upstream_is_for_the_update_that_shows_it_and_for_no_other() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(5), 200, T0)).unwrap();
    writer.apply(let_go(T0 + 5, list(stamped(4), 0, T0 + 9))).unwrap_err();
    writer.apply(list(stamped(6), 0, T0)).unwrap();
    assert_eq!(reader.held().counts().services, 200, "the one before was refused, this one is judged");
    writer.apply(let_go(T0 + 5, What::Lost { reason: "gone".into() })).unwrap();
    writer.apply(list(stamped(7), 0, T0)).unwrap();
    assert_eq!(reader.held().counts().services, 200);
}

#[test]
fn whoever_lets_go_says_so_together_with_the_records_that_show_it() {
    let (mut writer, reader) = store();
    let watched = || Origin::Watched { cluster: "uid".into(), new_epoch: false };
    writer.apply(list(watched(), 200, T0)).unwrap();
    writer.apply(list(watched(), 0, T0)).unwrap();
    let before = reader.snapshot();
    assert_eq!(reader.let_go(&before), UnixMillis(0));
    writer.release(&Release::All);
    assert_eq!(reader.let_go(&reader.snapshot()), UnixMillis(T0));
    assert_eq!(reader.let_go(&before), UnixMillis(0), "these records do not show it");
}

#[test]
fn letting_go_after_a_hub_whose_clock_was_ahead_is_news_all_the_same() {
    let (mut writer, reader) = store();
    let ahead = T0 + 3_600_000;
    writer.apply(list(stamped(1), 200, T0)).unwrap();
    writer.apply(let_go(ahead, list(stamped(2), 150, T0))).unwrap();
    assert_eq!(reader.let_go(&reader.snapshot()), UnixMillis(ahead));
    // This one leads now, by a clock that is right.
    writer.apply(list(Origin::Watched { cluster: "uid".into(), new_epoch: false }, 0, T0)).unwrap();
    assert_eq!(reader.held().counts().services, 150);
    writer.release(&Release::All);
    assert!(reader.let_go(&reader.snapshot()) > UnixMillis(ahead));
}

#[test]
fn the_first_list_of_one_who_begins_to_stamp_is_an_epoch() {
    let (mut writer, reader) = store();
    writer.apply(list(stamped(7), 20, T0)).unwrap();
    writer.begin_epoch(500);
    writer.apply(deletes(8, 0..1, T0)).unwrap();
    assert_eq!((reader.load().version().epoch, reader.load().version().rev), (1, 8), "another's version stays");
    let watched = || Origin::Watched { cluster: "uid".into(), new_epoch: false };
    let early = What::Changes { origin: watched(), changes: vec![service(99)], as_of: UnixMillis(T0) };
    assert_eq!(writer.apply(early), Err(store::ApplyError::ListFirst), "seen in an earlier life");
    writer.apply(list(watched(), 20, T0)).unwrap();
    assert_eq!((reader.load().version().epoch, reader.load().version().rev), (500, 1));
    writer.apply(list(watched(), 19, T0)).unwrap();
    assert_eq!((reader.load().version().epoch, reader.load().version().rev), (500, 2));
    writer.begin_epoch(3);
    writer.apply(list(watched(), 19, T0)).unwrap();
    assert_eq!(reader.load().version().epoch, 501, "never back");
}
