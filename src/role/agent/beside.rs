//! A start beside another process that has the ports: joins it, or waits until it ends.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

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
    report::{Time, Waiting},
    role::descriptors,
    sys::Clock,
};

/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Asks an agent that runs here to hand over. On a node, waits for one that does not until it ends; elsewhere that is an error.
pub(super) async fn hand_over(config: &Config) -> anyhow::Result<Option<Predecessor>> {
    wait_for(config, async || {
        handover::ask(config).await.map_err(|error| CannotStart { waits: true, port: None, error })
    })
    .await
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
        bound.map_err(|error| {
            let port = if let BindError::Taken { address, .. } = &error { Some(*address) } else { None };
            CannotStart { waits: port.is_some(), port, error: error.into() }
        })
    })
    .await
}

/// Why a start does not go on.
struct CannotStart {
    /// Another process is the reason.
    waits: bool,
    port: Option<SocketAddr>,
    error: anyhow::Error,
}

async fn wait_for<T, F: Future<Output = Result<T, CannotStart>>>(
    config: &Config,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("take over the signals")?;
    let mut told = Told::nothing(&config.settings.admin);
    loop {
        let CannotStart { waits, port, error } = match attempt().await {
            Ok(done) => return Ok(done),
            Err(refused) => refused,
        };
        if !waits || !config.settings.node().is_wanted() {
            return Err(error);
        }
        told.say(format!("{error:#}"), port);
        tokio::select! {
            () = sleep(TRY_EVERY) => {}
            _ = terminate.recv() => bail!("stopped by SIGTERM while waiting: {error:#}"),
        }
    }
}

/// The reason to wait, for people: in the log once, and beside the admin socket for `status`, which no process answers yet. Gone from
/// there when dropped.
struct Told {
    file: PathBuf,
    reason: Option<String>,
}

impl Told {
    fn nothing(admin: &Path) -> Self {
        let file = admin.with_extension("waiting");
        // Of a process that was killed while it waited.
        let _ = fs::remove_file(&file);
        Self { file, reason: None }
    }

    fn say(&mut self, reason: String, port: Option<SocketAddr>) {
        if self.reason.as_ref() == Some(&reason) {
            return;
        }
        warn!(
            reason,
            "waiting for another process to end: it has the ports or the store, and goes on answering; interface and rules stay as they are"
        );
        let waiting = Waiting { since: Time(Clock::System.now()), reason: reason.clone(), port };
        // Without the file, the reason still is in the log.
        let _ = serde_json::to_string(&waiting).map(|text| fs::write(&self.file, text));
        self.reason = Some(reason);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.reason.is_some() {
            let _ = fs::remove_file(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_once_and_gone_when_the_wait_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (admin, file) = (dir.path().join("agent.sock"), dir.path().join("agent.waiting"));
        fs::write(&file, "of a process that was killed").unwrap();
        let mut told = Told::nothing(&admin);
        assert!(!file.exists());
        told.say("the port is taken".into(), "127.0.0.1:53".parse().ok());
        let waiting: Waiting = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(waiting.reason, "the port is taken");
        fs::remove_file(&file).unwrap();
        told.say("the port is taken".into(), "127.0.0.1:53".parse().ok());
        assert!(!file.exists(), "nothing new to say");
        told.say("the store is in use".into(), None);
        assert!(file.exists());
        drop(told);
        assert!(!file.exists());
    }
}
