//! Names outside the cluster: asks upstreams and gives each client a message of its own.
//!
//! Never answers for the cluster zone, never sets AA, and never leaves a client without an answer: whatever happens
//! upstream, within the budget there is a message, at worst SERVFAIL with the reason.

mod compose;
mod config;
mod exchange;
mod message;
mod metrics;
mod race;
mod resolv_conf;
mod route;
mod sanitize;
mod tcp;
mod tls;
mod udp;
mod upstream;

use std::{fmt, net::SocketAddr, sync::Arc};

use futures::future::{BoxFuture, FutureExt};
use hickory_proto::rr::Name;
use tokio::time::Instant;

pub use self::{
    config::{Config, ConfigError, Policy, Server, TlsName, UpstreamSource, ZoneConfig},
    message::Mismatch,
    metrics::{FailureKind, Metrics},
    upstream::{UpstreamState, UpstreamStatus},
};
use self::{
    message::Ask,
    race::{Lost, race},
    route::{Route, Routes},
};
use super::{
    cache::Entry,
    request::{ForwardRequest, Resolve, Resolved, ServedFrom},
};
use crate::{sys::Clock, wire::EdeCode};

/// Answers a query for a name of our own zones, both whole messages; `None` if the name is not ours.
pub type OwnAnswer = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// What a forwarder needs from outside.
#[derive(Clone)]
pub struct Surroundings {
    /// The time of day.
    pub clock: Clock,
    /// Counters.
    pub metrics: Metrics,
    /// The addresses this process answers on, refused as upstreams.
    pub listen: Vec<SocketAddr>,
    /// Our own zones: a CNAME that leads there is answered from our records, never by an upstream.
    pub own: OwnAnswer,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Asks upstreams for what the records do not hold. Clones share everything.
#[derive(Clone, Debug)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    routes: Routes,
    surroundings: Surroundings,
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
    /// Checks `config` and is ready to forward.
    ///
    /// # Errors
    /// Everything that is wrong with `config`.
    pub fn new(config: Config, surroundings: Surroundings) -> Result<Self, Vec<ConfigError>> {
        let routes = Routes::new(&config, &surroundings.listen, &surroundings.metrics)?;
        Ok(Self(Arc::new(Inner { config, routes, surroundings })))
    }

    /// Every upstream and how it does, by zone.
    pub fn status(&self) -> Vec<UpstreamStatus> {
        self.0
            .routes
            .iter()
            .flat_map(|route| route.upstreams().iter().map(|up| up.status()).collect::<Vec<_>>())
            .collect()
    }
}

impl Resolve for Forwarder {
    fn resolve(&self, request: ForwardRequest) -> BoxFuture<'static, Resolved> {
        let inner = Arc::clone(&self.0);
        async move {
            let message = compose::respond(&inner, &request).await;
            Resolved { message, from: ServedFrom::Upstream }
        }
        .boxed()
    }
}

impl Inner {
    /// Looks `wanted` up on its own route.
    async fn lookup(&self, wanted: &Wanted, deadline: Instant) -> Result<Arc<Entry>, Failure> {
        let metrics = &self.surroundings.metrics;
        let route = if wanted.cluster_fallback {
            let fallback = self.routes.cluster_fallback.as_ref();
            fallback.ok_or_else(|| Failure { ede: EdeCode::NOT_READY, text: "no records yet".into() })?
        } else {
            self.routes.find(&wanted.wire).ok_or_else(|| Failure {
                ede: EdeCode::NO_REACHABLE_AUTHORITY,
                text: "no upstream for this name".into(),
            })?
        };
        let Ok(_slot) = route.slots.try_acquire() else {
            metrics.over_limit.inc();
            return Err(Failure { ede: EdeCode::OTHER, text: "too many questions in flight".into() });
        };
        metrics.in_flight.inc();
        let answer = self.ask(route, wanted, deadline).await;
        metrics.in_flight.dec();
        let sane = answer?;
        let entry = Entry::new(&sane.parts, self.surroundings.clock.now(), sane.ttl);
        entry
            .map(Arc::new)
            .ok_or_else(|| Failure { ede: EdeCode::NETWORK_ERROR, text: "answer over 65,535 bytes".into() })
    }

    async fn ask(&self, route: &Arc<Route>, wanted: &Wanted, deadline: Instant) -> Result<sanitize::Sane, Failure> {
        let ask = Ask {
            name: &wanted.wire,
            qtype: wanted.qtype,
            qclass: wanted.qclass,
            dnssec_ok: wanted.dnssec_ok,
            checking_disabled: wanted.checking_disabled,
        };
        let ours = |name: &Name| {
            // Who stands in for the cluster speaks for all its names, and there is nobody else to ask for them.
            wanted.cluster_fallback
                || self.routes.find_name(name).is_some_and(|other| Arc::ptr_eq(other, route)) && !self.is_own(name)
        };
        race(route, &wanted.name, &ask, ours, deadline, &self.surroundings.metrics).await.map_err(|lost| failure(&lost))
    }

    /// Whether `name` belongs to our own zones.
    fn is_own(&self, name: &Name) -> bool {
        (self.surroundings.own)(&compose::query(name, 1, 1)).is_some()
    }
}

/// What a client is told of `lost`.
fn failure(lost: &Lost) -> Failure {
    let ede = match lost.kind {
        FailureKind::Timeout | FailureKind::Io | FailureKind::Tls => EdeCode::NO_REACHABLE_AUTHORITY,
        _ => EdeCode::NETWORK_ERROR,
    };
    Failure { ede, text: format!("{} {}", lost.upstream, lost.kind.label()) }
}
