//! Which source an agent follows, and what it does when that source cannot even be opened.

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::warn;

use crate::{
    config::{Config, Source},
    source::{Metrics, manifests},
    store::{Reader, Update},
    sys::Clock,
};

/// A source that was looked at and is ready to run.
pub(super) enum Prepared {
    Manifests(manifests::Config),
}

/// Looks at the source without reading it.
///
/// # Errors
/// If it cannot be opened and there is nothing to serve without it. With records from disk that is a warning: the agent
/// serves those and goes on looking.
pub(super) fn prepare(config: &Config, restored: bool) -> anyhow::Result<Prepared> {
    match &config.source {
        Source::Manifests(path) => {
            if let Err(error) = manifests::check(path) {
                if !restored {
                    return Err(error.into());
                }
                warn!(%error, "serving what the store has, and looking for the manifests");
            }
            let endpoints = config.endpoints();
            Ok(Prepared::Manifests(manifests::Config { path: path.clone(), endpoints, ..manifests::Config::default() }))
        }
        Source::Kubernetes(_) | Source::Hub(_) => anyhow::bail!("not yet"),
    }
}

impl Prepared {
    /// Begins to follow the source.
    pub(super) fn run(self, clock: Clock, metrics: Metrics, reader: Reader, updates: mpsc::Sender<Update>) -> Running {
        let task = match self {
            Self::Manifests(config) => tokio::spawn(manifests::run(config, clock, metrics, reader, updates)),
        };
        Running(task.abort_handle())
    }
}

/// A source at work. Ends when dropped.
#[derive(Debug)]
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
