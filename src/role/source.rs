//! The source that a process follows, also while that source cannot be opened.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::future::OptionFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Role, Source},
    source::{
        Learnt, Metrics,
        apiserver::{self, OwnAddresses},
        hub, manifests,
    },
    store::{Reader, Update, What},
    sys::{Clock, UnixMillis},
    tls::{self, Tls},
};

/// Pause before certificates that could not be read are tried again.
pub(super) const CERTIFICATES_AGAIN: Duration = Duration::from_secs(1);

/// A source that was looked at and is ready to run, any number of times.
#[derive(Clone)]
pub(super) enum PreparedSource {
    Manifests(manifests::Config),
    Apiserver(apiserver::Config),
    Hub(Hubs),
    /// No source, or none yet.
    None,
}

#[derive(Clone, Debug)]
pub(super) struct Hubs {
    pub config: hub::Config,
    /// Directory of the certificates; `None` on loopback.
    pub certificates: Option<PathBuf>,
    /// Directory of the store, where addresses learnt are kept.
    pub store: Option<PathBuf>,
}

/// Looks at the source of a process called `name` without reading it. One that cannot be opened is logged, and tried again
/// for as long as the process runs.
pub(super) async fn prepare(config: &Config, name: &str, reader: &Reader) -> PreparedSource {
    let (endpoints, settings) = (config.endpoints(), &config.settings);
    let (prepared, problem): (_, Option<anyhow::Error>) = match &config.source {
        Source::Manifests(path) => {
            let checked = manifests::check(path);
            let config = manifests::Config { path: path.clone(), endpoints, ..manifests::Config::default() };
            (PreparedSource::Manifests(config), checked.err().map(Into::into))
        }
        Source::Kubernetes(kubeconfig) => {
            let kubeconfig = kubeconfig.clone();
            let learnt = settings.store_path.as_deref().map_or_else(Learnt::nothing, Learnt::apiservers);
            let own_addresses = Some(OwnAddresses::new(reader.clone(), learnt));
            let mut config = apiserver::Config { kubeconfig, endpoints, own_addresses, ..apiserver::Config::default() };
            config.timing.probe = probe_interval(config.timing.probe, settings.stale_after);
            let checked = apiserver::check(&config).await;
            (PreparedSource::Apiserver(config), checked.err().map(Into::into))
        }
        Source::None => (PreparedSource::None, None),
        Source::Hub(_) => {
            let certificates = config.certificates();
            let checked = certificates.as_deref().map_or(Ok(()), tls::check);
            let hubs = Hubs { config: config.follow(name), certificates, store: config.settings.store_path.clone() };
            (PreparedSource::Hub(hubs), checked.err().map(Into::into))
        }
    };
    match problem {
        Some(error) if reader.as_of().is_none() && config.role == Role::Hub => {
            error!(%error, "no records for agents: cannot open their source, trying again until it works; agents go on with what they have");
        }
        Some(error) if reader.as_of().is_none() => {
            error!(%error, "no records: cannot open their source, trying again until it works; names outside the cluster are answered");
        }
        Some(error) => warn!(%error, "serving the records on disk; trying the source again until it works"),
        None => {}
    }
    prepared
}

/// By how much records of an agent are older than those of the hub that watches: heartbeats over two streams, and a slow answer.
const ON_THE_WAY: Duration = Duration::from_secs(15);
/// The apiserver is probed no more often.
const PROBE_MIN: Duration = Duration::from_secs(5);

/// So often that records of a healthy cluster are never stale.
fn probe_interval(longest: Duration, stale_after: Duration) -> Duration {
    stale_after.saturating_sub(ON_THE_WAY).clamp(PROBE_MIN, longest)
}

impl PreparedSource {
    /// Begins to follow the source.
    fn run(self, feed: &Feed) -> AbortOnDropHandle<()> {
        if !matches!(self, Self::Hub(_)) {
            // A process that watches the apiserver follows no hub.
            feed.status
                .send_modify(|status| *status = hub::Status { hubs: status.hubs.clone(), ..hub::Status::default() });
        }
        let Feed { clock, metrics, reader, updates, .. } = feed.clone();
        AbortOnDropHandle::new(match self {
            Self::Manifests(config) => tokio::spawn(manifests::run(config, clock, metrics, reader, updates)),
            Self::Apiserver(config) => tokio::spawn(apiserver::run(config, clock, metrics, updates)),
            Self::Hub(hubs) => tokio::spawn(follow(hubs, feed.clone())),
            Self::None => tokio::spawn(std::future::pending()),
        })
    }
}

/// The environment of every source.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub clock: Clock,
    pub metrics: Metrics,
    pub reader: Reader,
    pub updates: mpsc::Sender<Update>,
    pub following: hub::Metrics,
    pub certificates: tls::Metrics,
    /// Where a follower of hubs stands.
    pub status: watch::Sender<hub::Status>,
    /// Age from which records are stale.
    pub stale_after: Duration,
}

impl Feed {
    /// Certificates in `directory`, for either end of a stream.
    pub fn certificates(&self, directory: PathBuf) -> Result<Tls, tls::Error> {
        let stale = silent_since(self.reader.clone(), self.clock.clone(), self.stale_after);
        Tls::open(directory, self.clock.clone(), stale, self.certificates.clone())
    }
}

/// Since when the source has been silent, for certificates that expired meanwhile; `None` for silence shorter than `stale_after`, such as
/// at each start.
fn silent_since(reader: Reader, clock: Clock, stale_after: Duration) -> tls::Stale {
    Arc::new(move || {
        let freshness = reader.freshness();
        let as_of: UnixMillis = freshness.as_of?;
        (as_of.age(clock.now()) > stale_after).then_some(as_of)
    })
}

async fn follow(hubs: Hubs, feed: Feed) {
    let Hubs { config, certificates, store } = hubs;
    let tls = match certificates {
        None => None,
        Some(directory) => loop {
            match feed.certificates(directory.clone()) {
                Ok(tls) => break Some(tls),
                Err(error) => {
                    let lost = What::Lost { reason: error.to_string() };
                    if feed.updates.send(lost.into()).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(CERTIFICATES_AGAIN).await;
        },
    };
    let parts = hub::Parts {
        reader: feed.reader,
        clock: feed.clock,
        metrics: feed.following,
        dial: hub::dial(tls.clone()),
        learnt: store.map_or_else(Learnt::nothing, |store| Learnt::in_store(&store)),
        status: feed.status,
    };
    tokio::select! {
        () = hub::run(config, parts, feed.updates) => {}
        Some(never) = OptionFuture::from(tls.map(Tls::follow_files)) => match never {},
    }
}

/// The source followed at present; another one can take its place. Ends when dropped.
#[derive(Debug)]
pub(super) struct Following {
    /// Followed from its beginning, in place of the one before.
    pub next: mpsc::Sender<PreparedSource>,
    _task: AbortOnDropHandle<()>,
}

impl Following {
    /// Follows `source`, and restarts it whenever a second list could confirm the first.
    pub(super) fn begin(source: PreparedSource, feed: Feed) -> Self {
        let (next, coming) = mpsc::channel(1);
        Self { next, _task: AbortOnDropHandle::new(tokio::spawn(keep(source, feed, coming))) }
    }
}

async fn keep(mut source: PreparedSource, feed: Feed, mut coming: mpsc::Receiver<PreparedSource>) {
    let mut asked = None;
    loop {
        let running = source.clone().run(&feed);
        tokio::select! {
            next = coming.recv() => match next {
                Some(next) => source = next,
                None => return,
            },
            due = feed.reader.confirmation_due(&feed.clock, asked) => {
                asked = Some(due);
                info!("restarting the source to confirm held deletions");
            }
        }
        running.abort();
        // Cancelled, as it should be.
        let _ = running.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{self, Origin, Records},
        sys::ManualClock,
    };

    #[test]
    fn the_apiserver_is_probed_often_enough_for_the_age_from_which_records_are_stale() {
        let interval = |seconds| probe_interval(Duration::from_secs(30), Duration::from_secs(seconds)).as_secs();
        assert_eq!([20, 30, 45, 60, 3600].map(interval), [5, 15, 30, 30, 30]);
    }

    #[test]
    fn a_process_that_just_started_has_no_grace_for_certificates() {
        let (mut writer, reader) = store::open();
        let clock = ManualClock::new(UnixMillis(1_700_000_000_000));
        let silent = silent_since(reader, Clock::Manual(clock.clone()), Duration::from_secs(60));
        assert_eq!(silent(), None, "without records");
        let as_of = clock.now();
        let origin = Origin::Watched { cluster: "test".into(), new_epoch: false };
        writer.apply(What::Reset { origin, records: Records::default(), as_of }).unwrap();
        writer.apply(What::Lost { reason: "no hub answers yet".into() }).unwrap();
        clock.advance(Duration::from_secs(50));
        assert_eq!(silent(), None, "as after a restart");
        clock.advance(Duration::from_secs(20));
        assert_eq!(silent(), Some(as_of));
    }
}
