//! The cache file: read at the start, while the sockets are open already and only names outside the cluster wait for it;
//! written at intervals, when a change must not be lost, and at exit.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::{oneshot, watch};

use crate::{
    dns::{
        cache::{self, PersistError},
        forward::Inner,
    },
    sys::give_way,
};

/// Whether what was saved has been read.
#[derive(Debug)]
pub struct CacheLoad {
    done: AtomicBool,
    told: watch::Sender<bool>,
}

impl CacheLoad {
    /// Under way, or over at once.
    pub fn new(done: bool) -> Self {
        Self { done: AtomicBool::new(done), told: watch::channel(done).0 }
    }

    /// Whether it is over. Costs one load, for the thread that serves the client.
    pub fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Waits until it is over.
    pub async fn over(&self) {
        // The sender lives as long as this does.
        let _ = self.told.subscribe().wait_for(|done| *done).await;
    }

    /// Ends the load when dropped, also by a panic.
    pub fn finish(&self) -> impl Drop + '_ {
        struct Finish<'a>(&'a CacheLoad);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                self.0.done.store(true, Ordering::Release);
                self.0.told.send_replace(true);
            }
        }
        Finish(self)
    }
}

impl Inner {
    /// Reads what was saved from `path`.
    pub fn load(&self, path: &Path) {
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
    pub async fn save(self: &Arc<Self>) {
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
    pub async fn save_at_leisure(self: &Arc<Self>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_waits_until_it_is_over_even_if_it_breaks() {
        let loading = Arc::new(CacheLoad::new(false));
        let waiting = tokio::spawn({
            let loading = Arc::clone(&loading);
            async move { loading.over().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && !loading.is_over());
        let reader = Arc::clone(&loading);
        let broken = thread::spawn(move || {
            let _over = reader.finish();
            panic!("broken");
        });
        assert!(broken.join().is_err());
        waiting.await.unwrap();
        assert!(loading.is_over());
        loading.over().await;
    }
}
