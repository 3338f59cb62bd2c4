//! Thousands of followers in one process: the operator's rehearsal, and the load of the fan-out bench.
//!
//! Each simulated agent is a real connection with its own TLS session, HTTP/2 connection and stream, greets with what it
//! holds and proves every state by its digest, as [`crate::proto::Mirror`] does for real agents. What they share is the
//! work: a state reached by the same bytes from the same state is computed once. Never serves DNS, never writes to disk.

mod agent;
#[cfg(feature = "encrypted")]
pub mod encrypted;
mod memo;
pub mod queries;
mod tally;

pub use tally::{Millis, Report};

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    sys::Clock,
    tls::{self, Tls},
};
use memo::Memo;
use tally::Tally;

#[derive(Clone, Debug)]
pub struct Options {
    /// HOST:PORT of the hubs; agents are spread over them.
    pub hubs: Vec<String>,
    /// An agent's certificates; `None` connects in the clear.
    pub tls: Option<PathBuf>,
    pub count: usize,
    /// Over how long their first connections are spread.
    pub ramp: Duration,
    /// How long to watch once all are live, or since the start if they do not become so.
    pub watch: Duration,
    /// How long to wait for all to be live.
    pub patience: Duration,
}

/// The figures shown while it runs.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Agents that are proven equal to their hub.
    pub live: usize,
    /// Bytes received, TLS included.
    pub bytes: u64,
    /// Batches applied, summed over the agents.
    pub batches: u64,
    /// Attempts and streams that ended, and why most of them did.
    pub failed: Option<(u64, String)>,
}

/// Why nothing could be simulated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// There is no hub to follow.
    #[error("no hub is given")]
    NoHub,
}

#[derive(Debug)]
pub struct Running {
    tally: Arc<Tally>,
    stop: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
    count: usize,
}

/// Starts the agents.
///
/// # Errors
/// If the certificates cannot be used.
pub fn start(options: &Options) -> Result<Running, Error> {
    if options.hubs.is_empty() {
        return Err(Error::NoHub);
    }
    let tls = match &options.tls {
        Some(dir) => {
            let metrics = tls::Metrics::register(&prometheus::Registry::new()).expect("a registry of its own");
            Some(Tls::open(dir.clone(), Clock::System, Arc::new(|| None), metrics)?)
        }
        None => None,
    };
    let tally = Arc::new(Tally::default());
    let memo = Arc::new(Memo::default());
    let stop = CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    for number in 0..options.count {
        let delay = options.ramp.mul_f64(fraction(number, options.count));
        let agent = agent::Agent {
            name: format!("simulated-{number}"),
            hubs: options.hubs.clone(),
            number,
            tls: tls.clone(),
            tally: Arc::clone(&tally),
            memo: Arc::clone(&memo),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = async { sleep(delay).await; agent.run().await } => {}
            }
        });
    }
    tasks.close();
    Ok(Running { tally, stop, tasks, count: options.count })
}

#[expect(clippy::cast_precision_loss, reason = "a share of a window")]
fn fraction(number: usize, count: usize) -> f64 {
    number as f64 / count.max(1) as f64
}

impl Running {
    pub fn progress(&self) -> Progress {
        self.tally.progress()
    }

    /// Waits until all agents are live; how long that took, or `None` if they were not in time.
    pub async fn all_live(&self, patience: Duration) -> Option<Duration> {
        self.all(patience, || self.tally.progress().live).await
    }

    /// Waits until every agent has seen `version`'s batch or was repaired beyond it: all live, at one root.
    pub async fn all_at(&self, root: crate::record::RootDigest, patience: Duration) -> Option<Duration> {
        self.all(patience, || self.tally.at(root)).await
    }

    async fn all(&self, patience: Duration, count: impl Fn() -> usize) -> Option<Duration> {
        let start = Instant::now();
        let reached = async {
            while count() < self.count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(patience, reached).await.ok().map(|()| start.elapsed())
    }

    /// The figures since the last report.
    pub fn report(&self) -> Report {
        self.tally.report(self.count)
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// How long to go on if every attempt fails: long enough for a hub that is being restarted.
const HOPE: Duration = Duration::from_secs(20);

/// Runs a simulation from start to end, or until `stop`; `show` is called ten times a second.
///
/// It ends early if no agent ever was live and attempts fail: certificates that do not fit and hubs that are not there do not
/// get better with time.
///
/// # Errors
/// If it cannot start.
pub async fn run(
    options: &Options,
    stop: impl Future<Output = ()>,
    mut show: impl FnMut(&Progress),
) -> Result<Report, Error> {
    let running = start(options)?;
    let begun = Instant::now();
    let (mut all_live, mut ever_live) = (None, false);
    let mut end = begun + options.patience;
    let mut stop = std::pin::pin!(stop);
    while Instant::now() < end {
        tokio::select! {
            () = &mut stop => break,
            () = sleep(Duration::from_millis(100)) => {}
        }
        let progress = running.progress();
        show(&progress);
        ever_live |= progress.live > 0;
        if all_live.is_none() && progress.live == options.count {
            all_live = Some(begun.elapsed());
            end = Instant::now() + options.watch;
        }
        if !ever_live && progress.failed.is_some() && begun.elapsed() >= HOPE {
            break;
        }
    }
    let mut report = running.report();
    report.all_live_ms = all_live.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    report.seconds = begun.elapsed().as_secs_f64();
    running.stop().await;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_that_all_fail_end_it_early_and_are_told() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = Options {
            hubs: vec![nobody.to_string()],
            tls: None,
            count: 3,
            ramp: Duration::ZERO,
            watch: Duration::ZERO,
            patience: Duration::from_secs(600),
        };
        let mut last = None;
        let report = run(&options, std::future::pending(), |progress| last.clone_from(&progress.failed)).await.unwrap();
        assert!(report.seconds < 60.0 && report.live == 0, "{report:?}");
        assert!(last.is_some_and(|(count, _)| count >= 3), "{report:?}");
    }
}
