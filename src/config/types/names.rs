//! Zones, hubs and upstreams as they are written in the configuration.

use std::{fmt, net::SocketAddr};

use super::super::value::Scalar;
use crate::{
    dns::forward::{ConfigError, UpstreamSource},
    sys,
};

/// A DNS zone: lower case, no final dot; the root is `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ZoneName(String);

impl ZoneName {
    /// The name without a final dot, or `.`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0 == "."
    }
}

impl Scalar for ZoneName {
    const KIND: &'static str = "DNS zone";

    fn parse(text: &str) -> Result<Self, String> {
        if text == "." {
            return Ok(Self(".".into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let letters = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let label = |label: &str| (1..=63).contains(&label.len()) && letters(label);
        // 253 characters and the final dot make the 255 bytes of RFC 1035, 2.3.4.
        if name.len() <= 253 && name.split('.').all(label) {
            Ok(Self(name.to_ascii_lowercase()))
        } else {
            Err(format!("{text:?} is not a DNS zone such as cluster.local (labels of 1 to 63 letters, digits, - or _)"))
        }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A host or an address with a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

/// Default port of a hub.
const HUB_PORT: u16 = 7443;

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Scalar for HostPort {
    const KIND: &'static str = "HOST[:PORT]";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(address) = sys::parse_address(text, HUB_PORT) {
            let host = match address {
                SocketAddr::V6(v6) if v6.scope_id() > 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
                _ => address.ip().to_string(),
            };
            return Ok(Self { host, port: address.port() });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (text, Some(HUB_PORT)),
        };
        match (ZoneName::parse(host), port) {
            (Ok(name), Some(port)) if !name.is_root() => Ok(Self { host: name.0, port }),
            _ => Err(format!("{text:?} is not HOST:PORT such as 10.96.0.11:{HUB_PORT}")),
        }
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Scalar for UpstreamSource {
    const KIND: &'static str = "upstream";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: ConfigError| error.to_string())
    }

    fn text(&self) -> String {
        match self {
            Self::Server(server) => server.to_string(),
            Self::Named(named) => named.to_string(),
            Self::ResolvConf(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_lower_case_without_final_dot() {
        for (text, expect) in [("Cluster.Local.", "cluster.local"), (".", "."), ("_x.a-b", "_x.a-b")] {
            assert_eq!(ZoneName::parse(text).unwrap().as_str(), expect);
        }
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for text in ["", "..", "a..b", ".a", "a b", "ä", &"a".repeat(64), &long] {
            assert!(ZoneName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn upstreams_are_shown_as_they_would_be_written() {
        for text in [
            "10.0.0.53:53",
            "[fd00::53]:53",
            "tls://10.0.0.54:853#dns.corp.example",
            "dns.corp.example:53",
            "/etc/resolv.conf",
        ] {
            assert_eq!(UpstreamSource::parse(text).unwrap().text(), text);
        }
        assert!(UpstreamSource::parse("dns.corp.example/").is_err());
    }

    #[test]
    fn hubs_are_named_by_host_or_address() {
        for (text, expect) in [
            ("10.96.0.11", "10.96.0.11:7443"),
            ("hub.example:1", "hub.example:1"),
            ("hub", "hub:7443"),
            ("[fd00::1]:8", "[fd00::1]:8"),
            ("fe80::1%lo", "[fe80::1%1]:7443"),
        ] {
            assert_eq!(HostPort::parse(text).unwrap().text(), expect);
        }
        for text in ["", ":7443", "hub:", "hub:x", "a b:1", "hub:70000"] {
            assert!(HostPort::parse(text).is_err(), "{text:?}");
        }
    }
}
