//! A zone with its upstreams: the order they are asked in, and whether they can be asked at all.
//!
//! Answers of one route never count for names of another. Asks nobody by itself.

pub mod acl;
mod build;
mod classes;
mod config;
pub mod dns64;
mod edns;
pub mod hosts;
mod loops;
mod named;
mod names;
pub mod next;
mod pattern;
pub mod rcodes;
mod resolv_conf;
mod resolv_conf_cache;
mod rewrite;
mod routes;
mod servers;
mod template;
mod upstream_source;
mod weights;
pub mod words;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rand::seq::SliceRandom;

pub use self::{
    acl::Acl,
    config::{Config, ConfigError, DohMethod, FixedAnswer, Probe, ZoneConfig},
    dns64::Prefix,
    edns::EdnsOption,
    hosts::{Host, parse_ip as parse_host_ip, parse_line as parse_host},
    names::{ByZone, OnNode, ZoneNames, zone_names},
    next::{Next, Verdict, Verdicts},
    resolv_conf_cache::ResolvConfCache,
    rewrite::Rewrite,
    routes::{Routes, Via},
    servers::problems,
    template::{NOT_WORKED_OUT, Reason, Template},
    upstream_source::{NamedServer, UpstreamSource},
};
use self::{build::Build, loops::LoopSearch, named::NamedAddresses, servers::Missing};
use super::upstream::{Attempts, ExchangeOptions, Rules, Upstream};
use crate::{dns::cache::RouteId, limits::FairShares, report::Policy, sys::UnixMillis, wire};

/// A zone and its upstreams.
#[derive(Debug)]
pub struct Route {
    pub config: Arc<ZoneConfig>,
    pub names: ZoneNames,
    /// The zone, lower-cased.
    pub zone: wire::Name,
    /// The route part of the keys of its answers.
    pub id: RouteId,
    /// Slots for questions to its upstreams.
    pub slots: Arc<FairShares>,
    /// Places for clients that wait: clients with the same question share a slot, but not a place.
    pub places: Arc<FairShares>,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// The file or the name without a usable upstream when it was last read.
    missing: ArcSwapOption<Missing>,
    turn: AtomicUsize,
    loops: LoopSearch,
    build: ArcSwap<Build>,
    /// Asked in turn, each if the answer so far is one of its verdicts.
    pub next: Vec<(Verdicts, Arc<Route>)>,
    /// The addresses of upstreams that are given by name.
    pub named: NamedAddresses,
    /// The route over which these names are looked up; `None` without such upstreams.
    pub resolver: Option<Arc<Route>>,
}

impl Route {
    /// This route, and the route over which the names of its upstreams are looked up.
    pub fn with_resolver(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(&self.resolver)
    }

    /// How its upstreams are asked, `edns_options` left out.
    pub fn exchange_options(&self) -> ExchangeOptions<'static> {
        ExchangeOptions {
            edns_options: &[],
            force_tcp: self.config.force_tcp,
            mix_case: self.config.case_randomization,
            plain: false,
            recursion: true,
        }
    }

    /// The attempts of a question at all of its upstreams.
    pub fn attempts(&self, now: UnixMillis) -> Attempts {
        self.attempts_at(self.order(now), self.config.policy == Policy::Sequential)
    }

    /// The attempts of a question at these upstreams.
    pub fn attempts_at(&self, order: Vec<Arc<Upstream>>, sequential: bool) -> Attempts {
        let ZoneConfig { failover, attempts_max, silence_max, budget, .. } = &*self.config;
        // Leaves time for the next server.
        let silence_max = (*silence_max).min(*budget * 3 / 4);
        let rules = Rules { sequential, failover: *failover, attempts_max: *attempts_max, silence_max };
        Attempts::new(order, rules, Arc::clone(&self.config.reject))
    }

    /// This route and those that are asked after it.
    pub fn and_next(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(self.next.iter().map(|(_, route)| route))
    }

    /// Whether it has no upstreams: its files name none yet.
    pub fn has_no_upstreams(&self) -> bool {
        self.upstreams.load().is_empty() && self.config.answer.is_none()
    }

    /// The file or the name without a usable upstream when it was last read.
    pub fn missing(&self) -> Option<Arc<Missing>> {
        self.missing.load_full()
    }

    /// Whether every upstream fails.
    pub fn is_down(&self) -> bool {
        self.upstreams.load().iter().all(|upstream| upstream.is_failing())
    }

    /// Whether no upstream has given a useful answer of late: silence and refusals alike.
    pub fn is_useless(&self) -> bool {
        self.upstreams.load().iter().all(|upstream| upstream.is_useless())
    }

    /// The resolv.conf files its upstreams come from.
    pub fn resolv_conf_paths(&self) -> impl Iterator<Item = &Path> {
        self.config.upstreams.iter().filter_map(|source| match source {
            UpstreamSource::ResolvConf(path) => Some(path.as_path()),
            UpstreamSource::Server(_) | UpstreamSource::Named(_) => None,
        })
    }

    /// The certificate files for its upstreams.
    pub fn trust_paths(&self) -> impl Iterator<Item = &Path> {
        let takes_tls = self.config.upstreams.iter().any(|source| match source {
            UpstreamSource::Server(server) => server.tls.is_some(),
            UpstreamSource::Named(named) => named.tls.is_some(),
            UpstreamSource::ResolvConf(_) => false,
        });
        takes_tls.then(|| self.config.tls_files().paths()).into_iter().flatten()
    }

    /// Whether every upstream sends our questions back to us.
    pub fn is_looped(&self) -> bool {
        let upstreams = self.upstreams.load();
        !upstreams.is_empty() && upstreams.iter().all(|upstream| upstream.is_looped())
    }

    pub fn upstreams(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// Its upstreams in the order to ask them now: failing ones last, without those that send our questions back to us.
    pub fn order(&self, now: UnixMillis) -> Vec<Arc<Upstream>> {
        let upstreams = self.upstreams.load();
        let mut order: Vec<Arc<Upstream>> =
            upstreams.iter().filter(|upstream| !upstream.is_looped()).cloned().collect();
        match self.config.policy {
            Policy::Sequential => {}
            Policy::Random => order.shuffle(&mut rand::rng()),
            Policy::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len().max(1);
                order.rotate_left(turn);
            }
        }
        order.sort_by_key(|upstream| (upstream.is_failing(), upstream.is_lying(now)));
        order
    }
}
