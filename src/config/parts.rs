//! What each module is told, composed from the settings. Names and units change hands here and nowhere else.

use std::net::SocketAddr;

use super::{
    Config,
    settings::ForwardZone,
    types::{Addr, Compat, Endpoints, Pods, Policy, Upstream, ZoneName},
};
use crate::{admin, dns, source, store, wire, zone};

impl Config {
    /// The cluster zone, served at `listen`.
    #[must_use]
    pub fn zone(&self, listen: &[SocketAddr]) -> zone::Config {
        let settings = &self.settings;
        zone::Config {
            zone: name(&settings.zone),
            pods: match settings.pods {
                Pods::Insecure => zone::Pods::Insecure,
                Pods::Disabled => zone::Pods::Disabled,
            },
            ttl: u32::try_from(settings.ttl.as_secs()).unwrap_or(u32::MAX),
            reverse: settings.reverse.clone(),
            compat: match settings.compat {
                Compat::None => zone::Compat::None,
                Compat::CoreDns => zone::Compat::CoreDns,
            },
            name_servers: listen.iter().map(SocketAddr::ip).collect(),
        }
    }

    /// How the age of the records shows in answers.
    #[must_use]
    pub fn answers(&self) -> dns::AnswerConfig {
        dns::AnswerConfig {
            stale_after: self.settings.stale_after,
            cluster_fallback: !self.settings.cluster_fallback.is_empty(),
        }
    }

    /// The DNS listeners.
    #[must_use]
    pub fn dns(&self) -> dns::Config {
        let settings = &self.settings;
        let defaults = dns::Config::default();
        dns::Config {
            listen: settings.listen_addresses(),
            tcp: dns::TcpConfig {
                connections_max: settings.tcp_max_connections,
                connections_per_source_max: settings.tcp_max_per_source,
                idle: settings.tcp_idle,
                ..defaults.tcp
            },
            ..defaults
        }
    }

    /// The forwarder.
    #[must_use]
    pub fn forward(&self) -> dns::forward::Config {
        dns::forward::Config {
            zones: self.settings.forward.iter().map(forward_zone).collect(),
            ..dns::forward::Config::default()
        }
    }

    /// The store on disk; `None` if nothing is to be kept.
    #[must_use]
    pub fn disk(&self) -> Option<store::disk::Config> {
        let path = self.settings.store_path.clone()?;
        Some(store::disk::Config { path, admin: Some(self.settings.admin.clone()), ..store::disk::Config::default() })
    }

    /// The listeners of the tools, of probes and of metrics.
    #[must_use]
    pub fn admin(&self) -> admin::Config {
        let settings = &self.settings;
        admin::Config {
            admin: settings.admin.clone(),
            http: settings.http.map(|Addr(address)| address),
            metrics: settings.metrics.map(|Addr(address)| address),
        }
    }

    /// Which endpoints the source keeps.
    #[must_use]
    pub fn endpoints(&self) -> source::EndpointsMode {
        match self.settings.endpoints {
            Endpoints::Headless => source::EndpointsMode::Headless,
            Endpoints::All => source::EndpointsMode::All,
        }
    }
}

fn forward_zone(zone: &ForwardZone) -> dns::forward::ZoneConfig {
    dns::forward::ZoneConfig {
        zone: hickory_name(&zone.zone),
        upstreams: zone.upstreams.iter().map(upstream).collect(),
        policy: match zone.policy {
            Policy::Random => dns::forward::Policy::Random,
            Policy::RoundRobin => dns::forward::Policy::RoundRobin,
            Policy::Sequential => dns::forward::Policy::Sequential,
        },
        force_tcp: zone.force_tcp,
        case_randomization: zone.case_randomization,
        max_concurrent: zone.max_concurrent,
        ..dns::forward::ZoneConfig::default()
    }
}

fn upstream(upstream: &Upstream) -> dns::forward::UpstreamSource {
    match upstream {
        Upstream::Plain(address) => {
            dns::forward::UpstreamSource::Server(dns::forward::Server { address: *address, tls: None })
        }
        Upstream::Tls { address, name } => dns::forward::UpstreamSource::Server(dns::forward::Server {
            address: *address,
            tls: Some(dns::forward::TlsName::Dns(name.clone())),
        }),
        Upstream::ResolvConf(path) => dns::forward::UpstreamSource::ResolvConf(path.clone()),
    }
}

fn name(zone: &ZoneName) -> wire::Name {
    let labels = zone.as_str().split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    wire::Name::from_labels(labels).expect("a zone name was checked to be a domain name when it was read")
}

fn hickory_name(zone: &ZoneName) -> hickory_proto::rr::Name {
    let labels = zone.as_str().split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = hickory_proto::rr::Name::from_labels(labels).expect("checked as above");
    name.set_fqdn(true);
    name
}
