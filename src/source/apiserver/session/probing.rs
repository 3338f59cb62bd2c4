//! The probe of a session: whether the server is there, and whether it has the history that was listed.

use std::{future::Future, pin::Pin};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Known, Session, Unwanted};
use crate::source::{
    Objects,
    apiserver::{
        probe::{self, Probed},
        server::Failure,
    },
    assemble::Part,
    metrics::Verb,
};

/// Probes that fail, since the last one that succeeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    pub(super) times: u32,
    pub(super) kind: Refusal,
    /// A watch delivered meanwhile: the server is slow, not away.
    pub(super) alive: bool,
}

/// The cause that failing probes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No answer at all.
    Unreachable,
    /// The server answers that it is too busy, or cannot.
    Busy,
    /// The server does not let us.
    Denied,
}

pub(super) type Probing = Pin<Box<dyn Future<Output = Result<Probed, Failure>> + Send>>;

impl Session<'_> {
    pub(super) fn begin_probe(&mut self) -> Probing {
        self.probe_begun = (self.clock.now(), self.floor());
        Box::pin(probe::probe(self.server.borrow().clone()))
    }

    /// The version the server must not be below.
    fn floor(&self) -> Option<u64> {
        if self.known.comparable {
            return self.parts.values().filter_map(|part| part.version).max();
        }
        self.parts[&Part::Namespaces].version
    }

    pub(super) async fn probed(&mut self, probed: Result<Probed, Failure>) -> Result<Option<Known>, Unwanted> {
        match probed {
            Ok(probed) => {
                if let Some(known) = self.moved(&probed) {
                    return Ok(Some(known));
                }
                self.reached().await?;
                Ok(None)
            }
            // The way to it may be open with other credentials; refusing is an answer all the same.
            Err(failure) => {
                self.not_reached(&failure).await?;
                Ok(None)
            }
        }
    }

    /// Whether this is still the cluster, and the history, that was listed.
    fn moved(&mut self, probed: &Probed) -> Option<Known> {
        if !self.published {
            return None;
        }
        let known = self.known;
        if let (Some(uid), Some(cluster)) = (&probed.cluster, &self.cluster)
            && **uid != **cluster
        {
            warn!(%uid, "another cluster answers at this address: its records are not used, see holdfast guard");
            return Some(known);
        }
        let (version, floor) = (probed.version?, self.probe_begun.1?);
        if version < floor {
            let namespaces = self.parts[&Part::Namespaces].version;
            if !known.tested && namespaces.is_none_or(|held| version >= held) {
                info!(version, floor, "resource versions of this apiserver differ by kind: comparing namespaces only");
                self.known = Known { comparable: false, tested: true, ..known };
                return None;
            }
            warn!(
                version,
                floor, "the cluster went back to an older state, as after an etcd restore: listing everything again"
            );
            self.metrics.health().went_back(self.clock.now());
            return Some(Known { new_epoch: true, ..known });
        }
        self.known.tested = true;
        None
    }

    pub(super) async fn reached(&mut self) -> Result<(), Unwanted> {
        // A single failure may come from an old connection, and a watch that delivered meanwhile is not deaf.
        let away = |failing: Failing| failing.kind == Refusal::Unreachable && failing.times > 1 && !failing.alive;
        let returned = self.failing.take().is_some_and(away);
        self.probe_at = Instant::now() + self.config.timing.probe;
        self.gate.send_modify(|gate| {
            gate.successes += 1;
            gate.returns += u64::from(returned);
            gate.open = true;
        });
        let begun = self.probe_begun.0;
        for followed in self.parts.values_mut() {
            if returned {
                // Each resumes now, and says when it is open.
                followed.open = false;
            } else if followed.open {
                followed.heard = followed.heard.max(begun);
                followed.downs = 0;
            }
        }
        self.vouch().await
    }

    pub(super) async fn not_reached(&mut self, failure: &Failure) -> Result<(), Unwanted> {
        let kind = match failure {
            Failure::Refused { code: 401 | 403 | 404, .. } => Refusal::Denied,
            Failure::Refused { .. } => Refusal::Busy,
            Failure::Unreachable { .. } | Failure::Expired | Failure::Garbage(_) => Refusal::Unreachable,
        };
        let timing = &self.config.timing;
        if kind == Refusal::Denied && self.is_restarting() {
            self.probe_at = Instant::now() + timing.retry;
            return Ok(());
        }
        let before = self.failing.map_or((0, false), |failing| (failing.times, failing.alive));
        let times = before.0.saturating_add(1);
        self.failing = Some(Failing { times, kind, alive: before.1 });
        let jitter = rand::random_range(0.5..=1.0);
        let wait = match (kind, failure) {
            // A server that refuses is asked less and less, and not before the time it names.
            (Refusal::Busy, Failure::Refused { retry_after, .. }) => {
                let wait = timing.retry.saturating_mul(1 << times.min(5)).min(timing.backoff_denied);
                retry_after.unwrap_or_default() + wait.mul_f64(jitter)
            }
            _ => timing.retry.mul_f64(jitter),
        };
        self.probe_at = Instant::now() + wait;
        if kind == Refusal::Unreachable {
            self.away = Some(Instant::now());
            // The first failure in a row is looked at again at once; it may have been an old connection.
            if times == 1 {
                self.probe_at = Instant::now();
                return Ok(());
            }
        }
        self.gate.send_modify(|gate| gate.open = false);
        if matches!(failure, Failure::Refused { code: 401, .. }) || self.connected.elapsed() > timing.reconnect {
            self.reconnect();
        }
        if self.reachable() {
            return Ok(());
        }
        let reason = self.server.borrow().describe(Verb::List, Objects::Namespaces, failure);
        self.lose(reason).await
    }

    /// Whether the server delivers, however slowly.
    pub(super) fn reachable(&self) -> bool {
        match self.failing {
            None | Some(Failing { kind: Refusal::Busy, .. }) => true,
            Some(Failing { kind: Refusal::Denied, .. }) => false,
            Some(Failing { kind: Refusal::Unreachable, alive, .. }) => alive,
        }
    }
}
