//! The agent: source → store → DNS on this node.
//!
//! The order of start is the promise: what the disk has is loaded and checked, then the sockets open and answer, and only
//! then is the source looked for.

mod source;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    feed,
    signals::{Asked, Signals},
};
use crate::{
    admin::{self, Readiness, view::ListenerDoc},
    config::Config,
    dns::{self, Context, Outcome, Rotation, Transport, forward},
    store::{self, disk, pins::Pins},
    sys::Clock,
    zone::Zone,
};

/// The time a drain may take before what is still in flight is answered SERVFAIL.
const DRAIN: Duration = Duration::from_secs(4);
/// The time the last flush of the store may take. Together with [`DRAIN`] within the 5 s a supervisor is promised.
const FLUSH: Duration = Duration::from_millis(800);

/// Where a running agent can be reached; ports given as 0 are the ones found.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// UDP and TCP alike.
    pub dns: Vec<SocketAddr>,
    /// `/health` and `/ready`.
    pub http: Option<SocketAddr>,
    /// `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// The unix socket for the tools.
    pub admin: PathBuf,
}

/// A running agent. Dropped, it stops at once; [`Agent::stop`] is the polite way.
#[derive(Debug)]
pub struct Agent {
    addresses: Addresses,
    config: Config,
    reader: store::Reader,
    disk: Result<disk::Follower, String>,
    dns: dns::Running,
    forwarder: forward::Forwarder,
    upkeep: JoinHandle<()>,
    readiness: Readiness,
    source: source::Running,
    feed: source::Feed,
    stop: CancellationToken,
    listeners: JoinHandle<()>,
}

impl Agent {
    /// Starts an agent. On return it answers.
    ///
    /// # Errors
    /// In one line, what could not be opened or read and what to do; nothing is left running then. A source that cannot
    /// be reached is no error if there are records on disk, nor is a disk that does not work.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (mut writer, reader) = store::open();
        store::register_metrics(&registry, &reader)?;
        let disk = start_disk(&config, &clock, &registry, &mut writer)?;
        let source = source::prepare(&config, reader.as_of().is_some()).await?;

        let bound = dns::bind(config.dns())?;
        let listen = bound.addresses().to_vec();
        let admin = admin::bind(&config.admin()).await?;
        let zone = Zone::new(&config.zone(&listen));
        let pins = Pins::open(config.disk().as_ref().map(|disk| disk.path.as_path()), clock.now());
        pins.register_metrics(&registry, &clock)?;
        let context = Context::new(zone, reader.clone(), config.answers()).with_pins(pins.clone());
        let context = Arc::new(context);
        let surroundings = forward::Surroundings {
            clock: clock.clone(),
            metrics: forward::Metrics::register(&registry)?,
            cache_metrics: dns::cache::Metrics::register(&registry)?,
            cache_file: config.cache_file(),
            listen: listen.clone(),
            own: own_answer(Arc::clone(&context), clock.clone()),
        };
        let forwarder = forward::Forwarder::new(&config.forward(), config.cache(), surroundings);
        let forwarder = forwarder.map_err(|errors| several(&errors))?;
        let behind = forwarder.clone();
        let upkeep = tokio::spawn(async move { behind.run().await });
        let metrics = dns::Metrics::register(&registry)?;
        let dns = bound.serve(context, Arc::new(forwarder.clone()), clock.clone(), metrics);

        let readiness = Readiness::default();
        let first_records = readiness.latch("first records");
        let first_records = reader.as_of().is_none().then_some(first_records);
        let (updates, waiting) = tokio::sync::mpsc::channel(feed::UPDATES_WAITING);
        tokio::spawn(feed::run(writer, waiting, first_records));
        let metrics = crate::source::Metrics::register(&registry, &reader, &clock)?;
        let feed = source::Feed { clock: clock.clone(), metrics, reader: reader.clone(), updates };
        let source = source.run(&feed);

        let addresses = Addresses {
            dns: listen,
            http: admin.http_address(),
            metrics: admin.metrics_address(),
            admin: admin.admin_path().to_owned(),
        };
        let stop = CancellationToken::new();
        let handles = admin::Handles {
            readiness: readiness.clone(),
            metrics: admin::Metrics::register(&registry)?,
            registry,
            facts: admin::Facts {
                pins: Some(pins),
                ..facts(&config, &addresses, &reader, &clock, disk.as_ref(), forwarder.clone())
            },
            more: axum::Router::new(),
        };
        let listeners = tokio::spawn(admin.serve(handles, stop.clone()));
        info!(listen = ?addresses.dns, admin = %addresses.admin.display(), "answering");
        Ok(Self { addresses, config, reader, disk, dns, forwarder, upkeep, readiness, source, feed, stop, listeners })
    }

    /// Where it can be reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The records it answers from.
    #[must_use]
    pub fn reader(&self) -> &store::Reader {
        &self.reader
    }

    /// Runs until a signal asks for the end; `reload` makes the new configuration when one asks for that.
    ///
    /// # Errors
    /// If the system gives no signals.
    pub async fn run(mut self, mut reload: impl FnMut() -> Option<Config>) -> anyhow::Result<()> {
        let mut signals = Signals::take().context("take over the signals")?;
        loop {
            match signals.next().await {
                Asked::Stop => break,
                Asked::Reload => {
                    if let Some(config) = reload() {
                        self.reload(config).await;
                    }
                }
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Takes over what can change while running, and says what takes a restart. The source begins anew, with its
    /// credentials read again; what is held stands meanwhile.
    async fn reload(&mut self, next: Config) {
        let changes = self.config.changes(&next);
        if !changes.restart.is_empty() {
            warn!(keys = %changes.restart.join(", "), "changed in the configuration, but takes effect with the next start");
        }
        if let Err(errors) = self.forwarder.reload(&next.forward()) {
            let errors = several(&errors);
            warn!(%errors, "forwarding stays as it was");
        }
        match source::prepare(&next, self.reader.as_of().is_some()).await {
            Ok(source) => self.source = source.run(&self.feed),
            Err(error) => error!(%error, "the source stays as it was"),
        }
        info!(changed = %changes.reloaded.join(", "), "configuration and credentials read again");
        self.config = next;
    }

    /// Drains and stops within 5 s: no query that was received goes without an answer, and the disk has what memory had.
    pub async fn stop(self) {
        info!("leaving");
        let _draining = self.readiness.latch("draining");
        drop(self.source);
        self.dns.drain(DRAIN).await;
        self.upkeep.abort();
        self.forwarder.save().await;
        if let Ok(disk) = &self.disk
            && let Err(error) = disk.release(FLUSH).await
        {
            warn!(%error, "the last flush of the store failed");
        }
        self.stop.cancel();
        if let Err(error) = self.listeners.await {
            error!(%error, "admin listeners");
        }
    }
}

/// Puts what the disk has into memory and begins to follow, or says why the agent runs without a disk. A store that
/// another process has is an error: two would answer from different records.
fn start_disk(
    config: &Config,
    clock: &Clock,
    registry: &Registry,
    writer: &mut store::Writer,
) -> anyhow::Result<Result<disk::Follower, String>> {
    let metrics = disk::Metrics::register(registry, clock)?;
    let Some(config) = config.disk() else { return Ok(Err("store.path is none".into())) };
    let (disk, loaded) = match disk::open(&config, clock, &metrics) {
        Ok(opened) => opened,
        Err(error @ disk::OpenError::InUse { .. }) => return Err(error.into()),
        Err(error @ disk::OpenError::NewerFormat { .. }) => {
            error!(%error, "serving without a store: what the source says will not survive a restart");
            return Ok(Err(error.to_string()));
        }
    };
    if let Some(loaded) = loaded {
        writer.restore(loaded.snapshot, loaded.as_of);
    }
    Ok(Ok(disk.follow(&writer.reader()).context("start the thread of the store")?))
}

/// What the admin socket tells of.
fn facts(
    config: &Config,
    addresses: &Addresses,
    reader: &store::Reader,
    clock: &Clock,
    disk: Result<&disk::Follower, &String>,
    forwarder: forward::Forwarder,
) -> admin::Facts {
    let row = |name: &str, address: String| ListenerDoc { name: name.to_owned(), address };
    let listeners = (addresses.dns.iter().map(|address| row("dns", address.to_string())))
        .chain(addresses.http.map(|address| row("http", address.to_string())))
        .chain(addresses.metrics.map(|address| row("metrics", address.to_string())))
        .chain([row("admin", addresses.admin.display().to_string())]);
    let rules = admin::Rules { zone: config.zone(&addresses.dns), stale_after: config.settings.stale_after };
    let disk = disk.cloned().map_err(|reason| disk::DiskStatus::off(reason));
    admin::Facts {
        role: config.role.name(),
        started: clock.now(),
        listeners: listeners.collect(),
        source: config.source.to_string(),
        reader: reader.clone(),
        pins: None,
        clock: clock.clone(),
        rules: Arc::new(move || rules.clone()),
        forward: Arc::new(move || serde_json::to_value(forwarder.status()).ok()),
        disk: Arc::new(move || Some(disk.as_ref().map_or_else(disk::DiskStatus::clone, disk::Follower::status))),
    }
}

/// Answers whole messages from our own zones, for a CNAME of an upstream that leads into the cluster.
fn own_answer(context: Arc<Context>, clock: Clock) -> forward::OwnAnswer {
    Arc::new(move |query| {
        let mut out = vec![0; usize::from(u16::MAX)];
        let batch = context.load();
        let rotation = Rotation::default();
        let view = context.view(&batch, clock.now(), &rotation);
        match dns::answer(&context, &view, query, Transport::Tcp, &mut out) {
            Outcome::Reply(reply) => {
                out.truncate(reply.len);
                Some(out)
            }
            Outcome::Forward(_) | Outcome::Drop(_) => None,
        }
    })
}

/// Several errors in one line.
fn several(errors: &[forward::ConfigError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(lines.join("; "))
}
