//! A follower's copy of a hub's records, frame by frame.

use std::{collections::HashMap, sync::Arc};

use super::{
    Batch, Changes, Contents, Frame, FrameKind, Mark, Mode, Part, Verdicts, VerdictsBody, Vouched, held_digest,
    pack::unpack, record_lineage, record_released, record_version, root_from, shown,
};
use crate::{
    record::{
        Change, Digest, HeldKey, Lineage, Released, RootDigest, Service, ServiceKey, Snapshot, Version, decode_hold,
        decode_service,
    },
    sys::UnixMillis,
};

/// Most bytes of parts or of one batch, unpacked: about a thousand times a large cluster.
const TRANSFER_BYTES_MAX: usize = 1 << 30;
/// Longest identity of a cluster: a UID has 36 bytes.
const CLUSTER_BYTES_MAX: usize = 255;
/// Most hubs a path or a list of addresses may name.
const HUBS_MAX: usize = 64;

/// The copy, and the next one while it is built.
///
/// It is what the *hub* said, which may differ from what the store serves: the guard may be holding records there.
#[derive(Clone, Debug)]
pub struct Mirror {
    node: Arc<str>,
    held: Snapshot,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Nothing was heard on this stream yet.
    Silent,
    /// The hub has no records yet.
    Waiting,
    /// Batches follow what is held; `changes` are those of frames whose batch goes on.
    Following { changes: Vec<Change>, changed_ms: Vec<u64>, lineage: Option<Lineage>, bytes: usize },
    /// Parts are being put together.
    Building { next: Box<Snapshot>, seen: Box<[bool; 256]>, bytes: usize },
}

const FOLLOWING: Stage = Stage::Following { changes: Vec::new(), changed_ms: Vec::new(), lineage: None, bytes: 0 };

/// Parts or a batch, complete and proven: the records held now.
#[derive(Clone, Debug)]
pub struct Complete {
    /// The changes, in no order.
    pub changes: Vec<Change>,
    pub version: Version,
    pub vouched: Vouched,
    /// When the Kubernetes objects changed, in ms since 1970, where the hub knows it.
    pub changed_ms: Vec<u64>,
    /// When the hub made the batch; `None` for a repair or a snapshot.
    pub made: Option<UnixMillis>,
}

/// The result of a frame.
#[derive(Clone, Debug)]
pub enum Event {
    /// The hub lives but has nothing to give yet; why.
    Waiting(String),
    /// The hub chose how to bring us up to date.
    Begins(Mode),
    /// Taken note of; more must come before it counts.
    Partial,
    Changed(Complete),
    /// A repair or a snapshot was put together; [`Mirror::held`] is all there is.
    Replaced(Complete),
    Fresh(Vouched),
    Leaving {
        /// Over how long to spread going elsewhere, in ms.
        window_ms: u32,
        hubs: Vec<String>,
    },
}

/// Why a stream cannot go on. The records held are unchanged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The records do not add up to what the hub says they are.
    #[error("records at {version} have digest {ours}, the hub's have {theirs}")]
    Digest {
        version: Version,
        ours: RootDigest,
        /// The root the hub announced.
        theirs: RootDigest,
    },
    /// The holds do not add up to what the hub says they are.
    #[error("holds at {version} have digest {ours}, the hub's have {theirs}")]
    Holds { version: Version, ours: Digest, theirs: Digest },
    /// The hub offers a state older than ours.
    #[error("hub offers version {offered}, which does not follow {held}")]
    Back { offered: Version, held: Version },
    /// A batch or mark does not follow the records held.
    #[error("frame for {offered}, but {held} is held")]
    Gap {
        /// The version that the frame continues or marks.
        offered: Version,
        held: Version,
    },
    /// Our own name is on the hub's path: records would go in circles.
    #[error("loop: this node is on the path {0}")]
    Loop(String),
    #[error("more than {TRANSFER_BYTES_MAX} bytes in one transfer")]
    TooMuch,
    /// Against the protocol.
    #[error("bad frame: {0}")]
    Malformed(String),
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn malformed(what: impl ToString) -> Fault {
    Fault::Malformed(what.to_string())
}

impl Mirror {
    /// A copy that starts as `held`, of the node called `node`.
    pub fn new(node: &str, held: Snapshot) -> Self {
        Self { node: node.into(), held, stage: Stage::Silent }
    }

    /// The records as the hub last proved them.
    pub fn held(&self) -> &Snapshot {
        &self.held
    }

    /// Forgets unfinished batches; to be called when a new stream begins.
    pub fn restart(&mut self) {
        self.stage = Stage::Silent;
    }

    /// Takes in the next frame.
    ///
    /// # Errors
    /// If the stream cannot go on. Unfinished batches are forgotten; the records held stay.
    pub fn take(&mut self, frame: Frame) -> Result<Event, Fault> {
        let event = self.step(frame);
        if event.is_err() {
            self.stage = Stage::Silent;
        }
        event
    }

    fn step(&mut self, frame: Frame) -> Result<Event, Fault> {
        match frame.kind {
            Some(FrameKind::Welcome(welcome)) => {
                let mode = welcome.mode();
                self.stage = match mode {
                    Mode::Wait => Stage::Waiting,
                    Mode::Delta => FOLLOWING,
                    Mode::Repair => self.building(self.held.clone()),
                    Mode::Snapshot => self.building(Snapshot::default()),
                };
                Ok(if mode == Mode::Wait { Event::Waiting(shown(&welcome.reason)) } else { Event::Begins(mode) })
            }
            Some(FrameKind::Part(part)) => self.part(&part),
            Some(FrameKind::Verdicts(verdicts)) => self.verdicts(&verdicts),
            Some(FrameKind::Batch(batch)) => self.batch(batch),
            Some(FrameKind::Mark(mark)) => self.mark(mark),
            Some(FrameKind::Drain(drain)) => {
                Ok(Event::Leaving { window_ms: drain.window_ms, hubs: bounded(drain.hubs) })
            }
            // A kind of frame from a newer hub.
            None => Ok(Event::Partial),
        }
    }

    #[expect(clippy::unused_self, reason = "reads as a step of the mirror")]
    fn building(&self, base: Snapshot) -> Stage {
        Stage::Building { next: Box::new(base), seen: Box::new([false; 256]), bytes: 0 }
    }

    fn part(&mut self, part: &Part) -> Result<Event, Fault> {
        let Stage::Building { next, seen, bytes } = &mut self.stage else {
            return Err(malformed("part outside a repair or snapshot"));
        };
        let contents: Contents = unpack(part.unpacked_bytes, &part.body).map_err(malformed)?;
        grow(bytes, contents.services.iter().map(bytes::Bytes::len).sum())?;
        let mut came: HashMap<ServiceKey, Arc<Service>> = HashMap::with_capacity(contents.services.len());
        for bytes in &contents.services {
            let service = decode_service(bytes).map_err(malformed)?;
            came.insert(service.key().clone(), Arc::new(service));
        }
        let mut changes = Vec::new();
        let mut namespaces: std::collections::HashSet<String> =
            contents.namespaces.into_iter().map(checked_label).collect::<Result<_, _>>()?;
        for &index in &part.buckets {
            let index = usize::from(index);
            if std::mem::replace(&mut seen[index], true) {
                return Err(malformed(format!("bucket {index} came twice")));
            }
            let bucket = &next.buckets()[index];
            for held in bucket.services() {
                match came.get(held.key()) {
                    None => changes.push(Change::Remove(held.key().clone())),
                    Some(service) if service.digest() == held.digest() => {
                        came.remove(held.key());
                    }
                    Some(_) => {}
                }
            }
            for name in bucket.listed_namespaces() {
                if !namespaces.remove(&**name) {
                    changes.push(Change::RemoveNamespace(Arc::clone(name)));
                }
            }
        }
        changes.extend(came.into_values().map(Change::Put));
        changes.extend(namespaces.into_iter().map(|name| Change::PutNamespace(name.into())));
        let version = next.version().clone();
        **next = next.apply(changes, version);
        Ok(Event::Partial)
    }

    fn verdicts(&mut self, verdicts: &Verdicts) -> Result<Event, Fault> {
        let Stage::Building { next, bytes, .. } = &mut self.stage else {
            return Err(malformed("verdicts outside a repair or snapshot"));
        };
        let body: VerdictsBody = unpack(verdicts.unpacked_bytes, &verdicts.body).map_err(malformed)?;
        grow(bytes, body.holds.iter().map(bytes::Bytes::len).sum())?;
        let mut changes: Vec<Change> = next.held().all().map(|(key, _)| Change::Release(key)).collect();
        for bytes in &body.holds {
            let (key, hold) = decode_hold(bytes).map_err(malformed)?;
            changes.push(Change::Hold(key, Arc::new(hold)));
        }
        let version = next.version().clone();
        **next = next.apply(changes, version).with_lineage(Arc::new(record_lineage(&body.epochs)));
        Ok(Event::Partial)
    }

    fn batch(&mut self, batch: Batch) -> Result<Event, Fault> {
        let Stage::Following { changes, changed_ms, lineage, bytes } = &mut self.stage else {
            return Err(malformed("batch before the hub said how it goes on"));
        };
        let from = record_version(batch.from.as_ref());
        if from != *self.held.version() {
            return Err(Fault::Gap { offered: from, held: self.held.version().clone() });
        }
        let made_ms = batch.made_ms;
        let body: Changes = unpack(batch.unpacked_bytes, &batch.body).map_err(malformed)?;
        grow(
            bytes,
            body.put.iter().map(bytes::Bytes::len).sum::<usize>()
                + 64 * (body.remove.len() + body.hold.len() + body.release.len()),
        )?;
        changed_ms.extend(&body.changed_ms);
        if !body.epochs.is_empty() {
            *lineage = Some(record_lineage(&body.epochs));
        }
        read_changes(body, changes)?;
        let Some(mark) = batch.to else { return Ok(Event::Partial) };
        let (version, proof, vouched) = self.read_mark(mark)?;
        let Stage::Following { changes, changed_ms, lineage, .. } = std::mem::replace(&mut self.stage, FOLLOWING)
        else {
            return Err(malformed("batch before the hub said how it goes on"));
        };
        let mut next = self.held.apply(changes.iter().cloned(), version.clone());
        if let Some(lineage) = lineage {
            next = next.with_lineage(Arc::new(lineage));
        }
        proof.of(&next)?;
        self.held = next;
        Ok(Event::Changed(Complete { changes, version, vouched, changed_ms, made: Some(UnixMillis(made_ms)) }))
    }

    fn mark(&mut self, mark: Mark) -> Result<Event, Fault> {
        let (version, proof, vouched) = self.read_mark(mark)?;
        match std::mem::replace(&mut self.stage, FOLLOWING) {
            Stage::Silent => Err(malformed("mark before a welcome")),
            Stage::Waiting => {
                self.stage = Stage::Waiting;
                Ok(Event::Waiting("hub waits".into()))
            }
            Stage::Building { next, .. } => {
                let mut next = next.with_version(version.clone());
                if !vouched.verdicts {
                    // A hub of an older release knows no holds, so the ones of the hub before are not its.
                    let released: Vec<Change> = next.held().all().map(|(key, _)| Change::Release(key)).collect();
                    next = next.apply(released, version.clone()).with_lineage(Arc::default());
                }
                proof.of(&next)?;
                let changes = next.diff(&self.held);
                self.held = next;
                Ok(Event::Replaced(Complete { changes, version, vouched, changed_ms: Vec::new(), made: None }))
            }
            Stage::Following { .. } => {
                if version != *self.held.version() {
                    return Err(Fault::Gap { offered: version, held: self.held.version().clone() });
                }
                proof.of(&self.held)?;
                Ok(Event::Fresh(vouched))
            }
        }
    }

    /// The mark's state, if it matches these records.
    fn read_mark(&self, mark: Mark) -> Result<(Version, Proof, Vouched), Fault> {
        let version = record_version(mark.version.as_ref());
        let root = root_from(&mark.root).ok_or_else(|| malformed(format!("root of {} bytes", mark.root.len())))?;
        let held = held_digest(&mark.held);
        let path = bounded(mark.path);
        if path.iter().any(|node| **node == *self.node) {
            return Err(Fault::Loop(path.join(" ← ")));
        }
        if version.cluster.is_empty() {
            return Err(malformed("mark without a cluster"));
        }
        if version.cluster.len() > CLUSTER_BYTES_MAX || version.cluster.contains(char::is_control) {
            return Err(malformed(format!("cluster of {} bytes", version.cluster.len())));
        }
        let ours = self.held.version();
        if version.cluster == ours.cluster && ours.follows(&version) {
            return Err(Fault::Back { offered: version, held: ours.clone() });
        }
        let vouched = Vouched {
            as_of: UnixMillis(mark.as_of_ms),
            lost: Some(shown(&mark.lost)).filter(|lost| !lost.is_empty()),
            path,
            window_ms: mark.window_ms,
            hubs: bounded(mark.hubs),
            let_go: UnixMillis(mark.let_go_ms),
            now: UnixMillis(mark.now_ms),
            releases: mark.releases.into_iter().take(Released::MAX).map(record_released).collect(),
            verdicts: held.is_some(),
        };
        Ok((version, Proof { root, held }, vouched))
    }
}

/// The digests a hub announces of its records and holds.
struct Proof {
    root: RootDigest,
    /// `None` from a hub that knows no holds.
    held: Option<Digest>,
}

impl Proof {
    fn of(&self, next: &Snapshot) -> Result<(), Fault> {
        let (version, ours, theirs) = (next.version(), next.root(), self.root);
        if ours != theirs {
            return Err(Fault::Digest { version: version.clone(), ours, theirs });
        }
        let ours = next.held().digest();
        match self.held {
            Some(theirs) if ours != theirs => Err(Fault::Holds { version: version.clone(), ours, theirs }),
            _ => Ok(()),
        }
    }
}

fn grow(bytes: &mut usize, by: usize) -> Result<(), Fault> {
    *bytes += by;
    if *bytes > TRANSFER_BYTES_MAX { Err(Fault::TooMuch) } else { Ok(()) }
}

fn bounded(mut names: Vec<String>) -> Vec<String> {
    names.truncate(HUBS_MAX);
    names.retain(|name| name.len() <= 255 && !name.contains(char::is_control));
    names
}

fn checked_label(name: String) -> Result<String, Fault> {
    if name.is_empty() || name.len() > 63 || name.contains('/') {
        return Err(malformed(format!("namespace {name:?}")));
    }
    Ok(name)
}

fn read_changes(body: Changes, changes: &mut Vec<Change>) -> Result<(), Fault> {
    for bytes in &body.put {
        changes.push(Change::Put(Arc::new(decode_service(bytes).map_err(malformed)?)));
    }
    for key in body.remove {
        let (namespace, name) = key.split_once('/').ok_or_else(|| malformed(format!("key {key:?}")))?;
        if namespace.len() > 63 || name.len() > 63 {
            return Err(malformed(format!("key {key:?}")));
        }
        changes.push(Change::Remove(ServiceKey::new(namespace, name)));
    }
    for name in body.put_namespaces {
        changes.push(Change::PutNamespace(checked_label(name)?.into()));
    }
    for name in body.remove_namespaces {
        changes.push(Change::RemoveNamespace(checked_label(name)?.into()));
    }
    for bytes in &body.hold {
        let (key, hold) = decode_hold(bytes).map_err(malformed)?;
        changes.push(Change::Hold(key, Arc::new(hold)));
    }
    for key in body.release {
        changes.push(Change::Release(HeldKey::parse(&key).ok_or_else(|| malformed(format!("key {key:?}")))?));
    }
    Ok(())
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
