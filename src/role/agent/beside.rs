//! A start beside another process that has the ports: joins it, or waits until it ends.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tracing::{info, warn};

use super::{
    encrypted::{self, Certificate},
    handover::{self, Predecessor},
};
use crate::{
    config::Config,
    dns::{self, BindError},
    role::descriptors,
};

/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Asks an agent that runs here to hand over. On a node, waits for one that does not until it ends; elsewhere that is an error.
pub(super) async fn hand_over(config: &Config) -> anyhow::Result<Option<Predecessor>> {
    wait_for(config, async || handover::ask(config).await.map_err(|error| Refused { waits: true, error })).await
}

/// Binds the ports for DNS. On a node, one that another process has is shared with it if it allows that, and waited for otherwise.
/// Gives also whether ports are shared.
pub(super) async fn bind(
    config: &Config,
    join: bool,
    certificate: Option<&Certificate>,
) -> anyhow::Result<(dns::Bound, bool)> {
    wait_for(config, async || {
        let shared = |join| {
            let mut listeners = dns::Config { join, ..config.dns() };
            descriptors::fit_dns(&mut listeners);
            dns::bind(encrypted::with(listeners, certificate)).map(|bound| (bound, join))
        };
        let bound = match shared(join) {
            Err(BindError::Taken { .. }) if !join && config.settings.node().is_wanted() => shared(true).inspect(|_| {
                info!("another process has the same ports and shares them: each answers a part of the queries");
            }),
            bound => bound,
        };
        bound.map_err(|error| Refused { waits: matches!(error, BindError::Taken { .. }), error: error.into() })
    })
    .await
}

/// Why a start does not go on.
struct Refused {
    /// Another process is the reason.
    waits: bool,
    error: anyhow::Error,
}

async fn wait_for<T, F: Future<Output = Result<T, Refused>>>(
    config: &Config,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("take over the signals")?;
    let mut told = None;
    loop {
        let Refused { waits, error } = match attempt().await {
            Ok(done) => return Ok(done),
            Err(refused) => refused,
        };
        if !waits || !config.settings.node().is_wanted() {
            return Err(error);
        }
        let reason = format!("{error:#}");
        if told.as_ref() != Some(&reason) {
            warn!(
                reason,
                "waiting for another process to end: it has the ports or the store, and goes on answering; interface and rules stay as they are"
            );
            told = Some(reason);
        }
        tokio::select! {
            () = sleep(TRY_EVERY) => {}
            _ = terminate.recv() => bail!("stopped by SIGTERM while waiting: {error:#}"),
        }
    }
}
