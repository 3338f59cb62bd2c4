//! Work without a client: probes, refreshes, files that changed, names of upstreams, the keep list, the cache's copy on disk.

mod cache_file;
mod files;
mod keep;
mod named;
mod probes;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};

pub use self::{cache_file::CacheLoad, keep::KeepList};
use self::{
    files::{Files, reread},
    probes::{probe_failing, probe_loops},
};
use super::Inner;

/// How often the tasks below are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often files are looked at for changes.
const FILES_EVERY: Duration = Duration::from_secs(2);
/// How often a route that led back to us, or left questions without an answer, is searched for loops.
const LOOP_EVERY: Duration = Duration::from_secs(30);
/// Refreshes at once: the end of an outage must be no stampede.
const REFRESHES_MAX: usize = 64;
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
