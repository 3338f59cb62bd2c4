//! Readiness: a set of latches, each held by a part that is not ready yet. The process is ready while none is held.

use std::sync::Arc;

use tokio::sync::watch;

/// The latches of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<watch::Sender<Vec<&'static str>>>);

impl Readiness {
    /// Holds the process back until the latch is dropped. The name is shown: `first records`, `draining`.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        self.0.send_modify(|held| held.push(name));
        Latch { name, of: self.clone() }
    }

    /// The conditions not met yet, in the order in which the waits began.
    pub fn held(&self) -> Vec<&'static str> {
        self.0.borrow().clone()
    }

    /// Waits until nothing is waited for.
    pub async fn ready(&self) {
        // Cannot fail: the sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(Vec::is_empty).await;
    }
}

/// Keeps the process from being ready until it is dropped.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    of: Readiness,
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.of.0.send_modify(|held| {
            if let Some(at) = held.iter().position(|name| *name == self.name) {
                held.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn ready_is_when_every_latch_was_dropped() {
        let readiness = Readiness::default();
        assert!(readiness.ready().now_or_never().is_some());
        let records = readiness.latch("first records");
        let listeners = readiness.latch("listeners");
        let more = readiness.latch("listeners");
        drop(listeners);
        assert_eq!(readiness.held(), ["first records", "listeners"]);
        assert!(readiness.ready().now_or_never().is_none());
        drop((records, more));
        assert!(readiness.held().is_empty());
        assert!(readiness.ready().now_or_never().is_some());
    }
}
