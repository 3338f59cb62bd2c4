//! Which upstreams may speak for a name: the longest configured zone that holds it.
//!
//! A route is the zone with its upstreams. Answers of one route never count for names of another.

pub mod acl;
mod config;
pub mod dns64;
mod edns;
pub mod hosts;
mod named;
mod names;
pub mod next;
pub mod rcodes;
mod resolv_conf;
mod resolv_conf_cache;
mod rewrite;
mod servers;
mod template;
mod weights;
pub mod words;

use std::{
    path::Path,
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use rand::seq::SliceRandom;

pub use self::{
    acl::Acl,
    config::{Config, ConfigError, DohMethod, FixedAnswer, NamedServer, Probe, UpstreamSource, ZoneConfig},
    dns64::Prefix,
    edns::EdnsOption,
    hosts::{Host, parse_ip as parse_host_ip, parse_line as parse_host},
    names::{ByZone, OnNode, ZoneNames, zone_names},
    next::{Next, Verdict, Verdicts},
    resolv_conf_cache::ResolvConfCache,
    rewrite::Rewrite,
    servers::problems,
    template::{NOT_WORKED_OUT, Reason, Template},
};
use self::{
    named::NamedAddresses,
    servers::{Missing, Servers, servers},
};
use super::{
    Environment,
    observe::Metrics,
    upstream::{self, Attempts, Endpoint, ExchangeOptions, Limits, Rules, Server, Trust, Upstream},
};
use crate::{
    dns::{
        cache::{Cache, Denials, Lifetimes, RouteId},
        question::question_name,
    },
    limits::FairShares,
    report::Policy,
    sys::{Lock, UnixMillis},
    wire,
};

/// Clients that may wait for one zone, for each question it may have in flight. By default that is half of all that may
/// wait ([`forwards_max`](crate::dns::Config::forwards_max)): a zone that is stuck leaves room for the others.
const PLACES_PER_SLOT: usize = 2;

/// A zone and who is asked for its names.
#[derive(Debug)]
pub struct Route {
    pub config: Arc<ZoneConfig>,
    pub names: ZoneNames,
    /// The zone, lower-cased.
    pub zone: wire::Name,
    /// The route part of the keys of its answers.
    pub id: RouteId,
    /// Slots for questions in flight.
    pub slots: Arc<FairShares>,
    /// Places for clients that wait for those: equal questions share a slot, but not a place.
    pub places: Arc<FairShares>,
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// A file that named none of them when it was last looked at.
    missing: ArcSwapOption<Missing>,
    turn: AtomicUsize,
    loop_probes: Lock<Vec<LoopProbe>>,
    /// Questions its upstreams had left without an answer when loops were last searched for.
    lost_before: AtomicU64,
    build: ArcSwap<Build>,
    /// Asked in turn, each when the answer so far is one of its own.
    next: Vec<(Verdicts, Arc<Route>)>,
    /// The addresses of upstreams that are given by name.
    named: NamedAddresses,
    /// Asked for them; `None` without such upstreams.
    resolver: Option<Arc<Route>>,
}

/// The inputs of new upstreams of a route.
#[derive(Debug)]
struct Build {
    /// `None` if no upstream takes TLS, and while the authorities cannot be read.
    trust: Option<Arc<Trust>>,
    limits: Limits,
    /// Over HTTPS, with the method GET.
    get: bool,
    max_fails: u32,
    metrics: Metrics,
    cache: Cache,
    id: RouteId,
}

/// A name sent to an upstream to see whether it comes back.
#[derive(Debug)]
struct LoopProbe {
    name: wire::Name,
    upstream: Arc<Upstream>,
    came_back: bool,
}

#[derive(Debug)]
pub struct Routes {
    by_zone: ByZone<Arc<Route>>,
    /// Stands in for the cluster's records until there are some.
    pub cluster_fallback: Option<Arc<Route>>,
    /// The names that are kept resolved.
    pub keep: Vec<wire::Name>,
}

/// Whose upstreams are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The upstreams of the longest zone that holds the name.
    Zone,
    /// The upstreams of this route, also for names of other zones.
    Route(RouteId),
    /// The upstreams of `cluster_fallback`, which stand in for the records of the cluster.
    Fallback,
}

impl Routes {
    /// Checks `config` and builds the routes. What they keep in `cache` is told from that of others by `view`. They take the place of `before`: where that has nobody to ask, a file may go on naming nobody.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        config: &Config,
        environment: &Environment,
        cache: &Cache,
        view: &[u8],
        before: Option<&Self>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut by_zone = ByZone::default();
        // No zone ends in anything but the root's empty label.
        let id = |zone: &[u8]| cache.route(&[zone, view].concat());
        for zone in &config.zones {
            let name = question_name(&zone.zone);
            let before = before.and_then(|before| before.by_zone.get(&name));
            match Route::new(zone, id(name.wire()), environment, cache, before) {
                Ok(route) => {
                    if by_zone.insert(&name, Arc::new(route)).is_some() {
                        errors.push(ConfigError::DuplicateZone(zone.zone.to_string()));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        let mut cluster_fallback = None;
        if !config.cluster_fallback.is_empty() {
            // Services go, and headless ones without a ready endpoint do not exist: the cluster's DNS knows.
            let lifetimes = Lifetimes { denials: Denials::Confirm, ..Lifetimes::default() };
            let zone = ZoneConfig { upstreams: config.cluster_fallback.clone(), lifetimes, ..ZoneConfig::default() };
            // No zone has an empty wire form.
            let before = before.and_then(|before| before.cluster_fallback.as_ref());
            match Route::new(&zone, id(&[]), environment, cache, before) {
                Ok(route) => cluster_fallback = Some(Arc::new(route)),
                Err(error) => errors.push(error),
            }
        }
        if by_zone.iter().any(|route| route.names.has_classes()) {
            environment.records.rules().admit_other_classes();
        }
        if errors.is_empty() { Ok(Self { by_zone, cluster_fallback, keep: config.keep.clone() }) } else { Err(errors) }
    }

    #[inline]
    pub fn find(&self, name: &wire::Name) -> Option<&Arc<Route>> {
        self.by_zone.find(name)
    }

    /// The route of exactly this zone.
    pub fn of_zone(&self, zone: &wire::Name) -> Option<&Arc<Route>> {
        self.by_zone.get(zone)
    }

    /// The zone that answers the name which a name of `names` was rewritten to, and whose upstreams are asked.
    pub fn answering<'z>(&'z self, names: &'z ZoneNames, new: &wire::Name) -> (&'z ZoneNames, Via) {
        let route = names.answering(new).and_then(|zone| self.of_zone(&zone));
        route.map_or((names, Via::Zone), |route| (&route.names, Via::Route(route.id)))
    }

    /// The route that `name` is asked over.
    pub fn via(&self, via: Via, name: &wire::Name) -> Option<&Arc<Route>> {
        match via {
            Via::Zone => self.find(name),
            Via::Route(id) => self.by_zone.iter().find(|route| route.id == id),
            Via::Fallback => self.cluster_fallback.as_ref(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_zone.iter()
    }

    /// Everything that is asked for names of clients.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.iter().chain(&self.cluster_fallback).flat_map(Route::and_next)
    }
}

impl Route {
    fn new(
        config: &ZoneConfig,
        id: RouteId,
        environment: &Environment,
        cache: &Cache,
        before: Option<&Arc<Self>>,
    ) -> Result<Self, ConfigError> {
        let may_wait = before.is_none_or(|before| before.has_nobody());
        let config = Arc::new(config.clone());
        let limits = Limits {
            age_max: config.connection_age_max,
            idle_max: config.connection_idle_max,
            idle_connections_max: config.idle_connections_max,
            source: config.source_address,
        };
        if config.max_concurrent == 0 {
            return Err(ConfigError::Zero("forward max_concurrent"));
        }
        if config.budget.is_zero() {
            return Err(ConfigError::Zero("forward timeout"));
        }
        let next = (config.next.iter().enumerate().map(|(nth, next)| {
            let Next { policy, force_tcp, upstreams, .. } = next.clone();
            let zone = ZoneConfig { policy, force_tcp, upstreams, next: Vec::new(), ..(*config).clone() };
            let before = before.and_then(|before| before.next.get(nth)).map(|(_, before)| before);
            Self::new(&zone, id, environment, cache, before).map(|route| (next.on, Arc::new(route)))
        }))
        .collect::<Result<_, _>>()?;
        let Environment { listen, metrics, resolv_conf_cache, .. } = environment;
        let named = NamedAddresses::new(&config, before.map(|before| &before.named), resolv_conf_cache);
        let resolver = if named.is_empty() { None } else { Some(Self::resolver_of(&config, id, environment, cache)?) };
        let may_wait_for = may_wait.then_some(resolv_conf_cache);
        let Servers { servers, missing } = servers(&config, listen, may_wait_for, &named)?;
        let Trusted { servers, missing, trust } = trusted(&config, servers, missing, None, may_wait)?;
        if let Some(file) = missing.as_ref().filter(|missing| missing.is_file()) {
            let zone = &config.zone;
            if servers.is_empty() {
                tracing::error!(%zone, %file, "a file names no upstreams: names of its zone get SERVFAIL unless cached; it is read every 2 s");
            } else {
                tracing::warn!(%zone, %file, "some upstreams of a file cannot be used");
            }
        }
        let (get, max_fails, metrics) = (config.doh_method == DohMethod::Get, config.max_fails, metrics.clone());
        let build = Build { trust, limits, get, max_fails, metrics, cache: cache.clone(), id };
        let upstreams = servers.into_iter().map(|server| build.upstream(server)).collect();
        Ok(Self {
            names: ZoneNames::new(Arc::clone(&config)),
            zone: question_name(&config.zone),
            id,
            slots: Arc::new(FairShares::new(config.max_concurrent)),
            places: Arc::new(FairShares::new(PLACES_PER_SLOT * config.max_concurrent)),
            upstreams: ArcSwap::from_pointee(upstreams),
            missing: ArcSwapOption::from(missing.map(Arc::new)),
            turn: AtomicUsize::new(0),
            loop_probes: Lock::default(),
            lost_before: AtomicU64::new(0),
            build: ArcSwap::from_pointee(build),
            next,
            named,
            resolver,
            config,
        })
    }

    /// The route that upstreams given by name are looked up over.
    fn resolver_of(
        config: &ZoneConfig,
        id: RouteId,
        environment: &Environment,
        cache: &Cache,
    ) -> Result<Arc<Self>, ConfigError> {
        if config.resolvers.iter().any(|resolver| matches!(resolver, UpstreamSource::Named(_))) {
            return Err(ConfigError::NamedResolver(config.zone.to_string()));
        }
        let (upstreams, policy) = (config.resolvers.clone(), Policy::Sequential);
        let (hosts_file, weights_file) = (None, None);
        let zone = ZoneConfig {
            upstreams,
            policy,
            answer: None,
            next: Vec::new(),
            hosts_file,
            weights_file,
            ..config.clone()
        };
        Self::new(&zone, id, environment, cache, None).map(Arc::new)
    }

    /// The addresses of its upstreams that are given by name.
    pub fn named(&self) -> &NamedAddresses {
        &self.named
    }

    pub fn resolver(&self) -> Option<&Arc<Self>> {
        self.resolver.as_ref()
    }

    /// This route, and the route over which the names of its upstreams are looked up.
    pub fn with_resolver(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(&self.resolver)
    }

    /// How its upstreams are asked, without its options of EDNS.
    pub fn exchange_options(&self) -> ExchangeOptions<'static> {
        ExchangeOptions {
            edns_options: &[],
            force_tcp: self.config.force_tcp,
            mix_case: self.config.case_randomization,
            plain: false,
            recursion: true,
        }
    }

    /// A question to all of its upstreams.
    pub fn attempts(&self, now: UnixMillis) -> Attempts {
        self.attempts_at(self.order(now), self.config.policy == Policy::Sequential)
    }

    /// A question to some of its upstreams.
    pub fn attempts_at(&self, order: Vec<Arc<Upstream>>, sequential: bool) -> Attempts {
        let ZoneConfig { failover, attempts_max, silence_max, budget, .. } = &*self.config;
        // Leaves time for the next server.
        let silence_max = (*silence_max).min(*budget * 3 / 4);
        let rules = Rules { sequential, failover: *failover, attempts_max: *attempts_max, silence_max };
        Attempts::new(order, rules, Arc::clone(&self.config.reject))
    }

    /// The upstreams that are asked when the answer so far is one of these, in turn.
    pub fn next(&self) -> &[(Verdicts, Arc<Self>)] {
        &self.next
    }

    /// It and those that are asked after it.
    pub fn and_next(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(self.next.iter().map(|(_, route)| route))
    }

    /// Whether there is nobody to ask: so far, a file names none.
    pub fn has_nobody(&self) -> bool {
        self.upstreams.load().is_empty() && self.config.answer.is_none()
    }

    /// A file that named no upstreams when it was last looked at.
    pub fn missing(&self) -> Option<Arc<Missing>> {
        self.missing.load_full()
    }

    /// Whether nobody answers for this zone.
    pub fn is_down(&self) -> bool {
        self.upstreams.load().iter().all(|upstream| upstream.is_failing())
    }

    /// Whether nobody has said anything useful for this zone of late: silence and refusals alike.
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

    /// The files that vouch for its upstreams.
    pub fn trust_paths(&self) -> impl Iterator<Item = &Path> {
        let takes_tls = self.config.upstreams.iter().any(|source| match source {
            UpstreamSource::Server(server) => server.tls.is_some(),
            UpstreamSource::Named(named) => named.tls.is_some(),
            UpstreamSource::ResolvConf(_) => false,
        });
        takes_tls.then(|| self.config.tls_files().paths()).into_iter().flatten()
    }

    /// Reads its files again; upstreams that stay keep what is known of them. Returns whether they are others now. While there
    /// is nobody to ask, files may go on naming nobody.
    ///
    /// # Errors
    /// The errors of the files; nothing has changed then.
    pub fn reread(&self, environment: &Environment) -> Result<bool, ConfigError> {
        let may_wait = self.has_nobody().then_some(&environment.resolv_conf_cache);
        let Servers { servers, missing } = servers(&self.config, &environment.listen, may_wait, &self.named)?;
        let before = self.build.load_full();
        // Authorities that are missing now are no reason to refuse the rest.
        let Trusted { servers, missing, trust } = trusted(&self.config, servers, missing, before.trust.clone(), true)?;
        self.missing.store(missing.map(Arc::new));
        let digest = |trust: &Option<Arc<Trust>>| trust.as_ref().map(|trust| trust.digest);
        let same_trust = digest(&before.trust) == digest(&trust);
        let build = Arc::new(Build { trust, metrics: before.metrics.clone(), cache: before.cache.clone(), ..*before });
        self.build.store(Arc::clone(&build));
        let known = self.upstreams();
        if same_trust && servers.iter().eq(known.iter().map(|upstream| upstream.server())) {
            return Ok(false);
        }
        let keep = |server: Server| {
            let stays =
                |upstream: &&Arc<Upstream>| *upstream.server() == server && (same_trust || server.tls.is_none());
            known.iter().find(stays).cloned().unwrap_or_else(|| build.upstream(server))
        };
        self.upstreams.store(Arc::new(servers.into_iter().map(keep).collect()));
        Ok(true)
    }

    /// Whether whatever is sent through it comes back to us.
    pub fn is_looped(&self) -> bool {
        let upstreams = self.upstreams.load();
        !upstreams.is_empty() && upstreams.iter().all(|upstream| upstream.is_looped())
    }

    /// Takes the turn for a search for loops: returns whether one was found before, or questions were left without an answer
    /// since the last turn.
    pub fn take_loop_search(&self) -> bool {
        let upstreams = self.upstreams.load();
        let lost = upstreams.iter().map(|upstream| upstream.failures_total()).sum();
        let before = self.lost_before.swap(lost, Ordering::Relaxed);
        lost > before || upstreams.iter().any(|upstream| upstream.is_looped())
    }

    /// Begins a search for a loop through `upstream`; returns the name to send.
    pub fn begin_loop_probe(&self, upstream: &Arc<Upstream>, labels: [&[u8]; 2]) -> wire::Name {
        // A zone too long for them is probed by its own name.
        let name = wire::Name::from_labels(labels.into_iter().chain(self.zone.labels()));
        let name = name.unwrap_or_else(|_| self.zone.clone());
        let probe = LoopProbe { name: name.clone(), upstream: Arc::clone(upstream), came_back: false };
        self.lock_probes().push(probe);
        name
    }

    /// Ends it: what did not come back is no loop (any more).
    pub fn end_loop_probe(&self, name: &wire::Name) {
        let mut probes = self.lock_probes();
        let Some(at) = probes.iter().position(|probe| probe.name == *name) else { return };
        let LoopProbe { upstream, came_back, .. } = probes.swap_remove(at);
        if !came_back && upstream.set_looped(false) {
            tracing::info!(zone = %self.config.zone, upstream = %upstream.server(), "forwarding loop is gone");
        }
    }

    /// The upstream that `name` was sent to, if a search with it is under way, and whether it is news that it came back.
    pub fn loop_probe_returned(&self, name: &wire::Name) -> Option<(Arc<Upstream>, bool)> {
        let mut probes = self.lock_probes();
        let probe = probes.iter_mut().find(|probe| probe.name == *name)?;
        probe.came_back = true;
        Some((Arc::clone(&probe.upstream), probe.upstream.set_looped(true)))
    }

    fn lock_probes(&self) -> MutexGuard<'_, Vec<LoopProbe>> {
        self.loop_probes.lock()
    }

    pub fn upstreams(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// Its upstreams in the order to ask them now: those that fail come last, and those that ask us back not at all.
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

impl Build {
    fn upstream(&self, server: Server) -> Arc<Upstream> {
        let dial = (upstream::dial(&server, self.trust.as_deref()), Endpoint::of(&server, self.get));
        let bulk_denials = self.cache.bulk_denials(self.id, &server.to_string());
        Arc::new(Upstream::new(server, dial, self.limits, (self.max_fails, bulk_denials), self.metrics.clone()))
    }
}

/// Upstreams that may be asked.
struct Trusted {
    servers: Vec<Server>,
    missing: Option<Missing>,
    trust: Option<Arc<Trust>>,
}

/// The `servers` of a zone that may be asked: those over TLS only with authorities that vouch for them and the certificate they
/// are shown, read anew, or those of `before` if these cannot be read.
///
/// # Errors
/// If there are none and they are not to be waited for.
fn trusted(
    config: &ZoneConfig,
    mut servers: Vec<Server>,
    mut missing: Option<Missing>,
    before: Option<Arc<Trust>>,
    may_wait: bool,
) -> Result<Trusted, ConfigError> {
    if servers.iter().all(|server| server.tls.is_none()) {
        return Ok(Trusted { servers, missing, trust: before });
    }
    let trust = match upstream::trust(config.tls_files()) {
        Ok(trust) => Some(Arc::new(trust)),
        Err((path, error)) => {
            let unread = Missing { path, reason: error.to_string() };
            if !may_wait {
                return Err(ConfigError::Tls { zone: config.zone.to_string(), missing: unread });
            }
            missing = missing.or(Some(unread));
            before
        }
    };
    servers.retain(|server| server.tls.is_none() || trust.is_some());
    Ok(Trusted { servers, missing, trust })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::rr::Name;

    use super::*;

    fn zone(name: &str, upstreams: &[&str]) -> ZoneConfig {
        ZoneConfig {
            zone: Name::from_ascii(name).unwrap(),
            upstreams: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
            ..ZoneConfig::default()
        }
    }

    fn routes(zones: Vec<ZoneConfig>, listen: &[&str]) -> Result<Routes, Vec<ConfigError>> {
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let cache_metrics = crate::dns::cache::Metrics::register(&prometheus::Registry::new()).unwrap();
        let cache = Cache::new(&crate::dns::cache::Config::default(), cache_metrics.clone());
        let (zone, reader) = (crate::zone::Zone::new(&crate::zone::Config::default()), crate::store::open().1);
        let context = crate::dns::Context::new(zone, reader, crate::dns::AnswerConfig::default());
        let environment = Environment {
            clock: crate::sys::Clock::System,
            metrics,
            cache_metrics,
            cache_file: None,
            resolv_conf_cache: ResolvConfCache::default(),
            listen,
            records: Arc::new(context),
        };
        Routes::new(&Config { zones, ..Config::default() }, &environment, &cache, b"", None)
    }

    #[tokio::test]
    async fn the_longest_zone_wins() {
        let routes = routes(
            vec![
                zone(".", &["10.0.0.1"]),
                zone("corp.example.", &["10.0.0.2"]),
                zone("Lab.Corp.example.", &["10.0.0.3"]),
            ],
            &[],
        )
        .unwrap();
        let cases = [
            ("www.example.", "."),
            ("corp.example.", "corp.example."),
            ("a.b.corp.example.", "corp.example."),
            ("xcorp.example.", "."),
            ("host.LAB.corp.example.", "lab.corp.example."),
            (".", "."),
        ];
        for (name, expect) in cases {
            let route = routes.find(&name.parse().unwrap()).unwrap();
            assert_eq!(route.config.zone, Name::from_ascii(expect).unwrap(), "{name}");
        }
    }

    #[tokio::test]
    async fn every_mistake_is_reported_with_its_zone() {
        let errors = routes(
            vec![
                zone("a.example.", &[]),
                zone("b.example.", &["127.0.0.1:5353"]),
                zone("d.example.", &["10.0.0.1"]),
                zone("d.example.", &["10.0.0.1"]),
            ],
            &["0.0.0.0:5353"],
        )
        .unwrap_err();
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 3, "{text:?}");
        for (error, needle) in text.iter().zip([
            "a.example.: no upstreams",
            "b.example.: upstream 127.0.0.1:5353 is an address",
            "d.example.: given twice",
        ]) {
            assert!(error.contains(needle), "{error}");
        }
    }

    #[tokio::test]
    async fn another_port_of_this_host_is_no_self_upstream() {
        assert!(routes(vec![zone(".", &["127.0.0.1:5354"])], &["127.0.0.1:5353"]).is_ok());
    }
}
