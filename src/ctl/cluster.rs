//! The records of a cluster, listed once from its apiserver.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    source::{self, EndpointsMode, apiserver},
    store::{self, Origin, Records, What},
    sys::Clock,
};

/// The longest wait for everything to be listed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Updates that may wait to be looked at.
const WAITING: usize = 16;

/// Lists the cluster that a kubeconfig names, and gives up at the first sign that it cannot be.
///
/// # Errors
/// If the kubeconfig cannot be used, or the apiserver does not answer as it should.
pub fn list(kubeconfig: &Path, endpoints: EndpointsMode) -> anyhow::Result<(Arc<str>, Records)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listed = runtime.block_on(async { timeout(PATIENCE, first_list(kubeconfig, endpoints)).await });
    listed
        .unwrap_or_else(|_| anyhow::bail!("not listed within {} s", PATIENCE.as_secs()))
        .with_context(|| format!("kubeconfig {}", kubeconfig.display()))
}

async fn first_list(kubeconfig: &Path, endpoints: EndpointsMode) -> anyhow::Result<(Arc<str>, Records)> {
    let kubeconfig = Some(kubeconfig.to_owned());
    let config = apiserver::Config { kubeconfig, endpoints, ..apiserver::Config::default() };
    apiserver::check(&config).await?;
    let (_, nothing_held) = store::open();
    let metrics = source::Metrics::register(&prometheus::Registry::new(), &nothing_held, &Clock::System)?;
    let (sender, mut updates) = mpsc::channel(WAITING);
    let follow = apiserver::run(config, Clock::System, metrics, sender);
    let first = async {
        while let Some(update) = updates.recv().await {
            match update.what {
                What::Reset { origin: Origin::Watched { cluster, .. }, records, .. } => {
                    return Ok((cluster, records));
                }
                What::Lost { reason } => anyhow::bail!(reason),
                _ => {}
            }
        }
        anyhow::bail!("the list ended early")
    };
    tokio::select! {
        listed = first => listed,
        () = follow => anyhow::bail!("the list ended early"),
    }
}
