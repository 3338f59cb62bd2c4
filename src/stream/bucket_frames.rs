//! Buckets as frames for repairs, each encoded once for every subscriber that lacks it.

use bytes::Bytes;

use crate::{
    proto,
    record::{BUCKETS, Digest, Snapshot},
    sys::Lock,
};

/// Buckets of a repair go out together until they are this much. HTTP/2 keeps an entry for each piece that waits to be sent, and
/// never gives the room for them back: single buckets, a kilobyte each, took more of it than all else of a connection.
const RUN_BYTES: usize = 16 << 10;

pub(super) struct BucketFrames {
    /// The frame of each bucket, made when first needed.
    single: Lock<Vec<Option<(Digest, Bytes)>>>,
    /// The frames of several buckets, by the first one: those made last.
    runs: Lock<Vec<Option<Run>>>,
}

/// Frames of buckets that go out together.
struct Run {
    buckets: Vec<(usize, Digest)>,
    frames: Bytes,
}

impl Run {
    /// Whether it has the first of the buckets `owed`, as they are in `snapshot`.
    fn begins(&self, snapshot: &Snapshot, owed: &[usize]) -> bool {
        let same = |((bucket, digest), owed): (&(usize, Digest), &usize)| {
            bucket == owed && *digest == snapshot.buckets()[*bucket].digest()
        };
        self.buckets.len() <= owed.len() && self.buckets.iter().zip(owed).all(same)
    }
}

impl Default for BucketFrames {
    fn default() -> Self {
        Self { single: Lock::new(vec![None; BUCKETS]), runs: Lock::new((0..BUCKETS).map(|_| None).collect()) }
    }
}

impl BucketFrames {
    /// The frames of the next buckets `owed` to a subscriber, and how many buckets that is; `None` if none is owed.
    pub(super) fn next(&self, snapshot: &Snapshot, owed: &[usize]) -> Option<(Bytes, usize)> {
        let first = *owed.first()?;
        if let Some(run) = self.runs.lock()[first].as_ref().filter(|run| run.begins(snapshot, owed)) {
            return Some((run.frames.clone(), run.buckets.len()));
        }
        let (mut buckets, mut frames) = (Vec::new(), Vec::new());
        for &bucket in owed {
            buckets.push((bucket, snapshot.buckets()[bucket].digest()));
            frames.extend_from_slice(&self.frame(snapshot, bucket));
            if frames.len() >= RUN_BYTES {
                break;
            }
        }
        let (frames, sent) = (Bytes::from(frames), buckets.len());
        self.runs.lock()[first] = Some(Run { buckets, frames: frames.clone() });
        Some((frames, sent))
    }

    fn frame(&self, snapshot: &Snapshot, bucket: usize) -> Bytes {
        let digest = snapshot.buckets()[bucket].digest();
        if let Some((of, frame)) = &self.single.lock()[bucket]
            && *of == digest
        {
            return frame.clone();
        }
        let frame = proto::bucket_part(snapshot, bucket);
        self.single.lock()[bucket] = Some((digest, frame.clone()));
        frame
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Change, Kind, Service, ServiceKey, Version};

    #[test]
    fn buckets_are_joined_once_for_all_who_are_owed_the_same() {
        let services = (0..1_000_u32).map(|n| {
            let kind = Kind::ClusterIp([std::net::IpAddr::from(n.to_be_bytes())].into());
            Change::Put(Arc::new(Service::new(ServiceKey::new("prod", &format!("s{n}")), kind, vec![], vec![])))
        });
        let version = Version { cluster: "uid".into(), epoch: 1, rev: 1 };
        let snapshot = Snapshot::default().apply(services, version);
        let frames = BucketFrames::default();
        let sent = |buckets: &[usize]| {
            let (mut runs, mut sent) = (Vec::new(), 0);
            while let Some((run, more)) = frames.next(&snapshot, &buckets[sent..]) {
                runs.push(run);
                sent += more;
            }
            runs
        };
        let single = |buckets: &[usize]| -> Vec<u8> {
            buckets.iter().flat_map(|&bucket| proto::bucket_part(&snapshot, bucket)).collect()
        };
        let all: Vec<usize> = (0..BUCKETS).collect();
        let (one, other) = (sent(&all), sent(&all));
        assert_eq!(one.concat(), single(&all));
        assert!(one.iter().zip(&other).all(|(one, other)| one.as_ptr() == other.as_ptr()), "shared");
        assert!(one.len() * RUN_BYTES <= single(&all).len() + RUN_BYTES, "{} runs", one.len());
        for few in [vec![0, 2, 255], vec![7], vec![]] {
            assert_eq!(sent(&few).concat(), single(&few), "no more than is owed: {few:?}");
        }
    }
}
