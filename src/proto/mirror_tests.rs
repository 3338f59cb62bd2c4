//! Frames of an honest hub, and of a lying one, read by a mirror.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::{
    proto::{self, FRAME_BYTES_MAX, split},
    record::{Ends, Hold, Kept, Kind, Reason},
};

fn service(name: &str, ip: [u8; 4]) -> Change {
    let kind = Kind::ClusterIp([ip.into()].into());
    Change::Put(Arc::new(Service::new(ServiceKey::new("prod", name), kind, vec![], vec![])))
}

fn version(epoch: u64, rev: u64) -> Version {
    Version { cluster: "uid".into(), epoch, rev }
}

fn cluster(count: u32, at: Version) -> Snapshot {
    let services = (0..count).map(|n| service(&format!("s{n}"), n.to_be_bytes()));
    Snapshot::default().apply(services.chain([Change::PutNamespace("empty".into())]), at)
}

fn vouched() -> Vouched {
    Vouched { as_of: UnixMillis(7), path: vec!["hub".into()], verdicts: true, ..Vouched::default() }
}

fn take(mirror: &mut Mirror, frames: &[Bytes]) -> Result<Vec<Event>, Fault> {
    let mut bytes = BytesMut::from(frames.concat().as_slice());
    let mut events = Vec::new();
    while let Some(frame) = split::<Frame>(&mut bytes, FRAME_BYTES_MAX).unwrap() {
        events.push(mirror.take(frame)?);
    }
    assert!(bytes.is_empty());
    Ok(events)
}

fn snapshot_frames(snapshot: &Snapshot) -> Vec<Bytes> {
    let mut frames = vec![proto::welcome(Mode::Snapshot, "hub")];
    frames.extend(proto::snapshot_parts(snapshot));
    frames.push(proto::mark(snapshot, &vouched()));
    frames
}

fn step(from: &Snapshot, to: &Snapshot) -> Bytes {
    proto::batch(from.version(), &to.diff(from), to, &vouched(), vec![3], UnixMillis(4))
}

#[test]
fn a_snapshot_replaces_whatever_was_held() {
    let hub = cluster(500, version(2, 9));
    let other =
        Snapshot::default().apply([service("old", [1, 1, 1, 1])], Version { cluster: "x".into(), ..version(9, 9) });
    for held in [Snapshot::default(), cluster(3, version(1, 1)), other] {
        let mut mirror = Mirror::new("agent", held);
        let events = take(&mut mirror, &snapshot_frames(&hub)).unwrap();
        assert!(matches!(events.last(), Some(Event::Replaced(_))));
        assert_eq!((mirror.held().root(), mirror.held().version()), (hub.root(), hub.version()));
        assert_eq!(mirror.held().counts(), hub.counts());
    }
}

#[test]
fn a_repair_fetches_only_buckets_that_differ() {
    let hub = cluster(500, version(2, 9));
    let held =
        cluster(500, version(1, 4)).apply([service("s1", [9, 9, 9, 9]), service("gone", [8, 8, 8, 8])], version(1, 5));
    let differ: Vec<usize> =
        hub.digests().zip(held.digests()).enumerate().filter(|(_, (a, b))| a != b).map(|(index, _)| index).collect();
    assert!(differ.len() <= 2);
    let mut mirror = Mirror::new("agent", held);
    let mut frames = vec![proto::welcome(Mode::Repair, "hub")];
    frames.extend(differ.iter().map(|bucket| proto::bucket_part(&hub, *bucket)));
    frames.push(proto::mark(&hub, &vouched()));
    let events = take(&mut mirror, &frames).unwrap();
    let Some(Event::Replaced(whole)) = events.last() else { panic!("{events:?}") };
    assert_eq!(whole.changes.len(), 2);
    assert_eq!(mirror.held().root(), hub.root());
}

#[test]
fn batches_follow_one_another_and_a_heartbeat_proves_the_sum() {
    let first = cluster(10, version(1, 1));
    let second =
        first.apply([service("s1", [9, 9, 9, 9]), Change::Remove(ServiceKey::new("prod", "s2"))], version(1, 2));
    let third = second.apply([Change::RemoveNamespace("empty".into())], version(2, 1));
    let mut mirror = Mirror::new("agent", first.clone());
    let frames = [
        proto::welcome(Mode::Delta, "hub"),
        step(&first, &second),
        step(&second, &third),
        proto::mark(&third, &vouched()),
    ];
    let events = take(&mut mirror, &frames).unwrap();
    assert!(matches!(&events[1], Event::Changed(whole) if whole.changes.len() == 2 && whole.changed_ms == [3]));
    assert!(matches!(&events[3], Event::Fresh(said) if *said == vouched()));
    assert_eq!(mirror.held().root(), third.root());
}

#[test]
fn a_batch_too_large_for_one_frame_becomes_visible_at_once() {
    let first = cluster(1, version(1, 1));
    let large = (0..14_000).map(|n| {
        let key = ServiceKey::new("prod", &format!("{n:063}"));
        Change::Put(Arc::new(Service::new(key, Kind::ExternalName("x".repeat(253).into()), vec![], vec![])))
    });
    let second = first.apply(large, version(1, 2));
    let bytes = step(&first, &second);
    let mut mirror = Mirror::new("agent", first);
    let events = take(&mut mirror, &[proto::welcome(Mode::Delta, "hub"), bytes]).unwrap();
    assert!(events.len() > 2, "{}", events.len());
    assert!(events[1..events.len() - 1].iter().all(|event| matches!(event, Event::Partial)));
    assert_eq!(mirror.held().root(), second.root());
}

#[test]
fn a_lying_hub_changes_nothing() {
    let held = cluster(10, version(2, 5));
    let newer = held.apply([service("s1", [9, 9, 9, 9])], version(2, 6));
    let older = cluster(4, version(2, 4));
    let elsewhere = Vouched { path: vec!["b".into(), "agent".into()], ..vouched() };
    let delta = proto::welcome(Mode::Delta, "hub");
    let repair = proto::welcome(Mode::Repair, "hub");
    let cases: Vec<(&str, Vec<Bytes>)> = vec![
        ("hub offers version 2.4", snapshot_frames(&older)),
        ("hub offers version 2.4", vec![delta.clone(), proto::mark(&older, &vouched())]),
        ("records at 2.6 have digest", vec![repair.clone(), proto::mark(&newer, &vouched())]),
        (
            "records at 2.6 have digest",
            vec![
                delta.clone(),
                proto::batch(held.version(), &[service("s2", [9, 9, 9, 9])], &newer, &vouched(), vec![], UnixMillis(4)),
            ],
        ),
        (
            "records at 2.5 have digest",
            vec![delta.clone(), proto::mark(&newer.with_version(version(2, 5)), &vouched())],
        ),
        ("frame for 2.6, but 2.5 is held", vec![delta.clone(), proto::mark(&newer, &vouched())]),
        (
            "frame for 2.7, but 2.5 is held",
            vec![
                delta.clone(),
                proto::batch(
                    &version(2, 7),
                    &[],
                    &newer.with_version(version(2, 8)),
                    &vouched(),
                    vec![],
                    UnixMillis(4),
                ),
            ],
        ),
        ("loop: this node is on the path b ← agent", vec![delta.clone(), proto::mark(&held, &elsewhere)]),
        ("bad frame: mark before a welcome", vec![proto::mark(&held, &vouched())]),
        ("bad frame: part outside", vec![delta.clone(), proto::bucket_part(&held, 3)]),
        ("bad frame: batch before", vec![repair.clone(), step(&held, &newer)]),
        (
            "bad frame: bucket 3 came twice",
            vec![repair.clone(), proto::bucket_part(&held, 3), proto::bucket_part(&held, 3)],
        ),
        ("bad frame: mark without a cluster", vec![delta, proto::mark(&Snapshot::default(), &vouched())]),
        (
            "bad frame: body is no message",
            vec![
                repair,
                proto::framed(&Frame {
                    kind: Some(FrameKind::Part(Part {
                        buckets: vec![1].into(),
                        unpacked_bytes: 0,
                        body: "\u{1}x".into(),
                    })),
                }),
            ],
        ),
    ];
    for (expected, frames) in cases {
        let mut mirror = Mirror::new("agent", held.clone());
        let error = take(&mut mirror, &frames).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error:?} is not {expected:?}");
        assert_eq!((mirror.held().root(), mirror.held().version()), (held.root(), held.version()), "{expected}");
    }
}

#[test]
fn an_empty_snapshot_is_taken_for_what_it_is_and_left_to_the_guard() {
    let mut mirror = Mirror::new("agent", cluster(10, version(2, 5)));
    let empty = Snapshot::empty(version(3, 1));
    let events = take(&mut mirror, &snapshot_frames(&empty)).unwrap();
    assert!(matches!(events.last(), Some(Event::Replaced(whole)) if whole.changes.len() == 11));
}

/// Texts of a hub are logged, shown and passed on: none is longer than a line, and none makes lines of its own.
#[test]
fn texts_of_a_hub_are_one_line_and_cut() {
    let held = cluster(10, version(2, 5));
    let long = "x\n".repeat(1 << 19);
    let path = vec!["hub".into(), "a\nWARN forged".into(), "y".repeat(256)];
    let said = Vouched { lost: Some(long.clone()), path, ..vouched() };
    let mut mirror = Mirror::new("agent", held.clone());
    let events = take(&mut mirror, &[proto::welcome(Mode::Delta, "hub"), proto::mark(&held, &said)]).unwrap();
    let Some(Event::Fresh(Vouched { lost: Some(lost), path, .. })) = events.last() else { panic!("{events:?}") };
    assert!(lost.chars().count() == 513 && !lost.contains(char::is_control), "{lost:?}");
    assert_eq!(*path, ["hub"]);
    let mut mirror = Mirror::new("agent", Snapshot::default());
    let events = take(&mut mirror, &[proto::wait("hub", &long)]).unwrap();
    assert!(matches!(&events[0], Event::Waiting(why) if why.len() <= 2 * 1_024), "{events:?}");
    for cluster in ["y".repeat(256), "uid\nWARN forged".to_owned()] {
        let other = held.with_version(Version { cluster: cluster.into(), ..version(3, 1) });
        let mut mirror = Mirror::new("agent", held.clone());
        let fault = take(&mut mirror, &snapshot_frames(&other)).unwrap_err().to_string();
        assert!(fault.starts_with("bad frame: cluster of "), "{fault}");
    }
}

#[test]
fn frames_of_a_newer_hub_are_skipped() {
    let mut mirror = Mirror::new("agent", cluster(1, version(1, 1)));
    assert!(matches!(mirror.take(Frame { kind: None }), Ok(Event::Partial)));
}

fn hold(name: &str) -> Change {
    let reason = Reason::List { missing: 1, of: 2 };
    let hold = Hold { kept: Kept::Whole, reason, since: UnixMillis(3), ends: Ends::ByOperator, refused: false };
    Change::Hold(HeldKey::Service(ServiceKey::new("prod", name)), Arc::new(hold))
}

/// A cluster of which something is held, in its second epoch.
fn holding(rev: u64) -> Snapshot {
    let mut lineage = Lineage::default();
    lineage.begin(version(1, 1), Version::default());
    lineage.begin(version(2, 1), version(1, 9));
    cluster(10, version(2, rev)).apply([hold("s1")], version(2, rev)).with_lineage(Arc::new(lineage))
}

#[test]
fn holds_and_epochs_travel_with_a_snapshot_a_repair_and_a_batch() {
    let hub = holding(1);
    let mut parts = proto::snapshot_parts(&hub);
    parts.insert(0, proto::welcome(Mode::Snapshot, "hub"));
    parts.extend([proto::verdicts(&hub), proto::mark(&hub, &vouched())]);
    let mut mirror = Mirror::new("agent", Snapshot::default());
    take(&mut mirror, &parts).unwrap();
    assert_eq!(mirror.held().held().digest(), hub.held().digest());
    assert_eq!(mirror.held().lineage(), hub.lineage());

    let repair = [proto::welcome(Mode::Repair, "hub"), proto::verdicts(&hub), proto::mark(&hub, &vouched())];
    let mut mirror = Mirror::new("agent", cluster(10, version(1, 9)));
    take(&mut mirror, &repair).unwrap();
    assert_eq!(mirror.held().held().digest(), hub.held().digest(), "the records were equal already");
    assert!(mirror.held().lineage().knew(&version(2, 1), &version(1, 9)));

    let before = cluster(10, version(1, 9));
    let mut mirror = Mirror::new("agent", before.clone());
    take(&mut mirror, &[proto::welcome(Mode::Delta, "hub"), step(&before, &hub)]).unwrap();
    assert_eq!(mirror.held().held().digest(), hub.held().digest());
    assert_eq!(mirror.held().lineage(), hub.lineage());
    let after = hub.apply([Change::Release(HeldKey::Service(ServiceKey::new("prod", "s1")))], version(2, 2));
    take(&mut mirror, &[step(&hub, &after)]).unwrap();
    assert!(mirror.held().held().is_empty());
}

#[test]
fn holds_that_do_not_add_up_are_a_fault() {
    let hub = holding(1);
    let frames = [proto::welcome(Mode::Repair, "hub"), proto::mark(&hub, &vouched())];
    let mut mirror = Mirror::new("agent", cluster(10, version(1, 9)));
    let error = take(&mut mirror, &frames).unwrap_err().to_string();
    assert!(error.starts_with("holds at 2.1 have digest"), "{error}");
}

/// The frames of a hub of a release before holds: no verdicts, and marks without their digest.
fn of_older_release(frames: &[Bytes]) -> Vec<Frame> {
    let mut bytes = BytesMut::from(frames.concat().as_slice());
    let mut old = Vec::new();
    while let Some(mut frame) = split::<Frame>(&mut bytes, FRAME_BYTES_MAX).unwrap() {
        match &mut frame.kind {
            Some(FrameKind::Mark(mark)) => mark.held = Bytes::new(),
            Some(FrameKind::Batch(batch)) => batch.to.iter_mut().for_each(|mark| mark.held = Bytes::new()),
            // A kind of frame an older reader skips.
            Some(FrameKind::Verdicts(_)) => frame.kind = None,
            _ => {}
        }
        old.push(frame);
    }
    old
}

#[test]
fn old_and_new_follow_each_other() {
    let hub = holding(1);
    let frames = [proto::welcome(Mode::Repair, "hub"), proto::verdicts(&hub), proto::mark(&hub, &vouched())];
    let mut mirror = Mirror::new("agent", holding(0));
    let mut last = None;
    for frame in of_older_release(&frames) {
        last = Some(mirror.take(frame).unwrap());
    }
    let Some(Event::Replaced(whole)) = last else { panic!("{last:?}") };
    assert!(!whole.vouched.verdicts, "the client knows that it has to judge");
    assert!(mirror.held().held().is_empty() && mirror.held().lineage().beginnings().next().is_none());
    assert_eq!(mirror.held().root(), hub.root(), "the digest of the records is the same in both releases");

    let older = proto::hello("agent", "", &hub);
    assert_eq!(held_digest(&older.held), Some(hub.held().digest()));
}
