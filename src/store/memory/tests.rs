use super::*;
use crate::{
    record::{Change, Kind, Service, ServiceKey},
    store::{Freshness, Origin, Records, Rejection},
};

fn service(name: &str, ip: &str) -> Change {
    let kind = Kind::ClusterIp([ip.parse().unwrap()].into());
    Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
}

fn watched() -> Origin {
    Origin::Watched { cluster: "uid".into(), new_epoch: false }
}

fn reset(records: impl IntoIterator<Item = Change>, at: u64) -> What {
    What::Reset { origin: watched(), records: records.into_iter().collect(), as_of: UnixMillis(at) }
}

#[test]
fn a_reset_is_a_difference_and_an_equal_one_changes_nothing() {
    let (mut writer, reader) = open();
    assert_eq!(reader.as_of(), None);
    let applied = writer.apply(reset([service("a", "10.0.0.1"), service("b", "10.0.0.2")], 5)).unwrap();
    assert_eq!(applied.changes, 2);
    assert_eq!((reader.load().version().epoch, reader.load().version().rev), (1, 1));
    let before = reader.snapshot();
    let applied = writer.apply(reset([service("b", "10.0.0.2"), service("a", "10.0.0.1")], 9)).unwrap();
    assert_eq!(applied.changes, 0);
    assert!(Arc::ptr_eq(&before, &reader.snapshot()));
    assert_eq!(reader.as_of(), Some(UnixMillis(9)));
    let applied = writer.apply(reset([service("b", "10.0.0.3")], 10)).unwrap();
    assert_eq!(applied.changes, 2);
    assert!(reader.load().service(b"prod", b"a").is_none());
    assert_eq!(reader.load().version().rev, 2);
}

#[test]
fn age_moves_only_when_the_source_vouches() {
    let (mut writer, reader) = open();
    writer.apply(reset([], 5)).unwrap();
    writer.apply(What::Lost { reason: "timeout".into() }).unwrap();
    assert_eq!(reader.as_of(), Some(UnixMillis(5)));
    assert_eq!(reader.freshness().source, SourceState::Lost("timeout".into()));
    writer.apply(What::Fresh { as_of: UnixMillis(7) }).unwrap();
    assert_eq!(reader.freshness(), Freshness { as_of: Some(UnixMillis(7)), source: SourceState::Up });
}

#[test]
fn rejected_objects_are_named_and_change_neither_records_nor_age() {
    let (mut writer, reader) = open();
    writer.apply(reset([service("a", "10.0.0.1")], 5)).unwrap();
    let before = reader.snapshot();
    let rejection =
        Rejection { kind: "Service".into(), name: "prod/bad".into(), reason: "no clusterIP assigned".into() };
    let rejections = Rejections { total: 1, objects: vec![rejection] };
    writer.apply(What::Rejected(rejections.clone())).unwrap();
    assert_eq!(*reader.rejections(), rejections);
    assert!(Arc::ptr_eq(&before, &reader.snapshot()));
    assert_eq!(reader.freshness(), Freshness { as_of: Some(UnixMillis(5)), source: SourceState::Up });
}

#[test]
fn a_restored_etcd_begins_a_new_epoch() {
    let (mut writer, reader) = open();
    writer.apply(reset([service("a", "10.0.0.1")], 5)).unwrap();
    let update = What::Reset {
        origin: Origin::Watched { cluster: "uid".into(), new_epoch: true },
        records: [service("a", "10.0.0.1")].into_iter().collect(),
        as_of: UnixMillis(6),
    };
    writer.apply(update).unwrap();
    assert_eq!((reader.load().version().epoch, reader.load().version().rev), (2, 1));
}

#[test]
fn a_stamped_version_never_goes_back() {
    let (mut writer, reader) = open();
    let stamped = |epoch, rev| Version { cluster: "uid".into(), epoch, rev };
    let changes = |version| What::Changes {
        origin: Origin::Stamped(version),
        changes: vec![service("a", "10.0.0.1")],
        as_of: UnixMillis(1),
    };
    assert!(writer.apply(changes(stamped(1, 4))).is_err(), "changes to nothing");
    let first =
        What::Reset { origin: Origin::Stamped(stamped(1, 4)), records: Records::default(), as_of: UnixMillis(1) };
    writer.apply(first).unwrap();
    writer.apply(changes(stamped(1, 5))).unwrap();
    let error = writer.apply(changes(stamped(1, 3))).unwrap_err();
    assert_eq!(error.to_string(), "version 1.3 of cluster uid does not follow 1.5");
    assert_eq!(*reader.load().version(), stamped(1, 5));
}
