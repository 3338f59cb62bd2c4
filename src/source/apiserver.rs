//! Records from a Kubernetes apiserver: lists and watches, at most four long ones whatever the cluster's size.
//!
//! Services, Namespaces (metadata only) and EndpointSlices are watched; of the slices, with `endpoints: headless`, only
//! those of headless services and those not made by the endpointslice controller (two disjoint label selectors), so
//! that the slices of ClusterIP services never travel.
//!
//! ```text
//!   four followers (watch.rs)            session (session.rs)                     writer
//!   list ─▶ watch ─▶ resume ─▶ …  ──▶  assembler ── all listed? ── Reset ───────▶
//!      ▲                               probe every 30 s: version below ours? ── new epoch
//!      └── woken when the probe succeeds ◀──┘
//! ```
//!
//! - A list is a streaming list where the server has it, else a paged one. A broken or ended watch resumes at its last
//!   version; only `410 Gone` lists again.
//! - Nothing is published before every kind was listed; a list is published as a whole.
//! - What the server says is believed for as long as it stands behind it: `as_of` is the time of the latest sign of life
//!   on the watch heard of longest ago. A sign of life is an event, a bookmark, or a probe while the watch is open; a
//!   watch without a bookmark for a minute and a half is dropped and resumed.
//! - The probe is one small consistent LIST of the namespace `kube-system`: its version must not be below what we saw
//!   (etcd was restored, and a watch at our version would be deaf without an error), its UID must be ours.
//! - A server that is slow is waited for: requests are not given up before the server itself would end them, and one is under
//!   way where another would only add to its work. It counts as lost when nothing comes in for a while, not when an answer
//!   takes long. While it is out of reach the probe asks about once a second; watches resume when it succeeds, and a few
//!   times a minute whatever it says. Lists wait by exponential backoff with full jitter.
//!
//! Never reads the store, and never decides what is held.

mod addresses;
mod decode;
mod health;
pub mod lease;
mod probe;
mod request;
mod server;
mod session;
mod transport;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

pub use self::{
    addresses::{OwnAddresses, endpoints},
    health::Health,
    server::Error,
};
use self::{
    server::Server,
    session::{Ended, Known, Session},
};
use super::{EndpointsMode, Metrics, backoff::Backoff};
use crate::{
    store::{Update, What},
    sys::Clock,
};

/// A session that lasted this long makes the next restart an unhurried one again.
const SETTLED: Duration = Duration::from_secs(300);

/// Which apiserver, and how it is asked.
#[derive(Clone, Default)]
pub struct Config {
    /// The kubeconfig; without one, the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    pub endpoints: EndpointsMode,
    pub timing: Timing,
    /// Dialled beside the address configured.
    pub own_addresses: Option<OwnAddresses>,
    /// Connections shared by those with clones of this configuration: an election and the source it decides about.
    pub shared: Shared,
}

/// Access to the server, opened once for all its users.
#[derive(Clone, Default)]
pub struct Shared(Arc<tokio::sync::Mutex<Option<(Server, Instant)>>>);

impl Shared {
    /// The server, with its credentials read again if that was longer than `timing.reconnect` ago and `renew` is asked for.
    async fn server(&self, config: &Config, metrics: &Metrics, renew: bool) -> Result<Server, Error> {
        let mut held = self.0.lock().await;
        if let Some((server, read)) = &*held
            && (!renew || read.elapsed() < config.timing.reconnect)
        {
            return Ok(server.clone());
        }
        let server = Server::connect(config, metrics).await?;
        *held = Some((server.clone(), Instant::now()));
        Ok(server)
    }
}

/// Timeouts and intervals. The defaults are meant to stay; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For a TCP connection. Unset, the limit grows with what is seen.
    pub connect: Option<Duration>,
    /// Head start of the address configured over the apiserver's own, and of each of those over the next.
    pub head_start: Duration,
    /// For a TLS handshake. Long: one that is given up is work done for nothing by a server that is slow.
    pub handshake: Duration,
    /// For the first byte of an answer, connecting included. Longer than the minute after which an apiserver ends a request
    /// itself.
    pub answer: Duration,
    /// Without a single byte from the server while a request waits: it counts as not reachable. The request goes on.
    pub silence: Duration,
    /// An answer that takes longer than this makes the server count as slow.
    pub slow: Duration,
    /// Without an event of a streaming list, while the server answers other requests: it has no streaming lists.
    pub idle_initial: Duration,
    /// Between two pieces of a list that is being sent.
    pub idle_list: Duration,
    /// Between two events or bookmarks of a watch; the server sends a bookmark about every minute.
    pub idle_watch: Duration,
    /// For reading credentials, which may run a plugin.
    pub credentials: Duration,
    /// Shortest time between two readings of the credentials.
    pub reconnect: Duration,
    pub probe: Duration,
    /// Between two probes of a server out of reach, less a jitter of up to half. Short however long the outage: what
    /// changed meanwhile is to show within a second of the end, and a probe is one small GET.
    pub retry: Duration,
    /// How long a server that was just out of reach may refuse by 403 before that is told: it answers before it has
    /// read its RBAC rules.
    pub restarting: Duration,
    /// Upper end of the first wait before an expensive request is made again.
    pub backoff_min: Duration,
    /// Upper end of any such wait.
    pub backoff_max: Duration,
    /// Upper end of the wait after a missing right or credentials: cheap for the server, and an operator may be fixing it.
    pub backoff_denied: Duration,
    /// How long a watch is asked to last, plus a jitter of up to as much again.
    pub watch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: None,
            head_start: Duration::from_secs(1),
            handshake: Duration::from_secs(30),
            answer: Duration::from_secs(70),
            silence: Duration::from_secs(8),
            slow: Duration::from_secs(1),
            idle_initial: Duration::from_secs(5),
            idle_list: Duration::from_secs(120),
            idle_watch: Duration::from_secs(90),
            credentials: Duration::from_secs(30),
            reconnect: Duration::from_secs(60),
            probe: Duration::from_secs(30),
            retry: Duration::from_millis(800),
            restarting: Duration::from_secs(10),
            backoff_min: Duration::from_millis(800),
            backoff_max: Duration::from_secs(30),
            backoff_denied: Duration::from_secs(4),
            watch: Duration::from_secs(300),
        }
    }
}

/// Reads the kubeconfig, or the service account, and the credentials it names, without asking the server.
///
/// # Errors
/// If they cannot be read or used.
pub async fn check(config: &Config) -> Result<(), Error> {
    Server::connect(config, &Metrics::unregistered()).await.map(|_| ())
}

/// Follows the cluster until the receiver of the updates is gone.
///
/// Never gives up: every failure, even of the kubeconfig, is sent as [`What::Lost`] and tried again. [`check`] makes an
/// unreadable kubeconfig an error at start.
pub async fn run(config: Config, clock: Clock, metrics: Metrics, updates: mpsc::Sender<Update>) {
    let mut known = Known::default();
    let mut said = None;
    let mut restarts = Backoff::new(config.timing.backoff_min, config.timing.backoff_max);
    loop {
        let server = match config.shared.server(&config, &metrics, true).await {
            Ok(server) => server,
            Err(error) => {
                let reason = error.to_string();
                if said.as_ref() != Some(&reason) {
                    warn!(%reason, "no access to the apiserver");
                    if updates.send(What::Lost { reason: reason.clone() }.into()).await.is_err() {
                        return;
                    }
                    said = Some(reason);
                }
                if updates.is_closed() {
                    return;
                }
                tokio::time::sleep(config.timing.retry).await;
                continue;
            }
        };
        said = None;
        let begun = Instant::now();
        match Session::new(&config, &clock, &metrics, &updates, server, known).run().await {
            Ended::Unwanted => return,
            Ended::Restart(next) => known = next,
        }
        // Two clusters that answer at one address by turns would have everything listed without end.
        if begun.elapsed() > SETTLED {
            restarts.succeeded();
        }
        restarts.failed();
        tokio::time::sleep(restarts.delay()).await;
    }
}
