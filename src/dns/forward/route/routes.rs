//! Which upstreams may speak for a name: the route of the longest configured zone that holds it.

use std::sync::Arc;

use super::{
    Route,
    config::{Config, ConfigError, ZoneConfig},
    names::{ByZone, ZoneNames},
};
use crate::{
    dns::{
        cache::{Cache, Denials, Lifetimes, RouteId},
        forward::Environment,
        question::question_name,
    },
    wire,
};

#[derive(Debug)]
pub struct Routes {
    by_zone: ByZone<Arc<Route>>,
    /// Asked for names of the cluster until there are records.
    pub cluster_fallback: Option<Arc<Route>>,
    /// The names that are kept resolved.
    pub keep: Vec<wire::Name>,
}

/// The choice of the upstreams that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The upstreams of the longest zone that holds the name.
    Zone,
    /// The upstreams of this route, also for names of other zones.
    Route(RouteId),
    /// The upstreams of `cluster_fallback`, which stand in for the records of the cluster.
    Fallback,
}

impl Routes {
    /// Checks `config` and builds the routes. `view` tells their answers in `cache` from those of other listeners. A route that has
    /// no upstreams in `before` may stay without: its file names none yet.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(
        config: &Config,
        environment: &Environment,
        cache: &Cache,
        view: &[u8],
        before: Option<&Self>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut by_zone = ByZone::default();
        // No zone ends in anything but the root's empty label.
        let id = |zone: &[u8]| cache.route(&[zone, view].concat());
        for zone in &config.zones {
            let name = question_name(&zone.zone);
            let before = before.and_then(|before| before.by_zone.get(&name));
            match Route::new(zone, id(name.wire()), environment, cache, before) {
                Ok(route) => {
                    if by_zone.insert(&name, Arc::new(route)).is_some() {
                        errors.push(ConfigError::DuplicateZone(zone.zone.to_string()));
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        let mut cluster_fallback = None;
        if !config.cluster_fallback.is_empty() {
            // Services go, and headless ones without a ready endpoint do not exist: the cluster's DNS knows.
            let lifetimes = Lifetimes { denials: Denials::Confirm, ..Lifetimes::default() };
            let zone = ZoneConfig { upstreams: config.cluster_fallback.clone(), lifetimes, ..ZoneConfig::default() };
            // No zone has an empty wire form.
            let before = before.and_then(|before| before.cluster_fallback.as_ref());
            match Route::new(&zone, id(&[]), environment, cache, before) {
                Ok(route) => cluster_fallback = Some(Arc::new(route)),
                Err(error) => errors.push(error),
            }
        }
        if by_zone.iter().any(|route| route.names.has_classes()) {
            environment.records.rules().admit_other_classes();
        }
        if errors.is_empty() { Ok(Self { by_zone, cluster_fallback, keep: config.keep.clone() }) } else { Err(errors) }
    }

    #[inline]
    pub fn find(&self, name: &wire::Name) -> Option<&Arc<Route>> {
        self.by_zone.find(name)
    }

    /// The route of exactly this zone.
    pub fn of_zone(&self, zone: &wire::Name) -> Option<&Arc<Route>> {
        self.by_zone.get(zone)
    }

    /// The zone that answers the name which a name of `names` was rewritten to, and whose upstreams are asked.
    pub fn answering<'z>(&'z self, names: &'z ZoneNames, new: &wire::Name) -> (&'z ZoneNames, Via) {
        let route = names.answering(new).and_then(|zone| self.of_zone(&zone));
        route.map_or((names, Via::Zone), |route| (&route.names, Via::Route(route.id)))
    }

    /// The route that `name` is asked over.
    pub fn via(&self, via: Via, name: &wire::Name) -> Option<&Arc<Route>> {
        match via {
            Via::Zone => self.find(name),
            Via::Route(id) => self.by_zone.iter().find(|route| route.id == id),
            Via::Fallback => self.cluster_fallback.as_ref(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.by_zone.iter()
    }

    /// Every route that is asked for names of clients.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.iter().chain(&self.cluster_fallback).flat_map(Route::and_next)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_proto::rr::Name;

    use super::*;
    use crate::dns::forward::{Metrics, ResolvConfCache};

    fn zone(name: &str, upstreams: &[&str]) -> ZoneConfig {
        ZoneConfig {
            zone: Name::from_ascii(name).unwrap(),
            upstreams: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
            ..ZoneConfig::default()
        }
    }

    fn routes(zones: Vec<ZoneConfig>, listen: &[&str]) -> Result<Routes, Vec<ConfigError>> {
        let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let cache_metrics = crate::dns::cache::Metrics::register(&prometheus::Registry::new()).unwrap();
        let cache = Cache::new(&crate::dns::cache::Config::default(), cache_metrics.clone());
        let (zone, reader) = (crate::zone::Zone::new(&crate::zone::Config::default()), crate::store::open().1);
        let context = crate::dns::Context::new(zone, reader, crate::dns::AnswerConfig::default());
        let environment = Environment {
            clock: crate::sys::Clock::System,
            metrics,
            cache_metrics,
            cache_file: None,
            resolv_conf_cache: ResolvConfCache::default(),
            listen,
            records: Arc::new(context),
        };
        Routes::new(&Config { zones, ..Config::default() }, &environment, &cache, b"", None)
    }

    #[tokio::test]
    async fn the_longest_zone_wins() {
        let routes = routes(
            vec![
                zone(".", &["10.0.0.1"]),
                zone("corp.example.", &["10.0.0.2"]),
                zone("Lab.Corp.example.", &["10.0.0.3"]),
            ],
            &[],
        )
        .unwrap();
        let cases = [
            ("www.example.", "."),
            ("corp.example.", "corp.example."),
            ("a.b.corp.example.", "corp.example."),
            ("xcorp.example.", "."),
            ("host.LAB.corp.example.", "lab.corp.example."),
            (".", "."),
        ];
        for (name, expect) in cases {
            let route = routes.find(&name.parse().unwrap()).unwrap();
            assert_eq!(route.config.zone, Name::from_ascii(expect).unwrap(), "{name}");
        }
    }

    #[tokio::test]
    async fn every_mistake_is_reported_with_its_zone() {
        let errors = routes(
            vec![
                zone("a.example.", &[]),
                zone("b.example.", &["127.0.0.1:5353"]),
                zone("d.example.", &["10.0.0.1"]),
                zone("d.example.", &["10.0.0.1"]),
            ],
            &["0.0.0.0:5353"],
        )
        .unwrap_err();
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 3, "{text:?}");
        for (error, needle) in text.iter().zip([
            "a.example.: no upstreams",
            "b.example.: upstream 127.0.0.1:5353 is an address",
            "d.example.: given twice",
        ]) {
            assert!(error.contains(needle), "{error}");
        }
    }

    #[tokio::test]
    async fn another_port_of_this_host_is_no_self_upstream() {
        assert!(routes(vec![zone(".", &["127.0.0.1:5354"])], &["127.0.0.1:5353"]).is_ok());
    }
}
