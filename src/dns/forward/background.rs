//! Work without a client: probes of failing upstreams, refreshes, files that changed, the cache's copy on disk.
//!
//! Probes go to upstreams that left questions unanswered, never to one that answers.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, SystemTime},
};

use rand::RngExt;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    Inner, keep, named,
    route::{Probe, Route, Routes},
    upstream::{ExchangeOptions, Try, Upstream},
};
use crate::{
    dns::{
        Question,
        cache::{self, PersistError},
        question::question_name,
    },
    sys::give_way,
    wire::Rtype,
};

/// How often the tasks below are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long a probe waits.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How often files are looked at for changes.
const FILES_EVERY: Duration = Duration::from_secs(2);
/// How often a route that led back to us, or left questions without an answer, is searched for loops.
const LOOP_EVERY: Duration = Duration::from_secs(30);
/// Refreshes at once: the end of an outage must be no stampede.
const REFRESHES_MAX: usize = 64;
/// No client asks for this type; CoreDNS's loop plugin uses it, too.
const LOOP_TYPE: Rtype = Rtype::HINFO;

pub async fn run(inner: &Arc<Inner>) {
    tokio::join!(refreshes(inner), ticks(inner), inner.tap.run(), keep::run(inner), named::run(inner));
}

async fn refreshes(inner: &Arc<Inner>) {
    let Some(mut queue) = inner.take_queue() else { return };
    let slots = Arc::new(Semaphore::new(REFRESHES_MAX));
    while let Some(refresh) = queue.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            inner.refresh(refresh).await;
            drop(slot);
        });
    }
}

async fn ticks(inner: &Arc<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let start = Instant::now();
    let (mut files_at, mut loops_at, mut save_at) =
        (start, start + LOOP_EVERY, start + inner.cache_config.save_interval);
    probe_loops(inner, true);
    let (mut seen, mut saving) = (Files::default(), None::<JoinHandle<()>>);
    loop {
        tick.tick().await;
        let now = Instant::now();
        probe_failing(inner);
        if now >= files_at {
            files_at = now + FILES_EVERY;
            if reread(inner, &mut seen) {
                probe_loops(inner, true);
            }
        }
        if now >= loops_at {
            loops_at = now + LOOP_EVERY;
            probe_loops(inner, false);
            inner.cache.sweep_holds(inner.now());
        }
        // The forwarder with the file saves for its views.
        if inner.environment.cache_file.is_some() && inner.cache.take_save_request() {
            let inner = Arc::clone(inner);
            tokio::spawn(async move { inner.save().await });
        }
        // A task of its own: on a busy machine a save takes long, and probes must not wait for it.
        if now >= save_at && saving.as_ref().is_none_or(JoinHandle::is_finished) {
            save_at = now + inner.cache_config.save_interval;
            let inner = Arc::clone(inner);
            saving = Some(tokio::spawn(async move { inner.save_at_leisure().await }));
        }
        inner.cache.settle();
    }
}

/// Probes each upstream that left a question unanswered, and each failing one, less often the longer it is gone.
fn probe_failing(inner: &Arc<Inner>) {
    for route in inner.routes.load().all() {
        let due = |upstream: &&Arc<Upstream>| upstream.take_due_probe(route.config.probe.every);
        for upstream in route.upstreams().iter().filter(due) {
            let (inner, upstream, route) = (Arc::clone(inner), Arc::clone(upstream), Arc::clone(route));
            tokio::spawn(async move {
                let Probe { name, recursion, .. } = &route.config.probe;
                let question = Question::new(question_name(name), Rtype::NS);
                if answers(&inner, &route, &upstream, &question, *recursion).await {
                    // Names that failed while it was away may be asked for again at once.
                    inner.failures.clear();
                } else {
                    inner.metrics().probe_failed(upstream.label());
                    if upstream.probe_failed() {
                        tracing::warn!(upstream = %upstream.server(), "upstream does not answer");
                    }
                }
            });
        }
    }
}

/// Whether `upstream` answers anything at all.
async fn answers(inner: &Inner, route: &Route, upstream: &Upstream, question: &Question, recursion: bool) -> bool {
    let options = ExchangeOptions { plain: upstream.may_drop_edns(), recursion, ..route.exchange_options() };
    let probe = Try { upstream, question, options, again: &Notify::new(), metrics: inner.metrics() };
    matches!(tokio::time::timeout(PROBE_WAIT, probe.answer()).await, Ok(Ok(_)))
}

/// Sends each upstream of each route a random name; if it comes back to us, there is a loop.
pub fn probe_loops(inner: &Arc<Inner>, all: bool) {
    for route in inner.routes.load().iter().filter(|route| route.take_loop_search() || all) {
        for upstream in route.upstreams().iter() {
            let (inner, route, upstream) = (Arc::clone(inner), Arc::clone(route), Arc::clone(upstream));
            tokio::spawn(async move {
                let labels = [(); 2].map(|()| format!("{:016x}", rand::rng().random::<u64>()));
                let name = route.begin_loop_probe(&upstream, [labels[0].as_bytes(), labels[1].as_bytes()]);
                let question = Question::new(name, LOOP_TYPE);
                answers(&inner, &route, &upstream, &question, true).await;
                route.end_loop_probe(&question.name);
            });
        }
    }
}

impl Inner {
    /// If `question` is a loop probe that came back, notes the loop; returns whether it is one.
    pub(super) fn note_loop_probe(&self, routes: &Routes, question: &Question) -> bool {
        if question.rtype != LOOP_TYPE {
            return false;
        }
        let Some(route) = routes.find(&question.name) else { return false };
        let Some((upstream, news)) = route.loop_probe_returned(&question.name) else { return false };
        if news {
            self.metrics().loops.inc();
            let (zone, upstream) = (&route.config.zone, upstream.server());
            tracing::error!(%zone, %upstream, "forwarding loop: questions sent to this upstream come back to holdfast");
        }
        true
    }

    /// Reads what was saved from `path`.
    pub(super) fn load(&self, path: &Path) {
        let _over = self.cache_load.finish();
        let began = std::time::Instant::now();
        match cache::load(&self.cache, path, self.environment.clock.now(), self.environment.clock.wall_ahead_ms()) {
            Ok(entries) => tracing::info!(entries, took_ms = began.elapsed().as_millis(), "cache loaded"),
            Err(error) => {
                self.cache.metrics.disk_errors.inc();
                tracing::warn!(%error, "cache not loaded");
            }
        }
    }

    /// Writes the cache to disk, without delay.
    pub(super) async fn save(self: &Arc<Self>) {
        let Some(path) = self.environment.cache_file.clone() else { return };
        // A file that is still being read would be lost.
        self.cache_load.over().await;
        let inner = Arc::clone(self);
        let save = move || {
            *inner.urgent_saves.lock() += 1;
            cache::save(&inner.cache, &path, inner.environment.clock.wall_ahead_ms())
        };
        self.note_saved(tokio::task::spawn_blocking(save).await.ok());
    }

    /// Writes the cache to disk when nothing else wants the processor.
    pub(super) async fn save_at_leisure(self: &Arc<Self>) {
        let Some(path) = self.environment.cache_file.clone() else { return };
        self.cache_load.over().await;
        let (inner, (done, saved)) = (Arc::clone(self), oneshot::channel());
        let before = *self.urgent_saves.lock();
        let save = move || {
            // A kernel that refuses, or a sandbox, lets the workers wait for their turn.
            if let Err(error) = give_way() {
                tracing::debug!(%error, "cannot lower the priority of saving the cache");
            }
            // The waiting task may be gone.
            let _ = done.send(cache::save_unless(
                &inner.cache,
                &path,
                inner.environment.clock.wall_ahead_ms(),
                &inner.urgent_saves,
                before,
            ));
        };
        // A thread of its own: a thread that lowered its priority cannot raise it again.
        let started = thread::Builder::new().name("cache-save".into()).spawn(save);
        let saved = if started.is_ok() { saved.await.ok() } else { None };
        if !matches!(saved, Some(Err(PersistError::GivenUp))) {
            self.note_saved(saved);
        }
    }

    /// Counts and logs the result of a save; `None` if its thread ended without one.
    fn note_saved(&self, saved: Option<Result<u64, PersistError>>) {
        match saved {
            Some(Ok(entries)) => {
                self.cache.metrics.saves.inc();
                tracing::debug!(entries, "cache saved");
            }
            Some(Err(error)) => {
                self.cache.metrics.disk_errors.inc();
                tracing::warn!(%error, "cache not saved");
            }
            None => self.cache.metrics.disk_errors.inc(),
        }
    }
}

/// Size and time of files when they were last read.
#[derive(Default)]
struct Files {
    stamps: std::collections::HashMap<PathBuf, Option<(SystemTime, u64)>>,
    /// Files that cannot be used, as counted in the metric.
    missing: i64,
}

impl Files {
    /// Whether `path` differs from the last time. The first look counts: it may have changed since it was read at start.
    fn changed(&mut self, path: &Path) -> bool {
        // A stat of a local file every two seconds is not worth a thread.
        let metadata = std::fs::metadata(path).ok();
        let stamp = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        match self.stamps.insert(path.to_owned(), stamp) {
            None => stamp.is_some(),
            Some(before) => before != stamp && stamp.is_some(),
        }
    }
}

/// Reads changed files again; a file that cannot be used changes nothing. Returns whether upstreams changed.
fn reread(inner: &Arc<Inner>, seen: &mut Files) -> bool {
    let (mut any, mut named, mut missing) = (false, Vec::new(), 0);
    let routes = inner.routes.load_full();
    for route in routes.all().flat_map(Route::with_resolver) {
        let mut changed = false;
        for path in route.resolv_conf_paths() {
            changed |= seen.changed(path);
        }
        for path in route.trust_paths() {
            changed |= seen.changed(path);
        }
        if changed {
            named.extend(route.resolv_conf_paths().map(Path::to_owned));
            match route.reread(&inner.environment) {
                Ok(false) => {}
                Ok(true) => {
                    any = true;
                    tracing::info!(zone = %route.config.zone, upstreams = route.upstreams().len(), "upstreams read again");
                }
                Err(error) => tracing::warn!(%error, "cannot read the upstreams again; keeping the old ones"),
            }
        }
        if let Some(path) = &route.config.hosts_file
            && seen.changed(path)
        {
            match route.names.reread_hosts() {
                Ok(()) => {
                    tracing::info!(zone = %route.config.zone, path = %path.display(), "hosts file read");
                    inner.generation.fetch_add(1, Ordering::Release);
                }
                Err(error) => tracing::warn!(%error, "cannot read the hosts again; keeping the old entries"),
            }
        }
        if let Some(path) = &route.config.weights_file
            && seen.changed(path)
        {
            let (zone, path) = (&route.config.zone, path.display());
            match route.names.reread_weights() {
                Ok(()) => tracing::info!(%zone, %path, "file of weights read"),
                Err(error) => {
                    tracing::warn!(%zone, %path, %error, "cannot read the file of weights again; keeping the old ones");
                }
            }
        }
        let problems =
            [route.missing().is_some(), route.names.hosts_problem().is_some(), route.names.weights_problem().is_some()];
        missing += problems.map(i64::from).iter().sum::<i64>();
    }
    // Views count on the same gauge.
    inner.metrics().files_missing.add(missing - seen.missing);
    seen.missing = missing;
    if !named.is_empty() {
        let resolv_conf_cache = inner.environment.resolv_conf_cache.clone();
        // Nothing here waits for the disk.
        drop(tokio::task::spawn_blocking(move || resolv_conf_cache.note(&named)));
    }
    any
}
