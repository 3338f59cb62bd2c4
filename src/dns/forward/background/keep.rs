//! The keep list: names resolved ahead and kept, so that they answer when no upstream does, also after a restart.
//!
//! Asks as a refresh does; never decides what is served.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use hickory_proto::rr::{
    RData, Record,
    rdata::{A, AAAA},
};

use crate::{
    dns::{
        Question,
        cache::{Age, Kind},
        forward::{
            Inner,
            lookup::{FLAGS, Refresh, place},
            route::{OnNode, Routes, Via},
        },
        question::question_name,
    },
    report::{KeepStatus, Time, UnresolvedName},
    sys::{Lock, UnixMillis},
    wire::{Name, Rtype},
};

/// How often due names are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Names resolved at once.
const AT_ONCE: usize = 8;
/// The least and the most between two looks at one name.
const EVERY_MIN: Duration = Duration::from_secs(30);
const EVERY_MAX: Duration = Duration::from_secs(3_600);
/// The next look at a name that cannot be resolved.
const RETRY: Duration = Duration::from_secs(15);
/// CNAMEs over the border of a zone that are followed.
const LEGS_MAX: usize = 8;

/// The names and their last look-ups.
#[derive(Debug, Default)]
pub struct KeepList(Lock<HashMap<Name, Kept>>);

#[derive(Clone, Debug, Default)]
struct Kept {
    due: UnixMillis,
    /// When it was last resolved.
    resolved: Option<UnixMillis>,
    failing: bool,
    /// The route part of the keys of its answers.
    keys: Vec<Box<[u8]>>,
}

/// The result of one look-up.
struct Looked {
    resolved: bool,
    keys: Vec<Box<[u8]>>,
    /// When the first of its answers begins to end.
    ends: UnixMillis,
}

impl KeepList {
    /// Takes over `names`. Returns those that are due.
    fn due(&self, names: &[Name], now: UnixMillis) -> Vec<Name> {
        let mut kept = self.0.lock();
        let wanted: HashSet<&Name> = names.iter().collect();
        kept.retain(|name, _| wanted.contains(name));
        names.iter().filter(|name| kept.entry((*name).clone()).or_default().due <= now).cloned().collect()
    }

    fn note(&self, name: &Name, Looked { resolved, keys, ends }: Looked, now: UnixMillis) {
        let mut kept = self.0.lock();
        let Some(kept) = kept.get_mut(name) else { return };
        let wait = if resolved { now.age(ends).clamp(EVERY_MIN, EVERY_MAX) } else { RETRY };
        kept.due = now.plus(wait);
        kept.failing = !resolved;
        kept.keys = keys;
        if resolved {
            kept.resolved = Some(now);
        }
    }

    fn keys(&self) -> HashSet<Box<[u8]>> {
        self.0.lock().values().flat_map(|kept| kept.keys.iter().cloned()).collect()
    }

    /// The names without an address at the last look, and when they last had one.
    fn failing(&self) -> Vec<(Name, Option<UnixMillis>)> {
        let kept = self.0.lock();
        let failing = kept.iter().filter(|(_, kept)| kept.failing);
        let mut failing: Vec<_> = failing.map(|(name, kept)| (name.clone(), kept.resolved)).collect();
        failing.sort_by_cached_key(|(name, _)| name.to_string());
        failing
    }
}

/// Keeps the names of the configuration resolved.
pub async fn run(inner: &Arc<Inner>) {
    inner.cache_load.over().await;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut generation = None;
    loop {
        tick.tick().await;
        let routes = inner.routes.load_full();
        let due = inner.keep_list.due(&routes.keep, inner.now());
        let is_news = generation.replace(Arc::as_ptr(&routes) as usize) != Some(Arc::as_ptr(&routes) as usize);
        if due.is_empty() && !is_news {
            continue;
        }
        let look = |name| inner.keep_resolved(&routes, name);
        stream::iter(due).for_each_concurrent(AT_ONCE, look).await;
        // Entries under other keys may go like any other answer.
        let wanted = inner.keep_list.keys();
        let own: HashSet<_> = routes.iter().map(|route| route.id).collect();
        inner.cache.retain_kept(|key| wanted.contains(key) || !own.iter().any(|id| id.is_of(key)));
        inner.metrics().keep(&inner.view, routes.keep.len(), inner.unresolved());
    }
}

/// Where the answer to a question for a kept name is.
enum Known {
    /// In hosts, a template or a fixed answer of its zone; empty if these deny it.
    OnNode(Vec<Record>),
    /// At upstreams, under the name that a rewrite makes of it.
    Upstreams(Box<Question>, Via),
}

fn known(routes: &Routes, question: Question) -> Known {
    let Some(route) = routes.find(&question.name) else { return Known::Upstreams(question.into(), Via::Zone) };
    let (question, names, via) = match route.names.rewrite(&question) {
        Some(rewritten) => {
            let new = rewritten.question(&question);
            let (names, via) = routes.answering(&route.names, &new.name);
            (new, names, via)
        }
        None => (question, &route.names, Via::Zone),
    };
    match names.on_node(&question, None) {
        OnNode::Records { answers, .. } => Known::OnNode(answers),
        OnNode::Fixed(..) => Known::OnNode(Vec::new()),
        OnNode::Upstreams => Known::Upstreams(question.into(), via),
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match record.data {
        RData::A(A(ip)) => Some(IpAddr::V4(ip)),
        RData::AAAA(AAAA(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

impl Inner {
    /// Looks `name` up if its answers are about to end, and keeps them.
    async fn keep_resolved(self: &Arc<Self>, routes: &Arc<Routes>, name: Name) {
        let mut looked = Looked { resolved: false, keys: Vec::new(), ends: self.now().plus(EVERY_MAX) };
        for rtype in [Rtype::A, Rtype::AAAA] {
            let (plain, via) = match known(routes, Question::new(name.clone(), rtype)) {
                Known::OnNode(answers) => {
                    looked.resolved |= !answers.is_empty();
                    continue;
                }
                Known::Upstreams(question, via) => (*question, via),
            };
            self.keep_type(routes, plain.clone(), via, &mut looked).await;
            // With DO and CD only where a client asked so.
            for &(dnssec_ok, checking_disabled) in &FLAGS[1..] {
                let question = Question { dnssec_ok, checking_disabled, ..plain.clone() };
                let is_asked = place(routes, &question, via).is_ok_and(|(_, key)| self.cache.get(&key).is_some());
                if is_asked {
                    self.keep_type(routes, question, via, &mut looked).await;
                }
            }
        }
        self.keep_list.note(&name, looked, self.now());
    }

    /// Looks `question` up and keeps its answers, over as many routes as its CNAMEs lead through.
    async fn keep_type(
        self: &Arc<Self>,
        routes: &Arc<Routes>,
        mut question: Question,
        mut via: Via,
        looked: &mut Looked,
    ) {
        for _ in 0..LEGS_MAX {
            if !self.is_outside(&question.name) {
                looked.resolved = true;
                return;
            }
            let Ok((route, key)) = place(routes, &question, via) else { return };
            looked.keys.push(key.as_bytes().into());
            let now = self.now();
            let is_good = self.cache.get(&key).is_some_and(|entry| entry.is_fresh(now) && now < entry.ends());
            let asked = if is_good {
                None
            } else {
                let refresh = Refresh { question: question.clone(), via };
                self.refresh(refresh).await
            };
            let answered = asked.as_ref().map(Result::is_ok);
            // Nothing is stored of a zone without a cache.
            let given = asked.and_then(Result::ok).filter(|entry| entry.kind() == Kind::Data);
            let given = given.filter(|_| !route.config.lifetimes.stores(Kind::Data));
            let Some(entry) = given.or_else(|| self.cache.get(&key)) else { return };
            if entry.kind() != Kind::NxDomain {
                self.cache.keep(&key, &entry);
            }
            looked.ends = looked.ends.min(entry.ends());
            let Some(target) = entry.target().filter(|_| entry.continues()) else {
                looked.resolved |= entry.kind() == Kind::Data && answered.unwrap_or(is_good);
                return;
            };
            (question, via) = (question.renamed(question_name(&target)), Via::Zone);
        }
    }

    pub fn kept_addresses(&self) -> Vec<(String, Vec<IpAddr>)> {
        let routes = self.routes.load_full();
        let of = |name: &Name| {
            let types = [Rtype::A, Rtype::AAAA].into_iter();
            let mut addresses: Vec<IpAddr> =
                types.flat_map(|rtype| self.addresses(&routes, Question::new(name.clone(), rtype))).collect();
            addresses.sort_unstable();
            addresses.dedup();
            (!addresses.is_empty()).then(|| (name.to_string(), addresses))
        };
        let mut kept: Vec<_> = routes.keep.iter().filter_map(of).collect();
        kept.sort_unstable();
        kept
    }

    /// The addresses for `question` that the zone itself has, or the stored ones, over as many routes as its CNAMEs lead through.
    fn addresses(&self, routes: &Routes, question: Question) -> Vec<IpAddr> {
        let (mut question, mut via) = match known(routes, question) {
            Known::OnNode(answers) => return answers.iter().filter_map(address).collect(),
            Known::Upstreams(question, via) => (*question, via),
        };
        for _ in 0..LEGS_MAX {
            let Some(entry) = place(routes, &question, via).ok().and_then(|(_, key)| self.cache.holds_data(&key))
            else {
                break;
            };
            if let Some(target) = entry.target().filter(|_| entry.continues()) {
                (question, via) = (question.renamed(question_name(&target)), Via::Zone);
                continue;
            }
            let (answers, _) = entry.records(self.now(), Age::Fresh);
            return answers.iter().filter_map(address).collect();
        }
        Vec::new()
    }

    fn unresolved(&self) -> HashMap<String, Duration> {
        let now = self.now();
        let failing = self.keep_list.failing().into_iter();
        // A name without any answer counts from the start of the process.
        let since = |name: &Name, at: Option<UnixMillis>| at.or_else(|| self.kept_since(name)).unwrap_or(self.started);
        failing.map(|(name, at)| (name.to_string(), since(&name, at).age(now))).collect()
    }

    /// The list's part of `status`.
    pub fn keep_status(&self) -> Option<KeepStatus> {
        let names = self.routes.load().keep.len();
        let wall = |at: UnixMillis| Time(at.moved_ms(self.environment.clock.wall_ahead_ms()));
        let unresolved = self.keep_list.failing().into_iter();
        let unresolved = unresolved.map(|(name, resolved)| {
            let answered = resolved.or_else(|| self.kept_since(&name)).map(wall);
            UnresolvedName { name: name.to_string(), answered }
        });
        (names > 0).then(|| KeepStatus { names, unresolved: unresolved.collect() })
    }

    /// When upstreams gave the kept answer of `name`, the younger of A and AAAA.
    fn kept_since(&self, name: &Name) -> Option<UnixMillis> {
        let routes = self.routes.load();
        let stored = |rtype| {
            let Known::Upstreams(question, via) = known(&routes, Question::new(name.clone(), rtype)) else {
                return None;
            };
            let (_, key) = place(&routes, &question, via).ok()?;
            self.cache.holds_data(&key).map(|entry| entry.stored())
        };
        [Rtype::A, Rtype::AAAA].into_iter().filter_map(stored).max()
    }
}
