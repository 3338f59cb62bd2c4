//! The agent on its node: what is set up before it answers, what it gives up once it does, and what is left behind.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use tracing::{error, info, warn};

use crate::{
    config::{Config, Source},
    node::{
        self, ErrorType, Goal, Metrics,
        privileges::{self, Bequest},
        reach,
        watch::{
            Event, Order,
            child::{self, Watcher},
        },
    },
};

/// What was done before the first thread was started. The default is a process that sets nothing up and gives nothing up.
#[derive(Debug, Default)]
pub struct Prepared {
    watcher: Option<Watcher>,
    events: Vec<Event>,
    sandbox: bool,
    /// Credential plugins are run.
    programs: bool,
}

/// Sets up interface and rules, and confines this thread and those it will start. To be called before there are any.
///
/// Besides store and socket, files below `writable` can be written. What cannot be done is reported by the agent, which
/// answers all the same.
#[must_use]
pub fn prepare(config: &Config, writable: &[PathBuf]) -> Prepared {
    let wanted = config.settings.node();
    let mut prepared = Prepared {
        sandbox: config.settings.sandbox,
        programs: matches!(config.source, Source::Kubernetes(Some(_))),
        ..Prepared::default()
    };
    if wanted.is_wanted() {
        let bequest = Bequest::net_admin();
        let started = child::start(&wanted);
        drop(bequest);
        match started {
            Ok((watcher, events)) => (prepared.watcher, prepared.events) = (Some(watcher), events),
            Err(error) => {
                let text = format!("start the watch over interface and rules: {error}; they are set up once");
                prepared.events.push(Event::Error(ErrorType::Watch, text));
                let errors = reach(&wanted, Goal::Serving).errors;
                prepared.events.extend(errors.iter().map(|error| Event::Error(error.kind(), error.to_string())));
            }
        }
    }
    if prepared.sandbox {
        let parent = config.settings.admin.parent().map(std::path::Path::to_owned);
        let writable: Vec<_> =
            config.settings.store_path.iter().cloned().chain(parent).chain(writable.iter().cloned()).collect();
        prepared.note(privileges::confine_files(&writable, prepared.programs));
    }
    prepared
}

impl Prepared {
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

    /// Gives up the capabilities of this thread and of those it starts from now on: all ports are bound.
    pub(super) fn bound(&mut self) {
        if self.sandbox {
            let done = privileges::drop_capabilities(&[]);
            self.note(done);
        }
    }

    /// Confines every thread to the system calls of a server, reports what could not be set up, and listens to the watch.
    pub(super) fn serving(mut self, metrics: Metrics) -> Node {
        if self.sandbox {
            let done = privileges::confine_calls(self.programs);
            self.note(done);
        }
        for event in std::mem::take(&mut self.events) {
            tell(&metrics, event);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let events = self.watcher.as_mut().and_then(Watcher::events);
        if let Some(events) = events {
            let leaving = Arc::clone(&ended);
            tokio::spawn(async move {
                Watcher::listen(events, |event| tell(&metrics, event)).await;
                if !leaving.load(Relaxed) {
                    let text = "the watch over interface and rules has ended: a newer process has it, or it died";
                    warn!("{text}");
                }
            });
        }
        Node { watcher: self.watcher, leaving: ended }
    }
}

fn tell(metrics: &Metrics, event: Event) {
    match event {
        Event::Ready => {}
        Event::Info(text) => info!("node {text}"),
        Event::Warn(text) => warn!("node {text}"),
        Event::Error(kind, error) => {
            metrics.setup_error(kind);
            error!(kind = kind.as_str(), error, "a part of the node is not set up");
        }
        Event::Released => {
            metrics.set_released(true);
            error!("nothing is answered: the cluster's DNS has its address back");
        }
        Event::Taken => {
            metrics.set_released(false);
            info!("there are answers again: the cluster's DNS address is taken");
        }
    }
}

/// The node's part of a running agent.
#[derive(Debug)]
pub(super) struct Node {
    watcher: Option<Watcher>,
    leaving: Arc<AtomicBool>,
}

impl Node {
    /// Leaves the node as the configuration says; as it is if a successor has taken over.
    pub(super) async fn leave(self, config: &node::Config, succeeded: bool) {
        self.leaving.store(true, Relaxed);
        let Some(watcher) = self.watcher else { return };
        let order = match (succeeded, config.skip_teardown, config.intercept_failsafe) {
            (false, false, _) => Order::Teardown,
            (false, true, Some(_)) => Order::Release,
            (true, ..) | (false, true, None) => Order::Leave,
        };
        let ended = tokio::task::spawn_blocking(move || watcher.end(order)).await.context("end the watch");
        if let Err(error) = ended {
            warn!(%error, "interface and rules stay as they are");
        }
    }
}
