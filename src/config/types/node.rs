//! Types of node settings: allowed clients, and the name of the interface.

use ipnet::IpNet;

use super::super::value::Scalar;
use crate::dns::Allow;

/// Longest name of an interface in bytes (`IFNAMSIZ` less its end).
const INTERFACE_BYTES_MAX: usize = 15;

impl Scalar for Allow {
    const KIND: &'static str = "node-local or CIDR";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "node-local" => Ok(Self::NodeLocal),
            _ => IpNet::parse(text)
                .map(Self::Net)
                .map_err(|error| format!("{error}; \"node-local\" is the other choice")),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::NodeLocal => "node-local".into(),
            Self::Net(net) => net.to_string(),
        }
    }
}

/// The name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for InterfaceName {
    const KIND: &'static str = "interface name";

    /// The names that the kernel accepts (`dev_valid_name`).
    fn parse(text: &str) -> Result<Self, String> {
        let fits = (1..=INTERFACE_BYTES_MAX).contains(&text.len()) && !matches!(text, "." | "..");
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':')) {
            Ok(Self(text.into()))
        } else {
            Err(format!("{text:?} is no name of an interface: 1 to {INTERFACE_BYTES_MAX} bytes without / : or spaces"))
        }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        for good in ["nodelocaldns", "a", "eth0.100", "123456789012345"] {
            assert_eq!(InterfaceName::parse(good).map(|name| name.text()), Ok(good.to_owned()));
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "1234567890123456", "ä"] {
            assert!(InterfaceName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_that_may_ask_are_shown_as_written() {
        for text in ["node-local", "10.0.0.0/8", "fd00::/64"] {
            assert_eq!(Allow::parse(text).map(|allow| allow.text()), Ok(text.to_owned()));
        }
        assert!(Allow::parse("local").unwrap_err().ends_with("\"node-local\" is the other choice"));
    }
}
