//! Holds back deletions that are more likely a fault than meant: what is held goes on being served, and is marked.
//!
//! The guard stands between what the source says and what is served. It is handed every change and the time, and gives
//! back the changes to make; the numbers it goes by are its [`Config`]. It never does I/O, reads a clock or wakes anybody.
//!
//! | what comes | is held if it takes away | until |
//! |---|---|---|
//! | a complete list (a relist, or a repair by a hub) | more than 50 services and 2 %, or every record of a class of 20 or more | a second list 10 s later agrees, if it is no more than 20 %; else an operator |
//! | deletes on a watch | more than 20 % of all services within 60 s | an operator |
//! | endpoints gone or not ready | more than 30 % of all, from more than 50 services, within 30 s | 10 minutes |
//!
//! Fewer than 20 deletes within the window are never held. Whatever the source brings back is no longer held. What was let go
//! before a window filled stays gone: the first fifth of the deletes, the losses of the first 50 services. Holds live in
//! memory: after a restart the records are still there, and the source's first list is judged anew.

mod census;
mod endpoints;
#[cfg(test)]
mod handed_down;
mod held;
mod judge;
#[cfg(test)]
mod tests;
mod window;

use std::{
    collections::{HashMap, HashSet},
    mem::discriminant,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub use self::held::{Class, Ends, Held, HeldCounts, HeldNamespace, HeldService, Kept, Reason};
use self::{
    census::Census,
    endpoints::{is_ready_at, lost, with_endpoints},
    held::PendingList,
    judge::{List, Verdict},
    window::Window,
};
use super::{Records, update::last_of_each};
use crate::{
    record::{Change, Endpoint, Service, ServiceKey, Snapshot},
    sys::UnixMillis,
};

/// The numbers the guard goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A list may always lack this many services.
    pub list_services_min: usize,
    /// A list may lack this many services in a hundred.
    pub list_percent: u8,
    /// A class of records this large may not become empty in one list.
    pub class_min: usize,
    /// A second list this much later may confirm one.
    pub confirm_after: Duration,
    /// Above this many services in a hundred no list confirms another.
    pub confirm_percent_max: u8,
    /// Two lists agree that differ in this many services in a hundred.
    pub confirm_tolerance_percent: u8,
    /// Fewer deletes than this within the window are never held.
    pub deletes_min: usize,
    /// More deletes than this many services in a hundred within the window are held.
    pub deletes_percent: u8,
    pub deletes_within: Duration,
    /// Endpoints that go away are held only if they go from more services than this.
    pub losses_services_min: usize,
    /// More endpoints than this many in a hundred that go away within the window are held.
    pub losses_percent: u8,
    pub losses_within: Duration,
    /// How long endpoints are held: pod addresses are used again.
    pub losses_held_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            list_services_min: 50,
            list_percent: 2,
            class_min: 20,
            confirm_after: Duration::from_secs(10),
            confirm_percent_max: 20,
            confirm_tolerance_percent: 1,
            deletes_min: 20,
            deletes_percent: 20,
            deletes_within: Duration::from_secs(60),
            losses_services_min: 50,
            losses_percent: 30,
            losses_within: Duration::from_secs(30),
            losses_held_for: Duration::from_secs(600),
        }
    }
}

impl Config {
    #[must_use]
    pub fn off() -> Self {
        Self {
            list_services_min: usize::MAX,
            class_min: usize::MAX,
            deletes_min: usize::MAX,
            losses_services_min: usize::MAX,
            ..Self::default()
        }
    }
}

/// What an operator lets go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    All,
    /// What is held of one namespace.
    Namespace(String),
}

/// The state of the guard.
#[derive(Debug)]
pub(super) struct Guard {
    config: Config,
    held: Arc<Held>,
    deletes: Window,
    losses: Window,
    /// A list confirmed an earlier one since this was asked last.
    confirmed: bool,
    /// Addresses of the endpoints held, with the number of services that hold them.
    kept_ips: HashMap<IpAddr, usize>,
}

impl Guard {
    pub(super) fn new(config: Config) -> Self {
        Self {
            deletes: Window::new(config.deletes_within),
            losses: Window::new(config.losses_within),
            config,
            held: Arc::default(),
            confirmed: false,
            kept_ips: HashMap::new(),
        }
    }

    pub(super) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Whether a list confirmed an earlier one since this was asked last.
    pub(super) fn take_confirmed(&mut self) -> bool {
        std::mem::take(&mut self.confirmed)
    }

    /// What to change in `served` when the source says `changes`.
    pub(super) fn changes(&mut self, served: &Snapshot, changes: Vec<Change>, now: UnixMillis) -> Vec<Change> {
        let mut made = Vec::with_capacity(changes.len());
        let (mut puts, mut gone) = (Vec::new(), Vec::new());
        for change in last_of_each(changes) {
            match change {
                Change::Put(service) => puts.push(service),
                Change::Remove(key) => gone.push(key),
                Change::PutNamespace(name) => {
                    self.let_go_of_namespace(&name);
                    made.push(Change::PutNamespace(name));
                }
                Change::RemoveNamespace(_) => made.push(change),
            }
        }
        gone.retain(|key| served.service_by_key(key).is_some() && !self.holds_whole(key));
        let reason = self.judge_deletes(gone.len(), served.counts().services, now);
        for key in gone {
            if let Some(reason) = &reason {
                self.hold_whole(key, reason.clone(), Ends::ByOperator, now);
            } else {
                self.let_go(&key);
                made.push(Change::Remove(key));
            }
        }
        self.put_all(served, puts, None, now, &mut made);
        made
    }

    /// What to change in `served` when the source says that `records` are all there are.
    pub(super) fn list(&mut self, served: &Snapshot, records: Records, now: UnixMillis) -> Vec<Change> {
        let Records { services, namespaces } = records;
        let census = Census::take(served, &services, &namespaces);
        let Census { missing, .. } = &census;
        let of = served.counts().services;
        let emptied = census.emptied(&self.config);
        let verdict = judge::list(
            List { served: of, missing: missing.len(), emptied: emptied.map_or(0, |(_, of)| of) },
            &self.config,
        );
        let reason = match emptied {
            Some((class, of)) if missing.len() < self.config.list_services_min => Reason::Class { class, of },
            _ => Reason::List { missing: missing.len(), of },
        };
        let carried_out = self.carried_out(verdict, missing, of, now);

        let ends = if verdict == Verdict::Confirm { Ends::Confirmed } else { Ends::ByOperator };
        let mut made = Vec::new();
        for key in missing {
            if carried_out {
                // A list judges anew what a list left held, but not deletes that an operator is to decide on.
                if verdict != Verdict::Pass || !self.held_by_deletes(key) {
                    self.let_go(key);
                    made.push(Change::Remove(key.clone()));
                }
            } else {
                self.hold_whole(key.clone(), reason.clone(), ends, now);
            }
        }
        let listed: HashSet<&Arc<str>> = namespaces.iter().collect();
        for name in served.listed_namespaces().filter(|name| !listed.contains(name)) {
            if carried_out {
                self.let_go_of_namespace(name);
                made.push(Change::RemoveNamespace(Arc::clone(name)));
            } else if self.held.namespaces.get(name).is_none_or(|held| held.ends != ends && ends == Ends::ByOperator) {
                let since = self.held.namespaces.get(name).map_or(now, |held| held.since);
                let held = HeldNamespace { reason: reason.clone(), since, ends };
                Arc::make_mut(&mut self.held).namespaces.insert(Arc::clone(name), held);
            }
        }
        let before: HashSet<&Arc<str>> = served.listed_namespaces().collect();
        for name in &namespaces {
            self.let_go_of_namespace(name);
            if !before.contains(name) {
                made.push(Change::PutNamespace(Arc::clone(name)));
            }
        }
        let differs = |service: &Arc<Service>| {
            self.held.services.contains_key(service.key())
                || served.service_by_key(service.key()).is_none_or(|held| held.digest() != service.digest())
        };
        let puts: Vec<Arc<Service>> = services.into_values().filter(differs).collect();
        let no_endpoints = census.endpoints_emptied(&self.config);
        self.put_all(served, puts, no_endpoints, now, &mut made);
        made
    }

    /// What to change in `served` because time has passed.
    pub(super) fn expire(&mut self, served: &Snapshot, now: UnixMillis) -> Vec<Change> {
        if self.held.next_end().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.give_up(served, |_, held| matches!(held.ends, Ends::At(at) if at <= now))
    }

    /// What to change in `served` because an operator says so.
    pub(super) fn release(&mut self, served: &Snapshot, which: &Release) -> Vec<Change> {
        let within = |namespace: &str| match which {
            Release::All => true,
            Release::Namespace(name) => name == namespace,
        };
        let names: Vec<Arc<str>> = self.held.namespaces.keys().filter(|name| within(name)).cloned().collect();
        let mut made = self.give_up(served, |key, _| within(key.namespace()));
        for name in names {
            self.let_go_of_namespace(&name);
            made.push(Change::RemoveNamespace(name));
        }
        if self.held.is_empty() && self.held.list.is_some() {
            Arc::make_mut(&mut self.held).list = None;
        }
        made
    }

    /// Whether a list's removals are carried out; if not, remembers it for the one that may confirm it.
    fn carried_out(&mut self, verdict: Verdict, missing: &HashSet<ServiceKey>, of: usize, now: UnixMillis) -> bool {
        let before = self.held.list.as_ref();
        let (carried_out, pending) = match (verdict, before) {
            (Verdict::Pass, _) => (true, None),
            (Verdict::Operator, _) => (false, None),
            (Verdict::Confirm, Some(list)) if judge::agrees(&list.missing, missing, of, &self.config) => {
                let since = list.since.age(now);
                if judge::confirms(&list.missing, missing, of, since, &self.config) {
                    self.confirmed = true;
                    (true, None)
                } else {
                    // Too soon to confirm anything; what came first goes on counting.
                    return false;
                }
            }
            (Verdict::Confirm, _) => {
                let confirm_at = now.plus(self.config.confirm_after);
                (false, Some(PendingList { since: now, confirm_at, missing: missing.clone() }))
            }
        };
        if before.is_some() || pending.is_some() {
            Arc::make_mut(&mut self.held).list = pending;
        }
        carried_out
    }

    fn judge_deletes(&mut self, deleted: usize, of: usize, now: UnixMillis) -> Option<Reason> {
        self.deletes.lose(now, None, deleted, of);
        let seen = self.deletes.seen(now);
        if deleted == 0 || !judge::deletes(seen.lost, of, &self.config) {
            return None;
        }
        let of = self.deletes.most(of);
        judge::deletes(seen.lost, of, &self.config).then_some(Reason::Deletes { deleted: seen.lost, of })
    }

    fn judge_losses(&mut self, of: usize, now: UnixMillis) -> Option<Reason> {
        let seen = self.losses.seen(now);
        if !judge::losses(seen.lost, of, seen.services, &self.config) {
            return None;
        }
        let of = self.losses.most(of);
        judge::losses(seen.lost, of, seen.services, &self.config).then_some(Reason::Endpoints {
            lost: seen.lost,
            of,
            services: seen.services,
        })
    }

    /// Puts services, but for the endpoints they lose where that is held; `suspect` is a reason to hold all of those.
    fn put_all(
        &mut self,
        served: &Snapshot,
        puts: Vec<Arc<Service>>,
        suspect: Option<Reason>,
        now: UnixMillis,
        made: &mut Vec<Change>,
    ) {
        let of = served.counts().endpoints;
        let mut losing = Vec::with_capacity(puts.len());
        let mut gained = HashSet::new();
        for service in puts {
            let before = served.service_by_key(service.key());
            let still = self.still_kept(&service);
            let lost = before.map_or_else(Vec::new, |before| lost(before, &service, &still));
            self.losses.lose(now, Some(service.key()), lost.len(), of);
            if !self.kept_ips.is_empty() {
                let new = service.ready_endpoints().map(|endpoint| endpoint.ip).filter(|ip| {
                    self.kept_ips.contains_key(ip) && !before.is_some_and(|before| is_ready_at(before, *ip))
                });
                gained.extend(new);
            }
            losing.push((service, still, lost));
        }
        let any_lost = losing.iter().any(|(_, _, lost)| !lost.is_empty());
        let reason = if any_lost { suspect.or_else(|| self.judge_losses(of, now)) } else { None };
        self.give_away(served, &gained, made);
        for (service, mut kept, lost) in losing {
            if reason.is_some() {
                kept.extend(lost);
            }
            kept.retain(|endpoint| !gained.contains(&endpoint.ip));
            self.settle(served, &service, kept, reason.as_ref(), now, made);
        }
    }

    /// The endpoints held of a service that it does not bring back.
    fn still_kept(&self, service: &Service) -> Vec<Endpoint> {
        match self.held.services.get(service.key()) {
            Some(HeldService { kept: Kept::Endpoints(kept), source: Some(source), .. })
                if discriminant(source.kind()) == discriminant(service.kind()) =>
            {
                kept.iter().filter(|endpoint| !is_ready_at(service, endpoint.ip)).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Serves `service` with the endpoints `kept` of it beside its own.
    fn settle(
        &mut self,
        served: &Snapshot,
        service: &Arc<Service>,
        kept: Vec<Endpoint>,
        reason: Option<&Reason>,
        now: UnixMillis,
        made: &mut Vec<Change>,
    ) {
        let key = service.key();
        let earlier = self.held.services.get(key).map(|held| (held.reason.clone(), held.since, held.ends));
        self.let_go(key);
        let mut record = Arc::clone(service);
        if !kept.is_empty()
            && let Some((reason, since, ends)) = earlier
                .filter(|(_, _, ends)| matches!(ends, Ends::At(_)))
                .or_else(|| reason.map(|reason| (reason.clone(), now, Ends::At(judge::until(now, &self.config)))))
        {
            record = Arc::new(with_endpoints(service, &kept));
            let source = Some(Arc::clone(service));
            self.hold(key.clone(), HeldService { kept: Kept::Endpoints(kept), reason, since, ends, source });
        }
        if served.service_by_key(key).is_none_or(|before| before.digest() != record.digest()) {
            made.push(Change::Put(record));
        }
    }

    /// Lets go of the endpoints whose address another service has now.
    fn give_away(&mut self, served: &Snapshot, gained: &HashSet<IpAddr>, made: &mut Vec<Change>) {
        if gained.is_empty() {
            return;
        }
        let given = |held: &HeldService| match &held.kept {
            Kept::Endpoints(kept) => kept.iter().any(|endpoint| gained.contains(&endpoint.ip)),
            Kept::Service => false,
        };
        let keys: Vec<ServiceKey> =
            self.held.services.iter().filter(|(_, held)| given(held)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(HeldService { kept: Kept::Endpoints(kept), source: Some(source), since, .. }) =
                self.held.services.get(&key).cloned()
            else {
                continue;
            };
            let kept = kept.into_iter().filter(|endpoint| !gained.contains(&endpoint.ip)).collect();
            self.settle(served, &source, kept, None, since, made);
        }
    }

    /// Gives up what `which` says, and serves what the source says instead.
    fn give_up(&mut self, served: &Snapshot, which: impl Fn(&ServiceKey, &HeldService) -> bool) -> Vec<Change> {
        let given: Vec<(ServiceKey, Option<Arc<Service>>)> = self
            .held
            .services
            .iter()
            .filter(|(key, held)| which(key, held))
            .map(|(key, held)| (key.clone(), held.source.clone()))
            .collect();
        let mut made = Vec::with_capacity(given.len());
        for (key, source) in given {
            self.let_go(&key);
            match source {
                Some(source) => {
                    if served.service_by_key(&key).is_none_or(|before| before.digest() != source.digest()) {
                        made.push(Change::Put(source));
                    }
                }
                None => made.push(Change::Remove(key)),
            }
        }
        made
    }

    fn holds_whole(&self, key: &ServiceKey) -> bool {
        self.held.services.get(key).is_some_and(|held| held.kept == Kept::Service)
    }

    fn held_by_deletes(&self, key: &ServiceKey) -> bool {
        self.held.services.get(key).is_some_and(|held| matches!(held.reason, Reason::Deletes { .. }))
    }

    /// Holds a service that is gone. One that is held already keeps its reason, and what ends it unless that is stricter.
    fn hold_whole(&mut self, key: ServiceKey, reason: Reason, ends: Ends, now: UnixMillis) {
        match self.held.services.get(&key) {
            Some(held) if held.kept == Kept::Service => {
                if held.ends != ends
                    && ends == Ends::ByOperator
                    && let Some(held) = Arc::make_mut(&mut self.held).services.get_mut(&key)
                {
                    held.ends = ends;
                    held.reason = reason;
                }
            }
            _ => {
                self.let_go(&key);
                self.hold(key, HeldService { kept: Kept::Service, reason, since: now, ends, source: None });
            }
        }
    }

    fn hold(&mut self, key: ServiceKey, held: HeldService) {
        if let Kept::Endpoints(kept) = &held.kept {
            for endpoint in kept {
                *self.kept_ips.entry(endpoint.ip).or_default() += 1;
            }
        }
        Arc::make_mut(&mut self.held).services.insert(key, held);
    }

    fn let_go(&mut self, key: &ServiceKey) {
        if !self.held.services.contains_key(key) {
            return;
        }
        let Some(held) = Arc::make_mut(&mut self.held).services.remove(key) else { return };
        let Kept::Endpoints(kept) = held.kept else { return };
        for endpoint in kept {
            if let Some(times) = self.kept_ips.get_mut(&endpoint.ip) {
                *times -= 1;
                if *times == 0 {
                    self.kept_ips.remove(&endpoint.ip);
                }
            }
        }
    }

    fn let_go_of_namespace(&mut self, name: &Arc<str>) {
        if self.held.namespaces.contains_key(name) {
            Arc::make_mut(&mut self.held).namespaces.remove(name);
        }
    }
}
