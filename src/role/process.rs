//! A running agent or hub: its addresses, its work until a signal asks for the end, and its end.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;
use tracing::{error, info};

use super::{
    base::Base,
    signals::{Request, Signals},
    supervisor,
};
use crate::{admin, config::Config, dns, store};

/// Where a running process can be reached; ports given as 0 are the ones found.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// DNS over UDP and TCP; empty for a hub.
    pub dns: Vec<SocketAddr>,
    /// The listeners of encrypted DNS; empty for a hub.
    pub encrypted: Vec<(dns::Transport, SocketAddr)>,
    /// The stream to agents; empty for an agent.
    pub stream: Vec<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    /// The unix socket for the tools.
    pub admin: PathBuf,
}

impl Addresses {
    pub(super) fn of_tools(bound: &admin::Bound) -> Self {
        Self {
            dns: Vec::new(),
            encrypted: Vec::new(),
            stream: Vec::new(),
            http: bound.http_address(),
            metrics: bound.metrics_address(),
            admin: bound.admin_path().to_owned(),
        }
    }
}

/// The parts of one role alone.
pub trait RoleParts {
    /// Takes over what can change while running.
    fn reload(&mut self, next: &Config);

    /// Answers what was received, and ends.
    fn leave(self, base: &Base) -> impl Future<Output = ()> + Send;
}

/// A running process. Dropped, it stops at once; [`Process::stop`] is the polite way.
pub struct Process<P> {
    pub(super) addresses: Addresses,
    pub(super) base: Base,
    pub(super) parts: P,
    /// Ends the listeners of the tools, also when dropped.
    pub(super) stop: DropGuard,
    pub(super) listeners: JoinHandle<()>,
}

/// The reason to read the configuration again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A signal asked for it.
    Signal,
    /// The interval is over.
    Time,
}

/// A configuration that was read again: `None` if it did not change, an error if it cannot be used.
pub type Reread = Result<Option<Config>, String>;

impl<P: RoleParts> Process<P> {
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The records it serves.
    pub fn reader(&self) -> &store::Reader {
        &self.base.reader
    }

    pub fn registry(&self) -> &Registry {
        &self.base.registry
    }

    /// Runs until a signal asks for the end. `read` reads the configuration again when a signal asks for that, and every
    /// `interval`.
    pub async fn run(mut self, mut signals: Signals, interval: Option<Duration>, mut read: impl FnMut(Why) -> Reread) {
        let _telling = supervisor::when_ready(&self.base.readiness);
        loop {
            let asked = match interval {
                Some(interval) => tokio::time::timeout(interval, signals.next()).await.ok(),
                None => Some(signals.next().await),
            };
            let why = match asked {
                Some(Request::Stop) => break,
                Some(Request::Reload) => Why::Signal,
                None => Why::Time,
            };
            match read(why) {
                Ok(Some(next)) => {
                    self.parts.reload(&next);
                    self.base.reload(next).await;
                }
                Ok(None) => {}
                Err(reason) => self.base.refused(reason),
            }
        }
        self.stop().await;
    }

    /// Stops within 5 s: an agent answers every query that was received, a hub sends its followers to other hubs; the disk
    /// has what memory had.
    pub async fn stop(mut self) {
        info!("stopping: what was received is answered first");
        supervisor::leaving();
        let _draining = self.base.readiness.latch("draining");
        self.base.leave_source();
        self.parts.leave(&self.base).await;
        self.base.flush().await;
        drop(self.stop);
        if let Err(error) = self.listeners.await {
            error!(%error, "the admin listeners failed");
        }
    }
}
