//! The configuration of each module, made from the settings. The only place that converts names and units.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    Config, Settings, Source,
    settings::{ForwardZone, View},
    types::{Addr, HostPort, Tls, ZoneName},
    value::Scalar as _,
};
use crate::{admin, dns, dns::forward::UpstreamSource, node, source, store, stream, sys, wire, zone};

impl Settings {
    /// `forward_only` is for an agent without records (`source: none`).
    pub fn answers(&self, forward_only: bool) -> dns::AnswerConfig {
        dns::AnswerConfig {
            stale_after: self.stale_after,
            cluster_fallback: !self.cluster_fallback.is_empty(),
            search_path_completion: self.search_path_completion,
            forward_only,
        }
    }

    pub fn forwarding(&self) -> dns::forward::Config {
        dns::forward::Config {
            zones: self.forward.iter().map(|zone| self.forward_zone(zone)).collect(),
            cluster_fallback: self.cluster_fallback.clone(),
            keep: self.keep.0.clone(),
            query_log_every: self.log_query_every,
            query_log_classes: self.log_query_classes.clone(),
            dnstap: self.log_dnstap.clone(),
            dnstap_every: self.log_dnstap_every,
        }
    }

    fn forward_zone(&self, zone: &ForwardZone) -> dns::forward::ZoneConfig {
        dns::forward::ZoneConfig {
            zone: hickory_name(&zone.zone),
            upstreams: zone.upstreams.clone(),
            policy: zone.policy,
            force_tcp: zone.force_tcp,
            case_randomization: zone.case_randomization,
            max_concurrent: zone.max_concurrent,
            hosts: zone.hosts.clone(),
            hosts_file: zone.hosts_file.clone(),
            hosts_ttl: zone.hosts_ttl,
            answer: zone.answer,
            max_fails: zone.max_fails,
            connection_idle_max: zone.connection_idle,
            connection_age_max: zone.connection_age,
            idle_connections_max: zone.idle_connections,
            source_address: zone.source_address,
            failover: zone.failover.iter().copied().collect(),
            attempts_max: zone.max_attempts,
            silence_max: zone.read_timeout,
            fail_fast: zone.fail_fast,
            probe: dns::forward::Probe {
                every: zone.probe_interval,
                name: hickory_name(&zone.probe_name),
                recursion: zone.probe_recursion,
            },
            edns_options: zone.edns.clone(),
            doh_method: zone.doh_method,
            next: zone.next.clone(),
            hosts_reverse: zone.hosts_reverse,
            rewrites: zone.rewrite.clone(),
            rewrite_zones: zone.rewrite_zones.iter().map(hickory_name).collect(),
            acl: zone.acl.clone(),
            minimal_any: zone.minimal_any,
            rotate: zone.rotate,
            prefer: zone.prefer.iter().map(|network| network.0).collect(),
            weights_file: zone.weights_file.clone(),
            udp_bytes_max: zone.udp_bytes_max,
            templates: zone.template.clone(),
            reject: zone.reject.iter().map(|network| network.0).collect(),
            dns64: zone.dns64,
            dns64_all: zone.dns64_all,
            dns64_over_ipv4: zone.dns64_over_ipv4,
            tls_ca: zone.tls_ca.clone(),
            resolvers: zone.resolvers.clone(),
            tls_certificate: zone.tls_certificate.clone().zip(zone.tls_key.clone()),
            budget: self.upstream_timeout,
            lifetimes: dns::cache::Lifetimes {
                max_ttl: zone.max_ttl.unwrap_or(self.cache_max_ttl),
                min_ttl: zone.min_ttl.unwrap_or(self.cache_min_ttl),
                negative_ttl: zone.negative_ttl.unwrap_or(self.cache_negative_ttl),
                min_negative_ttl: zone.min_negative_ttl,
                keep: zone.cache,
                keep_positive: zone.cache_positive,
                keep_negative: zone.cache_negative,
                keep_ttl: zone.keep_ttl,
                failure_ttl: zone.failure_ttl,
                stale_ttl: zone.stale_ttl,
                serve_stale: zone.serve_stale.unwrap_or(self.cache_serve_stale),
                stale_max: zone.stale_max.unwrap_or(self.cache_stale_max),
                client_timeout: zone.client_timeout.unwrap_or(self.cache_client_timeout),
                denials: self.denials(zone),
                nxdomain_cut: self.cache_nxdomain_cut,
                prefetch: zone.prefetch.unwrap_or(self.cache_prefetch),
            },
        }
    }

    fn denials(&self, zone: &ForwardZone) -> dns::cache::Denials {
        use dns::cache::Denials;
        let of_cluster = name(&zone.zone).labels_above(&name(&self.zone)).is_some();
        match zone.denials {
            Denials::Auto if !self.cache_confirm_negative => Denials::Believe,
            Denials::Auto if of_cluster => Denials::Confirm,
            denials => denials,
        }
    }

    /// The rules of the cluster zone, served at `listen`.
    pub fn zone_rules(&self, listen: &[SocketAddr]) -> zone::Config {
        zone::Config {
            zone: name(&self.zone),
            pods: self.pods,
            ttl: u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX),
            reverse: self.reverse.clone(),
            compat: self.compat,
            name_servers: self.name_servers(listen),
        }
    }

    /// The addresses that `ns.dns` of the zone has. Where only wildcards are listened on, those of the interface, or else
    /// those the system sends from.
    fn name_servers(&self, listen: &[SocketAddr]) -> Vec<IpAddr> {
        let (any, own): (Vec<IpAddr>, Vec<IpAddr>) =
            listen.iter().map(SocketAddr::ip).partition(IpAddr::is_unspecified);
        if any.is_empty() || !own.is_empty() {
            return own;
        }
        if !self.node_local_ips.is_empty() {
            return self.node_local_ips.clone();
        }
        let sent_from: Vec<IpAddr> = any.iter().filter_map(|any| sys::sends_from(any.is_ipv4())).collect();
        // Without a way out there is still the machine itself.
        let loopback =
            |any: &IpAddr| if any.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        if sent_from.is_empty() { any.iter().map(loopback).collect() } else { sent_from }
    }
}

impl Settings {
    /// The parts of the node to set up.
    pub fn node(&self) -> node::Config {
        let listen = self.every_listen_address();
        let mut local_ips = self.node_local_ips.clone();
        if local_ips.is_empty() {
            let own = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
            local_ips = listen.iter().map(SocketAddr::ip).filter(own).collect();
        }
        let mut failsafe_ips = self.node_failsafe_ips.clone();
        if failsafe_ips.is_empty() {
            failsafe_ips = local_ips.iter().copied().filter(|ip| !node::is_link_local(*ip)).collect();
        }
        node::Config {
            interface: self.node_interface.as_str().to_owned(),
            setup_interface: self.node_setup_interface,
            setup_notrack: self.node_setup_notrack,
            dns_port: listen.first().map_or(53, SocketAddr::port),
            health: self.http.map(|Addr(address)| address),
            intercept_failsafe: self.node_intercept_failsafe,
            failsafe_ips,
            local_ips,
            skip_teardown: self.node_skip_teardown,
            zone: self.zone.as_str().trim_end_matches('.').to_owned(),
            fallback: self.cluster_dns(),
            agent: node::agent_name(&listen),
            hosts_file: self.node_hosts_file.clone(),
        }
    }
}

impl Settings {
    /// The servers of the cluster's DNS, over plain DNS.
    fn cluster_dns(&self) -> Vec<SocketAddr> {
        if !self.node_fallback.is_empty() {
            return self.node_fallback.iter().map(|Addr(address)| *address).collect();
        }
        let plain = |source: &UpstreamSource| match source {
            UpstreamSource::Server(server) if server.tls.is_none() => Some(server.address),
            _ => None,
        };
        self.cluster_fallback.iter().filter_map(plain).collect()
    }
}

impl Config {
    /// The cluster zone, served at `listen`.
    pub fn zone(&self, listen: &[SocketAddr]) -> zone::Config {
        self.settings.zone_rules(listen)
    }

    pub fn answers(&self) -> dns::AnswerConfig {
        self.settings.answers(self.source == Source::None)
    }

    /// How cookies are answered, if they are; makes their secret.
    pub fn cookies(&self) -> Option<dns::Cookies> {
        self.settings.cookies.then(|| dns::Cookies::open(self.settings.store_path.as_deref()))
    }

    /// The DNS listeners.
    pub fn dns(&self) -> dns::Config {
        let settings = &self.settings;
        let defaults = dns::Config::default();
        dns::Config {
            early: settings.node_setup_interface,
            access: self.access(),
            encrypted: encrypted(&settings.encrypted_tls, &settings.encrypted_https, &settings.encrypted_quic),
            open_rate: settings.open_rate,
            listen: settings.listen_addresses(),
            tcp: dns::TcpConfig {
                connections_max: settings.tcp_max_connections,
                connections_per_source_max: settings.tcp_max_per_source,
                idle: settings.tcp_idle,
                partial: settings.tcp_read,
                write: settings.tcp_write,
                ..defaults.tcp
            },
            ..defaults
        }
    }

    /// The allowed clients.
    fn access(&self) -> dns::Access {
        let settings = &self.settings;
        let on_node = if settings.node_setup_interface { settings.node().local_ips } else { Vec::new() };
        let own =
            |ip: &IpAddr| node::is_link_local(*ip) || on_node.contains(ip) || settings.node_local_ips.contains(ip);
        dns::Access {
            allow: settings.allow.clone(),
            node_local_at: settings.every_listen_address().iter().map(SocketAddr::ip).filter(own).collect(),
            node_local: Some(node::node_local),
        }
    }

    pub fn forward(&self) -> dns::forward::Config {
        self.settings.forwarding()
    }

    /// The listeners and the forwarder of each view.
    pub fn views(&self) -> Vec<(dns::Config, dns::forward::Config)> {
        let view = |view: &View| {
            let listen = view.listen.iter().map(|address| address.0).collect();
            let zones = view.forward.iter().map(|zone| self.settings.forward_zone(zone)).collect();
            let encrypted = encrypted(&view.tls, &view.https, &view.quic);
            (dns::Config { listen, encrypted, ..self.dns() }, dns::forward::Config { zones, ..self.forward() })
        };
        self.settings.views.iter().map(view).collect()
    }

    /// The cache of upstream answers.
    pub fn cache(&self) -> dns::cache::Config {
        dns::cache::Config {
            max_bytes: self.settings.cache_max_bytes.0,
            save_interval: self.settings.cache_save_interval,
            worker_caches: self.dns().workers * (1 + self.settings.views.len()),
        }
    }

    /// Where that cache is saved; `None` if nothing is to be kept.
    pub fn cache_file(&self) -> Option<PathBuf> {
        Some(self.settings.store_path.as_ref()?.join("cache.zst"))
    }

    /// Where the upstreams are saved that files named last; `None` if nothing is to be kept.
    pub fn upstreams_file(&self) -> Option<PathBuf> {
        Some(self.settings.store_path.as_ref()?.join("upstreams.json"))
    }

    /// The store on disk; `None` if nothing is to be kept.
    pub fn disk(&self) -> Option<store::disk::Config> {
        let mut config = store::disk::Config::default();
        config.path.clone_from(self.settings.store_path.as_ref()?);
        config.admin = Some(self.settings.admin.clone());
        Some(config)
    }

    /// The limits of the guard.
    pub fn guard(&self) -> store::guard::Config {
        let settings = &self.settings;
        store::guard::Config {
            list_services_min: settings.guard_list_services_min,
            list_percent: settings.guard_list_percent,
            class_min: settings.guard_class_min,
            confirm_after: settings.guard_confirm_after,
            confirm_percent_max: settings.guard_confirm_percent_max,
            confirm_tolerance_percent: settings.guard_confirm_tolerance_percent,
            deletes_min: settings.guard_deletes_min,
            deletes_percent: settings.guard_deletes_percent,
            deletes_within: settings.guard_deletes_within,
            deletes_held_for: settings.guard_deletes_held_for,
            meant_min: settings.guard_meant_min,
            meant_percent: settings.guard_meant_percent,
            protect: settings.guard_protect.clone(),
            losses_services_min: settings.guard_losses_services_min,
            losses_percent: settings.guard_losses_percent,
            losses_within: settings.guard_losses_within,
            losses_held_for: settings.guard_losses_held_for,
        }
    }

    /// The listeners of the tools, of probes and of metrics.
    pub fn admin(&self) -> admin::Config {
        let settings = &self.settings;
        admin::Config {
            admin: settings.admin.clone(),
            http: settings.http.map(|Addr(address)| address),
            metrics: settings.metrics.map(|Addr(address)| address),
            more_http: settings.http_more.iter().map(|address| address.0).collect(),
            more_metrics: settings.metrics_more.iter().map(|address| address.0).collect(),
            coredns_server: self.coredns_server(),
            http_allow: settings.http_allow.clone(),
            metrics_allow: settings.metrics_allow.clone(),
            join: false,
            early: settings.node_setup_interface,
        }
    }

    /// The stream to agents and other hubs, of a hub called `name`.
    pub fn stream(&self, name: &str) -> stream::Config {
        stream::Config {
            listen: self.settings.stream_addresses(),
            node: name.to_owned(),
            advertise: self.settings.advertise.iter().map(HostPort::to_string).collect(),
            ..stream::Config::default()
        }
    }

    /// Takes the addresses a hub really listens on for those it is reached at, if none were given.
    pub fn advertise_bound(&mut self, bound: &[SocketAddr]) {
        if self.settings.advertise.is_empty() {
            let reached = bound.iter().filter(|listen| !listen.ip().is_unspecified());
            let hubs = reached.map(|listen| HostPort { host: listen.ip().to_string(), port: listen.port() });
            self.settings.advertise = hubs.collect();
        }
    }

    /// How hubs are followed by a process called `name`.
    pub fn follow(&self, name: &str) -> source::hub::Config {
        let settings = &self.settings;
        source::hub::Config {
            addresses: settings.source_hub_addresses.iter().map(HostPort::to_string).collect(),
            node: name.to_owned(),
            serves: settings.advertise.first().map(HostPort::to_string).unwrap_or_default(),
            stale_after: settings.stale_after,
            ..source::hub::Config::default()
        }
    }

    /// The files and directories that must be there, each with its key.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let settings = &self.settings;
        let of_stream = self.certificates().into_iter().flat_map(|directory| {
            ["ca.crt", "tls.crt", "tls.key"].map(|name| ("tls".to_owned(), directory.join(name)))
        });
        let of_encrypted = settings.encrypted_certificate.iter().flat_map(|directory| {
            ["tls.crt", "tls.key"].map(|name| ("encrypted.certificate".to_owned(), directory.join(name)))
        });
        let source = match &self.source {
            Source::Manifests(path) => Some(("source.manifests.path".to_owned(), path.clone())),
            Source::Kubernetes(Some(path)) => Some(("source.kubernetes.kubeconfig".to_owned(), path.clone())),
            _ => None,
        };
        let of_zones =
            settings.forward.iter().chain(settings.views.iter().flat_map(|view| &view.forward)).flat_map(|zone| {
                let of_upstreams = zone.upstreams.iter().filter_map(|upstream| match upstream {
                    UpstreamSource::ResolvConf(file) => Some(("upstreams", file)),
                    UpstreamSource::Server(_) | UpstreamSource::Named(_) => None,
                });
                let named = zone.hosts_file.iter().map(|file| ("hosts_file", file));
                let of_tls =
                    [("tls_ca", &zone.tls_ca), ("tls_certificate", &zone.tls_certificate), ("tls_key", &zone.tls_key)];
                let of_tls = of_tls.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)));
                let named = named.chain(of_tls).chain(of_upstreams);
                named.map(|(key, file)| (format!("forward zone {}: {key}", zone.zone.text()), file.clone()))
            });
        of_stream.chain(of_encrypted).chain(source).chain(of_zones).collect()
    }

    /// Directory of the certificates; `None` for streams in the clear, on loopback.
    pub fn certificates(&self) -> Option<PathBuf> {
        match &self.settings.tls {
            Some(Tls::Dir(path)) => Some(path.clone()),
            Some(Tls::Insecure) | None => None,
        }
    }

    /// CoreDNS's name of the server at our first address, with `metrics_compat: coredns`.
    fn coredns_server(&self) -> Option<String> {
        let first = self.settings.listen.first().filter(|_| self.settings.metrics_compat == zone::Compat::CoreDns)?;
        Some(format!("dns://{}", first.0))
    }

    /// Which endpoints the source keeps.
    pub fn endpoints(&self) -> source::EndpointsMode {
        self.settings.endpoints
    }
}

/// The listeners of encrypted DNS; their certificate is opened by the role.
fn encrypted(tls: &[Addr<853>], https: &[Addr<443>], quic: &[Addr<853>]) -> dns::EncryptedConfig {
    dns::EncryptedConfig {
        tls: tls.iter().map(|address| address.0).collect(),
        https: https.iter().map(|address| address.0).collect(),
        quic: quic.iter().map(|address| address.0).collect(),
        certificate: None,
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
    use crate::config::{Role, Source, default_forward};

    #[test]
    fn the_name_server_has_the_addresses_listened_on_and_for_a_wildcard_those_of_the_machine() {
        let servers = |settings: &Settings, listen: &[&str]| {
            let listen: Vec<SocketAddr> = listen.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 53)).collect();
            settings.zone_rules(&listen).name_servers
        };
        let settings = Settings::default();
        assert_eq!(servers(&settings, &["169.254.20.10", "0.0.0.0"]), ["169.254.20.10".parse::<IpAddr>().unwrap()]);
        for any in ["0.0.0.0", "::"] {
            let found = servers(&settings, &[any]);
            assert!(!found.is_empty(), "{any}");
            assert!(
                found.iter().all(|ip| !ip.is_unspecified() && ip.is_ipv4() == (any == "0.0.0.0")),
                "{any}: {found:?}"
            );
        }
        let given = Settings { node_local_ips: vec!["10.96.0.10".parse().unwrap()], ..settings };
        assert_eq!(servers(&given, &["0.0.0.0", "::"]), given.node_local_ips);
    }

    /// A default stands in the table and in the module that follows it; this holds them together.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_modules() {
        let mut settings = Settings::default();
        default_forward(&mut settings, &[]);
        let config =
            Config { role: Role::Agent, settings, source: Source::Manifests("x".into()), file: None, hubs: None };
        let paced = |disk: store::disk::Config| (disk.path, disk.records_every, disk.age_every);
        let same = [
            (format!("{:?}", config.answers()), format!("{:?}", dns::AnswerConfig::default())),
            (format!("{:?}", config.dns()), format!("{:?}", dns::Config::default())),
            (format!("{:?}", config.forward()), format!("{:?}", dns::forward::Config::default())),
            (format!("{:?}", config.cache()), format!("{:?}", dns::cache::Config::default())),
            (format!("{:?}", config.zone(&[])), format!("{:?}", zone::Config::default())),
            (format!("{:?}", config.disk().map(paced)), format!("{:?}", Some(paced(store::disk::Config::default())))),
            (format!("{:?}", config.guard()), format!("{:?}", store::guard::Config::default())),
            (format!("{:?}", config.admin()), format!("{:?}", admin::Config::default())),
            (
                format!("{:?}", node::Config { agent: None, ..config.settings.node() }),
                format!("{:?}", node::Config::default()),
            ),
            (format!("{:?}", config.endpoints()), format!("{:?}", source::EndpointsMode::default())),
        ];
        for (ours, theirs) in same {
            assert_eq!(ours, theirs);
        }
    }
}
