//! The keep list in the node's hosts file, so that processes of the node reach these names without DNS.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::{
    config::Config,
    dns::forward::Forwarder,
    node::{HostsError, put_block},
};

/// How often the addresses and the file are looked at.
const EVERY: Duration = Duration::from_secs(5);

/// Follows the keep list until it is dropped or left.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: PathBuf,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Metrics {
    names: IntGauge,
    errors: IntCounter,
}

impl Drop for HostsFile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HostsFile {
    /// Begins to write the kept names of `forwarder` to the hosts file that `config` names, if it names one.
    ///
    /// # Errors
    /// If a metric is registered already.
    pub fn begin(config: &Config, forwarder: Forwarder, registry: &Registry) -> anyhow::Result<Option<Self>> {
        let path = config.settings.node_hosts_file.clone();
        let metrics = Metrics {
            names: IntGauge::new("holdfast_node_hosts_file_names", "Names of the keep list in the node's hosts file.")?,
            errors: IntCounter::new(
                "holdfast_node_hosts_file_errors_total",
                "Times the keep list could not be written to the node's hosts file.",
            )?,
        };
        registry.register(Box::new(metrics.names.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        Ok(path.map(|path| Self { path: path.clone(), task: tokio::spawn(follow(path, forwarder, metrics)) }))
    }

    /// Ends it; the block goes with `remove`.
    pub async fn leave(mut self, remove: bool) {
        self.task.abort();
        // Cancelled, as it should be; a file that is being written is whole then.
        let _ = (&mut self.task).await;
        if remove && let Err(error) = put(self.path.clone(), Vec::new()).await {
            error!(%error, "the keep list is not removed from the node's hosts file: remove its block by hand");
        }
    }
}

async fn follow(path: PathBuf, forwarder: Forwarder, metrics: Metrics) {
    forwarder.loaded().await;
    let (mut tick, mut told) = (tokio::time::interval(EVERY), None);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let kept = forwarder.kept_addresses();
        let lines = kept.iter().flat_map(|(name, addresses)| {
            let name = name.trim_end_matches('.');
            addresses.iter().map(move |address: &IpAddr| format!("{address} {name}"))
        });
        match put(path.clone(), lines.collect()).await {
            Ok(changed) => {
                metrics.names.set(i64::try_from(kept.len()).unwrap_or(i64::MAX));
                if changed {
                    info!(path = %path.display(), names = kept.len(), "keep list written to the node's hosts file");
                }
                told = None;
            }
            Err(error) => {
                metrics.errors.inc();
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    error!(
                        error = text,
                        "the keep list is not in the node's hosts file: processes of the node need DNS for its names"
                    );
                    told = Some(text);
                }
            }
        }
    }
}

/// Off the threads that answer.
async fn put(path: PathBuf, lines: Vec<String>) -> Result<bool, HostsError> {
    let put = tokio::task::spawn_blocking(move || put_block(&path, &lines));
    put.await.unwrap_or(Ok(false))
}
