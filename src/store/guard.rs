//! Holds back deletions that are more likely a fault than meant: the records stay served, each with a hold that says why.
//!
//! The guard of the process that watches the source judges; its holds travel with the records, and followers apply them.
//! A follower judges only what its hub could not know ([`follow`]). `docs/decisions/guard.md` has the
//! table of rules. The guard decides on a [`Draft`]; it does no I/O, reads no clock and wakes no task.

mod comparison;
mod draft;
mod follow;
mod judge;
#[cfg(test)]
mod tests;
mod windows;

use std::{
    collections::{HashMap, HashSet},
    mem::discriminant,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub(super) use self::draft::Draft;
use self::{
    comparison::Comparison,
    draft::{is_ready_at, lost, with_endpoints, without},
    judge::{List, Verdict},
    windows::{Deleted, Lost},
};
use super::{Records, update::last_of_each};
pub use crate::record::{Class, Ends, Held, HeldCounts, HeldKey, Hold, Kept, Reason, Release};
use crate::{
    record::{Change, Endpoint, Kind, Service, ServiceKey},
    sys::UnixMillis,
};

/// Deletions decide together what comes with less time than this between.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest a deletion waits for others.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// The longest a burst large enough to be held waits for its end.
const BURST_MAX: Duration = Duration::from_secs(10);
/// Namespaces remembered whose deletion began. A cluster has as many namespaces at most.
const ENDING_MAX: usize = 100_000;

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
    /// How long deletes are held before a list may confirm them.
    pub deletes_held_for: Duration,
    /// Fewer services than this deleted with their namespaces are never held.
    pub meant_min: usize,
    /// As many services in a hundred deleted with their namespaces within the window for deletes are held.
    pub meant_percent: u8,
    /// Namespaces whose deletion is always held.
    pub protect: Vec<String>,
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
            deletes_held_for: Duration::from_secs(600),
            meant_min: 50,
            meant_percent: 50,
            protect: vec!["kube-system".to_owned(), "default".to_owned()],
            losses_services_min: 50,
            losses_percent: 30,
            losses_within: Duration::from_secs(30),
            losses_held_for: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// Holds nothing back.
    #[must_use]
    pub fn off() -> Self {
        Self {
            list_services_min: usize::MAX,
            class_min: usize::MAX,
            deletes_min: usize::MAX,
            meant_min: usize::MAX,
            protect: Vec::new(),
            losses_services_min: usize::MAX,
            ..Self::default()
        }
    }

    fn is_off(&self) -> bool {
        self.list_services_min == usize::MAX
    }

    fn protects(&self, namespace: &str) -> bool {
        self.protect.iter().any(|name| name == namespace)
    }
}

/// Deletions by events that wait to be decided together.
#[derive(Debug, Default)]
struct Pending {
    services: HashSet<ServiceKey>,
    namespaces: HashSet<Arc<str>>,
    /// When the first and the last of them came.
    first: UnixMillis,
    last: UnixMillis,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.namespaces.is_empty()
    }

    fn came(&mut self, now: UnixMillis) {
        if self.is_empty() {
            self.first = now;
        }
        self.last = now;
    }
}

/// The state of the guard. What is held stands in the snapshot.
#[derive(Debug)]
pub(super) struct Guard {
    config: Config,
    pending: Pending,
    /// Namespaces whose deletion began.
    ending: HashSet<Arc<str>>,
    deleted: Deleted,
    meant: Deleted,
    losses: Lost,
    /// The source's version of services of which endpoints are held.
    sources: HashMap<ServiceKey, Arc<Service>>,
}

impl Guard {
    pub(super) fn new(config: Config) -> Self {
        Self {
            pending: Pending::default(),
            ending: HashSet::new(),
            deleted: Deleted::new(config.deletes_within),
            meant: Deleted::new(config.deletes_within),
            losses: Lost::new(config.losses_within),
            sources: HashMap::new(),
            config,
        }
    }

    /// Whether nothing is ever held.
    pub(super) fn is_off(&self) -> bool {
        self.config.is_off()
    }

    /// Takes in events of the source. `ending` are namespaces whose deletion was seen to begin.
    pub(super) fn changes(&mut self, draft: &mut Draft, changes: Vec<Change>, ending: Vec<Arc<str>>, now: UnixMillis) {
        let (mut puts, mut gone) = (Vec::new(), Vec::new());
        for change in last_of_each(changes) {
            match change {
                Change::Put(service) => puts.push(service),
                Change::Remove(key) => gone.push(key),
                Change::PutNamespace(name) => {
                    self.ending.remove(&name);
                    self.pending.namespaces.remove(&name);
                    draft.put_namespace(&name);
                }
                Change::RemoveNamespace(name) => {
                    self.end_namespace(draft, &name, now);
                    self.pending.came(now);
                    self.pending.namespaces.insert(name);
                }
                // Decided by no source.
                Change::Hold(..) | Change::Release(_) => {}
            }
        }
        for name in ending {
            self.end_namespace(draft, &name, now);
        }
        self.put_all(draft, puts, None, now);
        for key in gone {
            if draft.snapshot().service_by_key(&key).is_some() && !draft.holds_whole(&key) {
                self.pending.came(now);
                self.pending.services.insert(key);
            }
        }
        if self.is_off() {
            self.flush(draft, now);
        }
    }

    /// The deletion of a namespace began: deletions in it are meant, those that are held too.
    fn end_namespace(&mut self, draft: &Draft, name: &Arc<str>, now: UnixMillis) {
        if self.ending.len() >= ENDING_MAX {
            self.ending.clear();
        }
        if !self.ending.insert(Arc::clone(name)) || self.config.protects(name) {
            return;
        }
        let fact = |hold: &Hold| matches!(hold.reason, Reason::Deletes { .. }) && !hold.refused;
        let held = draft.snapshot().held().services().filter(|(key, hold)| key.namespace() == &**name && fact(hold));
        let keys: Vec<ServiceKey> = held.map(|(key, _)| key.clone()).collect();
        if !keys.is_empty() {
            self.pending.came(now);
            self.pending.services.extend(keys);
        }
    }

    /// When the deletions that wait are to be decided; none if none wait.
    pub(super) fn due(&self) -> Option<UnixMillis> {
        if self.pending.is_empty() {
            return None;
        }
        let meant = |key: &&ServiceKey| self.ending.contains(key.namespace());
        let large = self.pending.services.iter().filter(|key| !meant(key)).count() >= self.config.deletes_min;
        let longest = if large { BURST_MAX } else { SETTLE_MAX };
        Some(self.pending.last.plus(SETTLE).min(self.pending.first.plus(longest)))
    }

    /// Decides the deletions by events that wait.
    pub(super) fn flush(&mut self, draft: &mut Draft, now: UnixMillis) {
        let Pending { services, namespaces, .. } = std::mem::take(&mut self.pending);
        let (mut meant, mut plain, mut protected) = (Vec::new(), Vec::new(), Vec::new());
        for key in services {
            if draft.snapshot().service_by_key(&key).is_none() {
                continue;
            }
            self.losses.forget(&key);
            if !self.ending.contains(key.namespace()) {
                self.deleted.delete(&key, now);
                plain.push(key);
            } else if self.config.protects(key.namespace()) {
                protected.push(key);
            } else {
                self.deleted.restore(&key);
                self.meant.delete(&key, now);
                meant.push(key);
            }
        }
        let served = draft.snapshot();
        let (mut deleted, mut passed) = (0, 0);
        for key in self.deleted.services(now) {
            deleted += 1;
            passed += usize::from(served.service_by_key(key).is_none());
        }
        let mut with_namespace = 0;
        for key in self.meant.services(now) {
            with_namespace += 1;
            passed += usize::from(served.service_by_key(key).is_none());
        }
        let of = served.counts().services + passed;
        let ends = Ends::Listed(now.plus(self.config.deletes_held_for));
        let plain_reason = judge::deletes(deleted, of, &self.config)
            .then_some(Reason::Deletes { deleted: deleted as u64, of: of as u64 });
        let meant_reason = judge::meant(with_namespace, of, &self.config)
            .then_some(Reason::Namespaces { deleted: with_namespace as u64, of: of as u64 });
        let decided =
            [(plain, plain_reason.clone()), (meant, meant_reason.clone()), (protected, Some(Reason::Protected))];
        for (keys, reason) in decided {
            for key in keys {
                match &reason {
                    Some(reason) => self.hold_whole(draft, &key, reason, ends, now),
                    None => self.let_go(draft, &key),
                }
            }
        }
        for name in namespaces {
            let reason = if self.config.protects(&name) { Some(Reason::Protected) } else { meant_reason.clone() };
            match reason {
                Some(reason) if draft.snapshot().lists_namespace(&name) => {
                    let hold = Hold { kept: Kept::Whole, reason, since: now, ends, refused: false };
                    draft.hold(HeldKey::Namespace(name), hold);
                }
                _ => {
                    if !self.config.protects(&name) {
                        self.ending.remove(&name);
                    }
                    draft.remove_namespace(&name);
                }
            }
        }
    }

    /// Takes in a complete list of the source.
    pub(super) fn list(&mut self, draft: &mut Draft, records: Records, now: UnixMillis) {
        let Records { services, namespaces, ending, from_files, .. } = records;
        let listed: HashSet<&Arc<str>> = namespaces.iter().collect();
        // A namespace that was seen ending and is gone was meant, as its services are.
        self.ending.retain(|name| !listed.contains(name));
        self.ending.extend(ending);
        let served = draft.snapshot();
        let meant = served.services().map(|service| service.key()).filter(|key| {
            !services.contains_key(*key) && !draft.holds_whole(key) && self.ending.contains(key.namespace())
        });
        let meant: Vec<ServiceKey> = meant.cloned().collect();
        let ended = served.listed_namespaces().filter(|name| !listed.contains(name) && self.ending.contains(*name));
        let ended: Vec<Arc<str>> = ended.filter(|name| served.held().namespace(name).is_none()).cloned().collect();
        self.pending.services.retain(|key| !services.contains_key(key));
        self.pending.namespaces.retain(|name| !listed.contains(name));
        self.pending.services.extend(meant);
        self.pending.namespaces.extend(ended);
        self.flush(draft, now);

        let served = draft.snapshot();
        let fact = |hold: Option<&Hold>| hold.is_some_and(|hold| hold.kept == Kept::Whole && !hold.reason.is_claim());
        let comparison = Comparison::of(served, &services, &namespaces, |key, namespace| match key {
            Some(key) => fact(served.held().service(key)),
            None => fact(served.held().namespace(namespace)),
        });
        let of = served.counts().services;
        let (verdict, reason) = self.judge_list(&comparison, of, from_files);
        let earlier = Earlier::of(served.held(), |hold| !hold.refused);

        for name in &namespaces {
            draft.put_namespace(name);
        }
        let differs = |service: &Arc<Service>| {
            let served = draft.snapshot().service_by_key(service.key());
            draft.hold_of(service.key()).is_some() || served.is_none_or(|before| before.digest() != service.digest())
        };
        let puts: Vec<Arc<Service>> = services.values().filter(|service| differs(service)).cloned().collect();
        let no_endpoints = comparison.endpoints_emptied(&self.config);
        let no_endpoints = no_endpoints.map(|of| Reason::Class { class: Class::Endpoints, of: of as u64 });
        self.put_all(draft, puts, no_endpoints, now);

        let passes = self.passes(verdict, &earlier, &comparison.missing, of, now);
        if let Some(ends) = passes.ends(&self.config, now) {
            for key in &comparison.missing {
                self.hold_whole(draft, key, &reason, ends, now);
            }
            for name in &comparison.namespaces {
                hold_again(draft, HeldKey::Namespace(Arc::clone(name)), &reason, ends, now, false);
            }
        } else if matches!(passes, Passes::Yes) {
            for key in &comparison.missing {
                self.let_go(draft, key);
            }
            for name in &comparison.namespaces {
                draft.remove_namespace(name);
            }
        }
        self.confirm_facts(draft, &services, &listed, matches!(passes, Passes::Yes), now);
    }

    /// Ends holds of deletions by events whose time is over and that a consistent list confirms.
    fn confirm_facts(
        &mut self,
        draft: &mut Draft,
        services: &HashMap<ServiceKey, Arc<Service>>,
        namespaces: &HashSet<&Arc<str>>,
        consistent: bool,
        now: UnixMillis,
    ) {
        let due = |hold: &Hold| matches!(hold.ends, Ends::Listed(at) if at <= now) && !hold.reason.is_claim();
        let held = Arc::clone(draft.snapshot().held());
        for (key, hold) in held.all().filter(|(_, hold)| due(hold) && !hold.refused) {
            let listed = match &key {
                HeldKey::Service(key) => services.contains_key(key),
                HeldKey::Namespace(name) => namespaces.contains(name),
            };
            if listed {
                continue;
            }
            if consistent {
                self.forget(&key);
                draft.remove_held(&key);
            } else {
                let ends = Ends::Listed(now.plus(self.config.confirm_after));
                draft.hold(key, Hold { ends, ..(**hold).clone() });
            }
        }
    }

    fn forget(&mut self, key: &HeldKey) {
        match key {
            HeldKey::Service(key) => {
                self.sources.remove(key);
            }
            HeldKey::Namespace(name) => {
                self.ending.remove(name);
            }
        }
    }

    fn judge_list(&self, comparison: &Comparison, of: usize, from_files: bool) -> (Verdict, Reason) {
        let missing = comparison.missing.len();
        let emptied = comparison.emptied(&self.config);
        let list = List { served: of, missing, emptied: emptied.map_or(0, |(_, of)| of), from_files };
        let verdict = judge::list(list, &self.config);
        let reason = match emptied {
            Some((class, of)) if missing < self.config.list_services_min && missing.saturating_mul(2) < list.served => {
                Reason::Class { class, of: of as u64 }
            }
            _ => Reason::List { missing: missing as u64, of: of as u64 },
        };
        (verdict, reason)
    }

    /// Whether the removals of a list pass, given what earlier lists left held.
    fn passes(
        &self,
        verdict: Verdict,
        earlier: &Earlier,
        missing: &HashSet<ServiceKey>,
        of: usize,
        now: UnixMillis,
    ) -> Passes {
        match (verdict, earlier.confirm_at) {
            (Verdict::Pass, _) => Passes::Yes,
            (Verdict::Operator, _) => Passes::ByOperator,
            (Verdict::Confirm, Some(at)) if judge::agrees(&earlier.missing, missing, of, &self.config) => {
                if at <= now {
                    Passes::Yes
                } else {
                    Passes::NotYet(at)
                }
            }
            (Verdict::Confirm, _) => Passes::Later,
        }
    }

    /// Ends holds whose time is over.
    pub(super) fn expire(&mut self, draft: &mut Draft, over: impl Fn(&Hold, UnixMillis) -> bool) {
        let ended = |_: &HeldKey, hold: &Hold| matches!(hold.ends, Ends::At(at) if over(hold, at));
        self.give_up(draft, ended);
    }

    /// Ends the holds an operator releases.
    pub(super) fn release(&mut self, draft: &mut Draft, which: &Release, refused_only: bool, now: UnixMillis) {
        if !refused_only {
            self.deleted.clear();
            self.meant.clear();
            self.losses.clear();
        }
        if *which == Release::All && !refused_only {
            self.flush(draft, now);
        }
        self.give_up(draft, |key, hold| which.covers(key.namespace()) && (hold.refused || !refused_only));
    }

    /// Serves what the source says in place of the holds that `which` names.
    fn give_up(&mut self, draft: &mut Draft, which: impl Fn(&HeldKey, &Hold) -> bool) {
        let held = Arc::clone(draft.snapshot().held());
        for (key, hold) in held.all().filter(|(key, hold)| which(key, hold)) {
            if let (HeldKey::Service(service), Kept::Endpoints(ips)) = (&key, &hold.kept) {
                let Some(served) = draft.snapshot().service_by_key(service).cloned() else { continue };
                let source = self.sources.remove(service).unwrap_or_else(|| Arc::new(without(&served, ips)));
                draft.release(&key);
                draft.put(&source);
            } else {
                self.forget(&key);
                draft.remove_held(&key);
            }
        }
    }

    /// Puts services, but for the endpoints they lose where that is held; `suspect` is a reason to hold all of those.
    fn put_all(&mut self, draft: &mut Draft, puts: Vec<Arc<Service>>, suspect: Option<Reason>, now: UnixMillis) {
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

    /// Holds a service that is gone, unless another one has its cluster IP. A claim does not soften the end of another hold.
    fn hold_whole(&mut self, draft: &mut Draft, key: &ServiceKey, reason: &Reason, ends: Ends, now: UnixMillis) {
        let Some(served) = draft.snapshot().service_by_key(key) else { return };
        if let Kind::ClusterIp(ips) = served.kind() {
            let live = |other: &ServiceKey| !draft.holds_whole(other) && !self.pending.services.contains(other);
            if ips.iter().flat_map(|ip| owners(draft, *ip, key)).any(|other| live(&other)) {
                return self.let_go(draft, key);
            }
        }
        self.sources.remove(key);
        hold_again(draft, HeldKey::Service(key.clone()), reason, ends, now, false);
    }

    fn let_go(&mut self, draft: &mut Draft, key: &ServiceKey) {
        self.sources.remove(key);
        draft.remove(key);
    }
}

/// What earlier lists left held, for one that may confirm them.
struct Earlier {
    missing: HashSet<ServiceKey>,
    confirm_at: Option<UnixMillis>,
}

impl Earlier {
    fn of(held: &Held, of: impl Fn(&Hold) -> bool) -> Self {
        let listed = |hold: &Hold| match hold.ends {
            Ends::Listed(at) if hold.reason.is_claim() && of(hold) => Some(at),
            _ => None,
        };
        let mut earlier = Self { missing: HashSet::new(), confirm_at: None };
        for (key, hold) in held.all() {
            let Some(at) = listed(hold) else { continue };
            earlier.confirm_at = Some(earlier.confirm_at.map_or(at, |before| before.max(at)));
            if let HeldKey::Service(key) = key {
                earlier.missing.insert(key);
            }
        }
        earlier
    }
}

/// What becomes of the removals of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passes {
    Yes,
    /// It agrees with an earlier list, which may be confirmed from then on.
    NotYet(UnixMillis),
    Later,
    ByOperator,
}

impl Passes {
    /// The end of the holds; none if the removals pass.
    fn ends(self, config: &Config, now: UnixMillis) -> Option<Ends> {
        match self {
            Self::Yes => None,
            Self::NotYet(at) => Some(Ends::Listed(at)),
            Self::Later => Some(Ends::Listed(now.plus(config.confirm_after))),
            Self::ByOperator => Some(Ends::ByOperator),
        }
    }
}

/// Holds all of a record. One that is held already for a claim keeps its beginning; one held for a fact stays as it is.
fn hold_again(draft: &mut Draft, key: HeldKey, reason: &Reason, ends: Ends, now: UnixMillis, refused: bool) {
    let before = draft.snapshot().held().get(&key).filter(|hold| hold.kept == Kept::Whole);
    let hold = Hold { kept: Kept::Whole, reason: reason.clone(), since: now, ends, refused };
    let hold = match before {
        Some(before) if before.reason.is_claim() && reason.is_claim() => {
            let same = before.ends == ends;
            let reason = if same { before.reason.clone() } else { hold.reason.clone() };
            Hold { since: before.since, reason, ..hold }
        }
        Some(before) => Hold { since: before.since, ..hold },
        None => hold,
    };
    draft.hold(key, hold);
}

/// The addresses held of a service that the source has.
fn kept_ips(draft: &Draft, key: &ServiceKey) -> Vec<IpAddr> {
    match draft.hold_of(key) {
        Some(Hold { kept: Kept::Endpoints(ips), .. }) => ips.to_vec(),
        _ => Vec::new(),
    }
}

/// The other services that have this cluster IP.
fn owners(draft: &Draft, ip: IpAddr, but: &ServiceKey) -> Vec<ServiceKey> {
    let holders = draft.snapshot().holders(ip).iter();
    holders.filter(|holder| holder.cluster_ip && holder.service != *but).map(|holder| holder.service.clone()).collect()
}

/// Ends the holds of addresses that `service` has now: its cluster IPs, and the endpoints that are new in it.
fn give_away(
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
