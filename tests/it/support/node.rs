//! Hubs and agents as far as their records go.

use std::sync::Arc;

use bytes::BytesMut;
use holdfast::{
    proto::{self, Event, FRAME_BYTES_MAX, Frame, Mirror, Mode, Vouched},
    record::Snapshot,
    store::{self, Origin, Reader, Records, Update, Upstream, What, Writer, guard},
    sys::{Clock, ManualClock, UnixMillis},
};

/// A store and the copy of what its hub says, without network and time: frames are handed from one node to the other.
pub struct Node {
    pub writer: Writer,
    pub reader: Reader,
    mirror: Mirror,
}

impl Node {
    pub fn new(clock: &ManualClock, config: &guard::Config, disk: Option<&Snapshot>) -> Self {
        let (writer, reader) = store::open();
        let mut writer = writer.guarded(config.clone(), Clock::Manual(clock.clone()));
        if let Some(snapshot) = disk {
            writer.restore(snapshot.clone(), UnixMillis(1));
        }
        let mirror = Mirror::new("node", (*reader.snapshot()).clone());
        Self { writer, reader, mirror }
    }

    /// Follows `hub` up to its present state: by a batch where it can, else by a repair or a snapshot.
    pub fn follow(&mut self, hub: &Reader, clock: &ManualClock, by_batch: bool) {
        let snapshot = hub.snapshot();
        let Some(as_of) = hub.as_of() else { return };
        let vouched = Vouched {
            as_of,
            path: vec!["hub".into()],
            let_go: hub.let_go(&snapshot),
            releases: hub.releases(&snapshot),
            verdicts: true,
            ..Vouched::default()
        };
        let held = self.mirror.held().clone();
        let mut frames = Vec::new();
        let same_cluster = held.version().cluster == snapshot.version().cluster;
        // A hub without the follower's version in its history has no batch for it.
        let in_history = snapshot.lineage().knew(snapshot.version(), held.version());
        if by_batch && same_cluster && in_history {
            frames.push(proto::welcome(Mode::Delta, "hub"));
            let changes = snapshot.diff(&held);
            if changes.is_empty() && held.version() == snapshot.version() {
                frames.push(proto::mark(&snapshot, &vouched));
            } else {
                frames.push(proto::batch(held.version(), &changes, &snapshot, &vouched, vec![], clock.now()));
            }
        } else if same_cluster {
            frames.push(proto::welcome(Mode::Repair, "hub"));
            let differ =
                held.digests().zip(snapshot.digests()).enumerate().filter(|(_, (ours, theirs))| ours != theirs);
            frames.extend(differ.map(|(bucket, _)| proto::bucket_part(&snapshot, bucket)));
            frames.extend([proto::verdicts(&snapshot), proto::mark(&snapshot, &vouched)]);
        } else {
            frames.push(proto::welcome(Mode::Snapshot, "hub"));
            frames.extend(proto::snapshot_parts(&snapshot));
            frames.extend([proto::verdicts(&snapshot), proto::mark(&snapshot, &vouched)]);
        }
        let mut bytes = BytesMut::from(frames.concat().as_slice());
        while let Some(frame) = proto::split::<Frame>(&mut bytes, FRAME_BYTES_MAX).unwrap() {
            let event = self.mirror.take(frame).unwrap();
            let upstream = |vouched: Vouched| Upstream {
                lineage: Arc::clone(self.mirror.held().lineage()),
                let_go: vouched.let_go,
                releases: vouched.releases,
            };
            let update = match event {
                Event::Changed(whole) => {
                    let origin = Origin::Stamped(whole.version);
                    let what = What::Changes { origin, changes: whole.changes, as_of: whole.vouched.as_of };
                    Update { upstream: upstream(whole.vouched), ..what.into() }
                }
                Event::Replaced(whole) => {
                    let records = records(self.mirror.held());
                    let what =
                        What::Reset { origin: Origin::Stamped(whole.version), records, as_of: whole.vouched.as_of };
                    Update { upstream: upstream(whole.vouched), ..what.into() }
                }
                Event::Fresh(vouched) => {
                    let what = What::Fresh { as_of: vouched.as_of };
                    Update { upstream: upstream(vouched), ..what.into() }
                }
                _ => continue,
            };
            self.writer.apply(update).unwrap();
        }
    }
}

fn records(snapshot: &Snapshot) -> Records {
    Records {
        services: snapshot.services().map(|service| (service.key().clone(), Arc::clone(service))).collect(),
        namespaces: snapshot.listed_namespaces().cloned().collect(),
        held: Arc::clone(snapshot.held()),
        ..Records::default()
    }
}
