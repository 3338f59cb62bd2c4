//! Services that come: the endpoints they lose, and the addresses they take from records that are held.

use std::{collections::HashMap, mem::discriminant, net::IpAddr, sync::Arc};

use super::{
    Draft, Ends, Guard, HeldKey, Hold, Kept, Reason,
    draft::{is_ready_at, lost, with_endpoints, without},
    judge,
};
use crate::{
    record::{Endpoint, Kind, Service, ServiceKey},
    sys::UnixMillis,
};

impl Guard {
    /// Puts services, but for the endpoints they lose where that is held; `suspect` is a reason to hold all of those.
    pub(super) fn put_all(
        &mut self,
        draft: &mut Draft,
        puts: Vec<Arc<Service>>,
        suspect: Option<Reason>,
        now: UnixMillis,
    ) {
        let of = draft.snapshot().counts().endpoints;
        let mut losing = Vec::with_capacity(puts.len());
        let mut any_lost = false;
        for service in puts {
            let key = service.key();
            self.pending.services.remove(key);
            self.deleted.restore(key);
            self.meant.restore(key);
            let before = draft.snapshot().service_by_key(key).cloned();
            let kind = |before: &Arc<Service>| discriminant(before.kind()) == discriminant(service.kind());
            let before = before.filter(|before| kind(before) && !draft.holds_whole(key));
            let (mut gone, mut net) = (Vec::new(), 0);
            if let Some(before) = &before {
                let kept = kept_ips(draft, key);
                gone = lost(before, &service);
                gone.retain(|endpoint| !kept.contains(&endpoint.ip));
                let ready = before.ready_endpoints().count() - kept.len().min(before.ready_endpoints().count());
                net = self.losses.change(key, now, ready, service.ready_endpoints().count(), of);
            }
            any_lost |= net > 0 && !gone.is_empty();
            losing.push((service, before, gone, net));
        }
        let reason = if any_lost { suspect.or_else(|| self.judge_losses(of, now)) } else { None };
        for (service, before, gone, net) in losing {
            self.settle(draft, &service, before.as_deref(), gone, net, reason.as_ref(), now);
            give_away(draft, &mut self.sources, &service, before.as_deref());
            self.let_pending_go(draft, &service);
        }
    }

    fn judge_losses(&mut self, of: usize, now: UnixMillis) -> Option<Reason> {
        let seen = self.losses.seen(now, of);
        judge::losses(seen.lost, seen.of, seen.services, &self.config).then_some(Reason::Endpoints {
            lost: seen.lost as u64,
            of: seen.of as u64,
            services: seen.services as u64,
        })
    }

    /// Serves `service` with the endpoints that are held of it: as many as it has fewer than before.
    #[expect(clippy::too_many_arguments, reason = "one service, and what was found out about it")]
    fn settle(
        &mut self,
        draft: &mut Draft,
        service: &Arc<Service>,
        before: Option<&Service>,
        gone: Vec<Endpoint>,
        net: usize,
        reason: Option<&Reason>,
        now: UnixMillis,
    ) {
        let key = service.key();
        let held_key = HeldKey::Service(key.clone());
        let (mut kept, mut hold) = (Vec::new(), None);
        if let (Some(before), Some(earlier)) = (before, draft.hold_of(key)) {
            let ips = kept_ips(draft, key);
            let still = |endpoint: &&Endpoint| ips.contains(&endpoint.ip) && !is_ready_at(service, endpoint.ip);
            kept.extend(before.ready_endpoints().filter(still).cloned());
            hold = Some(earlier.clone());
        }
        if let Some(reason) = reason.filter(|_| net > 0 && !gone.is_empty()) {
            kept.extend(gone.into_iter().take(net));
            let ends = Ends::At(now.plus(self.config.losses_held_for));
            let new = Hold { kept: Kept::Whole, reason: reason.clone(), since: now, ends, refused: false };
            hold = hold.filter(|hold| matches!(hold.ends, Ends::At(_))).or(Some(new));
        }
        let had = before.map_or(0, |before| before.ready_endpoints().count());
        let room = had.saturating_sub(service.ready_endpoints().count());
        kept.drain(..kept.len().saturating_sub(room));
        match hold {
            Some(hold) if !kept.is_empty() => {
                let mut ips: Vec<IpAddr> = kept.iter().map(|endpoint| endpoint.ip).collect();
                ips.sort_unstable();
                ips.dedup();
                self.sources.insert(key.clone(), Arc::clone(service));
                draft.put(&Arc::new(with_endpoints(service, &kept)));
                draft.hold(held_key, Hold { kept: Kept::Endpoints(ips.into()), ..hold });
            }
            _ => {
                self.sources.remove(key);
                draft.release(&held_key);
                draft.put(service);
            }
        }
    }

    /// A deleted service that waits goes at once if `service` has its cluster IP now.
    fn let_pending_go(&mut self, draft: &mut Draft, service: &Service) {
        let Kind::ClusterIp(ips) = service.kind() else { return };
        if self.pending.services.is_empty() {
            return;
        }
        let others: Vec<ServiceKey> = ips.iter().flat_map(|ip| owners(draft, *ip, service.key())).collect();
        for key in others {
            if self.pending.services.remove(&key) {
                draft.remove(&key);
            }
        }
    }
}

/// The addresses held of a service that the source has.
fn kept_ips(draft: &Draft, key: &ServiceKey) -> Vec<IpAddr> {
    match draft.hold_of(key) {
        Some(Hold { kept: Kept::Endpoints(ips), .. }) => ips.to_vec(),
        _ => Vec::new(),
    }
}

/// The other services that have this cluster IP.
pub(super) fn owners(draft: &Draft, ip: IpAddr, but: &ServiceKey) -> Vec<ServiceKey> {
    let holders = draft.snapshot().holders(ip).iter();
    holders.filter(|holder| holder.cluster_ip && holder.service != *but).map(|holder| holder.service.clone()).collect()
}

/// Ends the holds of addresses that `service` has now: its cluster IPs, and the endpoints that are new in it.
pub(super) fn give_away(
    draft: &mut Draft,
    sources: &mut HashMap<ServiceKey, Arc<Service>>,
    service: &Service,
    before: Option<&Service>,
) {
    if draft.snapshot().held().is_empty() {
        return;
    }
    if let Kind::ClusterIp(ips) = service.kind() {
        let others: Vec<ServiceKey> = ips.iter().flat_map(|ip| owners(draft, *ip, service.key())).collect();
        for other in others {
            if draft.holds_whole(&other) {
                sources.remove(&other);
                draft.remove(&other);
            }
        }
    }
    let kept = kept_ips(draft, service.key());
    let new = service.ready_endpoints().map(|endpoint| endpoint.ip);
    let new = new.filter(|ip| !kept.contains(ip) && !before.is_some_and(|before| is_ready_at(before, *ip)));
    let mut taken: HashMap<ServiceKey, Vec<IpAddr>> = HashMap::new();
    for ip in new {
        for holder in draft.snapshot().holders(ip) {
            let held = match draft.hold_of(&holder.service) {
                Some(Hold { kept: Kept::Whole, .. }) => true,
                Some(Hold { kept: Kept::Endpoints(ips), .. }) => ips.contains(&ip),
                None => false,
            };
            if held && !holder.cluster_ip && holder.service != *service.key() {
                taken.entry(holder.service.clone()).or_default().push(ip);
            }
        }
    }
    for (other, ips) in taken {
        let Some(served) = draft.snapshot().service_by_key(&other).cloned() else { continue };
        let Some(hold) = draft.hold_of(&other).cloned() else { continue };
        if let Kept::Endpoints(kept) = &hold.kept {
            let left: Box<[IpAddr]> = kept.iter().filter(|ip| !ips.contains(ip)).copied().collect();
            let key = HeldKey::Service(other.clone());
            if left.is_empty() {
                draft.release(&key);
                if let Some(source) = sources.remove(&other) {
                    draft.put(&source);
                    continue;
                }
            } else {
                draft.hold(key, Hold { kept: Kept::Endpoints(left), ..hold });
            }
        }
        draft.put(&Arc::new(without(&served, &ips)));
    }
}
