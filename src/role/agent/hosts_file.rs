//! The keep list in the node's hosts file, so that processes of the node reach these names without DNS.

use std::{net::IpAddr, time::Duration};

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info};

use super::handover::Handover;
use crate::{
    config::Config,
    dns::forward::Forwarder,
    node::{HostsBlock, HostsError},
    report::{HostsFileStatus, Time},
    sys::{Clock, Registrar},
};

/// How often the addresses and the file are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How long a process that leaves waits for the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of the block, for `status`; `None` without a hosts file.
pub(in crate::role) type State = watch::Receiver<Option<HostsFileStatus>>;

/// The hosts file of the configuration, if it names one.
#[derive(Debug)]
pub(super) struct HostsFile {
    block: Option<HostsBlock>,
    metrics: Metrics,
    state: watch::Sender<Option<HostsFileStatus>>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct Metrics {
    names: IntGauge,
    errors: IntCounter,
}

impl HostsFile {
    /// Nothing is written before [`follow`](Self::follow).
    ///
    /// # Errors
    /// If a metric is registered already.
    pub fn new(config: &Config, registry: &Registry, clock: Clock) -> anyhow::Result<Self> {
        let made = Registrar(registry);
        let metrics = Metrics {
            names: made.gauge("holdfast_node_hosts_file_names", "Names of the keep list in the node's hosts file.")?,
            errors: made.counter(
                "holdfast_node_hosts_file_errors_total",
                "Times the keep list could not be written to the node's hosts file.",
            )?,
        };
        let block = config.settings.node_hosts_file.clone().map(HostsBlock::new);
        let before = |block: &HostsBlock| HostsFileStatus {
            path: block.path().to_owned(),
            names: 0,
            written: None,
            error: None,
        };
        let state = watch::Sender::new(block.as_ref().map(before));
        Ok(Self { block, metrics, state, clock })
    }

    pub fn state(&self) -> State {
        self.state.subscribe()
    }

    /// Begins to write the kept names of `forwarder`, until a successor is there or the node is `torn_down`.
    pub fn follow(self, forwarder: Forwarder, handover: Handover, torn_down: CancellationToken) -> Option<Following> {
        let block = self.block.clone()?;
        let writing = self.keep_up(block.clone(), forwarder, handover);
        let task = tokio::spawn(async move {
            torn_down.run_until_cancelled(writing).await;
        });
        Some(Following { block, task: AbortOnDropHandle::new(task) })
    }

    async fn keep_up(self, block: HostsBlock, forwarder: Forwarder, handover: Handover) {
        forwarder.loaded().await;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if handover.is_done() {
                // The successor has addresses of its own; two writers would undo each other's.
                continue;
            }
            let kept = forwarder.kept_addresses();
            let lines = kept.iter().flat_map(|(name, addresses)| {
                let name = name.trim_end_matches('.');
                addresses.iter().map(move |address: &IpAddr| format!("{address} {name}"))
            });
            let (lines, block) = (lines.collect::<Vec<_>>(), block.clone());
            self.note(kept.len(), beside(move || block.put(&lines)).await);
        }
    }

    fn note(&self, names: usize, put: Result<bool, HostsError>) {
        let failed = put.as_ref().err().map(ToString::to_string);
        if failed.is_some() {
            self.metrics.errors.inc();
        } else {
            self.metrics.names.set(i64::try_from(names).unwrap_or(i64::MAX));
        }
        self.state.send_modify(|state| {
            let Some(state) = state else { return };
            match (&failed, put) {
                (Some(error), _) if state.error.as_ref() != failed.as_ref() => error!(
                    error,
                    "the keep list is not in the node's hosts file: processes of the node need DNS for its names"
                ),
                (None, Ok(true)) => {
                    info!(path = %state.path.display(), names, "keep list written to the node's hosts file");
                }
                _ => {}
            }
            if failed.is_none() {
                (state.names, state.written) = (names, Some(Time(self.clock.now())));
            }
            state.error = failed;
        });
    }
}

/// Follows the keep list until it is dropped or left.
#[derive(Debug)]
pub(super) struct Following {
    block: HostsBlock,
    task: AbortOnDropHandle<()>,
}

impl Following {
    /// Ends it, and every write with it; the block goes with `remove`.
    pub async fn leave(self, remove: bool) {
        self.task.abort();
        let block = self.block.clone();
        let ended = timeout(PATIENCE, beside(move || block.end(remove))).await;
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{}: the disk does not answer", self.block.path().display()),
        };
        if remove {
            error!(error, "the keep list is not removed from the node's hosts file: remove its block by hand");
        }
    }
}

/// Off the threads that answer.
async fn beside<T: Default + Send + 'static>(
    write: impl FnOnce() -> Result<T, HostsError> + Send + 'static,
) -> Result<T, HostsError> {
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|_| Ok(T::default()))
}
