//! Names outside the cluster: asks upstreams, caches their answers, and writes each client's message.
//!
//! | file and its folder | decides |
//! |---|---|
//! | `respond` | the message of a client |
//! | `resolve` | the names that lead to its answer |
//! | `route` | the zone of a name: its rules and its upstreams |
//! | `lookup` | cached, stale or asked; a denial believed or held; what is kept |
//! | `upstream` | one exchange with one upstream, and its health |
//! | `background` | probes, refreshes, the keep list, files |
//! | `observe`, `status`, `inspect` | metrics and logs; the tools |
//!
//! Never answers for the cluster zone, sets AA only where the name asked for is an alias of the cluster's, and never
//! leaves a client without an answer: whatever happens upstream, within the budget there is a message, at worst SERVFAIL
//! with the reason.

mod background;
mod failure;
mod inspect;
mod lookup;
mod observe;
mod resolve;
mod respond;
mod route;
mod status;
mod upstream;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::mpsc;

use self::{
    background::{CacheLoad, KeepList},
    failure::Failure,
    lookup::{Failures, InFlight, Outcome, Refresh, State, stale_age},
    observe::{Sampler, Tap},
    route::{Routes, Via},
};
pub use self::{
    inspect::{Cached, Inspected, InspectedAnswer, Leg, Names},
    lookup::Released,
    observe::{AnswerClass, FailureKind, Metrics, Mismatch},
    route::{
        Acl, Config, ConfigError, DohMethod, EdnsOption, FixedAnswer, Host, NOT_WORKED_OUT, NamedServer, Next, Prefix,
        Probe, ResolvConfCache, Rewrite, Template, UpstreamSource, Verdict, Verdicts, ZoneConfig, parse_host,
        parse_host_ip, problems, rcodes, words,
    },
    upstream::{Server, TlsName, limit_sockets},
};
use super::{
    Context, Question,
    cache::{self, Age, Cache, Key, WorkerCache},
    request::{ForwardRequest, Resolve, Resolved, ServedFrom, Transport},
};
pub use crate::report::{CacheStatus, ForwardStatus, Policy, UpstreamState, UpstreamStatus, ViewStatus, ZoneStatus};
use crate::{
    report::KeepStatus,
    sys::{Clock, Lock, UnixMillis},
    wire::{Query, UDP_BYTES_MIN},
};

/// Refreshes waiting to begin; more are dropped, and a client's question does them.
const REFRESHES_MAX: usize = 1_024;

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
    /// The cluster's zones: a CNAME that leads there is answered from the records, never by an upstream.
    pub records: Arc<Context>,
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
    /// Counts changes of `routes` that invalidate worker copies. Incremented after the new routes are stored.
    generation: AtomicU32,
    environment: Environment,
    cache: Cache,
    cache_config: cache::Config,
    /// Urgent saves begun; one at leisure gives way to them.
    urgent_saves: Lock<u64>,
    cache_load: Arc<CacheLoad>,
    /// Tells its answers from those of others in the same cache.
    view: Box<[u8]>,
    failures: Failures,
    keep_list: KeepList,
    started: UnixMillis,
    in_flight: InFlight<Outcome>,
    refreshes: mpsc::Sender<Refresh>,
    queue: Lock<Option<mpsc::Receiver<Refresh>>>,
    query_log: Sampler,
    /// The classes of answers that are logged, as bits; 0 for all.
    query_classes: AtomicU8,
    tap: Tap,
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
        let cache_file = environment.cache_file.clone();
        let cache_load = Arc::new(CacheLoad::new(cache_file.is_none()));
        let this = Self::with(config, environment, b"", cache, cache_load, cache_config)?;
        if let Some(path) = cache_file {
            let inner = Arc::clone(&this.0);
            tokio::task::spawn_blocking(move || inner.load(&path));
        }
        Ok(this)
    }

    /// A forwarder for a view: it shares this one's cache and none of its upstreams. Answers of the two never mix. `view` is its
    /// name in the cache and its file, which this one saves for both. It needs a [`run`](Self::run) of its own.
    ///
    /// # Errors
    /// Everything that is wrong with `config`.
    pub fn view(&self, config: &Config, view: &str) -> Result<Self, Vec<ConfigError>> {
        let Inner { cache, cache_load, cache_config, .. } = &*self.0;
        let environment = Environment { cache_file: None, ..self.0.environment.clone() };
        Self::with(config, environment, view.as_bytes(), cache.clone(), Arc::clone(cache_load), cache_config.clone())
    }

    fn with(
        config: &Config,
        environment: Environment,
        view: &[u8],
        cache: Cache,
        cache_load: Arc<CacheLoad>,
        cache_config: cache::Config,
    ) -> Result<Self, Vec<ConfigError>> {
        let (refreshes, queue) = mpsc::channel(REFRESHES_MAX);
        Ok(Self(Arc::new(Inner {
            routes: ArcSwap::from_pointee(Routes::new(config, &environment, &cache, view, None)?),
            generation: AtomicU32::new(0),
            cache,
            cache_config,
            cache_load,
            view: view.into(),
            started: environment.clock.steady(),
            environment,
            urgent_saves: Lock::default(),
            failures: Failures::default(),
            keep_list: KeepList::default(),
            in_flight: InFlight::default(),
            refreshes,
            queue: Lock::new(Some(queue)),
            query_log: Sampler::new(config.query_log_every),
            query_classes: AtomicU8::new(AnswerClass::bits(&config.query_log_classes)),
            tap: Tap::new(config.dnstap.clone(), config.dnstap_every),
        })))
    }

    /// Waits until the cache file is loaded.
    pub async fn loaded(&self) {
        self.0.cache_load.over().await;
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
        self.0.query_classes.store(AnswerClass::bits(&config.query_log_classes), Ordering::Relaxed);
        Ok(())
    }

    /// Does the work in the background, until dropped.
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

    /// The names of the keep list that have addresses now, with those, in order.
    pub fn kept_addresses(&self) -> Vec<(String, Vec<IpAddr>)> {
        self.0.kept_addresses()
    }

    /// The state of the keep list; `None` without one.
    pub fn keep(&self) -> Option<KeepStatus> {
        self.0.keep_status()
    }

    /// The state of upstreams and cache.
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
        async move { respond::respond(&inner, &request).await }.boxed()
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
        let question = Question::of(query);
        let probe = worker_cache.probe(question, inner.generation.load(Ordering::Acquire));
        if let Some(ready) = worker_cache.find(&probe, now) {
            if inner.count_question() || out.len() < UDP_BYTES_MIN {
                return None;
            }
            inner.cache.metrics.hits.inc();
            return Some((ready.write(query, transport, now, Age::Fresh, out), ServedFrom::Cache));
        }
        let routes = inner.routes.load();
        let route = routes.find(question.name)?;
        let elsewhere = inner.count_question() || !inner.cache_load.is_over() || !route.names.is_plain(question);
        if out.len() < UDP_BYTES_MIN || elsewhere {
            return None;
        }
        let entry = inner.cache.get(&Key::new(route.id, question))?;
        if entry.continues() {
            return None;
        }
        let (age, from) = match State::of(route, Some(&entry), now) {
            State::Fresh => {
                if entry.record_use(now) {
                    // Rare enough to allocate: at most once in five seconds for a name.
                    inner.prefetch(route, &entry, || Refresh { question: question.to_owned(), via: Via::Zone }, now);
                    // A worker cache writes its answers without a look at the zone.
                    if !route.names.arranges() {
                        worker_cache.keep(&probe, &entry, now);
                    }
                }
                inner.cache.metrics.hits.inc();
                (Age::Fresh, ServedFrom::Cache)
            }
            State::StaleAtOnce => {
                inner.cache.metrics.stale.inc();
                entry.note_asked(now);
                (stale_age(route, &entry), ServedFrom::Stale)
            }
            State::StaleFirst | State::StaleIfNeeded | State::TooOld | State::Missing => return None,
        };
        let write = |out: &mut [u8]| entry.write(query, transport, now, age, out);
        Some((route.names.written(query, transport, out, write), from))
    }
}

impl Inner {
    /// The steady time: what is cached lives as long as it should, whatever the wall clock is set to.
    fn now(&self) -> UnixMillis {
        self.environment.clock.steady()
    }

    /// Counts a question; returns whether the query log or dnstap is to have it, so that `resolve` has to answer it.
    fn count_question(&self) -> bool {
        // An answer from the cache is no error.
        let errors_only = self.query_classes.load(Ordering::Relaxed) == AnswerClass::Error.bit();
        // Each counts every question.
        (self.query_log.count() && !errors_only) | self.tap.count()
    }

    fn metrics(&self) -> &Metrics {
        &self.environment.metrics
    }

    fn take_queue(&self) -> Option<mpsc::Receiver<Refresh>> {
        self.queue.lock().take()
    }
}
