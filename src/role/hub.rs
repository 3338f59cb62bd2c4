//! The hub: source → store → stream to agents and other hubs.
//!
//! The order of start is the agent's: what the disk has is loaded and checked, then the stream opens and serves it, marked
//! with its age, and only then is the source looked for.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{error, info};

use super::{
    agent::Confined,
    base::{Base, Loaded},
    descriptors,
    election::Election,
    process::{Addresses, Process, RoleParts},
    source::{self, CERTIFICATES_AGAIN, Feed, PreparedSource},
    status::{HubInputs, Inputs, RoleInputs},
};
use crate::{
    admin::{self, Latch, view::ListenerDoc},
    config::Config,
    source::hub,
    stream::{self, Beside, Surroundings},
    sys::{self, Clock},
    tls::{Part, Tls},
};

/// A running hub.
pub type Hub = Process<Streaming>;

/// The parts of a hub that serve the stream.
pub struct Streaming {
    election: Option<Election>,
    stream: AbortOnDropHandle<()>,
    /// Passes on the hubs above this one.
    _passing_on: AbortOnDropHandle<()>,
    leave: CancellationToken,
}

impl Hub {
    /// Starts a hub. On return it serves.
    ///
    /// # Errors
    /// In one line, what could not be opened or read and what to do; nothing is left running then. A source that cannot
    /// be reached is no error if there are records on disk, nor is a disk that does not work.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        Box::pin(Self::start_prepared(config, clock, Confined::default())).await
    }

    /// The same, of a process that [`prepare`](super::agent::prepare)d for it. To be called on the thread that did.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_prepared(mut config: Config, clock: Clock, mut confined: Confined) -> anyhow::Result<Self> {
        let mut loaded = Loaded::open(&config, &clock)?;
        let certificates = config.certificates();
        let mut stream = config.stream("");
        descriptors::fit_stream(&mut stream);
        let mut bound = stream::bind(stream, certificates.is_some())?;
        let listen = bound.addresses();
        let port = listen.first().map_or(0, SocketAddr::port);
        let name = config.settings.name.clone().unwrap_or_else(|| format!("{}:{port}", sys::hostname()));
        config.advertise_bound(&listen);
        let stream = config.stream(&name);
        let advertise = stream.advertise;
        bound.identify(name.clone(), advertise.clone());
        let source = source::prepare(&config, &name, &loaded.reader).await;
        let admin = admin::bind(&config.admin())?;
        confined.bound();

        let beside = Beside::default();
        let (base, election) = match (source, config.settings.lease_name.clone()) {
            (PreparedSource::Apiserver(apiserver), Some(lease)) => {
                let mut base = loaded.follow(config, name.clone(), PreparedSource::None)?;
                let election = Election::begin(&mut base, &lease, apiserver, beside.clone());
                (base, election)
            }
            (source, _) => {
                loaded.begin_epoch();
                (loaded.follow(config, name.clone(), source)?, None)
            }
        };
        let (surroundings, above) = watch::channel(Surroundings::default());
        let passing_on = tokio::spawn(pass_on(base.feed.status.subscribe(), surroundings));
        let metrics = stream::Metrics::register(&base.registry)?;
        let parts = stream::Parts {
            reader: base.reader.clone(),
            clock,
            metrics: metrics.clone(),
            tls: None,
            surroundings: above,
            beside,
        };
        let leave = CancellationToken::new();
        let certificates = certificates.map(|directory| Certificates::open(&base, directory));
        let stream = AbortOnDropHandle::new(tokio::spawn(serve(bound, parts, certificates, leave.clone())));

        let addresses = Addresses { stream: listen, ..Addresses::of_tools(&admin) };
        let row = |address: &SocketAddr| ListenerDoc::new("stream", address);
        let (zone, answers) = (base.config.zone(&[]), base.config.answers());
        let rules = admin::Rules { zone, answers, discovery: Arc::default() };
        let role = HubInputs {
            lease: election.as_ref().map(|election| election.status.clone()),
            stream: metrics,
            name,
            advertise,
        };
        let inputs = Inputs { common: base.inputs(rules), role: RoleInputs::Hub(role) };
        let handles = base.handles(&admin, addresses.stream.iter().map(row).collect(), Arc::new(inputs))?;
        let stop = CancellationToken::new();
        let listeners = tokio::spawn(admin.serve(handles, stop.clone()));
        confined.confine();
        let listening: Vec<String> = addresses.stream.iter().map(ToString::to_string).collect();
        info!(listen = %listening.join(","), admin = %addresses.admin.display(), "serving the stream to agents");
        let parts = Streaming { election, stream, _passing_on: AbortOnDropHandle::new(passing_on), leave };
        Ok(Self { addresses, base, parts, stop: stop.drop_guard(), listeners })
    }
}

impl RoleParts for Streaming {
    fn reload(&mut self, _next: &Config) {}

    async fn leave(self, _base: &Base) {
        if let Some(election) = self.election {
            election.leave().await;
        }
        self.leave.cancel();
        if let Err(error) = self.stream.await {
            error!(%error, "the stream to agents failed");
        }
    }
}

/// The certificates of a hub: read, or to be read.
enum Certificates {
    Read(Tls),
    /// They cannot be read yet; the hub is not ready before.
    Missing {
        feed: Box<Feed>,
        directory: PathBuf,
        latch: Latch,
    },
}

impl Certificates {
    fn open(base: &Base, directory: PathBuf) -> Self {
        match base.feed.certificates(directory.clone()) {
            Ok(tls) => Self::Read(tls),
            Err(error) => {
                error!(%error, "no certificates: agents and other hubs are refused until they can be read");
                let latch = base.readiness.latch("certificates");
                Self::Missing { feed: base.feed.clone().into(), directory, latch }
            }
        }
    }

    /// Waits until they can be read.
    async fn read(self) -> Tls {
        match self {
            Self::Read(tls) => tls,
            Self::Missing { feed, directory, latch } => loop {
                tokio::time::sleep(CERTIFICATES_AGAIN).await;
                if let Ok(tls) = feed.certificates(directory.clone()) {
                    info!(directory = %directory.display(), "certificates read: agents and other hubs are let in");
                    drop(latch);
                    return tls;
                }
            },
        }
    }
}

/// Serves the stream until `leave`, and follows the files of the certificates meanwhile.
async fn serve(
    bound: stream::Bound,
    mut parts: stream::Parts,
    certificates: Option<Certificates>,
    leave: CancellationToken,
) {
    if let Some(certificates) = certificates {
        parts.tls = tokio::select! {
            tls = certificates.read() => Some(tls),
            () = bound.turn_away() => None,
            () = leave.cancelled() => return,
        };
    }
    let reread = parts.tls.clone().map(|tls| {
        let identity = tls.current().identity;
        if identity.part != Part::Hub {
            error!(%identity, "wrong certificate: this is not a hub's, agents will refuse this hub; give --tls a hub's");
        }
        AbortOnDropHandle::new(tokio::spawn(tls.follow_files()))
    });
    bound.serve(parts, leave).await;
    drop(reread);
}

/// Tells followers which hubs this one follows itself, and which others it knows.
async fn pass_on(mut status: watch::Receiver<hub::Status>, surroundings: watch::Sender<Surroundings>) {
    loop {
        let hub::Status { path, hubs, .. } = status.borrow_and_update().clone();
        surroundings.send_replace(Surroundings { path, hubs });
        if status.changed().await.is_err() {
            return;
        }
    }
}
