//! Listeners with forwarding of their own, beside the agent's main ones. They share its records and its cache.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::{
    encrypted::{self, Certificate},
    several,
};
use crate::{
    config::Config,
    dns::{self, Context, forward},
    report::ViewStatus,
    sys::Clock,
};

/// Views whose sockets are bound.
pub(super) struct Bound(Vec<(Vec<SocketAddr>, dns::Bound, forward::Config)>);

pub(super) struct Views(Vec<View>);

struct View {
    /// As configured, by which a view is known.
    listen: Vec<SocketAddr>,
    /// The same, with the ports that were found.
    addresses: Vec<SocketAddr>,
    dns: dns::Running,
    forwarder: forward::Forwarder,
    _upkeep: AbortOnDropHandle<()>,
}

/// Reads the upstreams of every view.
pub(in crate::role) struct ViewsStatus(Vec<(Vec<SocketAddr>, forward::Forwarder)>);

impl ViewsStatus {
    pub(in crate::role) fn now(&self) -> Vec<ViewStatus> {
        let status = |(listen, forwarder): &(Vec<SocketAddr>, forward::Forwarder)| ViewStatus {
            listen: listen.clone(),
            zones: forwarder.zones(),
            keep: forwarder.keep(),
        };
        self.0.iter().map(status).collect()
    }
}

/// Binds the sockets of every view; with `join` beside those of the process before.
///
/// # Errors
/// If an address cannot be had.
pub(super) fn bind(config: &Config, join: bool, certificate: Option<&Certificate>) -> anyhow::Result<Bound> {
    let bind = |(dns, forward): (dns::Config, _)| {
        let listen = dns.listen.clone();
        Ok((listen, dns::bind(encrypted::with(dns::Config { join, ..dns }, certificate))?, forward))
    };
    config.views().into_iter().map(bind).collect::<anyhow::Result<_>>().map(Bound)
}

impl Bound {
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().flat_map(|(_, bound, _)| bound.addresses().iter().copied())
    }

    pub(super) fn encrypted_addresses(&self) -> impl Iterator<Item = (dns::Transport, SocketAddr)> {
        self.0.iter().flat_map(|(_, bound, _)| bound.encrypted_addresses())
    }

    /// Begins to answer, with the cache of `main`.
    ///
    /// # Errors
    /// Errors in a view's forwarding.
    pub(super) fn serve(
        self,
        main: &forward::Forwarder,
        context: &Arc<Context>,
        clock: &Clock,
        metrics: &dns::Metrics,
    ) -> anyhow::Result<Views> {
        let mut views = Vec::new();
        for (index, (listen, bound, config)) in self.0.into_iter().enumerate() {
            let forwarder = main.view(&config, &format!("view {index}")).map_err(|errors| several(&errors))?;
            let behind = forwarder.clone();
            let upkeep = AbortOnDropHandle::new(tokio::spawn(async move { behind.run().await }));
            let resolver = Arc::new(forwarder.clone());
            let addresses = bound.addresses().to_vec();
            let dns = bound.serve(Arc::clone(context), resolver, clock.clone(), metrics.clone());
            views.push(View { listen, addresses, dns, forwarder, _upkeep: upkeep });
        }
        Ok(Views(views))
    }
}

impl Views {
    /// Their upstreams, for `status`.
    pub(super) fn status(&self) -> ViewsStatus {
        ViewsStatus(self.0.iter().map(|view| (view.addresses.clone(), view.forwarder.clone())).collect())
    }

    /// Takes over their forwarding. Addresses stay as they are: a view without a counterpart at the same ones goes on as it
    /// was until the next start.
    pub(super) fn reload(&self, next: &Config) {
        let next = next.views();
        for view in &self.0 {
            let Some((_, forward)) = next.iter().find(|(dns, _)| dns.listen == view.listen) else {
                let listen: Vec<String> = view.listen.iter().map(ToString::to_string).collect();
                warn!(
                    listen = listen.join(", "),
                    "this view is no longer in the configuration; it answers until the next start"
                );
                continue;
            };
            if let Err(errors) = view.forwarder.reload(forward) {
                let errors = several(&errors);
                warn!(%errors, "new forwarding of a view refused: the old one stays in effect");
            }
        }
    }

    /// Drains the listeners, as [`dns::Running::drain`] does.
    pub(super) async fn drain(self, limit: Duration) {
        join_all(self.0.into_iter().map(|view| view.dns.drain(limit))).await;
    }
}
