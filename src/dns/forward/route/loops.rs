//! The search for loops: a name is sent to an upstream, and comes back to us if there is a loop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Route;
use crate::{dns::forward::upstream::Upstream, sys::Lock, wire};

#[derive(Debug, Default)]
pub struct LoopSearch {
    probes: Lock<Vec<LoopProbe>>,
    /// Questions that the upstreams had left without an answer at the last search.
    lost_before: AtomicU64,
}

/// A name sent to an upstream to see whether it comes back.
#[derive(Debug)]
struct LoopProbe {
    name: wire::Name,
    upstream: Arc<Upstream>,
    came_back: bool,
}

impl Route {
    /// Takes the turn for a search for loops. Returns whether to search: a loop was found before, or questions were left without
    /// an answer since the last turn.
    pub fn take_loop_search(&self) -> bool {
        let upstreams = self.upstreams.load();
        let lost = upstreams.iter().map(|upstream| upstream.failures_total()).sum();
        let before = self.loops.lost_before.swap(lost, Ordering::Relaxed);
        lost > before || upstreams.iter().any(|upstream| upstream.is_looped())
    }

    /// Begins a search for a loop through `upstream`; returns the name to send.
    pub fn begin_loop_probe(&self, upstream: &Arc<Upstream>, labels: [&[u8]; 2]) -> wire::Name {
        // A zone too long for them is probed by its own name.
        let name = wire::Name::from_labels(labels.into_iter().chain(self.zone.labels()));
        let name = name.unwrap_or_else(|_| self.zone.clone());
        let probe = LoopProbe { name: name.clone(), upstream: Arc::clone(upstream), came_back: false };
        self.loops.probes.lock().push(probe);
        name
    }

    /// Ends a search: a probe that did not come back shows that there is no loop any more.
    pub fn end_loop_probe(&self, name: &wire::Name) {
        let mut probes = self.loops.probes.lock();
        let Some(at) = probes.iter().position(|probe| probe.name == *name) else { return };
        let LoopProbe { upstream, came_back, .. } = probes.swap_remove(at);
        if !came_back && upstream.set_looped(false) {
            tracing::info!(zone = %self.config.zone, upstream = %upstream.server(), "forwarding loop is gone");
        }
    }

    /// Notes that the probe `name` came back. Returns its upstream, and whether the loop is news; `None` if `name` is no probe.
    pub fn loop_probe_returned(&self, name: &wire::Name) -> Option<(Arc<Upstream>, bool)> {
        let mut probes = self.loops.probes.lock();
        let probe = probes.iter_mut().find(|probe| probe.name == *name)?;
        probe.came_back = true;
        Some((Arc::clone(&probe.upstream), probe.upstream.set_looped(true)))
    }
}
