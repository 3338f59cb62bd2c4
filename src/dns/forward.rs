//! Names outside the cluster: asks upstreams, remembers what they said, and gives each client a message of its own.
//!
//! Never answers for the cluster zone, sets AA only where the name asked for is an alias of the cluster's, and never
//! leaves a client without an answer: whatever happens upstream, within the budget there is a message, at worst SERVFAIL
//! with the reason.

mod background;
mod cache_load;
mod compose;
mod failures;
mod in_flight;
mod inspect;
mod lookup;
mod nxdomain_cut;
mod observe;
mod route;
mod status;
mod upstream;

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt};
use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::Name,
};
use tokio::sync::mpsc;

use self::{
    cache_load::CacheLoad,
    failures::Failures,
    in_flight::InFlight,
    lookup::{Outcome, may_be_stale, serves_stale_now, stale_age},
    observe::{Sampler, Tap},
    route::Routes,
};
pub use self::{
    inspect::Cached,
    observe::{FailureKind, Metrics, Mismatch},
    route::{
        Config, ConfigError, FixedAnswer, Host, Prefix, ResolvConfCache, Rewrite, UpstreamSource, ZoneConfig,
        parse_host, problems,
    },
    upstream::{Server, TlsName},
};
use super::{
    cache::{self, Age, Asked, Cache, Key, WorkerCache},
    request::{ForwardRequest, Resolve, Resolved, ServedFrom, Transport},
};
pub use crate::report::{CacheStatus, ForwardStatus, Policy, UpstreamState, UpstreamStatus, ViewStatus, ZoneStatus};
use crate::{
    sys::{Clock, Lock, UnixMillis},
    wire::{EdeCode, Query, UDP_BYTES_MIN},
};

/// Refreshes waiting to be begun; more are not worth remembering.
const REFRESHES_MAX: usize = 1_024;

/// Answers a query for a name of our own zones, both whole messages; `None` if the name is not ours. SERVFAIL says that
/// there are no records yet, an answer that ends in a CNAME that the rest is to be had outside, EDE 3 that the records are
/// stale.
pub type OwnAnswer = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// What a forwarder needs from outside.
#[derive(Clone)]
pub struct Environment {
    pub clock: Clock,
    pub metrics: Metrics,
    pub cache_metrics: cache::Metrics,
    /// Where the cache is saved; `None` keeps it in memory only.
    pub cache_file: Option<PathBuf>,
    /// What resolv.conf files named last.
    pub resolv_conf_cache: ResolvConfCache,
    /// The addresses this process answers on, refused as upstreams.
    pub listen: Vec<SocketAddr>,
    /// Our own zones: a CNAME that leads there is answered from our records, never by an upstream.
    pub own: OwnAnswer,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Asks upstreams for what the records do not hold. Clones share everything.
#[derive(Clone, Debug)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: ArcSwap<Routes>,
    /// Counts what of `routes` can change which questions the cache answers, and what with. Not to be counted before the
    /// change can be seen.
    generation: AtomicU32,
    environment: Environment,
    cache: Cache,
    cache_config: cache::Config,
    cache_file: Option<PathBuf>,
    /// Saves begun that do not wait for anything.
    urgent_saves: Lock<u64>,
    loading: Arc<CacheLoad>,
    /// Tells its answers from those of others in the same cache.
    view: Box<[u8]>,
    failures: Failures,
    in_flight: InFlight<Outcome>,
    refreshes: mpsc::Sender<Wanted>,
    queue: Lock<Option<mpsc::Receiver<Wanted>>>,
    query_log: Sampler,
    tap: Tap,
}

/// What a forwarder has of its own.
struct Parts {
    cache: Cache,
    cache_file: Option<PathBuf>,
    loading: Arc<CacheLoad>,
    routes: Routes,
    view: Box<[u8]>,
}

/// One name to be looked up on its own route.
#[derive(Clone, Debug)]
struct Wanted {
    name: Name,
    wire: Box<[u8]>,
    qtype: u16,
    qclass: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
    /// Asks the resolver that stands in for the cluster.
    cluster_fallback: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
struct Failure {
    ede: EdeCode,
    text: String,
}

impl Forwarder {
    /// Checks `config`, begins to load the cache file and is ready to forward: questions wait until it is loaded. A file
    /// that names no upstreams yet is waited for.
    /// [`run`](Self::run) has to be running for probes, refreshes and changed files.
    ///
    /// A cache file that cannot be read is reported and set aside, never an error.
    ///
    /// # Errors
    /// Everything that is wrong with `config`.
    ///
    /// # Panics
    /// If there is a cache file and this is not called on a tokio runtime.
    pub fn new(
        config: &Config,
        cache_config: cache::Config,
        environment: Environment,
    ) -> Result<Self, Vec<ConfigError>> {
        let cache = Cache::new(&cache_config, environment.cache_metrics.clone());
        let routes = Routes::new(config, &environment, &cache, b"", None)?;
        let cache_file = environment.cache_file.clone();
        let loading = Arc::new(CacheLoad::new(cache_file.is_none()));
        let parts = Parts { cache, cache_file, loading, routes, view: Box::default() };
        let this = Self::with(config, cache_config, environment, parts);
        if let Some(path) = this.0.cache_file.clone() {
            let inner = Arc::clone(&this.0);
            tokio::task::spawn_blocking(move || inner.load(&path));
        }
        Ok(this)
    }

    /// Another forwarder that shares this one's cache, and none of its upstreams: for listeners that forward in a way of
    /// their own. Answers of the two never mix. `view` tells it from others, also in the cache's file, which this one
    /// saves for both. It takes a [`run`](Self::run) of its own.
    ///
    /// # Errors
    /// Everything that is wrong with `config`.
    pub fn view(&self, config: &Config, view: &str) -> Result<Self, Vec<ConfigError>> {
        let Inner { cache, cache_config, environment, loading, .. } = &*self.0;
        let routes = Routes::new(config, environment, cache, view.as_bytes(), None)?;
        let (cache, loading) = (cache.clone(), Arc::clone(loading));
        let parts = Parts { cache, cache_file: None, loading, routes, view: view.as_bytes().into() };
        Ok(Self::with(config, cache_config.clone(), environment.clone(), parts))
    }

    fn with(config: &Config, cache_config: cache::Config, environment: Environment, parts: Parts) -> Self {
        let (refreshes, queue) = mpsc::channel(REFRESHES_MAX);
        let Parts { cache, cache_file, loading, routes, view } = parts;
        Self(Arc::new(Inner {
            routes: ArcSwap::from_pointee(routes),
            generation: AtomicU32::new(0),
            cache,
            cache_config,
            cache_file,
            loading,
            view,
            environment,
            urgent_saves: Lock::default(),
            failures: Failures::default(),
            in_flight: InFlight::default(),
            refreshes,
            queue: Lock::new(Some(queue)),
            query_log: Sampler::new(config.query_log_every),
            tap: Tap::new(config.dnstap.clone(), config.dnstap_every),
        }))
    }

    /// Waits until the cache file is loaded.
    pub async fn loaded(&self) {
        self.0.loading.over().await;
    }

    /// Takes over `config` with what is cached.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one stays then.
    pub fn reload(&self, config: &Config) -> Result<(), Vec<ConfigError>> {
        let Inner { routes, environment, cache, query_log, view, .. } = &*self.0;
        let before = routes.load_full();
        routes.store(Arc::new(Routes::new(config, environment, cache, view, Some(&before))?));
        self.0.generation.fetch_add(1, Ordering::Release);
        query_log.set(config.query_log_every);
        Ok(())
    }

    /// Does what goes on without a client, until dropped.
    pub async fn run(&self) {
        background::run(&self.0).await;
    }

    /// Writes the cache to its file without delay, once more at exit. One that [goes on](Self::save_at_leisure) meanwhile
    /// gives up.
    pub async fn save(&self) {
        self.0.save().await;
    }

    /// Writes the cache to its file on a thread that runs when nothing else wants the processor, as is done every
    /// [`save_interval`](cache::Config::save_interval).
    pub async fn save_at_leisure(&self) {
        self.0.save_at_leisure().await;
    }

    pub fn zones(&self) -> Vec<ZoneStatus> {
        status::zones(&self.0)
    }

    /// How upstreams and cache do.
    pub fn status(&self) -> ForwardStatus {
        status::of(&self.0)
    }
}

impl Resolve for Forwarder {
    fn worker_cache(&self) -> WorkerCache {
        self.0.cache.worker_cache()
    }

    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let inner = Arc::clone(&self.0);
        async move { compose::respond(&inner, &request).await }.boxed()
    }

    fn cached(
        &self,
        query: &Query<'_>,
        transport: Transport,
        now: UnixMillis,
        worker_cache: &mut WorkerCache,
        out: &mut [u8],
    ) -> Option<(usize, ServedFrom)> {
        let inner = &self.0;
        let (name, qtype, qclass) = (query.name.wire(), query.qtype.0, query.qclass.0);
        let (dnssec_ok, checking_disabled) = (query.edns.is_some_and(|edns| edns.dnssec_ok), query.cd);
        let probe = worker_cache.probe(
            Asked { name, qtype, qclass, dnssec_ok, checking_disabled },
            inner.generation.load(Ordering::Acquire),
        );
        if let Some(ready) = worker_cache.find(&probe, now) {
            if inner.is_told() || out.len() < UDP_BYTES_MIN {
                return None;
            }
            inner.cache.metrics.hits.inc();
            return Some((ready.write(query, transport, now, Age::Fresh, out), ServedFrom::Cache));
        }
        let routes = inner.routes.load();
        let route = routes.find(name)?;
        let elsewhere = inner.is_told() || !inner.loading.is_over() || route.is_local(name, qtype);
        if out.len() < UDP_BYTES_MIN || elsewhere {
            return None;
        }
        let key = Key::new(route.id, name, qtype, qclass, dnssec_ok, checking_disabled)?;
        let entry = inner.cache.get(&key)?;
        if entry.continues() {
            return None;
        }
        let (age, from) = if entry.is_fresh(now) {
            if entry.is_popular() {
                if route.config.lifetimes.prefetch && entry.is_ending(now) {
                    // Rare enough to allocate: at most once in five seconds for a name.
                    inner.prefetch(route, &entry, &Wanted::by(query, false)?, now);
                }
                worker_cache.keep(&probe, &entry, now);
            }
            inner.cache.metrics.hits.inc();
            (Age::Fresh, ServedFrom::Cache)
        } else if may_be_stale(route, &entry, now) && serves_stale_now(route, &entry, now) {
            inner.cache.metrics.stale.inc();
            (stale_age(route), ServedFrom::Stale)
        } else {
            return None;
        };
        Some((entry.write(query, transport, now, age, out), from))
    }
}

impl Inner {
    fn now(&self) -> UnixMillis {
        self.environment.clock.now()
    }

    /// Counts a question; true if it is to be told of, and therefore to be answered by [`compose`].
    fn is_told(&self) -> bool {
        // Each counts every question.
        self.query_log.is_due() | self.tap.is_due()
    }

    fn metrics(&self) -> &Metrics {
        &self.environment.metrics
    }

    /// How long whoever asks for `wanted` may wait.
    fn budget(&self, wanted: &Wanted) -> Duration {
        let routes = self.routes.load();
        let route = if wanted.cluster_fallback { routes.cluster_fallback.as_ref() } else { routes.find(&wanted.wire) };
        route.map_or(Duration::ZERO, |route| route.config.budget)
    }

    fn take_queue(&self) -> Option<mpsc::Receiver<Wanted>> {
        self.queue.lock().take()
    }

    /// What our own zones say, if `name` is in one; SERVFAIL if there are no records yet.
    fn own(&self, name: &Name, qtype: u16, qclass: u16) -> Option<Message> {
        let reply = (self.environment.own)(&compose::query(name, qtype, qclass))?;
        Some(Message::from_vec(&reply).unwrap_or_else(|_| {
            let mut broken = Message::new(0, MessageType::Response, OpCode::Query);
            broken.metadata.response_code = ResponseCode::ServFail;
            broken
        }))
    }

    /// Whether `name` belongs to our own zones.
    fn is_own(&self, name: &Name) -> bool {
        (self.environment.own)(&compose::query(name, 1, 1)).is_some()
    }
}
