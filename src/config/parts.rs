//! What each module is told, composed from the settings. Names and units change hands here and nowhere else.

use std::net::SocketAddr;

use super::{
    Config, Settings,
    settings::ForwardZone,
    types::{Addr, Compat, Pods, ZoneName},
};
use crate::{admin, dns, source, store, wire, zone};

impl Settings {
    /// The rules of the cluster zone, served at `listen`.
    #[must_use]
    pub fn zone_rules(&self, listen: &[SocketAddr]) -> zone::Config {
        zone::Config {
            zone: name(&self.zone),
            pods: match self.pods {
                Pods::Insecure => zone::Pods::Insecure,
                Pods::Disabled => zone::Pods::Disabled,
            },
            ttl: u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX),
            reverse: self.reverse.clone(),
            compat: match self.compat {
                Compat::None => zone::Compat::None,
                Compat::CoreDns => zone::Compat::CoreDns,
            },
            name_servers: listen.iter().map(SocketAddr::ip).collect(),
        }
    }
}

impl Config {
    /// The cluster zone, served at `listen`.
    #[must_use]
    pub fn zone(&self, listen: &[SocketAddr]) -> zone::Config {
        self.settings.zone_rules(listen)
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
            budget: self.settings.upstream_timeout,
            ..dns::forward::Config::default()
        }
    }

    /// The forwarder for names of the cluster while there are no records; `None` to ask nobody.
    #[must_use]
    pub fn fallback(&self) -> Option<dns::forward::Config> {
        let upstreams = self.settings.cluster_fallback.clone();
        let zone = dns::forward::ZoneConfig { upstreams, ..dns::forward::ZoneConfig::default() };
        let config = dns::forward::Config { zones: vec![zone], ..self.forward() };
        (!self.settings.cluster_fallback.is_empty()).then_some(config)
    }

    /// The store on disk; `None` if nothing is to be kept.
    #[must_use]
    pub fn disk(&self) -> Option<store::disk::Config> {
        let mut config = store::disk::Config::default();
        config.path.clone_from(self.settings.store_path.as_ref()?);
        config.admin = Some(self.settings.admin.clone());
        Some(config)
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
        self.settings.endpoints
    }
}

fn forward_zone(zone: &ForwardZone) -> dns::forward::ZoneConfig {
    dns::forward::ZoneConfig {
        zone: hickory_name(&zone.zone),
        upstreams: zone.upstreams.clone(),
        policy: zone.policy,
        force_tcp: zone.force_tcp,
        case_randomization: zone.case_randomization,
        max_concurrent: zone.max_concurrent,
        tls_ca: zone.tls_ca.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, Source, default_forward, table::Section as _};

    /// A default stands in the table and in the module that follows it; this holds them together.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_modules() {
        let mut settings = Settings::default();
        default_forward(&mut settings, &[]);
        let config = Config { role: Role::Agent, settings, source: Source::Manifests("x".into()) };
        let paced = |disk: store::disk::Config| (disk.path, disk.records_every, disk.age_every);
        let same = [
            (format!("{:?}", config.answers()), format!("{:?}", dns::AnswerConfig::default())),
            (format!("{:?}", config.dns()), format!("{:?}", dns::Config::default())),
            (format!("{:?}", config.forward()), format!("{:?}", dns::forward::Config::default())),
            (format!("{:?}", config.zone(&[])), format!("{:?}", zone::Config::default())),
            (format!("{:?}", config.disk().map(paced)), format!("{:?}", Some(paced(store::disk::Config::default())))),
            (format!("{:?}", config.admin()), format!("{:?}", admin::Config::default())),
            (format!("{:?}", config.endpoints()), format!("{:?}", source::EndpointsMode::default())),
        ];
        for (ours, theirs) in same {
            assert_eq!(ours, theirs);
        }
        let [connections, per_source, idle] =
            [dns::CONNECTIONS.max.to_string(), dns::CONNECTIONS_PER_SOURCE.max.to_string(), "10m".into()];
        let most =
            |key| Settings::described().iter().find(|row| row.setting.key == key).unwrap().setting.bounds.unwrap().max;
        assert_eq!(
            [most("tcp.max_connections"), most("tcp.max_per_source"), most("tcp.idle")],
            [&connections, &per_source, &idle]
        );
    }
}
