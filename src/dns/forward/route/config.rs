//! Settings of forwarding, checked.
//!
//! Reads no files but those a test of an address needs; never resolves names: an upstream is an address.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::Name;
use ipnet::IpNet;

use super::{
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
        forward::{
            observe::AnswerClass,
            upstream::{HTTPS_PATH, Server, TlsFiles, TlsName, is_https_path},
        },
    },
    report::Policy,
    sys::{self, labels},
    wire::{self, Rcode, UDP_BYTES_MAX},
};

/// Port of plain DNS, RFC 1035, 4.2.
const PORT: u16 = 53;
/// Port of DNS over TLS, RFC 7858, 3.1.
const PORT_TLS: u16 = 853;
/// Port of HTTPS, RFC 9110, 4.2.2.
const PORT_HTTPS: u16 = 443;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Upstreams by zone; the longest zone that holds a name wins. Default: `.` by `/etc/resolv.conf`.
    pub zones: Vec<ZoneConfig>,
    /// Upstreams for names of the cluster while there are no records yet. Default: none.
    pub cluster_fallback: Vec<UpstreamSource>,
    /// Names that are resolved ahead and kept. Default none.
    pub keep: Vec<wire::Name>,
    /// Log one question in so many. Default 0: none.
    pub query_log_every: u32,
    /// Answers that are logged. Default all.
    pub query_log_classes: Vec<AnswerClass>,
    /// The socket of a dnstap collector. Default none.
    pub dnstap: Option<PathBuf>,
    /// Tell it of one answer in so many. Default 1: each.
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
    /// The zone, `.` for everything else. Default `.`.
    pub zone: Name,
    /// The upstreams. Default `/etc/resolv.conf`.
    pub upstreams: Vec<UpstreamSource>,
    /// In which order. Default `random`.
    pub policy: Policy,
    /// Ask over TCP at once. Default off.
    pub force_tcp: bool,
    /// Randomize the case of names asked over UDP, which makes forged answers 2^letters harder. Default on.
    pub case_randomization: bool,
    /// Questions of this zone in flight at once; more get SERVFAIL. Default 1,000.
    pub max_concurrent: usize,
    /// How long a client waits at most before it is told something. Default 5 s.
    pub budget: Duration,
    /// How long its answers are kept.
    pub lifetimes: Lifetimes,
    /// Everything is answered with this code and nobody is asked. Default off.
    pub answer: Option<FixedAnswer>,
    /// Questions without an answer, one after another, that make an upstream failing; 0 for never. Default 3.
    pub max_fails: u32,
    /// A TCP or TLS connection without queries is closed after this time. Default 10 s (RFC 7766, 6.2.3).
    pub connection_idle_max: Duration,
    /// A connection gets no new queries when it is this old. Default 5 min.
    pub connection_age_max: Duration,
    /// Connections without queries that are kept; 0 for no limit. Default 0.
    pub idle_connections_max: usize,
    /// The address questions are sent from. Default as the system chooses.
    pub source_address: Option<IpAddr>,
    /// Answers that make the next upstream be asked, as failures do. Default none.
    pub failover: Verdicts,
    /// Tries of one question that may fail for want of a connection; 0 for no limit. Default 0.
    pub attempts_max: u32,
    /// Silence after which the next server of a sequential zone is asked. Default 2 s.
    pub silence_max: Duration,
    /// With every upstream failing, questions fail at once. Default off.
    pub fail_fast: bool,
    /// Options of EDNS that go with each question. Default none.
    pub edns_options: Vec<EdnsOption>,
    /// How failing upstreams are probed.
    pub probe: Probe,
    /// How questions go over HTTPS. Default POST.
    pub doh_method: DohMethod,
    /// Upstreams that are asked after these, in turn. Default none.
    pub next: Vec<Next>,
    pub hosts: Vec<Host>,
    /// Names answered here: a file like `/etc/hosts`, re-read on change. Default none.
    pub hosts_file: Option<PathBuf>,
    /// TTL of answers from hosts. Default 30 s.
    pub hosts_ttl: Duration,
    /// Reverse names of the addresses of hosts are answered too. Default on.
    pub hosts_reverse: bool,
    /// Questions asked otherwise; rewrites come before templates, and those before hosts.
    pub rewrites: Vec<Rewrite>,
    /// Zones of which the longest that holds a rewritten name answers it, or else this zone itself. Default none: the name's
    /// own zone does.
    pub rewrite_zones: Vec<Name>,
    /// Which clients may ask. Default all.
    pub acl: Vec<Acl>,
    /// ANY is answered with one record that says so (RFC 8482), and not asked of upstreams. Default off.
    pub minimal_any: bool,
    /// Addresses and mail servers of an answer begin at another one each time. Default off.
    pub rotate: bool,
    /// Addresses of answers in the first of these networks come first, then those of the second. Default none.
    pub prefer: Arc<[IpNet]>,
    /// A file of how often which address comes first, re-read on change. Default none.
    pub weights_file: Option<PathBuf>,
    /// Answers over UDP have at most so many bytes. Default 1,232.
    pub udp_bytes_max: usize,
    pub templates: Vec<Template>,
    /// Answers with an address in these networks are refused. Default none.
    pub reject: Arc<[IpNet]>,
    /// Make IPv6 addresses of IPv4 ones where a name has no others. Default off.
    pub dns64: Option<Prefix>,
    /// Do so where a name has IPv6 addresses as well. Default off.
    pub dns64_all: bool,
    /// Do so for clients that ask over IPv4. Default on.
    pub dns64_over_ipv4: bool,
    /// Certificate authorities for `tls://` upstreams, a PEM file. Default: those of the system.
    pub tls_ca: Option<PathBuf>,
    /// The resolvers that look up upstreams given by name; none of them is a name itself. Default `/etc/resolv.conf`.
    pub resolvers: Vec<UpstreamSource>,
    /// The certificate that upstreams over TLS are shown, and its key. Default: none.
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
    /// How often. Default 1 s, and less often the longer an upstream is gone.
    pub every: Option<Duration>,
    /// The name whose NS records are asked for. Default the root.
    pub name: Name,
    /// RD is set. Default on.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamSource {
    /// `IP`, `IP:port`, `[IPv6]:port`, or `tls://` or `https://` before any of them and optionally `#name` behind.
    Server(Server),
    /// The same with a name in the place of `IP`.
    Named(Box<NamedServer>),
    /// The path of a resolv.conf whose nameservers are meant.
    ResolvConf(PathBuf),
}

/// A server at each address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedServer {
    pub host: wire::Name,
    pub port: u16,
    /// Over TLS, with the name its certificate must hold: `host` unless another is given.
    pub tls: Option<String>,
    /// Over HTTPS, with this path.
    pub https: Option<String>,
}

impl NamedServer {
    /// The one at `ip`.
    pub fn at(&self, ip: IpAddr) -> Server {
        let tls = self.tls.clone().map(TlsName::Dns);
        Server { address: SocketAddr::new(ip, self.port), tls, https: self.https.clone() }
    }

    /// Its name without the dot at the end.
    fn host(&self) -> String {
        self.host.to_string().trim_end_matches('.').to_owned()
    }
}

impl fmt::Display for NamedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (self.host(), self.port);
        match (&self.tls, self.https.as_deref()) {
            (None, _) => write!(f, "{host}:{port}"),
            (Some(_), None) => write!(f, "tls://{host}:{port}"),
            (Some(_), Some(HTTPS_PATH)) => write!(f, "https://{host}:{port}"),
            (Some(_), Some(path)) => write!(f, "https://{host}:{port}{path}"),
        }?;
        match &self.tls {
            Some(name) if *name != host => write!(f, "#{name}"),
            _ => Ok(()),
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

impl fmt::Display for UpstreamSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Named(named) => named.fmt(f),
            Self::ResolvConf(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for UpstreamSource {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::ResolvConf(PathBuf::from(text)));
        }
        let wrong = || ConfigError::Upstream(text.to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("dns", text));
        let (tls, port) = match scheme {
            "dns" => (false, PORT),
            "tls" => (true, PORT_TLS),
            "https" => (true, PORT_HTTPS),
            _ => return Err(wrong()),
        };
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name)),
            None => (rest, None),
        };
        let (address, https) = match rest.find('/') {
            _ if scheme != "https" => (rest, None),
            None => (rest, Some(HTTPS_PATH)),
            Some(at) => (&rest[..at], Some(&rest[at..])),
        };
        if https.is_some_and(|path| !is_https_path(path)) {
            return Err(wrong());
        }
        if name.is_some() && !tls {
            return Err(ConfigError::NameWithoutTls(text.to_owned()));
        }
        let https = https.map(str::to_owned);
        let tls_name = |name: &str| match rustls::pki_types::DnsName::try_from(name) {
            Ok(_) => Ok(name.to_owned()),
            Err(_) => Err(ConfigError::TlsName(text.to_owned(), name.to_owned())),
        };
        let Some(address) = parse_address(address, port) else {
            let (host, port) = parse_host(address, port).ok_or_else(wrong)?;
            let mut named = NamedServer { host, port, tls: None, https };
            if tls {
                named.tls = Some(tls_name(name.unwrap_or(&named.host()))?);
            }
            return Ok(Self::Named(named.into()));
        };
        let tls = match (tls, name) {
            (false, _) => None,
            (true, None) => Some(TlsName::Address),
            (true, Some(name)) => Some(TlsName::Dns(tls_name(name)?)),
        };
        Ok(Self::Server(Server { address, tls, https }))
    }
}

/// `IP`, `IP:port` or `[IPv6]:port`, with a scope such as `%eth0`; port 0 is no address to ask.
pub(super) fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let address = sys::parse_address(text, port)?;
    (address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()).then_some(address)
}

/// `NAME` or `NAME:port`. What could be meant as an address is no name.
fn parse_host(text: &str, port: u16) -> Option<(wire::Name, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, port),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if !host.split('.').all(is_label) || host.rsplit('.').next().is_none_or(is_number) {
        return None;
    }
    Some((host.to_ascii_lowercase().parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_upstream_is_read() {
        let cases = [
            ("10.0.0.53", "10.0.0.53:53"),
            ("10.0.0.53:5300", "10.0.0.53:5300"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5300", "[2001:db8::53]:5300"),
            ("tls://10.0.0.54#dns.corp.example", "tls://10.0.0.54:853#dns.corp.example"),
            ("tls://10.0.0.54:8853", "tls://10.0.0.54:8853"),
            ("fe80::1%lo", "[fe80::1%1]:53"),
            ("tls://[fe80::1%lo]:8853#dns.corp.example", "tls://[fe80::1%1]:8853#dns.corp.example"),
            ("dns://10.0.0.54", "10.0.0.54:53"),
            ("https://10.0.0.54#dns.corp.example", "https://10.0.0.54:443#dns.corp.example"),
            ("https://10.0.0.54/dns-query", "https://10.0.0.54:443"),
            ("https://[2001:db8::1]:8443/q/a?b=c#dns.example", "https://[2001:db8::1]:8443/q/a?b=c#dns.example"),
        ];
        for (text, shown) in cases {
            let UpstreamSource::Server(server) = text.parse().unwrap() else { panic!("{text} is a server") };
            assert_eq!(server.to_string(), shown);
        }
        for (text, shown) in [
            ("Dns.Example.", "dns.example:53"),
            ("dns:5300", "dns:5300"),
            ("tls://dns.example", "tls://dns.example:853"),
            ("tls://_dns.example:8853#corp.example", "tls://_dns.example:8853#corp.example"),
            ("https://dns.example/q?a=b", "https://dns.example:443/q?a=b"),
            ("https://dns.example/dns-query#corp.example", "https://dns.example:443#corp.example"),
        ] {
            let UpstreamSource::Named(named) = text.parse().unwrap() else { panic!("{text} is a name") };
            assert_eq!(named.to_string(), shown);
            assert_eq!(shown.parse(), Ok(UpstreamSource::Named(named)));
        }
        assert_eq!(
            "/run/resolv.conf".parse::<UpstreamSource>().unwrap(),
            UpstreamSource::ResolvConf("/run/resolv.conf".into())
        );
    }

    #[test]
    fn what_is_no_upstream_is_refused_by_name() {
        for text in [
            "",
            "dns..example",
            "dns example",
            "-dns.example",
            "dns.example:0",
            "dns.example:x",
            "dns.10",
            "10.0.0.300",
            "10.0.0.1:0",
            "0.0.0.0",
            "224.0.0.1",
            "etc/resolv.conf",
            "tls://",
            "https://dns.example/a b",
            "https://10.0.0.1/a b",
            "quic://10.0.0.1",
        ] {
            let error = text.parse::<UpstreamSource>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!(
            "10.0.0.1#dns.example".parse::<UpstreamSource>(),
            Err(ConfigError::NameWithoutTls("10.0.0.1#dns.example".into()))
        );
        assert!(matches!("tls://10.0.0.1#not a name".parse::<UpstreamSource>(), Err(ConfigError::TlsName(..))));
    }
}
