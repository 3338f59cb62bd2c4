//! Names answered or renamed on the node, and the clients that may ask: hosts, rewrites, templates, DNS64 prefixes, access rules.

use hickory_proto::rr::Name;

use super::{super::value::Scalar, ZoneName};
use crate::dns::forward::{Acl, EdnsOption, Host, Next, Prefix, Rewrite, Template, parse_host_ip};

impl Scalar for Host {
    const KIND: &'static str = "line of a hosts file";

    fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let address = words.next().and_then(parse_host_ip);
        let names: Result<Vec<Name>, String> = words.map(name).collect();
        match (address, names?) {
            (Some(address), names) if !names.is_empty() => Ok(Self { address, names }),
            _ => Err(format!("{text:?} is not an address and its names, such as \"10.0.0.9 printer.example printer\"")),
        }
    }

    fn text(&self) -> String {
        let names: Vec<String> = self.names.iter().map(shown).collect();
        format!("{} {}", self.address, names.join(" "))
    }
}

scalars!(
    ToString::to_string;
    Rewrite: "rewrite",
    Acl: "access rule",
    EdnsOption: "option of EDNS",
    Next: "answers and upstreams",
    Template: "template",
    Prefix: "IPv6 prefix",
);

fn name(text: &str) -> Result<Name, String> {
    let zone = ZoneName::parse(text)?;
    let mut name = Name::from_ascii(zone.as_str()).map_err(|error| format!("{text:?} is no name: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(".").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: Scalar>(text: &str) -> Result<String, String> {
        T::parse(text).map(|value| value.text())
    }

    #[test]
    fn hosts_and_rewrites_are_shown_as_they_would_be_written() {
        assert_eq!(round::<Host>("10.0.0.9  Printer.example. printer").unwrap(), "10.0.0.9 printer.example printer");
        assert_eq!(round::<Rewrite>("exact a.example b.example").unwrap(), "exact a.example b.example");
        assert_eq!(round::<Rewrite>("suffix old.test .").unwrap(), "suffix old.test .");
        assert_eq!(round::<Prefix>("64:ff9b::/96").unwrap(), "64:ff9b::/96");
        for text in ["", "10.0.0.9", "printer 10.0.0.9", "10.0.0.9 a..b"] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "a b", "exact a", "suffix a b c", "regex ( b", "exact a..b c"] {
            assert!(Rewrite::parse(text).is_err(), "{text:?}");
        }
    }
}
