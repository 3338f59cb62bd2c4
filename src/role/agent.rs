//! The agent: source → store → DNS on this node.
//!
//! The order of start is the promise: what the disk has is loaded and checked, then the sockets open and answer, and only
//! then is the source looked for.

mod beside;
mod encrypted;
mod handover;
pub(super) mod hosts_file;
mod node;
pub(super) mod views;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

pub use self::node::{Confined, prepare};
use self::{handover::Handover, hosts_file::HostsFile};
use super::{
    base::{Base, Loaded},
    process::{Addresses, Process, RoleParts},
    source,
    status::{AgentInputs, Inputs, RoleInputs},
};
use crate::{
    admin::{self, view::ListenerDoc},
    config::Config,
    dns::{self, Context, forward, pins::Pins},
    node::ErrorType,
    sys::{self, Clock, FdStore, fdstore},
    zone::Zone,
};

/// The time a drain may take before what is still in flight is answered SERVFAIL.
const DRAIN: Duration = Duration::from_secs(4);

/// A running agent.
pub type Agent = Process<Serving>;

/// The parts of an agent that answer DNS.
pub struct Serving {
    dns: dns::Running,
    forwarder: forward::Forwarder,
    upkeep: AbortOnDropHandle<()>,
    _certificate: Option<encrypted::Certificate>,
    views: views::Views,
    handover: Handover,
    node: node::Node,
    hosts_file: Option<hosts_file::Following>,
}

impl Agent {
    /// Starts an agent. On return it answers.
    ///
    /// # Errors
    /// In one line, what could not be opened or read and what to do; nothing is left running then. A source that cannot
    /// be reached is no error if there are records on disk, nor is a disk that does not work.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Self> {
        Box::pin(Self::start_prepared(config, clock, Confined::default())).await
    }

    /// The same, of a process that [`prepare`]d for it. To be called on the thread that did.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_prepared(config: Config, clock: Clock, mut prepared: Confined) -> anyhow::Result<Self> {
        tell_parent(fdstore::Kind::File, &deaths_file(&config.settings.admin));
        let predecessor = beside::hand_over(&config).await?;
        let loaded = Loaded::open(&config, &clock)?;
        let (registry, reader) = (loaded.registry.clone(), loaded.reader.clone());
        let name = config.settings.name.clone().unwrap_or_else(sys::hostname);
        let source = source::prepare(&config, &name, &loaded.reader).await;

        let certificate = encrypted::open(&config, &registry)?;
        let (bound, join) = beside::bind(&config, predecessor.is_some(), certificate.as_ref()).await?;
        warn_open_resolver(&config);
        let views = views::bind(&config, join, certificate.as_ref())?;
        let encrypted: Vec<_> = bound.encrypted_addresses().into_iter().chain(views.encrypted_addresses()).collect();
        let discovery = encrypted::discovery(&encrypted, certificate.as_ref());
        let listen: Vec<SocketAddr> = bound.addresses().iter().copied().chain(views.addresses()).collect();
        let admin = admin::bind(&admin::Config { join, ..config.admin() })?;
        if let Some(error) = admin.socket_error() {
            prepared.report(ErrorType::AdminSocket, error);
        }
        prepared.bound();
        if let Some(store) = FdStore::inherited() {
            store.forget_rest();
        }
        let zone = Zone::new(&config.zone(&listen));
        let pins = Pins::open(config.disk().as_ref().map(|disk| disk.path.as_path()), clock.now());
        pins.register_metrics(&registry, &clock)?;
        let context = Arc::new(
            Context::new(zone, reader, config.answers())
                .with_pins(pins.clone())
                .with_cookies(config.cookies())
                .with_discovery(Arc::clone(&discovery)),
        );
        let surroundings = forward::Environment {
            clock: clock.clone(),
            metrics: forward::Metrics::register(&registry)?,
            cache_metrics: dns::cache::Metrics::register(&registry)?,
            cache_file: config.cache_file(),
            resolv_conf_cache: forward::ResolvConfCache::in_file(config.upstreams_file()),
            listen: listen.clone(),
            records: Arc::clone(&context),
        };
        let forwarder = forward::Forwarder::new(&config.forward(), config.cache(), surroundings);
        let forwarder = forwarder.map_err(|errors| several(&errors))?;
        let metrics = dns::Metrics::register(&registry)?;
        let queries = dns::Recent::new(metrics.clone());
        let (behind, sampled) = (forwarder.clone(), queries.clone());
        let upkeep = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::join!(behind.run(), sampled.run());
        }));
        let views = views.serve(&forwarder, &context, &clock, &metrics)?;
        let dns = bound.serve(context, Arc::new(forwarder.clone()), clock.clone(), metrics);
        tell_parent(fdstore::Kind::Answering, "");

        let base = loaded.follow(config, name, source)?;
        let addresses = Addresses { dns: listen, encrypted, ..Addresses::of_tools(&admin) };
        let hosts_file = HostsFile::new(&base.config, &base.registry, base.clock.clone())?;
        let (zone, answers) = (base.config.zone(&addresses.dns), base.config.answers());
        let rules = admin::Rules { zone, answers, discovery };
        let role = AgentInputs {
            queries,
            forwarder: forwarder.clone(),
            views: views.status(),
            hosts_file: hosts_file.state(),
            node: prepared.status(),
        };
        let inputs = Inputs { common: base.inputs(rules), role: RoleInputs::Agent(role) };
        let mut handles = base.handles(&admin, listeners(&base.config, &addresses), Arc::new(inputs))?;
        handles.documents.pins = Some(pins);
        handles.documents.took_over_from = predecessor.and_then(|before| before.pid);
        let stop = CancellationToken::new();
        let handover = Handover::new(&base.config, &base.disk, &forwarder, &stop);
        handles.given_away = handover.given_away();
        let by_name = handover.router().merge(admin::probes(handles.readiness.clone(), handles.metrics.health.clone()));
        tokio::spawn(handover.clone().announce(by_name, handles.metrics.clone()));
        handles.more = handles.more.merge(handover.router());
        let listeners = tokio::spawn(admin.serve(handles, stop.clone()));
        let node = prepared.serving(crate::node::Metrics::register(&base.registry)?, &base.readiness).await;
        let hosts_file = hosts_file.follow(forwarder.clone(), handover.clone(), node.torn_down());
        let listening: Vec<String> = addresses.dns.iter().map(ToString::to_string).collect();
        info!(listen = %listening.join(","), admin = %addresses.admin.display(), "answering DNS");
        let parts = Serving { dns, forwarder, upkeep, _certificate: certificate, views, handover, node, hosts_file };
        Ok(Self { addresses, base, parts, stop: stop.drop_guard(), listeners })
    }

    /// The settings of `config` that would keep an agent on this machine from starting, or from forwarding at once, though it is right in
    /// itself: in words, for people.
    pub fn warnings(config: &Config) -> Vec<String> {
        let listen = config.dns().listen;
        let of_views = config.views().into_iter().flat_map(|(dns, forward)| {
            let here = forward::problems(&forward, &listen).into_iter();
            here.map(move |told| format!("view at {:?}: {told}", dns.listen)).collect::<Vec<_>>()
        });
        let open = config.dns().access.open(&config.settings.every_listen_address()).into_iter().map(open_resolver);
        forward::problems(&config.forward(), &listen).into_iter().chain(of_views).chain(open).collect()
    }
}

impl RoleParts for Serving {
    fn reload(&mut self, next: &Config) {
        if let Err(errors) = self.forwarder.reload(&next.forward()) {
            let errors = several(&errors);
            warn!(%errors, "new forwarding refused: the old one stays in effect");
        }
        self.views.reload(next);
    }

    async fn leave(mut self, base: &Base) {
        self.handover.withdraw();
        if let Some(store) = FdStore::inherited() {
            // Queries would be lost in the sockets that the parent holds and no process reads.
            store.clear();
        }
        // Answers go on until the addresses are given away.
        self.node.leave(self.handover.is_done(), self.handover.is_awaited()).await;
        if let Some(hosts_file) = self.hosts_file {
            hosts_file.leave(!self.handover.is_done() && !base.config.settings.node_skip_teardown).await;
        }
        tokio::join!(self.dns.drain(DRAIN), self.views.drain(DRAIN));
        self.upkeep.abort();
        self.forwarder.save().await;
    }
}

/// The rows of DNS listeners.
fn listeners(config: &Config, addresses: &Addresses) -> Vec<ListenerDoc> {
    let open = config.dns().access.open(&config.settings.every_listen_address());
    // An address may have been given with port 0.
    let is_open = |address: &SocketAddr| open.iter().any(|open| open.ip() == address.ip());
    let row = |name: String, address| ListenerDoc { open: is_open(address), ..ListenerDoc::new(name, address) };
    let plain = addresses.dns.iter().map(|address| row("dns".into(), address));
    let over = |transport: &dns::Transport| format!("dns over {}", transport.as_str());
    let encrypted = addresses.encrypted.iter().map(|(transport, address)| row(over(transport), address));
    plain.chain(encrypted).collect()
}

/// Does nothing without a parent process.
fn tell_parent(kind: fdstore::Kind, text: &str) {
    if let Some(store) = FdStore::inherited() {
        store.tell(kind, text);
    }
}

/// Beside the admin socket: what the parent writes while no process answers.
fn deaths_file(admin: &Path) -> String {
    admin.with_extension("deaths").display().to_string()
}

fn warn_open_resolver(config: &Config) {
    for address in config.dns().access.open(&config.settings.every_listen_address()) {
        warn!("{}", open_resolver(address));
    }
}

/// The warning about an open resolver at `address`.
fn open_resolver(address: SocketAddr) -> String {
    format!("{address} answers anybody who reaches it, as an open resolver: name the networks that may ask in `allow`")
}

/// Several errors in one line.
fn several(errors: &[forward::ConfigError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(lines.join("; "))
}
