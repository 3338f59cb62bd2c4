//! Settings of forwarding.
//!
//! Types and defaults only; reads no file and resolves no name.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::Name;
use ipnet::IpNet;

use super::{
    UpstreamSource,
    acl::Acl,
    dns64::Prefix,
    edns::EdnsOption,
    hosts::Host,
    next::{Next, Verdicts},
    rewrite::Rewrite,
    servers::Missing,
    template::Template,
};
use crate::{
    dns::{
        cache::Lifetimes,
        forward::{observe::AnswerClass, upstream::TlsFiles},
    },
    report::Policy,
    sys::labels,
    wire::{self, Rcode, UDP_BYTES_MAX},
};

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Upstreams by zone; the longest zone that holds a name wins.
    pub zones: Vec<ZoneConfig>,
    /// Upstreams for names of the cluster while there are no records yet.
    pub cluster_fallback: Vec<UpstreamSource>,
    /// Names that are resolved ahead and kept.
    pub keep: Vec<wire::Name>,
    /// Log every Nth question; 0 for none.
    pub query_log_every: u32,
    /// Answers that are logged; empty for all.
    pub query_log_classes: Vec<AnswerClass>,
    /// The socket of a dnstap collector.
    pub dnstap: Option<PathBuf>,
    /// Tell it of every Nth answer.
    pub dnstap_every: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zones: vec![ZoneConfig::default()],
            cluster_fallback: Vec::new(),
            keep: Vec::new(),
            query_log_every: 0,
            query_log_classes: Vec::new(),
            dnstap: None,
            dnstap_every: 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, named as in the configuration")]
pub struct ZoneConfig {
    /// The zone, `.` for everything else.
    pub zone: Name,
    pub upstreams: Vec<UpstreamSource>,
    /// The order of the upstreams.
    pub policy: Policy,
    /// Ask over TCP, never over UDP.
    pub force_tcp: bool,
    /// Randomize the case of names asked over UDP, which makes forged answers 2^letters harder.
    pub case_randomization: bool,
    /// Questions of this zone in flight at once; more get SERVFAIL.
    pub max_concurrent: usize,
    /// The longest time a client waits for an answer.
    pub budget: Duration,
    /// How long its answers are kept.
    pub lifetimes: Lifetimes,
    /// Every question is answered with this code, and no upstream is asked.
    pub answer: Option<FixedAnswer>,
    /// Questions in a row without an answer that make an upstream failing; 0 for never.
    pub max_fails: u32,
    /// A TCP or TLS connection without queries is closed after this time (RFC 7766, 6.2.3).
    pub connection_idle_max: Duration,
    /// A connection gets no new queries when it is this old.
    pub connection_age_max: Duration,
    /// Connections without queries that are kept; 0 for no limit.
    pub idle_connections_max: usize,
    /// The address questions are sent from; `None` as the system chooses.
    pub source_address: Option<IpAddr>,
    /// Answers after which the next upstream is asked, as after a failure.
    pub failover: Verdicts,
    /// Tries of one question that may fail without a connection; 0 for no limit.
    pub attempts_max: u32,
    /// Silence after which the next server of a sequential zone is asked.
    pub silence_max: Duration,
    /// With every upstream failing, questions fail at once.
    pub fail_fast: bool,
    /// Options of EDNS that go with each question.
    pub edns_options: Vec<EdnsOption>,
    pub probe: Probe,
    pub doh_method: DohMethod,
    /// Upstreams that are asked after these, in turn.
    pub next: Vec<Next>,
    pub hosts: Vec<Host>,
    /// Names answered here: a file like `/etc/hosts`, re-read on change.
    pub hosts_file: Option<PathBuf>,
    /// TTL of answers from hosts.
    pub hosts_ttl: Duration,
    /// Reverse names of the addresses of hosts are answered too.
    pub hosts_reverse: bool,
    /// Rules that change the question; they come before templates, and those before hosts.
    pub rewrites: Vec<Rewrite>,
    /// Zones of which the longest that holds a rewritten name answers it, or else this zone itself. Empty: the zone that the new
    /// name is in.
    pub rewrite_zones: Vec<Name>,
    /// Which clients may ask; empty for all.
    pub acl: Vec<Acl>,
    /// ANY is answered with one record that says so (RFC 8482), and not asked of upstreams.
    pub minimal_any: bool,
    /// Addresses and mail servers of an answer begin at another one each time.
    pub rotate: bool,
    /// Addresses of answers in the first of these networks come first, then those of the second.
    pub prefer: Arc<[IpNet]>,
    /// A file with the weights of addresses, re-read on change.
    pub weights_file: Option<PathBuf>,
    /// The longest answer over UDP.
    pub udp_bytes_max: usize,
    pub templates: Vec<Template>,
    /// Answers with an address in these networks are refused.
    pub reject: Arc<[IpNet]>,
    /// Make IPv6 addresses of IPv4 ones where a name has no others.
    pub dns64: Option<Prefix>,
    /// Do so where a name has IPv6 addresses as well.
    pub dns64_all: bool,
    /// Do so for clients that ask over IPv4.
    pub dns64_over_ipv4: bool,
    /// Certificate authorities for `tls://` upstreams, a PEM file; `None` for those of the system.
    pub tls_ca: Option<PathBuf>,
    /// The resolvers that look up upstreams given by name, by address themselves.
    pub resolvers: Vec<UpstreamSource>,
    /// The certificate that upstreams over TLS are shown, and its key.
    pub tls_certificate: Option<(PathBuf, PathBuf)>,
}

impl ZoneConfig {
    /// The files for TLS to its upstreams.
    pub fn tls_files(&self) -> TlsFiles<'_> {
        let client = self.tls_certificate.as_ref();
        TlsFiles { ca: self.tls_ca.as_deref(), client: client.map(|(certificate, key)| (&**certificate, &**key)) }
    }
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self {
            zone: Name::root(),
            upstreams: vec![UpstreamSource::ResolvConf(PathBuf::from("/etc/resolv.conf"))],
            policy: Policy::default(),
            force_tcp: false,
            case_randomization: true,
            max_concurrent: 1_000,
            budget: Duration::from_secs(5),
            lifetimes: Lifetimes::default(),
            answer: None,
            max_fails: 3,
            connection_idle_max: Duration::from_secs(10),
            connection_age_max: Duration::from_secs(300),
            idle_connections_max: 0,
            source_address: None,
            failover: Verdicts::default(),
            attempts_max: 0,
            silence_max: Duration::from_secs(2),
            fail_fast: false,
            edns_options: Vec::new(),
            probe: Probe::default(),
            doh_method: DohMethod::Post,
            next: Vec::new(),
            hosts: Vec::new(),
            hosts_file: None,
            hosts_ttl: Duration::from_secs(30),
            hosts_reverse: true,
            rewrites: Vec::new(),
            rewrite_zones: Vec::new(),
            acl: Vec::new(),
            minimal_any: false,
            rotate: false,
            prefer: Arc::default(),
            weights_file: None,
            udp_bytes_max: UDP_BYTES_MAX,
            templates: Vec::new(),
            reject: Arc::default(),
            dns64: None,
            dns64_all: false,
            dns64_over_ipv4: true,
            tls_ca: None,
            resolvers: vec![UpstreamSource::ResolvConf(PathBuf::from("/etc/resolv.conf"))],
            tls_certificate: None,
        }
    }
}

labels! {
    /// How questions go over HTTPS (RFC 8484, 4.1).
    pub enum DohMethod {
        Post = "post",
        /// Caches on the way may answer.
        Get = "get",
    }
}

/// A question to a failing upstream that tells whether it answers again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// `None`: every second, and less often the longer an upstream is gone.
    pub every: Option<Duration>,
    /// The name whose NS records are asked for.
    pub name: Name,
    /// RD is set.
    pub recursion: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self { every: None, name: Name::root(), recursion: true }
    }
}

labels! {
    /// The answer of a zone that asks no upstream.
    pub enum FixedAnswer {
        NoError = "noerror",
        NxDomain = "nxdomain",
        Refused = "refused",
        ServFail = "servfail",
    }
}

impl FixedAnswer {
    #[must_use]
    pub fn rcode(self) -> Rcode {
        match self {
            Self::NoError => Rcode::NOERROR,
            Self::NxDomain => Rcode::NXDOMAIN,
            Self::Refused => Rcode::REFUSED,
            Self::ServFail => Rcode::SERVFAIL,
        }
    }
}

/// An error of the forwarding configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not an address, not a path.
    #[error(
        "upstream {0:?}: expected IP, IP:port, a name, tls://IP#name, https://IP/path#name or the absolute path of a resolv.conf"
    )]
    Upstream(String),
    #[error("upstream {0:?}: a name after # needs tls:// or https:// in front")]
    NameWithoutTls(String),
    /// The name after `#` cannot be in a certificate.
    #[error("upstream {0:?}: {1:?} is not a DNS name")]
    TlsName(String, String),
    /// A zone with nobody to ask.
    #[error("forward zone {0}: no upstreams")]
    NoUpstreams(String),
    /// Two entries for one zone.
    #[error("forward zone {0}: given twice")]
    DuplicateZone(String),
    /// An upstream is one of our own addresses.
    #[error(
        "forward zone {zone}: upstream {upstream} is an address holdfast itself listens on: give the address of another resolver"
    )]
    SelfUpstream { zone: String, upstream: SocketAddr },
    /// A resolv.conf cannot be read.
    #[error("forward zone {zone}: {path}: {reason}")]
    ResolvConf { zone: String, path: PathBuf, reason: String },
    /// The files of TLS cannot be read.
    #[error("forward zone {zone}: TLS of its upstreams: {missing}")]
    Tls { zone: String, missing: Missing },
    /// The resolvers of names cannot be names.
    #[error("forward zone {0}: resolvers are addresses or a resolv.conf")]
    NamedResolver(String),
    /// Zero where something is needed.
    #[error("{0} must be greater than 0")]
    Zero(&'static str),
}
