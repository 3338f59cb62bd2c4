//! An upstream as an operator gives it: a server by address or by name, or a resolv.conf.
//!
//! Pure; resolves no name.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use super::config::ConfigError;
use crate::{
    dns::forward::upstream::{HTTPS_PATH, Server, TlsName, is_https_path},
    sys, wire,
};

/// RFC 1035, 4.2.
const PORT: u16 = 53;
/// RFC 7858, 3.1.
const PORT_TLS: u16 = 853;
/// RFC 9110, 4.2.2.
const PORT_HTTPS: u16 = 443;

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
    /// The server at this address.
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

/// `NAME` or `NAME:port`. Text that could be meant as an address is no name.
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
