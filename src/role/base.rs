//! The common parts of an agent and a hub: records in memory, the store on disk, the guard and the source.

use std::{mem::discriminant, sync::Arc};

use futures::FutureExt as _;
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use super::{
    disk::{Opened, Store},
    feed::{self, Order},
    source::{self, Feed, Following, PreparedSource},
    source_log::{LostSince, SourceLog},
    status::CommonInputs,
};
use crate::{
    admin::{self, Readiness, view::ListenerDoc},
    config::{Config, Role, Source, kept},
    node,
    report::{ConfigStatus, RefusedReload, Time},
    source::hub,
    store::{self, disk},
    sys::{Clock, Registrar},
    tls,
};

/// Loaded records, before a source adds to them.
pub(super) struct Loaded {
    pub registry: Registry,
    pub reader: store::Reader,
    writer: store::Writer,
    disk: Opened,
    clock: Clock,
}

impl Loaded {
    /// Opens the store, and loads its records into memory.
    ///
    /// # Errors
    /// If another process has the store.
    pub(super) fn open(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let (writer, reader) = store::open();
        let mut writer = writer.guarded(config.guard(), clock.clone());
        store::register_metrics(&registry, &reader)?;
        let build = Registrar(&registry).gauge_vec(
            "holdfast_build_info",
            "1, with the version and the role of this process.",
            &["version", "role"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), config.role.as_str()]).set(1);
        let disk = Opened::load(config.disk(), clock, disk::Metrics::register(&registry, clock)?, &mut writer)?;
        Ok(Self { registry, reader, writer, disk, clock: clock.clone() })
    }

    /// The next list this process watches itself begins an epoch, later than any before it.
    pub(super) fn begin_epoch(&mut self) {
        self.writer.begin_epoch(self.clock.now().0);
    }

    /// Begins to follow the source of the process called `name`.
    ///
    /// # Errors
    /// If a metric is registered already.
    pub(super) fn follow(self, config: Config, name: String, source: PreparedSource) -> anyhow::Result<Base> {
        let Self { registry, reader, writer, disk, clock } = self;
        let disk = Arc::new(disk.follow(&reader)?);
        if let Some(dir) = config.disk().map(|disk| disk.path) {
            let config = config.clone();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = kept::keep(&dir, &config) {
                    warn!(%error, dir = %dir.display(), "cannot save the settings to the store: the tools use defaults when no process runs");
                }
            });
        }
        let readiness = Readiness::default();
        let first_records = readiness.latch("first records");
        let follows = config.source != Source::None;
        let first_records = (follows && reader.as_of().is_none()).then_some(first_records);
        let (updates, waiting) = mpsc::channel(feed::UPDATES_WAITING);
        let (orders, ordered) = mpsc::channel(feed::ORDERS_WAITING);
        // Without a source there is no loss and no age to show.
        let told = if follows { registry.clone() } else { Registry::new() };
        let metrics = crate::source::Metrics::register(&told, &reader, &clock)?;
        let lost_since = LostSince::default();
        let log = SourceLog::new(config.source.noun(), clock.clone(), lost_since.clone());
        tokio::spawn(feed::run(writer, waiting, ordered, first_records, metrics.clone(), clock.clone(), log));
        let feed = Feed {
            clock: clock.clone(),
            metrics,
            reader: reader.clone(),
            updates,
            following: hub::Metrics::register(&registry)?,
            certificates: tls::Metrics::register(&registry)?,
            status: watch::Sender::new(hub::Status::default()),
            stale_after: config.settings.stale_after,
        };
        let following = Following::begin(source, feed.clone());
        let (elected, following) = (None, Some(following));
        let started = Box::new(config.clone());
        let in_effect = watch::Sender::new(ConfigStatus {
            file: config.file.clone(),
            digest: config.digest(),
            read_at: Time(clock.now()),
            waits_for_restart: Vec::new(),
            refused: None,
        });
        Ok(Base {
            config,
            started,
            in_effect,
            lost_since,
            name,
            clock,
            registry,
            reader,
            readiness,
            feed,
            disk,
            orders,
            following,
            elected,
        })
    }
}

/// The handles of an election.
pub(super) struct Voter {
    /// The source to follow as leader.
    pub own: watch::Receiver<PreparedSource>,
    pub switch: mpsc::Sender<PreparedSource>,
    pub orders: mpsc::Sender<Order>,
}

/// A store that follows its source.
pub struct Base {
    pub(super) config: Config,
    /// The configuration at the start: some keys change only by a restart.
    started: Box<Config>,
    in_effect: watch::Sender<ConfigStatus>,
    lost_since: LostSince,
    /// The name of this process among those it follows and serves.
    pub(super) name: String,
    pub(super) clock: Clock,
    pub(super) registry: Registry,
    pub(super) reader: store::Reader,
    pub(super) readiness: Readiness,
    pub(super) feed: Feed,
    /// The disk behind the memory.
    pub(super) disk: Arc<Store>,
    orders: mpsc::Sender<Order>,
    following: Option<Following>,
    /// Where the source goes of a process that follows it only if it is elected to.
    elected: Option<watch::Sender<PreparedSource>>,
}

impl Base {
    /// The state of these parts, for the documents of the tools.
    pub(super) fn inputs(&self, rules: admin::Rules) -> CommonInputs {
        let follows = self.elected.is_some() || matches!(self.config.source, Source::Hub(_));
        let follows = follows.then(|| self.feed.status.subscribe());
        CommonInputs {
            rules,
            disk: Arc::clone(&self.disk),
            lost_since: self.lost_since.clone(),
            config: self.in_effect.subscribe(),
            follows,
            reader: self.reader.clone(),
            source: self.feed.metrics.clone(),
        }
    }

    /// The handles of the tools' listeners, for a process that answers DNS or the stream at `listeners`.
    ///
    /// # Errors
    /// If a metric is registered already.
    pub(super) fn handles(
        &self,
        bound: &admin::Bound,
        listeners: Vec<ListenerDoc>,
        inputs: Arc<dyn admin::StatusInputs>,
    ) -> anyhow::Result<admin::Handles> {
        let row = |name: &str, address: String| ListenerDoc::new(name, &address);
        let listeners = (listeners.into_iter())
            .chain(bound.http_address().map(|address| row("http", address.to_string())))
            .chain(bound.metrics_address().map(|address| row("metrics", address.to_string())))
            .chain([row("admin", bound.admin_path().display().to_string())]);
        let documents = admin::Documents {
            role: self.config.role.as_str(),
            started: self.clock.now(),
            took_over_from: None,
            listeners: listeners.collect(),
            source: self.config.source.to_string(),
            reader: self.reader.clone(),
            pins: None,
            clock: self.clock.clone(),
            inputs: Arc::clone(&inputs),
        };
        let orders = self.orders.clone();
        let release = move |which| {
            let orders = orders.clone();
            async move {
                let (done, applied) = oneshot::channel();
                orders.send(Order::Release(which, done)).await.ok()?;
                applied.await.ok()
            }
            .boxed()
        };
        Ok(admin::Handles {
            readiness: self.readiness.clone(),
            metrics: admin::Metrics::register(&self.registry)?,
            registry: self.registry.clone(),
            more: admin::guard_routes(self.reader.clone(), self.clock.clone(), Arc::new(release), inputs),
            documents,
            given_away: watch::Sender::new(false).subscribe(),
            node: admin::NodeAddresses::new(node::own_addresses),
        })
    }

    /// Takes over the settings that can change while running, and logs those that need a restart. The source is restarted, with
    /// its credentials read again; the records in memory stay.
    pub(super) async fn reload(&mut self, mut next: Config) {
        let waiting = self.started.changes(&next).restart;
        if !waiting.is_empty() {
            warn!(keys = %waiting.join(", "), "these settings changed and take effect with the next start: restart the process");
        }
        self.in_effect.send_replace(ConfigStatus {
            file: next.file.clone(),
            digest: next.digest(),
            read_at: Time(self.clock.now()),
            waits_for_restart: waiting.into_iter().map(str::to_owned).collect(),
            refused: None,
        });
        if next.role == Role::Hub && discriminant(&self.config.source) != discriminant(&next.source) {
            // Whether it makes versions or passes them on, and with which lease, is fixed at the start.
            warn!(from = %self.config.source, to = %next.source, "another kind of source takes effect with the next start: restart this hub");
            next.source = self.config.source.clone();
        }
        let source = source::prepare(&next, &self.name, &self.reader).await;
        match (&self.elected, &self.following) {
            (Some(elected), _) => {
                elected.send_replace(source);
            }
            (None, Some(following)) => drop(following.next.send(source).await),
            (None, None) => {}
        }
        info!(changed = %self.config.changes(&next).reloaded.join(", "), "configuration and credentials read again");
        self.config = next;
    }

    /// Notes that a reload was refused: the configuration before it stays in effect.
    pub(super) fn refused(&self, reason: String) {
        let at = Time(self.clock.now());
        self.in_effect.send_modify(|status| status.refused = Some(RefusedReload { at, reason }));
    }

    /// Takes part in an election: the leader follows `source`, the others follow the leader.
    pub(super) fn elect(&mut self, source: PreparedSource) -> Option<Voter> {
        let (elected, own) = watch::channel(source);
        self.elected = Some(elected);
        let switch = self.following.as_ref()?.next.clone();
        Some(Voter { own, switch, orders: self.orders.clone() })
    }

    /// Follows the source no longer.
    pub(super) fn leave_source(&mut self) {
        self.following = None;
    }

    /// Writes the records in memory to disk, as far as time allows, and closes the store.
    pub(super) async fn flush(&self) {
        self.disk.release().await;
    }
}
