//! Whether the cache file has been read: sockets are open before, and only names outside the cluster wait for it.
//!
//! Says when it is over; never reads anything itself.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        let broken = std::thread::spawn(move || {
            let _over = reader.finish();
            panic!("broken");
        });
        assert!(broken.join().is_err());
        waiting.await.unwrap();
        assert!(loading.is_over());
        loading.over().await;
    }
}
