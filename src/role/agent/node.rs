//! The agent on its node: what is set up before it answers, what it gives up once it does, and what is left behind.

use std::{
    fmt::Display,
    path::PathBuf,
    process::ChildStdout,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    admin::{Latch, Readiness},
    config::{Config, Source},
    node::{
        self, ErrorType, Goal, Metrics,
        privileges::{self, InheritedCaps},
        reach, status,
        watch::{
            Event, Order,
            child::{self, Watcher},
        },
    },
    report::AddressState,
    sys::Lock,
};

/// The condition of readiness that queries to the node's addresses are answered here.
const ADDRESSES: &str = "addresses";
/// The time a first setup may take before the agent goes on without it: it takes milliseconds.
const READY: Duration = Duration::from_secs(5);

/// The setup before the first thread starts. The default sets up nothing and gives up no rights.
#[derive(Debug, Default)]
pub struct Confined {
    /// The parts that are set up, fixed until the next start.
    wanted: node::Config,
    watcher: Option<Watcher>,
    events: Vec<Event>,
    sandbox: bool,
    programs: bool,
    status: status::Shared,
    torn_down: CancellationToken,
}

/// Has interface and rules set up, and confines this thread and those it will start. To be called before there are any.
///
/// Besides store and socket, files below `writable` can be written; homes and secrets of the system cannot be read, but for those
/// below `readable`. What cannot be done is reported by the agent, which
/// answers all the same.
pub fn prepare(config: &Config, writable: &[PathBuf], readable: &[PathBuf]) -> Confined {
    let wanted = config.settings.node();
    let mut prepared = Confined {
        wanted: wanted.clone(),
        sandbox: config.settings.sandbox,
        programs: matches!(config.source, Source::Kubernetes(Some(_))),
        status: status::Shared::new(&wanted),
        ..Confined::default()
    };
    if wanted.is_wanted() {
        let inherited = InheritedCaps::net_admin();
        let started = child::start(&wanted);
        drop(inherited);
        match started {
            Ok(watcher) => prepared.watcher = Some(watcher),
            Err(error) => {
                let text = format!("start the node watch: {error}; they are set up once");
                prepared.events.push(Event::Error(ErrorType::Watch, text));
                let errors = reach(&wanted, &Goal::Serving).errors;
                prepared.events.extend(errors.iter().map(|error| Event::Error(error.kind(), error.to_string())));
                prepared.events.push(Event::Taken);
            }
        }
    }
    if prepared.sandbox {
        let socket = privileges::directory_of(&config.settings.admin);
        let store = config.settings.store_path.iter().cloned();
        // A file is replaced by one beside it.
        let hosts = config.settings.node_hosts_file.iter().map(|file| privileges::directory_of(file));
        let writable: Vec<_> = store.chain([socket]).chain(hosts).chain(writable.iter().cloned()).collect();
        let readable: Vec<_> = named_in(config).into_iter().chain(readable.iter().cloned()).collect();
        prepared.note(privileges::confine_files(&writable, &readable, prepared.programs));
    }
    prepared
}

/// The directories of the files that a configuration names.
fn named_in(config: &Config) -> Vec<PathBuf> {
    let settings = &config.settings;
    let zones = settings.forward.iter().chain(settings.views.iter().flat_map(|view| &view.forward));
    let of_zones = zones.flat_map(|zone| {
        let of_tls = [&zone.tls_ca, &zone.tls_certificate, &zone.tls_key];
        of_tls.into_iter().chain([&zone.hosts_file, &zone.weights_file]).flatten()
    });
    let files = settings.source_kubernetes_kubeconfig.iter().chain(of_zones).map(|file| privileges::directory_of(file));
    let directories = config.certificates().into_iter().chain(settings.source_manifests_path.clone());
    // A kubeconfig names files beside it or in places that only it knows; those of people are in their homes.
    files.chain(directories).chain(std::env::current_dir()).collect()
}

impl Confined {
    fn note(&mut self, done: Result<(), privileges::SandboxError>) {
        if let Err(error) = done {
            self.events.push(Event::Error(ErrorType::Sandbox, error.to_string()));
        }
    }

    /// To be called by each thread of the runtime as it starts: none of them binds a port.
    pub fn on_thread_start(&self) -> impl Fn() + Send + Sync + 'static {
        let sandbox = self.sandbox;
        move || {
            if sandbox {
                // The thread that prepared reports it, if it cannot be done.
                let _ = privileges::drop_capabilities(&[]);
            }
        }
    }

    /// The node's part of `status`.
    pub(super) fn status(&self) -> status::Shared {
        self.status.clone()
    }

    /// All ports are bound: has the node set up, and gives up the capabilities of this thread and of those it starts from now on.
    pub(crate) fn bound(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            watcher.begin();
        }
        if self.sandbox {
            let done = privileges::drop_capabilities(&[]);
            self.note(done);
        }
    }

    /// Reports a part that could not be set up.
    pub(super) fn report(&mut self, kind: ErrorType, error: &dyn Display) {
        self.events.push(Event::Error(kind, error.to_string()));
    }

    /// The same for a hub, which sets nothing up on its node.
    pub(crate) fn confine(mut self) {
        if self.sandbox {
            let done = privileges::confine_calls(self.programs);
            self.note(done);
        }
        self.events.iter().for_each(Event::log);
    }

    /// Confines every thread to the system calls of a server, reports what could not be set up, and listens to the watch.
    /// Comes back after its first setup.
    pub(super) async fn serving(mut self, metrics: Metrics, readiness: &Readiness) -> Node {
        if self.sandbox {
            let done = privileges::confine_calls(self.programs);
            self.note(done);
        }
        metrics.processes_died(self.status.get().deaths.map_or(0, |deaths| deaths.count));
        let watched = self.watcher.is_some() && self.wanted.setup_interface;
        let latch = watched.then(|| readiness.latch(ADDRESSES));
        let teller = Teller {
            metrics,
            status: self.status.clone(),
            readiness: readiness.clone(),
            latch: Arc::new(Lock::new(latch)),
            torn_down: self.torn_down.clone(),
        };
        for event in std::mem::take(&mut self.events) {
            teller.tell(&event);
        }
        let leaving = Arc::new(AtomicBool::new(false));
        if let Some(events) = self.watcher.as_mut().and_then(Watcher::events) {
            let (ready, first) = oneshot::channel();
            tokio::spawn(listen(events, teller.clone(), ready, Arc::clone(&leaving)));
            if timeout(READY, first).await.is_err() {
                let text = format!("the node watch is not ready within {READY:?}");
                teller.tell(&Event::Error(ErrorType::Watch, text));
            }
        }
        Node { wanted: self.wanted, watcher: self.watcher, leaving, torn_down: self.torn_down }
    }
}

/// Listens to a watch until it has ended.
async fn listen(events: ChildStdout, teller: Teller, ready: oneshot::Sender<()>, leaving: Arc<AtomicBool>) {
    let (mut ready, mut left) = (Some(ready), false);
    let heard = |event| {
        left |= event == Event::Left;
        if event == Event::Ready {
            // The waiting task may have given up.
            let _ = ready.take().map(|ready| ready.send(()));
        }
        teller.tell(&event);
    };
    Watcher::listen(events, heard).await;
    if !left && !leaving.load(Relaxed) {
        let text = "the node watch is gone: interface and rules are not repaired until the next start";
        teller.tell(&Event::Error(ErrorType::Watch, text.into()));
    }
}

/// Passes on the reports of a watch: to the log, `status`, the metrics and readiness. Clones share the latch.
#[derive(Clone)]
struct Teller {
    metrics: Metrics,
    status: status::Shared,
    readiness: Readiness,
    /// Held while the cluster's DNS answers at the addresses.
    latch: Arc<Lock<Option<Latch>>>,
    torn_down: CancellationToken,
}

impl Teller {
    fn tell(&self, event: &Event) {
        let Self { metrics, status, .. } = self;
        event.log();
        status.note(event);
        match event {
            Event::Ready | Event::Info(_) | Event::Warn(_) => {}
            Event::Keeps(keeper) => metrics.set_keeper(true, Some(keeper)),
            Event::KeptBy(keeper) => metrics.set_keeper(false, keeper.as_ref()),
            Event::Error(kind, _) => metrics.setup_error(*kind),
            Event::Waiting(_) => self.note_state(AddressState::Waiting),
            Event::Released(_) => self.note_state(AddressState::Released),
            Event::Taken => self.note_state(AddressState::Taken),
            Event::Died(_) => {
                metrics.watch_died();
                metrics.setup_error(ErrorType::Watch);
            }
            Event::Left => {
                warn!(
                    "the node was torn down by hand: interface, rules and hosts file are left alone until the next start"
                );
                self.torn_down.cancel();
            }
        }
    }

    fn note_state(&self, state: AddressState) {
        self.metrics.set_state(state);
        let mut latch = self.latch.lock();
        if state == AddressState::Taken {
            *latch = None;
        } else if latch.is_none() {
            *latch = Some(self.readiness.latch(ADDRESSES));
        }
    }
}

/// The node's part of a running agent.
#[derive(Debug)]
pub(super) struct Node {
    wanted: node::Config,
    watcher: Option<Watcher>,
    leaving: Arc<AtomicBool>,
    torn_down: CancellationToken,
}

impl Node {
    /// Done once `holdfast node teardown` has asked for the end of the watch.
    pub(super) fn torn_down(&self) -> CancellationToken {
        self.torn_down.clone()
    }

    /// Leaves the node as the configuration it was set up by says, before the ports are closed. What another process listens at
    /// stays: the successor's, if there is one that was handed over to. One that waits removes what is left to it.
    pub(super) async fn leave(&mut self, handed_over: bool, awaited: bool) {
        self.leaving.store(true, Relaxed);
        let Some(watcher) = self.watcher.take() else { return };
        let kept = node::used_by_others(&self.wanted.local_ips, self.wanted.dns_port);
        let (skips, gives) = (self.wanted.skip_teardown, self.wanted.intercept_failsafe.is_some());
        let order = match kept.is_empty() {
            false if handed_over => Order::Leave,
            false if !skips => Order::Yield(kept),
            true if gives && (skips || awaited) => Order::Release,
            true if !skips => Order::Teardown,
            _ => Order::Leave,
        };
        let ended = tokio::task::spawn_blocking(move || watcher.end(&order)).await.context("end the watch");
        if let Err(error) = ended {
            warn!(%error, "cannot stop the node watch: interface and rules stay as they are");
        }
    }
}
