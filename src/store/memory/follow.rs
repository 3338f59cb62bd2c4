//! Updates that another holdfast stamped, and what its operators released.

use std::sync::{Arc, atomic::Ordering};

use super::{Writer, check_stamp, next_version};
use crate::{
    record::{Change, Release, Released, Snapshot, Version},
    store::{
        Applied, ApplyError, Records, SourceState, Upstream,
        guard::{Draft, Guard},
    },
    sys::UnixMillis,
};

impl Writer {
    pub(super) fn follow_list(
        &mut self,
        version: Version,
        records: &Records,
        as_of: UnixMillis,
        upstream: Upstream,
    ) -> Result<Applied, ApplyError> {
        let served = self.shared.snapshot.load_full();
        let now = self.clock.now();
        check_stamp(served.version(), &version, now)?;
        let mut draft = Draft::of(&served);
        let released = self.released(&mut draft, &upstream.releases);
        // The same version with two contents: a hub of another history, whatever its epochs are.
        let forked = version == *served.version() && records.differ(&served);
        let knew = self.guard.is_off() || (upstream.lineage.knew(&version, served.version()) && !forked);
        let other = !served.version().cluster.is_empty() && served.version().cluster != version.cluster;
        if other && !knew && self.accepted.as_ref() != Some(&version.cluster) {
            return Err(self.refuse(&served, &version.cluster, false));
        }
        self.refused_cluster = None;
        let all = released.contains(&Release::All) || (other && !knew);
        if all || (knew && draft.snapshot().held().refused() == 0) {
            Guard::become_hub(&mut draft, records);
        } else {
            self.guard.judge_hub(&mut draft, records, &released, knew, now);
        }
        self.accepted.take_if(|_| other);
        self.shared.judges.store(false, Ordering::Release);
        self.note_upstream(&upstream, &version);
        Ok(self.commit_as(&served, draft, version, Some(as_of), Some(upstream.lineage)))
    }

    pub(super) fn follow_changes(
        &mut self,
        version: Version,
        changes: &[Change],
        as_of: UnixMillis,
        changed_at: Vec<UnixMillis>,
        upstream: Upstream,
    ) -> Result<Applied, ApplyError> {
        let served = self.shared.snapshot.load_full();
        let held = served.version();
        if held.cluster != version.cluster {
            return Err(ApplyError::OtherCluster {
                offered: Arc::clone(&version.cluster),
                held: Arc::clone(&held.cluster),
            });
        }
        check_stamp(held, &version, self.clock.now())?;
        let mut draft = Draft::of(&served);
        self.released(&mut draft, &upstream.releases);
        self.guard.follow_changes(&mut draft, changes);
        self.shared.judges.store(false, Ordering::Release);
        self.note_upstream(&upstream, &version);
        if draft.changes > 0 {
            let now = self.clock.now();
            self.shared.changed.note(&version, if changed_at.is_empty() { vec![now] } else { changed_at });
        }
        let lineage = (held.epoch != version.epoch).then_some(upstream.lineage);
        Ok(self.commit_as(&served, draft, version, Some(as_of), lineage))
    }

    /// Holds everything, because another cluster answers; its age stands still.
    pub(super) fn refuse(&mut self, served: &Snapshot, cluster: &Arc<str>, judge: bool) -> ApplyError {
        let now = self.clock.now();
        let mut draft = Draft::of(served);
        Guard::refuse_cluster(&mut draft, cluster, !judge, now);
        let version = if judge { next_version(served, &draft) } else { served.version().clone() };
        let error = ApplyError::Refused { offered: Arc::clone(cluster), held: Arc::clone(&served.version().cluster) };
        self.shared.judges.store(judge, Ordering::Release);
        self.refused_cluster = Some(Arc::clone(cluster));
        self.commit(served, draft, version, None);
        self.publish(None, None, Some(SourceState::Lost(error.to_string())));
        error
    }

    /// Notes releases by operators upstream, and ends the holds refused here that they cover. Returns those that are
    /// new and later than the records.
    pub(super) fn released(&mut self, draft: &mut Draft, releases: &[Released]) -> Vec<Release> {
        let as_of = self.shared.as_of();
        let mut new = Vec::new();
        for released in releases.iter().filter(|released| released.at > self.released_upstream) {
            if as_of.is_some_and(|as_of| as_of <= released.at) {
                new.push(released.which.clone());
            }
        }
        self.released_upstream = releases.iter().map(|released| released.at).fold(self.released_upstream, Ord::max);
        for which in &new {
            if let Release::Cluster(uid) = which {
                self.accepted = Some(Arc::clone(uid));
                if self.refused_cluster.as_ref() == Some(uid) {
                    self.want_list();
                }
            } else {
                self.guard.release(draft, which, true, self.clock.now());
            }
        }
        new
    }

    /// Passes on the decisions of guards upstream.
    pub(super) fn note_upstream(&self, upstream: &Upstream, version: &Version) {
        if upstream.let_go > self.shared.let_go.load().at {
            self.note_let_go(upstream.let_go, version);
        }
        if let Some(last) = upstream.releases.last()
            && self.shared.releases.load().last().is_none_or(|(known, _)| known.at < last.at)
        {
            let releases = upstream.releases.iter().map(|released| (released.clone(), version.clone())).collect();
            self.shared.releases.store(Arc::new(releases));
        }
    }

    /// Asks for a complete list on a new connection.
    pub(super) fn want_list(&self) {
        self.shared.list_wanted.store(self.clock.now().0.max(1), Ordering::Release);
    }
}
