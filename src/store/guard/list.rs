//! Complete lists: the removals in them that pass, and those that are held until a second list or an operator agrees.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Class, Draft, Ends, Guard, Held, HeldKey, Hold, Kept, Reason,
    comparison::Comparison,
    hold_again,
    judge::{self, List, Verdict},
};
use crate::{
    record::{Service, ServiceKey},
    store::Records,
    sys::UnixMillis,
};

impl Guard {
    /// Takes in a complete list of the source.
    pub(in crate::store) fn list(&mut self, draft: &mut Draft, records: Records, now: UnixMillis) {
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
        if let Some(ends) = passes.ends() {
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

    pub(super) fn judge_list(&self, comparison: &Comparison, of: usize, from_files: bool) -> (Verdict, Reason) {
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

    /// Whether the removals of a list pass, given the holds of earlier lists.
    pub(super) fn passes(
        &self,
        verdict: Verdict,
        earlier: &Earlier,
        missing: &HashSet<ServiceKey>,
        of: usize,
        now: UnixMillis,
    ) -> Passes {
        let later = |by: Duration| Passes::At(now.plus(by).max(earlier.confirm_at.unwrap_or_default()));
        match verdict {
            Verdict::Pass => Passes::Yes,
            Verdict::Operator => Passes::ByOperator,
            Verdict::Confirm | Verdict::ConfirmLate => match earlier.confirm_at {
                Some(at) if judge::agrees(&earlier.missing, missing, of, &self.config) => {
                    if at <= now {
                        Passes::Yes
                    } else {
                        Passes::At(at)
                    }
                }
                _ if verdict == Verdict::Confirm => later(self.config.confirm_after),
                _ => later(self.config.deletes_held_for),
            },
        }
    }
}

/// Records held since earlier lists, which this list may confirm.
pub(super) struct Earlier {
    pub missing: HashSet<ServiceKey>,
    confirm_at: Option<UnixMillis>,
    /// The strictest verdict that still holds a service.
    pub verdict: Verdict,
}

impl Earlier {
    pub(super) fn of(held: &Held, of: impl Fn(&Hold) -> bool) -> Self {
        let listed = |hold: &Hold| match hold.ends {
            Ends::Listed(at) if hold.reason.is_claim() && of(hold) => Some(at),
            _ => None,
        };
        let mut earlier = Self { missing: HashSet::new(), confirm_at: None, verdict: Verdict::Pass };
        for (key, hold) in held.all() {
            if hold.ends == Ends::ByOperator && hold.reason.is_claim() && of(hold) {
                earlier.verdict = Verdict::Operator;
            }
            let Some(at) = listed(hold) else { continue };
            earlier.verdict = earlier.verdict.max(Verdict::Confirm);
            earlier.confirm_at = Some(earlier.confirm_at.map_or(at, |before| before.max(at)));
            if let HeldKey::Service(key) = key {
                earlier.missing.insert(key);
            }
        }
        earlier
    }
}

/// The verdict on the removals of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    Yes,
    /// A list that agrees may confirm them from then on.
    At(UnixMillis),
    ByOperator,
}

impl Passes {
    /// The end of the holds; none if the removals pass.
    pub(super) fn ends(self) -> Option<Ends> {
        match self {
            Self::Yes => None,
            Self::At(at) => Some(Ends::Listed(at)),
            Self::ByOperator => Some(Ends::ByOperator),
        }
    }
}
