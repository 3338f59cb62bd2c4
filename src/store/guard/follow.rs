//! A follower's judgement of what its hub says: applied as it is, or, where the hub could not know the follower's records,
//! judged as a list. Deletions refused here are held beside the hub's records and marked as refused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Draft, Ends, Guard, HeldKey, Hold, Kept, Reason,
    comparison::Comparison,
    draft::{lost, with_endpoints},
    hold_again,
    judge::{self, Verdict},
    list::Earlier,
    puts::give_away,
};
use crate::{
    record::{Change, Class, Endpoint, Release, Service, ServiceKey, Snapshot},
    store::Records,
    sys::UnixMillis,
};

impl Guard {
    /// Applies a batch of a hub on the records it has. Records refused here stay until the hub has them, or has released them.
    pub(in crate::store) fn follow_changes(&mut self, draft: &mut Draft, changes: &[Change]) {
        let refused = |draft: &Draft, key: &ServiceKey| draft.hold_of(key).is_some_and(|hold| hold.refused);
        for change in changes {
            match change {
                Change::Remove(key) if refused(draft, key) && draft.holds_whole(key) => {}
                Change::Put(service) => {
                    if refused(draft, service.key()) {
                        draft.release(&HeldKey::Service(service.key().clone()));
                    }
                    let before = draft.snapshot().service_by_key(service.key()).cloned();
                    draft.put(service);
                    if draft.snapshot().held().refused() > 0 {
                        give_away(draft, &mut self.sources, service, before.as_deref());
                    }
                }
                change => draft.make(change),
            }
        }
    }

    /// Makes the records those of a hub that knew them.
    pub(in crate::store) fn become_hub(draft: &mut Draft, records: &Records) {
        let listed: HashSet<&Arc<str>> = records.namespaces.iter().collect();
        let served = draft.snapshot();
        let gone: Vec<ServiceKey> = served
            .services()
            .map(|service| service.key())
            .filter(|key| !records.services.contains_key(*key))
            .cloned()
            .collect();
        let left: Vec<Arc<str>> = served.listed_namespaces().filter(|name| !listed.contains(name)).cloned().collect();
        let held = Arc::clone(served.held());
        for key in &gone {
            draft.remove(key);
        }
        for name in &left {
            draft.remove_namespace(name);
        }
        for (key, _) in held.all().filter(|(key, _)| records.held.get(key).is_none()) {
            draft.release(&key);
        }
        for name in &records.namespaces {
            if !draft.snapshot().lists_namespace(name) {
                draft.put_namespace(name);
            }
        }
        for service in records.services.values() {
            draft.put(service);
        }
        for (key, hold) in records.held.all() {
            draft.hold(key, (**hold).clone());
        }
    }

    /// Judges the records of a hub that could not know those served here, by the rule for lists.
    ///
    /// `released` are releases of operators of the hub that the follower has not seen. A hub that `knew` the records served
    /// here is judged only by those refused before, which stay refused until it has some of them again.
    pub(in crate::store) fn judge_hub(
        &mut self,
        draft: &mut Draft,
        records: &Records,
        released: &[Release],
        knew: bool,
        now: UnixMillis,
    ) {
        let before = draft.snapshot().clone();
        let meant = |namespace: &str| released.iter().any(|release| release.covers(namespace));
        let refused = |key: Option<&ServiceKey>, namespace: &str| {
            let hold = key.map_or_else(|| before.held().namespace(namespace), |key| before.held().service(key));
            hold.filter(|hold| hold.refused && hold.kept == Kept::Whole)
        };
        let comparison = Comparison::of(&before, &records.services, &records.namespaces, |key, namespace| {
            meant(namespace) || (knew && refused(key, namespace).is_none())
        });
        let of = before.counts().services;
        let (verdict, reason) = self.judge_list(&comparison, of, false);
        let earlier = Earlier::of(before.held(), |hold| hold.refused);
        let back = records.services.keys().any(|key| refused(Some(key), key.namespace()).is_some());
        let stays = if back { Verdict::Pass } else { earlier.verdict };
        let passes = self.passes(verdict.max(stays), &earlier, &comparison.missing, of, now);
        Self::become_hub(draft, records);
        if let Some(ends) = passes.ends() {
            for key in &comparison.missing {
                let Some(service) = before.service_by_key(key) else { continue };
                draft.put(service);
                refuse(draft, &before, HeldKey::Service(key.clone()), &reason, ends, now);
            }
            for name in &comparison.namespaces {
                draft.put_namespace(name);
                refuse(draft, &before, HeldKey::Namespace(Arc::clone(name)), &reason, ends, now);
            }
        }
        self.refuse_losses(draft, &before, &records.services, &comparison, now);
        for service in records.services.values() {
            let before = before.service_by_key(service.key());
            if before.is_none_or(|before| before.digest() != service.digest()) {
                give_away(draft, &mut self.sources, service, before.map(|before| &**before));
            }
        }
    }

    /// Holds the endpoints that too many services would lose.
    fn refuse_losses(
        &mut self,
        draft: &mut Draft,
        before: &Snapshot,
        services: &HashMap<ServiceKey, Arc<Service>>,
        comparison: &Comparison,
        now: UnixMillis,
    ) {
        let mut losing: Vec<(&Arc<Service>, Vec<Endpoint>)> = Vec::new();
        let mut net = 0;
        for service in services.values() {
            let Some(old) = before.service_by_key(service.key()) else { continue };
            let fewer = old.ready_endpoints().count().saturating_sub(service.ready_endpoints().count());
            if fewer > 0 {
                let mut gone = lost(old, service);
                gone.truncate(fewer);
                net += gone.len();
                losing.push((service, gone));
            }
        }
        let of = before.counts().endpoints;
        let reason = match comparison.endpoints_emptied(&self.config) {
            Some(of) => Some(Reason::Class { class: Class::Endpoints, of: of as u64 }),
            None => judge::losses(net, of, losing.len(), &self.config).then_some(Reason::Endpoints {
                lost: net as u64,
                of: of as u64,
                services: losing.len() as u64,
            }),
        };
        let new = reason.map(|reason| Hold {
            kept: Kept::Whole,
            reason,
            since: now,
            ends: Ends::At(now.plus(self.config.losses_held_for)),
            refused: true,
        });
        for (service, mut gone) in losing {
            // Deletions refused before stay until their time is over, whatever is lost now.
            let earlier = before.held().service(service.key()).filter(|hold| hold.refused);
            let earlier =
                earlier.and_then(|hold| if let Kept::Endpoints(ips) = &hold.kept { Some((hold, ips)) } else { None });
            if let (None, Some((_, ips))) = (&new, earlier) {
                gone.retain(|endpoint| ips.contains(&endpoint.ip));
            }
            let Some(hold) = earlier.map(|(hold, _)| hold).or(new.as_ref()).filter(|_| !gone.is_empty()) else {
                continue;
            };
            let mut ips: Vec<_> = gone.iter().map(|endpoint| endpoint.ip).collect();
            ips.sort_unstable();
            self.sources.insert(service.key().clone(), Arc::clone(service));
            draft.put(&Arc::new(with_endpoints(service, &gone)));
            let hold = Hold { kept: Kept::Endpoints(ips.into()), ..hold.clone() };
            draft.hold(HeldKey::Service(service.key().clone()), hold);
        }
    }

    /// Holds every record: another cluster answers.
    pub(in crate::store) fn refuse_cluster(draft: &mut Draft, uid: &Arc<str>, refused: bool, now: UnixMillis) {
        let reason = Reason::Cluster { uid: Arc::clone(uid) };
        let served = draft.snapshot();
        let services = served.services().map(|service| HeldKey::Service(service.key().clone()));
        let keys: Vec<HeldKey> = services.chain(served.listed_namespaces().cloned().map(HeldKey::Namespace)).collect();
        for key in keys {
            let served = draft.snapshot().held().get(&key);
            if served.is_none_or(|hold| hold.kept == Kept::Whole && hold.reason != reason) {
                hold_again(draft, key, &reason, Ends::ByOperator, now, refused);
            }
        }
    }
}

fn refuse(draft: &mut Draft, before: &Snapshot, key: HeldKey, reason: &Reason, ends: Ends, now: UnixMillis) {
    let since = before.held().get(&key).filter(|hold| hold.refused).map_or(now, |hold| hold.since);
    let hold = Hold { kept: Kept::Whole, reason: reason.clone(), since, ends, refused: true };
    draft.hold(key, hold);
}
