//! Making a route from its settings, and again when its files change.

use std::sync::{Arc, atomic::AtomicUsize};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    Route, UpstreamSource,
    config::{ConfigError, DohMethod, ZoneConfig},
    loops::LoopSearch,
    named::NamedAddresses,
    names::ZoneNames,
    next::Next,
    servers::{Missing, Servers, servers},
};
use crate::{
    dns::{
        cache::{Cache, RouteId},
        forward::{
            Environment,
            observe::Metrics,
            upstream::{self, Limits, Server, Trust, Upstream},
        },
        question::question_name,
    },
    limits::FairShares,
    report::Policy,
};

/// Clients that may wait for one zone, for each question it may have in flight. By default that is half of all that may
/// wait ([`forwards_max`](crate::dns::Config::forwards_max)): a zone that is stuck leaves room for the others.
const PLACES_PER_SLOT: usize = 2;

/// The inputs of new upstreams of a route.
#[derive(Debug)]
pub struct Build {
    /// `None` if no upstream takes TLS, and while the authorities cannot be read.
    trust: Option<Arc<Trust>>,
    limits: Limits,
    /// HTTPS with the method GET.
    get: bool,
    max_fails: u32,
    metrics: Metrics,
    cache: Cache,
    id: RouteId,
}

impl Route {
    pub(super) fn new(
        config: &ZoneConfig,
        id: RouteId,
        environment: &Environment,
        cache: &Cache,
        before: Option<&Arc<Self>>,
    ) -> Result<Self, ConfigError> {
        let may_wait = before.is_none_or(|before| before.has_no_upstreams());
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
        let given = servers(&config, listen, may_wait_for, &named)?;
        let (Servers { servers, missing }, trust) = trusted(&config, given, None, may_wait)?;
        if let Some(file) = missing.as_ref().filter(|missing| missing.is_file()) {
            let zone = &config.zone;
            if servers.is_empty() {
                tracing::error!(%zone, %file, "a file names no upstreams: names of its zone get SERVFAIL unless cached; it is read every 2 s");
            } else {
                tracing::warn!(%zone, %file, "some upstreams of a file cannot be used");
            }
        }
        let build = Build {
            trust,
            limits,
            get: config.doh_method == DohMethod::Get,
            max_fails: config.max_fails,
            metrics: metrics.clone(),
            cache: cache.clone(),
            id,
        };
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
            loops: LoopSearch::default(),
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
        let zone = ZoneConfig {
            upstreams: config.resolvers.clone(),
            policy: Policy::Sequential,
            answer: None,
            next: Vec::new(),
            hosts_file: None,
            weights_file: None,
            ..config.clone()
        };
        Self::new(&zone, id, environment, cache, None).map(Arc::new)
    }

    /// Reads its files again; upstreams that stay keep what is known of them. Returns whether there are others now. A route
    /// without upstreams may stay without.
    ///
    /// # Errors
    /// The errors of the files; nothing has changed then.
    pub fn reread(&self, environment: &Environment) -> Result<bool, ConfigError> {
        let may_wait = self.has_no_upstreams().then_some(&environment.resolv_conf_cache);
        let given = servers(&self.config, &environment.listen, may_wait, &self.named)?;
        let before = self.build.load_full();
        // Authorities that are missing now are no reason to refuse the rest.
        let (Servers { servers, missing }, trust) = trusted(&self.config, given, before.trust.clone(), true)?;
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
}

impl Build {
    fn upstream(&self, server: Server) -> Arc<Upstream> {
        let dial = upstream::dial(&server, self.trust.as_deref(), self.get);
        let bulk_denials = self.cache.bulk_denials(self.id, &server.to_string());
        Arc::new(Upstream::new(server, dial, self.limits, self.max_fails, bulk_denials, self.metrics.clone()))
    }
}

/// The servers that may be asked: those over TLS only with authorities that vouch for them and the certificate they are shown,
/// read anew, or those of `before` if these cannot be read.
///
/// # Errors
/// If they cannot be read and are not to be waited for.
fn trusted(
    config: &ZoneConfig,
    Servers { mut servers, mut missing }: Servers,
    before: Option<Arc<Trust>>,
    may_wait: bool,
) -> Result<(Servers, Option<Arc<Trust>>), ConfigError> {
    if servers.iter().all(|server| server.tls.is_none()) {
        return Ok((Servers { servers, missing }, before));
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
    Ok((Servers { servers, missing }, trust))
}
