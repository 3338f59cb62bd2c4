//! Zones, hosts and upstreams as they are written in the configuration.

use std::{fmt, net::SocketAddr, path::PathBuf};

use super::{super::value::Scalar, socket};

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
    /// The port.
    pub port: u16,
}

/// The port a hub listens on unless told otherwise.
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
        if let Some(address) = socket(text, HUB_PORT) {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
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

/// Where a forwarded question goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Plain DNS over UDP, and TCP where the answer needs it.
    Plain(SocketAddr),
    /// DNS over TLS (RFC 7858), the certificate checked for this name.
    Tls {
        /// Where.
        address: SocketAddr,
        /// The name in the certificate.
        name: String,
    },
    /// The `nameserver` lines of a file in the form of resolv.conf(5).
    ResolvConf(PathBuf),
}

impl Scalar for Upstream {
    const KIND: &'static str = "upstream";

    fn parse(text: &str) -> Result<Self, String> {
        let fail = || {
            format!(
                "{text:?} is not an upstream such as 10.0.0.53, 10.0.0.53:5353, tls://10.0.0.53#name or /etc/resolv.conf"
            )
        };
        if text.starts_with('/') {
            return Ok(Self::ResolvConf(text.into()));
        }
        if let Some(rest) = text.strip_prefix("tls://") {
            let (address, name) = rest.split_once('#').ok_or_else(|| {
                format!("{text:?} does not say the name in the upstream's certificate: write tls://IP#name")
            })?;
            let address = socket(address, 853).ok_or_else(fail)?;
            let name = ZoneName::parse(name).ok().filter(|name| !name.is_root()).ok_or_else(fail)?.0;
            return Ok(Self::Tls { address, name });
        }
        socket(text, 53).map(Self::Plain).ok_or_else(fail)
    }

    fn text(&self) -> String {
        match self {
            Self::Plain(address) => address.to_string(),
            Self::Tls { address, name } => format!("tls://{address}#{name}"),
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
    fn upstreams_come_in_three_forms() {
        for (text, expect) in [
            ("10.0.0.53", "10.0.0.53:53"),
            ("fd00::53", "[fd00::53]:53"),
            ("tls://10.0.0.54#dns.corp.example", "tls://10.0.0.54:853#dns.corp.example"),
            ("/etc/resolv.conf", "/etc/resolv.conf"),
        ] {
            let upstream = Upstream::parse(text).unwrap();
            assert_eq!(upstream.text(), expect);
            assert_eq!(Upstream::parse(expect), Ok(upstream));
        }
        for text in
            ["", "dns.corp.example", "tls://10.0.0.54", "tls://x#y", "tls://10.0.0.54#", "resolv.conf", "udp://1.1.1.1"]
        {
            assert!(Upstream::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hubs_are_named_by_host_or_address() {
        for (text, expect) in [
            ("10.96.0.11", "10.96.0.11:7443"),
            ("hub.example:1", "hub.example:1"),
            ("hub", "hub:7443"),
            ("[fd00::1]:8", "[fd00::1]:8"),
        ] {
            assert_eq!(HostPort::parse(text).unwrap().text(), expect);
        }
        for text in ["", ":7443", "hub:", "hub:x", "a b:1", "hub:70000"] {
            assert!(HostPort::parse(text).is_err(), "{text:?}");
        }
    }
}
