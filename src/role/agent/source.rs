//! Which source an agent follows, and what it does when that source cannot even be opened.

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::warn;

use crate::{
    config::{Config, Source},
    source::{Metrics, apiserver, manifests},
    store::{Reader, Update},
    sys::Clock,
};

/// A source that was looked at and is ready to run.
pub(super) enum Prepared {
    Manifests(manifests::Config),
    Apiserver(apiserver::Config),
}

/// Looks at the source without reading it.
///
/// # Errors
/// If it cannot be opened and there is nothing to serve without it. With records from disk that is a warning: the agent
/// serves those and goes on looking.
pub(super) async fn prepare(config: &Config, restored: bool) -> anyhow::Result<Prepared> {
    let endpoints = config.endpoints();
    let (prepared, problem): (_, Option<anyhow::Error>) = match &config.source {
        Source::Manifests(path) => {
            let checked = manifests::check(path);
            let config = manifests::Config { path: path.clone(), endpoints, ..manifests::Config::default() };
            (Prepared::Manifests(config), checked.err().map(Into::into))
        }
        Source::Kubernetes(kubeconfig) => {
            let kubeconfig = kubeconfig.clone();
            let config = apiserver::Config { kubeconfig, endpoints, ..apiserver::Config::default() };
            let checked = apiserver::check(&config).await;
            (Prepared::Apiserver(config), checked.err().map(Into::into))
        }
        Source::Hub(_) => anyhow::bail!("--hub: this agent cannot follow a hub yet, give --kubeconfig or --manifests"),
    };
    match problem {
        Some(error) if !restored => Err(error),
        Some(error) => {
            warn!(%error, "serving what the store has, and trying the source again and again");
            Ok(prepared)
        }
        None => Ok(prepared),
    }
}

impl Prepared {
    /// Begins to follow the source.
    pub(super) fn run(self, feed: &Feed) -> Running {
        let Feed { clock, metrics, reader, updates } = feed.clone();
        let task = match self {
            Self::Manifests(config) => tokio::spawn(manifests::run(config, clock, metrics, reader, updates)),
            Self::Apiserver(config) => tokio::spawn(apiserver::run(config, clock, metrics, updates)),
        };
        Running(task.abort_handle())
    }
}

/// What every source works with.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub clock: Clock,
    pub metrics: Metrics,
    pub reader: Reader,
    pub updates: mpsc::Sender<Update>,
}

/// A source at work. Ends when dropped.
#[derive(Debug)]
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
